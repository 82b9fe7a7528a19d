//! `GET /v1/vault/secret-sets`

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::SecretSetView;
use crate::AppState;
use crate::auth::Person;
use crate::error::ApiError;
use crate::extract::{PagingAlone, Params};

/// A page of secret sets.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SecretSetList {
    secret_sets: Vec<SecretSetView>,
    next_cursor: Option<String>,
}

/// Lists secret sets in the order they were made.
#[utoipa::path(get, path = "/v1/vault/secret-sets", tag = "secret sets", operation_id = "listSecretSets", params(PagingAlone),
    responses((status = 200, body = SecretSetList)))]
pub(crate) async fn handle(
    State(state): State<AppState>,
    person: Person,
    Params(paging): Params<PagingAlone>,
) -> Result<Json<SecretSetList>, ApiError> {
    let page = state
        .store
        .secret_sets()
        .list(&person.org, &paging.request()?)
        .await?;
    let secret_sets = page.items.into_iter().map(SecretSetView::from).collect();
    Ok(Json(SecretSetList {
        secret_sets,
        next_cursor: page.next_cursor,
    }))
}
