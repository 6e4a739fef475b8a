//! Sockets: listeners, original destinations, peeked streams, the transport header.
