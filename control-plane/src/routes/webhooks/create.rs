//! `POST /v1/webhooks`

use axum::extract::State;
use axum::http::StatusCode;
use leases::id::WebhookId;
use serde::Deserialize;
use store::{CreateWebhookError, NewWebhook};
use utoipa::ToSchema;

use super::{WebhookWithSecret, check_description, check_events, check_url};
use crate::AppState;
use crate::deliver::SigningSecret;
use crate::error::ApiError;
use crate::extract::Json;
use crate::people::myself::Manager;
use crate::problem::Problem;

/// A webhook to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateWebhook {
    /// Where events are posted to: https://, or http:// to this machine where an operator allowed its addresses.
    url: String,
    /// What it is told of: actions such as `lease.use`, all that begin alike as `lease.*`, or `*`.
    events: Vec<String>,
    /// Free text, at most 1024 characters.
    description: Option<String>,
}

/// Makes a webhook and shows its signing secret, once. From now on each event of this organisation's trail that one of the
/// patterns covers is posted to it, in the order of the trail's streams, at least once: repeats have the same `webhook-id`.
#[utoipa::path(post, path = "/v1/webhooks", tag = "webhooks", operation_id = "createWebhook", request_body = CreateWebhook,
    params(("Idempotency-Key" = Option<String>, Header, description = "Repeats have one effect for 24 h")),
    responses((status = 201, body = WebhookWithSecret), (status = 400, body = Problem), (status = 403, body = Problem)))]
pub(crate) async fn handle(
    State(state): State<AppState>,
    Manager(manager): Manager,
    Json(body): Json<CreateWebhook>,
) -> Result<(StatusCode, axum::Json<WebhookWithSecret>), ApiError> {
    check_url(&state, &body.url)?;
    check_description(body.description.as_deref())?;
    let events = check_events(&body.events)?;
    let id = WebhookId::new(state.clock.now());
    let (secret, sealed) = SigningSecret::make(&state, &manager.org, &id).await?;
    let new = NewWebhook {
        id,
        url: body.url,
        events,
        description: body.description.filter(|text| !text.is_empty()),
        secret: sealed,
    };
    let webhooks = state.store.webhooks();
    let made = webhooks.create(&manager.org, new, &manager.actor).await;
    let webhook = made.map_err(|error| match error {
        CreateWebhookError::TooMany => {
            ApiError::invalid("url", format_args!("{error}; delete some"))
        }
        CreateWebhookError::Store(error) => error.into(),
        other => ApiError::internal(other),
    })?;
    let answer = WebhookWithSecret {
        webhook: webhook.into(),
        secret: secret.reveal(),
    };
    Ok((StatusCode::CREATED, axum::Json(answer)))
}
