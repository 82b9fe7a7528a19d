//! Organisations: the isolation boundary that every other row belongs to.

use ::leases::id::OrgId;
use time::OffsetDateTime;

use crate::{Actor, Store, StoreError};

/// An organisation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Org {
    /// Its id.
    pub id: OrgId,
    /// What people call it.
    pub name: String,
    /// When it was made.
    pub created_at: OffsetDateTime,
}

/// The organisations of a store.
#[derive(Debug, Clone, Copy)]
pub struct Orgs<'a> {
    pub(crate) store: &'a Store,
}

impl Orgs<'_> {
    /// The organisation made first, which this makes, as `name`, when there is none.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn ensure_first_org(&self, name: &str) -> Result<Org, StoreError> {
        unimplemented!("{name}")
    }

    /// Makes another organisation.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn create(&self, name: &str, actor: &Actor) -> Result<Org, StoreError> {
        unimplemented!("{name} {actor:?}")
    }

    /// The organisation made first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn first(&self) -> Result<Option<Org>, StoreError> {
        unimplemented!()
    }

    /// One organisation.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn get(&self, org: &OrgId) -> Result<Option<Org>, StoreError> {
        unimplemented!("{org}")
    }
}
