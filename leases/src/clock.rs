//! Where the time comes from: the system in production, a hand-turned clock in tests.

use std::{fmt, time::Duration};

use parking_lot::Mutex;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// A source of the time in UTC.
pub trait Clock: fmt::Debug + Send + Sync {
    /// The time now.
    fn now(&self) -> OffsetDateTime;
}

/// An instant as people and machines read it, RFC 3339.
pub(crate) fn rfc3339(at: OffsetDateTime) -> String {
    at.format(&Rfc3339).unwrap_or_else(|_| at.to_string())
}

/// The system's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that asks the system for the time"
    )]
    fn now(&self) -> OffsetDateTime {
        OffsetDateTime::now_utc()
    }
}

/// A clock that stands still until it is moved.
#[derive(Debug)]
pub struct ManualClock(Mutex<OffsetDateTime>);

impl ManualClock {
    /// A clock that stands at `now`.
    pub const fn new(now: OffsetDateTime) -> Self {
        Self(Mutex::new(now))
    }

    /// Moves the clock on.
    pub fn advance(&self, by: Duration) {
        *self.0.lock() += by;
    }

    /// Sets the clock, also backwards.
    pub fn set(&self, now: OffsetDateTime) {
        *self.0.lock() = now;
    }
}

impl Clock for ManualClock {
    fn now(&self) -> OffsetDateTime {
        *self.0.lock()
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn a_manual_clock_moves_only_by_hand() {
        let clock = ManualClock::new(datetime!(2026-11-22 07:00 UTC));
        assert_eq!(clock.now(), clock.now());
        clock.advance(Duration::from_mins(1));
        assert_eq!(clock.now(), datetime!(2026-11-22 07:01 UTC));
        clock.set(datetime!(2026-11-21 07:00 UTC));
        assert_eq!(clock.now(), datetime!(2026-11-21 07:00 UTC));
    }

    #[test]
    fn the_system_clock_is_in_utc() {
        assert!(SystemClock.now().offset().is_utc());
    }
}
