//! `POST /v1/vault/secret-sets/{id}/rollback`

use axum::extract::State;
use serde::Deserialize;
use store::WriteSetError;
use utoipa::ToSchema;

use super::SecretSetView;
use crate::AppState;
use crate::auth::Person;
use crate::error::ApiError;
use crate::extract::{Id, Json};
use crate::problem::Code;

/// Which contents to take up again.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rollback {
    version: u64,
}

/// Makes a next version with the contents of an earlier one.
#[utoipa::path(post, path = "/v1/vault/secret-sets/{id}/rollback", tag = "secret sets", operation_id = "rollbackSecretSet", request_body = Rollback,
    params(("id" = String, Path), ("Idempotency-Key" = Option<String>, Header, description = "Repeats have one effect for 24 h")),
    responses((status = 200, body = SecretSetView)))]
pub(crate) async fn handle(
    State(state): State<AppState>,
    person: Person,
    id: Id,
    Json(body): Json<Rollback>,
) -> Result<axum::Json<SecretSetView>, ApiError> {
    let sets = state.store.secret_sets();
    let set = sets
        .rollback(
            &person.org,
            &id.parse("secret set")?,
            body.version,
            &person.actor,
        )
        .await;
    let set = set.map_err(|error| match error {
        WriteSetError::NoSuchVersion(version) => {
            let detail = format!(
                "{} has no version {version}; GET /v1/vault/secret-sets/{}/versions lists them",
                id.0, id.0
            );
            ApiError::new(Code::NotFound, detail)
        }
        other => other.into(),
    })?;
    let set = set.ok_or_else(|| ApiError::not_found("secret set", &id.0))?;
    Ok(axum::Json(set.into()))
}
