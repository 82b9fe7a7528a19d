//! `GET /v1/audit/export`

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use store::Event;

use super::{EventQuery, Format, csv};
use crate::AppState;
use crate::auth::Person;
use crate::error::ApiError;
use crate::extract::Params;

/// Streams audit events as NDJSON or CSV, oldest first, read as they are taken. `limit` and `cursor` do not apply.
#[utoipa::path(get, path = "/v1/audit/export", tag = "audit", operation_id = "exportAudit", params(EventQuery),
    responses((status = 200, content((String = "application/x-ndjson"), (String = "text/csv")))))]
pub(crate) async fn handle(
    State(state): State<AppState>,
    person: Person,
    Params(query): Params<EventQuery>,
) -> Result<Response, ApiError> {
    let format = query.format.unwrap_or_default();
    let (filter, _) = query.split()?;
    let events = state.store.audit().export(&person.org, &filter);
    // A read that fails in the middle breaks the connection off: the reader sees that something is missing.
    let events = events.map_err(std::io::Error::other);
    let (body, content_type, disposition) = match format {
        Format::Ndjson => (
            Body::from_stream(events.and_then(async |event| line(&event))),
            "application/x-ndjson",
            "attachment; filename=\"audit.ndjson\"",
        ),
        Format::Csv => {
            let head = stream::once(async { csv::head() });
            let rows = events.and_then(async |event| csv::row(&event));
            (
                Body::from_stream(head.chain(rows)),
                "text/csv; charset=utf-8; header=present",
                "attachment; filename=\"audit.csv\"",
            )
        }
    };
    let headers = [
        (header::CONTENT_TYPE, content_type),
        (header::CONTENT_DISPOSITION, disposition),
    ];
    Ok((headers, body).into_response())
}

fn line(event: &Event) -> Result<Bytes, std::io::Error> {
    let mut line = serde_json::to_vec(event)?;
    line.push(b'\n');
    Ok(line.into())
}
