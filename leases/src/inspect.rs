//! Inspection: what a lease says, without knowing whether it is true.

use serde::Serialize;
use time::OffsetDateTime;

use crate::{
    attenuate::AttenuateError,
    block,
    id::{AgentId, GrantId, LeaseId, OrgId, SetId},
    revocation::RevocationId,
    scope::{Action, HostPattern, Keys, Kind, Scope},
    token::PresentedToken,
};

/// What a lease says. The signatures were not looked at: decide nothing by it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Inspection {
    /// The root key that it names.
    pub root_key_id: Option<u32>,
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
    /// From when.
    #[serde(with = "time::serde::rfc3339")]
    pub issued_at: OffsetDateTime,
    /// Until when, by all blocks.
    #[serde(with = "time::serde::rfc3339")]
    pub expires_at: OffsetDateTime,
    /// The sets.
    pub bindings: Vec<InspectedBinding>,
    /// The blocks, the authority block first.
    pub blocks: Vec<InspectedBlock>,
    /// Whether it cannot be narrowed further.
    pub sealed: bool,
}

/// A set that a lease binds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InspectedBinding {
    /// The set.
    pub secret_set_id: SetId,
    /// The grant.
    pub grant_id: GrantId,
    /// The provider's template.
    pub provider: String,
    /// Where the template sends.
    pub hosts: Vec<HostPattern>,
    /// The keys.
    pub keys: Keys,
    /// The grant's limits.
    pub constraints: Scope,
}

/// A block of a lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InspectedBlock {
    /// What revokes it.
    pub revocation_id: RevocationId,
    /// What it narrows, a line each; none for the authority block.
    pub limits: Vec<String>,
}

/// Reads a lease without a key.
///
/// # Errors
/// [`AttenuateError::Unreadable`] if it is a lease in form only.
pub fn inspect(token: &PresentedToken) -> Result<Inspection, AttenuateError> {
    let unreadable = |error: &dyn std::fmt::Display| AttenuateError::Unreadable(error.to_string());
    let container = block::check_container(token.bytes()).map_err(|error| unreadable(&error))?;
    let contents = block::read(&container).map_err(|error| unreadable(&error))?;
    let expires_at = contents.effective_expiry();
    let signatures = std::iter::once(&container.authority)
        .chain(&container.blocks)
        .map(|block| block.signature.as_slice());
    let limits = std::iter::once(vec![]).chain(contents.narrowings.iter().map(|block| {
        let limits = block.limits.iter().map(ToString::to_string);
        let others = block.others.iter().map(|other| other.source.clone());
        limits.chain(others).collect()
    }));
    let blocks = signatures
        .zip(limits)
        .map(|(signature, limits)| {
            let revocation_id =
                RevocationId::from_bytes(signature).map_err(|error| unreadable(&error))?;
            Ok(InspectedBlock {
                revocation_id,
                limits,
            })
        })
        .collect::<Result<_, AttenuateError>>()?;
    let authority = contents.authority;
    Ok(Inspection {
        root_key_id: contents.root_key_id,
        org: authority.org,
        agent: authority.agent,
        lease: authority.lease,
        kind: authority.kind,
        action: authority.action,
        issued_at: authority.issued_at,
        expires_at,
        bindings: authority
            .bindings
            .into_iter()
            .map(|binding| InspectedBinding {
                secret_set_id: binding.set,
                grant_id: binding.grant,
                provider: binding.provider,
                hosts: binding.hosts,
                keys: binding.keys,
                constraints: binding.scope,
            })
            .collect(),
        blocks,
        sealed: contents.is_sealed,
    })
}
