//! The listener: accepts, bounds and drains connections.
//!
//! It has its own accept loop rather than Pingora's server: one runtime for both planes, our own signals
//! and drain, no descriptor hand-over socket, and streams without a read buffer of their own.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use leases::clock::Clock;
use leases::root_key::RootPublicKeys;
use pingora::apps::{HttpServerApp, HttpServerOptions};
use pingora::proxy::http_proxy;
use pingora::server::configuration::ServerConf;
use prometheus::Registry;
use providers::address::{AddressPolicy, Override};
use providers::catalog::Catalog;
use store::Store;
use thiserror::Error;
use time::OffsetDateTime;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use vault::Vault;

use crate::authenticate::Authenticator;
use crate::body::HeldBodies;
use crate::connect::{self, Front};
use crate::credential::Opener;
use crate::dial::UpstreamProxy;
use crate::exchange::{Endpoints, Exchange};
use crate::handed::{Arrivals, Handed};
use crate::limits::{Limits, Load};
use crate::meter::RefusalMeter;
use crate::metrics::Metrics;
use crate::pipeline::{Pipeline, Shared};
use crate::refuse::{Code, Door, Refusal};
use crate::setback::Setbacks;
use crate::spend::Budgeted;
use crate::tls::ca::Authority;
use crate::tls::leaf::Leaves;
use crate::tls::listener::{ListenerSettings, ListenerTls, ListenerTlsError};
use crate::upstream::{ResolverError, UpstreamTimeouts, Upstreams};
use crate::watch::Watcher;

/// Requests that one kept connection may carry.
const REQUESTS_PER_CONNECTION: u32 = 10_000;
/// Upstream connections kept idle.
const IDLE_UPSTREAMS: usize = 1024;
/// The largest body that is read to be hashed for a signature.
const MAX_SIGNED_BODY: usize = 8 * 1024 * 1024;
/// What all such bodies together may take.
const MAX_HELD_BODIES: usize = 64 * 1024 * 1024;
/// How long a drain waits for what is under way.
const DRAIN: Duration = Duration::from_secs(30);

/// What the injector is told.
#[derive(Debug, Clone)]
pub struct ProxyOptions {
    /// A PEM file with every root that providers' certificates may chain to.
    pub upstream_roots: PathBuf,
    /// Where to dial instead of what a name resolves to.
    pub overrides: Vec<Override>,
    /// The proxy by which providers are reached, but for those that `overrides` name.
    pub upstream_proxy: Option<UpstreamProxy>,
    /// Networks for which the address policy is lifted.
    pub allowed_addresses: Vec<IpNet>,
    /// Our own listeners, which are never dialled.
    pub own_addresses: Vec<SocketAddr>,
    /// How long an opened credential may be kept; zero opens it for every use.
    pub cache_ttl: Duration,
    /// How much may be under way.
    pub limits: Limits,
    /// The certificate of the proxy itself; without one it is spoken to in cleartext.
    pub tls: Option<ListenerTls>,
    /// Whether, with a certificate, agents on other machines may speak cleartext all the same.
    pub allow_plaintext: bool,
}

/// What the injector works with.
#[derive(Debug)]
pub struct ProxyDeps {
    /// The store and its ledger.
    pub store: Store,
    /// Opens sealed credentials.
    pub vault: Vault,
    /// The provider templates in force.
    pub catalog: watch::Receiver<Arc<Catalog>>,
    /// The public keys that leases verify with.
    pub root_keys: watch::Receiver<RootPublicKeys>,
    /// The authority that signs leaves, now and after each rotation.
    pub authority: watch::Receiver<Arc<Authority>>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Where metrics are registered.
    pub registry: Registry,
}

/// Why the injector cannot serve.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The listener cannot be used.
    #[error("the proxy listener cannot be used")]
    Listener(#[source] std::io::Error),
    /// The resolver cannot be made.
    #[error(transparent)]
    Resolver(#[from] ResolverError),
    /// The leaf key cannot be made.
    #[error("the key of leaf certificates cannot be made")]
    Leaf(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The certificate of the proxy itself cannot be used.
    #[error("the proxy has no certificate of its own")]
    Tls(#[from] ListenerTlsError),
    /// A metric is registered twice.
    #[error("a metric is registered twice")]
    Metrics(#[from] prometheus::Error),
    /// The roots for upstream certificates cannot be read.
    #[error("the upstream root certificates in {path} cannot be read")]
    Roots {
        /// The file.
        path: PathBuf,
    },
}

/// Serves agents until `shutdown`, then lets what is under way end for at most 30 seconds. They come to the listener, and by the
/// other plane of this process.
///
/// Runs on the current tokio runtime.
///
/// # Errors
/// [`ServeError`] before the first connection is accepted; afterwards errors are the connections' own.
pub async fn serve(
    (listener, mut arrivals): (std::net::TcpListener, Arrivals),
    deps: ProxyDeps,
    options: ProxyOptions,
    mut shutdown: watch::Receiver<bool>,
) -> Result<(), ServeError> {
    let (ledger, clock) = (deps.store.ledger().clone(), Arc::clone(&deps.clock));
    let mut front = front(deps, &options)?;
    let mut beside = JoinSet::new();
    if let Some(tls) = options.tls {
        let leaves = Arc::clone(&front.leaves);
        let (settings, fresh) = ListenerSettings::load(tls, leaves, Arc::clone(&clock))?;
        front.tls = Some(settings);
        beside.spawn(fresh);
    }
    let front = Arc::new(front);
    // The watch goes on through the drain: its streams are the ones that last.
    beside.spawn(Arc::clone(&front.pipeline.watcher).run(ledger, clock));
    listener
        .set_nonblocking(true)
        .map_err(ServeError::Listener)?;
    let listener = TcpListener::from_std(listener).map_err(ServeError::Listener)?;
    let room = Arc::new(Semaphore::new(options.limits.connections));
    loop {
        let came = tokio::select! {
            accepted = listener.accept() => Came::Here(accepted),
            Some(handed) = arrivals.next() => Came::ByThePlane(handed),
            _ = shutdown.wait_for(|down| *down) => break,
        };
        match came {
            Came::ByThePlane(handed) => take(&front, &room, handed, &shutdown),
            Came::Here(Ok((tcp, client))) => admit(&front, &room, tcp, client, &shutdown),
            Came::Here(Err(error)) => {
                // Out of descriptors, most likely: the loop must not spin until one is free.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    drop((listener, arrivals));
    front.proxy.http_cleanup().await;
    let all = u32::try_from(options.limits.connections).unwrap_or(u32::MAX);
    if tokio::time::timeout(DRAIN, room.acquire_many(all))
        .await
        .is_err()
    {
        tracing::warn!("some connections were still open after the drain and are cut");
    }
    Ok(())
}

/// How a request came in.
enum Came {
    Here(std::io::Result<(TcpStream, SocketAddr)>),
    ByThePlane(Handed),
}

fn front(deps: ProxyDeps, options: &ProxyOptions) -> Result<Front, ServeError> {
    // Pingora panics on a root file that it cannot read, so it is looked at first.
    if !std::fs::read(&options.upstream_roots).is_ok_and(|pem| {
        pem.starts_with(b"-----BEGIN")
            || memchr::memmem::find(&pem, b"-----BEGIN CERTIFICATE").is_some()
    }) {
        return Err(ServeError::Roots {
            path: options.upstream_roots.clone(),
        });
    }
    let watcher = Arc::new(Watcher::default());
    let policy = AddressPolicy::new(
        options.allowed_addresses.clone(),
        options.own_addresses.clone(),
    );
    let conf = ServerConf {
        ca_file: Some(options.upstream_roots.display().to_string()),
        upstream_keepalive_pool_size: IDLE_UPSTREAMS,
        // Tries of one request: each further one only before anything was sent, see `fail_to_connect`.
        max_retries: 4,
        upstream_debug_ssl_keylog: false,
        ..ServerConf::default()
    };
    let via = options.upstream_proxy.clone().map(Arc::new);
    let upstreams = Arc::new(Upstreams::new(options.overrides.clone(), policy, via)?);
    let exchange = Exchange::new(
        deps.store.clone(),
        deps.vault.clone(),
        Arc::clone(&deps.clock),
        Endpoints::new(Arc::clone(&upstreams), &conf),
    );
    let pipeline = Arc::new(Pipeline {
        authenticator: Authenticator::new(deps.root_keys),
        upstreams,
        opener: Opener::new(
            deps.store.clone(),
            deps.vault,
            deps.catalog.clone(),
            exchange,
            options.cache_ttl,
        ),
        watcher,
        setbacks: Setbacks::new(),
        metrics: Metrics::register(&deps.registry)?,
        refusals: RefusalMeter::new(),
        timeouts: UpstreamTimeouts::default(),
        load: Load::new(options.limits),
        budgeted: Budgeted::new(),
        held_bodies: HeldBodies::new(MAX_SIGNED_BODY, MAX_HELD_BODIES),
        clock: deps.clock,
        store: deps.store,
        catalog: deps.catalog,
    });
    let mut proxy = http_proxy(&Arc::new(conf), Shared(Arc::clone(&pipeline)));
    let mut server_options = HttpServerOptions::default();
    server_options.keepalive_request_limit = Some(REQUESTS_PER_CONNECTION);
    // A CONNECT inside a tunnel is refused by our own method list, with our own answer.
    server_options.allow_connect_method_proxying = true;
    proxy.server_options = Some(server_options);
    let leaves = Leaves::new(deps.authority).map_err(|error| ServeError::Leaf(Box::new(error)))?;
    Ok(Front {
        pipeline,
        proxy: Arc::new(proxy),
        leaves: Arc::new(leaves),
        tls: None,
        allow_plaintext: options.allow_plaintext,
    })
}

fn admit(
    front: &Arc<Front>,
    room: &Arc<Semaphore>,
    tcp: TcpStream,
    client: SocketAddr,
    shutdown: &watch::Receiver<bool>,
) {
    // A response's head and body are small writes; without this each would wait for the other's ACK.
    let _ = tcp.set_nodelay(true);
    if let Ok(place) = Arc::clone(room).try_acquire_owned() {
        let (front, shutdown) = (Arc::clone(front), shutdown.clone());
        tokio::spawn(async move { serve_one(&front, tcp, client, &shutdown, place).await });
    } else {
        front.pipeline.metrics.shed.inc();
        tokio::spawn(shed(tcp, front.pipeline.clock.now()));
    }
}

/// Takes what the other plane hands in, within the same room.
fn take(
    front: &Arc<Front>,
    room: &Arc<Semaphore>,
    handed: Handed,
    shutdown: &watch::Receiver<bool>,
) {
    if let Ok(place) = Arc::clone(room).try_acquire_owned() {
        let (front, shutdown) = (Arc::clone(front), shutdown.clone());
        tokio::spawn(async move {
            let _counted = front.pipeline.metrics.count_connection();
            front.serve_handed(handed, &shutdown).await;
            drop(place);
        });
    } else {
        front.pipeline.metrics.shed.inc();
        tokio::spawn(shed(handed.stream, front.pipeline.clock.now()));
    }
}

async fn serve_one(
    front: &Front,
    tcp: TcpStream,
    client: SocketAddr,
    shutdown: &watch::Receiver<bool>,
    place: OwnedSemaphorePermit,
) {
    let _counted = front.pipeline.metrics.count_connection();
    front.serve(tcp, client, shutdown).await;
    drop(place);
}

/// Tells an agent that there is no room, without reading anything of it.
async fn shed(mut agent: impl AsyncWrite + Unpin, now: OffsetDateTime) {
    let refusal = Refusal {
        retry_after: Some(Duration::from_secs(1)),
        ..Refusal::new(
            Code::Overloaded,
            "this injector has as many connections as it takes; try again in a second",
        )
    };
    let full = connect::as_text(&refusal, Door::Proxy, &leases::request_id(now), false);
    let _ = tokio::time::timeout(Duration::from_secs(1), agent.write_all(&full)).await;
}
