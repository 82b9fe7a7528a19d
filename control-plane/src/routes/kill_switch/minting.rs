//! `POST /v1/identity/kill-switch/minting`

use axum::extract::State;
use serde::Deserialize;
use utoipa::ToSchema;

use super::{KillSwitchStatus, check_admin, check_reason, named};
use crate::AppState;
use crate::auth::Person;
use crate::error::ApiError;
use crate::extract::Json;
use crate::problem::Problem;

/// Whether minting is to stand still. An unknown field is refused: a mistyped `agent_id` would mean everybody.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SetMinting {
    /// `true` pauses, `false` resumes.
    paused: bool,
    /// Why: whoever is refused a lease reads it.
    reason: String,
    /// One agent alone; the whole organisation when left out.
    agent_id: Option<String>,
}

/// Pauses or resumes the minting of leases. Leases that were minted stay good.
#[utoipa::path(post, path = "/v1/identity/kill-switch/minting", tag = "kill-switch", operation_id = "setMinting", request_body = SetMinting,
    responses((status = 200, body = KillSwitchStatus), (status = 404, body = Problem)))]
pub(crate) async fn handle(
    State(state): State<AppState>,
    person: Person,
    Json(body): Json<SetMinting>,
) -> Result<axum::Json<KillSwitchStatus>, ApiError> {
    check_admin(&person)?;
    check_reason(&body.reason)?;
    let agent = named(body.agent_id.as_deref())?;
    let switch = state.store.kill_switch();
    let is_set = switch
        .set_minting(
            &person.org,
            agent.as_ref(),
            body.paused,
            &body.reason,
            &person.actor,
        )
        .await?;
    if !is_set {
        let named = body.agent_id.unwrap_or_default();
        return Err(ApiError::not_found("agent", &named));
    }
    let status = KillSwitchStatus::read(&state, &person.org).await?;
    Ok(axum::Json(status))
}
