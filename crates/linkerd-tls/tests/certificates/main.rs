//! Which certificates peers may present: each through a real handshake, as a server's and as a client's.
//!
//! A server is who it is expected to be, or the handshake fails. A client that presents a certificate which does not
//! lead to an anchor fails too; one whose certificate names nobody comes without an identity, as one without any.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use linkerd_policy::{Id, endpoint::EndpointTls};
use linkerd_tls::{Certificate, Credentials, CredentialsStore, TrustAnchors};
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    GeneralSubtree, IsCa, Issuer, KeyPair, NameConstraints, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, SanType,
    SignatureAlgorithm, date_time_ymd,
};
use rustls::{
    ClientConfig, ServerConfig,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

const WEB: &str = "web.ns";

/// What becomes of a certificate that a client presents.
#[derive(Debug, PartialEq)]
enum Client {
    Is(&'static str),
    Nobody,
    Refused,
}
use Client::{Is, Nobody, Refused};

/// What becomes of a certificate that a server presents to those who expect `web.ns`.
#[derive(Debug, PartialEq)]
enum Server {
    Accepted,
    Rejected,
}
use Server::{Accepted, Rejected};

#[tokio::test]
async fn names() {
    for (what, names, server, client) in [
        ("the right name", vec![dns("web.ns")], Accepted, Is("web.ns")),
        ("another name", vec![dns("other.ns")], Rejected, Is("other.ns")),
        (
            "the right name second",
            vec![dns("other.ns"), dns("web.ns")],
            Accepted,
            Is("other.ns"),
        ),
        ("capitals", vec![dns("WEB.ns")], Accepted, Is("web.ns")),
        (
            "a longer name",
            vec![dns("web.ns.evil")],
            Rejected,
            Is("web.ns.evil"),
        ),
        ("a name with a NUL", vec![dns("web.ns\0.evil")], Rejected, Nobody),
        (
            "a name that ends with a NUL",
            vec![dns("web.ns\0")],
            Rejected,
            Nobody,
        ),
        ("a wildcard", vec![dns("*.ns")], Rejected, Nobody),
        ("a lone wildcard", vec![dns("*")], Rejected, Nobody),
        ("an empty name", vec![dns("")], Rejected, Nobody),
        ("a name with a space", vec![dns("web.ns ")], Rejected, Nobody),
        (
            "an address",
            vec![SanType::IpAddress("10.0.0.1".parse().unwrap())],
            Rejected,
            Nobody,
        ),
        (
            "a mail address",
            vec![SanType::Rfc822Name("web@ns".try_into().unwrap())],
            Rejected,
            Nobody,
        ),
        (
            "the name as a URI",
            vec![SanType::URI("web.ns".try_into().unwrap())],
            Rejected,
            Nobody,
        ),
        (
            "a SPIFFE id",
            vec![SanType::URI("spiffe://ns/web".try_into().unwrap())],
            Rejected,
            Is("spiffe://ns/web"),
        ),
        ("no name", vec![], Rejected, Nobody),
    ] {
        let root = Authority::root();
        let presented = root.leaf(|leaf| leaf.subject_alt_names = names);
        check(what, &root, &presented, server, client).await;
    }
}

#[tokio::test]
async fn a_common_name_is_no_name() {
    let root = Authority::root();
    let presented = root.leaf(|leaf| {
        leaf.subject_alt_names.clear();
        leaf.distinguished_name.push(DnType::CommonName, WEB);
    });
    check("only a common name", &root, &presented, Rejected, Nobody).await;
}

#[tokio::test]
async fn times() {
    for (what, from, until, valid) in [
        ("valid now", 2020, 4000, true),
        ("expired", 2001, 2002, false),
        ("not yet valid", 4000, 4001, false),
    ] {
        let root = Authority::root();
        let presented = root.leaf(|leaf| {
            leaf.not_before = date_time_ymd(from, 1, 1);
            leaf.not_after = date_time_ymd(until, 1, 1);
        });
        check_either(what, &root, &presented, valid).await;
    }
}

#[tokio::test]
async fn an_expired_issuer_issues_nothing() {
    let root = Authority::root();
    let issuer = root.intermediate(|ca| {
        ca.not_before = date_time_ymd(2001, 1, 1);
        ca.not_after = date_time_ymd(2002, 1, 1);
    });
    check_either("an expired issuer", &root, &issuer.leaf(|_| {}), false).await;
}

#[tokio::test]
async fn anchors() {
    let (root, other) = (Authority::root(), Authority::root());
    check_either("another anchor", &root, &other.leaf(|_| {}), false).await;
    let mut stranger = other.leaf(|_| {});
    stranger.chain.push(root.certificate.clone());
    check_either("another anchor with ours appended", &root, &stranger, false).await;
    check_either("signed by itself", &root, &self_signed(), false).await;
    check_either("an issuer's own certificate", &root, &root.as_leaf(), false).await;
}

#[tokio::test]
async fn chains() {
    for (what, length, valid) in [
        ("one intermediate", 1, true),
        ("four intermediates", 4, true),
        ("seven intermediates", 7, false),
        ("a hundred intermediates", 100, false),
    ] {
        let root = Authority::root();
        let mut issuer = root.intermediate(|_| {});
        for _ in 1..length {
            issuer = issuer.intermediate(|_| {});
        }
        check_either(what, &root, &issuer.leaf(|_| {}), valid).await;
    }
}

#[tokio::test]
async fn broken_chains() {
    let root = Authority::root();
    let mut missing = root.intermediate(|_| {}).leaf(|_| {});
    missing.chain.truncate(1);
    check_either("a missing intermediate", &root, &missing, false).await;

    let no_ca = root.intermediate(|ca| ca.is_ca = IsCa::ExplicitNoCa);
    check_either("issued by a leaf", &root, &no_ca.leaf(|_| {}), false).await;

    let last = root.intermediate(|ca| ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0)));
    check_either("within the path's length", &root, &last.leaf(|_| {}), true).await;
    check_either(
        "past the path's length",
        &root,
        &last.intermediate(|_| {}).leaf(|_| {}),
        false,
    )
    .await;

    let constrained = root.intermediate(|ca| {
        ca.name_constraints = Some(NameConstraints {
            permitted_subtrees: vec![GeneralSubtree::DnsName("other".into())],
            excluded_subtrees: vec![],
        });
    });
    check_either(
        "outside of the issuer's names",
        &root,
        &constrained.leaf(|_| {}),
        false,
    )
    .await;
}

#[tokio::test]
async fn issuers_of_every_algorithm() {
    let rsa = include_str!("rsa-issuer.pem");
    let generated = |algorithm: &'static SignatureAlgorithm| KeyPair::generate_for(algorithm).unwrap();
    for (what, key) in [
        ("P-384", generated(&PKCS_ECDSA_P384_SHA384)),
        ("Ed25519", generated(&PKCS_ED25519)),
        ("RSA", KeyPair::from_pem(rsa).unwrap()),
    ] {
        let root = Authority::root_of(key);
        check_either(what, &root, &root.leaf(|_| {}), true).await;
    }
}

#[tokio::test]
async fn usages() {
    use ExtendedKeyUsagePurpose::{ClientAuth, CodeSigning, ServerAuth};
    for (what, usages, server, client) in [
        ("no usages", vec![], Accepted, Is(WEB)),
        ("both usages", vec![ServerAuth, ClientAuth], Accepted, Is(WEB)),
        ("only a server's", vec![ServerAuth], Accepted, Refused),
        ("only a client's", vec![ClientAuth], Rejected, Is(WEB)),
        ("another usage", vec![CodeSigning], Rejected, Refused),
    ] {
        let root = Authority::root();
        let presented = root.leaf(|leaf| leaf.extended_key_usages = usages);
        check(what, &root, &presented, server, client).await;
    }
}

#[tokio::test]
async fn extensions() {
    let unknown = |critical| {
        let mut extension = CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0]);
        extension.set_criticality(critical);
        extension
    };
    let names_again = CustomExtension::from_oid_content(&[2, 5, 29, 17], b"\x30\x08\x82\x06web.ns".to_vec());
    for (what, extension, valid) in [
        ("an unknown extension", unknown(false), true),
        ("a critical unknown extension", unknown(true), false),
        ("names twice", names_again, false),
    ] {
        let root = Authority::root();
        let presented = root.leaf(|leaf| leaf.custom_extensions = vec![extension]);
        check_either(what, &root, &presented, valid).await;
    }
}

#[tokio::test]
async fn a_client_without_a_certificate_is_nobody() {
    let root = Authority::root();
    let verifier = Arc::new(Trusting(provider()));
    let config = client_config()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    assert_eq!(accepted(&root, config).await, Nobody);
}

#[tokio::test]
async fn a_key_that_is_not_the_certificates_is_refused() {
    let root = Authority::root();
    let mut presented = root.leaf(|_| {});
    presented.key = root.leaf(|_| {}).key;
    check_either("another key", &root, &presented, false).await;
}

/// A certificate that is as good for a server as for a client.
async fn check_either(what: &str, root: &Authority, presented: &Presented, valid: bool) {
    let (server, client) = if valid {
        (Accepted, Is(WEB))
    } else {
        (Rejected, Refused)
    };
    check(what, root, presented, server, client).await;
}

async fn check(what: &str, root: &Authority, presented: &Presented, server: Server, client: Client) {
    assert_eq!(
        as_server(root, presented).await,
        server,
        "{what}, presented by a server"
    );
    assert_eq!(
        as_client(root, presented).await,
        client,
        "{what}, presented by a client"
    );
}

/// Our client connects to a server with the certificate.
async fn as_server(root: &Authority, presented: &Presented) -> Server {
    let config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(presented.resolver());
    let (near, far) = tokio::io::duplex(64 * 1024);
    let to = EndpointTls {
        server_id: WEB.parse().unwrap(),
        server_name: WEB.into(),
    };
    let us = root.credentials();
    let (_, connected) = tokio::join!(
        TlsAcceptor::from(Arc::new(config)).accept(far),
        us.connect(near, &to, false)
    );
    match connected {
        Ok(_) => Accepted,
        Err(_) => Rejected,
    }
}

/// A client with the certificate connects to our server.
async fn as_client(root: &Authority, presented: &Presented) -> Client {
    let verifier = Arc::new(Trusting(provider()));
    let config = client_config()
        .with_custom_certificate_verifier(verifier)
        .with_client_cert_resolver(presented.resolver());
    accepted(root, config).await
}

async fn accepted(root: &Authority, config: ClientConfig) -> Client {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let connector = TlsConnector::from(Arc::new(config));
    let name = ServerName::try_from(WEB).unwrap();
    let us = root.credentials();
    let (accepted, _) = tokio::join!(us.accept(far, false), connector.connect(name, near));
    match accepted {
        Err(_) => Refused,
        Ok((_, None, _)) => Nobody,
        Ok((_, Some(id), _)) => Is(id.to_string().leak()),
    }
}

type ClientBuilder = rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>;

fn client_config() -> rustls::client::danger::DangerousClientConfigBuilder {
    let builder: ClientBuilder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap();
    builder.dangerous()
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().unwrap())
}

/// What a peer shows, be it what it may.
struct Presented {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Presented {
    fn resolver(&self) -> Arc<rustls::sign::SingleCertAndKey> {
        let key = provider()
            .key_provider
            .load_private_key(self.key.clone_key())
            .unwrap();
        Arc::new(CertifiedKey::new(self.chain.clone(), key).into())
    }
}

/// A root or an intermediate.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    pem: String,
    /// From itself up to below the root.
    chain: Vec<CertificateDer<'static>>,
}

/// Sets authorities apart: an issuer is found by its name.
static NUMBER: AtomicUsize = AtomicUsize::new(0);

impl Authority {
    fn root() -> Self {
        Self::root_of(KeyPair::generate().unwrap())
    }

    fn root_of(key: KeyPair) -> Self {
        let params = Self::params();
        let certificate = params.self_signed(&key).unwrap();
        Self {
            certificate: certificate.der().clone(),
            pem: certificate.pem(),
            issuer: Issuer::new(params, key),
            chain: Vec::new(),
        }
    }

    fn params() -> CertificateParams {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name = DistinguishedName::new();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        params
            .distinguished_name
            .push(DnType::CommonName, format!("authority {number}"));
        params
    }

    fn intermediate(&self, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let mut params = Self::params();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let mut chain = vec![certificate.der().clone()];
        chain.extend(self.chain.clone());
        Self {
            certificate: certificate.der().clone(),
            pem: self.pem.clone(),
            issuer: Issuer::new(params, key),
            chain,
        }
    }

    /// A leaf that is `web.ns` unless changed.
    fn leaf(&self, change: impl FnOnce(&mut CertificateParams)) -> Presented {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![dns(WEB)];
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let mut chain = vec![params.signed_by(&key, &self.issuer).unwrap().der().clone()];
        chain.extend(self.chain.clone());
        Presented {
            chain,
            key: PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
        }
    }

    fn as_leaf(&self) -> Presented {
        Presented {
            chain: vec![self.certificate.clone()],
            key: PrivateKeyDer::try_from(self.issuer.key().serialize_der()).unwrap(),
        }
    }

    /// Ours: a member of the mesh with this anchor, named `web.ns`.
    fn credentials(&self) -> Credentials {
        let Presented { chain, key } = self.leaf(|_| {});
        let store = CredentialsStore::new(Id::dns(WEB).unwrap(), WEB.into());
        let certificate = Certificate {
            chain,
            key,
            valid_until: SystemTime::now() + Duration::from_secs(3600),
        };
        store
            .publish(certificate, TrustAnchors::from_pem(&self.pem).unwrap())
            .unwrap();
        store.credentials()
    }
}

fn self_signed() -> Presented {
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![dns(WEB)];
    let key = KeyPair::generate().unwrap();
    Presented {
        chain: vec![params.self_signed(&key).unwrap().der().clone()],
        key: PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
    }
}

/// The other side of our server does not mind who it is.
#[derive(Debug)]
struct Trusting(Arc<rustls::crypto::CryptoProvider>);

impl ServerCertVerifier for Trusting {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
