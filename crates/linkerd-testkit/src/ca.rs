//! A certificate authority with one self-signed root.

use linkerd_policy::Id;
use linkerd_tls::{Certificate, Credentials, CredentialsStore, TrustAnchors};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType,
};
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer, PrivateKeyDer};
use std::time::{Duration, SystemTime};

#[derive(Debug)]
pub struct Ca {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Default for Ca {
    fn default() -> Self {
        Self::new()
    }
}

impl Ca {
    #[must_use]
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name = named("root");
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            issuer: Issuer::new(params, key),
            pem,
        }
    }

    /// One that was made elsewhere.
    ///
    /// # Errors
    /// When either is not what it should be.
    pub fn from_pem(certificate: &str, key: &str) -> Result<Self, rcgen::Error> {
        Ok(Self {
            issuer: Issuer::from_ca_cert_pem(certificate, KeyPair::from_pem(key)?)?,
            pem: certificate.to_owned(),
        })
    }

    #[must_use]
    pub fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    #[must_use]
    pub fn pem(&self) -> &str {
        &self.pem
    }

    #[must_use]
    pub fn anchors(&self) -> TrustAnchors {
        TrustAnchors::from_pem(&self.pem).unwrap()
    }

    /// Signs whatever a proxy asks for; `None` when the request cannot be read.
    #[must_use]
    pub fn sign(&self, request: &[u8]) -> Option<CertificateDer<'static>> {
        let mut request =
            CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(request)).ok()?;
        request.params.extended_key_usages = both_usages();
        Some(request.signed_by(&self.issuer).ok()?.into())
    }

    /// A leaf with a key of its own.
    #[must_use]
    pub fn issue(&self, name: &str) -> Certificate {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::DnsName(name.try_into().unwrap())];
        params.extended_key_usages = both_usages();
        params.distinguished_name = named("leaf");
        let key = KeyPair::generate().unwrap();
        Certificate {
            chain: vec![params.signed_by(&key, &self.issuer).unwrap().into()],
            key: PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            valid_until: SystemTime::now() + Duration::from_secs(3600),
        }
    }

    /// A peer of the mesh that is not a proxy.
    #[must_use]
    pub fn peer(&self, name: &str) -> Credentials {
        let store = CredentialsStore::new(Id::dns(name).unwrap(), name.into());
        store.publish(self.issue(name), self.anchors()).unwrap();
        store.credentials()
    }
}

/// OpenSSL takes a certificate whose subject is its issuer's for a root.
fn named(name: &str) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name);
    subject
}

fn both_usages() -> Vec<ExtendedKeyUsagePurpose> {
    vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ]
}
