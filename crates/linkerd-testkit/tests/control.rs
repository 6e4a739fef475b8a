//! What the proxy hears from a control plane that comes, goes and changes its mind.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use linkerd_control::{Control, PolicyAnswer, Target};
use linkerd_policy::{EndpointSet, Id};
use linkerd_testkit::{ControlPlane, ProxyBuilder, messages};
use linkerd_tls::CredentialsStore;
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{runtime::Handle, sync::watch, time};

const AUTHORITY: &str = "web.ns.svc.cluster.local:80";

struct Rig {
    plane: ControlPlane,
    control: Control,
    // Holds the token.
    _builder: ProxyBuilder,
}

impl Rig {
    async fn start() -> Self {
        Self::start_with(|builder| builder).await
    }

    async fn start_with(configure: impl FnOnce(ProxyBuilder) -> ProxyBuilder) -> Self {
        let plane = ControlPlane::start().await;
        let builder =
            configure(ProxyBuilder::new("a.test", &plane).env("OUTBOUND_DISCOVERY_IDLE_TIMEOUT", "100ms"));
        let store = CredentialsStore::new(Id::dns("a.test").unwrap(), "a.test".into());
        let registry = linkerd_metrics::Registry::new(Duration::from_secs(60));
        let control = Control::spawn(builder.config().control, store, &Handle::current(), &registry);
        Self {
            plane,
            control,
            _builder: builder,
        }
    }

    fn endpoints(&self) -> watch::Receiver<Option<Arc<EndpointSet>>> {
        self.control.endpoints(&AUTHORITY.into())
    }
}

fn addr(last: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, last], 80))
}

async fn until<T>(receiver: &mut watch::Receiver<T>, holds: impl FnMut(&T) -> bool) {
    time::timeout(Duration::from_secs(5), receiver.wait_for(holds))
        .await
        .expect("in time")
        .expect("the feed lives");
}

fn is(set: Option<&Arc<EndpointSet>>, all: &[u8]) -> bool {
    set.is_some_and(|set| set.endpoints.keys().copied().eq(all.iter().copied().map(addr)))
}

fn added(all: &[u8]) -> linkerd_proto::destination::Update {
    messages::add(all.iter().map(|last| messages::endpoint(addr(*last))).collect())
}

#[tokio::test]
async fn endpoints_follow_the_stream() {
    let rig = Rig::start().await;
    let topic = &rig.plane.services.endpoints;
    topic.set(AUTHORITY, added(&[1, 2]));
    let mut endpoints = rig.endpoints();
    until(&mut endpoints, |set| is(set.as_ref(), &[1, 2])).await;
    topic.send(AUTHORITY, messages::remove(&[addr(1)]));
    until(&mut endpoints, |set| is(set.as_ref(), &[2])).await;
    topic.send(AUTHORITY, messages::no_endpoints(true));
    until(&mut endpoints, |set| is(set.as_ref(), &[])).await;
}

#[tokio::test]
async fn a_stream_that_comes_back_replaces_the_set() {
    let rig = Rig::start().await;
    let topic = &rig.plane.services.endpoints;
    topic.set(AUTHORITY, added(&[1, 2]));
    let mut endpoints = rig.endpoints();
    until(&mut endpoints, |set| is(set.as_ref(), &[1, 2])).await;
    topic.close(AUTHORITY);
    topic.set(AUTHORITY, added(&[3]));
    until(&mut endpoints, |set| is(set.as_ref(), &[3])).await;
    assert!(topic.opened(AUTHORITY) >= 2);
}

#[tokio::test]
async fn an_outage_changes_nothing_that_is_known() {
    let Rig {
        plane,
        control,
        _builder,
    } = Rig::start().await;
    plane.services.endpoints.set(AUTHORITY, added(&[1]));
    let mut endpoints = control.endpoints(&AUTHORITY.into());
    until(&mut endpoints, |set| is(set.as_ref(), &[1])).await;
    let (place, services) = plane.stop().await;
    time::sleep(Duration::from_millis(300)).await;
    assert!(is(endpoints.borrow().as_ref(), &[1]));
    services.endpoints.set(AUTHORITY, added(&[2]));
    let _plane = ControlPlane::start_at(place, services).await;
    until(&mut endpoints, |set| is(set.as_ref(), &[2])).await;
}

#[tokio::test]
async fn what_nobody_uses_is_forgotten() {
    let rig = Rig::start().await;
    let topic = &rig.plane.services.endpoints;
    topic.set(AUTHORITY, added(&[1]));
    until(&mut rig.endpoints(), |set| is(set.as_ref(), &[1])).await;
    time::sleep(Duration::from_millis(300)).await;
    assert!(rig.control.known_endpoints().is_empty());
    until(&mut rig.endpoints(), |set| is(set.as_ref(), &[1])).await;
    assert_eq!(topic.opened(AUTHORITY), 2);
}

#[tokio::test]
async fn profiles_are_asked_for_within_their_networks() {
    let rig = Rig::start().await;
    let (inside, outside) = ("10.0.0.1:80", "192.0.2.1:80");
    rig.plane
        .services
        .profiles
        .set(inside, messages::profile("web.ns.svc.cluster.local"));
    let mut known = rig.control.profile(Target::Addr(inside.parse().unwrap()));
    let named = |profile: &linkerd_policy::Profile| profile.logical.as_deref() == Some(AUTHORITY);
    until(&mut known, |profile| profile.as_deref().is_some_and(named)).await;
    let unknown = rig.control.profile(Target::Addr(outside.parse().unwrap()));
    assert_eq!(
        unknown.borrow().as_deref(),
        Some(&linkerd_policy::Profile::default())
    );
    assert_eq!(rig.plane.services.profiles.opened(outside), 0);
}

#[tokio::test]
async fn an_address_without_policy_is_told() {
    let rig = Rig::start().await;
    let target = Target::Addr("10.0.0.1:80".parse().unwrap());
    let mut policy = rig.control.outbound_policy(target);
    until(&mut policy, |answer| {
        matches!(answer, Some(PolicyAnswer::NotFound))
    })
    .await;
    let service = Target::Addr("10.0.0.2:80".parse().unwrap());
    rig.plane
        .services
        .outbound
        .set("10.0.0.2:80", messages::balanced(AUTHORITY));
    let mut policy = rig.control.outbound_policy(service);
    until(&mut policy, |answer| {
        matches!(answer, Some(PolicyAnswer::Policy(_)))
    })
    .await;
}

#[tokio::test]
async fn inbound_ports_have_the_default_until_the_answer() {
    let rig = Rig::start_with(|b| b.env("INBOUND_DEFAULT_POLICY", "deny")).await;
    let mut policy = rig.control.inbound_policy(8080);
    assert_eq!(policy.borrow().meta.to_string(), "default.deny");
    let server = messages::server(messages::inbound_detect(), vec![messages::all_unauthenticated()]);
    rig.plane.services.inbound.set("8080", server);
    until(&mut policy, |policy| policy.meta.name() == "test").await;
}

/// A control plane that is not in the same pod, so that its streams are watched.
async fn with_limits(limits: linkerd_control::StreamLimits) -> (ControlPlane, Control, ProxyBuilder) {
    let plane = ControlPlane::start().await;
    let builder = ProxyBuilder::new("a.test", &plane);
    let mut config = builder.config().control;
    config.limits = limits;
    // Everywhere is here too.
    config.destination.host = "0.0.0.0".into();
    let store = CredentialsStore::new(Id::dns("a.test").unwrap(), "a.test".into());
    let registry = linkerd_metrics::Registry::new(Duration::from_secs(60));
    let control = Control::spawn(config, store, &Handle::current(), &registry);
    (plane, control, builder)
}

const STALLED: linkerd_control::StreamLimits = linkerd_control::StreamLimits {
    initial: Some(Duration::from_millis(100)),
    idle: Some(Duration::from_millis(200)),
    lifetime: Some(Duration::from_secs(60)),
};

#[tokio::test]
async fn a_stream_that_falls_silent_is_opened_again_and_changes_nothing() {
    let (plane, control, _builder) = with_limits(STALLED).await;
    let topic = &plane.services.endpoints;
    topic.set(AUTHORITY, added(&[1]));
    let mut endpoints = control.endpoints(&AUTHORITY.into());
    until(&mut endpoints, |set| is(set.as_ref(), &[1])).await;
    time::timeout(Duration::from_secs(5), topic.wait_opened(AUTHORITY, 3))
        .await
        .expect("it is opened again");
    assert!(is(endpoints.borrow().as_ref(), &[1]));
}

#[tokio::test]
async fn a_server_that_is_there_and_names_no_endpoint_has_none() {
    let (plane, control, _builder) = with_limits(STALLED).await;
    let topic = &plane.services.endpoints;
    topic.set(AUTHORITY, added(&[1]));
    let mut endpoints = control.endpoints(&AUTHORITY.into());
    until(&mut endpoints, |set| is(set.as_ref(), &[1])).await;
    topic.hush(AUTHORITY);
    topic.close(AUTHORITY);
    until(&mut endpoints, |set| is(set.as_ref(), &[])).await;
    topic.set(AUTHORITY, added(&[2]));
    until(&mut endpoints, |set| is(set.as_ref(), &[2])).await;
}
