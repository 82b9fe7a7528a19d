//! `POST /v1/auth/token`

use axum::Json as Answer;
use axum::extract::State;
use serde::Deserialize;
use utoipa::ToSchema;
use vault::Secret;

use crate::AppState;
use crate::context::RequestContext;
use crate::error::ApiError;
use crate::extract::Json;
use crate::people::email;
use crate::people::sign_in::{self, SignedIn};
use crate::problem::Problem;

/// An email and its password; further fields of the seeds' clients are ignored.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct SignIn {
    email: String,
    #[schema(value_type = String)]
    password: Secret,
}

/// Exchanges an email and a password for a token of 15 minutes, or for what a code makes one.
///
/// Whether there is such an email, neither the answer nor its time says, and from an address that the organisation does not take,
/// neither whether the password was right.
#[utoipa::path(post, path = "/v1/auth/token", tag = "auth", operation_id = "signIn", security(()), request_body = SignIn,
    responses((status = 200, body = SignedIn), (status = 401, body = Problem), (status = 429, body = Problem)))]
pub(crate) async fn handle(
    State(state): State<AppState>,
    context: RequestContext,
    Json(body): Json<SignIn>,
) -> Result<Answer<SignedIn>, ApiError> {
    let limits = &state.people.limits;
    limits.source(context.client_ip)?;
    limits.account(&email::limit_key(&body.email))?;
    let email = email::canonical(&body.email).unwrap_or_default();
    let found = state.store.credentials().find(&email).await?;
    let digest = found.as_ref().and_then(|(_, digest)| digest.as_ref());
    let is_right = state.people.hasher.verify(&body.password, digest).await?;
    match found {
        Some((user, _)) if is_right => {
            let signed_in = sign_in::by_first_factor(&state, &user, &context).await;
            match signed_in {
                Ok(signed_in) => Ok(Answer(signed_in)),
                Err(error) => {
                    Err(sign_in::hide_address(&state, &user, &context, error, WRONG).await)
                }
            }
        }
        Some(_) | None => {
            Err(sign_in::refuse(&state, &context, "a sign-in was refused", WRONG).await)
        }
    }
}

const WRONG: &str = "the email or the password is not right; check both, or ask an owner or an admin for an invitation";
