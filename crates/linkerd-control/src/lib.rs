//! Streams to the control plane: identity, destinations, policies.
