//! Rotation of sealed values, over the software key provider.

use std::sync::Arc;

use super::*;
use crate::{KeyWrapper, Protection, Secret, SoftwareKeys, keys::KeyError};

const ROW: RowBinding<'static> = RowBinding {
    org: "org_1",
    vault: "vlt_1",
    path: "stripe/prod/bot/STRIPE_SECRET_KEY",
    version: 1,
};

struct Bench {
    vault: Vault,
    keys: SoftwareKeys,
    kek: KekId,
    dir: tempfile::TempDir,
}

async fn bench() -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let keys = SoftwareKeys::open(&dir.path().join("keys"), Protection::File).unwrap();
    let kek = keys.create_kek("vlt_1").await.unwrap();
    Bench {
        vault: Vault::new(Arc::new(keys.clone())),
        keys,
        kek,
        dir,
    }
}

fn secret() -> Secret {
    Secret::new(b"sk_live_canary".to_vec())
}

impl Bench {
    async fn seal(&self) -> Vec<u8> {
        self.vault.seal(&self.kek, &secret(), &ROW).await.unwrap()
    }
}

#[tokio::test]
async fn what_lies_under_the_version_or_a_later_one_is_left_alone() {
    let bench = bench().await;
    let sealed = bench.seal().await;
    assert_eq!(bench.vault.rewrap(&sealed, &ROW, 1).await.unwrap(), None);
    let resealed = bench.vault.reseal(&sealed, &ROW, &bench.kek, 1).await;
    assert_eq!(resealed.unwrap(), None);
    bench.keys.rotate_kek(&bench.kek).await.unwrap();
    let later = bench.seal().await;
    assert_eq!(bench.vault.kek_version(&later), Some(2));
    assert_eq!(bench.vault.rewrap(&later, &ROW, 1).await.unwrap(), None);
    assert_eq!(bench.vault.kek_version(b"x"), None);
}

#[tokio::test]
async fn nothing_counts_as_rewrapped_before_the_provider_knows_the_version() {
    let bench = bench().await;
    let sealed = bench.seal().await;
    let dir = bench.dir.path().join("keys");
    let elsewhere = SoftwareKeys::open(&dir, Protection::File).unwrap();
    assert_eq!(elsewhere.rotate_kek(&bench.kek).await.unwrap(), 2);
    for _ in 0..2 {
        let rewrapped = bench.vault.rewrap(&sealed, &ROW, 2).await;
        let resealed = bench.vault.reseal(&sealed, &ROW, &bench.kek, 2).await;
        for error in [rewrapped.unwrap_err(), resealed.unwrap_err()] {
            assert!(
                matches!(error, RewrapError::Behind { target: 2, .. }),
                "{error}"
            );
            assert!(error.is_retryable());
        }
    }
    bench.keys.age();
    let anew = bench.vault.rewrap(&sealed, &ROW, 2).await.unwrap();
    assert_eq!(bench.vault.kek_version(&anew.unwrap()), Some(2));
}

#[tokio::test]
async fn rewrapping_changes_the_wrapped_dek_and_nothing_else() {
    let bench = bench().await;
    let sealed = bench.seal().await;
    assert_eq!(bench.keys.rotate_kek(&bench.kek).await.unwrap(), 2);
    let anew = bench.vault.rewrap(&sealed, &ROW, 2).await;
    let anew = anew.unwrap().unwrap();
    assert_eq!(bench.vault.open(&anew, &ROW).await.unwrap(), secret());
    assert_eq!(bench.vault.open(&sealed, &ROW).await.unwrap(), secret());
    assert_eq!(bench.vault.rewrap(&anew, &ROW, 2).await.unwrap(), None);

    let (old, new) = (
        Envelope::decode(&sealed).unwrap(),
        Envelope::decode(&anew).unwrap(),
    );
    assert_eq!(bench.keys.wrapped_version(new.wrapped_dek()), Some(2));
    assert_eq!(old.rewrapped(new.wrapped_dek()).unwrap(), anew);
}

#[tokio::test]
async fn a_row_that_does_not_open_is_not_rewrapped() {
    let bench = bench().await;
    let (ours, theirs) = (bench.seal().await, bench.seal().await);
    bench.keys.rotate_kek(&bench.kek).await.unwrap();
    let theirs = Envelope::decode(&theirs).unwrap();
    let swapped = Envelope::decode(&ours)
        .unwrap()
        .rewrapped(theirs.wrapped_dek())
        .unwrap();
    let elsewhere = RowBinding { version: 2, ..ROW };
    for (sealed, row) in [(&swapped, &ROW), (&ours, &elsewhere)] {
        let error = bench.vault.rewrap(sealed, row, 2).await.unwrap_err();
        assert!(
            matches!(error, RewrapError::Open(OpenError::Tampered)),
            "{error}"
        );
        assert!(!error.is_retryable());
        let error = bench.vault.reseal(sealed, row, &bench.kek, 2).await;
        assert!(
            matches!(error, Err(RewrapError::Open(OpenError::Tampered))),
            "{error:?}"
        );
    }
    let error = bench.vault.rewrap(b"\x07", &ROW, 2).await.unwrap_err();
    assert!(matches!(
        error,
        RewrapError::Open(OpenError::UnknownVersion { version: 7 })
    ));
}

#[tokio::test]
async fn resealing_moves_a_value_to_another_kek_with_a_fresh_dek() {
    let bench = bench().await;
    let sealed = bench.seal().await;
    let to = bench.keys.create_kek("vlt_2").await.unwrap();
    let moved = bench.vault.reseal(&sealed, &ROW, &to, 1).await.unwrap();
    let moved = moved.unwrap();
    assert_eq!(bench.vault.open(&moved, &ROW).await.unwrap(), secret());
    let envelope = Envelope::decode(&moved).unwrap();
    assert_eq!(*envelope.kek(), to);
    let old = Envelope::decode(&sealed).unwrap();
    let mixed = old.rewrapped(envelope.wrapped_dek()).unwrap();
    assert!(
        bench.vault.open(&mixed, &ROW).await.is_err(),
        "the DEK is another one"
    );
    let again = bench.vault.reseal(&moved, &ROW, &to, 1).await.unwrap();
    assert_eq!(again, None);

    bench.keys.rotate_kek(&to).await.unwrap();
    let again = bench.vault.reseal(&moved, &ROW, &to, 2).await.unwrap();
    assert!(again.is_some(), "an older version of the KEK is not enough");
}

#[tokio::test]
async fn resealing_under_a_kek_that_is_not_held_is_refused() {
    let bench = bench().await;
    let sealed = bench.seal().await;
    let to = KekId::parse("pkcs11:vlt_1").unwrap();
    let error = bench.vault.reseal(&sealed, &ROW, &to, 1).await.unwrap_err();
    assert!(
        matches!(
            error,
            RewrapError::Seal(SealError::Key(KeyError::UnknownKek { .. }))
        ),
        "{error}"
    );
}
