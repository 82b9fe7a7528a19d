//! The encodings in which a server may give a secret back, as far as they are no escapes: threats.md, section C.

use base64::Engine as _;
use base64::alphabet::{Alphabet, STANDARD, URL_SAFE};
use base64::engine::general_purpose::{GeneralPurpose, NO_PAD};
use zeroize::Zeroizing;

use super::escapes::{Escapes, LONGEST_BYTE};

/// A text that gives the secret away.
pub(super) struct Variant {
    pub(super) bytes: Zeroizing<Vec<u8>>,
    pub(super) reading: Reading,
    /// The ways to read it, of which any may find it.
    pub(super) escapes: &'static [Escapes],
}

/// Which escapes may stand in a variant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reading {
    /// Any, of any byte.
    Secret,
    /// Those of punctuation.
    Encoded,
    /// None.
    Literal,
}

/// Every variant of a secret, each once. The raw form is the first.
pub(super) fn of(secret: &[u8]) -> Vec<Variant> {
    let mut variants = vec![Variant::new(
        Zeroizing::new(secret.to_vec()),
        Reading::Secret,
    )];
    let encoded = [
        Zeroizing::new(secret.iter().rev().copied().collect()),
        // Header names are lower-cased on their way.
        Zeroizing::new(secret.to_ascii_lowercase()),
        hex(secret, b"0123456789abcdef"),
        hex(secret, b"0123456789ABCDEF"),
    ];
    for bytes in encoded.into_iter().chain(base64(secret)) {
        if variants.iter().all(|other| other.bytes != bytes) {
            variants.push(Variant::new(bytes, Reading::Encoded));
        }
    }
    variants.push(Variant::new(utf16(secret), Reading::Literal));
    variants
}

impl Variant {
    fn new(bytes: Zeroizing<Vec<u8>>, reading: Reading) -> Self {
        let escapes = match reading {
            Reading::Secret | Reading::Encoded => Escapes::of(&bytes),
            Reading::Literal => Escapes::LITERAL,
        };
        Self {
            bytes,
            reading,
            escapes,
        }
    }

    /// The length of its longest spelling, in bytes.
    pub(super) fn longest(&self) -> usize {
        match self.reading {
            Reading::Secret | Reading::Encoded => self.bytes.len() * LONGEST_BYTE,
            Reading::Literal => self.bytes.len(),
        }
    }
}

/// Base64 with both alphabets, wherever the secret stands in what was encoded: only the characters that do not depend
/// on what is before and after it.
fn base64(secret: &[u8]) -> impl Iterator<Item = Zeroizing<Vec<u8>>> {
    let at = move |alphabet: &Alphabet, before: usize| {
        let mut input = Zeroizing::new(vec![0; before]);
        input.extend_from_slice(secret);
        let mut text = Zeroizing::new(
            GeneralPurpose::new(alphabet, NO_PAD)
                .encode(&*input)
                .into_bytes(),
        );
        text.truncate(input.len() * 8 / 6);
        Zeroizing::new(text[(before * 8).div_ceil(6)..].to_vec())
    };
    (0..3).flat_map(move |before| [at(&STANDARD, before), at(&URL_SAFE, before)])
}

fn hex(secret: &[u8], digits: &[u8; 16]) -> Zeroizing<Vec<u8>> {
    let mut out = Zeroizing::new(Vec::with_capacity(secret.len() * 2));
    for byte in secret {
        out.extend([byte >> 4, byte & 15].map(|digit| digits[usize::from(digit)]));
    }
    out
}

/// UTF-16, of which both byte orders hold the same core: a zero between every two bytes.
fn utf16(secret: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut core = Zeroizing::new(Vec::with_capacity(secret.len() * 2));
    for &byte in secret {
        core.extend([byte, 0]);
    }
    core.pop();
    core
}
