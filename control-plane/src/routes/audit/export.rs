//! `GET /v1/audit/export`

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use futures::{StreamExt, TryStreamExt};
use store::Event;

use super::EventQuery;
use crate::AppState;
use crate::auth::Person;
use crate::error::ApiError;
use crate::extract::Params;

/// Streams audit events as NDJSON, oldest first, read as they are taken. `limit` and `cursor` do not apply.
#[utoipa::path(get, path = "/v1/audit/export", tag = "audit", operation_id = "exportAudit", params(EventQuery),
    responses((status = 200, body = String, content_type = "application/x-ndjson")))]
pub(crate) async fn handle(
    State(state): State<AppState>,
    person: Person,
    Params(query): Params<EventQuery>,
) -> Result<Response, ApiError> {
    let (filter, _) = query.split()?;
    let events = state.store.audit().export(&person.org, &filter);
    // A read that fails in the middle breaks the connection off: the reader sees that something is missing.
    let lines = events
        .map_err(std::io::Error::other)
        .and_then(|event| async move { line(&event) });
    let mut response = Body::from_stream(lines.boxed()).into_response();
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/x-ndjson"),
    );
    headers.insert(
        header::CONTENT_DISPOSITION,
        HeaderValue::from_static("attachment; filename=\"audit.ndjson\""),
    );
    Ok(response)
}

fn line(event: &Event) -> Result<Bytes, std::io::Error> {
    let mut line = serde_json::to_vec(event)?;
    line.push(b'\n');
    Ok(line.into())
}
