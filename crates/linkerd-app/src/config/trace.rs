//! Where spans go and what they say of this proxy.

use super::{env::Env, parse, service};
use linkerd_control::TraceConfig;
use std::{collections::BTreeMap, fs};

/// Absent without a collector: then nothing is traced.
pub(super) fn read(env: &Env<'_>) -> Option<TraceConfig> {
    env.text("TRACE_COLLECTOR_SVC_ADDR")?;
    Some(TraceConfig {
        collector: service(env, "TRACE_COLLECTOR")?,
        attributes: attributes(env).into_iter().collect(),
    })
}

/// Later sources count more; OpenTelemetry's own variable counts most.
fn attributes(env: &Env<'_>) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    if let Some(host) = env.plain("HOSTNAME") {
        all.insert("host.name".to_owned(), host.to_owned());
    }
    all.extend(env.text("TRACE_ATTRIBUTES_PATH").map(labels).unwrap_or_default());
    let name = env.text("TRACE_SERVICE_NAME").unwrap_or(DEFAULT_NAME);
    all.insert("service.name".to_owned(), name.to_owned());
    all.extend(env.get("TRACE_EXTRA_ATTRIBUTES", pairs).unwrap_or_default());
    if let Some(given) = env.plain("OTEL_RESOURCE_ATTRIBUTES") {
        match pairs(given) {
            Ok(given) => all.extend(given),
            Err(error) => tracing::warn!(%error, "OTEL_RESOURCE_ATTRIBUTES is left out"),
        }
    }
    all
}

/// A file of the downward API: `name="value"`, one a line. It may appear later than the proxy; a trace without the
/// pod's labels is better than no proxy.
fn labels(path: &str) -> BTreeMap<String, String> {
    match fs::read_to_string(path) {
        Ok(text) => parse_labels(&text),
        Err(error) => {
            tracing::warn!(%error, %path, "the labels of the pod cannot be read");
            BTreeMap::new()
        }
    }
}

fn parse_labels(text: &str) -> BTreeMap<String, String> {
    let pairs = text.lines().filter_map(|line| line.trim().split_once('='));
    pairs
        .map(|(name, value)| (name.to_owned(), value.trim_matches('"').to_owned()))
        .collect()
}

/// `name=value`, separated by commas.
fn pairs(text: &str) -> parse::Parsed<Vec<(String, String)>> {
    parse::list(text, |pair| {
        let (name, value) = pair
            .split_once('=')
            .ok_or_else(|| format!("not name=value: {pair:?}"))?;
        Ok((name.trim().to_owned(), value.trim().to_owned()))
    })
}

const DEFAULT_NAME: &str = "linkerd-proxy";

#[cfg(test)]
mod tests {
    use super::*;

    fn read_attributes(vars: &[(&str, &str)]) -> BTreeMap<String, String> {
        let vars = vars
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        attributes(&Env::new(&vars))
    }

    #[test]
    fn opentelemetrys_variable_counts_most() {
        let all = read_attributes(&[
            ("LINKERD2_PROXY_TRACE_SERVICE_NAME", "a"),
            ("LINKERD2_PROXY_TRACE_EXTRA_ATTRIBUTES", "service.name=b, x=1"),
            ("OTEL_RESOURCE_ATTRIBUTES", "service.name=c,y=2"),
            ("HOSTNAME", "web-0"),
        ]);
        let found: Vec<_> = all.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(
            found,
            [
                ("host.name", "web-0"),
                ("service.name", "c"),
                ("x", "1"),
                ("y", "2")
            ]
        );
    }

    #[test]
    fn labels_come_as_the_downward_api_writes_them() {
        let labels = parse_labels("app=\"web\"\npod-template-hash=\"5f\"\n");
        assert_eq!(labels["app"], "web");
        assert_eq!(labels["pod-template-hash"], "5f");
    }
}
