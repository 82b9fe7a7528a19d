//! `POST /v1/vault/proxy/request`: Clawb's second shape, which names set and profile beside the lease.

use axum::extract::State;
use serde::Deserialize;
use utoipa::ToSchema;
use vault::Secret;

use super::explicit::{place, port};
use super::{Proxied, Target};
use crate::AppState;
use crate::context::RequestContext;
use crate::error::ApiError;
use crate::extract::Json;
use crate::held_lease::{AnyId, HeldLease, Holder, Named};
use crate::injector::{self, Outgoing};
use crate::problem::{Code, Problem};
use crate::templates;
use crate::text::excerpt;

/// A request to a provider, with what the caller holds to be behind it: all of it must be so.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ProfileCall {
    /// `clv_...`; left out where the lease is the credential of the call.
    #[schema(value_type = Option<String>)]
    request_lease_token: Option<Secret>,
    /// The set whose key is to be sent.
    #[schema(value_type = String)]
    secret_set_id: AnyId,
    /// The name of the template by which the key is injected: of a `custom` set its own name.
    #[schema(example = "stripe")]
    profile: Option<String>,
    request: Target,
    /// The set's environment.
    environment: Option<String>,
}

/// Sends a request to a provider under a lease, by one set of it.
#[utoipa::path(post, path = "/v1/vault/proxy/request", tag = "proxy", operation_id = "proxyProfileRequest",
    security(("key" = []), ("clawb" = []), ("lease" = [])), request_body = ProfileCall,
    responses((status = 200, body = Proxied, description = "The provider answered; its status is in the body"), (status = 401, body = Problem),
        (status = 403, body = Problem), (status = 429, body = Problem), (status = 502, body = Problem), (status = 504, body = Problem)))]
pub(crate) async fn handle(
    State(state): State<AppState>,
    context: RequestContext,
    holder: Holder,
    Json(call): Json<ProfileCall>,
) -> Result<axum::Json<Proxied>, ApiError> {
    let named = Named {
        id: None,
        token: call.request_lease_token,
    };
    let held = holder.lease(&state, named).await?;
    let outgoing = call.request.check("request")?;
    let wanted = Wanted {
        set: &call.secret_set_id,
        profile: call.profile.as_deref(),
        environment: call.environment.as_deref(),
    };
    wanted.check(&state, &held, &outgoing).await?;
    let incoming = injector::send(&state, &context, &held, outgoing).await?;
    Ok(axum::Json(incoming.into()))
}

/// What the caller holds to be behind the request.
struct Wanted<'a> {
    set: &'a AnyId,
    profile: Option<&'a str>,
    environment: Option<&'a str>,
}

impl Wanted<'_> {
    /// The host decides which set of a lease serves a request, so it must be the one that is named.
    async fn check(
        &self,
        state: &AppState,
        held: &HeldLease,
        outgoing: &Outgoing,
    ) -> Result<(), ApiError> {
        let AnyId(id) = self.set;
        let lease = held.lease();
        let denied = |detail: String| Err(ApiError::new(Code::GrantDenied, detail));
        let mut bindings = lease.bindings().iter();
        let Some(named) = bindings.find(|binding| binding.set.as_str() == id) else {
            return denied(format!("the lease does not cover {}", excerpt(id)));
        };
        let (host, _) = place(outgoing);
        let now = state.clock.now();
        let serves = leases::authorize::covers_host(lease, &host, port(outgoing), now);
        if !serves.is_ok_and(|binding| binding.set == named.set) {
            return denied(format!(
                "the set {} does not serve host {} under this lease; ask for a grant that includes it",
                named.set,
                excerpt(&host)
            ));
        }
        let sets = state.store.secret_sets();
        let Some(set) = sets.get(lease.org(), &named.set).await? else {
            return denied(format!("secret set {} is gone; ask a person", named.set));
        };
        if self
            .environment
            .is_some_and(|named| named != set.environment)
        {
            return denied(format!(
                "the set {} is of the environment {}; leave `environment` out, or name that one",
                set.id, set.environment
            ));
        }
        let template = templates::of_set(state, &set)?;
        if self.profile.is_some_and(|named| named != template.name()) {
            let detail = format!(
                "the key of the set {} is injected by the profile {} and by no other; leave `profile` out, or name that one",
                set.id,
                template.name()
            );
            return Err(ApiError::new(Code::InjectionDenied, detail));
        }
        Ok(())
    }
}
