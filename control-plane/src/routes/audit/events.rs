//! `GET /v1/audit/events`, and `GET /v1/vault/audit` by the seeds' name.

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use serde_json::{Value, json};
use store::{Event, EventFilter, PageRequest};
use utoipa::ToSchema;

use super::EventQuery;
use crate::AppState;
use crate::auth::Person;
use crate::error::ApiError;
use crate::extract::{MAX_LIMIT, Params};

/// A page of events, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EventList {
    /// `{id, stream, seq, prev_hash, hash, created_at, action, decision, actor_type, actor_id, ...}`; absent fields are left out.
    /// Beside them what the seeds' clients read: `resource_type`, `resource_id`, `details` and `ip_address`.
    #[schema(value_type = Vec<Object>)]
    events: Vec<EventView>,
    /// How many this page has.
    count: usize,
    next_cursor: Option<String>,
}

/// An event, with the same once more by the names that the seeds' clients read.
#[derive(Debug, Serialize)]
struct EventView {
    #[serde(flatten)]
    event: Event,
    resource_type: Option<&'static str>,
    resource_id: Option<String>,
    details: Value,
    ip_address: Option<String>,
}

impl From<Event> for EventView {
    fn from(event: Event) -> Self {
        let resource = resource_of(&event);
        let mut details = json!({"decision": event.decision, "error": event.error, "keys": event.keys,
            "method": event.method, "host": event.host, "path": event.path, "status": event.status});
        if let Some(details) = details.as_object_mut() {
            details.retain(|_, value| !value.is_null() && *value != json!([]));
        }
        Self {
            resource_type: resource.map(|(kind, _)| kind),
            resource_id: resource.map(|(_, id)| id.to_owned()),
            details,
            ip_address: event.client_ip.clone(),
            event,
        }
    }
}

/// What an event is about: what its action names, else the nearest thing that the record has.
fn resource_of(event: &Event) -> Option<(&'static str, &str)> {
    let known = [
        ("approval", &event.approval_id),
        ("policy", &event.policy_id),
        ("lease", &event.lease_id),
        ("grant", &event.grant_id),
        ("secret_set", &event.secret_set_id),
        ("vault", &event.vault_id),
        ("agent", &event.agent_id),
    ];
    let kind = event.action.split('.').next().unwrap_or_default();
    let there = || {
        known
            .iter()
            .filter_map(|(kind, id)| Some((*kind, id.as_deref()?)))
    };
    if let Some(path) = event
        .keys
        .first()
        .filter(|_| kind == "secret" && event.vault_id.is_some())
    {
        return Some(("secret", path));
    }
    there()
        .find(|(named, _)| *named == kind)
        .or_else(|| there().next())
}

/// Lists audit events, newest first. A filtered page may be short although more follow.
#[utoipa::path(get, path = "/v1/audit/events", tag = "audit", operation_id = "listEvents", params(EventQuery),
    responses((status = 200, body = EventList)))]
pub(crate) async fn handle(
    State(state): State<AppState>,
    person: Person,
    Params(query): Params<EventQuery>,
) -> Result<Json<EventList>, ApiError> {
    let offset = query.offset.unwrap_or_default();
    let (filter, page) = query.split()?;
    let Some(page) = skip(&state, &person, &filter, (page, offset)).await? else {
        return Ok(Json(EventList {
            events: Vec::new(),
            count: 0,
            next_cursor: None,
        }));
    };
    let page = state
        .store
        .audit()
        .list(&person.org, &filter, &page)
        .await?;
    let events: Vec<EventView> = page.items.into_iter().map(EventView::from).collect();
    Ok(Json(EventList {
        count: events.len(),
        events,
        next_cursor: page.next_cursor,
    }))
}

/// The page that begins so many events later; none where the trail ends before.
async fn skip(
    state: &AppState,
    person: &Person,
    filter: &EventFilter,
    (mut page, offset): (PageRequest, u32),
) -> Result<Option<PageRequest>, ApiError> {
    let mut left = offset;
    while left > 0 {
        let skipped = PageRequest {
            limit: left.min(MAX_LIMIT),
            cursor: page.cursor.take(),
        };
        let found = state
            .store
            .audit()
            .list(&person.org, filter, &skipped)
            .await?;
        left -= u32::try_from(found.items.len()).unwrap_or(left).min(left);
        match found.next_cursor {
            Some(cursor) => page.cursor = Some(cursor),
            None => return Ok(None),
        }
    }
    Ok(Some(page))
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
