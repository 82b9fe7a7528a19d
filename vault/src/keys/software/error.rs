//! The refusals of the key directory and its files.

use std::{io, path::PathBuf, sync::Arc};

use crate::aead::NoRandomness;

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
