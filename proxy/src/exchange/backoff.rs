//! Token endpoints that failed, by what was asked for. Nobody is asked again before a short time has passed that grows with
//! each failure: a provider that turns a client down must not see all of its requests, and may lock it out for them.

use std::time::Duration;

use moka::sync::Cache;
use tokio::time::Instant;
use vault::CacheKey;

use super::unavailable;
use crate::refuse::Refusal;

/// The wait after the first failure. It doubles with each further one.
const FIRST: Duration = Duration::from_secs(1);
/// The longest wait of our own choice.
const LONGEST: Duration = Duration::from_secs(30);
/// The longest wait that an endpoint may ask for.
const LONGEST_TOLD: Duration = Duration::from_mins(5);
/// For how long a failure is remembered beyond which the next one is a first again.
const REMEMBERED: Duration = Duration::from_mins(10);
/// How many are remembered.
const CAPACITY: u64 = 4096;

/// The failures of late. A set's new version has none.
#[derive(Debug)]
pub(super) struct Backoff(Cache<CacheKey, Failure>);

#[derive(Debug, Clone)]
struct Failure {
    /// Of our own; what an endpoint tells does not grow.
    wait: Duration,
    until: Instant,
    detail: String,
}

impl Backoff {
    pub(super) fn new() -> Self {
        let cache = Cache::builder().max_capacity(CAPACITY);
        Self(cache.time_to_live(REMEMBERED).build())
    }

    /// The refusal while nobody is to be asked.
    pub(super) fn standing(&self, key: &CacheKey) -> Option<Refusal> {
        let failure = self.0.get(key)?;
        let left = failure.until.checked_duration_since(Instant::now())?;
        let seconds = left.as_secs() + 1;
        let detail = format!(
            "{}; it failed a moment ago and is asked again in {seconds} s at the earliest",
            failure.detail
        );
        (!left.is_zero()).then(|| Refusal {
            retry_after: Some(left),
            ..unavailable(detail)
        })
    }

    /// Notes a failure, and the wait that the endpoint asked for. The refusal says when to try again.
    pub(super) fn note(&self, key: CacheKey, refusal: Refusal, told: Option<Duration>) -> Refusal {
        let wait = self
            .0
            .get(&key)
            .map_or(FIRST, |last| (last.wait * 2).min(LONGEST));
        let until_next = told.map_or(wait, |told| told.clamp(wait, LONGEST_TOLD));
        let failure = Failure {
            wait,
            until: Instant::now() + until_next,
            detail: refusal.detail.to_string(),
        };
        self.0.insert(key, failure);
        Refusal {
            retry_after: Some(until_next),
            ..refusal
        }
    }

    /// It has answered.
    pub(super) fn forget(&self, key: &CacheKey) {
        self.0.invalidate(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::refuse::Code;

    fn key(version: u64) -> CacheKey {
        CacheKey::new("org_1", "set_1", version, "TOKEN")
    }

    fn fail(backoff: &Backoff, told: Option<u64>) -> u64 {
        let refusal = unavailable("the token endpoint gave no token");
        let told = told.map(Duration::from_secs);
        let refusal = backoff.note(key(1), refusal, told);
        refusal.retry_after.unwrap().as_secs()
    }

    #[tokio::test(start_paused = true)]
    async fn the_wait_doubles_up_to_half_a_minute_and_ends_with_an_answer() {
        let backoff = Backoff::new();
        assert_eq!(backoff.standing(&key(1)), None);
        for wait in [1, 2, 4, 8, 16, 30, 30] {
            assert_eq!(fail(&backoff, None), wait);
            tokio::time::advance(Duration::from_secs(wait - 1)).await;
            let standing = backoff.standing(&key(1)).unwrap();
            assert_eq!(standing.code, Code::KeyUnavailable);
            assert_eq!(standing.retry_after, Some(Duration::from_secs(1)));
            assert!(
                standing
                    .detail
                    .starts_with("the token endpoint gave no token; ")
            );
            tokio::time::advance(Duration::from_secs(1)).await;
            assert_eq!(backoff.standing(&key(1)), None);
        }
        fail(&backoff, None);
        backoff.forget(&key(1));
        assert_eq!(backoff.standing(&key(1)), None);
        assert_eq!(fail(&backoff, None), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn an_endpoints_own_wait_counts_within_bounds() {
        let backoff = Backoff::new();
        for (told, wait) in [(7, 7), (0, 2), (3_600, 300), (1, 8), (9, 16)] {
            assert_eq!(fail(&backoff, Some(told)), wait, "{told}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn another_version_of_the_set_is_asked_for_at_once() {
        let backoff = Backoff::new();
        fail(&backoff, None);
        assert!(backoff.standing(&key(1)).is_some());
        assert_eq!(backoff.standing(&key(2)), None);
    }
}
