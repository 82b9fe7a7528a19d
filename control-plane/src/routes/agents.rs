//! Agents: who may hold leases.

pub(crate) mod batch_delete;
pub(crate) mod create;
pub(crate) mod delete;
pub(crate) mod enroll;
pub(crate) mod enrolments;
pub(crate) mod get;
pub(crate) mod list;
pub(crate) mod me;
mod oidc;
pub(crate) mod rotate_identity_keys;
pub(crate) mod rotate_key;
mod seeds;
mod settings;
pub(crate) mod update;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use leases::id::{AgentId, OrgId, VaultId};
use serde::Serialize;
use std::time::Duration;
use store::{Agent, AuthMethod, SettingsError};
use utoipa::ToSchema;

use crate::agent_keys;
use crate::error::ApiError;
use crate::jwt::TOKEN_LIFETIME;
use crate::problem::Code;
use crate::text::{excerpt, is_label};
use crate::timestamp::Timestamp;

/// An agent.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AgentView {
    #[schema(value_type = String, example = "agt_01K3ABCDEFGHJKMNPQRSTVWXYZ")]
    id: AgentId,
    #[schema(value_type = String)]
    org_id: OrgId,
    name: String,
    description: Option<String>,
    /// An inactive agent gets no lease, and its leases are refused.
    is_active: bool,
    /// `api_key`, `mtls`, `oidc_client_credentials` or `signed_request`.
    auth_method: &'static str,
    /// The Ed25519 key by which it signs requests, in base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    public_key: Option<String>,
    /// SHA-256 of its certificate's DER, in hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    client_cert_fingerprint: Option<String>,
    /// The identity provider whose tokens it shows.
    #[serde(skip_serializing_if = "Option::is_none")]
    oidc_issuer: Option<String>,
    /// What it is to that provider.
    #[serde(skip_serializing_if = "Option::is_none")]
    oidc_client_id: Option<String>,
    /// For whom those tokens are made.
    #[serde(skip_serializing_if = "Option::is_none")]
    oidc_audience: Option<String>,
    /// The Ed25519 key by which others know it over SSH: 32 bytes in base64. `null` for an agent from before, until
    /// `rotate-identity-keys`. The private half is the secret `agents/{id}/ssh/private_key` of the vault `__agent-keys`.
    ssh_public_key: Option<String>,
    /// The P-256 key with which others agree on keys with it: the 65 bytes of an uncompressed point (SEC 1) in base64. The private
    /// half is the secret `agents/{id}/ecdh/private_key`.
    ecdh_public_key: Option<String>,
    /// How long its tokens live.
    token_ttl_seconds: u64,
    /// The vaults beyond which it reaches nothing; `null` for no such bound.
    #[schema(value_type = Option<Vec<String>>)]
    vault_ids: Option<Vec<VaultId>>,
    /// When it ends by itself.
    expires_at: Option<Timestamp>,
    created_at: Timestamp,
    updated_at: Timestamp,
    /// When a lease of it was last used.
    last_used_at: Option<Timestamp>,
    /// The same, as the seeds' clients read it.
    last_active_at: Option<Timestamp>,
    /// Always empty: grants and policies say what an agent may.
    scopes: [String; 0],
    /// Always false: nothing is signed for a chain here.
    intents_api_enabled: bool,
    /// Always false: prompts are not looked into here.
    shroud_enabled: bool,
    /// Not kept; the audit trail's `agent.create` has it.
    created_by: Option<String>,
}

impl From<Agent> for AgentView {
    fn from(agent: Agent) -> Self {
        let token_ttl_seconds = token_lifetime(&agent).as_secs();
        let settings = agent.settings;
        let (oidc_issuer, oidc_client_id, oidc_audience) = oidc::shown(settings.oidc);
        let (ssh_public_key, ecdh_public_key) = agent_keys::shown(agent.identity);
        Self {
            id: agent.id,
            org_id: agent.org,
            name: agent.name,
            description: agent.description,
            is_active: agent.is_active,
            auth_method: settings.auth_method.as_str(),
            public_key: settings.public_key.map(|key| STANDARD.encode(key)),
            client_cert_fingerprint: settings.client_cert_fingerprint.map(hex::encode),
            oidc_issuer,
            oidc_client_id,
            oidc_audience,
            ssh_public_key,
            ecdh_public_key,
            token_ttl_seconds,
            vault_ids: settings.vault_ids,
            expires_at: settings.expires_at.map(Timestamp),
            created_at: agent.created_at.into(),
            updated_at: agent.updated_at.into(),
            last_used_at: agent.last_used_at.map(Timestamp),
            last_active_at: agent.last_used_at.map(Timestamp),
            scopes: [],
            intents_api_enabled: false,
            shroud_enabled: false,
            created_by: None,
        }
    }
}

/// An agent with its key, which is shown this once.
#[derive(Serialize, ToSchema)]
pub(crate) struct AgentWithKey {
    agent: AgentView,
    /// `ocv_...`: shown once, kept as a hash. Only agents that authenticate by it have one.
    #[serde(skip_serializing_if = "Option::is_none")]
    api_key: Option<String>,
}

impl Drop for AgentWithKey {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.api_key);
    }
}

fn check_name(name: &str) -> Result<(), ApiError> {
    if is_label(name, MAX_NAME) {
        return Ok(());
    }
    Err(ApiError::invalid(
        "name",
        format_args!("must be 1 to {MAX_NAME} characters and no control characters"),
    ))
}

fn check_description(description: Option<&str>) -> Result<(), ApiError> {
    if description.is_none_or(|text| text.is_empty() || is_label(text, MAX_DESCRIPTION)) {
        return Ok(());
    }
    Err(ApiError::invalid(
        "description",
        format_args!("must be at most {MAX_DESCRIPTION} characters and no control characters"),
    ))
}

/// How long an agent's tokens live.
pub(crate) fn token_lifetime(agent: &Agent) -> Duration {
    let own = agent.settings.token_ttl_seconds;
    own.map_or(TOKEN_LIFETIME, |seconds| {
        Duration::from_secs(seconds.into())
    })
}

/// Says which field would have to be another.
fn settings_refused(error: SettingsError) -> ApiError {
    let (field, method) = match error {
        SettingsError::Incomplete(method) => (field_of(method), method),
        SettingsError::Superfluous(method) => {
            let rule = format_args!(
                "is {method}, which takes none of the other methods' fields; leave them out, or name their method"
            );
            return ApiError::invalid("auth_method", rule);
        }
        other => return other.into(),
    };
    let rule = format_args!("must be given for an agent that authenticates by {method}");
    ApiError::invalid(field, rule)
}

fn field_of(method: AuthMethod) -> &'static str {
    match method {
        AuthMethod::ApiKey => "api_key",
        AuthMethod::Mtls => "client_cert_fingerprint",
        AuthMethod::OidcClientCredentials => "oidc_issuer",
        AuthMethod::SignedRequest => "public_key",
    }
}

fn name_taken(name: &str) -> ApiError {
    let detail = format!(
        "an agent named {} exists; choose another name, or use that agent",
        excerpt(name)
    );
    ApiError::new(Code::NameTaken, detail)
}

const MAX_NAME: usize = 128;
const MAX_DESCRIPTION: usize = 1024;
