//! `PATCH /v1/webhooks/{id}`

use axum::extract::State;
use serde::Deserialize;
use store::WebhookPatch;
use utoipa::ToSchema;

use super::{WebhookView, check_description, check_events, check_url, missing};
use crate::AppState;
use crate::error::ApiError;
use crate::extract::{Id, Json};
use crate::people::myself::Manager;
use crate::problem::Problem;

/// What to change; an absent field stays as it is.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct UpdateWebhook {
    url: Option<String>,
    /// As a whole.
    events: Option<Vec<String>>,
    /// `null` removes it.
    #[serde(default, deserialize_with = "crate::json::nullable")]
    #[schema(value_type = Option<String>)]
    #[expect(
        clippy::option_option,
        reason = "absent, null and a text are three things in a PATCH"
    )]
    description: Option<Option<String>>,
    /// `false` stops it; `true` goes on where it was, with all that was recorded meanwhile.
    is_active: Option<bool>,
}

/// Changes, stops or resumes a webhook. What failed before is tried at once.
#[utoipa::path(patch, path = "/v1/webhooks/{id}", tag = "webhooks", operation_id = "updateWebhook", request_body = UpdateWebhook,
    params(("id" = String, Path)), responses((status = 200, body = WebhookView), (status = 400, body = Problem), (status = 404, body = Problem)))]
pub(crate) async fn handle(
    State(state): State<AppState>,
    Manager(manager): Manager,
    id: Id,
    Json(body): Json<UpdateWebhook>,
) -> Result<axum::Json<WebhookView>, ApiError> {
    if let Some(url) = &body.url {
        check_url(&state, url)?;
    }
    check_description(body.description.as_ref().and_then(Option::as_deref))?;
    let patch = WebhookPatch {
        events: body.events.as_deref().map(check_events).transpose()?,
        url: body.url,
        description: body.description,
        is_active: body.is_active,
    };
    let webhooks = state.store.webhooks();
    let webhook = webhooks
        .patch(&manager.org, &id.parse("webhook")?, patch, &manager.actor)
        .await?;
    let webhook = webhook.ok_or_else(|| missing(&id))?;
    Ok(axum::Json(webhook.into()))
}
