//! `GET /metrics`

use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use prometheus::{Encoder, TextEncoder};

use crate::AppState;
use crate::auth;
use crate::context::RequestContext;
use crate::error::ApiError;
use crate::problem::Problem;

/// Metrics in Prometheus' text format. Open to this machine; from elsewhere it takes a person's key, for numbers tell of use.
#[utoipa::path(get, path = "/metrics", tag = "system", operation_id = "metrics", security((), ("key" = []), ("clawb" = [])),
    responses((status = 200, body = String, content_type = "text/plain"), (status = 401, body = Problem), (status = 429, body = Problem)))]
pub(crate) async fn handle(
    State(state): State<AppState>,
    context: RequestContext,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let local = context.client_ip.is_some_and(|ip| ip.is_loopback());
    if !(local || auth::is_person(&state, &headers).await?) {
        return Err(auth::refuse(&state, &context, "a credential for metrics was refused").await);
    }
    state.metrics.take_ledger(&state.store.ledger().health());
    let encoder = TextEncoder::new();
    let mut text = Vec::new();
    encoder
        .encode(&state.metrics.registry().gather(), &mut text)
        .map_err(ApiError::internal)?;
    Ok((
        [(header::CONTENT_TYPE, encoder.format_type().to_owned())],
        text,
    )
        .into_response())
}
