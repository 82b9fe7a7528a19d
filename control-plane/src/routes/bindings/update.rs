//! `PATCH /v1/agents/{id}/bindings/{binding}`

use axum::extract::State;
use serde::Deserialize;
use store::Binding;
use utoipa::ToSchema;

use super::limits::{Config, Guardrails, Limits};
use super::{BindingView, Place, check_name, grant};
use crate::AppState;
use crate::auth::Person;
use crate::error::ApiError;
use crate::extract::Json;
use crate::problem::{Code, Problem};
use crate::routes::secret_sets::update::{self, Change};

/// What changes of a binding; what is left out stays. An unknown field is refused.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct UpdateBinding {
    name: Option<String>,
    /// As a whole. `auth_type` stays as it is: the credential is stored for it.
    config: Option<Config>,
    /// As a whole.
    guardrails: Option<Guardrails>,
    is_active: Option<bool>,
}

/// Changes a binding. Limits are a grant's, which is never changed: there is a new one, and the old one is revoked first. For people alone.
#[utoipa::path(patch, path = "/v1/agents/{id}/bindings/{binding}", tag = "bindings", operation_id = "updateBinding", request_body = UpdateBinding,
    params(("id" = String, Path), ("binding" = String, Path)),
    responses((status = 200, body = BindingView), (status = 403, body = Problem), (status = 409, body = Problem)))]
pub(crate) async fn handle(
    State(state): State<AppState>,
    person: Person,
    place: Place,
    Json(body): Json<UpdateBinding>,
) -> Result<axum::Json<BindingView>, ApiError> {
    let mut binding = place.find(&state, &person.org).await?;
    if let Some(name) = body.name {
        check_name(&name)?;
        check_free(&state, &binding, &name).await?;
        binding.name = name;
    }
    let config = read(&binding.config, body.config)?;
    let guardrails = read(&binding.guardrails, body.guardrails)?;
    let before: Config = read(&binding.config, None)?;
    if before.auth_type != config.auth_type {
        return Err(ApiError::invalid(
            "config.auth_type",
            "stays as it is, since the credential is stored for it; make another binding",
        ));
    }
    let limits = Limits::read(&config, &guardrails)?;
    // Whatever fails from here on, what the agent has does not reach further than before.
    let grants = state.store.grants();
    grants
        .revoke(&person.org, &binding.grant, &person.actor)
        .await?;
    let change = Change {
        values: Vec::new(),
        dropped: Vec::new(),
        custom: Some(limits.custom.clone()),
    };
    update::apply(&state, &person, &binding.set, change).await?;
    binding.is_active = body.is_active.unwrap_or(binding.is_active);
    if binding.is_active {
        let place = (&binding.agent_id, &binding.set);
        binding.grant = grant(&state, &person, place, &limits).await?;
    }
    binding.config = serde_json::to_value(&config).map_err(ApiError::internal)?;
    binding.guardrails = serde_json::to_value(&guardrails).map_err(ApiError::internal)?;
    let bindings = state.store.bindings();
    let written = bindings.update(binding, &person.actor).await?;
    let written = written.ok_or_else(|| ApiError::not_found("binding", &place.binding))?;
    Ok(axum::Json(written.into()))
}

/// What the call says, or what the binding has.
fn read<T: serde::de::DeserializeOwned>(
    stored: &serde_json::Value,
    given: Option<T>,
) -> Result<T, ApiError> {
    match given {
        Some(given) => Ok(given),
        None => serde_json::from_value(stored.clone()).map_err(ApiError::internal),
    }
}

async fn check_free(state: &AppState, binding: &Binding, name: &str) -> Result<(), ApiError> {
    let bindings = state.store.bindings();
    match bindings.get(&binding.org, &binding.agent_id, name).await? {
        Some(other) if other.id != binding.id => Err(ApiError::new(
            Code::NameTaken,
            "the agent has another binding of that name; choose another name",
        )),
        _ => Ok(()),
    }
}
