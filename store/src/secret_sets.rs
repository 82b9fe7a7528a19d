//! Secret sets: the secrets under one path prefix of a vault, versioned as a whole.

use std::collections::BTreeMap;

use ::leases::id::{OrgId, SecretId, SetId, VaultId};
use time::OffsetDateTime;

use crate::db::{
    Change, Row, WriteTx, built, count, from_json, id, insert_many, json, optional_time, query,
    stored, time, to_json,
};
use crate::quotas::{Guard, OverQuota, QuotaError, Resource};
use crate::timekeeper::at;
use crate::vaults::is_still_kek;
use crate::{Actor, NewEvent, Page, PageRequest, Store, StoreError};

/// A secret set, without values.
#[derive(Debug, Clone, PartialEq)]
pub struct SecretSet {
    /// Its id; a set made later under the same name has another.
    pub id: SetId,
    /// Its organisation.
    pub org: OrgId,
    /// The vault that its secrets lie in.
    pub vault: VaultId,
    /// First part of its name: the template.
    pub provider: String,
    /// Second part of its name.
    pub environment: String,
    /// Third part of its name.
    pub name: String,
    /// The current version, from 1 up, never down: a rollback makes a new version.
    pub version: u64,
    /// Names of the entries of the current version, sorted.
    pub keys: Vec<String>,
    /// What a `custom` set says of hosts and injections, in the current version.
    pub custom: Option<serde_json::Value>,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// When its current version was made.
    pub updated_at: OffsetDateTime,
}

/// One version of a set, without values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetVersion {
    /// From 1 up.
    pub version: u64,
    /// Names of its entries, sorted.
    pub keys: Vec<String>,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// Id of the person or agent who made it.
    pub created_by: String,
    /// The version whose contents it repeats, if it is a rollback.
    pub rolled_back_to: Option<u64>,
}

/// One sealed value, ready to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// The secret's path in the vault: `provider/environment/name/KEY`.
    pub path: String,
    /// The version that its seal is bound to, from [`SecretSets::next_versions`].
    pub version: u64,
    /// The envelope.
    pub bytes: Vec<u8>,
}

/// A set to be made.
#[derive(Debug, Clone)]
pub struct NewSet {
    /// First part of its name: the template.
    pub provider: String,
    /// Second part of its name.
    pub environment: String,
    /// Third part of its name.
    pub name: String,
    /// Key and sealed value.
    pub entries: Vec<(String, Sealed)>,
    /// What a `custom` set says of hosts and injections.
    pub custom: Option<serde_json::Value>,
    /// The vault's key that the values are sealed under; the write is refused when the vault has another by now.
    pub kek_id: Option<String>,
}

/// The next version of a set, as a difference to the current one.
#[derive(Debug, Clone, Default)]
pub struct SetChange {
    /// Keys added or given another value.
    pub put: Vec<(String, Sealed)>,
    /// Keys that the next version no longer has.
    pub drop: Vec<String>,
    /// `Some` puts another description in place of the current one.
    pub custom: Option<serde_json::Value>,
    /// The vault's key that `put` is sealed under; the write is refused when the vault has another by now.
    pub kek_id: Option<String>,
}

/// Which versions to seal entries with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NextVersions {
    /// The vault that holds the secrets.
    pub vault: VaultId,
    /// The vault's key.
    pub kek_id: String,
    /// By key: the secret's path and the version that its seal is to be bound to.
    pub entries: BTreeMap<String, (String, u64)>,
}

/// One sealed value with all that its seal is bound to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedEntry {
    /// The entry's name.
    pub key: String,
    /// The vault that holds the secret.
    pub vault: VaultId,
    /// The secret's path in the vault.
    pub path: String,
    /// The secret's version.
    pub version: u64,
    /// The envelope.
    pub sealed: Vec<u8>,
}

/// One version of a set, with its sealed values.
#[derive(Debug, Clone, PartialEq)]
pub struct SetContents {
    /// First part of its name: the template.
    pub provider: String,
    /// Second part of its name.
    pub environment: String,
    /// Third part of its name.
    pub name: String,
    /// Which version this is.
    pub version: u64,
    /// What a `custom` set says of hosts and injections, in this version.
    pub custom: Option<serde_json::Value>,
    /// The sealed values, sorted by key.
    pub entries: Vec<SealedEntry>,
}

/// Why a set is not written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteSetError {
    /// A set of that provider, environment and name exists.
    #[error("a secret set of that name exists")]
    NameTaken,
    /// Secrets that were stored by their paths lie where the set's entries would.
    #[error("secrets lie under {0}, which would be the set's prefix")]
    PrefixTaken(String),
    /// A secret got another version, or the vault another key, meanwhile: ask for the versions again and seal anew.
    #[error("the secret set changed meanwhile")]
    Moved,
    /// The set has no such version.
    #[error("the secret set has no version {0}")]
    NoSuchVersion(u64),
    /// A version would have no entry.
    #[error("a secret set needs at least one entry")]
    Empty,
    /// The organisation has no default vault yet.
    #[error("the organisation has no vault")]
    NoVault,
    /// The organisation has as many as it may.
    #[error(transparent)]
    Limit(OverQuota),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<QuotaError> for WriteSetError {
    fn from(error: QuotaError) -> Self {
        match error {
            QuotaError::Over(over) => Self::Limit(over),
            QuotaError::Store(error) => Self::Store(error),
        }
    }
}

/// The secret sets of a store.
#[derive(Debug, Clone, Copy)]
pub struct SecretSets<'a> {
    pub(crate) store: &'a Store,
}

impl SecretSets<'_> {
    /// Which paths and versions to seal the values of `keys` with, before a create or update.
    ///
    /// The write checks them again, so of two writers one gets [`WriteSetError::Moved`].
    ///
    /// # Errors
    /// [`WriteSetError::NoVault`], [`WriteSetError::Store`].
    pub async fn next_versions(
        &self,
        org: &OrgId,
        provider: &str,
        environment: &str,
        name: &str,
        keys: &[String],
    ) -> Result<NextVersions, WriteSetError> {
        let vault = self.store.vaults().default_vault(org).await?;
        let vault = vault.ok_or(WriteSetError::NoVault)?;
        let mut entries = BTreeMap::new();
        for key in keys {
            let path = path_of(provider, environment, name, key);
            let current: Option<i64> = query(CURRENT_VERSION)
                .bind(org.as_str())
                .bind(vault.id.as_str())
                .bind(&path)
                .fetch_value(self.store.pool())
                .await?;
            let next = u64::try_from(current.unwrap_or(0)).unwrap_or(0) + 1;
            entries.insert(key.clone(), (path, next));
        }
        Ok(NextVersions {
            vault: vault.id,
            kek_id: vault.kek_id,
            entries,
        })
    }

    /// Makes a set, version 1.
    ///
    /// # Errors
    /// [`WriteSetError::NameTaken`], [`WriteSetError::Moved`], [`WriteSetError::Empty`], [`WriteSetError::Store`].
    pub async fn create(
        &self,
        org: &OrgId,
        new: NewSet,
        actor: &Actor,
    ) -> Result<SecretSet, WriteSetError> {
        if new.entries.is_empty() {
            return Err(WriteSetError::Empty);
        }
        let vault = self.store.vaults().default_vault(org).await?;
        let vault = vault.ok_or(WriteSetError::NoVault)?;
        let mut tx = self.store.write(Change::Org(org)).await?;
        if is_taken(&mut tx, org, &new).await? {
            return Err(WriteSetError::NameTaken);
        }
        check_prefix(&mut tx, org, &vault.id, &new).await?;
        if !is_still_kek(&mut tx, org, new.kek_id.as_deref()).await? {
            return Err(WriteSetError::Moved);
        }
        let now = at(tx.now());
        let mut set = Current {
            set: SecretSet {
                id: SetId::new(now),
                org: org.clone(),
                vault: vault.id.clone(),
                provider: new.provider,
                environment: new.environment,
                name: new.name,
                version: 0,
                keys: Vec::new(),
                custom: None,
                created_at: now,
                updated_at: now,
            },
            vault: vault.id,
            manifest: BTreeMap::new(),
        };
        let guard = Guard::begin(self.store, &mut tx, org, Resource::Secrets).await?;
        put_secrets(&mut tx, &mut set, new.entries).await?;
        settle_secrets(&mut tx, &set, guard).await?;
        let set = advance(&mut tx, set, new.custom, None, actor).await?;
        record(&mut tx, &set, "secret_set.create", actor).await?;
        tx.commit().await?;
        Ok(set)
    }

    /// Makes the next version of a set; `None` when there is no such set.
    ///
    /// # Errors
    /// [`WriteSetError::Moved`], [`WriteSetError::Empty`], [`WriteSetError::Store`].
    pub async fn update(
        &self,
        org: &OrgId,
        id: &SetId,
        change: SetChange,
        actor: &Actor,
    ) -> Result<Option<SecretSet>, WriteSetError> {
        let mut tx = self.store.write(Change::Org(org)).await?;
        let Some(mut current) = find(&mut tx, org, id).await? else {
            return Ok(None);
        };
        if !is_still_kek(&mut tx, org, change.kek_id.as_deref()).await? {
            return Err(WriteSetError::Moved);
        }
        let guard = Guard::begin(self.store, &mut tx, org, Resource::Secrets).await?;
        put_secrets(&mut tx, &mut current, change.put).await?;
        for key in change.drop {
            current.manifest.remove(&key);
        }
        if current.manifest.is_empty() {
            return Err(WriteSetError::Empty);
        }
        settle_secrets(&mut tx, &current, guard).await?;
        let custom = change.custom.or_else(|| current.set.custom.clone());
        let set = advance(&mut tx, current, custom, None, actor).await?;
        record(&mut tx, &set, "secret_set.update", actor).await?;
        tx.commit().await?;
        Ok(Some(set))
    }

    /// Makes a next version with the contents of `version`; `None` when there is no such set.
    ///
    /// # Errors
    /// [`WriteSetError::NoSuchVersion`], [`WriteSetError::Store`].
    pub async fn rollback(
        &self,
        org: &OrgId,
        id: &SetId,
        version: u64,
        actor: &Actor,
    ) -> Result<Option<SecretSet>, WriteSetError> {
        let mut tx = self.store.write(Change::Org(org)).await?;
        let Some(mut current) = find(&mut tx, org, id).await? else {
            return Ok(None);
        };
        let earlier = query(GET_VERSION)
            .bind(org.as_str())
            .bind(id.as_str())
            .bind(stored(version))
            .fetch_optional(tx.conn())
            .await?
            .ok_or(WriteSetError::NoSuchVersion(version))?;
        let guard = Guard::begin(self.store, &mut tx, org, Resource::Secrets).await?;
        current.manifest = json(&earlier, "manifest", "secret set")?;
        settle_secrets(&mut tx, &current, guard).await?;
        let custom = custom_of(&earlier)?;
        let set = advance(&mut tx, current, custom, Some(version), actor).await?;
        record(&mut tx, &set, "secret_set.rollback", actor).await?;
        tx.commit().await?;
        Ok(Some(set))
    }

    /// Deletes a set softly: uses of it are refused at once, its name is free again. False when
    /// there is none.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn delete(&self, org: &OrgId, id: &SetId, actor: &Actor) -> Result<bool, StoreError> {
        let mut tx = self.store.write(Change::Org(org)).await?;
        let Some(current) = find(&mut tx, org, id).await? else {
            return Ok(false);
        };
        end(&mut tx, &current, actor).await?;
        tx.commit().await?;
        Ok(true)
    }

    /// Deletes a set, if that was not done before, and the sealed values of all its versions for good. What is told of the set
    /// stays, and so do the versions that a later set of its name begins behind. False when there never was such a set.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn purge(&self, org: &OrgId, id: &SetId, actor: &Actor) -> Result<bool, StoreError> {
        let mut tx = self.store.write(Change::Org(org)).await?;
        let row = query(GET_EVER)
            .bind(org.as_str())
            .bind(id.as_str())
            .fetch_optional(tx.conn())
            .await?;
        let Some(row) = row else {
            return Ok(false);
        };
        let current = current(&row)?;
        let purged = erase_values(&mut tx, &current).await?;
        if optional_time(&row, "deleted_at")?.is_none() {
            end(&mut tx, &current, actor).await?;
        }
        if purged > 0 {
            record(&mut tx, &current.set, "secret_set.purge", actor).await?;
        }
        tx.commit().await?;
        Ok(true)
    }

    /// One set that is not deleted.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn get(&self, org: &OrgId, id: &SetId) -> Result<Option<SecretSet>, StoreError> {
        let row = query(GET)
            .bind(org.as_str())
            .bind(id.as_str())
            .fetch_optional(self.store.pool())
            .await?;
        row.as_ref().map(read).transpose()
    }

    /// One set that is not deleted, by its name.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn get_by_name(
        &self,
        org: &OrgId,
        provider: &str,
        environment: &str,
        name: &str,
    ) -> Result<Option<SecretSet>, StoreError> {
        let row = query(
            "SELECT s.*, v.manifest, v.custom FROM secret_sets s \
             JOIN secret_set_versions v ON v.set_id = s.id AND v.version = s.version \
             WHERE s.org_id = $1 AND s.provider = $2 AND s.environment = $3 AND s.name = $4 \
             AND s.deleted_at IS NULL",
        )
        .bind(org.as_str())
        .bind(provider)
        .bind(environment)
        .bind(name)
        .fetch_optional(self.store.pool())
        .await?;
        row.as_ref().map(read).transpose()
    }

    /// Sets in the order they were made, without the deleted.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn list(
        &self,
        org: &OrgId,
        page: &PageRequest,
    ) -> Result<Page<SecretSet>, StoreError> {
        let limit = page.bounded_limit();
        let rows = query(
            "SELECT s.*, v.manifest, v.custom FROM secret_sets s \
             JOIN secret_set_versions v ON v.set_id = s.id AND v.version = s.version \
             WHERE s.org_id = $1 AND s.id > $2 AND s.deleted_at IS NULL ORDER BY s.id LIMIT $3",
        )
        .bind(org.as_str())
        .bind(page.after_id()?)
        .bind(limit + 1)
        .fetch_all(self.store.pool())
        .await?;
        let sets = rows.iter().map(read).collect::<Result<_, _>>()?;
        Ok(Page::from_overfull(sets, limit, |set: &SecretSet| {
            set.id.as_str()
        }))
    }

    /// All versions of a set that is not deleted, newest first; `None` when there is no such set.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn versions(
        &self,
        org: &OrgId,
        id: &SetId,
    ) -> Result<Option<Vec<SetVersion>>, StoreError> {
        if self.get(org, id).await?.is_none() {
            return Ok(None);
        }
        let rows = query(
            "SELECT * FROM secret_set_versions WHERE org_id = $1 AND set_id = $2 \
             ORDER BY version DESC",
        )
        .bind(org.as_str())
        .bind(id.as_str())
        .fetch_all(self.store.pool())
        .await?;
        rows.iter()
            .map(read_version)
            .collect::<Result<_, _>>()
            .map(Some)
    }

    /// One version of a set that is not deleted, with its sealed values.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn contents(
        &self,
        org: &OrgId,
        id: &SetId,
        version: u64,
    ) -> Result<Option<SetContents>, StoreError> {
        let row = query(
            "SELECT s.provider, s.environment, s.name, s.vault_id, v.manifest, v.custom \
             FROM secret_sets s JOIN secret_set_versions v ON v.set_id = s.id \
             WHERE s.org_id = $1 AND s.id = $2 AND v.version = $3 AND s.deleted_at IS NULL",
        )
        .bind(org.as_str())
        .bind(id.as_str())
        .bind(stored(version))
        .fetch_optional(self.store.pool())
        .await?;
        let Some(row) = row else {
            return Ok(None);
        };
        let mut contents = SetContents {
            provider: row.try_get("provider")?,
            environment: row.try_get("environment")?,
            name: row.try_get("name")?,
            version,
            custom: custom_of(&row)?,
            entries: Vec::new(),
        };
        let vault: VaultId = self::id(&row, "vault_id", WHAT)?;
        let manifest: BTreeMap<String, u64> = json(&row, "manifest", WHAT)?;
        for (key, version) in manifest {
            let path = path_of(
                &contents.provider,
                &contents.environment,
                &contents.name,
                &key,
            );
            let sealed: Option<Vec<u8>> = query(SEALED)
                .bind(org.as_str())
                .bind(vault.as_str())
                .bind(&path)
                .bind(stored(version))
                .fetch_value(self.store.pool())
                .await?;
            if sealed.is_none() && self.get(org, id).await?.is_none() {
                // Purged since it was looked up.
                return Ok(None);
            }
            contents.entries.push(SealedEntry {
                key,
                vault: vault.clone(),
                path,
                version,
                sealed: sealed.ok_or(StoreError::Corrupt { what: WHAT })?,
            });
        }
        Ok(Some(contents))
    }

    /// The sealed values of one version; `None` when there is no such set or version.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn sealed_entries(
        &self,
        org: &OrgId,
        id: &SetId,
        version: u64,
    ) -> Result<Option<Vec<SealedEntry>>, StoreError> {
        Ok(self
            .contents(org, id, version)
            .await?
            .map(|contents| contents.entries))
    }
}

const WHAT: &str = "secret set";
const GET: &str = "SELECT s.*, v.manifest, v.custom FROM secret_sets s \
    JOIN secret_set_versions v ON v.set_id = s.id AND v.version = s.version \
    WHERE s.org_id = $1 AND s.id = $2 AND s.deleted_at IS NULL";
const GET_EVER: &str = "SELECT s.*, v.manifest, v.custom FROM secret_sets s \
    JOIN secret_set_versions v ON v.set_id = s.id AND v.version = s.version \
    WHERE s.org_id = $1 AND s.id = $2";
const GET_VERSION: &str = "SELECT * FROM secret_set_versions \
    WHERE org_id = $1 AND set_id = $2 AND version = $3";
const CURRENT_VERSION: &str =
    "SELECT version FROM secrets WHERE org_id = $1 AND vault_id = $2 AND path = $3";
const SEALED: &str = "SELECT sealed FROM secret_versions \
    WHERE org_id = $1 AND vault_id = $2 AND path = $3 AND version = $4";

/// A set as a change finds it, and its manifest as the change will leave it.
struct Current {
    set: SecretSet,
    vault: VaultId,
    manifest: BTreeMap<String, u64>,
}

/// Where an entry's secret lies in the vault.
fn path_of(provider: &str, environment: &str, name: &str, key: &str) -> String {
    format!("{provider}/{environment}/{name}/{key}")
}

async fn is_taken(tx: &mut WriteTx<'_>, org: &OrgId, new: &NewSet) -> Result<bool, StoreError> {
    let taken = query(
        "SELECT 1 FROM secret_sets WHERE org_id = $1 AND provider = $2 AND environment = $3 \
         AND name = $4 AND deleted_at IS NULL",
    )
    .bind(org.as_str())
    .bind(&new.provider)
    .bind(&new.environment)
    .bind(&new.name)
    .fetch_optional(tx.conn())
    .await?;
    Ok(taken.is_some())
}

/// Refuses a set among secrets of the path view: all under its prefix would be taken for its entries.
async fn check_prefix(
    tx: &mut WriteTx<'_>,
    org: &OrgId,
    vault: &VaultId,
    new: &NewSet,
) -> Result<(), WriteSetError> {
    let prefix = path_of(&new.provider, &new.environment, &new.name, "");
    let end = format!("{}0", prefix.trim_end_matches('/'));
    let live = query(
        "SELECT 1 FROM secrets WHERE org_id = $1 AND vault_id = $2 AND path > $3 AND path < $4 \
         AND deleted_at IS NULL LIMIT 1",
    )
    .bind(org.as_str())
    .bind(vault.as_str())
    .bind(&prefix)
    .bind(end)
    .fetch_optional(tx.conn())
    .await?;
    match live {
        Some(_) => Err(WriteSetError::PrefixTaken(prefix)),
        None => Ok(()),
    }
}

async fn find(
    tx: &mut WriteTx<'_>,
    org: &OrgId,
    id: &SetId,
) -> Result<Option<Current>, StoreError> {
    let row = query(GET)
        .bind(org.as_str())
        .bind(id.as_str())
        .fetch_optional(tx.conn())
        .await?;
    row.as_ref().map(current).transpose()
}

fn current(row: &Row) -> Result<Current, StoreError> {
    Ok(Current {
        set: read(row)?,
        vault: id(row, "vault_id", WHAT)?,
        manifest: json(row, "manifest", WHAT)?,
    })
}

/// Deletes a set softly.
async fn end(tx: &mut WriteTx<'_>, current: &Current, actor: &Actor) -> Result<(), StoreError> {
    let set = &current.set;
    mark_secrets(tx, current, &BTreeMap::new()).await?;
    tx.narrow().await?;
    query("UPDATE secret_sets SET deleted_at = $1 WHERE org_id = $2 AND id = $3")
        .bind(tx.now())
        .bind(set.org.as_str())
        .bind(set.id.as_str())
        .execute(tx.conn())
        .await?;
    record(tx, set, "secret_set.delete", actor).await
}

/// Deletes the sealed values of all versions of a set, and gives their number. Those of a path are its own from its first to its
/// last, since nothing else is written there while it stands.
async fn erase_values(tx: &mut WriteTx<'_>, current: &Current) -> Result<u64, StoreError> {
    let set = &current.set;
    let versions =
        query("SELECT manifest FROM secret_set_versions WHERE org_id = $1 AND set_id = $2")
            .bind(set.org.as_str())
            .bind(set.id.as_str())
            .fetch_all(tx.conn())
            .await?;
    let mut ranges: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for row in &versions {
        let manifest: BTreeMap<String, u64> = json(row, "manifest", WHAT)?;
        for (key, version) in manifest {
            let (first, last) = ranges.entry(key).or_insert((version, version));
            (*first, *last) = (version.min(*first), version.max(*last));
        }
    }
    let mut erased = 0;
    for (key, (first, last)) in ranges {
        let path = path_of(&set.provider, &set.environment, &set.name, &key);
        erased += query(
            "DELETE FROM secret_versions WHERE org_id = $1 AND vault_id = $2 AND path = $3 \
             AND version >= $4 AND version <= $5",
        )
        .bind(set.org.as_str())
        .bind(current.vault.as_str())
        .bind(path)
        .bind(stored(first))
        .bind(stored(last))
        .execute(tx.conn())
        .await?;
    }
    Ok(erased)
}

/// Adds a set that has its first version.
async fn insert_set(tx: &mut WriteTx<'_>, current: &Current) -> Result<(), StoreError> {
    let set = &current.set;
    query(
        "INSERT INTO secret_sets \
         (id, org_id, vault_id, provider, environment, name, version, created_at, updated_at) \
         VALUES ($1, $2, $3, $4, $5, $6, 1, $7, $7)",
    )
    .bind(set.id.as_str())
    .bind(set.org.as_str())
    .bind(current.vault.as_str())
    .bind(&set.provider)
    .bind(&set.environment)
    .bind(&set.name)
    .bind(tx.now())
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Stores sealed values, if each path and version is still the one that its seal is bound to.
async fn put_secrets(
    tx: &mut WriteTx<'_>,
    current: &mut Current,
    put: Vec<(String, Sealed)>,
) -> Result<(), WriteSetError> {
    let set = &current.set;
    let mut by_path = BTreeMap::new();
    for (key, sealed) in put {
        let path = path_of(&set.provider, &set.environment, &set.name, &key);
        if sealed.path != path {
            return Err(WriteSetError::Moved);
        }
        current.manifest.insert(key, sealed.version);
        if by_path.insert(path, sealed).is_some() {
            return Err(WriteSetError::Moved);
        }
    }
    if by_path.is_empty() {
        return Ok(());
    }
    // A statement that counts up from exactly the version before is the check and the change.
    let wanted: Vec<String> = (0..by_path.len())
        .map(|nth| format!("(${}, ${})", 4 + 2 * nth, 5 + 2 * nth))
        .collect();
    let mut count_up = built(format!(
        "WITH wanted (path, version) AS (VALUES {}) \
         INSERT INTO secrets (org_id, vault_id, path, version, created_at) \
         SELECT $1, $2, w.path, w.version, $3 FROM wanted w WHERE w.version = 1 OR EXISTS \
         (SELECT 1 FROM secrets s WHERE s.org_id = $1 AND s.vault_id = $2 AND s.path = w.path) \
         ON CONFLICT (org_id, vault_id, path) DO UPDATE \
         SET version = excluded.version WHERE secrets.version = excluded.version - 1",
        wanted.join(", ")
    ))
    .bind(set.org.as_str())
    .bind(current.vault.as_str())
    .bind(tx.now());
    for (path, sealed) in &by_path {
        count_up = count_up.bind(path).bind(stored(sealed.version));
    }
    if count_up.execute(tx.conn()).await? != by_path.len() as u64 {
        return Err(WriteSetError::Moved);
    }
    let now = tx.now();
    let rows = by_path.into_iter().map(|(path, sealed)| {
        vec![
            set.org.as_str().into(),
            current.vault.as_str().into(),
            path.into(),
            stored(sealed.version).into(),
            sealed.bytes.into(),
            now.into(),
            SecretId::new(at(now)).as_str().into(),
        ]
    });
    let columns = [
        "org_id",
        "vault_id",
        "path",
        "version",
        "sealed",
        "created_at",
        "id",
    ];
    insert_many(tx.conn(), "secret_versions", &columns, rows.collect()).await?;
    Ok(())
}

/// Marks what the manifest has as there and the rest as deleted, and refuses what is more than the organisation may have. Before
/// uses are held up, since it may take a while.
async fn settle_secrets(
    tx: &mut WriteTx<'_>,
    current: &Current,
    guard: Option<Guard>,
) -> Result<(), WriteSetError> {
    mark_secrets(tx, current, &current.manifest).await?;
    Guard::check(guard, tx, &current.set.org).await?;
    Ok(())
}

/// Makes the next version of a set from its manifest, once [`settle_secrets`] has. Uses are held up from here on, unless it is the first.
async fn advance(
    tx: &mut WriteTx<'_>,
    mut current: Current,
    custom: Option<serde_json::Value>,
    rolled_back_to: Option<u64>,
    actor: &Actor,
) -> Result<SecretSet, StoreError> {
    let is_first = current.set.version == 0;
    if !is_first {
        tx.narrow().await?;
    }
    current.set.version += 1;
    current.set.updated_at = at(tx.now());
    current.set.custom = custom;
    current.set.keys = current.manifest.keys().cloned().collect();
    let set = &current.set;
    let custom = match &set.custom {
        Some(custom) => Some(to_json(custom, WHAT)?),
        None => None,
    };
    if is_first {
        insert_set(tx, &current).await?;
    }
    query(
        "INSERT INTO secret_set_versions \
         (set_id, version, org_id, manifest, custom, created_at, created_by, rolled_back_to) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(set.id.as_str())
    .bind(stored(set.version))
    .bind(set.org.as_str())
    .bind(to_json(&current.manifest, WHAT)?)
    .bind(custom)
    .bind(tx.now())
    .bind(&actor.id)
    .bind(rolled_back_to.map(stored))
    .execute(tx.conn())
    .await?;
    if !is_first {
        query("UPDATE secret_sets SET version = $1, updated_at = $2 WHERE org_id = $3 AND id = $4")
            .bind(stored(set.version))
            .bind(tx.now())
            .bind(set.org.as_str())
            .bind(set.id.as_str())
            .execute(tx.conn())
            .await?;
    }
    Ok(current.set)
}

/// Marks the secrets under a set's prefix as there or deleted, as `manifest` has them.
async fn mark_secrets(
    tx: &mut WriteTx<'_>,
    current: &Current,
    manifest: &BTreeMap<String, u64>,
) -> Result<(), StoreError> {
    let set = &current.set;
    let prefix = path_of(&set.provider, &set.environment, &set.name, "");
    // `0` follows `/` in byte order, so this is the range of paths under the prefix.
    let end = format!("{}0", prefix.trim_end_matches('/'));
    let there: Vec<String> = (0..manifest.len())
        .map(|nth| format!("${}", 6 + nth))
        .collect();
    let is_there = if there.is_empty() {
        "1 = 0".to_owned()
    } else {
        format!("path IN ({})", there.join(", "))
    };
    let mut mark = built(format!(
        "UPDATE secrets SET deleted_at = CASE WHEN {is_there} THEN NULL ELSE $1 END \
         WHERE org_id = $2 AND vault_id = $3 AND path > $4 AND path < $5 \
         AND (deleted_at IS NULL) <> ({is_there})"
    ))
    .bind(tx.now())
    .bind(set.org.as_str())
    .bind(current.vault.as_str())
    .bind(&prefix)
    .bind(end);
    for key in manifest.keys() {
        mark = mark.bind(format!("{prefix}{key}"));
    }
    mark.execute(tx.conn()).await?;
    Ok(())
}

async fn record(
    tx: &mut WriteTx<'_>,
    set: &SecretSet,
    action: &'static str,
    actor: &Actor,
) -> Result<(), StoreError> {
    let event = NewEvent {
        action,
        secret_set_id: Some(set.id.clone()),
        secret_version: Some(set.version),
        keys: set.keys.clone(),
        ..NewEvent::default()
    };
    tx.append(&set.org, actor, &event).await?;
    Ok(())
}

fn read(row: &Row) -> Result<SecretSet, StoreError> {
    Ok(SecretSet {
        id: id(row, "id", WHAT)?,
        org: id(row, "org_id", WHAT)?,
        vault: id(row, "vault_id", WHAT)?,
        provider: row.try_get("provider")?,
        environment: row.try_get("environment")?,
        name: row.try_get("name")?,
        version: count(row, "version")?,
        keys: keys_of(row)?,
        custom: custom_of(row)?,
        created_at: time(row, "created_at")?,
        updated_at: time(row, "updated_at")?,
    })
}

fn read_version(row: &Row) -> Result<SetVersion, StoreError> {
    let rolled_back_to: Option<i64> = row.try_get("rolled_back_to")?;
    Ok(SetVersion {
        version: count(row, "version")?,
        keys: keys_of(row)?,
        created_at: time(row, "created_at")?,
        created_by: row.try_get("created_by")?,
        rolled_back_to: rolled_back_to.map(i64::cast_unsigned),
    })
}

fn keys_of(row: &Row) -> Result<Vec<String>, StoreError> {
    let manifest: BTreeMap<String, u64> = json(row, "manifest", WHAT)?;
    Ok(manifest.into_keys().collect())
}

fn custom_of(row: &Row) -> Result<Option<serde_json::Value>, StoreError> {
    let custom: Option<&str> = row.try_get("custom")?;
    custom.map(|text| from_json(text, WHAT)).transpose()
}
