//! `PATCH /v1/agents/{id}`

use axum::extract::State;
use serde::Deserialize;
use store::{AgentPatch, PatchAgentError};
use utoipa::ToSchema;

use super::{AgentView, check_description, check_name, name_taken};
use crate::AppState;
use crate::auth::Person;
use crate::error::ApiError;
use crate::extract::{Id, Json};

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
}

/// Renames, describes, stops or resumes an agent.
#[utoipa::path(patch, path = "/v1/agents/{id}", tag = "agents", operation_id = "updateAgent", request_body = UpdateAgent,
    params(("id" = String, Path)), responses((status = 200, body = AgentView)))]
pub(crate) async fn handle(
    State(state): State<AppState>,
    person: Person,
    id: Id,
    Json(body): Json<UpdateAgent>,
) -> Result<axum::Json<AgentView>, ApiError> {
    if let Some(name) = &body.name {
        check_name(name)?;
    }
    check_description(body.description.as_ref().and_then(Option::as_deref))?;
    let patch = AgentPatch {
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
            other => other.into(),
        })?;
    let agent = agent.ok_or_else(|| ApiError::not_found("agent", &id.0))?;
    Ok(axum::Json(agent.into()))
}
