//! The planes of one process: what they share, how they start, and how they end.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use control_plane::{ControlPlane, JwtKey, Limits, Metrics, Parts};
use prometheus::Registry;
use proxy::{Override, ProxyDeps, ProxyOptions};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::Addresses;
use super::plant::Plant;
use crate::config::Config;

/// Open connections from agents, together. Each idle one costs at most 64 KiB.
const MAX_CONNECTIONS: usize = 10_000;

/// The planes as they run. Each is of no use without the others of its process.
#[derive(Debug)]
pub(super) struct Planes(Vec<Plane>);

type Plane = (&'static str, JoinHandle<anyhow::Result<()>>);

impl Planes {
    /// Starts what has a listener. All end when `shutdown` says so.
    pub(super) fn start(
        (plant, jwt): (&Plant, JwtKey),
        config: &Config,
        addresses: &Addresses,
        (api, injector): (TcpListener, Option<TcpListener>),
        shutdown: &watch::Receiver<bool>,
    ) -> anyhow::Result<Self> {
        let registry = Registry::new();
        let catalog = watch::Sender::new(Arc::clone(&plant.catalog));
        let keys = Arc::clone(&plant.keys);
        let mut planes: Vec<Plane> = Vec::new();
        if let Some(injector) = injector {
            let deps = ProxyDeps {
                store: plant.store.clone(),
                vault: plant.vault.clone(),
                catalog: catalog.subscribe(),
                root_keys: keys.subscribe(),
                authority: Arc::clone(&plant.authority),
                clock: Arc::clone(&plant.clock),
                registry: registry.clone(),
            };
            let options = options(plant, config, addresses);
            let stop = shutdown.clone();
            let injecting = async move {
                proxy::serve(injector, deps, options, stop)
                    .await
                    .context("the injector ended")
            };
            planes.push(("injector", tokio::spawn(injecting)));
        }
        let app = control_plane::app(ControlPlane::new(Parts {
            store: plant.store.clone(),
            vault: plant.vault.clone(),
            catalog,
            clock: Arc::clone(&plant.clock),
            keys,
            jwt,
            home_org: plant.org.clone(),
            ca_pem: plant.authority.certificate_pem().into(),
            metrics: Metrics::new(registry)?,
            limits: Limits::default(),
        }));
        planes.push(("API", tokio::spawn(serve_api(api, app, shutdown.clone()))));
        Ok(Self(planes))
    }

    /// Why one of them ended by itself.
    pub(super) async fn ended(&mut self) -> anyhow::Error {
        let planes = self.0.iter_mut().map(|(_, plane)| plane);
        let (ended, index, _) = futures::future::select_all(planes).await;
        let plane = self.0[index].0;
        match ended {
            Ok(Ok(())) => anyhow::anyhow!("the {plane} ended by itself"),
            Ok(Err(error)) => error,
            Err(error) => anyhow::anyhow!("the {plane} broke down: {error}"),
        }
    }

    /// Waits for what is under way, at most `bound`.
    pub(super) async fn drain(&mut self, bound: Duration) {
        let all = async {
            for (_, plane) in &mut self.0 {
                // One that has ended already may not be asked again.
                if !plane.is_finished() {
                    let _ = plane.await;
                }
            }
        };
        if tokio::time::timeout(bound, all).await.is_err() {
            tracing::warn!("requests in flight are cut after {} s", bound.as_secs());
        }
    }
}

async fn serve_api(
    listener: TcpListener,
    app: axum::Router,
    mut shutdown: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let service = app.into_make_service_with_connect_info::<SocketAddr>();
    axum::serve(listener, service)
        .with_graceful_shutdown(async move {
            // A sender that is gone means the same.
            let _ = shutdown.wait_for(|down| *down).await;
        })
        .await
        .context("the API ended")
}

fn options(plant: &Plant, config: &Config, addresses: &Addresses) -> ProxyOptions {
    let overrides = config.network.resolve.iter().map(|resolve| Override {
        host: resolve.host.clone(),
        port: resolve.port,
        address: resolve.to,
    });
    ProxyOptions {
        upstream_roots: plant.upstream_roots.clone(),
        overrides: overrides.collect(),
        allowed_addresses: config.network.allow_address.clone(),
        own_addresses: std::iter::once(addresses.api)
            .chain(addresses.proxy)
            .collect(),
        cache_ttl: config.cache.ttl,
        max_connections: MAX_CONNECTIONS,
    }
}
