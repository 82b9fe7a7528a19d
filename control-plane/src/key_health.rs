//! What the key provider lets this node do, asked at most every two seconds: the question is public and an HSM is slow.

use std::time::Duration;

use time::OffsetDateTime;
use tokio::sync::Mutex;

use crate::ControlPlane;
use crate::keys::{KeyChest, LEASE_ROOT, public_name};

/// The last answers of the key provider, and when they were given.
#[derive(Debug, Default)]
pub(crate) struct KeyHealth {
    answers: Mutex<Option<(OffsetDateTime, bool)>>,
    rights: Mutex<Option<(OffsetDateTime, Rights)>>,
}

/// What this node may ask of the key provider. A provider that is away takes no right away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rights {
    pub(crate) wrap: bool,
    pub(crate) unwrap: bool,
}

impl ControlPlane {
    /// Whether the key provider answers, asked anew when the last answer is old. All that wait share one question.
    pub(crate) async fn keys_answer(&self) -> bool {
        let now = self.clock.now();
        let mut last = self.key_health.answers.lock().await;
        if let Some((at, good)) = *last
            && (now - at).unsigned_abs() < FRESH
        {
            return good;
        }
        let asking = self.vault.wrapper().check();
        let answer = tokio::time::timeout(vault::KEY_DEADLINE, asking).await;
        let good = matches!(answer, Ok(Ok(())));
        *last = Some((now, good));
        good
    }

    /// What this node may do, found by doing it.
    pub(crate) async fn rights(&self) -> Rights {
        let now = self.clock.now();
        let mut last = self.key_health.rights.lock().await;
        if let Some((at, rights)) = *last
            && (now - at).unsigned_abs() < RIGHTS_FRESH
        {
            return rights;
        }
        let before = last.map_or(ALL, |(_, rights)| rights);
        let rights = probe(&self.chest, before).await;
        *last = Some((now, rights));
        rights
    }
}

async fn probe(chest: &KeyChest, before: Rights) -> Rights {
    let wrap = chest.probe_wrap().await.unwrap_or(before.wrap);
    let unwrap = chest
        .probe_unwrap(&public_name(LEASE_ROOT))
        .await
        .unwrap_or(before.unwrap);
    Rights { wrap, unwrap }
}

const FRESH: Duration = Duration::from_secs(2);
/// Rights are given by people, and seldom.
const RIGHTS_FRESH: Duration = Duration::from_secs(30);
const ALL: Rights = Rights {
    wrap: true,
    unwrap: true,
};
