//! Requests through two real proxies: application → outbound ⇒ mTLS ⇒ inbound → application.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    unreachable_pub,
    reason = "tests"
)]

mod balance;
mod direct;
mod drain;
mod http;
mod identity;
mod inbound;
mod ingress;
mod life;
mod observe;
mod profile;
mod rig;
mod route;
mod tap;
mod tapping;
mod tcp;
