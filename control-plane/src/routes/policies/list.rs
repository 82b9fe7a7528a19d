//! `GET /v1/vaults/{vault_id}/policies`

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::{PolicyView, find_vault};
use crate::AppState;
use crate::auth::Person;
use crate::error::ApiError;
use crate::extract::{Id, Params, WidePaging};

/// A page of policies.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PolicyList {
    policies: Vec<PolicyView>,
    next_cursor: Option<String>,
}

/// Lists the policies of a vault in the order they were made, also those that have expired. `export` marks those that show values to an
/// agent.
#[utoipa::path(get, path = "/v1/vaults/{vault_id}/policies", tag = "policies", operation_id = "listPolicies",
    params(("vault_id" = String, Path), WidePaging), responses((status = 200, body = PolicyList)))]
pub(crate) async fn handle(
    State(state): State<AppState>,
    person: Person,
    id: Id,
    Params(paging): Params<WidePaging>,
) -> Result<Json<PolicyList>, ApiError> {
    let vault = find_vault(&state, &person.org, &id.0).await?;
    let policies = state.store.policies();
    let page = policies
        .list(&person.org, &vault.id, &paging.request()?)
        .await?;
    let now = state.clock.now();
    let policies = page.items.into_iter();
    Ok(Json(PolicyList {
        policies: policies
            .map(|policy| PolicyView::new(policy, now))
            .collect(),
        next_cursor: page.next_cursor,
    }))
}
