//! A lease that is used through this API: as its bearer's credential, as a text beside another credential, or by its id.

use std::fmt;
use std::sync::Arc;

use axum::extract::{FromRequestParts, Request, State};
use axum::http::HeaderMap;
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use leases::id::LeaseId;
use leases::mint::{Binding, MintRequest};
use leases::scope::Keys;
use leases::token::{PREFIX, PresentedToken};
use leases::verify::{VerifiedLease, verify};
use serde::{Deserialize, Deserializer};
use store::LeaseRecord;
use vault::Secret;
use zeroize::Zeroizing;

use crate::AppState;
use crate::auth::{self, Caller};
use crate::context::RequestContext;
use crate::error::ApiError;
use crate::problem::Code;
use crate::routes::leases::create::not_minted;
use crate::templates;
use crate::timestamp;

/// A genuine lease with its text. Whether it still stands, the ledger says at its use.
#[derive(Clone)]
pub(crate) struct HeldLease {
    lease: Arc<VerifiedLease>,
    token: Arc<Zeroizing<String>>,
}

impl HeldLease {
    pub(crate) fn lease(&self) -> &Arc<VerifiedLease> {
        &self.lease
    }

    /// Its text, for the injector alone.
    pub(crate) fn token(&self) -> &str {
        &self.token
    }
}

impl fmt::Debug for HeldLease {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("HeldLease")
            .field("lease", self.lease.lease())
            .finish_non_exhaustive()
    }
}

/// The text of a lease, checked up to a root key.
fn read(state: &AppState, text: &str) -> Option<HeldLease> {
    let presented = PresentedToken::parse(text).ok()?;
    let lease = verify(&presented, &state.verifying.public()).ok()?;
    Some(HeldLease {
        lease: Arc::new(lease),
        token: Arc::new(Zeroizing::new(presented.as_str().to_owned())),
    })
}

/// The lease that a request has for its credential. Everything else about it is decided later.
pub(crate) async fn of_request(
    state: &AppState,
    context: &RequestContext,
    headers: &HeaderMap,
) -> Result<HeldLease, ApiError> {
    let Some(text) = auth::credential(headers) else {
        let detail = "send `Authorization: Bearer clv_...` with a lease for what this call does";
        return Err(ApiError::new(Code::LeaseMissing, detail));
    };
    if let Some(held) = read(state, text) {
        return Ok(held);
    }
    let refused = auth::refuse(state, context, "a lease was refused").await;
    Err(if refused.code() == Code::RateLimited {
        refused
    } else {
        invalid()
    })
}

/// One answer for every lease that is not genuine, or of somebody else.
pub(crate) fn invalid() -> ApiError {
    ApiError::new(
        Code::LeaseInvalid,
        "this is no lease of yours on this server; mint one with POST /v1/vault/leases",
    )
}

/// 4. As [`auth::authenticate`], and a lease does as well: of whoever bears it, for what it allows and nothing else.
pub(crate) async fn authenticate(
    State(state): State<AppState>,
    request: Request,
    next: Next,
) -> Response {
    if auth::credential(request.headers()).is_some_and(|text| text.starts_with(PREFIX)) {
        authenticate_bearer(State(state), request, next).await
    } else {
        auth::authenticate(State(state), request, next).await
    }
}

/// 4. Lets a request on only with a genuine lease.
pub(crate) async fn authenticate_bearer(
    State(state): State<AppState>,
    mut request: Request,
    next: Next,
) -> Response {
    let context = request.extensions().get::<RequestContext>().cloned();
    let context = context.unwrap_or_else(|| RequestContext::of(&request));
    match of_request(&state, &context, request.headers()).await {
        Ok(held) => {
            let agent = held.lease.agent();
            tracing::Span::current().record("principal.id", agent.as_str());
            request.extensions_mut().insert(held);
            next.run(request).await
        }
        Err(error) => error.into_response(),
    }
}

/// Who uses a lease: its bearer, or a caller who names one.
#[derive(Debug)]
pub(crate) enum Holder {
    Bearer(HeldLease),
    Caller(Box<Caller>),
}

impl<S: Send + Sync> FromRequestParts<S> for Holder {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        if let Some(held) = parts.extensions.get::<HeldLease>() {
            return Ok(Self::Bearer(held.clone()));
        }
        let caller = Caller::from_request_parts(parts, state).await?;
        Ok(Self::Caller(Box::new(caller)))
    }
}

/// How a request names its lease beside its credential.
#[derive(Debug, Default)]
pub(crate) struct Named {
    pub(crate) id: Option<AnyId>,
    pub(crate) token: Option<Secret>,
}

impl Holder {
    /// The one lease that the request is about.
    pub(crate) async fn lease(
        &self,
        state: &AppState,
        named: Named,
    ) -> Result<HeldLease, ApiError> {
        match (self, named) {
            (Self::Bearer(held), Named { id, token: None }) => match id {
                Some(AnyId(id)) if id != held.lease.lease().as_str() => Err(ApiError::invalid(
                    "lease_id",
                    "is not the lease that the request bears; leave it out",
                )),
                _ => Ok(held.clone()),
            },
            (Self::Bearer(_), Named { token: Some(_), .. }) => Err(ApiError::invalid(
                "lease_token",
                "comes beside a lease in Authorization; send one of them",
            )),
            (
                Self::Caller(caller),
                Named {
                    id: Some(AnyId(id)),
                    token: None,
                },
            ) => by_id(state, caller, &id).await,
            (
                Self::Caller(caller),
                Named {
                    id: None,
                    token: Some(token),
                },
            ) => by_token(state, caller, &token),
            (
                Self::Caller(_),
                Named {
                    id: None,
                    token: None,
                },
            ) => Err(ApiError::new(
                Code::LeaseMissing,
                "name the lease to use: its token as `Authorization: Bearer clv_...` or in `lease_token`, or `lease_id`",
            )),
            (
                Self::Caller(_),
                Named {
                    id: Some(_),
                    token: Some(_),
                },
            ) => Err(ApiError::invalid(
                "lease_id",
                "comes beside lease_token; send one of them",
            )),
        }
    }
}

/// A lease of the caller's own organisation, and of the agent itself if it is one.
pub(crate) fn by_token(
    state: &AppState,
    caller: &Caller,
    token: &Secret,
) -> Result<HeldLease, ApiError> {
    let held = token.expose_str().and_then(|text| read(state, text));
    let held = held.filter(|held| {
        held.lease.org() == caller.org()
            && caller.agent().is_none_or(|own| own == held.lease.agent())
    });
    held.ok_or_else(invalid)
}

/// A lease by its id. Its text is kept nowhere, so an equal one is made for this use: of the same id, and so of the same
/// single use, revocation and end.
async fn by_id(state: &AppState, caller: &Caller, id: &str) -> Result<HeldLease, ApiError> {
    let not_found = || ApiError::not_found("lease", id);
    let parsed = LeaseId::parse(id).map_err(|_| not_found())?;
    let record = state.store.leases().get(caller.org(), &parsed).await?;
    let visible = |record: &LeaseRecord| caller.agent().is_none_or(|own| *own == record.agent_id);
    let record = record.filter(visible).ok_or_else(not_found)?;
    let again = "mint a new one with POST /v1/vault/leases";
    if record.expires_at <= state.clock.now() {
        let at = timestamp::format(record.expires_at);
        let detail = format!("lease {id} expired at {at}; {again}");
        return Err(ApiError::new(Code::LeaseExpired, detail));
    }
    let Some(keys) = record.keys.clone() else {
        let detail = format!(
            "lease {id} was minted before leases could be used by their ids; send its token as lease_token, or {again}"
        );
        return Err(ApiError::new(Code::LeaseInvalid, detail));
    };
    let mut bindings = Vec::with_capacity(record.sets.len());
    for (set, grant) in &record.sets {
        let sets = state.store.secret_sets();
        let set = sets.get(caller.org(), set).await?;
        let grant = state.store.grants().get(caller.org(), grant).await?;
        let (Some(set), Some(grant)) = (set, grant) else {
            let detail = format!("what lease {id} opens is gone; {again}");
            return Err(ApiError::new(Code::GrantDenied, detail));
        };
        let template = templates::of_set(state, &set)?;
        bindings.push(Binding {
            set: set.id,
            grant: grant.id,
            provider: set.provider,
            hosts: templates::hosts(&template),
            keys: match &keys {
                Keys::All => grant.allowed_keys,
                Keys::Only(_) => keys.clone(),
            },
            scope: grant.constraints,
        });
    }
    let request = MintRequest {
        org: record.org,
        agent: record.agent_id,
        lease: record.id,
        kind: record.kind,
        action: record.action,
        bindings,
        issued_at: record.issued_at,
        expires_at: record.expires_at,
    };
    let minted = state.minting()?.keys.mint(&request).await;
    let minted = minted.map_err(not_minted)?;
    read(state, minted.token.as_str()).ok_or_else(invalid)
}

/// An id as a client writes it: a text, or a number where Clawb's clients have one. A number is an id that does not exist here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AnyId(pub(crate) String);

impl<'de> Deserialize<'de> for AnyId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "expected an id")]
        enum Form {
            Text(String),
            Number(i64),
        }
        Ok(Self(match Form::deserialize(deserializer)? {
            Form::Text(text) => text,
            Form::Number(number) => number.to_string(),
        }))
    }
}
