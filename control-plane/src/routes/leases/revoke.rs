//! `DELETE /v1/vault/leases/{id}`

use axum::extract::State;
use axum::http::StatusCode;

use super::find;
use crate::AppState;
use crate::auth::Caller;
use crate::error::ApiError;
use crate::extract::Id;

/// Revokes a lease and all that was narrowed from it: once this answers, no further request is injected by it.
#[utoipa::path(delete, path = "/v1/vault/leases/{id}", tag = "leases", operation_id = "revokeLease",
    params(("id" = String, Path)), responses((status = 204)))]
pub(crate) async fn handle(
    State(state): State<AppState>,
    caller: Caller,
    id: Id,
) -> Result<StatusCode, ApiError> {
    let lease = find(&state, &caller, &id).await?;
    let revoked = state
        .store
        .leases()
        .revoke(caller.org(), &lease.id, &caller.actor())
        .await?;
    revoked
        .map(|_| StatusCode::NO_CONTENT)
        .ok_or_else(|| ApiError::not_found("lease", &id.0))
}
