//! Rotation of what is sealed: a DEK wrapped anew under the current version of its KEK, or a value sealed anew under
//! another KEK.

use crate::{
    KekId, OpenError, RowBinding, SealError, Vault,
    envelope::{DecodeError, Envelope, WrappedLenError},
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
    /// The provider still wraps by an older version than the one that is asked for. A process learns of a version that
    /// another one made within seconds.
    #[error("the key provider does not wrap by version {target} of {kek} yet")]
    Behind {
        /// The KEK.
        kek: KekId,
        /// The version that the value is to come under, at least.
        target: u64,
    },
}

impl RewrapError {
    /// Whether the same call may succeed later without anyone's doing.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Open(error) => error.is_retryable(),
            Self::Seal(error) => error.is_retryable(),
            Self::Behind { .. } => true,
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
    /// `None` if it is wrapped by version `target` or a later one already, whatever this process takes for the current one.
    ///
    /// The DEK is unwrapped for `row` and compared with the envelope's commitment first, so that a row whose wrapped DEK
    /// was exchanged is found here and is not made to look fresh.
    ///
    /// # Errors
    /// [`RewrapError::Open`] as [`open`](Self::open) gives it, except that the value itself is not decrypted;
    /// [`RewrapError::Seal`] if the provider does not wrap the DEK within [`KEY_DEADLINE`](crate::KEY_DEADLINE);
    /// [`RewrapError::Behind`] if it wraps it by a version before `target`.
    pub async fn rewrap(
        &self,
        sealed: &[u8],
        row: &RowBinding<'_>,
        target: u64,
    ) -> Result<Option<Vec<u8>>, RewrapError> {
        let envelope = Envelope::decode(sealed)?;
        if self.has_reached(&envelope, target)? {
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
        let anew = envelope.rewrapped(&wrapped)?;
        self.reached(anew, kek, target).map(Some)
    }

    /// Opens a sealed value and seals it anew for the same row with a fresh DEK under `to`. `None` if it lies under
    /// version `target` of `to`, or a later one, already.
    ///
    /// # Errors
    /// [`RewrapError::Open`] as [`open`](Self::open) gives it; [`RewrapError::Seal`] as [`seal`](Self::seal) does;
    /// [`RewrapError::Behind`] if the provider seals by a version before `target`.
    pub async fn reseal(
        &self,
        sealed: &[u8],
        row: &RowBinding<'_>,
        to: &KekId,
        target: u64,
    ) -> Result<Option<Vec<u8>>, RewrapError> {
        let envelope = Envelope::decode(sealed)?;
        if envelope.kek() == to && self.has_reached(&envelope, target)? {
            return Ok(None);
        }
        let secret = self.open(sealed, row).await?;
        let anew = self.seal(to, &secret, row).await?;
        self.reached(anew, to, target).map(Some)
    }

    /// The version of the KEK that a sealed value says it lies under. Nothing is authenticated.
    pub fn kek_version(&self, sealed: &[u8]) -> Option<u64> {
        let envelope = Envelope::decode(sealed).ok()?;
        self.wrapper.wrapped_version(envelope.wrapped_dek())
    }

    /// What was sealed anew, unless by a version before `target`: the provider's view of its versions may be older.
    fn reached(&self, anew: Vec<u8>, kek: &KekId, target: u64) -> Result<Vec<u8>, RewrapError> {
        if self
            .kek_version(&anew)
            .is_some_and(|version| version >= target)
        {
            return Ok(anew);
        }
        let kek = kek.clone();
        Err(RewrapError::Behind { kek, target })
    }

    fn has_reached(&self, envelope: &Envelope<'_>, target: u64) -> Result<bool, OpenError> {
        let version = self.wrapper.wrapped_version(envelope.wrapped_dek());
        let version = version.ok_or(OpenError::Tampered)?;
        Ok(version >= target)
    }
}

#[cfg(test)]
mod tests;
