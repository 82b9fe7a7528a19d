//! `POST /v1/auth/change-password`

use axum::Json as Answer;
use axum::extract::State;
use serde::Deserialize;
use store::PasswordDigest;
use utoipa::ToSchema;
use vault::Secret;

use crate::AppState;
use crate::auth::unauthenticated;
use crate::error::ApiError;
use crate::extract::Json;
use crate::people::myself::Myself;
use crate::people::password;
use crate::people::sign_in::{self, SignedIn};
use crate::problem::{Code, Problem};

/// The old password and the new one.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChangePassword {
    /// Left out by whoever has none yet.
    #[schema(value_type = Option<String>)]
    current_password: Option<Secret>,
    /// At least 12 characters of four kinds; `weak_password` says which rule is broken.
    #[schema(value_type = String)]
    new_password: Secret,
}

/// Changes the caller's password: every earlier token ends, also the one that this call came with. A new one is the answer.
#[utoipa::path(post, path = "/v1/auth/change-password", tag = "auth", operation_id = "changePassword", request_body = ChangePassword,
    responses((status = 200, body = SignedIn), (status = 400, body = Problem), (status = 401, body = Problem), (status = 429, body = Problem)))]
pub(crate) async fn handle(
    State(state): State<AppState>,
    myself: Myself,
    Json(body): Json<ChangePassword>,
) -> Result<Answer<SignedIn>, ApiError> {
    let was = check_current(&state, &myself, body.current_password.as_ref()).await?;
    password::check(&body.new_password)?;
    let digest = state.people.hasher.hash(&body.new_password).await?;
    let credentials = state.store.credentials();
    let user = credentials
        .set_password(
            &myself.org,
            &myself.id,
            was.as_ref(),
            &digest,
            &myself.actor,
        )
        .await?;
    let user = user.ok_or_else(unauthenticated)?;
    let signed_in = sign_in::complete(&state, &user, None, &myself.context).await?;
    Ok(Answer(signed_in))
}

/// Asks whoever has a password for it: a session or a key alone, which somebody may have got hold of, is not enough.
pub(super) async fn check_current(
    state: &AppState,
    myself: &Myself,
    current: Option<&Secret>,
) -> Result<Option<PasswordDigest>, ApiError> {
    state.people.limits.account(myself.id.as_str())?;
    let credentials = state.store.credentials();
    let digest = credentials.password(&myself.org, &myself.id).await?;
    if digest.is_none() {
        return Ok(None);
    }
    let Some(current) = current else {
        return Err(ApiError::invalid(
            "current_password",
            "is missing; a person who has a password gives it here",
        ));
    };
    let hasher = &state.people.hasher;
    if hasher.verify(current, digest.as_ref()).await? {
        return Ok(digest);
    }
    let detail = "current_password is not right; send the one that you sign in with now";
    Err(ApiError::new(Code::Unauthenticated, detail))
}
