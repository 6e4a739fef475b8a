//! Families of series and the registry that prints them.

use crate::{
    Bounded, Buckets, Counter, DURATION_SECONDS, Encode, Gauge, Histogram, Labels, Text, value::Print,
};
use parking_lot::Mutex;
use std::{
    any::Any,
    collections::HashMap,
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

/// All families of the process.
#[derive(Clone)]
pub struct Registry {
    shared: Arc<Shared>,
}

struct Shared {
    retain_idle: Duration,
    collectors: Mutex<Vec<Collector>>,
    /// Both directions count in the same families.
    families: Mutex<HashMap<&'static str, Box<dyn Any + Send + Sync>>>,
    overflow: Family<Counter>,
}

type Collector = Box<dyn Fn(&mut dyn Encode) + Send + Sync>;

/// The series of one metric name.
pub struct Family<M>(Arc<Inner<M>>);

struct Inner<M> {
    name: &'static str,
    help: &'static str,
    limit: usize,
    retain_idle: Duration,
    make: Box<dyn Fn() -> M + Send + Sync>,
    overflow: Option<Overflow<M>>,
    series: Mutex<HashMap<Labels, Series<M>>>,
}

/// Where series beyond the limit are counted, and how often a new one met the limit.
struct Overflow<M> {
    series: Arc<M>,
    hits: Arc<Counter>,
}

struct Series<M> {
    value: Arc<M>,
    /// When a scrape first found that nobody but the family holds the series.
    idle_since: Option<Instant>,
}

impl Registry {
    /// How many series a family may have before further ones are counted together.
    pub const SERIES_LIMIT: usize = 10_000;

    /// `retain_idle`: how long a series is kept that nothing can count any more.
    #[must_use]
    pub fn new(retain_idle: Duration) -> Self {
        let overflow = Family(Arc::new(Inner {
            name: "proxy_metrics_overflow_total",
            help: "How often a label set or value was counted as `other` because there were too many.",
            limit: usize::MAX,
            retain_idle: Duration::MAX,
            make: Box::new(Counter::default),
            overflow: None,
            series: Mutex::default(),
        }));
        let shared = Shared {
            retain_idle,
            collectors: Mutex::default(),
            families: Mutex::default(),
            overflow: overflow.clone(),
        };
        let registry = Self {
            shared: Arc::new(shared),
        };
        registry.collect(move |out| overflow.print_some(out, Instant::now(), |hits| hits.value() > 0));
        registry
    }

    #[must_use]
    pub fn counter(&self, name: &'static str, help: &'static str) -> Family<Counter> {
        self.family(name, help, Counter::default)
    }

    #[must_use]
    pub fn gauge(&self, name: &'static str, help: &'static str) -> Family<Gauge> {
        self.family(name, help, Gauge::default)
    }

    #[must_use]
    pub fn histogram(
        &self,
        name: &'static str,
        help: &'static str,
        buckets: &'static Buckets,
    ) -> Family<Histogram> {
        self.family(name, help, move || Histogram::new(buckets))
    }

    /// Durations in seconds, fine enough for percentiles where the scraper takes native histograms.
    #[must_use]
    pub fn durations(&self, name: &'static str, help: &'static str) -> Family<Histogram> {
        self.family(name, help, || Histogram::with_native(&DURATION_SECONDS))
    }

    /// Adds families that are computed at the scrape: the process's own numbers.
    pub fn collect(&self, collector: impl Fn(&mut dyn Encode) + Send + Sync + 'static) {
        self.shared.collectors.lock().push(Box::new(collector));
    }

    /// Bounds the values of label `what`, which the network can make up.
    #[must_use]
    pub fn bounded(&self, what: &str, capacity: usize) -> Bounded {
        Bounded::new(capacity, self.shared.retain_idle, self.overflow(what))
    }

    /// The counter that says how often a bound on `what` was hit.
    #[must_use]
    pub fn overflow(&self, what: &str) -> Arc<Counter> {
        self.shared.overflow.series(&Labels::new().with("family", what))
    }

    /// Writes all series.
    pub fn encode(&self, out: &mut dyn Encode) {
        for collect in self.shared.collectors.lock().iter() {
            collect(out);
        }
    }

    /// Appends all series in Prometheus' text format.
    pub fn render(&self, out: &mut String) {
        let mut text = Text::default();
        self.encode(&mut text);
        out.push_str(&text.finish());
    }

    fn family<M: Print + Send + Sync + 'static>(
        &self,
        name: &'static str,
        help: &'static str,
        make: impl Fn() -> M + Send + Sync + 'static,
    ) -> Family<M> {
        let mut families = self.shared.families.lock();
        if let Some(known) = families.get(name).and_then(|family| family.downcast_ref()) {
            return Family::clone(known);
        }
        let overflow = Overflow {
            series: Arc::new(make()),
            hits: self.overflow(name),
        };
        let family = Family(Arc::new(Inner {
            name,
            help,
            limit: Self::SERIES_LIMIT,
            retain_idle: self.shared.retain_idle,
            make: Box::new(make),
            overflow: Some(overflow),
            series: Mutex::default(),
        }));
        families.insert(name, Box::new(family.clone()));
        let printed = family.clone();
        self.collect(move |out| printed.print(out, Instant::now()));
        family
    }
}

impl<M> Family<M> {
    /// The series with these labels; made when it does not exist yet.
    #[must_use]
    pub fn series(&self, labels: &Labels) -> Arc<M> {
        let inner = &*self.0;
        let mut all = inner.series.lock();
        if let Some(series) = all.get_mut(labels) {
            series.idle_since = None;
            return series.value.clone();
        }
        if all.len() >= inner.limit {
            retire(&mut all, inner.retain_idle, Instant::now());
        }
        match &inner.overflow {
            Some(overflow) if all.len() >= inner.limit => {
                overflow.hits.incr();
                overflow.series.clone()
            }
            _ => {
                let value = Arc::new((inner.make)());
                let idle_since = None;
                all.insert(
                    labels.clone(),
                    Series {
                        value: value.clone(),
                        idle_since,
                    },
                );
                value
            }
        }
    }
}

impl<M: Print> Family<M> {
    fn print(&self, out: &mut dyn Encode, now: Instant) {
        self.print_some(out, now, |_| true);
    }

    fn print_some(&self, out: &mut dyn Encode, now: Instant, wanted: impl Fn(&M) -> bool) {
        let inner = &*self.0;
        let mut all = inner.series.lock();
        retire(&mut all, inner.retain_idle, now);
        if !all.values().any(|series| wanted(&series.value)) {
            return;
        }
        out.family(inner.name, inner.help, M::KIND);
        for (labels, series) in all.iter().filter(|(_, series)| wanted(&series.value)) {
            series.value.print(out, labels);
        }
        if let Some(overflow) = &inner.overflow
            && overflow.hits.value() > 0
        {
            overflow
                .series
                .print(out, &Labels::new().with("overflow", "true"));
        }
    }
}

/// Forgets the series that nobody has been able to count for `retain_idle`.
fn retire<M>(all: &mut HashMap<Labels, Series<M>>, retain_idle: Duration, now: Instant) {
    all.retain(|_, series| {
        if Arc::strong_count(&series.value) > 1 {
            series.idle_since = None;
            return true;
        }
        let since = *series.idle_since.get_or_insert(now);
        now.saturating_duration_since(since) < retain_idle
    });
}

impl<M> Clone for Family<M> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<M> fmt::Debug for Family<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Family").field(&self.0.name).finish()
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry")
            .field("retain_idle", &self.shared.retain_idle)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RETAIN: Duration = Duration::from_secs(600);

    fn rendered(registry: &Registry) -> String {
        let mut out = String::new();
        registry.render(&mut out);
        out
    }

    #[test]
    fn the_same_labels_are_the_same_series() {
        let registry = Registry::new(RETAIN);
        let family = registry.counter("requests_total", "Requests.");
        let labels = Labels::new().with("a", "b");
        family.series(&labels).incr();
        family.series(&labels).add(2);
        let text = rendered(&registry);
        assert!(
            text.contains("# TYPE requests_total counter\nrequests_total{a=\"b\"} 3\n"),
            "{text}"
        );
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn a_family_that_two_ask_for_is_printed_once() {
        let registry = Registry::new(RETAIN);
        for direction in ["inbound", "outbound"] {
            let labels = Labels::new().with("direction", direction);
            registry
                .counter("requests_total", "Requests.")
                .series(&labels)
                .incr();
        }
        assert_eq!(rendered(&registry).matches("# TYPE requests_total").count(), 1);
    }

    #[test]
    fn an_idle_series_disappears_and_a_held_one_stays() {
        let registry = Registry::new(RETAIN);
        let family = registry.counter("requests_total", "Requests.");
        let held = family.series(&Labels::new().with("a", "held"));
        drop(family.series(&Labels::new().with("a", "idle")));
        let start = Instant::now();
        let printed = |at| {
            let mut out = Text::default();
            family.print(&mut out, at);
            out.finish()
        };
        assert!(printed(start).contains("idle"));
        let out = printed(start + RETAIN);
        assert!(out.contains("held") && !out.contains("idle"), "{out}");
        drop(held);
    }

    #[test]
    fn series_beyond_the_limit_are_counted_together() {
        let registry = Registry::new(RETAIN);
        let family = registry.counter("requests_total", "Requests.");
        let mut held = Vec::new();
        for i in 0..Registry::SERIES_LIMIT + 5 {
            let series = family.series(&Labels::new().with_display("host", i));
            series.incr();
            held.push(series);
        }
        let text = rendered(&registry);
        assert!(text.contains("requests_total{overflow=\"true\"} 5\n"));
        assert!(text.contains("proxy_metrics_overflow_total{family=\"requests_total\"} 5\n"));
    }
}
