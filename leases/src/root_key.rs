//! The lease root key: signs authority blocks. The secret half is sealed by the store's caller; here it is only used.

use std::{fmt, sync::Arc};

use biscuit_auth::{Algorithm, KeyPair, PrivateKey, PublicKey, RootKeyProvider, error};
use zeroize::Zeroizing;

/// A root key pair (Ed25519, RFC 8032) and the id by which tokens name it.
///
/// `Debug` shows the id only. The secret is overwritten when the pair is dropped.
pub struct RootKeyPair {
    id: u32,
    pair: KeyPair,
}

/// Bytes that are no Ed25519 key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("root key {id} is not a 32-byte Ed25519 key")]
pub struct RootKeyError {
    id: u32,
}

impl RootKeyPair {
    /// Makes a pair from the operating system's random bytes. `id` must be new: tokens name their key by it.
    pub fn generate(id: u32) -> Self {
        Self {
            id,
            pair: KeyPair::new_with_algorithm(Algorithm::Ed25519),
        }
    }

    /// Takes the 32 secret bytes that [`Self::to_secret_bytes`] gave.
    ///
    /// # Errors
    /// [`RootKeyError`] if there are not 32 of them.
    pub fn from_secret_bytes(id: u32, bytes: &[u8]) -> Result<Self, RootKeyError> {
        let private =
            PrivateKey::from_bytes(bytes, Algorithm::Ed25519).map_err(|_| RootKeyError { id })?;
        Ok(Self {
            id,
            pair: KeyPair::from(&private),
        })
    }

    /// The id that tokens carry as `root_key_id`.
    pub const fn id(&self) -> u32 {
        self.id
    }

    /// The 32 secret bytes, to be sealed.
    pub fn to_secret_bytes(&self) -> Zeroizing<Vec<u8>> {
        self.pair.private().to_bytes()
    }

    /// The half that verifies.
    pub fn public(&self) -> RootPublicKey {
        RootPublicKey {
            id: self.id,
            key: self.pair.public(),
        }
    }

    pub(crate) const fn pair(&self) -> &KeyPair {
        &self.pair
    }
}

impl fmt::Debug for RootKeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RootKeyPair")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// The public half of a root key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RootPublicKey {
    id: u32,
    key: PublicKey,
}

impl RootPublicKey {
    /// Takes the 32 bytes of an Ed25519 public key.
    ///
    /// # Errors
    /// [`RootKeyError`] if they are not a point's one encoding.
    pub fn from_bytes(id: u32, bytes: &[u8]) -> Result<Self, RootKeyError> {
        PublicKey::from_bytes(bytes, Algorithm::Ed25519)
            .map(|key| Self { id, key })
            .map_err(|_| RootKeyError { id })
    }

    /// The id that tokens carry.
    pub const fn id(&self) -> u32 {
        self.id
    }

    /// The key's 32 bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.key.to_bytes()
    }
}

/// The root keys whose tokens are taken: the current one, and the previous one while its tokens still run.
#[derive(Debug, Clone, Default)]
pub struct RootPublicKeys(Arc<[RootPublicKey]>);

impl RootPublicKeys {
    /// Takes keys by their ids. Where an id comes twice, the first one counts.
    pub fn new(keys: Vec<RootPublicKey>) -> Self {
        Self(keys.into())
    }

    /// Whether this very key is among them, not only one of its id.
    pub fn holds(&self, key: &RootPublicKey) -> bool {
        self.get(key.id) == Some(key)
    }

    /// The key of this id.
    pub fn get(&self, id: u32) -> Option<&RootPublicKey> {
        self.0.iter().find(|key| key.id == id)
    }
}

impl RootKeyProvider for &RootPublicKeys {
    /// A token without a key id is refused: to try every key would make an old key live for ever.
    fn choose(&self, id: Option<u32>) -> Result<PublicKey, error::Format> {
        id.and_then(|id| self.get(id))
            .map(|key| key.key)
            .ok_or(error::Format::UnknownPublicKey)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_survives_its_secret_bytes() {
        let pair = RootKeyPair::generate(7);
        let again = RootKeyPair::from_secret_bytes(7, &pair.to_secret_bytes()).unwrap();
        assert_eq!(pair.public(), again.public());
        let public = RootPublicKey::from_bytes(7, &pair.public().to_bytes()).unwrap();
        assert_eq!(public, pair.public());
    }

    #[test]
    fn bytes_of_another_length_are_refused() {
        assert!(RootKeyPair::from_secret_bytes(1, &[0; 31]).is_err());
        assert!(RootPublicKey::from_bytes(1, &[0; 33]).is_err());
    }

    #[test]
    fn keys_are_found_by_their_id_alone() {
        let (old, new) = (RootKeyPair::generate(1), RootKeyPair::generate(2));
        let keys = RootPublicKeys::new(vec![new.public(), old.public()]);
        assert_eq!(keys.get(1), Some(&old.public()));
        assert_eq!(keys.get(2), Some(&new.public()));
        assert_eq!(keys.get(3), None);
        assert!((&keys).choose(None).is_err());
    }

    #[test]
    fn a_key_of_a_known_id_is_held_only_if_it_is_that_key() {
        let (held, other) = (RootKeyPair::generate(1), RootKeyPair::generate(1));
        let keys = RootPublicKeys::new(vec![held.public()]);
        assert!(keys.holds(&held.public()));
        assert!(!keys.holds(&other.public()));
        assert!(!keys.holds(&RootKeyPair::generate(2).public()));
    }

    #[test]
    fn debug_shows_no_secret() {
        let pair = RootKeyPair::generate(7);
        let secret = hex::encode(pair.to_secret_bytes());
        assert_eq!(format!("{pair:?}"), "RootKeyPair { id: 7, .. }");
        assert!(!format!("{:?}", pair.public()).contains(&secret));
    }
}
