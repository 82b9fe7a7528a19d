//! `POST /v1/identity/kill-switch/revoke-all`

use axum::extract::State;
use serde::Deserialize;
use utoipa::ToSchema;

use super::{KillSwitchStatus, check_admin, check_reason, named};
use crate::AppState;
use crate::auth::Person;
use crate::error::ApiError;
use crate::extract::Json;
use crate::problem::Problem;

/// Whose leases end. An unknown field is refused: a mistyped `agent_id` would mean everybody.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RevokeAll {
    /// Why, for the audit trail.
    reason: String,
    /// One agent alone; the whole organisation when left out.
    agent_id: Option<String>,
}

/// Revokes every lease minted until now: the next request of each is refused, on every node and in open tunnels.
#[utoipa::path(post, path = "/v1/identity/kill-switch/revoke-all", tag = "kill-switch", operation_id = "revokeAll", request_body = RevokeAll,
    responses((status = 200, body = KillSwitchStatus), (status = 404, body = Problem)))]
pub(crate) async fn handle(
    State(state): State<AppState>,
    person: Person,
    Json(body): Json<RevokeAll>,
) -> Result<axum::Json<KillSwitchStatus>, ApiError> {
    check_admin(&person)?;
    check_reason(&body.reason)?;
    let agent = named(body.agent_id.as_deref())?;
    let switch = state.store.kill_switch();
    let cut_off = switch
        .revoke_all(&person.org, agent.as_ref(), &body.reason, &person.actor)
        .await?;
    if cut_off.is_none() {
        let named = body.agent_id.unwrap_or_default();
        return Err(ApiError::not_found("agent", &named));
    }
    let status = KillSwitchStatus::read(&state, &person.org).await?;
    Ok(axum::Json(status))
}
