//! `POST /v1/auth/oidc/start`, `GET /v1/auth/oidc/start`

use axum::Json as Answer;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{AppendHeaders, IntoResponse};
use serde::Deserialize;
use utoipa::ToSchema;

use super::{Begun, LIFETIME, begin, configured, cookie, no_browsers};
use crate::AppState;
use crate::context::RequestContext;
use crate::error::ApiError;
use crate::extract::OptionalJson;
use crate::problem::Problem;

/// Where the provider's answer is to go.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct StartSignIn {
    /// `http://127.0.0.1:PORT/...` of a terminal; left out, the page that the operator has configured.
    #[schema(example = "http://127.0.0.1:40123/callback")]
    redirect_uri: Option<String>,
}

/// Begins a sign-in by the identity provider, for a terminal: a browser is opened with the one text, the provider's answer is
/// brought back with the other.
#[utoipa::path(post, path = "/v1/auth/oidc/start", tag = "auth", operation_id = "startOidc", security(()), request_body = StartSignIn,
    responses((status = 200, body = Begun), (status = 400, body = Problem), (status = 404, body = Problem), (status = 429, body = Problem), (status = 503, body = Problem)))]
pub(crate) async fn handle(
    State(state): State<AppState>,
    context: RequestContext,
    OptionalJson(body): OptionalJson<StartSignIn>,
) -> Result<Answer<Begun>, ApiError> {
    state.people.limits.source(context.client_ip)?;
    let begun = begin(&state, body.redirect_uri, None).await?;
    Ok(Answer(begun))
}

/// Begins a sign-in by the identity provider, for a browser: sends it there, with a cookie that its answer is taken with.
#[utoipa::path(get, path = "/v1/auth/oidc/start", tag = "auth", operation_id = "startOidcInBrowser", security(()),
    responses((status = 303), (status = 404, body = Problem), (status = 429, body = Problem), (status = 503, body = Problem)))]
pub(crate) async fn in_browser(
    State(state): State<AppState>,
    context: RequestContext,
) -> Result<impl IntoResponse, ApiError> {
    state.people.limits.source(context.client_ip)?;
    let own = configured(&state)?.redirect_url.as_ref();
    let is_secure = own.ok_or_else(no_browsers)?.is_secure();
    let begun = begin(&state, None, None).await?;
    let headers = [
        (header::LOCATION, begun.authorization_url.clone()),
        (header::SET_COOKIE, cookie(&begun.flow, is_secure, LIFETIME)),
    ];
    Ok((StatusCode::SEE_OTHER, AppendHeaders(headers)))
}
