//! Secret sets: the secrets under one path prefix of a vault, versioned as a whole.

use std::collections::BTreeMap;

use ::leases::id::{OrgId, SetId, VaultId};
use time::OffsetDateTime;

use crate::{Actor, Page, PageRequest, Store, StoreError};

/// A secret set, without values.
#[derive(Debug, Clone, PartialEq)]
pub struct SecretSet {
    /// Its id; a set made later under the same name has another.
    pub id: SetId,
    /// Its organisation.
    pub org: OrgId,
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
    /// A secret got another version meanwhile: ask for the versions again and seal anew.
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
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
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
        unimplemented!("{org} {provider} {environment} {name} {keys:?}")
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
        unimplemented!("{org} {new:?} {actor:?}")
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
        unimplemented!("{org} {id} {change:?} {actor:?}")
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
        unimplemented!("{org} {id} {version} {actor:?}")
    }

    /// Deletes a set softly: uses of it are refused at once, its name is free again. False when
    /// there is none.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn delete(&self, org: &OrgId, id: &SetId, actor: &Actor) -> Result<bool, StoreError> {
        unimplemented!("{org} {id} {actor:?}")
    }

    /// One set that is not deleted.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn get(&self, org: &OrgId, id: &SetId) -> Result<Option<SecretSet>, StoreError> {
        unimplemented!("{org} {id}")
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
        unimplemented!("{org} {provider} {environment} {name}")
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
        unimplemented!("{org} {page:?}")
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
        unimplemented!("{org} {id}")
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
        unimplemented!("{org} {id} {version}")
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
