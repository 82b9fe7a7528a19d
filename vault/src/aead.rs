//! The primitives: 256-bit keys, AES-256-GCM, and key derivation by HMAC-SHA256.
//!
//! Everything comes from the `RustCrypto` crates; this module only fixes sizes and keeps keys in memory that is zeroed.

use aes_gcm::{AeadInOut, Aes256Gcm, KeyInit};
use hmac::{Hmac, Mac};
use sha2::Sha256;
use zeroize::{Zeroize, Zeroizing};

/// Bytes in a key.
pub(crate) const KEY_LEN: usize = 32;
/// Bytes in a nonce (SP 800-38D section 8.2.2 with a random field of 96 bits).
pub(crate) const NONCE_LEN: usize = 12;
/// Bytes in a tag.
pub(crate) const TAG_LEN: usize = 16;

/// The operating system gave no random bytes.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the operating system gave no random bytes")]
pub struct NoRandomness;

/// The tag differs: the data, its AAD, the nonce or the key is not what was sealed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mismatch;

/// A 256-bit key, zeroed on drop. It lives on the heap so that moving it leaves no copy behind.
pub(crate) struct Key(Box<Zeroizing<[u8; KEY_LEN]>>);

impl Key {
    /// A key whose bytes `fill` writes in place.
    pub(crate) fn fill_with<E>(
        fill: impl FnOnce(&mut [u8; KEY_LEN]) -> Result<(), E>,
    ) -> Result<Self, E> {
        let mut bytes = Box::new(Zeroizing::new([0; KEY_LEN]));
        fill(&mut bytes)?;
        Ok(Self(bytes))
    }

    /// A fresh key from the operating system's generator.
    pub(crate) fn generate() -> Result<Self, NoRandomness> {
        Self::fill_with(|bytes| fill_random(bytes))
    }

    /// A key of these bytes.
    pub(crate) fn copy_of(source: &[u8; KEY_LEN]) -> Self {
        let mut bytes = Box::new(Zeroizing::new([0; KEY_LEN]));
        bytes.copy_from_slice(source);
        Self(bytes)
    }

    pub(crate) fn bytes(&self) -> &[u8; KEY_LEN] {
        &self.0
    }

    /// HMAC-SHA256(key, label): a new key for one purpose. Spec: RFC 2104; SP 800-108 section 4.1 with one block.
    pub(crate) fn derive(&self, label: &[u8]) -> Self {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(self.bytes()).expect("HMAC takes a key of any length");
        mac.update(label);
        let mut output = mac.finalize().into_bytes();
        let mut bytes = Box::new(Zeroizing::new([0; KEY_LEN]));
        bytes.copy_from_slice(&output);
        output.as_mut_slice().zeroize();
        Self(bytes)
    }

    /// Encrypts `buffer` in place and gives the tag. Spec: SP 800-38D section 7.1.
    pub(crate) fn seal(
        &self,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        buffer: &mut [u8],
    ) -> [u8; TAG_LEN] {
        self.cipher()
            .encrypt_inout_detached(nonce.into(), aad, buffer.into())
            .expect("a buffer is at most a mebibyte, far below GCM's 64 GiB")
            .into()
    }

    /// Decrypts `buffer` in place if the tag is right, in constant time. Spec: SP 800-38D section 7.2.
    pub(crate) fn open(
        &self,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        buffer: &mut [u8],
        tag: &[u8; TAG_LEN],
    ) -> Result<(), Mismatch> {
        self.cipher()
            .decrypt_inout_detached(nonce.into(), aad, buffer.into(), tag.into())
            .map_err(|_| Mismatch)
    }

    fn cipher(&self) -> Aes256Gcm {
        Aes256Gcm::new(self.bytes().into())
    }
}

/// Fills `bytes` from the operating system's generator, so that neither a fork nor a restored snapshot repeats them.
pub(crate) fn fill_random(bytes: &mut [u8]) -> Result<(), NoRandomness> {
    getrandom::fill(bytes).map_err(|_| NoRandomness)
}

/// A fresh random nonce.
pub(crate) fn random_nonce() -> Result<[u8; NONCE_LEN], NoRandomness> {
    let mut nonce = [0; NONCE_LEN];
    fill_random(&mut nonce)?;
    Ok(nonce)
}

#[cfg(test)]
pub(crate) mod tests;
