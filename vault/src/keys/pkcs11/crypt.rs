//! Wrapping and unwrapping in the token: by AES-GCM with AAD, or by AES key wrap and a binding to the AAD.
//!
//! AES key wrap takes no AAD, so there the wrapped DEK is accompanied by
//! `binding = HMAC-SHA256(HMAC-SHA256(DEK, label), header | wrapped DEK | AAD)`. The DEK is uniformly random and never
//! leaves a wrapping that was not authenticated (RFC 5649), so its derived key is a fresh MAC key that whoever moves
//! rows about does not know: a binding to other AAD cannot be made without the DEK, and HMAC-SHA256 commits to both.
//!
//! Spec: AES-GCM, NIST SP 800-38D; AES key wrap with padding, RFC 5649; HMAC, RFC 2104; `CKM_AES_GCM` and
//! `CKM_AES_KEY_WRAP_PAD`, PKCS #11 version 3.1 sections 6.13 and 6.14.

use cryptoki::{
    mechanism::{Mechanism, aead::GcmParams},
    object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle},
};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

use super::{
    fault::{Fault, Opening},
    form::{BINDING_LEN, Body, Header, KEY_WRAP_LEN, Mode, Wrapped},
    keyring::CheckedKey,
    link::Held,
};
use crate::{
    aead::{KEY_LEN, Key, NONCE_LEN, TAG_LEN, random_nonce},
    keys::{Dek, KeyError},
};

const BINDING_LABEL: &[u8] = b"claviger pkcs11 key wrap v1 binding";
const TAG_BITS: u64 = TAG_LEN as u64 * 8;

/// A wrapped DEK that its key did not make, or not for this AAD.
pub(super) enum Unwrapped {
    Dek(Dek),
    Mismatch,
}

impl Held<'_> {
    /// Wraps a DEK, and unwraps it again before anybody relies on it: a token that ignores the nonce it is given or cuts
    /// the tag shows here and not years later.
    pub(super) fn wrap(&self, key: CheckedKey, dek: &Dek, aad: &[u8]) -> Result<Wrapped, Fault> {
        let CheckedKey { handle, header } = key;
        let body = match header.mode {
            Mode::Gcm => self.gcm_seal(handle, &header, dek, aad)?,
            Mode::KeyWrap => self.key_wrap(handle, &header, dek, aad)?,
        };
        let wrapped = Wrapped { header, body };
        match self.try_unwrap(handle, &wrapped, aad)? {
            Ok(again) if bool::from(again.expose().ct_eq(dek.expose())) => Ok(wrapped),
            _ => Err(Fault::Refused(format!(
                "the token does not unwrap what it wrapped by {}",
                header.mode.mechanism()
            ))),
        }
    }

    /// Unwraps a DEK. Where the token's answer could also mean an outage, the key is tried first.
    pub(super) fn unwrap(
        &self,
        key: CheckedKey,
        wrapped: &Wrapped,
        aad: &[u8],
    ) -> Result<Unwrapped, Fault> {
        if key.header != wrapped.header {
            return Ok(Unwrapped::Mismatch);
        }
        match self.try_unwrap(key.handle, wrapped, aad)? {
            Ok(dek) => Ok(Unwrapped::Dek(dek)),
            Err(Opening::Unclear) => {
                let outage = |fault| match fault {
                    Fault::Refused(reason) => Fault::Lost(reason),
                    other => other,
                };
                self.self_test(key).map_err(outage)?;
                Ok(Unwrapped::Mismatch)
            }
            Err(_) => Ok(Unwrapped::Mismatch),
        }
    }

    /// Whether the key wraps, unwraps, and refuses other AAD.
    pub(super) fn self_test(&self, key: CheckedKey) -> Result<(), Fault> {
        let dek = Dek::generate().map_err(KeyError::from)?;
        let wrapped = self.wrap(key, &dek, b"self-test")?;
        match self.try_unwrap(key.handle, &wrapped, b"self-test of another row")? {
            Err(_) => Ok(()),
            Ok(_) => Err(Fault::Refused("the token ignores the AAD".to_owned())),
        }
    }

    fn try_unwrap(
        &self,
        handle: ObjectHandle,
        wrapped: &Wrapped,
        aad: &[u8],
    ) -> Result<Result<Dek, Opening>, Fault> {
        let header = wrapped.header.bytes();
        match &wrapped.body {
            Body::Gcm { nonce, sealed } => {
                self.gcm_open(handle, *nonce, sealed, &[&header, aad].concat())
            }
            Body::KeyWrap {
                wrapped: bytes,
                binding,
            } => {
                let dek = match self.key_unwrap(handle, bytes)? {
                    Ok(dek) => dek,
                    Err(opening) => return Ok(Err(opening)),
                };
                let expected = bind(&dek, &wrapped.header, bytes, aad);
                let is_bound = bool::from(expected.bytes().ct_eq(binding));
                Ok(if is_bound {
                    Ok(dek)
                } else {
                    Err(Opening::Mismatch)
                })
            }
        }
    }

    fn gcm_seal(
        &self,
        handle: ObjectHandle,
        header: &Header,
        dek: &Dek,
        aad: &[u8],
    ) -> Result<Body, Fault> {
        let aad = [&header.bytes(), aad].concat();
        let mut nonce = random_nonce().map_err(KeyError::from)?;
        let params = GcmParams::new(&mut nonce, &aad, TAG_BITS.into())?;
        let sealed = self
            .session
            .encrypt(&Mechanism::AesGcm(params), handle, dek.expose())?;
        let sealed = sealed.as_slice().try_into().map_err(|_| {
            Fault::Refused(format!(
                "the token answered {} bytes to AES-GCM, not {}",
                sealed.len(),
                KEY_LEN + TAG_LEN
            ))
        })?;
        // Tokens that make the nonce themselves write it where ours was.
        Ok(Body::Gcm { nonce, sealed })
    }

    fn gcm_open(
        &self,
        handle: ObjectHandle,
        mut nonce: [u8; NONCE_LEN],
        sealed: &[u8],
        aad: &[u8],
    ) -> Result<Result<Dek, Opening>, Fault> {
        let params = GcmParams::new(&mut nonce, aad, TAG_BITS.into())?;
        let opened = self
            .session
            .decrypt(&Mechanism::AesGcm(params), handle, sealed);
        match opened {
            Ok(bytes) => Ok(dek_of(bytes)),
            Err(error) => failed(error),
        }
    }

    fn key_wrap(
        &self,
        handle: ObjectHandle,
        header: &Header,
        dek: &Dek,
        aad: &[u8],
    ) -> Result<Body, Fault> {
        let mut template = session_key(true);
        template.push(Attribute::Value(dek.expose().to_vec()));
        let created = self.session.create_object(&template);
        if let Some(Attribute::Value(mut copy)) = template.pop() {
            copy.zeroize();
        }
        let object = SessionObject {
            held: self,
            handle: created?,
        };
        let wrapped = self
            .session
            .wrap_key(&Mechanism::AesKeyWrapPad, handle, object.handle)?;
        let wrapped: [u8; KEY_WRAP_LEN] = wrapped.as_slice().try_into().map_err(|_| {
            Fault::Refused(format!(
                "the token answered {} bytes to AES key wrap, not {KEY_WRAP_LEN}",
                wrapped.len()
            ))
        })?;
        let mut binding = [0; BINDING_LEN];
        binding.copy_from_slice(bind(dek, header, &wrapped, aad).bytes());
        Ok(Body::KeyWrap { wrapped, binding })
    }

    pub(super) fn key_unwrap(
        &self,
        handle: ObjectHandle,
        wrapped: &[u8; KEY_WRAP_LEN],
    ) -> Result<Result<Dek, Opening>, Fault> {
        let template = session_key(false);
        let unwrapped =
            self.session
                .unwrap_key(&Mechanism::AesKeyWrapPad, handle, wrapped, &template);
        let object = match unwrapped {
            Ok(handle) => SessionObject { held: self, handle },
            Err(error) => return failed(error),
        };
        let values = self
            .session
            .get_attributes(object.handle, &[AttributeType::Value])?;
        for value in values {
            if let Attribute::Value(bytes) = value {
                return Ok(dek_of(bytes));
            }
        }
        Err(Fault::Refused(
            "the token does not give an unwrapped DEK".to_owned(),
        ))
    }
}

/// An object of the session, destroyed when it is dropped.
struct SessionObject<'a> {
    held: &'a Held<'a>,
    handle: ObjectHandle,
}

impl Drop for SessionObject<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.held.session.destroy_object(self.handle) {
            // It goes with its session at the latest.
            tracing::debug!("a PKCS#11 session object was not destroyed: {error}");
        }
    }
}

/// A DEK as an object of the session.
fn session_key(sensitive: bool) -> Vec<Attribute> {
    vec![
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::KeyType(KeyType::GENERIC_SECRET),
        Attribute::Token(false),
        Attribute::Private(true),
        Attribute::Sensitive(sensitive),
        Attribute::Extractable(true),
    ]
}

/// What ties a DEK that was wrapped without AAD to its AAD. The parts before the AAD have fixed lengths.
fn bind(dek: &Dek, header: &Header, wrapped: &[u8; KEY_WRAP_LEN], aad: &[u8]) -> Key {
    let message = [&header.bytes(), wrapped.as_slice(), aad].concat();
    dek.derive(BINDING_LABEL).derive(&message)
}

fn dek_of(bytes: Vec<u8>) -> Result<Dek, Opening> {
    let bytes = Zeroizing::new(bytes);
    let bytes = bytes.as_slice().try_into();
    bytes.map(Dek::from_bytes).map_err(|_| Opening::Mismatch)
}

fn failed(error: cryptoki::error::Error) -> Result<Result<Dek, Opening>, Fault> {
    match Fault::of_opening(&error) {
        Opening::Failed => Err(error.into()),
        opening => Ok(Err(opening)),
    }
}
