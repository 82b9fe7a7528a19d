//! Keys of the service itself, sealed: lease roots, JWT, CA, checkpoint signer.

use ::leases::id::OrgId;
use time::OffsetDateTime;

use crate::db::{Change, Row, WriteTx, count, optional_time, query, stored, time};
use crate::timekeeper::at;
use crate::vaults::is_still_kek;
use crate::{Actor, NewEvent, Store, StoreError};

/// One version of a sealed key. Its seal is bound by the caller to name and version.
#[derive(Clone, PartialEq, Eq)]
pub struct SealedKey {
    /// What it is for, e.g. `lease-root`, `jwt`, `ca`, `audit-checkpoint`.
    pub name: String,
    /// From 1 up; for `lease-root` the token's root key id.
    pub version: u64,
    /// The envelope.
    pub sealed: Vec<u8>,
    /// The public part, in the form that its name implies.
    pub public: Vec<u8>,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// When it stopped being used for new signatures; `None` for the current one.
    pub retired_at: Option<OffsetDateTime>,
}

/// A sealed key to be stored.
#[derive(Clone)]
pub struct NewSealedKey {
    /// What it is for.
    pub name: String,
    /// The version its seal is bound to: one above the highest stored, 1 for the first.
    pub version: u64,
    /// The envelope.
    pub sealed: Vec<u8>,
    /// The public part.
    pub public: Vec<u8>,
    /// The vault's key that it is sealed under; it is refused when the vault has another by now.
    pub kek_id: Option<String>,
}

impl std::fmt::Debug for SealedKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SealedKey")
            .field("name", &self.name)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for NewSealedKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewSealedKey")
            .field("name", &self.name)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

/// The sealed keys of a store.
#[derive(Debug, Clone, Copy)]
pub struct SealedKeys<'a> {
    pub(crate) store: &'a Store,
}

impl SealedKeys<'_> {
    /// Stores the next version of a key and retires the one before it.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if that version exists or is not the next, or if the vault has another key than the one that
    /// the new key is sealed under.
    pub async fn put(
        &self,
        org: &OrgId,
        new: NewSealedKey,
        actor: &Actor,
    ) -> Result<SealedKey, StoreError> {
        self.put_with(org, new, None, actor).await
    }

    /// [`put`](Self::put) of a key, and of what is published of it under a name of its own: both or neither. The publication
    /// may leave out versions that were never published.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub async fn put_with(
        &self,
        org: &OrgId,
        new: NewSealedKey,
        published: Option<NewSealedKey>,
        actor: &Actor,
    ) -> Result<SealedKey, StoreError> {
        let mut tx = self.store.write(Change::Org(org)).await?;
        let key = put_next(&mut tx, org, new, actor).await?;
        if let Some(published) = published {
            if stored(published.version) <= highest(&mut tx, org, &published.name).await? {
                return Err(OTHER_VERSION);
            }
            insert(&mut tx, org, published, actor).await?;
        }
        tx.commit().await?;
        Ok(key)
    }

    /// The version in use.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn current(&self, org: &OrgId, name: &str) -> Result<Option<SealedKey>, StoreError> {
        let row = query(
            "SELECT * FROM sealed_keys WHERE org_id = $1 AND name = $2 AND retired_at IS NULL",
        )
        .bind(org.as_str())
        .bind(name)
        .fetch_optional(self.store.pool())
        .await?;
        row.as_ref().map(read).transpose()
    }

    /// All versions, newest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn versions(&self, org: &OrgId, name: &str) -> Result<Vec<SealedKey>, StoreError> {
        let rows = query(
            "SELECT * FROM sealed_keys WHERE org_id = $1 AND name = $2 ORDER BY version DESC",
        )
        .bind(org.as_str())
        .bind(name)
        .fetch_all(self.store.pool())
        .await?;
        rows.iter().map(read).collect()
    }

    /// Removes a retired version for good. False when it is current or missing.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn remove(
        &self,
        org: &OrgId,
        name: &str,
        version: u64,
        actor: &Actor,
    ) -> Result<bool, StoreError> {
        let mut tx = self.store.write(Change::Org(org)).await?;
        let removed = query(
            "DELETE FROM sealed_keys \
             WHERE org_id = $1 AND name = $2 AND version = $3 AND retired_at IS NOT NULL",
        )
        .bind(org.as_str())
        .bind(name)
        .bind(stored(version))
        .execute(tx.conn())
        .await?;
        if removed == 0 {
            return Ok(false);
        }
        record(&mut tx, org, name, version, "key.remove", actor).await?;
        tx.commit().await?;
        Ok(true)
    }
}

const OTHER_VERSION: StoreError = StoreError::Conflict {
    what: "the key's version",
};

/// Stores the next version of a key in a change that does more, and retires the one before it.
pub(crate) async fn put_next(
    tx: &mut WriteTx<'_>,
    org: &OrgId,
    new: NewSealedKey,
    actor: &Actor,
) -> Result<SealedKey, StoreError> {
    if stored(new.version) != highest(tx, org, &new.name).await? + 1 {
        return Err(OTHER_VERSION);
    }
    insert(tx, org, new, actor).await
}

async fn highest(tx: &mut WriteTx<'_>, org: &OrgId, name: &str) -> Result<i64, StoreError> {
    let highest: Option<i64> =
        query("SELECT COALESCE(MAX(version), 0) FROM sealed_keys WHERE org_id = $1 AND name = $2")
            .bind(org.as_str())
            .bind(name)
            .fetch_value(tx.conn())
            .await?;
    Ok(highest.unwrap_or(0))
}

async fn insert(
    tx: &mut WriteTx<'_>,
    org: &OrgId,
    new: NewSealedKey,
    actor: &Actor,
) -> Result<SealedKey, StoreError> {
    if !is_still_kek(tx, org, new.kek_id.as_deref()).await? {
        return Err(StoreError::Conflict {
            what: "the vault's key",
        });
    }
    query(
        "UPDATE sealed_keys SET retired_at = $1 \
         WHERE org_id = $2 AND name = $3 AND retired_at IS NULL",
    )
    .bind(tx.now())
    .bind(org.as_str())
    .bind(&new.name)
    .execute(tx.conn())
    .await?;
    query(
        "INSERT INTO sealed_keys (org_id, name, version, sealed, public, created_at) \
         VALUES ($1, $2, $3, $4, $5, $6)",
    )
    .bind(org.as_str())
    .bind(&new.name)
    .bind(stored(new.version))
    .bind(&new.sealed)
    .bind(&new.public)
    .bind(tx.now())
    .execute(tx.conn())
    .await?;
    record(tx, org, &new.name, new.version, "key.rotate", actor).await?;
    Ok(SealedKey {
        name: new.name,
        version: new.version,
        sealed: new.sealed,
        public: new.public,
        created_at: at(tx.now()),
        retired_at: None,
    })
}

async fn record(
    tx: &mut WriteTx<'_>,
    org: &OrgId,
    name: &str,
    version: u64,
    action: &'static str,
    actor: &Actor,
) -> Result<(), StoreError> {
    let event = NewEvent {
        action,
        secret_version: Some(version),
        keys: vec![name.to_owned()],
        ..NewEvent::default()
    };
    tx.append(org, actor, &event).await?;
    Ok(())
}

fn read(row: &Row) -> Result<SealedKey, StoreError> {
    Ok(SealedKey {
        name: row.try_get("name")?,
        version: count(row, "version")?,
        sealed: row.try_get("sealed")?,
        public: row.try_get("public")?,
        created_at: time(row, "created_at")?,
        retired_at: optional_time(row, "retired_at")?,
    })
}
