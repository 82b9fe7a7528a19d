//! Key providers of tests: one in memory that stands for a distant one, one that lets only wrap, and a signer.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use control_plane::{MakeCa, NewCa};
use ed25519_dalek::Signer as _;
use time::OffsetDateTime;
use tokio::sync::Notify;
use vault::{Dek, KekId, KekInfo, KekState, KekVersion, KeyError, KeySigner, KeyWrapper, Secret};

/// A provider that remembers what it wrapped, so that nothing opens without it.
#[derive(Debug)]
pub(crate) struct Distant {
    provider: &'static str,
    held: Mutex<Held>,
    /// While set, it answers nothing.
    pub(crate) away: AtomicBool,
}

#[derive(Default)]
struct Held {
    versions: HashMap<KekId, u64>,
    deks: HashMap<Vec<u8>, ([u8; 32], Vec<u8>, KekId)>,
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Held(..)")
    }
}

impl Distant {
    pub(crate) fn new(provider: &'static str) -> Arc<Self> {
        Arc::new(Self {
            provider,
            held: Mutex::default(),
            away: AtomicBool::new(false),
        })
    }

    /// Loses what it wrapped, as another key ring of the same names does.
    pub(crate) fn forget(&self) {
        self.held.lock().unwrap().deks.clear();
    }

    fn held(&self) -> Result<std::sync::MutexGuard<'_, Held>, KeyError> {
        if self.away.load(Ordering::SeqCst) {
            return Err(KeyError::Unavailable {
                provider: self.provider,
                reason: "it is away".to_owned(),
            });
        }
        Ok(self.held.lock().unwrap())
    }
}

fn unknown(kek: &KekId) -> KeyError {
    KeyError::UnknownKek { kek: kek.clone() }
}

#[async_trait]
impl KeyWrapper for Distant {
    fn provider(&self) -> &'static str {
        self.provider
    }

    async fn create_kek(&self, vault: &str) -> Result<KekId, KeyError> {
        let kek = KekId::parse(&format!("{}:{vault}", self.provider)).unwrap();
        self.held()?.versions.entry(kek.clone()).or_insert(1);
        Ok(kek)
    }

    async fn wrap(&self, kek: &KekId, dek: &Dek, aad: &[u8]) -> Result<Vec<u8>, KeyError> {
        let mut held = self.held()?;
        let version = *held.versions.get(kek).ok_or_else(|| unknown(kek))?;
        let mut wrapped = vec![0xEE, u8::try_from(version).unwrap()];
        wrapped.extend_from_slice(&(held.deks.len() as u64).to_be_bytes());
        held.deks
            .insert(wrapped.clone(), (*dek.expose(), aad.to_vec(), kek.clone()));
        Ok(wrapped)
    }

    async fn unwrap(&self, kek: &KekId, wrapped: &[u8], aad: &[u8]) -> Result<Dek, KeyError> {
        let held = self.held()?;
        let tampered = || KeyError::Tampered { kek: kek.clone() };
        let (dek, bound, by) = held.deks.get(wrapped).ok_or_else(tampered)?;
        if bound != aad || by != kek {
            return Err(tampered());
        }
        Ok(Dek::from_bytes(dek))
    }

    async fn rotate_kek(&self, kek: &KekId) -> Result<u64, KeyError> {
        let mut held = self.held()?;
        let version = held.versions.get_mut(kek).ok_or_else(|| unknown(kek))?;
        *version += 1;
        Ok(*version)
    }

    async fn describe(&self, kek: &KekId) -> Result<KekInfo, KeyError> {
        let held = self.held()?;
        let current = *held.versions.get(kek).ok_or_else(|| unknown(kek))?;
        let version = |number| KekVersion {
            number,
            created_at: None,
            state: KekState::Enabled,
            mechanism: "memory",
        };
        Ok(KekInfo {
            kek: kek.clone(),
            current,
            versions: (1..=current).map(version).collect(),
        })
    }

    fn wrapped_version(&self, wrapped: &[u8]) -> Option<u64> {
        match wrapped {
            [0xEE, version, ..] => Some(u64::from(*version)),
            _ => None,
        }
    }

    async fn check(&self) -> Result<(), KeyError> {
        self.held().map(|_| ())
    }
}

/// Another provider's KEKs, of which a wrap under one can be held up.
#[derive(Debug)]
pub(crate) struct HeldUp {
    pub(crate) inner: Arc<dyn KeyWrapper>,
    /// The KEK whose next wrap waits.
    pub(crate) hold: Mutex<Option<KekId>>,
    pub(crate) waits: Notify,
    pub(crate) go_on: Notify,
}

#[async_trait]
impl KeyWrapper for HeldUp {
    fn provider(&self) -> &'static str {
        self.inner.provider()
    }

    async fn create_kek(&self, vault: &str) -> Result<KekId, KeyError> {
        self.inner.create_kek(vault).await
    }

    async fn wrap(&self, kek: &KekId, dek: &Dek, aad: &[u8]) -> Result<Vec<u8>, KeyError> {
        let wrapped = self.inner.wrap(kek, dek, aad).await;
        let held = self.hold.lock().unwrap().take_if(|held| held == kek);
        if held.is_some() {
            self.waits.notify_one();
            self.go_on.notified().await;
        }
        wrapped
    }

    async fn unwrap(&self, kek: &KekId, wrapped: &[u8], aad: &[u8]) -> Result<Dek, KeyError> {
        self.inner.unwrap(kek, wrapped, aad).await
    }

    async fn rotate_kek(&self, kek: &KekId) -> Result<u64, KeyError> {
        self.inner.rotate_kek(kek).await
    }

    async fn describe(&self, kek: &KekId) -> Result<KekInfo, KeyError> {
        self.inner.describe(kek).await
    }

    fn wrapped_version(&self, wrapped: &[u8]) -> Option<u64> {
        self.inner.wrapped_version(wrapped)
    }

    async fn check(&self) -> Result<(), KeyError> {
        self.inner.check().await
    }
}

/// Another provider's KEKs, which may be wrapped under and not unwrapped: Cloud KMS' role of an encrypter.
#[derive(Debug)]
pub(crate) struct WrapOnly(pub(crate) Arc<dyn KeyWrapper>);

#[async_trait]
impl KeyWrapper for WrapOnly {
    fn provider(&self) -> &'static str {
        self.0.provider()
    }

    async fn create_kek(&self, vault: &str) -> Result<KekId, KeyError> {
        self.0.create_kek(vault).await
    }

    async fn wrap(&self, kek: &KekId, dek: &Dek, aad: &[u8]) -> Result<Vec<u8>, KeyError> {
        self.0.wrap(kek, dek, aad).await
    }

    async fn unwrap(&self, kek: &KekId, _: &[u8], _: &[u8]) -> Result<Dek, KeyError> {
        Err(KeyError::Denied {
            provider: self.provider(),
            kek: kek.clone(),
            reason: "the role lacks cryptoKeyVersions.useToDecrypt".to_owned(),
        })
    }

    async fn rotate_kek(&self, kek: &KekId) -> Result<u64, KeyError> {
        self.0.rotate_kek(kek).await
    }

    async fn describe(&self, kek: &KekId) -> Result<KekInfo, KeyError> {
        self.0.describe(kek).await
    }

    fn wrapped_version(&self, wrapped: &[u8]) -> Option<u64> {
        self.0.wrapped_version(wrapped)
    }

    async fn check(&self) -> Result<(), KeyError> {
        self.0.check().await
    }
}

/// Signing keys in memory.
#[derive(Debug)]
pub(crate) struct MemorySigner {
    provider: &'static str,
    keys: Mutex<HashMap<(String, u64), ed25519_dalek::SigningKey>>,
}

impl MemorySigner {
    pub(crate) fn new(provider: &'static str) -> Arc<Self> {
        Arc::new(Self {
            provider,
            keys: Mutex::default(),
        })
    }

    /// The keys that it holds, by name and version.
    pub(crate) fn names(&self) -> Vec<(String, u64)> {
        let mut names: Vec<_> = self.keys.lock().unwrap().keys().cloned().collect();
        names.sort();
        names
    }

    /// Loses all keys, as a token that was made anew.
    pub(crate) fn forget(&self) {
        self.keys.lock().unwrap().clear();
    }
}

#[async_trait]
impl KeySigner for MemorySigner {
    fn provider(&self) -> &'static str {
        self.provider
    }

    async fn create_signing_key(&self, name: &str, version: u64) -> Result<[u8; 32], KeyError> {
        let mut keys = self.keys.lock().unwrap();
        let key = keys.entry((name.to_owned(), version)).or_insert_with(|| {
            let mut seed = [0; 32];
            getrandom::fill(&mut seed).unwrap();
            ed25519_dalek::SigningKey::from_bytes(&seed)
        });
        Ok(key.verifying_key().to_bytes())
    }

    async fn sign(&self, name: &str, version: u64, message: &[u8]) -> Result<[u8; 64], KeyError> {
        let keys = self.keys.lock().unwrap();
        let key = keys.get(&(name.to_owned(), version));
        let key = key.ok_or_else(|| KeyError::UnknownSigningKey {
            provider: self.provider,
            name: name.to_owned(),
            version,
        })?;
        Ok(key.sign(message).to_bytes())
    }
}

/// Makes certificates that are numbers on paper: what TLS makes of them is the injector's matter.
#[derive(Debug)]
pub(crate) struct PaperCa;

impl MakeCa for PaperCa {
    fn make(&self, _: OffsetDateTime) -> Result<NewCa, Box<dyn std::error::Error + Send + Sync>> {
        let mut number = [0; 8];
        getrandom::fill(&mut number)?;
        let number = u64::from_be_bytes(number).to_string();
        Ok(NewCa {
            certificate_pem: format!("certificate {number}\n"),
            key: Secret::from(number),
        })
    }

    fn fits(&self, certificate_pem: &str, key: &Secret) -> bool {
        let number = key.expose_str().unwrap_or_default();
        certificate_pem == format!("certificate {number}\n")
    }
}
