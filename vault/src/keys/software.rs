//! KEKs in files: the embedded default, where the disk's protection is the key's protection.
//!
//! One directory, mode 0700, holds one file of mode 0600 for each version of each vault's KEK,
//! `<vault>.v<version>.kek`, in the form that [`form`] describes. A KEK is read when the provider is opened and stays
//! in memory; each use looks whether its file is still the same, so that removing or exposing a file stops its use.
//!
//! A wrapped DEK is `format 1 = 0x01 | KEK version 4, big-endian | nonce 12 | encrypted DEK 32 | tag 16`: AES-256-GCM
//! under the KEK, whose AAD is the first 5 bytes and then the caller's. Nonces are random, which allows 2^32 wrappings
//! under one KEK version (SP 800-38D section 8.3).

mod dir;
mod error;
pub mod form;

use std::{
    collections::BTreeMap,
    fmt,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use parking_lot::RwLock;
use tokio::task::spawn_blocking;

use self::{
    dir::{KekName, KeyDir, LoadedKek},
    form::Argon2Cost,
};
pub use self::{error::KeyFileError, form::Protection};
use super::{Dek, KekId, KekInfo, KekState, KekVersion, KeyError, KeyWrapper};
use crate::aead::{KEY_LEN, Key, NONCE_LEN, TAG_LEN, random_nonce};

/// The provider's name, and the start of its KEK ids.
pub const PROVIDER: &str = "software";

/// How long a list of the key directory counts: a version that another process made wraps after this at the latest.
const FRESH_FOR: Duration = Duration::from_secs(2);
const MECHANISM: &str = "AES-256-GCM";
const WRAPPED_FORMAT: u8 = 1;
const WRAPPED_HEADER_LEN: usize = 1 + 4;
const WRAPPED_LEN: usize = WRAPPED_HEADER_LEN + NONCE_LEN + KEY_LEN + TAG_LEN;

/// The software key provider: a directory of KEK files. Clones share it.
#[derive(Clone)]
pub struct SoftwareKeys {
    shared: Arc<Shared>,
}

struct Shared {
    dir: KeyDir,
    // A KEK whose file went away or became unusable leaves memory, but its name stays, so that `check` goes on naming it
    // and no new KEK takes its place.
    known: RwLock<BTreeMap<KekName, Option<Arc<LoadedKek>>>>,
    /// When the directory was last listed.
    listed: parking_lot::Mutex<Instant>,
    // Reading a file may take an argon2 pass; those who need the same one wait instead of paying for it again.
    loading: parking_lot::Mutex<()>,
    // Two rotations at once would make one version between them.
    rotating: parking_lot::Mutex<()>,
}

impl SoftwareKeys {
    /// Opens the key directory, which is made if it is missing, and reads every KEK in it.
    ///
    /// It does blocking work: with a passphrase, one argon2id pass of about 0.2 s.
    ///
    /// # Errors
    /// A [`KeyFileError`] that names the directory or file that cannot be used, and what to do about it.
    pub fn open(dir: &Path, protection: Protection) -> Result<Self, KeyFileError> {
        Self::open_with(dir, protection, Argon2Cost::default())
    }

    fn open_with(
        dir: &Path,
        protection: Protection,
        cost: Argon2Cost,
    ) -> Result<Self, KeyFileError> {
        let dir = KeyDir::open(dir, protection, cost)?;
        let listed = Instant::now();
        let mut known = BTreeMap::new();
        for name in dir.list()? {
            let kek = dir.load(&name)?.map(Arc::new);
            known.insert(name, kek);
        }
        let shared = Shared {
            dir,
            known: RwLock::new(known),
            listed: parking_lot::Mutex::new(listed),
            loading: parking_lot::Mutex::new(()),
            rotating: parking_lot::Mutex::new(()),
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// The key directory.
    pub fn dir(&self) -> &Path {
        self.shared.dir.path()
    }

    /// The newest version of a vault's KEK, as it was at most [`FRESH_FOR`] ago whoever made it.
    async fn newest(&self, vault: &str) -> Result<Option<KekName>, KeyError> {
        let age = self.shared.listed.lock().elapsed();
        if age >= FRESH_FOR {
            let shared = Arc::clone(&self.shared);
            blocking(move || shared.look()).await?;
        }
        Ok(self.shared.current(vault))
    }

    /// Lets what is known of the directory be too old.
    #[cfg(test)]
    pub(crate) fn age(&self) {
        let mut listed = self.shared.listed.lock();
        *listed = listed.checked_sub(FRESH_FOR).unwrap();
    }

    /// The KEK of this name, read anew if its file has changed.
    async fn kek(&self, id: &KekId, name: KekName) -> Result<Arc<LoadedKek>, KeyError> {
        if let Some(kek) = self.shared.unchanged(&name) {
            return Ok(kek);
        }
        let shared = Arc::clone(&self.shared);
        let found = blocking(move || shared.reload(&name)).await?;
        found.ok_or_else(|| KeyError::UnknownKek { kek: id.clone() })
    }
}

impl fmt::Debug for SoftwareKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SoftwareKeys")
            .field("dir", &self.dir())
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl KeyWrapper for SoftwareKeys {
    fn provider(&self) -> &'static str {
        PROVIDER
    }

    async fn create_kek(&self, vault: &str) -> Result<KekId, KeyError> {
        let name = KekName::first(vault).ok_or_else(|| KeyError::BadName {
            name: vault.to_owned(),
        })?;
        let shared = Arc::clone(&self.shared);
        let id = kek_id(&name);
        blocking(move || shared.find_or_create(&name)).await?;
        Ok(id)
    }

    async fn wrap(&self, kek: &KekId, dek: &Dek, aad: &[u8]) -> Result<Vec<u8>, KeyError> {
        let unknown = || KeyError::UnknownKek { kek: kek.clone() };
        let vault = vault_of(kek).ok_or_else(unknown)?;
        let name = self
            .newest(vault)
            .await?
            .or_else(|| KekName::first(vault))
            .ok_or_else(unknown)?;
        let version = name.version();
        let loaded = self.kek(kek, name).await?;
        Ok(wrap_under(loaded.key(), version, dek, aad)?)
    }

    async fn unwrap(&self, kek: &KekId, wrapped: &[u8], aad: &[u8]) -> Result<Dek, KeyError> {
        let tampered = || KeyError::Tampered { kek: kek.clone() };
        let unknown = || KeyError::UnknownKek { kek: kek.clone() };
        let wrapped = Wrapped::parse(wrapped).ok_or_else(tampered)?;
        let vault = vault_of(kek).ok_or_else(unknown)?;
        let name = KekName::new(vault, wrapped.version).ok_or_else(unknown)?;
        let loaded = self.kek(kek, name).await?;
        wrapped.open(loaded.key(), aad).ok_or_else(tampered)
    }

    async fn rotate_kek(&self, kek: &KekId) -> Result<u64, KeyError> {
        let first = first_of(kek)?;
        let shared = Arc::clone(&self.shared);
        let version = blocking(move || shared.rotate(&first)).await?;
        Ok(u64::from(version))
    }

    async fn describe(&self, kek: &KekId) -> Result<KekInfo, KeyError> {
        let first = first_of(kek)?;
        let shared = Arc::clone(&self.shared);
        let versions = blocking(move || shared.describe(&first)).await?;
        let current = versions.last().map(|version| version.number);
        Ok(KekInfo {
            kek: kek.clone(),
            current: current.ok_or_else(|| KeyError::UnknownKek { kek: kek.clone() })?,
            versions,
        })
    }

    async fn current_version(&self, kek: &KekId) -> Result<u64, KeyError> {
        let first = first_of(kek)?;
        match self.newest(first.vault()).await? {
            Some(name) => Ok(u64::from(name.version())),
            None => Ok(self.describe(kek).await?.current),
        }
    }

    fn wrapped_version(&self, wrapped: &[u8]) -> Option<u64> {
        Wrapped::parse(wrapped).map(|wrapped| u64::from(wrapped.version))
    }

    async fn check(&self) -> Result<(), KeyError> {
        let shared = Arc::clone(&self.shared);
        blocking(move || shared.check()).await
    }
}

impl Shared {
    /// The newest version of a vault's KEK that was seen.
    fn current(&self, vault: &str) -> Option<KekName> {
        let versions = KekName::first(vault)?..=KekName::new(vault, u32::MAX)?;
        let known = self.known.read();
        known
            .range(versions)
            .next_back()
            .map(|(name, _)| name.clone())
    }

    /// The KEK, if its file is the one that was read. This is one `lstat`, which is cheaper than a change of threads.
    fn unchanged(&self, name: &KekName) -> Option<Arc<LoadedKek>> {
        let kek = self.known.read().get(name)?.as_ref().map(Arc::clone)?;
        kek.is_unchanged().then_some(kek)
    }

    /// Reads the file again. `None` if it is gone; the KEK in memory then goes too, as it does with any error.
    fn reload(&self, name: &KekName) -> Result<Option<Arc<LoadedKek>>, KeyFileError> {
        let _one_at_a_time = self.loading.lock();
        if let Some(kek) = self.unchanged(name) {
            return Ok(Some(kek));
        }
        if let Some(stale) = self.known.write().get_mut(name) {
            *stale = None;
        }
        let Some(kek) = self.dir.load(name)?.map(Arc::new) else {
            return Ok(None);
        };
        self.known
            .write()
            .insert(name.clone(), Some(Arc::clone(&kek)));
        Ok(Some(kek))
    }

    fn find_or_create(&self, first: &KekName) -> Result<(), KeyError> {
        let current = self.current(first.vault());
        let name = current.as_ref().unwrap_or(first);
        if self.reload(name)?.is_some() {
            return Ok(());
        }
        let lost = || KeyError::UnknownKek { kek: kek_id(name) };
        if current.is_some() {
            return Err(lost());
        }
        self.create(name)
    }

    fn create(&self, name: &KekName) -> Result<(), KeyError> {
        self.dir.create(name)?;
        self.reload(name)?
            .ok_or_else(|| KeyError::UnknownKek { kek: kek_id(name) })?;
        tracing::info!(
            vault.id = name.vault(),
            kek.version = name.version(),
            "created version {} of the KEK of vault {}",
            name.version(),
            name.vault(),
        );
        Ok(())
    }

    /// Makes the version after the newest one that has a file, whoever made that.
    fn rotate(&self, first: &KekName) -> Result<u32, KeyError> {
        let unknown = || KeyError::UnknownKek { kek: kek_id(first) };
        let _one_at_a_time = self.rotating.lock();
        self.discover()?;
        let current = self.current(first.vault()).ok_or_else(unknown)?;
        // A lost KEK is not replaced: its file may come back from a backup.
        self.reload(&current)?.ok_or_else(unknown)?;
        let next = current.version().checked_add(1);
        let next = next
            .and_then(|version| KekName::new(first.vault(), version))
            .ok_or_else(unknown)?;
        self.create(&next)?;
        Ok(next.version())
    }

    fn describe(&self, first: &KekName) -> Result<Vec<KekVersion>, KeyError> {
        self.discover()?;
        let names: Vec<_> = {
            let known = self.known.read();
            let all = known.keys().filter(|name| name.vault() == first.vault());
            all.cloned().collect()
        };
        let mut versions = Vec::with_capacity(names.len());
        for name in names {
            let kek = self.reload(&name)?;
            versions.push(KekVersion {
                number: u64::from(name.version()),
                created_at: kek.as_ref().and_then(|kek| kek.created_at()),
                // A file that is gone may come back.
                state: kek.map_or(KekState::Disabled, |_| KekState::Enabled),
                mechanism: MECHANISM,
            });
        }
        Ok(versions)
    }

    /// Learns the names of KEKs that another process has made since. A file of no proper name is left to `check`: it
    /// must not stop what the others can do.
    fn look(&self) -> Result<(), KeyFileError> {
        let now = Instant::now();
        let names = self.dir.list_proper()?;
        let mut known = self.known.write();
        for name in names {
            known.entry(name).or_default();
        }
        drop(known);
        *self.listed.lock() = now;
        Ok(())
    }

    /// Learns of KEKs that another process has made since.
    fn discover(&self) -> Result<(), KeyFileError> {
        for name in self.dir.list()? {
            if !self.known.read().contains_key(&name) {
                self.reload(&name)?;
            }
        }
        Ok(())
    }

    fn check(&self) -> Result<(), KeyError> {
        self.dir.check()?;
        self.discover()?;
        let names: Vec<_> = self.known.read().keys().cloned().collect();
        for name in names {
            if self.reload(&name)?.is_none() {
                return Err(KeyError::UnknownKek { kek: kek_id(&name) });
            }
        }
        Ok(())
    }
}

/// A wrapped DEK's fields.
struct Wrapped<'a> {
    header: &'a [u8; WRAPPED_HEADER_LEN],
    version: u32,
    nonce: &'a [u8; NONCE_LEN],
    sealed: &'a [u8; KEY_LEN],
    tag: &'a [u8; TAG_LEN],
}

impl<'a> Wrapped<'a> {
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (header, rest) = bytes.split_first_chunk::<WRAPPED_HEADER_LEN>()?;
        let (nonce, rest) = rest.split_first_chunk()?;
        let (sealed, rest) = rest.split_first_chunk()?;
        let tag = rest.try_into().ok()?;
        let [format, version @ ..] = *header;
        let version = u32::from_be_bytes(version);
        (format == WRAPPED_FORMAT).then_some(Self {
            header,
            version,
            nonce,
            sealed,
            tag,
        })
    }

    fn open(&self, kek: &Key, aad: &[u8]) -> Option<Dek> {
        let dek = Key::fill_with(|bytes| {
            bytes.copy_from_slice(self.sealed);
            kek.open(self.nonce, &[self.header, aad].concat(), bytes, self.tag)
        });
        dek.ok().map(Dek::from)
    }
}

fn wrap_under(kek: &Key, version: u32, dek: &Dek, aad: &[u8]) -> Result<Vec<u8>, KeyError> {
    let nonce = random_nonce()?;
    let mut wrapped = Vec::with_capacity(WRAPPED_LEN);
    wrapped.push(WRAPPED_FORMAT);
    wrapped.extend_from_slice(&version.to_be_bytes());
    let aad = [&wrapped, aad].concat();
    wrapped.extend_from_slice(&nonce);
    let start = wrapped.len();
    wrapped.extend_from_slice(dek.expose());
    let tag = kek.seal(&nonce, &aad, &mut wrapped[start..]);
    wrapped.extend_from_slice(&tag);
    Ok(wrapped)
}

fn kek_id(name: &KekName) -> KekId {
    KekId::parse(&format!("{PROVIDER}:{}", name.vault()))
        .expect("a vault's name is at most 64 visible ASCII characters")
}

/// The name of a KEK's first version.
fn first_of(kek: &KekId) -> Result<KekName, KeyError> {
    vault_of(kek)
        .and_then(KekName::first)
        .ok_or_else(|| KeyError::UnknownKek { kek: kek.clone() })
}

fn vault_of(kek: &KekId) -> Option<&str> {
    kek.as_str().strip_prefix(PROVIDER)?.strip_prefix(':')
}

/// Runs file and argon2 work away from the runtime's threads.
async fn blocking<T, E>(work: impl FnOnce() -> Result<T, E> + Send + 'static) -> Result<T, KeyError>
where
    T: Send + 'static,
    E: Into<KeyError> + Send + 'static,
{
    match spawn_blocking(work).await {
        Ok(result) => result.map_err(Into::into),
        Err(error) => Err(KeyError::Unavailable {
            provider: PROVIDER,
            reason: error.to_string(),
        }),
    }
}

#[cfg(test)]
mod tests;
