//! Time that never goes back: the clock, or the latest time seen if that is later.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use ::leases::clock::Clock;
use time::OffsetDateTime;

/// A clock that is behind by less is only being slewed.
const STEP_MS: i64 = 1_000;

/// Gives the time in milliseconds since the epoch, never less than it gave before.
///
/// The latest time seen outlives the process (`ledger_state.time_seen` and the events' own
/// times), so a clock that steps back, even over a restart, revives no lease and no grant.
#[derive(Debug)]
pub(crate) struct Timekeeper {
    clock: Arc<dyn Clock>,
    seen: AtomicI64,
    is_behind: AtomicBool,
    steps: AtomicU64,
}

impl Timekeeper {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            seen: AtomicI64::new(0),
            is_behind: AtomicBool::new(false),
            steps: AtomicU64::new(0),
        }
    }

    /// Remembers that `at` was reached.
    pub(crate) fn reached(&self, at: i64) {
        self.seen.fetch_max(at, Ordering::Relaxed);
    }

    /// The time to decide by and to record.
    pub(crate) fn now(&self) -> i64 {
        let now = millis(self.clock.now());
        let seen = self.seen.fetch_max(now, Ordering::Relaxed);
        if seen - now <= STEP_MS {
            if self.is_behind.load(Ordering::Relaxed) {
                self.is_behind.store(false, Ordering::Relaxed);
            }
        } else if !self.is_behind.swap(true, Ordering::Relaxed) {
            self.steps.fetch_add(1, Ordering::Relaxed);
        }
        seen.max(now)
    }

    /// The latest time seen.
    pub(crate) fn seen(&self) -> i64 {
        self.seen.load(Ordering::Relaxed)
    }

    /// What the clock itself says now.
    pub(crate) fn clock(&self) -> i64 {
        millis(self.clock.now())
    }

    /// How far the clock stands behind the latest time seen.
    pub(crate) fn behind(&self) -> Duration {
        let behind = self.seen() - millis(self.clock.now());
        Duration::from_millis(u64::try_from(behind).unwrap_or(0))
    }

    /// How often the clock was found to have stepped back.
    pub(crate) fn steps(&self) -> u64 {
        self.steps.load(Ordering::Relaxed)
    }
}

/// Milliseconds since the epoch.
pub(crate) fn millis(at: OffsetDateTime) -> i64 {
    at.unix_timestamp() * 1_000 + i64::from(at.millisecond())
}

/// The time of milliseconds since the epoch; the epoch itself for what no calendar holds.
pub(crate) fn at(millis: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(millis) * 1_000_000)
        .unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use ::leases::clock::ManualClock;
    use time::macros::datetime;

    use super::*;

    #[test]
    fn time_holds_still_while_the_clock_is_behind_and_the_step_is_counted_once() {
        let start = datetime!(2026-11-22 07:00 UTC);
        let clock = Arc::new(ManualClock::new(start));
        let keeper = Timekeeper::new(Arc::<ManualClock>::clone(&clock) as Arc<dyn Clock>);
        assert_eq!(keeper.now(), millis(start));
        clock.set(datetime!(2026-11-22 06:00 UTC));
        assert_eq!(keeper.now(), millis(start));
        assert_eq!(keeper.now(), millis(start));
        assert_eq!(keeper.steps(), 1);
        assert_eq!(keeper.behind(), Duration::from_hours(1));
        clock.set(datetime!(2026-11-22 07:00:01 UTC));
        assert_eq!(keeper.now(), millis(start) + 1_000);
        assert_eq!(keeper.behind(), Duration::ZERO);
    }

    #[test]
    fn milliseconds_give_the_time_back() {
        let time = datetime!(2026-11-22 07:00:01.234 UTC);
        assert_eq!(at(millis(time)), time);
        let before = datetime!(1969-12-31 23:59:59.250 UTC);
        assert_eq!(at(millis(before)), before);
    }
}
