//! `DELETE /v1/auth/token`

use axum::Json;
use axum::extract::{Extension, State};
use serde::Serialize;
use utoipa::ToSchema;

use crate::AppState;
use crate::auth::{Caller, Means, Principal};
use crate::error::ApiError;

/// Whether there was a sign-in to end.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SignedOut {
    /// False when the call came with a lasting key, which lives on: DELETE /v1/auth/api-keys/{id} ends one.
    revoked: bool,
}

/// Ends the token that this call came with, an agent's or a person's, or the key of a device that was let in.
#[utoipa::path(delete, path = "/v1/auth/token", tag = "auth", operation_id = "signOut", responses((status = 200, body = SignedOut)))]
pub(crate) async fn handle(
    State(state): State<AppState>,
    // An auditor may end their own token, so this is no `Caller` by its extractor.
    Extension(caller): Extension<Caller>,
) -> Result<Json<SignedOut>, ApiError> {
    let actor = caller.actor();
    let revoked = match (&caller.means, &caller.principal) {
        (Means::Token { jti, ends, .. }, principal) => {
            let sessions = state.store.sessions();
            sessions.revoke(principal.org(), jti, *ends, &actor).await?;
            true
        }
        (
            Means::PersonalKey {
                id,
                is_session: true,
                ..
            },
            Principal::Person { org, id: user, .. },
        ) => {
            let keys = state.store.personal_keys();
            keys.revoke(org, user, id, &actor).await?
        }
        (Means::PersonalKey { .. } | Means::AgentKey | Means::Signature, _) => false,
    };
    Ok(Json(SignedOut { revoked }))
}
