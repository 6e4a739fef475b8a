//! TLS between proxies: finding it in a stream, handshakes, the names in certificates, and certificates and trust
//! anchors that change while connections are made.

mod anchors;
pub mod client_hello;
mod credentials;
mod detect;
mod info;
mod names;
mod reason;
mod verify;

pub use self::{
    anchors::{InvalidAnchors, TrustAnchors},
    client_hello::ClientHello,
    credentials::{
        Certificate, ClientStream, Credentials, CredentialsStore, InvalidCertificate, ServerStream, TlsError,
    },
    detect::{Detected, detect},
    info::{Crypto, crypto},
    names::{first_name, names},
    reason::{ClientTls, NoClientTls, NoServerTls, ServerTls},
};
