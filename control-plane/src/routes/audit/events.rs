//! `GET /v1/audit/events`, and `GET /v1/vault/audit` by the seeds' name.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use store::Event;
use utoipa::ToSchema;

use super::EventQuery;
use crate::AppState;
use crate::auth::Person;
use crate::error::ApiError;
use crate::extract::Params;

/// A page of events, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EventList {
    /// `{id, stream, seq, prev_hash, hash, created_at, action, decision, actor_type, actor_id, ...}`; absent fields are left out.
    #[schema(value_type = Vec<Object>)]
    events: Vec<Event>,
    next_cursor: Option<String>,
}

/// Lists audit events, newest first. A filtered page may be short although more follow.
#[utoipa::path(get, path = "/v1/audit/events", tag = "audit", operation_id = "listEvents", params(EventQuery),
    responses((status = 200, body = EventList)))]
pub(crate) async fn handle(
    State(state): State<AppState>,
    person: Person,
    Params(query): Params<EventQuery>,
) -> Result<Json<EventList>, ApiError> {
    let (filter, page) = query.split()?;
    let page = state
        .store
        .audit()
        .list(&person.org, &filter, &page)
        .await?;
    Ok(Json(EventList {
        events: page.items,
        next_cursor: page.next_cursor,
    }))
}

/// Lists audit events: the same as `/v1/audit/events`.
#[utoipa::path(get, path = "/v1/vault/audit", tag = "audit", operation_id = "listVaultEvents", params(EventQuery),
    responses((status = 200, body = EventList)))]
pub(crate) async fn handle_alias(
    state: State<AppState>,
    person: Person,
    query: Params<EventQuery>,
) -> Result<Json<EventList>, ApiError> {
    handle(state, person, query).await
}
