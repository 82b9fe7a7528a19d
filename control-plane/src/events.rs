//! Audit events that belong to no change of a row: authentication.

use leases::id::{AgentId, OrgId, SetId};
use store::{Actor, ActorKind, Decision, NewEvent, Share};

use crate::AppState;
use crate::auth::{Caller, Means, Principal};
use crate::context::RequestContext;
use crate::error::ApiError;
use crate::problem::Code;

/// Records that a credential was refused, with how many before it were not recorded.
///
/// The answer is a refusal anyway, so a store that does not take the record changes nothing but the log.
pub(crate) async fn auth_failed(
    state: &AppState,
    context: &RequestContext,
    why: &str,
    unrecorded: u64,
) {
    let error = match unrecorded {
        0 => why.to_owned(),
        more => format!("{why}; {more} more were refused and not recorded"),
    };
    let event = NewEvent {
        action: "auth.failure",
        decision: Decision::Deny,
        error: Some(error),
        ..NewEvent::default()
    };
    let actor = Actor {
        client_ip: context.client_ip,
        request_id: Some(context.id.clone()),
        ..Actor::system("anonymous")
    };
    if let Err(error) = state
        .store
        .audit()
        .append(&state.home_org, event, &actor)
        .await
    {
        tracing::error!(error = %error, "a refused credential was not recorded");
    }
}

/// Records that an agent exchanged its key for a token. Fails closed: without the record there is no token.
pub(crate) async fn agent_exchanged(
    state: &AppState,
    org: &OrgId,
    agent: &AgentId,
    context: &RequestContext,
) -> Result<(), store::StoreError> {
    let actor = Actor {
        kind: ActorKind::Agent,
        id: agent.to_string(),
        client_ip: context.client_ip,
        request_id: Some(context.id.clone()),
    };
    let event = NewEvent {
        action: "auth.success",
        agent_id: Some(agent.clone()),
        ..NewEvent::default()
    };
    state
        .store
        .audit()
        .append(org, event, &actor)
        .await
        .map(|_| ())
}

/// Records that a lease was not minted, within the limit of denials.
pub(crate) async fn mint_denied(
    state: &AppState,
    caller: &Caller,
    agent: &AgentId,
    set: Option<&SetId>,
    code: Code,
) -> Result<(), store::StoreError> {
    if !state.auth_limits.may_record_denial() {
        return Ok(());
    }
    let event = NewEvent {
        action: "lease.mint",
        decision: Decision::Deny,
        error: Some(code.as_str().to_owned()),
        agent_id: Some(agent.clone()),
        secret_set_id: set.cloned(),
        ..NewEvent::default()
    };
    let audit = state.store.audit();
    audit
        .append(caller.org(), event, &caller.actor())
        .await
        .map(|_| ())
}

/// Records that something was not done to a secret, within the limit of denials.
pub(crate) async fn secret_denied(
    state: &AppState,
    caller: &Caller,
    denied: NewEvent,
) -> Result<(), store::StoreError> {
    if !state.auth_limits.may_record_denial() {
        return Ok(());
    }
    let event = NewEvent {
        decision: Decision::Deny,
        error: Some(Code::PolicyDenied.as_str().to_owned()),
        agent_id: caller.agent().cloned(),
        ..denied
    };
    let audit = state.store.audit();
    audit
        .append(caller.org(), event, &caller.actor())
        .await
        .map(|_| ())
}

/// Records that a share was not opened, within the limit of denials: its maker sees who tried.
pub(crate) async fn share_denied(
    state: &AppState,
    share: &Share,
    why: &'static str,
    actor: &Actor,
) -> Result<(), store::StoreError> {
    if !state.auth_limits.may_record_denial() {
        return Ok(());
    }
    let event = NewEvent {
        decision: Decision::Deny,
        error: Some(why.to_owned()),
        ..store::shares::event(share, "secret.export")
    };
    let audit = state.store.audit();
    audit.append(&share.org, event, actor).await.map(|_| ())
}

/// Records that a call came from an address that its organisation does not take, within the limit of denials.
pub(crate) async fn address_denied(
    state: &AppState,
    principal: &Principal,
    context: &RequestContext,
    why: &ApiError,
) {
    // Anything else is no denial but a store that does not answer.
    if why.code() != Code::AddressDenied || !state.auth_limits.may_record_denial() {
        return;
    }
    let event = NewEvent {
        action: "auth.failure",
        decision: Decision::Deny,
        error: Some(Code::AddressDenied.as_str().to_owned()),
        ..NewEvent::default()
    };
    let audit = state.store.audit();
    if let Err(error) = audit
        .append(principal.org(), event, &principal.actor(context))
        .await
    {
        tracing::error!(error = %error, "a call from a denied address was not recorded");
    }
}

/// Records the use of a key, once an hour for each credential and address: one event a call would bury the others.
pub(crate) async fn key_used(
    state: &AppState,
    principal: &Principal,
    means: &Means,
    context: &RequestContext,
) {
    let used = match means {
        Means::PersonalKey { id, .. } => id.as_str(),
        Means::AgentKey | Means::Signature | Means::Token { .. } => principal.id(),
    };
    let seen = (used.to_owned(), context.client_ip);
    if state.seen.contains_key(&seen) {
        return;
    }
    state.seen.insert(seen, ());
    let event = NewEvent {
        action: "auth.success",
        ..NewEvent::default()
    };
    if let Err(error) = state
        .store
        .audit()
        .append(principal.org(), event, &principal.actor(context))
        .await
    {
        tracing::error!(error = %error, "a key's use was not recorded");
    }
    if let Means::PersonalKey { id, .. } = means
        && let Err(error) = state.store.personal_keys().touch(principal.org(), id).await
    {
        tracing::warn!(error = %error, "a key's last use was not noted");
    }
}
