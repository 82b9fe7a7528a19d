//! `POST /v1/agents`

use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use store::{CreateAgentError, NewAgent};
use utoipa::ToSchema;

use super::{AgentWithKey, check_description, check_name, name_taken};
use crate::AppState;
use crate::api_key::{ApiKey, KeyHolder};
use crate::auth::Person;
use crate::error::ApiError;
use crate::extract::Json;
use crate::problem::Problem;

/// An agent to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateAgent {
    /// Unique in the organisation, 1 to 128 characters.
    name: String,
    /// Free text, at most 1024 characters.
    description: Option<String>,
}

/// Makes an agent and shows its key, once.
#[utoipa::path(post, path = "/v1/agents", tag = "agents", operation_id = "createAgent", request_body = CreateAgent,
    params(("Idempotency-Key" = Option<String>, Header, description = "Repeats have one effect for 24 h")),
    responses((status = 201, body = AgentWithKey), (status = 409, body = Problem)))]
pub(crate) async fn handle(
    State(state): State<AppState>,
    person: Person,
    Json(body): Json<CreateAgent>,
) -> Result<(StatusCode, axum::Json<AgentWithKey>), ApiError> {
    check_name(&body.name)?;
    check_description(body.description.as_deref())?;
    let key = ApiKey::generate(KeyHolder::Agent);
    let new = NewAgent {
        name: body.name.clone(),
        description: body.description,
        key_hash: key.hash(),
    };
    let agent = state
        .store
        .agents()
        .create(&person.org, new, &person.actor)
        .await
        .map_err(|error| match error {
            CreateAgentError::NameTaken => name_taken(&body.name),
            other => other.into(),
        })?;
    let answer = AgentWithKey {
        agent: agent.into(),
        api_key: key.reveal().to_owned(),
    };
    Ok((StatusCode::CREATED, axum::Json(answer)))
}
