//! Sign-ins that wait for an identity provider's answer, and the provider's tokens that were taken.

use std::time::Duration;

use ::leases::id::{OrgId, UserId};
use time::OffsetDateTime;

use crate::db::{Change, id, query, stored};
use crate::timekeeper::millis;
use crate::{Store, StoreError};

/// A sign-in that begins.
#[derive(Debug, Clone)]
pub struct NewOidcLogin {
    /// SHA-256 of what the browser or the terminal holds.
    pub flow_hash: [u8; 32],
    /// Where the provider sends its answer.
    pub redirect_uri: String,
    /// How long it waits.
    pub lifetime: Duration,
    /// Whose account the answer will be linked to.
    pub link_to: Option<(OrgId, UserId)>,
}

/// A sign-in whose answer has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BegunOidcLogin {
    /// Where the provider was to send its answer.
    pub redirect_uri: String,
    /// Whose account the answer is to be linked to.
    pub link_to: Option<(OrgId, UserId)>,
}

/// The waiting sign-ins of a store.
#[derive(Debug, Clone, Copy)]
pub struct OidcLogins<'a> {
    pub(crate) store: &'a Store,
}

impl OidcLogins<'_> {
    /// Lets a sign-in wait. False when as many wait as may.
    ///
    /// # Errors
    /// [`StoreError`]; [`StoreError::Conflict`] if the hash is another's.
    pub async fn begin(&self, new: NewOidcLogin) -> Result<bool, StoreError> {
        let mut tx = self.store.write(Change::Installation).await?;
        query("DELETE FROM oidc_logins WHERE expires_at <= $1")
            .bind(tx.now())
            .execute(tx.conn())
            .await?;
        let waiting: Option<i64> = query("SELECT COUNT(*) FROM oidc_logins")
            .fetch_value(tx.conn())
            .await?;
        if waiting.unwrap_or(0) >= MAX_WAITING {
            return Ok(false);
        }
        let lifetime = u64::try_from(new.lifetime.as_millis()).unwrap_or(u64::MAX);
        let (org, user) = new.link_to.unzip();
        query(
            "INSERT INTO oidc_logins (flow_hash, redirect_uri, created_at, expires_at, org_id, user_id) \
             VALUES ($1, $2, $3, $4, $5, $6)",
        )
        .bind(&new.flow_hash[..])
        .bind(&new.redirect_uri)
        .bind(tx.now())
        .bind(tx.now().saturating_add(stored(lifetime)))
        .bind(org.map(|org| org.to_string()))
        .bind(user.map(|user| user.to_string()))
        .execute(tx.conn())
        .await?;
        tx.commit().await?;
        Ok(true)
    }

    /// Takes a sign-in, once. `None` when none waits with this hash, or not any more.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn take(&self, flow_hash: &[u8; 32]) -> Result<Option<BegunOidcLogin>, StoreError> {
        let known = query(WAITING)
            .bind(&flow_hash[..])
            .bind(self.store.inner.time.now())
            .fetch_optional(self.store.pool())
            .await?;
        if known.is_none() {
            // Anybody can ask with what nobody began, and keeps no change waiting with it.
            return Ok(None);
        }
        let mut tx = self.store.write(Change::Installation).await?;
        let row = query(WAITING)
            .bind(&flow_hash[..])
            .bind(tx.now())
            .fetch_optional(tx.conn())
            .await?;
        let Some(row) = row else {
            return Ok(None);
        };
        let link_to = if row.try_get::<Option<String>>("user_id")?.is_some() {
            Some((
                id(&row, "org_id", "sign-in")?,
                id(&row, "user_id", "sign-in")?,
            ))
        } else {
            None
        };
        let redirect_uri = row.try_get("redirect_uri")?;
        query("DELETE FROM oidc_logins WHERE flow_hash = $1")
            .bind(&flow_hash[..])
            .execute(tx.conn())
            .await?;
        tx.commit().await?;
        Ok(Some(BegunOidcLogin {
            redirect_uri,
            link_to,
        }))
    }

    /// Takes a provider's token, by its SHA-256, once: false when it was taken before. `until` is when it ends by itself.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn take_token(
        &self,
        digest: &[u8; 32],
        until: OffsetDateTime,
    ) -> Result<bool, StoreError> {
        let mut tx = self.store.write(Change::Installation).await?;
        query("DELETE FROM taken_id_tokens WHERE until <= $1")
            .bind(tx.now())
            .execute(tx.conn())
            .await?;
        let taken = query(
            "INSERT INTO taken_id_tokens (digest, until) VALUES ($1, $2) ON CONFLICT (digest) DO NOTHING",
        )
        .bind(&digest[..])
        .bind(millis(until))
        .execute(tx.conn())
        .await?;
        tx.commit().await?;
        Ok(taken == 1)
    }
}

const WAITING: &str = "SELECT * FROM oidc_logins WHERE flow_hash = $1 AND expires_at > $2";
/// Nobody has signed in yet where these are made, so their number is bounded for all.
const MAX_WAITING: i64 = 10_000;
