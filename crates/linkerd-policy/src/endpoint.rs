//! Where a request can go.

use crate::{Id, Meta};
use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

/// Metric labels of an endpoint, without the `dst_` prefix, in the order of their names.
pub type Labels = BTreeMap<String, String>;

/// A weight of 1 on the wire.
pub const WEIGHT_ONE: u32 = 10_000;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub addr: SocketAddr,
    /// [`WEIGHT_ONE`] is the weight of an ordinary endpoint.
    pub weight: u32,
    pub labels: Arc<Labels>,
    /// Absent: plain text.
    pub tls: Option<EndpointTls>,
    pub hint: ProtocolHint,
    /// The port that takes TLS with a transport header, when the endpoint's proxy has one.
    pub opaque_port: Option<u16>,
    pub authority_override: Option<Arc<str>>,
    pub http2: Http2Params,
    pub resource: Option<Arc<Meta>>,
}

impl Endpoint {
    /// An endpoint of which only the address is known.
    #[must_use]
    pub fn bare(addr: SocketAddr) -> Self {
        Self {
            addr,
            weight: WEIGHT_ONE,
            labels: Arc::default(),
            tls: None,
            hint: ProtocolHint::Unknown,
            opaque_port: None,
            authority_override: None,
            http2: Http2Params::default(),
            resource: None,
        }
    }
}

/// What the endpoint's certificate must name, and the name to ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointTls {
    pub server_id: Id,
    /// The server name extension; differs from `server_id` with SPIFFE identities.
    pub server_name: Arc<str>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProtocolHint {
    #[default]
    Unknown,
    /// The endpoint's proxy takes HTTP/1 requests upgraded to HTTP/2.
    Http2,
    /// Its policy is opaque: bytes are handed on as they are.
    Opaque,
}

/// Settings of an HTTP/2 client; absent ones are the proxy's own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Http2Params {
    pub initial_connection_window: Option<u32>,
    pub initial_stream_window: Option<u32>,
    pub adaptive_flow_control: bool,
    pub keep_alive: Option<Http2KeepAlive>,
    pub max_frame_size: Option<u32>,
    pub max_send_buf: Option<u32>,
    pub max_concurrent_reset_streams: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Http2KeepAlive {
    pub interval: Duration,
    pub timeout: Duration,
    pub while_idle: bool,
}

/// The endpoints of a destination as last heard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointSet {
    pub endpoints: BTreeMap<SocketAddr, Arc<Endpoint>>,
    /// False when the control plane knows no such destination.
    pub exists: bool,
}
