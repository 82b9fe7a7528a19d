//! `GET /v1/shares/{id}`

use axum::Json;
use axum::extract::State;
use leases::id::ShareId;

use super::{ShareView, find, unknown};
use crate::AppState;
use crate::auth::{Caller, Principal};
use crate::error::ApiError;
use crate::extract::Id;
use crate::problem::Problem;

/// Shows a share without its value: to its maker, to whom it is for, and to owners and admins.
#[utoipa::path(get, path = "/v1/shares/{id}", tag = "shares", operation_id = "getShare",
    params(("id" = String, Path)), responses((status = 200, body = ShareView), (status = 404, body = Problem)))]
pub(crate) async fn handle(
    State(state): State<AppState>,
    caller: Caller,
    id: Id,
) -> Result<Json<ShareView>, ApiError> {
    let share_id = ShareId::parse(&id.0).map_err(|_| unknown())?;
    let shares = state.store.shares();
    let sees_all = matches!(&caller.principal, Principal::Person { role, .. } if role.is_admin());
    let sent = shares.get(caller.org(), &share_id).await?;
    let sent = sent.filter(|share| sees_all || share.created_by == caller.principal.id());
    if let Some(share) = sent {
        return Ok(Json(ShareView::new(share, state.clock.now())));
    }
    let received = find(&state, share_id.as_str(), Some(&caller)).await?;
    let share = received.ok_or_else(unknown)?.share;
    Ok(Json(ShareView::to_recipient(&state, share, &caller).await?))
}
