//! The proxy put together: configuration, listeners, admin server, life cycle.
