//! What a series holds.

use crate::{Counts, Encode, Kind, Labels, Number, native::Native};
use std::{
    sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn incr(&self) {
        self.add(1);
    }

    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    #[must_use]
    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A number that grows and shrinks.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    pub fn incr(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    pub fn decr(&self) {
        self.0.fetch_sub(1, Relaxed);
    }

    pub fn set(&self, value: i64) {
        self.0.store(value, Relaxed);
    }

    #[must_use]
    pub fn value(&self) -> i64 {
        self.0.load(Relaxed)
    }
}

/// The bounds of a histogram, in a small unit (µs, bytes), and how many of them one printed unit has.
#[derive(Debug, PartialEq, Eq)]
pub struct Buckets {
    pub bounds: &'static [u64],
    pub unit: u64,
}

/// Linkerd's latency buckets: 1 ms to 50 s.
pub const LATENCY_MS: Buckets = Buckets {
    bounds: &[
        1_000, 2_000, 3_000, 4_000, 5_000, 10_000, 20_000, 30_000, 40_000, 50_000, 100_000, 200_000, 300_000,
        400_000, 500_000, 1_000_000, 2_000_000, 3_000_000, 4_000_000, 5_000_000, 10_000_000, 20_000_000,
        30_000_000, 40_000_000, 50_000_000,
    ],
    unit: 1_000,
};

/// Of durations that have a native histogram for who needs it finer.
pub const DURATION_SECONDS: Buckets = Buckets {
    bounds: &[
        250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
        2_500_000, 5_000_000, 10_000_000, 30_000_000, 60_000_000,
    ],
    unit: SECOND,
};

/// µs of a second: the unit of histograms whose bounds are given in µs and printed in seconds.
pub const SECOND: u64 = 1_000_000;

/// Counts values by size. Durations are kept in µs, whatever unit is printed.
#[derive(Debug)]
pub struct Histogram {
    buckets: &'static Buckets,
    counts: Box<[AtomicU64]>,
    sum: AtomicU64,
    native: Option<Box<Native>>,
}

impl Histogram {
    #[must_use]
    pub fn new(buckets: &'static Buckets) -> Self {
        Self {
            buckets,
            counts: (0..=buckets.bounds.len()).map(|_| AtomicU64::new(0)).collect(),
            sum: AtomicU64::new(0),
            native: None,
        }
    }

    /// With a native histogram beside the buckets.
    #[must_use]
    pub fn with_native(buckets: &'static Buckets) -> Self {
        Self {
            native: Some(Box::default()),
            ..Self::new(buckets)
        }
    }

    pub fn record(&self, value: Duration) {
        self.record_value(u64::try_from(value.as_micros()).unwrap_or(u64::MAX));
        if let Some(native) = &self.native {
            native.record(value);
        }
    }

    /// Counts a value in the buckets' smallest unit.
    pub fn record_value(&self, value: u64) {
        let bucket = self.buckets.bounds.partition_point(|bound| *bound < value);
        self.counts[bucket].fetch_add(1, Relaxed);
        self.sum.fetch_add(value, Relaxed);
    }

    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().map(|c| c.load(Relaxed)).sum()
    }
}

/// A value that can write itself into a scrape.
pub trait Print {
    const KIND: Kind;

    fn print(&self, out: &mut dyn Encode, labels: &Labels);
}

impl Print for Counter {
    const KIND: Kind = Kind::Counter;

    fn print(&self, out: &mut dyn Encode, labels: &Labels) {
        out.number(labels, Number::Unsigned(self.value()));
    }
}

impl Print for Gauge {
    const KIND: Kind = Kind::Gauge;

    fn print(&self, out: &mut dyn Encode, labels: &Labels) {
        out.number(labels, Number::Signed(self.value()));
    }
}

impl Print for Histogram {
    const KIND: Kind = Kind::Histogram;

    fn print(&self, out: &mut dyn Encode, labels: &Labels) {
        let counts = Counts {
            buckets: self.buckets,
            counts: self.counts.iter().map(|c| c.load(Relaxed)).collect(),
            sum: self.sum.load(Relaxed),
            native: self.native.as_ref().map(|native| native.counts()),
        };
        out.histogram(labels, &counts);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Text;
    use proptest::prelude::*;

    #[test]
    fn a_bound_belongs_to_its_bucket() {
        let histogram = Histogram::new(&LATENCY_MS);
        for micros in [0, 1_000, 1_001, 60_000_000] {
            histogram.record(Duration::from_micros(micros));
        }
        let mut out = Text::default();
        out.family("h", "H.", Kind::Histogram);
        histogram.print(&mut out, &Labels::new().with("a", "b"));
        let out = out.finish();
        assert!(out.contains("h_bucket{a=\"b\",le=\"1\"} 2\n"), "{out}");
        assert!(out.contains("h_bucket{a=\"b\",le=\"2\"} 3\n"), "{out}");
        assert!(out.contains("h_bucket{a=\"b\",le=\"50000\"} 3\n"), "{out}");
        assert!(out.contains("h_bucket{a=\"b\",le=\"+Inf\"} 4\n"), "{out}");
        assert!(
            out.contains("h_count{a=\"b\"} 4\nh_sum{a=\"b\"} 60002.001\n"),
            "{out}"
        );
    }

    proptest! {
        #[test]
        fn every_value_is_counted_once(values in proptest::collection::vec(0u64..100_000_000, 0..200)) {
            let histogram = Histogram::new(&LATENCY_MS);
            for v in &values {
                histogram.record(Duration::from_micros(*v));
            }
            prop_assert_eq!(histogram.count(), values.len() as u64);
        }
    }
}
