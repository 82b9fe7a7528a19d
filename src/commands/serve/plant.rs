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
use store::{Store, StoreOptions, Synchronous};
use vault::keys::software::{Protection, SoftwareKeys};
use vault::{Secret, Vault};
use zeroize::Zeroizing;

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
    /// Opens the installation, and makes it at the first start. The key of agents' tokens goes to the API alone.
    pub(super) async fn open(config: &Config, data: DataDir) -> anyhow::Result<(Self, JwtKey)> {
        data.create()?;
        let held = data.hold()?;
        let catalog = Arc::new(catalog(config)?);
        let upstream_roots = upstream_roots(config, &data)?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let vault = open_vault(config, &data)?;
        let store = open_store(config, &data, Arc::clone(&clock)).await?;
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
pub(crate) fn installation(context: &Context) -> anyhow::Result<(Config, DataDir)> {
    let given = context
        .connection
        .data
        .as_ref()
        .map(|data| data.display().to_string());
    let overrides = vec![("server.data", "--data", given.into_iter().collect())];
    let config = Loaded::read(None, &overrides)?.config;
    let data = DataDir::or_default(config.server.data.clone())?;
    Ok((config, data))
}

/// Ends the owner's key and writes another, while no server runs.
pub(crate) async fn reissue_admin_key(context: &Context) -> anyhow::Result<PathBuf> {
    let (config, data) = installation(context)?;
    if !database(&config, &data).exists() {
        return Err(Failure::new(format!("{} holds no database", data.path().display()))
            .hint("the first `claviger serve` makes the key; name another directory with --data DIR")
            .into());
    }
    let _held = data.hold()?;
    let vault = open_vault(&config, &data)?;
    let store = open_store(&config, &data, Arc::new(SystemClock)).await?;
    let service = bootstrap(&store, &vault, &SystemClock).await?;
    let key = control_plane::reissue_admin_key(&store, &service.org).await?;
    leave_admin_key(&data, &key)?;
    store.close().await;
    Ok(data.admin_key())
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

fn open_vault(config: &Config, data: &DataDir) -> anyhow::Result<Vault> {
    let protection = match &config.keys.passphrase_file {
        None => Protection::File,
        Some(file) => Protection::Passphrase(read_passphrase(file)?),
    };
    let keys = SoftwareKeys::open(&data.keys(), protection).map_err(|error| {
        Failure::new(chain(&error))
            .code("key_unavailable")
            .hint("the key directory belongs to this user alone: files 0600, directory 0700")
    })?;
    Ok(Vault::new(Arc::new(keys)))
}

fn read_passphrase(file: &Path) -> Result<Secret, Failure> {
    use std::os::unix::fs::PermissionsExt as _;
    let failure = |error: std::io::Error| {
        Failure::new(format!(
            "cannot read the passphrase in {}: {error}",
            file.display()
        ))
        .hint("name a readable file with --passphrase-file FILE")
    };
    let mode = std::fs::metadata(file)
        .map_err(failure)?
        .permissions()
        .mode();
    if mode & 0o077 != 0 {
        return Err(Failure::new(format!(
            "{} is readable by others (mode {:04o})",
            file.display(),
            mode & 0o7777
        ))
        .hint(format!("run `chmod 600 {}`", file.display())));
    }
    let text = Zeroizing::new(std::fs::read(file).map_err(failure)?);
    let end = text
        .iter()
        .rposition(|byte| !b"\r\n".contains(byte))
        .map_or(0, |last| last + 1);
    if end == 0 {
        return Err(
            Failure::new(format!("the passphrase in {} is empty", file.display()))
                .hint("write the passphrase into it, on one line"),
        );
    }
    Ok(Secret::new(text[..end].to_vec()))
}

pub(crate) fn database(config: &Config, data: &DataDir) -> PathBuf {
    config
        .database
        .file
        .clone()
        .unwrap_or_else(|| data.database())
}

async fn open_store(
    config: &Config,
    data: &DataDir,
    clock: Arc<dyn Clock>,
) -> anyhow::Result<Store> {
    let mut options = StoreOptions::new(database(config, data), clock);
    options.checkpoint = data.checkpoint();
    options.synchronous = match config.ledger.durability {
        Durability::Synced => Synchronous::Full,
        Durability::Committed => Synchronous::Off,
    };
    Store::open(options).await.map_err(|error| {
        Failure::new(chain(&error))
            .code("store_unavailable")
            .hint("`claviger audit verify` reads the files as they lie; nothing was changed")
            .into()
    })
}

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
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
