//! Vaults: named containers of secrets, each under its own key-encryption key.

use ::leases::id::{OrgId, VaultId};
use time::OffsetDateTime;

use crate::db::{Change, Row, WriteTx, id, query, time};
use crate::timekeeper::at;
use crate::{Actor, NewEvent, Store, StoreError};

/// A vault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vault {
    /// Its id, which the key wrapper and every seal's binding know too.
    pub id: VaultId,
    /// Its organisation.
    pub org: OrgId,
    /// `default` for the one that always exists.
    pub name: String,
    /// The key wrapper's name of its key.
    pub kek_id: String,
    /// When it was made.
    pub created_at: OffsetDateTime,
}

/// A vault to be made.
#[derive(Debug, Clone)]
pub struct NewVault {
    /// Chosen by the caller, who made the key under this name.
    pub id: VaultId,
    /// The key wrapper's name of its key.
    pub kek_id: String,
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
            name: "default".to_owned(),
            kek_id: new.kek_id,
            created_at,
        })
    }

    /// All vaults of an organisation.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn list(&self, org: &OrgId) -> Result<Vec<Vault>, StoreError> {
        let rows = query("SELECT * FROM vaults WHERE org_id = $1 ORDER BY id")
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

const DEFAULT: &str = "SELECT * FROM vaults WHERE org_id = $1 AND name = 'default'";

fn read(row: &Row) -> Result<Vault, StoreError> {
    Ok(Vault {
        id: id(row, "id", "vault")?,
        org: id(row, "org_id", "vault")?,
        name: row.try_get("name")?,
        kek_id: row.try_get("kek_id")?,
        created_at: time(row, "created_at")?,
    })
}
