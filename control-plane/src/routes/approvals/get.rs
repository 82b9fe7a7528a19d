//! `GET /v1/approvals/{id}`

use axum::extract::State;
use leases::id::ApprovalId;

use super::EitherView;
use crate::AppState;
use crate::auth::Caller;
use crate::error::ApiError;
use crate::extract::Id;

/// One approval; an agent sees its own alone.
#[utoipa::path(get, path = "/v1/approvals/{id}", tag = "approvals", operation_id = "getApproval",
    params(("id" = String, Path)), responses((status = 200, body = EitherView)))]
pub(crate) async fn handle(
    State(state): State<AppState>,
    caller: Caller,
    id: Id,
) -> Result<axum::Json<EitherView>, ApiError> {
    let approval: ApprovalId = id.parse("approval")?;
    let (org, agent) = (caller.org(), caller.agent());
    if let Some(request) = state.store.approvals().get(org, agent, &approval).await? {
        return Ok(axum::Json(request.into()));
    }
    let question = state.store.consents().get(org, agent, &approval).await?;
    let question = question.ok_or_else(|| ApiError::not_found("approval", &id.0))?;
    Ok(axum::Json(question.into()))
}
