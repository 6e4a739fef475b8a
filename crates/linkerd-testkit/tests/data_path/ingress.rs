//! A proxy whose application chooses endpoints for others, and says where each request goes.

use crate::rig::{Outgoing, Rig, SERVER_ID, SERVICE, SERVICE_IP, count, echo, get};
use http::Request;
use linkerd_proto::destination::DestinationProfile;
use linkerd_testkit::messages;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

const INGRESS: [(&str, &str); 1] = [("INGRESS_MODE", "true")];

fn overridden(path: &str, dst: &str) -> Request<Outgoing> {
    let mut request = get(path);
    request
        .headers_mut()
        .insert("l5d-dst-override", dst.parse().unwrap());
    request
}

#[tokio::test]
async fn a_request_goes_where_it_says() {
    let rig = Rig::with(1, &INGRESS).await;
    rig.plane
        .services
        .outbound
        .set(SERVICE, messages::balanced(SERVICE));
    let (mut one, mut two) = (rig.http1().await, rig.http2().await);
    for dst in [
        SERVICE,
        "web.test.svc.cluster.local",
        "WEB.test.svc.cluster.local:80",
    ] {
        for answer in [
            one.ask(overridden("/headers", dst)).await,
            two.ask(overridden("/headers", dst)).await,
        ] {
            let seen = answer.text();
            assert!(
                !seen.contains("l5d-dst-override") && seen.contains("web.test"),
                "{seen}"
            );
        }
    }
    let meshed = ["tls=\"true\"", &format!("server_id=\"{SERVER_ID}\"")];
    assert_eq!(count(&rig.client, "response_total", &meshed).await, 6);
    assert_eq!(one.ask(overridden("/headers", "a b")).await.status, 400);
}

#[tokio::test]
async fn the_profile_of_the_name_counts() {
    let rig = Rig::with(1, &INGRESS).await;
    let profile = DestinationProfile {
        dst_overrides: vec![linkerd_proto::destination::WeightedDst {
            authority: SERVICE.into(),
            weight: 1,
            backend_ref: None,
        }],
        ..messages::profile("other.test.svc.cluster.local")
    };
    let other = "other.test.svc.cluster.local:80";
    rig.plane.services.profiles.set(other, profile);
    assert_eq!(
        rig.http1()
            .await
            .ask(overridden("/status/200", other))
            .await
            .status,
        200
    );
    let asked = ["tls=\"true\"", &format!("authority=\"{other}\"")];
    assert_eq!(count(&rig.client, "response_total", &asked).await, 1);
}

#[tokio::test]
async fn other_requests_go_where_they_were_sent() {
    let rig = Rig::with(1, &INGRESS).await;
    let endpoint = messages::endpoint(rig.servers[0].app.addr);
    let profile = DestinationProfile {
        endpoint: Some(endpoint),
        ..DestinationProfile::default()
    };
    rig.plane.services.profiles.set(SERVICE_IP, profile);
    assert_eq!(rig.http1().await.ask(get("/status/200")).await.status, 200);
    let direct = ["no_tls_reason=\"ingress_without_override\""];
    assert_eq!(count(&rig.client, "response_total", &direct).await, 1);
    assert_eq!(count(&rig.servers[0].proxy, "request_total", &[]).await, 0);
}

#[tokio::test]
async fn opaque_addresses_take_http_and_bytes() {
    let rig = Rig::with(1, &INGRESS).await;
    rig.plane
        .services
        .outbound
        .set(SERVICE, messages::balanced(SERVICE));
    let (addr, _server) = echo("").await;
    let profile = DestinationProfile {
        opaque_protocol: true,
        endpoint: Some(messages::endpoint(addr)),
        ..DestinationProfile::default()
    };
    rig.plane.services.profiles.set(SERVICE_IP, profile);
    let mut io = rig.tcp().await;
    io.write_all(b"\x00\x01\x02\x03").await.unwrap();
    let mut heard = [0; 4];
    io.read_exact(&mut heard).await.unwrap();
    assert_eq!(heard, [0, 1, 2, 3]);
    assert_eq!(
        rig.http1()
            .await
            .ask(overridden("/status/200", SERVICE))
            .await
            .status,
        200
    );
}
