//! `GET /v1/vault/grants`

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use store::Grant;
use utoipa::{IntoParams, ToSchema};

use super::GrantView;
use crate::AppState;
use crate::auth::Person;
use crate::error::ApiError;
use crate::extract::{Paging, Params};

/// Which grants.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct GrantFilter {
    /// Of this agent.
    #[param(required = false)]
    agent_id: Option<String>,
    /// On this secret set.
    #[param(required = false)]
    secret_set_id: Option<String>,
}

/// A page of grants.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct GrantList {
    grants: Vec<GrantView>,
    next_cursor: Option<String>,
}

/// Lists grants in the order they were made, also the revoked. A filtered page may be short although more follow.
#[utoipa::path(get, path = "/v1/vault/grants", tag = "grants", operation_id = "listGrants", params(Paging, GrantFilter),
    responses((status = 200, body = GrantList)))]
pub(crate) async fn handle(
    State(state): State<AppState>,
    person: Person,
    Params(paging): Params<Paging>,
    Params(filter): Params<GrantFilter>,
) -> Result<Json<GrantList>, ApiError> {
    let page = state
        .store
        .grants()
        .list(&person.org, &paging.request()?)
        .await?;
    let now = state.clock.now();
    let grants = page.items.into_iter().filter(|grant| filter.takes(grant));
    let grants = grants.map(|grant| GrantView::new(grant, now)).collect();
    Ok(Json(GrantList {
        grants,
        next_cursor: page.next_cursor,
    }))
}

impl GrantFilter {
    fn takes(&self, grant: &Grant) -> bool {
        self.agent_id
            .as_deref()
            .is_none_or(|id| id == grant.agent_id.as_str())
            && self
                .secret_set_id
                .as_deref()
                .is_none_or(|id| id == grant.secret_set_id.as_str())
    }
}
