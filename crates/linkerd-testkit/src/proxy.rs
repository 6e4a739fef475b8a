//! A whole proxy in this process, without redirection: its original destinations are given.

use crate::{ControlPlane, control_plane::Services};
use linkerd_app::{App, Bound, Config, log};
use linkerd_transport::OrigDstSource;
use std::{
    collections::BTreeMap,
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::oneshot,
};

/// A directory that is removed in the end.
#[derive(Debug)]
pub struct Workspace(PathBuf);

impl Workspace {
    #[must_use]
    pub fn new() -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("linkerd-testkit-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Default for Workspace {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What a proxy is started with.
#[derive(Debug)]
pub struct ProxyBuilder {
    vars: BTreeMap<String, String>,
    inbound_dst: Option<SocketAddr>,
    outbound_dst: Option<SocketAddr>,
    workers: Option<usize>,
    directory: Workspace,
    control: SocketAddr,
}

/// A running proxy. Dropping it ends it.
#[derive(Debug)]
pub struct Proxy {
    pub bound: Bound,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<io::Result<()>>>,
    directory: Workspace,
}

impl ProxyBuilder {
    /// A proxy of the identity `name` that believes `control`.
    #[must_use]
    pub fn new(name: &str, control: &ControlPlane) -> Self {
        Self::with(name, control.addr, &control.services)
    }

    #[must_use]
    pub fn with(name: &str, control: SocketAddr, services: &Services) -> Self {
        let directory = Workspace::new();
        let token = directory.path().join("token");
        fs::write(&token, "token").unwrap();
        let mut this = Self {
            vars: BTreeMap::new(),
            inbound_dst: None,
            outbound_dst: None,
            workers: None,
            directory,
            control,
        };
        for listener in [
            "ADMIN_LISTEN_ADDR",
            "INBOUND_LISTEN_ADDR",
            "OUTBOUND_LISTEN_ADDR",
            "CONTROL_LISTEN_ADDR",
        ] {
            this = this.env(listener, "127.0.0.1:0");
        }
        for service in ["IDENTITY", "DESTINATION", "POLICY"] {
            this = this.env(&format!("{service}_SVC_ADDR"), &control.to_string());
        }
        let identity_directory = this.directory.path().display().to_string();
        this.env("IDENTITY_LOCAL_NAME", name)
            .env("IDENTITY_TRUST_ANCHORS", services.ca.pem())
            .env("IDENTITY_TOKEN_FILE", &token.display().to_string())
            .env("IDENTITY_DIR", &identity_directory)
            .env("POLICY_WORKLOAD", r#"{"ns":"test","pod":"test"}"#)
            .env("POLICY_CLUSTER_NETWORKS", "127.0.0.0/8")
            .env("DESTINATION_PROFILE_NETWORKS", "127.0.0.0/8,10.0.0.0/8")
            .env("INBOUND_CONNECT_TIMEOUT", "1s")
    }

    /// A variable without the prefix; `{control}` in it is where the control plane and the collector of spans are.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        let value = value.replace("{control}", &self.control.to_string());
        self.vars.insert(format!("LINKERD2_PROXY_{name}"), value);
        self
    }

    /// Where connections to the inbound listener were going. Not given: to the listener itself, as direct ones.
    #[must_use]
    pub fn inbound_to(mut self, dst: SocketAddr) -> Self {
        self.inbound_dst = Some(dst);
        self
    }

    /// Where connections to the outbound listener were going.
    #[must_use]
    pub fn outbound_to(mut self, dst: SocketAddr) -> Self {
        self.outbound_dst = Some(dst);
        self
    }

    /// More than the machine has cores, if need be.
    #[must_use]
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = Some(workers);
        self
    }

    /// # Panics
    /// When the configuration is not one.
    #[must_use]
    pub fn config(&self) -> Config {
        let mut config = Config::from_env(self.vars.clone()).unwrap();
        let source = |dst: Option<SocketAddr>| dst.map_or(OrigDstSource::Local, OrigDstSource::Fixed);
        config.inbound.accept.orig_dst = source(self.inbound_dst);
        config.outbound.accept.orig_dst = source(self.outbound_dst);
        config.workers = self.workers.unwrap_or(config.workers);
        config
    }

    /// # Panics
    /// When its ports cannot be had.
    #[must_use]
    pub fn start(self) -> Proxy {
        let config = self.config();
        let app = App::bind(config, log::init(Some("off"), false)).unwrap();
        let bound = app.bound().unwrap();
        let (stop, stopped) = oneshot::channel();
        let run = move || {
            app.run(async {
                let _ = stopped.await;
            })
        };
        let thread = thread::Builder::new().name("proxy".into()).spawn(run).unwrap();
        Proxy {
            bound,
            stop: Some(stop),
            thread: Some(thread),
            directory: self.directory,
        }
    }
}

impl Proxy {
    /// Waits until it is certified.
    ///
    /// # Panics
    /// When it is not within some seconds.
    pub async fn ready(&self) {
        for _ in 0..200 {
            if self
                .admin("/ready")
                .await
                .is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic_not_ready();
    }

    /// The whole answer of the admin server to a GET.
    ///
    /// # Errors
    /// Those of the connection.
    pub async fn admin(&self, path: &str) -> io::Result<String> {
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        self.admin_raw(&request).await
    }

    /// # Errors
    /// Those of the connection.
    pub async fn admin_raw(&self, request: &str) -> io::Result<String> {
        let mut io = TcpStream::connect(self.bound.admin).await?;
        io.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        io.read_to_string(&mut answer).await?;
        Ok(answer)
    }

    /// The metrics' lines that begin with `family`.
    ///
    /// # Panics
    /// When the admin server does not answer.
    pub async fn metrics(&self, family: &str) -> Vec<String> {
        let all = self.admin("/metrics").await.expect("metrics");
        all.lines()
            .filter(|line| line.starts_with(family))
            .map(Into::into)
            .collect()
    }

    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Begins the drain, as SIGTERM does.
    pub fn drain(&mut self) {
        self.stop = None;
    }

    /// Drains and waits for the end.
    ///
    /// # Panics
    /// When the proxy panicked or failed.
    pub async fn stopped(mut self) {
        self.drain();
        self.ended().await;
    }

    /// Waits for an end that something else brings about.
    ///
    /// # Panics
    /// When the proxy panicked or failed.
    pub async fn ended(mut self) {
        let thread = self.thread.take().unwrap();
        tokio::task::spawn_blocking(move || thread.join().unwrap().unwrap())
            .await
            .unwrap();
    }
}

#[expect(clippy::panic, reason = "a proxy that does not start is a failed test")]
fn panic_not_ready() {
    panic!("the proxy is not ready");
}
