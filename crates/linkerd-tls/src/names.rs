//! The names in a certificate.

use linkerd_policy::Id;
use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

/// The DNS and URI subject alternative names, in the certificate's order; others, and invalid ones, are left out.
#[must_use]
pub fn names(certificate: &CertificateDer<'_>) -> Vec<Id> {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else {
        return Vec::new();
    };
    let Ok(Some(extension)) = parsed.subject_alternative_name() else {
        return Vec::new();
    };
    extension.value.general_names.iter().filter_map(id).collect()
}

/// The identity of whoever presents the certificate.
#[must_use]
pub fn first_name(certificate: &CertificateDer<'_>) -> Option<Id> {
    names(certificate).into_iter().next()
}

fn id(name: &GeneralName<'_>) -> Option<Id> {
    match name {
        GeneralName::DNSName(name) => Id::dns(name).ok(),
        GeneralName::URI(uri) => Id::uri(uri).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair, SanType};

    fn certificate(names: Vec<SanType>) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names;
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().into()
    }

    #[test]
    fn the_first_dns_or_uri_name_is_the_identity() {
        let der = certificate(vec![
            SanType::IpAddress("10.0.0.1".parse().unwrap()),
            SanType::URI("spiffe://td/a".try_into().unwrap()),
            SanType::DnsName("a.b".try_into().unwrap()),
        ]);
        assert_eq!(first_name(&der), Some(Id::uri("spiffe://td/a").unwrap()));
        assert_eq!(names(&der).len(), 2);
    }

    #[test]
    fn a_certificate_may_be_nameless() {
        assert_eq!(first_name(&certificate(vec![])), None);
    }

    proptest! {
        #[test]
        fn no_bytes_break_the_parser(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = names(&CertificateDer::from(bytes));
        }
    }
}
