//! What protocol the first bytes are of.

use crate::Target;
use linkerd_http::detect::{Detection, detect};

pub(crate) const TARGET: Target = Target {
    name: "detect",
    run,
    seeds: &[
        b"GET / HTTP/1.1\r\nhost: a\r\n\r\n",
        b"\r\n\r\nPOST /a HTTP/1.0\n\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"EHLO a\r\n",
        b"*1\r\n$4\r\nPING\r\n",
        b"\x16\x03\x01\x02\x00\x01",
        b"CONNECT a:80 HTTP/1.1\r\n",
    ],
};

/// However a client cuts its bytes, the decision is the same.
fn run(bytes: &[u8]) {
    let mut decided = None;
    for len in 0..=bytes.len() {
        match (detect(&bytes[..len]), decided) {
            (Detection::Incomplete, None) => {}
            (decision, None) => decided = Some(decision),
            (decision, Some(first)) => assert_eq!(decision, first, "after {len} bytes"),
        }
    }
}
