//! `POST /v1/vault/proxy`

use axum::body::Body;
use axum::extract::{FromRequest, Request, State};
use http_body_util::BodyExt;
use serde::Deserialize;
use utoipa::ToSchema;
use vault::Secret;

use super::explicit::{self, Explicit};
use super::{Proxied, Target};
use crate::AppState;
use crate::context::RequestContext;
use crate::error::ApiError;
use crate::extract::Json;
use crate::forward;
use crate::held_lease::{AnyId, Holder, Named};
use crate::injector;
use crate::problem::Problem;

/// A request to a provider under a lease, which is named here or borne as the credential of the call.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ProxyCall {
    /// An agent's own; of people any of their organisation.
    #[schema(value_type = Option<String>, example = "lse_01K3ABCDEFGHJKMNPQRSTVWXYZ")]
    lease_id: Option<AnyId>,
    /// `clv_...`, instead of its id.
    #[serde(alias = "request_lease_token")]
    #[schema(value_type = Option<String>)]
    lease_token: Option<Secret>,
    target: Target,
    /// Says again where the key goes. It must be what the provider's template does anyway; leave it out.
    injection: Option<Explicit>,
}

/// Sends a request to a provider under a lease: the injector decides on it, records it, injects, and scrubs the answer. A request lease is
/// used up by it. Redirects are not followed.
#[utoipa::path(post, path = "/v1/vault/proxy", tag = "proxy", operation_id = "proxyRequest", security(("key" = []), ("clawb" = []), ("lease" = [])),
    request_body = ProxyCall,
    responses((status = 200, body = Proxied, description = "The provider answered; its status is in the body"), (status = 401, body = Problem),
        (status = 403, body = Problem), (status = 404, body = Problem), (status = 429, body = Problem), (status = 502, body = Problem), (status = 504, body = Problem)))]
pub(crate) async fn handle(
    State(state): State<AppState>,
    context: RequestContext,
    holder: Holder,
    request: Request,
) -> Result<axum::Json<Proxied>, ApiError> {
    let (parts, body) = request.into_parts();
    // `middleware::read_body` has bounded it already.
    let body = body.collect().await.map_err(ApiError::internal)?.to_bytes();
    let context = forward::sender(&state, context, PATH, (&parts.headers, &body))?;
    let request = Request::from_parts(parts, Body::from(body));
    let Json(call) = Json::<ProxyCall>::from_request(request, &state).await?;

    let named = Named {
        id: call.lease_id,
        token: call.lease_token,
    };
    let held = holder.lease(&state, named).await?;
    let outgoing = call.target.check("target")?;
    if let Some(injection) = &call.injection {
        explicit::check(&state, held.lease(), &outgoing, injection).await?;
    }
    let incoming = injector::send(&state, &context, &held, outgoing).await?;
    Ok(axum::Json(incoming.into()))
}

/// The path of this call.
pub(crate) const PATH: &str = "/v1/vault/proxy";
