//! `GET /v1/providers`

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::ProviderView;
use crate::AppState;
use crate::auth::Person;
use crate::error::ApiError;

/// All provider templates by name.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ProviderList {
    providers: Vec<ProviderView>,
    /// Always null: the list is short and comes whole.
    next_cursor: Option<String>,
}

/// Lists the provider templates: the built-in ones and the operator's own.
#[utoipa::path(get, path = "/v1/providers", tag = "providers", operation_id = "listProviders", responses((status = 200, body = ProviderList)))]
pub(crate) async fn handle(
    State(state): State<AppState>,
    _person: Person,
) -> Result<Json<ProviderList>, ApiError> {
    let catalog = state.catalog();
    let providers = catalog
        .iter()
        .map(|template| ProviderView::from(template.as_ref()))
        .collect();
    Ok(Json(ProviderList {
        providers,
        next_cursor: None,
    }))
}
