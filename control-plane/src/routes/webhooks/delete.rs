//! `DELETE /v1/webhooks/{id}`

use axum::extract::State;
use axum::http::StatusCode;

use super::missing;
use crate::AppState;
use crate::error::ApiError;
use crate::extract::Id;
use crate::people::myself::Manager;
use crate::problem::Problem;

/// Deletes a webhook with its secret and its deliveries.
#[utoipa::path(delete, path = "/v1/webhooks/{id}", tag = "webhooks", operation_id = "deleteWebhook",
    params(("id" = String, Path)), responses((status = 204), (status = 404, body = Problem)))]
pub(crate) async fn handle(
    State(state): State<AppState>,
    Manager(manager): Manager,
    id: Id,
) -> Result<StatusCode, ApiError> {
    let webhooks = state.store.webhooks();
    let existed = webhooks
        .delete(&manager.org, &id.parse("webhook")?, &manager.actor)
        .await?;
    if existed {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(missing(&id))
    }
}
