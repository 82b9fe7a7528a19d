//! `POST /v1/approvals/{id}/decide`

use axum::extract::State;
use serde::Deserialize;
use store::approvals::Verdict;
use utoipa::ToSchema;

use super::{EitherView, settle};
use crate::AppState;
use crate::auth::Person;
use crate::error::ApiError;
use crate::extract::{Id, Json};
use crate::problem::Problem;

/// A decision.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Decide {
    decision: Decision,
    /// For the audit trail, and for the agent whose request is rejected.
    reason: Option<String>,
}

/// What is decided.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Decision {
    /// The request may be made, once.
    Approved,
    /// It may not.
    Rejected,
}

/// Decides on a request or a question that waits, once.
#[utoipa::path(post, path = "/v1/approvals/{id}/decide", tag = "approvals", operation_id = "decide", request_body = Decide,
    params(("id" = String, Path)), responses((status = 200, body = EitherView), (status = 409, body = Problem)))]
pub(crate) async fn handle(
    State(state): State<AppState>,
    person: Person,
    id: Id,
    Json(body): Json<Decide>,
) -> Result<axum::Json<EitherView>, ApiError> {
    let verdict = match body.decision {
        Decision::Approved => Verdict::Approve,
        Decision::Rejected => Verdict::Reject,
    };
    settle(&state, &person, &id, verdict, body.reason.as_deref()).await
}
