//! `POST /v1/agents/{id}/execute`

use axum::extract::State;
use leases::id::{AgentId, LeaseId};
use serde::Deserialize;
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Value, json};
use store::Binding;
use time::OffsetDateTime;
use utoipa::ToSchema;
use vault::Secret;

use super::credential::{config_of, refresh};
use super::limits::{Config, Guardrails, wait};
use super::{GRAPHQL, HTTP, check_kind, find, visible};
use crate::AppState;
use crate::auth::Caller;
use crate::context::RequestContext;
use crate::error::{ApiError, ErrorKind};
use crate::extract::{Id, Json};
use crate::held_lease::{self, AnyId};
use crate::injector::{self, Incoming, Outgoing};
use crate::problem::{Code, Problem};
use crate::routes::leases::create::{self, CreateLease};
use crate::routes::proxy::{FieldValues, ProxyAnswer, Target};

/// A request by a binding.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Execute {
    /// Its id or name.
    #[schema(value_type = String)]
    binding: AnyId,
    /// `http` or `graphql`; the binding's own when left out.
    intent_type: Option<String>,
    /// `vault`.
    execution_mode: Option<String>,
    params: ExecuteParams,
}

/// What is sent. Of `http`: `method`, `path` below `base_url` or a whole `url`, `headers`, `body`. Of `graphql`: `query`, `variables`,
/// `operation_name`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExecuteParams {
    method: Option<String>,
    path: Option<String>,
    url: Option<String>,
    #[serde(default)]
    #[schema(value_type = Option<std::collections::BTreeMap<String, String>>)]
    headers: std::collections::BTreeMap<String, FieldValues>,
    #[schema(value_type = Option<Object>)]
    body: Option<Box<RawValue>>,
    body_base64: Option<String>,
    query: Option<String>,
    #[schema(value_type = Option<Object>)]
    variables: Option<Value>,
    #[serde(alias = "operationName")]
    operation_name: Option<String>,
}

/// What became of it.
#[derive(Debug, Serialize, ToSchema)]
#[expect(
    clippy::struct_field_names,
    reason = "the names are those of the seeds' clients"
)]
pub(crate) struct Execution {
    /// The request lease under which it was sent: the audit trail knows it by this.
    #[schema(value_type = String, example = "lse_01K3ABCDEFGHJKMNPQRSTVWXYZ")]
    execution_id: LeaseId,
    /// `completed`, whatever the provider's status; `denied`; or `error`.
    status: &'static str,
    result: Option<ProxyAnswer>,
    /// Why it was not completed, and the next action.
    error: Option<String>,
    /// The stable code of that.
    error_code: Option<&'static str>,
    duration_ms: u64,
    /// How often the credential stood in the provider's answer, in any spelling, and was masked.
    redactions_applied: u64,
    execution_surface: &'static str,
}

/// Sends a request by a binding of the calling agent: a request lease is minted from the binding's grant and used up by it.
#[utoipa::path(post, path = "/v1/agents/{id}/execute", tag = "bindings", operation_id = "execute", request_body = Execute,
    params(("id" = String, Path)),
    responses((status = 200, body = Execution), (status = 403, body = Problem), (status = 404, body = Problem), (status = 429, body = Problem)))]
pub(crate) async fn handle(
    State(state): State<AppState>,
    context: RequestContext,
    caller: Caller,
    id: Id,
    Json(body): Json<Execute>,
) -> Result<axum::Json<Execution>, ApiError> {
    let agent = visible(&state, &caller, &id.0).await?;
    if caller.agent().is_none() {
        let detail = "requests by a binding are its agent's; try a binding with POST /v1/agents/{id}/bindings/{binding}/test";
        return Err(ApiError::new(Code::Forbidden, detail));
    }
    let mode = body.execution_mode.as_deref().unwrap_or(VAULT);
    if mode != VAULT {
        let detail = "execution_mode: there is vault alone; leave it out";
        return Err(ApiError::new(Code::BindingTypeUnsupported, detail));
    }
    let AnyId(named) = &body.binding;
    let binding = find(&state, caller.org(), &agent, named).await?;
    let intent = body.intent_type.as_deref().unwrap_or(&binding.kind);
    check_kind(intent)?;
    if intent != binding.kind {
        let problem = format_args!("is {intent}, and the binding is of type {}", binding.kind);
        return Err(ApiError::invalid("intent_type", problem));
    }
    let outgoing = outgoing(&binding, body.params)?;
    let call = Call {
        state: &state,
        context: &context,
        caller: &caller,
        agent: None,
    };
    let (lease, started, sent) = call.send(binding, outgoing).await?;
    let took = state.clock.now() - started;
    Execution::new(lease, sent, took).map(axum::Json)
}

/// The request that the binding's parts and the call's make.
fn outgoing(binding: &Binding, params: ExecuteParams) -> Result<Outgoing, ApiError> {
    let config = config_of(binding)?;
    let guardrails: Guardrails =
        serde_json::from_value(binding.guardrails.clone()).map_err(ApiError::internal)?;
    let url = match (params.url, params.path) {
        (Some(_), Some(_)) => {
            return Err(ApiError::invalid(
                "params.url",
                "comes beside path; send one of them",
            ));
        }
        (Some(url), None) => url,
        (None, path) => config.below(path.as_deref().unwrap_or_default()),
    };
    let (method, body) = match (binding.kind.as_str(), params.query) {
        (GRAPHQL, Some(query)) if params.body.is_none() => {
            let mut question = json!({ "query": query });
            if let Some(variables) = params.variables {
                question["variables"] = variables;
            }
            if let Some(name) = params.operation_name {
                question["operationName"] = json!(name);
            }
            let question = to_raw_value(&question).map_err(ApiError::internal)?;
            (Some("POST".to_owned()), Some(question))
        }
        (GRAPHQL, _) => {
            return Err(ApiError::invalid(
                "params.query",
                "is missing; a graphql binding takes query, variables and operation_name",
            ));
        }
        (HTTP, None) if params.variables.is_none() && params.operation_name.is_none() => {
            (params.method, params.body)
        }
        _ => {
            return Err(ApiError::invalid(
                "params",
                "has fields of graphql; an http binding takes method, path or url, headers and body",
            ));
        }
    };
    let target = Target {
        method,
        url,
        headers: params.headers,
        body,
        body_base64: params.body_base64,
        timeout_ms: None,
    };
    Ok(Outgoing {
        wait: wait(&config, &guardrails)?,
        ..target.check("params")?
    })
}

/// A request that asks whether the binding leads anywhere.
pub(super) fn probe(config: &Config) -> Result<Outgoing, ApiError> {
    let target = Target {
        method: None,
        url: config.trial()?,
        headers: std::collections::BTreeMap::new(),
        body: None,
        body_base64: None,
        timeout_ms: None,
    };
    target.check("config")
}

/// Whoever sends by a binding.
pub(super) struct Call<'a> {
    pub(super) state: &'a AppState,
    pub(super) context: &'a RequestContext,
    pub(super) caller: &'a Caller,
    /// The agent that a person sends for.
    pub(super) agent: Option<&'a AgentId>,
}

type Sent = (LeaseId, OffsetDateTime, Result<Incoming, ApiError>);

impl Call<'_> {
    /// Sends under a lease of its own. What is decided before there is one is the error; the rest is what became of it.
    pub(super) async fn send(
        &self,
        binding: Binding,
        outgoing: Outgoing,
    ) -> Result<Sent, ApiError> {
        let state = self.state;
        if !binding.is_active {
            let detail = format!(
                "binding {} is not active; a person resumes it with PATCH and `is_active: true`",
                binding.id
            );
            return Err(ApiError::new(Code::GrantDenied, detail));
        }
        let binding = refresh(state, self.context, binding).await?;
        let wish = CreateLease::for_one_request(&binding.set, &binding.grant, self.agent, TTL);
        let lease = create::mint(state, self.caller, wish).await?;
        let token = Secret::from(lease.token.clone());
        let held = held_lease::by_token(state, self.caller, &token)?;
        let started = state.clock.now();
        let sent = injector::send(state, self.context, &held, outgoing).await;
        Ok((held.lease().lease().clone(), started, sent))
    }
}

impl Execution {
    /// What concerns the request is told as its end; what concerns the caller's own standing, as a refusal of the call.
    fn new(
        execution_id: LeaseId,
        sent: Result<Incoming, ApiError>,
        took: time::Duration,
    ) -> Result<Self, ApiError> {
        let duration_ms = u64::try_from(took.whole_milliseconds()).unwrap_or_default();
        let ended = |status| Self {
            execution_id,
            status,
            result: None,
            error: None,
            error_code: None,
            duration_ms,
            redactions_applied: 0,
            execution_surface: SURFACE,
        };
        match sent {
            Ok(incoming) => Ok(Self {
                redactions_applied: incoming.masked,
                result: Some(incoming.into()),
                ..ended("completed")
            }),
            Err(error) => match status_of(&error) {
                None => Err(error),
                Some(status) => Ok(Self {
                    error: Some(error.detail().to_owned()),
                    error_code: Some(error.code().as_str()),
                    ..ended(status)
                }),
            },
        }
    }
}

/// How a request ended that was refused or failed; `None` where the same request may pass later, once a person approved it or there is room.
pub(super) fn status_of(error: &ApiError) -> Option<&'static str> {
    if error.code() == Code::ApprovalRequired {
        return None;
    }
    let is_of_provider = matches!(
        error.code(),
        Code::UpstreamConnect
            | Code::UpstreamTls
            | Code::UpstreamProtocol
            | Code::UpstreamTimeout
            | Code::AnswerTooLarge
    );
    match error.kind() {
        _ if is_of_provider => Some("error"),
        ErrorKind::Caller | ErrorKind::Denied => Some("denied"),
        ErrorKind::Limit | ErrorKind::Unavailable | ErrorKind::Internal => None,
    }
}

const VAULT: &str = "vault";
const SURFACE: &str = "injector";
/// Longer than a request by a binding may take, in seconds.
const TTL: i64 = 120;
