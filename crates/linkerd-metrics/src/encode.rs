//! The two forms of a scrape: text for everybody, protobuf for who wants native histograms.

use crate::{Buckets, Labels};
use std::fmt::{self, Write as _};

/// What a family holds.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

#[derive(Copy, Clone, Debug, PartialEq)]
pub enum Number {
    Unsigned(u64),
    Signed(i64),
    Float(f64),
}

/// One histogram at one moment.
#[derive(Clone, Debug)]
pub struct Counts {
    pub buckets: &'static Buckets,
    /// One for each bound and the last for what is beyond, not cumulative.
    pub counts: Vec<u64>,
    /// In the buckets' smallest unit.
    pub sum: u64,
    /// Counts by the index of a native histogram of [`SCHEMA`](crate::SCHEMA), ascending; only those that have any.
    pub native: Option<Vec<(i32, u64)>>,
}

/// Takes the series of a scrape, family by family.
pub trait Encode {
    /// Begins a family; the series that follow are its own.
    fn family(&mut self, name: &str, help: &str, kind: Kind);

    fn number(&mut self, labels: &Labels, number: Number);

    fn histogram(&mut self, labels: &Labels, counts: &Counts);
}

/// Prometheus' text format.
#[derive(Debug, Default)]
pub struct Text {
    out: String,
    name: String,
}

impl Text {
    /// The whole scrape.
    #[must_use]
    pub fn finish(mut self) -> String {
        self.out.push_str("# EOF\n");
        self.out
    }
}

impl Encode for Text {
    fn family(&mut self, name: &str, help: &str, kind: Kind) {
        name.clone_into(&mut self.name);
        let _ = writeln!(self.out, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn number(&mut self, labels: &Labels, number: Number) {
        self.out.push_str(&self.name);
        labels.write_braced(&mut self.out);
        let _ = writeln!(self.out, " {number}");
    }

    fn histogram(&mut self, labels: &Labels, counts: &Counts) {
        let Self { out, name } = self;
        let unit = counts.buckets.unit;
        let comma = if labels.as_str().is_empty() { "" } else { "," };
        let mut total = 0;
        for (i, count) in counts.counts.iter().enumerate() {
            total += count;
            let _ = write!(out, "{name}_bucket{{{}{comma}le=\"", labels.as_str());
            match counts.buckets.bounds.get(i) {
                Some(bound) => print_units(out, *bound, unit),
                None => out.push_str("+Inf"),
            }
            let _ = writeln!(out, "\"}} {total}");
        }
        let _ = write!(out, "{name}_count");
        labels.write_braced(out);
        let _ = write!(out, " {total}\n{name}_sum");
        labels.write_braced(out);
        out.push(' ');
        print_units(out, counts.sum, unit);
        out.push('\n');
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        })
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsigned(n) => n.fmt(f),
            Self::Signed(n) => n.fmt(f),
            Self::Float(n) => n.fmt(f),
        }
    }
}

impl Number {
    #[expect(
        clippy::cast_precision_loss,
        reason = "the formats know only doubles, which are exact to 2^53"
    )]
    pub(crate) const fn as_f64(self) -> f64 {
        match self {
            Self::Unsigned(n) => n as f64,
            Self::Signed(n) => n as f64,
            Self::Float(n) => n,
        }
    }
}

/// Prints a small unit in a larger one without rounding.
fn print_units(out: &mut String, small: u64, unit: u64) {
    let _ = write!(out, "{}", small / unit);
    let mut rest = small % unit;
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

    proptest! {
        #[test]
        fn units_are_printed_exactly(micros in 0u64..10_000_000_000) {
            let mut out = String::new();
            print_units(&mut out, micros, 1_000);
            let (whole, fraction) = out.split_once('.').unwrap_or((&out, ""));
            let fraction: u64 = format!("{fraction:0<3}").parse().unwrap();
            prop_assert_eq!(whole.parse::<u64>().unwrap() * 1_000 + fraction, micros);
        }
    }
}
