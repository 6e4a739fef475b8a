use super::*;
use linkerd_http::Body;
use linkerd_proto::tap::{
    Filter as ProtoFilter,
    filter::StatusRange,
    observe_request::{Match, r#match as pb},
    tap_event::http,
};

fn all() -> Matcher {
    let seq = pb::Seq { matches: Vec::new() };
    Matcher::parse(Match {
        r#match: Some(pb::Match::All(seq)),
    })
    .unwrap()
}

fn connection() -> Connection {
    Connection {
        direction: Direction::Inbound,
        client: "10.0.0.1:1000".parse().unwrap(),
        client_labels: LabelMap::from([("tls".into(), "true".into())]),
        server: "10.0.0.2:8080".parse().unwrap(),
        server_labels: LabelMap::new(),
    }
}

fn request() -> Parts {
    let request = ::http::Request::builder()
        .uri("http://web/x?secret=1")
        .header("authorization", "Bearer x");
    request.body(()).unwrap().into_parts().0
}

fn taps(registry: &Registry) -> Option<HttpTaps> {
    let parts = request();
    registry.request(&Inspect {
        connection: connection(),
        route_labels: LabelMap::new(),
        parts: &parts,
    })
}

fn answer(mut taps: HttpTaps, status: u16, body: Body) {
    taps.response(StatusCode::from_u16(status).unwrap(), &HeaderMap::new(), None);
    drop(body.observe(taps));
}

fn kinds(events: &mut mpsc::Receiver<TapEvent>) -> Vec<&'static str> {
    let mut kinds = Vec::new();
    while let Ok(event) = events.try_recv() {
        kinds.push(match event.event.unwrap() {
            tap_event::Event::Http(h) => match h.event.unwrap() {
                http::Event::RequestInit(_) => "req",
                http::Event::ResponseInit(_) => "rsp",
                http::Event::ResponseEnd(_) => "end",
            },
            tap_event::Event::Tcp(_) => "tcp",
        });
    }
    kinds
}

#[test]
fn nobody_watches_at_first_and_after_the_last() {
    let registry = Registry::default();
    assert!(!registry.is_active());
    let events = registry.observe(1, all(), Filter::plain(), false).unwrap();
    assert!(registry.is_active());
    drop(events);
    registry.prune();
    assert!(!registry.is_active());
}

#[test]
fn a_request_shows_three_events_and_the_limit_ends_the_tap() {
    let registry = Registry::default();
    let mut events = registry.observe(1, all(), Filter::plain(), false).unwrap();
    answer(taps(&registry).unwrap(), 200, Body::empty());
    assert_eq!(kinds(&mut events), ["req", "rsp", "end"]);
    assert!(taps(&registry).is_none());
    assert!(matches!(
        events.try_recv(),
        Err(mpsc::error::TryRecvError::Disconnected)
    ));
}

#[test]
fn only_matching_responses_count_against_the_limit() {
    let registry = Registry::default();
    let filter = Filter::parse(ProtoFilter {
        statuses: vec![StatusRange { min: 500, max: 599 }],
        ..ProtoFilter::default()
    })
    .unwrap();
    let mut events = registry.observe(1, all(), filter, false).unwrap();
    answer(taps(&registry).unwrap(), 200, Body::empty());
    assert_eq!(kinds(&mut events), [""; 0]);
    answer(taps(&registry).unwrap(), 503, Body::empty());
    assert_eq!(kinds(&mut events), ["req", "rsp", "end"]);
}

#[test]
fn secrets_are_redacted() {
    let registry = Registry::default();
    let mut events = registry.observe(1, all(), Filter::plain(), true).unwrap();
    let _taps = taps(&registry).unwrap();
    let Some(tap_event::Event::Http(event)) = events.try_recv().unwrap().event else {
        panic!("no HTTP")
    };
    let Some(http::Event::RequestInit(init)) = event.event else {
        panic!("no request")
    };
    let headers = init.headers.unwrap().headers;
    let value = |name: &str| headers.iter().find(|h| h.name == name).unwrap().value.clone();
    assert_eq!(value("authorization"), b"[redacted]");
    assert_eq!(value(":path"), b"/x?secret=1");
}

#[test]
fn a_request_given_up_ends_too() {
    let registry = Registry::default();
    let mut events = registry.observe(5, all(), Filter::plain(), false).unwrap();
    drop(taps(&registry).unwrap());
    let end = std::iter::from_fn(|| events.try_recv().ok()).last().unwrap();
    assert_eq!(end.close_reason, "client: gave up");
    assert_eq!(end.cause_code, "downstream-closed");
}

#[test]
fn a_slow_reader_loses_requests_and_learns_how_many() {
    let registry = Registry::default();
    let mut events = registry.observe(10_000, all(), Filter::plain(), false).unwrap();
    let mut shown = 0;
    for _ in 0..1_000 {
        if let Some(taps) = taps(&registry) {
            shown += 1;
            answer(taps, 200, Body::empty());
        }
    }
    assert_eq!(kinds(&mut events).len(), shown * 3);
    answer(taps(&registry).unwrap(), 200, Body::empty());
    assert_eq!(events.try_recv().unwrap().dropped, 1_000 - shown as u64);
}
