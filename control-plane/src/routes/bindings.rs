//! Bindings: a name by which an agent sends requests to one API, without a proxy and without a lease of its own.
//!
//! A binding is a view. Its credential is a `custom` secret set, its limits are a grant on that set, and what is sent by it is
//! sent under a request lease from that grant: ledger, address policy, scrubbing and refusals are the injector's.

pub(crate) mod create;
pub(crate) mod credential;
pub(crate) mod delete;
pub(crate) mod execute;
pub(crate) mod executions;
pub(crate) mod get;
pub(crate) mod limits;
pub(crate) mod list;
pub(crate) mod rotate;
pub(crate) mod test;
pub(crate) mod update;

use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use leases::id::{AgentId, BindingId, GrantId, OrgId, SetId, VaultId};
use leases::scope::{Action, Keys};
use serde::Serialize;
use serde_json::Value;
use store::{Binding, NewGrant};
use utoipa::ToSchema;

use crate::AppState;
use crate::auth::{Caller, Person};
use crate::error::ApiError;
use crate::problem::Code;
use crate::text::{excerpt, is_label};
use crate::timestamp::Timestamp;
use limits::Limits;

/// A binding. It never shows its credential.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BindingView {
    #[schema(value_type = String, example = "bnd_01K3ABCDEFGHJKMNPQRSTVWXYZ")]
    id: BindingId,
    #[schema(value_type = String)]
    agent_id: AgentId,
    /// `http` or `graphql`.
    binding_type: String,
    name: String,
    #[schema(value_type = Object)]
    config: Value,
    #[schema(value_type = Object)]
    guardrails: Value,
    is_active: bool,
    credential_set: bool,
    /// `inline` or `vault_ref`.
    credential_source_type: &'static str,
    #[schema(value_type = Option<String>)]
    credential_vault_id: Option<VaultId>,
    credential_path: Option<String>,
    /// The set that holds the credential.
    #[schema(value_type = String)]
    secret_set_id: SetId,
    /// The grant by which it is used.
    #[schema(value_type = String)]
    grant_id: GrantId,
    created_at: Timestamp,
    updated_at: Timestamp,
}

impl From<Binding> for BindingView {
    fn from(binding: Binding) -> Self {
        let (vault, path) = binding
            .source
            .map(|source| (source.vault, source.path))
            .unzip();
        Self {
            id: binding.id,
            agent_id: binding.agent_id,
            binding_type: binding.kind,
            name: binding.name,
            config: binding.config,
            guardrails: binding.guardrails,
            is_active: binding.is_active,
            credential_set: true,
            credential_source_type: if path.is_some() {
                "vault_ref"
            } else {
                "inline"
            },
            credential_vault_id: vault,
            credential_path: path,
            secret_set_id: binding.set,
            grant_id: binding.grant,
            created_at: binding.created_at.into(),
            updated_at: binding.updated_at.into(),
        }
    }
}

/// An agent and one of its bindings, as a path names them.
#[derive(Debug)]
pub(crate) struct Place {
    agent: String,
    binding: String,
}

impl<S: Send + Sync> FromRequestParts<S> for Place {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let path = Path::<(String, String)>::from_request_parts(parts, state).await;
        path.map(|Path((agent, binding))| Self { agent, binding })
            .map_err(|error| ApiError::invalid("path", "is not UTF-8").because(error))
    }
}

impl Place {
    async fn find(&self, state: &AppState, org: &OrgId) -> Result<Binding, ApiError> {
        let agent = agent_id(&self.agent)?;
        find(state, org, &agent, &self.binding).await
    }
}

fn agent_id(text: &str) -> Result<AgentId, ApiError> {
    AgentId::parse(text).map_err(|_| ApiError::not_found("agent", text))
}

/// An agent's binding by its id or name. Another agent's is like one that never was.
async fn find(
    state: &AppState,
    org: &OrgId,
    agent: &AgentId,
    named: &str,
) -> Result<Binding, ApiError> {
    let bindings = state.store.bindings();
    let found = bindings.get(org, agent, named).await?;
    found.ok_or_else(|| ApiError::not_found("binding", named))
}

/// The agent whose bindings a caller may see: people see all, an agent its own.
async fn visible(state: &AppState, caller: &Caller, agent: &str) -> Result<AgentId, ApiError> {
    let id = agent_id(agent)?;
    let is_own = caller.agent().is_none_or(|own| *own == id);
    if is_own && state.store.agents().get(caller.org(), &id).await?.is_some() {
        return Ok(id);
    }
    Err(ApiError::not_found("agent", agent))
}

fn check_name(name: &str) -> Result<(), ApiError> {
    if is_label(name, MAX_NAME) && BindingId::parse(name).is_err() {
        return Ok(());
    }
    Err(ApiError::invalid(
        "name",
        format_args!("must be 1 to {MAX_NAME} characters, no control characters and no id"),
    ))
}

/// The kinds that are served. The others of the seeds' clients speak no HTTP, so that nothing could be injected.
fn check_kind(kind: &str) -> Result<(), ApiError> {
    if matches!(kind, HTTP | GRAPHQL) {
        return Ok(());
    }
    let detail = format!(
        "bindings of type {} are not served: an injector speaks HTTP; use http or graphql, or give the agent the secret by an export grant",
        excerpt(kind)
    );
    Err(ApiError::new(Code::BindingTypeUnsupported, detail))
}

/// Makes the grant by which the agent uses the set, within the binding's limits.
async fn grant(
    state: &AppState,
    person: &Person,
    (agent, set): (&AgentId, &SetId),
    limits: &Limits,
) -> Result<GrantId, ApiError> {
    let new = NewGrant {
        agent_id: agent.clone(),
        secret_set_id: set.clone(),
        allowed_actions: vec![Action::ProxyUse],
        allowed_keys: Keys::All,
        expires_at: None,
        constraints: limits.scope.clone(),
        preset: None,
        rate: limits.rate,
        spend: None,
    };
    let grants = state.store.grants();
    let made = grants.create(&person.org, new, &person.actor).await?;
    Ok(made.id)
}

const HTTP: &str = "http";
const GRAPHQL: &str = "graphql";
const MAX_NAME: usize = 100;
/// The environment of the sets that bindings have.
const ENVIRONMENT: &str = "bindings";
