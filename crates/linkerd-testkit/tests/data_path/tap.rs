use crate::{
    rig::{Rig, count, get, post},
    tapping::{TAPPER, everything, observe},
};
use linkerd_proto::tap::{
    Filter, TapEvent,
    filter::StatusRange,
    tap_event::{self, http},
};
use tonic::Code;

async fn rig() -> Rig {
    Rig::with_env(1, &[("TAP_SVC_NAME", TAPPER)]).await
}

fn http_event(event: &TapEvent) -> &http::Event {
    match &event.event {
        Some(tap_event::Event::Http(tap_event::Http { event: Some(event) })) => event,
        other => panic!("not HTTP: {other:?}"),
    }
}

#[tokio::test]
async fn both_sides_show_a_request_with_its_ends_and_bytes() {
    let rig = rig().await;
    for proxy in [&rig.client, &rig.servers[0].proxy] {
        let mut events = observe(&rig, proxy, TAPPER, everything(1, None)).await.unwrap();
        assert_eq!(proxy.metrics("tap_sessions ").await, ["tap_sessions 1"]);
        rig.http1().await.ask(post("/echo?x=1", "12345")).await;
        let init = events.message().await.unwrap().unwrap();
        let http::Event::RequestInit(request) = http_event(&init) else {
            panic!("no request")
        };
        assert_eq!(
            (request.path.as_str(), request.authority.as_str()),
            ("/echo?x=1", "web.test")
        );
        let response = events.message().await.unwrap().unwrap();
        let http::Event::ResponseInit(response) = http_event(&response) else {
            panic!("no response")
        };
        assert_eq!(response.http_status, 200);
        let last = events.message().await.unwrap().unwrap();
        let http::Event::ResponseEnd(end) = http_event(&last) else {
            panic!("no end")
        };
        assert_eq!((end.response_bytes, last.request_bytes), (5, 5));
        assert_eq!(events.message().await.unwrap(), None);
        assert_eq!(proxy.metrics("tap_sessions ").await, ["tap_sessions 0"]);
    }
}

#[tokio::test]
async fn only_the_tap_service_may_tap() {
    let rig = rig().await;
    let refused = observe(&rig, &rig.client, "someone.else", everything(1, None))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn a_filter_waits_for_the_response() {
    let rig = rig().await;
    let filter = Filter {
        statuses: vec![StatusRange { min: 500, max: 599 }],
        ..Filter::default()
    };
    let mut events = observe(&rig, &rig.client, TAPPER, everything(1, Some(filter)))
        .await
        .unwrap();
    let mut client = rig.http1().await;
    client.ask(get("/status/200")).await;
    client.ask(get("/status/503")).await;
    let init = events.message().await.unwrap().unwrap();
    let http::Event::RequestInit(request) = http_event(&init) else {
        panic!("no request")
    };
    assert_eq!(request.path, "/status/503");
}

#[tokio::test]
async fn an_answer_of_the_proxy_itself_is_shown_with_its_cause() {
    let rig = Rig::with_env(
        0,
        &[
            ("TAP_SVC_NAME", TAPPER),
            ("OUTBOUND_HTTP_FAILFAST_TIMEOUT", "50ms"),
        ],
    )
    .await;
    rig.plane
        .services
        .endpoints
        .set(crate::rig::SERVICE, linkerd_testkit::messages::no_endpoints(true));
    let mut events = observe(&rig, &rig.client, TAPPER, everything(1, None))
        .await
        .unwrap();
    rig.http1().await.ask(get("/status/200")).await;
    let mut causes = Vec::new();
    while let Some(event) = events.message().await.unwrap() {
        causes.push(event.cause_code);
    }
    assert_eq!(causes, ["", "failfast", "failfast"]);
}

#[tokio::test]
async fn a_reader_that_leaves_is_forgotten() {
    let rig = rig().await;
    drop(
        observe(&rig, &rig.client, TAPPER, everything(100, None))
            .await
            .unwrap(),
    );
    for _ in 0..200 {
        if rig.client.metrics("tap_sessions ").await == ["tap_sessions 0"] {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("{} taps are left", count(&rig.client, "tap_sessions", &[]).await);
}
