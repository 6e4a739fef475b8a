use super::*;

const ANCHOR: &str = include_str!("anchor.pem");

fn minimal() -> BTreeMap<String, String> {
    let vars = [
        (
            "IDENTITY_LOCAL_NAME",
            "web.ns.serviceaccount.identity.linkerd.cluster.local",
        ),
        ("IDENTITY_DIR", "/var/run/linkerd/identity/end-entity"),
        (
            "IDENTITY_TOKEN_FILE",
            "/var/run/secrets/tokens/linkerd-identity-token",
        ),
        ("IDENTITY_TRUST_ANCHORS", ANCHOR),
        (
            "IDENTITY_SVC_ADDR",
            "linkerd-identity-headless.linkerd.svc.cluster.local.:8080",
        ),
        (
            "IDENTITY_SVC_NAME",
            "linkerd-identity.linkerd.serviceaccount.identity.linkerd.cluster.local",
        ),
        ("DESTINATION_SVC_ADDR", "localhost.:8086"),
        ("POLICY_SVC_ADDR", "localhost.:8090"),
        ("POLICY_WORKLOAD", r#"{"ns":"ns","pod":"web"}"#),
    ];
    vars.into_iter()
        .map(|(name, value)| (format!("LINKERD2_PROXY_{name}"), value.into()))
        .collect()
}

fn with(changes: &[(&str, &str)]) -> Result<Config, ConfigErrors> {
    let mut vars = minimal();
    for (name, value) in changes {
        vars.insert(format!("LINKERD2_PROXY_{name}"), (*value).into());
    }
    Config::from_env(vars)
}

/// The names of the variables that are complained about, without the prefix.
fn complaints(changes: &[(&str, &str)]) -> Vec<String> {
    let errors = with(changes).map_or_else(|errors| errors.0, |_| Vec::new());
    errors
        .into_iter()
        .map(|error| error.name.replace("LINKERD2_PROXY_", ""))
        .collect()
}

#[test]
fn what_is_not_set_has_linkerds_defaults() {
    let config = with(&[]).unwrap();
    assert_eq!(config.admin.listen, "127.0.0.1:4191".parse().unwrap());
    assert_eq!(config.inbound.listen, "0.0.0.0:4143".parse().unwrap());
    assert_eq!(config.outbound_listen, ["127.0.0.1:4140".parse().unwrap()]);
    assert_eq!(config.inbound.connect.timeout, Duration::from_millis(300));
    assert_eq!(config.outbound.connect.timeout, Duration::from_secs(1));
    assert_eq!(config.outbound.discovery_idle, Duration::from_secs(5));
    assert_eq!(config.shutdown_grace, Duration::from_secs(120));
    assert_eq!(config.control.inbound_default, DefaultPolicy::AllUnauthenticated);
    assert_eq!(config.tap.client, None);
    assert_eq!(config.workers, 1);
}

#[test]
fn services_on_loopback_need_no_identity() {
    let config = with(&[]).unwrap();
    assert_eq!(config.control.destination.id, None);
    assert!(config.control.identity.service.id.is_some());
    assert_eq!(
        complaints(&[("POLICY_SVC_ADDR", "linkerd-policy.linkerd.svc.:8090")]),
        ["POLICY_SVC_NAME"]
    );
}

#[test]
fn the_injected_values_are_understood() {
    let config = with(&[
        ("OUTBOUND_LISTEN_ADDRS", "127.0.0.1:4140,[::1]:4140"),
        ("INBOUND_ACCEPT_KEEPALIVE", "10000ms"),
        ("OUTBOUND_CONNECT_USER_TIMEOUT", "30s"),
        (
            "INBOUND_PORTS_DISABLE_PROTOCOL_DETECTION",
            "25,587,3306,4444,5432,6379,9300,11211",
        ),
        ("INBOUND_IPS", "10.244.0.7"),
        ("INBOUND_PORTS", "8080,9990"),
        ("DESTINATION_PROFILE_NETWORKS", "10.0.0.0/8,fd00::/8"),
        ("DESTINATION_PROFILE_SUFFIXES", "svc.cluster.local."),
        (
            "TAP_SVC_NAME",
            "tap.linkerd-viz.serviceaccount.identity.linkerd.cluster.local",
        ),
        ("INBOUND_SERVER_HTTP2_KEEP_ALIVE_INTERVAL", "10s"),
        ("INBOUND_SERVER_HTTP2_KEEP_ALIVE_TIMEOUT", "3s"),
        ("CONTROL_STREAM_INITIAL_TIMEOUT", "3s"),
        ("CONTROL_STREAM_IDLE_TIMEOUT", "5m"),
        ("CONTROL_STREAM_LIFETIME", "1h"),
    ])
    .unwrap();
    assert_eq!(config.outbound_listen.len(), 2);
    assert_eq!(
        config.inbound.accept.keepalive,
        Some(Keepalive(Duration::from_secs(10)))
    );
    assert!(config.control.inbound_opaque_ports.contains(&5432));
    assert_eq!(config.inbound_ports, BTreeSet::from([8080, 9990]));
    assert!(config.inbound.http2_server.keep_alive.is_some());
    assert_eq!(config.control.limits.idle, Some(Duration::from_secs(300)));
    assert!(config.tap.client.is_some());
}

#[test]
fn every_malformed_variable_is_named() {
    let named = complaints(&[
        ("INBOUND_CONNECT_TIMEOUT", "soon"),
        ("INBOUND_IPS", "x"),
        ("INBOUND_PORTS", "a"),
    ]);
    assert_eq!(named, ["INBOUND_CONNECT_TIMEOUT", "INBOUND_IPS", "INBOUND_PORTS"]);
}

#[test]
fn what_is_required_is_named() {
    let errors = Config::from_env(BTreeMap::new()).unwrap_err().to_string();
    for name in [
        "IDENTITY_LOCAL_NAME",
        "IDENTITY_TRUST_ANCHORS",
        "DESTINATION_SVC_ADDR",
        "POLICY_WORKLOAD",
    ] {
        assert!(
            errors.contains(&format!("LINKERD2_PROXY_{name}: has to be set")),
            "{errors}"
        );
    }
}

#[test]
fn contradictions_are_refused() {
    for (changes, named) in [
        (
            &[("INBOUND_DEFAULT_POLICY", "whatever")][..],
            "INBOUND_DEFAULT_POLICY",
        ),
        (
            &[("OUTBOUND_CONNECT_EXP_BACKOFF_MIN", "1s")],
            "OUTBOUND_CONNECT_EXP_BACKOFF_MIN",
        ),
        (
            &[
                ("CONTROL_STREAM_IDLE_TIMEOUT", "1h"),
                ("CONTROL_STREAM_LIFETIME", "5m"),
            ],
            "CONTROL_STREAM_INITIAL_TIMEOUT",
        ),
        (&[("IDENTITY_MIN_REFRESH", "2d")], "IDENTITY_MIN_REFRESH"),
        (&[("IDENTITY_DISABLED", "true")], "IDENTITY_DISABLED"),
        (
            &[("IDENTITY_TRUST_ANCHORS", "nonsense")],
            "IDENTITY_TRUST_ANCHORS",
        ),
        (&[("CORES_MAX_RATIO", "2")], "CORES_MAX_RATIO"),
    ] {
        assert_eq!(complaints(changes), [named], "{changes:?}");
    }
}

#[test]
fn empty_is_not_set() {
    assert_eq!(
        with(&[("INBOUND_PORTS", ""), ("INBOUND_CONNECT_TIMEOUT", " ")])
            .unwrap()
            .inbound_ports,
        BTreeSet::new()
    );
}

#[test]
fn an_identity_may_be_a_uri() {
    let mut vars = minimal();
    vars.remove("LINKERD2_PROXY_IDENTITY_LOCAL_NAME");
    vars.insert(
        "LINKERD2_PROXY_IDENTITY_SERVER_ID".into(),
        "spiffe://td/web".into(),
    );
    assert!(Config::from_env(vars.clone()).is_err());
    vars.insert("LINKERD2_PROXY_IDENTITY_SERVER_NAME".into(), "web.ns".into());
    let config = Config::from_env(vars).unwrap();
    assert_eq!(
        (config.local_id.as_str(), &*config.server_name),
        ("spiffe://td/web", "web.ns")
    );
}

#[test]
fn what_is_logged_and_traced_is_said_by_variables() {
    let config = with(&[
        ("ACCESS_LOG", "json"),
        ("TRACE_COLLECTOR_SVC_ADDR", "localhost.:4317"),
        ("INBOUND_METRICS_AUTHORITY_LABELS", "unsafe"),
    ])
    .unwrap();
    assert_eq!(config.access_log, Some(AccessLogFormat::Json));
    assert_eq!(config.trace.unwrap().collector.to_string(), "localhost.:4317");
    assert!(config.inbound_authority_labels);
    assert_eq!(
        complaints(&[
            ("TRACE_COLLECTOR_SVC_ADDR", "collector.tracing.svc:4317"),
            ("INBOUND_METRICS_AUTHORITY_LABELS", "true"),
        ]),
        ["INBOUND_METRICS_AUTHORITY_LABELS", "TRACE_COLLECTOR_SVC_NAME"]
    );
}

#[test]
fn what_has_no_effect_is_told() {
    let config = with(&[("INBOUND_GATEWAY_SUFFIXES", "false"), ("ACCESS_LOG", "xml")]).unwrap();
    assert_eq!(config.without_effect, ["ACCESS_LOG"]);
}

#[test]
fn the_clusters_networks_are_the_private_ones_unless_told() {
    for policy in ["audit", "cluster-authenticated"] {
        let config = with(&[("INBOUND_DEFAULT_POLICY", policy)]).unwrap();
        assert_eq!(config.control.cluster_networks.len(), 5);
    }
    let config = with(&[("POLICY_CLUSTER_NETWORKS", "10.244.0.0/16")]).unwrap();
    assert_eq!(config.control.cluster_networks.len(), 1);
}

#[test]
fn ports_may_require_an_identity() {
    let config = with(&[("INBOUND_PORTS_REQUIRE_IDENTITY", "8080,9000-9001")]).unwrap();
    assert_eq!(config.control.inbound_identity_ports.len(), 3);
}

#[test]
fn secrets_of_the_environment_are_not_shown() {
    let mut vars = minimal();
    for (name, value) in [
        ("DB_PASSWORD", "hunter2"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=hunter2"),
        ("COLLECTOR", "http://me:hunter2@collector:4317"),
        ("api_key", "hunter2"),
        ("HOSTNAME", "web-1"),
    ] {
        vars.insert(name.into(), value.into());
    }
    let shown = Config::from_env(vars).unwrap().admin.environment;
    assert!(!format!("{shown:?}").contains("hunter2"), "{shown:?}");
    assert_eq!(shown["HOSTNAME"], "web-1");
    assert!(shown["LINKERD2_PROXY_IDENTITY_TOKEN_FILE"].starts_with("/var/run/"));
}
