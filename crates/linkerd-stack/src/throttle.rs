//! Log lines that the network can cause, at a bounded rate.

use parking_lot::Mutex;
use std::time::{Duration, Instant};

/// One for each place that logs. A flood of failures is told by some of them and the number of the others.
#[derive(Debug)]
pub struct Throttle(Mutex<State>);

#[derive(Debug)]
struct State {
    /// When there would be room for all lines again.
    full: Option<Instant>,
    left_out: u64,
}

impl Default for Throttle {
    fn default() -> Self {
        Self::new()
    }
}

impl Throttle {
    #[must_use]
    pub const fn new() -> Self {
        Self(Mutex::new(State {
            full: None,
            left_out: 0,
        }))
    }

    /// Writes a line, with how many were left out before it, unless there were too many lately.
    pub fn line(&self, write: impl FnOnce(Option<u64>)) {
        if let Some(left_out) = self.admit(Instant::now()) {
            write((left_out > 0).then_some(left_out));
        }
    }

    fn admit(&self, now: Instant) -> Option<u64> {
        let mut state = self.0.lock();
        let full = state.full.map_or(now, |full| full.max(now)) + SPACING;
        if full.saturating_duration_since(now) > SPACING * BURST {
            state.left_out += 1;
            return None;
        }
        state.full = Some(full);
        Some(std::mem::take(&mut state.left_out))
    }
}

/// In the long run ten lines a second, which is some hundred megabytes a day.
const SPACING: Duration = Duration::from_millis(100);
const BURST: u32 = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_told_by_some_lines_and_a_number() {
        let (throttle, start) = (Throttle::new(), Instant::now());
        let admitted = (0..1_000).filter(|_| throttle.admit(start).is_some()).count();
        assert_eq!(admitted, 100);
        assert_eq!(throttle.admit(start + Duration::from_millis(50)), None);
        assert_eq!(throttle.admit(start + Duration::from_millis(100)), Some(901));
        assert_eq!(throttle.admit(start + Duration::from_millis(200)), Some(0));
    }

    #[test]
    fn a_single_line_says_nothing_of_others() {
        let mut said = Vec::new();
        Throttle::new().line(|left_out| said.push(left_out));
        assert_eq!(said, [None]);
    }
}
