//! Reading variables. Each is named once, where it is read; an empty one counts as not set.

use super::parse::Parsed;
use std::{cell::RefCell, collections::BTreeMap};

/// A variable that is missing or malformed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name}: {reason}")]
pub struct ConfigError {
    pub name: String,
    pub reason: String,
}

/// The variables of a process. Reading goes on after an error, so that a person learns of all at once.
#[derive(Debug)]
pub(super) struct Env<'e> {
    vars: &'e BTreeMap<String, String>,
    errors: RefCell<Vec<ConfigError>>,
}

impl<'e> Env<'e> {
    pub(super) fn new(vars: &'e BTreeMap<String, String>) -> Self {
        Self {
            vars,
            errors: RefCell::default(),
        }
    }

    /// Without the prefix that all of ours have.
    pub(super) fn text(&self, name: &str) -> Option<&'e str> {
        let value = self.vars.get(&format!("{PREFIX}{name}"))?;
        (!value.trim().is_empty()).then_some(value)
    }

    /// A variable that does not have our prefix.
    pub(super) fn plain(&self, name: &str) -> Option<&'e str> {
        let value = self.vars.get(name)?;
        (!value.trim().is_empty()).then_some(value)
    }

    pub(super) fn get<T>(&self, name: &str, parse: impl Fn(&str) -> Parsed<T>) -> Option<T> {
        match parse(self.text(name)?) {
            Ok(value) => Some(value),
            Err(reason) => {
                self.error(name, reason);
                None
            }
        }
    }

    pub(super) fn required<T>(&self, name: &str, parse: impl Fn(&str) -> Parsed<T>) -> Option<T> {
        if self.text(name).is_none() {
            self.error(name, "has to be set");
        }
        self.get(name, parse)
    }

    pub(super) fn error(&self, name: &str, reason: impl Into<String>) {
        self.errors.borrow_mut().push(ConfigError {
            name: format!("{PREFIX}{name}"),
            reason: reason.into(),
        });
    }

    pub(super) fn into_errors(self) -> Vec<ConfigError> {
        self.errors.into_inner()
    }
}

const PREFIX: &str = "LINKERD2_PROXY_";
