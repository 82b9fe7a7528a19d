//! `POST /v1/vault/leases/request/mint`: a request lease out of a workflow lease.

use axum::extract::State;
use axum::http::StatusCode;
use leases::id::LeaseId;
use leases::mint::{Binding, MintRequest};
use leases::scope::{Action, Keys, Kind};
use leases::verify::VerifiedLease;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use vault::Secret;
use zeroize::Zeroize;

use super::create::{
    CreatedLease, DEFAULT_TTL, Origin, check_clock, check_minting, check_ttl, issue,
};
use crate::AppState;
use crate::auth::Caller;
use crate::entries::check_key;
use crate::error::ApiError;
use crate::extract::Json;
use crate::held_lease::{self, AnyId};
use crate::problem::{Code, Problem};
use crate::text::excerpt;

/// A request lease to be minted. An unknown field is refused: a mistyped limit would widen it.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct MintFromWorkflow {
    /// `clv_...`
    #[schema(value_type = String)]
    workflow_lease_token: Secret,
    /// One set of the workflow lease.
    #[schema(value_type = String)]
    secret_set_id: AnyId,
    /// The workflow lease's own: `proxy_use` (also `proxy`) or `export_plaintext` (also `export` and `read`).
    action: Option<String>,
    /// Narrows what the workflow lease covers: `"*"` or a list of names.
    #[schema(value_type = Option<Object>)]
    keys: Option<Keys>,
    /// Default 60; at most 900, and never past the workflow lease.
    ttl_seconds: Option<i64>,
}

/// A new request lease.
#[derive(Serialize, ToSchema)]
pub(crate) struct MintedRequest {
    ok: bool,
    #[serde(flatten)]
    lease: CreatedLease,
    /// The same as `token`, by Clawb's name.
    request_lease_token: String,
    /// The workflow lease, with which it ends.
    #[schema(value_type = String)]
    workflow_lease_id: LeaseId,
}

impl Drop for MintedRequest {
    fn drop(&mut self) {
        self.request_lease_token.zeroize();
    }
}

/// Mints a lease for one use out of a workflow lease: never wider nor longer than it, and revoked with it.
#[utoipa::path(post, path = "/v1/vault/leases/request/mint", tag = "leases", operation_id = "mintRequestLease", request_body = MintFromWorkflow,
    params(("Idempotency-Key" = Option<String>, Header, description = "Repeats have one effect for 24 h")),
    responses((status = 201, body = MintedRequest), (status = 401, body = Problem), (status = 403, body = Problem), (status = 422, body = Problem)))]
pub(crate) async fn handle(
    State(state): State<AppState>,
    caller: Caller,
    Json(body): Json<MintFromWorkflow>,
) -> Result<(StatusCode, axum::Json<MintedRequest>), ApiError> {
    let held = held_lease::by_token(&state, &caller, &body.workflow_lease_token)?;
    let parent = held.lease();
    check_clock(&state)?;
    check_parent(parent)?;
    let ttl = check_ttl(body.ttl_seconds.unwrap_or(DEFAULT_TTL), Kind::Request)?;
    let keys = body.keys.unwrap_or(Keys::All);
    let binding = narrow(parent, &body.secret_set_id, &keys)?;
    let action = read_action(body.action.as_deref(), parent)?;
    let cut_off = check_minting(&state, &caller, parent.agent()).await?;
    let now = state.clock.now();
    if parent.effective_expiry() <= now {
        let detail = format!(
            "workflow lease {} has expired; mint another with POST /v1/vault/leases",
            parent.lease()
        );
        return Err(ApiError::new(Code::LeaseExpired, detail));
    }
    let request = MintRequest {
        org: parent.org().clone(),
        agent: parent.agent().clone(),
        lease: LeaseId::new(now),
        kind: Kind::Request,
        action,
        bindings: vec![binding],
        issued_at: now,
        expires_at: parent.effective_expiry().min(now + ttl),
    };
    let keys = request.bindings[0].keys.clone();
    let origin = Origin {
        keys,
        parent: Some(parent.lease().clone()),
        cut_off,
    };
    let lease = issue(&state, &caller, &request, origin).await?;
    let answer = MintedRequest {
        ok: true,
        request_lease_token: lease.token.clone(),
        lease,
        workflow_lease_id: parent.lease().clone(),
    };
    Ok((StatusCode::CREATED, axum::Json(answer)))
}

/// What a block narrows, a new lease would not hold.
fn check_parent(parent: &VerifiedLease) -> Result<(), ApiError> {
    if parent.kind() != Kind::Workflow {
        let detail = format!(
            "lease {} is a request lease; mint one of kind workflow first",
            parent.lease()
        );
        return Err(ApiError::new(Code::GrantDenied, detail));
    }
    if parent.block_count() > 1 {
        let detail = format!(
            "the token of lease {} was narrowed, and a lease minted from it would not be; mint from the token as it was minted, and narrow what comes of it with `claviger lease narrow`",
            parent.lease()
        );
        return Err(ApiError::new(Code::LeaseScope, detail));
    }
    Ok(())
}

/// The binding of one set, as the workflow lease has it, with some of its keys.
fn narrow(parent: &VerifiedLease, set: &AnyId, keys: &Keys) -> Result<Binding, ApiError> {
    let AnyId(id) = set;
    let mut bindings = parent.bindings().iter();
    let binding = bindings.find(|binding| binding.set.as_str() == id);
    let Some(binding) = binding else {
        let detail = format!(
            "lease {} does not cover the set {}",
            parent.lease(),
            excerpt(id)
        );
        return Err(ApiError::new(Code::GrantDenied, detail));
    };
    let Keys::Only(names) = keys else {
        return Ok(binding.clone());
    };
    if names.is_empty() {
        return Err(ApiError::invalid(
            "keys",
            "is empty, so the lease would cover nothing; leave it out, or name a key",
        ));
    }
    names.iter().try_for_each(|name| check_key("keys", name))?;
    if let Some(outside) = names.iter().find(|name| !binding.keys.allows(name)) {
        let detail = format!(
            "key {outside} is outside lease {} (allowed: {})",
            parent.lease(),
            binding.keys
        );
        return Err(ApiError::new(Code::GrantDenied, detail));
    }
    Ok(Binding {
        keys: keys.clone(),
        ..binding.clone()
    })
}

/// The action by one of its names. Another one than the workflow lease's would be wider.
fn read_action(named: Option<&str>, parent: &VerifiedLease) -> Result<Action, ApiError> {
    let action = match named {
        None => parent.action(),
        Some(named) => action_named(named)?,
    };
    if action == parent.action() {
        return Ok(action);
    }
    let detail = format!(
        "workflow lease {} is for {} and not for {action}; mint another with that action, from a grant that holds it",
        parent.lease(),
        parent.action()
    );
    Err(ApiError::new(Code::GrantDenied, detail))
}

/// What Clawb's clients call the two actions.
pub(crate) fn action_named(name: &str) -> Result<Action, ApiError> {
    match name {
        "proxy_use" | "proxy" => Ok(Action::ProxyUse),
        "export_plaintext" | "export" | "read" => Ok(Action::ExportPlaintext),
        "mint_workflow_lease" => Ok(Action::MintWorkflowLease),
        _ => Err(ApiError::invalid(
            "action",
            "must be proxy_use, export_plaintext or mint_workflow_lease",
        )),
    }
}
