//! `GET /v1/vault/secret-sets/{id}/versions`

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use store::SetVersion;
use utoipa::ToSchema;

use crate::AppState;
use crate::auth::Person;
use crate::error::ApiError;
use crate::extract::Id;
use crate::timestamp::Timestamp;

/// The versions of a set, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct VersionList {
    versions: Vec<VersionView>,
}

/// One version of a set, without values.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct VersionView {
    version: u64,
    keys: Vec<String>,
    created_at: Timestamp,
    created_by: String,
    /// The version whose contents it repeats, if it is a rollback.
    rolled_back_to: Option<u64>,
}

impl From<SetVersion> for VersionView {
    fn from(version: SetVersion) -> Self {
        Self {
            version: version.version,
            keys: version.keys,
            created_at: version.created_at.into(),
            created_by: version.created_by,
            rolled_back_to: version.rolled_back_to,
        }
    }
}

/// Lists the versions of a secret set.
#[utoipa::path(get, path = "/v1/vault/secret-sets/{id}/versions", tag = "secret sets", operation_id = "listSecretSetVersions",
    params(("id" = String, Path)), responses((status = 200, body = VersionList)))]
pub(crate) async fn handle(
    State(state): State<AppState>,
    person: Person,
    id: Id,
) -> Result<Json<VersionList>, ApiError> {
    let versions = state
        .store
        .secret_sets()
        .versions(&person.org, &id.parse("secret set")?)
        .await?;
    let versions = versions.ok_or_else(|| ApiError::not_found("secret set", &id.0))?;
    Ok(Json(VersionList {
        versions: versions.into_iter().map(VersionView::from).collect(),
    }))
}
