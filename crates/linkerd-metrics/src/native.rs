//! Durations by exponential buckets, so fine that a percentile is off by half a percent at most.

use std::{
    array,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

/// Prometheus' measure of fineness: each bound is 2^(1/2^7), about 1.0054, times the one before.
pub const SCHEMA: i32 = 7;

/// Buckets in seconds from below a µs to a day and a half. An octave takes memory (1 KiB) once something falls into it:
/// the latencies of one endpoint fill a few.
#[derive(Debug)]
pub(crate) struct Native {
    octaves: [OnceLock<Box<Octave>>; OCTAVES],
}

type Octave = [AtomicU64; PER_OCTAVE];

impl Default for Native {
    fn default() -> Self {
        Self {
            octaves: array::from_fn(|_| OnceLock::new()),
        }
    }
}

impl Native {
    pub(crate) fn record(&self, value: Duration) {
        let position = position(value);
        let octave = self.octaves[position / PER_OCTAVE]
            .get_or_init(|| Box::new(array::from_fn(|_| AtomicU64::new(0))));
        octave[position % PER_OCTAVE].fetch_add(1, Relaxed);
    }

    /// Buckets with a count, by Prometheus' index: bucket `i` ends at 2^(i/2^schema) seconds.
    pub(crate) fn counts(&self) -> Vec<(i32, u64)> {
        let octaves = self.octaves.iter().zip(0_i32..);
        let octaves = octaves.filter_map(|(octave, n)| Some((octave.get()?, FIRST + n * (1 << SCHEMA))));
        octaves
            .flat_map(|(octave, first)| octave.iter().zip(first..))
            .map(|(count, index)| (index, count.load(Relaxed)))
            .filter(|(_, count)| *count > 0)
            .collect()
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the logarithm of a duration has three digits before the point, and casts from floats saturate"
)]
fn position(value: Duration) -> usize {
    let index = (value.as_secs_f64().log2() * f64::from(1 << SCHEMA)).ceil() as i32;
    let position = usize::try_from(index.saturating_sub(FIRST)).unwrap_or(0);
    position.min(OCTAVES * PER_OCTAVE - 1)
}

const PER_OCTAVE: usize = 1 << SCHEMA;
/// From 2^-20 s to 2^17 s.
const OCTAVES: usize = 37;
const FIRST: i32 = -20 * (1 << SCHEMA) + 1;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_duration_is_counted_once_in_its_bucket(micros in 1u64..100_000_000_000) {
            let native = Native::default();
            native.record(Duration::from_micros(micros));
            let counts = native.counts();
            prop_assert_eq!(counts.len(), 1);
            let bound = |index: i32| 2_f64.powf(f64::from(index) / f64::from(1 << SCHEMA)) * 1e6;
            let (index, _) = counts[0];
            let value = micros as f64;
            prop_assert!(bound(index - 1) * 0.999_999 < value && value < bound(index) * 1.000_001);
        }
    }

    #[test]
    fn what_is_too_short_or_too_long_is_counted_at_the_ends() {
        let native = Native::default();
        native.record(Duration::ZERO);
        native.record(Duration::MAX);
        let last = FIRST + i32::try_from(OCTAVES * PER_OCTAVE).unwrap() - 1;
        assert_eq!(native.counts(), [(FIRST, 1), (last, 1)]);
    }
}
