//! `DELETE /v1/vault/grants/{id}`

use axum::extract::State;
use axum::http::StatusCode;

use crate::AppState;
use crate::auth::Person;
use crate::error::ApiError;
use crate::extract::Id;

/// Revokes a grant: once this answers, no further request is injected by it, on any node and in any open tunnel.
#[utoipa::path(delete, path = "/v1/vault/grants/{id}", tag = "grants", operation_id = "revokeGrant",
    params(("id" = String, Path)), responses((status = 204)))]
pub(crate) async fn handle(
    State(state): State<AppState>,
    person: Person,
    id: Id,
) -> Result<StatusCode, ApiError> {
    let grant = state
        .store
        .grants()
        .revoke(&person.org, &id.parse("grant")?, &person.actor)
        .await?;
    grant
        .map(|_| StatusCode::NO_CONTENT)
        .ok_or_else(|| ApiError::not_found("grant", &id.0))
}
