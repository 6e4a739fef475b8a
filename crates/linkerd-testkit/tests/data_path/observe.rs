//! What the proxies tell about themselves.

use crate::rig::{Rig, SERVICE, SERVICE_IP, count, get, post};
use linkerd_proto::{
    opentelemetry::{Span, span::SpanKind, status::StatusCode},
    outbound::http_route::{
        Retry,
        retry::{Conditions, conditions::StatusRange},
    },
    prometheus::{MetricFamily, MetricType},
};
use linkerd_testkit::{attribute_text, messages};
use prost::Message as _;
use std::collections::HashMap;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

fn attributes(span: &Span) -> HashMap<&str, String> {
    span.attributes
        .iter()
        .map(|a| (a.key.as_str(), attribute_text(a)))
        .collect()
}

#[tokio::test]
async fn a_sampled_request_has_a_span_on_each_side() {
    let rig = Rig::with_env(
        1,
        &[
            ("TRACE_COLLECTOR_SVC_ADDR", "{control}"),
            ("TRACE_SERVICE_NAME", "shop"),
        ],
    )
    .await;
    let mut request = get("/status/503");
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    request
        .headers_mut()
        .insert("traceparent", parent.parse().unwrap());
    let mut client = rig.http1().await;
    client.ask(get("/status/200")).await;
    client.ask(request).await;
    let spans = rig.plane.services.traces.wait(2).await;
    assert_eq!(spans.len(), 2, "{spans:?}");
    let of = |kind| &spans.iter().find(|(span, _)| span.kind() == kind).unwrap().0;
    let (outbound, inbound) = (of(SpanKind::Client), of(SpanKind::Server));
    assert_eq!(
        outbound.parent_span_id,
        [0, 0xf0, 0x67, 0xaa, 0x0b, 0xa9, 0x02, 0xb7]
    );
    assert_eq!(inbound.parent_span_id, outbound.span_id);
    assert_eq!(inbound.trace_id, outbound.trace_id);
    for span in [outbound, inbound] {
        assert_eq!(attributes(span)["http.response.status_code"], "503");
        assert_eq!(attributes(span)["url.path"], "/status/503");
        assert_eq!(span.status.as_ref().unwrap().code(), StatusCode::Error);
        assert!(span.end_time_unix_nano > span.start_time_unix_nano);
    }
    assert!(
        spans
            .iter()
            .all(|(_, resource)| resource["service.name"] == "shop")
    );
    while count_plain(&rig, "opentelemetry_span_exports_total").await < 1 {
        tokio::task::yield_now().await;
    }
    assert_eq!(count_plain(&rig, "opentelemetry_spans_dropped_total").await, 0);
}

/// A series without labels, of the client's proxy.
async fn count_plain(rig: &Rig, family: &str) -> u64 {
    let lines = rig.client.metrics(&format!("{family} ")).await;
    lines[0].rsplit(' ').next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn routes_of_policies_are_counted_with_parent_route_and_backend() {
    let rig = Rig::new(1).await;
    let mut client = rig.http1().await;
    for path in ["/status/200", "/status/200", "/status/404"] {
        client.ask(get(path)).await;
    }
    client.ask(post("/echo", "12345")).await;
    let route = [
        "parent_kind=\"Service\"",
        "parent_namespace=\"test\"",
        "parent_name=\"web\"",
        "parent_port=\"80\"",
        "route_kind=\"default\"",
        "route_name=\"http\"",
    ];
    let of = async |family: &str, labels: &[&str]| {
        let labels: Vec<_> = route.iter().chain(labels).copied().collect();
        count(&rig.client, family, &labels).await
    };
    let backend = "backend_name=\"web\"";
    assert_eq!(
        of("outbound_http_route_backend_requests_total", &[backend]).await,
        4
    );
    let (ok, not_found) = ("http_status=\"200\"", "http_status=\"404\"");
    let statuses = "outbound_http_route_request_statuses_total";
    assert_eq!(
        (
            of(statuses, &[ok, "error=\"\"", "hostname=\"\""]).await,
            of(statuses, &[not_found]).await
        ),
        (3, 1)
    );
    let statuses = "outbound_http_route_backend_response_statuses_total";
    assert_eq!(
        (
            of(statuses, &[ok, backend]).await,
            of(statuses, &[not_found]).await
        ),
        (3, 1)
    );
    for (family, expected) in [
        ("outbound_http_route_request_duration_seconds_count", 4),
        ("outbound_http_route_backend_response_duration_seconds_count", 4),
        ("outbound_http_route_request_frame_size_bytes_sum", 5),
        ("outbound_http_route_backend_response_frame_size_bytes_count", 4),
    ] {
        assert_eq!(of(family, &[]).await, expected, "{family}");
    }
}

#[tokio::test]
async fn retries_of_a_policy_are_counted() {
    let rig = Rig::new(1).await;
    let conditions = Conditions {
        status_ranges: vec![StatusRange { start: 500, end: 599 }],
    };
    let retrying = messages::with_rules(messages::balanced(SERVICE), |rule| {
        rule.retry = Some(Retry {
            max_retries: 2,
            max_request_bytes: 1_024,
            conditions: Some(conditions.clone()),
            timeout: None,
            backoff: None,
        });
    });
    rig.plane.services.outbound.set(SERVICE_IP, retrying);
    let mut client = rig.http1().await;
    for _ in 0..200 {
        client.ask(get("/status/503")).await;
        if count(&rig.client, "outbound_http_route_retry_requests_total", &[]).await > 0 {
            break;
        }
    }
    let of = async |family: &str| count(&rig.client, family, &[]).await;
    assert_eq!(of("outbound_http_route_retry_requests_total").await, 2);
    assert_eq!(of("outbound_http_route_retry_limit_exceeded_total").await, 1);
    assert_eq!(of("outbound_http_route_retry_successes_total").await, 0);
}

#[tokio::test]
async fn hosts_are_told_apart_on_request_and_only_so_many() {
    let rig = Rig::with(1, &[("OUTBOUND_METRICS_HOSTNAME_LABELS", "true")]).await;
    let mut client = rig.http1().await;
    for host in ["a.test", "b.test", "A.test"] {
        let mut request = get("/status/200");
        request.headers_mut().insert("host", host.parse().unwrap());
        client.ask(request).await;
    }
    let of =
        async |host: &str| count(&rig.client, "outbound_http_route_request_statuses_total", &[host]).await;
    assert_eq!(
        (of("hostname=\"a.test\"").await, of("hostname=\"b.test\"").await),
        (2, 1)
    );
}

/// Everything that clients choose, as different as can be, leaves the number of series and their size as they are.
#[tokio::test]
async fn made_up_hosts_paths_and_headers_make_no_series() {
    let rig = Rig::new(1).await;
    let mut client = rig.http1().await;
    let ask = async |client: &mut crate::rig::Http1, n: usize| {
        let mut request = get(&format!("/status/200?{n}"));
        let headers = request.headers_mut();
        headers.insert("host", format!("host-{n}.test").parse().unwrap());
        headers.insert("user-agent", format!("agent-{n}").parse().unwrap());
        headers.insert("l5d-client-id", format!("id-{n}").parse().unwrap());
        assert_eq!(client.ask(request).await.status, 200);
    };
    let lines = async || {
        let (a, b) = (
            rig.client.metrics("").await,
            rig.servers[0].proxy.metrics("").await,
        );
        a.iter().chain(&b).filter(|line| line.contains('{')).count()
    };
    ask(&mut client, 0).await;
    let before = lines().await;
    for n in 1..1_000 {
        ask(&mut client, n).await;
    }
    assert_eq!(lines().await, before);
}

#[tokio::test]
async fn prometheus_gets_native_histograms_when_it_asks_for_protobuf() {
    let rig = Rig::new(1).await;
    let mut client = rig.http1().await;
    for _ in 0..20 {
        client.ask(get("/status/200")).await;
    }
    let mut io = TcpStream::connect(rig.client.bound.admin).await.unwrap();
    let request = "GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\naccept: application/vnd.google.protobuf;\
        proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.6,text/plain;q=0.1\r\n\r\n";
    io.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    io.read_to_end(&mut answer).await.unwrap();
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(answer[..end].to_vec())
        .unwrap()
        .to_ascii_lowercase();
    assert!(
        head.contains("content-type: application/vnd.google.protobuf"),
        "{head}"
    );
    let mut body = &answer[end + 4..];
    let mut durations = None;
    while !body.is_empty() {
        let family = MetricFamily::decode_length_delimited(&mut body).unwrap();
        if family.name == "request_duration_seconds" {
            assert_eq!(family.r#type(), MetricType::Histogram);
            durations = family.metric[0].histogram.clone();
        }
    }
    let durations = durations.unwrap();
    assert_eq!((durations.sample_count, durations.schema), (20, 7));
    assert!(!durations.positive_span.is_empty());
}

#[tokio::test]
async fn calls_to_the_control_plane_and_the_build_are_told() {
    let rig = Rig::new(1).await;
    rig.http1().await.ask(get("/status/200")).await;
    let of = async |family: &str, labels: &[&str]| count(&rig.client, family, labels).await;
    let addr = format!("addr=\"{}\"", rig.plane.addr);
    assert!(of("control_request_total", &[&addr]).await >= 3);
    assert!(of("control_response_latency_ms_count", &["status_code=\"200\""]).await >= 3);
    assert!(
        of(
            "control_dns_resolutions_total",
            &["client=\"destination\"", "result=\"ok\""]
        )
        .await
            >= 1
    );
    assert_eq!(of("proxy_build_info", &["version=\"stable-"]).await, 1);
    assert_eq!(of("rustls_info", &["tls_suites=\"TLS13_"]).await, 1);
}

#[tokio::test]
async fn inbound_routes_are_counted_by_their_server() {
    let rig = Rig::new(1).await;
    let mut client = rig.http1().await;
    for path in ["/status/200", "/status/500"] {
        client.ask(get(path)).await;
    }
    client.ask(post("/echo", "12345")).await;
    let server = &rig.servers[0];
    let port = format!("parent_port=\"{}\"", server.app.addr.port());
    let of = async |family: &str, labels: &[&str]| {
        let labels: Vec<_> = ["parent_kind=\"default\"", "route_name=\"default\"", &port]
            .iter()
            .chain(labels)
            .copied()
            .collect();
        count(&server.proxy, family, &labels).await
    };
    assert_eq!(of("inbound_http_requests_total", &[]).await, 3);
    assert_eq!(of("inbound_http_statuses_total", &["status=\"200\""]).await, 2);
    assert_eq!(of("inbound_http_statuses_total", &["status=\"500\""]).await, 1);
    assert_eq!(of("inbound_http_request_frame_size_bytes_sum", &[]).await, 5);
    assert_eq!(of("inbound_http_request_duration_seconds_count", &[]).await, 3);
    assert_eq!(of("inbound_http_response_duration_seconds_count", &[]).await, 3);
}

#[tokio::test]
async fn inbound_hosts_are_told_apart_on_request() {
    let rig = Rig::with_env(1, &[("INBOUND_METRICS_AUTHORITY_LABELS", "unsafe")]).await;
    let mut client = rig.http1().await;
    for host in ["a.test", "b.test", "A.test"] {
        let mut request = get("/status/200");
        request.headers_mut().insert("host", host.parse().unwrap());
        client.ask(request).await;
    }
    let of = async |host: &str| {
        let labels = ["direction=\"inbound\"", host];
        count(&rig.servers[0].proxy, "response_total", &labels).await
    };
    assert_eq!(
        (of("authority=\"a.test\"").await, of("authority=\"b.test\"").await),
        (2, 1)
    );
}

/// `/discovery.json` of the client's proxy.
async fn discovery(rig: &Rig) -> serde_json::Value {
    let answer = rig.client.admin("/discovery.json").await.unwrap();
    serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
}

#[tokio::test]
async fn a_proxy_says_what_it_believes() {
    let rig = Rig::new(1).await;
    rig.http1().await.ask(get("/status/200")).await;
    let believed = discovery(&rig).await;
    let target = &believed["outbound"]["targets"][0];
    assert_eq!(target["target"], SERVICE_IP);
    let policy = &target["policy"];
    assert_eq!(
        (&policy["protocol"], &policy["parent"]),
        (&"detect".into(), &"Service.test.web:80".into())
    );
    assert!(policy["revision"].as_u64() >= Some(1) && policy["age_seconds"].is_number());
    assert_eq!(policy["routes"][0]["backends"][0]["failfast"], false);
    let balancer = &believed["outbound"]["endpoints"][0];
    assert_eq!(
        (&balancer["authority"], &balancer["known"]),
        (&SERVICE.into(), &true.into())
    );
    let endpoint = &balancer["endpoints"][0];
    assert_eq!(endpoint["address"], rig.servers[0].app.addr.to_string());
    assert_eq!(
        (&endpoint["state"], &endpoint["identity"]),
        (&"ready".into(), &crate::rig::SERVER_ID.into())
    );
    assert!(endpoint["latency_seconds"].as_f64() > Some(0.0) && endpoint["age_seconds"].is_number());
    assert!(
        endpoint["load"].as_str().unwrap().ends_with('s') && endpoint["age"].as_str().unwrap().ends_with('s')
    );
    assert_eq!(believed["identity"]["certified"], true);
}
