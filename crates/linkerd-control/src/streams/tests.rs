use super::*;
use crate::convert::tcp_address;
use linkerd_proto::destination::update;
use std::net::SocketAddr;

fn addr(last: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, last], 80))
}

fn add(all: &[u8]) -> dst::Update {
    let addrs = all.iter().map(|last| dst::WeightedAddr {
        addr: Some(tcp_address(addr(*last))),
        ..Default::default()
    });
    let set = dst::WeightedAddrSet {
        addrs: addrs.collect(),
        ..Default::default()
    };
    dst::Update {
        update: Some(update::Update::Add(set)),
    }
}

fn remove(all: &[u8]) -> dst::Update {
    let addrs = all.iter().map(|last| tcp_address(addr(*last))).collect();
    dst::Update {
        update: Some(update::Update::Remove(dst::AddrSet { addrs })),
    }
}

fn none(exists: bool) -> dst::Update {
    dst::Update {
        update: Some(update::Update::NoEndpoints(dst::NoEndpoints { exists })),
    }
}

fn endpoints() -> Endpoints {
    Endpoints {
        authority: "web:80".into(),
        watch: watch::Sender::new(None),
        fresh: true,
    }
}

fn known(endpoints: &Endpoints) -> Option<(Vec<SocketAddr>, bool)> {
    let set = endpoints.watch.borrow().clone()?;
    Some((set.endpoints.keys().copied().collect(), set.exists))
}

fn failed(code: Code) -> End {
    End::Failed(Status::new(code, "no"))
}

#[test]
fn later_messages_change_the_set() {
    let mut endpoints = endpoints();
    assert_eq!(known(&endpoints), None);
    for message in [add(&[1, 2]), add(&[3]), remove(&[1])] {
        endpoints.message(message);
    }
    assert_eq!(known(&endpoints), Some((vec![addr(2), addr(3)], true)));
}

#[test]
fn a_new_stream_begins_with_the_whole_set() {
    let mut endpoints = endpoints();
    endpoints.message(add(&[1, 2]));
    endpoints.opened();
    assert_eq!(
        known(&endpoints),
        Some((vec![addr(1), addr(2)], true)),
        "an outage changes nothing"
    );
    endpoints.message(remove(&[1]));
    assert_eq!(
        known(&endpoints),
        Some((vec![addr(1), addr(2)], true)),
        "a leading removal is of another set"
    );
    endpoints.message(add(&[3]));
    assert_eq!(known(&endpoints), Some((vec![addr(3)], true)));
}

#[test]
fn no_endpoints_empties_the_set() {
    let mut endpoints = endpoints();
    endpoints.message(add(&[1]));
    endpoints.message(none(true));
    assert_eq!(known(&endpoints), Some((vec![], true)));
    endpoints.message(none(false));
    assert_eq!(known(&endpoints), Some((vec![], false)));
}

#[test]
fn a_stream_that_stays_silent_has_no_endpoints() {
    let mut endpoints = endpoints();
    endpoints.message(add(&[1]));
    endpoints.opened();
    assert!(endpoints.ended(&End::Silent).is_continue());
    assert_eq!(known(&endpoints), Some((vec![], true)));
}

#[test]
fn only_a_rejection_ends_the_subscription() {
    for (code, ends) in [
        (Code::InvalidArgument, true),
        (Code::FailedPrecondition, true),
        (Code::NotFound, false),
        (Code::Unavailable, false),
        (Code::Internal, false),
    ] {
        assert_eq!(endpoints().ended(&failed(code)).is_break(), ends, "{code:?}");
    }
}

#[test]
fn an_outage_keeps_what_is_known() {
    let mut endpoints = endpoints();
    endpoints.message(add(&[1]));
    let _ = endpoints.ended(&failed(Code::Unavailable));
    let _ = endpoints.ended(&End::Closed);
    assert_eq!(known(&endpoints), Some((vec![addr(1)], true)));
}

#[test]
fn the_same_set_again_wakes_nobody() {
    let mut endpoints = endpoints();
    let mut receiver = endpoints.watch.subscribe();
    endpoints.message(add(&[1]));
    assert!(receiver.has_changed().unwrap());
    receiver.mark_unchanged();
    endpoints.opened();
    endpoints.message(add(&[1]));
    assert!(!receiver.has_changed().unwrap());
}

#[test]
fn a_refused_profile_is_an_empty_one() {
    let mut profiles = Profiles {
        port: 80,
        watch: watch::Sender::new(None),
    };
    let receiver = profiles.watch.subscribe();
    assert!(profiles.ended(&failed(Code::Unavailable)).is_continue());
    assert_eq!(*receiver.borrow(), None);
    assert!(profiles.ended(&failed(Code::InvalidArgument)).is_break());
    assert_eq!(receiver.borrow().as_deref(), Some(&Profile::default()));
}

#[test]
fn an_address_without_policy_may_get_one_later() {
    let mut policies = OutboundPolicies {
        detect_timeout: Duration::ZERO,
        watch: watch::Sender::new(None),
    };
    let receiver = policies.watch.subscribe();
    let Continue(Some(pause)) = policies.ended(&failed(Code::NotFound)) else {
        panic!("ended")
    };
    assert!(pause >= NOT_FOUND_PAUSE);
    assert_eq!(*receiver.borrow(), Some(PolicyAnswer::NotFound));
    policies.message(outbound::OutboundPolicy::default());
    let Some(PolicyAnswer::Policy(policy)) = receiver.borrow().clone() else {
        panic!("no policy")
    };
    assert!(matches!(
        policy.protocol,
        linkerd_policy::client::Protocol::Invalid(_)
    ));
}

#[test]
fn an_unreadable_inbound_policy_replaces_the_former() {
    let default = linkerd_policy::DefaultPolicy::AllUnauthenticated.server(&[], false, Duration::ZERO);
    let mut policies = InboundPolicies {
        port: 80,
        watch: watch::Sender::new(Arc::new(default)),
        heard: Arc::default(),
    };
    let heard = policies.heard.clone();
    assert_eq!(heard.ago(80), None);
    policies.message(inbound::Server::default());
    assert!(heard.ago(80).is_some());
    assert!(matches!(
        policies.watch.borrow().protocol,
        linkerd_policy::server::Protocol::Invalid(_)
    ));
    assert!(policies.ended(&failed(Code::InvalidArgument)).is_break());
    assert!(policies.ended(&failed(Code::NotFound)).is_continue());
    drop(policies);
    assert_eq!(heard.ago(80), None);
}
