//! Glue between the proxy's layers: errors with their cause, the answers and log lines made from them, and the drain
//! signal.

pub mod drain;
mod error;
mod respond;
mod throttle;

pub use self::{
    error::{BoxError, Cause, Error, Retry, Source},
    respond::{Client, Informational, Synthetic, grpc_status_of, is_grpc},
    throttle::Throttle,
};
