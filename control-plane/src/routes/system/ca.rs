//! `GET /v1/ca.pem`

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};

use crate::AppState;
use crate::error::ApiError;

/// The certificate that agents trust for the injector, in PEM. Public: it says nothing but that it is a certificate.
#[utoipa::path(get, path = "/v1/ca.pem", tag = "system", operation_id = "caCertificate", security(()),
    responses((status = 200, body = String, content_type = "application/x-pem-file")))]
pub(crate) async fn handle(State(state): State<AppState>) -> Result<Response, ApiError> {
    if state.ca_pem.is_empty() {
        return Err(ApiError::not_found("certificate authority", "ca.pem"));
    }
    let headers = [
        (header::CONTENT_TYPE, "application/x-pem-file"),
        (
            header::CONTENT_DISPOSITION,
            "attachment; filename=\"claviger-ca.pem\"",
        ),
    ];
    Ok((headers, state.ca_pem.to_string()).into_response())
}
