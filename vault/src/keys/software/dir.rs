//! The key directory: how KEK files are named, written and read safely.
//!
//! Writing: a temporary file, `O_EXCL`, mode 0600, synced; then a hard link under the final name, which fails if that
//! exists; then a sync of the directory. So a `.kek` file is whole, and is never overwritten.
//! Reading: without following links or waiting for a FIFO; owner and mode are those of the file that was opened.

use std::{
    fs::{self, DirBuilder, File, Metadata, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use nix::{errno::Errno, fcntl::OFlag, unistd::Uid};
use time::OffsetDateTime;
use zeroize::Zeroizing;

use super::{
    KeyFileError, Protection,
    form::{Argon2Cost, MAX_FILE_LEN, Protector, Text},
};
use crate::{
    aead::{Key, fill_random},
    keys::is_plain_name,
    memory::PageLock,
};

/// One version of a vault's KEK, and so the name of its file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct KekName {
    vault: String,
    version: u32,
}

impl KekName {
    /// `None` if the vault's name cannot stand in a file name, or the version is 0.
    pub(super) fn new(vault: &str, version: u32) -> Option<Self> {
        (is_plain_name(vault) && version > 0).then(|| Self {
            vault: vault.to_owned(),
            version,
        })
    }

    pub(super) fn first(vault: &str) -> Option<Self> {
        Self::new(vault, 1)
    }

    pub(super) fn vault(&self) -> &str {
        &self.vault
    }

    pub(super) fn version(&self) -> u32 {
        self.version
    }

    fn file_name(&self) -> String {
        format!("{}.v{}{SUFFIX}", self.vault, self.version)
    }

    fn parse(file_name: &str) -> Option<Self> {
        let (vault, version) = file_name.strip_suffix(SUFFIX)?.rsplit_once(".v")?;
        let name = Self::new(vault, version.parse().ok()?)?;
        // One name for one file: `v01` and `v+1` are not `v1`.
        (name.file_name() == file_name).then_some(name)
    }
}

/// A KEK in memory, and what its file looked like when it was read.
pub(super) struct LoadedKek {
    // Let go of before the key is freed, since freed memory may be somebody else's.
    _lock: Option<PageLock>,
    key: Key,
    path: PathBuf,
    stamp: Stamp,
}

impl LoadedKek {
    pub(super) fn key(&self) -> &Key {
        &self.key
    }

    /// When the file was written, which is once.
    pub(super) fn created_at(&self) -> Option<OffsetDateTime> {
        OffsetDateTime::from_unix_timestamp(self.stamp.modified.0).ok()
    }

    /// Whether the file is still the one that was read: same inode, content, owner and mode.
    pub(super) fn is_unchanged(&self) -> bool {
        fs::symlink_metadata(&self.path).is_ok_and(|metadata| Stamp::of(&metadata) == self.stamp)
    }
}

#[derive(PartialEq, Eq)]
struct Stamp {
    inode: (u64, u64),
    mode: u32,
    owner: u32,
    len: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            inode: (metadata.dev(), metadata.ino()),
            mode: metadata.mode(),
            owner: metadata.uid(),
            len: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// The directory of KEK files.
pub(super) struct KeyDir {
    path: PathBuf,
    protector: Protector,
}

impl KeyDir {
    /// Opens the directory, or makes it.
    pub(super) fn open(
        path: &Path,
        protection: Protection,
        cost: Argon2Cost,
    ) -> Result<Self, KeyFileError> {
        let protector = Protector::new(protection, cost)?;
        let dir = Self {
            path: path.to_owned(),
            protector,
        };
        let found = fs::symlink_metadata(path);
        if found.is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(path)
                .map_err(|error| io_error("create key directory", path, error))?;
        }
        dir.check()?;
        Ok(dir)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the directory is there, ours, and closed to others.
    pub(super) fn check(&self) -> Result<(), KeyFileError> {
        let path = &self.path;
        let metadata = fs::symlink_metadata(path)
            .map_err(|error| io_error("read key directory", path, error))?;
        if metadata.is_symlink() {
            return Err(KeyFileError::Symlink { path: path.clone() });
        }
        if !metadata.is_dir() {
            return Err(KeyFileError::NotADirectory { path: path.clone() });
        }
        check_owner(path, &metadata)?;
        match others_bits(&metadata) {
            None => Ok(()),
            Some(mode) => Err(KeyFileError::DirectoryExposed {
                path: path.clone(),
                mode,
            }),
        }
    }

    /// The KEKs that have a file. Names that do not end in `.kek` are none of ours; an interrupted write leaves one.
    pub(super) fn list(&self) -> Result<Vec<KekName>, KeyFileError> {
        let mut names = Vec::new();
        for file_name in self.file_names()? {
            let name = KekName::parse(&file_name).ok_or_else(|| KeyFileError::Damaged {
                path: self.path.join(&file_name),
                field: "file name",
            })?;
            names.push(name);
        }
        names.sort();
        Ok(names)
    }

    /// [`list`](Self::list) without the files whose names are none of a KEK.
    pub(super) fn list_proper(&self) -> Result<Vec<KekName>, KeyFileError> {
        let names = self.file_names()?;
        Ok(names
            .iter()
            .filter_map(|name| KekName::parse(name))
            .collect())
    }

    fn file_names(&self) -> Result<Vec<String>, KeyFileError> {
        let failed = |error| io_error("read key directory", &self.path, error);
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(failed)? {
            let file_name = entry.map_err(failed)?.file_name();
            let file_name = file_name.to_string_lossy();
            if file_name.ends_with(SUFFIX) {
                names.push(file_name.into_owned());
            }
        }
        Ok(names)
    }

    /// Reads a KEK. `None` if it has no file.
    pub(super) fn load(&self, name: &KekName) -> Result<Option<LoadedKek>, KeyFileError> {
        let path = self.path.join(name.file_name());
        let Some(mut file) = open_no_follow(&path)? else {
            return Ok(None);
        };
        let failed = |error| io_error("read key file", &path, error);
        // The open file is examined, not its name: what is checked is what is read.
        let metadata = file.metadata().map_err(failed)?;
        check_file(&path, &metadata)?;
        let mut text = Zeroizing::new(Vec::with_capacity(MAX_FILE_LEN));
        let limit = MAX_FILE_LEN as u64;
        (&mut file)
            .take(limit)
            .read_to_end(&mut text)
            .map_err(failed)?;
        let key = self.protector.decode(&text, name, &path)?;
        Ok(Some(LoadedKek {
            _lock: PageLock::of(key.bytes()),
            key,
            stamp: Stamp::of(&metadata),
            path,
        }))
    }

    /// Makes a KEK and its file, unless the file exists: then that one stays.
    pub(super) fn create(&self, name: &KekName) -> Result<(), KeyFileError> {
        self.check()?;
        let text = self.protector.encode(name, &Key::generate()?)?;
        let path = self.path.join(name.file_name());
        let mut random = [0; 8];
        fill_random(&mut random)?;
        let temporary =
            self.path
                .join(format!(".{}.{}.tmp", name.file_name(), hex::encode(random)));
        let written = write_new(&temporary, &text).and_then(|()| fs::hard_link(&temporary, &path));
        let removed = fs::remove_file(&temporary);
        match written {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            other => other.map_err(|error| io_error("create key file", &path, error))?,
        }
        removed.map_err(|error| io_error("remove", &temporary, error))?;
        // Without this a power cut could lose the name of a KEK that already wrapped a DEK.
        File::open(&self.path)
            .and_then(|dir| dir.sync_all())
            .map_err(|error| io_error("sync key directory", &self.path, error))
    }
}

/// Opens for reading. `None` if there is nothing; a symbolic link is refused, a FIFO is not waited for.
fn open_no_follow(path: &Path) -> Result<Option<File>, KeyFileError> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    match OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits())
        .open(path)
    {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.raw_os_error() == Some(Errno::ELOOP as i32) => {
            Err(KeyFileError::Symlink {
                path: path.to_owned(),
            })
        }
        Err(error) => Err(io_error("open key file", path, error)),
    }
}

fn check_file(path: &Path, metadata: &Metadata) -> Result<(), KeyFileError> {
    if !metadata.is_file() {
        return Err(KeyFileError::NotAFile {
            path: path.to_owned(),
        });
    }
    check_owner(path, metadata)?;
    match others_bits(metadata) {
        None => Ok(()),
        Some(mode) => Err(KeyFileError::Exposed {
            path: path.to_owned(),
            mode,
        }),
    }
}

fn check_owner(path: &Path, metadata: &Metadata) -> Result<(), KeyFileError> {
    let (owner, user) = (metadata.uid(), Uid::effective().as_raw());
    if owner == user {
        return Ok(());
    }
    Err(KeyFileError::ForeignOwner {
        path: path.to_owned(),
        owner,
        user,
    })
}

/// The permission bits, if they give the group or others anything.
fn others_bits(metadata: &Metadata) -> Option<u32> {
    let mode = metadata.mode() & 0o7777;
    (mode & 0o077 != 0).then_some(mode)
}

fn write_new(path: &Path, text: &Text) -> io::Result<()> {
    // create_new is O_CREAT | O_EXCL: nothing that stands there already is written to or followed.
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text.bytes())?;
    file.sync_all()
}

fn io_error(action: &'static str, path: &Path, source: io::Error) -> KeyFileError {
    KeyFileError::Io {
        action,
        path: path.to_owned(),
        source: Arc::new(source),
    }
}

const SUFFIX: &str = ".kek";
