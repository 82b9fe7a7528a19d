//! `GET /openapi.json`

use axum::http::header;
use axum::response::{IntoResponse, Response};

/// This API's description in OpenAPI 3.1.
#[utoipa::path(get, path = "/openapi.json", tag = "system", operation_id = "openapi", security(()),
    responses((status = 200, body = Object, content_type = "application/json")))]
pub(crate) async fn handle() -> Response {
    (
        [(header::CONTENT_TYPE, "application/json")],
        crate::openapi::text(),
    )
        .into_response()
}
