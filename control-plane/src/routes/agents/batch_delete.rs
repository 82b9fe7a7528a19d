//! `POST /v1/agents/batch-delete`

use axum::extract::State;
use leases::id::AgentId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::AppState;
use crate::auth::Person;
use crate::error::ApiError;
use crate::extract::Json;

/// The agents to be deleted.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BatchDelete {
    /// 1 to 500 ids.
    agent_ids: Vec<String>,
}

/// What became of them.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BatchDeleted {
    /// How many were deleted.
    deleted: usize,
    /// The ids of which there is no agent.
    not_found: Vec<String>,
}

/// Deletes agents: their keys, grants and leases end at once. What there is not is named and keeps nothing from being deleted.
#[utoipa::path(post, path = "/v1/agents/batch-delete", tag = "agents", operation_id = "batchDeleteAgents", request_body = BatchDelete,
    params(("Idempotency-Key" = Option<String>, Header, description = "Repeats have one effect for 24 h")),
    responses((status = 200, body = BatchDeleted)))]
pub(crate) async fn handle(
    State(state): State<AppState>,
    person: Person,
    Json(body): Json<BatchDelete>,
) -> Result<axum::Json<BatchDeleted>, ApiError> {
    let mut named = body.agent_ids;
    if named.is_empty() || named.len() > MAX_AGENTS {
        let rule = format_args!("must name 1 to {MAX_AGENTS} agents");
        return Err(ApiError::invalid("agent_ids", rule));
    }
    named.sort_unstable();
    named.dedup();
    let ids: Vec<AgentId> = named.iter().filter_map(|id| id.parse().ok()).collect();
    let agents = state.store.agents();
    let deleted = agents.delete_many(&person.org, &ids, &person.actor).await?;
    named.retain(|id| deleted.iter().all(|gone| gone.as_str() != id));
    Ok(axum::Json(BatchDeleted {
        deleted: deleted.len(),
        not_found: named,
    }))
}

const MAX_AGENTS: usize = 500;
