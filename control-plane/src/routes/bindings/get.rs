//! `GET /v1/agents/{id}/bindings/{binding}`

use axum::extract::State;

use super::{BindingView, Place, find, visible};
use crate::AppState;
use crate::auth::Caller;
use crate::error::ApiError;

/// Shows one binding, by its id or name. An agent sees its own.
#[utoipa::path(get, path = "/v1/agents/{id}/bindings/{binding}", tag = "bindings", operation_id = "getBinding",
    params(("id" = String, Path), ("binding" = String, Path)), responses((status = 200, body = BindingView)))]
pub(crate) async fn handle(
    State(state): State<AppState>,
    caller: Caller,
    place: Place,
) -> Result<axum::Json<BindingView>, ApiError> {
    let agent = visible(&state, &caller, &place.agent).await?;
    let binding = find(&state, caller.org(), &agent, &place.binding).await?;
    Ok(axum::Json(binding.into()))
}
