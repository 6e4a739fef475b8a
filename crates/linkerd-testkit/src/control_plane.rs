//! All services of the control plane on one port.

use crate::{Ca, Topic};
use futures_util::{Stream, StreamExt as _};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    service::TowerToHyperService,
};
use linkerd_proto::{
    destination::{
        DestinationProfile, GetDestination, Update,
        destination_server::{Destination, DestinationServer},
    },
    identity::{
        CertifyRequest, CertifyResponse,
        identity_server::{Identity, IdentityServer},
    },
    inbound::{
        PortSpec, Server,
        inbound_server_policies_server::{InboundServerPolicies, InboundServerPoliciesServer},
    },
    opentelemetry::{
        ExportTraceServiceRequest, ExportTraceServiceResponse, KeyValue, Span, any_value,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    outbound::{
        OutboundPolicy, TrafficSpec,
        outbound_policies_server::{OutboundPolicies, OutboundPoliciesServer},
        traffic_spec,
    },
};
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, SystemTime},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tonic::{Request, Response, Status, body::Body};

/// Serves plain text, as the control plane does to the proxies of its own pods. Dropping it ends it.
#[derive(Debug)]
pub struct ControlPlane {
    pub addr: SocketAddr,
    pub services: Services,
    tasks: tokio::task::JoinSet<()>,
}

/// What it answers. Clones share it.
#[derive(Clone, Debug)]
pub struct Services {
    pub ca: Arc<Ca>,
    /// By `host:port`.
    pub endpoints: Topic<Update>,
    /// By `ip:port` or `name:port`.
    pub profiles: Topic<DestinationProfile>,
    /// By port.
    pub inbound: Topic<Server>,
    /// By `ip:port` or `name:port`.
    pub outbound: Topic<OutboundPolicy>,
    pub identity: Arc<Mutex<IdentityScript>>,
    /// A collector of spans is on the same port.
    pub traces: Traces,
}

/// What was exported so far.
#[derive(Clone, Debug)]
pub struct Traces(watch::Sender<Vec<ExportTraceServiceRequest>>);

#[derive(Debug, Default)]
pub struct IdentityScript {
    /// Instead of a certificate.
    pub refuse: Option<Status>,
    pub lifetime: Option<Duration>,
    /// Told with each certificate, as our own service of identity does.
    pub anchors: Option<String>,
    pub requests: Vec<CertifyRequest>,
}

impl ControlPlane {
    /// On a port that the kernel chooses.
    pub async fn start() -> Self {
        Self::start_at((Ipv4Addr::LOCALHOST, 0).into(), Services::default()).await
    }

    /// Somewhere, with answers that exist already; also to come back after an outage.
    pub async fn start_at(addr: SocketAddr, services: Services) -> Self {
        let listener = TcpListener::bind(addr).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let mut tasks = tokio::task::JoinSet::new();
        let accepting = services.clone();
        tasks.spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((io, _)) = listener.accept().await {
                connections.spawn(serve(io, accepting.clone()));
            }
        });
        Self {
            addr,
            services,
            tasks,
        }
    }

    /// Ends it with all its connections; the answers can be had back by [`ControlPlane::start_at`].
    pub async fn stop(mut self) -> (SocketAddr, Services) {
        self.tasks.shutdown().await;
        (self.addr, self.services)
    }
}

impl Default for Services {
    fn default() -> Self {
        let services = Self {
            ca: Arc::default(),
            endpoints: Topic::default(),
            profiles: Topic::default(),
            inbound: Topic::default(),
            outbound: Topic::default(),
            identity: Arc::default(),
            traces: Traces(watch::Sender::default()),
        };
        // As the real ones answer for addresses that are no services.
        services
            .outbound
            .otherwise(Some(Status::not_found("no such service")));
        services
            .profiles
            .otherwise(Some(Status::invalid_argument("not a service")));
        services
    }
}

async fn serve(io: TcpStream, services: Services) {
    let service = TowerToHyperService::new(services);
    let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    let _ = builder.serve_connection(TokioIo::new(io), service).await;
}

type Messages<M> = Pin<Box<dyn Stream<Item = Result<M, Status>> + Send>>;

fn stream<M: Clone + Send + 'static>(topic: &Topic<M>, key: impl Into<String>) -> Response<Messages<M>> {
    Response::new(topic.open(key.into()).boxed())
}

/// Chooses the service by the path.
impl tower_service::Service<http::Request<hyper::body::Incoming>> for Services {
    type Response = http::Response<Body>;
    type Error = std::convert::Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<hyper::body::Incoming>) -> Self::Future {
        let path = request.uri().path();
        let this = self.clone();
        if path.starts_with("/io.linkerd.proxy.destination.") {
            DestinationServer::new(this).call(request)
        } else if path.starts_with("/io.linkerd.proxy.inbound.") {
            InboundServerPoliciesServer::new(this).call(request)
        } else if path.starts_with("/io.linkerd.proxy.outbound.") {
            OutboundPoliciesServer::new(this).call(request)
        } else if path.starts_with("/opentelemetry.") {
            TraceServiceServer::new(this).call(request)
        } else {
            IdentityServer::new(this).call(request)
        }
    }
}

#[tonic::async_trait]
impl Destination for Services {
    type GetStream = Messages<Update>;
    type GetProfileStream = Messages<DestinationProfile>;

    async fn get(&self, request: Request<GetDestination>) -> Result<Response<Self::GetStream>, Status> {
        Ok(stream(&self.endpoints, request.into_inner().path))
    }

    async fn get_profile(
        &self,
        request: Request<GetDestination>,
    ) -> Result<Response<Self::GetProfileStream>, Status> {
        Ok(stream(&self.profiles, request.into_inner().path))
    }
}

#[tonic::async_trait]
impl InboundServerPolicies for Services {
    type WatchPortStream = Messages<Server>;

    async fn get_port(&self, _: Request<PortSpec>) -> Result<Response<Server>, Status> {
        Err(Status::unimplemented("proxies watch"))
    }

    async fn watch_port(
        &self,
        request: Request<PortSpec>,
    ) -> Result<Response<Self::WatchPortStream>, Status> {
        Ok(stream(&self.inbound, request.into_inner().port.to_string()))
    }
}

#[tonic::async_trait]
impl OutboundPolicies for Services {
    type WatchStream = Messages<OutboundPolicy>;

    async fn get(&self, _: Request<TrafficSpec>) -> Result<Response<OutboundPolicy>, Status> {
        Err(Status::unimplemented("proxies watch"))
    }

    async fn watch(&self, request: Request<TrafficSpec>) -> Result<Response<Self::WatchStream>, Status> {
        let key = match request.into_inner().target {
            Some(traffic_spec::Target::Addr(addr)) => crate::messages::socket_addr(addr).to_string(),
            Some(traffic_spec::Target::Authority(authority)) => authority,
            None => return Err(Status::invalid_argument("no target")),
        };
        Ok(stream(&self.outbound, key))
    }
}

impl Traces {
    /// Waits until there are `count` spans, and gives them with the attributes of their resources.
    ///
    /// # Panics
    /// When they do not come in time.
    pub async fn wait(&self, count: usize) -> Vec<(Span, HashMap<String, String>)> {
        let mut told = self.0.subscribe();
        let spans = told.wait_for(|requests| spans_of(requests).len() >= count);
        let requests = tokio::time::timeout(Duration::from_secs(20), spans)
            .await
            .expect("spans come in time")
            .unwrap();
        spans_of(&requests)
    }
}

fn spans_of(requests: &[ExportTraceServiceRequest]) -> Vec<(Span, HashMap<String, String>)> {
    let mut all = Vec::new();
    for resource in requests.iter().flat_map(|request| &request.resource_spans) {
        let attributes = resource.resource.iter().flat_map(|r| &r.attributes);
        let attributes: HashMap<_, _> = attributes.map(|a| (a.key.clone(), text(a))).collect();
        let spans = resource.scope_spans.iter().flat_map(|scope| &scope.spans);
        all.extend(spans.map(|span| (span.clone(), attributes.clone())));
    }
    all
}

/// An attribute's value.
#[must_use]
pub fn text(attribute: &KeyValue) -> String {
    match attribute.value.as_ref().and_then(|v| v.value.as_ref()) {
        Some(any_value::Value::StringValue(text)) => text.clone(),
        Some(any_value::Value::IntValue(number)) => number.to_string(),
        Some(any_value::Value::BoolValue(truth)) => truth.to_string(),
        None => String::new(),
    }
}

#[tonic::async_trait]
impl TraceService for Services {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.traces.0.send_modify(|told| told.push(request.into_inner()));
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl Identity for Services {
    async fn certify(&self, request: Request<CertifyRequest>) -> Result<Response<CertifyResponse>, Status> {
        let request = request.into_inner();
        let mut script = self.identity.lock();
        script.requests.push(request.clone());
        if let Some(status) = &script.refuse {
            return Err(status.clone());
        }
        let leaf = self.ca.sign(&request.certificate_signing_request);
        let leaf = leaf.ok_or_else(|| Status::invalid_argument("not a signing request"))?;
        let valid_until = SystemTime::now() + script.lifetime.unwrap_or(Duration::from_secs(24 * 3600));
        Ok(Response::new(CertifyResponse {
            leaf_certificate: leaf.to_vec(),
            intermediate_certificates: Vec::new(),
            valid_until: Some(valid_until.into()),
            trust_anchors_pem: script.anchors.clone().unwrap_or_default(),
        }))
    }
}
