//! `POST /v1/agents/{id}/bindings`

use axum::extract::State;
use axum::http::StatusCode;
use leases::id::{AgentId, BindingId, GrantId, SetId};
use serde::Deserialize;
use store::{CreateBindingError, NewBinding};
use utoipa::ToSchema;

use super::credential::{self, Credential, CredentialSource};
use super::limits::{Config, Guardrails, Limits};
use super::{BindingView, ENVIRONMENT, agent_id, check_kind, check_name, grant};
use crate::AppState;
use crate::auth::{Caller, Person};
use crate::error::ApiError;
use crate::extract::{Id, Json};
use crate::problem::{Code, Problem};
use crate::routes::secret_sets::{SetName, store_new};
use crate::templates;

/// A binding to be made. An unknown field is refused: a mistyped limit would widen access.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateBinding {
    /// By which the agent calls it.
    #[schema(example = "billing-api")]
    name: String,
    /// `http` or `graphql`.
    binding_type: String,
    config: Config,
    #[serde(default)]
    #[schema(value_type = Option<Guardrails>)]
    guardrails: Guardrails,
    /// A text, `{token}` or `{username, password}`.
    #[schema(value_type = Option<Object>)]
    credential: Option<Credential>,
    /// Where the credential is taken from, instead of `credential`.
    credential_source: Option<CredentialSource>,
}

/// Makes a binding for an agent: its credential is stored as a `custom` secret set, its limits are a grant on that set. For people alone.
#[utoipa::path(post, path = "/v1/agents/{id}/bindings", tag = "bindings", operation_id = "createBinding", request_body = CreateBinding,
    params(("id" = String, Path), ("Idempotency-Key" = Option<String>, Header, description = "Repeats have one effect for 24 h")),
    responses((status = 201, body = BindingView), (status = 403, body = Problem), (status = 409, body = Problem)))]
pub(crate) async fn handle(
    State(state): State<AppState>,
    person: Person,
    caller: Caller,
    id: Id,
    Json(body): Json<CreateBinding>,
) -> Result<(StatusCode, axum::Json<BindingView>), ApiError> {
    let agent = agent_id(&id.0)?;
    check_kind(&body.binding_type)?;
    check_name(&body.name)?;
    let limits = Limits::read(&body.config, &body.guardrails)?;
    check_free(&state, &person, &agent, &body.name).await?;
    let given = credential::given(&state, &caller, body.credential, body.credential_source).await?;
    let binding = BindingId::new(state.clock.now());
    let name = SetName::check(
        templates::CUSTOM.to_owned(),
        ENVIRONMENT.to_owned(),
        binding.to_string(),
    )?;
    let entries = given.credential.entries(body.config.auth_type)?;
    let custom = Some(limits.custom.clone());
    let set = store_new(&state, &person, name, entries, custom).await?;
    let set = set.id().clone();
    let grant = match grant(&state, &person, (&agent, &set), &limits).await {
        Ok(grant) => grant,
        Err(error) => {
            undo(&state, &person, &set, None).await;
            return Err(error);
        }
    };
    let new = NewBinding {
        id: binding,
        agent_id: agent,
        name: body.name,
        kind: body.binding_type,
        config: serde_json::to_value(&body.config).map_err(ApiError::internal)?,
        guardrails: serde_json::to_value(&body.guardrails).map_err(ApiError::internal)?,
        set: set.clone(),
        grant: grant.clone(),
        source: given.source,
    };
    let bindings = state.store.bindings();
    match bindings.create(&person.org, new, &person.actor).await {
        Ok(binding) => Ok((StatusCode::CREATED, axum::Json(binding.into()))),
        Err(error) => {
            undo(&state, &person, &set, Some(&grant)).await;
            Err(error.into())
        }
    }
}

/// Refuses before anything is stored; the store looks again.
async fn check_free(
    state: &AppState,
    person: &Person,
    agent: &AgentId,
    name: &str,
) -> Result<(), ApiError> {
    let known = state.store.agents().get(&person.org, agent).await?;
    if known.is_none() {
        return Err(ApiError::not_found("agent", agent.as_str()));
    }
    let bindings = state.store.bindings();
    match bindings.get(&person.org, agent, name).await? {
        None => Ok(()),
        Some(_) => Err(CreateBindingError::NameTaken.into()),
    }
}

/// Takes back what was made for a binding that is not.
async fn undo(state: &AppState, person: &Person, set: &SetId, grant: Option<&GrantId>) {
    if let Some(grant) = grant {
        let grants = state.store.grants();
        let revoked = grants.revoke(&person.org, grant, &person.actor).await;
        if let Err(error) = revoked {
            tracing::warn!(grant.id = %grant, %error, "the grant of a binding that was not made stays");
        }
    }
    let sets = state.store.secret_sets();
    if let Err(error) = sets.purge(&person.org, set, &person.actor).await {
        tracing::warn!(secret_set.id = %set, %error, "the set of a binding that was not made stays");
    }
}

impl From<CreateBindingError> for ApiError {
    fn from(error: CreateBindingError) -> Self {
        match error {
            CreateBindingError::NoAgent(id) => Self::not_found("agent", id.as_str()),
            CreateBindingError::NameTaken => Self::new(
                Code::NameTaken,
                "the agent has a binding of that name; choose another name, or change it with PATCH",
            ),
            CreateBindingError::TooMany => {
                Self::invalid("id", format_args!("{error}; delete some first"))
            }
            CreateBindingError::Store(error) => error.into(),
            other => Self::internal(other),
        }
    }
}
