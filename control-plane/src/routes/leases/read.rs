//! `POST /v1/vault/secrets/read`: an export by Clawb's second shape.

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, Request, State};
use axum::http::HeaderValue;
use axum::response::Response;
use http_body_util::BodyExt;
use serde::Deserialize;
use serde_json::json;
use utoipa::ToSchema;
use vault::Secret;

use super::export::{Export, ExportRequest, Exported};
use crate::AppState;
use crate::context::RequestContext;
use crate::error::ApiError;
use crate::extract::Json;
use crate::forward::{self, Passed};
use crate::held_lease::{AnyId, HeldLease, Holder, Named};
use crate::problem::{Code, Problem};

/// What is to be given out, and under which lease.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReadSecrets {
    /// `clv_...`, whose action is `export_plaintext`; left out where the lease is the credential of the call.
    #[schema(value_type = Option<String>)]
    request_lease_token: Option<Secret>,
    #[schema(value_type = String)]
    secret_set_id: AnyId,
    /// All that the lease covers when left out, those too that the template never sends to the provider. An empty list is refused.
    #[serde(default, deserialize_with = "crate::json::names")]
    #[schema(value_type = Option<Vec<String>>, min_items = 1)]
    keys: Vec<String>,
    /// The set's environment.
    environment: Option<String>,
}

/// Gives out values under a lease whose action is `export_plaintext`, exactly as `POST /v1/vault/export` does.
#[utoipa::path(post, path = "/v1/vault/secrets/read", tag = "leases", operation_id = "readSecrets",
    security(("key" = []), ("clawb" = []), ("lease" = [])), request_body = ReadSecrets,
    responses((status = 200, body = Exported), (status = 401, body = Problem), (status = 403, body = Problem)))]
pub(crate) async fn handle(
    State(state): State<AppState>,
    context: RequestContext,
    holder: Holder,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    // `middleware::read_body` has bounded it already.
    let body = body.collect().await.map_err(ApiError::internal)?.to_bytes();
    let context = forward::sender(&state, context, PATH, (&parts.headers, &body))?;
    let request = Request::from_parts(parts, Body::from(body));
    let Json(call) = Json::<ReadSecrets>::from_request(request, &state).await?;

    let named = Named {
        id: None,
        token: call.request_lease_token,
    };
    let held = holder.lease(&state, named).await?;
    let AnyId(set) = call.secret_set_id;
    if let Some(environment) = &call.environment {
        check_environment(&state, &held, &set, environment).await?;
    }
    if !state.may_open().await {
        let mut body = json!({ "secret_set_id": set });
        if !call.keys.is_empty() {
            body["keys"] = json!(call.keys);
        }
        let passed = Passed {
            path: PATH,
            lease: Some(held.token()),
            media_type: Some(&HeaderValue::from_static("application/json")),
            body: &Bytes::from(body.to_string()),
        };
        return forward::export(&state, &context, passed).await;
    }
    let export = Export {
        state: &state,
        context: &context,
        lease: held.lease(),
        ok: Some(true),
    };
    let wanted = ExportRequest {
        keys: call.keys,
        secret_set_id: Some(set),
    };
    export.answer(&wanted).await
}

/// Whether the set is of the environment that the caller holds it to be of.
async fn check_environment(
    state: &AppState,
    held: &HeldLease,
    set: &str,
    environment: &str,
) -> Result<(), ApiError> {
    let lease = held.lease();
    let mut bindings = lease.bindings().iter();
    // A set outside the lease is refused with the export, and told of in the audit trail.
    let Some(binding) = bindings.find(|binding| binding.set.as_str() == set) else {
        return Ok(());
    };
    let sets = state.store.secret_sets();
    match sets.get(lease.org(), &binding.set).await? {
        Some(found) if found.environment != environment => {
            let detail = format!(
                "the set {set} is of the environment {}; leave `environment` out, or name that one",
                found.environment
            );
            Err(ApiError::new(Code::GrantDenied, detail))
        }
        _ => Ok(()),
    }
}

/// The path of this call.
const PATH: &str = "/v1/vault/secrets/read";
