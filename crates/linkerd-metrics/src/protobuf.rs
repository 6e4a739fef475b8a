//! The scrape as length-delimited protobuf messages, the form in which Prometheus takes native histograms.

use crate::{Counts, Encode, Kind, Labels, Number, SCHEMA};
use linkerd_proto::prometheus::{
    Bucket, BucketSpan, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType,
};
use prost::Message as _;

/// `Content-Type` of what [`Protobuf`] makes, and what an `Accept` header must name to get it.
pub const PROTOBUF_TYPE: &str =
    "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited";

#[derive(Debug, Default)]
pub struct Protobuf {
    out: Vec<u8>,
    family: Option<MetricFamily>,
}

impl Protobuf {
    /// The whole scrape.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.flush();
        self.out
    }

    fn flush(&mut self) {
        if let Some(family) = self.family.take().filter(|family| !family.metric.is_empty()) {
            self.out.extend(family.encode_length_delimited_to_vec());
        }
    }

    fn push(&mut self, labels: &Labels, mut metric: Metric) {
        metric.label = labels
            .pairs()
            .map(|(name, value)| LabelPair { name, value })
            .collect();
        if let Some(family) = &mut self.family {
            family.metric.push(metric);
        }
    }
}

impl Encode for Protobuf {
    fn family(&mut self, name: &str, help: &str, kind: Kind) {
        self.flush();
        let kind = match kind {
            Kind::Counter => MetricType::Counter,
            Kind::Gauge => MetricType::Gauge,
            Kind::Histogram => MetricType::Histogram,
        };
        self.family = Some(MetricFamily {
            name: name.to_owned(),
            help: help.to_owned(),
            r#type: kind.into(),
            metric: Vec::new(),
        });
    }

    fn number(&mut self, labels: &Labels, number: Number) {
        let value = number.as_f64();
        let is_counter = self
            .family
            .as_ref()
            .is_some_and(|family| family.r#type() == MetricType::Counter);
        let metric = if is_counter {
            Metric {
                counter: Some(Counter { value }),
                ..Metric::default()
            }
        } else {
            Metric {
                gauge: Some(Gauge { value }),
                ..Metric::default()
            }
        };
        self.push(labels, metric);
    }

    fn histogram(&mut self, labels: &Labels, counts: &Counts) {
        let metric = Metric {
            histogram: Some(histogram(counts)),
            ..Metric::default()
        };
        self.push(labels, metric);
    }
}

fn histogram(counts: &Counts) -> Histogram {
    let unit = Number::Unsigned(counts.buckets.unit).as_f64();
    let units = |small: u64| Number::Unsigned(small).as_f64() / unit;
    let mut cumulative_count = 0;
    let bucket = counts.counts.iter().enumerate().map(|(i, count)| {
        cumulative_count += count;
        let bound = counts.buckets.bounds.get(i);
        Bucket {
            cumulative_count,
            upper_bound: bound.map_or(f64::INFINITY, |bound| units(*bound)),
        }
    });
    let mut histogram = Histogram {
        bucket: bucket.collect(),
        sample_sum: units(counts.sum),
        ..Histogram::default()
    };
    histogram.sample_count = cumulative_count;
    if let Some(native) = &counts.native {
        // Both are sums of the same observations, made at slightly different moments: Prometheus wants them equal.
        histogram.sample_count = native.iter().map(|(_, count)| count).sum();
        histogram.schema = SCHEMA;
        histogram.zero_threshold = ZERO_THRESHOLD;
        add_native(&mut histogram, native);
    }
    histogram
}

/// Runs of neighbouring buckets, and what each holds more than the one before.
fn add_native(histogram: &mut Histogram, native: &[(i32, u64)]) {
    let (mut next, mut before) = (0, 0_i64);
    for (index, count) in native {
        match histogram.positive_span.last_mut() {
            Some(span) if *index == next => span.length += 1,
            _ => histogram.positive_span.push(BucketSpan {
                offset: index - next,
                length: 1,
            }),
        }
        next = index + 1;
        let count = i64::try_from(*count).unwrap_or(i64::MAX);
        histogram.positive_delta.push(count - before);
        before = count;
    }
}

/// Prometheus' own default; its being there says that a histogram is native even when it is empty.
const ZERO_THRESHOLD: f64 = 2.938_735_877_055_719e-39;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Registry;
    use std::time::Duration;

    fn families(mut bytes: &[u8]) -> Vec<MetricFamily> {
        let mut families = Vec::new();
        while !bytes.is_empty() {
            families.push(MetricFamily::decode_length_delimited(&mut bytes).unwrap());
        }
        families
    }

    fn scrape(registry: &Registry) -> Vec<MetricFamily> {
        let mut out = Protobuf::default();
        registry.encode(&mut out);
        families(&out.finish())
    }

    #[test]
    fn labels_are_read_back_from_their_text() {
        let registry = Registry::new(Duration::from_secs(60));
        let labels = Labels::new().with("a", "x\"y\\z\n,b=\"").with("c", "");
        registry
            .counter("requests_total", "Requests.")
            .series(&labels)
            .add(7);
        let [family] = &scrape(&registry)[..] else {
            panic!("one family")
        };
        assert_eq!(family.r#type(), MetricType::Counter);
        let metric = &family.metric[0];
        let pairs: Vec<_> = metric
            .label
            .iter()
            .map(|l| (l.name.as_str(), l.value.as_str()))
            .collect();
        assert_eq!(pairs, [("a", "x\"y\\z\n,b=\""), ("c", "")]);
        assert!((metric.counter.unwrap().value - 7.0).abs() < f64::EPSILON);
    }

    /// What Prometheus makes of spans and deltas.
    fn absolute(histogram: &Histogram) -> Vec<(i32, i64)> {
        let (mut index, mut count) = (0, 0);
        let mut deltas = histogram.positive_delta.iter();
        let mut all = Vec::new();
        for span in &histogram.positive_span {
            index += span.offset;
            for delta in deltas.by_ref().take(span.length as usize) {
                count += delta;
                all.push((index, count));
                index += 1;
            }
        }
        all
    }

    #[test]
    fn a_quantile_of_a_native_histogram_is_within_one_percent() {
        let registry = Registry::new(Duration::from_secs(60));
        let series = registry
            .durations("request_duration_seconds", "Durations.")
            .series(&Labels::new());
        // 100 µs to 10 s, growing by 3 ‰ each.
        let mut values = vec![100.0_f64];
        while *values.last().unwrap() < 1e7 {
            values.push(values.last().unwrap() * 1.003);
        }
        for micros in &values {
            series.record(Duration::from_secs_f64(micros / 1e6));
        }
        let families = scrape(&registry);
        let histogram = families[0].metric[0].histogram.as_ref().unwrap();
        assert_eq!(histogram.sample_count, values.len() as u64);
        let buckets = absolute(histogram);
        for per_mille in [10, 500, 900, 990, 999] {
            let rank = i64::try_from((per_mille * values.len()).div_ceil(1_000)).unwrap();
            let mut seen = 0;
            let (index, _) = buckets
                .iter()
                .find(|(_, count)| {
                    seen += count;
                    seen >= rank
                })
                .unwrap();
            let bound = 2_f64.powf(f64::from(*index) / f64::from(1 << SCHEMA)) * 1e6;
            let truth = values[usize::try_from(rank).unwrap() - 1];
            assert!(
                (bound / truth - 1.0).abs() < 0.01,
                "{per_mille}: {bound} for {truth}"
            );
        }
    }
}
