//! TLS between proxies: detection, handshakes, identities, certificates that change.
