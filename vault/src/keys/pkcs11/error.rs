//! What an operator has to put right about a PKCS#11 module, its token, its PIN or the keys in it.

use std::{io, path::PathBuf, sync::Arc};

use super::TokenRef;

/// Why a PKCS#11 token cannot be used. Nothing here passes by itself; what does is
/// [`KeyError::Unavailable`](super::super::KeyError::Unavailable).
#[derive(Debug, Clone, thiserror::Error)]
pub enum Pkcs11Error {
    /// The module does not load.
    #[error("cannot load the PKCS#11 module {path}: {reason}; install it, or correct its path")]
    Module {
        /// The shared library.
        path: PathBuf,
        /// What the loader or the module said.
        reason: String,
    },
    /// No slot holds such a token.
    #[error(
        "the PKCS#11 module {path} has no token with {token}; initialise it, or correct the configuration"
    )]
    NoToken {
        /// The shared library.
        path: PathBuf,
        /// What was looked for.
        token: TokenRef,
    },
    /// Several slots hold such a token.
    #[error(
        "the PKCS#11 module {path} has several tokens with {token}; name the slot instead of the label"
    )]
    ManyTokens {
        /// The shared library.
        path: PathBuf,
        /// What was looked for.
        token: TokenRef,
    },
    /// The token cannot do what is needed.
    #[error("the token with {token} has no {mechanism}; use another token")]
    NoMechanism {
        /// The token.
        token: TokenRef,
        /// What is missing.
        mechanism: &'static str,
    },
    /// The token refused the PIN, once. It is not tried again before a restart, so that the token does not lock.
    #[error(
        "the token with {token} refuses the PIN; correct the PIN and restart (it is tried once, so that the token does not lock)"
    )]
    WrongPin {
        /// The token.
        token: TokenRef,
    },
    /// The token is locked against the PIN, or wants another one first.
    #[error("the token with {token} takes no PIN ({reason}); have its security officer set one")]
    PinLocked {
        /// The token.
        token: TokenRef,
        /// Locked, expired, or not yet set.
        reason: &'static str,
    },
    /// Others may read the PIN.
    #[error("PIN file {path} is readable by others (mode {mode:04o}); run `chmod 600 {path}`")]
    PinExposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The PIN file belongs to somebody else.
    #[error(
        "PIN file {path} belongs to user {owner}, not to user {user} who runs this; run `chown {user} {path}`"
    )]
    PinForeignOwner {
        /// The file.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// The user that this process runs as.
        user: u32,
    },
    /// The PIN cannot be read.
    #[error("cannot read the PIN from {from}: {source}")]
    PinUnreadable {
        /// The file or descriptor.
        from: String,
        /// What the operating system said.
        source: Arc<io::Error>,
    },
    /// What was read is no PIN.
    #[error("there is no PIN in {from}; write it there on one line, at most {max} bytes of text")]
    NoPin {
        /// The file or descriptor.
        from: String,
        /// The longest PIN that is taken.
        max: usize,
    },
    /// Several keys of the token have one label, so nobody can tell which one is meant.
    #[error(
        "the token with {token} has several keys with the {attribute} {value}; remove all but the right one"
    )]
    Duplicate {
        /// The token.
        token: TokenRef,
        /// `label` or `id`.
        attribute: &'static str,
        /// The label, or the id in hexadecimal.
        value: String,
    },
    /// A key has attributes that let it leave the token, or be used for what it is not for.
    #[error(
        "key {label} in the token with {token} has {found}; it may have left the token, so rotate it away and remove it"
    )]
    BadKey {
        /// The token.
        token: TokenRef,
        /// The key's label.
        label: String,
        /// The attribute and its value.
        found: &'static str,
    },
    /// `SoftHSM` could not be set up.
    #[error("cannot set up SoftHSM: {reason}")]
    SoftHsm {
        /// What failed, and what to do.
        reason: String,
    },
}
