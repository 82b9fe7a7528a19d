//! `POST /v1/vault/policy/eval`: whether a grant would allow something, without doing it.

use axum::extract::State;
use leases::id::{GrantId, SetId};
use leases::scope::{Action, Keys};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::create::{NO_GRANT, Question, evaluate, find_agent};
use super::mint_request::action_named;
use crate::AppState;
use crate::auth::Caller;
use crate::entries::check_key;
use crate::error::ApiError;
use crate::extract::Json;
use crate::held_lease::AnyId;
use crate::problem::Problem;
use crate::timestamp::Timestamp;

/// The question.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EvaluatePolicy {
    #[schema(value_type = String)]
    secret_set_id: AnyId,
    /// `proxy_use` (also `proxy`), `export_plaintext` (also `export` and `read`) or `mint_workflow_lease`.
    action: String,
    /// All that a grant covers when left out.
    #[serde(default)]
    #[schema(value_type = Option<Vec<String>>)]
    keys: Vec<String>,
    /// The agent, where a person asks.
    agent_id: Option<String>,
    /// The set's environment.
    environment: Option<String>,
    /// The set's provider.
    provider: Option<String>,
}

/// The answer. It holds as long as the grants stand as they do now; the limits of the grant on hosts, paths and the like are
/// decided with each request.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PolicyEvaluation {
    /// Whether it would be allowed.
    ok: bool,
    /// `allow` or `deny`.
    decision: &'static str,
    reason: String,
    #[schema(value_type = String)]
    secret_set_id: SetId,
    #[schema(value_type = String)]
    action: Action,
    /// The grant that allows it.
    #[schema(value_type = Option<String>)]
    grant_id: Option<GrantId>,
    expires_at: Option<Timestamp>,
}

/// Says whether an agent's grants allow an action on keys of a set. Nothing is opened, minted or used.
#[utoipa::path(post, path = "/v1/vault/policy/eval", tag = "leases", operation_id = "evaluatePolicy", request_body = EvaluatePolicy,
    responses((status = 200, body = PolicyEvaluation), (status = 404, body = Problem)))]
pub(crate) async fn handle(
    State(state): State<AppState>,
    caller: Caller,
    Json(body): Json<EvaluatePolicy>,
) -> Result<axum::Json<PolicyEvaluation>, ApiError> {
    let action = action_named(&body.action)?;
    body.keys
        .iter()
        .try_for_each(|key| check_key("keys", key))?;
    let agent = find_agent(&state, &caller, body.agent_id.as_deref())
        .await?
        .id;
    let AnyId(id) = &body.secret_set_id;
    let not_found = || ApiError::not_found("secret set", id);
    let set_id = SetId::parse(id).map_err(|_| not_found())?;
    let sets = state.store.secret_sets();
    let set = sets.get(caller.org(), &set_id).await?;
    let set = set.ok_or_else(not_found)?;
    let is_other = |named: &Option<String>, own: &str| named.as_deref().is_some_and(|it| it != own);
    let grants = state.store.grants();
    let now = state.clock.now();
    let held = grants.find_for(caller.org(), &agent, &set.id, now).await?;
    // What a set is and holds, an agent learns by a grant on it alone.
    let weighed = if caller.agent().is_some() && held.is_empty() {
        Err(NO_GRANT.to_owned())
    } else if is_other(&body.environment, &set.environment) {
        Err(format!("the set is of the environment {}", set.environment))
    } else if is_other(&body.provider, &set.provider) {
        Err(format!("the set is of the provider {}", set.provider))
    } else if let Some(missing) = body.keys.iter().find(|key| !set.keys.contains(key)) {
        Err(format!("the set has no key {missing}"))
    } else {
        let keys = if body.keys.is_empty() {
            Keys::All
        } else {
            Keys::Only(body.keys)
        };
        let question = Question {
            action,
            keys,
            client: caller.actor().client_ip,
        };
        evaluate(&state, &agent, &set, question).await?
    };
    let (reason, grant) = match weighed {
        Ok(grant) => (format!("the grant {} allows it", grant.id), Some(grant)),
        Err(why) => (why, None),
    };
    Ok(axum::Json(PolicyEvaluation {
        ok: grant.is_some(),
        decision: if grant.is_some() { "allow" } else { "deny" },
        reason,
        secret_set_id: set.id,
        action,
        expires_at: grant
            .as_ref()
            .and_then(|grant| grant.expires_at)
            .map(Timestamp),
        grant_id: grant.map(|grant| grant.id),
    }))
}
