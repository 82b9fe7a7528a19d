//! Ed25519 keys in the token, and signatures by them.
//!
//! A key pair has the label `claviger-sign:<name>:v<version>` and one random `CKA_ID` for both its halves. The public
//! half is an object that others may be able to replace, so it is believed only after a signature by the private half
//! verifies under it.
//!
//! Spec: RFC 8032; `CKM_EDDSA`, PKCS #11 version 3.1 section 6.3.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use cryptoki::{
    error::{Error, RvError},
    mechanism::{
        Mechanism,
        eddsa::{EddsaParams, EddsaSignatureScheme},
    },
    object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle},
    session::Session,
};
use ed25519_dalek::{Signature, VerifyingKey};

use super::{
    PROVIDER, Pkcs11Error, Pkcs11Keys,
    fault::{Fault, unavailable},
    form::{ID_LEN, KeyName, Purpose},
    kek_id,
    link::Held,
};
use crate::{
    aead::fill_random,
    keys::{KeyError, KeySigner},
};

/// The curve by its object identifier, 1.3.101.112, in DER.
const ED25519_OID: &[u8] = &[0x06, 0x03, 0x2b, 0x65, 0x70];
/// The curve by its name, as a `PrintableString` in DER: what some tokens of PKCS #11 version 3.0 want.
const ED25519_NAME: &[u8] = b"\x13\x0cedwards25519";

/// The signing side of a token.
pub(super) struct Pkcs11Signer {
    keys: Arc<Pkcs11Keys>,
}

impl Pkcs11Signer {
    pub(super) fn new(keys: Arc<Pkcs11Keys>) -> Self {
        Self { keys }
    }

    fn name(name: &str, version: u64) -> Result<KeyName, KeyError> {
        let version = u32::try_from(version).ok();
        let found = version.and_then(|version| KeyName::new(Purpose::Signing, name, version));
        found.ok_or_else(|| KeyError::BadName {
            name: name.to_owned(),
        })
    }
}

impl fmt::Debug for Pkcs11Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pkcs11Signer").field(&self.keys).finish()
    }
}

#[async_trait]
impl KeySigner for Pkcs11Signer {
    fn provider(&self) -> &'static str {
        PROVIDER
    }

    async fn create_signing_key(&self, name: &str, version: u64) -> Result<[u8; 32], KeyError> {
        let key = Self::name(name, version)?;
        let about = kek_id(key.name());
        let making = self.keys.on_token(&about, move |held| {
            if held.private_key(&key)?.is_none() {
                held.make_pair(&key)?;
            }
            let private = held.private_key(&key)?;
            let private = private.ok_or_else(|| unavailable("the key made just now is gone"))?;
            held.public_key(&key, private)
        });
        making.await
    }

    async fn sign(&self, name: &str, version: u64, message: &[u8]) -> Result<[u8; 64], KeyError> {
        let key = Self::name(name, version)?;
        let (name, message) = (name.to_owned(), message.to_vec());
        let about = kek_id(key.name());
        let signing = self.keys.on_token(&about, move |held| {
            let Some(private) = held.private_key(&key)? else {
                return Err(KeyError::UnknownSigningKey {
                    provider: PROVIDER,
                    name: name.clone(),
                    version,
                }
                .into());
            };
            held.sign(private, &message)
        });
        signing.await
    }
}

impl Held<'_> {
    /// Checks every signing key in the token.
    pub(super) fn check_signing_keys(&self) -> Result<(), Fault> {
        let all = [
            Attribute::Class(ObjectClass::PRIVATE_KEY),
            Attribute::Token(true),
        ];
        for handle in self.session.find_objects(&all)? {
            for attribute in self
                .session
                .get_attributes(handle, &[AttributeType::Label])?
            {
                if let Attribute::Label(label) = attribute
                    && let Some(name) = KeyName::parse(Purpose::Signing, &label)
                {
                    self.private_key(&name)?;
                }
            }
        }
        Ok(())
    }

    /// The private half, if the token has it: alone under its label, and with the right attributes.
    fn private_key(&self, name: &KeyName) -> Result<Option<ObjectHandle>, Fault> {
        let found = self.half(name, ObjectClass::PRIVATE_KEY)?;
        let Some(handle) = found else {
            self.check_presence()?;
            return Ok(None);
        };
        let wanted = [
            AttributeType::KeyType,
            AttributeType::Private,
            AttributeType::Sensitive,
            AttributeType::AlwaysSensitive,
            AttributeType::Extractable,
            AttributeType::NeverExtractable,
            AttributeType::Local,
            AttributeType::Sign,
        ];
        let attributes = self.session.get_attributes(handle, &wanted)?;
        let needed = [
            (
                Attribute::KeyType(KeyType::EC_EDWARDS),
                "another CKA_KEY_TYPE than CKK_EC_EDWARDS",
            ),
            (Attribute::Private(true), "no CKA_PRIVATE"),
            (Attribute::Sensitive(true), "no CKA_SENSITIVE"),
            (Attribute::AlwaysSensitive(true), "no CKA_ALWAYS_SENSITIVE"),
            (Attribute::Extractable(false), "CKA_EXTRACTABLE"),
            (
                Attribute::NeverExtractable(true),
                "no CKA_NEVER_EXTRACTABLE",
            ),
            (Attribute::Local(true), "no CKA_LOCAL"),
            (Attribute::Sign(true), "no CKA_SIGN"),
        ];
        match needed.iter().find(|(one, _)| !attributes.contains(one)) {
            None => Ok(Some(handle)),
            Some((_, found)) => Err(Pkcs11Error::BadKey {
                token: self.link.token().clone(),
                label: name.label(),
                found,
            }
            .into()),
        }
    }

    /// One half of a pair. Two with one label are refused.
    fn half(&self, name: &KeyName, class: ObjectClass) -> Result<Option<ObjectHandle>, Fault> {
        let found = self.session.find_objects(&[
            Attribute::Class(class),
            Attribute::Token(true),
            Attribute::Label(name.label().into_bytes()),
        ])?;
        match found.as_slice() {
            [] => Ok(None),
            [handle] => Ok(Some(*handle)),
            _ => Err(Pkcs11Error::Duplicate {
                token: self.link.token().clone(),
                attribute: "label",
                value: name.label(),
            }
            .into()),
        }
    }

    fn make_pair(&self, name: &KeyName) -> Result<(), Fault> {
        let making = self.link.creating.try_lock_until(self.until);
        let _one_at_a_time = making.ok_or_else(|| unavailable("another key is being made"))?;
        if self.private_key(name)?.is_some() {
            return Ok(());
        }
        self.check_login()?;
        let mut id = [0; ID_LEN];
        fill_random(&mut id).map_err(KeyError::from)?;
        let writing = self.write_session()?;
        let (public, private) = generate(writing.get(), name, &id)?;
        let verdict = self.private_key(name);
        if verdict.is_err() {
            for handle in [public, private] {
                if let Err(error) = writing.get().destroy_object(handle) {
                    tracing::warn!("a key that is not wanted stays in the token: {error}");
                }
            }
        }
        verdict.map(drop)
    }

    /// The public half, proven to be that of the private one.
    fn public_key(&self, name: &KeyName, private: ObjectHandle) -> Result<[u8; 32], Fault> {
        let refused = |what: &str| Fault::Refused(format!("{}: {what}", name.label()));
        let public = self.half(name, ObjectClass::PUBLIC_KEY)?;
        let public = public.ok_or_else(|| refused("the public key is gone"))?;
        let point = self
            .session
            .get_attributes(public, &[AttributeType::EcPoint])?;
        let point = point.iter().find_map(|attribute| match attribute {
            Attribute::EcPoint(bytes) => raw_point(bytes),
            _ => None,
        });
        let point = point.ok_or_else(|| refused("the public key is not of 32 bytes"))?;
        let mut challenge = [0; 32];
        fill_random(&mut challenge).map_err(KeyError::from)?;
        let signature = Signature::from_bytes(&self.sign(private, &challenge)?);
        VerifyingKey::from_bytes(&point)
            .and_then(|key| key.verify_strict(&challenge, &signature))
            .map_err(|_| refused("the public key is not that of the private key"))?;
        Ok(point)
    }

    fn sign(&self, private: ObjectHandle, message: &[u8]) -> Result<[u8; 64], Fault> {
        let pure = EddsaParams::new(EddsaSignatureScheme::Pure);
        let signature = self
            .session
            .sign(&Mechanism::Eddsa(pure), private, message)?;
        signature.as_slice().try_into().map_err(|_| {
            Fault::Refused(format!(
                "the token answered a signature of {} bytes, not 64",
                signature.len()
            ))
        })
    }
}

/// The point as 32 bytes: tokens give it as it is, or as an OCTET STRING in DER.
fn raw_point(bytes: &[u8]) -> Option<[u8; 32]> {
    let raw = bytes
        .strip_prefix(&[0x04, 0x20])
        .filter(|raw| raw.len() == 32);
    raw.unwrap_or(bytes).try_into().ok()
}

fn generate(
    session: &Session,
    name: &KeyName,
    id: &[u8; ID_LEN],
) -> Result<(ObjectHandle, ObjectHandle), Fault> {
    let common = |class| {
        [
            Attribute::Class(class),
            Attribute::KeyType(KeyType::EC_EDWARDS),
            Attribute::Token(true),
            Attribute::Modifiable(false),
            Attribute::Label(name.label().into_bytes()),
            Attribute::Id(id.to_vec()),
        ]
    };
    let private = [
        &common(ObjectClass::PRIVATE_KEY)[..],
        &[
            Attribute::Private(true),
            Attribute::Sensitive(true),
            Attribute::Extractable(false),
            Attribute::Sign(true),
        ],
    ]
    .concat();
    let public = |curve: &[u8]| {
        let own = [Attribute::Verify(true), Attribute::EcParams(curve.to_vec())];
        [&common(ObjectClass::PUBLIC_KEY)[..], &own].concat()
    };
    let make = |curve| {
        let mechanism = Mechanism::EccEdwardsKeyPairGen;
        session.generate_key_pair(&mechanism, &public(curve), &private)
    };
    match make(ED25519_OID) {
        Err(Error::Pkcs11(
            RvError::CurveNotSupported
            | RvError::DomainParamsInvalid
            | RvError::AttributeValueInvalid
            | RvError::TemplateInconsistent,
            _,
        )) => Ok(make(ED25519_NAME)?),
        other => Ok(other?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_is_read_raw_and_wrapped_alike() {
        let raw = [4; 32];
        assert_eq!(raw_point(&raw), Some(raw));
        assert_eq!(raw_point(&[&[0x04, 0x20], &raw[..]].concat()), Some(raw));
        for len in [0, 31, 33] {
            assert_eq!(raw_point(&vec![4; len]), None, "{len}");
        }
        assert_eq!(raw_point(&[&[0x04, 0x21], &raw[..]].concat()), None);
    }
}
