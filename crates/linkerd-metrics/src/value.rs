//! What a series holds.

use std::{
    fmt::Write,
    sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use crate::Labels;

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

/// The bounds of a histogram, in µs, and how many µs one printed unit has.
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

/// Counts durations by size. It keeps µs, whatever unit it prints.
#[derive(Debug)]
pub struct Histogram {
    buckets: &'static Buckets,
    counts: Box<[AtomicU64]>,
    sum: AtomicU64,
}

impl Histogram {
    #[must_use]
    pub fn new(buckets: &'static Buckets) -> Self {
        Self {
            buckets,
            counts: (0..=buckets.bounds.len()).map(|_| AtomicU64::new(0)).collect(),
            sum: AtomicU64::new(0),
        }
    }

    pub fn record(&self, value: Duration) {
        let micros = u64::try_from(value.as_micros()).unwrap_or(u64::MAX);
        let bucket = self.buckets.bounds.partition_point(|bound| *bound < micros);
        self.counts[bucket].fetch_add(1, Relaxed);
        self.sum.fetch_add(micros, Relaxed);
    }

    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().map(|c| c.load(Relaxed)).sum()
    }
}

/// A value that can print itself as one or more lines of a scrape.
pub trait Print {
    const TYPE: &'static str;

    fn print(&self, out: &mut String, name: &str, labels: &Labels);
}

impl Print for Counter {
    const TYPE: &'static str = "counter";

    fn print(&self, out: &mut String, name: &str, labels: &Labels) {
        print_line(out, name, labels, self.value());
    }
}

impl Print for Gauge {
    const TYPE: &'static str = "gauge";

    fn print(&self, out: &mut String, name: &str, labels: &Labels) {
        print_line(out, name, labels, self.value());
    }
}

impl Print for Histogram {
    const TYPE: &'static str = "histogram";

    fn print(&self, out: &mut String, name: &str, labels: &Labels) {
        let comma = if labels.as_str().is_empty() { "" } else { "," };
        let mut total = 0;
        for (i, count) in self.counts.iter().enumerate() {
            total += count.load(Relaxed);
            let _ = write!(out, "{name}_bucket{{{}{comma}le=\"", labels.as_str());
            match self.buckets.bounds.get(i) {
                Some(bound) => print_units(out, *bound, self.buckets.unit),
                None => out.push_str("+Inf"),
            }
            let _ = writeln!(out, "\"}} {total}");
        }
        let _ = write!(out, "{name}_count");
        labels.write_braced(out);
        let _ = write!(out, " {total}\n{name}_sum");
        labels.write_braced(out);
        out.push(' ');
        print_units(out, self.sum.load(Relaxed), self.buckets.unit);
        out.push('\n');
    }
}

fn print_line(out: &mut String, name: &str, labels: &Labels, value: impl std::fmt::Display) {
    out.push_str(name);
    labels.write_braced(out);
    let _ = writeln!(out, " {value}");
}

/// Prints µs in a larger unit without rounding.
fn print_units(out: &mut String, micros: u64, unit: u64) {
    let _ = write!(out, "{}", micros / unit);
    let mut rest = micros % unit;
    if rest > 0 {
        out.push('.');
        let mut digit = unit / 10;
        while rest > 0 && digit > 0 {
            let _ = write!(out, "{}", rest / digit);
            rest %= digit;
            digit /= 10;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_bound_belongs_to_its_bucket() {
        let histogram = Histogram::new(&LATENCY_MS);
        for micros in [0, 1_000, 1_001, 60_000_000] {
            histogram.record(Duration::from_micros(micros));
        }
        let mut out = String::new();
        histogram.print(&mut out, "h", &Labels::new().with("a", "b"));
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
        fn units_are_printed_exactly(micros in 0u64..10_000_000_000) {
            let mut out = String::new();
            print_units(&mut out, micros, 1_000);
            let (whole, fraction) = out.split_once('.').unwrap_or((&out, ""));
            let fraction: u64 = format!("{fraction:0<3}").parse().unwrap();
            prop_assert_eq!(whole.parse::<u64>().unwrap() * 1_000 + fraction, micros);
        }

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
