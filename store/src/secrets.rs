//! Secrets by their paths: the second view on what a vault holds.
//!
//! The entries of secret sets are rows of the same tables. While a set stands, all under its prefix is its own: nothing there
//! is written, deleted or read by its path.

use ::leases::id::{OrgId, SecretId, VaultId};
use ::leases::secret_path::SecretPath;
use serde_json::Value;
use time::OffsetDateTime;

use crate::db::{
    Change, On, Query, Row, WriteTx, built, count, from_json, id, optional_time, query, stored,
    time, to_json,
};
use crate::quotas::{Guard, OverQuota, QuotaError, Resource};
use crate::timekeeper::{at, millis};
use crate::vaults::{is_agent_keys, is_kek_of};
use crate::{Actor, NewEvent, Page, PageRequest, Store, StoreError};

/// One version of a secret, without its value.
#[derive(Debug, Clone, PartialEq)]
pub struct SecretVersion {
    /// Its id.
    pub id: SecretId,
    /// The vault that it lies in.
    pub vault: VaultId,
    /// The secret's path.
    pub path: String,
    /// From 1 up, never given twice at one path.
    pub version: u64,
    /// Its type; absent where a secret set wrote it.
    pub kind: Option<String>,
    /// A JSON object of the writer's.
    pub metadata: Option<Value>,
    /// What the writer says of its rotation, a JSON object.
    pub rotation_policy: Option<Value>,
    /// From when on it is not read.
    pub expires_at: Option<OffsetDateTime>,
    /// How often it may be read; `None` for any number of times.
    pub max_reads: Option<u64>,
    /// How often it was read.
    pub reads: u64,
    /// Id of who wrote it.
    pub created_by: Option<String>,
    /// When it was written.
    pub created_at: OffsetDateTime,
    /// When it was disabled.
    pub disabled_at: Option<OffsetDateTime>,
}

impl SecretVersion {
    /// The secret set that wrote it, `provider/environment/name`.
    pub fn set_name(&self) -> Option<&str> {
        let is_entry = self.kind.is_none();
        let entry = is_entry.then(|| self.path.rsplit_once('/'));
        entry.flatten().map(|(set, _)| set)
    }
}

/// A secret as a whole.
#[derive(Debug, Clone, PartialEq)]
pub struct SecretHead {
    /// The newest version that is not disabled.
    pub current: Option<SecretVersion>,
    /// When the secret was deleted.
    pub deleted_at: Option<OffsetDateTime>,
}

/// A version to be written.
#[derive(Debug, Clone)]
pub struct NewSecret {
    /// What its seal is bound to, from [`Secrets::next_version`].
    pub place: NextVersion,
    /// The envelope.
    pub sealed: Vec<u8>,
    /// Its type.
    pub kind: String,
    /// A JSON object.
    pub metadata: Option<Value>,
    /// A JSON object.
    pub rotation_policy: Option<Value>,
    /// From when on it is not read.
    pub expires_at: Option<OffsetDateTime>,
    /// How often it may be read.
    pub max_reads: Option<u64>,
}

/// Where the next version of a secret will lie: what its seal is to be bound to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NextVersion {
    /// The vault.
    pub vault: VaultId,
    /// The vault's key.
    pub kek_id: String,
    /// The secret's path.
    pub path: SecretPath,
    /// The version.
    pub version: u64,
}

/// A version as it was recorded to be read, with its seal.
#[derive(Debug, Clone, PartialEq)]
pub struct OpenedRow {
    /// All but the value.
    pub version: SecretVersion,
    /// The envelope.
    pub sealed: Vec<u8>,
}

/// Why a secret that was there is not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Gone {
    /// The secret was deleted.
    #[error("it was deleted")]
    Deleted,
    /// The version was disabled, or all of them were.
    #[error("it is disabled")]
    Disabled,
    /// The version has ended.
    #[error("it has expired")]
    Expired,
    /// The version was read as often as it may be.
    #[error("it was read as often as its max_access_count allows")]
    Consumed,
}

/// Why a value is not given out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadSecretError {
    /// It is no longer to be had.
    #[error("the secret is gone: {0}")]
    Gone(Gone),
    /// A secret set wrote it.
    #[error("the secret is an entry of the secret set {0}")]
    SetEntry(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a secret is not changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteSecretError {
    /// The secret got another version, or the vault another key, meanwhile: ask for the version again and seal anew.
    #[error("the secret changed meanwhile")]
    Moved,
    /// The path is a secret set's, or what would be restored was one's.
    #[error("the path belongs to the secret set {0}")]
    SetEntry(String),
    /// Identity keys of agents lie in the vault, and the service alone writes to it.
    #[error("the service alone writes to this vault")]
    Reserved,
    /// The organisation has as many as it may.
    #[error(transparent)]
    Limit(OverQuota),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<QuotaError> for WriteSecretError {
    fn from(error: QuotaError) -> Self {
        match error {
            QuotaError::Over(over) => Self::Limit(over),
            QuotaError::Store(error) => Self::Store(error),
        }
    }
}

/// The secrets of a store.
#[derive(Debug, Clone, Copy)]
pub struct Secrets<'a> {
    pub(crate) store: &'a Store,
}

impl Secrets<'_> {
    /// Which version to seal a value for. The write checks it again, so of two writers one gets [`WriteSecretError::Moved`].
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn next_version(
        &self,
        org: &OrgId,
        vault: &crate::Vault,
        path: &SecretPath,
    ) -> Result<NextVersion, StoreError> {
        let current: Option<i64> = query(NEWEST)
            .bind(org.as_str())
            .bind(vault.id.as_str())
            .bind(path.as_str())
            .fetch_value(self.store.pool())
            .await?;
        Ok(NextVersion {
            vault: vault.id.clone(),
            kek_id: vault.kek_id.clone(),
            path: path.clone(),
            version: current.unwrap_or(0).unsigned_abs() + 1,
        })
    }

    /// Writes a version: the secret's first, or its next. A deleted secret is there again.
    ///
    /// # Errors
    /// [`WriteSecretError`].
    pub async fn put(
        &self,
        org: &OrgId,
        new: NewSecret,
        action: &'static str,
        actor: &Actor,
    ) -> Result<SecretVersion, WriteSecretError> {
        let mut tx = self.store.write(Change::Org(org)).await?;
        check_open(&mut tx, org, &new.place.vault, new.place.path.as_str()).await?;
        let guard = Guard::begin(self.store, &mut tx, org, Resource::Secrets).await?;
        let version = write(&mut tx, org, new, actor).await?;
        Guard::check(guard, &mut tx, org).await?;
        record(&mut tx, org, &version, action, actor).await?;
        tx.commit().await?;
        Ok(version)
    }

    /// A secret, also a deleted one; `None` when there never was one at the path.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn head(
        &self,
        org: &OrgId,
        vault: &VaultId,
        path: &SecretPath,
    ) -> Result<Option<SecretHead>, StoreError> {
        let row = built(format!("{SELECT_HEAD} AND s.path = $3"))
            .bind(org.as_str())
            .bind(vault.as_str())
            .bind(path.as_str())
            .fetch_optional(self.store.pool())
            .await?;
        row.as_ref().map(|row| read_head(row, vault)).transpose()
    }

    /// One version by its id, with an entry of a secret set among them; `None` when there is none, or when it or its secret has
    /// ended.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn by_id(
        &self,
        org: &OrgId,
        version: &SecretId,
    ) -> Result<Option<SecretVersion>, StoreError> {
        let now = self.store.inner.time.now();
        by_id(self.store.pool(), org, version, now).await
    }

    /// Secrets that are not deleted, in the order of their paths, each as its newest version that is not disabled; one whose
    /// versions are all disabled is left out. A page may be short although more follow.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn list(
        &self,
        org: &OrgId,
        vault: &VaultId,
        prefix: &str,
        page: &PageRequest,
    ) -> Result<Page<SecretVersion>, StoreError> {
        let limit = page.bounded_limit();
        let rows = built(format!(
            "{SELECT_HEAD} AND s.path > $3 AND s.path >= $4 AND s.path < $5 AND s.deleted_at IS NULL \
             ORDER BY s.path LIMIT $6"
        ))
        .bind(org.as_str())
        .bind(vault.as_str())
        .bind(after_path(page)?)
        .bind(prefix)
        // `{` follows all that a path may hold, in byte order.
        .bind(format!("{prefix}{{"))
        .bind(limit + 1)
        .fetch_all(self.store.pool())
        .await?;
        let mut paths = Vec::new();
        let mut versions = Vec::new();
        for row in &rows {
            paths.push(row.try_get::<String>("secret_path")?);
            versions.push(read_head(row, vault)?.current);
        }
        let paths = Page::from_overfull(paths, limit, |path: &String| path);
        versions.truncate(paths.items.len());
        Ok(Page {
            items: versions.into_iter().flatten().collect(),
            next_cursor: paths.next_cursor,
        })
    }

    /// The versions of a secret, also a deleted one, newest first; `None` when there never was one at the path.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn versions(
        &self,
        org: &OrgId,
        vault: &VaultId,
        path: &SecretPath,
        page: &PageRequest,
    ) -> Result<Option<Page<SecretVersion>>, StoreError> {
        let limit = page.bounded_limit();
        let before = match page.cursor.as_deref() {
            None => i64::MAX,
            Some(cursor) => cursor.parse().map_err(|_| StoreError::BadCursor)?,
        };
        let rows = built(format!(
            "SELECT {COLUMNS} FROM secret_versions v WHERE v.org_id = $1 AND v.vault_id = $2 \
             AND v.path = $3 AND v.version < $4 ORDER BY v.version DESC LIMIT $5"
        ))
        .bind(org.as_str())
        .bind(vault.as_str())
        .bind(path.as_str())
        .bind(before)
        .bind(limit + 1)
        .fetch_all(self.store.pool())
        .await?;
        if rows.is_empty() && page.cursor.is_none() {
            return Ok(None);
        }
        let versions = rows.iter().map(|row| read(row, vault));
        let versions: Vec<(String, SecretVersion)> = versions
            .map(|version| version.map(|version| (version.version.to_string(), version)))
            .collect::<Result<_, _>>()?;
        let page = Page::from_overfull(versions, limit, |(number, _)| number);
        Ok(Some(Page {
            items: page.items.into_iter().map(|(_, version)| version).collect(),
            next_cursor: page.next_cursor,
        }))
    }

    /// Counts and records one read of a secret, and gives what is to be opened for it: the current version, or the one named.
    /// `None` when there never was one.
    ///
    /// The count, the record and the checks are one transaction, so of any number of readers exactly `max_reads` get a value,
    /// on any number of nodes, and nobody gets one without a record.
    ///
    /// # Errors
    /// [`ReadSecretError`]; nothing was counted.
    pub async fn take_read(
        &self,
        org: &OrgId,
        vault: &VaultId,
        path: &SecretPath,
        version: Option<u64>,
        event: NewEvent,
        actor: &Actor,
    ) -> Result<Option<OpenedRow>, ReadSecretError> {
        let mut tx = self.store.write(Change::Event).await?;
        let Some(found) = find(&mut tx, org, vault, path, version).await? else {
            return Ok(None);
        };
        let mut found = found.check(tx.now())?;
        let sealed = count_read(&mut tx, org, &found).await?;
        // Whoever came between took the last read, or ended the version.
        let Some(sealed) = sealed else {
            let again = find(&mut tx, org, vault, path, version).await?;
            return match again.map(|again| again.check(tx.now())) {
                Some(Err(error)) => Err(error),
                _ => Err(StoreError::Conflict { what: "the secret" }.into()),
            };
        };
        found.reads += 1;
        let event = NewEvent {
            vault_id: Some(vault.clone()),
            keys: vec![found.path.clone()],
            secret_version: Some(found.version),
            ..event
        };
        tx.append(org, actor, &event).await?;
        tx.commit().await?;
        Ok(Some(OpenedRow {
            version: found,
            sealed,
        }))
    }

    /// The envelope of a version that may be read, without counting it: of one whose read was counted by whoever asks. `None`
    /// also for an entry of a secret set.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn sealed(
        &self,
        org: &OrgId,
        vault: &VaultId,
        path: &SecretPath,
        version: u64,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let row = query(
            "SELECT v.sealed FROM secret_versions v JOIN secrets s \
             ON s.org_id = v.org_id AND s.vault_id = v.vault_id AND s.path = v.path \
             WHERE v.org_id = $1 AND v.vault_id = $2 AND v.path = $3 AND v.version = $4 \
             AND v.type IS NOT NULL AND v.disabled_at IS NULL AND s.deleted_at IS NULL",
        )
        .bind(org.as_str())
        .bind(vault.as_str())
        .bind(path.as_str())
        .bind(stored(version))
        .fetch_optional(self.store.pool())
        .await?;
        row.map(|row| row.try_get("sealed")).transpose()
    }

    /// Deletes a secret softly. False when there is none that is not deleted.
    ///
    /// # Errors
    /// [`WriteSecretError::SetEntry`], [`WriteSecretError::Reserved`], [`WriteSecretError::Store`].
    pub async fn delete(
        &self,
        org: &OrgId,
        vault: &VaultId,
        path: &SecretPath,
        actor: &Actor,
    ) -> Result<bool, WriteSecretError> {
        let mut tx = self.store.write(Change::Org(org)).await?;
        check_open(&mut tx, org, vault, path.as_str()).await?;
        let deleted: Option<i64> = query(
            "UPDATE secrets SET deleted_at = $1 WHERE org_id = $2 AND vault_id = $3 AND path = $4 \
             AND deleted_at IS NULL RETURNING version",
        )
        .bind(tx.now())
        .bind(org.as_str())
        .bind(vault.as_str())
        .bind(path.as_str())
        .fetch_value(tx.conn())
        .await?;
        let Some(newest) = deleted else {
            return Ok(false);
        };
        record_path(&mut tx, org, (vault, path, newest), "secret.delete", actor).await?;
        tx.commit().await?;
        Ok(true)
    }

    /// Takes a deletion back, and gives the secret as it is then. Of one that is not deleted nothing changes. `None` when there
    /// never was one.
    ///
    /// # Errors
    /// [`WriteSecretError::SetEntry`] also for what a set's deletion deleted; [`WriteSecretError::Reserved`],
    /// [`WriteSecretError::Store`].
    pub async fn restore(
        &self,
        org: &OrgId,
        vault: &VaultId,
        path: &SecretPath,
        actor: &Actor,
    ) -> Result<Option<SecretHead>, WriteSecretError> {
        let mut tx = self.store.write(Change::Org(org)).await?;
        check_open(&mut tx, org, vault, path.as_str()).await?;
        let row = built(format!("{SELECT_HEAD} AND s.path = $3"))
            .bind(org.as_str())
            .bind(vault.as_str())
            .bind(path.as_str())
            .fetch_optional(tx.conn())
            .await?;
        let head = row.as_ref().map(|row| read_head(row, vault)).transpose()?;
        let Some(mut head) = head else {
            return Ok(None);
        };
        if head.deleted_at.is_none() {
            return Ok(Some(head));
        }
        if let Some(set) = head.current.as_ref().and_then(SecretVersion::set_name) {
            return Err(WriteSecretError::SetEntry(set.to_owned()));
        }
        let guard = Guard::begin(self.store, &mut tx, org, Resource::Secrets).await?;
        let restored: Option<i64> = query(
            "UPDATE secrets SET deleted_at = NULL WHERE org_id = $1 AND vault_id = $2 AND path = $3 \
             RETURNING version",
        )
        .bind(org.as_str())
        .bind(vault.as_str())
        .bind(path.as_str())
        .fetch_value(tx.conn())
        .await?;
        Guard::check(guard, &mut tx, org).await?;
        let newest = restored.ok_or(StoreError::Corrupt { what: WHAT })?;
        record_path(&mut tx, org, (vault, path, newest), "secret.restore", actor).await?;
        tx.commit().await?;
        head.deleted_at = None;
        Ok(Some(head))
    }

    /// Ends one version: it is not read again, and the newest of the others is the current one. Again changes nothing. False
    /// when there is no such version.
    ///
    /// # Errors
    /// [`WriteSecretError::SetEntry`], [`WriteSecretError::Reserved`], [`WriteSecretError::Store`].
    pub async fn disable(
        &self,
        org: &OrgId,
        vault: &VaultId,
        path: &SecretPath,
        version: u64,
        actor: &Actor,
    ) -> Result<bool, WriteSecretError> {
        let mut tx = self.store.write(Change::Org(org)).await?;
        let Some(found) = find(&mut tx, org, vault, path, Some(version)).await? else {
            return Ok(false);
        };
        if let Some(set) = found.version.set_name() {
            return Err(WriteSecretError::SetEntry(set.to_owned()));
        }
        check_not_reserved(&mut tx, org, vault).await?;
        if found.version.disabled_at.is_some() {
            return Ok(true);
        }
        query(
            "UPDATE secret_versions SET disabled_at = $1 WHERE org_id = $2 AND vault_id = $3 \
             AND path = $4 AND version = $5",
        )
        .bind(tx.now())
        .bind(org.as_str())
        .bind(vault.as_str())
        .bind(path.as_str())
        .bind(stored(version))
        .execute(tx.conn())
        .await?;
        record(&mut tx, org, &found.version, "secret.disable", actor).await?;
        tx.commit().await?;
        Ok(true)
    }
}

const WHAT: &str = "secret";
const NEWEST: &str =
    "SELECT version FROM secrets WHERE org_id = $1 AND vault_id = $2 AND path = $3";
/// All of a version but its seal.
const COLUMNS: &str = "v.id, v.path, v.version, v.type, v.metadata, v.rotation_policy, v.expires_at, \
    v.max_reads, v.reads, v.created_by, v.created_at, v.disabled_at";
/// A secret with its current version: what a set wrote is current only while it is the newest, since a set's deletion, and no
/// disabling, is what ends it.
const SELECT_HEAD: &str = "SELECT s.path AS secret_path, s.deleted_at, v.id, v.path, v.version, \
    v.type, v.metadata, v.rotation_policy, v.expires_at, v.max_reads, v.reads, v.created_by, \
    v.created_at, v.disabled_at \
    FROM secrets s LEFT JOIN secret_versions v ON v.org_id = s.org_id AND v.vault_id = s.vault_id \
    AND v.path = s.path AND v.version = (SELECT MAX(x.version) FROM secret_versions x \
        WHERE x.org_id = s.org_id AND x.vault_id = s.vault_id AND x.path = s.path \
        AND x.disabled_at IS NULL AND (x.type IS NOT NULL OR x.version = s.version)) \
    WHERE s.org_id = $1 AND s.vault_id = $2";

/// A version as a read finds it.
struct Found {
    version: SecretVersion,
    is_deleted: bool,
}

impl Found {
    fn check(self, now: i64) -> Result<SecretVersion, ReadSecretError> {
        let version = self.version;
        if self.is_deleted {
            return Err(ReadSecretError::Gone(Gone::Deleted));
        }
        if let Some(set) = version.set_name() {
            return Err(ReadSecretError::SetEntry(set.to_owned()));
        }
        if version.disabled_at.is_some() {
            return Err(ReadSecretError::Gone(Gone::Disabled));
        }
        if version.expires_at.is_some_and(|end| millis(end) <= now) {
            return Err(ReadSecretError::Gone(Gone::Expired));
        }
        if version.max_reads.is_some_and(|most| version.reads >= most) {
            return Err(ReadSecretError::Gone(Gone::Consumed));
        }
        Ok(version)
    }
}

/// The version named, else the current one. A secret whose versions are all disabled gives its newest.
async fn find(
    tx: &mut WriteTx<'_>,
    org: &OrgId,
    vault: &VaultId,
    path: &SecretPath,
    version: Option<u64>,
) -> Result<Option<Found>, StoreError> {
    let named = |select: Query| {
        select
            .bind(org.as_str())
            .bind(vault.as_str())
            .bind(path.as_str())
    };
    let row = match version {
        None => {
            let current = "v.version = COALESCE((SELECT MAX(x.version) FROM secret_versions x \
                WHERE x.org_id = s.org_id AND x.vault_id = s.vault_id AND x.path = s.path \
                AND x.disabled_at IS NULL AND (x.type IS NOT NULL OR x.version = s.version)), s.version)";
            named(built(format!("{SELECT_FOUND} AND {current}")))
        }
        Some(version) => {
            named(built(format!("{SELECT_FOUND} AND v.version = $4"))).bind(stored(version))
        }
    };
    let Some(row) = row.fetch_optional(tx.conn()).await? else {
        return Ok(None);
    };
    Ok(Some(Found {
        version: read(&row, vault)?,
        is_deleted: optional_time(&row, "deleted_at")?.is_some(),
    }))
}

const SELECT_FOUND: &str = "SELECT s.deleted_at, v.id, v.path, v.version, v.type, v.metadata, \
    v.rotation_policy, v.expires_at, v.max_reads, v.reads, v.created_by, v.created_at, v.disabled_at \
    FROM secrets s JOIN secret_versions v ON v.org_id = s.org_id AND v.vault_id = s.vault_id \
    AND v.path = s.path WHERE s.org_id = $1 AND s.vault_id = $2 AND s.path = $3";

/// Counts a read if one is left, and gives the seal. The statement carries the conditions, so that it needs no lock.
async fn count_read(
    tx: &mut WriteTx<'_>,
    org: &OrgId,
    version: &SecretVersion,
) -> Result<Option<Vec<u8>>, StoreError> {
    query(
        "UPDATE secret_versions SET reads = reads + 1 \
         WHERE org_id = $1 AND vault_id = $2 AND path = $3 AND version = $4 AND disabled_at IS NULL \
         AND (max_reads IS NULL OR reads < max_reads) AND (expires_at IS NULL OR expires_at > $5) \
         AND EXISTS (SELECT 1 FROM secrets s WHERE s.org_id = $1 AND s.vault_id = $2 \
             AND s.path = $3 AND s.deleted_at IS NULL) \
         RETURNING sealed",
    )
    .bind(org.as_str())
    .bind(version.vault.as_str())
    .bind(&version.path)
    .bind(stored(version.version))
    .bind(tx.now())
    .fetch_value(tx.conn())
    .await
}

/// [`Secrets::by_id`], wherever it runs.
pub(crate) async fn by_id(
    on: impl Into<On<'_>>,
    org: &OrgId,
    version: &SecretId,
    now: i64,
) -> Result<Option<SecretVersion>, StoreError> {
    let row = built(format!(
        "SELECT v.vault_id, {COLUMNS} FROM secret_versions v JOIN secrets s ON s.org_id = v.org_id \
         AND s.vault_id = v.vault_id AND s.path = v.path WHERE v.org_id = $1 AND v.id = $2 \
         AND s.deleted_at IS NULL AND v.disabled_at IS NULL \
         AND (v.expires_at IS NULL OR v.expires_at > $3)"
    ))
    .bind(org.as_str())
    .bind(version.as_str())
    .bind(now)
    .fetch_optional(on)
    .await?;
    let row = row.as_ref();
    row.map(|row| read(row, &id(row, "vault_id", WHAT)?))
        .transpose()
}

/// Counts one read of a version, whoever wrote it, and gives what is to be opened for it. `None` when it has ended, or was read
/// as often as it may be.
pub(crate) async fn take(
    tx: &mut WriteTx<'_>,
    org: &OrgId,
    version: &SecretId,
) -> Result<Option<OpenedRow>, StoreError> {
    let now = tx.now();
    let Some(mut version) = by_id(tx.conn(), org, version, now).await? else {
        return Ok(None);
    };
    let sealed = count_read(tx, org, &version).await?;
    version.reads += 1;
    Ok(sealed.map(|sealed| OpenedRow { version, sealed }))
}

/// Writes a version, in a transaction that is alone in the organisation. Whether the path is open to the writer is asked before, and
/// the event is the caller's to append.
pub(crate) async fn write(
    tx: &mut WriteTx<'_>,
    org: &OrgId,
    new: NewSecret,
    actor: &Actor,
) -> Result<SecretVersion, WriteSecretError> {
    let place = new.place;
    if !is_kek_of(tx, org, &place.vault, &place.kek_id).await? || !count_up(tx, org, &place).await?
    {
        return Err(WriteSecretError::Moved);
    }
    let version = SecretVersion {
        id: SecretId::new(at(tx.now())),
        vault: place.vault,
        path: place.path.to_string(),
        version: place.version,
        kind: Some(new.kind),
        metadata: new.metadata,
        rotation_policy: new.rotation_policy,
        expires_at: new.expires_at,
        max_reads: new.max_reads,
        reads: 0,
        created_by: Some(actor.id.clone()),
        created_at: at(tx.now()),
        disabled_at: None,
    };
    insert(tx, org, &version, new.sealed).await?;
    Ok(version)
}

/// Refuses a path where only a set, or the service, writes.
async fn check_open(
    tx: &mut WriteTx<'_>,
    org: &OrgId,
    vault: &VaultId,
    path: &str,
) -> Result<(), WriteSecretError> {
    check_no_set(tx, org, vault, path).await?;
    check_not_reserved(tx, org, vault).await
}

async fn check_not_reserved(
    tx: &mut WriteTx<'_>,
    org: &OrgId,
    vault: &VaultId,
) -> Result<(), WriteSecretError> {
    if is_agent_keys(tx, org, vault).await? {
        return Err(WriteSecretError::Reserved);
    }
    Ok(())
}

/// Refuses a path under the prefix of a set that is not deleted.
async fn check_no_set(
    tx: &mut WriteTx<'_>,
    org: &OrgId,
    vault: &VaultId,
    path: &str,
) -> Result<(), WriteSecretError> {
    let segments: Vec<&str> = path.splitn(4, '/').collect();
    let &[provider, environment, name, _] = segments.as_slice() else {
        return Ok(());
    };
    let set = query(
        "SELECT 1 FROM secret_sets WHERE org_id = $1 AND provider = $2 AND environment = $3 \
         AND name = $4 AND vault_id = $5 AND deleted_at IS NULL",
    )
    .bind(org.as_str())
    .bind(provider)
    .bind(environment)
    .bind(name)
    .bind(vault.as_str())
    .fetch_optional(tx.conn())
    .await?;
    match set {
        Some(_) => Err(WriteSecretError::SetEntry(format!(
            "{provider}/{environment}/{name}"
        ))),
        None => Ok(()),
    }
}

/// Gives the secret its next version, if that is the one that the seal is bound to.
async fn count_up(
    tx: &mut WriteTx<'_>,
    org: &OrgId,
    place: &NextVersion,
) -> Result<bool, StoreError> {
    let statement = if place.version == 1 {
        "INSERT INTO secrets (org_id, vault_id, path, version, created_at) \
         VALUES ($1, $2, $3, $4, $5) ON CONFLICT (org_id, vault_id, path) DO NOTHING"
    } else {
        "UPDATE secrets SET version = $4, deleted_at = NULL WHERE org_id = $1 AND vault_id = $2 \
         AND path = $3 AND version = $4 - 1 AND $5 > 0"
    };
    let changed = query(statement)
        .bind(org.as_str())
        .bind(place.vault.as_str())
        .bind(place.path.as_str())
        .bind(stored(place.version))
        .bind(tx.now())
        .execute(tx.conn())
        .await?;
    Ok(changed == 1)
}

async fn insert(
    tx: &mut WriteTx<'_>,
    org: &OrgId,
    version: &SecretVersion,
    sealed: Vec<u8>,
) -> Result<(), StoreError> {
    let object = |value: &Option<Value>| {
        let text = value.as_ref().map(|value| to_json(value, WHAT));
        text.transpose()
    };
    query(
        "INSERT INTO secret_versions (org_id, vault_id, path, version, sealed, created_at, id, type, \
         metadata, rotation_policy, expires_at, max_reads, reads, created_by) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, 0, $13)",
    )
    .bind(org.as_str())
    .bind(version.vault.as_str())
    .bind(&version.path)
    .bind(stored(version.version))
    .bind(sealed)
    .bind(tx.now())
    .bind(version.id.as_str())
    .bind(&version.kind)
    .bind(object(&version.metadata)?)
    .bind(object(&version.rotation_policy)?)
    .bind(version.expires_at.map(millis))
    .bind(version.max_reads.map(stored))
    .bind(&version.created_by)
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Appends what happened to a version.
pub(crate) async fn record(
    tx: &mut WriteTx<'_>,
    org: &OrgId,
    version: &SecretVersion,
    action: &'static str,
    actor: &Actor,
) -> Result<(), StoreError> {
    let event = NewEvent {
        action,
        vault_id: Some(version.vault.clone()),
        keys: vec![version.path.clone()],
        secret_version: Some(version.version),
        ..NewEvent::default()
    };
    tx.append(org, actor, &event).await?;
    Ok(())
}

/// Records what concerns a secret as a whole, with its newest version: so it is told which deletion a restoration took back.
async fn record_path(
    tx: &mut WriteTx<'_>,
    org: &OrgId,
    (vault, path, newest): (&VaultId, &SecretPath, i64),
    action: &'static str,
    actor: &Actor,
) -> Result<(), StoreError> {
    let event = NewEvent {
        action,
        vault_id: Some(vault.clone()),
        keys: vec![path.to_string()],
        secret_version: Some(newest.unsigned_abs()),
        ..NewEvent::default()
    };
    tx.append(org, actor, &event).await?;
    Ok(())
}

/// The path after which a page begins.
fn after_path(page: &PageRequest) -> Result<&str, StoreError> {
    match page.cursor.as_deref() {
        None => Ok(""),
        // An entry of a set may end with `_`, so this is a little more than a path.
        Some(cursor)
            if cursor.len() <= ::leases::secret_path::MAX_PATH_BYTES
                && cursor
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'/')) =>
        {
            Ok(cursor)
        }
        Some(_) => Err(StoreError::BadCursor),
    }
}

fn read_head(row: &Row, vault: &VaultId) -> Result<SecretHead, StoreError> {
    let version: Option<i64> = row.try_get("version")?;
    Ok(SecretHead {
        current: version.map(|_| read(row, vault)).transpose()?,
        deleted_at: optional_time(row, "deleted_at")?,
    })
}

fn read(row: &Row, vault: &VaultId) -> Result<SecretVersion, StoreError> {
    let object = |column| -> Result<Option<Value>, StoreError> {
        let text: Option<&str> = row.try_get(column)?;
        text.map(|text| from_json(text, WHAT)).transpose()
    };
    let max_reads: Option<i64> = row.try_get("max_reads")?;
    Ok(SecretVersion {
        id: id(row, "id", WHAT)?,
        vault: vault.clone(),
        path: row.try_get("path")?,
        version: count(row, "version")?,
        kind: row.try_get("type")?,
        metadata: object("metadata")?,
        rotation_policy: object("rotation_policy")?,
        expires_at: optional_time(row, "expires_at")?,
        max_reads: max_reads.map(i64::unsigned_abs),
        reads: count(row, "reads")?,
        created_by: row.try_get("created_by")?,
        created_at: time(row, "created_at")?,
        disabled_at: optional_time(row, "disabled_at")?,
    })
}

#[cfg(test)]
pub(crate) mod tests;
