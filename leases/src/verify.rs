//! Verification: signature, canonical form and shape of a lease, without the time.

use std::sync::Arc;

use time::OffsetDateTime;

use crate::{
    id::{AgentId, LeaseId, OrgId},
    mint::Binding,
    revocation::RevocationId,
    root_key::RootPublicKeys,
    scope::{Action, Kind},
    token::PresentedToken,
};

/// The most blocks of a lease, with its authority block.
pub const MAX_BLOCKS: usize = 8;

/// A lease that is not valid. Callers learn no more than `lease_invalid`; the log gets [`Self::reason`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the lease is not valid; mint a new one")]
pub struct VerifyError {
    reason: String,
}

impl VerifyError {
    /// What is wrong, for the log. It holds nothing of the token.
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

/// A lease whose signatures and shape are right. Whether it is still valid, [`crate::authorize`] and the ledger say.
#[derive(Debug)]
pub struct VerifiedLease {
    _private: (),
}

/// Verifies a lease.
///
/// # Errors
/// [`VerifyError`].
pub fn verify(token: &PresentedToken, keys: &RootPublicKeys) -> Result<VerifiedLease, VerifyError> {
    let _ = (token, keys);
    unimplemented!()
}

impl VerifiedLease {
    /// The organisation.
    pub fn org(&self) -> &OrgId {
        unimplemented!()
    }
    /// Who may use it.
    pub fn agent(&self) -> &AgentId {
        unimplemented!()
    }
    /// The lease's id: the same in every block and encoding, so what is used up is counted by it.
    pub fn lease(&self) -> &LeaseId {
        unimplemented!()
    }
    /// Once or many times.
    pub fn kind(&self) -> Kind {
        unimplemented!()
    }
    /// What for.
    pub fn action(&self) -> Action {
        unimplemented!()
    }
    /// The sets that it binds.
    pub fn bindings(&self) -> &[Binding] {
        unimplemented!()
    }
    /// From when.
    pub fn issued_at(&self) -> OffsetDateTime {
        unimplemented!()
    }
    /// Until when, by the authority block.
    pub fn expires_at(&self) -> OffsetDateTime {
        unimplemented!()
    }
    /// Until when, by all blocks.
    pub fn effective_expiry(&self) -> OffsetDateTime {
        unimplemented!()
    }
    /// One a block, the authority block's first.
    pub fn revocation_ids(&self) -> &[RevocationId] {
        unimplemented!()
    }
    /// The same, to be kept.
    pub fn shared_revocation_ids(&self) -> Arc<[RevocationId]> {
        unimplemented!()
    }
    /// Blocks, with the authority block.
    pub fn block_count(&self) -> usize {
        unimplemented!()
    }
}
