//! Power of two choices, latency estimates, circuit breakers.
//!
//! A [`Balancer`] knows a destination's endpoints. For each request it draws two that are available, by weight, and
//! takes the one with the lower load. An endpoint is unavailable while its connection cannot be made or while its
//! breaker is open; when none is available, requests wait, and fail together once that has lasted too long.

mod balancer;
mod circuit;
mod load;

pub use self::{
    balancer::{Balancer, Params, Picked, State, Status},
    circuit::{Accrual, Circuit, Outcome},
    load::Load,
};
