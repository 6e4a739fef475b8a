use crate::rig::{Rig, SERVICE, SERVICE_IP, Server, count, get, post};
use linkerd_proto::destination::{
    DestinationProfile, PathMatch, RequestMatch, ResponseClass, ResponseMatch, RetryBudget, Route,
    WeightedDst, request_match, response_match,
};
use linkerd_testkit::{Proxy, messages};
use std::time::{Duration, Instant};

fn route(name: &str, path: &str) -> Route {
    let regex = PathMatch { regex: path.into() };
    Route {
        condition: Some(RequestMatch {
            r#match: Some(request_match::Match::Path(regex)),
        }),
        metrics_labels: [("route".to_owned(), name.to_owned())].into(),
        ..Route::default()
    }
}

fn profile(routes: Vec<Route>) -> DestinationProfile {
    DestinationProfile {
        routes,
        retry_budget: Some(RetryBudget {
            retry_ratio: 0.2,
            min_retries_per_second: 10,
            ttl: Some(prost_types::Duration {
                seconds: 10,
                nanos: 0,
            }),
        }),
        ..messages::profile("web.test.svc.cluster.local")
    }
}

async fn rig(servers: usize, profile: DestinationProfile) -> Rig {
    let rig = Rig::with_profile(servers, Some(profile.clone())).await;
    rig.plane.services.profiles.set(SERVICE, profile);
    rig
}

async fn route_count(proxy: &Proxy, family: &str, route: &str) -> u64 {
    count(proxy, family, &[&format!("rt_route=\"{route}\"")]).await
}

#[tokio::test]
async fn routes_are_counted_on_both_sides() {
    let rig = rig(
        1,
        profile(vec![route("status", "/status/.*"), route("echo", "/echo")]),
    )
    .await;
    let mut client = rig.http1().await;
    for path in ["/status/200", "/status/500", "/echo", "/headers"] {
        client.ask(get(path)).await;
    }
    for proxy in [&rig.client, &rig.servers[0].proxy] {
        assert_eq!(route_count(proxy, "route_request_total", "status").await, 2);
        assert_eq!(route_count(proxy, "route_response_total", "echo").await, 1);
        let failures = [
            "rt_route=\"status\"",
            "classification=\"failure\"",
            "dst=\"web.test.svc.cluster.local:80\"",
        ];
        assert_eq!(count(proxy, "route_response_total", &failures).await, 1);
        assert_eq!(count(proxy, "route_request_total", &[]).await, 4);
    }
    assert_eq!(count(&rig.client, "route_actual_request_total", &[]).await, 4);
}

#[tokio::test]
async fn a_profile_says_what_a_failure_is() {
    let class = ResponseClass {
        condition: Some(ResponseMatch {
            r#match: Some(response_match::Match::Status(
                linkerd_proto::destination::HttpStatusRange { min: 404, max: 404 },
            )),
        }),
        is_failure: true,
    };
    let status = Route {
        response_classes: vec![class],
        ..route("status", "/status/.*")
    };
    let rig = rig(1, profile(vec![status])).await;
    let mut client = rig.http1().await;
    client.ask(get("/status/404")).await;
    for proxy in [&rig.client, &rig.servers[0].proxy] {
        let failed = ["classification=\"failure\"", "status_code=\"404\""];
        assert_eq!(count(proxy, "response_total", &failed).await, 1);
    }
}

#[tokio::test]
async fn failures_of_a_retryable_route_are_tried_again_within_the_budget() {
    let failing = Route {
        is_retryable: true,
        ..route("failing", "/status/5.*")
    };
    let rig = rig(1, profile(vec![failing])).await;
    let mut client = rig.http1().await;
    for _ in 0..10 {
        let answer = client.ask(post("/status/503", "body")).await;
        assert_eq!(answer.status, 503, "{:?}", answer.headers);
    }
    let logical = route_count(&rig.client, "route_request_total", "failing").await;
    let actual = route_count(&rig.client, "route_actual_request_total", "failing").await;
    assert_eq!(logical, 10);
    // The budget: a minimum of 10/s for 10 s and a fifth of the requests.
    assert_eq!(actual, 10 + 102);
    assert_eq!(count(&rig.servers[0].proxy, "request_total", &[]).await, actual);
    assert!(count(&rig.client, "route_retryable_total", &["skipped=\"no_budget\""]).await > 0);
}

#[tokio::test]
async fn a_route_times_out() {
    let slow = Route {
        timeout: Some(prost_types::Duration {
            seconds: 0,
            nanos: 50_000_000,
        }),
        ..route("slow", "/slow")
    };
    let rig = rig(1, profile(vec![slow])).await;
    let start = Instant::now();
    let answer = rig.http1().await.ask(get("/slow")).await;
    assert_eq!(answer.status, 504);
    assert!(
        answer.headers["l5d-proxy-error"]
            .to_str()
            .unwrap()
            .starts_with("request-timeout: ")
    );
    assert!(start.elapsed() < Duration::from_millis(250));
    let failed = ["classification=\"failure\"", "error=\"request-timeout\""];
    assert_eq!(count(&rig.client, "response_total", &failed).await, 1);
}

#[tokio::test]
async fn a_split_sends_each_side_its_share() {
    let target = |name: &str, weight| WeightedDst {
        authority: format!("{name}.test.svc.cluster.local:80"),
        weight,
        backend_ref: None,
    };
    let mut split = profile(Vec::new());
    split.dst_overrides = vec![target("web", 900), target("canary", 100)];
    let mut rig = rig(1, split).await;
    let canary = Server::new(&rig.plane).await;
    let mut endpoint = canary.endpoint();
    endpoint.metric_labels.insert("service".into(), "canary".into());
    let endpoints = messages::add(vec![endpoint]);
    rig.plane
        .services
        .endpoints
        .set("canary.test.svc.cluster.local:80", endpoints);
    rig.servers.push(canary);
    let mut client = rig.http1().await;
    for _ in 0..500 {
        assert_eq!(client.ask(get("/status/200")).await.status, 200);
    }
    // As in Linkerd, the authority is the service that was asked for, and `dst_service` the one that got the request.
    let asked = "authority=\"web.test.svc.cluster.local:80\"";
    let canary = count(
        &rig.client,
        "response_total",
        &[asked, "dst_service=\"canary\"", "classification=\"success\""],
    )
    .await;
    assert_eq!(count(&rig.client, "response_total", &[asked]).await, 500);
    assert!((20..=90).contains(&canary), "{canary}");
    assert_eq!(count(&rig.servers[1].proxy, "request_total", &[]).await, canary);
}

#[tokio::test]
async fn a_new_profile_applies_to_open_connections() {
    let rig = rig(1, profile(vec![route("before", "/.*")])).await;
    let mut client = rig.http1().await;
    client.ask(get("/status/200")).await;
    rig.plane
        .services
        .profiles
        .set(SERVICE_IP, profile(vec![route("after", "/.*")]));
    for _ in 0..200 {
        client.ask(get("/status/200")).await;
        if route_count(&rig.client, "route_request_total", "after").await > 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the new profile is not used");
}
