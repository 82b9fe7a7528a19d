//! Whether the key provider answers, asked at most every two seconds: the question is public and an HSM is slow.

use std::time::Duration;

use time::OffsetDateTime;
use tokio::sync::Mutex;
use vault::Vault;

/// The last answer of the key provider, and when it was given.
#[derive(Debug, Default)]
pub(crate) struct KeyHealth(Mutex<Option<(OffsetDateTime, bool)>>);

impl KeyHealth {
    /// The answer, asked anew when the last one is old. All that wait share one question.
    pub(crate) async fn check(&self, vault: &Vault, now: OffsetDateTime) -> bool {
        let mut last = self.0.lock().await;
        if let Some((at, good)) = *last
            && (now - at).unsigned_abs() < FRESH
        {
            return good;
        }
        let answer = tokio::time::timeout(vault::KEY_DEADLINE, vault.wrapper().check()).await;
        let good = matches!(answer, Ok(Ok(())));
        *last = Some((now, good));
        good
    }
}

const FRESH: Duration = Duration::from_secs(2);
