//! Verification: signature, canonical form and shape of a lease, without the time.

use std::{fmt, sync::Arc};

use biscuit_auth::Biscuit;
use time::OffsetDateTime;

use crate::{
    block::{self, Contents, Narrowed, ShapeError},
    id::{AgentId, LeaseId, OrgId},
    limit::Limit,
    memory::Memory,
    mint::{Binding, MintRequest, check_bindings},
    revocation::RevocationId,
    root_key::{RootPublicKey, RootPublicKeys},
    scope::{Action, Kind},
    token::PresentedToken,
};

/// The most blocks of a lease, with its authority block.
pub const MAX_BLOCKS: usize = 8;

/// A lease that is not valid. Callers learn no more than `lease_invalid`; the log gets [`Self::reason`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the lease is not valid; mint a new one")]
pub struct VerifyError(#[source] Reason);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum Reason {
    #[error(transparent)]
    Shape(#[from] ShapeError),
    #[error("its root key is unknown")]
    RootKey,
    #[error("a signature is wrong: {0}")]
    Signature(String),
    #[error("it is not in its one encoding")]
    Encoding,
    #[error("its bindings are not what is minted here: {0}")]
    Bindings(String),
}

impl VerifyError {
    /// What is wrong, for the log. It holds nothing of the token.
    pub fn reason(&self) -> String {
        self.0.to_string()
    }
}

impl<T: Into<Reason>> From<T> for VerifyError {
    fn from(reason: T) -> Self {
        Self(reason.into())
    }
}

/// A lease whose signatures and shape are right. Whether it still holds, [`crate::authorize()`] and the ledger say.
///
/// It remembers decisions, so it is worth keeping: behind an `Arc`, under the token's digest. It does not hold the key
/// by which the lease could be narrowed.
pub struct VerifiedLease {
    authority: MintRequest,
    narrowings: Vec<Narrowed>,
    effective_expiry: OffsetDateTime,
    revocation_ids: Arc<[RevocationId]>,
    root_key: RootPublicKey,
    biscuit: Biscuit,
    memory: Memory,
}

/// Verifies a lease: the signatures up to a root key, the one encoding, and that it holds what a lease may hold.
///
/// An authority block is exactly what [`crate::mint()`] writes. A block after it holds checks only, each query of at
/// most four predicates, with no operation and no amount of work that could take long (see the crate's README).
///
/// # Errors
/// [`VerifyError`], one and the same to the caller whatever is wrong.
/// Spec: Biscuit v3, <https://doc.biscuitsec.org/reference/specifications>.
pub fn verify(token: &PresentedToken, keys: &RootPublicKeys) -> Result<VerifiedLease, VerifyError> {
    let container = block::check_container(token.bytes())?;
    let root_key = container
        .root_key_id
        .and_then(|id| keys.get(id))
        .ok_or(Reason::RootKey)?;
    let biscuit =
        Biscuit::from(token.bytes(), keys).map_err(|error| Reason::Signature(error.to_string()))?;
    // Protobuf has many encodings of one message, and the container around the signed blocks is not signed.
    if biscuit.to_vec().ok().as_deref() != Some(token.bytes()) {
        return Err(Reason::Encoding.into());
    }
    let contents = block::read(&container)?;
    check_bindings(&contents.authority.bindings)
        .map_err(|error| Reason::Bindings(error.to_string()))?;
    let revocation_ids = revocation_ids(&biscuit).ok_or(Reason::Encoding)?;
    // A sealed copy authorizes alike and does not hold the key that narrows. A sealed token cannot be sealed again.
    let biscuit = biscuit.seal().unwrap_or(biscuit);
    Ok(VerifiedLease {
        effective_expiry: contents.effective_expiry(),
        authority: contents.authority,
        narrowings: contents.narrowings,
        revocation_ids,
        root_key: *root_key,
        biscuit,
        memory: Memory::default(),
    })
}

pub(crate) fn revocation_ids(biscuit: &Biscuit) -> Option<Arc<[RevocationId]>> {
    biscuit
        .revocation_identifiers()
        .iter()
        .map(|id| RevocationId::from_bytes(id).ok())
        .collect()
}

impl Contents {
    /// The earliest end that a block whose meaning is known sets.
    pub(crate) fn effective_expiry(&self) -> OffsetDateTime {
        let limits = self.narrowings.iter().flat_map(|block| &block.limits);
        limits
            .filter_map(|limit| match limit {
                Limit::Before(end) => Some(*end),
                Limit::Hosts(_) | Limit::Methods(_) | Limit::Paths(_) | Limit::Clients(_) => None,
            })
            .fold(self.authority.expires_at, OffsetDateTime::min)
    }
}

impl VerifiedLease {
    /// The organisation.
    pub const fn org(&self) -> &OrgId {
        &self.authority.org
    }

    /// Who may use it.
    pub const fn agent(&self) -> &AgentId {
        &self.authority.agent
    }

    /// The lease's id: the same in every block and encoding, so what is used up is counted by it.
    pub const fn lease(&self) -> &LeaseId {
        &self.authority.lease
    }

    /// Once or many times.
    pub const fn kind(&self) -> Kind {
        self.authority.kind
    }

    /// What for.
    pub const fn action(&self) -> Action {
        self.authority.action
    }

    /// The sets that it binds; at least one.
    pub fn bindings(&self) -> &[Binding] {
        &self.authority.bindings
    }

    /// From when.
    pub const fn issued_at(&self) -> OffsetDateTime {
        self.authority.issued_at
    }

    /// Until when, by the authority block.
    pub const fn expires_at(&self) -> OffsetDateTime {
        self.authority.expires_at
    }

    /// Until when, by all blocks.
    pub const fn effective_expiry(&self) -> OffsetDateTime {
        self.effective_expiry
    }

    /// One a block, the authority block's first.
    pub fn revocation_ids(&self) -> &[RevocationId] {
        &self.revocation_ids
    }

    /// The same, to be kept.
    pub fn shared_revocation_ids(&self) -> Arc<[RevocationId]> {
        Arc::clone(&self.revocation_ids)
    }

    /// The root key that signed it. A verified lease that is kept is good while
    /// [`RootPublicKeys::holds`] says so of this key.
    pub const fn root_key(&self) -> &RootPublicKey {
        &self.root_key
    }

    /// Blocks, with the authority block.
    pub fn block_count(&self) -> usize {
        self.revocation_ids.len()
    }

    /// The limits of each block after the authority block whose meaning is known; the first one is block 1.
    pub fn narrowings(&self) -> impl Iterator<Item = &[Limit]> {
        self.narrowings.iter().map(|block| block.limits.as_slice())
    }

    pub(crate) fn blocks(&self) -> &[Narrowed] {
        &self.narrowings
    }

    pub(crate) const fn biscuit(&self) -> &Biscuit {
        &self.biscuit
    }

    pub(crate) const fn memory(&self) -> &Memory {
        &self.memory
    }
}

impl fmt::Debug for VerifiedLease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifiedLease")
            .field("lease", &self.authority.lease)
            .field("org", &self.authority.org)
            .field("agent", &self.authority.agent)
            .field("blocks", &self.block_count())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
