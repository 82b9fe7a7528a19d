//! What every key provider has to do, told once and run for each.

use std::sync::Arc;

use super::{Dek, KekId, KekState, KeyError, KeyWrapper};
use crate::{OpenError, RowBinding, Secret, Vault, envelope::MAX_WRAPPED_LEN};

const AAD: &[u8] = b"org_1 vlt_1 stripe/prod/bot/STRIPE_SECRET_KEY 1";
const ROW: RowBinding<'static> = RowBinding {
    org: "org_1",
    vault: "vlt_1",
    path: "stripe/prod/bot/STRIPE_SECRET_KEY",
    version: 1,
};

/// Runs the whole story on a provider that has no KEKs of the vaults `vlt_c1` to `vlt_c4` yet.
pub(crate) async fn holds(keys: Arc<dyn KeyWrapper>) {
    keys.check().await.unwrap();
    keks_are_made_once(&*keys).await;
    a_dek_unwraps_for_its_row_and_kek_alone(&*keys).await;
    no_altered_byte_unwraps(&*keys).await;
    what_is_not_held_is_unknown(&*keys).await;
    versions_follow_each_other(&*keys).await;
    many_at_once_are_served(&keys).await;
    a_vault_stands_on_it(&keys).await;
    keys.check().await.unwrap();
}

async fn keks_are_made_once(keys: &dyn KeyWrapper) {
    let kek = keys.create_kek("vlt_c1").await.unwrap();
    assert_eq!(kek.as_str(), format!("{}:vlt_c1", keys.provider()));
    let wrapped = keys.wrap(&kek, &dek(), AAD).await.unwrap();
    assert_eq!(keys.create_kek("vlt_c1").await.unwrap(), kek);
    assert!(opens(keys, &kek, &wrapped).await, "it is the same key");
    for name in ["", "a b", "a/b", "a:b", "ключ", &"v".repeat(65)] {
        let error = keys.create_kek(name).await.unwrap_err();
        assert!(matches!(error, KeyError::BadName { .. }), "{name}: {error}");
    }
}

async fn a_dek_unwraps_for_its_row_and_kek_alone(keys: &dyn KeyWrapper) {
    let kek = keys.create_kek("vlt_c1").await.unwrap();
    let other = keys.create_kek("vlt_c2").await.unwrap();
    let wrapped = keys.wrap(&kek, &dek(), AAD).await.unwrap();
    assert!((1..=MAX_WRAPPED_LEN).contains(&wrapped.len()));
    assert!(opens(keys, &kek, &wrapped).await);
    assert!(!contains(&wrapped, dek().expose()), "the DEK is hidden");
    let again = keys.wrap(&kek, &dek(), AAD).await.unwrap();
    assert!(opens(keys, &kek, &again).await);

    let other_row = keys
        .unwrap(&kek, &wrapped, b"org_1 vlt_1 another row")
        .await;
    assert!(
        matches!(other_row, Err(KeyError::Tampered { kek: ref k }) if *k == kek),
        "{other_row:?}"
    );
    let no_row = keys.unwrap(&kek, &wrapped, b"").await;
    assert!(matches!(no_row, Err(KeyError::Tampered { .. })));
    let other_kek = keys.unwrap(&other, &wrapped, AAD).await;
    assert!(is_refused(&other_kek), "{other_kek:?}");
    assert!(opens(keys, &kek, &wrapped).await, "refusals leave no trace");
}

async fn no_altered_byte_unwraps(keys: &dyn KeyWrapper) {
    let kek = keys.create_kek("vlt_c1").await.unwrap();
    let wrapped = keys.wrap(&kek, &dek(), AAD).await.unwrap();
    for at in 0..wrapped.len() {
        let mut altered = wrapped.clone();
        altered[at] ^= 0x40;
        let opened = keys.unwrap(&kek, &altered, AAD).await;
        assert!(is_refused(&opened), "byte {at}: {opened:?}");
    }
    for len in 0..wrapped.len() {
        let opened = keys.unwrap(&kek, &wrapped[..len], AAD).await;
        assert!(is_refused(&opened), "{len} bytes: {opened:?}");
    }
    let longer = [&wrapped[..], &[0]].concat();
    assert!(is_refused(&keys.unwrap(&kek, &longer, AAD).await));
    assert!(opens(keys, &kek, &wrapped).await);
}

async fn what_is_not_held_is_unknown(keys: &dyn KeyWrapper) {
    let ours = keys.create_kek("vlt_c1").await.unwrap();
    let wrapped = keys.wrap(&ours, &dek(), AAD).await.unwrap();
    let never_made = format!("{}:vlt_never", keys.provider());
    for id in [never_made.as_str(), "elsewhere:vlt_c1", "vlt_c1"] {
        let kek = KekId::parse(id).unwrap();
        let answers = [
            keys.wrap(&kek, &dek(), AAD).await.err(),
            keys.unwrap(&kek, &wrapped, AAD).await.err(),
            keys.rotate_kek(&kek).await.err(),
            keys.describe(&kek).await.err(),
            keys.current_version(&kek).await.err(),
        ];
        for answer in answers {
            assert!(
                matches!(&answer, Some(KeyError::UnknownKek { kek: k }) if *k == kek),
                "{id}: {answer:?}"
            );
        }
    }
    assert_eq!(keys.wrapped_version(b""), None);
    assert_eq!(keys.wrapped_version(b"\xffnot a wrapped DEK"), None);
}

async fn versions_follow_each_other(keys: &dyn KeyWrapper) {
    let kek = keys.create_kek("vlt_c3").await.unwrap();
    let mut wrapped = Vec::new();
    for version in 1..=3 {
        if version > 1 {
            assert_eq!(keys.rotate_kek(&kek).await.unwrap(), version);
        }
        assert_eq!(keys.current_version(&kek).await.unwrap(), version);
        let info = keys.describe(&kek).await.unwrap();
        assert_eq!((&info.kek, info.current), (&kek, version));
        let numbers: Vec<_> = info.versions.iter().map(|found| found.number).collect();
        assert_eq!(numbers, (1..=version).collect::<Vec<_>>());
        for found in &info.versions {
            assert_eq!(found.state, KekState::Enabled);
            assert!(!found.mechanism.is_empty());
        }
        wrapped.push(keys.wrap(&kek, &dek(), AAD).await.unwrap());
    }
    for (wrapped, version) in wrapped.iter().zip(1..) {
        assert_eq!(keys.wrapped_version(wrapped), Some(version));
        assert!(opens(keys, &kek, wrapped).await, "version {version}");
    }
    assert_eq!(keys.create_kek("vlt_c3").await.unwrap(), kek);
    assert_eq!(
        keys.current_version(&kek).await.unwrap(),
        3,
        "making it again changes nothing"
    );
}

async fn many_at_once_are_served(keys: &Arc<dyn KeyWrapper>) {
    let kek = keys.create_kek("vlt_c1").await.unwrap();
    let tasks = (0..32u8).map(|number| {
        let (keys, kek) = (Arc::clone(keys), kek.clone());
        tokio::spawn(async move {
            let dek = Dek::from_bytes(&[number; Dek::LEN]);
            let wrapped = keys.wrap(&kek, &dek, &[number]).await.unwrap();
            let opened = keys.unwrap(&kek, &wrapped, &[number]).await.unwrap();
            assert_eq!(opened.expose(), &[number; Dek::LEN]);
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
}

async fn a_vault_stands_on_it(keys: &Arc<dyn KeyWrapper>) {
    let vault = Vault::new(Arc::clone(keys));
    let kek = keys.create_kek("vlt_c4").await.unwrap();
    let secret = Secret::from("sk_live_canary".to_owned());
    let sealed = vault.seal(&kek, &secret, &ROW).await.unwrap();
    assert_eq!(vault.open(&sealed, &ROW).await.unwrap(), secret);
    let elsewhere = RowBinding { version: 2, ..ROW };
    let error = vault.open(&sealed, &elsewhere).await.unwrap_err();
    assert!(matches!(error, OpenError::Tampered), "{error}");

    assert_eq!(vault.rewrap(&sealed, &ROW, 1).await.unwrap(), None);
    keys.rotate_kek(&kek).await.unwrap();
    let anew = vault.rewrap(&sealed, &ROW, 2).await.unwrap().unwrap();
    assert_eq!(vault.open(&anew, &ROW).await.unwrap(), secret);
    assert_eq!(vault.open(&sealed, &ROW).await.unwrap(), secret);
    assert_eq!(vault.rewrap(&anew, &ROW, 2).await.unwrap(), None);
}

fn dek() -> Dek {
    Dek::from_bytes(b"a DEK that never was, 32 bytes..")
}

async fn opens(keys: &dyn KeyWrapper, kek: &KekId, wrapped: &[u8]) -> bool {
    let opened = keys.unwrap(kek, wrapped, AAD).await;
    opened.is_ok_and(|opened| opened.expose() == dek().expose())
}

/// Not unwrapped, and not to be tried again.
fn is_refused(opened: &Result<Dek, KeyError>) -> bool {
    matches!(
        opened,
        Err(KeyError::Tampered { .. } | KeyError::UnknownKek { .. })
    )
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
