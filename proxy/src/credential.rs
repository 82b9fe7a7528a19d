//! Step 7, first half: open the credential of a recorded use and prepare its injection.
//!
//! Only a [`RecordedUse`] opens anything. What was opened is kept for a short time as a prepared plan, by
//! the version that the ledger read in the use's own transaction, so a rotated secret serves the next use.
//! A plan in use is prepared anew before its time is over, so that requests wait for a slow HSM once and no more.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use leases::authorize::Permit;
use leases::id::{OrgId, SetId};
use leases::scope::{Keys, Scope};
use providers::catalog::Catalog;
use providers::exchange::{AwsNarrowing, GithubNarrowing, Narrowing, Recipe};
use providers::inject::Plan;
use providers::load::CustomSpec;
use providers::template::Template;
use store::Store;
use store::ledger::RecordedUse;
use store::secret_sets::{SealedEntry, SetContents};
use tokio::sync::watch;
use tokio::time::Instant;
use vault::{CacheKey, OpenError, OpenedCache, RowBinding, Secret, Vault};

use crate::account;
use crate::exchange::{Exchange, Occasion, Token};
use crate::normalize::{Target, scheme_name};
use crate::refuse::{Code, Refusal};
use crate::tls::client::ClientIdentity;

/// How many prepared plans are kept.
const CAPACITY: usize = 4096;
/// How often expired plans are dropped.
const SWEEP: Duration = Duration::from_secs(1);

/// A prepared injection. Its memory is zeroized when the last request drops it.
#[derive(Debug)]
pub(crate) struct Credential {
    pub(crate) plan: Plan,
    /// By what we authenticate in the TLS handshake, where the template says so.
    client: Option<ClientIdentity>,
    /// The keys that were made for it.
    made: BTreeMap<String, Arc<Token>>,
    /// For how long it may be kept: until the first of them ends.
    usable_for: Duration,
}

impl Credential {
    /// By what we authenticate in the handshake with `host`.
    pub(crate) fn client(&self, host: &str) -> Option<&ClientIdentity> {
        self.client
            .as_ref()
            .filter(|_| self.plan.presents_certificate(host))
    }
}

/// Opens credentials.
pub(crate) struct Opener {
    opened: Arc<OpenedCache<Credential>>,
    preparer: Arc<Preparer>,
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opener").finish_non_exhaustive()
    }
}

impl Opener {
    pub(crate) fn new(
        store: Store,
        vault: Vault,
        catalog: watch::Receiver<Arc<Catalog>>,
        exchange: Exchange,
        ttl: Duration,
    ) -> Self {
        let opened =
            OpenedCache::with_lifetimes(ttl, CAPACITY, |kept: &Credential| kept.usable_for);
        let opened = Arc::new(opened);
        tokio::spawn(opened.sweep_every(SWEEP));
        Self {
            opened,
            preparer: Arc::new(Preparer {
                store,
                vault,
                catalog,
                exchange,
            }),
        }
    }

    /// The prepared credential of a recorded use, which its template must send to `target`.
    pub(crate) async fn open(
        &self,
        used: &RecordedUse,
        permit: &Permit,
        target: &Target,
    ) -> Result<Arc<Credential>, Refusal> {
        let key = cache_key(used, permit);
        let credential = if let Some(found) = self.opened.look(&key) {
            if found.is_due {
                self.renew(key, Wanted::of(used, permit));
            }
            found.value
        } else {
            let wanted = Wanted::of(used, permit);
            let preparing = self.preparer.prepare(&wanted);
            self.opened.get_or_open(key, preparing).await?
        };
        let template = credential.plan.template();
        if template
            .endpoint(target.scheme, target.host.as_str(), target.port)
            .is_none()
        {
            return Err(Refusal::new(
                Code::GrantDenied,
                format!(
                    "the template {} sends no credential to {}://{}:{}",
                    template.name(),
                    scheme_name(target.scheme),
                    target.host,
                    target.port
                ),
            ));
        }
        Ok(credential)
    }

    /// Gives up a credential that the provider answered 401 to. One that was made is made anew for the next use, unless it is
    /// new itself; whether that is so is told.
    pub(crate) fn give_up(
        &self,
        used: &RecordedUse,
        permit: &Permit,
        credential: &Credential,
    ) -> bool {
        let (org, set) = (permit.lease().org(), &permit.binding().set);
        let exchange = &self.preparer.exchange;
        let is_given_up = exchange.give_up(org, set, used.secret_set_version(), &credential.made);
        if is_given_up {
            let turned_down = cache_key(used, permit);
            self.opened.evict_where(|key| *key == turned_down);
        }
        is_given_up
    }

    /// Prepares anew what a use has found ageing, beside it. A failure is logged where it happens, and met by whoever
    /// comes when the kept plan's time is over.
    fn renew(&self, key: CacheKey, wanted: Wanted) {
        let (opened, preparer) = (Arc::clone(&self.opened), Arc::clone(&self.preparer));
        tokio::spawn(async move {
            let _ = opened.renew(key, preparer.prepare(&wanted)).await;
        });
    }
}

/// What of a recorded use and its permit says which secrets to open.
struct Wanted {
    org: OrgId,
    set: SetId,
    version: u64,
    keys: Keys,
    occasion: Occasion,
}

impl Wanted {
    fn of(used: &RecordedUse, permit: &Permit) -> Self {
        let binding = permit.binding();
        Self {
            org: permit.lease().org().clone(),
            set: binding.set.clone(),
            version: used.secret_set_version(),
            keys: binding.keys.clone(),
            occasion: Occasion {
                org: permit.lease().org().clone(),
                set: binding.set.clone(),
                version: used.secret_set_version(),
                agent: permit.lease().agent().clone(),
                lease: permit.lease().lease().clone(),
                grant: binding.grant.clone(),
                used: used.use_id().clone(),
                narrowing: narrowing(&binding.scope),
            },
        }
    }
}

/// Reads, opens and prepares.
struct Preparer {
    store: Store,
    vault: Vault,
    catalog: watch::Receiver<Arc<Catalog>>,
    exchange: Exchange,
}

impl Preparer {
    async fn prepare(&self, wanted: &Wanted) -> Result<Credential, Refusal> {
        let Wanted {
            org,
            set,
            version,
            keys,
            occasion,
        } = wanted;
        let contents = self
            .store
            .secret_sets()
            .contents(org, set, *version)
            .await
            .map_err(|error| {
                tracing::error!(secret_set.id = %set, %error, "a secret set could not be read");
                unavailable("the secret set could not be read; try again")
            })?
            .ok_or_else(|| {
                Refusal::new(
                    Code::GrantDenied,
                    "the secret set of this lease was deleted",
                )
            })?;
        let template = self.template(&contents)?;
        let allowed = |name: &str| match keys {
            Keys::All => true,
            Keys::Only(names) => names.iter().any(|n| n == name),
        };
        check_inputs(&template, &contents, allowed)?;
        check_narrowing(&template, &occasion.narrowing)?;
        // All at once: an HSM that takes its time takes it once.
        let opening = contents
            .entries
            .iter()
            .filter(|entry| allowed(&entry.key))
            .map(async |entry| {
                let secret = self.open_entry(org.as_str(), entry).await?;
                Ok::<_, Refusal>((entry.key.clone(), Arc::new(secret)))
            });
        let secrets: BTreeMap<String, Arc<Secret>> = futures::future::try_join_all(opening)
            .await?
            .into_iter()
            .collect();
        let made = self
            .exchange
            .make_all(&template, occasion, &secrets)
            .await?;
        let values = made
            .iter()
            .map(|(key, token)| (key.clone(), Arc::clone(&token.value)))
            .collect();
        let plan = Plan::prepare_with(&template, allowed, secrets, values)
            .map_err(|error| Refusal::new(Code::GrantDenied, error.to_string()))?;
        let client = client_identity(&plan, wanted)?;
        let ends = made.values().map(|token| token.ends_at()).min();
        let usable_for = ends.map_or(Duration::MAX, |end| {
            end.saturating_duration_since(Instant::now())
        });
        Ok(Credential {
            plan,
            client,
            made,
            usable_for,
        })
    }

    async fn open_entry(&self, org: &str, entry: &SealedEntry) -> Result<Secret, Refusal> {
        let row = RowBinding {
            org,
            vault: entry.vault.as_str(),
            path: &entry.path,
            version: entry.version,
        };
        self.vault.open(&entry.sealed, &row).await.map_err(|error| {
            tracing::error!(secret.path = %entry.path, secret.version = entry.version, %error, "a secret did not open");
            match error {
                OpenError::Tampered => unavailable("the stored credential is damaged or not the one recorded; an operator must restore it"),
                OpenError::UnknownVersion { .. } | OpenError::UnknownKek { .. } => {
                    unavailable("the stored credential is sealed under a key that is not here; an operator must restore it")
                }
                OpenError::Key(_) => unavailable("the key provider did not open the credential; try again, and see /v1/health"),
            }
        })
    }

    fn template(&self, contents: &SetContents) -> Result<Arc<Template>, Refusal> {
        let damaged = |why: String| {
            tracing::error!(provider.name = %contents.provider, why, "a secret set has no usable template");
            Refusal::new(
                Code::GrantDenied,
                format!("the template of this secret set cannot be used: {why}"),
            )
        };
        let Some(custom) = &contents.custom else {
            return self
                .catalog
                .borrow()
                .get(&contents.provider)
                .ok_or_else(|| damaged(format!("there is no template {}", contents.provider)));
        };
        let spec: CustomSpec =
            serde_json::from_value(custom.clone()).map_err(|error| damaged(error.to_string()))?;
        let keys = contents.entries.iter().map(|entry| entry.key.as_str());
        let template = spec
            .to_template(&contents.name, keys)
            .map_err(|errors| damaged(errors.to_string()))?;
        Ok(Arc::new(template))
    }
}

/// Refuses a grant that leaves out a part of what a key is made of. Such a part may narrow the key, as a scope or a list of
/// repositories does, and without it there would be a broader one.
fn check_inputs(
    template: &Template,
    contents: &SetContents,
    allowed: impl Fn(&str) -> bool,
) -> Result<(), Refusal> {
    let has = |key: &str| contents.entries.iter().any(|entry| entry.key == key);
    for recipe in template.recipes() {
        let mut inputs = recipe.inputs().into_iter();
        if let Some(key) = inputs.find(|key| has(key) && !allowed(key)) {
            return Err(Refusal::new(
                Code::GrantDenied,
                format!(
                    "the grant does not allow `{key}`, of which `{}` is made; ask for a grant that includes it",
                    recipe.key()
                ),
            ));
        }
    }
    Ok(())
}

/// Refuses a grant whose limits nothing would hold: a stored token of GitHub can do what it can.
fn check_narrowing(template: &Template, narrowing: &Narrowing) -> Result<(), Refusal> {
    let makes_tokens = template.recipes().iter().any(Recipe::is_of_github);
    if makes_tokens || narrowing.github == GithubNarrowing::default() {
        return Ok(());
    }
    Err(Refusal::new(
        Code::GrantDenied,
        format!(
            "the grant narrows tokens of a GitHub App, and {} makes none; ask for a grant on a set of github-app",
            template.name()
        ),
    ))
}

/// The set's client certificate, if its template has one.
fn client_identity(plan: &Plan, wanted: &Wanted) -> Result<Option<ClientIdentity>, Refusal> {
    let group = account::set_group(&wanted.org, &wanted.set, wanted.version);
    plan.client_certificate()
        .map(|stored| ClientIdentity::read(stored, group))
        .transpose()
        .map_err(|error| Refusal::new(Code::GrantDenied, error.to_string()))
}

fn cache_key(used: &RecordedUse, permit: &Permit) -> CacheKey {
    let binding = permit.binding();
    CacheKey {
        org: permit.lease().org().to_shared(),
        owner: binding.set.to_shared(),
        version: used.secret_set_version(),
        extra: extra(&binding.keys, &binding.scope),
    }
}

fn extra(keys: &Keys, scope: &Scope) -> Arc<str> {
    // What a grant narrows of a made key makes it another one.
    let is_narrowed = !scope.aws.is_default() || !scope.github.is_default();
    let narrowed = is_narrowed.then(|| narrowing(scope));
    match (keys, narrowed) {
        (Keys::All, None) => ALL.with(Arc::clone),
        (Keys::Only(names), None) => names.join("\n").into(),
        (keys, Some(narrowed)) => format!("{keys}\n\n{narrowed:?}").into(),
    }
}

/// What of a grant's limits a made key can carry itself.
fn narrowing(scope: &Scope) -> Narrowing {
    Narrowing {
        aws: AwsNarrowing {
            services: scope.aws.services.clone(),
            actions: scope.aws.actions.clone(),
            buckets: scope.aws.buckets.clone(),
        },
        github: GithubNarrowing {
            repositories: scope.github.repositories.clone(),
            permissions: scope
                .github
                .permissions
                .iter()
                .map(|(name, level)| (name.clone(), level.as_str().to_owned()))
                .collect(),
        },
    }
}

thread_local! {
    /// Shared, so that the common key costs no allocation.
    static ALL: Arc<str> = Arc::from("*");
}

fn unavailable(detail: &'static str) -> Refusal {
    Refusal {
        retry_after: Some(Duration::from_secs(2)),
        ..Refusal::new(Code::KeyUnavailable, detail)
    }
}
