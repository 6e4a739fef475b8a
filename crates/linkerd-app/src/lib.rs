//! The proxy put together: configuration, listeners, admin server, life cycle.

mod admin;
mod app;
mod application;
mod config;
mod discovery;
pub mod log;
pub mod process;
mod serve;

pub use self::{
    app::{App, BindError, Bound},
    config::{AdminConfig, Config, ConfigError, ConfigErrors, ProxyConfig, TapConfig},
};

/// As the control plane and the CLI show it.
pub const VERSION: &str = concat!("stable-", env!("CARGO_PKG_VERSION"));
