//! Logging: one line an event on standard output, with a filter that can be changed while running.

use std::fmt;
use tracing_subscriber::{
    EnvFilter, Registry,
    fmt::{format, time},
    layer::SubscriberExt as _,
    reload,
    util::SubscriberInitExt as _,
};

/// Reads and replaces the filter. Absent inside when logging is off.
#[derive(Clone)]
pub struct LogLevel(Option<reload::Handle<EnvFilter, Registry>>);

#[derive(Debug, thiserror::Error)]
pub enum LogLevelError {
    #[error("logging is off")]
    Off,
    #[error("not a filter: {0}")]
    Filter(String),
}

/// `filter` as in `warn,linkerd=info`; `off` disables logging for good. What cannot be read is replaced by the
/// default, and said so: a typing mistake in an annotation must not keep a pod from its traffic.
#[must_use]
pub fn init(filter: Option<&str>, json: bool) -> LogLevel {
    let filter = filter.unwrap_or(DEFAULT_FILTER);
    if filter.trim().eq_ignore_ascii_case("off") {
        return LogLevel(None);
    }
    let (parsed, error) = match parse(filter) {
        Ok(parsed) => (parsed, None),
        Err(error) => (EnvFilter::new(DEFAULT_FILTER), Some(error)),
    };
    let (layer, handle) = reload::Layer::new(parsed);
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(false)
        .with_thread_ids(true);
    let installed = if json {
        let lines = lines.json().with_timer(time::SystemTime).with_span_list(true);
        Registry::default().with(layer).with(lines).try_init()
    } else {
        let lines = lines.event_format(
            format::Format::default()
                .with_ansi(false)
                .with_timer(Uptime::start()),
        );
        Registry::default().with(layer).with(lines).try_init()
    };
    if installed.is_err() {
        // Somebody else's subscriber is there already, as with several proxies in one test.
        return LogLevel(None);
    }
    if let Some(error) = error {
        tracing::warn!(%error, default = DEFAULT_FILTER, "invalid log filter");
    }
    LogLevel(Some(handle))
}

impl LogLevel {
    /// # Errors
    /// When logging is off.
    pub fn current(&self) -> Result<String, LogLevelError> {
        let handle = self.0.as_ref().ok_or(LogLevelError::Off)?;
        handle
            .with_current(ToString::to_string)
            .map_err(|_| LogLevelError::Off)
    }

    /// # Errors
    /// When logging is off or `filter` is not one.
    pub fn set(&self, filter: &str) -> Result<(), LogLevelError> {
        let handle = self.0.as_ref().ok_or(LogLevelError::Off)?;
        handle.reload(parse(filter)?).map_err(|_| LogLevelError::Off)
    }
}

impl fmt::Debug for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LogLevel").field(&self.current().ok()).finish()
    }
}

fn parse(filter: &str) -> Result<EnvFilter, LogLevelError> {
    EnvFilter::builder()
        .parse(filter.trim())
        .map_err(|error| LogLevelError::Filter(error.to_string()))
}

/// `[    12.345s]`: since the start, as people compare events of one proxy.
struct Uptime(time::Uptime);

impl Uptime {
    fn start() -> Self {
        Self(time::Uptime::default())
    }
}

impl time::FormatTime for Uptime {
    fn format_time(&self, writer: &mut format::Writer<'_>) -> fmt::Result {
        let mut text = String::new();
        self.0.format_time(&mut format::Writer::new(&mut text))?;
        let seconds: f64 = text.trim().trim_end_matches('s').parse().unwrap_or_default();
        write!(writer, "[{seconds:>10.3}s]")
    }
}

const DEFAULT_FILTER: &str = "warn,linkerd=info";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_injected_filter_is_one() {
        assert!(parse("warn,linkerd=info,hickory=error,[{headers}]=off,[{request}]=off").is_ok());
        assert!(parse("linkerd=loud").is_err());
    }

    #[test]
    fn without_logging_there_is_no_level() {
        let off = LogLevel(None);
        assert!(matches!(off.current(), Err(LogLevelError::Off)));
        assert!(matches!(off.set("info"), Err(LogLevelError::Off)));
    }
}
