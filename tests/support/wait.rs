//! Waiting for a condition, bounded: a test never sleeps for luck.

use std::time::{Duration, Instant};

use super::soak;

/// How long a condition may take before its test fails; in the long run there is more to be written and read.
pub(crate) fn patience() -> Duration {
    soak(15 * USUAL, USUAL)
}

const USUAL: Duration = Duration::from_secs(20);

/// How often a condition is looked at.
pub(crate) const POLL: Duration = Duration::from_millis(10);
/// For what takes long: each look leaves its trace in logs and in what agents have seen.
const SELDOM: Duration = Duration::from_millis(200);

/// Polls `condition` until it gives a value.
///
/// # Panics
/// When [`patience`] is over; the message names `what`.
pub(crate) async fn until<T>(what: &str, condition: impl AsyncFnMut() -> Option<T>) -> T {
    polled(patience(), POLL, what, condition).await
}

/// The same for what takes longer than usual, or has to be there sooner.
///
/// # Panics
/// When `patience` is over; the message names `what`.
pub(crate) async fn until_after<T>(
    patience: Duration,
    what: &str,
    condition: impl AsyncFnMut() -> Option<T>,
) -> T {
    let pause = if patience > USUAL { SELDOM } else { POLL };
    polled(patience, pause, what, condition).await
}

/// The same with a look each `pause`.
///
/// # Panics
/// When `patience` is over; the message names `what`.
pub(crate) async fn polled<T>(
    patience: Duration,
    pause: Duration,
    what: &str,
    mut condition: impl AsyncFnMut() -> Option<T>,
) -> T {
    let started = Instant::now();
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(
            started.elapsed() < patience,
            "waited {patience:?} in vain for: {what}"
        );
        tokio::time::sleep(pause).await;
    }
}

/// Waits for `future`, but no longer than [`patience`].
///
/// # Panics
/// When the time is over; the message names `what`.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    let patience = patience();
    match tokio::time::timeout(patience, future).await {
        Ok(value) => value,
        Err(elapsed) => panic!("waited {patience:?} in vain for: {what} ({elapsed})"),
    }
}
