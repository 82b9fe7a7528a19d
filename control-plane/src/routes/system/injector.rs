//! `GET /v1/injector`: where to send the requests that are to get their credentials.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use crate::AppState;
use crate::auth::Caller;
use crate::injector::Inject;

/// The injector of this process.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct InjectorView {
    /// Where it listens; the unspecified address stands for every one of this server. `null` where this process has none.
    #[schema(example = "http://127.0.0.1:8182")]
    url: Option<String>,
}

/// Tells where the injector of this process listens.
#[utoipa::path(get, path = "/v1/injector", tag = "system", operation_id = "getInjector", responses((status = 200, body = InjectorView)))]
pub(crate) async fn handle(State(state): State<AppState>, _caller: Caller) -> Json<InjectorView> {
    let url = state.inject.as_deref().and_then(Inject::url);
    Json(InjectorView { url })
}
