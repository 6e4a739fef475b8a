use super::*;
use crate::{Config, Deps, Discover, WatchedPolicy};
use linkerd_http::{h1, h2};
use linkerd_metrics::Registry;
use linkerd_policy::{DefaultPolicy, Id, Profile, profile::LookupTarget};
use linkerd_tls::CredentialsStore;
use linkerd_transport::ConnectParams;
use std::net::Ipv4Addr;
use tokio::net::TcpListener;

/// A control plane that remembers for which ports it was asked.
#[derive(Default)]
struct Plane(Mutex<Vec<(u16, watch::Sender<Arc<ServerPolicy>>)>>);

impl Discover for Plane {
    fn inbound_policy(&self, port: u16) -> watch::Receiver<Arc<ServerPolicy>> {
        let (sender, receiver) = watch::channel(self.default_policy(port));
        self.0.lock().push((port, sender));
        receiver
    }

    fn default_policy(&self, _: u16) -> Arc<ServerPolicy> {
        Arc::new(DefaultPolicy::Deny.server(&[], false, Duration::from_secs(10)))
    }

    fn watched_policies(&self) -> Vec<WatchedPolicy> {
        let watched = self.0.lock();
        let live = watched.iter().filter(|(_, sender)| !sender.is_closed());
        live.map(|(port, sender)| WatchedPolicy {
            port: *port,
            policy: sender.borrow().clone(),
            heard: None,
        })
        .collect()
    }

    fn profile(&self, _: LookupTarget) -> watch::Receiver<Option<Arc<Profile>>> {
        watch::channel(None).1
    }
}

fn inbound(declared: &[u16]) -> Arc<Inbound> {
    let connect = ConnectParams {
        timeout: Duration::from_secs(5),
        keepalive: None,
        user_timeout: None,
    };
    let config = Config {
        listen_port: 4143,
        ips: [].into(),
        ports: declared.iter().copied().collect(),
        detect_timeout: Duration::from_secs(10),
        connect,
        pool: h1::PoolParams {
            max_idle: 1,
            idle_timeout: Duration::from_secs(1),
        },
        http1_server: h1::ServerParams::default(),
        http2_server: h2::ServerParams::default(),
        http2_client: h2::ClientParams::default(),
        max_in_flight: 1,
        discovery_idle_timeout: IDLE,
        authority_labels: false,
        profile_timeout: Duration::ZERO,
        profile_suffixes: Vec::new(),
    };
    let metrics = Registry::new(Duration::from_secs(600));
    let deps = Deps {
        discover: Arc::<Plane>::default(),
        credentials: CredentialsStore::new(Id::dns("a.b").unwrap(), "a.b".into()).credentials(),
        tap: linkerd_tap::Registry::new(&metrics),
        metrics,
        tracer: None,
        access_log: None,
    };
    Inbound::new(config, deps)
}

const IDLE: Duration = Duration::from_millis(100);

/// The same listener has all addresses of the loopback network.
fn nth(port: u16, n: usize) -> SocketAddr {
    let [.., high, low] = u32::try_from(n + 1).unwrap().to_be_bytes();
    SocketAddr::from((Ipv4Addr::new(127, 0, high, low), port))
}

async fn listener() -> (TcpListener, u16) {
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

#[tokio::test]
async fn a_scan_of_closed_ports_leaves_nothing_behind() {
    let inbound = inbound(&[]);
    let (listener, port) = listener().await;
    drop(listener);
    for n in 0..1_000 {
        let found = inbound.ports.of(&inbound, nth(port, n)).await.unwrap();
        assert!(found.is_closed());
        assert_eq!(found.target.as_str(), labels::other_target().as_str());
    }
    assert!(inbound.ports.in_use().is_empty());
    assert!(inbound.inspect().is_empty());
}

#[tokio::test]
async fn what_listens_is_kept_and_watched_until_it_is_idle() {
    let inbound = inbound(&[]);
    let (_listener, port) = listener().await;
    let found = inbound.ports.of(&inbound, nth(port, 0)).await.unwrap();
    let again = inbound.ports.of(&inbound, nth(port, 0)).await.unwrap();
    assert!(Arc::ptr_eq(&found, &again));
    let views = inbound.inspect();
    assert_eq!((views[0].watched.port, views[0].connections), (port, 2));
    drop((found, again));
    time::timeout(Duration::from_secs(5), async {
        while !inbound.inspect().is_empty() {
            time::sleep(IDLE / 10).await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn the_connection_that_found_the_port_is_the_first_one_used() {
    let inbound = inbound(&[]);
    let (listener, port) = listener().await;
    let found = inbound.ports.of(&inbound, nth(port, 0)).await.unwrap();
    let io = found.app.dial().await.unwrap();
    let (_, client) = listener.accept().await.unwrap();
    assert_eq!(io.local_addr().unwrap(), client);
}

#[tokio::test]
async fn a_declared_port_is_kept_whether_or_not_anybody_listens() {
    let (listener, port) = listener().await;
    drop(listener);
    let inbound = inbound(&[port]);
    assert!(
        !inbound
            .ports
            .of(&inbound, nth(port, 0))
            .await
            .unwrap()
            .is_closed()
    );
    assert_eq!(inbound.ports.in_use().len(), 1);
}

#[tokio::test]
async fn the_longest_idle_port_makes_room_and_busy_ones_do_not() {
    let inbound = inbound(&[]);
    let (listener, port) = listener().await;
    // More than wait in a queue.
    let _accepting = tokio::spawn(async move { while listener.accept().await.is_ok() {} });
    let mut busy = Vec::new();
    for n in 0..MAX_FOUND {
        let found = inbound.ports.of(&inbound, nth(port, n)).await.unwrap();
        drop(found.app.dial().await);
        busy.push(found);
    }
    let refused = inbound
        .ports
        .of(&inbound, nth(port, MAX_FOUND))
        .await
        .unwrap_err();
    assert_eq!(refused.cause(), Cause::LoadShed);
    busy.remove(7);
    inbound.ports.of(&inbound, nth(port, MAX_FOUND)).await.unwrap();
    assert!(inbound.ports.find(nth(port, 7)).is_none());
    assert_eq!(inbound.ports.in_use().len(), MAX_FOUND);
}
