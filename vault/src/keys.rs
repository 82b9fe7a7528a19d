//! Key providers: who holds the KEKs, and what they are asked to do.
//!
//! The first byte of a wrapped DEK tells the provider and its form: `0x01` software, `0x02` and `0x03` PKCS#11 (by
//! AES-GCM, by key wrap and a bound commitment), `0x10` Google Cloud KMS.

#[cfg(test)]
pub(crate) mod conformance;
pub mod gcp_kms;
pub mod pkcs11;
pub mod providers;
pub mod software;

use std::{fmt, str::FromStr, sync::Arc};

use async_trait::async_trait;
use time::OffsetDateTime;

pub use crate::aead::NoRandomness;
use crate::aead::{KEY_LEN, Key};
use gcp_kms::GcpKmsError;
use pkcs11::Pkcs11Error;
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

    /// Makes a new version of `kek`, which is current from then on, and gives its number. The versions before it go on
    /// unwrapping.
    ///
    /// # Errors
    /// [`KeyError::UnknownKek`] if the provider does not hold `kek`; otherwise what the provider met.
    async fn rotate_kek(&self, kek: &KekId) -> Result<u64, KeyError>;

    /// What the provider holds under this name, asked anew where that needs a question.
    ///
    /// # Errors
    /// [`KeyError::UnknownKek`] if the provider does not hold `kek`; otherwise what the provider met.
    async fn describe(&self, kek: &KekId) -> Result<KekInfo, KeyError>;

    /// The version that [`wrap`](Self::wrap) would use now. Providers that can answer from what they know override
    /// this; what they know is then at most a few seconds old.
    ///
    /// # Errors
    /// As [`describe`](Self::describe).
    async fn current_version(&self, kek: &KekId) -> Result<u64, KeyError> {
        Ok(self.describe(kek).await?.current)
    }

    /// The version of the KEK that made this wrapped DEK, read from its form without opening it. `None` if it is not of
    /// this provider's form. Nothing is authenticated.
    fn wrapped_version(&self, wrapped: &[u8]) -> Option<u64>;

    /// Whether the provider could answer now, for health checks.
    ///
    /// # Errors
    /// What would make it fail.
    async fn check(&self) -> Result<(), KeyError>;
}

/// Ed25519 keys that are made in a key provider and stay there: the key that signs JWTs, the root key of leases.
#[async_trait]
pub trait KeySigner: fmt::Debug + Send + Sync {
    /// The provider's name: `pkcs11`, `gcp-kms`.
    fn provider(&self) -> &'static str;

    /// Makes version `version` of the signing key `name` (`jwt`, `lease-root`), or finds it, and gives its public key.
    ///
    /// # Errors
    /// [`KeyError::BadName`] if `name` cannot name a key; otherwise what the provider met.
    async fn create_signing_key(&self, name: &str, version: u64) -> Result<[u8; 32], KeyError>;

    /// Signs `message` with pure Ed25519. Spec: RFC 8032 section 5.1.6.
    ///
    /// # Errors
    /// [`KeyError::UnknownSigningKey`] if the provider does not hold that version of the key; otherwise what the
    /// provider met.
    async fn sign(&self, name: &str, version: u64, message: &[u8]) -> Result<[u8; 64], KeyError>;
}

/// What a provider holds under one KEK's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KekInfo {
    /// The KEK.
    pub kek: KekId,
    /// The version that wraps.
    pub current: u64,
    /// All versions that the provider knows of, the oldest first.
    pub versions: Vec<KekVersion>,
}

/// One version of a KEK.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KekVersion {
    /// Its number, from 1.
    pub number: u64,
    /// When it was made, where the provider knows.
    pub created_at: Option<OffsetDateTime>,
    /// Whether it can be used.
    pub state: KekState,
    /// How it wraps, e.g. `AES-256-GCM`, `CKM_AES_GCM`, `CKM_AES_KEY_WRAP_PAD+HMAC`.
    pub mechanism: &'static str,
}

/// Whether a version of a KEK can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KekState {
    /// It unwraps, and wraps if it is the current one.
    Enabled,
    /// It is known and does not unwrap for now; that can be undone.
    Disabled,
    /// Its key is gone for good.
    Destroyed,
}

impl KekState {
    /// `enabled`, `disabled` or `destroyed`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Enabled => "enabled",
            Self::Disabled => "disabled",
            Self::Destroyed => "destroyed",
        }
    }
}

/// The longest name of a vault or a signing key that can name a key, in bytes.
pub(crate) const MAX_NAME_LEN: usize = 64;

/// Whether `name` can name a key in every provider: 1 to 64 of the characters A-Z a-z 0-9 _ -.
pub(crate) fn is_plain_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    (1..=MAX_NAME_LEN).contains(&name.len()) && name.bytes().all(is_plain)
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
    /// The provider holds no such signing key.
    #[error(
        "key provider {provider} holds no version {version} of signing key {name}; restore it, or rotate that key"
    )]
    UnknownSigningKey {
        /// The provider's name.
        provider: &'static str,
        /// The key's name.
        name: String,
        /// Its version.
        version: u64,
    },
    /// The PKCS#11 module, its token, its PIN or a key in it cannot be used.
    #[error(transparent)]
    Pkcs11(#[from] Pkcs11Error),
    /// Cloud KMS cannot be used as configured, or refuses.
    #[error(transparent)]
    GcpKms(#[from] GcpKmsError),
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
            | Self::UnknownSigningKey { .. }
            | Self::Pkcs11(_)
            | Self::GcpKms(_)
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
