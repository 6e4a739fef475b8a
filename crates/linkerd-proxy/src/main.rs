//! The sidecar's executable.

fn main() {}
