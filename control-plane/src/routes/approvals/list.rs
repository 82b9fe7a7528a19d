//! `GET /v1/approvals`

use axum::Json;
use axum::extract::State;
use leases::id::AgentId;
use serde::{Deserialize, Serialize};
use store::approvals::ApprovalStatus;
use utoipa::{IntoParams, ToSchema};

use super::ApprovalView;
use crate::AppState;
use crate::auth::Caller;
use crate::error::ApiError;
use crate::extract::{Paging, Params};
use crate::problem::Problem;

/// Which approvals.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ApprovalFilter {
    /// `pending`, `approved`, `rejected`, `expired` or `consumed`.
    #[param(required = false)]
    status: Option<String>,
    /// Of this agent. An agent sees its own approvals only.
    #[param(required = false)]
    agent_id: Option<String>,
}

/// A page of approvals.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ApprovalList {
    approvals: Vec<ApprovalView>,
    next_cursor: Option<String>,
}

/// Lists approvals in the order they were asked for.
#[utoipa::path(get, path = "/v1/approvals", tag = "approvals", operation_id = "listApprovals", params(Paging, ApprovalFilter),
    responses((status = 200, body = ApprovalList), (status = 404, body = Problem)))]
pub(crate) async fn handle(
    State(state): State<AppState>,
    caller: Caller,
    Params(paging): Params<Paging>,
    Params(filter): Params<ApprovalFilter>,
) -> Result<Json<ApprovalList>, ApiError> {
    let named = filter
        .agent_id
        .map(|id| AgentId::parse(&id).map_err(|_| ApiError::not_found("agent", &id)))
        .transpose()?;
    let agent = caller.agent().cloned().or(named);
    let status = filter.status.as_deref().map(read_status).transpose()?;
    let approvals = state.store.approvals();
    let page = approvals
        .list(caller.org(), agent.as_ref(), status, &paging.request()?)
        .await?;
    Ok(Json(ApprovalList {
        approvals: page.items.into_iter().map(ApprovalView::from).collect(),
        next_cursor: page.next_cursor,
    }))
}

fn read_status(word: &str) -> Result<ApprovalStatus, ApiError> {
    ApprovalStatus::parse(word).ok_or_else(|| {
        let problem = "must be pending, approved, rejected, expired or consumed";
        ApiError::invalid("status", problem)
    })
}
