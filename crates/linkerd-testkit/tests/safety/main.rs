//! What a hostile peer can do to the proxy: bytes that two parsers could read differently, floods, and whatever h2spec
//! thinks of.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod frames;
mod h2spec;
mod recorder;
mod rig;
mod smuggling;
