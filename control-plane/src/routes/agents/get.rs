//! `GET /v1/agents/{id}`

use axum::Json;
use axum::extract::State;

use super::AgentView;
use crate::AppState;
use crate::auth::Person;
use crate::error::ApiError;
use crate::extract::Id;

/// Shows an agent.
#[utoipa::path(get, path = "/v1/agents/{id}", tag = "agents", operation_id = "getAgent",
    params(("id" = String, Path)), responses((status = 200, body = AgentView)))]
pub(crate) async fn handle(
    State(state): State<AppState>,
    person: Person,
    id: Id,
) -> Result<Json<AgentView>, ApiError> {
    let agent = state
        .store
        .agents()
        .get(&person.org, &id.parse("agent")?)
        .await?;
    let agent = agent.ok_or_else(|| ApiError::not_found("agent", &id.0))?;
    Ok(Json(agent.into()))
}
