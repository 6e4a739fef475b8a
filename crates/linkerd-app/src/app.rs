//! One straight line from configuration to a running proxy: the only place that knows everything.

use crate::{
    admin::{self, Admin, Shutdown},
    application::Application,
    config::{Config, ProxyConfig},
    discovery::Believers,
    log::LogLevel,
    process,
    serve::{Door, accept},
};
use linkerd_control::{Control, PolicyAnswer, Target};
use linkerd_http::h1;
use linkerd_inbound::{AccessLog, Inbound, WatchedPolicy};
use linkerd_metrics::{Labels, Registry};
use linkerd_outbound::Outbound;
use linkerd_policy::{EndpointSet, Profile, ServerPolicy};
use linkerd_stack::{Cause, drain};
use linkerd_tls::{Credentials, CredentialsStore};
use linkerd_trace::Tracer;
use linkerd_transport::{BoundListener, ListenParams, Listener, OrigDstSource};
use std::{future::Future, io, net::SocketAddr, sync::Arc, thread, time::Duration};
use tokio::{
    runtime::{self, Handle, Runtime},
    sync::watch,
    time,
};

/// A proxy whose ports are taken and which has not yet begun to work.
#[derive(Debug)]
pub struct App {
    config: Config,
    log: LogLevel,
    listeners: Listeners,
}

#[derive(Debug)]
struct Listeners {
    admin: BoundListener,
    tap: Option<BoundListener>,
    inbound: BoundListener,
    outbound: Vec<BoundListener>,
}

/// Where a proxy listens; tests let the kernel choose the ports.
#[derive(Clone, Debug)]
pub struct Bound {
    pub admin: SocketAddr,
    pub tap: Option<SocketAddr>,
    pub inbound: SocketAddr,
    pub outbound: SocketAddr,
}

/// For connections that are ended at the end of the grace period to say so.
const LAST_WORDS: Duration = Duration::from_secs(1);

#[derive(Debug, thiserror::Error)]
pub enum BindError {
    #[error("cannot listen on {0} ({1}): {2}")]
    Listen(SocketAddr, &'static str, io::Error),
}

impl App {
    /// Takes all ports, so that a conflict is found before anything starts.
    ///
    /// # Errors
    /// The first port that cannot be had.
    pub fn bind(config: Config, log: LogLevel) -> Result<Self, BindError> {
        let own = |backlog| ListenParams {
            backlog,
            orig_dst: OrigDstSource::Local,
            ..ListenParams::default()
        };
        let bind =
            |name, addr, params| Listener::bind(addr, params).map_err(|e| BindError::Listen(addr, name, e));
        let listeners = Listeners {
            admin: bind("admin", config.admin.listen, own(None))?,
            inbound: bind("inbound", config.inbound.listen, config.inbound.accept.clone())?,
            outbound: config
                .outbound_listen
                .iter()
                .map(|addr| bind("outbound", *addr, config.outbound.accept.clone()))
                .collect::<Result<_, _>>()?,
            tap: match config.tap.client {
                Some(_) => Some(bind("tap", config.tap.listen, own(None))?),
                None => None,
            },
        };
        Ok(Self {
            config,
            log,
            listeners,
        })
    }

    /// # Errors
    /// The kernel's, which then also fails everything else.
    pub fn bound(&self) -> io::Result<Bound> {
        let outbound = self
            .listeners
            .outbound
            .first()
            .ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(Bound {
            admin: self.listeners.admin.local_addr()?,
            tap: self
                .listeners
                .tap
                .as_ref()
                .map(BoundListener::local_addr)
                .transpose()?,
            inbound: self.listeners.inbound.local_addr()?,
            outbound: outbound.local_addr()?,
        })
    }

    /// Runs until `stop` resolves or a shutdown is asked for, and then until what is under way is done, or the grace
    /// period over. Blocks the thread, which becomes the first worker.
    ///
    /// # Errors
    /// When threads or runtimes cannot be had.
    pub fn run(self, stop: impl Future<Output = ()>) -> io::Result<()> {
        let admin_runtime = AdminThread::start()?;
        let (inbound, inbound_watch) = drain::channel();
        let (outbound, outbound_watch) = drain::channel();
        let drains = Drains {
            inbound: inbound_watch,
            outbound: outbound_watch,
        };
        let shutdown = Shutdown::default();
        let grace = self.config.shutdown_grace;
        let application = Arc::new(application(&self.config));
        let workers = self.config.workers;
        let worker = Worker::new(self, &admin_runtime.handle, &shutdown, application.clone())?;
        for number in 1..workers {
            let (worker, drains) = (worker.clone(), drains.clone());
            thread::Builder::new()
                .name(format!("worker-{number}"))
                .spawn(move || worker.work_alone(drains))?;
        }
        let access_log = worker.access_log.clone();
        worker_runtime()?.block_on(async move {
            let working = tokio::spawn(worker.work(drains));
            tokio::select! {
                () = stop => {}
                () = shutdown.requested() => {}
            }
            tracing::info!(?grace, "Draining");
            // One after the other: to answer what it has taken, and to end, the application may have to ask others.
            let drained = async {
                inbound.drain().await;
                application.gone().await;
                outbound.drain().await;
            };
            if time::timeout(grace, drained).await.is_err() {
                tracing::warn!(
                    ?grace,
                    code = Cause::ShuttingDown.code(),
                    error = "the grace period is over",
                    "connections that are still open are closed"
                );
                let ended = async { tokio::join!(inbound.end(), outbound.end()) };
                let _ = time::timeout(LAST_WORDS, ended).await;
            }
            working.abort();
        });
        if let Some(log) = access_log {
            log.flush();
        }
        Ok(())
    }
}

/// Outbound traffic goes on until the inbound one is done: the application needs it to finish what it has taken.
#[derive(Clone)]
struct Drains {
    inbound: drain::Watch,
    outbound: drain::Watch,
}

/// What a worker serves with. The listeners are its own handles: once every worker has let go of them, the kernel
/// refuses connections instead of queueing them.
#[derive(Clone)]
struct Worker {
    inbound: Arc<Inbound>,
    outbound: Arc<Outbound>,
    inbound_listener: BoundListener,
    outbound_listeners: Vec<BoundListener>,
    credentials: Credentials,
    application: Arc<Application>,
    access_log: Option<AccessLog>,
}

impl Worker {
    /// Starts everything that runs on the admin thread.
    fn new(
        app: App,
        admin_runtime: &Handle,
        shutdown: &Shutdown,
        application: Arc<Application>,
    ) -> io::Result<Self> {
        let App {
            config,
            log,
            listeners,
        } = app;
        let store = CredentialsStore::new(config.local_id.clone(), config.server_name.clone());
        let credentials = store.credentials();
        let metrics = Registry::new(config.metrics_retain_idle);
        let tap = linkerd_tap::Registry::new(&metrics);
        let control = Control::spawn(config.control.clone(), store, admin_runtime, &metrics);
        let admin_port = listeners.admin.local_addr()?.port();
        watch_ports(&config, &control, admin_runtime);
        let told = control.clone();
        metrics.collect(move |out| process::encode(out, &told));
        let inbound_port = listeners.inbound.local_addr()?.port();
        let access_log = access_log(&config, &metrics)?;
        let tracer = tracer(&config, &credentials, &metrics, admin_runtime);
        let parts = Parts {
            discovery: Arc::new(Discovery(control.clone())),
            credentials: credentials.clone(),
            metrics: metrics.clone(),
            tap: tap.clone(),
            tracer,
            access_log: access_log.clone(),
        };
        let inbound = new_inbound(&config, inbound_port, &parts);
        let outbound = new_outbound(&config, inbound_port, &parts);
        let admin = Arc::new(Admin {
            config: config.admin.clone(),
            credentials: credentials.clone(),
            policy: control.inbound_policy(admin_port),
            control,
            believers: Believers {
                inbound: inbound.clone(),
                outbound: outbound.clone(),
            },
            metrics,
            log,
            shutdown: shutdown.clone(),
        });
        // The admin server stays to the end: probes and a last scrape come while the proxy drains.
        let (_never, forever) = drain::channel();
        spawn_on(
            admin_runtime,
            "admin",
            listeners.admin,
            forever.clone(),
            move |accepted, drain| admin::serve(admin.clone(), accepted, drain),
        );
        if let (Some(listener), Some(client)) = (listeners.tap, config.tap.client.clone()) {
            let server = linkerd_tap::Server::new(tap.clone(), credentials.clone(), client);
            spawn_on(admin_runtime, "tap", listener, forever, move |accepted, drain| {
                server.clone().serve(accepted.io, drain)
            });
        }
        Ok(Self {
            inbound,
            outbound,
            inbound_listener: listeners.inbound,
            outbound_listeners: listeners.outbound,
            credentials,
            application,
            access_log,
        })
    }

    fn work_alone(self, drains: Drains) {
        match worker_runtime() {
            Ok(runtime) => runtime.block_on(self.work(drains)),
            Err(error) => tracing::error!(%error, "a worker cannot start"),
        }
    }

    /// Serves on the current runtime from the first certificate on. Returns never, because the worker's runtime, and
    /// with it every connection, would end: the process ends when all have been drained.
    async fn work(self, drains: Drains) {
        let mut draining = drains.inbound.clone();
        tokio::select! {
            () = certified(self.credentials.clone()) => {}
            () = draining.signaled() => {
                drop((self, drains, draining));
                return std::future::pending().await;
            }
        }
        drop(draining);
        if let Err(error) = self.serve(drains) {
            tracing::error!(%error, "cannot serve");
        }
        std::future::pending::<()>().await;
    }

    fn serve(self, drains: Drains) -> io::Result<()> {
        let Self {
            inbound,
            outbound,
            inbound_listener,
            outbound_listeners,
            application,
            credentials: _,
            access_log: _,
        } = self;
        for listener in outbound_listeners {
            let outbound = outbound.clone();
            let serve = move |accepted, drain| outbound.clone().serve(accepted, drain);
            tokio::spawn(accept(
                "outbound",
                listener.listen()?,
                drains.outbound.clone(),
                Door::Quiet,
                serve,
            ));
        }
        let serve = move |accepted, drain| inbound.clone().serve(accepted, drain);
        tokio::spawn(accept(
            "inbound",
            inbound_listener.listen()?,
            drains.inbound,
            Door::Behind(application),
            serve,
        ));
        Ok(())
    }
}

/// Says what is missing for as long as there is no certificate.
async fn certified(mut credentials: Credentials) {
    let mut waiting = time::interval(Duration::from_secs(15));
    waiting.tick().await;
    let watched = credentials.clone();
    loop {
        tokio::select! {
            () = credentials.certified() => return,
            _ = waiting.tick() => {
                tracing::warn!(id = %watched.local_id(), "waiting for the identity to be certified");
            }
        }
    }
}

fn application(config: &Config) -> Application {
    let own = [config.admin.listen, config.inbound.listen, config.tap.listen];
    let own = own.iter().chain(&config.outbound_listen).map(SocketAddr::port);
    let mut ports = config.inbound_ports.clone();
    own.for_each(|port| {
        ports.remove(&port);
    });
    Application::new(ports, config.inbound_ips.iter().copied().collect())
}

/// Ports that are known before their first connection get their policies before it.
fn watch_ports(config: &Config, control: &Control, runtime: &Handle) {
    let receivers: Vec<_> = config
        .inbound_ports
        .iter()
        .copied()
        .map(|port| control.inbound_policy(port))
        .collect();
    runtime.spawn(async move {
        // Held for good: a watched port's stream is never idle.
        std::future::pending::<()>().await;
        drop(receivers);
    });
}

fn spawn_on<F>(
    runtime: &Handle,
    name: &'static str,
    bound: BoundListener,
    drain: drain::Watch,
    serve: impl Fn(linkerd_transport::Accepted, drain::Watch) -> F + Send + Sync + 'static,
) where
    F: Future<Output = ()> + Send + 'static,
{
    runtime.spawn(async move {
        match bound.listen() {
            Ok(listener) => accept(name, listener, drain, Door::Quiet, serve).await,
            Err(error) => tracing::error!(%error, listener = name, "cannot listen"),
        }
    });
}

/// A thread for everything that is not traffic, so that neither waits for the other.
struct AdminThread {
    handle: Handle,
    // Dropped when the proxy has ended, which ends the thread.
    _stop: tokio::sync::oneshot::Sender<()>,
}

impl AdminThread {
    fn start() -> io::Result<Self> {
        let runtime: Runtime = worker_runtime()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        thread::Builder::new().name("admin".into()).spawn(move || {
            let _ = runtime.block_on(stopped);
            runtime.shutdown_background();
        })?;
        Ok(Self { handle, _stop: stop })
    }
}

fn worker_runtime() -> io::Result<Runtime> {
    runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(4)
        .build()
}

/// The control plane as both directions ask for it.
struct Discovery(Control);

impl linkerd_inbound::Discover for Discovery {
    fn inbound_policy(&self, port: u16) -> watch::Receiver<Arc<ServerPolicy>> {
        self.0.inbound_policy(port)
    }

    fn default_policy(&self, port: u16) -> Arc<ServerPolicy> {
        self.0.default_policy(port)
    }

    fn watched_policies(&self) -> Vec<WatchedPolicy> {
        let known = self.0.known_inbound_policies().into_iter();
        known
            .map(|(port, policy, heard)| WatchedPolicy { port, policy, heard })
            .collect()
    }

    fn profile(&self, target: Target) -> watch::Receiver<Option<Arc<Profile>>> {
        self.0.profile(target)
    }
}

/// What both directions share with the rest of the process.
struct Parts {
    discovery: Arc<Discovery>,
    credentials: Credentials,
    metrics: Registry,
    tap: linkerd_tap::Registry,
    tracer: Option<Tracer>,
    access_log: Option<AccessLog>,
}

impl linkerd_outbound::Discover for Discovery {
    fn profile(&self, target: Target) -> watch::Receiver<Option<Arc<Profile>>> {
        self.0.profile(target)
    }

    fn outbound_policy(&self, target: Target) -> watch::Receiver<Option<PolicyAnswer>> {
        self.0.outbound_policy(target)
    }

    fn endpoints(&self, authority: &Arc<str>) -> watch::Receiver<Option<Arc<EndpointSet>>> {
        self.0.endpoints(authority)
    }
}

/// Standard error, as Linkerd's: standard output has the proxy's own log.
fn access_log(config: &Config, metrics: &Registry) -> io::Result<Option<AccessLog>> {
    let Some(format) = config.access_log else {
        return Ok(None);
    };
    let dropped = metrics
        .counter(
            "proxy_access_log_dropped_total",
            "Lines of the access log that were too many for who reads them.",
        )
        .series(&Labels::new());
    AccessLog::start(format, io::stderr(), dropped).map(Some)
}

fn tracer(
    config: &Config,
    credentials: &Credentials,
    metrics: &Registry,
    runtime: &Handle,
) -> Option<Tracer> {
    let trace = config.trace.clone()?;
    let (tracer, spans) = Tracer::new(linkerd_control::dropped_spans(metrics));
    runtime.spawn(linkerd_control::export_spans(
        trace,
        credentials.clone(),
        config.control.connect_timeout,
        spans,
        metrics.clone(),
    ));
    Some(tracer)
}

fn new_inbound(config: &Config, inbound_port: u16, parts: &Parts) -> Arc<Inbound> {
    let proxy = &config.inbound;
    let settings = linkerd_inbound::Config {
        listen_port: inbound_port,
        ips: config.inbound_ips.iter().copied().collect(),
        ports: config.inbound_ports.clone(),
        detect_timeout: proxy.detect_timeout,
        connect: proxy.connect,
        pool: pool(proxy),
        http1_server: h1::ServerParams::default(),
        http2_server: proxy.http2_server.clone(),
        http2_client: proxy.http2_client.clone(),
        max_in_flight: proxy.max_in_flight,
        discovery_idle_timeout: proxy.discovery_idle,
        authority_labels: config.inbound_authority_labels,
        profile_timeout: config.inbound_profile_timeout,
        profile_suffixes: config.control.profile_suffixes.clone(),
    };
    let deps = linkerd_inbound::Deps {
        discover: parts.discovery.clone(),
        credentials: parts.credentials.clone(),
        metrics: parts.metrics.clone(),
        tap: parts.tap.clone(),
        tracer: parts.tracer.clone(),
        access_log: parts.access_log.clone(),
    };
    Inbound::new(settings, deps)
}

fn new_outbound(config: &Config, inbound_port: u16, parts: &Parts) -> Arc<Outbound> {
    let proxy = &config.outbound;
    let settings = linkerd_outbound::Config {
        inbound_port,
        inbound_ips: config.inbound_ips.iter().copied().collect(),
        connect: proxy.connect,
        reconnect: proxy.connect_backoff,
        pool: pool(proxy),
        http1_server: h1::ServerParams::default(),
        http2_server: proxy.http2_server.clone(),
        http2_client: proxy.http2_client.clone(),
        max_in_flight: proxy.max_in_flight,
        queue: proxy.queue,
        failfast: proxy.failfast_timeout,
        discovery_idle_timeout: proxy.discovery_idle,
        informational_headers: !config.hide_informational_headers,
        ingress: config.ingress,
        hostname_labels: config.outbound_hostname_labels,
    };
    let deps = linkerd_outbound::Deps {
        discover: parts.discovery.clone(),
        credentials: parts.credentials.clone(),
        metrics: parts.metrics.clone(),
        tap: parts.tap.clone(),
        tracer: parts.tracer.clone(),
    };
    Outbound::new(settings, deps)
}

fn pool(proxy: &ProxyConfig) -> h1::PoolParams {
    h1::PoolParams {
        max_idle: proxy.pool_max_idle,
        idle_timeout: proxy.pool_idle_timeout,
    }
}
