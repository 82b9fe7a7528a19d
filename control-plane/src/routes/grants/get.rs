//! `GET /v1/vault/grants/{id}`

use axum::Json;
use axum::extract::State;

use super::GrantView;
use crate::AppState;
use crate::auth::Person;
use crate::error::ApiError;
use crate::extract::Id;

/// Shows a grant, also a revoked one.
#[utoipa::path(get, path = "/v1/vault/grants/{id}", tag = "grants", operation_id = "getGrant",
    params(("id" = String, Path)), responses((status = 200, body = GrantView)))]
pub(crate) async fn handle(
    State(state): State<AppState>,
    person: Person,
    id: Id,
) -> Result<Json<GrantView>, ApiError> {
    let grant = state
        .store
        .grants()
        .get(&person.org, &id.parse("grant")?)
        .await?;
    let grant = grant.ok_or_else(|| ApiError::not_found("grant", &id.0))?;
    Ok(Json(GrantView::new(grant, state.clock.now())))
}
