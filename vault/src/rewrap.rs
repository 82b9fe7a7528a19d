//! Rotation of what is sealed: a DEK wrapped anew under the current version of its KEK, or a value sealed anew under
//! another KEK.

use crate::{
    KekId, OpenError, RowBinding, SealError, Vault,
    envelope::{DecodeError, Envelope, WrappedLenError},
    keys::KeyError,
};

/// Why a sealed value was not moved to another KEK or another version of its own.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RewrapError {
    /// It does not open as it is.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// It opens, and the new sealing failed.
    #[error(transparent)]
    Seal(#[from] SealError),
}

impl RewrapError {
    /// Whether the same call may succeed later without anyone's doing.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Open(error) => error.is_retryable(),
            Self::Seal(error) => error.is_retryable(),
        }
    }
}

impl From<DecodeError> for RewrapError {
    fn from(error: DecodeError) -> Self {
        Self::Open(error.into())
    }
}

impl From<WrappedLenError> for RewrapError {
    fn from(error: WrappedLenError) -> Self {
        Self::Seal(error.into())
    }
}

impl Vault {
    /// Wraps the DEK of a sealed value anew under the current version of its KEK; the value itself stays as it is.
    /// `None` if it is wrapped by that version already.
    ///
    /// The DEK is unwrapped for `row` and compared with the envelope's commitment first, so that a row whose wrapped DEK
    /// was exchanged is found here and is not made to look fresh.
    ///
    /// # Errors
    /// [`RewrapError::Open`] as [`open`](Self::open) gives it, except that the value itself is not decrypted;
    /// [`RewrapError::Seal`] if the provider does not wrap the DEK within [`KEY_DEADLINE`](crate::KEY_DEADLINE).
    pub async fn rewrap(
        &self,
        sealed: &[u8],
        row: &RowBinding<'_>,
    ) -> Result<Option<Vec<u8>>, RewrapError> {
        let envelope = Envelope::decode(sealed)?;
        if self.is_current(&envelope).await? {
            return Ok(None);
        }
        let (kek, aad) = (envelope.kek(), row.dek_aad(envelope.kek()));
        let unwrapping = self.wrapper.unwrap(kek, envelope.wrapped_dek(), &aad);
        let dek = self.in_time(unwrapping).await.map_err(OpenError::from)?;
        envelope
            .check_commitment(&dek)
            .map_err(|_| OpenError::Tampered)?;
        let wrapping = self.wrapper.wrap(kek, &dek, &aad);
        let wrapped = self.in_time(wrapping).await.map_err(SealError::from)?;
        Ok(Some(envelope.rewrapped(&wrapped)?))
    }

    /// Opens a sealed value and seals it anew for the same row with a fresh DEK under `to`. `None` if it lies under the
    /// current version of `to` already.
    ///
    /// # Errors
    /// [`RewrapError::Open`] as [`open`](Self::open) gives it; [`RewrapError::Seal`] as [`seal`](Self::seal) does.
    pub async fn reseal(
        &self,
        sealed: &[u8],
        row: &RowBinding<'_>,
        to: &KekId,
    ) -> Result<Option<Vec<u8>>, RewrapError> {
        let envelope = Envelope::decode(sealed)?;
        if envelope.kek() == to && self.is_current(&envelope).await? {
            return Ok(None);
        }
        let secret = self.open(sealed, row).await?;
        Ok(Some(self.seal(to, &secret, row).await?))
    }

    async fn is_current(&self, envelope: &Envelope<'_>) -> Result<bool, OpenError> {
        let Some(version) = self.wrapper.wrapped_version(envelope.wrapped_dek()) else {
            return Err(KeyError::Tampered {
                kek: envelope.kek().clone(),
            }
            .into());
        };
        let asking = self.wrapper.current_version(envelope.kek());
        let current = self.in_time(asking).await?;
        Ok(version == current)
    }
}

#[cfg(test)]
mod tests;
