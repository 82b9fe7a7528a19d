//! `GET /v1/webhooks/{id}/deliveries`

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use store::Delivery;
use utoipa::ToSchema;

use super::find;
use crate::AppState;
use crate::error::ApiError;
use crate::extract::{Id, Paging, Params};
use crate::people::myself::Manager;
use crate::problem::Problem;
use crate::timestamp::Timestamp;

/// One delivery, as it stands.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DeliveryView {
    /// Counts the events that the webhook was told of.
    number: u64,
    /// The event, and the `webhook-id` of every attempt.
    event_id: String,
    action: String,
    delivered: bool,
    attempts: u64,
    attempted_at: Timestamp,
    duration_ms: u64,
    /// What the receiver answered last.
    status: Option<u16>,
    /// Why the last attempt is no success.
    error: Option<String>,
}

impl From<Delivery> for DeliveryView {
    fn from(delivery: Delivery) -> Self {
        Self {
            number: delivery.number,
            event_id: delivery.event_id,
            action: delivery.action,
            delivered: delivery.error.is_none(),
            attempts: delivery.attempts,
            attempted_at: delivery.attempted_at.into(),
            duration_ms: delivery.duration_ms,
            status: delivery.status,
            error: delivery.error,
        }
    }
}

/// A page of deliveries.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DeliveryList {
    deliveries: Vec<DeliveryView>,
    next_cursor: Option<String>,
}

/// Lists the last hundred deliveries, newest first.
#[utoipa::path(get, path = "/v1/webhooks/{id}/deliveries", tag = "webhooks", operation_id = "listWebhookDeliveries",
    params(("id" = String, Path), Paging), responses((status = 200, body = DeliveryList), (status = 404, body = Problem)))]
pub(crate) async fn handle(
    State(state): State<AppState>,
    Manager(manager): Manager,
    id: Id,
    Params(paging): Params<Paging>,
) -> Result<Json<DeliveryList>, ApiError> {
    let webhook = find(&state, &manager.org, &id).await?.id;
    let webhooks = state.store.webhooks();
    let page = webhooks
        .deliveries(&manager.org, &webhook, &paging.request()?)
        .await?;
    Ok(Json(DeliveryList {
        deliveries: page.items.into_iter().map(DeliveryView::from).collect(),
        next_cursor: page.next_cursor,
    }))
}
