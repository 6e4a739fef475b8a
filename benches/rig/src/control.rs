//! The control plane of the measured proxies: one service whose pods are one address, and certificates for all.

use crate::{Outcome, say};
use linkerd_proto::{
    destination::{self, DestinationProfile, request_match},
    http_types, inbound,
};
use linkerd_testkit::{Ca, ControlPlane, Services, messages};
use serde::Deserialize;
use std::{
    error::Error,
    fs,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
};

#[derive(Debug, Deserialize)]
pub(crate) struct CertificateOptions {
    directory: PathBuf,
    names: Vec<String>,
}

/// Makes an authority and a certificate for each name: `NAME.pem`, `NAME.key`, and `NAME.both` for who wants one file.
pub(crate) fn certificates(options: &CertificateOptions) -> Outcome {
    let write = |name: &str, text: &str| fs::write(options.directory.join(name), text);
    let ca = Ca::new();
    write("ca.pem", ca.pem())?;
    write("ca.key", &ca.key_pem())?;
    for name in &options.names {
        let leaf = ca.issue(name);
        let chain: String = leaf.chain.iter().map(|der| block("CERTIFICATE", der)).collect();
        let key = block("PRIVATE KEY", leaf.key.secret_der());
        write(&format!("{name}.pem"), &chain)?;
        write(&format!("{name}.key"), &key)?;
        write(&format!("{name}.both"), &(chain + &key))?;
    }
    Ok(())
}

fn block(tag: &str, der: &[u8]) -> String {
    pem::encode(&pem::Pem::new(tag, der))
}

#[derive(Debug, Deserialize)]
pub(crate) struct Options {
    /// Where `certificates` wrote.
    directory: PathBuf,
    listen: SocketAddr,
    /// The service's address, and the one of its only pod.
    service: IpAddr,
    pod: IpAddr,
    client_id: String,
    server_id: String,
    http_port: u16,
    /// Opaque, through the pod's proxy.
    tcp_port: u16,
    /// Opaque, past the pod's proxy.
    plain_port: u16,
    inbound_port: u16,
    /// How many routes the service's profile has.
    routes: usize,
}

pub(crate) async fn serve(options: Options) -> Outcome {
    let services = Services {
        ca: Arc::new(authority(&options.directory)?),
        ..Services::default()
    };
    options.http(&services);
    options.opaque(&services);
    let _plane = ControlPlane::start_at(options.listen, services).await;
    say("begin")?;
    std::future::pending().await
}

fn authority(directory: &Path) -> Result<Ca, Box<dyn Error>> {
    let read = |name| fs::read_to_string(directory.join(name));
    Ok(Ca::from_pem(&read("ca.pem")?, &read("ca.key")?)?)
}

impl Options {
    fn http(&self, services: &Services) {
        let (name, port) = (format!("{}:80", crate::exchange::HOST), self.http_port);
        let service = SocketAddr::new(self.service, 80).to_string();
        let mut pod = messages::meshed_endpoint((self.pod, port).into(), &self.server_id, self.inbound_port);
        // Linkerd has this only for opaque ports: HTTP comes to the port itself and is redirected there.
        if let Some(hint) = &mut pod.protocol_hint {
            hint.opaque_transport = None;
        }
        let profile = self.profile(&name);
        services.endpoints.set(&*name, messages::add(vec![pod]));
        services.outbound.set(&*service, messages::balanced(&name));
        services.profiles.set(service, profile.clone());
        services.profiles.set(name, profile);
        let authorized = vec![messages::identities(&[&self.client_id])];
        let server = messages::server(messages::inbound_detect(), authorized);
        services
            .inbound
            .set(port.to_string(), with_authorized_routes(server));
    }

    fn profile(&self, name: &str) -> DestinationProfile {
        // None of them matches the requests, so that each request tries all.
        let routes = (0..self.routes).map(|i| destination::Route {
            condition: Some(get(&format!("/service/{i}/users/[^/]*/orders"))),
            metrics_labels: [("route".to_owned(), format!("GET /service/{i}"))].into(),
            ..destination::Route::default()
        });
        DestinationProfile {
            routes: routes.collect(),
            ..messages::profile(without_port(name))
        }
    }

    fn opaque(&self, services: &Services) {
        let meshed = messages::meshed_endpoint(
            (self.pod, self.tcp_port).into(),
            &self.server_id,
            self.inbound_port,
        );
        let plain = messages::endpoint((self.pod, self.plain_port).into());
        for (port, pod) in [(self.tcp_port, meshed), (self.plain_port, plain)] {
            let name = format!("tcp.bench.svc.cluster.local:{port}");
            let service = SocketAddr::new(self.service, port).to_string();
            let profile = DestinationProfile {
                opaque_protocol: true,
                ..messages::profile(without_port(&name))
            };
            services.endpoints.set(&*name, messages::add(vec![pod]));
            services.outbound.set(&*service, messages::balanced(&name));
            services.profiles.set(service, profile);
        }
        let kind = inbound::proxy_protocol::Kind::Opaque(inbound::proxy_protocol::Opaque {});
        let authorized = vec![messages::identities(&[&self.client_id])];
        services
            .inbound
            .set(self.tcp_port.to_string(), messages::server(kind, authorized));
    }
}

/// A profile's name has none; the question had it.
fn without_port(name: &str) -> &str {
    name.rsplit_once(':').map_or(name, |(name, _)| name)
}

/// Routes are authorised one by one: they say who may use them.
fn with_authorized_routes(mut server: inbound::Server) -> inbound::Server {
    let authorizations = server.authorizations.clone();
    let kind = server.protocol.as_mut().and_then(|p| p.kind.as_mut());
    if let Some(inbound::proxy_protocol::Kind::Detect(detect)) = kind {
        for route in &mut detect.http_routes {
            route.authorizations.clone_from(&authorizations);
        }
    }
    server
}

fn get(path: &str) -> destination::RequestMatch {
    let all = [
        request_match::Match::Method(http_types::HttpMethod {
            r#type: Some(http_types::http_method::Type::Registered(0)),
        }),
        request_match::Match::Path(destination::PathMatch { regex: path.into() }),
    ];
    let matches = all
        .into_iter()
        .map(|m| destination::RequestMatch { r#match: Some(m) });
    destination::RequestMatch {
        r#match: Some(request_match::Match::All(request_match::Seq {
            matches: matches.collect(),
        })),
    }
}
