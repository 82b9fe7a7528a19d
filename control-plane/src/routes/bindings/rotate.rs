//! `POST /v1/agents/{id}/bindings/{binding}/rotate-credential`

use axum::extract::State;
use serde::Deserialize;
use utoipa::ToSchema;

use super::credential::{self, Credential, config_of};
use super::{BindingView, Place};
use crate::AppState;
use crate::auth::Person;
use crate::error::ApiError;
use crate::extract::Json;
use crate::problem::{Code, Problem};

/// The new credential.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RotateCredential {
    /// A text, `{token}` or `{username, password}`.
    #[schema(value_type = Object)]
    credential: Credential,
}

/// Puts another credential in a binding; the next request by it has that one. For people alone.
#[utoipa::path(post, path = "/v1/agents/{id}/bindings/{binding}/rotate-credential", tag = "bindings", operation_id = "rotateBindingCredential",
    request_body = RotateCredential, params(("id" = String, Path), ("binding" = String, Path)),
    responses((status = 200, body = BindingView), (status = 403, body = Problem), (status = 409, body = Problem)))]
pub(crate) async fn handle(
    State(state): State<AppState>,
    person: Person,
    place: Place,
    Json(body): Json<RotateCredential>,
) -> Result<axum::Json<BindingView>, ApiError> {
    let binding = place.find(&state, &person.org).await?;
    if let Some(source) = &binding.source {
        let detail = format!(
            "the credential of this binding is taken from {} in vault {}; store a new version there with PUT, and the next request has it",
            source.path, source.vault
        );
        return Err(ApiError::new(Code::Conflict, detail));
    }
    let auth = config_of(&binding)?.auth_type;
    credential::put(&state, &binding, body.credential, auth, &person.actor).await?;
    let bindings = state.store.bindings();
    let written = bindings.update(binding, &person.actor).await?;
    let written = written.ok_or_else(|| ApiError::not_found("binding", &place.binding))?;
    Ok(axum::Json(written.into()))
}
