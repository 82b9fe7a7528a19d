//! The routing, over two directories of software keys of which one goes by another name.

use super::*;
use crate::{Protection, SoftwareKeys};

/// Another provider, as far as names go.
#[derive(Debug)]
struct Renamed(SoftwareKeys);

impl Renamed {
    fn inner(kek: &KekId) -> KekId {
        let vault = kek.as_str().strip_prefix("soft:").unwrap();
        KekId::parse(&format!("software:{vault}")).unwrap()
    }
}

#[async_trait]
impl KeyWrapper for Renamed {
    fn provider(&self) -> &'static str {
        "soft"
    }

    async fn create_kek(&self, vault: &str) -> Result<KekId, KeyError> {
        self.0.create_kek(vault).await?;
        Ok(KekId::parse(&format!("soft:{vault}")).unwrap())
    }

    async fn wrap(&self, kek: &KekId, dek: &Dek, aad: &[u8]) -> Result<Vec<u8>, KeyError> {
        let mut wrapped = self.0.wrap(&Self::inner(kek), dek, aad).await?;
        wrapped.insert(0, 0xff);
        Ok(wrapped)
    }

    async fn unwrap(&self, kek: &KekId, wrapped: &[u8], aad: &[u8]) -> Result<Dek, KeyError> {
        self.0.unwrap(&Self::inner(kek), &wrapped[1..], aad).await
    }

    async fn rotate_kek(&self, kek: &KekId) -> Result<u64, KeyError> {
        self.0.rotate_kek(&Self::inner(kek)).await
    }

    async fn describe(&self, kek: &KekId) -> Result<KekInfo, KeyError> {
        let info = self.0.describe(&Self::inner(kek)).await?;
        Ok(KekInfo {
            kek: kek.clone(),
            ..info
        })
    }

    fn wrapped_version(&self, wrapped: &[u8]) -> Option<u64> {
        let inner = wrapped.strip_prefix(&[0xff])?;
        self.0.wrapped_version(inner)
    }

    async fn check(&self) -> Result<(), KeyError> {
        self.0.check().await
    }
}

struct Room {
    both: Providers,
    second_dir: std::path::PathBuf,
    _dir: tempfile::TempDir,
}

fn room() -> Room {
    let dir = tempfile::tempdir().unwrap();
    let second_dir = dir.path().join("second");
    let first = SoftwareKeys::open(&dir.path().join("first"), Protection::File).unwrap();
    let second = SoftwareKeys::open(&second_dir, Protection::File).unwrap();
    Room {
        both: Providers::new(Arc::new(Renamed(first)), vec![Arc::new(second)]),
        second_dir,
        _dir: dir,
    }
}

#[tokio::test]
async fn new_keks_come_from_the_primary() {
    let room = room();
    assert_eq!(room.both.provider(), "soft");
    let kek = room.both.create_kek("vlt_1").await.unwrap();
    assert_eq!(kek.as_str(), "soft:vlt_1");
}

#[tokio::test]
async fn each_kek_is_asked_of_its_own_provider() {
    let room = room();
    let ours = room.both.create_kek("vlt_1").await.unwrap();
    let theirs = room.both.all[1].create_kek("vlt_1").await.unwrap();
    let dek = Dek::generate().unwrap();
    for kek in [&ours, &theirs] {
        let wrapped = room.both.wrap(kek, &dek, b"row").await.unwrap();
        let opened = room.both.unwrap(kek, &wrapped, b"row").await.unwrap();
        assert_eq!(opened.expose(), dek.expose());
        assert_eq!(room.both.wrapped_version(&wrapped), Some(1));
        assert_eq!(room.both.rotate_kek(kek).await.unwrap(), 2);
        assert_eq!(room.both.current_version(kek).await.unwrap(), 2);
        assert_eq!(room.both.describe(kek).await.unwrap().kek, *kek);
    }
    assert_eq!(room.both.wrapped_version(b"\x77"), None);
}

#[tokio::test]
async fn a_kek_of_no_provider_is_unknown() {
    let room = room();
    for id in ["gcp-kms:vlt_1", "sof:vlt_1", "softwareX:vlt_1", "software"] {
        let kek = KekId::parse(id).unwrap();
        let error = room.both.describe(&kek).await.unwrap_err();
        assert!(
            matches!(error, KeyError::UnknownKek { kek: k } if k == kek),
            "{id}"
        );
    }
}

#[tokio::test]
async fn the_health_of_all_is_looked_at() {
    let room = room();
    room.both.check().await.unwrap();
    std::fs::remove_dir(&room.second_dir).unwrap();
    assert!(room.both.check().await.is_err());
}
