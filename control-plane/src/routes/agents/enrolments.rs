//! `GET /v1/agents/enrolments`, `POST /v1/agents/enrolments/{id}/approve`, `POST /v1/agents/enrolments/{id}/reject`

use axum::extract::State;
use axum::http::StatusCode;
use leases::id::{AgentId, EnrolmentId, UserId};
use serde::{Deserialize, Serialize};
use store::{Agent, CreateAgentError, Decider, Enrolment, EnrolmentError, NewAgent, NewIdentity};
use utoipa::ToSchema;

use super::{AgentWithKey, check_name};
use crate::AppState;
use crate::agent_keys;
use crate::api_key::{ApiKey, KeyHolder};
use crate::auth::Person;
use crate::error::ApiError;
use crate::extract::{Id, OptionalJson, Paging, Params};
use crate::problem::Problem;
use crate::timestamp::Timestamp;

/// An agent that asked for itself.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EnrolmentView {
    #[schema(value_type = String, example = "enr_01K3ABCDEFGHJKMNPQRSTVWXYZ")]
    id: EnrolmentId,
    /// What it calls itself: nobody has checked that.
    name: String,
    description: Option<String>,
    /// The person whom it named.
    #[schema(value_type = String)]
    user_id: UserId,
    /// `pending`, `approved` or `rejected`.
    status: &'static str,
    /// Where it asked from.
    client_ip: Option<String>,
    created_at: Timestamp,
    /// Until when it waits.
    expires_at: Timestamp,
    decided_at: Option<Timestamp>,
    decided_by: Option<String>,
    /// The agent that it became.
    #[schema(value_type = Option<String>)]
    agent_id: Option<AgentId>,
}

impl From<Enrolment> for EnrolmentView {
    fn from(enrolment: Enrolment) -> Self {
        Self {
            id: enrolment.id,
            name: enrolment.name,
            description: enrolment.description,
            user_id: enrolment.user,
            status: enrolment.status.as_str(),
            client_ip: enrolment.client_ip,
            created_at: enrolment.created_at.into(),
            expires_at: enrolment.expires_at.into(),
            decided_at: enrolment.decided_at.map(Timestamp),
            decided_by: enrolment.decided_by,
            agent_id: enrolment.agent,
        }
    }
}

/// A page of enrolments.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EnrolmentList {
    enrolments: Vec<EnrolmentView>,
    next_cursor: Option<String>,
}

/// How the agent is to be called.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ApproveEnrolment {
    /// Another name than the one that it asked for.
    name: Option<String>,
}

/// Lists agents that asked for themselves: those that named the caller, or all of them for an admin.
#[utoipa::path(get, path = "/v1/agents/enrolments", tag = "agents", operation_id = "listEnrolments", params(Paging),
    responses((status = 200, body = EnrolmentList)))]
pub(crate) async fn list(
    State(state): State<AppState>,
    person: Person,
    Params(paging): Params<Paging>,
) -> Result<axum::Json<EnrolmentList>, ApiError> {
    let enrolments = state.store.enrolments();
    let page = enrolments
        .list(&person.org, only(&person), &paging.request()?)
        .await?;
    Ok(axum::Json(EnrolmentList {
        enrolments: page.items.into_iter().map(EnrolmentView::from).collect(),
        next_cursor: page.next_cursor,
    }))
}

/// Makes an agent of an enrolment and shows its key, once. The person whom it named decides, or an admin.
#[utoipa::path(post, path = "/v1/agents/enrolments/{id}/approve", tag = "agents", operation_id = "approveEnrolment", request_body = Option<ApproveEnrolment>,
    params(("id" = String, Path), ("Idempotency-Key" = Option<String>, Header, description = "Repeats have one effect for 24 h")),
    responses((status = 200, body = AgentWithKey), (status = 409, body = Problem)))]
pub(crate) async fn approve(
    State(state): State<AppState>,
    person: Person,
    id: Id,
    OptionalJson(body): OptionalJson<ApproveEnrolment>,
) -> Result<axum::Json<AgentWithKey>, ApiError> {
    if let Some(name) = &body.name {
        check_name(name)?;
    }
    let key = ApiKey::generate(KeyHolder::Agent);
    let make = |enrolment: &Enrolment, identity| NewAgent {
        name: body.name.clone().unwrap_or_else(|| enrolment.name.clone()),
        description: enrolment.description.clone(),
        key_hash: Some(key.hash()),
        identity: Some(identity),
        ..NewAgent::default()
    };
    let agent = admit(&state, &person, &id.parse("enrolment")?, make).await?;
    let agent = agent.ok_or_else(|| ApiError::not_found("enrolment", &id.0))?;
    Ok(axum::Json(AgentWithKey {
        agent: agent.into(),
        api_key: Some(key.reveal().to_owned()),
    }))
}

/// Makes an agent with its identity keys of an enrolment, if it waits for this person.
async fn admit(
    state: &AppState,
    person: &Person,
    id: &EnrolmentId,
    make: impl Fn(&Enrolment, NewIdentity) -> NewAgent,
) -> Result<Option<Agent>, ApiError> {
    let enrolments = state.store.enrolments();
    // Asked before any key is made.
    if enrolments.waiting(decider(person), id).await?.is_none() {
        return Ok(None);
    }
    let agent = AgentId::new(state.clock.now());
    for _ in 0..agent_keys::ATTEMPTS {
        let identity = agent_keys::seal(state, &person.org, &agent).await?;
        let approval =
            enrolments.approve(decider(person), id, |enrolment| make(enrolment, identity));
        match approval.await {
            Err(EnrolmentError::Agent(CreateAgentError::Moved)) => {}
            admitted => return Ok(admitted?),
        }
    }
    Err(CreateAgentError::Moved.into())
}

/// Turns an enrolment away.
#[utoipa::path(post, path = "/v1/agents/enrolments/{id}/reject", tag = "agents", operation_id = "rejectEnrolment",
    params(("id" = String, Path)), responses((status = 204), (status = 409, body = Problem)))]
pub(crate) async fn reject(
    State(state): State<AppState>,
    person: Person,
    id: Id,
) -> Result<StatusCode, ApiError> {
    let enrolments = state.store.enrolments();
    let was_there = enrolments
        .reject(decider(&person), &id.parse("enrolment")?)
        .await?;
    if was_there {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(ApiError::not_found("enrolment", &id.0))
    }
}

fn decider(person: &Person) -> Decider<'_> {
    Decider {
        org: &person.org,
        only: only(person),
        actor: &person.actor,
    }
}

/// Whose enrolments a person sees: their own, or everybody's.
fn only(person: &Person) -> Option<&str> {
    (!person.is_admin).then_some(person.actor.id.as_str())
}
