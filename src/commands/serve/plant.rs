//! What stands before anything listens: directory, keys, store, and what the first start makes.

use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use control_plane::keys::CA;
use control_plane::{ApiKey, Bootstrapped, JwtKey, KeyChest, KeyRing, NewKey, bootstrap};
use leases::OrgId;
use leases::clock::{Clock, SystemClock};
use providers::Catalog;
use proxy::tls::ca::Authority;
use store::{Location, Store, StoreOptions, Synchronous};
use vault::Vault;
use zeroize::Zeroizing;

use super::Role;
use super::custody::{self, Custody};
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
    pub(super) authority: Arc<Authority>,
    pub(super) org: OrgId,
    pub(super) keys: Arc<KeyRing>,
    /// Every root that a provider's certificate may chain to, PEM.
    pub(super) upstream_roots: PathBuf,
    pub(super) held: Held,
}

impl Plant {
    /// Opens the installation, and makes it at the first start. What mints and signs goes to the API alone.
    pub(super) async fn open(
        config: &Config,
        data: DataDir,
        role: Role,
    ) -> anyhow::Result<(Self, JwtKey)> {
        data.create()?;
        let held = data.hold()?;
        let catalog = Arc::new(catalog(config)?);
        let upstream_roots = upstream_roots(config, &data)?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let Custody { vault, signer } = Custody::open(config, &data).await?;
        let store = open_store(config, &data, Arc::clone(&clock)).await?;
        let _ = (role, signer);
        let service = bootstrap(&store, &vault, clock.as_ref())
            .await
            .context("the service's own keys cannot be had")?;
        let Bootstrapped {
            org,
            admin_key,
            keys,
            jwt,
            checkpoints,
            chest,
        } = service;
        store.audit().start_checkpoints(checkpoints);
        match admin_key {
            Some(key) => leave_admin_key(&data, &key)?,
            None if data.admin_key().exists() => {}
            None => tracing::info!(
                "{} is not there; `claviger keys reissue-admin` makes another",
                data.admin_key().display()
            ),
        }
        let authority = Arc::new(authority(&chest, clock.as_ref()).await?);
        write_private(&data.ca(), authority.certificate_pem().as_bytes())
            .with_context(|| format!("cannot write {}", data.ca().display()))?;
        let plant = Self {
            data,
            store,
            vault,
            catalog,
            clock,
            authority,
            org,
            keys: Arc::new(keys),
            upstream_roots,
            held,
        };
        Ok((plant, jwt))
    }
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
    existing(&location(&config, &data)?)?;
    let _held = data.hold()?;
    let custody = Custody::open(&config, &data).await?;
    let store = open_store(&config, &data, Arc::new(SystemClock)).await?;
    let service = bootstrap(&store, &custody.vault, &SystemClock).await?;
    let key = control_plane::reissue_admin_key(&store, &service.org).await?;
    leave_admin_key(&data, &key)?;
    store.close().await;
    Ok(data.admin_key())
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
    let extra = config
        .network
        .upstream_ca
        .as_deref()
        .map(read_ca)
        .transpose()?;
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

async fn open_store(
    config: &Config,
    data: &DataDir,
    clock: Arc<dyn Clock>,
) -> anyhow::Result<Store> {
    let location = location(config, data)?;
    let hint = match location {
        Location::Sqlite(_) => {
            "`claviger audit verify` reads the files as they lie; nothing was changed"
        }
        Location::Postgres(_) => {
            "check database.url and that the server answers there; `claviger migrate` makes the schema as its owner"
        }
    };
    let node = match (&config.server.node, &location) {
        (Some(node), _) => node.clone(),
        (None, Location::Sqlite(_)) => ALONE.to_owned(),
        (None, Location::Postgres(_)) => data.node()?,
    };
    let options = StoreOptions {
        node,
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

async fn authority(chest: &KeyChest, clock: &dyn Clock) -> anyhow::Result<Authority> {
    let opened = if let Some(opened) = chest.current(CA).await? {
        opened
    } else {
        let new = Authority::generate("Claviger CA", clock.now())?;
        let public = new.certificate_pem.into_bytes();
        chest
            .load_or_create(CA, |_| NewKey {
                secret: new.key,
                public,
            })
            .await?
    };
    // The certificate lies beside the sealed key; that it belongs to that key is checked when it is loaded.
    let certificate = String::from_utf8(opened.public).context("the CA certificate is no text")?;
    Authority::load(&certificate, &opened.secret).context("the CA cannot be loaded")
}

/// An error and its causes on one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
