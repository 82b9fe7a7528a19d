//! Grants: a person's standing permission for an agent to use a secret set.

use ::leases::id::{AgentId, GrantId, OrgId, SetId};
use ::leases::scope::{Action, Keys, Scope};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::{Actor, Page, PageRequest, Store, StoreError};

/// At most `requests` uses in each window of `per_seconds`.
///
/// A window begins with its first use and ends `per_seconds` later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rate {
    /// How many uses.
    pub requests: u32,
    /// In how many seconds.
    pub per_seconds: u32,
}

/// A grant.
#[derive(Debug, Clone)]
pub struct Grant {
    /// Its id.
    pub id: GrantId,
    /// Its organisation.
    pub org: OrgId,
    /// Who may.
    pub agent_id: AgentId,
    /// Use what.
    pub secret_set_id: SetId,
    /// In which ways.
    pub allowed_actions: Vec<Action>,
    /// Which entries of the set.
    pub allowed_keys: Keys,
    /// Until when; `None` for until revoked.
    pub expires_at: Option<OffsetDateTime>,
    /// Where and when.
    pub constraints: Scope,
    /// How often.
    pub rate: Option<Rate>,
    /// Id of who made it.
    pub created_by: String,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// When it was revoked.
    pub revoked_at: Option<OffsetDateTime>,
}

/// A grant to be made.
#[derive(Debug, Clone)]
pub struct NewGrant {
    /// Who may.
    pub agent_id: AgentId,
    /// Use what.
    pub secret_set_id: SetId,
    /// In which ways.
    pub allowed_actions: Vec<Action>,
    /// Which entries of the set.
    pub allowed_keys: Keys,
    /// Until when.
    pub expires_at: Option<OffsetDateTime>,
    /// Where and when.
    pub constraints: Scope,
    /// How often.
    pub rate: Option<Rate>,
}

/// Why a grant is not made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CreateGrantError {
    /// The organisation has no such agent.
    #[error("no agent {0}")]
    NoAgent(AgentId),
    /// The organisation has no such secret set.
    #[error("no secret set {0}")]
    NoSet(SetId),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The grants of a store.
#[derive(Debug, Clone, Copy)]
pub struct Grants<'a> {
    pub(crate) store: &'a Store,
}

impl Grants<'_> {
    /// Makes a grant.
    ///
    /// # Errors
    /// [`CreateGrantError::NoAgent`], [`CreateGrantError::NoSet`], [`CreateGrantError::Store`].
    pub async fn create(
        &self,
        org: &OrgId,
        new: NewGrant,
        actor: &Actor,
    ) -> Result<Grant, CreateGrantError> {
        unimplemented!("{org} {new:?} {actor:?}")
    }

    /// One grant, also a revoked one.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn get(&self, org: &OrgId, id: &GrantId) -> Result<Option<Grant>, StoreError> {
        unimplemented!("{org} {id}")
    }

    /// Grants in the order they were made, also the revoked.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn list(&self, org: &OrgId, page: &PageRequest) -> Result<Page<Grant>, StoreError> {
        unimplemented!("{org} {page:?}")
    }

    /// Revokes a grant: when this returns, no later use of it is recorded, on any node. Revoking
    /// again changes nothing. `None` when there is no such grant.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn revoke(
        &self,
        org: &OrgId,
        id: &GrantId,
        actor: &Actor,
    ) -> Result<Option<Grant>, StoreError> {
        unimplemented!("{org} {id} {actor:?}")
    }

    /// The grants of an agent on a set that are live at `now`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn find_for(
        &self,
        org: &OrgId,
        agent: &AgentId,
        set: &SetId,
        now: OffsetDateTime,
    ) -> Result<Vec<Grant>, StoreError> {
        unimplemented!("{org} {agent} {set} {now}")
    }
}
