//! Vaults: named containers of secrets, each under its own key-encryption key.

use ::leases::id::{OrgId, VaultId};
use time::OffsetDateTime;

use crate::{Actor, Store, StoreError};

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
        unimplemented!("{org}")
    }

    /// The default vault, which this makes from `new` when there is none; the first caller wins.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn ensure_default(&self, org: &OrgId, new: NewVault) -> Result<Vault, StoreError> {
        unimplemented!("{org} {new:?}")
    }

    /// All vaults of an organisation.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn list(&self, org: &OrgId) -> Result<Vec<Vault>, StoreError> {
        unimplemented!("{org}")
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
        unimplemented!("{org} {id} {kek_id} {actor:?}")
    }
}
