//! `POST /v1/approvals/{id}/deny`

use axum::extract::State;
use store::approvals::Verdict;

use super::{Because, EitherView, settle};
use crate::AppState;
use crate::auth::Person;
use crate::error::ApiError;
use crate::extract::{Id, OptionalJson};
use crate::problem::Problem;

/// Rejects a request that waits, or says no to a question.
#[utoipa::path(post, path = "/v1/approvals/{id}/deny", tag = "approvals", operation_id = "deny", request_body = Option<Because>,
    params(("id" = String, Path)), responses((status = 200, body = EitherView), (status = 409, body = Problem)))]
pub(crate) async fn handle(
    State(state): State<AppState>,
    person: Person,
    id: Id,
    OptionalJson(body): OptionalJson<Because>,
) -> Result<axum::Json<EitherView>, ApiError> {
    settle(
        &state,
        &person,
        &id,
        Verdict::Reject,
        body.reason.as_deref(),
    )
    .await
}
