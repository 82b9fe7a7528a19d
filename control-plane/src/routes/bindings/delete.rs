//! `DELETE /v1/agents/{id}/bindings/{binding}`

use axum::extract::State;
use axum::http::StatusCode;

use super::Place;
use crate::AppState;
use crate::auth::Person;
use crate::error::ApiError;

/// Deletes a binding with its grant and its secret set, whose sealed credential is deleted for good: from now on nothing is sent by
/// it. For people alone.
#[utoipa::path(delete, path = "/v1/agents/{id}/bindings/{binding}", tag = "bindings", operation_id = "deleteBinding",
    params(("id" = String, Path), ("binding" = String, Path)), responses((status = 204)))]
pub(crate) async fn handle(
    State(state): State<AppState>,
    person: Person,
    place: Place,
) -> Result<StatusCode, ApiError> {
    let binding = place.find(&state, &person.org).await?;
    let (org, actor) = (&person.org, &person.actor);
    // The grant first: whatever fails behind it, the agent has lost its access.
    state
        .store
        .grants()
        .revoke(org, &binding.grant, actor)
        .await?;
    state
        .store
        .secret_sets()
        .purge(org, &binding.set, actor)
        .await?;
    state.store.bindings().delete(&binding, actor).await?;
    Ok(StatusCode::NO_CONTENT)
}
