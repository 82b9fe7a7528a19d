//! `GET /v1/vault/leases/{id}`

use axum::Json;
use axum::extract::State;

use super::{LeaseView, find};
use crate::AppState;
use crate::auth::Caller;
use crate::error::ApiError;
use crate::extract::Id;

/// Shows a lease.
#[utoipa::path(get, path = "/v1/vault/leases/{id}", tag = "leases", operation_id = "getLease",
    params(("id" = String, Path)), responses((status = 200, body = LeaseView)))]
pub(crate) async fn handle(
    State(state): State<AppState>,
    caller: Caller,
    id: Id,
) -> Result<Json<LeaseView>, ApiError> {
    let lease = find(&state, &caller, &id).await?;
    Ok(Json(LeaseView::new(lease, state.clock.now())))
}
