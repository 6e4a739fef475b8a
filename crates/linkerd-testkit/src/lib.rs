//! A fake control plane and a proxy harness for tests: real sockets and real gRPC on loopback, scripted answers.

#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test's set-up that fails is a failed test"
)]

mod ca;
mod control_plane;
pub mod messages;
mod proxy;
mod topic;

pub use self::{
    ca::Ca,
    control_plane::{ControlPlane, IdentityScript, Services, Traces, text as attribute_text},
    proxy::{Proxy, ProxyBuilder, Workspace},
    topic::Topic,
};
