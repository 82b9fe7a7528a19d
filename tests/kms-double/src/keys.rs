//! Key rings, keys, versions: what the service holds, and its cryptography.

use std::collections::{BTreeMap, BTreeSet};

use aes_gcm::{
    Aes256Gcm, KeyInit,
    aead::{Aead, Payload},
};
use ed25519_dalek::{
    Signer, SigningKey, pkcs8::EncodePublicKey, pkcs8::spki::der::pem::LineEnding,
};
use serde_json::{Value, json};
use time::{Duration, OffsetDateTime, format_description::well_known::Rfc3339, macros::datetime};

use crate::wire::Refusal;

/// When the first thing is made; each later one is a second younger.
const EPOCH: OffsetDateTime = datetime!(2026-01-01 00:00:00 UTC);
const NONCE_LEN: usize = 12;
const SOFTWARE: i64 = 1;

/// The state of a key version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VersionState {
    /// It is being made, and cannot be used yet.
    PendingGeneration,
    /// It can be used.
    Enabled,
    /// It cannot be used until it is enabled again.
    Disabled,
    /// Its key material is gone.
    Destroyed,
    /// Its key material will be destroyed.
    DestroyScheduled,
}

impl VersionState {
    fn number(self) -> i64 {
        match self {
            Self::Enabled => 1,
            Self::Disabled => 2,
            Self::Destroyed => 3,
            Self::DestroyScheduled => 4,
            Self::PendingGeneration => 5,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Enabled => "ENABLED",
            Self::Disabled => "DISABLED",
            Self::Destroyed => "DESTROYED",
            Self::DestroyScheduled => "DESTROY_SCHEDULED",
            Self::PendingGeneration => "PENDING_GENERATION",
        }
    }
}

/// What a key is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    EncryptDecrypt,
    SignEd25519,
}

impl Purpose {
    fn number(self) -> i64 {
        match self {
            Self::EncryptDecrypt => 1,
            Self::SignEd25519 => 5,
        }
    }

    fn algorithm(self) -> i64 {
        match self {
            Self::EncryptDecrypt => 1,
            Self::SignEd25519 => 40,
        }
    }
}

enum Material {
    Aes(Box<Aes256Gcm>),
    Ed25519(Box<SigningKey>),
}

struct Version {
    state: VersionState,
    looks_until_made: u32,
    created_at: OffsetDateTime,
    material: Material,
}

struct CryptoKey {
    purpose: Purpose,
    created_at: OffsetDateTime,
    primary: Option<u64>,
    /// The version that encryption uses. It may lag behind `primary`, as it may in the real service.
    serving: Option<u64>,
    versions: BTreeMap<u64, Version>,
}

/// All that the service holds.
#[derive(Default)]
pub(crate) struct Keys {
    rings: BTreeSet<String>,
    by_name: BTreeMap<String, CryptoKey>,
    made: u32,
    pub(crate) looks_until_made: u32,
    pub(crate) lag_primary: bool,
}

impl Keys {
    pub(crate) fn create_ring(&mut self, name: &str) -> Result<Value, Refusal> {
        if !self.rings.insert(name.to_owned()) {
            return Err(Refusal::exists(name));
        }
        Ok(ring_json(name))
    }

    pub(crate) fn ring(&self, name: &str) -> Result<Value, Refusal> {
        if self.rings.contains(name) {
            Ok(ring_json(name))
        } else {
            Err(Refusal::not_found(name))
        }
    }

    pub(crate) fn create_key(
        &mut self,
        ring: &str,
        name: &str,
        purpose: Purpose,
    ) -> Result<Value, Refusal> {
        if !self.rings.contains(ring) {
            return Err(Refusal::not_found(ring));
        }
        if self.by_name.contains_key(name) {
            return Err(Refusal::exists(name));
        }
        let first = (purpose == Purpose::EncryptDecrypt).then_some(1);
        let created_at = self.now();
        let key = CryptoKey {
            purpose,
            created_at,
            primary: first,
            serving: first,
            versions: BTreeMap::from([(1, self.new_version(purpose)?)]),
        };
        self.by_name.insert(name.to_owned(), key);
        self.key(name)
    }

    pub(crate) fn key(&self, name: &str) -> Result<Value, Refusal> {
        let key = self.find(name)?;
        let mut answer = json!({
            "name": name,
            "purpose": key.purpose.number(),
            "createTime": timestamp(key.created_at),
            "versionTemplate": {
                "protectionLevel": SOFTWARE,
                "algorithm": key.purpose.algorithm(),
            },
        });
        if let Some(primary) = key.primary {
            answer["primary"] = version_json(name, primary, key);
        }
        Ok(answer)
    }

    pub(crate) fn create_version(&mut self, name: &str) -> Result<Value, Refusal> {
        let purpose = self.find(name)?.purpose;
        let version = self.new_version(purpose)?;
        let key = self.find_mut(name)?;
        let number = key
            .versions
            .last_key_value()
            .map_or(1, |(last, _)| last + 1);
        key.versions.insert(number, version);
        Ok(version_json(name, number, key))
    }

    /// A version, which a look brings closer to being made.
    pub(crate) fn version(&mut self, name: &str) -> Result<Value, Refusal> {
        let (key_name, number) = split_version(name)?;
        let key = self.find_mut(key_name)?;
        let version = key
            .versions
            .get_mut(&number)
            .ok_or_else(|| Refusal::not_found(name))?;
        version.looks_until_made = version.looks_until_made.saturating_sub(1);
        if version.looks_until_made == 0 && version.state == VersionState::PendingGeneration {
            version.state = VersionState::Enabled;
        }
        Ok(version_json(key_name, number, key))
    }

    pub(crate) fn versions(&self, name: &str) -> Result<Vec<Value>, Refusal> {
        let key = self.find(name)?;
        let numbers = key.versions.keys();
        Ok(numbers
            .map(|number| version_json(name, *number, key))
            .collect())
    }

    pub(crate) fn set_primary(&mut self, name: &str, number: u64) -> Result<Value, Refusal> {
        let lag = self.lag_primary;
        let key = self.find_mut(name)?;
        usable(name, number, key)?;
        key.primary = Some(number);
        if !lag {
            key.serving = Some(number);
        }
        self.key(name)
    }

    pub(crate) fn catch_up(&mut self) {
        for key in self.by_name.values_mut() {
            key.serving = key.primary;
        }
    }

    pub(crate) fn set_state(&mut self, name: &str, state: VersionState) -> Result<Value, Refusal> {
        let (key_name, number) = split_version(name)?;
        let key = self.find_mut(key_name)?;
        let version = key.versions.get_mut(&number);
        version.ok_or_else(|| Refusal::not_found(name))?.state = state;
        Ok(version_json(key_name, number, key))
    }

    /// The number of the version that encrypted, and `version 4 | nonce 12 | ciphertext | tag 16`.
    pub(crate) fn encrypt(
        &self,
        name: &str,
        plaintext: &[u8],
        aad: &[u8],
    ) -> Result<(u64, Vec<u8>), Refusal> {
        let (key_name, asked) = match split_version(name) {
            Ok((key_name, number)) => (key_name, Some(number)),
            Err(_) => (name, None),
        };
        let key = self.find(key_name)?;
        let number = asked.or(key.serving).ok_or_else(|| {
            Refusal::precondition(format!("{key_name} does not have a primary version."))
        })?;
        let Material::Aes(cipher) = &usable(key_name, number, key)?.material else {
            return Err(wrong_purpose(key_name));
        };
        let mut nonce = [0; NONCE_LEN];
        getrandom::fill(&mut nonce).expect("the operating system gives random bytes");
        let payload = Payload {
            msg: plaintext,
            aad,
        };
        let sealed = cipher
            .encrypt((&nonce).into(), payload)
            .expect("the plaintext of a test is short");
        let short = u32::try_from(number).expect("a test makes few versions");
        Ok((number, [&short.to_be_bytes(), &nonce[..], &sealed].concat()))
    }

    /// The number of the version that decrypted, whether it is the primary one, and the plaintext.
    pub(crate) fn decrypt(
        &self,
        name: &str,
        ciphertext: &[u8],
        aad: &[u8],
    ) -> Result<(u64, bool, Vec<u8>), Refusal> {
        let refused = || {
            Refusal::invalid(
                "Decryption failed: verify that 'name' refers to the correct CryptoKey.",
            )
        };
        let key = self.find(name)?;
        let (number, rest) = ciphertext.split_first_chunk().ok_or_else(refused)?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>().ok_or_else(refused)?;
        let number = u64::from(u32::from_be_bytes(*number));
        if !key.versions.contains_key(&number) {
            return Err(refused());
        }
        let Material::Aes(cipher) = &usable(name, number, key)?.material else {
            return Err(wrong_purpose(name));
        };
        let payload = Payload { msg: sealed, aad };
        let plaintext = cipher
            .decrypt(nonce.into(), payload)
            .map_err(|_| refused())?;
        Ok((number, key.serving == Some(number), plaintext))
    }

    pub(crate) fn public_key(&self, name: &str) -> Result<String, Refusal> {
        let pem = self
            .signing_key(name)?
            .verifying_key()
            .to_public_key_pem(LineEnding::LF);
        Ok(pem.expect("an Ed25519 key has a PEM form"))
    }

    pub(crate) fn sign(&self, name: &str, data: &[u8]) -> Result<Vec<u8>, Refusal> {
        let signature = self.signing_key(name)?.sign(data);
        Ok(signature.to_bytes().to_vec())
    }

    fn signing_key(&self, name: &str) -> Result<&SigningKey, Refusal> {
        let (key_name, number) = split_version(name)?;
        let key = self.find(key_name)?;
        match &usable(key_name, number, key)?.material {
            Material::Ed25519(key) => Ok(key),
            Material::Aes(_) => Err(wrong_purpose(key_name)),
        }
    }

    fn find(&self, name: &str) -> Result<&CryptoKey, Refusal> {
        self.by_name
            .get(name)
            .ok_or_else(|| Refusal::not_found(name))
    }

    fn find_mut(&mut self, name: &str) -> Result<&mut CryptoKey, Refusal> {
        self.by_name
            .get_mut(name)
            .ok_or_else(|| Refusal::not_found(name))
    }

    fn new_version(&mut self, purpose: Purpose) -> Result<Version, Refusal> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed)
            .map_err(|_| Refusal::of_status(http::StatusCode::INTERNAL_SERVER_ERROR))?;
        let material = match purpose {
            Purpose::EncryptDecrypt => Material::Aes(Box::new(Aes256Gcm::new((&seed).into()))),
            Purpose::SignEd25519 => Material::Ed25519(Box::new(SigningKey::from_bytes(&seed))),
        };
        let state = if self.looks_until_made == 0 {
            VersionState::Enabled
        } else {
            VersionState::PendingGeneration
        };
        Ok(Version {
            state,
            looks_until_made: self.looks_until_made,
            created_at: self.now(),
            material,
        })
    }

    fn now(&mut self) -> OffsetDateTime {
        self.made += 1;
        EPOCH + Duration::seconds(i64::from(self.made))
    }
}

fn usable<'a>(name: &str, number: u64, key: &'a CryptoKey) -> Result<&'a Version, Refusal> {
    let full = version_name(name, number);
    let version = key
        .versions
        .get(&number)
        .ok_or_else(|| Refusal::not_found(&full))?;
    if version.state == VersionState::Enabled {
        return Ok(version);
    }
    Err(Refusal::precondition(format!(
        "{full} is not enabled, current state is: {}.",
        version.state.name()
    )))
}

fn wrong_purpose(name: &str) -> Refusal {
    Refusal::precondition(format!("{name} has a purpose that does not allow this."))
}

pub(crate) fn version_name(key: &str, number: u64) -> String {
    format!("{key}/cryptoKeyVersions/{number}")
}

fn split_version(name: &str) -> Result<(&str, u64), Refusal> {
    name.split_once("/cryptoKeyVersions/")
        .and_then(|(key, number)| Some((key, number.parse().ok()?)))
        .ok_or_else(|| Refusal::invalid(format!("{name} names no key version.")))
}

fn ring_json(name: &str) -> Value {
    json!({ "name": name, "createTime": timestamp(EPOCH) })
}

fn version_json(key_name: &str, number: u64, key: &CryptoKey) -> Value {
    let version = &key.versions[&number];
    json!({
        "name": version_name(key_name, number),
        "state": version.state.number(),
        "protectionLevel": SOFTWARE,
        "algorithm": key.purpose.algorithm(),
        "createTime": timestamp(version.created_at),
    })
}

fn timestamp(at: OffsetDateTime) -> String {
    at.format(&Rfc3339)
        .expect("the time is one of this century")
}
