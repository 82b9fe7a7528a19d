//! Sealing and opening as a whole, over the software key provider.

use std::collections::HashSet;

use async_trait::async_trait;

use super::*;

const ROW: RowBinding<'static> = RowBinding {
    org: "org_1",
    vault: "vlt_1",
    path: "stripe/prod/bot/STRIPE_SECRET_KEY",
    version: 1,
};

struct Bench {
    vault: Vault,
    kek: KekId,
    _dir: tempfile::TempDir,
}

async fn bench() -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let keys = SoftwareKeys::open(&dir.path().join("keys"), Protection::File).unwrap();
    let kek = keys.create_kek("vlt_1").await.unwrap();
    let vault = Vault::new(Arc::new(keys));
    Bench {
        vault,
        kek,
        _dir: dir,
    }
}

fn secret() -> Secret {
    Secret::new(b"sk_live_canary_0123456789".to_vec())
}

impl Bench {
    async fn seal(&self, row: &RowBinding<'_>) -> Vec<u8> {
        self.vault.seal(&self.kek, &secret(), row).await.unwrap()
    }
}

#[tokio::test]
async fn a_sealed_value_opens_in_its_row() {
    let bench = bench().await;
    let sealed = bench.seal(&ROW).await;
    assert_eq!(bench.vault.open(&sealed, &ROW).await.unwrap(), secret());
    assert_eq!(bench.vault.wrapper().provider(), "software");
}

#[tokio::test]
async fn an_opened_secret_is_locked_in_memory() {
    let bench = bench().await;
    let value = Secret::new(vec![9; MAX_SECRET_LEN]);
    let sealed = bench.vault.seal(&bench.kek, &value, &ROW).await.unwrap();
    let before = memory::locked_bytes();
    let opened = bench.vault.open(&sealed, &ROW).await.unwrap();
    assert!(memory::locked_bytes() >= before + MAX_SECRET_LEN);
    drop(opened);
    assert!(memory::locked_bytes() < before + MAX_SECRET_LEN);
}

#[tokio::test]
async fn an_empty_value_and_the_longest_one_are_sealed_and_one_more_byte_is_refused() {
    let bench = bench().await;
    for len in [0, MAX_SECRET_LEN] {
        let value = Secret::new(vec![9; len]);
        let sealed = bench.vault.seal(&bench.kek, &value, &ROW).await.unwrap();
        assert_eq!(bench.vault.open(&sealed, &ROW).await.unwrap(), value);
    }
    let value = Secret::new(vec![9; MAX_SECRET_LEN + 1]);
    let error = bench
        .vault
        .seal(&bench.kek, &value, &ROW)
        .await
        .unwrap_err();
    assert!(matches!(error, SealError::TooLong { len } if len == MAX_SECRET_LEN + 1));
    assert!(!error.is_retryable());
}

#[tokio::test]
async fn a_value_does_not_open_in_any_other_row() {
    let bench = bench().await;
    let sealed = bench.seal(&ROW).await;
    let others = [
        RowBinding {
            org: "org_2",
            ..ROW
        },
        RowBinding {
            vault: "vlt_2",
            ..ROW
        },
        RowBinding {
            path: "stripe/prod/bot/STRIPE_PUBLISHABLE_KEY",
            ..ROW
        },
        RowBinding { version: 2, ..ROW },
        RowBinding {
            org: "org_1v",
            vault: "lt_1",
            ..ROW
        },
    ];
    for other in others {
        let opened = bench.vault.open(&sealed, &other).await;
        assert!(matches!(opened, Err(OpenError::Tampered)), "{other:?}");
    }
}

#[tokio::test]
async fn the_wrapped_dek_of_another_row_is_refused() {
    let bench = bench().await;
    let ours = bench.seal(&ROW).await;
    let theirs = bench.seal(&RowBinding { version: 2, ..ROW }).await;
    let theirs = Envelope::decode(&theirs).unwrap();
    let swapped = Envelope::decode(&ours)
        .unwrap()
        .rewrapped(theirs.wrapped_dek())
        .unwrap();
    assert!(matches!(
        bench.vault.open(&swapped, &ROW).await,
        Err(OpenError::Tampered)
    ));
}

#[tokio::test]
async fn another_dek_wrapped_for_the_same_row_is_refused() {
    let bench = bench().await;
    let first = bench.seal(&ROW).await;
    let second = bench.seal(&ROW).await;
    let second = Envelope::decode(&second).unwrap();
    let swapped = Envelope::decode(&first)
        .unwrap()
        .rewrapped(second.wrapped_dek())
        .unwrap();
    assert!(matches!(
        bench.vault.open(&swapped, &ROW).await,
        Err(OpenError::Tampered)
    ));
}

#[tokio::test]
async fn every_bit_flip_fails_closed() {
    let bench = bench().await;
    let sealed = bench.seal(&ROW).await;
    for at in 0..sealed.len() {
        for bit in 0..8 {
            let mut flipped = sealed.clone();
            flipped[at] ^= 1 << bit;
            let error = bench.vault.open(&flipped, &ROW).await.unwrap_err();
            assert!(!error.is_retryable(), "byte {at} bit {bit}: {error}");
            assert!(!error.to_string().contains("canary"), "{error}");
        }
    }
}

#[tokio::test]
async fn every_truncation_and_extension_fails_closed() {
    let bench = bench().await;
    let mut sealed = bench.seal(&ROW).await;
    for len in 0..sealed.len() {
        assert!(
            bench.vault.open(&sealed[..len], &ROW).await.is_err(),
            "{len}"
        );
    }
    sealed.push(0);
    assert!(matches!(
        bench.vault.open(&sealed, &ROW).await,
        Err(OpenError::Tampered)
    ));
}

#[tokio::test]
async fn the_plaintext_itself_is_not_taken_for_a_sealed_value() {
    let bench = bench().await;
    assert!(bench.vault.open(secret().expose(), &ROW).await.is_err());
    assert!(bench.vault.open(b"", &ROW).await.is_err());
}

#[tokio::test]
async fn another_version_byte_is_named() {
    let bench = bench().await;
    let mut sealed = bench.seal(&ROW).await;
    for version in [0, 2, 0xff] {
        sealed[0] = version;
        let error = bench.vault.open(&sealed, &ROW).await.unwrap_err();
        assert!(matches!(error, OpenError::UnknownVersion { version: v } if v == version));
    }
}

#[tokio::test]
async fn a_kek_that_is_not_held_is_named() {
    let bench = bench().await;
    let elsewhere = self::bench().await;
    let sealed = bench.seal(&ROW).await;
    let other_keys = elsewhere.vault.open(&sealed, &ROW).await;
    assert!(
        matches!(other_keys, Err(OpenError::Tampered)),
        "a KEK of the same name is not the same KEK"
    );

    for id in ["software:vlt_9", "gcp-kms:projects/p", "software"] {
        let kek = KekId::parse(id).unwrap();
        let error = bench.vault.seal(&kek, &secret(), &ROW).await.unwrap_err();
        assert!(
            matches!(error, SealError::Key(KeyError::UnknownKek { kek: k }) if k == kek),
            "{id}"
        );
    }
}

#[tokio::test]
async fn a_value_does_not_open_under_another_kek_of_the_same_provider() {
    let bench = bench().await;
    let other = bench.vault.wrapper().create_kek("vlt_2").await.unwrap();
    let sealed = bench.seal(&ROW).await;
    let renamed: Vec<u8> = sealed
        .windows(bench.kek.as_str().len())
        .position(|window| window == bench.kek.as_str().as_bytes())
        .map(|at| {
            let mut renamed = sealed.clone();
            renamed[at..at + other.as_str().len()].copy_from_slice(other.as_str().as_bytes());
            renamed
        })
        .unwrap();
    assert!(matches!(
        bench.vault.open(&renamed, &ROW).await,
        Err(OpenError::Tampered)
    ));
}

#[tokio::test]
async fn two_sealings_of_one_value_share_no_bytes() {
    let bench = bench().await;
    let (first, second) = (bench.seal(&ROW).await, bench.seal(&ROW).await);
    let (first, second) = (
        Envelope::decode(&first).unwrap(),
        Envelope::decode(&second).unwrap(),
    );
    // The kek id, the lengths and the wrapped DEK's own header are public and equal; no run of random bytes is.
    let runs = |envelope: &Envelope<'_>| -> HashSet<[u8; 4]> {
        let encoded = envelope.encode();
        let wrapped_at = 1 + 2 + envelope.kek().as_str().len() + 2;
        let (wrapped, rest) = encoded[wrapped_at..].split_at(envelope.wrapped_dek().len());
        let (fixed, ciphertext) = rest.split_at(32 + 12);
        let parts = [&wrapped[5..], fixed, &ciphertext[4..]];
        parts
            .iter()
            .flat_map(|part| part.windows(4))
            .map(|run| run.try_into().unwrap())
            .collect()
    };
    assert!(runs(&first).is_disjoint(&runs(&second)));
}

#[tokio::test]
async fn the_sealed_form_does_not_contain_the_value() {
    let bench = bench().await;
    let sealed = bench.seal(&ROW).await;
    assert!(
        !sealed
            .windows(6)
            .any(|window| secret().expose().windows(6).any(|part| part == window))
    );
}

#[derive(Debug)]
struct Hanging;

#[async_trait]
impl KeyWrapper for Hanging {
    fn provider(&self) -> &'static str {
        "hanging"
    }

    async fn create_kek(&self, _: &str) -> Result<KekId, KeyError> {
        std::future::pending().await
    }

    async fn wrap(&self, _: &KekId, _: &Dek, _: &[u8]) -> Result<Vec<u8>, KeyError> {
        std::future::pending().await
    }

    async fn unwrap(&self, _: &KekId, _: &[u8], _: &[u8]) -> Result<Dek, KeyError> {
        std::future::pending().await
    }

    async fn rotate_kek(&self, _: &KekId) -> Result<u64, KeyError> {
        std::future::pending().await
    }

    async fn describe(&self, _: &KekId) -> Result<KekInfo, KeyError> {
        std::future::pending().await
    }

    fn wrapped_version(&self, _: &[u8]) -> Option<u64> {
        None
    }

    async fn check(&self) -> Result<(), KeyError> {
        std::future::pending().await
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_provider_that_hangs_is_unavailable_at_the_deadline() {
    let sealed = {
        let kek = KekId::parse("hanging:k").unwrap();
        envelope::seal(Dek::generate().unwrap(), b"w", &kek, &secret(), &ROW).unwrap()
    };
    let vault = Vault::new(Arc::new(Hanging));
    let before = tokio::time::Instant::now();
    let error = vault.open(&sealed, &ROW).await.unwrap_err();
    assert!(before.elapsed() < KEY_DEADLINE + Duration::from_millis(10));
    assert!(error.is_retryable());
    assert_eq!(
        error.to_string(),
        "key provider hanging is unavailable: no answer within 2 s"
    );

    let kek = KekId::parse("hanging:k").unwrap();
    let error = vault.seal(&kek, &secret(), &ROW).await.unwrap_err();
    assert!(error.is_retryable());
}

#[tokio::test]
async fn nothing_prints_a_secret() {
    let bench = bench().await;
    let shown = format!(
        "{:?} {:?} {:?}",
        bench.vault,
        secret(),
        Dek::generate().unwrap()
    );
    assert!(!shown.contains("canary"));
    assert!(shown.ends_with("Secret(..) Dek(..)"), "{shown}");
}
