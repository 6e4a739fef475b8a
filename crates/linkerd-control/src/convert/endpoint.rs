//! Endpoints.

use super::{Invalid, duration, net::socket_addr, optional_metadata};
use linkerd_policy::{
    Endpoint, Id, Labels,
    endpoint::{EndpointTls, Http2KeepAlive, Http2Params, ProtocolHint},
};
use linkerd_proto::destination as dst;
use std::{collections::HashMap, sync::Arc};

/// Endpoints whose address cannot be read are left out; of the others, what cannot be read.
pub(crate) fn endpoints(set: dst::WeightedAddrSet) -> Vec<Endpoint> {
    let shared = set.metric_labels;
    set.addrs
        .into_iter()
        .filter_map(|addr| match endpoint(addr, &shared) {
            Ok(endpoint) => Some(endpoint),
            Err(error) => {
                tracing::warn!(%error, "endpoint left out");
                None
            }
        })
        .collect()
}

pub(super) fn endpoint(
    addr: dst::WeightedAddr,
    shared: &HashMap<String, String>,
) -> Result<Endpoint, Invalid> {
    let mut labels: Labels = shared
        .iter()
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    labels.extend(addr.metric_labels);
    let hint = addr.protocol_hint.unwrap_or_default();
    Ok(Endpoint {
        addr: socket_addr(addr.addr.ok_or_else(|| Invalid::missing("endpoint address"))?)?,
        weight: addr.weight,
        labels: Arc::new(labels),
        tls: addr.tls_identity.and_then(tls),
        hint: match hint.protocol {
            Some(dst::protocol_hint::Protocol::H2(_)) => ProtocolHint::Http2,
            Some(dst::protocol_hint::Protocol::Opaque(_)) => ProtocolHint::Opaque,
            None => ProtocolHint::Unknown,
        },
        opaque_port: hint
            .opaque_transport
            .and_then(|transport| u16::try_from(transport.inbound_port).ok())
            .filter(|port| (1..u16::MAX).contains(port)),
        authority_override: addr
            .authority_override
            .map(|o| o.authority_override)
            .filter(|authority| authority.parse::<http::uri::Authority>().is_ok())
            .map(Into::into),
        http2: addr.http2.map(http2).transpose()?.unwrap_or_default(),
        resource: optional_metadata(addr.resource_ref),
    })
}

/// An identity that cannot be used is none, as in Linkerd's proxy: the connection then is plain text.
fn tls(identity: dst::TlsIdentity) -> Option<EndpointTls> {
    let told_name = identity.server_name.map(|name| name.name);
    let server_id = match identity.strategy? {
        dst::tls_identity::Strategy::DnsLikeIdentity(dns) => Id::dns(&dns.name).ok()?,
        dst::tls_identity::Strategy::UriLikeIdentity(uri) => Id::uri(&uri.uri).ok()?,
    };
    let server_name = match (&told_name, &server_id) {
        (Some(name), _) => Id::dns(name).ok()?.as_str().into(),
        (None, Id::Dns(name)) => name.clone(),
        (None, Id::Uri(_)) => return None,
    };
    Some(EndpointTls {
        server_id,
        server_name,
    })
}

fn http2(params: dst::Http2ClientParams) -> Result<Http2Params, Invalid> {
    let nonzero = |value: u32| Some(value).filter(|value| *value > 0);
    let flow = params.flow_control.unwrap_or_default();
    let internals = params.internals.unwrap_or_default();
    Ok(Http2Params {
        initial_connection_window: nonzero(flow.initial_connection_window_size),
        initial_stream_window: nonzero(flow.initial_stream_window_size),
        adaptive_flow_control: flow.adaptive_flow_control,
        keep_alive: params.keep_alive.map(keep_alive).transpose()?.flatten(),
        max_frame_size: nonzero(internals.max_frame_size),
        max_send_buf: nonzero(internals.max_send_buf_size),
        max_concurrent_reset_streams: nonzero(internals.max_concurrent_reset_streams),
    })
}

fn keep_alive(params: dst::http2_client_params::KeepAlive) -> Result<Option<Http2KeepAlive>, Invalid> {
    let (Some(interval), Some(timeout)) = (params.interval, params.timeout) else {
        return Ok(None);
    };
    Ok(Some(Http2KeepAlive {
        interval: duration(interval)?,
        timeout: duration(timeout)?,
        while_idle: params.while_idle,
    }))
}
