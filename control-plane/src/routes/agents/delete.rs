//! `DELETE /v1/agents/{id}`

use axum::extract::State;
use axum::http::StatusCode;

use crate::AppState;
use crate::auth::Person;
use crate::error::ApiError;
use crate::extract::Id;

/// Deletes an agent: its key, grants and leases end at once.
#[utoipa::path(delete, path = "/v1/agents/{id}", tag = "agents", operation_id = "deleteAgent",
    params(("id" = String, Path)), responses((status = 204)))]
pub(crate) async fn handle(
    State(state): State<AppState>,
    person: Person,
    id: Id,
) -> Result<StatusCode, ApiError> {
    let existed = state
        .store
        .agents()
        .delete(&person.org, &id.parse("agent")?, &person.actor)
        .await?;
    if existed {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(ApiError::not_found("agent", &id.0))
    }
}
