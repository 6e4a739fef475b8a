//! What a policy's routes do to requests.

use crate::rig::{Rig, SERVICE, SERVICE_IP, Whole, count, get, grpc_call, post, streamed};
use http_body_util::BodyExt as _;
use linkerd_proto::{
    http_route::Timeouts,
    outbound::http_route::{Retry, Rule, retry},
};
use linkerd_testkit::messages;
use std::time::{Duration, Instant};

fn millis(millis: u64) -> Option<prost_types::Duration> {
    Some(Duration::from_millis(millis).try_into().unwrap())
}

/// One server behind a route that `change` has changed.
async fn rig(change: impl Fn(&mut Rule)) -> Rig {
    let rig = Rig::new(1).await;
    let policy = messages::with_rules(messages::balanced(SERVICE), change);
    rig.plane.services.outbound.set(SERVICE_IP, policy);
    rig
}

fn timeouts(request: u64, response: u64, idle: u64) -> Option<Timeouts> {
    let limit = |n| if n > 0 { millis(n) } else { None };
    Some(Timeouts {
        request: limit(request),
        response: limit(response),
        idle: limit(idle),
    })
}

fn on_5xx(max_retries: u32) -> Option<Retry> {
    let range = retry::conditions::StatusRange { start: 500, end: 599 };
    Some(Retry {
        max_retries,
        max_request_bytes: 64 * 1024,
        conditions: Some(retry::Conditions {
            status_ranges: vec![range],
        }),
        timeout: None,
        backoff: None,
    })
}

fn error(answer: &Whole) -> &str {
    answer
        .headers
        .get("l5d-proxy-error")
        .map_or("", |v| v.to_str().unwrap())
}

#[tokio::test]
async fn a_response_that_does_not_begin_in_time_is_given_up() {
    for (given, cause) in [
        (timeouts(100, 0, 0), "request-timeout"),
        (timeouts(0, 100, 0), "response-timeout"),
        (timeouts(0, 0, 100), "idle-timeout"),
    ] {
        let rig = rig(|rule| rule.timeouts = given).await;
        let answer = rig.http1().await.ask(get("/slow")).await;
        assert_eq!(answer.status, 504);
        let error = error(&answer);
        assert!(
            error.starts_with(&format!(
                "{cause}: logical service {SERVICE_IP} (Service.test.web:80): route default.http: \
                 backend Service.test.web:80: {SERVICE}: "
            )),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_response_that_does_not_end_in_time_breaks_off() {
    for (given, cause) in [
        (timeouts(200, 0, 0), "request-timeout"),
        (timeouts(0, 200, 0), "response-timeout"),
        (timeouts(0, 0, 200), "idle-timeout"),
    ] {
        let rig = rig(|rule| rule.timeouts = given).await;
        let start = Instant::now();
        let (mut one, mut two) = (rig.http1().await, rig.http2().await);
        let answer = one.send(get("/stall")).await.unwrap();
        assert_eq!(answer.status(), 200);
        assert!(answer.into_body().collect().await.is_err());
        let answer = two.send(get("/stall")).await.unwrap();
        assert!(answer.into_body().collect().await.is_err());
        assert!(start.elapsed() < Duration::from_secs(2));
        let broken = [
            "status_code=\"200\"",
            "classification=\"failure\"",
            &format!("error=\"{cause}\""),
        ];
        let counted = rig.client.metrics("response_total").await;
        assert_eq!(
            count(&rig.client, "response_total", &broken).await,
            2,
            "{counted:#?}"
        );
    }
}

#[tokio::test]
async fn a_grpc_client_reads_the_timeout_in_trailers() {
    let rig = rig(|rule| rule.timeouts = timeouts(200, 0, 0)).await;
    let mut call = grpc_call("/grpc.stall");
    // The server echoes what it hears, and this client does not end what it says.
    let (sender, body) = streamed();
    sender.send("hello".into()).await.unwrap();
    *call.body_mut() = body;
    let answer = rig.http2().await.ask(call).await;
    assert_eq!(answer.text(), "hello");
    let trailers = answer.trailers.unwrap();
    assert_eq!(trailers["grpc-status"], "4");
    assert!(
        trailers["grpc-message"]
            .to_str()
            .unwrap()
            .starts_with("request-timeout: ")
    );
    drop(sender);
}

#[tokio::test]
async fn frames_keep_a_stream_alive_that_would_be_idle() {
    let rig = rig(|rule| rule.timeouts = timeouts(0, 0, 300)).await;
    let (sender, body) = streamed();
    let mut request = post("/echo", "");
    *request.body_mut() = body;
    let mut client = rig.http2().await;
    let answer = tokio::spawn(async move { client.ask(request).await });
    for _ in 0..8 {
        sender.send("x".into()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    drop(sender);
    assert_eq!(answer.await.unwrap().text(), "xxxxxxxx");
}

#[tokio::test]
async fn uploads_are_sent_again_as_the_policy_says() {
    let rig = rig(|rule| rule.retry = on_5xx(3)).await;
    let body = "x".repeat(50_000);
    rig.servers[0].app.fails(3);
    let answer = rig.http1().await.ask(post("/broken", body.clone())).await;
    assert_eq!((answer.status.as_u16(), answer.text()), (200, body.clone()));
    rig.servers[0].app.fails(2);
    let answer = rig.http2().await.ask(post("/broken", body.clone())).await;
    assert_eq!((answer.status.as_u16(), answer.text()), (200, body));
    rig.servers[0].app.fails(1);
    let answer = rig.http1().await.ask(post("/broken", "x".repeat(100_000))).await;
    assert_eq!(
        answer.status, 503,
        "what is larger than the policy allows is sent once"
    );
}

#[tokio::test]
async fn retries_of_a_rule_have_a_budget() {
    let rig = rig(|rule| rule.retry = on_5xx(100)).await;
    rig.servers[0].app.fails(usize::MAX);
    let mut client = rig.http1().await;
    for _ in 0..40 {
        assert_eq!(client.ask(get("/broken")).await.status, 503);
    }
    // 10 a second for 10 s and a fifth of the requests.
    let sent = count(&rig.servers[0].proxy, "request_total", &[]).await;
    assert!((100..=40 + 108).contains(&sent), "{sent}");
}

#[tokio::test]
async fn an_attempt_that_is_slow_to_begin_is_tried_again() {
    let rig = rig(|rule| {
        rule.retry = on_5xx(1).map(|retry| Retry {
            timeout: millis(100),
            ..retry
        });
    })
    .await;
    // The last attempt has all the time it wants.
    assert_eq!(rig.http1().await.ask(get("/slow")).await.status, 200);
    let late = ["error=\"response-timeout\""];
    assert_eq!(count(&rig.client, "response_total", &late).await, 1);
}

#[tokio::test]
async fn a_grpc_status_in_trailers_is_a_reason_to_try_again() {
    let rig = rig(|rule| rule.allow_l5d_request_headers = true).await;
    let mut call = grpc_call("/grpc.broken");
    let headers = call.headers_mut();
    headers.insert("l5d-retry-grpc", "unavailable".parse().unwrap());
    headers.insert("l5d-retry-limit", "2".parse().unwrap());
    rig.servers[0].app.fails(2);
    let answer = rig.http2().await.ask(call).await;
    assert_eq!(
        (answer.text().as_str(), &answer.trailers.unwrap()["grpc-status"]),
        ("message", &"0".parse().unwrap())
    );
    assert_eq!(
        count(&rig.client, "response_total", &["grpc_status=\"14\""]).await,
        2
    );
}

#[tokio::test]
async fn a_request_may_say_how_it_is_treated_where_the_route_allows_it() {
    let asking = |path: &str, timeout: &str| {
        let mut request = get(path);
        for (name, value) in [
            ("l5d-retry-http", "5xx"),
            ("l5d-retry-limit", "3"),
            ("l5d-timeout", timeout),
        ] {
            request.headers_mut().insert(name, value.parse().unwrap());
        }
        request
    };
    let seen = rig(|_| {})
        .await
        .http1()
        .await
        .ask(asking("/headers", "150ms"))
        .await
        .text();
    assert!(
        seen.contains("\"l5d-timeout\": \"150ms\"") && seen.contains("l5d-retry-http"),
        "{seen}"
    );
    let rig = rig(|rule| rule.allow_l5d_request_headers = true).await;
    let mut client = rig.http1().await;
    let seen = client.ask(asking("/headers", "150ms")).await.text();
    assert!(
        !seen.contains("l5d-timeout") && !seen.contains("l5d-retry"),
        "{seen}"
    );
    rig.servers[0].app.fails(3);
    assert_eq!(client.ask(asking("/broken", "5s")).await.status, 200);
    let answer = client.ask(asking("/slow", "150ms")).await;
    assert!(
        error(&answer).starts_with("request-timeout: "),
        "{}",
        error(&answer)
    );
}
