//! `POST /v1/shares/{id}/access`

use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;
use utoipa::ToSchema;
use vault::Secret;

use super::opening::{Opening, SharedValue};
use crate::AppState;
use crate::auth;
use crate::context::RequestContext;
use crate::error::ApiError;
use crate::extract::{Id, OptionalJson};
use crate::problem::Problem;
use crate::sender::Sender;

/// What opens a share beside its link or its recipient's credential.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AccessShare {
    #[schema(value_type = Option<String>)]
    passphrase: Option<Secret>,
}

/// Gives out a shared value as `GET /v1/share/{id}` does, for a share that takes a passphrase too.
///
/// A passphrase is tried ten times; after that the share stays closed.
#[utoipa::path(post, path = "/v1/shares/{id}/access", tag = "shares", operation_id = "accessShare", security((), ("key" = []), ("clawb" = [])),
    request_body = Option<AccessShare>, params(("id" = String, Path, description = "What a link says, `share_...`, or a share's id, `shr_...`")),
    responses((status = 200, body = SharedValue), (status = 401, body = Problem), (status = 403, body = Problem), (status = 404, body = Problem), (status = 429, body = Problem)))]
pub(crate) async fn handle(
    State(state): State<AppState>,
    context: RequestContext,
    sender: Sender,
    id: Id,
    OptionalJson(body): OptionalJson<AccessShare>,
) -> Result<Response, ApiError> {
    let caller = auth::caller_if_any(&state, &context, &sender).await?;
    if body.passphrase.is_some() {
        state.people.limits.source(context.client_ip)?;
    }
    let opening = Opening {
        state: &state,
        context: &context,
        caller: caller.as_ref(),
        passphrase: body.passphrase.as_ref(),
    };
    opening.open(&id.0).await
}
