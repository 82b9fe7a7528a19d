//! The lease root keys: what verifies, for everybody, and what mints, for the control plane alone.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use leases::mint::{MintError, MintRequest, Minted};
use leases::root_key::{RootPublicKey, RootPublicKeys};
use leases::signer::{MintWithError, RootSigner, mint_with};
use parking_lot::Mutex;
use store::Actor;
use time::OffsetDateTime;
use tokio::sync::watch;
use vault::KeyError;

use super::LEASE_ROOT;
use super::chest::{KeyChest, KeyChestError, bootstrap_actor};
use super::published::{Period, Published};
use super::signing::{Signers, Signing, SigningKey};

/// The public root keys: all that an injector knows of them.
///
/// It opens the keys that were sealed for it and never one that mints. [`Self::reload`] takes up rotations of other processes.
pub struct VerifyingRing {
    published: Published,
    public: watch::Sender<RootPublicKeys>,
    held: Mutex<Period>,
}

impl VerifyingRing {
    /// The ring of a chest.
    ///
    /// # Errors
    /// [`KeyChestError`]; [`KeyChestError::Missing`] until a control plane has made the keys.
    pub async fn load(chest: &KeyChest, now: OffsetDateTime) -> Result<Self, KeyChestError> {
        Ok(Self::load_with(chest, None, now).await?.0)
    }

    async fn load_with(
        chest: &KeyChest,
        signers: Option<&Signers>,
        now: OffsetDateTime,
    ) -> Result<(Self, u64), KeyChestError> {
        let published = Published::new(LEASE_ROOT, LONGEST_LEASE);
        let period = published.period(chest, signers, now).await?;
        let signing = period.signing;
        let ring = Self {
            published,
            public: watch::Sender::new(public_halves(&period)?),
            held: Mutex::new(period),
        };
        Ok((ring, signing))
    }

    /// Takes up what was rotated, and lets go of what has ended.
    ///
    /// # Errors
    /// [`KeyChestError`]; the ring is then as before.
    pub async fn reload(&self, chest: &KeyChest, now: OffsetDateTime) -> Result<(), KeyChestError> {
        self.reload_with(chest, None, now).await.map(|_| ())
    }

    async fn reload_with(
        &self,
        chest: &KeyChest,
        signers: Option<&Signers>,
        now: OffsetDateTime,
    ) -> Result<u64, KeyChestError> {
        let period = self.published.period(chest, signers, now).await?;
        let fresh = public_halves(&period)?;
        let signing = period.signing;
        let mut held = self.held.lock();
        // Verifiers look at their cached leases anew after each change, so only a change is told.
        if held.verifying != period.verifying {
            self.public.send_replace(fresh);
        }
        *held = period;
        Ok(signing)
    }

    /// The public halves that verify.
    pub fn public(&self) -> RootPublicKeys {
        self.public.borrow().clone()
    }

    /// The public halves now and after each change.
    pub fn subscribe(&self) -> watch::Receiver<RootPublicKeys> {
        self.public.subscribe()
    }
}

impl fmt::Debug for VerifyingRing {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("VerifyingRing")
            .field("public", &self.public.borrow())
            .finish_non_exhaustive()
    }
}

/// The lease root keys of a control plane: what mints, beside what verifies.
#[derive(Debug)]
pub struct KeyRing {
    verifying: Arc<VerifyingRing>,
    minting: Signing,
}

/// Why a lease was not minted.
#[derive(Debug, thiserror::Error)]
pub enum MintFailure {
    /// What was asked for cannot be minted.
    #[error(transparent)]
    Refused(#[from] MintError),
    /// The key provider did not sign it.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The key provider signed by another key.
    #[error("the key provider holds another root key {0} than the one that was registered")]
    WrongKey(u32),
    /// The register names a root key that is none.
    #[error("the root key in use is not a key")]
    Malformed,
}

/// The root key that mints now, as the lease library asks for it.
struct Root {
    key: Arc<SigningKey>,
    public: RootPublicKey,
}

impl Root {
    fn of(minting: &Signing) -> Result<Self, MintFailure> {
        let key = minting.key();
        let public = root_public(key.version(), &key.public());
        let public = public.ok_or(MintFailure::Malformed)?;
        Ok(Self { key, public })
    }
}

impl RootSigner for Root {
    type Error = KeyError;

    fn public(&self) -> RootPublicKey {
        self.public
    }

    fn sign(&self, message: &[u8]) -> impl Future<Output = Result<[u8; 64], KeyError>> + Send {
        self.key.sign(message)
    }
}

impl KeyRing {
    /// The ring of a chest, with a first key when there is none.
    ///
    /// # Errors
    /// [`KeyChestError`].
    pub async fn load_or_create(
        chest: &KeyChest,
        signers: &Signers,
        now: OffsetDateTime,
    ) -> Result<Self, KeyChestError> {
        ensure(chest, LEASE_ROOT, signers).await?;
        let (verifying, version) = VerifyingRing::load_with(chest, Some(signers), now).await?;
        let minting = Signing::load(LEASE_ROOT, version, chest, signers.clone()).await?;
        Ok(Self {
            verifying: Arc::new(verifying),
            minting,
        })
    }

    /// Takes up what was rotated here or elsewhere.
    ///
    /// # Errors
    /// [`KeyChestError`]; what could not be taken up is as before.
    pub async fn reload(&self, chest: &KeyChest, now: OffsetDateTime) -> Result<(), KeyChestError> {
        let signers = self.minting.signers();
        // Verifiers first: no lease may be minted that they would not take.
        let version = self
            .verifying
            .reload_with(chest, Some(signers), now)
            .await?;
        self.minting.follow(version, chest).await
    }

    /// Makes a new root key, which mints after [`super::OVERLAP`]. Leases of the one before it stay good until they end.
    ///
    /// # Errors
    /// [`KeyChestError`]; the ring is then as before.
    pub async fn rotate(
        &self,
        chest: &KeyChest,
        actor: &Actor,
        now: OffsetDateTime,
    ) -> Result<u64, KeyChestError> {
        let version = chest
            .make_signing_key(LEASE_ROOT, self.minting.signers(), actor)
            .await?;
        chest.publish(LEASE_ROOT, self.minting.signers()).await?;
        self.reload(chest, now).await?;
        Ok(version)
    }

    /// Mints a lease by the root key that mints now.
    ///
    /// # Errors
    /// [`MintFailure`].
    pub async fn mint(&self, request: &MintRequest) -> Result<Minted, MintFailure> {
        let root = Root::of(&self.minting)?;
        mint_with(&root, request)
            .await
            .map_err(|error| match error {
                MintWithError::Refused(error) => MintFailure::Refused(error),
                MintWithError::Signer(error) => MintFailure::Key(error),
                MintWithError::WrongKey(id) => MintFailure::WrongKey(id),
            })
    }

    /// Whether the key that mints lives where a new one would be made.
    pub(crate) fn lives_in_primary(&self) -> bool {
        self.minting.lives_in_primary()
    }

    /// The version that mints now.
    pub fn minting_version(&self) -> u64 {
        self.minting.key().version()
    }

    /// What verifies.
    pub fn verifying(&self) -> &Arc<VerifyingRing> {
        &self.verifying
    }

    /// The public halves that verify.
    pub fn public(&self) -> RootPublicKeys {
        self.verifying.public()
    }

    /// The public halves now and after each change.
    pub fn subscribe(&self) -> watch::Receiver<RootPublicKeys> {
        self.verifying.subscribe()
    }
}

/// Makes the first version of a signing key when there is none, and publishes what is not published.
pub(crate) async fn ensure(
    chest: &KeyChest,
    name: &'static str,
    signers: &Signers,
) -> Result<(), KeyChestError> {
    if chest.rows(name).await?.is_empty() {
        match chest
            .make_signing_key(name, signers, &bootstrap_actor())
            .await
        {
            Ok(_) => {}
            Err(error) if error.is_conflict() => {}
            Err(error) => return Err(error),
        }
    }
    chest.publish(name, signers).await
}

fn public_halves(period: &Period) -> Result<RootPublicKeys, KeyChestError> {
    let verifying = period.verifying.iter();
    let halves: Option<_> = verifying
        .map(|(version, public)| root_public(*version, public))
        .collect();
    let halves = halves.ok_or_else(|| KeyChestError::Malformed {
        name: LEASE_ROOT.to_owned(),
    })?;
    Ok(RootPublicKeys::new(halves))
}

/// A key's version is the id by which tokens name it.
fn root_public(version: u64, public: &[u8; 32]) -> Option<RootPublicKey> {
    let id = u32::try_from(version).ok()?;
    RootPublicKey::from_bytes(id, public).ok()
}

/// The longest that a lease lives; see `routes/leases/create.rs`.
pub(crate) const LONGEST_LEASE: Duration = Duration::from_hours(24);
