//! `GET /v1/approvals`

use axum::Json;
use axum::extract::State;
use leases::id::AgentId;
use serde::{Deserialize, Serialize};
use store::Page;
use store::approvals::ApprovalStatus;
use utoipa::{IntoParams, ToSchema};

use super::EitherView;
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
    approvals: Vec<EitherView>,
    next_cursor: Option<String>,
}

/// Lists requests and questions that wait for a person, or waited, in the order they were asked for.
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
    let (org, agent, request) = (caller.org(), agent.as_ref(), paging.request()?);
    let approvals = state.store.approvals();
    let requests = approvals.list(org, agent, status, &request).await?;
    let consents = state.store.consents();
    let questions = consents.list(org, agent, status, &request).await?;
    let page = viewed(requests).merge(viewed(questions), &request, EitherView::id);
    Ok(Json(ApprovalList {
        approvals: page.items,
        next_cursor: page.next_cursor,
    }))
}

fn viewed<T: Into<EitherView>>(page: Page<T>) -> Page<EitherView> {
    Page {
        items: page.items.into_iter().map(Into::into).collect(),
        next_cursor: page.next_cursor,
    }
}

fn read_status(word: &str) -> Result<ApprovalStatus, ApiError> {
    ApprovalStatus::parse(word).ok_or_else(|| {
        let problem = "must be pending, approved, rejected, expired or consumed";
        ApiError::invalid("status", problem)
    })
}
