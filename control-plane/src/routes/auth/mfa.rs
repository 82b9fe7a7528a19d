//! `POST /v1/auth/mfa/totp/setup`, `/enable`, `/disable`, and `POST /v1/auth/mfa/verify`

use axum::Json as Answer;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use store::NonceUse;
use utoipa::ToSchema;
use vault::Secret;
use zeroize::Zeroize;

use crate::AppState;
use crate::context::RequestContext;
use crate::error::ApiError;
use crate::extract::Json;
use crate::jwt::MFA_LIFETIME;
use crate::people::myself::Myself;
use crate::people::sign_in::{self, SignedIn};
use crate::people::totp;
use crate::problem::Problem;

/// A new secret, which is shown this once.
#[derive(Serialize, ToSchema)]
pub(crate) struct Setup {
    /// Base32, as one types it into an authenticator.
    secret: String,
    /// The same for a QR code.
    otpauth_url: String,
}

impl Drop for Setup {
    fn drop(&mut self) {
        self.secret.zeroize();
        self.otpauth_url.zeroize();
    }
}

/// A code of an authenticator, or where one is enabled a recovery code.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CodeBody {
    #[schema(value_type = String, example = "081804")]
    code: Secret,
}

/// The second factor is asked for from now on.
#[derive(Serialize, ToSchema)]
pub(crate) struct Enabled {
    totp_enabled: bool,
    /// Eight codes, each good once in the place of one that cannot be had. Shown once, kept as hashes.
    recovery_codes: Vec<String>,
}

impl Drop for Enabled {
    fn drop(&mut self) {
        self.recovery_codes.zeroize();
    }
}

/// The second factor is gone.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Disabled {
    totp_enabled: bool,
}

/// What a right password was answered with, and the code.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct VerifyCode {
    #[schema(value_type = String)]
    mfa_token: Secret,
    /// A code of an authenticator, or a recovery code.
    #[schema(value_type = String)]
    code: Secret,
}

/// Makes a secret for the caller's authenticator. It is asked for once a first code of it was shown.
#[utoipa::path(post, path = "/v1/auth/mfa/totp/setup", tag = "auth", operation_id = "setupTotp",
    responses((status = 200, body = Setup), (status = 409, body = Problem)))]
pub(crate) async fn setup(
    State(state): State<AppState>,
    myself: Myself,
) -> Result<Answer<Setup>, ApiError> {
    let user = myself.user(&state).await?;
    let made = totp::enrol(&state, &user, &myself.actor).await?;
    Ok(Answer(Setup {
        secret: made.secret.to_string(),
        otpauth_url: made.otpauth_url.to_string(),
    }))
}

/// Enables the caller's second factor by a first code, and shows its recovery codes, once.
#[utoipa::path(post, path = "/v1/auth/mfa/totp/enable", tag = "auth", operation_id = "enableTotp", request_body = CodeBody,
    responses((status = 200, body = Enabled), (status = 400, body = Problem), (status = 409, body = Problem), (status = 429, body = Problem)))]
pub(crate) async fn enable(
    State(state): State<AppState>,
    myself: Myself,
    Json(body): Json<CodeBody>,
) -> Result<Answer<Enabled>, ApiError> {
    let user = myself.user(&state).await?;
    let codes = totp::enable(&state, &user, &body.code, &myself.actor).await?;
    Ok(Answer(Enabled {
        totp_enabled: true,
        recovery_codes: codes.iter().map(|code| code.to_string()).collect(),
    }))
}

/// Ends the caller's second factor, by a code of it or a recovery code.
#[utoipa::path(post, path = "/v1/auth/mfa/totp/disable", tag = "auth", operation_id = "disableTotp", request_body = CodeBody,
    responses((status = 200, body = Disabled), (status = 400, body = Problem), (status = 409, body = Problem), (status = 429, body = Problem)))]
pub(crate) async fn disable(
    State(state): State<AppState>,
    myself: Myself,
    Json(body): Json<CodeBody>,
) -> Result<Answer<Disabled>, ApiError> {
    let user = myself.user(&state).await?;
    if !totp::take(&state, &user, &body.code, &myself.actor).await? {
        return Err(totp::wrong());
    }
    let factors = state.store.second_factors();
    factors
        .disable(&myself.org, &myself.id, &myself.actor)
        .await?;
    Ok(Answer(Disabled {
        totp_enabled: false,
    }))
}

/// Signs in a person whose password was right, by a code.
#[utoipa::path(post, path = "/v1/auth/mfa/verify", tag = "auth", operation_id = "verifyMfa", security(()), request_body = VerifyCode,
    responses((status = 200, body = SignedIn), (status = 401, body = Problem), (status = 429, body = Problem)))]
pub(crate) async fn verify(
    State(state): State<AppState>,
    context: RequestContext,
    Json(body): Json<VerifyCode>,
) -> Result<Answer<SignedIn>, ApiError> {
    state.people.limits.source(context.client_ip)?;
    let ticket = body.mfa_token.expose_str().unwrap_or_default();
    let Some(claims) = state.tokens.verify_mfa(ticket, state.clock.now()) else {
        return Err(refuse(&state, &context).await);
    };
    let user = state.store.users().get(&claims.org, &claims.user).await?;
    // The password or the role was changed since: the password that was right may not be any more.
    let user = user.filter(|user| user.session_epoch == claims.epoch);
    let Some(user) = user else {
        return Err(refuse(&state, &context).await);
    };
    let actor = sign_in::actor(&user, &context);
    if !totp::take(&state, &user, &body.code, &actor).await? {
        return Err(refuse(&state, &context).await);
    }
    // One right password is one sign-in: its ticket ends with it, however many codes follow.
    let digest: [u8; 32] = Sha256::new()
        .chain_update("mfa ticket ")
        .chain_update(ticket)
        .finalize()
        .into();
    let until = state.clock.now() + MFA_LIFETIME;
    let nonces = state.store.nonces();
    if nonces.take_of_person(&user.id, &digest, until).await? != NonceUse::Fresh {
        return Err(refuse(&state, &context).await);
    }
    match sign_in::complete(&state, &user, None, &context).await {
        Ok(signed_in) => Ok(Answer(signed_in)),
        Err(error) => Err(sign_in::hide_address(&state, &user, &context, error, WRONG).await),
    }
}

async fn refuse(state: &AppState, context: &RequestContext) -> ApiError {
    sign_in::refuse(state, context, "a code was refused", WRONG).await
}

const WRONG: &str = "the code is not right, or was used before, or the sign-in took longer than five minutes; wait for the next code, or sign in anew";
