//! `GET /v1/explain`: which secret set, grant and template would decide on a request, and what they would say.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use leases::authorize::{AccessRequest, authorize};
use leases::id::{AgentId, GrantId, LeaseId, OrgId, SetId};
use leases::mint::{Binding, MintRequest, mint};
use leases::root_key::{RootKeyPair, RootPublicKeys};
use leases::scope::{Action, HostPattern, Keys, Kind, PathGlob};
use leases::verify::verify;
use providers::Template;
use providers::method;
use providers::path::ENCODED_SLASH;
use serde::{Deserialize, Serialize};
use store::{Agent, Grant, PageRequest, SecretSet};
use time::{Duration, OffsetDateTime};
use utoipa::{IntoParams, ToSchema};

use crate::AppState;
use crate::auth::Person;
use crate::error::ApiError;
use crate::extract::Params;
use crate::problem::Problem;
use crate::routes::leases::choice::Wanted;
use crate::templates;

/// The request to be explained.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExplainQuery {
    /// `https://api.stripe.com/v1/charges`
    url: String,
    /// Default `GET`.
    #[param(required = false)]
    method: Option<String>,
    /// An agent's id or name; all agents when left out.
    #[param(required = false)]
    agent: Option<String>,
    /// Where the request would come from; the caller's own address when left out.
    #[param(required = false, value_type = Option<String>)]
    client_ip: Option<IpAddr>,
}

/// What would happen.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Explanation {
    /// `allow` if a candidate allows it from which leases are minted when no grant is named, else `deny`.
    decision: &'static str,
    reason: String,
    method: String,
    scheme: &'static str,
    host: String,
    port: u16,
    path: String,
    /// The templates that send credentials to this host.
    templates: Vec<String>,
    /// The active grants whose sets serve this host, with what each would say.
    candidates: Vec<Candidate>,
}

/// A grant that concerns the host.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Candidate {
    #[schema(value_type = String)]
    agent_id: AgentId,
    #[schema(value_type = String)]
    grant_id: GrantId,
    #[schema(value_type = String)]
    secret_set_id: SetId,
    /// `provider/environment/name`
    secret_set: String,
    provider: String,
    decision: &'static str,
    reason: String,
    /// The kinds of lease that are minted from this grant when none is named; of the others it has to be named.
    #[schema(value_type = Vec<String>)]
    minted_unnamed: Vec<Kind>,
}

/// Explains what the injector would decide. It opens nothing and shows no value.
#[utoipa::path(get, path = "/v1/explain", tag = "system", operation_id = "explain", params(ExplainQuery), responses((status = 200, body = Explanation), (status = 404, body = Problem)))]
pub(crate) async fn handle(
    State(state): State<AppState>,
    person: Person,
    Params(query): Params<ExplainQuery>,
) -> Result<Json<Explanation>, ApiError> {
    let target = Target::check(&query, person.actor.client_ip)?;
    let agent = match &query.agent {
        Some(name) => Some(find_agent(&state, &person.org, name).await?),
        None => None,
    };
    let now = state.clock.now();
    let mut candidates = Vec::new();
    let grants = active_grants(&state, &person.org, agent.as_ref(), now).await?;
    for grant in &grants {
        if let Some(set) = state
            .store
            .secret_sets()
            .get(&person.org, &grant.secret_set_id)
            .await?
        {
            candidates.extend(target.weigh(&state, &grants, grant, set, now));
        }
    }
    Ok(Json(target.explain(&state, candidates)))
}

/// A request as the injector would see it.
struct Target {
    method: String,
    scheme: providers::Scheme,
    host: String,
    port: u16,
    path: String,
    /// Whether the path holds `%2F`; or why the injector refuses the request whatever a lease says.
    checked: Result<bool, String>,
    client_ip: IpAddr,
    /// A root key of this question alone: the key that mints may be a slow HSM's.
    root: RootKeyPair,
}

impl Target {
    fn check(query: &ExplainQuery, caller: Option<IpAddr>) -> Result<Self, ApiError> {
        let invalid = |problem: &str| ApiError::invalid("url", problem);
        // Read as the injector reads a request's target: no library's parser, which would repair what it refuses.
        let url = query.url.split('#').next().unwrap_or_default();
        let (scheme, rest) = url
            .split_once("://")
            .ok_or_else(|| invalid("is no URL; write it like https://api.example.com/v1/things"))?;
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "https" => providers::Scheme::Https,
            "http" => providers::Scheme::Http,
            _ => return Err(invalid("must begin with https:// or http://")),
        };
        let (authority, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let (path, asked) = match target.split_once('?') {
            Some((path, asked)) => (path, Some(asked)),
            None => (target, None),
        };
        let path = if path.is_empty() { "/" } else { path };
        let authority = providers::Authority::parse(authority)
            .map_err(|error| ApiError::invalid("url", error))?;
        let method = query.method.clone().unwrap_or_else(|| "GET".to_owned());
        let checked = check_request(&method, &authority, path, asked);
        Ok(Self {
            method,
            scheme,
            host: authority.host.as_str().to_owned(),
            port: authority.port.unwrap_or(scheme.default_port()),
            path: path.to_owned(),
            checked,
            client_ip: query
                .client_ip
                .or(caller)
                .unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            root: RootKeyPair::generate(1),
        })
    }

    /// What one grant would say; nothing if its set does not serve the host.
    fn weigh(
        &self,
        state: &AppState,
        grants: &[Grant],
        grant: &Grant,
        set: SecretSet,
        now: OffsetDateTime,
    ) -> Option<Candidate> {
        let template = templates::of_set(state, &set).ok()?;
        let is_cleartext = self.lacks_tls(&template);
        if !is_cleartext {
            template.endpoint(self.scheme, &self.host, self.port)?;
        }
        let hosts = templates::hosts(&template);
        let minted_unnamed = self.kinds_of(grants, grant, (&set, &hosts), now);
        let verdict = if is_cleartext {
            Err(CLEARTEXT.to_owned())
        } else if let Err(odd) = self.check_target(&template) {
            Err(odd)
        } else if grant.allowed_actions.contains(&Action::ProxyUse) {
            self.rehearse(grant, &set, hosts, now)
                .and_then(|()| self.check_denials(&template, grant))
        } else {
            Err(format!(
                "the grant lacks the action {}; ask for one that holds it",
                Action::ProxyUse
            ))
        };
        let covers = if grant.constraints.approval.is_some() {
            "a lease from this grant covers it, once a person has approved the very request, if its method asks for that"
        } else if grant.constraints.aws.is_default() {
            "a lease from this grant covers it"
        } else {
            "a lease from this grant covers it, as far as its limits on AWS do, which its signature and body decide"
        };
        Some(Candidate {
            agent_id: grant.agent_id.clone(),
            grant_id: grant.id.clone(),
            secret_set_id: set.id,
            secret_set: format!("{}/{}/{}", set.provider, set.environment, set.name),
            provider: set.provider,
            decision: if verdict.is_ok() { "allow" } else { "deny" },
            reason: verdict.err().unwrap_or_else(|| covers.to_owned()),
            minted_unnamed,
        })
    }

    /// Whether it asks by cleartext for a host to which the template sends over TLS alone.
    fn lacks_tls(&self, template: &Template) -> bool {
        let mut rules = template.hosts().iter();
        self.scheme == providers::Scheme::Http
            && template
                .endpoint(self.scheme, &self.host, self.port)
                .is_none()
            && rules.any(|rule| {
                rule.scheme() == providers::Scheme::Https && rule.matches_name(&self.host)
            })
    }

    /// As the injector refuses targets that servers read in two ways.
    fn check_target(&self, template: &Template) -> Result<(), String> {
        match &self.checked {
            Ok(true) if !template.allows_encoded_slash() => Err(ambiguous(ENCODED_SLASH)),
            Ok(_) => Ok(()),
            Err(odd) => Err(odd.clone()),
        }
    }

    /// The kinds of lease for which a mint that names no grant takes this one.
    fn kinds_of(
        &self,
        grants: &[Grant],
        grant: &Grant,
        (set, hosts): (&SecretSet, &[HostPattern]),
        now: OffsetDateTime,
    ) -> Vec<Kind> {
        let wanted = Wanted {
            set,
            hosts,
            keys: &Keys::All,
            client: Some(self.client_ip),
            now,
            until: now + LEASE,
        };
        let rivals = |needed: &[Action]| -> Vec<Grant> {
            let held = grants.iter().filter(|other| {
                other.secret_set_id == set.id
                    && other.agent_id == grant.agent_id
                    && needed.iter().all(|it| other.allowed_actions.contains(it))
            });
            held.cloned().collect()
        };
        let kinds = [
            (Kind::Request, &[Action::ProxyUse][..]),
            (
                Kind::Workflow,
                &[Action::ProxyUse, Action::MintWorkflowLease],
            ),
        ];
        let is_taken = |needed: &[Action]| {
            let chosen = wanted.choose(rivals(needed));
            chosen.is_some_and(|chosen| chosen.id == grant.id)
        };
        let taken = kinds.into_iter().filter(|(_, needed)| is_taken(needed));
        taken.map(|(kind, _)| kind).collect()
    }

    /// Mints a lease that nobody gets and no ledger knows, and asks the injector's own decision: so the two never differ.
    fn rehearse(
        &self,
        grant: &Grant,
        set: &SecretSet,
        hosts: Vec<HostPattern>,
        now: OffsetDateTime,
    ) -> Result<(), String> {
        let binding = Binding {
            set: set.id.clone(),
            grant: grant.id.clone(),
            provider: set.provider.clone(),
            hosts,
            keys: grant.allowed_keys.clone(),
            scope: grant.constraints.clone(),
        };
        let request = MintRequest {
            org: grant.org.clone(),
            agent: grant.agent_id.clone(),
            lease: LeaseId::new(now),
            kind: Kind::Request,
            action: Action::ProxyUse,
            bindings: vec![binding],
            issued_at: now,
            expires_at: now + LEASE,
        };
        let minted = mint(&self.root, &request).map_err(|error| error.to_string())?;
        let lease = verify(
            &minted.token.present(),
            &RootPublicKeys::new(vec![self.root.public()]),
        )
        .map_err(|error| error.to_string())?;
        let scheme = match self.scheme {
            providers::Scheme::Https => leases::scope::Scheme::Https,
            providers::Scheme::Http => leases::scope::Scheme::Http,
        };
        let access = AccessRequest {
            action: Action::ProxyUse,
            scheme,
            host: &self.host,
            port: self.port,
            method: &self.method,
            path: &self.path,
            client_ip: self.client_ip,
        };
        authorize(&Arc::new(lease), &access, now)
            .map(|_| ())
            .map_err(|denial| denial.to_string())
    }

    /// As the injector refuses endpoints that hand out new credentials, and methods that paths alone do not name.
    fn check_denials(&self, template: &Template, grant: &Grant) -> Result<(), String> {
        let scope = &grant.constraints;
        let named = || {
            let paths = scope.paths.iter();
            paths
                .filter(|glob| glob.matches(&self.path))
                .map(PathGlob::as_str)
        };
        let is_listed = scope.paths.is_empty() || scope.methods.contains(&self.method);
        let unlisted = || template.denied_unlisted(&self.host, &self.method, &self.path);
        let denied = template.denied(&self.host, &self.method, &self.path, named);
        let denied = denied.or_else(|| if is_listed { None } else { unlisted() });
        denied.map_or(Ok(()), |denied| Err(denied.to_string()))
    }

    fn explain(self, state: &AppState, candidates: Vec<Candidate>) -> Explanation {
        let catalog = state.catalog();
        let mut serving = catalog.for_host(&self.host, self.port);
        // What no grant would change.
        let mut refused = self.checked.err();
        if serving.is_empty() && self.scheme == providers::Scheme::Http {
            serving = catalog.for_host(&self.host, providers::Scheme::Https.default_port());
            refused = refused.or_else(|| serving.first().map(|_| CLEARTEXT.to_owned()));
        }
        let templates: Vec<String> = serving
            .iter()
            .map(|template| template.name().to_owned())
            .collect();
        let allowing = || candidates.iter().filter(|it| it.decision == "allow");
        let allowed = allowing().any(|candidate| !candidate.minted_unnamed.is_empty());
        let reason = match (allowed, allowing().next(), candidates.first()) {
            (true, _, _) => "a lease from one of these grants covers the request".to_owned(),
            (false, Some(named), _) => format!(
                "the grant {} covers the request, but leases are minted from another one that the agent holds on the set; name it (`--grant {0}`, grant_ids)",
                named.grant_id
            ),
            (false, None, Some(first)) => first.reason.clone(),
            (false, None, None) if refused.is_some() => refused.unwrap_or_default(),
            (false, None, None) => format!(
                "no active grant serves {}:{}; store a secret set of {} and grant it",
                self.host,
                self.port,
                templates
                    .first()
                    .map_or("provider `custom`", String::as_str)
            ),
        };
        Explanation {
            decision: if allowed { "allow" } else { "deny" },
            reason,
            method: self.method,
            scheme: self.scheme.as_str(),
            host: self.host,
            port: self.port,
            path: self.path,
            templates,
            candidates,
        }
    }
}

/// As the injector reads a request before it asks the lease, and the query after that.
fn check_request(
    method: &str,
    authority: &providers::Authority,
    path: &str,
    query: Option<&str>,
) -> Result<bool, String> {
    method::check(method).map_err(|other| format!("method_not_allowed: {other}"))?;
    providers::path::check_query(query.unwrap_or_default()).map_err(ambiguous)?;
    let has_encoded_slash = providers::path::check(path, authority.host.as_str());
    let has_encoded_slash = has_encoded_slash.map_err(ambiguous)?;
    method::check_query(query, method).map_err(|other| format!("ambiguous_request: {other}"))?;
    Ok(has_encoded_slash)
}

fn ambiguous(odd: impl std::fmt::Display) -> String {
    format!("ambiguous_request: {odd}; send a path that has one reading")
}

async fn find_agent(state: &AppState, org: &OrgId, name: &str) -> Result<AgentId, ApiError> {
    let agents = state.store.agents();
    let found: Option<Agent> = match AgentId::parse(name) {
        Ok(id) => agents.get(org, &id).await?,
        Err(_) => agents.get_by_name(org, name).await?,
    };
    found
        .map(|agent| agent.id)
        .ok_or_else(|| ApiError::not_found("agent", name))
}

async fn active_grants(
    state: &AppState,
    org: &OrgId,
    agent: Option<&AgentId>,
    now: OffsetDateTime,
) -> Result<Vec<Grant>, ApiError> {
    let mut active = Vec::new();
    let mut page = PageRequest {
        limit: 200,
        cursor: None,
    };
    loop {
        let found = state.store.grants().list(org, &page).await?;
        active.extend(found.items.into_iter().filter(|grant| {
            let live = grant.revoked_at.is_none() && grant.expires_at.is_none_or(|end| end > now);
            live && agent.is_none_or(|agent| *agent == grant.agent_id)
        }));
        match found.next_cursor {
            Some(cursor) if active.len() < MAX_CANDIDATES => page.cursor = Some(cursor),
            _ => return Ok(active),
        }
    }
}

const CLEARTEXT: &str =
    "plaintext_denied: credentials go to this host over TLS alone; write https://";
const MAX_CANDIDATES: usize = 1000;
/// How long a rehearsed lease lives: as one does of which nothing is said.
const LEASE: Duration = Duration::MINUTE;
