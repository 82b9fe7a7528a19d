//! Bounds how fast one lease can make the ledger write its refusals (threats.md H7).
//!
//! A refusal costs its sender nothing and us a synced record, in the queue that uses wait in. Past the bound a refusal is
//! still answered, counted and logged; only its record is left out, and the first ones of the flood stand in the trail.

use std::num::NonZeroU32;

use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use leases::id::LeaseId;

/// Refusals of one lease that are recorded each second, after a first burst.
const PER_SECOND: NonZeroU32 = NonZeroU32::new(50).expect("fifty is not zero");
/// The first burst.
const BURST: NonZeroU32 = NonZeroU32::new(500).expect("five hundred is not zero");
/// How many leases are remembered before those that have been quiet are forgotten.
const REMEMBERED: usize = 10_000;

/// Meters the refusals of each lease.
#[derive(Debug)]
pub(crate) struct RefusalMeter(DefaultKeyedRateLimiter<LeaseId>);

impl RefusalMeter {
    pub(crate) fn new() -> Self {
        Self(RateLimiter::keyed(
            Quota::per_second(PER_SECOND).allow_burst(BURST),
        ))
    }

    /// Whether this refusal of the lease is to be recorded.
    pub(crate) fn admits(&self, lease: &LeaseId) -> bool {
        if self.0.len() > REMEMBERED {
            self.0.retain_recent();
        }
        self.0.check_key(lease).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_one_lease_is_bounded_and_others_are_not() {
        let now = time::macros::datetime!(2026-11-22 12:00 UTC);
        let (one, other) = (LeaseId::new(now), LeaseId::new(now));
        let meter = RefusalMeter::new();
        let recorded = (0..10_000).filter(|_| meter.admits(&one)).count();
        assert!((500..2_000).contains(&recorded), "{recorded}");
        assert!(meter.admits(&other));
    }
}
