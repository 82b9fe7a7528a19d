//! `POST /v1/vault/leases/revoke`

use axum::extract::State;
use leases::id::LeaseId;
use leases::token::PresentedToken;
use leases::verify::{VerifiedLease, verify};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use vault::Secret;

use crate::AppState;
use crate::auth::Caller;
use crate::error::ApiError;
use crate::extract::Json;
use crate::problem::Problem;

/// The lease whose last block is to be revoked.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RevokeToken {
    /// `clv_...`
    #[schema(value_type = String)]
    token: Secret,
}

/// What was revoked.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct RevokedToken {
    #[schema(value_type = String)]
    lease_id: LeaseId,
    /// The revoked block, with all below it; 0 is the lease itself.
    block: usize,
    revoked: bool,
}

/// Revokes the last block of a lease and all that was narrowed from it; what it was narrowed from stays good.
#[utoipa::path(post, path = "/v1/vault/leases/revoke", tag = "leases", operation_id = "revokeLeaseByToken", request_body = RevokeToken,
    responses((status = 200, body = RevokedToken), (status = 404, body = Problem)))]
pub(crate) async fn handle(
    State(state): State<AppState>,
    caller: Caller,
    Json(body): Json<RevokeToken>,
) -> Result<axum::Json<RevokedToken>, ApiError> {
    let lease = read(&state, &caller, &body.token)?;
    let leases = state.store.leases();
    let block = lease.block_count().saturating_sub(1);
    let last = lease.revocation_ids().last().filter(|_| block > 0);
    let existed = match last {
        Some(id) => {
            leases
                .revoke_block(
                    lease.org(),
                    lease.lease(),
                    id,
                    lease.expires_at(),
                    &caller.actor(),
                )
                .await?
        }
        None => leases
            .revoke(lease.org(), lease.lease(), &caller.actor())
            .await?
            .is_some(),
    };
    if !existed {
        return Err(ApiError::not_found("lease", lease.lease().as_str()));
    }
    Ok(axum::Json(RevokedToken {
        lease_id: lease.lease().clone(),
        block,
        revoked: true,
    }))
}

/// A genuine lease of the caller's own organisation, and of the agent itself if it is one. An expired one may be revoked too.
fn read(state: &AppState, caller: &Caller, token: &Secret) -> Result<VerifiedLease, ApiError> {
    let refused = || {
        ApiError::invalid(
            "token",
            "is not a lease of yours; send the whole text, from `clv_` on",
        )
    };
    let text = token.expose_str().ok_or_else(refused)?;
    let presented = PresentedToken::parse(text).map_err(|error| refused().because(error))?;
    let lease =
        verify(&presented, &state.verifying.public()).map_err(|error| refused().because(error))?;
    let own =
        lease.org() == caller.org() && caller.agent().is_none_or(|agent| agent == lease.agent());
    if own { Ok(lease) } else { Err(refused()) }
}
