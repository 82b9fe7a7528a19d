//! What an agent may say once: nonces of signed requests and ids of proofs, over all nodes.

use ::leases::id::{AgentId, UserId};
use time::OffsetDateTime;

use crate::db::{Change, query};
use crate::timekeeper::millis;
use crate::{Store, StoreError};

/// What became of a nonce.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NonceUse {
    /// It was not seen before, on any node, and will not be taken again.
    Fresh,
    /// It was seen before.
    Seen,
    /// The agent has as many of them in keeping as it may.
    TooMany,
}

/// The nonces of a store.
#[derive(Debug, Clone, Copy)]
pub struct Nonces<'a> {
    pub(crate) store: &'a Store,
}

impl Nonces<'_> {
    /// Takes a nonce once: of many who bring the same one, on whichever node, one alone gets [`NonceUse::Fresh`].
    ///
    /// `digest` is of all that makes it one: the kind, the agent and the nonce. It is kept until `until`, and nothing may
    /// take it for good after that. An agent has at most [`MAX_KEPT`] in keeping, give or take those that come at once.
    ///
    /// # Errors
    /// [`StoreError`]; the nonce must then count as seen.
    pub async fn take(
        &self,
        agent: &AgentId,
        digest: &[u8; 32],
        until: OffsetDateTime,
    ) -> Result<NonceUse, StoreError> {
        self.take_of(agent.as_str(), digest, until).await
    }

    /// Takes what a person may show once, as [`take`](Self::take) does what an agent says.
    ///
    /// # Errors
    /// [`StoreError`]; it must then count as seen.
    pub async fn take_of_person(
        &self,
        user: &UserId,
        digest: &[u8; 32],
        until: OffsetDateTime,
    ) -> Result<NonceUse, StoreError> {
        self.take_of(user.as_str(), digest, until).await
    }

    async fn take_of(
        &self,
        holder: &str,
        digest: &[u8; 32],
        until: OffsetDateTime,
    ) -> Result<NonceUse, StoreError> {
        self.sweep().await?;
        let mut tx = self.store.write(Change::Once).await?;
        let kept: Option<i64> = query(
            "SELECT COUNT(*) FROM (SELECT 1 FROM seen_nonces WHERE agent_id = $1 LIMIT $2) AS kept",
        )
        .bind(holder)
        .bind(MAX_KEPT)
        .fetch_value(tx.conn())
        .await?;
        if kept.unwrap_or(0) >= MAX_KEPT {
            return Ok(NonceUse::TooMany);
        }
        let taken = query(
            "INSERT INTO seen_nonces (digest, agent_id, until) VALUES ($1, $2, $3) \
             ON CONFLICT (digest) DO NOTHING",
        )
        .bind(&digest[..])
        .bind(holder)
        .bind(millis(until) + SLACK_MS)
        .execute(tx.conn())
        .await?;
        tx.commit().await?;
        Ok(if taken == 1 {
            NonceUse::Fresh
        } else {
            NonceUse::Seen
        })
    }

    /// Forgets what could no longer be taken anyway, now and then.
    async fn sweep(&self) -> Result<(), StoreError> {
        let inner = &self.store.inner;
        let now = inner.time.now();
        if !inner.nonces_sweep.take(now, SWEEP_EVERY_MS) {
            return Ok(());
        }
        let mut tx = self.store.write(Change::Installation).await?;
        query("DELETE FROM seen_nonces WHERE until <= $1")
            .bind(now)
            .execute(tx.conn())
            .await?;
        tx.commit().await
    }
}

/// How many nonces of one agent are kept at once: with those of ten minutes in keeping, some thirty requests a second.
pub const MAX_KEPT: i64 = 20_000;
/// What the clocks of two nodes may differ by, so that neither forgets what the other would still take.
const SLACK_MS: i64 = 60 * 1_000;
const SWEEP_EVERY_MS: i64 = 60 * 1_000;
