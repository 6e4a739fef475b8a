//! Everything that reads what the network sends, as functions of bytes: each panics when a property of its subject is
//! broken. Their seeds and some thousand mutations of them are ordinary tests; `PROPTEST_CASES` runs more of them, and
//! a fuzzer that finds its way by coverage can call the same functions.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a target that panics has found something"
)]

mod authz;
mod detect;
mod http1;
mod names;
mod route;
mod tls;

/// A subject with examples of what it reads.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    pub name: &'static str,
    pub run: fn(&[u8]),
    pub seeds: &'static [&'static [u8]],
}

pub const TARGETS: &[Target] = &[
    detect::TARGET,
    tls::CLIENT_HELLO,
    tls::TRANSPORT_HEADER,
    http1::TARGET,
    names::TARGET,
    route::TARGET,
    authz::TARGET,
];
