//! `POST /v1/auth/google`

use axum::Json as Answer;
use axum::extract::State;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use utoipa::ToSchema;
use vault::Secret;

use super::configured;
use crate::AppState;
use crate::context::RequestContext;
use crate::error::ApiError;
use crate::extract::Json;
use crate::oidc::{Claims, Expected, OidcOptions, SKEW, head, verify};
use crate::people::sign_in::{self, SignedIn};
use crate::people::vouched::{self, REFUSED, Vouched};
use crate::problem::{Code, Problem};

/// A token of Google's own button; further fields of the seeds' clients are ignored.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct GoogleSignIn {
    /// For this installation's client id.
    #[schema(value_type = String)]
    id_token: Secret,
}

/// Signs in whoever Google vouches for, where it is the identity provider: a token of 15 minutes, or what a code of the second factor
/// makes one. Such a token is bound to no browser, so it is taken once.
#[utoipa::path(post, path = "/v1/auth/google", tag = "auth", operation_id = "signInWithGoogle", security(()), request_body = GoogleSignIn,
    responses((status = 200, body = SignedIn), (status = 401, body = Problem), (status = 403, body = Problem), (status = 404, body = Problem), (status = 409, body = Problem), (status = 429, body = Problem), (status = 503, body = Problem)))]
pub(crate) async fn handle(
    State(state): State<AppState>,
    context: RequestContext,
    Json(body): Json<GoogleSignIn>,
) -> Result<Answer<SignedIn>, ApiError> {
    state.people.limits.source(context.client_ip)?;
    let options = configured(&state)?;
    if !options.is_google() {
        let detail = "Google vouches for nobody here; sign in with `claviger login --oidc`, or ask the operator to configure it (oidc.issuer = \"google\")";
        return Err(ApiError::new(Code::OidcNotConfigured, detail));
    }
    let token = body.id_token.expose_str().unwrap_or_default();
    match take(&state, options, token).await? {
        Ok(claims) => {
            let vouched = Vouched::of(claims);
            let signed_in = vouched::sign_in(&state, options, vouched, None, &context).await?;
            Ok(Answer(signed_in))
        }
        Err(why) => Err(sign_in::refuse(&state, &context, why, REFUSED).await),
    }
}

/// The claims of a good token that nobody has shown yet, or the reason for the record.
async fn take(
    state: &AppState,
    options: &OidcOptions,
    token: &str,
) -> Result<Result<Claims, &'static str>, ApiError> {
    let now = state.clock.now();
    let head = match head(token) {
        Ok(head) => head,
        Err(error) => return Ok(Err(error.as_str())),
    };
    let provider = state
        .providers
        .get(&state.outbound, &options.issuer, Some(&head), now)
        .await?;
    let expected = Expected::SignIn {
        issuer: &options.issuer,
        client_id: &options.client_id,
        nonce: None,
    };
    let claims = match verify(&provider, token, expected, now) {
        Ok(claims) => claims,
        Err(error) => return Ok(Err(error.as_str())),
    };
    let ends = OffsetDateTime::from_unix_timestamp(claims.exp).unwrap_or(now) + SKEW;
    // What was signed, for one signature may have several spellings.
    let signed = token.rsplit_once('.').map_or(token, |(signed, _)| signed);
    let digest = Sha256::digest(signed).into();
    let is_first = state.store.oidc_logins().take_token(&digest, ends).await?;
    if is_first {
        Ok(Ok(claims))
    } else {
        Ok(Err("a provider's token was refused: it was taken before"))
    }
}
