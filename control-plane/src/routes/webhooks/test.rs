//! `POST /v1/webhooks/{id}/test`

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use tokio::time::Instant;
use utoipa::ToSchema;

use super::find;
use crate::AppState;
use crate::deliver::attempt_test;
use crate::error::ApiError;
use crate::extract::Id;
use crate::people::myself::Manager;
use crate::problem::Problem;

/// What came of a test.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TestAnswer {
    /// Whether the receiver took it.
    delivered: bool,
    /// What the receiver answered.
    status: Option<u16>,
    /// Why it was not taken.
    error: Option<String>,
    duration_ms: u64,
}

/// Posts a signed event of the type `webhook.test`, and says what the receiver makes of it. It is none of the trail, and tried once.
#[utoipa::path(post, path = "/v1/webhooks/{id}/test", tag = "webhooks", operation_id = "testWebhook",
    params(("id" = String, Path)), responses((status = 200, body = TestAnswer), (status = 404, body = Problem)))]
pub(crate) async fn handle(
    State(state): State<AppState>,
    Manager(manager): Manager,
    id: Id,
) -> Result<Json<TestAnswer>, ApiError> {
    let webhook = find(&state, &manager.org, &id).await?;
    let begun = Instant::now();
    let (status, error) = match attempt_test(&state, &webhook).await? {
        Ok(status) => (Some(status), None),
        Err(failed) => (failed.status, Some(failed.error)),
    };
    Ok(Json(TestAnswer {
        delivered: error.is_none(),
        status,
        error,
        duration_ms: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
    }))
}
