//! `POST /v1/vault/export`: the one way by which a value leaves this plane.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{FromRequest, Request, State};
use axum::http::{StatusCode, header};
use axum::response::Response;
use http_body_util::BodyExt;
use leases::authorize::{Denial, authorize_export};
use leases::id::SetId;
use leases::mint::Binding;
use leases::scope::{Action, Keys};
use leases::verify::VerifiedLease;
use serde::{Deserialize, Serialize};
use store::{
    Actor, ActorKind, NewEvent, Outcome, RecordedUse, RequestFacts, UseRefusal, UseRequest,
};
use utoipa::ToSchema;
use vault::RowBinding;

use crate::AppState;
use crate::context::RequestContext;
use crate::entries::check_key;
use crate::error::ApiError;
use crate::extract::OptionalJson;
use crate::forward::{self, Passed};
use crate::held_lease;
use crate::plaintext::{self, Plaintext};
use crate::problem::{Code, Problem};

/// Which keys.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExportRequest {
    /// All that the lease covers when left out, those too that the template never sends to the provider. An empty list is refused.
    #[serde(default, deserialize_with = "crate::json::names")]
    #[schema(value_type = Option<Vec<String>>, min_items = 1)]
    pub(super) keys: Vec<String>,
    /// Needed when the lease covers several sets.
    pub(super) secret_set_id: Option<String>,
}

/// The values.
#[derive(Serialize, ToSchema)]
pub(crate) struct Exported {
    /// True, where the call is Clawb's.
    #[serde(skip_serializing_if = "Option::is_none")]
    ok: Option<bool>,
    #[schema(value_type = std::collections::BTreeMap<String, String>)]
    secrets: BTreeMap<String, Plaintext>,
}

/// Gives out the values of a set under a lease whose action is `export_plaintext`; a request lease does so once.
#[utoipa::path(post, path = "/v1/vault/export", tag = "leases", operation_id = "exportSecrets", security(("lease" = [])), request_body = Option<ExportRequest>,
    responses((status = 200, body = Exported), (status = 401, body = Problem), (status = 403, body = Problem)))]
pub(crate) async fn handle(
    State(state): State<AppState>,
    context: RequestContext,
    request: Request,
) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    // `middleware::read_small_body` has bounded it already.
    let body = body.collect().await.map_err(ApiError::internal)?.to_bytes();
    let held = held_lease::of_request(&state, &context, &parts.headers).await?;
    if !state.may_open().await {
        let passed = Passed {
            path: PATH,
            lease: Some(held.token()),
            media_type: parts.headers.get(header::CONTENT_TYPE),
            body: &body,
        };
        return forward::export(&state, &context, passed).await;
    }
    let context = forward::sender(&state, context, PATH, (&parts.headers, &body))?;
    let request = Request::from_parts(parts, Body::from(body));
    let OptionalJson(body) = OptionalJson::<ExportRequest>::from_request(request, &state).await?;
    let export = Export {
        state: &state,
        context: &context,
        lease: held.lease(),
        ok: None,
    };
    export.answer(&body).await
}

/// A denial by the lease itself, in this API's codes.
fn denied(denial: &Denial) -> ApiError {
    let code = match denial {
        Denial::Expired { .. } => Code::LeaseExpired,
        Denial::Scope { .. } => Code::LeaseScope,
        Denial::Grant { .. } | Denial::Plaintext => Code::GrantDenied,
        Denial::Limits => Code::Overloaded,
    };
    ApiError::new(code, denial.to_string())
}

/// An export under a lease.
pub(super) struct Export<'a> {
    pub(super) state: &'a AppState,
    pub(super) context: &'a RequestContext,
    pub(super) lease: &'a Arc<VerifiedLease>,
    /// Whether the answer says so, as Clawb's does.
    pub(super) ok: Option<bool>,
}

/// What is to be given out: a set of the lease, and the keys that were asked for.
struct Wanted<'a> {
    binding: &'a Binding,
    keys: BTreeSet<String>,
}

impl Wanted<'_> {
    fn takes(&self, key: &str) -> bool {
        self.binding.keys.allows(key) && (self.keys.is_empty() || self.keys.contains(key))
    }
}

impl Export<'_> {
    /// Gives out what is asked for, if the lease allows it, and records it first.
    pub(super) async fn answer(&self, body: &ExportRequest) -> Result<Response, ApiError> {
        let wanted = match self.choose(body) {
            Ok(wanted) => wanted,
            Err(error) => return Err(self.refuse(error).await),
        };
        let counted = self
            .state
            .store
            .requests()
            .admit(self.lease.org(), false)
            .await?;
        if let Err(over) = counted {
            return Err(self.refuse(over.into()).await);
        }
        let used = self.record(&wanted).await?;
        let given = self.give(&wanted, &used).await;
        self.record_outcome(&wanted, &used, given.as_ref().err());
        given
    }

    /// What the lease allows of what is asked: its blocks, its grant's networks and times, its sets and keys.
    fn choose(&self, body: &ExportRequest) -> Result<Wanted<'_>, ApiError> {
        let lease = self.lease.lease();
        if self.lease.action() != Action::ExportPlaintext {
            let detail = format!(
                "lease {lease} is for {}; plaintext needs a lease with action export_plaintext, from a grant that holds it",
                self.lease.action()
            );
            return Err(ApiError::new(Code::ExportDenied, detail));
        }
        authorize_export(self.lease, self.client_ip(), self.state.clock.now())
            .map_err(|denial| denied(&denial))?;
        let binding = self.find_binding(body.secret_set_id.as_deref())?;
        body.keys
            .iter()
            .try_for_each(|key| check_key("keys", key))?;
        let keys: BTreeSet<String> = body.keys.iter().cloned().collect();
        match keys.iter().find(|key| !binding.keys.allows(key)) {
            Some(outside) => {
                let detail = format!(
                    "key {outside} is outside lease {lease} (allowed: {}); ask for a grant that includes it",
                    binding.keys
                );
                Err(ApiError::new(Code::GrantDenied, detail))
            }
            None => Ok(Wanted { binding, keys }),
        }
    }

    fn find_binding(&self, set: Option<&str>) -> Result<&Binding, ApiError> {
        let bindings = self.lease.bindings();
        match (set, bindings) {
            (None, [only]) => Ok(only),
            (None, _) => Err(ApiError::invalid(
                "secret_set_id",
                "is missing; the lease covers several sets, so name one of them",
            )),
            (Some(id), _) => {
                let named = SetId::parse(id).ok();
                let found = bindings
                    .iter()
                    .find(|binding| Some(&binding.set) == named.as_ref());
                found.ok_or_else(|| {
                    ApiError::new(
                        Code::GrantDenied,
                        format!(
                            "the lease does not cover {}; mint one for that set",
                            crate::text::excerpt(id)
                        ),
                    )
                })
            }
        }
    }

    /// The peer, or an address that is in no network when there is none.
    fn client_ip(&self) -> IpAddr {
        self.context
            .client_ip
            .unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED))
    }

    fn actor(&self) -> Actor {
        Actor {
            kind: ActorKind::Agent,
            id: self.lease.agent().to_string(),
            client_ip: self.context.client_ip,
            request_id: Some(self.context.id.clone()),
        }
    }

    /// Records a refusal that was decided here; the ledger records its own.
    async fn refuse(&self, error: ApiError) -> ApiError {
        let refused = store::Refused {
            org: self.lease.org().clone(),
            error: error.code().as_str().to_owned(),
            agent: Some(self.lease.agent().clone()),
            lease: Some(self.lease.lease().clone()),
            set: None,
            grant: None,
            request: self.facts(),
        };
        match self.state.store.ledger().record_refusal(refused).await {
            Ok(()) => error,
            Err(unrecorded) => unrecorded.into(),
        }
    }

    /// The same ledger as the injector's: it decides on revocation and single use, and nothing is opened that it did not commit.
    async fn record(&self, wanted: &Wanted<'_>) -> Result<RecordedUse, ApiError> {
        let keys: Arc<[String]> = match (&wanted.binding.keys, wanted.keys.is_empty()) {
            (Keys::Only(allowed), true) => allowed.clone().into(),
            (Keys::All, true) => self.all_keys(wanted).await?.into(),
            (_, false) => wanted.keys.iter().cloned().collect(),
        };
        let request = UseRequest {
            org: self.lease.org().clone(),
            lease: self.lease.lease().clone(),
            agent: self.lease.agent().clone(),
            set: wanted.binding.set.clone(),
            grant: wanted.binding.grant.clone(),
            kind: self.lease.kind(),
            action: Action::ExportPlaintext,
            revocation_ids: self.lease.revocation_ids().into(),
            expires_at: self.lease.effective_expiry(),
            keys,
            approval: None,
            estimate: store::Amount::default(),
            request: self.facts(),
        };
        let used = self.state.store.ledger().record_use(request).await;
        used.map_err(|refusal| self.not_used(&refusal))
    }

    async fn all_keys(&self, wanted: &Wanted<'_>) -> Result<Vec<String>, ApiError> {
        let set = self
            .state
            .store
            .secret_sets()
            .get(self.lease.org(), &wanted.binding.set)
            .await?;
        Ok(set.map_or_else(Vec::new, |set| set.keys))
    }

    fn facts(&self) -> RequestFacts {
        RequestFacts {
            request_id: self.context.id.clone(),
            client_ip: self.client_ip(),
            method: "POST".to_owned(),
            scheme: "http",
            host: "".into(),
            port: 0,
            address: None,
            path: PATH.to_owned(),
        }
    }

    fn not_used(&self, refusal: &UseRefusal) -> ApiError {
        let lease = self.lease.lease();
        let again = "mint a new one with POST /v1/vault/leases";
        match refusal {
            UseRefusal::LeaseRevoked { at } => ApiError::new(
                Code::LeaseRevoked,
                format!(
                    "lease {lease} was revoked at {}; {again}",
                    crate::timestamp::format(*at)
                ),
            ),
            UseRefusal::LeaseConsumed => ApiError::new(
                Code::LeaseConsumed,
                format!("request lease {lease} was used before; {again}"),
            ),
            UseRefusal::LeaseExpired { at } => ApiError::new(
                Code::LeaseExpired,
                format!(
                    "lease {lease} expired at {}; {again}",
                    crate::timestamp::format(*at)
                ),
            ),
            UseRefusal::GrantRevoked
            | UseRefusal::GrantExpired
            | UseRefusal::AgentInactive
            | UseRefusal::SetGone => ApiError::new(
                Code::GrantDenied,
                format!("{refusal}; ask a person for a new grant"),
            ),
            UseRefusal::RateLimited { retry_after } => {
                let detail = "the grant's rate is used up; wait as long as Retry-After says";
                ApiError::new(Code::RateLimited, detail).retry_after(*retry_after)
            }
            UseRefusal::SpendExceeded(over) => {
                let error = ApiError::new(Code::SpendExceeded, over.to_string());
                match over.retry_after {
                    Some(wait) => error.retry_after(wait),
                    None => error,
                }
            }
            UseRefusal::Unknown => held_lease::invalid(),
            UseRefusal::Overloaded => ApiError::new(
                Code::Overloaded,
                "too many uses wait for the ledger; try again in a second",
            ),
            other => {
                let detail = "the use could not be recorded, so nothing was given out; look at GET /v1/health";
                ApiError::new(Code::LedgerUnavailable, detail).because(other.clone())
            }
        }
    }

    async fn give(&self, wanted: &Wanted<'_>, used: &RecordedUse) -> Result<Response, ApiError> {
        let exported = self.open(wanted, used).await?;
        self.record_export(wanted, used).await?;
        respond(&exported)
    }

    async fn open(&self, wanted: &Wanted<'_>, used: &RecordedUse) -> Result<Exported, ApiError> {
        let gone = || {
            ApiError::new(
                Code::GrantDenied,
                format!("secret set {} is gone; ask a person", wanted.binding.set),
            )
        };
        let sets = self.state.store.secret_sets();
        let entries = sets
            .sealed_entries(self.lease.org(), used.set(), used.secret_set_version())
            .await?
            .ok_or_else(gone)?;
        if let Some(missing) = wanted
            .keys
            .iter()
            .find(|key| !entries.iter().any(|entry| entry.key == **key))
        {
            return Err(ApiError::invalid(
                "keys",
                format_args!("the set has no key {missing}; the lease was used up nevertheless"),
            ));
        }
        let mut secrets = BTreeMap::new();
        for entry in entries.into_iter().filter(|entry| wanted.takes(&entry.key)) {
            let row = RowBinding {
                org: self.lease.org().as_str(),
                vault: entry.vault.as_str(),
                path: &entry.path,
                version: entry.version,
            };
            secrets.insert(
                entry.key,
                Plaintext(self.state.vault.open(&entry.sealed, &row).await?),
            );
        }
        Ok(Exported {
            ok: self.ok,
            secrets,
        })
    }

    fn record_outcome(&self, wanted: &Wanted<'_>, used: &RecordedUse, error: Option<&ApiError>) {
        let took = self.state.clock.now() - used.at();
        self.state.store.ledger().record_outcome(Outcome {
            use_id: used.use_id().clone(),
            org: self.lease.org().clone(),
            lease: self.lease.lease().clone(),
            agent: self.lease.agent().clone(),
            set: wanted.binding.set.clone(),
            grant: wanted.binding.grant.clone(),
            request_id: self.context.id.clone(),
            status: Some(
                error
                    .map_or(StatusCode::OK, |error| error.code().status())
                    .as_u16(),
            ),
            error: error.map(|error| error.code().as_str().to_owned()),
            bytes_up: 0,
            bytes_down: 0,
            duration_ms: u64::try_from(took.whole_milliseconds()).unwrap_or(0),
            attempts: 0,
            address: None,
            spent: used.hold().map(store::Hold::given_back),
            reflections: 0,
        });
    }

    /// The event of its own that an export has beside its use. Without it nothing is given out.
    async fn record_export(&self, wanted: &Wanted<'_>, used: &RecordedUse) -> Result<(), ApiError> {
        let event = NewEvent {
            action: "secret.export",
            agent_id: Some(self.lease.agent().clone()),
            lease_id: Some(self.lease.lease().clone()),
            grant_id: Some(wanted.binding.grant.clone()),
            secret_set_id: Some(wanted.binding.set.clone()),
            secret_version: Some(used.secret_set_version()),
            keys: used.keys().to_vec(),
            use_id: Some(used.use_id().clone()),
            ..NewEvent::default()
        };
        self.state
            .store
            .audit()
            .append(self.lease.org(), event, &self.actor())
            .await?;
        Ok(())
    }
}

/// The path of this call.
pub(crate) const PATH: &str = "/v1/vault/export";

fn respond(exported: &Exported) -> Result<Response, ApiError> {
    let values = exported.secrets.values().map(Plaintext::json_len);
    let capacity = 64 + exported.secrets.len() * 160 + values.sum::<usize>();
    plaintext::respond(exported, capacity)
}
