//! Distributed tracing.
//!
//! The proxy never begins a trace. A request that carries a sampled context gets a span on each side, and goes on with
//! that span as its parent; every other request passes as it is.

mod context;
mod span;

pub use self::{
    context::Context,
    span::{Side, Span, Tracer},
};
