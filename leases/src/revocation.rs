//! Revocation identifiers: one a block, so that a narrowed lease can be revoked without its parent.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The revocation identifier of a block: its Ed25519 signature.
///
/// Shape: 64 bytes, as text 128 lower-case hexadecimal digits. It says nothing of the token's secret, so it may stand in
/// a database and in an audit event. Revoking one revokes the block and all that were appended to it.
/// Spec: Biscuit v3, "Revocation identifier".
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RevocationId([u8; Self::LENGTH]);

/// Why a text or byte string is no revocation identifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a revocation id is 64 bytes, as text 128 lower-case hexadecimal digits")]
pub struct RevocationIdError;

impl RevocationId {
    /// Bytes of an identifier.
    pub const LENGTH: usize = 64;

    /// Takes the identifier's bytes.
    ///
    /// # Errors
    /// [`RevocationIdError`] if there are not 64 of them.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, RevocationIdError> {
        bytes.try_into().map(Self).map_err(|_| RevocationIdError)
    }

    /// Reads an identifier.
    ///
    /// # Errors
    /// [`RevocationIdError`] if the text is not 128 lower-case hexadecimal digits.
    pub fn parse(text: &str) -> Result<Self, RevocationIdError> {
        let mut bytes = [0; Self::LENGTH];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| RevocationIdError)?;
        let id = Self(bytes);
        if id.to_string() == text {
            Ok(id)
        } else {
            Err(RevocationIdError)
        }
    }

    /// The identifier's bytes.
    pub const fn as_bytes(&self) -> &[u8; Self::LENGTH] {
        &self.0
    }
}

impl fmt::Display for RevocationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for RevocationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RevocationId({self})")
    }
}

impl Serialize for RevocationId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RevocationId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identifier_is_read_back_from_its_text_and_its_bytes() {
        let id = RevocationId::from_bytes(&[0xAB; 64]).unwrap();
        assert_eq!(RevocationId::parse(&id.to_string()).unwrap(), id);
        assert_eq!(RevocationId::from_bytes(id.as_bytes()).unwrap(), id);
    }

    #[test]
    fn another_spelling_or_length_is_refused() {
        for text in [
            String::new(),
            "ab".repeat(63),
            "AB".repeat(64),
            "zz".repeat(64),
        ] {
            assert!(RevocationId::parse(&text).is_err(), "{text}");
        }
        assert!(RevocationId::from_bytes(&[0; 63]).is_err());
    }
}
