//! `GET /v1/providers/{name}`

use axum::Json;
use axum::extract::State;

use super::ProviderView;
use crate::AppState;
use crate::auth::Person;
use crate::error::ApiError;
use crate::extract::Id;

/// Shows a provider template.
#[utoipa::path(get, path = "/v1/providers/{name}", tag = "providers", operation_id = "getProvider",
    params(("name" = String, Path)), responses((status = 200, body = ProviderView)))]
pub(crate) async fn handle(
    State(state): State<AppState>,
    _person: Person,
    name: Id,
) -> Result<Json<ProviderView>, ApiError> {
    let template = state.catalog().get(&name.0);
    let template = template.ok_or_else(|| ApiError::not_found("provider", &name.0))?;
    Ok(Json(template.as_ref().into()))
}
