//! `Idempotency-Key`: one effect for a request that is sent more than once.

use ::leases::id::OrgId;

use crate::{Store, StoreError};

/// What to do with a request that carries an idempotency key.
#[derive(Clone, PartialEq, Eq)]
pub enum Idempotency {
    /// The first of its key: do it, then call [`IdempotencyKeys::finish`] or
    /// [`IdempotencyKeys::abandon`].
    Fresh,
    /// Done before: give the same answer.
    Replay {
        /// HTTP status of that answer.
        status: u16,
        /// Body of that answer, as it was given to [`IdempotencyKeys::finish`].
        body: Vec<u8>,
    },
    /// The key was used for a different request.
    Conflict,
    /// The first request with this key has not ended yet.
    InProgress,
}

impl std::fmt::Debug for Idempotency {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // An answer may hold a key or a lease.
        f.write_str(match self {
            Self::Fresh => "Fresh",
            Self::Replay { .. } => "Replay",
            Self::Conflict => "Conflict",
            Self::InProgress => "InProgress",
        })
    }
}

/// The kept answers of a store; each is forgotten 24 h after its request.
#[derive(Debug, Clone, Copy)]
pub struct IdempotencyKeys<'a> {
    pub(crate) store: &'a Store,
}

impl IdempotencyKeys<'_> {
    /// Claims a key for a request, by the SHA-256 of what it asks for.
    ///
    /// Of many that race with one key, one gets [`Idempotency::Fresh`]. A claim that was neither
    /// finished nor abandoned can be taken over after 60 s.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn begin(
        &self,
        org: &OrgId,
        principal: &str,
        key: &str,
        request_hash: &[u8; 32],
    ) -> Result<Idempotency, StoreError> {
        unimplemented!("{org} {principal} {key} {request_hash:?}")
    }

    /// Keeps the answer. It is stored as given, so seal a body that holds a key or a token.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn finish(
        &self,
        org: &OrgId,
        principal: &str,
        key: &str,
        status: u16,
        body: &[u8],
    ) -> Result<(), StoreError> {
        unimplemented!("{org} {principal} {key} {status} {}", body.len())
    }

    /// Gives the key back after a request that had no effect.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn abandon(&self, org: &OrgId, principal: &str, key: &str) -> Result<(), StoreError> {
        unimplemented!("{org} {principal} {key}")
    }
}
