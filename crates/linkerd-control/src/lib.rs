//! What the control plane says, as values that are always there: a certificate, the endpoints of a destination, the
//! policy of a port.
//!
//! Everything the data path asks for comes as a [`tokio::sync::watch::Receiver`]. A control plane that cannot be
//! reached changes nothing that is known already.

mod cache;
mod channel;
mod config;
mod control;
mod convert;
mod identity;
mod metrics;
mod streams;
mod subscription;
mod traces;

pub use self::{
    channel::ServiceAddr,
    config::{Config, IdentityConfig, StreamLimits},
    control::{Control, PolicyAnswer, Target},
    identity::IdentityStatus,
    traces::{TraceConfig, dropped_spans, export_spans},
};
