//! `POST /v1/agents/{id}/rotate-key`

use axum::Json;
use axum::extract::State;
use store::{AuthMethod, RotateKeyError};

use super::AgentWithKey;
use crate::AppState;
use crate::api_key::{ApiKey, KeyHolder};
use crate::auth::Person;
use crate::error::ApiError;
use crate::extract::Id;
use crate::problem::{Code, Problem};
use crate::text::excerpt;

/// Puts a new key in place of an agent's key, which ends at once with the agent's tokens and leases: whoever had the old key has
/// nothing any more.
#[utoipa::path(post, path = "/v1/agents/{id}/rotate-key", tag = "agents", operation_id = "rotateAgentKey",
    params(("id" = String, Path), ("Idempotency-Key" = Option<String>, Header, description = "Repeats have one effect for 24 h")),
    responses((status = 200, body = AgentWithKey), (status = 409, body = Problem)))]
pub(crate) async fn handle(
    State(state): State<AppState>,
    person: Person,
    id: Id,
) -> Result<Json<AgentWithKey>, ApiError> {
    let key = ApiKey::generate(KeyHolder::Agent);
    let agents = state.store.agents();
    let agent = agents
        .rotate_key(&person.org, &id.parse("agent")?, &key.hash(), &person.actor)
        .await
        .map_err(|error| match error {
            RotateKeyError::NoKey(method) => no_key(&id.0, method),
            other => other.into(),
        })?;
    let agent = agent.ok_or_else(|| ApiError::not_found("agent", &id.0))?;
    Ok(Json(AgentWithKey {
        agent: agent.into(),
        api_key: Some(key.reveal().to_owned()),
    }))
}

fn no_key(agent: &str, method: AuthMethod) -> ApiError {
    let agent = excerpt(agent);
    let detail = format!(
        "agent {agent} authenticates by {method} and has no key; change what it authenticates by with PATCH /v1/agents/{{id}}"
    );
    ApiError::new(Code::WrongAuthMethod, detail)
}
