//! Addresses.

use super::{Invalid, invalid};
use ipnet::IpNet;
use linkerd_proto::net;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

pub(super) fn ip(address: Option<net::IpAddress>) -> Result<IpAddr, Invalid> {
    match address.and_then(|address| address.ip) {
        Some(net::ip_address::Ip::Ipv4(bits)) => Ok(Ipv4Addr::from_bits(bits).into()),
        Some(net::ip_address::Ip::Ipv6(v6)) => {
            Ok(Ipv6Addr::from_bits(u128::from(v6.first) << 64 | u128::from(v6.last)).into())
        }
        None => Err(Invalid::missing("IP address")),
    }
}

pub(crate) fn socket_addr(address: net::TcpAddress) -> Result<SocketAddr, Invalid> {
    let port = u16::try_from(address.port).map_err(invalid("port"))?;
    Ok(SocketAddr::new(ip(address.ip)?, port))
}

pub(crate) fn tcp_address(addr: SocketAddr) -> net::TcpAddress {
    let ip = match addr.ip() {
        IpAddr::V4(v4) => net::ip_address::Ip::Ipv4(v4.to_bits()),
        IpAddr::V6(v6) => {
            let bits = v6.to_bits();
            let half = |bits: u128| u64::try_from(bits & u128::from(u64::MAX)).unwrap_or_default();
            net::ip_address::Ip::Ipv6(net::IPv6 {
                first: half(bits >> 64),
                last: half(bits),
            })
        }
    };
    net::TcpAddress {
        ip: Some(net::IpAddress { ip: Some(ip) }),
        port: addr.port().into(),
    }
}

pub(super) fn network(network: net::IpNetwork) -> Result<IpNet, Invalid> {
    let prefix = u8::try_from(network.prefix_len).map_err(invalid("prefix length"))?;
    IpNet::new(ip(network.ip)?, prefix).map_err(invalid("network"))
}
