//! How long the thread waits for company before it begins a transaction.
//!
//! A commit costs about as much for sixteen uses as for one. Under load, uses that come a moment later would each begin a
//! transaction of their own; waiting for them first spares most of that. A lone caller never waits: there is a wait only
//! where the uses of the last moments say that more will come meanwhile.

use std::time::{Duration, Instant};

/// The longest that a use waits for company.
const LINGER: Duration = Duration::from_micros(300);
/// How many uses must be likely to come meanwhile.
const COMPANY: f64 = 2.0;
/// How much the last transaction counts in the rate.
const WEIGHT: f64 = 0.2;

/// The rate at which uses come.
#[derive(Debug)]
pub(super) struct Pace {
    per_second: f64,
    since: Instant,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            per_second: 0.0,
            since: now,
        }
    }

    /// Notes how many uses a transaction had.
    pub(super) fn note(&mut self, uses: usize, now: Instant) {
        let seconds = now.duration_since(self.since).as_secs_f64().max(1e-6);
        self.since = now;
        let uses = u32::try_from(uses).map_or(f64::MAX, f64::from);
        self.per_second += WEIGHT * (uses / seconds - self.per_second);
    }

    /// How long to wait, if it is worth it.
    pub(super) fn linger(&self) -> Option<Duration> {
        (self.per_second * LINGER.as_secs_f64() >= COMPANY).then_some(LINGER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The wait after `count` transactions of `uses` uses, `apart` from each other.
    fn after(count: u32, uses: usize, apart: Duration) -> Option<Duration> {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        for number in 1..=count {
            pace.note(uses, start + apart * number);
        }
        pace.linger()
    }

    #[test]
    fn a_lone_caller_does_not_wait() {
        assert_eq!(after(100, 1, Duration::from_micros(300)), None);
        assert_eq!(after(1, 64, Duration::from_secs(5)), None);
    }

    #[test]
    fn many_callers_wait_for_each_other() {
        assert_eq!(after(100, 8, Duration::from_micros(600)), Some(LINGER));
    }

    #[test]
    fn the_wait_ends_with_the_load() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        for number in 1..=100 {
            pace.note(16, start + Duration::from_micros(600) * number);
        }
        assert!(pace.linger().is_some());
        for number in 1_u64..=20 {
            pace.note(1, start + Duration::from_millis(60 + number));
        }
        assert_eq!(pace.linger(), None);
    }
}
