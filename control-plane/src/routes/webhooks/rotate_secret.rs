//! `POST /v1/webhooks/{id}/rotate-secret`

use axum::Json;
use axum::extract::State;

use super::{WebhookWithSecret, find, missing};
use crate::AppState;
use crate::deliver::SigningSecret;
use crate::error::ApiError;
use crate::extract::Id;
use crate::people::myself::Manager;
use crate::problem::Problem;

/// Makes another signing secret and shows it, once. For a day deliveries carry signatures of both, so that the receiver may change
/// over at any time of it.
#[utoipa::path(post, path = "/v1/webhooks/{id}/rotate-secret", tag = "webhooks", operation_id = "rotateWebhookSecret",
    params(("id" = String, Path), ("Idempotency-Key" = Option<String>, Header, description = "Repeats have one effect for 24 h")),
    responses((status = 200, body = WebhookWithSecret), (status = 404, body = Problem)))]
pub(crate) async fn handle(
    State(state): State<AppState>,
    Manager(manager): Manager,
    id: Id,
) -> Result<Json<WebhookWithSecret>, ApiError> {
    let webhook = find(&state, &manager.org, &id).await?.id;
    let (secret, sealed) = SigningSecret::make(&state, &manager.org, &webhook).await?;
    let webhooks = state.store.webhooks();
    let changed = webhooks
        .set_secret(&manager.org, &webhook, sealed, &manager.actor)
        .await?;
    Ok(Json(WebhookWithSecret {
        webhook: changed.ok_or_else(|| missing(&id))?.into(),
        secret: secret.reveal(),
    }))
}
