//! The planes of one process: what they share, how they start, and how they end.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use control_plane::{
    AppState, ControlPlane, DeliveryOptions, Inject, InjectorParts, Limits, Metrics, OidcOptions,
    OutboundOptions, OutboundProxy, Parts, PeopleOptions, RotationOptions, publish_checkpoints,
};
use leases::root_key::RootPublicKeys;
use percent_encoding::percent_decode_str;
use prometheus::{IntGaugeVec, Opts, Registry};
use providers::Catalog;
use providers::address::{AddressPolicy, Override};
use proxy::{Entrance, ListenerTls, ProxyDeps, ProxyOptions, UpstreamProxy};
use rustls::RootCertStore;
use tokio::io::DuplexStream;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use zeroize::Zeroizing;

use super::plant::{self, Injection, Means, Plant, Tls};
use super::{Addresses, Listeners, telling};
use crate::config::Config;
use crate::failure::Failure;
use crate::trust;

/// Open files that are not connections from agents: listeners, database, logs, the API's own connections.
const OTHER_FILES: u64 = 128;

/// The planes as they run. Each is of no use without the others of its process.
#[derive(Debug)]
pub(super) struct Planes {
    planes: Vec<Plane>,
    /// What follows the keys and rotates them. Ends with this value.
    _beside: JoinSet<()>,
}

type Plane = (&'static str, JoinHandle<anyhow::Result<()>>);

impl Planes {
    /// Starts what has a listener. All end when `shutdown` says so.
    pub(super) fn start(
        (plant, means): (&mut Plant, Means),
        config: &Config,
        addresses: &Addresses,
        listeners: Listeners,
        shutdown: &watch::Receiver<bool>,
    ) -> anyhow::Result<Self> {
        let Listeners {
            api,
            api_tls,
            proxy,
            tls,
        } = listeners;
        let registry = plant.registry.clone();
        let up = IntGaugeVec::new(
            Opts::new("up", "Planes that run in this process."),
            &["plane"],
        )?;
        registry.register(Box::new(up.clone()))?;
        let catalog = watch::Sender::new(Arc::clone(&plant.catalog));
        let mut planes: Vec<Plane> = Vec::new();
        let mut following = None;
        let mut inject: Option<Arc<dyn Inject>> = None;
        if let (Some(listener), Some(injection)) = (proxy, plant.injection.take()) {
            let deps = ProxyDeps {
                store: plant.store.clone(),
                vault: plant.vault.clone(),
                catalog: catalog.subscribe(),
                root_keys: means.root_keys(),
                authority: injection.authority.subscribe(),
                clock: Arc::clone(&plant.clock),
                registry: registry.clone(),
            };
            let options = options(&injection, config, addresses, tls)?;
            let (entrance, arrivals) = proxy::entrance();
            let url = addresses.proxy.map(|address| addresses.url_of(address));
            inject = Some(Arc::new(Inside { entrance, url }));
            let stop = shutdown.clone();
            let injecting = async move {
                proxy::serve((listener, arrivals), deps, options, stop)
                    .await
                    .context("the injector ended")
            };
            planes.push(("injector", tokio::spawn(injecting)));
            up.with_label_values(&["injector"]).set(1);
            following = Some(injection.authority);
        }
        if let Means::Mint { .. } = means {
            up.with_label_values(&["control-plane"]).set(1);
        }
        let people = PeopleOptions {
            sign_up: config.people.sign_up,
            oidc: oidc(config)?,
            ..PeopleOptions::default()
        };
        plant.store.quotas().set_default(config.quotas.of_store());
        let outbound = outbound(config, addresses)?;
        let publishing = publish_checkpoints(
            (plant.store.clone(), Arc::clone(&plant.clock)),
            telling::checkpoints(config)?,
            outbound.clone(),
            shutdown.clone(),
        );
        let api_options = ApiOptions {
            people,
            outbound,
            inject,
            delivery: telling::delivery(config)?,
            limits: Limits {
                requests_per_second: config.api.requests_per_second,
                request_burst: config.api.request_burst,
                paces_loopback: config.api.is_chosen,
                ..Limits::default()
            },
        };
        let (state, app) = answers(plant, means, catalog, registry, api_options)?;
        let mut beside = ControlPlane::start(&state, shutdown);
        beside.spawn(publishing);
        if let Some(authority) = following {
            let (chest, clock) = (plant.chest.clone(), Arc::clone(&plant.clock));
            beside.spawn(async move { match authority.follow(chest, clock).await {} });
        }
        let stop = shutdown.clone();
        let answering = async move {
            control_plane::serve(api, app, api_tls, stop)
                .await
                .context("the API ended")
        };
        planes.push(("API", tokio::spawn(answering)));
        Ok(Self {
            planes,
            _beside: beside,
        })
    }

    /// Why one of them ended by itself.
    pub(super) async fn ended(&mut self) -> anyhow::Error {
        let planes = self.planes.iter_mut().map(|(_, plane)| plane);
        let (ended, index, _) = futures::future::select_all(planes).await;
        let plane = self.planes[index].0;
        match ended {
            Ok(Ok(())) => anyhow::anyhow!("the {plane} ended by itself"),
            Ok(Err(error)) => error,
            Err(error) => anyhow::anyhow!("the {plane} broke down: {error}"),
        }
    }

    /// Waits for what is under way, at most `bound`.
    pub(super) async fn drain(&mut self, bound: Duration) {
        let all = async {
            for (_, plane) in &mut self.planes {
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

impl Means {
    /// The public root keys, now and after each rotation.
    fn root_keys(&self) -> watch::Receiver<RootPublicKeys> {
        match self {
            Self::Mint { keys, .. } => keys.subscribe(),
            Self::Verify { roots, .. } => roots.subscribe(),
        }
    }
}

/// What is configured of the API.
struct ApiOptions {
    people: PeopleOptions,
    outbound: OutboundOptions,
    inject: Option<Arc<dyn Inject>>,
    delivery: DeliveryOptions,
    limits: Limits,
}

/// The way into the injector of this process.
#[derive(Debug)]
struct Inside {
    entrance: Entrance,
    url: Option<String>,
}

impl Inject for Inside {
    fn connect(
        &self,
        client: IpAddr,
        request_id: &str,
        masked: &Arc<AtomicUsize>,
    ) -> Option<DuplexStream> {
        self.entrance.connect(client, request_id, masked)
    }

    fn url(&self) -> Option<String> {
        self.url.clone()
    }
}

/// The REST API of a control plane, or what an injector answers.
fn answers(
    plant: &Plant,
    means: Means,
    catalog: watch::Sender<Arc<Catalog>>,
    registry: Registry,
    options: ApiOptions,
) -> anyhow::Result<(AppState, Router)> {
    let metrics = Metrics::new(registry)?;
    let ApiOptions {
        people,
        outbound,
        inject,
        delivery,
        limits,
    } = options;
    Ok(match means {
        Means::Mint {
            keys,
            jwt,
            injectors,
        } => {
            let state = ControlPlane::new(Parts {
                store: plant.store.clone(),
                vault: plant.vault.clone(),
                catalog,
                clock: Arc::clone(&plant.clock),
                keys,
                jwt,
                chest: plant.chest.clone(),
                ca: Some(Arc::new(Tls)),
                ca_pem: Arc::clone(&plant.ca_pem),
                injectors,
                outbound,
                delivery,
                inject,
                rotation: RotationOptions::default(),
                people,
                metrics,
                limits,
            });
            (Arc::clone(&state), control_plane::app(state))
        }
        Means::Verify { roots, tokens } => {
            let state = ControlPlane::of_injector(InjectorParts {
                store: plant.store.clone(),
                vault: plant.vault.clone(),
                catalog,
                clock: Arc::clone(&plant.clock),
                roots,
                tokens,
                chest: plant.chest.clone(),
                ca_pem: Arc::clone(&plant.ca_pem),
                inject,
                metrics,
                limits,
            });
            (Arc::clone(&state), control_plane::injector_api(state))
        }
    })
}

fn options(
    injection: &Injection,
    config: &Config,
    addresses: &Addresses,
    tls: Option<ListenerTls>,
) -> anyhow::Result<ProxyOptions> {
    Ok(ProxyOptions {
        upstream_roots: injection.upstream_roots.clone(),
        overrides: overrides(config),
        upstream_proxy: upstream_proxy(config)?,
        allowed_addresses: config.network.allow_address.clone(),
        own_addresses: own(addresses),
        cache_ttl: config.cache.ttl,
        limits: proxy::Limits {
            connections: within_files(config.limits.connections, crate::hardening::open_files()),
            ..config.limits
        },
        tls,
        allow_plaintext: config.server.allow_plaintext_listener,
    })
}

/// What the control plane asks outside goes by the same rules as what the injector sends.
fn outbound(config: &Config, addresses: &Addresses) -> anyhow::Result<OutboundOptions> {
    let mut roots = RootCertStore::empty();
    let extra = plant::upstream_ca(config)?;
    let pem = trust::upstream_roots(extra.as_deref());
    roots.add_parsable_certificates(trust::certificates(pem.as_bytes()));
    let proxy = upstream_proxy(config)?.map(|proxy| OutboundProxy {
        host: proxy.host,
        port: proxy.port,
        credentials: proxy.credentials,
    });
    Ok(OutboundOptions {
        roots,
        overrides: overrides(config),
        policy: AddressPolicy::new(config.network.allow_address.clone(), own(addresses)),
        proxy,
    })
}

fn overrides(config: &Config) -> Vec<Override> {
    let resolve = config.network.resolve.iter();
    let overrides = resolve.map(|resolve| Override {
        host: resolve.host.clone(),
        port: resolve.port,
        address: resolve.to,
    });
    overrides.collect()
}

/// Our own listeners, which nobody is sent to.
fn own(addresses: &Addresses) -> Vec<SocketAddr> {
    std::iter::once(addresses.api)
        .chain(addresses.proxy)
        .collect()
}

/// The network's proxy, with its password read.
fn upstream_proxy(config: &Config) -> anyhow::Result<Option<UpstreamProxy>> {
    let Some(url) = &config.network.upstream_proxy else {
        return Ok(None);
    };
    let password = match &config.network.upstream_proxy_password_file {
        None => Zeroizing::default(),
        Some(file) => secret_of(file, "network.upstream_proxy_password_file")?,
    };
    let user = percent_decode_str(url.username()).decode_utf8_lossy();
    let host = url.host_str().unwrap_or_default();
    Ok(Some(UpstreamProxy {
        host: host.trim_matches(['[', ']']).to_owned(),
        port: url.port_or_known_default().unwrap_or(80),
        credentials: (!user.is_empty()).then(|| (user.into_owned(), password)),
    }))
}

/// The identity provider of people, with its client's secret read.
fn oidc(config: &Config) -> anyhow::Result<Option<OidcOptions>> {
    let oidc = &config.oidc;
    let (Some(issuer), Some(client_id)) = (&oidc.issuer, &oidc.client_id) else {
        return Ok(None);
    };
    let secret = oidc.client_secret_file.as_deref();
    let secret = secret.map(|file| secret_of(file, "oidc.client_secret_file"));
    Ok(Some(OidcOptions {
        issuer: issuer.clone(),
        client_id: client_id.clone(),
        client_secret: secret.transpose()?,
        redirect_url: oidc.redirect_url.clone(),
        allowed_domains: oidc.allowed_domains.clone(),
        allowed_emails: oidc.allowed_emails.clone(),
        sign_up: oidc.sign_up,
    }))
}

/// The secret that a file holds, without its line end. `key` is the setting that names the file.
fn secret_of(file: &Path, key: &str) -> Result<Zeroizing<String>, Failure> {
    let text = std::fs::read_to_string(file).map_err(|error| {
        Failure::new(format!("cannot read {}: {error}", file.display()))
            .hint(format!("name a readable file as {key}"))
    })?;
    let text = Zeroizing::new(text);
    let secret = text.trim_end_matches(['\r', '\n']);
    Ok(Zeroizing::new(secret.to_owned()))
}

/// No more connections than there are files for, two for each, since it leads to a provider: an agent that finds no room is told
/// so, and neither it nor the API waits for a file that nobody closes.
fn within_files(connections: usize, open_files: Option<u64>) -> usize {
    let Some(files) = open_files else {
        return connections;
    };
    let room = files.saturating_sub(OTHER_FILES.min(files / 2)) / 2;
    connections
        .min(usize::try_from(room).unwrap_or(usize::MAX))
        .max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_files_for_everything_else() {
        assert_eq!(within_files(10_000, None), 10_000);
        assert_eq!(within_files(10_000, Some(1 << 20)), 10_000);
        assert_eq!(within_files(10_000, Some(1024)), 448);
        assert_eq!(within_files(100, Some(1024)), 100);
        assert_eq!(within_files(10_000, Some(256)), 64);
        assert_eq!(within_files(10_000, Some(2)), 1);
    }
}
