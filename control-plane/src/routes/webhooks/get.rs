//! `GET /v1/webhooks/{id}`

use axum::Json;
use axum::extract::State;

use super::{WebhookView, find};
use crate::AppState;
use crate::error::ApiError;
use crate::extract::Id;
use crate::people::myself::Manager;
use crate::problem::Problem;

/// Shows a webhook and how far it was told.
#[utoipa::path(get, path = "/v1/webhooks/{id}", tag = "webhooks", operation_id = "getWebhook",
    params(("id" = String, Path)), responses((status = 200, body = WebhookView), (status = 404, body = Problem)))]
pub(crate) async fn handle(
    State(state): State<AppState>,
    Manager(manager): Manager,
    id: Id,
) -> Result<Json<WebhookView>, ApiError> {
    let webhook = find(&state, &manager.org, &id).await?;
    Ok(Json(webhook.into()))
}
