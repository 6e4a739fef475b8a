//! What the proxy's cryptography is, for metrics.

use crate::credentials::provider;

/// The names of what is offered to peers, as rustls writes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crypto {
    pub provider: &'static str,
    pub suites: Vec<String>,
    pub key_exchanges: Vec<String>,
    pub fips: bool,
}

#[must_use]
pub fn crypto() -> Crypto {
    let provider = provider();
    Crypto {
        provider: "Ring",
        suites: provider
            .cipher_suites
            .iter()
            .map(|suite| format!("{:?}", suite.suite()))
            .collect(),
        key_exchanges: provider
            .kx_groups
            .iter()
            .map(|group| format!("{:?}", group.name()))
            .collect(),
        fips: provider.fips(),
    }
}
