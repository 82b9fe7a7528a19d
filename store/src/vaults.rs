//! Vaults: named containers of secrets, each under its own key-encryption key.

use ::leases::id::{OrgId, VaultId};
use time::OffsetDateTime;

use crate::db::{Change, On, Row, WriteTx, id, query, time};
use crate::quotas::{Guard, OverQuota, QuotaError, Resource};
use crate::timekeeper::at;
use crate::{Actor, NewEvent, Page, PageRequest, Store, StoreError};

/// A vault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vault {
    /// Its id, which the key wrapper and every seal's binding know too.
    pub id: VaultId,
    /// Its organisation.
    pub org: OrgId,
    /// `default` for the one that always exists.
    pub name: String,
    /// What it is for.
    pub description: Option<String>,
    /// The key wrapper's name of its key.
    pub kek_id: String,
    /// Id of the person who made it; absent for those that the service makes.
    pub created_by: Option<String>,
    /// The kind of that principal, as events name it.
    pub created_by_type: Option<String>,
    /// When it was made.
    pub created_at: OffsetDateTime,
}

impl Vault {
    /// Whether it is the one that always exists, in which secret sets and keys of the service lie.
    pub fn is_default(&self) -> bool {
        self.name == DEFAULT_NAME
    }

    /// Whether it is the one in which agents' identity keys lie, and to which the service alone writes.
    pub fn is_agent_keys(&self) -> bool {
        self.name == AGENT_KEYS && self.created_by.is_none()
    }
}

/// The name of the vault in which agents' identity keys lie. No vault of people's gets it.
pub const AGENT_KEYS: &str = "__agent-keys";

/// Whether a name is the service's own, in whatever case: one that looks the same would be taken for it.
pub fn is_reserved(name: &str) -> bool {
    name.eq_ignore_ascii_case(AGENT_KEYS)
}

/// A vault to be made.
#[derive(Debug, Clone)]
pub struct NewVault {
    /// Chosen by the caller, who made the key under this name.
    pub id: VaultId,
    /// The key wrapper's name of its key.
    pub kek_id: String,
}

/// A vault with a name of people's choice, to be made.
#[derive(Debug, Clone)]
pub struct NamedVault {
    /// Its id and key.
    pub vault: NewVault,
    /// Unique in its organisation while it is not deleted. Never begins with the prefix of vaults' ids.
    pub name: String,
    /// What it is for.
    pub description: Option<String>,
}

/// Why a vault is not made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CreateVaultError {
    /// A vault of that name exists.
    #[error("a vault of that name exists")]
    NameTaken,
    /// The name is the service's own.
    #[error("the name {AGENT_KEYS} is the service's own")]
    Reserved,
    /// The organisation has as many as it may.
    #[error(transparent)]
    Limit(OverQuota),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<QuotaError> for CreateVaultError {
    fn from(error: QuotaError) -> Self {
        match error {
            QuotaError::Over(over) => Self::Limit(over),
            QuotaError::Store(error) => Self::Store(error),
        }
    }
}

/// Why a vault is not deleted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeleteVaultError {
    /// It is the default vault.
    #[error("the default vault always exists")]
    Default,
    /// It is the service's own: agents' identity keys lie in it.
    #[error("the identity keys of agents lie in the vault")]
    Reserved,
    /// Secret sets lie in it.
    #[error("{0} secret sets lie in the vault")]
    InUse(u64),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The vaults of a store.
#[derive(Debug, Clone, Copy)]
pub struct Vaults<'a> {
    pub(crate) store: &'a Store,
}

impl Vaults<'_> {
    /// The organisation's default vault.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn default_vault(&self, org: &OrgId) -> Result<Option<Vault>, StoreError> {
        let row = query(DEFAULT)
            .bind(org.as_str())
            .fetch_optional(self.store.pool())
            .await?;
        row.as_ref().map(read).transpose()
    }

    /// The default vault, which this makes from `new` when there is none; the first caller wins.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn ensure_default(&self, org: &OrgId, new: NewVault) -> Result<Vault, StoreError> {
        let mut tx = self.store.write(Change::Org(org)).await?;
        let existing = query(DEFAULT)
            .bind(org.as_str())
            .fetch_optional(tx.conn())
            .await?;
        if let Some(row) = existing {
            return read(&row);
        }
        query(
            "INSERT INTO vaults (id, org_id, name, kek_id, created_at) \
             VALUES ($1, $2, 'default', $3, $4)",
        )
        .bind(new.id.as_str())
        .bind(org.as_str())
        .bind(&new.kek_id)
        .bind(tx.now())
        .execute(tx.conn())
        .await?;
        let event = NewEvent {
            action: "vault.create",
            ..NewEvent::default()
        };
        tx.append(org, &Actor::system("bootstrap"), &event).await?;
        let created_at = at(tx.now());
        tx.commit().await?;
        Ok(Vault {
            id: new.id,
            org: org.clone(),
            name: DEFAULT_NAME.to_owned(),
            description: None,
            kek_id: new.kek_id,
            created_by: None,
            created_by_type: None,
            created_at,
        })
    }

    /// The vault of agents' identity keys; `None` before the organisation's first agent.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn agent_keys(&self, org: &OrgId) -> Result<Option<Vault>, StoreError> {
        find_agent_keys(self.store.pool(), org).await
    }

    /// Makes a vault. The key under its name exists by then.
    ///
    /// # Errors
    /// [`CreateVaultError`].
    pub async fn create(
        &self,
        org: &OrgId,
        new: NamedVault,
        actor: &Actor,
    ) -> Result<Vault, CreateVaultError> {
        if is_reserved(&new.name) {
            return Err(CreateVaultError::Reserved);
        }
        let mut tx = self.store.write(Change::Org(org)).await?;
        let taken = query("SELECT 1 FROM vaults WHERE org_id = $1 AND name = $2")
            .bind(org.as_str())
            .bind(&new.name)
            .fetch_optional(tx.conn())
            .await?;
        if taken.is_some() {
            return Err(CreateVaultError::NameTaken);
        }
        let guard = Guard::begin(self.store, &mut tx, org, Resource::Vaults).await?;
        let vault = Vault {
            id: new.vault.id,
            org: org.clone(),
            name: new.name,
            description: new.description,
            kek_id: new.vault.kek_id,
            created_by: Some(actor.id.clone()),
            created_by_type: Some(actor.kind.as_str().to_owned()),
            created_at: at(tx.now()),
        };
        insert(&mut tx, &vault).await?;
        Guard::check(guard, &mut tx, org).await?;
        record(&mut tx, &vault, "vault.create", actor).await?;
        tx.commit().await?;
        Ok(vault)
    }

    /// One vault that is not deleted, by its id or name.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn get(&self, org: &OrgId, named: &str) -> Result<Option<Vault>, StoreError> {
        let row = query(
            "SELECT * FROM vaults WHERE org_id = $1 AND (id = $2 OR name = $2) \
             AND deleted_at IS NULL",
        )
        .bind(org.as_str())
        .bind(named)
        .fetch_optional(self.store.pool())
        .await?;
        row.as_ref().map(read).transpose()
    }

    /// Vaults in the order they were made, without the deleted.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn page(&self, org: &OrgId, page: &PageRequest) -> Result<Page<Vault>, StoreError> {
        let limit = page.bounded_limit();
        let rows = query(
            "SELECT * FROM vaults WHERE org_id = $1 AND id > $2 AND deleted_at IS NULL \
             ORDER BY id LIMIT $3",
        )
        .bind(org.as_str())
        .bind(page.after_id()?)
        .bind(limit + 1)
        .fetch_all(self.store.pool())
        .await?;
        let vaults = rows.iter().map(read).collect::<Result<_, _>>()?;
        Ok(Page::from_overfull(vaults, limit, |vault: &Vault| {
            vault.id.as_str()
        }))
    }

    /// Deletes a vault softly, with all its secrets and policies; its name is free again. False when there is none.
    ///
    /// Its seals stay under its key, which no rotation renews any more.
    ///
    /// # Errors
    /// [`DeleteVaultError`].
    pub async fn delete(
        &self,
        org: &OrgId,
        id: &VaultId,
        actor: &Actor,
    ) -> Result<bool, DeleteVaultError> {
        let mut tx = self.store.write(Change::Org(org)).await?;
        let row =
            query("SELECT * FROM vaults WHERE org_id = $1 AND id = $2 AND deleted_at IS NULL")
                .bind(org.as_str())
                .bind(id.as_str())
                .fetch_optional(tx.conn())
                .await?;
        let Some(vault) = row.as_ref().map(read).transpose()? else {
            return Ok(false);
        };
        if vault.is_default() {
            return Err(DeleteVaultError::Default);
        }
        if vault.is_agent_keys() {
            return Err(DeleteVaultError::Reserved);
        }
        let sets: Option<i64> = query(SETS_IN)
            .bind(org.as_str())
            .bind(id.as_str())
            .fetch_value(tx.conn())
            .await?;
        if let Some(sets @ 1..) = sets {
            return Err(DeleteVaultError::InUse(sets.unsigned_abs()));
        }
        for statement in DELETE {
            query(statement)
                .bind(tx.now())
                .bind(org.as_str())
                .bind(id.as_str())
                .execute(tx.conn())
                .await?;
        }
        record(&mut tx, &vault, "vault.delete", actor).await?;
        tx.commit().await?;
        Ok(true)
    }

    /// All vaults of an organisation that are not deleted.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn list(&self, org: &OrgId) -> Result<Vec<Vault>, StoreError> {
        let rows =
            query("SELECT * FROM vaults WHERE org_id = $1 AND deleted_at IS NULL ORDER BY id")
                .bind(org.as_str())
                .fetch_all(self.store.pool())
                .await?;
        rows.iter().map(read).collect()
    }

    /// Names another key for a vault, after a rotation of it. False when there is no such vault.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn set_kek(
        &self,
        org: &OrgId,
        id: &VaultId,
        kek_id: &str,
        actor: &Actor,
    ) -> Result<bool, StoreError> {
        let mut tx = self.store.write(Change::Org(org)).await?;
        let changed = query("UPDATE vaults SET kek_id = $1 WHERE org_id = $2 AND id = $3")
            .bind(kek_id)
            .bind(org.as_str())
            .bind(id.as_str())
            .execute(tx.conn())
            .await?;
        if changed == 0 {
            return Ok(false);
        }
        let event = NewEvent {
            action: "key.rotate",
            keys: vec![kek_id.to_owned()],
            ..NewEvent::default()
        };
        tx.append(org, actor, &event).await?;
        tx.commit().await?;
        Ok(true)
    }
}

/// Whether this is still the key of the default vault, under which sets and keys of the service are sealed. `None` asks nothing.
///
/// In a transaction that is alone in the organisation, as a change of that key is: what was sealed under a key that a migration
/// leaves must not be stored after it.
pub(crate) async fn is_still_kek(
    tx: &mut WriteTx<'_>,
    org: &OrgId,
    kek_id: Option<&str>,
) -> Result<bool, StoreError> {
    let Some(kek_id) = kek_id else {
        return Ok(true);
    };
    let row = query(DEFAULT)
        .bind(org.as_str())
        .fetch_optional(tx.conn())
        .await?;
    let vault = row.as_ref().map(read).transpose()?;
    Ok(vault.is_some_and(|vault| vault.kek_id == kek_id))
}

/// Whether this is still the key of a vault that is not deleted; see [`is_still_kek`].
pub(crate) async fn is_kek_of(
    tx: &mut WriteTx<'_>,
    org: &OrgId,
    vault: &VaultId,
    kek_id: &str,
) -> Result<bool, StoreError> {
    let found = query(
        "SELECT 1 FROM vaults WHERE org_id = $1 AND id = $2 AND kek_id = $3 AND deleted_at IS NULL",
    )
    .bind(org.as_str())
    .bind(vault.as_str())
    .bind(kek_id)
    .fetch_optional(tx.conn())
    .await?;
    Ok(found.is_some())
}

async fn find_agent_keys<'c>(
    on: impl Into<On<'c>>,
    org: &OrgId,
) -> Result<Option<Vault>, StoreError> {
    let row = query("SELECT * FROM vaults WHERE org_id = $1 AND name = $2 AND created_by IS NULL")
        .bind(org.as_str())
        .bind(AGENT_KEYS)
        .fetch_optional(on)
        .await?;
    row.as_ref().map(read).transpose()
}

/// Makes the vault of agents' identity keys unless it is there, in a transaction that is alone in the organisation, and gives it if
/// it did; the event is the caller's to append. Whoever was first has made it: whether it is the one under whose key something was
/// sealed, [`is_kek_of`] says.
pub(crate) async fn ensure_agent_keys(
    tx: &mut WriteTx<'_>,
    org: &OrgId,
    new: NewVault,
) -> Result<Option<Vault>, StoreError> {
    if find_agent_keys(tx.conn(), org).await?.is_some() {
        return Ok(None);
    }
    let vault = Vault {
        id: new.id,
        org: org.clone(),
        name: AGENT_KEYS.to_owned(),
        description: Some("identity keys of agents, written by the service alone".to_owned()),
        kek_id: new.kek_id,
        created_by: None,
        created_by_type: None,
        created_at: at(tx.now()),
    };
    insert(tx, &vault).await?;
    Ok(Some(vault))
}

/// Whether a vault is the one to which the service alone writes.
pub(crate) async fn is_agent_keys(
    tx: &mut WriteTx<'_>,
    org: &OrgId,
    vault: &VaultId,
) -> Result<bool, StoreError> {
    let own = find_agent_keys(tx.conn(), org).await?;
    Ok(own.is_some_and(|own| own.id == *vault))
}

async fn insert(tx: &mut WriteTx<'_>, vault: &Vault) -> Result<(), StoreError> {
    query(
        "INSERT INTO vaults \
         (id, org_id, name, kek_id, created_at, description, created_by, created_by_type) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(vault.id.as_str())
    .bind(vault.org.as_str())
    .bind(&vault.name)
    .bind(&vault.kek_id)
    .bind(tx.now())
    .bind(&vault.description)
    .bind(&vault.created_by)
    .bind(&vault.created_by_type)
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Appends what happened to a vault.
pub(crate) async fn record(
    tx: &mut WriteTx<'_>,
    vault: &Vault,
    action: &'static str,
    actor: &Actor,
) -> Result<(), StoreError> {
    let event = NewEvent {
        action,
        vault_id: Some(vault.id.clone()),
        keys: vec![vault.name.clone()],
        ..NewEvent::default()
    };
    tx.append(&vault.org, actor, &event).await?;
    Ok(())
}

const DEFAULT_NAME: &str = "default";
const SETS_IN: &str = "SELECT COUNT(*) FROM secret_sets \
    WHERE org_id = $1 AND vault_id = $2 AND deleted_at IS NULL";
/// What a vault's deletion changes, each with the time, the organisation and the vault.
const DELETE: [&str; 3] = [
    "UPDATE secrets SET deleted_at = $1 WHERE org_id = $2 AND vault_id = $3 AND deleted_at IS NULL",
    "UPDATE policies SET deleted_at = $1 WHERE org_id = $2 AND vault_id = $3 AND deleted_at IS NULL",
    "UPDATE vaults SET deleted_at = $1, name = id WHERE org_id = $2 AND id = $3",
];
const DEFAULT: &str = "SELECT * FROM vaults WHERE org_id = $1 AND name = 'default'";

fn read(row: &Row) -> Result<Vault, StoreError> {
    Ok(Vault {
        id: id(row, "id", "vault")?,
        org: id(row, "org_id", "vault")?,
        name: row.try_get("name")?,
        description: row.try_get("description")?,
        kek_id: row.try_get("kek_id")?,
        created_by: row.try_get("created_by")?,
        created_by_type: row.try_get("created_by_type")?,
        created_at: time(row, "created_at")?,
    })
}

#[cfg(test)]
pub(crate) mod tests;
