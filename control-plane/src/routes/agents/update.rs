//! `PATCH /v1/agents/{id}`

use axum::extract::State;
use serde::Deserialize;
use store::{AgentPatch, PatchAgentError, SettingsPatch};
use utoipa::ToSchema;

use super::seeds::AgentBody;
use super::{
    AgentView, check_description, check_name, name_taken, oidc, settings, settings_refused,
};
use crate::AppState;
use crate::auth::Person;
use crate::error::ApiError;
use crate::extract::Id;
use crate::timestamp::Timestamp;

/// What to change; an absent field stays as it is.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct UpdateAgent {
    name: Option<String>,
    /// `null` removes it.
    #[serde(default, deserialize_with = "crate::json::nullable")]
    #[schema(value_type = Option<String>)]
    #[expect(
        clippy::option_option,
        reason = "absent, null and a text are three things in a PATCH"
    )]
    description: Option<Option<String>>,
    /// `false` refuses the agent's next request, in open tunnels too.
    is_active: Option<bool>,
    /// Another method, with its fields; what the old one gave ends at once, tokens and leases. An agent that goes back to `api_key` gets its key by
    /// `POST /v1/agents/{id}/rotate-key`.
    auth_method: Option<String>,
    /// For `signed_request`: another Ed25519 key, 32 bytes in base64.
    public_key: Option<String>,
    /// For `mtls`: SHA-256 of another certificate's DER in hexadecimal.
    client_cert_fingerprint: Option<String>,
    /// For `oidc_client_credentials`: another identity provider, or another client at the same one. Issuer and client id go
    /// together, and take the place of the audience as well.
    #[schema(example = "https://id.example.org")]
    oidc_issuer: Option<String>,
    /// The agent's own client there.
    oidc_client_id: Option<String>,
    /// For whom the provider makes the agent's tokens; `null` for `claviger`. It may be given alone.
    #[serde(
        default,
        alias = "audience",
        deserialize_with = "crate::json::nullable"
    )]
    #[schema(value_type = Option<String>)]
    #[expect(
        clippy::option_option,
        reason = "absent, null and a text are three things in a PATCH"
    )]
    oidc_audience: Option<Option<String>>,
    /// How long its tokens live: 60 to 3600; `null` for 900.
    #[serde(default, deserialize_with = "crate::json::nullable")]
    #[schema(value_type = Option<i64>)]
    #[expect(
        clippy::option_option,
        reason = "absent, null and a number are three things in a PATCH"
    )]
    token_ttl_seconds: Option<Option<i64>>,
    /// `null` lifts the bound.
    #[serde(default, deserialize_with = "crate::json::nullable")]
    #[schema(value_type = Option<Vec<String>>)]
    #[expect(
        clippy::option_option,
        reason = "absent, null and a list are three things in a PATCH"
    )]
    vault_ids: Option<Option<Vec<String>>>,
    /// Leases that would outlive it end at once. `null` for no end.
    #[serde(default, deserialize_with = "crate::json::nullable")]
    #[schema(value_type = Option<String>, format = DateTime)]
    #[expect(
        clippy::option_option,
        reason = "absent, null and a time are three things in a PATCH"
    )]
    expires_at: Option<Option<Timestamp>>,
}

impl UpdateAgent {
    fn settings(&self, state: &AppState) -> Result<SettingsPatch, ApiError> {
        let method = self.auth_method.as_deref().map(settings::method);
        let key = self.public_key.as_deref().map(settings::public_key);
        let certificate = self.client_cert_fingerprint.as_deref();
        let certificate = certificate.map(settings::fingerprint);
        let audience = self.oidc_audience.clone();
        oidc::check_audience(audience.as_ref().and_then(Option::as_ref))?;
        let named = [&self.oidc_issuer, &self.oidc_client_id, &None];
        let ttl = self.token_ttl_seconds;
        let ttl = ttl.map(|ttl| ttl.map(settings::ttl).transpose());
        let vaults = self.vault_ids.as_ref();
        let vaults = vaults.map(|ids| ids.as_deref().map(settings::vaults).transpose());
        let (end, now) = (self.expires_at, state.clock.now());
        let end = end.map(|end| end.map(|end| settings::end(end, now)).transpose());
        Ok(SettingsPatch {
            auth_method: method.transpose()?,
            public_key: key.transpose()?,
            client_cert_fingerprint: certificate.transpose()?,
            oidc: oidc::read(state, named)?,
            oidc_audience: audience,
            token_ttl_seconds: ttl.transpose()?,
            vault_ids: vaults.transpose()?,
            expires_at: end.transpose()?,
        })
    }
}

/// Renames, describes, stops or resumes an agent, and changes how it authenticates.
#[utoipa::path(patch, path = "/v1/agents/{id}", tag = "agents", operation_id = "updateAgent", request_body = UpdateAgent,
    params(("id" = String, Path)), responses((status = 200, body = AgentView)))]
pub(crate) async fn handle(
    State(state): State<AppState>,
    person: Person,
    id: Id,
    AgentBody(body): AgentBody<UpdateAgent>,
) -> Result<axum::Json<AgentView>, ApiError> {
    if let Some(name) = &body.name {
        check_name(name)?;
    }
    check_description(body.description.as_ref().and_then(Option::as_deref))?;
    let patch = AgentPatch {
        settings: body.settings(&state)?,
        name: body.name.clone(),
        description: body.description,
        is_active: body.is_active,
    };
    let agents = state.store.agents();
    let agent = agents
        .patch(&person.org, &id.parse("agent")?, patch, &person.actor)
        .await
        .map_err(|error| match error {
            PatchAgentError::NameTaken => name_taken(body.name.as_deref().unwrap_or_default()),
            PatchAgentError::Settings(error) => settings_refused(error),
            other => other.into(),
        })?;
    let agent = agent.ok_or_else(|| ApiError::not_found("agent", &id.0))?;
    Ok(axum::Json(agent.into()))
}

/// The same as `PATCH`: what is left out stays as it is.
#[utoipa::path(put, path = "/v1/agents/{id}", tag = "agents", operation_id = "putAgent", request_body = UpdateAgent,
    params(("id" = String, Path)), responses((status = 200, body = AgentView)))]
pub(crate) async fn handle_put(
    state: State<AppState>,
    person: Person,
    id: Id,
    body: AgentBody<UpdateAgent>,
) -> Result<axum::Json<AgentView>, ApiError> {
    handle(state, person, id, body).await
}
