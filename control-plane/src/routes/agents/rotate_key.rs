//! `POST /v1/agents/{id}/rotate-key`

use axum::Json;
use axum::extract::State;

use super::AgentWithKey;
use crate::AppState;
use crate::api_key::{ApiKey, KeyHolder};
use crate::auth::Person;
use crate::error::ApiError;
use crate::extract::Id;

/// Puts a new key in place of an agent's key, which ends at once.
#[utoipa::path(post, path = "/v1/agents/{id}/rotate-key", tag = "agents", operation_id = "rotateAgentKey",
    params(("id" = String, Path), ("Idempotency-Key" = Option<String>, Header, description = "Repeats have one effect for 24 h")),
    responses((status = 200, body = AgentWithKey)))]
pub(crate) async fn handle(
    State(state): State<AppState>,
    person: Person,
    id: Id,
) -> Result<Json<AgentWithKey>, ApiError> {
    let key = ApiKey::generate(KeyHolder::Agent);
    let agents = state.store.agents();
    let agent = agents
        .rotate_key(&person.org, &id.parse("agent")?, &key.hash(), &person.actor)
        .await?;
    let agent = agent.ok_or_else(|| ApiError::not_found("agent", &id.0))?;
    Ok(Json(AgentWithKey {
        agent: agent.into(),
        api_key: key.reveal().to_owned(),
    }))
}
