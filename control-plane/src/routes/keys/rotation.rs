//! `GET /v1/keys/rotations/{id}`

use axum::Json;
use axum::extract::State;

use super::RotationView;
use crate::AppState;
use crate::auth::Person;
use crate::error::ApiError;
use crate::extract::Id;

/// How far a rotation is.
#[utoipa::path(get, path = "/v1/keys/rotations/{id}", tag = "keys", operation_id = "getRotation", params(("id" = String, Path)),
    responses((status = 200, body = RotationView)))]
pub(crate) async fn handle(
    State(state): State<AppState>,
    person: Person,
    id: Id,
) -> Result<Json<RotationView>, ApiError> {
    let found = state.store.rotations().get(&person.org, &id.0).await?;
    let rotation = found.ok_or_else(|| ApiError::not_found("rotation", &id.0))?;
    Ok(Json(rotation.into()))
}
