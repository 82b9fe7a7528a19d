//! `Idempotency-Key`: one effect for a request that is sent more than once.

use ::leases::id::OrgId;

use crate::db::{Change, Row, query};
use crate::{Store, StoreError};

/// How long an answer is kept.
const KEPT_MS: i64 = 24 * 60 * 60 * 1_000;
/// How often what is no longer kept is deleted.
const FORGET_EVERY_MS: i64 = 10 * 60 * 1_000;
/// After this, a claim without an answer is taken to be abandoned.
const CLAIMED_MS: i64 = 60 * 1_000;

/// What to do with a request that carries an idempotency key.
#[derive(Clone, PartialEq, Eq)]
pub enum Idempotency {
    /// The first of its key: do it, then call [`IdempotencyKeys::finish`] or
    /// [`IdempotencyKeys::abandon`].
    Fresh,
    /// Done before: give the same answer.
    Replay {
        /// HTTP status of that answer.
        status: u16,
        /// Body of that answer, as it was given to [`IdempotencyKeys::finish`].
        body: Vec<u8>,
    },
    /// The key was used for a different request.
    Conflict,
    /// The first request with this key has not ended yet.
    InProgress,
}

impl std::fmt::Debug for Idempotency {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // An answer may hold a key or a lease.
        f.write_str(match self {
            Self::Fresh => "Fresh",
            Self::Replay { .. } => "Replay",
            Self::Conflict => "Conflict",
            Self::InProgress => "InProgress",
        })
    }
}

/// The kept answers of a store; each is forgotten 24 h after its request.
#[derive(Debug, Clone, Copy)]
pub struct IdempotencyKeys<'a> {
    pub(crate) store: &'a Store,
}

impl IdempotencyKeys<'_> {
    /// Claims a key for a request, by the SHA-256 of what it asks for.
    ///
    /// Of many that race with one key, one gets [`Idempotency::Fresh`]. A claim that was neither
    /// finished nor abandoned can be taken over after 60 s.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn begin(
        &self,
        org: &OrgId,
        principal: &str,
        key: &str,
        request_hash: &[u8; 32],
    ) -> Result<Idempotency, StoreError> {
        self.forget().await?;
        let claim = Change::Claim {
            org,
            principal,
            key,
        };
        let mut tx = self.store.write(claim).await?;
        let earlier = query(
            "SELECT * FROM idempotency_keys \
             WHERE org_id = $1 AND principal = $2 AND key = $3 AND created_at >= $4",
        )
        .bind(org.as_str())
        .bind(principal)
        .bind(key)
        .bind(tx.now() - KEPT_MS)
        .fetch_optional(tx.conn())
        .await?;
        if let Some(row) = earlier {
            let known = read(&row, request_hash)?;
            let claimed_at: i64 = row.try_get("created_at")?;
            if known != Idempotency::InProgress || tx.now() - claimed_at < CLAIMED_MS {
                return Ok(known);
            }
        }
        query(
            "INSERT INTO idempotency_keys (org_id, principal, key, request_hash, created_at) \
             VALUES ($1, $2, $3, $4, $5) \
             ON CONFLICT (org_id, principal, key) DO UPDATE SET created_at = excluded.created_at, \
             request_hash = excluded.request_hash, status = NULL, body = NULL",
        )
        .bind(org.as_str())
        .bind(principal)
        .bind(key)
        .bind(&request_hash[..])
        .bind(tx.now())
        .execute(tx.conn())
        .await?;
        tx.commit().await?;
        Ok(Idempotency::Fresh)
    }

    /// Deletes what is no longer kept, now and then: each claim by itself would wait for others
    /// that delete the same rows.
    async fn forget(&self) -> Result<(), StoreError> {
        let inner = &self.store.inner;
        let now = inner.time.now();
        if !inner.answers_sweep.take(now, FORGET_EVERY_MS) {
            return Ok(());
        }
        let mut tx = self.store.write(Change::Installation).await?;
        query("DELETE FROM idempotency_keys WHERE created_at < $1")
            .bind(now - KEPT_MS)
            .execute(tx.conn())
            .await?;
        tx.commit().await
    }

    /// Keeps the answer. It is stored as given, so seal a body that holds a key or a token.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn finish(
        &self,
        org: &OrgId,
        principal: &str,
        key: &str,
        status: u16,
        body: &[u8],
    ) -> Result<(), StoreError> {
        let claim = Change::Claim {
            org,
            principal,
            key,
        };
        let mut tx = self.store.write(claim).await?;
        query(
            "UPDATE idempotency_keys SET status = $1, body = $2 \
             WHERE org_id = $3 AND principal = $4 AND key = $5",
        )
        .bind(i64::from(status))
        .bind(body)
        .bind(org.as_str())
        .bind(principal)
        .bind(key)
        .execute(tx.conn())
        .await?;
        tx.commit().await
    }

    /// Gives the key back after a request that had no effect.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn abandon(&self, org: &OrgId, principal: &str, key: &str) -> Result<(), StoreError> {
        let claim = Change::Claim {
            org,
            principal,
            key,
        };
        let mut tx = self.store.write(claim).await?;
        query(
            "DELETE FROM idempotency_keys \
             WHERE org_id = $1 AND principal = $2 AND key = $3 AND status IS NULL",
        )
        .bind(org.as_str())
        .bind(principal)
        .bind(key)
        .execute(tx.conn())
        .await?;
        tx.commit().await
    }
}

fn read(row: &Row, request_hash: &[u8; 32]) -> Result<Idempotency, StoreError> {
    if row.try_get::<&[u8]>("request_hash")? != request_hash {
        return Ok(Idempotency::Conflict);
    }
    let Some(status) = row.try_get::<Option<i64>>("status")? else {
        return Ok(Idempotency::InProgress);
    };
    let what = "answer";
    Ok(Idempotency::Replay {
        status: u16::try_from(status).map_err(|_| StoreError::Corrupt { what })?,
        body: row.try_get("body")?,
    })
}
