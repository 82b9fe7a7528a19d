//! Which module, which token, and where its PIN comes from.

use std::{fmt, os::fd::RawFd, path::PathBuf, time::Duration};

use crate::{KEY_DEADLINE, Secret};

/// How to reach a PKCS#11 token.
#[derive(Debug)]
pub struct Pkcs11Options {
    /// The module: a shared library of the token's maker.
    pub module: PathBuf,
    /// The token.
    pub token: TokenRef,
    /// Where its user PIN comes from. It is read once, when the provider is opened.
    pub pin: PinSource,
    /// Sessions, and threads that call the module, at a time: 1 to 64.
    pub sessions: usize,
    /// How long one operation may take. Then the answer is `Unavailable`.
    pub deadline: Duration,
}

impl Pkcs11Options {
    /// Sessions unless configured otherwise: a token serves its sessions from few cores, mostly one.
    pub const DEFAULT_SESSIONS: usize = 4;
    /// Most sessions. Network HSMs allow a few hundred over all their clients.
    pub const MAX_SESSIONS: usize = 64;

    /// These, with the defaults for the rest.
    pub fn new(module: impl Into<PathBuf>, token: TokenRef, pin: PinSource) -> Self {
        Self {
            module: module.into(),
            token,
            pin,
            sessions: Self::DEFAULT_SESSIONS,
            deadline: KEY_DEADLINE,
        }
    }
}

/// How a token is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenRef {
    /// By its label, wherever it is plugged in. The label must be the only one of its kind.
    Label(String),
    /// By the number of its slot, which some modules change when a token is initialised.
    Slot(u64),
}

impl fmt::Display for TokenRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Label(label) => write!(f, "label {label:?}"),
            Self::Slot(slot) => write!(f, "slot {slot}"),
        }
    }
}

/// Where a PIN comes from: never the command line and never the environment, which other processes can read.
///
/// One line of UTF-8 text, of 1 to 255 bytes; a line feed at its end is not part of it.
#[derive(Debug)]
pub enum PinSource {
    /// A file of the running user, closed to others (mode 0600 or less).
    File(PathBuf),
    /// A file in the directory that systemd gives a unit as `$CREDENTIALS_DIRECTORY` (`LoadCredential=`,
    /// `LoadCredentialEncrypted=`). Root may own it, and its group bits stand for the unit's access list.
    Credential {
        /// The value of `$CREDENTIALS_DIRECTORY`.
        directory: PathBuf,
        /// The credential's name.
        name: String,
    },
    /// An open file descriptor, which is read to its end and closed.
    Descriptor(RawFd),
    /// The PIN itself.
    Secret(Secret),
}
