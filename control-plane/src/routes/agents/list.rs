//! `GET /v1/agents`

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::AgentView;
use crate::AppState;
use crate::auth::Person;
use crate::error::ApiError;
use crate::extract::{Paging, Params};

/// A page of agents.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AgentList {
    agents: Vec<AgentView>,
    next_cursor: Option<String>,
}

/// Lists agents in the order they were made.
#[utoipa::path(get, path = "/v1/agents", tag = "agents", operation_id = "listAgents", params(Paging),
    responses((status = 200, body = AgentList)))]
pub(crate) async fn handle(
    State(state): State<AppState>,
    person: Person,
    Params(paging): Params<Paging>,
) -> Result<Json<AgentList>, ApiError> {
    let page = state
        .store
        .agents()
        .list(&person.org, &paging.request()?)
        .await?;
    let agents = page.items.into_iter().map(AgentView::from).collect();
    Ok(Json(AgentList {
        agents,
        next_cursor: page.next_cursor,
    }))
}
