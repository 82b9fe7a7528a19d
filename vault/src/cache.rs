//! The cache of opened secrets: short-lived, bounded, one opening at a time for each key.

use std::{
    any::Any,
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use parking_lot::{Mutex, RwLock};
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval},
};

/// How long an opened value may be used without asking the key provider again, unless configured otherwise.
///
/// It bounds how long secrets stay in memory and how long a disabled KEK still serves. It has no part in revocation,
/// which the ledger decides for each use.
pub const DEFAULT_TTL: Duration = Duration::from_secs(30);

/// The part of its time after which a value that is in use is opened anew.
const RENEW_AFTER: f64 = 0.75;

/// What an opened value is kept under.
///
/// The org is part of it, so that no mix-up of ids crosses orgs. `owner` is the id of the set or the vault, `version`
/// that of the set, and `extra` tells apart what else shapes the value, e.g. the keys that a grant allows. All parts
/// clone cheaply.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CacheKey {
    /// The org's id.
    pub org: Arc<str>,
    /// The id of the secret set or the vault.
    pub owner: Arc<str>,
    /// The version of the secret set.
    pub version: u64,
    /// What else shapes the value; may be empty.
    pub extra: Arc<str>,
}

impl CacheKey {
    /// A key of these parts.
    pub fn new(
        org: impl Into<Arc<str>>,
        owner: impl Into<Arc<str>>,
        version: u64,
        extra: impl Into<Arc<str>>,
    ) -> Self {
        Self {
            org: org.into(),
            owner: owner.into(),
            version,
            extra: extra.into(),
        }
    }
}

/// Opened values, each for at most a TTL. A value zeroes itself when the last of its holders drops it.
///
/// A hit is one read lock, one hash lookup and one reference count. Expired values are never served, but stay in
/// memory until [`sweep`](Self::sweep), which [`sweep_every`](Self::sweep_every) calls in time.
pub struct OpenedCache<V> {
    ttl: Duration,
    /// What a value says of its own time, which may end before the TTL.
    lifetime: fn(&V) -> Duration,
    capacity: usize,
    kept: RwLock<Kept<V>>,
    // Always locked before `kept`, so that an eviction meets an opening either under way or kept, never in between.
    flights: Mutex<Flights<V>>,
}

impl<V> OpenedCache<V> {
    /// A cache that keeps at most `capacity` values for at most `ttl` each. With a `ttl` of zero nothing is kept, and
    /// only openings that overlap share one result.
    pub fn new(ttl: Duration, capacity: usize) -> Self {
        Self::with_lifetimes(ttl, capacity, |_| Duration::MAX)
    }

    /// The same for values that may end by themselves before `ttl`: `lifetime` says how long after their opening began.
    pub fn with_lifetimes(ttl: Duration, capacity: usize, lifetime: fn(&V) -> Duration) -> Self {
        Self {
            ttl,
            lifetime,
            capacity,
            kept: RwLock::new(Kept::default()),
            flights: Mutex::new(Flights::default()),
        }
    }

    /// The value, if it is kept and has not expired.
    pub fn get(&self, key: &CacheKey) -> Option<Arc<V>> {
        let kept = self.kept.read();
        let entry = kept.entries.get(key)?;
        (Instant::now() < entry.expires_at).then(|| Arc::clone(&entry.value))
    }

    /// The value, if it is kept and has not expired, and whether it is this caller's part to [`renew`](Self::renew) it.
    pub fn look(&self, key: &CacheKey) -> Option<Found<V>> {
        let now = Instant::now();
        let kept = self.kept.read();
        let entry = kept.entries.get(key)?;
        (now < entry.expires_at).then(|| Found {
            value: Arc::clone(&entry.value),
            is_due: entry.is_due(now),
        })
    }

    /// Drops the values whose key `matches`, and sees to it that openings under way for such keys are not kept: their
    /// callers get them, and nobody after. `matches` must not call this cache.
    pub fn evict_where(&self, matches: impl Fn(&CacheKey) -> bool) {
        let mut flights = self.flights.lock();
        flights.by_key.retain(|key, _| !matches(key));
        let evicted = self.kept.write().remove_where(matches);
        drop(flights);
        // Zeroing takes time, so it happens when no lock is held.
        drop(evicted);
    }

    /// Drops the values that have expired.
    pub fn sweep(&self) {
        let expired = self.kept.write().remove_expired(Instant::now());
        drop(expired);
    }

    /// Values that are kept, expired ones included.
    pub fn len(&self) -> usize {
        self.kept.read().entries.len()
    }

    /// Whether no value is kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How long a value is kept.
    pub fn ttl(&self) -> Duration {
        self.ttl
    }
}

impl<V: Send + Sync + 'static> OpenedCache<V> {
    /// The kept value, or else the result of `opening`.
    ///
    /// Calls for one key that overlap share one opening: the first caller's runs, the others wait for its result, also
    /// where it is an error, so that an outage is met once and not once for each caller in turn. If the first caller is
    /// cancelled, another one opens. Errors are not kept. The TTL counts from the start of the opening.
    ///
    /// # Errors
    /// The error of the opening that ran.
    pub async fn get_or_open<E>(
        &self,
        key: CacheKey,
        opening: impl Future<Output = Result<V, E>>,
    ) -> Result<Arc<V>, E>
    where
        E: Clone + Send + Sync + 'static,
    {
        loop {
            match self.board(&key) {
                Boarding::Kept(value) => return Ok(value),
                Boarding::Lead(flight) => {
                    let started_at = Instant::now();
                    let result = opening.await.map(Arc::new);
                    flight.land(&result, started_at);
                    return result;
                }
                Boarding::Follow(landing) => {
                    if let Some(result) = follow(landing).await {
                        return result;
                    }
                }
            }
        }
    }

    /// Opens anew what is still kept, so that no caller waits for the key provider when its time is over.
    ///
    /// For the one caller that [`look`](Self::look) told that it is due. The kept value serves meanwhile, and is replaced
    /// if the opening succeeds; if it fails, the value ends when its TTL does. An opening under way is left alone.
    ///
    /// # Errors
    /// The error of the opening.
    pub async fn renew<E>(
        &self,
        key: CacheKey,
        opening: impl Future<Output = Result<V, E>>,
    ) -> Result<(), E>
    where
        E: Clone + Send + Sync + 'static,
    {
        let Some(flight) = self.take_off(&key) else {
            return Ok(());
        };
        let started_at = Instant::now();
        let result = opening.await.map(Arc::new);
        flight.land(&result, started_at);
        result.map(|_| ())
    }

    /// Sweeps once in every `period` until the cache is dropped. Spawn it where the cache is made; a second is a good
    /// period.
    pub fn sweep_every(
        self: &Arc<Self>,
        period: Duration,
    ) -> impl Future<Output = ()> + Send + use<V> {
        let cache = Arc::downgrade(self);
        async move {
            let mut ticks = interval(period);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                match cache.upgrade() {
                    Some(cache) => cache.sweep(),
                    None => return,
                }
            }
        }
    }

    /// Finds the value, or the opening under way, or starts one.
    fn board(&self, key: &CacheKey) -> Boarding<'_, V> {
        if let Some(value) = self.get(key) {
            return Boarding::Kept(value);
        }
        let mut flights = self.flights.lock();
        // An opening may have ended since: it is kept before it leaves the table of flights.
        if let Some(value) = self.get(key) {
            return Boarding::Kept(value);
        }
        if let Some(flight) = flights.by_key.get(key) {
            return Boarding::Follow(flight.landing.clone());
        }
        Boarding::Lead(self.lead(&mut flights, key))
    }

    /// Starts an opening, unless one is under way.
    fn take_off(&self, key: &CacheKey) -> Option<Lead<'_, V>> {
        let mut flights = self.flights.lock();
        (!flights.by_key.contains_key(key)).then(|| self.lead(&mut flights, key))
    }

    fn lead(&self, flights: &mut Flights<V>, key: &CacheKey) -> Lead<'_, V> {
        let (sender, landing) = watch::channel(None);
        let id = flights.next_id;
        flights.next_id += 1;
        flights.by_key.insert(key.clone(), Flight { id, landing });
        Lead {
            cache: self,
            key: key.clone(),
            id,
            landing: sender,
        }
    }
}

/// A value that is kept.
#[derive(Debug)]
pub struct Found<V> {
    /// The value.
    pub value: Arc<V>,
    /// Whether most of its time is over and nobody else was told so: call [`OpenedCache::renew`].
    pub is_due: bool,
}

impl<V> fmt::Debug for OpenedCache<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenedCache")
            .field("ttl", &self.ttl)
            .field("capacity", &self.capacity)
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

/// The values, and their order of expiry.
struct Kept<V> {
    entries: HashMap<CacheKey, Entry<V>>,
    by_expiry: BTreeMap<Expiry, CacheKey>,
    next_number: u64,
}

/// The instant, and a number that tells apart what expires in the same one.
type Expiry = (Instant, u64);

struct Entry<V> {
    value: Arc<V>,
    expires_at: Instant,
    number: u64,
    renew_at: Instant,
    was_told: AtomicBool,
}

impl<V> Entry<V> {
    /// Whether it should be renewed. Says so to one caller.
    fn is_due(&self, now: Instant) -> bool {
        now >= self.renew_at && !self.was_told.swap(true, Ordering::Relaxed)
    }
}

impl<V> Default for Kept<V> {
    fn default() -> Self {
        Self {
            entries: HashMap::new(),
            by_expiry: BTreeMap::new(),
            next_number: 0,
        }
    }
}

impl<V> Kept<V> {
    /// Keeps a value and gives back those that had to go: the one it replaces, and above `capacity` the next to expire.
    fn insert(
        &mut self,
        key: CacheKey,
        value: Arc<V>,
        (renew_at, expires_at): (Instant, Instant),
        capacity: usize,
    ) -> Vec<Arc<V>> {
        let number = self.next_number;
        self.next_number += 1;
        let mut removed: Vec<_> = self.remove(&key).into_iter().collect();
        self.by_expiry.insert((expires_at, number), key.clone());
        self.entries.insert(
            key,
            Entry {
                value,
                expires_at,
                number,
                renew_at,
                was_told: AtomicBool::new(false),
            },
        );
        while self.entries.len() > capacity {
            removed.extend(self.remove_first());
        }
        removed
    }

    fn remove(&mut self, key: &CacheKey) -> Option<Arc<V>> {
        let entry = self.entries.remove(key)?;
        self.by_expiry.remove(&(entry.expires_at, entry.number));
        Some(entry.value)
    }

    fn remove_first(&mut self) -> Option<Arc<V>> {
        let (_, key) = self.by_expiry.pop_first()?;
        self.entries.remove(&key).map(|entry| entry.value)
    }

    fn remove_expired(&mut self, now: Instant) -> Vec<Arc<V>> {
        let mut removed = Vec::new();
        while self
            .by_expiry
            .first_key_value()
            .is_some_and(|((expires_at, _), _)| *expires_at <= now)
        {
            removed.extend(self.remove_first());
        }
        removed
    }

    fn remove_where(&mut self, matches: impl Fn(&CacheKey) -> bool) -> Vec<Arc<V>> {
        let keys: Vec<_> = self
            .entries
            .keys()
            .filter(|key| matches(key))
            .cloned()
            .collect();
        keys.iter().filter_map(|key| self.remove(key)).collect()
    }
}

/// The openings under way. One that was evicted is no longer here, which is how its leader learns of it.
struct Flights<V> {
    by_key: HashMap<CacheKey, Flight<V>>,
    next_id: u64,
}

struct Flight<V> {
    id: u64,
    landing: watch::Receiver<Option<Landing<V>>>,
}

/// How an opening ended. Each caller has its own error type, and in practice they are all one.
type Landing<V> = Result<Arc<V>, Arc<dyn Any + Send + Sync>>;

impl<V> Default for Flights<V> {
    fn default() -> Self {
        Self {
            by_key: HashMap::new(),
            next_id: 0,
        }
    }
}

enum Boarding<'a, V> {
    Kept(Arc<V>),
    Lead(Lead<'a, V>),
    Follow(watch::Receiver<Option<Landing<V>>>),
}

/// The caller whose opening runs. Dropping it before it lands makes room for another.
struct Lead<'a, V> {
    cache: &'a OpenedCache<V>,
    key: CacheKey,
    id: u64,
    landing: watch::Sender<Option<Landing<V>>>,
}

impl<V> Lead<'_, V> {
    /// Keeps the value, unless it was evicted meanwhile, and tells those who wait.
    fn land<E: Clone + Send + Sync + 'static>(
        &self,
        result: &Result<Arc<V>, E>,
        started_at: Instant,
    ) {
        let mut flights = self.cache.flights.lock();
        let removed = match result {
            Ok(value) if self.is_current(&flights) => self.keep(value, started_at),
            _ => Vec::new(),
        };
        self.leave(&mut flights);
        drop(flights);
        drop(removed);
        let landing = match result {
            Ok(value) => Ok(Arc::clone(value)),
            Err(error) => Err(Arc::new(error.clone()) as Arc<dyn Any + Send + Sync>),
        };
        self.landing.send_replace(Some(landing));
    }

    fn keep(&self, value: &Arc<V>, started_at: Instant) -> Vec<Arc<V>> {
        let ttl = self.cache.ttl.min((self.cache.lifetime)(value));
        let Some(expires_at) = started_at.checked_add(ttl).filter(|_| !ttl.is_zero()) else {
            return Vec::new();
        };
        let mut kept = self.cache.kept.write();
        kept.insert(
            self.key.clone(),
            Arc::clone(value),
            (started_at + ttl.mul_f64(RENEW_AFTER), expires_at),
            self.cache.capacity,
        )
    }

    fn is_current(&self, flights: &Flights<V>) -> bool {
        flights
            .by_key
            .get(&self.key)
            .is_some_and(|flight| flight.id == self.id)
    }

    fn leave(&self, flights: &mut Flights<V>) {
        if self.is_current(flights) {
            flights.by_key.remove(&self.key);
        }
    }
}

impl<V> Drop for Lead<'_, V> {
    fn drop(&mut self) {
        self.leave(&mut self.cache.flights.lock());
    }
}

/// Waits for another caller's opening. `None` if it was cancelled, or failed with an error of another type.
async fn follow<V, E: Clone + 'static>(
    mut landing: watch::Receiver<Option<Landing<V>>>,
) -> Option<Result<Arc<V>, E>> {
    let landed = landing.wait_for(Option::is_some).await.ok()?.clone()?;
    match landed {
        Ok(value) => Some(Ok(value)),
        Err(error) => error.downcast_ref::<E>().cloned().map(Err),
    }
}

#[cfg(test)]
mod tests;
