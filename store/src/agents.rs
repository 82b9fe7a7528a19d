//! Agents: the principals that hold leases, and the digests of their keys.

use ::leases::id::{AgentId, OrgId};
use time::OffsetDateTime;

use crate::{Actor, Page, PageRequest, Store, StoreError};

/// An agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agent {
    /// Its id.
    pub id: AgentId,
    /// Its organisation.
    pub org: OrgId,
    /// Unique among the organisation's agents that are not deleted.
    pub name: String,
    /// Free text.
    pub description: Option<String>,
    /// An inactive agent gets no lease, and its leases are refused.
    pub is_active: bool,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// When it last changed.
    pub updated_at: OffsetDateTime,
    /// When a lease of it was last used, to about a second.
    pub last_used_at: Option<OffsetDateTime>,
}

/// An agent to be made.
#[derive(Debug, Clone)]
pub struct NewAgent {
    /// Unique among the organisation's agents.
    pub name: String,
    /// Free text.
    pub description: Option<String>,
    /// SHA-256 of its key's text.
    pub key_hash: [u8; 32],
}

/// What to change; `None` leaves a field as it is.
#[derive(Debug, Clone, Default)]
pub struct AgentPatch {
    /// A new name.
    pub name: Option<String>,
    /// A new description; `Some(None)` removes it.
    pub description: Option<Option<String>>,
    /// Whether it may act.
    pub is_active: Option<bool>,
}

/// Why an agent is not made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CreateAgentError {
    /// The name is taken in this organisation.
    #[error("an agent of that name exists")]
    NameTaken,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why an agent is not changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PatchAgentError {
    /// The name is taken in this organisation.
    #[error("an agent of that name exists")]
    NameTaken,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The agents of a store.
#[derive(Debug, Clone, Copy)]
pub struct Agents<'a> {
    pub(crate) store: &'a Store,
}

impl Agents<'_> {
    /// Makes an agent, active.
    ///
    /// # Errors
    /// [`CreateAgentError::NameTaken`], [`CreateAgentError::Store`].
    pub async fn create(
        &self,
        org: &OrgId,
        new: NewAgent,
        actor: &Actor,
    ) -> Result<Agent, CreateAgentError> {
        unimplemented!("{org} {new:?} {actor:?}")
    }

    /// One agent that is not deleted.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn get(&self, org: &OrgId, id: &AgentId) -> Result<Option<Agent>, StoreError> {
        unimplemented!("{org} {id}")
    }

    /// One agent that is not deleted, by its name.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn get_by_name(&self, org: &OrgId, name: &str) -> Result<Option<Agent>, StoreError> {
        unimplemented!("{org} {name}")
    }

    /// Agents in the order they were made, without the deleted.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn list(&self, org: &OrgId, page: &PageRequest) -> Result<Page<Agent>, StoreError> {
        unimplemented!("{org} {page:?}")
    }

    /// Changes an agent; `None` when there is none.
    ///
    /// # Errors
    /// [`PatchAgentError::NameTaken`], [`PatchAgentError::Store`].
    pub async fn patch(
        &self,
        org: &OrgId,
        id: &AgentId,
        patch: AgentPatch,
        actor: &Actor,
    ) -> Result<Option<Agent>, PatchAgentError> {
        unimplemented!("{org} {id} {patch:?} {actor:?}")
    }

    /// Deletes an agent softly: its key, grants and leases end at once, its name is free again.
    /// False when there is none.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn delete(
        &self,
        org: &OrgId,
        id: &AgentId,
        actor: &Actor,
    ) -> Result<bool, StoreError> {
        unimplemented!("{org} {id} {actor:?}")
    }

    /// Puts another key in place of the agent's key; `None` when there is no such agent.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn rotate_key(
        &self,
        org: &OrgId,
        id: &AgentId,
        key_hash: &[u8; 32],
        actor: &Actor,
    ) -> Result<Option<Agent>, StoreError> {
        unimplemented!("{org} {id} {key_hash:?} {actor:?}")
    }

    /// The agent, active or not, whose key has this SHA-256.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn find_by_key_hash(
        &self,
        key_hash: &[u8; 32],
    ) -> Result<Option<(OrgId, Agent)>, StoreError> {
        unimplemented!("{key_hash:?}")
    }
}
