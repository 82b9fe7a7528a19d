//! Keys of the service itself: kept sealed in the store, opened at start, shared with the injector.

use std::fmt;
use std::sync::Arc;

use leases::id::{OrgId, VaultId};
use leases::root_key::{RootKeyPair, RootPublicKeys};
use parking_lot::RwLock;
use store::{Actor, NewSealedKey, SealedKey, Store, StoreError};
use tokio::sync::watch;
use vault::{KekId, RowBinding, Secret, Vault};

/// Opens and makes sealed keys of the service, in the organisation's default vault.
///
/// A key's seal is bound to the path `__keys/<name>` and its version, so that no key opens in another's place.
#[derive(Debug, Clone)]
pub struct KeyChest {
    store: Store,
    vault: Vault,
    org: OrgId,
    vault_id: VaultId,
    kek: KekId,
}

/// A key to be sealed.
#[derive(Debug)]
pub struct NewKey {
    /// The secret half.
    pub secret: Secret,
    /// The public half, in whatever form its user likes.
    pub public: Vec<u8>,
}

/// A sealed key, opened.
#[derive(Debug)]
pub struct OpenedKey {
    /// From 1 up.
    pub version: u64,
    /// The secret half, authenticated by its seal.
    pub secret: Secret,
    /// The public half as it lies in the store: nothing authenticates it.
    pub public: Vec<u8>,
}

/// Why a key of the service cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyChestError {
    /// The organisation has no vault, or one whose key has no proper name.
    #[error("organisation {0} has no usable default vault; start the server once to make it")]
    NoVault(OrgId),
    /// The stored key does not open.
    #[error(
        "the sealed key `{name}` version {version} does not open; restore the key directory that belongs to this database"
    )]
    Open {
        /// The key's name.
        name: String,
        /// Its version.
        version: u64,
        /// What the vault says.
        #[source]
        source: vault::OpenError,
    },
    /// A new key cannot be sealed.
    #[error("the new key `{name}` cannot be sealed")]
    Seal {
        /// The key's name.
        name: String,
        /// What the vault says.
        #[source]
        source: vault::SealError,
    },
    /// The stored key opens and is not a key.
    #[error("the sealed key `{name}` is not a key of its kind")]
    Malformed {
        /// The key's name.
        name: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl KeyChest {
    /// The chest of an organisation.
    ///
    /// # Errors
    /// [`KeyChestError::NoVault`], [`KeyChestError::Store`].
    pub async fn of(store: &Store, vault: &Vault, org: &OrgId) -> Result<Self, KeyChestError> {
        let found = store.vaults().default_vault(org).await?;
        let row = found.ok_or_else(|| KeyChestError::NoVault(org.clone()))?;
        let kek = KekId::parse(&row.kek_id).map_err(|_| KeyChestError::NoVault(org.clone()))?;
        Ok(Self {
            store: store.clone(),
            vault: vault.clone(),
            org: org.clone(),
            vault_id: row.id,
            kek,
        })
    }

    /// The current version of a key; `None` when there is none.
    ///
    /// # Errors
    /// [`KeyChestError::Open`], [`KeyChestError::Store`].
    pub async fn current(&self, name: &str) -> Result<Option<OpenedKey>, KeyChestError> {
        match self.store.sealed_keys().current(&self.org, name).await? {
            Some(sealed) => self.open(sealed).await.map(Some),
            None => Ok(None),
        }
    }

    /// The newest versions of a key, newest first, at most `count`.
    ///
    /// # Errors
    /// [`KeyChestError::Open`], [`KeyChestError::Store`].
    pub async fn newest(&self, name: &str, count: usize) -> Result<Vec<OpenedKey>, KeyChestError> {
        let mut opened = Vec::new();
        for sealed in self
            .store
            .sealed_keys()
            .versions(&self.org, name)
            .await?
            .into_iter()
            .take(count)
        {
            opened.push(self.open(sealed).await?);
        }
        Ok(opened)
    }

    /// The current version of a key, which `make` makes when there is none. `make` is given the version.
    ///
    /// Of two processes that start at the same time one makes the key and both use it.
    ///
    /// # Errors
    /// [`KeyChestError`].
    pub async fn load_or_create(
        &self,
        name: &str,
        make: impl FnOnce(u64) -> NewKey,
    ) -> Result<OpenedKey, KeyChestError> {
        if let Some(opened) = self.current(name).await? {
            return Ok(opened);
        }
        match self
            .put(name, 1, make(1), &Actor::system("bootstrap"))
            .await
        {
            Err(KeyChestError::Store(StoreError::Conflict { what })) => {
                let opened = self.current(name).await?;
                opened.ok_or(KeyChestError::Store(StoreError::Conflict { what }))
            }
            other => other,
        }
    }

    /// Makes the next version of a key and retires the current one.
    ///
    /// # Errors
    /// [`KeyChestError`]; [`StoreError::Conflict`] in it if another process rotates at the same time.
    pub async fn rotate(
        &self,
        name: &str,
        make: impl FnOnce(u64) -> NewKey,
        actor: &Actor,
    ) -> Result<OpenedKey, KeyChestError> {
        let newest = self.store.sealed_keys().versions(&self.org, name).await?;
        let version = newest.first().map_or(1, |key| key.version + 1);
        self.put(name, version, make(version), actor).await
    }

    /// Stores a version of a key; a conflict if it is not the next one.
    pub(crate) async fn put(
        &self,
        name: &str,
        version: u64,
        key: NewKey,
        actor: &Actor,
    ) -> Result<OpenedKey, KeyChestError> {
        let path = path_of(name);
        let sealed = self
            .vault
            .seal(&self.kek, &key.secret, &self.row(&path, version))
            .await;
        let sealed = sealed.map_err(|source| KeyChestError::Seal {
            name: name.to_owned(),
            source,
        })?;
        let new = NewSealedKey {
            name: name.to_owned(),
            version,
            sealed,
            public: key.public.clone(),
        };
        self.store.sealed_keys().put(&self.org, new, actor).await?;
        Ok(OpenedKey {
            version,
            secret: key.secret,
            public: key.public,
        })
    }

    async fn open(&self, sealed: SealedKey) -> Result<OpenedKey, KeyChestError> {
        let SealedKey {
            name,
            version,
            sealed,
            public,
            ..
        } = sealed;
        let path = path_of(&name);
        match self.vault.open(&sealed, &self.row(&path, version)).await {
            Ok(secret) => Ok(OpenedKey {
                version,
                secret,
                public,
            }),
            Err(source) => Err(KeyChestError::Open {
                name,
                version,
                source,
            }),
        }
    }

    fn row<'a>(&'a self, path: &'a str, version: u64) -> RowBinding<'a> {
        RowBinding {
            org: self.org.as_str(),
            vault: self.vault_id.as_str(),
            path,
            version,
        }
    }

    /// Seals an answer that is kept for a repeated request.
    pub(crate) async fn seal_answer(
        &self,
        slot: &str,
        status: u16,
        body: Secret,
    ) -> Result<Vec<u8>, vault::SealError> {
        self.vault
            .seal(&self.kek, &body, &self.row(slot, status.into()))
            .await
    }

    /// Opens what [`Self::seal_answer`] made.
    pub(crate) async fn open_answer(
        &self,
        slot: &str,
        status: u16,
        sealed: &[u8],
    ) -> Result<Secret, vault::OpenError> {
        self.vault
            .open(sealed, &self.row(slot, status.into()))
            .await
    }
}

fn path_of(name: &str) -> String {
    format!("__keys/{name}")
}

/// The lease root keys: the pair that mints, and the public halves that verify.
///
/// The injector holds a receiver of the public halves, so that a rotation reaches it at once.
pub struct KeyRing {
    minting: RwLock<Arc<RootKeyPair>>,
    public: watch::Sender<RootPublicKeys>,
}

impl KeyRing {
    /// A ring of the current pair and the previous one, whose leases still run.
    pub fn new(current: RootKeyPair, previous: Option<&RootKeyPair>) -> Self {
        let public = public_halves(&current, previous);
        Self {
            minting: RwLock::new(Arc::new(current)),
            public: watch::Sender::new(public),
        }
    }

    /// The ring of a chest, with a first key when there is none.
    ///
    /// # Errors
    /// [`KeyChestError`].
    pub async fn load_or_create(chest: &KeyChest) -> Result<Self, KeyChestError> {
        chest.load_or_create(LEASE_ROOT, new_root).await?;
        let (current, previous) = pairs(chest).await?;
        Ok(Self::new(current, previous.as_ref()))
    }

    /// Takes up what another process rotated.
    ///
    /// # Errors
    /// [`KeyChestError`]; the ring is then as before.
    pub async fn reload(&self, chest: &KeyChest) -> Result<(), KeyChestError> {
        let (current, previous) = pairs(chest).await?;
        // Verifiers first: no lease may be minted that they would not take.
        self.public
            .send_replace(public_halves(&current, previous.as_ref()));
        *self.minting.write() = Arc::new(current);
        Ok(())
    }

    /// Makes a new root key; leases of the one before it stay good, those of older ones end.
    ///
    /// # Errors
    /// [`KeyChestError`]; the ring is then as before.
    pub async fn rotate(&self, chest: &KeyChest, actor: &Actor) -> Result<u64, KeyChestError> {
        let made = chest.rotate(LEASE_ROOT, new_root, actor).await?;
        self.reload(chest).await?;
        Ok(made.version)
    }

    /// The pair that mints.
    pub fn minting(&self) -> Arc<RootKeyPair> {
        Arc::clone(&self.minting.read())
    }

    /// The public halves that verify.
    pub fn public(&self) -> RootPublicKeys {
        self.public.borrow().clone()
    }

    /// The public halves now and after each rotation.
    pub fn subscribe(&self) -> watch::Receiver<RootPublicKeys> {
        self.public.subscribe()
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("KeyRing")
            .field("minting", &self.minting())
            .finish_non_exhaustive()
    }
}

fn new_root(version: u64) -> NewKey {
    let pair = RootKeyPair::generate(root_id(version).unwrap_or(u32::MAX));
    NewKey {
        secret: Secret::from(pair.to_secret_bytes()),
        public: pair.public().to_bytes(),
    }
}

async fn pairs(chest: &KeyChest) -> Result<(RootKeyPair, Option<RootKeyPair>), KeyChestError> {
    let malformed = || KeyChestError::Malformed {
        name: LEASE_ROOT.to_owned(),
    };
    let mut pairs = Vec::new();
    for key in chest.newest(LEASE_ROOT, 2).await? {
        let id = root_id(key.version).ok_or_else(malformed)?;
        // From the secret, which the seal authenticates: a public half of the table could be anybody's.
        pairs.push(
            RootKeyPair::from_secret_bytes(id, key.secret.expose()).map_err(|_| malformed())?,
        );
    }
    let mut pairs = pairs.into_iter();
    let current = pairs.next().ok_or_else(malformed)?;
    Ok((current, pairs.next()))
}

fn root_id(version: u64) -> Option<u32> {
    u32::try_from(version).ok()
}

fn public_halves(current: &RootKeyPair, previous: Option<&RootKeyPair>) -> RootPublicKeys {
    let halves = std::iter::once(current)
        .chain(previous)
        .map(RootKeyPair::public);
    RootPublicKeys::new(halves.collect())
}

/// The sealed key that mints leases.
pub const LEASE_ROOT: &str = "lease-root";
/// The sealed key that signs agents' tokens.
pub const JWT: &str = "jwt";
/// The sealed key that signs the heads of the audit chain.
pub const AUDIT_CHECKPOINT: &str = "audit-checkpoint";
/// The sealed key of the injector's certificate authority.
pub const CA: &str = "ca";
