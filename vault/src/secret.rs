//! Secret bytes that cannot be printed, copied or serialised, and that are zeroed when dropped.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Visitor};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

use crate::memory::PageLock;

/// Secret bytes: a provider's credential, a passphrase, a private key.
///
/// The memory, spare capacity included, is zeroed on drop. There is no `Clone`, `Display` or `Serialize`; `Debug` is
/// opaque and shows not even the length. Share one by [`Arc`](std::sync::Arc). Comparison takes the same time whatever
/// the bytes are (the lengths may show).
///
/// It deserialises from a string alone, and its errors never repeat what they refuse.
pub struct Secret {
    bytes: Zeroizing<Vec<u8>>,
    lock: Option<PageLock>,
}

impl Secret {
    /// Takes over `bytes` without copying them.
    pub fn new(bytes: Vec<u8>) -> Self {
        Zeroizing::new(bytes).into()
    }

    /// The same secret, kept out of swap where the operating system allows it. For one that stays: see
    /// [`memory`](crate::memory).
    #[must_use]
    pub fn locked(mut self) -> Self {
        if self.lock.is_none() {
            self.lock = PageLock::of(&self.bytes);
        }
        self
    }

    /// The bytes, for the moment of use. Do not copy them to memory that is not zeroed.
    pub fn expose(&self) -> &[u8] {
        &self.bytes
    }

    /// The bytes as text, or `None` where they are not UTF-8.
    pub fn expose_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.bytes).ok()
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether there are no bytes at all.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        // First zeroed, then unlocked, then freed: freed memory may be somebody else's, whose lock this would take.
        self.bytes.zeroize();
        self.lock = None;
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self::new(text.into_bytes())
    }
}

impl From<Zeroizing<Vec<u8>>> for Secret {
    fn from(bytes: Zeroizing<Vec<u8>>) -> Self {
        Self { bytes, lock: None }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.expose().ct_eq(other.expose()).into()
    }
}

impl Eq for Secret {}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Asked for a string, serde_json would quote another value before the visitor could refuse it.
        deserializer.deserialize_any(SecretVisitor)
    }
}

struct SecretVisitor;

/// Serde's own refusals quote numbers and booleans ("invalid type: integer `4711`"), and a PIN may come as one.
const NOT_A_STRING: &str = "a secret must be a string";

impl Visitor<'_> for SecretVisitor {
    type Value = Secret;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E>(self, text: &str) -> Result<Secret, E> {
        Ok(Secret::new(text.as_bytes().to_vec()))
    }

    fn visit_string<E>(self, text: String) -> Result<Secret, E> {
        Ok(Secret::from(text))
    }

    fn visit_bool<E: serde::de::Error>(self, _: bool) -> Result<Secret, E> {
        Err(E::custom(NOT_A_STRING))
    }

    fn visit_i64<E: serde::de::Error>(self, _: i64) -> Result<Secret, E> {
        Err(E::custom(NOT_A_STRING))
    }

    fn visit_u64<E: serde::de::Error>(self, _: u64) -> Result<Secret, E> {
        Err(E::custom(NOT_A_STRING))
    }

    fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<Secret, E> {
        Err(E::custom(NOT_A_STRING))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_neither_bytes_nor_length() {
        let shown = format!("{:?}", Secret::from("sk-live-4711".to_owned()));
        assert_eq!(shown, "Secret(..)");
    }

    #[test]
    fn exposes_what_it_was_given() {
        let secret = Secret::from("sk-live".to_owned());
        assert_eq!(secret.expose(), b"sk-live");
        assert_eq!(secret.expose_str(), Some("sk-live"));
        assert_eq!((secret.len(), secret.is_empty()), (7, false));
        assert_eq!(Secret::new(vec![0xff]).expose_str(), None);
    }

    #[test]
    fn equality_is_of_the_bytes() {
        assert_eq!(Secret::new(vec![1, 2]), Secret::new(vec![1, 2]));
        assert_ne!(Secret::new(vec![1, 2]), Secret::new(vec![1, 3]));
        assert_ne!(Secret::new(vec![1, 2]), Secret::new(vec![1]));
    }

    #[test]
    fn reads_a_json_string_with_escapes() {
        let secret: Secret = serde_json::from_str(r#""a\n\u0062""#).unwrap();
        assert_eq!(secret.expose(), b"a\nb");
    }

    #[test]
    fn refusing_another_json_type_does_not_repeat_it() {
        for json in [
            "4711",
            "-4711",
            "4711.5",
            "true",
            "[4711]",
            "{\"a\":4711}",
            "null",
        ] {
            let error = serde_json::from_str::<Secret>(json)
                .unwrap_err()
                .to_string();
            assert!(error.contains("string"), "{error}");
            assert!(
                !error.contains("4711") && !error.contains("true"),
                "{error}"
            );
        }
    }
}
