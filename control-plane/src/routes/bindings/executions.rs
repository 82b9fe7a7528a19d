//! `GET /v1/agents/{id}/executions`: what the audit trail tells of requests by bindings.

use std::collections::HashMap;

use axum::extract::State;
use leases::id::{AgentId, BindingId, LeaseId};
use serde::{Deserialize, Serialize};
use store::{Decision, Event, EventFilter};
use utoipa::{IntoParams, ToSchema};

use super::visible;
use crate::AppState;
use crate::auth::Caller;
use crate::error::ApiError;
use crate::extract::{Id, Paging, Params};

/// Which of them.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExecutionsQuery {
    /// Records of the trail that one page looks at: default 50, at most 200 (more is taken as 200). A request has two.
    #[param(
        minimum = 1,
        maximum = 4_294_967_295_u64,
        default = 50,
        required = false
    )]
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    #[param(required = false)]
    cursor: Option<String>,
    /// The seeds' clients send 0; pages are turned by `cursor`.
    #[param(required = false)]
    offset: Option<u64>,
}

/// A page of executions, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Executions {
    events: Vec<ExecutionView>,
    next_cursor: Option<String>,
}

/// A request by a binding.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ExecutionView {
    /// The lease under which it was sent.
    id: String,
    #[schema(value_type = String)]
    agent_id: AgentId,
    #[schema(value_type = String)]
    binding_id: BindingId,
    /// The binding's own kind: `http` or `graphql`.
    intent_type: String,
    execution_mode: &'static str,
    /// `success`, `error` or `denied`; `sent` while the end is not on record, or on the page before.
    status: &'static str,
    /// Method, host and path.
    request_summary: String,
    /// The provider's status.
    result_summary: Option<String>,
    /// The code of what went wrong.
    error_message: Option<String>,
    duration_ms: Option<u64>,
    /// How often the credential stood in the provider's answer, in any spelling, and was masked.
    redactions_applied: u64,
    created_at: String,
}

/// Lists what was sent by an agent's bindings, and what was refused. There is no other record of it than the audit trail.
#[utoipa::path(get, path = "/v1/agents/{id}/executions", tag = "bindings", operation_id = "listExecutions",
    params(("id" = String, Path), ExecutionsQuery), responses((status = 200, body = Executions)))]
pub(crate) async fn handle(
    State(state): State<AppState>,
    caller: Caller,
    id: Id,
    Params(query): Params<ExecutionsQuery>,
) -> Result<axum::Json<Executions>, ApiError> {
    let agent = visible(&state, &caller, &id.0).await?;
    if query.offset.is_some_and(|offset| offset > 0) {
        return Err(ApiError::invalid(
            "offset",
            "is not how pages are turned here; send `cursor` with the last page's next_cursor",
        ));
    }
    let bindings = state.store.bindings().sets(caller.org(), &agent).await?;
    let bindings: HashMap<String, (BindingId, String)> = bindings
        .into_iter()
        .map(|(set, binding, kind)| (set.to_string(), (binding, kind)))
        .collect();
    let filter = EventFilter {
        agent_id: Some(agent.clone()),
        ..EventFilter::default()
    };
    let paging = Paging::new(query.limit, query.cursor).request()?;
    let page = state
        .store
        .audit()
        .list(caller.org(), &filter, &paging)
        .await?;
    let mut outcomes: HashMap<String, Event> = HashMap::new();
    let mut events = Vec::new();
    for event in page.items {
        if event.action == "lease.outcome" {
            outcomes.extend(event.use_id.clone().map(|id| (id, event)));
            continue;
        }
        if !matches!(event.action.as_str(), "lease.use" | "lease.refuse") {
            continue;
        }
        let binding = match (&event.secret_set_id, &event.lease_id) {
            (Some(set), _) => bindings.get(set).cloned(),
            // What was refused before its set was known is its lease's.
            (None, Some(lease)) => {
                let lease = LeaseId::parse(lease).map_err(ApiError::internal)?;
                let lease = state.store.leases().get(caller.org(), &lease).await?;
                let mut sets = lease
                    .map(|lease| lease.sets)
                    .unwrap_or_default()
                    .into_iter();
                sets.find_map(|(set, _)| bindings.get(set.as_str()).cloned())
            }
            (None, None) => None,
        };
        let outcome = event.use_id.as_ref().and_then(|id| outcomes.remove(id));
        if let (Some(binding), Some(lease)) = (binding, event.lease_id.clone()) {
            let place = (lease, agent.clone(), binding);
            events.push(ExecutionView::new(place, &event, outcome.as_ref()));
        }
    }
    Ok(axum::Json(Executions {
        events,
        next_cursor: page.next_cursor,
    }))
}

impl ExecutionView {
    fn new(
        (id, agent_id, (binding_id, intent_type)): (String, AgentId, (BindingId, String)),
        event: &Event,
        outcome: Option<&Event>,
    ) -> Self {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let error = outcome.map_or(&event.error, |outcome| &outcome.error);
        Self {
            id,
            agent_id,
            binding_id,
            intent_type,
            execution_mode: "vault",
            status: match (event.decision, outcome, error) {
                (Decision::Deny, _, _) => "denied",
                (Decision::Allow, None, _) => "sent",
                (Decision::Allow, Some(_), Some(_)) => "error",
                (Decision::Allow, Some(_), None) => "success",
            },
            request_summary: format!(
                "{} {}{}",
                text(&event.method),
                text(&event.host),
                text(&event.path)
            ),
            result_summary: outcome
                .and_then(|outcome| outcome.status)
                .map(|status| status.to_string()),
            error_message: error.clone(),
            duration_ms: outcome.and_then(|outcome| outcome.duration_ms),
            redactions_applied: outcome.and_then(|outcome| outcome.reflections).unwrap_or(0),
            created_at: event.created_at.clone(),
        }
    }
}
