//! Keys of the service itself, sealed: lease roots, JWT, CA, checkpoint signer.

use ::leases::id::OrgId;
use time::OffsetDateTime;

use crate::{Actor, Store, StoreError};

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
    /// [`StoreError::Conflict`] if that version exists or is not the next.
    pub async fn put(
        &self,
        org: &OrgId,
        new: NewSealedKey,
        actor: &Actor,
    ) -> Result<SealedKey, StoreError> {
        unimplemented!("{org} {new:?} {actor:?}")
    }

    /// The version in use.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn current(&self, org: &OrgId, name: &str) -> Result<Option<SealedKey>, StoreError> {
        unimplemented!("{org} {name}")
    }

    /// All versions, newest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn versions(&self, org: &OrgId, name: &str) -> Result<Vec<SealedKey>, StoreError> {
        unimplemented!("{org} {name}")
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
        unimplemented!("{org} {name} {version} {actor:?}")
    }
}
