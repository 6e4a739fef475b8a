use crate::rig::{CLIENT_ID, Rig, SERVER_ID, count, get, post};
use bytes::Bytes;
use hyper_util::rt::TokioIo;
use linkerd_testkit::messages;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

#[tokio::test]
async fn both_sides_count_exactly_what_was_sent() {
    let rig = Rig::new(1).await;
    let mut client = rig.http1().await;
    let (mut good, mut bad) = (0, 0);
    for i in 0..200 {
        let path = if i % 7 == 0 { "/status/503" } else { "/status/200" };
        let answer = client.ask(get(path)).await;
        if answer.status.is_success() {
            good += 1;
        } else {
            bad += 1;
        }
    }
    assert_eq!((good, bad), (171, 29));
    let server = &rig.servers[0].proxy;
    for (proxy, direction) in [
        (&rig.client, "direction=\"outbound\""),
        (server, "direction=\"inbound\""),
    ] {
        let of = async |family: &'static str, label: &'static str| {
            count(proxy, family, &[direction, "tls=\"true\"", label]).await
        };
        assert_eq!(of("request_total", "").await, 200);
        assert_eq!(of("response_total", "classification=\"success\"").await, 171);
        assert_eq!(of("response_total", "classification=\"failure\"").await, 29);
        assert_eq!(of("response_total", "status_code=\"503\"").await, 29);
        assert_eq!(of("response_latency_ms_count", "status_code=\"200\"").await, 171);
    }
    let server_id = format!("server_id=\"{SERVER_ID}\"");
    assert_eq!(
        count(
            &rig.client,
            "request_total",
            &[&server_id, "authority=\"web.test.svc.cluster.local:80\""]
        )
        .await,
        200
    );
    assert_eq!(
        count(
            server,
            "request_total",
            &[&format!("client_id=\"{CLIENT_ID}\""), "srv_kind=\"default\""]
        )
        .await,
        200
    );
    assert_eq!(
        count(
            server,
            "inbound_http_authz_allow_total",
            &["authz_name=\"localhost\""]
        )
        .await,
        200
    );
}

#[tokio::test]
async fn concurrent_clients_of_both_versions_are_counted() {
    let rig = Rig::new(2).await;
    let (mut tasks, each) = (tokio::task::JoinSet::new(), 50);
    for _ in 0..4 {
        let (mut one, mut two) = (rig.http1().await, rig.http2().await);
        tasks.spawn(async move {
            for _ in 0..each {
                assert_eq!(one.ask(get("/status/200")).await.status, 200);
                assert_eq!(two.ask(post("/echo", "x")).await.text(), "x");
            }
        });
    }
    tasks.join_all().await;
    assert_eq!(
        count(&rig.client, "response_total", &["classification=\"success\""]).await,
        400
    );
    let mut served = Vec::new();
    for server in &rig.servers {
        served.push(
            count(
                &server.proxy,
                "response_total",
                &["direction=\"inbound\"", "classification=\"success\""],
            )
            .await,
        );
    }
    assert_eq!(served.iter().sum::<u64>(), 400);
    // How many each gets is up to their latencies, and one pause of a busy machine counts for seconds.
    assert!(served.iter().all(|n| *n > 10), "{served:?}");
}

#[tokio::test]
async fn the_application_sees_the_request_that_was_sent() {
    let rig = Rig::new(1).await;
    let mut request = get("/headers?q=a%20b");
    request
        .headers_mut()
        .insert("connection", "x-hop".parse().unwrap());
    request.headers_mut().insert("x-hop", "1".parse().unwrap());
    request
        .headers_mut()
        .insert("l5d-client-id", "forged".parse().unwrap());
    let seen = rig.http1().await.ask(request).await.text();
    assert!(seen.starts_with("HTTP/1.1 /headers?q=a%20b "), "{seen}");
    assert!(seen.contains("\"host\": \"web.test\""), "{seen}");
    assert!(
        seen.contains(&format!("\"l5d-client-id\": \"{CLIENT_ID}\"")),
        "{seen}"
    );
    assert!(
        !seen.contains("x-hop") && !seen.contains("l5d-orig-proto") && !seen.contains("forged"),
        "{seen}"
    );
    let seen = rig.http2().await.ask(get("/headers")).await.text();
    assert!(seen.starts_with("HTTP/2.0 http://web.test/headers "), "{seen}");
}

#[tokio::test]
async fn large_bodies_pass_both_ways() {
    let rig = Rig::new(1).await;
    let body = Bytes::from(vec![7; 3 << 20]);
    assert_eq!(
        rig.http1().await.ask(post("/echo", body.clone())).await.body,
        body
    );
    assert_eq!(
        rig.http2().await.ask(post("/echo", body.clone())).await.body,
        body
    );
}

#[tokio::test]
async fn grpc_is_classified_by_its_trailers() {
    let rig = Rig::new(1).await;
    let mut client = rig.http2().await;
    for (status, times) in [("0", 5), ("14", 3), ("5", 2)] {
        for _ in 0..times {
            let mut request = post("/grpc.Echo/Say", &b"\0\0\0\0\x01x"[..]);
            request
                .headers_mut()
                .insert("content-type", "application/grpc".parse().unwrap());
            request.headers_mut().insert("te", "trailers".parse().unwrap());
            request.headers_mut().insert("x-status", status.parse().unwrap());
            let answer = client.ask(request).await;
            assert_eq!(answer.trailers.unwrap()["grpc-status"], status);
            assert_eq!(&answer.body[..], b"\0\0\0\0\x01x");
        }
    }
    for proxy in [&rig.client, &rig.servers[0].proxy] {
        let of = async |labels: &[&str]| count(proxy, "response_total", labels).await;
        assert_eq!(of(&["classification=\"success\"", "grpc_status=\"0\""]).await, 5);
        assert_eq!(of(&["classification=\"failure\"", "grpc_status=\"14\""]).await, 3);
        assert_eq!(of(&["classification=\"success\"", "grpc_status=\"5\""]).await, 2);
    }
}

#[tokio::test]
async fn an_upgraded_connection_is_a_tunnel() {
    let rig = Rig::new(1).await;
    let mut client = rig.http1().await;
    let mut request = get("/upgrade");
    request
        .headers_mut()
        .insert("connection", "upgrade".parse().unwrap());
    request.headers_mut().insert("upgrade", "echo".parse().unwrap());
    let response = client.send(request).await.unwrap();
    assert_eq!(response.status(), 101);
    assert_eq!(response.headers()["upgrade"], "echo");
    let mut io = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    for word in ["hello", "again"] {
        io.write_all(word.as_bytes()).await.unwrap();
        let mut heard = vec![0; word.len()];
        io.read_exact(&mut heard).await.unwrap();
        assert_eq!(heard, word.as_bytes());
    }
}

#[tokio::test]
async fn a_tunnel_takes_the_place_of_a_request_until_it_ends() {
    for limit in ["INBOUND_MAX_IN_FLIGHT", "OUTBOUND_MAX_IN_FLIGHT"] {
        let rig = Rig::with_env(1, &[(limit, "1")]).await;
        let mut request = get("/upgrade");
        let headers = request.headers_mut();
        headers.insert("connection", "upgrade".parse().unwrap());
        headers.insert("upgrade", "echo".parse().unwrap());
        let mut upgraded = rig.http1().await;
        let granted = upgraded.send(request).await.unwrap();
        let tunnel = hyper::upgrade::on(granted).await.unwrap();
        let mut other = rig.http1().await;
        assert_eq!(other.ask(get("/status/200")).await.status, 503, "{limit}");
        drop(tunnel);
        while other.ask(get("/status/200")).await.status != 200 {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    }
}

#[tokio::test]
async fn an_unmeshed_endpoint_is_reached_in_plain_text() {
    let rig = Rig::new(1).await;
    let app = crate::rig::App::start().await;
    rig.plane.services.endpoints.set(
        crate::rig::SERVICE,
        messages::add(vec![messages::endpoint(app.addr)]),
    );
    let mut client = rig.http1().await;
    for _ in 0..10 {
        assert_eq!(client.ask(get("/status/200")).await.status, 200);
    }
    let reason = "no_tls_reason=\"not_provided_by_service_discovery\"";
    assert_eq!(
        count(&rig.client, "response_total", &["tls=\"no_identity\"", reason]).await,
        10
    );
}

#[tokio::test]
async fn a_client_without_identity_is_denied_where_one_is_required() {
    let rig = Rig::new(1).await;
    let server = &rig.servers[0];
    let only = messages::server(
        messages::inbound_detect(),
        vec![messages::identities(&["someone.else"])],
    );
    rig.plane
        .services
        .inbound
        .set(server.app.addr.port().to_string(), only);
    let mut client = rig.http1().await;
    let mut answer = client.ask(get("/status/200")).await;
    for _ in 0..100 {
        if answer.status == 403 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        answer = client.ask(get("/status/200")).await;
    }
    assert_eq!(answer.status, 403);
    assert!(
        answer.headers["l5d-proxy-error"]
            .to_str()
            .unwrap()
            .starts_with("unauthorized: ")
    );
    assert!(
        count(
            &server.proxy,
            "inbound_http_authz_deny_total",
            &["route_name=\"default\""]
        )
        .await
            >= 1
    );
}
