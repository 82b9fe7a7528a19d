//! `GET /v1/vault/secret-sets/{id}`

use axum::Json;
use axum::extract::State;

use super::SecretSetView;
use crate::AppState;
use crate::auth::Person;
use crate::error::ApiError;
use crate::extract::Id;

/// Shows a secret set: names, never values.
#[utoipa::path(get, path = "/v1/vault/secret-sets/{id}", tag = "secret sets", operation_id = "getSecretSet",
    params(("id" = String, Path)), responses((status = 200, body = SecretSetView)))]
pub(crate) async fn handle(
    State(state): State<AppState>,
    person: Person,
    id: Id,
) -> Result<Json<SecretSetView>, ApiError> {
    let set = state
        .store
        .secret_sets()
        .get(&person.org, &id.parse("secret set")?)
        .await?;
    let set = set.ok_or_else(|| ApiError::not_found("secret set", &id.0))?;
    Ok(Json(set.into()))
}
