//! Agents that show a token of their own identity provider in the place of a key.

use leases::id::AgentId;
use store::{Agent, AuthMethod};
use vault::Secret;

use super::{Expected, Issuer, head, verify};
use crate::AppState;
use crate::error::ApiError;

/// Finds the agent that a token proves to be it. The inner error is the reason for the record, and one answer to the caller.
///
/// The agent is named, and the provider is the one of its row: a token's own claims never choose whom this plane asks.
///
/// # Errors
/// What the store says, and what keeps the provider from being asked.
pub(crate) async fn identify(
    state: &AppState,
    agent: Option<&str>,
    token: &Secret,
) -> Result<Result<Agent, &'static str>, ApiError> {
    let Some(id) = agent.and_then(|id| id.parse::<AgentId>().ok()) else {
        return Ok(Err("an agent's token was refused: it names no agent"));
    };
    let token = token.expose_str().unwrap_or_default();
    let head = match head(token) {
        Ok(head) => head,
        Err(error) => return Ok(Err(error.as_str())),
    };
    let now = state.clock.now();
    let found = state.store.agents().find_anywhere(&id).await?;
    let found = found.filter(|agent| {
        agent.is_live(now) && agent.settings.auth_method == AuthMethod::OidcClientCredentials
    });
    let Some((agent, oidc)) = found.and_then(|agent| Some((agent.clone(), agent.settings.oidc?)))
    else {
        return Ok(Err(
            "an agent's token was refused: the agent has no provider",
        ));
    };
    let issuer = Issuer::parse(&oidc.issuer).map_err(ApiError::internal)?;
    let provider = state
        .providers
        .get(&state.outbound, &issuer, Some(&head), now)
        .await?;
    let expected = Expected::Client {
        issuer: &issuer,
        client_id: &oidc.client_id,
        audience: oidc.audience.as_deref().unwrap_or(AUDIENCE),
    };
    Ok(match verify(&provider, token, expected, now) {
        Ok(_) => Ok(agent),
        Err(error) => Err(error.as_str()),
    })
}

/// For whom an agent's token is made where nothing else was agreed on. There always is one, so that a token for another service
/// opens nothing here.
const AUDIENCE: &str = "claviger";
