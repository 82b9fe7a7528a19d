//! `POST /v1/agents/{id}/rotate-identity-keys`

use axum::Json;
use axum::extract::State;
use leases::id::AgentId;
use store::RotateIdentityError;

use super::AgentView;
use crate::AppState;
use crate::agent_keys;
use crate::auth::Person;
use crate::error::ApiError;
use crate::extract::Id;
use crate::problem::Problem;

/// Puts new SSH and ECDH keys in place of an agent's. The private ones before stay readable as earlier versions of their secrets.
#[utoipa::path(post, path = "/v1/agents/{id}/rotate-identity-keys", tag = "agents", operation_id = "rotateIdentityKeys",
    params(("id" = String, Path), ("Idempotency-Key" = Option<String>, Header, description = "Repeats have one effect for 24 h")),
    responses((status = 200, body = AgentView), (status = 409, body = Problem)))]
pub(crate) async fn handle(
    State(state): State<AppState>,
    person: Person,
    id: Id,
) -> Result<Json<AgentView>, ApiError> {
    let missing = || ApiError::not_found("agent", &id.0);
    let agent: AgentId = id.parse("agent")?;
    let agents = state.store.agents();
    // Asked before any key is made.
    agents.get(&person.org, &agent).await?.ok_or_else(missing)?;
    for _ in 0..agent_keys::ATTEMPTS {
        let new = agent_keys::seal(&state, &person.org, &agent).await?;
        let rotated = agents.rotate_identity(&person.org, new, &person.actor);
        match rotated.await {
            Ok(rotated) => return Ok(Json(rotated.ok_or_else(missing)?.into())),
            Err(RotateIdentityError::Moved) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(RotateIdentityError::Moved.into())
}
