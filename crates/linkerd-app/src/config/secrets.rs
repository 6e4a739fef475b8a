//! What of the environment is not shown to those who may look at the proxy.

use std::collections::BTreeMap;

/// The same names; values that look like secrets are left out.
pub(super) fn redacted(vars: BTreeMap<String, String>) -> BTreeMap<String, String> {
    vars.into_iter()
        .map(|(name, value)| {
            let value = if is_secret(&name, &value) {
                REDACTED.into()
            } else {
                value
            };
            (name, value)
        })
        .collect()
}

/// By the habits of those who name variables. The proxy's own hold none: its token and key are in files.
fn is_secret(name: &str, value: &str) -> bool {
    let name = name.to_ascii_uppercase();
    if name.starts_with("LINKERD2_PROXY_") || PLACES.iter().any(|end| name.ends_with(end)) {
        return false;
    }
    SECRETS.iter().any(|word| name.contains(word)) || has_credentials(value)
}

/// `scheme://user:password@host`.
fn has_credentials(value: &str) -> bool {
    value
        .split_once("://")
        .and_then(|(_, rest)| rest.split('/').next())
        .is_some_and(|authority| authority.contains('@'))
}

const REDACTED: &str = "(redacted)";
/// Where something is, not what.
const PLACES: [&str; 3] = ["_FILE", "_DIR", "_PATH"];
const SECRETS: [&str; 9] = [
    "TOKEN",
    "SECRET",
    "PASSWORD",
    "PASSWD",
    "KEY",
    "CREDENTIAL",
    "AUTHORIZATION",
    "COOKIE",
    "HEADERS",
];
