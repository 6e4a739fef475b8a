//! What the proxy may and should do with traffic, as plain values without I/O.
