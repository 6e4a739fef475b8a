//! The certificates that everything in the mesh is verified against.

use rustls::RootCertStore;
use rustls_pki_types::{CertificateDer, pem::PemObject as _};
use std::sync::Arc;

#[derive(Clone, Debug)]
pub struct TrustAnchors {
    roots: Arc<RootCertStore>,
    pem: Arc<str>,
}

#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum InvalidAnchors {
    #[error("trust anchors are not valid PEM")]
    Pem,
    #[error("trust anchor {0} is not a usable certificate: {1}")]
    Certificate(usize, rustls::Error),
    #[error("there is no trust anchor")]
    Empty,
}

impl TrustAnchors {
    /// Every certificate of a PEM bundle.
    ///
    /// # Errors
    /// When one of them is not a certificate, or there is none.
    pub fn from_pem(pem: &str) -> Result<Self, InvalidAnchors> {
        let mut roots = RootCertStore::empty();
        for (index, der) in CertificateDer::pem_slice_iter(pem.as_bytes()).enumerate() {
            let der = der.map_err(|_| InvalidAnchors::Pem)?;
            roots
                .add(der)
                .map_err(|error| InvalidAnchors::Certificate(index + 1, error))?;
        }
        if roots.is_empty() {
            return Err(InvalidAnchors::Empty);
        }
        Ok(Self {
            roots: Arc::new(roots),
            pem: pem.into(),
        })
    }

    #[must_use]
    pub fn pem(&self) -> &str {
        &self.pem
    }

    pub(crate) fn roots(&self) -> &Arc<RootCertStore> {
        &self.roots
    }
}

impl PartialEq for TrustAnchors {
    fn eq(&self, other: &Self) -> bool {
        self.roots.roots == other.roots.roots
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_needs_a_certificate() {
        assert_eq!(TrustAnchors::from_pem("").unwrap_err(), InvalidAnchors::Empty);
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(matches!(
            TrustAnchors::from_pem(broken),
            Err(InvalidAnchors::Certificate(1, _))
        ));
    }
}
