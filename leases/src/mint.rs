//! Minting: a lease's authority block, signed by the root key.

use biscuit_auth::{Biscuit, KeyPair};
use time::OffsetDateTime;
use zeroize::Zeroizing;

use crate::{
    authority,
    host::HostPattern,
    id::{AgentId, GrantId, LeaseId, OrgId, SetId},
    net,
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
    /// More than a token may hold.
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
/// How long it may live, the caller decides; here it only has to end after it begins.
///
/// # Errors
/// [`MintError`]; nothing is minted then.
pub fn mint(root: &RootKeyPair, request: &MintRequest) -> Result<Minted, MintError> {
    let request = canonical(request)?;
    check_bindings(&request.bindings)?;
    let biscuit = construct(&request, root.id(), root.pair())?;
    let token = Token::of_lease(&Zeroizing::new(biscuit.to_vec().map_err(build)?))?;
    let signature = biscuit.revocation_identifiers();
    let revocation_id = signature
        .first()
        .and_then(|id| RevocationId::from_bytes(id).ok())
        .ok_or_else(|| MintError::Build("the block has no Ed25519 signature".to_owned()))?;
    Ok(Minted {
        token,
        revocation_id,
        expires_at: request.expires_at,
    })
}

/// The lease as the library builds it, signed by `pair`.
pub(crate) fn construct(
    request: &MintRequest,
    root_key_id: u32,
    pair: &KeyPair,
) -> Result<Biscuit, MintError> {
    Biscuit::builder()
        .root_key_id(root_key_id)
        .merge(authority::write(request))
        .build(pair)
        .map_err(build)
}

impl Token {
    /// A lease that fits a token.
    pub(crate) fn of_lease(bytes: &[u8]) -> Result<Self, MintError> {
        Self::from_bytes(bytes).map_err(|_| MintError::TooLarge { size: bytes.len() })
    }
}

pub(crate) fn build(error: impl std::fmt::Display) -> MintError {
    MintError::Build(error.to_string())
}

/// Tokens count in seconds since 1970: both times are cut, so that a lease never outlives what was asked for. Networks
/// get their one spelling.
pub(crate) fn canonical(request: &MintRequest) -> Result<MintRequest, MintError> {
    let cut = |at: OffsetDateTime| OffsetDateTime::from_unix_timestamp(at.unix_timestamp()).ok();
    let (Some(issued_at), Some(expires_at)) = (cut(request.issued_at), cut(request.expires_at))
    else {
        return Err(MintError::Times);
    };
    if issued_at < OffsetDateTime::UNIX_EPOCH || expires_at <= issued_at {
        return Err(MintError::Times);
    }
    let mut request = request.clone();
    request.issued_at = issued_at;
    request.expires_at = expires_at;
    for net in request
        .bindings
        .iter_mut()
        .flat_map(|binding| &mut binding.scope.cidrs)
    {
        *net = net::canonical(*net);
    }
    Ok(request)
}

/// Checks what every lease must hold, also one that is read back.
pub(crate) fn check_bindings(bindings: &[Binding]) -> Result<(), MintError> {
    if bindings.is_empty() {
        return Err(MintError::NoBinding);
    }
    for (at, binding) in bindings.iter().enumerate() {
        check_binding(binding)?;
        for other in &bindings[..at] {
            if other.set == binding.set {
                return Err(MintError::DuplicateSet(binding.set.clone()));
            }
            if let Some(host) = shared_host(other, binding) {
                return Err(MintError::AmbiguousHosts {
                    a: other.set.clone(),
                    b: binding.set.clone(),
                    host: host.to_string(),
                });
            }
        }
    }
    Ok(())
}

fn check_binding(binding: &Binding) -> Result<(), MintError> {
    binding.scope.check().map_err(|source| MintError::Scope {
        grant: binding.grant.clone(),
        source,
    })?;
    if reach(binding).next().is_none() {
        return Err(MintError::NoHost(binding.set.clone()));
    }
    let keys = match &binding.keys {
        Keys::All => &[],
        Keys::Only(keys) => keys.as_slice(),
    };
    match keys
        .iter()
        .chain([&binding.provider])
        .find(|name| name.is_empty() || name.len() > MAX_NAME_BYTES)
    {
        Some(name) => Err(MintError::Name(name.clone())),
        None => Ok(()),
    }
}

/// The most bytes of a provider's or a key's name.
const MAX_NAME_BYTES: usize = 128;

/// Where a binding may send: a host of the template, and within it one of the grant, if the grant names hosts.
fn reach(binding: &Binding) -> impl Iterator<Item = (&HostPattern, Option<&HostPattern>)> {
    binding.hosts.iter().flat_map(|host| {
        let limits = &binding.scope.hosts;
        let within = limits.iter().filter(|limit| limit.overlaps(host)).map(Some);
        let unlimited = limits.is_empty().then_some(None);
        within.chain(unlimited).map(move |limit| (host, limit))
    })
}

/// A pattern of the first binding that some host has which the second one serves too.
///
/// Patterns are compared in pairs: it may name a host that only three of four patterns have, and never misses one.
fn shared_host<'a>(left: &'a Binding, right: &Binding) -> Option<&'a HostPattern> {
    let meet = |a: Option<&HostPattern>, b: Option<&HostPattern>| match (a, b) {
        (Some(a), Some(b)) => a.overlaps(b),
        (None, _) | (_, None) => true,
    };
    reach(left).find_map(|(host, limit)| {
        reach(right)
            .any(|(other, other_limit)| {
                host.overlaps(other)
                    && meet(limit, Some(other))
                    && meet(Some(host), other_limit)
                    && meet(limit, other_limit)
            })
            .then_some(limit.unwrap_or(host))
    })
}

#[cfg(test)]
mod tests;
