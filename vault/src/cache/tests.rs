use std::{
    convert::Infallible,
    sync::atomic::{AtomicUsize, Ordering},
};

use futures::future::join_all;
use tokio::{
    sync::oneshot,
    task::yield_now,
    time::{advance, timeout},
};

use super::*;

const TTL: Duration = Duration::from_secs(30);

type Cache = OpenedCache<Value>;

/// A value that counts its drops, as a secret that zeroes itself would.
struct Value(&'static str, Arc<AtomicUsize>);

impl Drop for Value {
    fn drop(&mut self) {
        self.1.fetch_add(1, Ordering::SeqCst);
    }
}

#[derive(Default)]
struct Counts {
    opened: AtomicUsize,
    dropped: Arc<AtomicUsize>,
}

impl Counts {
    async fn open(&self, text: &'static str) -> Result<Value, Infallible> {
        self.opened.fetch_add(1, Ordering::SeqCst);
        yield_now().await;
        Ok(Value(text, Arc::clone(&self.dropped)))
    }

    fn opened(&self) -> usize {
        self.opened.load(Ordering::SeqCst)
    }

    fn dropped(&self) -> usize {
        self.dropped.load(Ordering::SeqCst)
    }
}

fn key(owner: &str) -> CacheKey {
    CacheKey::new("org_1", owner, 1, "")
}

async fn put(cache: &Cache, counts: &Counts, owner: &str) {
    let Ok(value) = cache.get_or_open(key(owner), counts.open("v")).await;
    drop(value);
}

#[tokio::test(start_paused = true)]
async fn a_kept_value_is_not_opened_again_within_the_ttl() {
    let (cache, counts) = (Cache::new(TTL, 10), Counts::default());
    put(&cache, &counts, "a").await;
    advance(Duration::from_millis(29_999)).await;
    put(&cache, &counts, "a").await;
    assert_eq!(counts.opened(), 1);
    assert_eq!(cache.get(&key("a")).unwrap().0, "v");
}

#[tokio::test(start_paused = true)]
async fn an_expired_value_is_opened_again() {
    let (cache, counts) = (Cache::new(TTL, 10), Counts::default());
    put(&cache, &counts, "a").await;
    advance(TTL).await;
    assert!(cache.get(&key("a")).is_none());
    put(&cache, &counts, "a").await;
    assert_eq!(counts.opened(), 2);
    assert_eq!(
        counts.dropped(),
        1,
        "the old value goes when the new one comes"
    );
    cache.sweep();
    assert!(
        cache.get(&key("a")).is_some(),
        "the old value's expiry does not sweep the new one"
    );
}

#[tokio::test(start_paused = true)]
async fn the_ttl_counts_from_the_start_of_the_opening() {
    let (cache, counts) = (Cache::new(TTL, 10), Counts::default());
    let slow = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        counts.open("v").await
    };
    let Ok(_) = cache.get_or_open(key("a"), slow).await;
    advance(Duration::from_secs(28)).await;
    assert!(cache.get(&key("a")).is_none());
}

#[tokio::test(start_paused = true)]
async fn with_a_ttl_of_zero_every_use_opens() {
    let (cache, counts) = (Cache::new(Duration::ZERO, 10), Counts::default());
    put(&cache, &counts, "a").await;
    put(&cache, &counts, "a").await;
    assert_eq!((counts.opened(), counts.dropped()), (2, 2));
    assert!(cache.is_empty());
}

#[tokio::test(start_paused = true)]
async fn overlapping_uses_share_one_opening_whatever_the_ttl() {
    for ttl in [TTL, Duration::ZERO] {
        let (cache, counts) = (Cache::new(ttl, 10), Counts::default());
        let uses = (0..64).map(|_| cache.get_or_open(key("a"), counts.open("v")));
        let values = join_all(uses).await;
        assert_eq!((values.len(), counts.opened()), (64, 1), "{ttl:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn different_keys_do_not_share() {
    let (cache, counts) = (Cache::new(TTL, 10), Counts::default());
    let base = key("a");
    let keys = [
        base.clone(),
        CacheKey {
            org: "org_2".into(),
            ..base.clone()
        },
        CacheKey {
            owner: "b".into(),
            ..base.clone()
        },
        CacheKey {
            version: 2,
            ..base.clone()
        },
        CacheKey {
            extra: "KEY".into(),
            ..base
        },
    ];
    for key in &keys {
        let Ok(_) = cache.get_or_open(key.clone(), counts.open("v")).await;
    }
    assert_eq!((counts.opened(), cache.len()), (5, 5));
}

#[tokio::test(start_paused = true)]
async fn an_error_reaches_all_who_waited_and_is_not_kept() {
    let cache = Cache::new(TTL, 10);
    let tries = AtomicUsize::new(0);
    let failing = || async {
        tries.fetch_add(1, Ordering::SeqCst);
        yield_now().await;
        Err::<Value, _>("hsm is down")
    };
    let uses = (0..8).map(|_| cache.get_or_open(key("a"), failing()));
    let results = join_all(uses).await;
    assert!(
        results
            .iter()
            .all(|result| matches!(result, Err("hsm is down")))
    );
    assert_eq!(tries.load(Ordering::SeqCst), 1);

    let counts = Counts::default();
    put(&cache, &counts, "a").await;
    assert_eq!(counts.opened(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_error_of_another_type_makes_the_waiter_open_itself() {
    let (cache, counts) = (Cache::new(TTL, 10), Counts::default());
    let failing = async {
        yield_now().await;
        Err::<Value, _>("down")
    };
    let (first, second) = tokio::join!(
        cache.get_or_open(key("a"), failing),
        cache.get_or_open(key("a"), counts.open("v"))
    );
    assert!(matches!(first, Err("down")));
    assert!(second.is_ok());
}

#[tokio::test(start_paused = true)]
async fn when_the_first_caller_is_cancelled_another_opens() {
    let (cache, counts) = (Cache::new(TTL, 10), Counts::default());
    let hanging = cache.get_or_open(
        key("a"),
        std::future::pending::<Result<Value, Infallible>>(),
    );
    let cancelled = timeout(Duration::from_secs(1), hanging);
    let (cancelled, followed) =
        tokio::join!(cancelled, cache.get_or_open(key("a"), counts.open("v")));
    assert!(cancelled.is_err());
    assert_eq!(followed.map(|value| value.0), Ok("v"));
}

#[tokio::test(start_paused = true)]
async fn a_value_in_use_is_renewed_before_its_time_is_over_and_by_one_caller() {
    let (cache, counts) = (Cache::new(TTL, 10), Counts::default());
    put(&cache, &counts, "a").await;
    assert!(!cache.look(&key("a")).unwrap().is_due);
    advance(Duration::from_secs(23)).await;
    assert!(cache.look(&key("a")).unwrap().is_due);
    assert!(!cache.look(&key("a")).unwrap().is_due, "one caller is told");
    let Ok(()) = cache.renew(key("a"), counts.open("new")).await;
    assert_eq!((counts.opened(), counts.dropped()), (2, 1));
    // The TTL of what was opened anew counts from then.
    advance(Duration::from_secs(29)).await;
    assert_eq!(cache.get(&key("a")).unwrap().0, "new");
    assert!(cache.look(&key("a")).unwrap().is_due);
}

#[tokio::test(start_paused = true)]
async fn a_renewal_that_fails_prolongs_nothing() {
    let (cache, counts) = (Cache::new(TTL, 10), Counts::default());
    put(&cache, &counts, "a").await;
    advance(Duration::from_secs(29)).await;
    let failed = cache
        .renew(key("a"), async { Err::<Value, _>("away") })
        .await;
    assert_eq!(failed, Err("away"));
    assert_eq!(cache.get(&key("a")).unwrap().0, "v");
    advance(Duration::from_secs(1)).await;
    assert!(cache.get(&key("a")).is_none());
}

#[tokio::test(start_paused = true)]
async fn a_value_evicted_while_it_is_renewed_is_not_kept() {
    let (cache, counts) = (Cache::new(TTL, 10), Counts::default());
    put(&cache, &counts, "a").await;
    let evicting = async {
        cache.evict_where(|_| true);
        counts.open("late").await
    };
    let Ok(()) = cache.renew(key("a"), evicting).await;
    assert!(cache.get(&key("a")).is_none());
    assert_eq!(counts.dropped(), 2);
}

#[tokio::test(start_paused = true)]
async fn eviction_drops_what_matches_and_nothing_else() {
    let (cache, counts) = (Cache::new(TTL, 10), Counts::default());
    put(&cache, &counts, "a").await;
    put(&cache, &counts, "b").await;
    cache.evict_where(|key| &*key.owner == "a");
    assert_eq!(counts.dropped(), 1);
    assert!(cache.get(&key("a")).is_none());
    assert!(cache.get(&key("b")).is_some());
}

#[tokio::test(start_paused = true)]
async fn a_value_evicted_while_it_is_opened_is_not_kept() {
    let (cache, counts) = (Cache::new(TTL, 10), Counts::default());
    let (go, gate) = oneshot::channel::<()>();
    let slow = async {
        gate.await.unwrap();
        counts.open("old").await
    };
    let evict = async {
        yield_now().await;
        cache.evict_where(|key| &*key.owner == "a");
        // A use after the eviction does not join the opening from before it.
        let Ok(fresh) = cache.get_or_open(key("a"), counts.open("new")).await;
        assert_eq!(fresh.0, "new");
        go.send(()).unwrap();
    };
    let (old, ()) = tokio::join!(cache.get_or_open(key("a"), slow), evict);
    assert_eq!(old.map(|value| value.0), Ok("old"));
    assert_eq!(cache.get(&key("a")).unwrap().0, "new");
    cache.evict_where(|_| true);
    assert_eq!(counts.dropped(), 2);
}

#[tokio::test(start_paused = true)]
async fn sweeping_drops_expired_values_that_nobody_asks_for() {
    let (cache, counts) = (Cache::new(TTL, 10), Counts::default());
    put(&cache, &counts, "a").await;
    advance(Duration::from_secs(20)).await;
    put(&cache, &counts, "b").await;
    advance(Duration::from_secs(10)).await;
    assert_eq!(counts.dropped(), 0);
    cache.sweep();
    assert_eq!((counts.dropped(), cache.len()), (1, 1));
    assert!(cache.get(&key("b")).is_some());
}

#[tokio::test(start_paused = true)]
async fn the_sweeper_works_by_itself_and_ends_with_the_cache() {
    let (cache, counts) = (Arc::new(Cache::new(TTL, 10)), Counts::default());
    let sweeper = tokio::spawn(cache.sweep_every(Duration::from_secs(1)));
    put(&cache, &counts, "a").await;
    tokio::time::sleep(TTL + Duration::from_secs(1)).await;
    assert_eq!(counts.dropped(), 1);
    drop(cache);
    sweeper.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn above_its_capacity_the_next_to_expire_goes_first() {
    let (cache, counts) = (Cache::new(TTL, 2), Counts::default());
    for owner in ["a", "b", "c"] {
        put(&cache, &counts, owner).await;
        advance(Duration::from_secs(1)).await;
    }
    assert_eq!((cache.len(), counts.dropped()), (2, 1));
    assert!(cache.get(&key("a")).is_none());
}

#[tokio::test(start_paused = true)]
async fn a_ttl_that_no_clock_reaches_keeps_nothing() {
    let (cache, counts) = (Cache::new(Duration::MAX, 10), Counts::default());
    put(&cache, &counts, "a").await;
    assert_eq!((cache.len(), counts.dropped()), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_capacity_of_zero_keeps_nothing() {
    let (cache, counts) = (Cache::new(TTL, 0), Counts::default());
    put(&cache, &counts, "a").await;
    assert_eq!((cache.len(), counts.dropped()), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn the_two_orders_stay_in_step() {
    let (cache, counts) = (Cache::new(TTL, 5), Counts::default());
    let owners: Vec<String> = (0..9).map(|number| format!("set_{number}")).collect();
    for round in 0..200_usize {
        put(&cache, &counts, &owners[round * 7 % 9]).await;
        advance(Duration::from_secs(u64::try_from(round % 9).unwrap())).await;
        if round % 11 == 0 {
            cache.evict_where(|key| *key.owner == *owners[round % 9]);
        }
        if round % 5 == 0 {
            cache.sweep();
        }
        let kept = cache.kept.read();
        assert_eq!(kept.entries.len(), kept.by_expiry.len());
        assert_eq!(counts.opened() - counts.dropped(), kept.entries.len());
    }
    assert!(cache.flights.lock().by_key.is_empty());
}

#[tokio::test]
async fn debug_shows_no_value() {
    let (cache, counts) = (Cache::new(TTL, 10), Counts::default());
    let Ok(_) = cache.get_or_open(key("a"), counts.open("canary")).await;
    let shown = format!("{cache:?}");
    assert!(
        shown.contains("len: 1") && !shown.contains("canary"),
        "{shown}"
    );
    assert_eq!(cache.ttl(), TTL);
}

#[tokio::test(start_paused = true)]
async fn a_value_that_ends_before_the_ttl_is_renewed_and_dropped_by_its_own_time() {
    let cache = Cache::with_lifetimes(TTL, 10, |_| Duration::from_secs(4));
    let counts = Counts::default();
    put(&cache, &counts, "a").await;
    advance(Duration::from_millis(2_900)).await;
    assert!(!cache.look(&key("a")).unwrap().is_due);
    advance(Duration::from_millis(200)).await;
    assert!(cache.look(&key("a")).unwrap().is_due);
    advance(Duration::from_secs(1)).await;
    assert!(cache.look(&key("a")).is_none());
    cache.sweep();
    assert!(cache.is_empty());
}
