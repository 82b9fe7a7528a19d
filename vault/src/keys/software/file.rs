//! A KEK's file: its form, and how it is written and read safely. Long because it is one format with its refusals.
//!
//! The file is ASCII lines, each a name, a space and a value, in this order, with nothing else, ended by a newline:
//!
//! ```text
//! claviger-kek 1              the form's version
//! vault vlt_01K3…             as in the file's name
//! version 1                   of the KEK, as in the file's name
//! protection none             or: protection argon2id
//! key <64 hex>                | memory-kib 65536
//! check <16 hex>              | passes 3
//!                             | lanes 4
//!                             | salt <32 hex>
//!                             | nonce <24 hex>
//!                             | sealed <96 hex>
//! ```
//!
//! `check` is the first 8 bytes of `HMAC-SHA256(key, "claviger kek check")`: it tells a damaged key from a wrong one.
//! `sealed` is the KEK by AES-256-GCM under the argon2id key (32 bytes) of the passphrase, with all that precedes its
//! line as AAD, and 16 bytes of tag. Files of one directory may share a salt, so that one argon2id pass opens them all;
//! their nonces differ. Spec: argon2id, RFC 9106, with the second recommended option of its section 4 as the default.
//!
//! Writing: a temporary file, `O_EXCL`, mode 0600, synced; then a hard link under the final name, which fails if that
//! exists; then a sync of the directory. So a `.kek` file is whole, and is never overwritten.

use std::{
    fmt,
    fs::{self, DirBuilder, File, Metadata, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use argon2::{Algorithm, Argon2, Block, Params, Version};
use nix::{errno::Errno, fcntl::OFlag, unistd::Uid};
use parking_lot::Mutex;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::{
    aead::{KEY_LEN, Key, NONCE_LEN, NoRandomness, TAG_LEN, fill_random, random_nonce},
    secret::Secret,
};

/// How KEK files are protected. All files of a directory are protected the same way.
#[derive(Debug)]
pub enum Protection {
    /// By their mode alone: who can read the disk can read the KEK.
    File,
    /// By a passphrase through argon2id as well.
    Passphrase(Secret),
}

/// Why a key file or the key directory cannot be used.
#[derive(Debug, Clone, thiserror::Error)]
pub enum KeyFileError {
    /// Others may read or write the file.
    #[error("key file {path} is readable by others (mode {mode:04o}); run `chmod 600 {path}`")]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Others may enter the directory.
    #[error("key directory {path} is open to others (mode {mode:04o}); run `chmod 700 {path}`")]
    DirectoryExposed {
        /// The directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file or directory belongs to another user, who can read it whatever its mode.
    #[error(
        "{path} belongs to user {owner}, not to user {user} who runs this; run `chown {user} {path}`"
    )]
    ForeignOwner {
        /// The file or directory.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// The user that this process runs as.
        user: u32,
    },
    /// A symbolic link stands where a file or directory should.
    #[error("{path} is a symbolic link; put the file or directory itself there")]
    Symlink {
        /// The link.
        path: PathBuf,
    },
    /// Not a regular file.
    #[error("{path} is not a regular file; remove it from the key directory")]
    NotAFile {
        /// What is there.
        path: PathBuf,
    },
    /// Not a directory.
    #[error("{path} is not a directory; the keys need one of their own")]
    NotADirectory {
        /// What is there.
        path: PathBuf,
    },
    /// The file is of a form that this release does not know.
    #[error(
        "key file {path} is not of form `claviger-kek 1`; run the release that wrote it, or restore it from a backup"
    )]
    UnknownForm {
        /// The file.
        path: PathBuf,
    },
    /// The file's content or name breaks its form.
    #[error("key file {path} is damaged ({field}); restore it from a backup")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The field at which reading stopped.
        field: &'static str,
    },
    /// The passphrase does not open the file.
    #[error(
        "the passphrase does not open key file {path}; give the passphrase that it was made with (or the file was altered)"
    )]
    WrongPassphrase {
        /// The file.
        path: PathBuf,
    },
    /// The file needs a passphrase, and none is configured.
    #[error("key file {path} is protected by a passphrase; configure that passphrase")]
    PassphraseNeeded {
        /// The file.
        path: PathBuf,
    },
    /// A passphrase is configured, and the file has none.
    #[error(
        "key file {path} is not protected by the configured passphrase; remove the passphrase from the configuration, or the file from the key directory"
    )]
    NotProtected {
        /// The file.
        path: PathBuf,
    },
    /// The configured passphrase is empty.
    #[error("the passphrase of the key files is empty; give one, or configure none")]
    EmptyPassphrase,
    /// The operating system refused.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the operating system said.
        source: Arc<io::Error>,
    },
    /// No random bytes for a key, a salt or a nonce.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
}

impl KeyFileError {
    /// Whether the same call may succeed later without anyone's doing.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Io { .. } | Self::NoRandomness(_))
    }
}

/// How hard argon2id makes guessing a passphrase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Argon2Cost {
    /// Memory in KiB.
    pub(super) memory_kib: u32,
    /// Passes over the memory.
    pub(super) passes: u32,
    /// Lanes, all run by one thread.
    pub(super) lanes: u32,
}

impl Default for Argon2Cost {
    /// RFC 9106 section 4, second recommended option: it fits small machines and takes about 0.2 s.
    fn default() -> Self {
        Self {
            memory_kib: 64 * 1024,
            passes: 3,
            lanes: 4,
        }
    }
}

impl Argon2Cost {
    /// What a file may ask for: a damaged one must not take all memory.
    fn is_bearable(self) -> bool {
        (1..=16).contains(&self.lanes)
            && (1..=64).contains(&self.passes)
            && (8 * self.lanes..=1 << 20).contains(&self.memory_kib)
    }

    fn derive(self, passphrase: &Secret, salt: &[u8; SALT_LEN]) -> Key {
        let params = Params::new(self.memory_kib, self.passes, self.lanes, Some(KEY_LEN))
            .expect("the cost was checked to be within argon2's bounds");
        let mut memory = Zeroizing::new(vec![Block::default(); params.block_count()]);
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        Key::fill_with(|output| {
            argon2.hash_password_into_with_memory(
                passphrase.expose(),
                salt,
                output,
                memory.as_mut_slice(),
            )
        })
        .expect("salt, output and memory have the lengths that argon2 asks for")
    }
}

/// One version of a vault's KEK, and so the name of its file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct KekName {
    vault: String,
    version: u32,
}

impl KekName {
    const MAX_VAULT_LEN: usize = 64;

    /// `None` if the vault's name cannot stand in a file name, or the version is 0.
    pub(super) fn new(vault: &str, version: u32) -> Option<Self> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        let fits = (1..=Self::MAX_VAULT_LEN).contains(&vault.len()) && vault.bytes().all(is_plain);
        (fits && version > 0).then(|| Self {
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
    key: Key,
    path: PathBuf,
    stamp: Stamp,
}

impl LoadedKek {
    pub(super) fn key(&self) -> &Key {
        &self.key
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
        let failed = |error| io_error("read key directory", &self.path, error);
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(failed)? {
            let file_name = entry.map_err(failed)?.file_name();
            let file_name = file_name.to_string_lossy();
            if !file_name.ends_with(SUFFIX) {
                continue;
            }
            let name = KekName::parse(&file_name).ok_or_else(|| KeyFileError::Damaged {
                path: self.path.join(&*file_name),
                field: "file name",
            })?;
            names.push(name);
        }
        names.sort();
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

/// Turns keys into the text of their files and back, under the configured protection.
enum Protector {
    File,
    Passphrase(Passphrase),
}

struct Passphrase {
    text: Secret,
    cost: Argon2Cost,
    // Keys that opened or made a file of this directory, so that one argon2id pass serves all files of one salt.
    derived: Mutex<Vec<Derived>>,
}

#[derive(Clone)]
struct Derived {
    salt: [u8; SALT_LEN],
    cost: Argon2Cost,
    key: Arc<Key>,
}

impl Protector {
    fn new(protection: Protection, cost: Argon2Cost) -> Result<Self, KeyFileError> {
        match protection {
            Protection::File => Ok(Self::File),
            Protection::Passphrase(passphrase) if passphrase.is_empty() => {
                Err(KeyFileError::EmptyPassphrase)
            }
            Protection::Passphrase(passphrase) => Ok(Self::Passphrase(Passphrase {
                text: passphrase,
                cost,
                derived: Mutex::new(Vec::new()),
            })),
        }
    }

    fn decode(&self, text: &[u8], name: &KekName, path: &Path) -> Result<Key, KeyFileError> {
        let mut fields = Fields { text, at: 0, path };
        let unknown_form = || KeyFileError::UnknownForm {
            path: path.to_owned(),
        };
        if !matches!(fields.value(FORM), Ok(b"1")) {
            return Err(unknown_form());
        }
        fields.expect("vault", name.vault())?;
        fields.expect("version", &name.version().to_string())?;
        match (fields.value("protection")?, self) {
            (b"none", Self::File) => decode_plain(fields),
            (b"argon2id", Self::Passphrase(passphrase)) => passphrase.decode(fields),
            (b"none", Self::Passphrase(_)) => Err(KeyFileError::NotProtected {
                path: path.to_owned(),
            }),
            (b"argon2id", Self::File) => Err(KeyFileError::PassphraseNeeded {
                path: path.to_owned(),
            }),
            _ => Err(unknown_form()),
        }
    }

    fn encode(&self, name: &KekName, kek: &Key) -> Result<Text, KeyFileError> {
        let mut text = Text::new();
        text.line(FORM, "1");
        text.line("vault", name.vault());
        text.line("version", name.version());
        match self {
            Self::File => encode_plain(&mut text, kek),
            Self::Passphrase(passphrase) => passphrase.encode(&mut text, kek)?,
        }
        Ok(text)
    }
}

fn decode_plain(mut fields: Fields<'_>) -> Result<Key, KeyFileError> {
    let key = Key::fill_with(|key| fields.hex("key", key))?;
    let mut check = [0; CHECK_LEN];
    fields.hex("check", &mut check)?;
    let is_whole = key.derive(CHECK_LABEL).bytes()[..CHECK_LEN].ct_eq(&check);
    if !bool::from(is_whole) {
        return Err(fields.damaged("check"));
    }
    fields.end()?;
    Ok(key)
}

fn encode_plain(text: &mut Text, kek: &Key) {
    text.line("protection", "none");
    text.hex("key", kek.bytes());
    text.hex("check", &kek.derive(CHECK_LABEL).bytes()[..CHECK_LEN]);
}

impl Passphrase {
    fn decode(&self, mut fields: Fields<'_>) -> Result<Key, KeyFileError> {
        let cost = Argon2Cost {
            memory_kib: fields.number("memory-kib")?,
            passes: fields.number("passes")?,
            lanes: fields.number("lanes")?,
        };
        if !cost.is_bearable() {
            return Err(fields.damaged("argon2id cost"));
        }
        let mut salt = [0; SALT_LEN];
        fields.hex("salt", &mut salt)?;
        let mut nonce = [0; NONCE_LEN];
        fields.hex("nonce", &mut nonce)?;
        let aad = fields.read_so_far();
        let mut sealed = [0; KEY_LEN + TAG_LEN];
        fields.hex("sealed", &mut sealed)?;
        fields.end()?;

        let (sealed, tag) = sealed
            .split_first_chunk::<KEY_LEN>()
            .expect("it is that long");
        let tag = tag.try_into().expect("what follows the key is the tag");
        let derived = self.derived(salt, cost);
        let opened = Key::fill_with(|key| {
            key.copy_from_slice(sealed);
            derived.key.open(&nonce, aad, key, tag)
        });
        let path = fields.path.to_owned();
        let key = opened.map_err(|_| KeyFileError::WrongPassphrase { path })?;
        self.remember(derived);
        Ok(key)
    }

    fn encode(&self, text: &mut Text, kek: &Key) -> Result<(), KeyFileError> {
        let derived = self.for_new_file()?;
        let nonce = random_nonce()?;
        text.line("protection", "argon2id");
        text.line("memory-kib", derived.cost.memory_kib);
        text.line("passes", derived.cost.passes);
        text.line("lanes", derived.cost.lanes);
        text.hex("salt", &derived.salt);
        text.hex("nonce", &nonce);
        let mut sealed = Zeroizing::new([0; KEY_LEN + TAG_LEN]);
        sealed[..KEY_LEN].copy_from_slice(kek.bytes());
        let tag = derived
            .key
            .seal(&nonce, text.bytes(), &mut sealed[..KEY_LEN]);
        sealed[KEY_LEN..].copy_from_slice(&tag);
        text.hex("sealed", &*sealed);
        self.remember(derived);
        Ok(())
    }

    fn derived(&self, salt: [u8; SALT_LEN], cost: Argon2Cost) -> Derived {
        let same = |derived: &&Derived| derived.salt == salt && derived.cost == cost;
        if let Some(known) = self.derived.lock().iter().find(same) {
            return known.clone();
        }
        let key = Arc::new(cost.derive(&self.text, &salt));
        Derived { salt, cost, key }
    }

    /// The directory's salt, if it has one of today's cost; else a new one.
    fn for_new_file(&self) -> Result<Derived, NoRandomness> {
        if let Some(known) = self
            .derived
            .lock()
            .iter()
            .find(|known| known.cost == self.cost)
        {
            return Ok(known.clone());
        }
        let mut salt = [0; SALT_LEN];
        fill_random(&mut salt)?;
        Ok(self.derived(salt, self.cost))
    }

    /// Only keys that are known to be right are kept: a wrong passphrase must not fill memory.
    fn remember(&self, derived: Derived) {
        let mut known = self.derived.lock();
        if !known
            .iter()
            .any(|known| known.salt == derived.salt && known.cost == derived.cost)
        {
            known.push(derived);
        }
    }
}

/// Reads the lines of a key file in their one order.
struct Fields<'a> {
    text: &'a [u8],
    at: usize,
    path: &'a Path,
}

impl<'a> Fields<'a> {
    fn value(&mut self, name: &'static str) -> Result<&'a [u8], KeyFileError> {
        let rest = &self.text[self.at..];
        let end = rest.iter().position(|byte| *byte == b'\n');
        let line = &rest[..end.ok_or_else(|| self.damaged(name))?];
        let value = line
            .strip_prefix(name.as_bytes())
            .and_then(|line| line.strip_prefix(b" "));
        let value = value.ok_or_else(|| self.damaged(name))?;
        self.at += line.len() + 1;
        Ok(value)
    }

    fn expect(&mut self, name: &'static str, expected: &str) -> Result<(), KeyFileError> {
        let value = self.value(name)?;
        if value == expected.as_bytes() {
            Ok(())
        } else {
            Err(self.damaged(name))
        }
    }

    fn number(&mut self, name: &'static str) -> Result<u32, KeyFileError> {
        let value = self.value(name)?;
        let number = std::str::from_utf8(value)
            .ok()
            .and_then(|value| value.parse().ok());
        number.ok_or_else(|| self.damaged(name))
    }

    fn hex(&mut self, name: &'static str, output: &mut [u8]) -> Result<(), KeyFileError> {
        let value = self.value(name)?;
        hex::decode_to_slice(value, output).map_err(|_| self.damaged(name))
    }

    fn end(&self) -> Result<(), KeyFileError> {
        if self.at == self.text.len() {
            Ok(())
        } else {
            Err(self.damaged("end of file"))
        }
    }

    fn read_so_far(&self) -> &'a [u8] {
        &self.text[..self.at]
    }

    fn damaged(&self, field: &'static str) -> KeyFileError {
        KeyFileError::Damaged {
            path: self.path.to_owned(),
            field,
        }
    }
}

/// The text of a key file. Its capacity is fixed, so that it is never moved and leaves no copy of a key behind.
struct Text(Zeroizing<Vec<u8>>);

impl Text {
    fn new() -> Self {
        Self(Zeroizing::new(Vec::with_capacity(MAX_FILE_LEN)))
    }

    fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn line(&mut self, name: &str, value: impl fmt::Display) {
        writeln!(*self.0, "{name} {value}").expect("a vector takes every write");
    }

    fn hex(&mut self, name: &str, value: &[u8]) {
        write!(*self.0, "{name} ").expect("a vector takes every write");
        let start = self.0.len();
        self.0.resize(start + 2 * value.len(), 0);
        hex::encode_to_slice(value, &mut self.0[start..]).expect("there are two digits a byte");
        self.0.push(b'\n');
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

const FORM: &str = "claviger-kek";
const SUFFIX: &str = ".kek";
const CHECK_LABEL: &[u8] = b"claviger kek check";
const CHECK_LEN: usize = 8;
const SALT_LEN: usize = 16;
/// Longest key file in bytes; the longest that is written has about 400.
const MAX_FILE_LEN: usize = 4096;
