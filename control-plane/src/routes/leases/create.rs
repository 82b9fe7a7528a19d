//! `POST /v1/vault/leases`

use std::net::IpAddr;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use leases::id::{AgentId, GrantId, LeaseId, SetId};
use leases::mint::{Binding, MintError, MintRequest, Minted};
use leases::scope::{Action, HostPattern, Keys, Kind, Scope};
use serde::{Deserialize, Serialize};
use store::{Agent, CreateLeaseError, Grant, NewLease, SecretSet};
use utoipa::ToSchema;

use super::choice::Wanted;
use crate::AppState;
use crate::auth::{Caller, beyond_its_vaults, unauthenticated};
use crate::entries::check_key;
use crate::error::ApiError;
use crate::extract::Json;
use crate::keys::MintFailure;
use crate::openapi::shapes;
use crate::problem::{Code, Problem};
use crate::templates;
use crate::timestamp::Timestamp;

/// A lease to be minted. An unknown field is refused: a mistyped limit would widen the lease.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateLease {
    secret_set_id: Option<String>,
    #[serde(default)]
    #[schema(value_type = Option<Vec<String>>)]
    secret_set_ids: Vec<String>,
    /// `provider/environment/name`, or a list of them.
    #[schema(value_type = Option<String>, example = "stripe/prod/billing-bot")]
    secret_set: Option<Names>,
    /// The agent that the lease is for. People must name it; an agent mints for itself.
    agent_id: Option<String>,
    /// `request` (used once, the default) or `workflow`.
    #[schema(value_type = Option<String>)]
    pub(super) kind: Option<Kind>,
    /// `proxy_use` (the default) or `export_plaintext`.
    #[schema(value_type = Option<String>)]
    action: Option<Action>,
    /// Narrows what the grant allows: `"*"` or a list of names.
    #[schema(schema_with = shapes::keys_or_null)]
    keys: Option<Keys>,
    /// Default 60; at most 900 for a request lease and 86400 for a workflow lease, and never past the grant.
    ttl_seconds: Option<i64>,
    /// Mints from these grants alone, where an agent holds several on one set. Else the oldest that can be used from here and
    /// now is taken, or a later one that allows all that it does.
    #[serde(default)]
    #[schema(value_type = Option<Vec<String>>)]
    grant_ids: Vec<String>,
}

impl CreateLease {
    /// A lease for one request by one set and grant; a person names the agent.
    pub(crate) fn for_one_request(
        set: &SetId,
        grant: &GrantId,
        agent: Option<&AgentId>,
        ttl_seconds: i64,
    ) -> Self {
        Self {
            secret_set_id: Some(set.to_string()),
            agent_id: agent.map(AgentId::to_string),
            ttl_seconds: Some(ttl_seconds),
            grant_ids: vec![grant.to_string()],
            ..Self::default()
        }
    }
}

/// One name or several.
#[derive(Debug, Deserialize)]
#[serde(
    untagged,
    expecting = "expected \"provider/environment/name\" or a list of such names"
)]
pub(crate) enum Names {
    One(String),
    Many(Vec<String>),
}

/// A new lease. The token is shown this once.
#[derive(Serialize, ToSchema)]
pub(crate) struct CreatedLease {
    #[schema(value_type = String)]
    lease_id: LeaseId,
    /// `clv_...`
    pub(crate) token: String,
    #[schema(value_type = String)]
    kind: Kind,
    #[schema(value_type = String)]
    action: Action,
    #[schema(value_type = String)]
    agent_id: AgentId,
    expires_at: Timestamp,
    constraints: LeaseConstraints,
}

impl Drop for CreatedLease {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.token);
    }
}

/// What a lease is limited to.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LeaseConstraints {
    secret_sets: Vec<BoundSet>,
}

/// One set of a lease: by its host a request finds it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BoundSet {
    #[schema(value_type = String)]
    secret_set_id: SetId,
    #[schema(value_type = String)]
    grant_id: GrantId,
    provider: String,
    /// Where the provider's template sends the credential.
    #[schema(value_type = Vec<String>)]
    hosts: Vec<HostPattern>,
    #[schema(schema_with = shapes::keys)]
    keys: Keys,
    /// The grant's limits.
    #[schema(value_type = Object)]
    constraints: Scope,
}

impl From<&Binding> for BoundSet {
    fn from(binding: &Binding) -> Self {
        Self {
            secret_set_id: binding.set.clone(),
            grant_id: binding.grant.clone(),
            provider: binding.provider.clone(),
            hosts: binding.hosts.clone(),
            keys: binding.keys.clone(),
            constraints: binding.scope.clone(),
        }
    }
}

/// Mints a lease from the agent's grants.
#[utoipa::path(post, path = "/v1/vault/leases", tag = "leases", operation_id = "createLease", request_body = CreateLease,
    params(("Idempotency-Key" = Option<String>, Header, description = "Repeats have one effect for 24 h")),
    responses((status = 201, body = CreatedLease), (status = 404, body = Problem), (status = 422, body = Problem)))]
pub(crate) async fn handle(
    State(state): State<AppState>,
    caller: Caller,
    Json(body): Json<CreateLease>,
) -> Result<(StatusCode, axum::Json<CreatedLease>), ApiError> {
    let created = mint(&state, &caller, body).await?;
    Ok((StatusCode::CREATED, axum::Json(created)))
}

/// Mints what is asked for, from the grants of its agent.
pub(crate) async fn mint(
    state: &AppState,
    caller: &Caller,
    body: CreateLease,
) -> Result<CreatedLease, ApiError> {
    let wish = Wish::check(body)?;
    check_clock(state)?;
    let holder = find_agent(state, caller, wish.agent_id.as_deref()).await?;
    let agent = holder.id.clone();
    let cut_off = check_minting(state, caller, &agent).await?;
    let now = state.clock.now();

    let mut bindings = Vec::with_capacity(wish.sets.len());
    let end = holder.settings.expires_at;
    let mut expires_at = end.map_or(now + wish.ttl, |end| end.min(now + wish.ttl));
    for name in &wish.sets {
        let set = find_set(state, caller, name).await?;
        check_vault(state, caller, &holder, &set).await?;
        let grant = wish.find_grant(state, caller, &agent, (name, &set)).await?;
        expires_at = grant
            .expires_at
            .map_or(expires_at, |end| end.min(expires_at));
        bindings.push(wish.bind(state, set, grant)?);
    }

    let request = MintRequest {
        org: caller.org().clone(),
        agent,
        lease: LeaseId::new(now),
        kind: wish.kind,
        action: wish.action,
        bindings,
        issued_at: now,
        expires_at,
    };
    let origin = Origin {
        keys: wish.keys,
        parent: None,
        cut_off,
    };
    issue(state, caller, &request, origin).await
}

/// What is recorded of a lease beside what its token says.
pub(super) struct Origin {
    pub(super) keys: Keys,
    pub(super) parent: Option<LeaseId>,
    pub(super) cut_off: u64,
}

/// Signs a lease and records it; only then is its token given out.
pub(super) async fn issue(
    state: &AppState,
    caller: &Caller,
    request: &MintRequest,
    origin: Origin,
) -> Result<CreatedLease, ApiError> {
    let minting = &state.minting()?.keys;
    let minted = minting.mint(request).await.map_err(not_minted)?;
    save(state, caller, request, &minted, origin).await?;
    Ok(answer(request, &minted))
}

/// A request whose shape is good.
struct Wish {
    sets: Vec<SetName>,
    agent_id: Option<String>,
    grant_ids: Vec<String>,
    kind: Kind,
    action: Action,
    keys: Keys,
    ttl: Duration,
}

/// Whether a lease might be minted, asked without minting it.
pub(super) struct Question {
    pub(super) action: Action,
    pub(super) keys: Keys,
    pub(super) client: Option<IpAddr>,
}

/// The grant by which an agent may use keys of a set so, or why there is none.
pub(super) async fn evaluate(
    state: &AppState,
    agent: &AgentId,
    set: &SecretSet,
    question: Question,
) -> Result<Result<Grant, String>, ApiError> {
    let wish = Wish {
        sets: Vec::new(),
        agent_id: None,
        grant_ids: Vec::new(),
        kind: Kind::Request,
        action: question.action,
        keys: question.keys,
        ttl: Duration::ZERO,
    };
    let weighed = wish.weigh(state, question.client, agent, set).await?;
    Ok(weighed.map_err(Lacks::reason))
}

/// Why no grant allows a lease.
enum Lacks {
    /// There is none on the set that is alive.
    Grant,
    /// One that there is does not go far enough.
    Right(String),
}

impl Lacks {
    fn reason(self) -> String {
        match self {
            Self::Grant => NO_GRANT.to_owned(),
            Self::Right(reason) => reason,
        }
    }
}

/// How a request names a set.
#[derive(Debug, PartialEq, Eq)]
enum SetName {
    Id(String),
    Path(String),
}

impl Wish {
    fn check(body: CreateLease) -> Result<Self, ApiError> {
        let kind = body.kind.unwrap_or(Kind::Request);
        let action = body.action.unwrap_or(Action::ProxyUse);
        if !matches!(action, Action::ProxyUse | Action::ExportPlaintext) {
            let problem =
                format_args!("a lease is for proxy_use or export_plaintext, not for {action}");
            return Err(ApiError::invalid("action", problem));
        }
        let keys = body.keys.unwrap_or(Keys::All);
        if let Keys::Only(names) = &keys {
            if names.is_empty() {
                return Err(ApiError::invalid(
                    "keys",
                    "is empty, so the lease would cover nothing; leave it out, or name a key",
                ));
            }
            names.iter().try_for_each(|name| check_key("keys", name))?;
        }
        let ttl = check_ttl(body.ttl_seconds.unwrap_or(DEFAULT_TTL), kind)?;
        let sets = set_names(body.secret_set_id, body.secret_set_ids, body.secret_set)?;
        Ok(Self {
            sets,
            agent_id: body.agent_id,
            grant_ids: body.grant_ids,
            kind,
            action,
            keys,
            ttl,
        })
    }

    /// The grant to mint from; [`Wanted::choose`] says which of several.
    async fn find_grant(
        &self,
        state: &AppState,
        caller: &Caller,
        agent: &AgentId,
        (name, set): (&SetName, &SecretSet),
    ) -> Result<Grant, ApiError> {
        let client = caller.actor().client_ip;
        let lacks = match self.weigh(state, client, agent, set).await? {
            Ok(grant) => return Ok(grant),
            Err(lacks) => lacks,
        };
        let denied = Code::GrantDenied;
        crate::events::mint_denied(state, caller, agent, Some(&set.id), denied).await?;
        // An agent that holds nothing on the set learns no more of it than it said itself.
        let shown = match (name, &lacks) {
            (SetName::Id(id), Lacks::Grant) if caller.agent().is_some() => id.clone(),
            _ => format!("{}/{}/{}", set.provider, set.environment, set.name),
        };
        Err(self.denied(agent, &shown, &lacks.reason()))
    }

    /// That grant, or why there is none.
    async fn weigh(
        &self,
        state: &AppState,
        client: Option<IpAddr>,
        agent: &AgentId,
        set: &SecretSet,
    ) -> Result<Result<Grant, Lacks>, ApiError> {
        let now = state.clock.now();
        let grants = state.store.grants();
        let mut grants = grants.find_for(&set.org, agent, &set.id, now).await?;
        if !self.grant_ids.is_empty() {
            grants.retain(|grant| self.grant_ids.iter().any(|id| id == grant.id.as_str()));
        }
        if grants.is_empty() {
            return Ok(Err(Lacks::Grant));
        }
        let hosts = templates::hosts(&*templates::of_set(state, set)?);
        let wanted = Wanted {
            set,
            hosts: &hosts,
            keys: &self.keys,
            client,
            now,
            until: now + self.ttl,
        };
        let lacks = |grant: &Grant| self.lacks(grant).or_else(|| wanted.useless(grant));
        let reason = grants.iter().find_map(lacks);
        grants.retain(|grant| lacks(grant).is_none());
        let chosen = wanted.choose(grants);
        Ok(chosen.ok_or_else(|| reason.map_or(Lacks::Grant, Lacks::Right)))
    }

    /// What a grant does not allow of this wish.
    fn lacks(&self, grant: &Grant) -> Option<String> {
        let holds = |action: Action| grant.allowed_actions.contains(&action);
        if !holds(self.action) {
            return Some(format!(
                "the grant {} lacks the action {}",
                grant.id, self.action
            ));
        }
        if self.kind == Kind::Workflow && !holds(Action::MintWorkflowLease) {
            return Some(format!(
                "the grant {} lacks the action {}",
                grant.id,
                Action::MintWorkflowLease
            ));
        }
        let Keys::Only(names) = &self.keys else {
            return None;
        };
        let outside = names.iter().find(|name| !grant.allowed_keys.allows(name))?;
        Some(format!(
            "the grant {} does not cover the key {outside}",
            grant.id
        ))
    }

    fn denied(&self, agent: &AgentId, set: &str, why: &str) -> ApiError {
        let detail = format!(
            "agent {agent} may not have a {} lease with {} on {set}: {why}; a person grants it with POST /v1/vault/grants",
            self.kind, self.action
        );
        ApiError::new(Code::GrantDenied, detail)
    }

    fn bind(&self, state: &AppState, set: SecretSet, grant: Grant) -> Result<Binding, ApiError> {
        if let Keys::Only(names) = &self.keys
            && let Some(missing) = names.iter().find(|name| !set.keys.contains(name))
        {
            return Err(ApiError::invalid(
                "keys",
                format_args!(
                    "the set {} has no key {missing}; GET /v1/vault/secret-sets/{0} names those it has",
                    set.id
                ),
            ));
        }
        let template = templates::of_set(state, &set)?;
        let keys = match &self.keys {
            Keys::All => grant.allowed_keys,
            Keys::Only(_) => self.keys.clone(),
        };
        let hosts = templates::hosts(&template);
        Ok(Binding {
            set: set.id,
            grant: grant.id,
            provider: set.provider,
            hosts,
            keys,
            scope: grant.constraints,
        })
    }
}

fn set_names(
    id: Option<String>,
    ids: Vec<String>,
    names: Option<Names>,
) -> Result<Vec<SetName>, ApiError> {
    let paths = match names {
        None => Vec::new(),
        Some(Names::One(path)) => vec![path],
        Some(Names::Many(paths)) => paths,
    };
    let ids = id.into_iter().chain(ids).map(SetName::Id);
    let mut sets: Vec<SetName> = Vec::new();
    for set in ids.chain(paths.into_iter().map(SetName::Path)) {
        if !sets.contains(&set) {
            sets.push(set);
        }
    }
    if (1..=MAX_SETS).contains(&sets.len()) {
        return Ok(sets);
    }
    let problem = format!(
        "must name 1 to {MAX_SETS} secret sets by secret_set_id, secret_set_ids or secret_set \"provider/environment/name\""
    );
    Err(ApiError::invalid("secret_set_id", problem))
}

pub(super) fn check_ttl(seconds: i64, kind: Kind) -> Result<Duration, ApiError> {
    let max = match kind {
        Kind::Request => MAX_REQUEST_TTL,
        Kind::Workflow => MAX_WORKFLOW_TTL,
    };
    if (1..=max).contains(&seconds) {
        return Ok(Duration::from_secs(seconds.unsigned_abs()));
    }
    let hint = match kind {
        Kind::Request => "; a lease of kind workflow lives up to 24 h",
        Kind::Workflow => "",
    };
    let detail = format!("ttl_seconds is {seconds}; a {kind} lease lives 1 to {max} s{hint}");
    Err(ApiError::new(Code::InvalidTtl, detail))
}

/// An end counted from a wrong clock means nothing.
pub(super) fn check_clock(state: &AppState) -> Result<(), ApiError> {
    let behind = state.store.clock_behind();
    if behind <= MAX_CLOCK_BEHIND {
        return Ok(());
    }
    let detail = format!(
        "the server's clock is {} s behind what was recorded before; set it, then mint again",
        behind.as_secs()
    );
    Err(ApiError::new(Code::ClockBehind, detail))
}

/// Refuses while minting is paused; else the cut-off that the lease is minted under. The store looks again as it saves.
pub(super) async fn check_minting(
    state: &AppState,
    caller: &Caller,
    agent: &AgentId,
) -> Result<u64, ApiError> {
    let switch = state.store.kill_switch();
    let minting = switch.minting(caller.org(), agent).await?;
    let Some(pause) = minting.pause else {
        return Ok(minting.cut_off);
    };
    crate::events::mint_denied(state, caller, agent, None, Code::MintingPaused).await?;
    Err(CreateLeaseError::Paused(Box::new(pause)).into())
}

/// Whom the lease is for: an agent mints for itself alone, a person names an agent of the organisation.
pub(super) async fn find_agent(
    state: &AppState,
    caller: &Caller,
    named: Option<&str>,
) -> Result<Agent, ApiError> {
    let agents = state.store.agents();
    if let Some(own) = caller.agent() {
        if named.is_none_or(|id| id == own.as_str()) {
            let agent = agents.get(caller.org(), own).await?;
            return agent.ok_or_else(unauthenticated);
        }
        let detail = format!("agent {own} mints leases for itself alone; leave agent_id out");
        return Err(ApiError::new(Code::Forbidden, detail));
    }
    let named = named.ok_or_else(|| {
        ApiError::invalid(
            "agent_id",
            "is missing; a person names the agent that the lease is for",
        )
    })?;
    let not_found = || ApiError::not_found("agent", named);
    let id = AgentId::parse(named).map_err(|_| not_found())?;
    let agent = agents.get(caller.org(), &id).await?.ok_or_else(not_found)?;
    if agent.is_live(state.clock.now()) {
        return Ok(agent);
    }
    Err(ApiError::new(
        Code::GrantDenied,
        format!(
            "agent {id} is not active, or its expires_at has passed; PATCH /v1/agents/{id} changes either"
        ),
    ))
}

/// Refuses a set beyond the vaults that the lease's agent is bound to, before any grant is looked at.
async fn check_vault(
    state: &AppState,
    caller: &Caller,
    holder: &Agent,
    set: &SecretSet,
) -> Result<(), ApiError> {
    let bound = holder.settings.vault_ids.as_ref();
    if bound.is_none_or(|bound| bound.contains(&set.vault)) {
        return Ok(());
    }
    let (agent, set) = (&holder.id, Some(&set.id));
    crate::events::mint_denied(state, caller, agent, set, Code::Forbidden).await?;
    Err(beyond_its_vaults(agent.as_str()))
}

async fn find_set(
    state: &AppState,
    caller: &Caller,
    name: &SetName,
) -> Result<SecretSet, ApiError> {
    let sets = state.store.secret_sets();
    let found = match name {
        SetName::Id(id) => match SetId::parse(id) {
            Ok(id) => sets.get(caller.org(), &id).await?,
            Err(_) => None,
        },
        SetName::Path(path) => match *path.split('/').collect::<Vec<_>>() {
            [provider, environment, name] => {
                sets.get_by_name(caller.org(), provider, environment, name)
                    .await?
            }
            _ => {
                return Err(ApiError::invalid(
                    "secret_set",
                    "must be \"provider/environment/name\"",
                ));
            }
        },
    };
    let (SetName::Id(text) | SetName::Path(text)) = name;
    found.ok_or_else(|| ApiError::not_found("secret set", text))
}

pub(crate) fn not_minted(failure: MintFailure) -> ApiError {
    let error = match failure {
        MintFailure::Refused(error) => error,
        MintFailure::Key(error) => return error.into(),
        MintFailure::WrongKey(_) | MintFailure::Malformed => return ApiError::internal(failure),
    };
    let detail = error.to_string();
    match error {
        MintError::AmbiguousHosts { .. } => ApiError::new(Code::AmbiguousHosts, detail),
        MintError::Times => ApiError::new(
            Code::InvalidTtl,
            "the grant ends within this second; ask for a new grant",
        ),
        MintError::DuplicateSet(_)
        | MintError::NoHost(_)
        | MintError::TooLarge { .. }
        | MintError::Name(_)
        | MintError::Scope { .. } => ApiError::invalid("secret_set_ids", detail),
        MintError::NoBinding | MintError::Build(_) => ApiError::internal(error),
    }
}

async fn save(
    state: &AppState,
    caller: &Caller,
    request: &MintRequest,
    minted: &Minted,
    origin: Origin,
) -> Result<(), ApiError> {
    let new = NewLease {
        id: request.lease.clone(),
        agent_id: request.agent.clone(),
        kind: request.kind,
        action: request.action,
        sets: request
            .bindings
            .iter()
            .map(|binding| (binding.set.clone(), binding.grant.clone()))
            .collect(),
        issued_at: request.issued_at,
        expires_at: minted.expires_at,
        revocation_id: minted.revocation_id,
        cut_off: origin.cut_off,
        keys: origin.keys,
        parent: origin.parent,
    };
    let saved = state
        .store
        .leases()
        .create(caller.org(), new, &caller.actor())
        .await;
    saved.map(|_| ()).map_err(ApiError::from)
}

fn answer(request: &MintRequest, minted: &Minted) -> CreatedLease {
    CreatedLease {
        lease_id: request.lease.clone(),
        token: minted.token.as_str().to_owned(),
        kind: request.kind,
        action: request.action,
        agent_id: request.agent.clone(),
        expires_at: minted.expires_at.into(),
        constraints: LeaseConstraints {
            secret_sets: request.bindings.iter().map(BoundSet::from).collect(),
        },
    }
}

pub(super) const NO_GRANT: &str = "it holds no active grant on it";
pub(super) const DEFAULT_TTL: i64 = 60;
const MAX_REQUEST_TTL: i64 = 15 * 60;
const MAX_WORKFLOW_TTL: i64 = 24 * 60 * 60;
const MAX_SETS: usize = 16;
const MAX_CLOCK_BEHIND: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lifetime_within_its_kind_is_taken() {
        assert_eq!(check_ttl(1, Kind::Request).unwrap(), Duration::from_secs(1));
        assert_eq!(
            check_ttl(900, Kind::Request).unwrap(),
            Duration::from_mins(15)
        );
        assert_eq!(
            check_ttl(86_400, Kind::Workflow).unwrap(),
            Duration::from_hours(24)
        );
    }

    #[test]
    fn a_lifetime_outside_is_refused_with_its_bound() {
        for (seconds, kind) in [
            (0, Kind::Request),
            (-1, Kind::Request),
            (901, Kind::Request),
            (i64::MAX, Kind::Workflow),
            (i64::MIN, Kind::Workflow),
            (86_401, Kind::Workflow),
        ] {
            let error = check_ttl(seconds, kind).expect_err("out of bounds");
            assert_eq!(error.code(), Code::InvalidTtl);
            assert!(
                error.detail().contains(&seconds.to_string()),
                "{}",
                error.detail()
            );
        }
    }

    #[test]
    fn sets_are_named_in_any_of_the_three_ways() {
        let one = |text: &str| SetName::Id(text.to_owned());
        let path = |text: &str| SetName::Path(text.to_owned());
        let names = set_names(
            Some("a".to_owned()),
            vec!["b".to_owned(), "a".to_owned()],
            Some(Names::One("p/e/n".to_owned())),
        )
        .unwrap();
        assert_eq!(names, [one("a"), one("b"), path("p/e/n")]);
        assert!(set_names(None, vec![], None).is_err());
        assert!(set_names(None, (0..17).map(|n| n.to_string()).collect(), None).is_err());
    }
}
