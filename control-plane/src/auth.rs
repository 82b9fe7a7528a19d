//! Who is calling: from a credential to a principal, with one answer for every credential that is not good.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultDirectRateLimiter, DefaultKeyedRateLimiter, Quota, RateLimiter};
use leases::id::{AgentId, KeyId, OrgId, UserId, VaultId};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU32;
use store::{Actor, ActorKind, Agent, Role, SessionRef, User};
use time::OffsetDateTime;
use zeroize::Zeroizing;

use crate::AppState;
use crate::api_key::{self, KeyHolder};
use crate::context::RequestContext;
use crate::error::ApiError;
use crate::jwt::{Confirmation, Subject};
use crate::metrics::AuthOutcome;
use crate::people::address_rules;
use crate::problem::Code;
use crate::proof::{Proof, ProofError, Shown};
use crate::sender::Sender;
use crate::signed_request;

/// Who is calling, as far as a credential says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Principal {
    Person { org: OrgId, id: UserId, role: Role },
    Agent { org: OrgId, id: AgentId },
}

impl Principal {
    pub(crate) fn org(&self) -> &OrgId {
        match self {
            Self::Person { org, .. } | Self::Agent { org, .. } => org,
        }
    }

    pub(crate) fn id(&self) -> &str {
        match self {
            Self::Person { id, .. } => id.as_str(),
            Self::Agent { id, .. } => id.as_str(),
        }
    }

    fn kind(&self) -> ActorKind {
        match self {
            Self::Person { .. } => ActorKind::User,
            Self::Agent { .. } => ActorKind::Agent,
        }
    }

    pub(crate) fn actor(&self, context: &RequestContext) -> Actor {
        Actor {
            kind: self.kind(),
            id: self.id().to_owned(),
            client_ip: context.client_ip,
            request_id: Some(context.id.clone()),
        }
    }
}

/// By what a caller was recognised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Means {
    /// An agent's key.
    AgentKey,
    /// A person's key.
    PersonalKey {
        id: KeyId,
        reads_only: bool,
        /// Whether it stands for a sign-in.
        is_session: bool,
    },
    /// An agent's signature on the request.
    Signature,
    /// A token, until its end.
    Token {
        jti: String,
        ends: OffsetDateTime,
        reads_only: bool,
    },
}

impl Means {
    /// Whether it reads alone, whatever its holder may do.
    pub(crate) fn reads_only(&self) -> bool {
        match self {
            Self::AgentKey | Self::Signature => false,
            Self::PersonalKey { reads_only, .. } | Self::Token { reads_only, .. } => *reads_only,
        }
    }
}

/// A person or an agent, authenticated.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) principal: Principal,
    pub(crate) means: Means,
    /// The vaults beyond which an agent reaches nothing, if it is bound to some.
    pub(crate) vaults: Option<Vec<VaultId>>,
    pub(crate) context: RequestContext,
}

/// Whom a credential names, and what else must be shown with it.
#[derive(Debug)]
struct Identified {
    principal: Principal,
    means: Means,
    vaults: Option<Vec<VaultId>>,
    confirmation: Option<Confirmation>,
}

impl Identified {
    fn person(user: User, means: Means) -> Self {
        Self {
            principal: person(user, &means),
            means,
            vaults: None,
            confirmation: None,
        }
    }

    fn agent(agent: Agent, means: Means) -> Self {
        Self {
            principal: Principal::Agent {
                org: agent.org,
                id: agent.id,
            },
            means,
            vaults: agent.settings.vault_ids,
            confirmation: None,
        }
    }
}

impl Caller {
    /// Whether the caller's own bound lets it reach a vault; grants and policies decide further.
    ///
    /// # Errors
    /// [`Code::Forbidden`], alike for a vault that there is and for one that there is not.
    pub(crate) fn check_vault(&self, vault: Option<&VaultId>) -> Result<(), ApiError> {
        let Some(bound) = &self.vaults else {
            return Ok(());
        };
        if vault.is_some_and(|vault| bound.contains(vault)) {
            return Ok(());
        }
        Err(beyond_its_vaults(self.principal.id()))
    }

    pub(crate) fn org(&self) -> &OrgId {
        self.principal.org()
    }

    pub(crate) fn actor(&self) -> Actor {
        self.principal.actor(&self.context)
    }

    /// The agent, if the caller is one: then all it sees and does is its own.
    pub(crate) fn agent(&self) -> Option<&AgentId> {
        match &self.principal {
            Principal::Person { .. } => None,
            Principal::Agent { id, .. } => Some(id),
        }
    }
}

/// A person, authenticated: what most routes ask for.
#[derive(Debug, Clone)]
pub(crate) struct Person {
    pub(crate) org: OrgId,
    pub(crate) actor: Actor,
    pub(crate) is_admin: bool,
}

/// The answer to an agent that reaches beyond the vaults that it is bound to.
pub(crate) fn beyond_its_vaults(agent: &str) -> ApiError {
    let detail = format!(
        "agent {agent} is bound to certain vaults, and this is in none of them; a person changes its vault_ids with PATCH /v1/agents/{{id}}"
    );
    ApiError::new(Code::Forbidden, detail)
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        // A route that forgot its layer refuses everybody rather than letting everybody in.
        let caller = parts
            .extensions
            .get::<Self>()
            .cloned()
            .ok_or_else(unauthenticated)?;
        match &caller.principal {
            Principal::Person {
                role: Role::Auditor,
                ..
            } if !parts.method.is_safe() => {
                let detail = "an auditor reads and changes nothing; ask an admin or a member";
                Err(ApiError::new(Code::Forbidden, detail))
            }
            Principal::Person { .. } | Principal::Agent { .. } => Ok(caller),
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Person {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let caller = Caller::from_request_parts(parts, state).await?;
        match &caller.principal {
            Principal::Person { org, role, .. } => Ok(Self {
                org: org.clone(),
                actor: caller.actor(),
                is_admin: role.is_admin(),
            }),
            Principal::Agent { id, .. } => {
                let detail = format!(
                    "agent {id} may not do this: agents mint, list and revoke their own leases and export under an export lease; ask a person"
                );
                Err(ApiError::new(Code::Forbidden, detail))
            }
        }
    }
}

/// 4. Lets a request on only with a good credential, and says to the rest of it whose it is.
pub(crate) async fn authenticate(
    State(state): State<AppState>,
    request: Request,
    next: Next,
) -> Response {
    let context = request.extensions().get::<RequestContext>().cloned();
    let context = context.unwrap_or_else(|| RequestContext::of(&request));
    match admit(&state, &context, request).await {
        Ok(request) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

/// Puts into a request whose it is.
async fn admit(
    state: &AppState,
    context: &RequestContext,
    request: Request,
) -> Result<Request, ApiError> {
    let (found, mut request) = if signed_request::is_signed(request.headers()) {
        match signed_request::identify(state, request).await {
            Ok(Some((agent, request))) => (Identified::agent(agent, Means::Signature), request),
            Ok(None) => return Err(refuse(state, context, "a signature was refused").await),
            Err(error) => return Err(counted(state, context, error).await),
        }
    } else {
        let Some(found) = identify(state, request.headers()).await? else {
            return Err(refuse(state, context, "the credential was refused").await);
        };
        let (parts, body) = request.into_parts();
        let confirmed = confirm(state, &found, &Sender::of(&parts)).await;
        if let Err(error) = confirmed {
            return Err(counted(state, context, error).await);
        }
        (found, Request::from_parts(parts, body))
    };
    let caller = admitted(state, context, found).await?;
    request.extensions_mut().insert(caller);
    Ok(request)
}

/// The caller, once the organisation's address rules let it in.
async fn admitted(
    state: &AppState,
    context: &RequestContext,
    found: Identified,
) -> Result<Caller, ApiError> {
    let Identified {
        principal,
        means,
        vaults,
        ..
    } = found;
    tracing::Span::current().record("principal.id", principal.id());
    let checked = address_rules::check(state, principal.org(), context.client_ip).await;
    if let Err(error) = checked {
        crate::events::address_denied(state, &principal, context, &error).await;
        return Err(error);
    }
    crate::events::key_used(state, &principal, &means, context).await;
    Ok(Caller {
        principal,
        means,
        vaults,
        context: context.clone(),
    })
}

/// Finds the principal of a credential; `None` for every credential that is missing or not good.
async fn identify(state: &AppState, headers: &HeaderMap) -> Result<Option<Identified>, ApiError> {
    let Some(credential) = shown(headers) else {
        return Ok(None);
    };
    match api_key::presented(credential) {
        Some((KeyHolder::Person, hash)) => person_by_key(state, &hash).await,
        Some((KeyHolder::Agent, hash)) => Ok(agent_by_key(state, &hash)
            .await?
            .map(|agent| Identified::agent(agent, Means::AgentKey))),
        None => by_token(state, credential).await,
    }
}

/// Checks that whoever shows a token holds what the token is bound to.
async fn confirm(state: &AppState, found: &Identified, sender: &Sender) -> Result<(), ApiError> {
    let by_dpop = dpop(&sender.headers).is_some();
    let Some(bound) = &found.confirmation else {
        // A scheme that promises a proof is not for what none goes with.
        return if by_dpop {
            Err(unauthenticated())
        } else {
            Ok(())
        };
    };
    if let Some(digest) = &bound.certificate {
        check_certificate(digest, sender, state.clock.now())?;
    }
    let Some(thumbprint) = &bound.jkt else {
        return Ok(());
    };
    let token = shown(&sender.headers).unwrap_or_default();
    let proof = Proof::verify(sender, Some(Shown { token, by_dpop }), state.clock.now())?;
    if proof.thumbprint != *thumbprint {
        return Err(ProofError::OtherKey.into());
    }
    let Principal::Agent { id, .. } = &found.principal else {
        return Err(unauthenticated());
    };
    proof.take(state, id).await
}

fn check_certificate(digest: &str, sender: &Sender, now: OffsetDateTime) -> Result<(), ApiError> {
    let certificate = sender.certificate();
    let held = certificate.is_some_and(|held| {
        held.is_valid(now) && Confirmation::of_certificate(&held.fingerprint) == digest
    });
    if held {
        return Ok(());
    }
    let detail = "this token is bound to a client certificate; call over TLS with that certificate, or exchange another token";
    Err(ApiError::new(Code::CertificateRequired, detail))
}

/// Whether the request carries a person's good credential.
pub(crate) async fn is_person(state: &AppState, headers: &HeaderMap) -> Result<bool, ApiError> {
    let found = identify(state, headers).await?;
    Ok(found.is_some_and(|found| matches!(found.principal, Principal::Person { .. })))
}

/// Who is calling, where nobody has to be: `None` without a credential. One that is not good is refused as everywhere.
pub(crate) async fn caller_if_any(
    state: &AppState,
    context: &RequestContext,
    sender: &Sender,
) -> Result<Option<Caller>, ApiError> {
    let headers = &sender.headers;
    if signed_request::is_signed(headers) {
        let detail = "a signed request is not read here; send a token of POST /v1/auth/agent-token, or no credential at all";
        return Err(ApiError::new(Code::Unauthenticated, detail));
    }
    if !headers.contains_key(header::AUTHORIZATION) && !headers.contains_key(&ALIAS) {
        return Ok(None);
    }
    let Some(found) = identify(state, headers).await? else {
        return Err(refuse(state, context, "the credential was refused").await);
    };
    if let Err(error) = confirm(state, &found, sender).await {
        return Err(counted(state, context, error).await);
    }
    admitted(state, context, found).await.map(Some)
}

async fn person_by_key(state: &AppState, hash: &[u8; 32]) -> Result<Option<Identified>, ApiError> {
    let found = state.store.personal_keys().find(hash).await?;
    Ok(found.map(|owner| {
        let means = Means::PersonalKey {
            id: owner.key,
            reads_only: owner.reads_only,
            is_session: owner.is_session,
        };
        Identified::person(owner.user, means)
    }))
}

/// A key that reads alone makes its holder an auditor.
fn person(user: User, means: &Means) -> Principal {
    Principal::Person {
        org: user.org,
        id: user.id,
        role: if means.reads_only() {
            Role::Auditor
        } else {
            user.role
        },
    }
}

/// Finds the agent of a key, if it may act.
pub(crate) async fn agent_by_key(
    state: &AppState,
    hash: &[u8; 32],
) -> Result<Option<Agent>, ApiError> {
    let found = state.store.agents().find_by_key_hash(hash).await?;
    let live = found.filter(|(_, agent)| agent.is_live(state.clock.now()));
    Ok(live.map(|(_, agent)| agent))
}

/// A token outlives what it was issued for by its signature, so the store is asked every time.
async fn by_token(state: &AppState, token: &str) -> Result<Option<Identified>, ApiError> {
    let now = state.clock.now();
    let Some(verified) = state.tokens.verify(token, now) else {
        return Ok(None);
    };
    let sessions = state.store.sessions();
    let (jti, ends) = (verified.jti, verified.ends);
    match verified.subject {
        Subject::Agent(claims) => {
            let agent = state.store.agents().get(&claims.org, &claims.agent).await?;
            let is_of = |agent: &Agent| agent.is_live(now) && agent.token_epoch == claims.epoch;
            let Some(agent) = agent.filter(is_of) else {
                return Ok(None);
            };
            if sessions.is_revoked(&jti).await? {
                return Ok(None);
            }
            let reads_only = false;
            let means = Means::Token {
                jti,
                ends,
                reads_only,
            };
            Ok(Some(Identified {
                confirmation: claims.confirmation,
                ..Identified::agent(agent, means)
            }))
        }
        Subject::Person(claims) => {
            let session = SessionRef {
                org: &claims.org,
                user: &claims.user,
                jti: &jti,
                epoch: claims.epoch,
                key: claims.key.as_ref(),
            };
            let found = sessions.find(session).await?;
            Ok(found.map(|session| {
                let reads_only = session.reads_only;
                let means = Means::Token {
                    jti,
                    ends,
                    reads_only,
                };
                Identified::person(session.user, means)
            }))
        }
    }
}

/// The one credential of a request. Two of them could name two principals, so two are none.
pub(crate) fn credential(headers: &HeaderMap) -> Option<&str> {
    let mut bearer = headers.get_all(header::AUTHORIZATION).iter();
    let mut alias = headers.get_all(&ALIAS).iter();
    let found = match (bearer.next(), alias.next()) {
        (Some(value), None) => strip_scheme("bearer", value.to_str().ok()?)?,
        (None, Some(value)) => value.to_str().ok()?.trim(),
        (Some(_), Some(_)) | (None, None) => return None,
    };
    (bearer.next().is_none() && alias.next().is_none()).then_some(found)
}

/// The credential that may name a principal: as [`credential`], or a token that is shown with a proof (RFC 9449, section 7.1).
fn shown(headers: &HeaderMap) -> Option<&str> {
    credential(headers).or_else(|| dpop(headers))
}

/// The token of the one `Authorization: DPoP`.
fn dpop(headers: &HeaderMap) -> Option<&str> {
    let mut all = headers.get_all(header::AUTHORIZATION).iter();
    let token = strip_scheme("dpop", all.next()?.to_str().ok()?)?;
    (all.next().is_none() && !headers.contains_key(&ALIAS)).then_some(token)
}

/// What keeps the answer to a repeated request from everybody else. A signed request shows nothing that would: then it is
/// something that nobody knows, and the answer is kept from the agent too.
pub(crate) fn secret_of(headers: &HeaderMap) -> Zeroizing<String> {
    Zeroizing::new(shown(headers).map_or_else(
        || hex::encode(crate::context::random::<32>()),
        str::to_owned,
    ))
}

/// The scheme's name has no case (RFC 9110, section 11.1).
fn strip_scheme<'v>(name: &str, value: &'v str) -> Option<&'v str> {
    let (scheme, token) = value.trim().split_once(' ')?;
    scheme.eq_ignore_ascii_case(name).then(|| token.trim())
}

/// The one answer to a missing, unknown or revoked credential; 429 once a source has had too many of them.
///
/// Only failures count and only they are held back: keys have 256 bits of chance, so the limit bounds work and records, and a
/// good key is never locked out by a bad one behind the same address.
pub(crate) async fn refuse(
    state: &AppState,
    context: &RequestContext,
    why: &'static str,
) -> ApiError {
    if let Some(limited) = count_refused(state, context) {
        return limited;
    }
    if let Some(unrecorded) = state.auth_limits.may_record() {
        crate::events::auth_failed(state, context, why, unrecorded).await;
    }
    unauthenticated()
}

/// Counts a refusal that says more than the one answer does.
pub(crate) async fn counted(
    state: &AppState,
    context: &RequestContext,
    refusal: ApiError,
) -> ApiError {
    if refusal.code().status() != StatusCode::UNAUTHORIZED {
        return refusal;
    }
    let refused = refuse(state, context, refusal.code().as_str()).await;
    if refused.code() == Code::RateLimited {
        refused
    } else {
        refusal
    }
}

/// The same answer to a good credential from an address that its organisation does not take; the record is the organisation's.
pub(crate) async fn refuse_address(
    state: &AppState,
    context: &RequestContext,
    principal: &Principal,
    why: &ApiError,
) -> ApiError {
    if let Some(limited) = count_refused(state, context) {
        return limited;
    }
    crate::events::address_denied(state, principal, context, why).await;
    unauthenticated()
}

/// Counts a refusal; the answer once the source has had too many.
fn count_refused(state: &AppState, context: &RequestContext) -> Option<ApiError> {
    if let Err(wait) = state.auth_limits.failed(context.client_ip) {
        state.metrics.auth_failed(AuthOutcome::Limited);
        let detail = "too many credentials from this address were refused; check the key and wait as long as Retry-After says";
        return Some(ApiError::new(Code::RateLimited, detail).retry_after(wait));
    }
    state.metrics.auth_failed(AuthOutcome::Refused);
    None
}

pub(crate) fn unauthenticated() -> ApiError {
    let detail = "no good credential came with this call; send `Authorization: Bearer` with a personal key (1ck_...), an agent's key (ocv_...) \
                  or a token of POST /v1/auth/token or /v1/auth/agent-token, and check that it was not revoked";
    ApiError::new(Code::Unauthenticated, detail)
}

/// Limits on refused credentials: per source for the answers, over all for the records.
#[derive(Debug)]
pub(crate) struct AuthLimits {
    by_source: DefaultKeyedRateLimiter<IpAddr>,
    records: DefaultDirectRateLimiter,
    unrecorded: AtomicU64,
    denials: DefaultDirectRateLimiter,
}

impl AuthLimits {
    pub(crate) fn new(burst: NonZeroU32) -> Self {
        Self {
            by_source: RateLimiter::keyed(Quota::per_second(NonZeroU32::MIN).allow_burst(burst)),
            records: RateLimiter::direct(
                Quota::per_second(NonZeroU32::MIN).allow_burst(RECORD_BURST),
            ),
            unrecorded: AtomicU64::new(0),
            denials: RateLimiter::direct(Quota::per_second(DENIALS_PER_SECOND)),
        }
    }

    /// Counts a failure; the wait once the source has had too many.
    pub(crate) fn failed(&self, source: Option<IpAddr>) -> Result<(), Duration> {
        if self.by_source.len() > MAX_SOURCES {
            self.by_source.retain_recent();
        }
        let allowed = self.by_source.check_key(&source_of(source));
        allowed.map_err(|until| until.wait_time_from(DefaultClock::default().now()))
    }

    /// Whether a failure is recorded, and how many before it were not: a flood must not fill the disk.
    fn may_record(&self) -> Option<u64> {
        if self.records.check().is_ok() {
            return Some(self.unrecorded.swap(0, Ordering::Relaxed));
        }
        self.unrecorded.fetch_add(1, Ordering::Relaxed);
        None
    }
}

impl AuthLimits {
    /// Whether a principal's denial is recorded.
    pub(crate) fn may_record_denial(&self) -> bool {
        self.denials.check().is_ok()
    }
}

/// What limits count by: an address, or the customer's network; those that are not known are one.
pub(crate) fn source_of(client_ip: Option<IpAddr>) -> IpAddr {
    network(client_ip.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)))
}

/// One customer of IPv6 has a /64 at least, so that is one source.
fn network(source: IpAddr) -> IpAddr {
    match source {
        IpAddr::V4(_) => source,
        IpAddr::V6(address) => {
            Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into()
        }
    }
}

/// Clawb's name for the header.
static ALIAS: HeaderName = HeaderName::from_static("x-clawb-api-key");
const DENIALS_PER_SECOND: NonZeroU32 = NonZeroU32::new(10).expect("ten is not zero");
const MAX_SOURCES: usize = 10_000;
const RECORD_BURST: NonZeroU32 = NonZeroU32::new(20).expect("twenty is not zero");

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn a_credential_comes_as_bearer_or_by_the_alias() {
        assert_eq!(
            credential(&headers(&[("authorization", "Bearer abc")])),
            Some("abc")
        );
        assert_eq!(
            credential(&headers(&[("authorization", "bearer  abc ")])),
            Some("abc")
        );
        assert_eq!(
            credential(&headers(&[("x-clawb-api-key", "abc")])),
            Some("abc")
        );
    }

    #[test]
    fn two_credentials_are_none() {
        for pairs in [
            &[("authorization", "Bearer a"), ("authorization", "Bearer b")][..],
            &[("authorization", "Bearer a"), ("x-clawb-api-key", "b")],
            &[("x-clawb-api-key", "a"), ("x-clawb-api-key", "b")],
            &[("authorization", "Basic YTpi")],
            &[("authorization", "Bearer")],
            &[],
        ] {
            assert_eq!(credential(&headers(pairs)), None, "{pairs:?}");
        }
    }

    #[test]
    fn a_source_is_held_back_after_its_burst_and_others_are_not() {
        let limits = AuthLimits::new(NonZeroU32::new(3).unwrap());
        let one = Some(IpAddr::from([192, 0, 2, 1]));
        assert!((0..3).all(|_| limits.failed(one).is_ok()));
        assert!(limits.failed(one).expect_err("the fourth") <= Duration::from_secs(1));
        assert!(limits.failed(Some(IpAddr::from([192, 0, 2, 2]))).is_ok());
    }

    #[test]
    fn a_64_is_one_source() {
        let at = |text: &str| network(text.parse().unwrap());
        assert_eq!(at("2001:db8::1"), at("2001:db8::ffff:1"));
        assert_ne!(at("2001:db8::1"), at("2001:db8:0:1::1"));
        assert_eq!(at("192.0.2.1"), IpAddr::from([192, 0, 2, 1]));
    }

    #[test]
    fn a_flood_is_counted_and_not_recorded_one_by_one() {
        let limits = AuthLimits::new(NonZeroU32::MIN);
        let recorded = (0..100).filter(|_| limits.may_record().is_some()).count();
        assert!((20..=22).contains(&recorded), "{recorded}");
        assert!(limits.unrecorded.load(Ordering::Relaxed) >= 78);
    }
}
