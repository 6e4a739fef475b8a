//! The proxy's certificate and trust anchors, and the handshakes made with them.

use crate::{
    TrustAnchors,
    names::first_name,
    verify::{VerifyId, verify_leaf},
};
use linkerd_policy::{Id, endpoint::EndpointTls};
use linkerd_transport::header;
use rustls::{
    ClientConfig, ServerConfig,
    client::Resumption,
    crypto::{CryptoProvider, ring},
    server::{NoServerSessionStorage, WebPkiClientVerifier},
    sign::CertifiedKey,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use std::{io, sync::Arc, time::SystemTime};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

pub type ServerStream<I> = tokio_rustls::server::TlsStream<I>;
pub type ClientStream<I> = tokio_rustls::client::TlsStream<I>;

/// Makes handshakes with the newest certificate and anchors. Clones are cheap.
#[derive(Clone, Debug)]
pub struct Credentials {
    names: Arc<Names>,
    current: watch::Receiver<Option<Arc<Current>>>,
}

/// Publishes certificates to all [`Credentials`] made from it.
#[derive(Debug)]
pub struct CredentialsStore {
    names: Arc<Names>,
    current: watch::Sender<Option<Arc<Current>>>,
    provider: Arc<CryptoProvider>,
}

#[derive(Debug)]
struct Names {
    local_id: Id,
    server_name: Arc<str>,
}

/// A leaf with its key and the way to the anchors.
#[derive(Debug)]
pub struct Certificate {
    /// The leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
    pub valid_until: SystemTime,
}

#[derive(Debug)]
struct Current {
    server: Arc<ServerConfig>,
    /// With the transport header's ALPN.
    direct: Arc<ServerConfig>,
    /// Its verifier is set for each connection.
    client: ClientConfig,
    anchors: TrustAnchors,
    provider: Arc<CryptoProvider>,
    valid_until: SystemTime,
}

/// Why a certificate from the control plane is not used.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum InvalidCertificate {
    #[error("there is no leaf")]
    Empty,
    #[error("the leaf does not verify: {0}")]
    Leaf(rustls::Error),
    #[error("the key does not belong to the leaf: {0}")]
    Key(rustls::Error),
    #[error("the trust anchors cannot verify clients: {0}")]
    Anchors(String),
}

/// A handshake that failed.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Too early: the control plane has not yet issued a certificate.
    #[error("the proxy has no certificate yet")]
    NotCertified,
    #[error("not a server name: {0:?}")]
    ServerName(Arc<str>),
    /// One of the sides did not accept the other.
    #[error("TLS handshake failed: {0}")]
    Handshake(rustls::Error),
    #[error("TLS handshake failed: {0}")]
    Io(io::Error),
}

impl CredentialsStore {
    /// `server_name` is what peers ask for; it is the identity except with SPIFFE.
    #[must_use]
    pub fn new(local_id: Id, server_name: Arc<str>) -> Self {
        let (current, _) = watch::channel(None);
        Self {
            names: Arc::new(Names {
                local_id,
                server_name,
            }),
            current,
            provider: Arc::new(provider()),
        }
    }

    #[must_use]
    pub fn credentials(&self) -> Credentials {
        Credentials {
            names: self.names.clone(),
            current: self.current.subscribe(),
        }
    }

    /// Verifies the certificate as a peer would, then uses it for all later handshakes.
    ///
    /// # Errors
    /// When a peer with the same anchors would refuse it. The former one stays.
    pub fn publish(&self, certificate: Certificate, anchors: TrustAnchors) -> Result<(), InvalidCertificate> {
        let current = Current::new(&self.names.local_id, certificate, anchors, &self.provider)?;
        self.current.send_replace(Some(Arc::new(current)));
        Ok(())
    }

    /// A client for servers outside of the own identity's reach: the control plane before the first certificate.
    /// It presents no certificate, and verifies the server by `server.server_id` all the same.
    ///
    /// # Errors
    /// When the handshake fails.
    pub async fn connect_unauthenticated<I: AsyncRead + AsyncWrite + Unpin>(
        &self,
        io: I,
        server: &EndpointTls,
        anchors: &TrustAnchors,
    ) -> Result<ClientStream<I>, TlsError> {
        let config = client_builder(&self.provider, anchors, server.server_id.clone())
            .map_err(TlsError::Handshake)?
            .with_no_client_auth();
        handshake_client(io, without_resumption(config), server).await
    }
}

impl Current {
    fn new(
        local_id: &Id,
        certificate: Certificate,
        anchors: TrustAnchors,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, InvalidCertificate> {
        let (leaf, intermediates) = certificate.chain.split_first().ok_or(InvalidCertificate::Empty)?;
        verify_leaf(
            anchors.roots(),
            provider,
            leaf,
            intermediates,
            local_id,
            UnixTime::now(),
        )
        .map_err(InvalidCertificate::Leaf)?;
        let Certificate {
            chain,
            key,
            valid_until,
        } = certificate;
        CertifiedKey::from_der(chain.clone(), key.clone_key(), provider).map_err(InvalidCertificate::Key)?;
        let client = client_builder(provider, &anchors, local_id.clone())
            .and_then(|builder| builder.with_client_auth_cert(chain.clone(), key.clone_key()))
            .map(without_resumption)
            .map_err(InvalidCertificate::Key)?;
        let server = server_config(provider, &anchors, chain, key)?;
        let mut direct = server.clone();
        direct.alpn_protocols = vec![header::ALPN.to_vec()];
        Ok(Self {
            server: Arc::new(server),
            direct: Arc::new(direct),
            client,
            anchors,
            provider: provider.clone(),
            valid_until,
        })
    }

    fn client_for(&self, expected: &Id, with_header: bool) -> ClientConfig {
        let mut config = self.client.clone();
        config.dangerous().set_certificate_verifier(Arc::new(VerifyId {
            roots: self.anchors.roots().clone(),
            expected: expected.clone(),
            provider: self.provider.clone(),
        }));
        if with_header {
            config.alpn_protocols = vec![header::ALPN.to_vec()];
        }
        config
    }
}

impl Credentials {
    #[must_use]
    pub fn local_id(&self) -> &Id {
        &self.names.local_id
    }

    /// Connections that ask for this name are terminated here.
    #[must_use]
    pub fn server_name(&self) -> &Arc<str> {
        &self.names.server_name
    }

    #[must_use]
    pub fn is_certified(&self) -> bool {
        self.valid_until().is_some_and(|until| SystemTime::now() < until)
    }

    #[must_use]
    pub fn valid_until(&self) -> Option<SystemTime> {
        self.current.borrow().as_ref().map(|current| current.valid_until)
    }

    /// The anchors that peers are verified against.
    #[must_use]
    pub fn anchors(&self) -> Option<TrustAnchors> {
        self.current
            .borrow()
            .as_ref()
            .map(|current| current.anchors.clone())
    }

    /// Waits for the first certificate.
    pub async fn certified(&mut self) {
        if self.current.wait_for(Option::is_some).await.is_err() {
            // The store is gone, so none will ever come.
            std::future::pending::<()>().await;
        }
    }

    /// Terminates TLS. Clients may come without a certificate; one that they show is verified.
    ///
    /// Returns the client's identity and whether both sides agreed to a transport header, which is only on offer to
    /// `direct` connections.
    ///
    /// # Errors
    /// When the handshake fails.
    pub async fn accept<I: AsyncRead + AsyncWrite + Unpin>(
        &self,
        io: I,
        direct: bool,
    ) -> Result<(ServerStream<I>, Option<Id>, bool), TlsError> {
        let current = self.current()?;
        let config = if direct { &current.direct } else { &current.server };
        let stream = TlsAcceptor::from(config.clone())
            .accept(io)
            .await
            .map_err(TlsError::from_io)?;
        let session = stream.get_ref().1;
        let client_id = session
            .peer_certificates()
            .and_then(<[_]>::first)
            .and_then(first_name);
        let header = session.alpn_protocol() == Some(header::ALPN);
        Ok((stream, client_id, header))
    }

    /// Opens TLS to a server that has to be `server.server_id`, with the proxy's own certificate.
    ///
    /// Returns whether both sides agreed to a transport header.
    ///
    /// # Errors
    /// When the handshake fails.
    pub async fn connect<I: AsyncRead + AsyncWrite + Unpin>(
        &self,
        io: I,
        server: &EndpointTls,
        with_header: bool,
    ) -> Result<(ClientStream<I>, bool), TlsError> {
        let config = self.current()?.client_for(&server.server_id, with_header);
        let stream = handshake_client(io, config, server).await?;
        let header = stream.get_ref().1.alpn_protocol() == Some(header::ALPN);
        Ok((stream, header))
    }

    fn current(&self) -> Result<Arc<Current>, TlsError> {
        self.current.borrow().clone().ok_or(TlsError::NotCertified)
    }
}

impl TlsError {
    fn from_io(error: io::Error) -> Self {
        match error.downcast::<rustls::Error>() {
            Ok(error) => Self::Handshake(error),
            Err(error) => Self::Io(error),
        }
    }
}

async fn handshake_client<I: AsyncRead + AsyncWrite + Unpin>(
    io: I,
    config: ClientConfig,
    server: &EndpointTls,
) -> Result<ClientStream<I>, TlsError> {
    let name = ServerName::try_from(server.server_name.to_string())
        .map_err(|_| TlsError::ServerName(server.server_name.clone()))?;
    TlsConnector::from(Arc::new(config))
        .connect(name, io)
        .await
        .map_err(TlsError::from_io)
}

type ClientBuilder = rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>;

fn client_builder(
    provider: &Arc<CryptoProvider>,
    anchors: &TrustAnchors,
    expected: Id,
) -> Result<ClientBuilder, rustls::Error> {
    let verifier = VerifyId {
        roots: anchors.roots().clone(),
        expected,
        provider: provider.clone(),
    };
    Ok(ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier)))
}

/// A resumed session would skip the verification against anchors that may have changed.
fn without_resumption(mut config: ClientConfig) -> ClientConfig {
    config.resumption = Resumption::disabled();
    config
}

fn server_config(
    provider: &Arc<CryptoProvider>,
    anchors: &TrustAnchors,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ServerConfig, InvalidCertificate> {
    let clients = WebPkiClientVerifier::builder_with_provider(anchors.roots().clone(), provider.clone())
        .allow_unauthenticated()
        .build()
        .map_err(|error| InvalidCertificate::Anchors(error.to_string()))?;
    let mut config = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(InvalidCertificate::Key)?
        .with_client_cert_verifier(clients)
        .with_single_cert(chain, key)
        .map_err(InvalidCertificate::Key)?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// TLS 1.3 with AES-128 first: it is the fastest with hardware support, and enough (RFC 8446, 9.1).
pub(crate) fn provider() -> CryptoProvider {
    use ring::cipher_suite::{
        TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256,
    };
    CryptoProvider {
        cipher_suites: vec![
            TLS13_AES_128_GCM_SHA256,
            TLS13_AES_256_GCM_SHA384,
            TLS13_CHACHA20_POLY1305_SHA256,
        ],
        ..ring::default_provider()
    }
}

#[cfg(test)]
mod tests;
