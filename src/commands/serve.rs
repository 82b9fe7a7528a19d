//! `serve`, `control-plane`, `injector`: both planes in one process, or one of them.

mod authority;
mod custody;
mod metered;
mod planes;
pub(crate) mod plant;
mod ready;
mod stop;
mod telling;

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use control_plane::ApiTls;
use proxy::ListenerTls;
use serde_json::json;
use store::nodes::NodeFacts;
use tokio::sync::watch;

use self::planes::Planes;
use self::plant::Plant;
use self::stop::Stop;
use super::Context;
use crate::config::{self, Config, Durability, KeyProvider, Overrides};
use crate::data_dir::{DataDir, Record};
use crate::failure::Failure;
use crate::{hardening, telemetry};

/// Which planes this process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// The REST API and the injector.
    Both,
    /// The REST API: stores, grants, mints.
    ControlPlane,
    /// The injector: takes what agents send. It cannot mint.
    Injector,
}

impl Role {
    const fn injects(self) -> bool {
        matches!(self, Self::Both | Self::Injector)
    }

    fn planes(self) -> Vec<String> {
        let planes: &[&str] = match self {
            Self::Both => &["control-plane", "injector"],
            Self::ControlPlane => &["control-plane"],
            Self::Injector => &["injector"],
        };
        planes.iter().map(|plane| (*plane).to_owned()).collect()
    }

    const fn command(self) -> &'static str {
        match self {
            Self::Both => "serve",
            Self::ControlPlane => "control-plane",
            Self::Injector => "injector",
        }
    }
}

// Each option is also a key of the configuration file and a variable; `config check` shows all of them.
#[derive(Debug, clap::Args)]
#[expect(clippy::doc_markdown, reason = "the comments are help texts")]
pub(crate) struct Args {
    /// The configuration [default: claviger.toml in the data directory, if there is one] [env: CLAVIGER_CONFIG]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where the API listens; port 0 takes a free one [default: 127.0.0.1:8181] [env: CLAVIGER_API]
    #[arg(long, value_name = "ADDR", value_parser = config::checked("server.api"))]
    api: Option<String>,
    /// Where the injector listens; port 0 takes a free one [default: 127.0.0.1:8182] [env: CLAVIGER_PROXY]
    #[arg(long, value_name = "ADDR", value_parser = config::checked("server.proxy"))]
    proxy: Option<String>,
    // A URL may carry a password, and clap repeats what it refuses.
    /// The database: sqlite:PATH, or postgres://USER@HOST/NAME for more than one process [default: DIR/claviger.db] [env:
    /// CLAVIGER_DATABASE, CLAVIGER_DATABASE_PASSWORD_FILE]
    #[arg(long, value_name = "URL")]
    database: Option<String>,
    /// This process in the audit streams [default: a name made once for the data directory] [env: CLAVIGER_NODE]
    #[arg(long, value_name = "NAME", value_parser = config::checked("server.node"))]
    node: Option<String>,
    /// Who holds the keys that seal the vaults: software, pkcs11 or gcp-kms [default: software] [env: CLAVIGER_KEY_PROVIDER]
    #[arg(long, value_name = "NAME", value_parser = config::checked("keys.provider"))]
    key_provider: Option<String>,
    /// PEM certificates trusted beside the public roots when dialling providers [env: CLAVIGER_UPSTREAM_CA]
    #[arg(long, value_name = "FILE", value_parser = config::checked("network.upstream_ca"))]
    upstream_ca: Option<String>,
    /// Where to dial a name; name, SNI and verification stay; repeatable [env: CLAVIGER_RESOLVE]
    #[arg(long, value_name = "HOST:PORT=IP:PORT", value_parser = config::checked("network.resolve"))]
    resolve: Vec<String>,
    /// An HTTP proxy by which providers are reached, but for those that --resolve names; TLS goes through it end to end, and it
    /// resolves names itself, where the address policy cannot look [env: CLAVIGER_UPSTREAM_PROXY,
    /// CLAVIGER_UPSTREAM_PROXY_PASSWORD_FILE]
    // A URL may carry a password, and clap repeats what it refuses.
    #[arg(long, value_name = "http://[USER@]HOST:PORT")]
    upstream_proxy: Option<String>,
    /// A network that may be dialled although it is private; repeatable [env: CLAVIGER_ALLOW_ADDRESS]
    #[arg(long, value_name = "CIDR", value_parser = config::checked("network.allow_address"))]
    allow_address: Vec<String>,
    /// A directory of provider templates beside the built-in ones [env: CLAVIGER_PROVIDERS]
    #[arg(long, value_name = "DIR", value_parser = config::checked("providers.dir"))]
    providers: Option<String>,
    /// How long an opened secret is kept: at most 60s, 0s opens it on every use [default: 30s] [env: CLAVIGER_CACHE_TTL]
    #[arg(long, value_name = "TIME", value_parser = config::checked("cache.ttl"))]
    cache_ttl: Option<String>,
    /// Threads for requests [default: one a core] [env: CLAVIGER_WORKERS]
    #[arg(long, value_name = "N", value_parser = config::checked("server.workers"))]
    workers: Option<String>,
    /// How long requests in flight may go on after a stop was asked for [default: 30s] [env: CLAVIGER_DRAIN]
    #[arg(long, value_name = "TIME", value_parser = config::checked("server.drain"))]
    drain: Option<String>,
    /// The certificate chain of the API, PEM, which then speaks TLS and takes client certificates; read again when it changes
    /// [env: CLAVIGER_API_TLS_CERTIFICATE]
    #[arg(long, value_name = "FILE", value_parser = config::checked("server.api_tls_certificate"))]
    api_tls_cert: Option<String>,
    /// Its private key, PEM [env: CLAVIGER_API_TLS_KEY]
    #[arg(long, value_name = "FILE", value_parser = config::checked("server.api_tls_key"))]
    api_tls_key: Option<String>,
    /// The certificate chain that the injector shows to agents that speak TLS with it, PEM; read again when it changes [env:
    /// CLAVIGER_PROXY_TLS_CERTIFICATE]
    #[arg(long, value_name = "FILE", value_parser = config::checked("server.proxy_tls_certificate"))]
    proxy_tls_cert: Option<String>,
    /// Its private key, PEM [env: CLAVIGER_PROXY_TLS_KEY]
    #[arg(long, value_name = "FILE", value_parser = config::checked("server.proxy_tls_key"))]
    proxy_tls_key: Option<String>,
    /// A name or address of the injector, to speak TLS under it by a certificate of the CA that agents trust anyway; repeatable
    /// [env: CLAVIGER_PROXY_TLS_NAMES]
    #[arg(long, value_name = "NAME", value_parser = config::checked("server.proxy_tls_names"))]
    proxy_tls_name: Vec<String>,
    /// Listen for leases in cleartext beyond loopback [env: CLAVIGER_ALLOW_PLAINTEXT_LISTENER]
    #[arg(long)]
    allow_plaintext_listener: bool,
    /// A file with the passphrase that protects the software keys [env: CLAVIGER_PASSPHRASE_FILE]
    #[arg(long, value_name = "FILE", value_parser = config::checked("keys.passphrase_file"))]
    passphrase_file: Option<String>,
    /// `synced`, or `committed` for measurements: a power cut may lose records [default: synced] [env: CLAVIGER_LEDGER_DURABILITY]
    #[arg(long, value_name = "LEVEL", hide = true, value_parser = config::checked("ledger.durability"))]
    ledger_durability: Option<String>,
    /// What is logged, in RUST_LOG's language [default: info] [env: CLAVIGER_LOG, RUST_LOG]
    #[arg(long, value_name = "FILTER", value_parser = config::checked("log.level"))]
    log: Option<String>,
    /// How a log line looks: text or json [default: text] [env: CLAVIGER_LOG_FORMAT]
    #[arg(long, value_name = "FORMAT", value_parser = config::checked("log.format"))]
    log_format: Option<String>,
}

impl Args {
    /// The options as the configuration takes them.
    fn overrides(&self, context: &Context) -> Overrides {
        let one = |value: &Option<String>| value.iter().cloned().collect::<Vec<_>>();
        let data = context
            .connection
            .data
            .as_ref()
            .map(|data| data.display().to_string());
        vec![
            ("server.data", "--data", one(&data)),
            ("server.api", "--api", one(&self.api)),
            ("server.proxy", "--proxy", one(&self.proxy)),
            ("server.workers", "--workers", one(&self.workers)),
            ("server.drain", "--drain", one(&self.drain)),
            (
                "server.api_tls_certificate",
                "--api-tls-cert",
                one(&self.api_tls_cert),
            ),
            (
                "server.api_tls_key",
                "--api-tls-key",
                one(&self.api_tls_key),
            ),
            (
                "server.proxy_tls_certificate",
                "--proxy-tls-cert",
                one(&self.proxy_tls_cert),
            ),
            (
                "server.proxy_tls_key",
                "--proxy-tls-key",
                one(&self.proxy_tls_key),
            ),
            (
                "server.proxy_tls_names",
                "--proxy-tls-name",
                self.proxy_tls_name.clone(),
            ),
            (
                "server.allow_plaintext_listener",
                "--allow-plaintext-listener",
                self.allow_plaintext_listener
                    .then(|| "true".to_owned())
                    .into_iter()
                    .collect(),
            ),
            ("database.url", "--database", one(&self.database)),
            ("server.node", "--node", one(&self.node)),
            ("keys.provider", "--key-provider", one(&self.key_provider)),
            (
                "ledger.durability",
                "--ledger-durability",
                one(&self.ledger_durability),
            ),
            (
                "network.upstream_ca",
                "--upstream-ca",
                one(&self.upstream_ca),
            ),
            ("network.resolve", "--resolve", self.resolve.clone()),
            (
                "network.upstream_proxy",
                "--upstream-proxy",
                one(&self.upstream_proxy),
            ),
            (
                "network.allow_address",
                "--allow-address",
                self.allow_address.clone(),
            ),
            ("providers.dir", "--providers", one(&self.providers)),
            ("cache.ttl", "--cache-ttl", one(&self.cache_ttl)),
            (
                "keys.passphrase_file",
                "--passphrase-file",
                one(&self.passphrase_file),
            ),
            ("log.level", "--log", one(&self.log)),
            ("log.format", "--log-format", one(&self.log_format)),
        ]
    }
}

pub(crate) fn run(context: &Context, args: &Args, role: Role) -> anyhow::Result<()> {
    let refused = hardening::harden();
    let loaded = config::Loaded::read(args.config.as_deref(), &args.overrides(context))?;
    let exposed = loaded.exposed_password();
    let config = loaded.config;
    custody::enter_token(&config)?;
    let telemetry = telemetry::start(&config.log.level, config.log.format)?;
    for refusal in refused {
        tracing::warn!("{refusal}");
    }
    if let Some(origin) = exposed {
        tracing::warn!(
            "other processes can read the database's password in {origin}; give it as database.password_file"
        );
    }
    if let Err(error) = vault::memory::check() {
        tracing::warn!("opened secrets may be swapped to disk: {error}");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(plant::workers(&config))
        .thread_name("claviger")
        .enable_all()
        .build()
        .context("the runtime cannot start")?;
    let outcome = runtime.block_on(serve(context, &config, role));
    // What is still blocked in the kernel must not keep the process.
    runtime.shutdown_timeout(Duration::from_secs(1));
    drop(telemetry);
    outcome
}

async fn serve(context: &Context, config: &Config, role: Role) -> anyhow::Result<()> {
    // Caught from the first moment on, so that an early stop leaves no half-made installation behind.
    let mut stop = Stop::listen()?;
    let tls = listener_tls(config)?;
    let api_tls = api_tls(config)?;
    let encrypted = Encrypted {
        api: api_tls.is_some(),
        proxy: tls.is_some(),
    };
    guard_listeners(config, role, encrypted)?;
    let data = DataDir::or_default(config.server.data.clone())?;
    let (mut plant, means) = Plant::open(config, data, role).await?;
    let api = bind("API", "--api", config.server.api)?;
    let proxy = role
        .injects()
        .then(|| bind("injector", "--proxy", config.server.proxy))
        .transpose()?;
    let addresses = Addresses {
        api: api.local_addr()?,
        proxy: proxy.as_ref().map(TcpListener::local_addr).transpose()?,
        encrypted,
    };
    warn_of_settings(config, &addresses);

    let (down, shutdown) = watch::channel(false);
    let listeners = Listeners {
        api,
        api_tls,
        proxy,
        tls,
    };
    let mut planes = Planes::start(
        (&mut plant, means),
        config,
        &addresses,
        listeners,
        &shutdown,
    )?;
    tokio::select! {
        ended = planes.ended() => return Err(ended),
        ready = ready::all(&addresses) => ready?,
        signal = stop.next() => {
            tracing::info!(signal, "stopped before it was ready");
            return Ok(());
        }
    }
    announce(context, &plant, &addresses)?;
    let facts = NodeFacts {
        planes: role.planes(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        api_address: Some(addresses.api.to_string()),
        proxy_address: addresses.proxy.map(|proxy| proxy.to_string()),
    };
    // For people alone, so a database that is away now is no reason to stop.
    if let Err(error) = plant.store.nodes().announce(facts).await {
        tracing::warn!(%error, "this node's addresses are not in the list of nodes");
    }
    let ended = tokio::select! {
        ended = planes.ended() => Some(ended),
        signal = stop.next() => {
            tracing::info!(signal, "draining");
            None
        }
    };
    down.send_replace(true);
    let outcome = ended.map_or(Ok(()), Err);
    tokio::select! {
        () = planes.drain(config.server.drain) => {}
        signal = stop.next() => tracing::warn!(signal, "asked again: requests in flight are cut"),
    }
    plant.store.close().await;
    tracing::info!("stopped");
    outcome
}

/// Where the planes really listen. An injector's API tells its health and metrics.
#[derive(Clone, Copy, Debug)]
struct Addresses {
    api: SocketAddr,
    proxy: Option<SocketAddr>,
    encrypted: Encrypted,
}

impl Addresses {
    fn url_of(&self, proxy: SocketAddr) -> String {
        let scheme = if self.encrypted.proxy {
            "https"
        } else {
            "http"
        };
        format!("{scheme}://{proxy}")
    }
}

/// Which listeners speak TLS themselves.
#[derive(Clone, Copy, Debug, Default)]
struct Encrypted {
    api: bool,
    proxy: bool,
}

/// What the planes listen on.
#[derive(Debug)]
struct Listeners {
    api: TcpListener,
    api_tls: Option<ApiTls>,
    proxy: Option<TcpListener>,
    tls: Option<ListenerTls>,
}

/// The certificate of the injector itself, if it is to have one.
fn listener_tls(config: &Config) -> Result<Option<ListenerTls>, Failure> {
    let server = &config.server;
    let names = &server.proxy_tls_names;
    match (&server.proxy_tls_certificate, &server.proxy_tls_key) {
        (None, None) if names.is_empty() => Ok(None),
        (None, None) => Ok(Some(ListenerTls::Own {
            names: names.clone(),
        })),
        (Some(certificate), Some(key)) if names.is_empty() => Ok(Some(ListenerTls::Files {
            certificate: certificate.clone(),
            key: key.clone(),
        })),
        (Some(_), Some(_)) => Err(Failure::new(
            "server.proxy_tls_names asks for a certificate of the CA while server.proxy_tls_certificate names another",
        )
        .code("config_invalid")
        .hint("leave one of them out")),
        _ => Err(Failure::new(
            "of server.proxy_tls_certificate and server.proxy_tls_key only one is given",
        )
        .code("config_invalid")
        .hint("give both, or server.proxy_tls_names alone for a certificate of the CA")),
    }
}

/// The certificate of the API, if it is to have one.
fn api_tls(config: &Config) -> anyhow::Result<Option<ApiTls>> {
    let server = &config.server;
    match (&server.api_tls_certificate, &server.api_tls_key) {
        (None, None) => Ok(None),
        (Some(certificate), Some(key)) => {
            let loaded = ApiTls::load(certificate.clone(), key.clone());
            let tls = loaded.context("the API cannot speak TLS")?;
            Ok(Some(tls))
        }
        _ => Err(Failure::new(
            "of server.api_tls_certificate and server.api_tls_key only one is given",
        )
        .code("config_invalid")
        .hint("give both: the chain with the API's own certificate first, and its private key")
        .into()),
    }
}

/// What crosses a listener in cleartext stays on this machine unless the owner says otherwise.
fn guard_listeners(config: &Config, role: Role, encrypted: Encrypted) -> Result<(), Failure> {
    let listeners = [
        ("injector", "--proxy", config.server.proxy),
        ("API", "--api", config.server.api),
    ];
    let in_cleartext = |plane: &str| match plane {
        "API" => !encrypted.api,
        _ => role.injects() && !encrypted.proxy,
    };
    let beyond = listeners
        .iter()
        .filter(|(plane, _, _)| in_cleartext(plane))
        .find(|(_, _, address)| !address.ip().to_canonical().is_loopback());
    match beyond {
        Some((plane, option, address)) if !config.server.allow_plaintext_listener => {
            let tls = if *plane == "API" {
                "give it a certificate (--api-tls-cert FILE --api-tls-key FILE), put a TLS terminator before it"
            } else {
                "give it a certificate (--proxy-tls-name NAME, or --proxy-tls-cert FILE --proxy-tls-key FILE)"
            };
            Err(Failure::new(format!("the {plane} would take leases and keys in cleartext on {address}, beyond this machine")).code("plaintext_listener").hint(format!(
                "{tls}, listen on loopback ({option} 127.0.0.1:{}), or say --allow-plaintext-listener on a network that you trust",
                address.port()
            )))
        }
        _ => Ok(()),
    }
}

fn warn_of_settings(config: &Config, addresses: &Addresses) {
    let beyond = addresses
        .proxy
        .filter(|proxy| !proxy.ip().to_canonical().is_loopback());
    if let Some(proxy) = beyond {
        if config.server.allow_plaintext_listener {
            tracing::warn!(server.address = %proxy, "leases may cross the network in cleartext");
        }
        if config.keys.provider == KeyProvider::Software && config.keys.passphrase_file.is_none() {
            tracing::warn!(
                "the software keys lie in files without a passphrase while others can reach the injector"
            );
        }
    }
    if config.ledger.durability == Durability::Committed {
        tracing::warn!(
            "uses are committed and not synced: a power cut may lose records of what was sent"
        );
    }
}

fn bind(plane: &str, option: &str, address: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).map_err(|error| {
        Failure::new(format!("the {plane} cannot listen on {address}: {error}"))
            .code("listen")
            .hint(format!(
                "stop what listens there, or choose another: {option} 127.0.0.1:0 takes a free port"
            ))
    })
}

/// Says that what runs answers: to the commands beside this server, and on stdout.
fn announce(context: &Context, plant: &Plant, addresses: &Addresses) -> anyhow::Result<()> {
    let ca = plant.data.ca();
    plant.held.record(&Record {
        api: addresses.api.to_string(),
        proxy: addresses.proxy.map(|proxy| proxy.to_string()),
        ca: ca.clone(),
        pid: std::process::id(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    })?;
    let scheme = |is_tls| if is_tls { "https" } else { "http" };
    let Encrypted { api, proxy } = addresses.encrypted;
    let api = format!("{}://{}", scheme(api), addresses.api);
    let scheme = scheme(proxy);
    let proxy = addresses.proxy.map(|proxy| format!("{scheme}://{proxy}"));
    tracing::info!(api, proxy, "ready");
    let data = plant.data.path();
    let ready = json!({ "ready": true, "api": api, "proxy": proxy, "ca": ca, "data": data });
    let proxy = proxy.map_or_else(String::new, |proxy| format!(" proxy={proxy}"));
    let line = format!(
        "ready api={api}{proxy} ca={} data={}",
        ca.display(),
        data.display()
    );
    context.output.done(&ready, line);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listening(proxy: &str, allow: bool) -> Result<(), Failure> {
        let mut config = Config::default();
        config.server.proxy = proxy.parse().unwrap();
        config.server.allow_plaintext_listener = allow;
        guard_listeners(&config, Role::Both, Encrypted::default())
    }

    #[test]
    fn leases_are_taken_in_cleartext_on_loopback_alone() {
        listening("127.0.0.1:8182", false).unwrap();
        listening("[::1]:8182", false).unwrap();
        for beyond in ["0.0.0.0:8182", "[::]:8182", "192.0.2.1:8182"] {
            let refusal = listening(beyond, false).unwrap_err();
            assert!(
                refusal
                    .next_action()
                    .unwrap()
                    .contains("--allow-plaintext-listener"),
                "{beyond}"
            );
            listening(beyond, true).unwrap();
        }
    }

    #[test]
    fn a_certificate_lifts_it_for_its_own_listener_alone() {
        let mut config = Config::default();
        let guard = |config: &Config, api, proxy| {
            guard_listeners(config, Role::Both, Encrypted { api, proxy })
        };
        config.server.proxy = "0.0.0.0:8182".parse().unwrap();
        guard(&config, false, true).unwrap();
        guard(&config, true, false).unwrap_err();
        config.server.api = "0.0.0.0:8181".parse().unwrap();
        guard(&config, true, true).unwrap();
        let refusal = guard(&config, false, true).unwrap_err();
        assert!(refusal.next_action().unwrap().contains("--api-tls-cert"));
    }

    #[test]
    fn the_apis_certificate_is_two_files_that_can_be_used() {
        let mut config = Config::default();
        assert!(api_tls(&config).unwrap().is_none());
        config.server.api_tls_certificate = Some("/nowhere/t.crt".into());
        api_tls(&config).unwrap_err();
        config.server.api_tls_key = Some("/nowhere/t.key".into());
        let refusal = api_tls(&config).unwrap_err();
        assert!(format!("{refusal:#}").contains("/nowhere/t.crt cannot be read"));
    }

    #[test]
    fn a_certificate_is_two_files_or_names() {
        let mut config = Config::default();
        assert_eq!(listener_tls(&config).unwrap(), None);
        config.server.proxy_tls_names = vec!["proxy.example".to_owned()];
        assert!(matches!(
            listener_tls(&config),
            Ok(Some(ListenerTls::Own { .. }))
        ));
        config.server.proxy_tls_certificate = Some("/t.crt".into());
        listener_tls(&config).unwrap_err();
        config.server.proxy_tls_key = Some("/t.key".into());
        listener_tls(&config).unwrap_err();
        config.server.proxy_tls_names.clear();
        assert!(matches!(
            listener_tls(&config),
            Ok(Some(ListenerTls::Files { .. }))
        ));
    }

    #[test]
    fn a_taken_port_is_told_with_the_option_that_chooses_another() {
        let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let refusal = bind("API", "--api", taken.local_addr().unwrap()).unwrap_err();
        assert!(refusal.next_action().unwrap().contains("--api 127.0.0.1:0"));
    }
}
