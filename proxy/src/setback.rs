//! Another try of HTTP/2 after a provider answered it with nonsense.
//!
//! After one malformed answer Pingora speaks HTTP/1.1 over all connections of the same key, for as long as the process lives.
//! One answer tells little of the next, so a while later such a provider gets a key that Pingora knows nothing of.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use moka::sync::Cache;

/// How long a provider is spoken to in HTTP/1.1 after a malformed answer.
const PAUSE: Duration = Duration::from_mins(1);
/// How many ways are remembered. One that is forgotten stays with HTTP/1.1.
const CAPACITY: u64 = 4096;

/// The ways to providers on which HTTP/2 broke. A way is what all connections of one key have in common.
#[derive(Debug)]
pub(crate) struct Setbacks {
    seed: RandomState,
    known: Cache<u64, Setback>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Setback {
    /// How often it was tried again.
    tries: u64,
    /// When the present try broke, if it did.
    broke: Option<Instant>,
}

impl Setbacks {
    pub(crate) fn new() -> Self {
        Self {
            seed: RandomState::new(),
            known: Cache::new(CAPACITY),
        }
    }

    /// The way of a group's connections to one host.
    pub(crate) fn way(&self, group: u64, host: &str, port: u16) -> u64 {
        self.seed.hash_one((group, host, port))
    }

    /// The group to connect in now: `group` itself on a way that never broke.
    pub(crate) fn group(&self, group: u64, way: u64, now: Instant) -> u64 {
        let Some(mut setback) = self.known.get(&way) else {
            return group;
        };
        let is_over = |broke| now.saturating_duration_since(broke) >= PAUSE;
        if setback.broke.is_some_and(is_over) {
            setback = Setback {
                tries: setback.tries + 1,
                broke: None,
            };
            self.known.insert(way, setback);
        }
        match setback.tries {
            0 => group,
            tries => self.seed.hash_one((group, tries)),
        }
    }

    /// Notes that HTTP/2 broke on a way.
    pub(crate) fn note(&self, way: u64, now: Instant) {
        let setback = self.known.get(&way).unwrap_or_default();
        let broke = Some(now);
        self.known.insert(way, Setback { broke, ..setback });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_way_that_broke_gets_another_key_after_a_pause() {
        let setbacks = Setbacks::new();
        let start = Instant::now();
        let way = setbacks.way(7, "api.stripe.com", 443);
        let group = |after| setbacks.group(7, way, start + after);
        assert_eq!(group(Duration::ZERO), 7);

        setbacks.note(way, start);
        assert_eq!(group(PAUSE / 2), 7, "HTTP/1.1 for now");
        let second = group(PAUSE);
        assert_ne!(second, 7);
        assert_eq!(group(PAUSE * 9), second, "as long as it goes well");

        setbacks.note(way, start + PAUSE * 9);
        assert_eq!(group(PAUSE * 9), second);
        let third = group(PAUSE * 10);
        assert!(third != second && third != 7);
    }

    #[test]
    fn other_ways_keep_theirs() {
        let setbacks = Setbacks::new();
        let start = Instant::now();
        setbacks.note(setbacks.way(7, "api.stripe.com", 443), start);
        for (group, host, port) in [
            (8, "api.stripe.com", 443),
            (7, "files.stripe.com", 443),
            (7, "api.stripe.com", 8443),
        ] {
            let way = setbacks.way(group, host, port);
            assert_eq!(setbacks.group(group, way, start + PAUSE), group);
        }
    }
}
