//! KEKs in a PKCS#11 token: a hardware security module, or `SoftHSM`.
//!
//! Each KEK version is a 256-bit AES key that the token made and does not give away, with the label
//! `claviger-kek:<vault>:v<version>` and a random `CKA_ID` of 16 bytes, both without a second of their kind. What a
//! wrapped DEK looks like is described in `form.rs`, how it is made in `crypt.rs`.
//!
//! Calls of the module run in a few threads of their own (`pool.rs`) and are waited for until a deadline. A token that
//! was taken away is looked for again, at most once a second, and serves as soon as it is back (`link.rs`); handles are
//! found anew then, and a token that was initialised meanwhile has other keys and so opens nothing. A wrong PIN is tried
//! once in the life of a process.
//!
//! Spec: PKCS #11 version 2.40 and 3.1.

mod crypt;
mod error;
mod fault;
mod form;
mod keyring;
mod link;
mod module;
mod options;
mod pin;
mod pool;
mod signer;
pub mod softhsm;

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;

use self::{
    crypt::Unwrapped,
    fault::{Fault, unavailable},
    form::{KeyName, Purpose, Wrapped},
    link::{Abilities, Held, Link, Seat},
    pool::{Limits, NoAnswer, Pool},
    signer::Pkcs11Signer,
};
pub use self::{
    error::Pkcs11Error,
    options::{PinSource, Pkcs11Options, TokenRef},
};
use super::{Dek, KekId, KekInfo, KekState, KekVersion, KeyError, KeySigner, KeyWrapper};

/// The provider's name, and the start of its KEK ids.
pub const PROVIDER: &str = "pkcs11";

/// How long the first login and the check of all keys may take.
const OPEN_WITHIN: Duration = Duration::from_secs(30);
/// How old the knowledge may be that there is no newer version of a KEK.
const FRESH_FOR: Duration = Duration::from_secs(5);
/// A thread that has been in one call for so many deadlines is given up on.
const GIVE_UP_AFTER: u32 = 5;

/// The PKCS#11 key provider: one token.
pub struct Pkcs11Keys {
    token: TokenRef,
    deadline: Duration,
    abilities: Abilities,
    link: Arc<Link>,
    pool: Pool<Seat>,
}

/// What the provider is at, for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pkcs11Health {
    /// Threads, each with at most one session. Never more than twice the configured sessions.
    pub threads: usize,
    /// Threads that are in a call.
    pub busy: usize,
    /// Threads that have been in one call for longer than the deadline.
    pub hanging: usize,
    /// Calls that wait for a thread.
    pub queued: usize,
    /// How often the token was connected to since the start.
    pub connections: u64,
}

impl Pkcs11Keys {
    /// Loads the module, logs in to the token and checks every KEK in it: generated in the token, sensitive, never
    /// extractable, good for nothing but wrapping, and alone under its label and id.
    ///
    /// # Errors
    /// [`KeyError::Pkcs11`] for what an operator must put right, the first key that fails the check included;
    /// [`KeyError::Unavailable`] if the token does not answer.
    pub async fn open(options: Pkcs11Options) -> Result<Arc<Self>, KeyError> {
        let limits = Limits {
            threads: options.sessions.clamp(1, Pkcs11Options::MAX_SESSIONS),
            deadline: options.deadline,
            give_up_after: options.deadline * GIVE_UP_AFTER,
        };
        let token = options.token.clone();
        // Loading runs the library's own start, and the PIN may come from a slow place.
        let link = tokio::task::spawn_blocking(move || Link::new(options)).await;
        let link = Arc::new(link.map_err(|error| unavailable(error.to_string()))??);
        let shared = Arc::clone(&link);
        let pool = Pool::new(limits, move || Seat::new(Arc::clone(&shared)));
        let abilities = call(&pool, OPEN_WITHIN, |held| {
            held.check_all()?;
            held.check_signing_keys()?;
            Ok(held.connection.abilities)
        });
        let abilities = abilities
            .await?
            .map_err(|fault| fault.for_caller(&kek_id("*")))?;
        tracing::info!("opened the PKCS#11 token with {token}: {abilities:?}");
        Ok(Arc::new(Self {
            token,
            deadline: limits.deadline,
            abilities,
            link,
            pool,
        }))
    }

    /// The signer of this token, if the token makes Ed25519 keys and signs by them (`CKM_EDDSA`).
    pub fn signer(self: &Arc<Self>) -> Option<Arc<dyn KeySigner>> {
        let signer = Pkcs11Signer::new(Arc::clone(self));
        self.abilities
            .ed25519
            .then(|| Arc::new(signer) as Arc<dyn KeySigner>)
    }

    /// What the provider is at, for metrics.
    pub fn health(&self) -> Pkcs11Health {
        let gauge = self.pool.gauge();
        Pkcs11Health {
            threads: gauge.threads,
            busy: gauge.busy,
            hanging: gauge.hanging,
            queued: gauge.queued,
            connections: self.link.connections(),
        }
    }

    /// Runs an operation on the token, within the deadline. `kek` is what it is about.
    async fn on_token<T: Send + 'static>(
        &self,
        kek: &KekId,
        operation: impl Fn(&Held<'_>) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, KeyError> {
        let result = call(&self.pool, self.deadline, operation).await?;
        result.map_err(|fault| fault.for_caller(kek))
    }

    fn unknown(kek: &KekId) -> KeyError {
        KeyError::UnknownKek { kek: kek.clone() }
    }
}

async fn call<T: Send + 'static>(
    pool: &Pool<Seat>,
    within: Duration,
    operation: impl Fn(&Held<'_>) -> Result<T, Fault> + Send + 'static,
) -> Result<Result<T, Fault>, KeyError> {
    let until = Instant::now() + within;
    let answer = pool.call(within, move |seat| seat.run(until, operation));
    answer.await.map_err(|no_answer| {
        unavailable(match no_answer {
            NoAnswer::Late => format!("no answer within {} s", within.as_secs_f32()),
            NoAnswer::Hanging(since) => {
                format!("every session hangs, for {} s by now", since.as_secs())
            }
            NoAnswer::Crowded => "too many calls wait for the token".to_owned(),
            NoAnswer::Broken => "a call of the module failed".to_owned(),
        })
    })
}

impl Drop for Pkcs11Keys {
    fn drop(&mut self) {
        // In this order, and here rather than in the last of the threads, which may still run when the process exits.
        self.pool.close();
        self.link.close();
    }
}

impl fmt::Debug for Pkcs11Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pkcs11Keys")
            .field("token", &self.token)
            .field("abilities", &self.abilities)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl KeyWrapper for Pkcs11Keys {
    fn provider(&self) -> &'static str {
        PROVIDER
    }

    async fn create_kek(&self, vault: &str) -> Result<KekId, KeyError> {
        let first = KeyName::new(Purpose::Kek, vault, 1).ok_or_else(|| KeyError::BadName {
            name: vault.to_owned(),
        })?;
        let kek = kek_id(vault);
        self.on_token(&kek, move |held| {
            match held.newest_key(first.name(), FRESH_FOR)? {
                Some(_) => Ok(()),
                None => held.make_key(&first),
            }
        })
        .await?;
        Ok(kek)
    }

    async fn wrap(&self, kek: &KekId, dek: &Dek, aad: &[u8]) -> Result<Vec<u8>, KeyError> {
        let vault = vault_of(kek)?.to_owned();
        let (id, dek, aad) = (kek.clone(), Dek::from_bytes(dek.expose()), aad.to_vec());
        let wrapped = self.on_token(kek, move |held| {
            let key = held.newest_key(&vault, FRESH_FOR)?;
            let key = key.ok_or_else(|| Self::unknown(&id))?;
            held.wrap(key, &dek, &aad)
        });
        Ok(wrapped.await?.bytes())
    }

    async fn unwrap(&self, kek: &KekId, wrapped: &[u8], aad: &[u8]) -> Result<Dek, KeyError> {
        let tampered = || KeyError::Tampered { kek: kek.clone() };
        let vault = vault_of(kek)?;
        let wrapped = Wrapped::parse(wrapped).ok_or_else(tampered)?;
        let name = KeyName::new(Purpose::Kek, vault, wrapped.header.version);
        let name = name.ok_or_else(|| Self::unknown(kek))?;
        let (id, aad) = (kek.clone(), aad.to_vec());
        self.on_token(kek, move |held| {
            let key = held.key(&name, &wrapped.header.id)?;
            let key = key.ok_or_else(|| Self::unknown(&id))?;
            match held.unwrap(key, &wrapped, &aad)? {
                Unwrapped::Dek(dek) => Ok(dek),
                Unwrapped::Mismatch => Err(KeyError::Tampered { kek: id.clone() }.into()),
            }
        })
        .await
    }

    async fn rotate_kek(&self, kek: &KekId) -> Result<u64, KeyError> {
        let vault = vault_of(kek)?.to_owned();
        let id = kek.clone();
        self.on_token(kek, move |held| {
            let newest = held.newest_key(&vault, Duration::ZERO)?;
            let next = newest
                .and_then(|key| key.header.version.checked_add(1))
                .and_then(|version| KeyName::new(Purpose::Kek, &vault, version));
            let next = next.ok_or_else(|| Self::unknown(&id))?;
            held.make_key(&next)?;
            Ok(u64::from(next.version()))
        })
        .await
    }

    async fn describe(&self, kek: &KekId) -> Result<KekInfo, KeyError> {
        let vault = vault_of(kek)?.to_owned();
        let keys = self.on_token(kek, move |held| held.all_versions(&vault));
        let versions: Vec<_> = keys
            .await?
            .into_iter()
            .map(|key| KekVersion {
                number: u64::from(key.header.version),
                // Tokens keep dates that are days, and not all do.
                created_at: None,
                state: KekState::Enabled,
                mechanism: key.header.mode.mechanism(),
            })
            .collect();
        let current = versions.last().map(|version| version.number);
        Ok(KekInfo {
            kek: kek.clone(),
            current: current.ok_or_else(|| Self::unknown(kek))?,
            versions,
        })
    }

    async fn current_version(&self, kek: &KekId) -> Result<u64, KeyError> {
        let vault = vault_of(kek)?.to_owned();
        let newest = self.on_token(kek, move |held| held.newest_key(&vault, FRESH_FOR));
        let newest = newest.await?.ok_or_else(|| Self::unknown(kek))?;
        Ok(u64::from(newest.header.version))
    }

    fn wrapped_version(&self, wrapped: &[u8]) -> Option<u64> {
        Wrapped::parse(wrapped).map(|wrapped| u64::from(wrapped.header.version))
    }

    async fn check(&self) -> Result<(), KeyError> {
        self.on_token(&kek_id("*"), |held| {
            held.check_presence()?;
            held.check_all()
        })
        .await
    }
}

fn kek_id(vault: &str) -> KekId {
    KekId::parse(&format!("{PROVIDER}:{vault}"))
        .expect("a vault's name is at most 64 visible ASCII characters")
}

fn vault_of(kek: &KekId) -> Result<&str, KeyError> {
    let vault = kek.as_str().strip_prefix(PROVIDER);
    let vault = vault.and_then(|rest| rest.strip_prefix(':'));
    vault.ok_or_else(|| KeyError::UnknownKek { kek: kek.clone() })
}

#[cfg(test)]
mod tests;
