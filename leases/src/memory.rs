//! Remembered decisions of one lease: a repeated request costs a hash and a comparison, and no Datalog.
//!
//! A decision is a pure function of lease, request and time, and it stays the same until the next instant at which one of
//! the lease's ends or time windows passes. Only permits are remembered, and only where every check that looks at the
//! time is one whose next change is known. An entry is found by a hash and taken only if all parts of the request are
//! equal, so no collision turns into a permit.

use std::{
    hash::{BuildHasher, Hash, RandomState},
    net::IpAddr,
};

use parking_lot::Mutex;
use time::OffsetDateTime;

use crate::{authorize::AccessRequest, host::Scheme, scope::Action};

const SHARDS: usize = 8;
/// Entries of a shard. All shards together keep at most 512 decisions, about 400 KiB if every path is of full length.
const SLOTS: usize = 64;
/// Longer paths are decided anew each time, so that a lease's memory has a bound.
const MAX_PATH: usize = 512;

/// The permits that a lease remembers.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    /// Keyed, so that nobody can choose requests that fall on one slot.
    hasher: RandomState,
    shards: [Mutex<Vec<Option<Box<Entry>>>>; SHARDS],
}

#[derive(Debug)]
struct Entry {
    action: Action,
    scheme: Scheme,
    port: u16,
    client_ip: IpAddr,
    host: Box<str>,
    method: Box<str>,
    path: Box<str>,
    from: OffsetDateTime,
    until: OffsetDateTime,
    binding: usize,
}

impl Entry {
    fn is_for(&self, request: &AccessRequest<'_>, now: OffsetDateTime) -> bool {
        // The clock may step back: before the decision was made it is not known.
        (self.from..self.until).contains(&now)
            && *self.path == *request.path
            && *self.host == *request.host
            && *self.method == *request.method
            && self.client_ip == request.client_ip
            && self.port == request.port
            && self.scheme == request.scheme
            && self.action == request.action
    }
}

impl Memory {
    /// The binding that serves the request, if that was decided before and still holds.
    pub(crate) fn recall(&self, request: &AccessRequest<'_>, now: OffsetDateTime) -> Option<usize> {
        let (shard, slot) = self.place(request);
        let shard = self.shards[shard].lock();
        let entry = shard.get(slot)?.as_ref()?;
        entry.is_for(request, now).then_some(entry.binding)
    }

    /// Remembers that the binding serves the request from `from` until `until`.
    pub(crate) fn remember(
        &self,
        request: &AccessRequest<'_>,
        binding: usize,
        from: OffsetDateTime,
        until: OffsetDateTime,
    ) {
        if request.path.len() > MAX_PATH {
            return;
        }
        let entry = Entry {
            action: request.action,
            scheme: request.scheme,
            port: request.port,
            client_ip: request.client_ip,
            host: request.host.into(),
            method: request.method.into(),
            path: request.path.into(),
            from,
            until,
            binding,
        };
        let (shard, slot) = self.place(request);
        let mut shard = self.shards[shard].lock();
        if shard.is_empty() {
            shard.resize_with(SLOTS, || None);
        }
        shard[slot] = Some(Box::new(entry));
    }

    fn place(&self, request: &AccessRequest<'_>) -> (usize, usize) {
        let mut hasher = self.hasher.build_hasher();
        let AccessRequest {
            action,
            scheme,
            host,
            port,
            method,
            path,
            client_ip,
        } = request;
        (action, scheme, host, port, method, path, client_ip).hash(&mut hasher);
        let hash = usize::try_from(std::hash::Hasher::finish(&hasher) & 0xFFFF_FFFF).unwrap_or(0);
        (hash % SHARDS, hash / SHARDS % SLOTS)
    }

    /// How many decisions are remembered.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        let count = |shard: &Mutex<Vec<_>>| shard.lock().iter().flatten().count();
        self.shards.iter().map(count).sum()
    }
}
