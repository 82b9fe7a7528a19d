#![doc = include_str!("../README.md")]

mod aead;
pub mod cache;
pub mod envelope;
pub mod keys;
pub mod memory;
mod rewrap;
pub mod secret;

use std::{sync::Arc, time::Duration};

use crate::envelope::{DecodeError, Envelope, MAX_SECRET_LEN, WrappedLenError};

pub use crate::{
    cache::{CacheKey, OpenedCache},
    envelope::RowBinding,
    keys::{
        Dek, KekId, KekInfo, KekState, KekVersion, KeyError, KeySigner, KeyWrapper, NoRandomness,
        pkcs11::{PinSource, Pkcs11Error, Pkcs11Keys, Pkcs11Options, TokenRef},
        providers::Providers,
        software::{KeyFileError, Protection, SoftwareKeys},
    },
    rewrap::RewrapError,
    secret::Secret,
};

/// How long a key provider may take over one DEK. Then the answer is [`KeyError::Unavailable`]: a hanging HSM costs
/// each request this long and no longer.
pub const KEY_DEADLINE: Duration = Duration::from_secs(2);

/// Seals values for their rows and opens them there, with the KEKs of one key provider.
///
/// Clones share the provider. Both operations need a tokio runtime with its timer.
#[derive(Debug, Clone)]
pub struct Vault {
    wrapper: Arc<dyn KeyWrapper>,
}

/// Why a value was not sealed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SealError {
    /// The value is too long.
    #[error("a secret of {len} bytes is too long; the limit is {MAX_SECRET_LEN} bytes")]
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// The key provider gave a wrapped DEK that no envelope can carry.
    #[error(transparent)]
    WrappedLen(#[from] WrappedLenError),
    /// The key provider did not wrap the DEK, or there were no random bytes.
    #[error(transparent)]
    Key(#[from] KeyError),
}

impl SealError {
    /// Whether the same call may succeed later without anyone's doing.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Key(error) => error.is_retryable(),
            Self::TooLong { .. } | Self::WrappedLen(_) => false,
        }
    }
}

/// Why a sealed value was not opened. Whatever was altered, the answer is the one [`Tampered`](Self::Tampered).
#[derive(Debug, Clone, thiserror::Error)]
pub enum OpenError {
    /// Altered, cut short, or copied from another row.
    #[error(
        "the sealed value was altered or belongs to another row; restore it from a backup, or store the secret anew"
    )]
    Tampered,
    /// Sealed by a release that this one does not know.
    #[error(
        "the sealed value has version {version}, which this release does not read; run the release that wrote it"
    )]
    UnknownVersion {
        /// The version byte.
        version: u8,
    },
    /// The key provider does not hold the KEK, or not the version that wrapped the DEK.
    #[error(
        "no key provider here holds {kek}; restore its key, or correct the key provider's configuration"
    )]
    UnknownKek {
        /// The KEK that the value names.
        kek: KekId,
    },
    /// The key provider did not unwrap the DEK.
    #[error(transparent)]
    Key(KeyError),
}

impl OpenError {
    /// Whether the same call may succeed later without anyone's doing.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Key(error) => error.is_retryable(),
            Self::Tampered | Self::UnknownVersion { .. } | Self::UnknownKek { .. } => false,
        }
    }
}

impl From<KeyError> for OpenError {
    fn from(error: KeyError) -> Self {
        match error {
            KeyError::Tampered { .. } => Self::Tampered,
            KeyError::UnknownKek { kek } => Self::UnknownKek { kek },
            KeyError::BadName { .. }
            | KeyError::Unavailable { .. }
            | KeyError::Denied { .. }
            | KeyError::UnknownSigningKey { .. }
            | KeyError::Pkcs11(_)
            | KeyError::GcpKms(_)
            | KeyError::File(_)
            | KeyError::NoRandomness(_) => Self::Key(error),
        }
    }
}

impl From<DecodeError> for OpenError {
    fn from(error: DecodeError) -> Self {
        match error {
            DecodeError::UnknownVersion(version) => Self::UnknownVersion { version },
            DecodeError::Malformed => Self::Tampered,
        }
    }
}

impl Vault {
    /// A vault over this key provider.
    pub fn new(wrapper: Arc<dyn KeyWrapper>) -> Self {
        Self { wrapper }
    }

    /// The key provider.
    pub fn wrapper(&self) -> &Arc<dyn KeyWrapper> {
        &self.wrapper
    }

    /// Seals `secret` for `row` under `kek` with a fresh DEK, in the layout of [`envelope`].
    ///
    /// # Errors
    /// [`SealError::TooLong`] above [`MAX_SECRET_LEN`]; [`SealError::Key`] if the provider does not wrap the DEK within
    /// [`KEY_DEADLINE`].
    pub async fn seal(
        &self,
        kek: &KekId,
        secret: &Secret,
        row: &RowBinding<'_>,
    ) -> Result<Vec<u8>, SealError> {
        if secret.len() > MAX_SECRET_LEN {
            return Err(SealError::TooLong { len: secret.len() });
        }
        let dek = Dek::generate().map_err(KeyError::from)?;
        let aad = row.dek_aad(kek);
        let wrapped = self.in_time(self.wrapper.wrap(kek, &dek, &aad)).await?;
        envelope::check_wrapped_len(&wrapped)?;
        let sealed = envelope::seal(dek, &wrapped, kek, secret, row).map_err(KeyError::from)?;
        Ok(sealed)
    }

    /// Opens what [`seal`](Self::seal) made for the same `row`. The secret is locked in memory where that is allowed
    /// ([`memory`]).
    ///
    /// # Errors
    /// [`OpenError::Tampered`] if a byte differs or the row is another one, [`OpenError::UnknownVersion`],
    /// [`OpenError::UnknownKek`], or [`OpenError::Key`] if the provider does not unwrap the DEK within
    /// [`KEY_DEADLINE`].
    pub async fn open(&self, sealed: &[u8], row: &RowBinding<'_>) -> Result<Secret, OpenError> {
        let envelope = Envelope::decode(sealed)?;
        let aad = row.dek_aad(envelope.kek());
        let unwrapping = self
            .wrapper
            .unwrap(envelope.kek(), envelope.wrapped_dek(), &aad);
        let dek = self.in_time(unwrapping).await?;
        let secret = envelope.open(&dek, row).map_err(|_| OpenError::Tampered)?;
        Ok(secret.locked())
    }

    async fn in_time<T>(
        &self,
        call: impl Future<Output = Result<T, KeyError>>,
    ) -> Result<T, KeyError> {
        match tokio::time::timeout(KEY_DEADLINE, call).await {
            Ok(result) => result,
            Err(_) => Err(KeyError::Unavailable {
                provider: self.wrapper.provider(),
                reason: format!("no answer within {} s", KEY_DEADLINE.as_secs()),
            }),
        }
    }
}

#[cfg(test)]
mod tests;
