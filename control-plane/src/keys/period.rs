//! When a version of a signing key signs, and how long it is verified: by the time at which its public half was published.

use std::time::Duration;

use store::SealedKey;
use time::OffsetDateTime;

/// How often every process looks for keys that another one rotated.
pub const POLL: Duration = Duration::from_secs(3);

/// How long the public half of a new key is known before the key signs: ten polls, so that a verifier which misses some of
/// them still knows the key before it meets its first signature.
pub const OVERLAP: Duration = Duration::from_secs(30);

/// What is added to a key's end: polls that come late and clocks that differ.
const SLACK: Duration = Duration::from_mins(5);

/// The publication of one version of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Publication {
    pub(crate) version: u64,
    pub(crate) at: OffsetDateTime,
}

impl Publication {
    pub(crate) fn of(row: &SealedKey) -> Self {
        Self {
            version: row.version,
            at: row.created_at,
        }
    }
}

/// The versions of one key, oldest first: how long one is known before it signs, and how long what it signs lives.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Periods<'a> {
    pub(crate) published: &'a [Publication],
    pub(crate) overlap: Duration,
    pub(crate) lifetime: Duration,
}

impl Periods<'_> {
    /// The version that signs now; none when none is published.
    pub(crate) fn signing(&self, now: OffsetDateTime) -> Option<u64> {
        let started = |index: &usize| self.signs_from(*index) <= now;
        let newest = (0..self.published.len()).rev().find(started).unwrap_or(0);
        self.published.get(newest).map(|key| key.version)
    }

    /// The versions whose signatures are taken now, newest first.
    pub(crate) fn verifying(&self, now: OffsetDateTime) -> Vec<u64> {
        let indexes = (0..self.published.len()).rev();
        let live = indexes.filter(|index| self.ends(*index).is_none_or(|end| now < end));
        live.map(|index| self.published[index].version).collect()
    }

    /// When what a version signed has ended with certainty; `None` for the newest.
    fn ends(&self, index: usize) -> Option<OffsetDateTime> {
        let next = index + 1;
        (next < self.published.len()).then(|| self.signs_from(next) + self.lifetime + SLACK)
    }

    /// The first version signs at once, for there was nobody before who would have to learn of it.
    fn signs_from(&self, index: usize) -> OffsetDateTime {
        let key = &self.published[index];
        if index == 0 {
            key.at
        } else {
            key.at + self.overlap
        }
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    const START: OffsetDateTime = datetime!(2026-11-22 07:00 UTC);
    const LIFE: Duration = Duration::from_hours(24);

    fn published(minutes: &[u64]) -> Vec<Publication> {
        let at = |minute: &u64| START + Duration::from_mins(*minute);
        (1..)
            .zip(minutes)
            .map(|(version, minute)| Publication {
                version,
                at: at(minute),
            })
            .collect()
    }

    fn periods(published: &[Publication]) -> Periods<'_> {
        Periods {
            published,
            overlap: OVERLAP,
            lifetime: LIFE,
        }
    }

    #[test]
    fn the_first_key_signs_at_once() {
        let keys = published(&[0]);
        assert_eq!(periods(&keys).signing(START), Some(1));
        assert_eq!(periods(&keys).verifying(START), [1]);
        // A clock that stands behind the one that published it.
        assert_eq!(periods(&keys).signing(START - OVERLAP), Some(1));
        assert_eq!(periods(&[]).signing(START), None);
    }

    #[test]
    fn a_new_key_is_verified_at_once_and_signs_after_the_overlap() {
        let keys = published(&[0, 60]);
        let made = START + Duration::from_hours(1);
        assert_eq!(periods(&keys).verifying(made), [2, 1]);
        assert_eq!(periods(&keys).signing(made + OVERLAP - POLL), Some(1));
        assert_eq!(periods(&keys).signing(made + OVERLAP), Some(2));
    }

    #[test]
    fn a_key_is_verified_until_its_last_signature_has_ended_however_many_follow() {
        let keys = published(&[0, 1, 2, 3, 4]);
        let last = START + Duration::from_mins(4) + OVERLAP;
        assert_eq!(periods(&keys).verifying(last), [5, 4, 3, 2, 1]);
        let second = START + Duration::from_mins(1) + OVERLAP;
        assert!(periods(&keys).verifying(second + LIFE).contains(&1));
        assert!(!periods(&keys).verifying(second + LIFE + SLACK).contains(&1));
        assert_eq!(periods(&keys).verifying(last + LIFE + SLACK), [5]);
    }
}
