#![doc = include_str!("../README.md")]

mod api_key;
mod auth;
mod bootstrap;
mod context;
mod entries;
mod error;
mod events;
mod extract;
mod idempotency;
mod json;
mod jwt;
mod key_health;
pub mod keys;
mod metrics;
mod middleware;
pub mod openapi;
mod operator_templates;
pub mod problem;
mod router;
mod routes;
mod server;
mod templates;
mod text;
mod timestamp;

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use leases::clock::Clock;
use leases::id::OrgId;
use providers::{Catalog, Template};
use store::Store;
use tokio::sync::{Semaphore, watch};
use vault::Vault;

pub use api_key::{ApiKey, KeyHolder};
pub use bootstrap::{BootstrapError, Bootstrapped, bootstrap, reissue_admin_key};
pub use error::{ApiError, ErrorKind};
pub use jwt::{JwtKey, JwtKeyError};
pub use keys::{KeyChest, KeyChestError, KeyRing, NewKey, OpenedKey};
pub use metrics::Metrics;
pub use operator_templates::{OperatorTemplatesError, load_templates};
pub use server::serve;

/// The REST API as a router, ready to be served.
///
/// [`serve`] serves it within bounds. Any other server must put `ConnectInfo<SocketAddr>` into each request, so that events and
/// limits know the peer.
pub fn app(state: AppState) -> Router {
    router::build(state)
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
    /// The provider templates at hand; the injector subscribes to the same sender.
    pub catalog: watch::Sender<Arc<Catalog>>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The lease root keys; the injector subscribes to the same ring.
    pub keys: Arc<KeyRing>,
    /// The key of agents' tokens.
    pub jwt: JwtKey,
    /// The organisation that runs the server.
    pub home_org: OrgId,
    /// The injector's certificate in PEM; empty where there is no injector.
    pub ca_pem: Arc<str>,
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
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // Enough for a person who mistypes and a script that retries, few enough to bound the work.
            auth_failure_burst: NonZeroU32::new(20).expect("twenty is not zero"),
            in_work: middleware::MAX_IN_WORK,
        }
    }
}

/// The control plane: its parts, and what it remembers between requests.
pub struct ControlPlane {
    pub(crate) store: Store,
    pub(crate) vault: Vault,
    catalog: watch::Sender<Arc<Catalog>>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) keys: Arc<KeyRing>,
    pub(crate) jwt: JwtKey,
    pub(crate) home_org: OrgId,
    pub(crate) ca_pem: Arc<str>,
    pub(crate) metrics: Metrics,
    pub(crate) auth_limits: auth::AuthLimits,
    pub(crate) admission: Arc<Semaphore>,
    pub(crate) key_health: key_health::KeyHealth,
    /// Principals and addresses whose use of a key is on record for this hour.
    pub(crate) seen: moka::sync::Cache<(String, Option<IpAddr>), ()>,
}

impl ControlPlane {
    /// Puts the parts together.
    pub fn new(parts: Parts) -> AppState {
        let seen = moka::sync::Cache::builder()
            .max_capacity(SEEN_CAPACITY)
            .time_to_live(SEEN_FOR);
        Arc::new(Self {
            store: parts.store,
            vault: parts.vault,
            catalog: parts.catalog,
            clock: parts.clock,
            keys: parts.keys,
            jwt: parts.jwt,
            home_org: parts.home_org,
            ca_pem: parts.ca_pem,
            metrics: parts.metrics,
            auth_limits: auth::AuthLimits::new(parts.limits.auth_failure_burst),
            admission: Arc::new(Semaphore::new(parts.limits.in_work)),
            key_health: key_health::KeyHealth::default(),
            seen: seen.build(),
        })
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
            .field("keys", &self.keys)
            .finish_non_exhaustive()
    }
}

const SEEN_FOR: Duration = Duration::from_hours(1);
const SEEN_CAPACITY: u64 = 10_000;
