//! `POST /v1/auth/oidc/link`, `DELETE /v1/auth/oidc/link`

use axum::Json as Answer;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use utoipa::ToSchema;
use vault::Secret;

use super::{Begun, begin};
use crate::AppState;
use crate::error::ApiError;
use crate::extract::Json;
use crate::people::myself::Myself;
use crate::problem::{Code, Problem};
use crate::routes::auth::change_password::check_current;

/// Where the provider's answer is to go, and the proof that it is not a session alone that asks.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LinkIdentity {
    /// `http://127.0.0.1:PORT/...` of a terminal; left out, the page that the operator has configured.
    redirect_uri: Option<String>,
    /// Goes with it, for whoever has a password.
    #[schema(value_type = Option<String>)]
    current_password: Option<Secret>,
}

/// Begins to link an identity to the caller's own account: whoever the provider vouches for in its answer signs in to it from then
/// on. A change of the password or the role meanwhile ends it.
#[utoipa::path(post, path = "/v1/auth/oidc/link", tag = "auth", operation_id = "linkIdentity", request_body = LinkIdentity,
    responses((status = 200, body = Begun), (status = 400, body = Problem), (status = 401, body = Problem), (status = 404, body = Problem), (status = 429, body = Problem), (status = 503, body = Problem)))]
pub(crate) async fn handle(
    State(state): State<AppState>,
    myself: Myself,
    Json(body): Json<LinkIdentity>,
) -> Result<Answer<Begun>, ApiError> {
    check_current(&state, &myself, body.current_password.as_ref()).await?;
    let link_to = Some((myself.org, myself.id));
    let begun = begin(&state, body.redirect_uri, link_to).await?;
    Ok(Answer(begun))
}

/// Unlinks every identity from the caller's own account, which has a password to sign in with. Every session ends, also the one that
/// this call came with; personal keys stay.
#[utoipa::path(delete, path = "/v1/auth/oidc/link", tag = "auth", operation_id = "unlinkIdentities",
    responses((status = 204), (status = 404, body = Problem), (status = 409, body = Problem)))]
pub(crate) async fn unlink(
    State(state): State<AppState>,
    myself: Myself,
) -> Result<StatusCode, ApiError> {
    let identities = state.store.identities();
    if identities.of(&myself.org, &myself.id).await?.is_empty() {
        return Err(ApiError::not_found("identity of", myself.id.as_str()));
    }
    let credentials = state.store.credentials();
    if credentials
        .password(&myself.org, &myself.id)
        .await?
        .is_none()
    {
        let detail = "without its identity nobody could sign in to this account, for it has no password; choose one first with POST /v1/auth/change-password";
        return Err(ApiError::new(Code::WouldShutOut, detail));
    }
    identities
        .unlink(&myself.org, &myself.id, &myself.actor)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}
