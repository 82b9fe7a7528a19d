//! Minting: a lease's authority block, signed by the root key.

use time::OffsetDateTime;

use crate::{
    host::HostPattern,
    id::{AgentId, GrantId, LeaseId, OrgId, SetId},
    revocation::RevocationId,
    root_key::RootKeyPair,
    scope::{Action, Keys, Kind, Scope, ScopeError},
    token::{MAX_BYTES, Token},
};

/// One secret set that a lease binds, with the grant that allows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// The set.
    pub set: SetId,
    /// The grant.
    pub grant: GrantId,
    /// The name of the set's provider template.
    pub provider: String,
    /// Where the template sends the credential, as it stood when the lease was minted.
    pub hosts: Vec<HostPattern>,
    /// The set's keys that are covered.
    pub keys: Keys,
    /// The grant's limits.
    pub scope: Scope,
}

/// What a lease shall say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MintRequest {
    /// The organisation.
    pub org: OrgId,
    /// Who may use it.
    pub agent: AgentId,
    /// Its id.
    pub lease: LeaseId,
    /// Once or many times.
    pub kind: Kind,
    /// What for.
    pub action: Action,
    /// The sets; the host decides which of them serves a request.
    pub bindings: Vec<Binding>,
    /// From when, for people to read. Cut to whole seconds.
    pub issued_at: OffsetDateTime,
    /// Until when. Cut to whole seconds, so that the lease never outlives this.
    pub expires_at: OffsetDateTime,
}

/// A new lease.
#[derive(Debug)]
pub struct Minted {
    /// The lease.
    pub token: Token,
    /// The revocation identifier of its authority block, which all that are narrowed from it carry.
    pub revocation_id: RevocationId,
    /// When it ends, in whole seconds.
    pub expires_at: OffsetDateTime,
}

/// Why a lease is not minted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MintError {
    /// No set at all.
    #[error("a lease binds at least one secret set")]
    NoBinding,
    /// A set without hosts: nothing could be sent.
    #[error("secret set {0} has no host to which its credential may be sent")]
    NoHost(SetId),
    /// One set twice.
    #[error("secret set {0} is bound twice; mint the lease from one of its grants")]
    DuplicateSet(SetId),
    /// Two sets that serve one host: which credential to send would be a guess.
    #[error(
        "secret sets {a} and {b} both serve {host}; mint a lease for each, or narrow the grants' hosts"
    )]
    AmbiguousHosts {
        /// One set.
        a: SetId,
        /// The other set.
        b: SetId,
        /// A pattern of the first that overlaps one of the second.
        host: String,
    },
    /// A grant's limits that cannot be written.
    #[error("the limits of grant {grant}: {source}")]
    Scope {
        /// The grant.
        grant: GrantId,
        /// What is wrong with them.
        source: ScopeError,
    },
    /// An end that is not after the beginning, or a time before 1970.
    #[error("a lease ends after it begins, and not before 1970")]
    Times,
    /// A name (of a provider or a key) that is empty or longer than 128 bytes.
    #[error("`{0}` is empty or longer than 128 bytes")]
    Name(String),
    /// More than a token may hold, with room for one narrowing.
    #[error(
        "the lease would take {size} bytes of at most {MAX_BYTES}; bind fewer sets, or shorten the grants' limits"
    )]
    TooLarge {
        /// Bytes of the Biscuit.
        size: usize,
    },
    /// The library refused what was built here.
    #[error("the lease could not be built: {0}")]
    Build(String),
}

/// Mints a lease.
///
/// # Errors
/// [`MintError`]; nothing is minted then.
pub fn mint(root: &RootKeyPair, request: &MintRequest) -> Result<Minted, MintError> {
    let _ = (root, request);
    unimplemented!()
}
