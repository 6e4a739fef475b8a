//! Matching of host names (and TLS server names).

use std::{cmp::Ordering, fmt};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostMatch {
    Exact(String),
    /// `*.example.com` as its labels in reverse: `["com", "example"]`.
    Suffix(Vec<String>),
}

/// How well a host matches; greater is more specific.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostScore {
    /// The number of labels that matched.
    Suffix(usize),
    Exact,
}

impl HostMatch {
    /// `host` may carry a port and a trailing dot.
    #[must_use]
    pub fn score(&self, host: &str) -> Option<HostScore> {
        let host = without_port(host);
        let host = host.strip_suffix('.').unwrap_or(host);
        match self {
            Self::Exact(name) => {
                let name = name.strip_suffix('.').unwrap_or(name);
                name.eq_ignore_ascii_case(host).then_some(HostScore::Exact)
            }
            Self::Suffix(labels) => suffix_matches(labels, host).then_some(HostScore::Suffix(labels.len())),
        }
    }
}

impl fmt::Display for HostMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Suffix(labels) => {
                f.write_str("*")?;
                labels.iter().rev().try_for_each(|label| write!(f, ".{label}"))
            }
        }
    }
}

/// At least one label must stand before the suffix.
fn suffix_matches(reverse_labels: &[String], host: &str) -> bool {
    let mut rest = host.split('.').rev();
    let all = reverse_labels
        .iter()
        .all(|label| rest.next().is_some_and(|have| have.eq_ignore_ascii_case(label)));
    all && rest.next().is_some_and(|label| !label.is_empty())
}

fn without_port(host: &str) -> &str {
    if host.starts_with('[') {
        return host.split_inclusive(']').next().unwrap_or(host);
    }
    host.split_once(':').map_or(host, |(name, _)| name)
}

/// The best score of any of `hosts`; no hosts match every host, least specifically.
///
/// The outer `None` is "no match".
#[must_use]
pub fn best(hosts: &[HostMatch], host: Option<&str>) -> Option<Option<HostScore>> {
    if hosts.is_empty() {
        return Some(None);
    }
    let host = host?;
    hosts.iter().filter_map(|m| m.score(host)).max().map(Some)
}

impl Ord for HostScore {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Exact, Self::Exact) => Ordering::Equal,
            (Self::Exact, Self::Suffix(_)) => Ordering::Greater,
            (Self::Suffix(_), Self::Exact) => Ordering::Less,
            (Self::Suffix(a), Self::Suffix(b)) => a.cmp(b),
        }
    }
}

impl PartialOrd for HostScore {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn suffix(labels: &[&str]) -> HostMatch {
        HostMatch::Suffix(labels.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn exact_ignores_case_port_and_trailing_dot() {
        let m = HostMatch::Exact("Example.com".into());
        for host in ["example.com", "EXAMPLE.com.", "example.com:8080"] {
            assert_eq!(m.score(host), Some(HostScore::Exact), "{host}");
        }
        assert_eq!(m.score("a.example.com"), None);
    }

    #[test]
    fn a_suffix_wants_a_label_before_it() {
        let m = suffix(&["com", "example"]);
        assert_eq!(m.score("a.b.example.com"), Some(HostScore::Suffix(2)));
        assert_eq!(m.score("example.com"), None);
        assert_eq!(m.score("badexample.com"), None);
    }

    #[test]
    fn the_most_specific_wins() {
        let hosts = [
            suffix(&["com"]),
            HostMatch::Exact("a.com".into()),
            suffix(&["com", "x"]),
        ];
        assert_eq!(best(&hosts, Some("a.com")), Some(Some(HostScore::Exact)));
        assert_eq!(best(&hosts, Some("y.x.com")), Some(Some(HostScore::Suffix(2))));
        assert_eq!(best(&hosts, Some("org")), None);
        assert_eq!(best(&hosts, None), None);
        assert_eq!(best(&[], None), Some(None));
    }

    #[test]
    fn addresses_are_hosts_too() {
        assert_eq!(
            HostMatch::Exact("[::1]".into()).score("[::1]:80"),
            Some(HostScore::Exact)
        );
    }
}
