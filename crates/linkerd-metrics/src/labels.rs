//! Labels, kept in the form in which they are printed.

use parking_lot::Mutex;
use std::{
    collections::HashMap,
    fmt::Write,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::Counter;

/// An ordered list of labels as text: `a="b",c="d"`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Labels(String);

impl Labels {
    #[must_use]
    pub const fn new() -> Self {
        Self(String::new())
    }

    /// Adds a label. An empty value is written too: Prometheus reads it as an absent label.
    #[must_use]
    pub fn with(mut self, key: &str, value: &str) -> Self {
        self.push(key, value);
        self
    }

    #[must_use]
    pub fn with_display(self, key: &str, value: impl std::fmt::Display) -> Self {
        self.with(key, &value.to_string())
    }

    #[must_use]
    pub fn with_opt(self, key: &str, value: Option<&str>) -> Self {
        match value {
            Some(value) => self.with(key, value),
            None => self,
        }
    }

    /// Adds all of `other`'s labels.
    #[must_use]
    pub fn join(mut self, other: &Self) -> Self {
        if !self.0.is_empty() && !other.0.is_empty() {
            self.0.push(',');
        }
        self.0.push_str(&other.0);
        self
    }

    pub fn push(&mut self, key: &str, value: &str) {
        if !self.0.is_empty() {
            self.0.push(',');
        }
        push_name(&mut self.0, key);
        self.0.push_str("=\"");
        push_escaped(&mut self.0, value);
        self.0.push('"');
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The labels one by one, unescaped.
    pub(crate) fn pairs(&self) -> impl Iterator<Item = (String, String)> {
        let mut rest = self.0.as_str();
        std::iter::from_fn(move || {
            let (key, after) = rest.trim_start_matches(',').split_once("=\"")?;
            let (value, after) = unescaped(after);
            rest = after;
            Some((key.to_owned(), value))
        })
    }

    pub(crate) fn write_braced(&self, out: &mut String) {
        if !self.0.is_empty() {
            let _ = write!(out, "{{{}}}", self.0);
        }
    }
}

/// Label names come from the control plane too (`dst_<label>`): what Prometheus does not allow becomes `_`.
fn push_name(out: &mut String, key: &str) {
    for (i, c) in key.chars().enumerate() {
        let ok = c.is_ascii_alphabetic() || c == '_' || (i > 0 && c.is_ascii_digit());
        out.push(if ok { c } else { '_' });
    }
}

fn push_escaped(out: &mut String, value: &str) {
    for c in value.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
}

/// A quoted value up to its closing quote, and what follows that.
fn unescaped(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &text[at + 1..]),
            '\\' => match chars.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, c)) => value.push(c),
                None => {}
            },
            c => value.push(c),
        }
    }
    (value, "")
}

/// Bounds how many different values of a label the network can make up.
///
/// The first `capacity` values pass; all later ones become `other`, and a counter says how often that happened. What
/// has not come for as long as an idle series is kept makes room.
#[derive(Debug)]
pub struct Bounded {
    capacity: usize,
    retain_idle: Duration,
    overflow: Arc<Counter>,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    values: HashMap<Arc<str>, Instant>,
    swept: Option<Instant>,
}

impl Bounded {
    pub const OTHER: &'static str = "other";

    pub(crate) fn new(capacity: usize, retain_idle: Duration, overflow: Arc<Counter>) -> Self {
        Self {
            capacity,
            retain_idle,
            overflow,
            seen: Mutex::default(),
        }
    }

    /// The value itself, or `other` when too many different ones were seen.
    #[must_use]
    pub fn admit(&self, value: &str) -> Arc<str> {
        self.admit_at(value, Instant::now())
    }

    fn admit_at(&self, value: &str, now: Instant) -> Arc<str> {
        let mut seen = self.seen.lock();
        if let Some(used) = seen.values.get_mut(value) {
            *used = now;
            return seen
                .values
                .get_key_value(value)
                .map_or_else(|| Self::OTHER.into(), |(known, _)| known.clone());
        }
        if seen.values.len() >= self.capacity {
            seen.sweep(now, self.retain_idle);
        }
        if seen.values.len() >= self.capacity || value.len() > MAX_VALUE {
            self.overflow.incr();
            return Self::OTHER.into();
        }
        let value: Arc<str> = value.into();
        seen.values.insert(value.clone(), now);
        value
    }
}

impl Seen {
    /// Forgets old values, but not for each of a flood of new ones.
    fn sweep(&mut self, now: Instant, retain_idle: Duration) {
        if self.swept.is_some_and(|at| now - at < SWEEP_PAUSE) {
            return;
        }
        self.swept = Some(now);
        self.values.retain(|_, used| now - *used < retain_idle);
    }
}

/// The longest value that is kept, in bytes.
const MAX_VALUE: usize = 256;
const SWEEP_PAUSE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn labels_are_escaped() {
        let labels = Labels::new()
            .with("a", "x\"y\\z\n")
            .with("dst_app.kubernetes.io/name", "é");
        assert_eq!(labels.as_str(), r#"a="x\"y\\z\n",dst_app_kubernetes_io_name="é""#);
    }

    #[test]
    fn values_beyond_the_bound_become_other() {
        let overflow = Arc::new(Counter::default());
        let bounded = Bounded::new(2, Duration::from_secs(60), overflow.clone());
        let seen: Vec<_> = ["a", "b", "c", "a", "d"]
            .iter()
            .map(|v| bounded.admit(v).to_string())
            .collect();
        assert_eq!(seen, ["a", "b", "other", "a", "other"]);
        assert_eq!(overflow.value(), 2);
    }

    #[test]
    fn what_has_not_come_for_long_makes_room() {
        let bounded = Bounded::new(2, Duration::from_secs(60), Arc::default());
        let start = Instant::now();
        let admit = |value, seconds| {
            bounded
                .admit_at(value, start + Duration::from_secs(seconds))
                .to_string()
        };
        assert_eq!([admit("a", 0), admit("b", 0), admit("c", 1)], ["a", "b", "other"]);
        assert_eq!([admit("a", 50), admit("c", 61), admit("a", 62)], ["a", "c", "a"]);
    }

    #[test]
    fn a_million_values_take_no_room() {
        let bounded = Bounded::new(100, Duration::from_secs(60), Arc::default());
        for n in 0..1_000_000 {
            let _ = bounded.admit(&n.to_string());
        }
        assert_eq!(bounded.seen.lock().values.len(), 100);
    }

    proptest! {
        #[test]
        fn labels_are_read_back(values in proptest::collection::vec(".*", 0..4)) {
            let labels = values.iter().fold(Labels::new(), |l, v| l.with("k", v));
            let pairs: Vec<_> = labels.pairs().map(|(_, v)| v).collect();
            prop_assert_eq!(pairs, values);
        }

        #[test]
        fn no_value_can_leave_its_quotes(value in ".*") {
            let text = Labels::new().with("k", &value).as_str().to_owned();
            let inner = text.strip_prefix("k=\"").unwrap().strip_suffix('"').unwrap();
            let mut chars = inner.chars();
            while let Some(c) = chars.next() {
                prop_assert!(c != '"' && c != '\n');
                if c == '\\' {
                    prop_assert!(matches!(chars.next(), Some('\\' | '"' | 'n')));
                }
            }
        }
    }
}
