//! A connection to a service of the control plane: resolved, secured, shared by all streams, made anew when it breaks.

use crate::metrics::{Followed, ServiceMetrics};
use http::Uri;
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use linkerd_policy::{Id, endpoint::EndpointTls};
use linkerd_stack::Cause;
use linkerd_tls::{Credentials, CredentialsStore, TlsError, TrustAnchors};
use linkerd_transport::{BoxIo, ConnectError, ConnectParams, Keepalive, connect};
use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    sync::Mutex,
    time::{self, Instant},
};
use tonic::body::Body;

/// `name:port` with the identity that must answer there; none where plain text is right, on loopback.
#[derive(Clone, PartialEq, Eq)]
pub struct ServiceAddr {
    pub host: Arc<str>,
    pub port: u16,
    pub id: Option<Id>,
}

impl ServiceAddr {
    /// Whether the service runs in this very pod.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        let host = self.host.trim_end_matches('.');
        host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }

    pub(crate) fn origin(&self) -> Uri {
        let host = self.host.trim_end_matches('.');
        let authority = if host.contains(':') {
            format!("[{host}]:{}", self.port)
        } else {
            format!("{host}:{}", self.port)
        };
        Uri::builder()
            .scheme("http")
            .authority(authority)
            .path_and_query("/")
            .build()
            .unwrap_or_default()
    }

    /// The addresses to try, in random order so that replicas share the proxies.
    async fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        let host = self.host.trim_end_matches('.');
        if host == "localhost" {
            return Ok(vec![SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))]);
        }
        let mut addrs: Vec<_> = tokio::net::lookup_host((&*self.host, self.port)).await?.collect();
        rand::seq::SliceRandom::shuffle(&mut *addrs, &mut rand::rng());
        Ok(addrs)
    }
}

impl fmt::Display for ServiceAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl fmt::Debug for ServiceAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self} ({:?})", self.id)
    }
}

#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum ChannelError {
    #[error("cannot resolve {0}: {1}")]
    Resolve(ServiceAddr, Arc<io::Error>),
    #[error("{0} has no addresses")]
    NoAddress(ServiceAddr),
    #[error("cannot connect to {0}: {1}")]
    Connect(SocketAddr, Arc<ConnectError>),
    #[error("{1} as {2} at {0}")]
    Tls(SocketAddr, Arc<TlsError>, Id),
    #[error("no answer within {0:?} while connecting")]
    Timeout(Duration),
    #[error("HTTP/2: {0}")]
    Http(Arc<hyper::Error>),
}

impl ChannelError {
    pub(crate) const fn cause(&self) -> Cause {
        match self {
            Self::Resolve(..) | Self::NoAddress(_) | Self::Connect(..) => Cause::ConnectError,
            Self::Tls(..) => Cause::TlsHandshake,
            Self::Timeout(_) => Cause::ConnectTimeout,
            Self::Http(_) => Cause::UpstreamProtocol,
        }
    }
}

/// How a connection is secured.
#[derive(Clone, Debug)]
pub(crate) enum Security {
    /// With the proxy's certificate.
    Mutual(Credentials),
    /// With the proxy's certificate once there is one; the service of identity serves without.
    Bootstrap(Arc<CredentialsStore>, TrustAnchors),
}

/// Clones share the connection.
#[derive(Clone, Debug)]
pub(crate) struct Channel(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    service: ServiceAddr,
    security: Security,
    connect: ConnectParams,
    metrics: ServiceMetrics,
    /// Held while connecting, so that many streams make one connection.
    slot: Mutex<Slot>,
    connected: Arc<AtomicUsize>,
}

#[derive(Debug, Default)]
struct Slot {
    sender: Option<http2::SendRequest<Body>>,
    /// The last failure counts for all who waited for the same attempt.
    failed: Option<(Instant, ChannelError)>,
    /// Attempts since the last connection.
    failures: u32,
}

impl Channel {
    pub(crate) fn new(
        service: ServiceAddr,
        security: Security,
        connect_timeout: Duration,
        metrics: ServiceMetrics,
    ) -> Self {
        let keepalive = Some(Keepalive(Duration::from_secs(10)));
        let user_timeout = Some(Duration::from_secs(30));
        let connect = ConnectParams {
            timeout: connect_timeout,
            keepalive,
            user_timeout,
        };
        Self(Arc::new(Shared {
            service,
            security,
            connect,
            metrics,
            slot: Mutex::default(),
            connected: Arc::default(),
        }))
    }

    /// How many connections there are now.
    pub(crate) fn connected(&self) -> Arc<AtomicUsize> {
        self.0.connected.clone()
    }

    pub(crate) fn service(&self) -> &ServiceAddr {
        &self.0.service
    }
}

impl Shared {
    async fn send(&self, request: http::Request<Body>) -> Result<http::Response<Incoming>, ChannelError> {
        let mut sender = self.sender().await?;
        sender
            .send_request(request)
            .await
            .map_err(|error| ChannelError::Http(Arc::new(error)))
    }

    async fn sender(&self) -> Result<http2::SendRequest<Body>, ChannelError> {
        let asked = Instant::now();
        let mut slot = self.slot.lock().await;
        if let Some(sender) = slot.sender.as_ref().filter(|sender| !sender.is_closed()) {
            return Ok(sender.clone());
        }
        if let Some((when, error)) = slot.failed.as_ref().filter(|(when, _)| *when > asked) {
            tracing::trace!(?when, "sharing the failure of an attempt");
            return Err(error.clone());
        }
        match self.open().await {
            Ok(sender) => {
                if slot.failures > 0 {
                    tracing::info!(service = %self.service, "Control plane reached");
                }
                *slot = Slot {
                    sender: Some(sender.clone()),
                    ..Slot::default()
                };
                Ok(sender)
            }
            Err(error) => {
                let failures = slot.failures + 1;
                self.report(&error, failures);
                *slot = Slot {
                    sender: None,
                    failed: Some((Instant::now(), error.clone())),
                    failures,
                };
                Err(error)
            }
        }
    }

    /// Once for all streams, and ever more rarely: that it goes on is no news.
    fn report(&self, error: &ChannelError, failures: u32) {
        if failures.is_power_of_two() {
            tracing::warn!(service = %self.service, %error, attempt = failures, "control plane cannot be reached");
        }
    }

    async fn open(&self) -> Result<http2::SendRequest<Body>, ChannelError> {
        let addrs = self.resolve().await?;
        let mut last = ChannelError::NoAddress(self.service.clone());
        for addr in addrs.into_iter().take(MAX_ADDRESSES) {
            match time::timeout(HANDSHAKE_TIMEOUT, self.open_at(addr)).await {
                Ok(Ok(sender)) => return Ok(sender),
                Ok(Err(error)) => last = error,
                Err(_) => last = ChannelError::Timeout(HANDSHAKE_TIMEOUT),
            }
        }
        Err(last)
    }

    async fn resolve(&self) -> Result<Vec<SocketAddr>, ChannelError> {
        let resolving = time::timeout(RESOLVE_TIMEOUT, self.service.resolve()).await;
        let resolved = resolving
            .map_err(|_| ChannelError::Timeout(RESOLVE_TIMEOUT))
            .and_then(|found| {
                found.map_err(|error| ChannelError::Resolve(self.service.clone(), Arc::new(error)))
            });
        match &resolved {
            Ok(_) => self.metrics.resolved.incr(),
            Err(_) => self.metrics.not_resolved.incr(),
        }
        resolved
    }

    async fn open_at(&self, addr: SocketAddr) -> Result<http2::SendRequest<Body>, ChannelError> {
        let io = connect(addr, &self.connect)
            .await
            .map_err(|e| ChannelError::Connect(addr, Arc::new(e)))?;
        let io: BoxIo = match &self.service.id {
            None => Box::new(io),
            Some(id) => self
                .secure(io, id)
                .await
                .map_err(|e| ChannelError::Tls(addr, Arc::new(e), id.clone()))?,
        };
        let handshake = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(self.keep_alive_interval())
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .handshake(TokioIo::new(io));
        let (sender, connection) = handshake.await.map_err(|e| ChannelError::Http(Arc::new(e)))?;
        self.connected.fetch_add(1, Relaxed);
        let connected = self.connected.clone();
        tokio::spawn(async move {
            let ended = connection.await;
            connected.fetch_sub(1, Relaxed);
            if let Err(error) = ended {
                tracing::debug!(%error, %addr, "control plane connection ended");
            }
        });
        Ok(sender)
    }

    /// Not within the pod: there, connections do not get lost, and gRPC servers take frequent pings amiss.
    fn keep_alive_interval(&self) -> Option<Duration> {
        (!self.service.is_loopback()).then_some(KEEP_ALIVE_INTERVAL)
    }

    async fn secure(&self, io: tokio::net::TcpStream, id: &Id) -> Result<BoxIo, TlsError> {
        let server = EndpointTls {
            server_id: id.clone(),
            server_name: id.as_str().into(),
        };
        match &self.security {
            Security::Mutual(credentials) => Ok(Box::new(credentials.connect(io, &server, false).await?.0)),
            Security::Bootstrap(store, anchors) => {
                let credentials = store.credentials();
                if credentials.is_certified() {
                    return Ok(Box::new(credentials.connect(io, &server, false).await?.0));
                }
                Ok(Box::new(
                    store.connect_unauthenticated(io, &server, anchors).await?,
                ))
            }
        }
    }
}

impl tower_service::Service<http::Request<Body>> for Channel {
    type Response = http::Response<Followed>;
    type Error = ChannelError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let shared = self.0.clone();
        Box::pin(async move {
            let call = shared.metrics.call();
            match shared.send(request).await {
                Ok(response) => Ok(call.follow(response)),
                Err(error) => {
                    call.failed(&error);
                    Err(error)
                }
            }
        })
    }
}

const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// As many replicas are tried in one attempt.
const MAX_ADDRESSES: usize = 3;
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(3);
/// Large sets of endpoints come in one message; small windows would cost round trips, not memory.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::ControlMetrics;
    use linkerd_metrics::Registry;

    fn service(host: &str) -> ServiceAddr {
        ServiceAddr {
            host: host.into(),
            port: 8080,
            id: None,
        }
    }

    #[test]
    fn loopback_is_told_by_name_and_address() {
        assert!(
            ["localhost", "localhost.", "127.0.0.1", "::1"]
                .iter()
                .all(|host| service(host).is_loopback())
        );
        assert!(!service("linkerd-identity.linkerd.svc.").is_loopback());
    }

    #[tokio::test]
    async fn localhost_needs_no_resolver() {
        assert_eq!(
            service("localhost.").resolve().await.unwrap(),
            ["127.0.0.1:8080".parse().unwrap()]
        );
    }

    #[test]
    fn the_authority_has_no_trailing_dot() {
        assert_eq!(service("a.b.").origin().authority().unwrap(), "a.b:8080");
        assert_eq!(service("::1").origin().authority().unwrap(), "[::1]:8080");
    }

    #[tokio::test]
    async fn nobody_listening_is_told_with_the_address() {
        let closed = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let service = ServiceAddr {
            host: "127.0.0.1".into(),
            port: closed,
            id: None,
        };
        let store = Arc::new(CredentialsStore::new(Id::dns("a.b").unwrap(), "a.b".into()));
        let metrics = ControlMetrics::new(&Registry::new(Duration::ZERO)).of("policy", &service);
        let channel = Channel::new(
            service,
            Security::Mutual(store.credentials()),
            Duration::from_secs(1),
            metrics,
        );
        let error = channel.0.sender().await.unwrap_err().to_string();
        assert!(error.contains(&closed.to_string()), "{error}");
    }
}
