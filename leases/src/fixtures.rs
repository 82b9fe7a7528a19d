//! What the tests of this crate share.

use std::{net::IpAddr, sync::Arc};

use time::{Duration, OffsetDateTime, macros::datetime};

use crate::{
    AccessRequest, Action, AgentId, Binding, Denial, GrantId, HostPattern, Keys, Kind, LeaseId,
    MintRequest, Narrowing, OrgId, Permit, RootKeyPair, RootPublicKeys, Scheme, Scope, SetId,
    Token, VerifiedLease, attenuate, authorize, mint, verify,
};

/// A Sunday.
pub(crate) const NOW: OffsetDateTime = datetime!(2026-11-22 07:00 UTC);

pub(crate) fn root() -> RootKeyPair {
    RootKeyPair::from_secret_bytes(1, &[7; 32]).unwrap()
}

pub(crate) fn keys() -> RootPublicKeys {
    RootPublicKeys::new(vec![root().public()])
}

pub(crate) fn hosts(texts: &[&str]) -> Vec<HostPattern> {
    texts
        .iter()
        .map(|text| HostPattern::parse(text).unwrap())
        .collect()
}

/// A scope from the JSON of the API.
pub(crate) fn scope(json: &str) -> Scope {
    serde_json::from_str(json).unwrap()
}

pub(crate) fn binding(provider: &str, template: &[&str], scope: Scope) -> Binding {
    Binding {
        set: SetId::new(NOW),
        grant: GrantId::new(NOW),
        provider: provider.to_owned(),
        hosts: hosts(template),
        keys: Keys::All,
        scope,
    }
}

pub(crate) fn stripe(scope: Scope) -> Binding {
    binding("stripe", &["api.stripe.com", "files.stripe.com"], scope)
}

pub(crate) fn github(scope: Scope) -> Binding {
    binding(
        "github",
        &["api.github.com", "*.githubusercontent.com"],
        scope,
    )
}

pub(crate) fn mint_request(bindings: Vec<Binding>) -> MintRequest {
    MintRequest {
        org: OrgId::new(NOW),
        agent: AgentId::new(NOW),
        lease: LeaseId::new(NOW),
        kind: Kind::Workflow,
        action: Action::ProxyUse,
        bindings,
        issued_at: NOW,
        expires_at: NOW + Duration::hours(1),
    }
}

pub(crate) fn minted(bindings: Vec<Binding>) -> Token {
    mint(&root(), &mint_request(bindings)).unwrap().token
}

pub(crate) fn verified(token: &Token) -> Arc<VerifiedLease> {
    Arc::new(verify(&token.present(), &keys()).unwrap())
}

pub(crate) fn narrowed(token: &Token, narrowing: &Narrowing) -> Token {
    attenuate(&token.present(), narrowing, NOW).unwrap()
}

/// A request by which all tests begin: allowed by an unlimited `stripe` binding.
pub(crate) fn request() -> AccessRequest<'static> {
    AccessRequest {
        action: Action::ProxyUse,
        scheme: Scheme::Https,
        host: "api.stripe.com",
        port: 443,
        method: "GET",
        path: "/v1/charges",
        client_ip: IpAddr::from([10, 1, 2, 3]),
    }
}

pub(crate) fn decide(token: &Token, request: &AccessRequest<'_>) -> Result<Permit, Denial> {
    authorize(&verified(token), request, NOW)
}
