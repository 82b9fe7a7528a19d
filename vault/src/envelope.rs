//! The sealed form of one value: its byte layout, and how it is sealed and opened.
//!
//! Layout, version first, lengths big-endian, sizes in bytes:
//!
//! ```text
//! version 1 = 0x01
//! kek id length 2 (1..=512)         | kek id
//! wrapped DEK length 2 (1..=4096)   | wrapped DEK, in its provider's own form
//! commitment 32 | nonce 12 | ciphertext length 4 (0..=1 MiB) | ciphertext | tag 16
//! ```
//!
//! Nothing follows the tag. The version names the whole suite: there is no algorithm to negotiate, no older form and no
//! unsealed form. Version 1 is AES-256-GCM under `HMAC-SHA256(DEK, "claviger envelope v1 sealing key")`; the
//! commitment is `HMAC-SHA256(DEK, "claviger envelope v1 commitment")` and is compared, in constant time, before
//! anything is decrypted. GCM alone commits to no key: a ciphertext can be made that opens under two.
//!
//! AAD of both the sealing and the wrapping, each part preceded by its length in 8 bytes, so that no two rows give the
//! same bytes: purpose, algorithm, kek id, org, vault, path, version (8 bytes). The purposes differ (`claviger envelope
//! v1 data`, `… dek`). The KEK's version stands in the wrapped DEK alone, so a re-wrap under a newer version rewrites
//! nothing else ([`Envelope::rewrapped`]).
//!
//! Spec: AES-GCM, NIST SP 800-38D; HMAC, RFC 2104; key commitment, draft-irtf-cfrg-aead-properties section 4.3.3.

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::{
    aead::{KEY_LEN, Mismatch, NONCE_LEN, NoRandomness, TAG_LEN, random_nonce},
    keys::{Dek, KekId},
    secret::Secret,
};

/// The one version that is written and read.
pub const VERSION: u8 = 1;
/// Longest value that can be sealed, in bytes.
pub const MAX_SECRET_LEN: usize = 1 << 20;
/// Longest wrapped DEK, in bytes.
pub const MAX_WRAPPED_LEN: usize = 4096;

const ALGORITHM: &[u8] = b"AES-256-GCM+HMAC-SHA256-commitment";
const SEALING_KEY_LABEL: &[u8] = b"claviger envelope v1 sealing key";
const COMMITMENT_LABEL: &[u8] = b"claviger envelope v1 commitment";
const DATA_PURPOSE: &[u8] = b"claviger envelope v1 data";
const DEK_PURPOSE: &[u8] = b"claviger envelope v1 dek";

/// The row that a sealed value belongs to. A value opens in the row it was sealed for and in no other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowBinding<'a> {
    /// The org's id.
    pub org: &'a str,
    /// The vault's id.
    pub vault: &'a str,
    /// The secret's path in the vault.
    pub path: &'a str,
    /// The secret's version.
    pub version: u64,
}

impl RowBinding<'_> {
    /// What the key provider authenticates with a DEK of this row.
    pub(crate) fn dek_aad(&self, kek: &KekId) -> Vec<u8> {
        self.aad(DEK_PURPOSE, kek)
    }

    fn data_aad(&self, kek: &KekId) -> Vec<u8> {
        self.aad(DATA_PURPOSE, kek)
    }

    fn aad(&self, purpose: &[u8], kek: &KekId) -> Vec<u8> {
        let version = self.version.to_be_bytes();
        let parts: [&[u8]; 7] = [
            purpose,
            ALGORITHM,
            kek.as_str().as_bytes(),
            self.org.as_bytes(),
            self.vault.as_bytes(),
            self.path.as_bytes(),
            &version,
        ];
        let mut aad = Vec::with_capacity(parts.iter().map(|part| 8 + part.len()).sum());
        for part in parts {
            aad.extend_from_slice(&(part.len() as u64).to_be_bytes());
            aad.extend_from_slice(part);
        }
        aad
    }
}

/// Why bytes are not an envelope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The version byte is not [`VERSION`].
    #[error("envelope version {0} is unknown")]
    UnknownVersion(u8),
    /// Cut short, too long, or a length out of bounds.
    #[error("the envelope's layout is broken")]
    Malformed,
}

/// A decoded envelope that borrows its bytes. Decoding authenticates nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope<'a> {
    kek: KekId,
    wrapped_dek: &'a [u8],
    commitment: &'a [u8; KEY_LEN],
    nonce: &'a [u8; NONCE_LEN],
    ciphertext: &'a [u8],
    tag: &'a [u8; TAG_LEN],
}

impl<'a> Envelope<'a> {
    /// Reads the layout strictly: every length within its bound, and nothing after the tag.
    ///
    /// # Errors
    /// [`DecodeError::UnknownVersion`] for another version byte, else [`DecodeError::Malformed`].
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut rest = Reader(bytes);
        let [version] = *rest.array()?;
        if version != VERSION {
            return Err(DecodeError::UnknownVersion(version));
        }
        let kek = rest.prefixed(1..=KekId::MAX_LEN)?;
        let kek = std::str::from_utf8(kek).map_err(|_| DecodeError::Malformed)?;
        let envelope = Self {
            kek: KekId::parse(kek).map_err(|_| DecodeError::Malformed)?,
            wrapped_dek: rest.prefixed(1..=MAX_WRAPPED_LEN)?,
            commitment: rest.array()?,
            nonce: rest.array()?,
            ciphertext: rest.ciphertext()?,
            tag: rest.array()?,
        };
        if rest.0.is_empty() {
            Ok(envelope)
        } else {
            Err(DecodeError::Malformed)
        }
    }

    /// The bytes of this envelope: what [`decode`](Self::decode) read.
    pub fn encode(&self) -> Vec<u8> {
        self.encode_with(self.wrapped_dek)
    }

    /// The bytes of this envelope with its DEK wrapped anew; all else stays as it is.
    ///
    /// `wrapped_dek` is the same DEK, wrapped by the same KEK id for the same row.
    ///
    /// # Errors
    /// [`WrappedLenError`] if it is empty or longer than [`MAX_WRAPPED_LEN`].
    pub fn rewrapped(&self, wrapped_dek: &[u8]) -> Result<Vec<u8>, WrappedLenError> {
        check_wrapped_len(wrapped_dek)?;
        Ok(self.encode_with(wrapped_dek))
    }

    /// The KEK that wrapped the DEK.
    pub fn kek(&self) -> &KekId {
        &self.kek
    }

    /// The wrapped DEK, in its provider's own form.
    pub fn wrapped_dek(&self) -> &'a [u8] {
        self.wrapped_dek
    }

    /// Whether `dek` is the one that sealed this envelope.
    pub(crate) fn check_commitment(&self, dek: &Dek) -> Result<(), Mismatch> {
        let commitment = dek.derive(COMMITMENT_LABEL);
        if commitment.bytes().ct_eq(self.commitment).into() {
            Ok(())
        } else {
            Err(Mismatch)
        }
    }

    /// Opens the ciphertext with its unwrapped DEK, for `row`.
    pub(crate) fn open(&self, dek: &Dek, row: &RowBinding<'_>) -> Result<Secret, Mismatch> {
        self.check_commitment(dek)?;
        let mut buffer = Zeroizing::new(self.ciphertext.to_vec());
        dek.derive(SEALING_KEY_LABEL).open(
            self.nonce,
            &row.data_aad(&self.kek),
            &mut buffer,
            self.tag,
        )?;
        Ok(Secret::from(buffer))
    }

    fn encode_with(&self, wrapped_dek: &[u8]) -> Vec<u8> {
        let mut bytes = header(
            &self.kek,
            wrapped_dek,
            self.commitment,
            self.nonce,
            self.ciphertext.len(),
        );
        bytes.extend_from_slice(self.ciphertext);
        bytes.extend_from_slice(self.tag);
        bytes
    }
}

/// A key provider's wrapped DEK has a length that no envelope can carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a wrapped DEK of {len} bytes does not fit an envelope (1 to {MAX_WRAPPED_LEN})")]
pub struct WrappedLenError {
    /// Its length in bytes.
    pub len: usize,
}

pub(crate) fn check_wrapped_len(wrapped_dek: &[u8]) -> Result<(), WrappedLenError> {
    let len = wrapped_dek.len();
    if (1..=MAX_WRAPPED_LEN).contains(&len) {
        Ok(())
    } else {
        Err(WrappedLenError { len })
    }
}

/// Seals `secret` for `row`. The DEK is consumed: it seals once.
///
/// The caller has checked that the secret is at most [`MAX_SECRET_LEN`] and that the wrapped DEK fits.
pub(crate) fn seal(
    dek: Dek,
    wrapped_dek: &[u8],
    kek: &KekId,
    secret: &Secret,
    row: &RowBinding<'_>,
) -> Result<Vec<u8>, NoRandomness> {
    let nonce = random_nonce()?;
    let sealing_key = dek.derive(SEALING_KEY_LABEL);
    let commitment = dek.derive(COMMITMENT_LABEL);
    drop(dek);
    let mut bytes = header(kek, wrapped_dek, commitment.bytes(), &nonce, secret.len());
    let start = bytes.len();
    // The plaintext is encrypted where it lands; the capacity is exact, so no reallocation leaves a copy of it.
    bytes.extend_from_slice(secret.expose());
    let tag = sealing_key.seal(&nonce, &row.data_aad(kek), &mut bytes[start..]);
    bytes.extend_from_slice(&tag);
    Ok(bytes)
}

/// All that precedes the ciphertext, in a vector with room for the rest.
fn header(
    kek: &KekId,
    wrapped_dek: &[u8],
    commitment: &[u8; KEY_LEN],
    nonce: &[u8; NONCE_LEN],
    ciphertext_len: usize,
) -> Vec<u8> {
    let kek = kek.as_str().as_bytes();
    let fixed = 1 + 2 + 2 + KEY_LEN + NONCE_LEN + 4 + TAG_LEN;
    let mut bytes = Vec::with_capacity(fixed + kek.len() + wrapped_dek.len() + ciphertext_len);
    bytes.push(VERSION);
    for part in [kek, wrapped_dek] {
        let len =
            u16::try_from(part.len()).expect("both lengths were checked against their bounds");
        bytes.extend_from_slice(&len.to_be_bytes());
        bytes.extend_from_slice(part);
    }
    bytes.extend_from_slice(commitment);
    bytes.extend_from_slice(nonce);
    let len = u32::try_from(ciphertext_len).expect("a ciphertext is at most MAX_SECRET_LEN");
    bytes.extend_from_slice(&len.to_be_bytes());
    bytes
}

/// Takes fields from the front of what is left.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn array<const N: usize>(&mut self) -> Result<&'a [u8; N], DecodeError> {
        let (field, rest) = self.0.split_first_chunk().ok_or(DecodeError::Malformed)?;
        self.0 = rest;
        Ok(field)
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let (field, rest) = self.0.split_at_checked(len).ok_or(DecodeError::Malformed)?;
        self.0 = rest;
        Ok(field)
    }

    fn prefixed(
        &mut self,
        bound: std::ops::RangeInclusive<usize>,
    ) -> Result<&'a [u8], DecodeError> {
        let len = usize::from(u16::from_be_bytes(*self.array()?));
        if bound.contains(&len) {
            self.take(len)
        } else {
            Err(DecodeError::Malformed)
        }
    }

    fn ciphertext(&mut self) -> Result<&'a [u8], DecodeError> {
        let len = u32::from_be_bytes(*self.array()?);
        let len = usize::try_from(len).map_err(|_| DecodeError::Malformed)?;
        if len <= MAX_SECRET_LEN {
            self.take(len)
        } else {
            Err(DecodeError::Malformed)
        }
    }
}

#[cfg(test)]
mod tests;
