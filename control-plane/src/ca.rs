//! The injector's certificate authority: its sealed key, and the certificates that agents trust.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use store::Actor;
use time::OffsetDateTime;
use vault::Secret;

use crate::keys::{
    CA, KeyChest, KeyChestError, NewKey, Periods, Publication, bootstrap_actor, public_name,
};

/// A certificate authority as it was sealed.
pub struct CaKey {
    /// From 1 up.
    pub version: u64,
    /// The private key, in the form that its maker gave it.
    pub key: Secret,
    /// Its certificate in PEM, authenticated by a seal.
    pub certificate_pem: String,
}

impl fmt::Debug for CaKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("CaKey")
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

/// A new authority, to be sealed.
#[derive(Debug)]
pub struct NewCa {
    /// The private key.
    pub key: Secret,
    /// The certificate in PEM.
    pub certificate_pem: String,
}

/// Makes certificate authorities: what TLS needs is the injector's matter.
pub trait MakeCa: fmt::Debug + Send + Sync {
    /// Makes one that is valid from now on.
    ///
    /// # Errors
    /// Whatever its library says.
    fn make(&self, now: OffsetDateTime) -> Result<NewCa, Box<dyn Error + Send + Sync>>;

    /// Whether a certificate belongs to a key.
    fn fits(&self, certificate_pem: &str, key: &Secret) -> bool;
}

/// Why there is no certificate authority.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CaError {
    /// The library did not make one.
    #[error("the certificate authority cannot be made")]
    Make(#[source] Box<dyn Error + Send + Sync>),
    /// The certificate beside the sealed key is another key's.
    #[error("the certificate beside the sealed CA key is not that key's; restore the database")]
    Mismatch,
    /// Its key cannot be had.
    #[error(transparent)]
    Keys(#[from] KeyChestError),
}

impl CaKey {
    /// The authority that signs now.
    ///
    /// # Errors
    /// [`KeyChestError`]; [`KeyChestError::Missing`] until a control plane has made one.
    pub async fn load(chest: &KeyChest, now: OffsetDateTime) -> Result<Self, KeyChestError> {
        let published = Certificates::read(chest).await?;
        let version = published.periods().signing(now).ok_or_else(missing)?;
        let mut rows = chest.rows(CA).await?.into_iter();
        let row = rows
            .find(|row| row.version == version)
            .ok_or_else(missing)?;
        let key = chest.open(row).await?.secret;
        let certificate_pem = published.open(version, chest).await?;
        Ok(Self {
            version,
            key,
            certificate_pem,
        })
    }

    /// The authority that signs now, if it is not the one of `version`. Only another one is opened.
    ///
    /// # Errors
    /// [`KeyChestError`].
    pub async fn other_than(
        version: u64,
        chest: &KeyChest,
        now: OffsetDateTime,
    ) -> Result<Option<Self>, KeyChestError> {
        if signing_version(chest, now).await? == Some(version) {
            return Ok(None);
        }
        Self::load(chest, now).await.map(Some)
    }

    /// The authority that signs now; `maker` makes the first.
    ///
    /// # Errors
    /// [`CaError`].
    pub async fn load_or_create(
        chest: &KeyChest,
        maker: &dyn MakeCa,
        now: OffsetDateTime,
    ) -> Result<Self, CaError> {
        ensure(chest, maker, now).await?;
        Ok(Self::load(chest, now).await?)
    }
}

/// Makes the first authority when there is none. Needs no right to unwrap.
///
/// # Errors
/// [`CaError`].
pub async fn ensure(
    chest: &KeyChest,
    maker: &dyn MakeCa,
    now: OffsetDateTime,
) -> Result<(), CaError> {
    let may_open = publish(chest, maker).await?;
    let published = chest.rows(&public_name(CA)).await?;
    if published.is_empty() {
        // Also where there are some that can be opened here by nobody: without a published one no injector starts.
        return match add(chest, maker, &bootstrap_actor(), now).await {
            Err(CaError::Keys(error)) if error.is_conflict() => Ok(()),
            other => other.map(|_| ()),
        };
    }
    if !may_open {
        tracing::warn!(
            "a certificate authority was made and not published, and this control plane may not open it; it stays out of use, \
             and `claviger keys rotate --key ca` makes another"
        );
    }
    Ok(())
}

/// Makes the next authority. Agents should trust it at once; it signs after [`CA_OVERLAP`].
pub(crate) async fn add(
    chest: &KeyChest,
    maker: &dyn MakeCa,
    actor: &Actor,
    now: OffsetDateTime,
) -> Result<u64, CaError> {
    // An unpublished one that nobody here may open stays out of use.
    publish(chest, maker).await?;
    let version = chest.next_version(CA).await?;
    let made = maker.make(now).map_err(CaError::Make)?;
    let key = NewKey {
        secret: made.key,
        public: made.certificate_pem.clone().into_bytes(),
    };
    let published = (&*public_name(CA), certificate(made.certificate_pem));
    // Both or neither: a key whose certificate nobody knows could never sign.
    chest
        .put_with((CA, key), Some(published), version, actor)
        .await?;
    Ok(version)
}

/// The certificates that agents should trust now, in PEM, newest first: of those that sign, come next, or were before.
///
/// # Errors
/// [`KeyChestError`].
pub async fn trust_pem(chest: &KeyChest, now: OffsetDateTime) -> Result<String, KeyChestError> {
    let published = Certificates::read(chest).await?;
    let mut pem = String::new();
    for version in published.periods().verifying(now) {
        pem.push_str(&published.open(version, chest).await?);
    }
    Ok(pem)
}

/// The version that signs now.
pub(crate) async fn signing_version(
    chest: &KeyChest,
    now: OffsetDateTime,
) -> Result<Option<u64>, KeyChestError> {
    let published = Certificates::read(chest).await?;
    Ok(published.periods().signing(now))
}

/// The versions whose certificates those are.
pub(crate) async fn trusted_versions(
    chest: &KeyChest,
    now: OffsetDateTime,
) -> Result<Vec<u64>, KeyChestError> {
    let published = Certificates::read(chest).await?;
    Ok(published.periods().verifying(now))
}

/// Publishes certificates that were not, of installations that are older than this. False if this process may not open one.
async fn publish(chest: &KeyChest, maker: &dyn MakeCa) -> Result<bool, CaError> {
    let published = chest.next_version(&public_name(CA)).await? - 1;
    let mut rows = chest.rows(CA).await?;
    rows.reverse();
    for row in rows.into_iter().filter(|row| row.version > published) {
        let version = row.version;
        let opened = match chest.open(row).await {
            Err(error) if error.is_denied() => return Ok(false),
            other => other?,
        };
        let pem = String::from_utf8(opened.public).map_err(|_| CaError::Mismatch)?;
        // Nothing authenticates what lies beside the sealed key, but the key itself.
        if !maker.fits(&pem, &opened.secret) {
            return Err(CaError::Mismatch);
        }
        put_certificate(chest, version, pem).await?;
    }
    Ok(true)
}

async fn put_certificate(chest: &KeyChest, version: u64, pem: String) -> Result<(), KeyChestError> {
    let name = public_name(CA);
    let actor = bootstrap_actor();
    let put = chest.put(&name, version, certificate(pem), &actor).await;
    let Err(error) = put else {
        return Ok(());
    };
    // Another process may have been first, with this very version.
    let rows = chest.rows(&name).await?;
    if error.is_conflict() && rows.iter().any(|row| row.version == version) {
        return Ok(());
    }
    Err(error)
}

fn certificate(pem: String) -> NewKey {
    NewKey {
        secret: Secret::from(pem.clone()),
        public: pem.into_bytes(),
    }
}

/// The published certificates, oldest first.
struct Certificates {
    rows: Vec<store::SealedKey>,
    published: Vec<Publication>,
}

impl Certificates {
    async fn read(chest: &KeyChest) -> Result<Self, KeyChestError> {
        let mut rows = chest.rows(&public_name(CA)).await?;
        rows.reverse();
        let published = rows.iter().map(Publication::of).collect();
        Ok(Self { rows, published })
    }

    fn periods(&self) -> Periods<'_> {
        Periods {
            published: &self.published,
            overlap: CA_OVERLAP,
            lifetime: TRUSTED_AFTER,
        }
    }

    async fn open(&self, version: u64, chest: &KeyChest) -> Result<String, KeyChestError> {
        let mut rows = self.rows.iter();
        let row = rows
            .find(|row| row.version == version)
            .ok_or_else(missing)?;
        let opened = chest.open(row.clone()).await?.secret;
        let text = opened.expose_str().map(str::to_owned);
        text.ok_or_else(|| KeyChestError::Malformed {
            name: public_name(CA),
        })
    }
}

fn missing() -> KeyChestError {
    KeyChestError::Missing {
        name: CA.to_owned(),
    }
}

/// How long a new authority is trusted before it signs: the longest lease, so that an agent that runs learns of it.
pub const CA_OVERLAP: Duration = Duration::from_hours(24);
/// How long one is trusted after another signs.
const TRUSTED_AFTER: Duration = Duration::from_hours(30 * 24);
