//! `GET /v1/shares/outbound`

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use utoipa::IntoParams;

use super::{ShareList, ShareView};
use crate::AppState;
use crate::auth::{Caller, Principal};
use crate::error::ApiError;
use crate::extract::{Paging, Params};
use crate::problem::{Code, Problem};

/// Whose shares.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Whose {
    /// Everybody's in the organisation, for owners and admins.
    #[param(required = false)]
    #[serde(default)]
    all: bool,
}

/// Lists what the caller has shared, however it stands, in the order it was made.
#[utoipa::path(get, path = "/v1/shares/outbound", tag = "shares", operation_id = "listOutboundShares", params(Paging, Whose),
    responses((status = 200, body = ShareList), (status = 403, body = Problem)))]
pub(crate) async fn handle(
    State(state): State<AppState>,
    caller: Caller,
    Params(paging): Params<Paging>,
    Params(whose): Params<Whose>,
) -> Result<Json<ShareList>, ApiError> {
    let is_admin = matches!(&caller.principal, Principal::Person { role, .. } if role.is_admin());
    if whose.all && !is_admin {
        let detail = "owners and admins alone see what others shared; leave `all` out";
        return Err(ApiError::new(Code::Forbidden, detail));
    }
    let created_by = (!whose.all).then(|| caller.principal.id());
    let shares = state.store.shares();
    let page = shares
        .outbound(caller.org(), created_by, &paging.request()?)
        .await?;
    let now = state.clock.now();
    let view = |share| ShareView::new(share, now);
    Ok(Json(ShareList {
        shares: page.items.into_iter().map(view).collect(),
        next_cursor: page.next_cursor,
    }))
}
