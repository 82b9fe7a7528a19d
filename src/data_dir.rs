//! The data directory: what stands where in it, who holds it, and where its server listens.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::failure::Failure;

/// A data directory by its path; nothing in it needs to exist.
#[derive(Clone, Debug)]
pub(crate) struct DataDir(PathBuf);

/// What a running server records about itself in `DIR/serve.json`, for the commands beside it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) api: String,
    /// None beside a control plane alone.
    pub(crate) proxy: Option<String>,
    pub(crate) ca: PathBuf,
    pub(crate) pid: u32,
    pub(crate) version: String,
}

/// Holds the directory for one server. The kernel lets go of it when the process ends, however it ends.
#[derive(Debug)]
pub(crate) struct Held {
    _lock: File,
    record: PathBuf,
}

impl DataDir {
    /// The given directory, else the platform's place for data.
    pub(crate) fn or_default(given: Option<PathBuf>) -> Result<Self, Failure> {
        let path = given
            .or_else(|| dirs::data_dir().map(|place| place.join("claviger")))
            .ok_or_else(|| {
                Failure::new("this user has no home directory to keep data in")
                    .hint("name one: --data DIR")
            })?;
        std::path::absolute(&path)
            .map(Self)
            .map_err(|error| Failure::new(format!("{} is no usable path: {error}", path.display())))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.0.join("claviger.db")
    }

    pub(crate) fn checkpoint(&self) -> PathBuf {
        self.0.join("audit.checkpoint")
    }

    /// This directory's name among the nodes of a shared database, made at the first call.
    pub(crate) fn node(&self) -> anyhow::Result<String> {
        let path = self.0.join("node");
        match fs::read_to_string(&path) {
            Ok(text) => Ok(text.trim().to_owned()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let mut random = [0; 8];
                getrandom::fill(&mut random).context("no random bytes for the node's name")?;
                let name = format!("node-{}", hex::encode(random));
                write_private(&path, format!("{name}\n").as_bytes())
                    .with_context(|| format!("cannot write {}", path.display()))?;
                Ok(name)
            }
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    pub(crate) fn keys(&self) -> PathBuf {
        self.0.join("keys")
    }

    pub(crate) fn ca(&self) -> PathBuf {
        self.0.join("ca.pem")
    }

    pub(crate) fn admin_key(&self) -> PathBuf {
        self.0.join("admin.key")
    }

    /// Makes the directory if need be, for its owner alone.
    pub(crate) fn create(&self) -> anyhow::Result<()> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.0)
            .with_context(|| format!("cannot make the data directory {}", self.0.display()))?;
        let mode = fs::metadata(&self.0)
            .with_context(|| format!("cannot read {}", self.0.display()))?
            .permissions()
            .mode();
        if mode & 0o077 != 0 {
            return Err(Failure::new(format!(
                "{} is open to others (mode {:04o})",
                self.0.display(),
                mode & 0o7777
            ))
            .hint(format!("run `chmod 700 {}`", self.0.display()))
            .into());
        }
        Ok(())
    }

    /// Takes the directory for this process.
    ///
    /// # Errors
    /// A [`Failure`] with a hint if another server holds it.
    pub(crate) fn hold(&self) -> anyhow::Result<Held> {
        let path = self.0.join("serve.lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .with_context(|| format!("cannot open {}", path.display()))?;
        match lock.try_lock() {
            Ok(()) => Ok(Held {
                _lock: lock,
                record: self.0.join("serve.json"),
            }),
            Err(TryLockError::WouldBlock) => Err(self.taken().into()),
            Err(TryLockError::Error(error)) => {
                Err(error).with_context(|| format!("cannot lock {}", path.display()))
            }
        }
    }

    fn taken(&self) -> Failure {
        let by = self.record().map_or_else(String::new, |record| {
            format!(" by process {} on {}", record.pid, record.api)
        });
        Failure::new(format!(
            "the data directory {} is in use{by}",
            self.0.display()
        ))
        .hint("stop that server first, or give this one a directory of its own with --data DIR")
    }

    /// What the server of this directory recorded, if one runs or died without cleaning up.
    pub(crate) fn record(&self) -> Option<Record> {
        let text = fs::read_to_string(self.0.join("serve.json")).ok()?;
        serde_json::from_str(&text).ok()
    }
}

impl Held {
    /// Records the addresses for the commands beside this server; removed again when the hold ends.
    pub(crate) fn record(&self, record: &Record) -> anyhow::Result<()> {
        let text = serde_json::to_vec(record)?;
        write_private(&self.record, &text)
            .with_context(|| format!("cannot write {}", self.record.display()))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // It may never have been written, and a stale one misleads no one: nothing answers there.
        let _ = fs::remove_file(&self.record);
    }
}

/// Writes a file that its owner alone can read, whole or not at all.
pub(crate) fn write_private(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let beside = path.with_extension("new");
    let _ = fs::remove_file(&beside);
    let mut file = OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(&beside)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dir() -> (tempfile::TempDir, DataDir) {
        let parent = tempfile::tempdir().unwrap();
        let data = DataDir::or_default(Some(parent.path().join("data"))).unwrap();
        data.create().unwrap();
        (parent, data)
    }

    #[test]
    fn a_second_server_on_the_same_directory_is_refused_with_a_hint() {
        let (_parent, data) = dir();
        let held = data.hold().unwrap();
        let error = data.hold().unwrap_err();
        let failure = error.downcast_ref::<Failure>().unwrap();
        assert!(failure.reason().contains("is in use"));
        assert!(failure.next_action().unwrap().contains("--data"));
        drop(held);
        data.hold().unwrap();
    }

    #[test]
    fn the_record_is_private_and_goes_with_the_hold() {
        let (_parent, data) = dir();
        let held = data.hold().unwrap();
        let record = Record {
            api: "127.0.0.1:1".into(),
            proxy: Some("127.0.0.1:2".into()),
            ca: data.ca(),
            pid: 7,
            version: "0".into(),
        };
        held.record(&record).unwrap();
        let mode = fs::metadata(data.path().join("serve.json"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(data.record().unwrap().proxy.unwrap(), "127.0.0.1:2");
        drop(held);
        assert!(data.record().is_none());
    }

    #[test]
    fn a_directory_open_to_others_is_refused() {
        let (_parent, data) = dir();
        fs::set_permissions(data.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let error = data.create().unwrap_err();
        assert!(
            error
                .downcast_ref::<Failure>()
                .unwrap()
                .next_action()
                .unwrap()
                .contains("chmod 700")
        );
    }
}
