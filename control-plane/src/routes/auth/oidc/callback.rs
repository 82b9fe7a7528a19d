//! `POST /v1/auth/oidc/callback`, `GET /v1/auth/oidc/callback`

use std::time::Duration;

use axum::Json as Answer;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{AppendHeaders, IntoResponse, Response};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};
use vault::Secret;

use super::{configured, cookie, presented_cookie};
use crate::AppState;
use crate::context::RequestContext;
use crate::error::ApiError;
use crate::extract::{Json, Params};
use crate::oidc::{CodeError, Expected, Flow, head, redeem, verify};
use crate::people::sign_in::{self, SignedIn};
use crate::people::vouched::{self, REFUSED, Vouched};
use crate::problem::Problem;

/// The provider's answer, brought back by the terminal that began.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FinishSignIn {
    /// What POST /v1/auth/oidc/start answered with.
    #[schema(value_type = String)]
    flow: Secret,
    /// The parameters `code`, `state` and, if it came, `iss` of the provider's answer.
    #[schema(value_type = String)]
    code: Secret,
    #[schema(value_type = String)]
    state: Secret,
    iss: Option<String>,
}

/// The provider's answer in the address of a browser; what else stands there is not looked at.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ProviderAnswer {
    #[param(value_type = Option<String>)]
    code: Option<Secret>,
    #[param(value_type = Option<String>)]
    state: Option<Secret>,
    iss: Option<String>,
}

/// Signs in whoever the identity provider vouches for: a token of 15 minutes, or what a code of the second factor makes one. The
/// answer of a provider is taken once, within ten minutes, from whoever began the sign-in.
#[utoipa::path(post, path = "/v1/auth/oidc/callback", tag = "auth", operation_id = "finishOidc", security(()), request_body = FinishSignIn,
    responses((status = 200, body = SignedIn), (status = 401, body = Problem), (status = 403, body = Problem), (status = 404, body = Problem), (status = 409, body = Problem), (status = 429, body = Problem), (status = 503, body = Problem)))]
pub(crate) async fn handle(
    State(state): State<AppState>,
    context: RequestContext,
    Json(body): Json<FinishSignIn>,
) -> Result<Answer<SignedIn>, ApiError> {
    state.people.limits.source(context.client_ip)?;
    let flow = body.flow.expose_str().and_then(Flow::presented);
    let answer = (Some(&body.code), Some(&body.state), body.iss.as_deref());
    let signed_in = finish(&state, flow, answer, &context).await?;
    Ok(Answer(signed_in))
}

/// The same for a browser, whose cookie says that it began.
#[utoipa::path(get, path = "/v1/auth/oidc/callback", tag = "auth", operation_id = "finishOidcInBrowser", security(()), params(ProviderAnswer),
    responses((status = 200, body = SignedIn), (status = 401, body = Problem), (status = 403, body = Problem), (status = 404, body = Problem), (status = 409, body = Problem), (status = 429, body = Problem), (status = 503, body = Problem)))]
pub(crate) async fn in_browser(
    State(state): State<AppState>,
    context: RequestContext,
    headers: HeaderMap,
    Params(query): Params<ProviderAnswer>,
) -> Result<Response, ApiError> {
    state.people.limits.source(context.client_ip)?;
    let flow = presented_cookie(&headers).and_then(Flow::presented);
    let answer = (
        query.code.as_ref(),
        query.state.as_ref(),
        query.iss.as_deref(),
    );
    let signed_in = finish(&state, flow, answer, &context).await?;
    // The cookie has served its time.
    let ended = cookie("", false, Duration::ZERO);
    let headers = AppendHeaders([(header::SET_COOKIE, ended)]);
    Ok((headers, Answer(signed_in)).into_response())
}

async fn finish(
    state: &AppState,
    flow: Option<Flow>,
    (code, returned, iss): (Option<&Secret>, Option<&Secret>, Option<&str>),
    context: &RequestContext,
) -> Result<SignedIn, ApiError> {
    let options = configured(state)?;
    let refuse = async |why| Err(sign_in::refuse(state, context, why, REFUSED).await);
    let flow = flow.filter(|flow| returned.is_some_and(|returned| flow.is_state(returned)));
    let Some(flow) = flow else {
        return refuse("a provider's answer was refused: it is of no sign-in of its bringer").await;
    };
    // Taken before anything is asked: whatever comes of it, it is not taken again.
    let Some(begun) = state.store.oidc_logins().take(flow.hash()).await? else {
        return refuse("a provider's answer was refused: nobody waits for it").await;
    };
    let Some(code) = code else {
        return refuse("a provider's answer was refused: it brings no code").await;
    };
    let now = state.clock.now();
    let provider = state
        .providers
        .get(&state.outbound, &options.issuer, None, now)
        .await?;
    let names_itself = provider
        .endpoints
        .authorization_response_iss_parameter_supported;
    // RFC 9207: an answer of another provider is none.
    if iss.map_or(names_itself, |iss| iss != options.issuer.as_str()) {
        return refuse("a provider's answer was refused: it is another provider's").await;
    }
    let ways = (&state.outbound, provider.as_ref());
    let token = match redeem(ways, options, (code, &begun.redirect_uri), &flow).await {
        Ok(token) => token,
        Err(CodeError::Refused) => {
            return refuse("a provider's answer was refused: its code is not good").await;
        }
        Err(CodeError::Provider(error)) => return Err(error.into()),
    };
    let nonce = flow.nonce();
    let expected = Expected::SignIn {
        issuer: &options.issuer,
        client_id: &options.client_id,
        nonce: Some(nonce.as_str()),
    };
    let token = token.expose_str().unwrap_or_default();
    let head = match head(token) {
        Ok(head) => head,
        Err(error) => return refuse(error.as_str()).await,
    };
    // Asked again where the token's key is a new one.
    let provider = state
        .providers
        .get(&state.outbound, &options.issuer, Some(&head), now)
        .await?;
    match verify(&provider, token, expected, now) {
        Ok(claims) => {
            let vouched = Vouched::of(claims);
            vouched::sign_in(state, options, vouched, begun.link_to, context).await
        }
        Err(error) => refuse(error.as_str()).await,
    }
}
