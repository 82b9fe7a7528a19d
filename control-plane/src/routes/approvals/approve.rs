//! `POST /v1/approvals/{id}/approve`

use axum::extract::State;
use store::approvals::Verdict;

use super::{Because, EitherView, settle};
use crate::AppState;
use crate::auth::Person;
use crate::error::ApiError;
use crate::extract::{Id, OptionalJson};
use crate::problem::Problem;

/// Lets a request that waits be made, once, or says yes to a question.
#[utoipa::path(post, path = "/v1/approvals/{id}/approve", tag = "approvals", operation_id = "approve", request_body = Option<Because>,
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
        Verdict::Approve,
        body.reason.as_deref(),
    )
    .await
}
