//! `POST /v1/shares/{id}/accept`

use axum::extract::State;
use axum::http::StatusCode;

use super::{find_received, is_vouched, unknown};
use crate::AppState;
use crate::auth::Caller;
use crate::error::ApiError;
use crate::extract::Id;
use crate::problem::{Code, Problem};

/// Accepts what was shared with the caller; until then it does not open. Again changes nothing.
///
/// A share to an email is accepted by what its link says, for that shows who reads the mailbox; by its id it is where the sharing
/// organisation had invited the email.
#[utoipa::path(post, path = "/v1/shares/{id}/accept", tag = "shares", operation_id = "acceptShare",
    params(("id" = String, Path, description = "A share's id, `shr_...`, or what its link says, `share_...`")),
    responses((status = 204), (status = 403, body = Problem), (status = 404, body = Problem)))]
pub(crate) async fn handle(
    State(state): State<AppState>,
    caller: Caller,
    id: Id,
) -> Result<StatusCode, ApiError> {
    let named = find_received(&state, &id, &caller).await?;
    if !named.is_by_link && !is_vouched(&state, &named.share, &caller).await? {
        let detail = "nobody vouches that this email is yours; accept the share by its link, which was sent to the email";
        return Err(ApiError::new(Code::Forbidden, detail));
    }
    let shares = state.store.shares();
    let accepted = shares
        .accept(&named.share, caller.principal.id(), &caller.actor())
        .await?;
    accepted
        .then_some(StatusCode::NO_CONTENT)
        .ok_or_else(unknown)
}
