//! What the proxy may and should do with traffic, as plain values: no sockets, no clocks, no wire messages.
//!
//! `linkerd-control` makes these from the control plane's messages; the inbound and outbound paths only read them.
//! Everything a request is matched against is compiled when the value is built, never per request.

pub mod authz;
pub mod client;
pub mod default_policy;
pub mod endpoint;
pub mod filter;
pub mod grpc_match;
pub mod host;
pub mod http_match;
pub mod id;
pub mod meta;
pub mod profile;
pub mod route;
pub mod server;

pub use self::{
    authz::{Authentication, Authorization, ClientInfo, ClientTls, Denied, Network},
    client::ClientPolicy,
    default_policy::DefaultPolicy,
    endpoint::{Endpoint, EndpointSet, Labels},
    id::Id,
    meta::Meta,
    profile::Profile,
    server::ServerPolicy,
};
