//! Which of an agent's grants a lease is minted from, when the request names none.

use std::net::IpAddr;

use leases::scope::{HostPattern, Keys};
use store::{Grant, Rate, SecretSet, Spend};
use time::OffsetDateTime;

/// What a lease is wanted for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'a> {
    pub(crate) set: &'a SecretSet,
    /// Where the set's template sends.
    pub(crate) hosts: &'a [HostPattern],
    pub(crate) keys: &'a Keys,
    /// Whoever asks, as far as that is known.
    pub(crate) client: Option<IpAddr>,
    pub(crate) now: OffsetDateTime,
    /// When the lease would end, if its grant did not end before.
    pub(crate) until: OffsetDateTime,
}

impl Wanted<'_> {
    /// Why nothing could be done by a lease from this grant, if so.
    pub(crate) fn useless(&self, grant: &Grant) -> Option<String> {
        let limits = &grant.constraints.hosts;
        let reaches = |limit: &HostPattern| self.hosts.iter().any(|host| host.overlaps(limit));
        if !limits.is_empty() && !limits.iter().any(reaches) {
            return Some(format!(
                "the grant {} names hosts to which the set's provider sends nothing ({}; it sends to {})",
                grant.id,
                joined(limits),
                joined(self.hosts)
            ));
        }
        None
    }

    /// The grant to mint from, of those that allow what is wanted.
    ///
    /// Grants that can be used from here and now go before those that cannot. Of these the oldest is taken, unless a later one
    /// covers all that it does: so a new grant never takes away what an agent could do by the ones before it.
    pub(crate) fn choose(&self, mut grants: Vec<Grant>) -> Option<Grant> {
        grants.retain(|grant| self.useless(grant).is_none());
        if grants.iter().any(|grant| self.is_open(grant)) {
            grants.retain(|grant| self.is_open(grant));
        }
        grants.sort_by(|a, b| a.id.cmp(&b.id));
        grants.into_iter().reduce(|best, later| {
            let wider = self.covers(&later, &best);
            let no_wider = self.covers(&best, &later);
            if wider && (!no_wider || ends_after(&later, &best)) {
                later
            } else {
                best
            }
        })
    }

    /// Whether the grant's networks and times take a request from here and now, and it covers a key that the set has.
    fn is_open(&self, grant: &Grant) -> bool {
        let mut keys = self.set.keys.iter();
        let has_key = keys.any(|key| grant.allowed_keys.allows(key));
        let scope = &grant.constraints;
        let is_near = self.client.is_none_or(|client| scope.takes_client(client));
        let window = scope.time_window.as_ref();
        has_key && is_near && window.is_none_or(|window| window.contains(self.now))
    }

    /// Whether a lease from `wide` allows all that one from `narrow` does, for as long.
    fn covers(&self, wide: &Grant, narrow: &Grant) -> bool {
        self.end(wide) >= self.end(narrow)
            && self.covers_keys(&wide.allowed_keys, &narrow.allowed_keys)
            && narrow.constraints.narrows(&wide.constraints)
            && as_often(wide.rate, narrow.rate)
            && as_much(wide.spend, narrow.spend)
    }

    fn end(&self, grant: &Grant) -> OffsetDateTime {
        grant
            .expires_at
            .map_or(self.until, |end| end.min(self.until))
    }

    /// Keys that were named are covered by every grant that is looked at.
    fn covers_keys(&self, wide: &Keys, narrow: &Keys) -> bool {
        match (self.keys, wide, narrow) {
            (Keys::Only(_), _, _) | (_, Keys::All, _) => true,
            (Keys::All, Keys::Only(_), Keys::All) => false,
            (Keys::All, Keys::Only(_), Keys::Only(keys)) => keys.iter().all(|key| wide.allows(key)),
        }
    }
}

fn ends_after(grant: &Grant, other: &Grant) -> bool {
    other
        .expires_at
        .is_some_and(|other| grant.expires_at.is_none_or(|end| end > other))
}

fn as_often(wide: Option<Rate>, narrow: Option<Rate>) -> bool {
    match (wide, narrow) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(wide), Some(narrow)) => {
            wide.requests >= narrow.requests && wide.per_seconds <= narrow.per_seconds
        }
    }
}

fn as_much(wide: Option<Spend>, narrow: Option<Spend>) -> bool {
    let no_less = |wide: Option<u64>, narrow: Option<u64>| {
        wide.is_none_or(|wide| narrow.is_some_and(|narrow| wide >= narrow))
    };
    match (wide, narrow) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(wide), Some(narrow)) => {
            no_less(wide.tokens, narrow.tokens)
                && no_less(wide.usd_micros, narrow.usd_micros)
                && wide.per_seconds == narrow.per_seconds
        }
    }
}

fn joined(hosts: &[HostPattern]) -> String {
    let hosts: Vec<String> = hosts.iter().map(ToString::to_string).collect();
    hosts.join(", ")
}
