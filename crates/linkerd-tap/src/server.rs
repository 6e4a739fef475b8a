//! Serves `io.linkerd.proxy.tap.Tap/Observe` to the one client that may tap.

use crate::{
    Registry,
    matching::{Filter, Invalid, Matcher},
};
use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Response as HttpResponse, header};
use http_body_util::{BodyExt, Limited};
use linkerd_http::{Body, BodySender, Handler, Request, Response, h2};
use linkerd_policy::Id;
use linkerd_proto::tap::{ObserveRequest, TapEvent, observe_request::extract};
use linkerd_stack::{Error, drain};
use linkerd_tls::{Credentials, Detected, detect};
use linkerd_transport::BoxIo;
use prost::Message;
use std::{io, sync::Arc, time::Duration};
use tokio::{net::TcpStream, sync::mpsc, time::timeout};
use tracing::{debug, info};

/// The tap listener's service.
#[derive(Debug)]
pub struct Server {
    registry: Registry,
    credentials: Credentials,
    /// The identity that may tap.
    client: Id,
}

/// One connection: the caller is the same for all its streams.
struct Connection {
    registry: Registry,
    authorized: bool,
}

/// A gRPC status with its message.
type Status = (u16, String);

impl Server {
    #[must_use]
    pub fn new(registry: Registry, credentials: Credentials, client: Id) -> Arc<Self> {
        Arc::new(Self {
            registry,
            credentials,
            client,
        })
    }

    /// Serves one accepted connection to its end.
    pub async fn serve(self: Arc<Self>, io: TcpStream, drain: drain::Watch) {
        let (io, client) = match timeout(TLS_TIMEOUT, self.accept(io)).await {
            Ok(Ok(accepted)) => accepted,
            Ok(Err(error)) => return debug!(%error, "tap connection refused"),
            Err(_) => return debug!("tap connection: TLS detection timed out"),
        };
        let authorized = client.as_ref() == Some(&self.client);
        if !authorized {
            info!(
                client = client.as_ref().map(Id::as_str),
                "tap by a client that may not tap"
            );
        }
        let handler = Arc::new(Connection {
            registry: self.registry.clone(),
            authorized,
        });
        if let Err(error) = h2::serve(io, handler, &h2::ServerParams::default(), drain).await {
            debug!(%error, "tap connection ended");
        }
    }

    async fn accept(&self, io: TcpStream) -> io::Result<(BoxIo, Option<Id>)> {
        let (detected, io) = detect(io).await?;
        match detected {
            Detected::Tls { sni } if sni.as_deref() == Some(&**self.credentials.server_name()) => {
                let (io, client, _) = self
                    .credentials
                    .accept(io, false)
                    .await
                    .map_err(io::Error::other)?;
                Ok((Box::new(io), client))
            }
            _ => Ok((Box::new(io), None)),
        }
    }
}

impl Handler for Connection {
    async fn handle(&self, request: Request) -> Result<Response, Error> {
        let answer = match self.observe(request).await {
            Ok(body) => body,
            Err((code, message)) => return Ok(trailers_only(code, &message)),
        };
        let mut response = HttpResponse::new(answer);
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        Ok(response)
    }
}

impl Connection {
    async fn observe(&self, request: Request) -> Result<Body, Status> {
        if request.uri().path() != OBSERVE {
            return Err((UNIMPLEMENTED, format!("no such method: {}", request.uri().path())));
        }
        if !self.authorized {
            return Err((UNAUTHENTICATED, "only the tap service's identity may tap".into()));
        }
        let request = read_message(request.into_body()).await?;
        let invalid = |Invalid(message)| (INVALID_ARGUMENT, message);
        if request.limit == 0 {
            return Err((INVALID_ARGUMENT, "limit must not be zero".into()));
        }
        let matcher = match (request.r#match, &request.filter) {
            (Some(tree), _) => Matcher::parse(tree).map_err(invalid)?,
            // Who sends our filter says with it what is wanted.
            (None, Some(_)) => Matcher::All(Vec::new()),
            (None, None) => return Err((INVALID_ARGUMENT, "match is missing".to_owned())),
        };
        let filter = request
            .filter
            .map_or_else(|| Ok(Filter::plain()), Filter::parse)
            .map_err(invalid)?;
        let headers = wants_headers(request.extract);
        let Some(events) = self.registry.observe(request.limit, matcher, filter, headers) else {
            return Err((RESOURCE_EXHAUSTED, "too many taps on this proxy".into()));
        };
        let (frames, body) = Body::channel(FRAMES);
        let registry = self.registry.clone();
        tokio::spawn(async move {
            forward(events, frames).await;
            // Whoever it was that ended the tap: the hot path is rid of it from here on.
            registry.prune();
        });
        Ok(body)
    }
}

/// Frames events until the tap or its reader is done.
async fn forward(mut events: mpsc::Receiver<TapEvent>, frames: BodySender) {
    loop {
        let event = tokio::select! {
            event = events.recv() => event,
            () = frames.closed() => return,
        };
        let Some(event) = event else { break };
        if frames.data(framed(&event)).await.is_err() {
            return;
        }
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let _ = frames.trailers(trailers).await;
}

async fn read_message(body: Body) -> Result<ObserveRequest, Status> {
    let bytes = Limited::new(body, MAX_REQUEST)
        .collect()
        .await
        .map_err(|e| (INVALID_ARGUMENT, format!("request is not readable: {e}")))?
        .to_bytes();
    let [compressed, a, b, c, d, message @ ..] = &*bytes else {
        return Err((INVALID_ARGUMENT, "request has no message".into()));
    };
    if *compressed != 0 {
        return Err((UNIMPLEMENTED, "compression is not supported".into()));
    }
    if u32::from_be_bytes([*a, *b, *c, *d]) as usize != message.len() {
        return Err((INVALID_ARGUMENT, "request has not exactly one message".into()));
    }
    ObserveRequest::decode(message).map_err(|e| (INVALID_ARGUMENT, e.to_string()))
}

fn wants_headers(extract: Option<linkerd_proto::tap::observe_request::Extract>) -> bool {
    let Some(extract::Extract::Http(http)) = extract.and_then(|e| e.extract) else {
        return false;
    };
    matches!(http.extract, Some(extract::http::Extract::Headers(_)))
}

/// A gRPC message on the wire: no compression, its length, itself.
fn framed(event: &TapEvent) -> Bytes {
    let len = event.encoded_len();
    let mut buf = BytesMut::with_capacity(5 + len);
    buf.put_u8(0);
    buf.put_u32(u32::try_from(len).unwrap_or(u32::MAX));
    buf.put_slice(&event.encode_to_vec());
    buf.freeze()
}

fn trailers_only(code: u16, message: &str) -> Response {
    let mut response = HttpResponse::new(Body::empty());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-status", HeaderValue::from(code));
    if let Ok(message) = HeaderValue::from_str(message) {
        headers.insert("grpc-message", message);
    }
    response
}

const OBSERVE: &str = "/io.linkerd.proxy.tap.Tap/Observe";
const TLS_TIMEOUT: Duration = Duration::from_secs(10);
const MAX_REQUEST: usize = 64 * 1024;
const FRAMES: usize = 16;
const INVALID_ARGUMENT: u16 = 3;
const RESOURCE_EXHAUSTED: u16 = 8;
const UNIMPLEMENTED: u16 = 12;
const UNAUTHENTICATED: u16 = 16;
