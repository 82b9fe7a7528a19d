//! `DELETE /v1/vault/secret-sets/{id}`

use axum::extract::State;
use axum::http::StatusCode;

use crate::AppState;
use crate::auth::Person;
use crate::error::ApiError;
use crate::extract::Id;

/// Deletes a secret set softly: its uses are refused at once, its name is free again.
#[utoipa::path(delete, path = "/v1/vault/secret-sets/{id}", tag = "secret sets", operation_id = "deleteSecretSet",
    params(("id" = String, Path)), responses((status = 204)))]
pub(crate) async fn handle(
    State(state): State<AppState>,
    person: Person,
    id: Id,
) -> Result<StatusCode, ApiError> {
    let existed = state
        .store
        .secret_sets()
        .delete(&person.org, &id.parse("secret set")?, &person.actor)
        .await?;
    if existed {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(ApiError::not_found("secret set", &id.0))
    }
}
