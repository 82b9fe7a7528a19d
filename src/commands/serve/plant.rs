//! What stands before anything listens: directory, keys, store, and what the first start makes.

use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use control_plane::{
    ApiKey, Bootstrapped, CaKey, InjectorKeys, InjectorUrl, JwtKeys, JwtVerifier, KeyChest,
    KeyRing, MakeCa, NewCa, Start, VerifyingRing, bootstrap, ensure_ca, trust_pem, wait_for_keys,
};
use leases::clock::{Clock, SystemClock};
use leases::id::OrgId;
use prometheus::Registry;
use providers::Catalog;
use proxy::tls::ca::Authority;
use store::{Actor, Location, Store, StoreOptions, Synchronous};
use time::OffsetDateTime;
use vault::{Secret, Vault};
use zeroize::Zeroizing;

use super::Role;
use super::authority::Signing;
use super::custody::{self, Custody};
use super::metered::KeyMetrics;
use crate::commands::Context;
use crate::config::{Config, Durability, Loaded};
use crate::data_dir::{DataDir, Held, write_private};
use crate::failure::Failure;
use crate::trust;

/// The opened installation. `held` is the directory's lock; it goes last.
pub(super) struct Plant {
    pub(super) data: DataDir,
    pub(super) store: Store,
    pub(super) vault: Vault,
    pub(super) catalog: Arc<Catalog>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) chest: KeyChest,
    pub(super) injection: Option<Injection>,
    /// The certificates that agents trust, PEM; empty where this process may not open them.
    pub(super) ca_pem: Arc<str>,
    /// What this process counts.
    pub(super) registry: Registry,
    pub(super) held: Held,
}

/// What an injector has beside that.
pub(super) struct Injection {
    pub(super) authority: Signing,
    /// Every root that a provider's certificate may chain to, PEM.
    pub(super) upstream_roots: PathBuf,
}

/// The keys that tell the planes apart: only a control plane mints.
pub(super) enum Means {
    Mint {
        keys: Arc<KeyRing>,
        jwt: JwtKeys,
        injectors: Vec<InjectorUrl>,
    },
    Verify {
        roots: Arc<VerifyingRing>,
        tokens: Arc<JwtVerifier>,
    },
}

impl Plant {
    /// Opens the installation, and makes it at the first start of a control plane.
    pub(super) async fn open(
        config: &Config,
        data: DataDir,
        role: Role,
    ) -> anyhow::Result<(Self, Means)> {
        data.create()?;
        let held = data.hold()?;
        let catalog = Arc::new(catalog(config)?);
        let upstream_roots = role
            .injects()
            .then(|| upstream_roots(config, &data))
            .transpose()?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let registry = Registry::new();
        let metrics = KeyMetrics::register(&registry)?;
        let Custody { vault, signers } = Custody::open(config, &data, &metrics).await?;
        let location = location(config, &data)?;
        meeting_place(&location, role)?;
        let node = node(config, &data, &location)?;
        let store = open_store(config, &data, (location, &node), Arc::clone(&clock)).await?;
        let start = Start {
            store: &store,
            vault: &vault,
            clock: clock.as_ref(),
            signers,
            node: &node,
        };
        let (chest, means, ca) = match role {
            Role::Injector => found(&start).await?,
            Role::Both | Role::ControlPlane => made(&start, config, &data, role).await?,
        };
        let injection = match (ca, upstream_roots) {
            (Some(ca), Some(upstream_roots)) => Some(Injection {
                authority: Signing::new(&ca)?,
                upstream_roots,
            }),
            _ => None,
        };
        let ca_pem = trusted(&chest, clock.as_ref()).await?;
        if !ca_pem.is_empty() {
            write_private(&data.ca(), ca_pem.as_bytes())
                .with_context(|| format!("cannot write {}", data.ca().display()))?;
        }
        let plant = Self {
            data,
            store,
            vault,
            catalog,
            clock,
            chest,
            injection,
            ca_pem: ca_pem.into(),
            registry,
            held,
        };
        Ok((plant, means))
    }
}

type Opened = (KeyChest, Means, Option<CaKey>);

/// What a control plane makes at the first start, and finds later.
async fn made(
    start: &Start<'_>,
    config: &Config,
    data: &DataDir,
    role: Role,
) -> anyhow::Result<Opened> {
    let Bootstrapped {
        admin_key,
        keys,
        jwt,
        checkpoints,
        chest,
        ..
    } = bootstrap(start)
        .await
        .context("the service's own keys cannot be had")?;
    start.store.audit().start_checkpoints(checkpoints);
    match admin_key {
        Some(key) => leave_admin_key(data, &key)?,
        None if data.admin_key().exists() => {}
        None => tracing::info!(
            "{} is not there; `claviger keys reissue-admin` makes another",
            data.admin_key().display()
        ),
    }
    let now = start.clock.now();
    let ca = if role.injects() {
        Some(CaKey::load_or_create(&chest, &Tls, now).await?)
    } else {
        // It is made here and opened by injectors alone.
        ensure_ca(&chest, &Tls, now).await?;
        None
    };
    let means = Means::Mint {
        keys: Arc::new(keys),
        jwt,
        injectors: injectors(config)?,
    };
    Ok((chest, means, ca))
}

/// What an injector finds, once a control plane has made it.
async fn found(start: &Start<'_>) -> anyhow::Result<Opened> {
    let InjectorKeys {
        roots,
        tokens,
        authority,
        checkpoints,
        chest,
        ..
    } = wait_for_keys(start)
        .await
        .context("the service's own keys cannot be had")?;
    start.store.audit().start_checkpoints(checkpoints);
    let means = Means::Verify {
        roots: Arc::new(roots),
        tokens: Arc::new(tokens),
    };
    Ok((chest, means, Some(authority)))
}

/// The certificates that agents trust; none where the key provider lets this process open nothing.
async fn trusted(chest: &KeyChest, clock: &dyn Clock) -> anyhow::Result<String> {
    match trust_pem(chest, clock.now()).await {
        Err(error) if error.is_denied() => Ok(String::new()),
        other => Ok(other?),
    }
}

fn injectors(config: &Config) -> anyhow::Result<Vec<InjectorUrl>> {
    let urls = config.server.injectors.iter();
    let allow_plaintext = config.server.allow_plaintext_listener;
    Ok(urls
        .map(|url| InjectorUrl::parse(url.as_str(), allow_plaintext))
        .collect::<Result<_, _>>()?)
}

/// Threads for requests: as configured, else one a core.
pub(super) fn workers(config: &Config) -> usize {
    config
        .server
        .workers
        .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, NonZero::get))
}

/// What the offline commands work on: the configuration that a server here would run with, and its directory.
pub(crate) fn installation(
    context: &Context,
    database: Option<&str>,
) -> anyhow::Result<(Config, DataDir)> {
    let given = context
        .connection
        .data
        .as_ref()
        .map(|data| data.display().to_string());
    let database: Vec<String> = database.map(str::to_owned).into_iter().collect();
    let overrides = vec![
        ("server.data", "--data", given.into_iter().collect()),
        ("database.url", "--database", database),
    ];
    let config = Loaded::read(None, &overrides)?.config;
    let data = DataDir::or_default(config.server.data.clone())?;
    Ok((config, data))
}

/// Ends the owner's key and writes another, while no server runs.
pub(crate) async fn reissue_admin_key(context: &Context) -> anyhow::Result<PathBuf> {
    let (config, data) = installation(context, None)?;
    let location = location(&config, &data)?;
    existing(&location)?;
    let _held = data.hold()?;
    let node = node(&config, &data, &location)?;
    let clock = Arc::new(SystemClock);
    let store = open_store(&config, &data, (location, &node), clock).await?;
    let org = store
        .orgs()
        .first()
        .await?
        .context("the database has no organisation")?;
    let key = control_plane::reissue_admin_key(&store, &org.id).await?;
    leave_admin_key(&data, &key)?;
    store.close().await;
    Ok(data.admin_key())
}

/// Begins an epoch by hand: every lease is revoked. No server runs on a file meanwhile; those of a shared database may.
/// Gives the number of leases.
pub(crate) async fn begin_epoch(
    config: &Config,
    data: &DataDir,
    location: Location,
) -> anyhow::Result<u64> {
    let store = beside_servers(config, data, (location, "restore")).await?;
    // The start may have found the rollback by itself, and ended them then.
    let found = store.restored().map_or(0, |found| found.ended_leases);
    let ended = store.begin_epoch(&Actor::system("operator")).await?;
    store.close().await;
    Ok(found + ended)
}

/// The store for an operator's command. No server runs on a file meanwhile; those of a shared database may.
pub(crate) async fn open_for_operator(
    context: &Context,
    database: Option<&str>,
) -> anyhow::Result<Store> {
    let (config, data) = installation(context, database)?;
    let location = location(&config, &data)?;
    existing(&location)?;
    beside_servers(&config, &data, (location, "operator")).await
}

/// Takes all address rules from an organisation, the first one unless it is named, and gives their number: for an operator whom
/// they shut out with everybody else. No server runs on a file meanwhile; those of a shared database may.
pub(crate) async fn clear_ip_rules(
    context: &Context,
    (database, org): (Option<&str>, Option<&OrgId>),
) -> anyhow::Result<(OrgId, u64)> {
    let (config, data) = installation(context, database)?;
    let location = location(&config, &data)?;
    existing(&location)?;
    let _held = match location {
        Location::Sqlite(_) => Some(data.hold()?),
        Location::Postgres(_) => None,
    };
    let store = beside_servers(&config, &data, (location, "operator")).await?;
    let orgs = store.orgs();
    let found = match org {
        Some(org) => orgs.get(org).await?,
        None => orgs.first().await?,
    };
    let Some(found) = found else {
        return Err(Failure::new("there is no such organisation here")
            .code("not_found")
            .hint("`claviger whoami` of one of its people shows its org_id; leave --org out for the first one")
            .into());
    };
    let rules = store.ip_rules();
    let cleared = rules.clear(&found.id, &Actor::system("operator")).await?;
    store.close().await;
    Ok((found.id, cleared))
}

/// Opens the store for a command that may run beside the servers of a shared database.
async fn beside_servers(
    config: &Config,
    data: &DataDir,
    (location, purpose): (Location, &str),
) -> anyhow::Result<Store> {
    // A node's own name would take its streams away from it.
    let node = match &location {
        Location::Sqlite(_) => node(config, data, &location)?,
        Location::Postgres(_) => format!("{}-{purpose}", node(config, data, &location)?),
    };
    open_store(config, data, (location, &node), Arc::new(SystemClock)).await
}

/// Refuses a database file that is not there: an offline command makes none.
pub(crate) fn existing(location: &Location) -> Result<(), Failure> {
    match location.as_file() {
        Some(file) if !file.exists() => {
            Err(Failure::new(format!("{} does not exist", file.display()))
                .hint("`claviger serve` makes a database; name another directory with --data DIR"))
        }
        _ => Ok(()),
    }
}

fn leave_admin_key(data: &DataDir, key: &ApiKey) -> anyhow::Result<()> {
    let line = Zeroizing::new(format!("{}\n", key.reveal()));
    write_private(&data.admin_key(), line.as_bytes())
        .with_context(|| format!("cannot write {}", data.admin_key().display()))
}

fn catalog(config: &Config) -> anyhow::Result<Catalog> {
    let mut catalog = Catalog::builtin();
    if let Some(dir) = &config.providers.dir {
        catalog.load_dir(dir).map_err(|error| {
            Failure::new(error.to_string())
                .code("template_invalid")
                .hint("examples/provider-template.toml explains the format")
        })?;
    }
    Ok(catalog)
}

/// Writes the roots that Pingora reads: the system's, and the operator's beside them.
fn upstream_roots(config: &Config, data: &DataDir) -> anyhow::Result<PathBuf> {
    let extra = upstream_ca(config)?;
    let pem = trust::upstream_roots(extra.as_deref());
    if pem.is_empty() {
        return Err(Failure::new(
            "this machine has no root certificates, so no provider could be verified",
        )
        .hint("install the package ca-certificates, or name roots with --upstream-ca FILE")
        .into());
    }
    let path = data.path().join("upstream-roots.pem");
    write_private(&path, pem.as_bytes())
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

/// What the operator trusts beside this machine's roots.
pub(super) fn upstream_ca(config: &Config) -> Result<Option<Vec<u8>>, Failure> {
    let file = config.network.upstream_ca.as_deref();
    file.map(read_ca).transpose()
}

fn read_ca(path: &Path) -> Result<Vec<u8>, Failure> {
    let hint = "name a PEM file with --upstream-ca FILE";
    let pem = std::fs::read(path).map_err(|error| {
        Failure::new(format!("cannot read {}: {error}", path.display())).hint(hint)
    })?;
    if trust::certificates(&pem).is_empty() {
        return Err(
            Failure::new(format!("{} holds no PEM certificate", path.display())).hint(hint),
        );
    }
    Ok(pem)
}

/// Where the database is: as configured, else a file in the data directory.
pub(crate) fn location(config: &Config, data: &DataDir) -> Result<Location, Failure> {
    let location = config
        .database
        .location
        .clone()
        .unwrap_or_else(|| Location::Sqlite(data.database()));
    match (location, &config.database.password_file) {
        (Location::Postgres(url), Some(file)) => {
            let password = custody::read_secret(
                file,
                "database password",
                "name a readable file as database.password_file",
            )?;
            Ok(Location::Postgres(url.with_password(password.expose())))
        }
        (location, _) => Ok(location),
    }
}

/// Planes that run apart meet in a database that several processes may use.
fn meeting_place(location: &Location, role: Role) -> Result<(), Failure> {
    match (location, role) {
        (Location::Sqlite(file), Role::ControlPlane | Role::Injector) => Err(Failure::new(format!(
            "`claviger {}` meets the other planes in Postgres, and {} is a file for one process",
            role.command(),
            file.display()
        ))
        .code("config_invalid")
        .hint("name the database: --database postgres://USER@HOST/NAME; `claviger serve` runs both planes in one process")),
        _ => Ok(()),
    }
}

/// This process's name in the audit streams.
fn node(config: &Config, data: &DataDir, location: &Location) -> anyhow::Result<String> {
    match (&config.server.node, location) {
        (Some(node), _) => Ok(node.clone()),
        (None, Location::Sqlite(_)) => Ok(ALONE.to_owned()),
        (None, Location::Postgres(_)) => data.node(),
    }
}

async fn open_store(
    config: &Config,
    data: &DataDir,
    (location, node): (Location, &str),
    clock: Arc<dyn Clock>,
) -> anyhow::Result<Store> {
    let hint = match location {
        Location::Sqlite(_) => {
            "`claviger audit verify` reads the files as they lie; nothing was changed"
        }
        Location::Postgres(_) => {
            "check database.url and that the server answers there; `claviger migrate` makes the schema as its owner"
        }
    };
    let options = StoreOptions {
        node: node.to_owned(),
        synchronous: match config.ledger.durability {
            Durability::Synced => Synchronous::Full,
            Durability::Committed => Synchronous::Off,
        },
        ..StoreOptions::at(location, data.checkpoint(), clock)
    };
    Store::open(options).await.map_err(|error| {
        Failure::new(chain(&error))
            .code("store_unavailable")
            .hint(hint)
            .into()
    })
}

/// The one node of a database that one process has for itself.
const ALONE: &str = "local";

/// Makes certificate authorities for the injector's TLS.
#[derive(Debug)]
pub(super) struct Tls;

impl MakeCa for Tls {
    fn make(&self, now: OffsetDateTime) -> Result<NewCa, Box<dyn std::error::Error + Send + Sync>> {
        let new = Authority::generate("Claviger CA", now)?;
        Ok(NewCa {
            key: new.key,
            certificate_pem: new.certificate_pem,
        })
    }

    fn fits(&self, certificate_pem: &str, key: &Secret) -> bool {
        Authority::load(certificate_pem, key).is_ok()
    }
}

/// An error and its causes on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
