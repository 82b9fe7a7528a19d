//! The chest: sealed keys of the service, in the organisation's default vault.

use leases::id::{OrgId, VaultId};
use store::{Actor, NewSealedKey, SealedKey, Store, StoreError};
use vault::{KekId, KeyError, OpenError, RowBinding, Secret, Vault};

/// Opens and makes sealed keys of the service, in the organisation's default vault.
///
/// A key's seal is bound to the path `__keys/<name>` and its version, so that no key opens in another's place.
#[derive(Debug, Clone)]
pub struct KeyChest {
    store: Store,
    vault: Vault,
    org: OrgId,
    vault_id: VaultId,
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
    /// There is no such key yet.
    #[error("the key `{name}` was not made yet; start a control plane once to make it")]
    Missing {
        /// The key's name.
        name: String,
    },
    /// The stored key does not open.
    #[error(
        "the sealed key `{name}` version {version} does not open; restore the keys that belong to this database"
    )]
    Open {
        /// The key's name.
        name: String,
        /// Its version.
        version: u64,
        /// What the vault says.
        #[source]
        source: OpenError,
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
    /// The key lives in a provider that this process was not given.
    #[error(
        "the key `{name}` version {version} lives in the key provider {provider}; configure that provider here, or rotate the key where it is"
    )]
    NoSigner {
        /// The key's name.
        name: String,
        /// Its version.
        version: u64,
        /// The provider's name.
        provider: String,
    },
    /// The provider in which the key lives does not give it.
    #[error("the key provider does not give the key `{name}` version {version}")]
    Signer {
        /// The key's name.
        name: String,
        /// Its version.
        version: u64,
        /// What the provider says.
        #[source]
        source: KeyError,
    },
    /// The provider holds another key of this name than the one that was registered.
    #[error(
        "the key provider holds another key `{name}` version {version} than the one that was registered; restore its keys, or rotate this one"
    )]
    Foreign {
        /// The key's name.
        name: String,
        /// Its version.
        version: u64,
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

impl KeyChestError {
    /// Whether the key provider does not let this process unwrap, as it is where a plane may only wrap.
    pub fn is_denied(&self) -> bool {
        matches!(
            self,
            Self::Open {
                source: OpenError::Key(KeyError::Denied { .. }),
                ..
            }
        )
    }

    /// Whether somebody else made this version at the same time.
    pub(crate) fn is_conflict(&self) -> bool {
        matches!(self, Self::Store(StoreError::Conflict { .. }))
    }
}

impl KeyChest {
    /// The chest of an organisation.
    ///
    /// # Errors
    /// [`KeyChestError::NoVault`], [`KeyChestError::Store`].
    pub async fn of(store: &Store, vault: &Vault, org: &OrgId) -> Result<Self, KeyChestError> {
        let found = store.vaults().default_vault(org).await?;
        let row = found.ok_or_else(|| KeyChestError::NoVault(org.clone()))?;
        Ok(Self {
            store: store.clone(),
            vault: vault.clone(),
            org: org.clone(),
            vault_id: row.id,
        })
    }

    /// Whose keys these are.
    pub fn org(&self) -> &OrgId {
        &self.org
    }

    /// The vault under whose key they lie.
    pub fn vault_id(&self) -> &VaultId {
        &self.vault_id
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
        for sealed in self.rows(name).await?.into_iter().take(count) {
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
        match self.put(name, 1, make(1), &bootstrap_actor()).await {
            Err(error) if error.is_conflict() => self.current(name).await?.ok_or(error),
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
        let version = self.next_version(name).await?;
        self.put(name, version, make(version), actor).await
    }

    /// The register of a key: its versions as they lie, newest first.
    pub(crate) async fn rows(&self, name: &str) -> Result<Vec<SealedKey>, KeyChestError> {
        Ok(self.store.sealed_keys().versions(&self.org, name).await?)
    }

    pub(crate) async fn next_version(&self, name: &str) -> Result<u64, KeyChestError> {
        let newest = self.rows(name).await?;
        Ok(newest.first().map_or(1, |key| key.version + 1))
    }

    /// Stores a version of a key; a conflict if it is not the next one.
    pub(crate) async fn put(
        &self,
        name: &str,
        version: u64,
        key: NewKey,
        actor: &Actor,
    ) -> Result<OpenedKey, KeyChestError> {
        self.put_with((name, key), None, version, actor).await
    }

    /// [`put`](Self::put) of a key, and of what is published of it under a name of its own: both or neither.
    pub(crate) async fn put_with(
        &self,
        (name, key): (&str, NewKey),
        published: Option<(&str, NewKey)>,
        version: u64,
        actor: &Actor,
    ) -> Result<OpenedKey, KeyChestError> {
        let keys = self.store.sealed_keys();
        loop {
            // Asked each time: a migration names another key while this process runs.
            let kek = self.kek().await?;
            let new = self.seal(&kek, name, version, &key).await?;
            let beside = match &published {
                Some((name, key)) => Some(self.seal(&kek, name, version, key).await?),
                None => None,
            };
            match keys.put_with(&self.org, new, beside, actor).await {
                // It did so just now: the seals are to lie under that one.
                Err(StoreError::Conflict { .. }) if self.kek().await? != kek => {}
                stored => {
                    stored?;
                    break;
                }
            }
        }
        Ok(OpenedKey {
            version,
            secret: key.secret,
            public: key.public,
        })
    }

    /// Seals the next version of a key, for a change that stores more with it. The change is a conflict where the vault has another
    /// key by then.
    pub(crate) async fn seal_next(
        &self,
        name: &str,
        key: &NewKey,
    ) -> Result<NewSealedKey, KeyChestError> {
        let version = self.next_version(name).await?;
        self.seal(&self.kek().await?, name, version, key).await
    }

    async fn seal(
        &self,
        kek: &KekId,
        name: &str,
        version: u64,
        key: &NewKey,
    ) -> Result<NewSealedKey, KeyChestError> {
        let path = path_of(name);
        let row = self.row(&path, version);
        let sealed = self.vault.seal(kek, &key.secret, &row).await;
        let sealed = sealed.map_err(|source| KeyChestError::Seal {
            name: name.to_owned(),
            source,
        })?;
        Ok(NewSealedKey {
            name: name.to_owned(),
            version,
            sealed,
            public: key.public.clone(),
            kek_id: Some(kek.to_string()),
        })
    }

    pub(crate) async fn open(&self, sealed: SealedKey) -> Result<OpenedKey, KeyChestError> {
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

    /// Whether this process may wrap; `None` when the provider does not answer that.
    pub(crate) async fn probe_wrap(&self) -> Option<bool> {
        let kek = self.kek().await.ok()?;
        let row = self.row("__probe", 0);
        let nothing = Secret::new(Vec::new());
        match self.vault.seal(&kek, &nothing, &row).await {
            Ok(_) => Some(true),
            Err(vault::SealError::Key(KeyError::Denied { .. })) => Some(false),
            Err(_) => None,
        }
    }

    /// Whether this process may unwrap, tried on the newest version of a key; `None` when the provider does not answer that.
    pub(crate) async fn probe_unwrap(&self, name: &str) -> Option<bool> {
        let row = self.rows(name).await.ok()?.into_iter().next()?;
        match self.open(row).await {
            Ok(_) => Some(true),
            Err(error) => error.is_denied().then_some(false),
        }
    }

    pub(crate) async fn kek(&self) -> Result<KekId, KeyChestError> {
        let found = self.store.vaults().default_vault(&self.org).await?;
        let kek = found.and_then(|row| KekId::parse(&row.kek_id).ok());
        kek.ok_or_else(|| KeyChestError::NoVault(self.org.clone()))
    }

    fn row<'a>(&'a self, path: &'a str, version: u64) -> RowBinding<'a> {
        RowBinding {
            org: self.org.as_str(),
            vault: self.vault_id.as_str(),
            path,
            version,
        }
    }
}

/// Who makes what a start makes.
pub(crate) fn bootstrap_actor() -> Actor {
    Actor::system("bootstrap")
}

fn path_of(name: &str) -> String {
    format!("__keys/{name}")
}
