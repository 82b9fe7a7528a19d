//! Bounds for what costs its sender nothing: records of refusals (threats.md H7) and wrong leases (A23).
//!
//! A refusal costs its sender nothing and us a synced record, in the queue that uses wait in. Past the bound a refusal is
//! still answered, counted and logged; only its record is left out, and the first ones of the flood stand in the trail.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use leases::id::LeaseId;
use moka::sync::Cache;

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

/// Wrong leases of one source that are looked at each second, after a first burst.
const WRONG_PER_SECOND: NonZeroU32 = NonZeroU32::new(50).expect("fifty is not zero");
/// The first burst: many agents may share an address, and a wrong lease is a mistake before it is an attack.
const WRONG_BURST: NonZeroU32 = NonZeroU32::new(5_000).expect("five thousand is not zero");
/// How long a source is shut out when it has used that up.
const SHUT: Duration = Duration::from_secs(1);

/// Meters the wrong leases of each source, so that guessing them costs the guesser and not us.
#[derive(Debug)]
pub(crate) struct WrongLeases {
    tries: DefaultKeyedRateLimiter<IpAddr>,
    shut: Cache<IpAddr, ()>,
}

impl WrongLeases {
    pub(crate) fn new() -> Self {
        Self {
            tries: RateLimiter::keyed(Quota::per_second(WRONG_PER_SECOND).allow_burst(WRONG_BURST)),
            shut: Cache::builder()
                .max_capacity(REMEMBERED as u64)
                .time_to_live(SHUT)
                .build(),
        }
    }

    /// How long this source should wait, if nothing unknown is looked at for it now.
    pub(crate) fn shut_out(&self, client: IpAddr) -> Option<Duration> {
        self.shut.contains_key(&source(client)).then_some(SHUT)
    }

    /// One more that was wrong.
    pub(crate) fn note(&self, client: IpAddr) {
        let source = source(client);
        if self.tries.len() > REMEMBERED {
            self.tries.retain_recent();
        }
        if self.tries.check_key(&source).is_err() {
            self.shut.insert(source, ());
        }
    }
}

/// Who counts as one: an IPv4 address, or the /64 that an IPv6 host has for itself.
fn source(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(address) => {
            let network = u128::from(address) & (u128::MAX << 64);
            IpAddr::V6(network.into())
        }
        v4 @ IpAddr::V4(_) => v4,
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

    #[test]
    fn a_network_of_one_host_is_one_source() {
        let source = |text: &str| source(text.parse().unwrap());
        assert_eq!(source("2001:db8::1"), source("2001:db8::ffff:2"));
        assert_ne!(source("2001:db8::1"), source("2001:db8:0:1::1"));
        assert_eq!(source("::ffff:192.0.2.1"), source("192.0.2.1"));
    }
}
