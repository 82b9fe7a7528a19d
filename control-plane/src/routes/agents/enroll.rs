//! `POST /v1/agents/enroll`

use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use store::{Actor, Enrolling, NewEnrolment};
use utoipa::ToSchema;

use super::{check_description, check_name};
use crate::AppState;
use crate::auth::source_of;
use crate::context::RequestContext;
use crate::error::ApiError;
use crate::extract::Json;
use crate::people::email;
use crate::problem::{Code, Problem};

/// An agent that asks for itself; further fields of the seeds' clients are ignored.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct Enroll {
    /// What it calls itself, 1 to 128 characters.
    name: String,
    /// The person who decides, and who gets its key.
    human_email: String,
    /// What it is for, at most 1024 characters.
    description: Option<String>,
}

/// That it waits. It says the same whether or not anybody has the email.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Enrolled {
    enrolment_id: String,
    /// `null`: there is no agent before a person approves it.
    agent_id: Option<String>,
    message: &'static str,
    /// Where that person approves, with their own credential.
    approval_url: String,
}

/// Asks a person for an agent. The person decides within 7 days, and the key goes to the person.
///
/// Everybody may ask: 5 times at once and then once a second from one address, and once in 10 minutes for one email.
#[utoipa::path(post, path = "/v1/agents/enroll", tag = "agents", operation_id = "enrollAgent", security(()), request_body = Enroll,
    responses((status = 201, body = Enrolled), (status = 429, body = Problem)))]
pub(crate) async fn handle(
    State(state): State<AppState>,
    context: RequestContext,
    Json(body): Json<Enroll>,
) -> Result<(StatusCode, axum::Json<Enrolled>), ApiError> {
    check_name(&body.name)?;
    check_description(body.description.as_deref())?;
    let email = email::canonical(&body.human_email).ok_or_else(|| {
        let rule = "is not an email address; write it like ada@example.org";
        ApiError::invalid("human_email", rule)
    })?;
    let new = NewEnrolment {
        name: body.name,
        description: body.description,
        email,
        source: source_of(context.client_ip),
    };
    let actor = Actor {
        client_ip: context.client_ip,
        request_id: Some(context.id),
        ..Actor::system("anonymous")
    };
    let enrolments = state.store.enrolments();
    match enrolments.begin(new, &state.home_org, &actor).await? {
        Enrolling::Waits(id) => {
            let answer = Enrolled {
                agent_id: None,
                message: "if this email is somebody's, they can approve the agent within 7 days; its key is shown to them",
                approval_url: format!("/v1/agents/enrolments/{id}/approve"),
                enrolment_id: id.to_string(),
            };
            Ok((StatusCode::CREATED, axum::Json(answer)))
        }
        Enrolling::TooOften(wait) => {
            let detail = "too many enrolments from this address or for this email; wait as long as Retry-After says";
            Err(ApiError::new(Code::RateLimited, detail).retry_after(wait))
        }
    }
}
