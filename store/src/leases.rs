//! Lease records: what was minted, and what was revoked. Uses are the ledger's.

use ::leases::RevocationId;
use ::leases::id::{AgentId, GrantId, LeaseId, OrgId, SetId};
use ::leases::scope::{Action, Kind};
use time::OffsetDateTime;

use crate::{Actor, Page, PageRequest, Store, StoreError};

/// What the store knows of a lease; the token itself is kept nowhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseRecord {
    /// Its id, in the token's authority block.
    pub id: LeaseId,
    /// Its organisation.
    pub org: OrgId,
    /// Who holds it.
    pub agent_id: AgentId,
    /// One use or many.
    pub kind: Kind,
    /// What it is for.
    pub action: Action,
    /// The sets that it opens, each by which grant.
    pub sets: Vec<(SetId, GrantId)>,
    /// When it was minted.
    pub issued_at: OffsetDateTime,
    /// When it ends.
    pub expires_at: OffsetDateTime,
    /// When it was revoked.
    pub revoked_at: Option<OffsetDateTime>,
    /// How often it was used. Exact for a request lease; of a workflow lease up to a second late.
    pub uses: u64,
    /// Revocation id of the authority block.
    pub revocation_id: RevocationId,
}

/// A lease to be recorded, before its token is given out.
#[derive(Debug, Clone)]
pub struct NewLease {
    /// Its id, in the token's authority block.
    pub id: LeaseId,
    /// Who holds it.
    pub agent_id: AgentId,
    /// One use or many.
    pub kind: Kind,
    /// What it is for.
    pub action: Action,
    /// The sets that it opens, each by which grant.
    pub sets: Vec<(SetId, GrantId)>,
    /// When it was minted.
    pub issued_at: OffsetDateTime,
    /// When it ends.
    pub expires_at: OffsetDateTime,
    /// Revocation id of the authority block.
    pub revocation_id: RevocationId,
}

/// Why a lease is not recorded, and so must not be given out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CreateLeaseError {
    /// The agent is gone or inactive.
    #[error("agent {0} is not active")]
    AgentInactive(AgentId),
    /// A grant is revoked, expired, or of another agent or set.
    #[error("grant {0} no longer holds")]
    GrantGone(GrantId),
    /// A set is deleted.
    #[error("secret set {0} is gone")]
    SetGone(SetId),
    /// The lease would outlive a grant of it.
    #[error("the lease would outlive grant {grant}")]
    OutlivesGrant {
        /// The grant that ends first.
        grant: GrantId,
        /// When it ends.
        ends_at: OffsetDateTime,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The lease records of a store.
#[derive(Debug, Clone, Copy)]
pub struct Leases<'a> {
    pub(crate) store: &'a Store,
}

impl Leases<'_> {
    /// Records a lease, after a last look at agent, grants and sets in the same transaction.
    ///
    /// # Errors
    /// [`CreateLeaseError`]; the token must then not be given out.
    pub async fn create(
        &self,
        org: &OrgId,
        new: NewLease,
        actor: &Actor,
    ) -> Result<LeaseRecord, CreateLeaseError> {
        unimplemented!("{org} {new:?} {actor:?}")
    }

    /// One lease.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn get(&self, org: &OrgId, id: &LeaseId) -> Result<Option<LeaseRecord>, StoreError> {
        unimplemented!("{org} {id}")
    }

    /// Leases in the order they were minted, of one agent or of all.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn list(
        &self,
        org: &OrgId,
        agent: Option<&AgentId>,
        page: &PageRequest,
    ) -> Result<Page<LeaseRecord>, StoreError> {
        unimplemented!("{org} {agent:?} {page:?}")
    }

    /// Revokes a lease and every child of it: when this returns, no later use is recorded, on any
    /// node. Revoking again changes nothing. `None` when there is no such lease.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn revoke(
        &self,
        org: &OrgId,
        id: &LeaseId,
        actor: &Actor,
    ) -> Result<Option<LeaseRecord>, StoreError> {
        unimplemented!("{org} {id} {actor:?}")
    }

    /// Revokes one block of a lease and all below it, until the lease ends anyway. False when
    /// there is no such lease.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn revoke_block(
        &self,
        org: &OrgId,
        id: &LeaseId,
        block: &RevocationId,
        until: OffsetDateTime,
        actor: &Actor,
    ) -> Result<bool, StoreError> {
        unimplemented!("{org} {id} {block:?} {until} {actor:?}")
    }

    /// Whether a block was revoked on its own.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn is_block_revoked(
        &self,
        org: &OrgId,
        block: &RevocationId,
    ) -> Result<bool, StoreError> {
        unimplemented!("{org} {block:?}")
    }
}
