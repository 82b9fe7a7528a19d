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

/// Which grants. An unknown parameter is refused: a mistyped filter would show more than was meant.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct GrantFilter {
    /// Of this agent.
    #[param(required = false)]
    agent_id: Option<String>,
    /// On this secret set.
    #[param(required = false)]
    secret_set_id: Option<String>,
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

/// A page of grants.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct GrantList {
    grants: Vec<GrantView>,
    next_cursor: Option<String>,
}

/// Lists grants in the order they were made, also the revoked. A filtered page may be short although more follow.
#[utoipa::path(get, path = "/v1/vault/grants", tag = "grants", operation_id = "listGrants", params(GrantFilter),
    responses((status = 200, body = GrantList)))]
pub(crate) async fn handle(
    State(state): State<AppState>,
    person: Person,
    Params(mut filter): Params<GrantFilter>,
) -> Result<Json<GrantList>, ApiError> {
    let paging = Paging::new(filter.limit, filter.cursor.take());
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
