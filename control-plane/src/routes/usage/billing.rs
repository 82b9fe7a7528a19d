//! `GET /v1/billing/usage`

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use crate::AppState;
use crate::auth::Person;
use crate::error::ApiError;

/// The month in the form of the seeds' service. Nothing is charged here.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BillingUsage {
    /// Always `self_hosted`.
    billing_tier: &'static str,
    /// Requests a month; null for any number.
    free_tier_limit: Option<u64>,
    current_month: CurrentMonth,
}

/// What was asked for since the first of the month, in UTC.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CurrentMonth {
    total_requests: u64,
}

/// Shows this month's requests in the form of the seeds' service; `GET /v1/usage` shows more.
#[utoipa::path(get, path = "/v1/billing/usage", tag = "usage", operation_id = "getBillingUsage",
    responses((status = 200, body = BillingUsage)))]
pub(crate) async fn handle(
    State(state): State<AppState>,
    person: Person,
) -> Result<Json<BillingUsage>, ApiError> {
    let standing = state.store.requests().standing(&person.org).await?;
    Ok(Json(BillingUsage {
        billing_tier: "self_hosted",
        free_tier_limit: standing.limit,
        current_month: CurrentMonth {
            total_requests: standing.used,
        },
    }))
}
