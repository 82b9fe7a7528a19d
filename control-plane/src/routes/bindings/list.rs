//! `GET /v1/agents/{id}/bindings`

use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::{BindingView, visible};
use crate::AppState;
use crate::auth::Caller;
use crate::error::ApiError;
use crate::extract::{Id, Paging, Params};

/// A page of bindings.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BindingList {
    bindings: Vec<BindingView>,
    next_cursor: Option<String>,
}

/// Lists an agent's bindings in the order they were made. An agent sees its own.
#[utoipa::path(get, path = "/v1/agents/{id}/bindings", tag = "bindings", operation_id = "listBindings",
    params(("id" = String, Path), Paging), responses((status = 200, body = BindingList)))]
pub(crate) async fn handle(
    State(state): State<AppState>,
    caller: Caller,
    id: Id,
    Params(paging): Params<Paging>,
) -> Result<axum::Json<BindingList>, ApiError> {
    let agent = visible(&state, &caller, &id.0).await?;
    let bindings = state.store.bindings();
    let page = bindings
        .list(caller.org(), &agent, &paging.request()?)
        .await?;
    Ok(axum::Json(BindingList {
        bindings: page.items.into_iter().map(BindingView::from).collect(),
        next_cursor: page.next_cursor,
    }))
}
