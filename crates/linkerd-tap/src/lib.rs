//! Live observation of requests.
//!
//! The request paths ask the [`Registry`] whether anybody watches, which costs one relaxed load when nobody does. A
//! watched request carries its [`HttpTaps`] to the end of its response.

mod event;
mod matching;
mod registry;
mod server;
mod session;

pub use self::{
    registry::{Connection, Direction, HttpTaps, Inspect, Registry, TcpTaps},
    server::Server,
};
