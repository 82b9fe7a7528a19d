//! The form of a wrapped DEK, and what Cloud KMS is given to encrypt.
//!
//! A wrapped DEK is `format 1 = 0x10 | KEK version 4, big-endian | ciphertext of Cloud KMS n`, whose AAD is the first 5
//! bytes and then the caller's. What it encrypts is `DEK 32 | SHA-256 of a label and that AAD 32`: an answer of Cloud KMS
//! does not say which question it answers, so the DEK says for which it was wrapped.

use std::collections::VecDeque;

use bytes::Bytes;
use crc::{CRC_32_ISCSI, Crc};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

use crate::keys::Dek;

const FORMAT: u8 = 0x10;
const HEADER_LEN: usize = 1 + 4;
const QUESTION_LEN: usize = 32;
const LABEL: &[u8] = b"claviger gcp-kms wrapped DEK 1\0";
/// How many ciphertexts are remembered.
const REMEMBERED: usize = 256;
/// CRC32C, which Cloud KMS checks its traffic by. Spec: RFC 3720 section 12.1.
const CRC32C: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);

pub(super) fn crc32c(bytes: &[u8]) -> i64 {
    i64::from(CRC32C.checksum(bytes))
}

/// A wrapped DEK's fields.
#[derive(Clone, Copy)]
pub(super) struct Wrapped<'a> {
    pub(super) version: u32,
    pub(super) ciphertext: &'a [u8],
}

impl<'a> Wrapped<'a> {
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (header, ciphertext) = bytes.split_first_chunk::<HEADER_LEN>()?;
        let [format, version @ ..] = *header;
        let version = u32::from_be_bytes(version);
        (format == FORMAT && version > 0 && !ciphertext.is_empty()).then_some(Self {
            version,
            ciphertext,
        })
    }

    pub(super) fn to_bytes(self) -> Vec<u8> {
        [&header(self.version)[..], self.ciphertext].concat()
    }
}

fn header(version: u32) -> [u8; HEADER_LEN] {
    let [a, b, c, d] = version.to_be_bytes();
    [FORMAT, a, b, c, d]
}

/// What Cloud KMS authenticates with a DEK.
pub(super) fn kms_aad(version: u32, aad: &[u8]) -> Vec<u8> {
    [&header(version), aad].concat()
}

/// What Cloud KMS encrypts. It is zeroed when the last holder lets go; the client's JSON of it is not.
pub(super) fn plaintext(dek: &Dek, kms_aad: &[u8]) -> Bytes {
    let mut bytes = Zeroizing::new(Vec::with_capacity(Dek::LEN + QUESTION_LEN));
    bytes.extend_from_slice(dek.expose());
    bytes.extend_from_slice(&question(kms_aad));
    Bytes::from_owner(bytes)
}

/// The DEK of a plaintext, if that was made for this AAD. The plaintext is zeroed where nobody else holds it.
pub(super) fn read_plaintext(plaintext: Bytes, kms_aad: &[u8]) -> Option<Dek> {
    let dek = plaintext
        .split_first_chunk::<{ Dek::LEN }>()
        .filter(|(_, asked)| bool::from((*asked).ct_eq(&question(kms_aad))))
        .map(|(dek, _)| Dek::from_bytes(dek));
    if let Ok(mut bytes) = plaintext.try_into_mut() {
        bytes.as_mut().zeroize();
    }
    dek
}

fn question(kms_aad: &[u8]) -> [u8; QUESTION_LEN] {
    Sha256::new()
        .chain_update(LABEL)
        .chain_update(kms_aad)
        .finalize()
        .into()
}

/// The last ciphertexts that Cloud KMS gave. It never gives one twice, so a second time it is an old answer.
#[derive(Default)]
pub(super) struct Remembered(Mutex<VecDeque<[u8; 32]>>);

impl Remembered {
    /// Whether this ciphertext is new.
    pub(super) fn is_new(&self, ciphertext: &[u8]) -> bool {
        let mark: [u8; 32] = Sha256::digest(ciphertext).into();
        let mut marks = self.0.lock();
        if marks.contains(&mark) {
            return false;
        }
        if marks.len() == REMEMBERED {
            marks.pop_front();
        }
        marks.push_back(mark);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_crc32c() {
        // RFC 3720, appendix B.4.
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn the_form_reads_back() {
        let wrapped = Wrapped {
            version: 7,
            ciphertext: b"sealed",
        };
        let bytes = wrapped.to_bytes();
        assert_eq!(bytes, b"\x10\0\0\0\x07sealed");
        let read = Wrapped::parse(&bytes).unwrap();
        assert_eq!((read.version, read.ciphertext), (7, &b"sealed"[..]));
        for bad in [
            &b""[..],
            b"\x10\0\0\0\x07",
            b"\x01\0\0\0\x07x",
            b"\x10\0\0\0\0x",
        ] {
            assert!(Wrapped::parse(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn a_plaintext_opens_for_its_own_question_only() {
        let dek = Dek::generate().unwrap();
        let made = plaintext(&dek, b"one row");
        let copy = Bytes::copy_from_slice(&made);
        assert!(read_plaintext(copy.clone(), b"another row").is_none());
        assert!(read_plaintext(copy.slice(..63), b"one row").is_none());
        let read = read_plaintext(copy, b"one row").unwrap();
        assert_eq!(read.expose(), dek.expose());
    }

    #[test]
    fn an_old_ciphertext_is_known() {
        let remembered = Remembered::default();
        for number in 0..REMEMBERED + 10 {
            assert!(remembered.is_new(&number.to_be_bytes()));
        }
        assert!(!remembered.is_new(&(REMEMBERED + 9).to_be_bytes()));
        assert!(remembered.is_new(&0_usize.to_be_bytes()));
    }
}
