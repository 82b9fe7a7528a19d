//! `DELETE /v1/share/{id}`

use axum::extract::State;
use axum::http::StatusCode;
use leases::id::ShareId;

use super::unknown;
use crate::AppState;
use crate::auth::{Caller, Principal};
use crate::error::ApiError;
use crate::extract::Id;
use crate::people::one_time::{self, Purpose};
use crate::problem::Problem;

/// Ends a share at once: its maker's, or for owners and admins anybody's in the organisation.
#[utoipa::path(delete, path = "/v1/share/{id}", tag = "shares", operation_id = "revokeShare",
    params(("id" = String, Path, description = "A share's id, `shr_...`, or what its link says, `share_...`")),
    responses((status = 204), (status = 404, body = Problem)))]
pub(crate) async fn handle(
    State(state): State<AppState>,
    caller: Caller,
    id: Id,
) -> Result<StatusCode, ApiError> {
    let shares = state.store.shares();
    let share = match one_time::presented(Purpose::Share, &id.0) {
        Some(hash) => shares.find_by_link(&hash).await?.map(|share| share.id),
        None => ShareId::parse(&id.0).ok(),
    };
    let share = share.ok_or_else(unknown)?;
    let is_admin = matches!(&caller.principal, Principal::Person { role, .. } if role.is_admin());
    let created_by = (!is_admin).then(|| caller.principal.id());
    let revoked = shares
        .revoke(caller.org(), &share, created_by, &caller.actor())
        .await?;
    revoked
        .then_some(StatusCode::NO_CONTENT)
        .ok_or_else(unknown)
}
