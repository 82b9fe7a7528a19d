//! `GET /v1/vault/leases`

use axum::Json;
use axum::extract::State;
use leases::id::AgentId;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::LeaseView;
use crate::AppState;
use crate::auth::Caller;
use crate::error::ApiError;
use crate::extract::{Paging, Params};
use crate::problem::Problem;

/// Which leases. An unknown parameter is refused: a mistyped filter would show more than was meant.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct LeaseFilter {
    /// Of this agent. An agent sees its own leases only.
    #[param(required = false)]
    agent_id: Option<String>,
    /// Items of one page: default 50, at most 200 (more is taken as 200).
    #[param(
        minimum = 1,
        maximum = 4_294_967_295_u64,
        default = 50,
        required = false
    )]
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    #[param(required = false)]
    cursor: Option<String>,
}

/// A page of leases.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LeaseList {
    leases: Vec<LeaseView>,
    next_cursor: Option<String>,
}

/// Lists leases in the order they were minted.
#[utoipa::path(get, path = "/v1/vault/leases", tag = "leases", operation_id = "listLeases", params(LeaseFilter),
    responses((status = 200, body = LeaseList), (status = 404, body = Problem)))]
pub(crate) async fn handle(
    State(state): State<AppState>,
    caller: Caller,
    Params(filter): Params<LeaseFilter>,
) -> Result<Json<LeaseList>, ApiError> {
    let paging = Paging::new(filter.limit, filter.cursor);
    let named = filter
        .agent_id
        .map(|id| AgentId::parse(&id).map_err(|_| ApiError::not_found("agent", &id)))
        .transpose()?;
    let agent = caller.agent().cloned().or(named);
    let page = state
        .store
        .leases()
        .list(caller.org(), agent.as_ref(), &paging.request()?)
        .await?;
    let now = state.clock.now();
    let leases = page
        .items
        .into_iter()
        .map(|lease| LeaseView::new(lease, now))
        .collect();
    Ok(Json(LeaseList {
        leases,
        next_cursor: page.next_cursor,
    }))
}
