//! Key providers: who holds the KEKs, and what they are asked to do.

pub mod software;

use std::{fmt, str::FromStr, sync::Arc};

use async_trait::async_trait;

pub use crate::aead::NoRandomness;
use crate::aead::{KEY_LEN, Key};
use software::KeyFileError;

/// A data encryption key: 256 random bits that seal one value, once.
///
/// Zeroed on drop, opaque in `Debug`, neither `Clone` nor serialisable. Only a [`KeyWrapper`] needs its bytes.
pub struct Dek(Key);

impl Dek {
    /// Bytes in a DEK.
    pub const LEN: usize = KEY_LEN;

    /// A fresh DEK from the operating system's generator.
    ///
    /// # Errors
    /// [`NoRandomness`] if the generator fails.
    pub fn generate() -> Result<Self, NoRandomness> {
        Key::generate().map(Self)
    }

    /// The DEK of these bytes, as a key provider unwrapped them. The caller zeroes its own copy.
    pub fn from_bytes(bytes: &[u8; Self::LEN]) -> Self {
        Self(Key::copy_of(bytes))
    }

    /// The bytes, for a key provider to wrap.
    pub fn expose(&self) -> &[u8; Self::LEN] {
        self.0.bytes()
    }

    pub(crate) fn derive(&self, label: &[u8]) -> Key {
        self.0.derive(label)
    }
}

impl From<Key> for Dek {
    fn from(key: Key) -> Self {
        Self(key)
    }
}

impl fmt::Debug for Dek {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Dek(..)")
    }
}

/// The name of a KEK: its provider, a colon, and the provider's own name for it, e.g. `software:vlt_01K3…`.
///
/// 1 to 512 visible ASCII characters. It names the KEK through all its versions: which version wrapped a DEK stands in
/// the wrapped DEK, so rotation changes neither this name nor anything that is bound to it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KekId(Arc<str>);

/// A text that cannot be a [`KekId`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a KEK id is 1 to 512 visible ASCII characters")]
pub struct InvalidKekId;

impl KekId {
    /// Longest id in bytes.
    pub const MAX_LEN: usize = 512;

    /// Reads an id.
    ///
    /// # Errors
    /// [`InvalidKekId`] if it is empty, too long, or has a character that is not visible ASCII.
    pub fn parse(text: &str) -> Result<Self, InvalidKekId> {
        let fits = (1..=Self::MAX_LEN).contains(&text.len());
        if fits && text.bytes().all(|byte| byte.is_ascii_graphic()) {
            Ok(Self(text.into()))
        } else {
            Err(InvalidKekId)
        }
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for KekId {
    type Err = InvalidKekId;

    fn from_str(text: &str) -> Result<Self, InvalidKekId> {
        Self::parse(text)
    }
}

impl fmt::Display for KekId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for KekId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KekId({})", self.0)
    }
}

/// A key provider: it holds KEKs, and wraps and unwraps DEKs under them.
///
/// An implementation authenticates `aad` together with the DEK, so that a wrapped DEK opens in no other row; it keeps
/// KEKs to itself; it never waits without a bound and never blocks the runtime's threads.
#[async_trait]
pub trait KeyWrapper: fmt::Debug + Send + Sync {
    /// The provider's name, which starts the ids of its KEKs: `software`, `pkcs11`, `gcp-kms`.
    fn provider(&self) -> &'static str;

    /// Makes the KEK of a vault, or finds the one that it has.
    ///
    /// # Errors
    /// [`KeyError::BadName`] if `vault` cannot name a key; otherwise what the provider met.
    async fn create_kek(&self, vault: &str) -> Result<KekId, KeyError>;

    /// Wraps `dek` under the current version of `kek`. The result is at most
    /// [`MAX_WRAPPED_LEN`](crate::envelope::MAX_WRAPPED_LEN) bytes and says which version wrapped it.
    ///
    /// # Errors
    /// [`KeyError::UnknownKek`] if the provider does not hold `kek`; otherwise what the provider met.
    async fn wrap(&self, kek: &KekId, dek: &Dek, aad: &[u8]) -> Result<Vec<u8>, KeyError>;

    /// Unwraps a DEK that [`wrap`](Self::wrap) made with the same `kek` and `aad`.
    ///
    /// # Errors
    /// [`KeyError::Tampered`] if it was made otherwise, [`KeyError::UnknownKek`] if the provider does not hold `kek`
    /// or the version that wrapped it; otherwise what the provider met.
    async fn unwrap(&self, kek: &KekId, wrapped: &[u8], aad: &[u8]) -> Result<Dek, KeyError>;

    /// Whether the provider could answer now, for health checks.
    ///
    /// # Errors
    /// What would make it fail.
    async fn check(&self) -> Result<(), KeyError>;
}

/// Why a key provider did not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum KeyError {
    /// The provider holds no such KEK, or not the version that wrapped this DEK.
    #[error(
        "no key provider here holds {kek}; restore its key, or correct the key provider's configuration"
    )]
    UnknownKek {
        /// The KEK that was asked for.
        kek: KekId,
    },
    /// The wrapped DEK is not one that this KEK made for this row.
    #[error("the wrapped DEK was not made by {kek} for this row")]
    Tampered {
        /// The KEK that was asked.
        kek: KekId,
    },
    /// The vault's name cannot name a key.
    #[error("{name:?} cannot name a KEK; use 1 to 64 of the characters A-Z a-z 0-9 _ -")]
    BadName {
        /// The name as given.
        name: String,
    },
    /// The provider did not answer, or not in time. Trying again may help.
    #[error("key provider {provider} is unavailable: {reason}")]
    Unavailable {
        /// The provider's name.
        provider: &'static str,
        /// What happened.
        reason: String,
    },
    /// The provider refuses to use the KEK: disabled, destroyed, or not permitted.
    #[error("key provider {provider} refuses to use {kek}: {reason}")]
    Denied {
        /// The provider's name.
        provider: &'static str,
        /// The KEK that was asked for.
        kek: KekId,
        /// What the provider said.
        reason: String,
    },
    /// A key file of the software provider cannot be used.
    #[error(transparent)]
    File(#[from] KeyFileError),
    /// No random bytes for a key or a nonce.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
}

impl KeyError {
    /// Whether the same call may succeed later without anyone's doing.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unavailable { .. } | Self::NoRandomness(_) => true,
            Self::File(error) => error.is_retryable(),
            Self::UnknownKek { .. }
            | Self::Tampered { .. }
            | Self::BadName { .. }
            | Self::Denied { .. } => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kek_ids_are_visible_ascii_within_bounds() {
        let id = KekId::parse("software:vlt_01K3").unwrap();
        assert_eq!(
            (id.as_str(), id.to_string().as_str()),
            ("software:vlt_01K3", "software:vlt_01K3")
        );
        for bad in ["", "a b", "a\n", "ключ", &"a".repeat(513)] {
            assert_eq!(KekId::parse(bad), Err(InvalidKekId), "{bad:?}");
        }
    }

    #[test]
    fn a_dek_is_fresh_and_opaque() {
        let (a, b) = (Dek::generate().unwrap(), Dek::generate().unwrap());
        assert_ne!(a.expose(), b.expose());
        assert_eq!(format!("{a:?}"), "Dek(..)");
    }

    #[test]
    fn only_passing_faults_are_retryable() {
        let kek = KekId::parse("software:a").unwrap();
        let unavailable = KeyError::Unavailable {
            provider: "software",
            reason: "late".into(),
        };
        assert!(unavailable.is_retryable());
        assert!(!KeyError::UnknownKek { kek: kek.clone() }.is_retryable());
        assert!(!KeyError::Tampered { kek }.is_retryable());
    }
}
