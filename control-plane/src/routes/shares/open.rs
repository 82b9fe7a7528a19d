//! `GET /v1/share/{id}`

use axum::extract::State;
use axum::http::Method;
use axum::response::Response;

use super::opening::{Opening, SharedValue};
use crate::AppState;
use crate::auth;
use crate::context::RequestContext;
use crate::error::ApiError;
use crate::extract::Id;
use crate::problem::{Code, Problem};
use crate::sender::Sender;

/// Gives out a shared value: by what a link says, or by a share's id to whom it is for. Each answer is one opening, counted and
/// on record.
///
/// Whatever is wrong, the answer is one and the same 404.
#[utoipa::path(get, path = "/v1/share/{id}", tag = "shares", operation_id = "openShare", security((), ("key" = []), ("clawb" = [])),
    params(("id" = String, Path, description = "What a link says, `share_...`, or a share's id, `shr_...`")),
    responses((status = 200, body = SharedValue), (status = 401, body = Problem), (status = 403, body = Problem), (status = 404, body = Problem), (status = 429, body = Problem)))]
pub(crate) async fn handle(
    State(state): State<AppState>,
    context: RequestContext,
    method: Method,
    sender: Sender,
    id: Id,
) -> Result<Response, ApiError> {
    if method == Method::HEAD {
        // It would use up an opening and show nothing.
        let detail = "a share is opened with GET, which counts; there is no HEAD";
        return Err(ApiError::new(Code::MethodNotAllowed, detail));
    }
    let caller = auth::caller_if_any(&state, &context, &sender).await?;
    let opening = Opening {
        state: &state,
        context: &context,
        caller: caller.as_ref(),
        passphrase: None,
    };
    opening.open(&id.0).await
}
