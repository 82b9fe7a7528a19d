//! `GET /v1/org/agent-keys-vault`

use axum::Json;
use axum::extract::State;

use crate::AppState;
use crate::auth::Person;
use crate::error::ApiError;
use crate::problem::{Code, Problem};
use crate::routes::vaults::VaultView;

/// The vault in which the private identity keys of agents lie, and to which the service alone writes.
#[utoipa::path(get, path = "/v1/org/agent-keys-vault", tag = "vaults", operation_id = "getAgentKeysVault",
    responses((status = 200, body = VaultView), (status = 404, body = Problem)))]
pub(crate) async fn handle(
    State(state): State<AppState>,
    person: Person,
) -> Result<Json<VaultView>, ApiError> {
    let vault = state.store.vaults().agent_keys(&person.org).await?;
    let vault = vault.ok_or_else(|| {
        let detail = "there is no vault of identity keys yet: it is made with the organisation's first agent, by POST /v1/agents or an agent's POST /v1/agents/{id}/rotate-identity-keys";
        ApiError::new(Code::NotFound, detail)
    })?;
    Ok(Json(vault.into()))
}
