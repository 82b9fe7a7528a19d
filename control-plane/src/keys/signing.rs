//! Ed25519 keys of the service, wherever their private halves live.

use std::fmt;
use std::sync::Arc;

use ed25519_dalek::Signer as _;
use parking_lot::RwLock;
use store::{Actor, SealedKey};
use vault::{KEY_DEADLINE, KeyError, KeySigner, Secret};
use zeroize::Zeroizing;

use super::chest::{KeyChest, KeyChestError, NewKey};

/// The key providers that sign. New keys are made in the primary, and sealed in the store where there is none.
#[derive(Debug, Clone, Default)]
pub struct Signers {
    primary: Option<Arc<dyn KeySigner>>,
    others: Vec<Arc<dyn KeySigner>>,
}

impl Signers {
    /// The primary's signer, if it can sign, and those of providers in which older keys still live.
    pub fn new(primary: Option<Arc<dyn KeySigner>>, others: Vec<Arc<dyn KeySigner>>) -> Self {
        Self { primary, others }
    }

    pub(crate) fn primary(&self) -> Option<&Arc<dyn KeySigner>> {
        self.primary.as_ref()
    }

    fn of(&self, provider: &str) -> Option<&Arc<dyn KeySigner>> {
        let mut all = self.primary.iter().chain(&self.others);
        all.find(|signer| signer.provider() == provider)
    }
}

impl From<Option<Arc<dyn KeySigner>>> for Signers {
    fn from(primary: Option<Arc<dyn KeySigner>>) -> Self {
        Self::new(primary, Vec::new())
    }
}

/// One version of a signing key.
pub(crate) struct SigningKey {
    name: &'static str,
    version: u64,
    public: [u8; 32],
    private: Private,
}

enum Private {
    Opened(Box<ed25519_dalek::SigningKey>),
    InProvider(Arc<dyn KeySigner>),
}

impl SigningKey {
    #[cfg(test)]
    pub(crate) fn opened(name: &'static str, version: u64, key: ed25519_dalek::SigningKey) -> Self {
        Self {
            name,
            version,
            public: key.verifying_key().to_bytes(),
            private: Private::Opened(Box::new(key)),
        }
    }

    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    pub(crate) fn public(&self) -> [u8; 32] {
        self.public
    }

    /// Signs by RFC 8032, pure Ed25519. A provider has [`KEY_DEADLINE`] for it.
    pub(crate) async fn sign(&self, message: &[u8]) -> Result<[u8; 64], KeyError> {
        match &self.private {
            Private::Opened(key) => Ok(key.sign(message).to_bytes()),
            Private::InProvider(signer) => {
                let signing = signer.sign(self.name, self.version, message);
                in_time(signer.as_ref(), signing).await
            }
        }
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("SigningKey")
            .field("name", &self.name)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

impl KeyChest {
    /// Makes the next version of a signing key: in the primary provider where it signs, else sealed.
    ///
    /// For a key that lives in the provider the sealed part is where it lives and its public half.
    pub(crate) async fn make_signing_key(
        &self,
        name: &'static str,
        signers: &Signers,
        actor: &Actor,
    ) -> Result<u64, KeyChestError> {
        let version = self.next_version(name).await?;
        let new = match signers.primary() {
            Some(signer) => {
                let public = ask_public(signer, name, version).await?;
                let place = Place::InProvider(signer.provider()).write(&public);
                NewKey {
                    secret: Secret::new(place.clone()),
                    public: place,
                }
            }
            None => new_seed(),
        };
        self.put(name, version, new, actor).await?;
        Ok(version)
    }

    /// The signing key that a row registers.
    pub(crate) async fn signing_key(
        &self,
        name: &'static str,
        row: SealedKey,
        signers: &Signers,
    ) -> Result<SigningKey, KeyChestError> {
        let malformed = || KeyChestError::Malformed {
            name: name.to_owned(),
        };
        let version = row.version;
        let (place, registered) = Place::read(&row.public).ok_or_else(malformed)?;
        let (public, private) = match place {
            Place::Sealed => {
                let opened = self.open(row).await?;
                let seed: Zeroizing<[u8; 32]> =
                    Zeroizing::new(opened.secret.expose().try_into().map_err(|_| malformed())?);
                let key = ed25519_dalek::SigningKey::from_bytes(&seed);
                // From the secret, which the seal authenticates: a public half of the table could be anybody's.
                let public = key.verifying_key().to_bytes();
                (public, Private::Opened(Box::new(key)))
            }
            Place::InProvider(provider) => {
                let signer = signers
                    .of(provider)
                    .ok_or_else(|| KeyChestError::NoSigner {
                        name: name.to_owned(),
                        version,
                        provider: provider.to_owned(),
                    })?;
                // From the provider. That it is the registered one tells a provider whose keys were lost from one that has them.
                let public = ask_public(signer, name, version).await?;
                if public != registered {
                    return Err(KeyChestError::Foreign {
                        name: name.to_owned(),
                        version,
                    });
                }
                (public, Private::InProvider(Arc::clone(signer)))
            }
        };
        Ok(SigningKey {
            name,
            version,
            public,
            private,
        })
    }
}

/// Where the private half of a key lives; it stands before the public half in the register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place<'a> {
    Sealed,
    InProvider(&'a str),
}

impl<'a> Place<'a> {
    /// The 32 bytes of the public half, after `<provider>:` where the private half lives there.
    pub(crate) fn write(self, public: &[u8; 32]) -> Vec<u8> {
        match self {
            Self::Sealed => public.to_vec(),
            Self::InProvider(provider) => [provider.as_bytes(), b":", public].concat(),
        }
    }

    pub(crate) fn read(registered: &'a [u8]) -> Option<(Self, [u8; 32])> {
        let (before, public) = registered.split_last_chunk::<32>()?;
        match before.split_last() {
            None => Some((Self::Sealed, *public)),
            Some((b':', provider)) => {
                let provider = std::str::from_utf8(provider).ok()?;
                Some((Self::InProvider(provider), *public))
            }
            Some(_) => None,
        }
    }

    /// As people read it.
    pub(crate) fn as_str(self) -> &'a str {
        match self {
            Self::Sealed => "sealed",
            Self::InProvider(provider) => provider,
        }
    }
}

/// The version of a key that signs now, kept opened.
#[derive(Debug)]
pub(crate) struct Signing {
    name: &'static str,
    signers: Signers,
    key: RwLock<Arc<SigningKey>>,
}

impl Signing {
    /// Opens this version.
    pub(crate) async fn load(
        name: &'static str,
        version: u64,
        chest: &KeyChest,
        signers: Signers,
    ) -> Result<Self, KeyChestError> {
        let key = Arc::new(load(name, version, chest, &signers).await?);
        Ok(Self {
            name,
            signers,
            key: RwLock::new(key),
        })
    }

    #[cfg(test)]
    pub(crate) fn of(key: SigningKey) -> Self {
        Self {
            name: key.name,
            signers: Signers::default(),
            key: RwLock::new(Arc::new(key)),
        }
    }

    /// Takes up this version, if it is another one than before.
    pub(crate) async fn follow(&self, version: u64, chest: &KeyChest) -> Result<(), KeyChestError> {
        if self.key().version() == version {
            return Ok(());
        }
        let key = load(self.name, version, chest, &self.signers).await?;
        *self.key.write() = Arc::new(key);
        Ok(())
    }

    pub(crate) fn key(&self) -> Arc<SigningKey> {
        Arc::clone(&self.key.read())
    }

    /// Whether a new version would be made where this one lives.
    pub(crate) fn lives_in_primary(&self) -> bool {
        let primary = self.signers.primary().map(|signer| signer.provider());
        let here = match &self.key().private {
            Private::Opened(_) => None,
            Private::InProvider(signer) => Some(signer.provider()),
        };
        here == primary
    }

    pub(crate) fn signers(&self) -> &Signers {
        &self.signers
    }
}

async fn load(
    name: &'static str,
    version: u64,
    chest: &KeyChest,
    signers: &Signers,
) -> Result<SigningKey, KeyChestError> {
    let mut rows = chest.rows(name).await?.into_iter();
    let row = rows.find(|row| row.version == version);
    let row = row.ok_or_else(|| KeyChestError::Missing {
        name: name.to_owned(),
    })?;
    chest.signing_key(name, row, signers).await
}

async fn ask_public(
    signer: &Arc<dyn KeySigner>,
    name: &str,
    version: u64,
) -> Result<[u8; 32], KeyChestError> {
    let asking = signer.create_signing_key(name, version);
    let answer = in_time(signer.as_ref(), asking).await;
    answer.map_err(|source| KeyChestError::Signer {
        name: name.to_owned(),
        version,
        source,
    })
}

async fn in_time<T>(
    signer: &dyn KeySigner,
    call: impl Future<Output = Result<T, KeyError>>,
) -> Result<T, KeyError> {
    match tokio::time::timeout(KEY_DEADLINE, call).await {
        Ok(answer) => answer,
        Err(_) => Err(KeyError::Unavailable {
            provider: signer.provider(),
            reason: format!("no answer within {} s", KEY_DEADLINE.as_secs()),
        }),
    }
}

/// A new key whose 32 secret bytes are sealed.
pub(crate) fn new_seed() -> NewKey {
    let seed = Zeroizing::new(crate::context::random::<32>());
    let public = ed25519_dalek::SigningKey::from_bytes(&seed).verifying_key();
    NewKey {
        secret: Secret::new(seed.to_vec()),
        public: public.to_bytes().to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_register_says_where_a_key_lives() {
        for place in [
            Place::Sealed,
            Place::InProvider("pkcs11"),
            Place::InProvider("gcp-kms"),
        ] {
            let written = place.write(&[7; 32]);
            assert_eq!(Place::read(&written), Some((place, [7; 32])));
        }
        assert_eq!(Place::read(&[7; 31]), None);
        assert_eq!(Place::read(&[7; 40]), None);
    }
}
