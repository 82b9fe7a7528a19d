//! `POST /v1/agents`

use axum::extract::State;
use axum::http::StatusCode;
use leases::id::AgentId;
use serde::Deserialize;
use store::{Agent, AgentSettings, AuthMethod, CreateAgentError, NewAgent};
use utoipa::ToSchema;

use super::seeds::AgentBody;
use super::{
    AgentWithKey, check_description, check_name, name_taken, oidc, settings, settings_refused,
};
use crate::AppState;
use crate::agent_keys;
use crate::api_key::{ApiKey, KeyHolder};
use crate::auth::Person;
use crate::error::ApiError;
use crate::problem::Problem;
use crate::timestamp::Timestamp;

/// An agent to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateAgent {
    /// Unique in the organisation, 1 to 128 characters.
    #[schema(min_length = 1, max_length = 128)]
    name: String,
    /// Free text, at most 1024 characters.
    description: Option<String>,
    /// `api_key` (the default), `mtls`, `oidc_client_credentials` or `signed_request`.
    auth_method: Option<String>,
    /// For `signed_request`: the Ed25519 key, 32 bytes in base64.
    public_key: Option<String>,
    /// For `mtls`: SHA-256 of the certificate's DER in hexadecimal.
    client_cert_fingerprint: Option<String>,
    /// For `oidc_client_credentials`: the agent's identity provider, as its tokens name it.
    #[schema(example = "https://id.example.org")]
    oidc_issuer: Option<String>,
    /// The agent's own client there.
    oidc_client_id: Option<String>,
    /// For whom the provider makes the agent's tokens; `claviger` where it is left out.
    #[serde(alias = "audience")]
    oidc_audience: Option<String>,
    /// How long its tokens live: 60 to 3600, default 900.
    token_ttl_seconds: Option<i64>,
    /// Binds it to these vaults: beyond them it reaches nothing, whatever grants and policies say.
    vault_ids: Option<Vec<String>>,
    /// When it ends by itself.
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Timestamp>,
}

impl CreateAgent {
    fn settings(&self, state: &AppState) -> Result<AgentSettings, ApiError> {
        let method = self.auth_method.as_deref().map(settings::method);
        let key = self.public_key.as_deref().map(settings::public_key);
        let certificate = self.client_cert_fingerprint.as_deref();
        let certificate = certificate.map(settings::fingerprint);
        let named = [&self.oidc_issuer, &self.oidc_client_id, &self.oidc_audience];
        let now = state.clock.now();
        let end = self.expires_at.map(|end| settings::end(end, now));
        Ok(AgentSettings {
            auth_method: method.transpose()?.unwrap_or_default(),
            public_key: key.transpose()?,
            client_cert_fingerprint: certificate.transpose()?,
            oidc: oidc::read(state, named)?,
            token_ttl_seconds: self.token_ttl_seconds.map(settings::ttl).transpose()?,
            vault_ids: self
                .vault_ids
                .as_deref()
                .map(settings::vaults)
                .transpose()?,
            expires_at: end.transpose()?,
        })
    }
}

/// Makes an agent and shows its key, once, if it authenticates by one.
#[utoipa::path(post, path = "/v1/agents", tag = "agents", operation_id = "createAgent", request_body = CreateAgent,
    params(("Idempotency-Key" = Option<String>, Header, description = "Repeats have one effect for 24 h")),
    responses((status = 201, body = AgentWithKey), (status = 400, body = Problem), (status = 409, body = Problem)))]
pub(crate) async fn handle(
    State(state): State<AppState>,
    person: Person,
    AgentBody(body): AgentBody<CreateAgent>,
) -> Result<(StatusCode, axum::Json<AgentWithKey>), ApiError> {
    check_name(&body.name)?;
    check_description(body.description.as_deref())?;
    let settings = body.settings(&state)?;
    let has_key = settings.auth_method == AuthMethod::ApiKey;
    let key = has_key.then(|| ApiKey::generate(KeyHolder::Agent));
    let new = NewAgent {
        name: body.name.clone(),
        description: body.description,
        key_hash: key.as_ref().map(ApiKey::hash),
        settings,
        identity: None,
    };
    let agent = make(&state, &person, new)
        .await?
        .map_err(|error| match error {
            CreateAgentError::NameTaken => name_taken(&body.name),
            CreateAgentError::Settings(error) => settings_refused(error),
            other => other.into(),
        })?;
    let answer = AgentWithKey {
        agent: agent.into(),
        api_key: key.map(|key| key.reveal().to_owned()),
    };
    Ok((StatusCode::CREATED, axum::Json(answer)))
}

/// Makes an agent with its identity keys, or neither.
async fn make(
    state: &AppState,
    person: &Person,
    new: NewAgent,
) -> Result<Result<Agent, CreateAgentError>, ApiError> {
    let id = AgentId::new(state.clock.now());
    let agents = state.store.agents();
    for _ in 0..agent_keys::ATTEMPTS {
        let new = NewAgent {
            identity: Some(agent_keys::seal(state, &person.org, &id).await?),
            ..new.clone()
        };
        match agents.create(&person.org, new, &person.actor).await {
            Err(CreateAgentError::Moved) => {}
            made => return Ok(made),
        }
    }
    Ok(Err(CreateAgentError::Moved))
}
