//! `GET /v1/agents/me`

use axum::Json;
use axum::extract::State;

use super::AgentView;
use crate::AppState;
use crate::auth::{Caller, unauthenticated};
use crate::error::ApiError;
use crate::problem::{Code, Problem};

/// Shows the agent that asks.
#[utoipa::path(get, path = "/v1/agents/me", tag = "agents", operation_id = "getOwnAgent",
    responses((status = 200, body = AgentView), (status = 403, body = Problem)))]
pub(crate) async fn handle(
    State(state): State<AppState>,
    caller: Caller,
) -> Result<Json<AgentView>, ApiError> {
    let Some(id) = caller.agent() else {
        let detail =
            "this shows an agent to itself; a person reads GET /v1/agents/{id}, or GET /v1/auth/me";
        return Err(ApiError::new(Code::Forbidden, detail));
    };
    let agent = state.store.agents().get(caller.org(), id).await?;
    Ok(Json(agent.ok_or_else(unauthenticated)?.into()))
}
