//! Versions of a KEK: which one wraps, on which node, and what is told of them.

use std::time::Duration;

use super::*;

#[tokio::test]
async fn a_new_version_wraps_and_old_ones_go_on_unwrapping() {
    let rig = Rig::new().await;
    let old = rig.wrap().await.unwrap();
    assert_eq!(rig.keys.rotate_kek(&rig.kek).await.unwrap(), 2);
    let new = rig.wrap().await.unwrap();
    let version = |wrapped: &[u8]| rig.keys.wrapped_version(wrapped);
    assert_eq!((version(&old), version(&new)), (Some(1), Some(2)));
    assert_eq!(version(b"\x01\0\0\0\x01 of another provider"), None);
    rig.unwrap(&old).await.unwrap();
    rig.unwrap(&new).await.unwrap();
    let unknown = KekId::parse("gcp-kms:vlt_z").unwrap();
    assert!(is_unknown(&rig.keys.rotate_kek(&unknown).await));
}

#[tokio::test]
async fn a_sealed_secret_is_wrapped_anew_after_a_rotation() {
    let rig = Rig::new().await;
    let vault = Vault::new(Arc::clone(&rig.keys) as Arc<dyn KeyWrapper>);
    let row = RowBinding {
        org: "org_a",
        vault: "vlt_a",
        path: "stripe/prod/key",
        version: 1,
    };
    let secret = Secret::from("sk_live_1".to_owned());
    let sealed = vault.seal(&rig.kek, &secret, &row).await.unwrap();
    assert_eq!(vault.rewrap(&sealed, &row, 1).await.unwrap(), None);
    // The service goes on encrypting under version 1 for a while, where it is not asked for version 2.
    rig.double.lag_primary(true);
    rig.keys.rotate_kek(&rig.kek).await.unwrap();
    let rewrapped = vault.rewrap(&sealed, &row, 2).await.unwrap().unwrap();
    assert_eq!(vault.rewrap(&rewrapped, &row, 2).await.unwrap(), None);
    rig.double
        .set_state(&rig.version(1), VersionState::Destroyed)
        .unwrap();
    assert_eq!(vault.open(&rewrapped, &row).await.unwrap(), secret);
}

#[tokio::test]
async fn a_rotation_elsewhere_is_seen_within_seconds() {
    let rig = Rig::new().await;
    let other = open(&rig.double).await;
    other.rotate_kek(&rig.kek).await.unwrap();
    // A later look is one request for the key alone, and one for the version that it names.
    later().await;
    rig.double.forget();
    let wrapped = rig.wrap().await.unwrap();
    assert_eq!(rig.keys.wrapped_version(&wrapped), Some(2));
    assert_eq!(rig.double.count(Call::Encrypt), 2);
    assert_eq!(rig.keys.current_version(&rig.kek).await.unwrap(), 2);
    rig.unwrap(&wrapped).await.unwrap();
    // And one more once nothing has changed.
    later().await;
    rig.double.forget();
    rig.wrap().await.unwrap();
    assert_eq!(rig.double.count(Call::Encrypt), 1);
}

#[tokio::test]
async fn a_version_that_lags_behind_a_rotation_is_not_returned_to() {
    let rig = Rig::new().await;
    rig.double.lag_primary(true);
    rig.keys.rotate_kek(&rig.kek).await.unwrap();
    later().await;
    let wrapped = rig.wrap().await.unwrap();
    assert_eq!(rig.keys.wrapped_version(&wrapped), Some(2));
    // A node that did not rotate and may look at the key learns of it all the same.
    let other = open(&rig.double).await;
    assert_eq!(other.current_version(&rig.kek).await.unwrap(), 2);
    let dek = Dek::generate().unwrap();
    let wrapped = other.wrap(&rig.kek, &dek, AAD).await.unwrap();
    assert_eq!(other.wrapped_version(&wrapped), Some(2));
}

#[tokio::test]
async fn a_process_that_knows_nothing_finds_the_version() {
    let rig = Rig::new().await;
    for _ in 0..2 {
        rig.keys.rotate_kek(&rig.kek).await.unwrap();
    }
    let keys = open(&rig.double).await;
    let dek = Dek::generate().unwrap();
    let wrapped = keys.wrap(&rig.kek, &dek, AAD).await.unwrap();
    assert_eq!(keys.wrapped_version(&wrapped), Some(3));
    let opened = rig.unwrap(&wrapped).await.unwrap();
    assert_eq!(opened.expose(), dek.expose());
}

#[tokio::test]
async fn a_primary_version_that_unwraps_is_learned() {
    let rig = Rig::new().await;
    let other = open(&rig.double).await;
    other.rotate_kek(&rig.kek).await.unwrap();
    let dek = Dek::generate().unwrap();
    let new = other.wrap(&rig.kek, &dek, AAD).await.unwrap();
    rig.unwrap(&new).await.unwrap();
    let wrapped = rig.wrap().await.unwrap();
    assert_eq!(rig.keys.wrapped_version(&wrapped), Some(2));
}

#[tokio::test]
async fn a_version_that_is_still_being_made_is_waited_for() {
    let double = KmsDouble::start().unwrap();
    double.generate_after(3);
    let keys = open(&double).await;
    let kek = keys.create_kek("vlt_a").await.unwrap();
    assert_eq!(double.count(Call::GetCryptoKeyVersion), 3);
    assert_eq!(keys.rotate_kek(&kek).await.unwrap(), 2);
    assert_eq!(double.count(Call::GetCryptoKeyVersion), 6);
}

#[tokio::test]
async fn a_rotation_that_may_not_be_made_changes_nothing() {
    let rig = Rig::new().await;
    for call in [Call::CreateCryptoKeyVersion, Call::UpdatePrimaryVersion] {
        rig.double.forget();
        rig.double.fault(call, Action::Deny);
        let refused = rig.keys.rotate_kek(&rig.kek).await;
        assert!(is_denied(&refused), "{refused:?}");
        assert_eq!(rig.double.count(call), 1);
        rig.double.clear();
        assert_eq!(rig.keys.current_version(&rig.kek).await.unwrap(), 1);
    }
    // The making of a version is not repeated, for the first one may have been made.
    rig.double.forget();
    rig.double
        .fault(Call::CreateCryptoKeyVersion, Action::HangUp);
    assert!(is_unavailable(&rig.keys.rotate_kek(&rig.kek).await));
    assert_eq!(rig.double.count(Call::CreateCryptoKeyVersion), 1);
}

#[tokio::test]
async fn all_versions_are_described() {
    let rig = Rig::new().await;
    for _ in 0..4 {
        rig.keys.rotate_kek(&rig.kek).await.unwrap();
    }
    let states = [
        (1, VersionState::Destroyed),
        (2, VersionState::DestroyScheduled),
        (3, VersionState::Disabled),
    ];
    for (number, state) in states {
        rig.double.set_state(&rig.version(number), state).unwrap();
    }
    let info = rig.keys.describe(&rig.kek).await.unwrap();
    assert_eq!((&info.kek, info.current), (&rig.kek, 5));
    let found: Vec<_> = info
        .versions
        .iter()
        .map(|version| (version.number, version.state))
        .collect();
    let expected = [
        (1, KekState::Destroyed),
        (2, KekState::Disabled),
        (3, KekState::Disabled),
        (4, KekState::Enabled),
        (5, KekState::Enabled),
    ];
    assert_eq!(found, expected);
    assert!(
        info.versions
            .iter()
            .all(|version| version.created_at.is_some())
    );
    assert!(
        info.versions
            .iter()
            .all(|version| version.mechanism == MECHANISM)
    );
    let unknown = KekId::parse("gcp-kms:vlt_z").unwrap();
    assert!(is_unknown(&rig.keys.describe(&unknown).await));
}

/// Lets what is known of versions grow old.
async fn later() {
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(6)).await;
    tokio::time::resume();
}
