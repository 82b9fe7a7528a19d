//! `GET /v1/ca.pem`

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};

use crate::AppState;
use crate::error::ApiError;
use crate::problem::Problem;

/// The certificates that agents trust for the injector, in PEM. Public: they say nothing but that they are certificates.
#[utoipa::path(get, path = "/v1/ca.pem", tag = "system", operation_id = "caCertificate", security(()),
    responses((status = 200, body = String, content_type = "application/x-pem-file"), (status = 404, body = Problem)))]
pub(crate) async fn handle(State(state): State<AppState>) -> Result<Response, ApiError> {
    let pem = state.ca.pem();
    if pem.is_empty() {
        if state.injectors.is_empty() {
            return Err(ApiError::not_found("certificate authority", "ca.pem"));
        }
        return state.injectors.get("/v1/ca.pem").await;
    }
    let headers = [
        (header::CONTENT_TYPE, "application/x-pem-file"),
        (
            header::CONTENT_DISPOSITION,
            "attachment; filename=\"claviger-ca.pem\"",
        ),
    ];
    Ok((headers, pem.to_string()).into_response())
}
