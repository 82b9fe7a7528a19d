//! `PUT /v1/vaults/{vault_id}/secrets/{path}`

use axum::extract::State;
use axum::http::StatusCode;
use leases::policy::Permission;
use serde::Deserialize;
use serde_json::Value;
use time::OffsetDateTime;
use utoipa::ToSchema;
use vault::Secret;

use super::{About, GENERIC, Place, SecretView, check_type, write};
use crate::AppState;
use crate::auth::Caller;
use crate::error::ApiError;
use crate::extract::Json;
use crate::problem::Problem;
use crate::timestamp::Timestamp;
use crate::vault_access::VaultAccess;

/// A version to be stored. An unknown field is refused: a mistyped limit would widen access.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PutSecret {
    /// `generic`, `password`, `api_key`, `certificate`, `private_key`, `ssh_key`, `env`, `file`, `note` or `env_bundle`.
    #[serde(default)]
    #[schema(default = "generic")]
    r#type: Option<String>,
    /// At most 1 MiB.
    #[schema(value_type = String)]
    value: Secret,
    /// At most 16 KiB; shown in lists.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    metadata: Option<Value>,
    /// From then on reading answers 410.
    #[serde(default)]
    expires_at: Option<Timestamp>,
    /// After so many reads reading answers 410; 0 for any number of times.
    #[serde(default)]
    max_access_count: Option<u64>,
    /// Kept and shown; nothing is rotated by itself.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    rotation_policy: Option<Value>,
}

/// Stores a secret, or its next version. The answer has no value.
#[utoipa::path(put, path = "/v1/vaults/{vault_id}/secrets/{path}", tag = "secrets", operation_id = "putSecret", request_body = PutSecret,
    params(("vault_id" = String, Path), ("path" = String, Path, description = "Slashes as they are, or as %2F")),
    responses((status = 201, body = SecretView), (status = 403, body = Problem), (status = 409, body = Problem)))]
pub(crate) async fn handle(
    State(state): State<AppState>,
    caller: Caller,
    place: Place,
    Json(body): Json<PutSecret>,
) -> Result<(StatusCode, axum::Json<SecretView>), ApiError> {
    let path = place.path()?;
    let access = VaultAccess::find(&state, &caller, &place.vault).await?;
    access.permit(&path, Permission::Write).await?;
    let (value, about) = body.check(state.clock.now())?;
    let made = write(&state, &access, &path, &value, about, "secret.write").await?;
    Ok((StatusCode::CREATED, axum::Json(made)))
}

impl PutSecret {
    fn check(self, now: OffsetDateTime) -> Result<(Secret, About), ApiError> {
        let length = self.value.len();
        if length == 0 || length > MAX_VALUE {
            let rule = format_args!("has {length} bytes; 1 to {MAX_VALUE} are taken");
            return Err(ApiError::invalid("value", rule));
        }
        let expires_at = self.expires_at.map(|end| end.0);
        if expires_at.is_some_and(|end| end <= now) {
            return Err(ApiError::invalid(
                "expires_at",
                "is in the past; leave it out or name a later time",
            ));
        }
        let about = About {
            kind: check_type(self.r#type)?.unwrap_or_else(|| GENERIC.to_owned()),
            metadata: check_object("metadata", self.metadata)?,
            rotation_policy: check_object("rotation_policy", self.rotation_policy)?,
            expires_at,
            max_reads: self.max_access_count.filter(|most| *most > 0),
        };
        Ok((self.value, about))
    }
}

fn check_object(field: &str, value: Option<Value>) -> Result<Option<Value>, ApiError> {
    let Some(value) = value.filter(|value| !value.is_null()) else {
        return Ok(None);
    };
    if !value.is_object() {
        return Err(ApiError::invalid(field, "must be an object"));
    }
    if value.to_string().len() > MAX_OBJECT {
        return Err(ApiError::invalid(
            field,
            format_args!("has more than {MAX_OBJECT} bytes; keep less beside the value"),
        ));
    }
    Ok(Some(value))
}

const MAX_VALUE: usize = vault::envelope::MAX_SECRET_LEN;
const MAX_OBJECT: usize = 16 * 1024;
