//! Known answers: test cases 13, 14 and 16 of "The Galois/Counter Mode of Operation", appendix B, as submitted to NIST;
//! and HMAC-SHA256, RFC 4231 sections 4.2 and 4.3. Then those of Wycheproof.

use super::*;

fn key(hex_digits: &str) -> Key {
    Key::fill_with(|bytes| hex::decode_to_slice(hex_digits, bytes)).unwrap()
}

fn bytes<const N: usize>(hex_digits: &str) -> [u8; N] {
    let mut bytes = [0; N];
    hex::decode_to_slice(hex_digits, &mut bytes).unwrap();
    bytes
}

struct Case {
    key: String,
    nonce: &'static str,
    aad: &'static str,
    plaintext: &'static str,
    ciphertext: &'static str,
    tag: &'static str,
}

fn cases() -> [Case; 3] {
    [
        Case {
            key: "00".repeat(32),
            nonce: "000000000000000000000000",
            aad: "",
            plaintext: "",
            ciphertext: "",
            tag: "530f8afbc74536b9a963b4f1c4cb738b",
        },
        Case {
            key: "00".repeat(32),
            nonce: "000000000000000000000000",
            aad: "",
            plaintext: "00000000000000000000000000000000",
            ciphertext: "cea7403d4d606b6e074ec5d3baf39d18",
            tag: "d0d1c8a799996bf0265b98b5d48ab919",
        },
        Case {
            key: "feffe9928665731c6d6a8f9467308308".repeat(2),
            nonce: "cafebabefacedbaddecaf888",
            aad: "feedfacedeadbeeffeedfacedeadbeefabaddad2",
            plaintext: "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72\
                        1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
            ciphertext: "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa\
                         8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662",
            tag: "76fc6ece0f4e1768cddf8853bb2d551b",
        },
    ]
}

#[test]
fn gcm_gives_the_known_ciphertexts_and_tags() {
    for case in cases() {
        let mut buffer = hex::decode(case.plaintext).unwrap();
        let aad = hex::decode(case.aad).unwrap();
        let tag = key(&case.key).seal(&bytes(case.nonce), &aad, &mut buffer);
        assert_eq!(hex::encode(&buffer), case.ciphertext);
        assert_eq!(hex::encode(tag), case.tag);
    }
}

#[test]
fn gcm_opens_the_known_ciphertexts() {
    for case in cases() {
        let mut buffer = hex::decode(case.ciphertext).unwrap();
        let aad = hex::decode(case.aad).unwrap();
        let opened = key(&case.key).open(&bytes(case.nonce), &aad, &mut buffer, &bytes(case.tag));
        assert!(opened.is_ok());
        assert_eq!(hex::encode(&buffer), case.plaintext);
    }
}

#[test]
fn every_altered_bit_of_a_tag_is_refused() {
    for case in cases() {
        for bit in 0..8 * TAG_LEN {
            let mut tag: [u8; TAG_LEN] = bytes(case.tag);
            tag[bit / 8] ^= 1 << (bit % 8);
            let mut buffer = hex::decode(case.ciphertext).unwrap();
            let aad = hex::decode(case.aad).unwrap();
            let opened = key(&case.key).open(&bytes(case.nonce), &aad, &mut buffer, &tag);
            assert!(opened.is_err(), "bit {bit}");
            assert_eq!(hex::encode(&buffer), case.ciphertext, "nothing is released");
        }
    }
}

#[test]
fn derivation_is_hmac_sha256() {
    // RFC 4231's keys are of other lengths; HMAC pads a shorter key with zeros, so its test case 1 and 2 fit.
    let padded = |key_bytes: &[u8]| {
        let mut padded = [0; KEY_LEN];
        padded[..key_bytes.len()].copy_from_slice(key_bytes);
        Key::copy_of(&padded)
    };
    assert_eq!(
        hex::encode(padded(&[0x0b; 20]).derive(b"Hi There").bytes()),
        "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"
    );
    assert_eq!(
        hex::encode(
            padded(b"Jefe")
                .derive(b"what do ya want for nothing?")
                .bytes()
        ),
        "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    );
}

#[test]
fn keys_and_nonces_are_fresh() {
    assert_ne!(
        Key::generate().unwrap().bytes(),
        Key::generate().unwrap().bytes()
    );
    assert_ne!(random_nonce().unwrap(), random_nonce().unwrap());
}

/// One of Wycheproof's cases: what is valid must be accepted, what is not must be refused.
#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Wycheproof {
    pub(crate) tc_id: u32,
    pub(crate) key: String,
    #[serde(default)]
    iv: String,
    #[serde(default)]
    aad: String,
    pub(crate) msg: String,
    #[serde(default)]
    pub(crate) ct: String,
    #[serde(default)]
    tag: String,
    result: String,
}

impl Wycheproof {
    pub(crate) fn is_valid(&self) -> bool {
        assert!(matches!(self.result.as_str(), "valid" | "invalid"));
        self.result == "valid"
    }
}

pub(crate) fn wycheproof(suite: &str) -> Vec<Wycheproof> {
    let mut all: serde_json::Value = serde_json::from_str(include_str!("wycheproof.json")).unwrap();
    serde_json::from_value(all[suite].take()).unwrap()
}

#[test]
fn gcm_agrees_with_wycheproof() {
    let cases = wycheproof("aes_gcm");
    assert_eq!(cases.len(), 66);
    for case in cases {
        let (key, nonce, tag) = (key(&case.key), bytes(&case.iv), bytes(&case.tag));
        let (aad, plaintext) = (
            hex::decode(&case.aad).unwrap(),
            hex::decode(&case.msg).unwrap(),
        );
        let mut buffer = hex::decode(&case.ct).unwrap();
        let opened = key.open(&nonce, &aad, &mut buffer, &tag);
        assert_eq!(opened.is_ok(), case.is_valid(), "{}", case.tc_id);
        if case.is_valid() {
            assert_eq!(buffer, plaintext, "{}", case.tc_id);
            assert_eq!(key.seal(&nonce, &aad, &mut buffer), tag, "{}", case.tc_id);
            assert_eq!(hex::encode(buffer), case.ct, "{}", case.tc_id);
        }
    }
}

#[test]
fn derivation_agrees_with_wycheproof() {
    let cases = wycheproof("hmac_sha256");
    assert_eq!(cases.len(), 81);
    for case in cases {
        let derived = key(&case.key).derive(&hex::decode(&case.msg).unwrap());
        let is_equal = hex::encode(derived.bytes()) == case.tag;
        assert_eq!(is_equal, case.is_valid(), "{}", case.tc_id);
    }
}
