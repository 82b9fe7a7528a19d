//! A wrapped DEK's bytes, and the names of keys in the token.
//!
//! ```text
//! format 1 | KEK version 4, big-endian | CKA_ID of the KEK 16 | then by format:
//! 0x02  nonce 12 | encrypted DEK 32 | tag 16                  CKM_AES_GCM
//! 0x03  wrapped DEK 40 | binding 32                           CKM_AES_KEY_WRAP_PAD and HMAC-SHA256
//! ```
//!
//! The first 21 bytes are authenticated too. The id is random and made with the key, so a key that merely has the label
//! of another, in a token that was initialised anew, is not taken for it.

use crate::{
    aead::{KEY_LEN, NONCE_LEN, TAG_LEN},
    keys::{MAX_NAME_LEN, is_plain_name},
};

/// Bytes in a key's `CKA_ID`.
pub(super) const ID_LEN: usize = 16;
/// Bytes of a DEK after AES key wrap with padding: one block of 8 more (RFC 5649 section 3).
pub(super) const KEY_WRAP_LEN: usize = KEY_LEN + 8;
/// Bytes of the HMAC that binds a DEK to its AAD.
pub(super) const BINDING_LEN: usize = 32;

const HEADER_LEN: usize = 1 + 4 + ID_LEN;

/// A key's `CKA_ID`.
pub(super) type KeyId = [u8; ID_LEN];

/// How a KEK wraps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// AES-256-GCM with the AAD in the token.
    Gcm,
    /// AES key wrap with padding in the token, and an HMAC under the DEK here.
    KeyWrap,
}

impl Mode {
    pub(super) fn mechanism(self) -> &'static str {
        match self {
            Self::Gcm => "CKM_AES_GCM",
            Self::KeyWrap => "CKM_AES_KEY_WRAP_PAD+HMAC",
        }
    }

    fn format(self) -> u8 {
        match self {
            Self::Gcm => 0x02,
            Self::KeyWrap => 0x03,
        }
    }
}

/// The fields that say which key wrapped a DEK, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) mode: Mode,
    pub(super) version: u32,
    pub(super) id: KeyId,
}

impl Header {
    pub(super) fn bytes(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[0] = self.mode.format();
        bytes[1..5].copy_from_slice(&self.version.to_be_bytes());
        bytes[5..].copy_from_slice(&self.id);
        bytes
    }
}

/// A wrapped DEK.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wrapped {
    pub(super) header: Header,
    pub(super) body: Body,
}

/// What follows the header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Body {
    Gcm {
        nonce: [u8; NONCE_LEN],
        sealed: [u8; KEY_LEN + TAG_LEN],
    },
    KeyWrap {
        wrapped: [u8; KEY_WRAP_LEN],
        binding: [u8; BINDING_LEN],
    },
}

impl Wrapped {
    /// Reads the layout strictly. Authenticates nothing.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let (format, rest) = bytes.split_first()?;
        let (version, rest) = rest.split_first_chunk()?;
        let (id, rest) = rest.split_first_chunk()?;
        let (mode, body) = match format {
            0x02 => {
                let (nonce, sealed) = rest.split_first_chunk()?;
                let (nonce, sealed) = (*nonce, sealed.try_into().ok()?);
                (Mode::Gcm, Body::Gcm { nonce, sealed })
            }
            0x03 => {
                let (wrapped, binding) = rest.split_first_chunk()?;
                let (wrapped, binding) = (*wrapped, binding.try_into().ok()?);
                (Mode::KeyWrap, Body::KeyWrap { wrapped, binding })
            }
            _ => return None,
        };
        let version = u32::from_be_bytes(*version);
        let header = Header {
            mode,
            version,
            id: *id,
        };
        Some(Self { header, body })
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let header = self.header.bytes();
        match &self.body {
            Body::Gcm { nonce, sealed } => [&header[..], nonce, sealed].concat(),
            Body::KeyWrap { wrapped, binding } => [&header[..], wrapped, binding].concat(),
        }
    }
}

/// One version of a named key, and so its `CKA_LABEL`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct KeyName {
    purpose: Purpose,
    name: String,
    version: u32,
}

/// What a key is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Purpose {
    /// It wraps the DEKs of a vault.
    Kek,
    /// It signs.
    Signing,
}

impl Purpose {
    fn prefix(self) -> &'static str {
        match self {
            Self::Kek => "claviger-kek:",
            Self::Signing => "claviger-sign:",
        }
    }
}

impl KeyName {
    /// `None` if the name cannot name a key, or the version is 0.
    pub(super) fn new(purpose: Purpose, name: &str, version: u32) -> Option<Self> {
        (is_plain_name(name) && version > 0).then(|| Self {
            purpose,
            name: name.to_owned(),
            version,
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn version(&self) -> u32 {
        self.version
    }

    /// The version after this one.
    pub(super) fn next(&self) -> Option<Self> {
        let version = self.version.checked_add(1)?;
        Self::new(self.purpose, &self.name, version)
    }

    pub(super) fn label(&self) -> String {
        format!("{}{}:v{}", self.purpose.prefix(), self.name, self.version)
    }

    /// Reads a label. `None` if it is none of ours.
    pub(super) fn parse(purpose: Purpose, label: &[u8]) -> Option<Self> {
        let longest = purpose.prefix().len() + MAX_NAME_LEN + 2 + 10;
        let label = std::str::from_utf8(label.get(..label.len().min(longest + 1))?).ok()?;
        let (name, version) = label.strip_prefix(purpose.prefix())?.rsplit_once(":v")?;
        let name = Self::new(purpose, name, version.parse().ok()?)?;
        // One name for one label: `v01` and `v+1` are not `v1`.
        (name.label() == label).then_some(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples() -> [Wrapped; 2] {
        let header = |mode| Header {
            mode,
            version: 7,
            id: [9; ID_LEN],
        };
        [
            Wrapped {
                header: header(Mode::Gcm),
                body: Body::Gcm {
                    nonce: [1; 12],
                    sealed: [2; 48],
                },
            },
            Wrapped {
                header: header(Mode::KeyWrap),
                body: Body::KeyWrap {
                    wrapped: [3; 40],
                    binding: [4; 32],
                },
            },
        ]
    }

    #[test]
    fn what_was_written_is_read() {
        for (wrapped, len) in samples().iter().zip([81, 93]) {
            let bytes = wrapped.bytes();
            assert_eq!(bytes.len(), len);
            assert_eq!(Wrapped::parse(&bytes).as_ref(), Some(wrapped));
            assert_eq!(bytes[..5], [wrapped.header.mode.format(), 0, 0, 0, 7]);
        }
    }

    #[test]
    fn another_length_or_format_is_refused() {
        for wrapped in samples() {
            let mut bytes = wrapped.bytes();
            for len in 0..bytes.len() {
                assert_eq!(Wrapped::parse(&bytes[..len]), None, "{len}");
            }
            bytes.push(0);
            assert_eq!(Wrapped::parse(&bytes), None);
            bytes.pop();
            for format in [0x00, 0x01, 0x04, 0x10] {
                bytes[0] = format;
                assert_eq!(Wrapped::parse(&bytes), None);
            }
        }
    }

    #[test]
    fn a_label_names_one_key() {
        let name = KeyName::new(Purpose::Kek, "vlt_1", 12).unwrap();
        assert_eq!(name.label(), "claviger-kek:vlt_1:v12");
        assert_eq!(
            KeyName::parse(Purpose::Kek, b"claviger-kek:vlt_1:v12"),
            Some(name)
        );
        let others = [
            "claviger-kek:vlt_1:v012",
            "claviger-kek:vlt_1:v+12",
            "claviger-kek:vlt_1:v0",
            "claviger-kek:vlt_1",
            "claviger-kek::v1",
            "claviger-kek:a b:v1",
            "claviger-sign:vlt_1:v12",
            "kek",
            "",
        ];
        for label in others {
            let parsed = KeyName::parse(Purpose::Kek, label.as_bytes());
            assert_eq!(parsed, None, "{label}");
        }
        let long = format!("claviger-kek:{}:v1", "a".repeat(65));
        assert_eq!(KeyName::parse(Purpose::Kek, long.as_bytes()), None);
    }
}
