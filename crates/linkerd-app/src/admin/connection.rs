//! A connection to the admin port. Meshed clients, such as Prometheus, come with TLS, probes without.

use super::Admin;
use bytes::BytesMut;
use http::HeaderName;
use http_body_util::{BodyExt as _, Limited};
use linkerd_http::{Handler, Request, Response, detect, detect::Outcome, detect::Version, h1, h2};
use linkerd_policy::Id;
use linkerd_stack::{Error, drain};
use linkerd_tls::{Detected, NoServerTls, ServerTls};
use linkerd_transport::{Accepted, BoxIo, PrefixedIo};
use std::{io, net::IpAddr, sync::Arc, time::Duration};
use tokio::time::{Instant, timeout};

/// Who is asking.
pub(super) struct Client {
    pub(super) ip: IpAddr,
    pub(super) tls: ServerTls,
}

impl Client {
    pub(super) fn is_loopback(&self) -> bool {
        self.ip.is_loopback()
    }
}

struct Connection {
    admin: Arc<Admin>,
    client: Client,
}

/// Serves one accepted connection to its end.
pub(crate) async fn serve(admin: Arc<Admin>, accepted: Accepted, drain: drain::Watch) {
    let client = accepted.client;
    if let Err(error) = try_serve(admin, accepted, drain).await {
        tracing::debug!(%error, %client, "admin connection ended");
    }
}

async fn try_serve(admin: Arc<Admin>, accepted: Accepted, drain: drain::Watch) -> io::Result<()> {
    let ip = accepted.client.0.ip();
    let tls = timeout(DETECT_TIMEOUT, terminate(&admin, accepted));
    let (mut io, tls) = tls
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    let meshed = matches!(tls, ServerTls::Terminated { .. });
    let mut buf = BytesMut::new();
    let version = match detect::read(&mut io, &mut buf, Some(Instant::now() + DETECT_TIMEOUT)).await? {
        Outcome::Http(version) => version,
        Outcome::Closed => return Ok(()),
        Outcome::TimedOut if meshed => Version::Http2,
        Outcome::TimedOut | Outcome::Opaque => Version::Http1,
    };
    let io = PrefixedIo::new(buf.freeze(), io);
    let connection = Arc::new(Connection {
        admin,
        client: Client { ip, tls },
    });
    match version {
        Version::Http1 => h1::serve(io, connection, &h1::ServerParams::default(), drain)
            .await
            .map_err(io::Error::other),
        Version::Http2 => h2::serve(io, connection, &h2::ServerParams::default(), drain)
            .await
            .map_err(io::Error::other),
    }
}

async fn terminate(admin: &Admin, accepted: Accepted) -> io::Result<(BoxIo, ServerTls)> {
    let (detected, io) = linkerd_tls::detect(accepted.io).await?;
    match detected {
        Detected::Tls { sni } if sni.as_deref() == Some(&**admin.credentials.server_name()) => {
            let (io, client_id, _) = admin
                .credentials
                .accept(io, false)
                .await
                .map_err(io::Error::other)?;
            Ok((Box::new(io), ServerTls::Terminated { client_id }))
        }
        Detected::Tls { sni } => Ok((
            Box::new(io),
            ServerTls::PassThrough {
                sni: sni.map(Into::into),
            },
        )),
        Detected::NotTls | Detected::Closed => {
            Ok((Box::new(io), ServerTls::None(NoServerTls::NoTlsFromRemote)))
        }
    }
}

impl Handler for Connection {
    async fn handle(&self, request: Request) -> Result<Response, Error> {
        let orig_proto = request.headers().get(&ORIG_PROTO).cloned();
        let id = self.client.tls.client_id().map(Id::as_str);
        tracing::trace!(client.ip = %self.client.ip, client.id = id, path = request.uri().path(), "admin request");
        let mut response = self.admin.respond(&self.client, request).await;
        // The client's proxy carried an HTTP/1 request over HTTP/2 and turns the answer back.
        if let Some(version) = orig_proto {
            response.headers_mut().insert(ORIG_PROTO, version);
        }
        Ok(response)
    }
}

/// A short body as text.
pub(super) async fn body_text(request: Request) -> Option<String> {
    let body = Limited::new(request.into_body(), MAX_BODY).collect().await.ok()?;
    String::from_utf8(body.to_bytes().into()).ok()
}

const ORIG_PROTO: HeaderName = HeaderName::from_static("l5d-orig-proto");
const DETECT_TIMEOUT: Duration = Duration::from_secs(1);
const MAX_BODY: usize = 8 * 1024;
