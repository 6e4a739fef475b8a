//! Labels, kept in the form in which they are printed.

use parking_lot::Mutex;
use std::{collections::HashSet, fmt::Write, sync::Arc};

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

/// Bounds how many different values of a label the network can make up.
///
/// The first `capacity` values pass; all later ones become `other`, and a counter says how often that happened.
#[derive(Debug)]
pub struct Bounded {
    capacity: usize,
    overflow: Arc<Counter>,
    seen: Mutex<HashSet<Arc<str>>>,
}

impl Bounded {
    pub const OTHER: &'static str = "other";

    #[must_use]
    pub fn new(capacity: usize, overflow: Arc<Counter>) -> Self {
        Self {
            capacity,
            overflow,
            seen: Mutex::default(),
        }
    }

    /// The value itself, or `other` when too many different ones were seen.
    #[must_use]
    pub fn admit(&self, value: &str) -> Arc<str> {
        let mut seen = self.seen.lock();
        if let Some(known) = seen.get(value) {
            return known.clone();
        }
        if seen.len() >= self.capacity || value.len() > 256 {
            self.overflow.incr();
            return Self::OTHER.into();
        }
        let value: Arc<str> = value.into();
        seen.insert(value.clone());
        value
    }
}

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
        let bounded = Bounded::new(2, overflow.clone());
        let seen: Vec<_> = ["a", "b", "c", "a", "d"]
            .iter()
            .map(|v| bounded.admit(v).to_string())
            .collect();
        assert_eq!(seen, ["a", "b", "other", "a", "other"]);
        assert_eq!(overflow.value(), 2);
    }

    proptest! {
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
