//! `POST /v1/agents/{id}/bindings/{binding}/test`

use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;

use super::Place;
use super::credential::config_of;
use super::execute::{Call, probe, status_of};
use crate::AppState;
use crate::auth::{Caller, Person};
use crate::context::RequestContext;
use crate::error::ApiError;
use crate::problem::Problem;

/// Whether the binding leads somewhere.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Tested {
    /// The provider answered, and not that the credential is wrong.
    success: bool,
    latency_ms: u64,
    /// The provider's status.
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// Sends `GET` to the binding's `base_url`, or to a path that is allowed where that is not, as its agent would: the same checks, and a use on record. For people alone.
#[utoipa::path(post, path = "/v1/agents/{id}/bindings/{binding}/test", tag = "bindings", operation_id = "testBinding",
    params(("id" = String, Path), ("binding" = String, Path)),
    responses((status = 200, body = Tested), (status = 403, body = Problem)))]
pub(crate) async fn handle(
    State(state): State<AppState>,
    context: RequestContext,
    person: Person,
    caller: Caller,
    place: Place,
) -> Result<axum::Json<Tested>, ApiError> {
    let binding = place.find(&state, &person.org).await?;
    let outgoing = probe(&config_of(&binding)?)?;
    let agent = binding.agent_id.clone();
    let call = Call {
        state: &state,
        context: &context,
        caller: &caller,
        agent: Some(&agent),
    };
    let (_, started, sent) = call.send(binding, outgoing).await?;
    let took = state.clock.now() - started;
    let latency_ms = u64::try_from(took.whole_milliseconds()).unwrap_or_default();
    let (status, error) = match sent {
        Ok(incoming) => {
            let turned_down = matches!(incoming.status, 401 | 403).then(|| {
                format!(
                    "the provider answered {}: it does not take this credential, or not here",
                    incoming.status
                )
            });
            (Some(incoming.status), turned_down)
        }
        Err(error) if status_of(&error).is_some() => (None, Some(error.detail().to_owned())),
        Err(error) => return Err(error),
    };
    Ok(axum::Json(Tested {
        success: error.is_none(),
        latency_ms,
        status,
        error,
    }))
}
