//! `GET /v1/shares/inbound`

use axum::Json;
use axum::extract::State;

use super::{ShareList, ShareView};
use crate::AppState;
use crate::auth::{Caller, Principal};
use crate::error::ApiError;
use crate::extract::{Paging, Params};

/// Lists what was shared with the caller and can still be accepted or opened, in the order it was made.
#[utoipa::path(get, path = "/v1/shares/inbound", tag = "shares", operation_id = "listInboundShares", params(Paging),
    responses((status = 200, body = ShareList)))]
pub(crate) async fn handle(
    State(state): State<AppState>,
    caller: Caller,
    Params(paging): Params<Paging>,
) -> Result<Json<ShareList>, ApiError> {
    let shares = state.store.shares();
    // A person with a key may never sign in.
    if let Principal::Person { org, id, .. } = &caller.principal
        && let Some(user) = state.store.users().get(org, id).await?
    {
        shares.claim(&user, &caller.actor()).await?;
    }
    let page = shares
        .inbound(caller.principal.id(), &paging.request()?)
        .await?;
    let mut views = Vec::new();
    for share in page.items {
        views.push(ShareView::to_recipient(&state, share, &caller).await?);
    }
    Ok(Json(ShareList {
        shares: views,
        next_cursor: page.next_cursor,
    }))
}
