//! Ed25519 (RFC 8032) without its loopholes: no key or commitment of small order, one encoding for each key and signature.

use ed25519_dalek::{Signature, VerifyingKey};

/// A key by which something can be verified. Any message has a signature under a key of small order, and a second encoding of
/// a point would make two keys of one.
pub(crate) fn key(bytes: &[u8; 32]) -> Option<VerifyingKey> {
    let key = VerifyingKey::from_bytes(bytes).ok()?;
    let is_strict = !key.is_weak() && key.to_edwards().compress().as_bytes() == bytes;
    is_strict.then_some(key)
}

/// Whether a signature is the key's over a message.
pub(crate) fn verify(key: &VerifyingKey, message: &[u8], signature: &[u8; 64]) -> bool {
    let signature = Signature::from_bytes(signature);
    key.verify_strict(message, &signature).is_ok()
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::{Signer as _, SigningKey};

    use super::*;

    #[test]
    fn a_signature_is_the_keys_over_its_message_alone() {
        let pair = SigningKey::from_bytes(&[7; 32]);
        let public = key(&pair.verifying_key().to_bytes()).unwrap();
        let signature = pair.sign(b"message").to_bytes();
        assert!(verify(&public, b"message", &signature));
        assert!(!verify(&public, b"massage", &signature));
        let other = SigningKey::from_bytes(&[8; 32]).verifying_key();
        assert!(!verify(&other, b"message", &signature));
    }

    #[test]
    fn a_second_encoding_of_a_signature_is_refused() {
        let pair = SigningKey::from_bytes(&[7; 32]);
        let mut signature = pair.sign(b"message").to_bytes();
        // S + L, which a lax verifier reduces to S.
        let order: [u8; 32] = [
            0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9,
            0xde, 0x14, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
        ];
        let mut carry = 0;
        for (byte, add) in signature[32..].iter_mut().zip(order) {
            let sum = u16::from(*byte) + u16::from(add) + carry;
            *byte = sum.to_le_bytes()[0];
            carry = sum >> 8;
        }
        assert_eq!(carry, 0);
        assert!(!verify(&pair.verifying_key(), b"message", &signature));
    }

    #[test]
    fn a_key_of_small_order_in_another_encoding_or_off_the_curve_is_refused() {
        let small = [
            "0000000000000000000000000000000000000000000000000000000000000000",
            "0100000000000000000000000000000000000000000000000000000000000000",
            "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
            "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        ];
        // y = 3 + p, which is the point of y = 3 once more.
        let again = "f0ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f";
        let off = "0200000000000000000000000000000000000000000000000000000000000000";
        for text in small.into_iter().chain([again, off]) {
            let mut bytes = [0; 32];
            hex::decode_to_slice(text, &mut bytes).unwrap();
            assert_eq!(key(&bytes), None, "{text}");
        }
    }
}
