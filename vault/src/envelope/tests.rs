use proptest::prelude::*;

use super::*;

const ROW: RowBinding<'static> = RowBinding {
    org: "org_1",
    vault: "vlt_1",
    path: "stripe/prod/billing-bot/STRIPE_SECRET_KEY",
    version: 3,
};

fn kek() -> KekId {
    KekId::parse("software:vlt_1").unwrap()
}

fn dek() -> Dek {
    Dek::from_bytes(&[7; Dek::LEN])
}

fn secret() -> Secret {
    Secret::new(b"sk_live_canary".to_vec())
}

fn sealed() -> Vec<u8> {
    seal(dek(), b"wrapped", &kek(), &secret(), &ROW).unwrap()
}

#[test]
fn the_layout_is_as_documented() {
    let sealed = sealed();
    let header = b"\x01\x00\x0esoftware:vlt_1\x00\x07wrapped";
    assert!(sealed.starts_with(header));
    let commitment = dek().derive(COMMITMENT_LABEL);
    let after = &sealed[header.len()..];
    assert_eq!(&after[..32], commitment.bytes());
    assert_eq!(&after[44..48], 14_u32.to_be_bytes());
    assert_eq!(after.len(), 48 + 14 + 16);
    assert_eq!(
        sealed.len(),
        sealed.capacity(),
        "no reallocation left a plaintext behind"
    );
}

/// Made by another implementation (Python's `cryptography`) from the documented layout. If this fails, stored secrets
/// no longer open: add a version instead.
#[test]
fn an_envelope_made_elsewhere_from_the_documentation_opens() {
    let sealed = hex::decode(GOLDEN).unwrap();
    let opened = Envelope::decode(&sealed)
        .unwrap()
        .open(&dek(), &ROW)
        .unwrap();
    assert_eq!(opened, secret());
}

const GOLDEN: &str = "\
    01000e736f6674776172653a766c745f31000777726170706564b80fd6a3af74d338c010b7e750adb4d542599f47ac20\
    c47b597a2ecc636fa5af000102030405060708090a0b0000000eb1893a65b316940cf4e6ba3fa8903833cbbd7171dba6\
    766dc67688936e47";

#[test]
fn aad_is_length_prefixed_and_names_everything() {
    let aad = ROW.data_aad(&kek());
    let mut expected = Vec::new();
    for part in [
        "claviger envelope v1 data",
        "AES-256-GCM+HMAC-SHA256-commitment",
        "software:vlt_1",
        "org_1",
        "vlt_1",
        "stripe/prod/billing-bot/STRIPE_SECRET_KEY",
        "\0\0\0\0\0\0\0\x03",
    ] {
        expected.extend((part.len() as u64).to_be_bytes());
        expected.extend(part.as_bytes());
    }
    assert_eq!(aad, expected);
    assert_ne!(aad, ROW.dek_aad(&kek()));
}

#[test]
fn shifting_bytes_between_fields_gives_another_aad() {
    let row = |org, vault| RowBinding { org, vault, ..ROW };
    assert_ne!(
        row("ab", "c").data_aad(&kek()),
        row("a", "bc").data_aad(&kek())
    );
}

#[test]
fn another_dek_fails_the_commitment() {
    let sealed = sealed();
    let other = Dek::from_bytes(&[8; Dek::LEN]);
    assert!(
        Envelope::decode(&sealed)
            .unwrap()
            .open(&other, &ROW)
            .is_err()
    );
}

#[test]
fn the_commitment_is_compared_before_the_tag() {
    // With the commitment of another DEK the ciphertext and its tag are still right for this one.
    let mut sealed = sealed();
    let at = 1 + 2 + 14 + 2 + 7;
    let other = Dek::from_bytes(&[8; Dek::LEN]).derive(COMMITMENT_LABEL);
    sealed[at..at + KEY_LEN].copy_from_slice(other.bytes());
    assert!(
        Envelope::decode(&sealed)
            .unwrap()
            .open(&dek(), &ROW)
            .is_err()
    );
}

#[test]
fn every_other_version_byte_is_refused() {
    let mut sealed = sealed();
    for version in (0..=u8::MAX).filter(|version| *version != VERSION) {
        sealed[0] = version;
        assert_eq!(
            Envelope::decode(&sealed),
            Err(DecodeError::UnknownVersion(version))
        );
    }
}

#[test]
fn every_truncation_and_any_trailing_byte_is_refused() {
    let mut sealed = sealed();
    for len in 0..sealed.len() {
        assert_eq!(
            Envelope::decode(&sealed[..len]),
            Err(DecodeError::Malformed),
            "{len}"
        );
    }
    sealed.push(0);
    assert_eq!(Envelope::decode(&sealed), Err(DecodeError::Malformed));
}

#[test]
fn lengths_out_of_bounds_are_refused() {
    let wrapped_of = |len: usize| {
        let filler = vec![1; len];
        header(&kek(), &filler, &[0; 32], &[0; 12], 0)
    };
    let with_tag = |mut bytes: Vec<u8>| {
        bytes.extend([0; TAG_LEN]);
        bytes
    };
    assert!(Envelope::decode(&with_tag(wrapped_of(1))).is_ok());
    assert!(Envelope::decode(&with_tag(wrapped_of(MAX_WRAPPED_LEN))).is_ok());
    for len in [0, MAX_WRAPPED_LEN + 1] {
        let refused = with_tag(wrapped_of(len));
        assert_eq!(
            Envelope::decode(&refused),
            Err(DecodeError::Malformed),
            "{len}"
        );
    }
    let mut too_long = header(&kek(), b"w", &[0; 32], &[0; 12], MAX_SECRET_LEN + 1);
    too_long.resize(too_long.len() + MAX_SECRET_LEN + 1 + TAG_LEN, 0);
    assert_eq!(Envelope::decode(&too_long), Err(DecodeError::Malformed));
}

#[test]
fn a_kek_id_of_other_characters_is_refused() {
    let mut sealed = sealed();
    for byte in [b' ', b'\n', 0, 0xff] {
        sealed[3] = byte;
        assert_eq!(
            Envelope::decode(&sealed),
            Err(DecodeError::Malformed),
            "{byte}"
        );
    }
}

#[test]
fn rewrapping_changes_the_wrapped_dek_and_nothing_else() {
    let sealed = sealed();
    let envelope = Envelope::decode(&sealed).unwrap();
    let rewrapped = envelope.rewrapped(b"wrapped by v2").unwrap();
    let decoded = Envelope::decode(&rewrapped).unwrap();
    assert_eq!(decoded.wrapped_dek(), b"wrapped by v2");
    assert_eq!(decoded.open(&dek(), &ROW).unwrap(), secret());
    assert_eq!(decoded.rewrapped(b"wrapped").unwrap(), sealed);
}

#[test]
fn rewrapping_with_a_dek_that_does_not_fit_is_refused() {
    let sealed = sealed();
    let envelope = Envelope::decode(&sealed).unwrap();
    for len in [0, MAX_WRAPPED_LEN + 1] {
        assert_eq!(
            envelope.rewrapped(&vec![0; len]),
            Err(WrappedLenError { len })
        );
    }
}

#[test]
fn debug_shows_no_plaintext() {
    let sealed = sealed();
    let shown = format!("{:?}", Envelope::decode(&sealed).unwrap());
    assert!(!shown.contains("sk_live"));
}

proptest! {
    #[test]
    fn any_value_opens_again(value in proptest::collection::vec(any::<u8>(), 0..2000)) {
        let sealed = seal(dek(), b"w", &kek(), &Secret::new(value.clone()), &ROW).unwrap();
        let opened = Envelope::decode(&sealed).unwrap().open(&dek(), &ROW).unwrap();
        prop_assert_eq!(opened.expose(), value.as_slice());
    }

    #[test]
    fn arbitrary_bytes_decode_to_themselves_or_not_at_all(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..200),
        flip in 0_usize..100,
    ) {
        let mut near = sealed();
        near[flip] ^= bytes.first().copied().unwrap_or(1);
        if let Some(first) = bytes.first_mut() { *first = VERSION; }
        for bytes in [bytes, near] {
            if let Ok(envelope) = Envelope::decode(&bytes) {
                prop_assert_eq!(envelope.encode(), bytes);
            }
        }
    }
}
