//! Keys that are made, not stored: asks token endpoints for them, and keeps them while they last.
//!
//! A token is asked for once and shared by all uses of its set's version; what is asked for meanwhile waits for the same
//! answer. Each asking is recorded before anything is sent. An asking once begun goes on when the use that began it is
//! cancelled, so that no answer is lost.

mod ask;
mod backoff;
mod rotate;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use leases::clock::Clock;
use leases::id::{AgentId, GrantId, LeaseId, OrgId, SetId, UseId};
use parking_lot::Mutex;
use providers::exchange::{MadeKey, Narrowing, Recipe, Step, TokenRequest};
use providers::template::Template;
use sha2::{Digest as _, Sha256};
use store::{Actor, Decision, NewEvent, Store};
use tokio::time::Instant;
use vault::{CacheKey, OpenedCache, Secret, Vault};

use crate::refuse::{Code, Refusal};
pub(crate) use ask::Endpoints;
use backoff::Backoff;

/// The longest that a token is kept, whatever its maker grants.
const LONGEST_KEPT: Duration = Duration::from_hours(24);
/// How many tokens are kept.
const CAPACITY: usize = 4096;
/// How often expired tokens are dropped.
const SWEEP: Duration = Duration::from_secs(1);
/// How old a token is at least that is given up because the provider turned it down: a provider that turns down all of
/// them must not make us ask for each request.
const LEAST_AGE: Duration = Duration::from_secs(5);
/// How many stored tokens are remembered that providers turned down.
const TURNED_DOWN: usize = 256;

/// A made key. Its memory is zeroized when the last plan drops it.
#[derive(Debug)]
pub(crate) struct Token {
    pub(crate) value: Arc<Secret>,
    made_at: Instant,
    lifetime: Duration,
}

impl Token {
    /// Until when it may be used.
    pub(crate) fn ends_at(&self) -> Instant {
        self.made_at + self.lifetime
    }
}

/// For which set, and on whose behalf.
#[derive(Debug, Clone)]
pub(crate) struct Occasion {
    pub(crate) org: OrgId,
    pub(crate) set: SetId,
    pub(crate) version: u64,
    pub(crate) agent: AgentId,
    pub(crate) lease: LeaseId,
    pub(crate) grant: GrantId,
    pub(crate) used: UseId,
    /// What the grant narrows the keys to.
    pub(crate) narrowing: Narrowing,
}

/// Makes keys.
pub(crate) struct Exchange {
    kept: Arc<OpenedCache<Token>>,
    desk: Arc<Desk>,
}

/// What a making works with.
struct Desk {
    store: Store,
    vault: Vault,
    clock: Arc<dyn Clock>,
    endpoints: Endpoints,
    /// SHA-256 of tokens that a provider turned down, the latest at the end.
    turned_down: Mutex<VecDeque<[u8; 32]>>,
    backoff: Backoff,
}

/// One making.
struct Job {
    occasion: Occasion,
    recipe: Recipe,
    secrets: BTreeMap<String, Arc<Secret>>,
}

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchange").finish_non_exhaustive()
    }
}

impl Exchange {
    pub(crate) fn new(
        store: Store,
        vault: Vault,
        clock: Arc<dyn Clock>,
        endpoints: Endpoints,
    ) -> Self {
        let kept =
            OpenedCache::with_lifetimes(LONGEST_KEPT, CAPACITY, |token: &Token| token.lifetime);
        let kept = Arc::new(kept);
        tokio::spawn(kept.sweep_every(SWEEP));
        Self {
            kept,
            desk: Arc::new(Desk {
                store,
                vault,
                clock,
                endpoints,
                turned_down: Mutex::default(),
                backoff: Backoff::new(),
            }),
        }
    }

    /// Every key that the template makes of these secrets, by its name. A key that takes one which is not there is left out.
    pub(crate) async fn make_all(
        &self,
        template: &Template,
        occasion: &Occasion,
        secrets: &BTreeMap<String, Arc<Secret>>,
    ) -> Result<BTreeMap<String, Arc<Token>>, Refusal> {
        let mut made = BTreeMap::new();
        for recipe in template.recipes() {
            if recipe.lacks(secrets).is_some() {
                continue;
            }
            let job = Job {
                occasion: occasion.clone(),
                recipe: recipe.clone(),
                secrets: secrets.clone(),
            };
            made.insert(recipe.key().to_owned(), self.token(job).await?);
        }
        Ok(made)
    }

    /// The kept token, or a new one, unless its endpoint has failed a moment ago.
    async fn token(&self, job: Job) -> Result<Arc<Token>, Refusal> {
        let key = job.cache_key();
        let Some(found) = self.kept.look(&key) else {
            if let Some(refusal) = self.desk.backoff.standing(&key) {
                return Err(refusal);
            }
            let (kept, desk) = (Arc::clone(&self.kept), Arc::clone(&self.desk));
            let making =
                tokio::spawn(async move { kept.get_or_open(key, Box::pin(desk.make(&job))).await });
            return making
                .await
                .map_err(|_| unavailable("the making of a token broke off"))?;
        };
        if found.is_due && self.desk.backoff.standing(&key).is_none() {
            let (kept, desk) = (Arc::clone(&self.kept), Arc::clone(&self.desk));
            // A failure is logged where it happens, and met by whoever comes when the kept token's time is over.
            tokio::spawn(async move {
                let _ = kept.renew(key, Box::pin(desk.make(&job))).await;
            });
        }
        Ok(found.value)
    }

    /// Gives up the tokens of a set's version that the provider turned down, if they are not new. Says whether there was one.
    pub(crate) fn give_up(
        &self,
        org: &OrgId,
        set: &SetId,
        version: u64,
        made: &BTreeMap<String, Arc<Token>>,
    ) -> bool {
        let is_old = |token: &Arc<Token>| token.made_at.elapsed() >= LEAST_AGE;
        if !made.values().any(is_old) {
            return false;
        }
        for token in made.values().filter(|token| is_old(token)) {
            self.desk.turn_down(&token.value);
        }
        let (org, set) = (org.to_shared(), set.to_shared());
        self.kept
            .evict_where(|key| key.org == org && key.owner == set && key.version == version);
        true
    }
}

impl Job {
    fn cache_key(&self) -> CacheKey {
        let narrowed = self.recipe.narrowed_by(&self.occasion.narrowing);
        CacheKey {
            org: self.occasion.org.to_shared(),
            owner: self.occasion.set.to_shared(),
            version: self.occasion.version,
            extra: format!("{}\n{narrowed}", self.recipe.key()).into(),
        }
    }

    /// The event of this making. It names the keys and where they go.
    fn event(&self, request: Option<&TokenRequest>) -> NewEvent {
        let inputs = self.recipe.inputs().into_iter();
        let mut keys: Vec<String> = inputs
            .filter(|key| self.secrets.contains_key(*key))
            .map(str::to_owned)
            .collect();
        keys.push(self.recipe.key().to_owned());
        let occasion = &self.occasion;
        NewEvent {
            action: "credential.make",
            agent_id: Some(occasion.agent.clone()),
            lease_id: Some(occasion.lease.clone()),
            grant_id: Some(occasion.grant.clone()),
            secret_set_id: Some(occasion.set.clone()),
            secret_version: Some(occasion.version),
            use_id: Some(occasion.used.clone()),
            keys,
            method: request.map(|_| "POST".to_owned()),
            scheme: request.map(|_| "https"),
            host: request.map(|request| request.host.to_string()),
            port: request.map(|request| request.port),
            path: request.map(|request| {
                let path = request.path.split('?').next();
                path.unwrap_or_default().to_owned()
            }),
            ..NewEvent::default()
        }
    }
}

impl Desk {
    /// Makes a key.
    async fn make(&self, job: &Job) -> Result<Token, Refusal> {
        if let Some(entry) = job.recipe.rotates() {
            return self.make_by_refresh(job, entry).await;
        }
        let made_at = Instant::now();
        let made = self.make_now(job).await?;
        Ok(Token {
            value: Arc::new(made.value),
            made_at,
            lifetime: made.lifetime,
        })
    }

    /// Makes a key of what is at hand: recorded, asked for, read.
    async fn make_now(&self, job: &Job) -> Result<MadeKey, Refusal> {
        let step = job
            .recipe
            .begin(&job.secrets, &job.occasion.narrowing, self.clock.now())
            .map_err(|error| Refusal::new(Code::GrantDenied, error.to_string()))?;
        match step {
            Some(Step::Made(made)) => {
                self.record(job, job.event(None)).await?;
                Ok(made)
            }
            Some(Step::Ask(request)) => {
                self.record(job, job.event(Some(&request))).await?;
                self.ask(job, &request).await
            }
            None => Err(lacking(job)),
        }
    }

    /// Notes that a token is not to be taken from the store again.
    fn turn_down(&self, token: &Secret) {
        let mut turned_down = self.turned_down.lock();
        turned_down.push_back(Sha256::digest(token.expose()).into());
        if turned_down.len() > TURNED_DOWN {
            turned_down.pop_front();
        }
    }

    fn was_turned_down(&self, token: &str) -> bool {
        let digest: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        self.turned_down.lock().contains(&digest)
    }

    /// Asks the token endpoint. A failure is recorded, too, and remembered.
    async fn ask(&self, job: &Job, request: &TokenRequest) -> Result<MadeKey, Refusal> {
        let (made, told) = match self.endpoints.ask(&job.occasion.org, request).await {
            Ok(answer) => {
                let now = self.clock.now();
                let made = job.recipe.read(answer.status, &answer.body, now);
                let told = answer.retry_after.and_then(|told| told.from(now));
                (made.map_err(|error| unusable(&request.host, error)), told)
            }
            Err(refusal) => (Err(refusal), None),
        };
        let key = job.cache_key();
        let refusal = match made {
            Ok(made) => {
                self.backoff.forget(&key);
                return Ok(made);
            }
            Err(refusal) => refusal,
        };
        tracing::warn!(
            secret_set.id = %job.occasion.set,
            server.address = %request.host,
            reason = %refusal.detail,
            "a token could not be made"
        );
        let event = NewEvent {
            decision: Decision::Deny,
            error: Some(refusal.code.as_str().to_owned()),
            ..job.event(Some(request))
        };
        // What the address policy refuses was asked of nobody.
        let refusal = if refusal.code == Code::KeyUnavailable {
            self.backoff.note(key, refusal, told)
        } else {
            refusal
        };
        self.record(job, event).await?;
        Err(refusal)
    }

    async fn record(&self, job: &Job, event: NewEvent) -> Result<(), Refusal> {
        let actor = Actor::system("injector");
        let org = &job.occasion.org;
        let recorded = self.store.audit().append(org, event, &actor).await;
        recorded.map(|_| ()).map_err(|error| {
            tracing::error!(secret_set.id = %job.occasion.set, %error, "the making of a token could not be recorded");
            Refusal {
                retry_after: Some(Duration::from_secs(2)),
                ..Refusal::new(
                    Code::LedgerUnavailable,
                    "the making of a token could not be recorded, so none was asked for; try again, and see /v1/health",
                )
            }
        })
    }
}

fn lacking(job: &Job) -> Refusal {
    let key = job.recipe.lacks(&job.secrets).unwrap_or("a key");
    Refusal::new(
        Code::GrantDenied,
        format!(
            "the set has no `{key}`, of which `{}` is made; add it with `claviger set put`",
            job.recipe.key()
        ),
    )
}

/// What a token endpoint answered is no token. Nothing was sent to the provider, so this is the credential's failure and not
/// the provider's: it may be tried again without a check.
fn unusable(host: &providers::Host, error: providers::exchange::AnswerError) -> Refusal {
    let next = if error.is_denied() {
        "an operator must check the stored credential and store it again"
    } else {
        "try again"
    };
    unavailable(format!(
        "the token endpoint {host} gave no token: {error}; nothing was sent to the provider, and {next}"
    ))
}

fn unavailable(detail: impl Into<std::borrow::Cow<'static, str>>) -> Refusal {
    Refusal {
        retry_after: Some(Duration::from_secs(2)),
        ..Refusal::new(Code::KeyUnavailable, detail)
    }
}
