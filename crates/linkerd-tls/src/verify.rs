//! Verifying a server by its identity instead of by the name that was asked for.

use crate::names::names;
use linkerd_policy::Id;
use rustls::{
    CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor,
    },
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    server::ParsedCertificate,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::sync::Arc;

/// Accepts a chain to the anchors whose leaf carries `expected` among its names.
///
/// The name of the connection (SNI) is not looked at: with SPIFFE, identity and server name differ.
#[derive(Debug)]
pub(crate) struct VerifyId {
    pub(crate) roots: Arc<RootCertStore>,
    pub(crate) expected: Id,
    pub(crate) provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for VerifyId {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        verify_leaf(
            &self.roots,
            &self.provider,
            end_entity,
            intermediates,
            &self.expected,
            now,
        )?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// Chain, validity and name of a leaf; also used for the proxy's own, before it presents it.
pub(crate) fn verify_leaf(
    roots: &RootCertStore,
    provider: &CryptoProvider,
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    expected: &Id,
    now: UnixTime,
) -> Result<(), Error> {
    let parsed = ParsedCertificate::try_from(leaf)?;
    let algorithms = provider.signature_verification_algorithms.all;
    verify_server_cert_signed_by_trust_anchor(&parsed, roots, intermediates, now, algorithms)?;
    if names(leaf).contains(expected) {
        Ok(())
    } else {
        Err(Error::InvalidCertificate(CertificateError::NotValidForName))
    }
}
