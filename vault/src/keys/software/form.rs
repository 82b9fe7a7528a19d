//! The text of a KEK's file. Long because it is one format with its two protections.
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

use std::{fmt, io::Write, path::Path, sync::Arc};

use argon2::{Algorithm, Argon2, Block, Params, Version};
use parking_lot::Mutex;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::{KeyFileError, dir::KekName};
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

/// Turns keys into the text of their files and back, under the configured protection.
pub(super) enum Protector {
    File,
    Passphrase(Passphrase),
}

pub(super) struct Passphrase {
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
    pub(super) fn new(protection: Protection, cost: Argon2Cost) -> Result<Self, KeyFileError> {
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

    pub(super) fn decode(
        &self,
        text: &[u8],
        name: &KekName,
        path: &Path,
    ) -> Result<Key, KeyFileError> {
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

    pub(super) fn encode(&self, name: &KekName, kek: &Key) -> Result<Text, KeyFileError> {
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
pub(super) struct Text(Zeroizing<Vec<u8>>);

impl Text {
    fn new() -> Self {
        Self(Zeroizing::new(Vec::with_capacity(MAX_FILE_LEN)))
    }

    pub(super) fn bytes(&self) -> &[u8] {
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

const FORM: &str = "claviger-kek";
const CHECK_LABEL: &[u8] = b"claviger kek check";
const CHECK_LEN: usize = 8;
const SALT_LEN: usize = 16;
/// Longest key file in bytes; the longest that is written has about 400.
pub(super) const MAX_FILE_LEN: usize = 4096;
