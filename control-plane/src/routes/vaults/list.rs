//! `GET /v1/vaults`

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::VaultView;
use crate::AppState;
use crate::auth::Caller;
use crate::error::ApiError;
use crate::extract::{Params, WidePaging};

/// A page of vaults.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct VaultList {
    vaults: Vec<VaultView>,
    next_cursor: Option<String>,
}

/// Lists vaults in the order they were made; an agent sees those on which it holds a policy, and its page may be short although more
/// follow.
#[utoipa::path(get, path = "/v1/vaults", tag = "vaults", operation_id = "listVaults", params(WidePaging),
    responses((status = 200, body = VaultList)))]
pub(crate) async fn handle(
    State(state): State<AppState>,
    caller: Caller,
    Params(paging): Params<WidePaging>,
) -> Result<Json<VaultList>, ApiError> {
    let org = caller.org();
    let mut page = state.store.vaults().page(org, &paging.request()?).await?;
    if let Some(agent) = caller.agent() {
        let policies = state.store.policies();
        let seen = policies.vaults_of(org, agent.as_str()).await?;
        page.items.retain(|vault| {
            seen.contains(&vault.id) && caller.check_vault(Some(&vault.id)).is_ok()
        });
    }
    Ok(Json(VaultList {
        vaults: page.items.into_iter().map(VaultView::from).collect(),
        next_cursor: page.next_cursor,
    }))
}
