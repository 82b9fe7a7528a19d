//! `GET /v1/webhooks`

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::WebhookView;
use crate::AppState;
use crate::error::ApiError;
use crate::extract::{Paging, Params};
use crate::people::myself::Manager;
use crate::problem::Problem;

/// A page of webhooks.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct WebhookList {
    webhooks: Vec<WebhookView>,
    next_cursor: Option<String>,
}

/// Lists the webhooks in the order they were made, each with how far it was told.
#[utoipa::path(get, path = "/v1/webhooks", tag = "webhooks", operation_id = "listWebhooks", params(Paging),
    responses((status = 200, body = WebhookList), (status = 403, body = Problem)))]
pub(crate) async fn handle(
    State(state): State<AppState>,
    Manager(manager): Manager,
    Params(paging): Params<Paging>,
) -> Result<Json<WebhookList>, ApiError> {
    let webhooks = state.store.webhooks();
    let page = webhooks.list(&manager.org, &paging.request()?).await?;
    Ok(Json(WebhookList {
        webhooks: page.items.into_iter().map(WebhookView::from).collect(),
        next_cursor: page.next_cursor,
    }))
}
