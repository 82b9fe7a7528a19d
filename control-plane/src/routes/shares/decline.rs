//! `POST /v1/shares/{id}/decline`

use axum::extract::State;
use axum::http::StatusCode;

use super::{find_received, unknown};
use crate::AppState;
use crate::auth::Caller;
use crate::error::ApiError;
use crate::extract::Id;
use crate::problem::Problem;

/// Declines what was shared with the caller, also after it was accepted: it opens no more. Again changes nothing.
#[utoipa::path(post, path = "/v1/shares/{id}/decline", tag = "shares", operation_id = "declineShare",
    params(("id" = String, Path)), responses((status = 204), (status = 404, body = Problem)))]
pub(crate) async fn handle(
    State(state): State<AppState>,
    caller: Caller,
    id: Id,
) -> Result<StatusCode, ApiError> {
    let named = find_received(&state, &id, &caller).await?;
    let shares = state.store.shares();
    let declined = shares
        .decline(&named.share, caller.principal.id(), &caller.actor())
        .await?;
    declined
        .then_some(StatusCode::NO_CONTENT)
        .ok_or_else(unknown)
}
