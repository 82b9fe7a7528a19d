//! People and the digests of their personal keys.

use ::leases::id::{OrgId, UserId};
use time::OffsetDateTime;

use crate::{Actor, Page, PageRequest, Store, StoreError};

/// What a person may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Everything in the organisation.
    Admin,
    /// Everything but people and keys of the service.
    Member,
    /// Reads alone.
    Auditor,
}

impl Role {
    /// The word stored and shown.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Member => "member",
            Self::Auditor => "auditor",
        }
    }

    /// The role of that word.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Admin, Self::Member, Self::Auditor]
            .into_iter()
            .find(|role| role.as_str() == text)
    }
}

/// A person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Its id.
    pub id: UserId,
    /// Its organisation.
    pub org: OrgId,
    /// Unique in the organisation.
    pub name: String,
    /// What the person may do.
    pub role: Role,
    /// When it was made.
    pub created_at: OffsetDateTime,
}

/// A person to be made.
#[derive(Debug, Clone)]
pub struct NewUser {
    /// Unique in the organisation.
    pub name: String,
    /// What the person may do.
    pub role: Role,
}

/// Why a person is not made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CreateUserError {
    /// The name is taken in this organisation.
    #[error("a user of that name exists")]
    NameTaken,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The people of a store.
#[derive(Debug, Clone, Copy)]
pub struct Users<'a> {
    pub(crate) store: &'a Store,
}

impl Users<'_> {
    /// Makes a person.
    ///
    /// # Errors
    /// [`CreateUserError::NameTaken`], [`CreateUserError::Store`].
    pub async fn create(
        &self,
        org: &OrgId,
        new: NewUser,
        actor: &Actor,
    ) -> Result<User, CreateUserError> {
        unimplemented!("{org} {new:?} {actor:?}")
    }

    /// One person.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn get(&self, org: &OrgId, id: &UserId) -> Result<Option<User>, StoreError> {
        unimplemented!("{org} {id}")
    }

    /// People in the order they were made.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn list(&self, org: &OrgId, page: &PageRequest) -> Result<Page<User>, StoreError> {
        unimplemented!("{org} {page:?}")
    }

    /// Adds a personal key by the SHA-256 of its text. False when there is no such person.
    ///
    /// # Errors
    /// [`StoreError`]; [`StoreError::Conflict`] if the key exists.
    pub async fn add_key(
        &self,
        org: &OrgId,
        id: &UserId,
        key_hash: &[u8; 32],
        actor: &Actor,
    ) -> Result<bool, StoreError> {
        unimplemented!("{org} {id} {key_hash:?} {actor:?}")
    }

    /// Ends every personal key of a person. False when there is no such person.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn revoke_keys(
        &self,
        org: &OrgId,
        id: &UserId,
        actor: &Actor,
    ) -> Result<bool, StoreError> {
        unimplemented!("{org} {id} {actor:?}")
    }

    /// The person whose live personal key has this SHA-256.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn find_by_key_hash(
        &self,
        key_hash: &[u8; 32],
    ) -> Result<Option<(OrgId, User)>, StoreError> {
        unimplemented!("{key_hash:?}")
    }
}
