//! `GET /v1/auth/me`, `PATCH /v1/auth/me`

use axum::Json as Answer;
use axum::extract::State;
use leases::id::{OrgId, UserId};
use serde::{Deserialize, Serialize};
use store::{Identity, ProfilePatch, User};
use utoipa::ToSchema;
use vault::Secret;

use super::change_password::check_current;
use super::check_display_name;
use crate::AppState;
use crate::auth::unauthenticated;
use crate::error::ApiError;
use crate::extract::Json;
use crate::people::email;
use crate::people::myself::Myself;
use crate::problem::Problem;
use crate::timestamp::Timestamp;

/// The caller's own account.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Me {
    #[schema(value_type = String, example = "usr_01K3ABCDEFGHJKMNPQRSTVWXYZ")]
    id: UserId,
    #[schema(value_type = String)]
    org_id: OrgId,
    name: String,
    email: Option<String>,
    display_name: Option<String>,
    /// `password`; for whoever has none `oidc`, or without an identity as well `api_key`.
    auth_method: &'static str,
    /// `owner`, `admin`, `member` or `auditor`.
    role: &'static str,
    /// Whether an identity provider vouched for the email at the last sign-in by it. No mail is sent, so none is verified here.
    email_verified: bool,
    /// What the person is to identity providers.
    identities: Vec<LinkedIdentity>,
    totp_enabled: bool,
    created_at: Timestamp,
}

/// An identity that signs in to the account.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LinkedIdentity {
    issuer: String,
    subject: String,
    created_at: Timestamp,
    last_used_at: Timestamp,
}

impl From<Identity> for LinkedIdentity {
    fn from(identity: Identity) -> Self {
        Self {
            issuer: identity.issuer,
            subject: identity.subject,
            created_at: identity.created_at.into(),
            last_used_at: identity.used_at.into(),
        }
    }
}

impl Me {
    async fn of(state: &AppState, user: User) -> Result<Self, ApiError> {
        let (credentials, factors) = (state.store.credentials(), state.store.second_factors());
        let password = credentials.password(&user.org, &user.id).await?;
        let totp_enabled = factors.is_enabled(&user.org, &user.id).await?;
        let identities = state.store.identities().of(&user.org, &user.id).await?;
        let is_vouched =
            |identity: &Identity| identity.email.is_some() && identity.email == user.email;
        let email_verified = identities.iter().any(is_vouched);
        let auth_method = match (&password, identities.as_slice()) {
            (Some(_), _) => "password",
            (None, [_, ..]) => "oidc",
            (None, []) => "api_key",
        };
        Ok(Self {
            id: user.id,
            org_id: user.org,
            name: user.name,
            email: user.email,
            display_name: user.display_name,
            auth_method,
            role: user.role.as_str(),
            email_verified,
            identities: identities.into_iter().map(LinkedIdentity::from).collect(),
            totp_enabled,
            created_at: user.created_at.into(),
        })
    }
}

/// What to change; an absent field stays as it is.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct UpdateMe {
    display_name: Option<String>,
    /// What the person signs in with.
    email: Option<String>,
    /// Goes with a new email, for whoever has a password.
    #[schema(value_type = Option<String>)]
    current_password: Option<Secret>,
}

/// Shows the caller's own account.
#[utoipa::path(get, path = "/v1/auth/me", tag = "auth", operation_id = "getMe",
    responses((status = 200, body = Me)))]
pub(crate) async fn get(
    State(state): State<AppState>,
    myself: Myself,
) -> Result<Answer<Me>, ApiError> {
    let user = myself.user(&state).await?;
    Ok(Answer(Me::of(&state, user).await?))
}

/// Changes the caller's own email or name.
#[utoipa::path(patch, path = "/v1/auth/me", tag = "auth", operation_id = "updateMe", request_body = UpdateMe,
    responses((status = 200, body = Me), (status = 409, body = Problem)))]
pub(crate) async fn update(
    State(state): State<AppState>,
    myself: Myself,
    Json(body): Json<UpdateMe>,
) -> Result<Answer<Me>, ApiError> {
    check_display_name(body.display_name.as_deref())?;
    let email = body.email.as_deref().map(email::required).transpose()?;
    if email.is_some() {
        // Counted, for the answer to a taken email says that somebody has it.
        check_current(&state, &myself, body.current_password.as_ref()).await?;
    }
    let patch = ProfilePatch {
        email,
        display_name: body.display_name,
    };
    let credentials = state.store.credentials();
    let user = credentials
        .patch(&myself.org, &myself.id, patch, &myself.actor)
        .await?;
    let user = user.ok_or_else(unauthenticated)?;
    Ok(Answer(Me::of(&state, user).await?))
}
