#![doc = include_str!("../README.md")]

mod agent_keys;
mod api_key;
mod auth;
mod bootstrap;
mod ca;
mod checkpoints;
mod context;
mod deliver;
pub mod dotenv;
mod ed25519;
mod entries;
mod error;
mod events;
mod extract;
mod follow;
mod forward;
mod held_lease;
mod idempotency;
mod injector;
mod json;
mod jwt;
mod kept_answer;
mod key_health;
pub mod keys;
mod meter;
mod metrics;
mod middleware;
mod oidc;
pub mod openapi;
mod operator_templates;
mod outbound;
mod pace;
mod people;
mod plaintext;
pub mod problem;
mod proof;
mod rotation;
mod router;
mod routes;
mod sender;
mod server;
mod signed_request;
mod templates;
mod text;
mod timestamp;
mod tls;
mod turn;
mod vault_access;

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use leases::clock::Clock;
use leases::id::OrgId;
use parking_lot::Mutex;
use providers::{Catalog, Template};
use store::Store;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinSet;
use vault::Vault;

pub use api_key::{ApiKey, KeyHolder};
pub use bootstrap::{
    BootstrapError, Bootstrapped, InjectorKeys, InjectorKeysError, Start, bootstrap, injector_keys,
    reissue_admin_key, wait_for_keys,
};
pub use ca::{CA_OVERLAP, CaError, CaKey, MakeCa, NewCa, ensure as ensure_ca, trust_pem};
pub use checkpoints::{Bucket, CheckpointOptions, CheckpointTarget, publish_checkpoints};
pub use deliver::{CollectorOptions, DeliveryOptions};
pub use error::{ApiError, ErrorKind};
pub use follow::FollowError;
pub use forward::{InjectorUrl, InvalidInjectorUrl};
pub use injector::Inject;
pub use jwt::{JwtKeys, JwtVerifier};
pub use keys::{KeyChest, KeyChestError, KeyRing, NewKey, OpenedKey, Signers, VerifyingRing};
pub use metrics::Metrics;
pub use oidc::{InvalidIssuer, InvalidRedirect, Issuer, OidcOptions, OidcSignUp, RedirectUrl};
pub use operator_templates::{OperatorTemplatesError, load_templates};
pub use outbound::{OutboundOptions, OutboundProxy};
pub use people::{PeopleOptions, SignUp, canonical_email};
pub use rotation::RotationOptions;
pub use routes::providers::provider_view;
pub use sender::{NotACertificate, TlsPeer};
pub use server::serve;
pub use tls::{ApiTls, ApiTlsError};

/// The REST API as a router, ready to be served.
///
/// [`serve`] serves it within bounds. Any other server must put `ConnectInfo<SocketAddr>` into each request, so that events and
/// limits know the peer.
pub fn app(state: AppState) -> Router {
    router::build(state)
}

/// The API of an injector: health, metrics, its certificate, and the calls that open what a control plane may not.
pub fn injector_api(state: AppState) -> Router {
    router::build_injector(state)
}

/// What every handler works with. Clones share it.
pub type AppState = Arc<ControlPlane>;

/// What the control plane is put together from.
#[derive(Debug)]
pub struct Parts {
    /// Where everything lies.
    pub store: Store,
    /// Seals and opens.
    pub vault: Vault,
    /// The provider templates at hand; an injector in this process subscribes to the same sender.
    pub catalog: watch::Sender<Arc<Catalog>>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The lease root keys; an injector in this process subscribes to the same ring.
    pub keys: Arc<KeyRing>,
    /// The keys of agents' tokens.
    pub jwt: JwtKeys,
    /// The keys of the service, as [`bootstrap`] gave them.
    pub chest: KeyChest,
    /// Makes the next certificate authority; without it none is rotated here.
    pub ca: Option<Arc<dyn MakeCa>>,
    /// The certificates that agents trust ([`trust_pem`]). Empty where there is no injector, or where they cannot be opened:
    /// then an injector of `injectors` is asked.
    pub ca_pem: Arc<str>,
    /// The APIs of injectors ([`injector_api`]): where this plane may not unwrap, they answer what must be opened.
    pub injectors: Vec<InjectorUrl>,
    /// Whom this plane may ask outside, and by which way.
    pub outbound: OutboundOptions,
    /// How the trail is told to others.
    pub delivery: DeliveryOptions,
    /// The way into the injector of this process, if it has one. Without it, requests to providers go to `injectors`.
    pub inject: Option<Arc<dyn Inject>>,
    /// How KEKs are rotated.
    pub rotation: RotationOptions,
    /// How people sign in.
    pub people: PeopleOptions,
    /// Metrics, in the registry that an injector in this process shares.
    pub metrics: Metrics,
    /// Bounds.
    pub limits: Limits,
}

/// What the API of an injector is put together from. None of it mints.
#[derive(Debug)]
pub struct InjectorParts {
    /// Where everything lies.
    pub store: Store,
    /// Opens.
    pub vault: Vault,
    /// The provider templates at hand; the injector subscribes to the same sender.
    pub catalog: watch::Sender<Arc<Catalog>>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The public root keys; the injector subscribes to the same ring.
    pub roots: Arc<VerifyingRing>,
    /// The public keys of agents' tokens.
    pub tokens: Arc<JwtVerifier>,
    /// The keys of the service, as [`injector_keys`] gave them.
    pub chest: KeyChest,
    /// The certificates that agents trust ([`trust_pem`]).
    pub ca_pem: Arc<str>,
    /// The way into the injector of this process.
    pub inject: Option<Arc<dyn Inject>>,
    /// Metrics, in the registry that the injector shares.
    pub metrics: Metrics,
    /// Bounds.
    pub limits: Limits,
}

/// Bounds of the REST API.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Refused credentials of one address before it has to wait, one more each second.
    pub auth_failure_burst: NonZeroU32,
    /// Requests in work at once.
    pub in_work: usize,
    /// Requests of one address in a second; `None` for any number.
    pub requests_per_second: Option<NonZeroU32>,
    /// Requests that an address which was quiet may send at once.
    pub request_burst: NonZeroU32,
    /// Whether it holds for loopback too, whence this machine's own programs call, and a proxy for many.
    pub paces_loopback: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // Enough for a person who mistypes and a script that retries, few enough to bound the work.
            auth_failure_burst: NonZeroU32::new(20).expect("twenty is not zero"),
            in_work: middleware::MAX_IN_WORK,
            // As the seeds' service documents them.
            requests_per_second: NonZeroU32::new(100),
            request_burst: NonZeroU32::new(200).expect("two hundred is not zero"),
            paces_loopback: false,
        }
    }
}

/// A plane's API: its parts, and what it remembers between requests.
pub struct ControlPlane {
    pub(crate) store: Store,
    pub(crate) vault: Vault,
    catalog: watch::Sender<Arc<Catalog>>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) verifying: Arc<VerifyingRing>,
    pub(crate) tokens: Arc<JwtVerifier>,
    /// None in an injector.
    pub(crate) minting: Option<Minting>,
    pub(crate) chest: KeyChest,
    pub(crate) home_org: OrgId,
    pub(crate) ca: follow::CaTrust,
    pub(crate) injectors: forward::Injectors,
    pub(crate) outbound: outbound::Outbound,
    pub(crate) delivery: DeliveryOptions,
    pub(crate) inject: Option<Arc<dyn Inject>>,
    /// Places of requests to providers.
    pub(crate) places: injector::Places,
    pub(crate) providers: oidc::Providers,
    pub(crate) rotation: RotationOptions,
    pub(crate) rotation_wanted: Notify,
    pub(crate) people: people::People,
    pub(crate) metrics: Metrics,
    pub(crate) auth_limits: auth::AuthLimits,
    pub(crate) pace: pace::Pace,
    pub(crate) admission: Arc<Semaphore>,
    /// Places of those who follow the trail.
    pub(crate) tails: Arc<Semaphore>,
    pub(crate) key_health: key_health::KeyHealth,
    pub(crate) templates_seen: Mutex<Option<u64>>,
    /// Principals and addresses whose use of a key is on record for this hour.
    pub(crate) seen: moka::sync::Cache<(String, Option<IpAddr>), ()>,
}

/// What only a control plane has.
#[derive(Debug)]
pub(crate) struct Minting {
    pub(crate) keys: Arc<KeyRing>,
    pub(crate) jwt: JwtKeys,
    pub(crate) ca: Option<Arc<dyn MakeCa>>,
}

impl ControlPlane {
    /// Puts the parts of a control plane together, for [`app`].
    pub fn new(parts: Parts) -> AppState {
        let minting = Minting {
            keys: parts.keys,
            jwt: parts.jwt,
            ca: parts.ca,
        };
        let verifying = InjectorParts {
            store: parts.store,
            vault: parts.vault,
            catalog: parts.catalog,
            clock: parts.clock,
            roots: Arc::clone(minting.keys.verifying()),
            tokens: Arc::clone(minting.jwt.verifier()),
            chest: parts.chest,
            ca_pem: parts.ca_pem,
            inject: parts.inject,
            metrics: parts.metrics,
            limits: parts.limits,
        };
        let Parts {
            injectors,
            outbound,
            delivery,
            rotation,
            people,
            ..
        } = parts;
        let ways = (injectors, outbound, delivery);
        Self::assemble(verifying, Some(minting), ways, (rotation, &people))
    }

    /// Puts the parts of an injector's API together, for [`injector_api`].
    pub fn of_injector(parts: InjectorParts) -> AppState {
        let options = (RotationOptions::default(), &PeopleOptions::default());
        Self::assemble(parts, None, Default::default(), options)
    }

    fn assemble(
        parts: InjectorParts,
        minting: Option<Minting>,
        (injectors, outbound, delivery): (Vec<InjectorUrl>, OutboundOptions, DeliveryOptions),
        (rotation, people): (RotationOptions, &PeopleOptions),
    ) -> AppState {
        // Those who ask an injector are control planes, each for many.
        let limits = Limits {
            requests_per_second: parts
                .limits
                .requests_per_second
                .filter(|_| minting.is_some()),
            ..parts.limits
        };
        let seen = moka::sync::Cache::builder()
            .max_capacity(SEEN_CAPACITY)
            .time_to_live(SEEN_FOR);
        Arc::new(Self {
            store: parts.store,
            vault: parts.vault,
            catalog: parts.catalog,
            clock: parts.clock,
            verifying: parts.roots,
            tokens: parts.tokens,
            minting,
            home_org: parts.chest.org().clone(),
            chest: parts.chest,
            ca: follow::CaTrust::new(parts.ca_pem),
            injectors: forward::Injectors::new(injectors),
            outbound: outbound::Outbound::new(outbound),
            delivery,
            inject: parts.inject,
            places: injector::Places::default(),
            providers: oidc::Providers::default(),
            rotation,
            rotation_wanted: Notify::new(),
            people: people::People::new(people),
            metrics: parts.metrics,
            auth_limits: auth::AuthLimits::new(limits.auth_failure_burst),
            pace: pace::Pace::new(&limits),
            admission: Arc::new(Semaphore::new(limits.in_work)),
            tails: Arc::new(Semaphore::new(routes::audit::MAX_TAILS)),
            key_health: key_health::KeyHealth::default(),
            templates_seen: Mutex::default(),
            seen: seen.build(),
        })
    }

    /// Starts what runs beside the requests, until `shutdown` says so: taking up what other processes changed, writing what was
    /// counted, and in a control plane the rotation of KEKs.
    pub fn start(state: &AppState, shutdown: &watch::Receiver<bool>) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        tasks.spawn(follow::follow(Arc::clone(state), shutdown.clone()));
        tasks.spawn(meter::flush(Arc::clone(state), shutdown.clone()));
        if state.minting.is_some() {
            tasks.spawn(rotation::work(Arc::clone(state), shutdown.clone()));
            tasks.spawn(deliver::work(Arc::clone(state), shutdown.clone()));
        }
        tasks
    }

    /// Looks once for what other processes changed: what [`ControlPlane::start`] does every [`keys::POLL`].
    ///
    /// # Errors
    /// [`FollowError`]; what could not be taken up is as before.
    pub async fn follow_once(state: &AppState) -> Result<(), FollowError> {
        follow::once(state).await
    }

    /// Tells the trail once to all who are to be told something: what [`ControlPlane::start`] does again and again.
    ///
    /// # Errors
    /// [`StoreError`](store::StoreError); what was not told is told at the next look.
    pub async fn deliver_once(state: &AppState) -> Result<(), store::StoreError> {
        deliver::once(state).await
    }

    /// What mints. The routes of an injector do not ask for it.
    pub(crate) fn minting(&self) -> Result<&Minting, ApiError> {
        self.minting.as_ref().ok_or_else(|| {
            ApiError::internal(std::io::Error::other("an injector was asked to mint"))
        })
    }

    /// Whether what is sealed is opened here. A control plane that may not has injectors do it.
    pub(crate) async fn may_open(&self) -> bool {
        self.minting.is_none() || self.rights().await.unwrap
    }

    /// The templates as they are now.
    pub(crate) fn catalog(&self) -> Arc<Catalog> {
        Arc::clone(&self.catalog.borrow())
    }

    /// Adds a template for this plane and the injector alike.
    pub(crate) fn add_template(&self, template: Template) {
        self.catalog
            .send_modify(|catalog| Arc::make_mut(catalog).insert(template));
    }
}

impl fmt::Debug for ControlPlane {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ControlPlane")
            .field("store", &self.store)
            .field("verifying", &self.verifying)
            .finish_non_exhaustive()
    }
}

const SEEN_FOR: Duration = Duration::from_hours(1);
const SEEN_CAPACITY: u64 = 10_000;
