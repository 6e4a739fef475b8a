use super::*;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType};
use std::time::Duration;

/// A root that issues leaves.
struct Ca {
    issuer: Issuer<'static, KeyPair>,
    anchors: TrustAnchors,
}

impl Ca {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let anchors = TrustAnchors::from_pem(&params.self_signed(&key).unwrap().pem()).unwrap();
        Self {
            issuer: Issuer::new(params, key),
            anchors,
        }
    }

    fn issue(&self, names: Vec<SanType>) -> Certificate {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names;
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let key = KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, &self.issuer).unwrap();
        Certificate {
            chain: vec![leaf.into()],
            key: PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            valid_until: SystemTime::now() + Duration::from_secs(3600),
        }
    }

    fn store(&self, name: &str) -> CredentialsStore {
        let store = CredentialsStore::new(Id::dns(name).unwrap(), name.into());
        store
            .publish(self.issue(vec![dns(name)]), self.anchors.clone())
            .unwrap();
        store
    }
}

fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().unwrap())
}

fn to(id: &str, server_name: &str) -> EndpointTls {
    EndpointTls {
        server_id: id.parse().unwrap(),
        server_name: server_name.into(),
    }
}

/// What the server and the client have learned of each other.
type Outcome = (Result<(Option<Id>, bool), TlsError>, Result<bool, TlsError>);

async fn handshake(
    server: &Credentials,
    direct: bool,
    client: &Credentials,
    to: &EndpointTls,
    header: bool,
) -> Outcome {
    let (near, far) = tokio::io::duplex(16 * 1024);
    let (accepted, connected) = tokio::join!(server.accept(far, direct), client.connect(near, to, header));
    (
        accepted.map(|(_, id, header)| (id, header)),
        connected.map(|(_, header)| header),
    )
}

#[tokio::test]
async fn both_sides_learn_the_other_identity() {
    let ca = Ca::new();
    let (a, b) = (ca.store("a.ns").credentials(), ca.store("b.ns").credentials());
    let (accepted, connected) = handshake(&b, false, &a, &to("b.ns", "b.ns"), false).await;
    assert_eq!(accepted.unwrap(), (Some(Id::dns("a.ns").unwrap()), false));
    assert!(!connected.unwrap());
}

#[tokio::test]
async fn a_header_needs_both_sides() {
    let ca = Ca::new();
    let (a, b) = (ca.store("a.ns").credentials(), ca.store("b.ns").credentials());
    for (direct, wanted, agreed) in [(true, true, true), (true, false, false), (false, true, false)] {
        let (accepted, connected) = handshake(&b, direct, &a, &to("b.ns", "b.ns"), wanted).await;
        assert_eq!((accepted.unwrap().1, connected.unwrap()), (agreed, agreed));
    }
}

#[tokio::test]
async fn the_server_is_verified_by_identity_not_by_server_name() {
    let ca = Ca::new();
    let spiffe = "spiffe://td/b";
    let store = CredentialsStore::new(spiffe.parse().unwrap(), "b.ns".into());
    let uri = SanType::URI(spiffe.try_into().unwrap());
    store.publish(ca.issue(vec![uri]), ca.anchors.clone()).unwrap();
    let (a, b) = (ca.store("a.ns").credentials(), store.credentials());
    assert!(
        handshake(&b, false, &a, &to(spiffe, "b.ns"), false)
            .await
            .1
            .is_ok()
    );
    let wrong = handshake(&b, false, &a, &to("b.ns", "b.ns"), false)
        .await
        .1
        .unwrap_err();
    assert!(
        matches!(wrong, TlsError::Handshake(rustls::Error::InvalidCertificate(_))),
        "{wrong:?}"
    );
}

#[tokio::test]
async fn other_anchors_are_refused_on_both_sides() {
    let (ours, theirs) = (Ca::new(), Ca::new());
    let (server, stranger) = (
        ours.store("b.ns").credentials(),
        theirs.store("a.ns").credentials(),
    );
    let (accepted, connected) = handshake(&server, false, &stranger, &to("b.ns", "b.ns"), false).await;
    assert!(accepted.is_err() && connected.is_err());
}

#[tokio::test]
async fn a_strangers_certificate_does_not_become_an_identity() {
    let (ours, theirs) = (Ca::new(), Ca::new());
    let server = ours.store("b.ns").credentials();
    // Trusts the server, but presents a certificate of its own authority.
    let stranger = theirs.store("a.ns");
    let mut current = Current::new(
        &Id::dns("a.ns").unwrap(),
        theirs.issue(vec![dns("a.ns")]),
        theirs.anchors.clone(),
        &stranger.provider,
    )
    .unwrap();
    current.anchors = ours.anchors.clone();
    stranger.current.send_replace(Some(Arc::new(current)));
    let (accepted, _) = handshake(
        &server,
        false,
        &stranger.credentials(),
        &to("b.ns", "b.ns"),
        false,
    )
    .await;
    assert!(matches!(accepted, Err(TlsError::Handshake(_))), "{accepted:?}");
}

#[tokio::test]
async fn clients_without_a_certificate_have_no_identity() {
    let ca = Ca::new();
    let (server, client) = (ca.store("b.ns").credentials(), ca.store("a.ns"));
    let (near, far) = tokio::io::duplex(16 * 1024);
    let to_b = to("b.ns", "b.ns");
    let connecting = client.connect_unauthenticated(near, &to_b, &ca.anchors);
    let (accepted, connected) = tokio::join!(server.accept(far, false), connecting);
    assert!(connected.is_ok());
    assert_eq!(accepted.unwrap().1, None);
}

#[tokio::test]
async fn new_certificates_and_anchors_count_from_the_next_handshake() {
    let (old, new) = (Ca::new(), Ca::new());
    let (a, b) = (old.store("a.ns"), old.store("b.ns"));
    let (server, client) = (b.credentials(), a.credentials());
    b.publish(new.issue(vec![dns("b.ns")]), new.anchors.clone())
        .unwrap();
    assert!(
        handshake(&server, false, &client, &to("b.ns", "b.ns"), false)
            .await
            .1
            .is_err()
    );
    a.publish(new.issue(vec![dns("a.ns")]), new.anchors.clone())
        .unwrap();
    assert!(
        handshake(&server, false, &client, &to("b.ns", "b.ns"), false)
            .await
            .1
            .is_ok()
    );
}

#[tokio::test]
async fn without_a_certificate_nothing_is_tried() {
    let credentials = CredentialsStore::new(Id::dns("a.ns").unwrap(), "a.ns".into()).credentials();
    let (near, _far) = tokio::io::duplex(1024);
    let error = credentials
        .connect(near, &to("b.ns", "b.ns"), false)
        .await
        .unwrap_err();
    assert!(matches!(error, TlsError::NotCertified));
    assert!(!credentials.is_certified());
}

#[test]
fn certificates_that_peers_would_refuse_are_not_published() {
    let (ca, other) = (Ca::new(), Ca::new());
    let store = CredentialsStore::new(Id::dns("a.ns").unwrap(), "a.ns".into());
    let refused =
        |certificate, anchors: &Ca| store.publish(certificate, anchors.anchors.clone()).unwrap_err();
    assert!(matches!(
        refused(ca.issue(vec![dns("b.ns")]), &ca),
        InvalidCertificate::Leaf(_)
    ));
    assert!(matches!(
        refused(ca.issue(vec![dns("a.ns")]), &other),
        InvalidCertificate::Leaf(_)
    ));
    let mut mixed = ca.issue(vec![dns("a.ns")]);
    mixed.key = ca.issue(vec![dns("a.ns")]).key;
    assert!(matches!(refused(mixed, &ca), InvalidCertificate::Key(_)));
    assert!(!store.credentials().is_certified());
}
