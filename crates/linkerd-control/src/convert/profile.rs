//! Service profiles. Parts that cannot be read are left out, as in Linkerd's proxy: a profile refines what would
//! happen anyway, so a bad route of it must not stop the traffic.

use super::{endpoint::endpoint, limit, matching::method, optional_metadata};
use http::Method;
use linkerd_policy::{
    Profile,
    profile::{LookupTarget, RequestMatch, ResponseClass, ResponseMatch, RetryBudget, Route, Target},
};
use linkerd_proto::destination as dst;
use std::{collections::HashMap, sync::Arc};

/// The port of the question, which the answer's name lacks.
pub(crate) fn port_of(target: &LookupTarget) -> u16 {
    match target {
        LookupTarget::Addr(addr) => addr.port(),
        LookupTarget::Name(name) => name
            .rsplit_once(':')
            .and_then(|(_, port)| port.parse().ok())
            .unwrap_or(80),
    }
}

pub(crate) fn profile(message: dst::DestinationProfile, port: u16) -> Profile {
    let logical = message.fully_qualified_name;
    Profile {
        logical: (!logical.is_empty()).then(|| format!("{}:{port}", logical.trim_end_matches('.')).into()),
        opaque: message.opaque_protocol,
        routes: message.routes.into_iter().filter_map(route).collect(),
        retry_budget: message.retry_budget.and_then(budget),
        targets: message.dst_overrides.into_iter().filter_map(target).collect(),
        endpoint: message
            .endpoint
            .and_then(|e| endpoint(e, &HashMap::new()).ok())
            .map(Arc::new),
        parent: optional_metadata(message.parent_ref),
    }
}

fn route(message: dst::Route) -> Option<Route> {
    Some(Route {
        condition: request_match(message.condition?, MAX_DEPTH)?,
        response_classes: message
            .response_classes
            .into_iter()
            .filter_map(response_class)
            .collect(),
        labels: Arc::new(message.metrics_labels.into_iter().collect()),
        retryable: message.is_retryable,
        timeout: limit(message.timeout).ok().flatten(),
    })
}

fn request_match(message: dst::RequestMatch, depth: usize) -> Option<RequestMatch> {
    use dst::request_match::Match;
    let depth = depth.checked_sub(1)?;
    let all = |seq: dst::request_match::Seq| {
        seq.matches
            .into_iter()
            .map(|m| request_match(m, depth))
            .collect::<Option<Vec<_>>>()
    };
    match message.r#match? {
        Match::All(seq) => all(seq).map(RequestMatch::All),
        Match::Any(seq) => all(seq).map(RequestMatch::Any),
        Match::Not(m) => request_match(*m, depth).map(|m| RequestMatch::Not(Box::new(m))),
        Match::Path(path) => RequestMatch::path(&path.regex).ok(),
        Match::Method(m) => method(m).ok().map(|m: Method| RequestMatch::Method(m)),
    }
}

fn response_class(message: dst::ResponseClass) -> Option<ResponseClass> {
    let condition = response_match(message.condition?, MAX_DEPTH)?;
    Some(ResponseClass {
        condition,
        is_failure: message.is_failure,
    })
}

fn response_match(message: dst::ResponseMatch, depth: usize) -> Option<ResponseMatch> {
    use dst::response_match::Match;
    let depth = depth.checked_sub(1)?;
    let all = |seq: dst::response_match::Seq| {
        seq.matches
            .into_iter()
            .map(|m| response_match(m, depth))
            .collect::<Option<Vec<_>>>()
    };
    match message.r#match? {
        Match::All(seq) => all(seq).map(ResponseMatch::All),
        Match::Any(seq) => all(seq).map(ResponseMatch::Any),
        Match::Not(m) => response_match(*m, depth).map(|m| ResponseMatch::Not(Box::new(m))),
        Match::Status(range) => {
            let (min, max) = (u16::try_from(range.min).ok()?, u16::try_from(range.max).ok()?);
            // Either end may be left out.
            let min = if min == 0 { 100 } else { min };
            let max = if max == 0 {
                if range.min == 0 { 599 } else { min }
            } else {
                max
            };
            Some(ResponseMatch::Status(min..=max))
        }
    }
}

fn budget(message: dst::RetryBudget) -> Option<RetryBudget> {
    let ttl = limit(message.ttl).ok().flatten()?;
    RetryBudget::new(ttl, message.min_retries_per_second, message.retry_ratio)
}

fn target(message: dst::WeightedDst) -> Option<Target> {
    let valid = message.authority.parse::<http::uri::Authority>().is_ok();
    (valid && message.weight > 0).then(|| Target {
        authority: message.authority.into(),
        weight: message.weight,
        backend: optional_metadata(message.backend_ref),
    })
}

/// Conditions nest as deeply as a person might write them, not as deeply as the stack is.
const MAX_DEPTH: usize = 32;
