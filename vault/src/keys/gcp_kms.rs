//! KEKs in Google Cloud KMS, which never leave it.
//!
//! An installation has one key ring, and in it a symmetric key `kek-<vault>` for each vault, whose versions are the KEK's
//! versions. A wrapped DEK has the form that `wrapped.rs` describes. Every answer is checked before it is used: checksums
//! of what was sent and of what came, the name of the key version, and whether it answers this question and no other.
//!
//! A wrap names the key version it wants, so that the version in the wrapped DEK's header, which is authenticated, is the
//! one that wraps. Which one that is, this process asks Cloud KMS every few seconds by naming the key alone. After a
//! rotation the newer of the two counts: encryption by the key alone may use the old primary version for hours.
//!
//! Spec: <https://cloud.google.com/kms/docs/reference/rest>, its data integrity guidelines, its page on consistency.

mod connection;
mod error;
mod options;
mod sign;
mod versions;
mod wrapped;

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use google_cloud_kms_v1::model::{
    CryptoKey, CryptoKeyVersion, CryptoKeyVersionTemplate, EncryptResponse, KeyRing as KmsKeyRing,
    crypto_key::CryptoKeyPurpose,
    crypto_key_version::{CryptoKeyVersionAlgorithm, CryptoKeyVersionState},
};
use time::OffsetDateTime;
use tokio::time::{Instant, sleep};

use self::{
    connection::{Connection, Operation},
    error::Fault,
    options::{KeyRing, check_endpoint},
    sign::PublicKeys,
    versions::Versions,
    wrapped::{Remembered, Wrapped, crc32c, kms_aad, plaintext, read_plaintext},
};
pub use self::{
    error::GcpKmsError,
    options::{Credentials, GcpKmsOptions},
};
use super::{
    Dek, KekId, KekInfo, KekState, KekVersion, KeyError, KeySigner, KeyWrapper, is_plain_name,
};
use crate::envelope::MAX_WRAPPED_LEN;

/// The provider's name, and the start of its KEK ids.
pub const PROVIDER: &str = "gcp-kms";

/// The longest id of a key in Cloud KMS.
const MAX_KEY_ID_LEN: usize = 63;
const KEK_PREFIX: &str = "kek-";
const MECHANISM: &str = "GOOGLE_SYMMETRIC_ENCRYPTION";
/// The version that a new key has.
const FIRST: u32 = 1;
/// How long Cloud KMS may take to make a version, beyond the answers' own time, and how often it is asked.
const MAKING_LIMIT: Duration = Duration::from_secs(10);
const MAKING_STEP: Duration = Duration::from_millis(100);

/// The Cloud KMS key provider: one key ring.
pub struct GcpKmsKeys {
    key_ring: KeyRing,
    endpoint: Option<String>,
    credentials: Credentials,
    connection: Arc<Connection>,
    versions: Versions,
    remembered: Remembered,
    public_keys: PublicKeys,
}

impl GcpKmsKeys {
    /// Checks the options, and reads the credentials file if one is named. Nothing is asked of the network before the
    /// first operation, so that a server starts while Cloud KMS is away.
    ///
    /// If the process has no default provider of cryptography for rustls by the first operation, ring becomes it.
    ///
    /// # Errors
    /// [`KeyError::GcpKms`] for what an operator must put right.
    pub async fn open(options: GcpKmsOptions) -> Result<Arc<Self>, KeyError> {
        let GcpKmsOptions {
            key_ring,
            endpoint,
            credentials,
            deadline,
        } = options;
        check_endpoint(endpoint.as_deref(), &credentials)?;
        let connection = Connection::new(endpoint.clone(), credentials.clone(), deadline).await?;
        Ok(Arc::new(Self {
            key_ring: KeyRing::parse(&key_ring)?,
            endpoint,
            credentials,
            connection,
            versions: Versions::default(),
            remembered: Remembered::default(),
            public_keys: PublicKeys::default(),
        }))
    }

    /// The signer of this key ring: Cloud KMS signs by Ed25519.
    pub fn signer(self: &Arc<Self>) -> Option<Arc<dyn KeySigner>> {
        Some(Arc::clone(self) as Arc<dyn KeySigner>)
    }

    /// The key of a KEK in Cloud KMS.
    fn key_of(&self, kek: &KekId) -> Result<String, KeyError> {
        kek.as_str()
            .strip_prefix(PROVIDER)
            .and_then(|rest| rest.strip_prefix(':'))
            .and_then(kek_key_id)
            .map(|id| self.key_ring.key(&id))
            .ok_or_else(|| KeyError::UnknownKek { kek: kek.clone() })
    }

    /// Finds a key, or makes it, and the key ring where that is missing too. `None` if the key is there and may not be
    /// looked at.
    async fn find_or_create(
        &self,
        id: &str,
        template: &CryptoKey,
    ) -> Result<Option<CryptoKey>, KeyError> {
        let name = self.key_ring.key(id);
        let refused = |fault: Fault| fault.of_resource(&name);
        match self.get_key(&name).await {
            Ok(key) => return Ok(Some(key)),
            // Without the right to look, `PERMISSION_DENIED` may mean that there is none.
            Err(Fault::NotFound | Fault::Denied(_)) => {}
            Err(fault) => return Err(refused(fault)),
        }
        let mut made = self.create_key(id, template).await;
        if made == Err(Fault::NotFound) {
            self.create_key_ring().await?;
            made = self.create_key(id, template).await;
        }
        match made {
            Ok(key) => {
                tracing::info!(kms.key = name, "created key {name}");
                Ok(Some(key))
            }
            Err(Fault::Exists) => match self.get_key(&name).await {
                Ok(key) => Ok(Some(key)),
                Err(Fault::Denied(_)) => Ok(None),
                Err(fault) => Err(refused(fault)),
            },
            Err(fault) => Err(refused(fault)),
        }
    }

    async fn get_key(&self, name: &str) -> Result<CryptoKey, Fault> {
        let operation = self.connection.operation();
        operation
            .call(|kms| async move { Ok(kms.get_crypto_key().set_name(name).send().await?) })
            .await
    }

    async fn create_key(&self, id: &str, template: &CryptoKey) -> Result<CryptoKey, Fault> {
        let operation = self.connection.operation();
        operation
            .call(|kms| async move {
                let request = kms
                    .create_crypto_key()
                    .set_parent(self.key_ring.as_str())
                    .set_crypto_key_id(id)
                    .set_crypto_key(template.clone());
                Ok(request.send().await?)
            })
            .await
    }

    async fn create_key_ring(&self) -> Result<(), KeyError> {
        let operation = self.connection.operation();
        let made = operation
            .call(|kms| async move {
                let request = kms
                    .create_key_ring()
                    .set_parent(self.key_ring.location())
                    .set_key_ring_id(self.key_ring.id())
                    .set_key_ring(KmsKeyRing::new());
                Ok(request.send().await?)
            })
            .await;
        match made {
            Ok(_) => {
                let name = self.key_ring.as_str();
                tracing::info!(kms.key_ring = name, "created key ring {name}");
                Ok(())
            }
            Err(Fault::Exists) => Ok(()),
            Err(Fault::Denied(_)) => Err(self.key_ring_missing()),
            Err(fault) => Err(fault.of_resource(self.key_ring.as_str())),
        }
    }

    fn key_ring_missing(&self) -> KeyError {
        let key_ring = self.key_ring.as_str().to_owned();
        GcpKmsError::KeyRingMissing { key_ring }.into()
    }

    /// Waits while this version is being made.
    async fn wait_until_made(&self, name: &str) -> Result<(), Fault> {
        let limit = Instant::now() + MAKING_LIMIT;
        loop {
            let version = self
                .connection
                .operation()
                .call(|kms| async move {
                    let request = kms.get_crypto_key_version().set_name(name);
                    Ok(request.send().await?)
                })
                .await?;
            if version.state != CryptoKeyVersionState::PendingGeneration {
                return Ok(());
            }
            if Instant::now() > limit {
                return Err(Fault::Passing(format!("{name} is still being made")));
            }
            sleep(MAKING_STEP).await;
        }
    }

    /// Encrypts under the version that is asked for or, without one, under the one that Cloud KMS takes for primary. The
    /// AAD says `version` in both cases.
    async fn encrypt(
        &self,
        operation: &Operation,
        asked: Asked<'_>,
        dek: &Dek,
        aad: &[u8],
    ) -> Result<Encrypted, Fault> {
        let aad = &kms_aad(asked.version, aad);
        let plaintext = &plaintext(dek, aad);
        let name = &asked.resource();
        operation
            .call(|kms| async move {
                let request = kms
                    .encrypt()
                    .set_name(name)
                    .set_plaintext(plaintext.clone())
                    .set_plaintext_crc32c(crc32c(plaintext))
                    .set_additional_authenticated_data(aad.clone())
                    .set_additional_authenticated_data_crc32c(crc32c(aad));
                let answer = request.send().await?;
                let encrypted = checked(asked, answer)?;
                if self.remembered.is_new(&encrypted.ciphertext) {
                    Ok(encrypted)
                } else {
                    Err(Fault::Passing("it gave an old answer again".to_owned()))
                }
            })
            .await
    }

    async fn wrap_under_current(
        &self,
        key: &str,
        dek: &Dek,
        aad: &[u8],
    ) -> Result<Encrypted, Fault> {
        let operation = &self.connection.operation();
        let exactly = |version| Asked {
            key,
            version,
            by_number: true,
        };
        if let Some(version) = self.versions.fresh(key) {
            match self.encrypt(operation, exactly(version), dek, aad).await {
                // It was disabled or destroyed since; there may be another one.
                Err(Fault::State(_) | Fault::NotFound) => self.versions.forget(key),
                done => return done,
            }
        }
        let last = self.versions.last(key).unwrap_or(FIRST);
        let primary = Asked {
            key,
            version: last,
            by_number: false,
        };
        let answered = self.encrypt(operation, primary, dek, aad).await?;
        let newest = self.versions.last(key).unwrap_or(0).max(answered.version);
        self.versions.learn(key, newest);
        if newest == answered.version && newest == last {
            return Ok(answered);
        }
        match self.encrypt(operation, exactly(newest), dek, aad).await {
            Err(Fault::State(_) | Fault::NotFound) if newest != answered.version => {
                self.versions.learn(key, answered.version);
                let primary = exactly(answered.version);
                self.encrypt(operation, primary, dek, aad).await
            }
            done => done,
        }
    }

    async fn decrypt(&self, key: &str, wrapped: Wrapped<'_>, aad: &[u8]) -> Result<Dek, Fault> {
        let aad = &kms_aad(wrapped.version, aad);
        let ciphertext = &bytes::Bytes::copy_from_slice(wrapped.ciphertext);
        let operation = self.connection.operation();
        operation
            .call(|kms| async move {
                let request = kms
                    .decrypt()
                    .set_name(key)
                    .set_ciphertext(ciphertext.clone())
                    .set_ciphertext_crc32c(crc32c(ciphertext))
                    .set_additional_authenticated_data(aad.clone())
                    .set_additional_authenticated_data_crc32c(crc32c(aad));
                let answer = request.send().await?;
                check_sum("plaintext", &answer.plaintext, answer.plaintext_crc32c)?;
                let used_primary = answer.used_primary;
                let dek = read_plaintext(answer.plaintext, aad)
                    .ok_or_else(|| Fault::Passing("its answer is to another question".into()))?;
                Ok((dek, used_primary))
            })
            .await
            .map(|(dek, used_primary)| {
                // Somebody else rotated the key, and its newer version has become the primary one.
                let known = self.versions.last(key).unwrap_or(0);
                if used_primary && wrapped.version > known {
                    self.versions.learn(key, wrapped.version);
                }
                dek
            })
    }

    async fn primary_version(&self, kek: &KekId, key: &str) -> Result<u32, KeyError> {
        let found = self.get_key(key).await;
        let found = found.map_err(|fault| fault.of_kek(kek, key))?;
        check_purpose(kek, &found)?;
        let primary = primary_of(key, &found);
        match primary {
            Some(version) => self.versions.learn(key, version),
            None => self.versions.forget(key),
        }
        Ok(primary.unwrap_or(0))
    }

    async fn list_versions(&self, key: &str) -> Result<Vec<KekVersion>, Fault> {
        let mut versions = Vec::new();
        let mut token = String::new();
        loop {
            let page_token = &token;
            let page = self
                .connection
                .operation()
                .call(|kms| async move {
                    let request = kms
                        .list_crypto_key_versions()
                        .set_parent(key)
                        .set_page_size(1000)
                        .set_page_token(page_token);
                    Ok(request.send().await?)
                })
                .await?;
            let numbered = page.crypto_key_versions.iter();
            versions.extend(numbered.filter_map(|version| kek_version(key, version)));
            if page.next_page_token.is_empty() || page.next_page_token == token {
                break;
            }
            token = page.next_page_token;
        }
        versions.sort_by_key(|version| version.number);
        Ok(versions)
    }

    async fn create_version(&self, key: &str) -> Result<u32, Fault> {
        let operation = self.connection.operation();
        // Not tried again: the answer may be lost after the version was made.
        let version = operation
            .call_once(|kms| async move {
                let request = kms
                    .create_crypto_key_version()
                    .set_parent(key)
                    .set_crypto_key_version(CryptoKeyVersion::new());
                Ok(request.send().await?)
            })
            .await?;
        let number = version_of(key, &version.name)?;
        if version.state == CryptoKeyVersionState::PendingGeneration {
            self.wait_until_made(&version.name).await?;
        }
        Ok(number)
    }

    async fn set_primary(&self, key: &str, version: u32) -> Result<(), Fault> {
        let operation = self.connection.operation();
        let answer = operation
            .call(|kms| async move {
                let request = kms
                    .update_crypto_key_primary_version()
                    .set_name(key)
                    .set_crypto_key_version_id(version.to_string());
                Ok(request.send().await?)
            })
            .await?;
        if primary_of(key, &answer) == Some(version) {
            Ok(())
        } else {
            Err(Fault::Passing(
                "its answer names another primary version".to_owned(),
            ))
        }
    }
}

impl fmt::Debug for GcpKmsKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GcpKmsKeys")
            .field("key_ring", &self.key_ring)
            .field("endpoint", &self.endpoint)
            .field("credentials", &self.credentials)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl KeyWrapper for GcpKmsKeys {
    fn provider(&self) -> &'static str {
        PROVIDER
    }

    async fn create_kek(&self, vault: &str) -> Result<KekId, KeyError> {
        let bad = || KeyError::BadName {
            name: vault.to_owned(),
        };
        let id = kek_key_id(vault).ok_or_else(bad)?;
        let kek = KekId::parse(&format!("{PROVIDER}:{vault}")).map_err(|_| bad())?;
        let template = CryptoKey::new()
            .set_purpose(CryptoKeyPurpose::EncryptDecrypt)
            .set_version_template(
                CryptoKeyVersionTemplate::new()
                    .set_algorithm(CryptoKeyVersionAlgorithm::GoogleSymmetricEncryption),
            );
        if let Some(key) = self.find_or_create(&id, &template).await? {
            check_purpose(&kek, &key)?;
            let pending = CryptoKeyVersionState::PendingGeneration;
            if let Some(primary) = key.primary.filter(|primary| primary.state == pending) {
                let made = self.wait_until_made(&primary.name).await;
                made.map_err(|fault| fault.of_kek(&kek, &key.name))?;
            }
        }
        Ok(kek)
    }

    async fn wrap(&self, kek: &KekId, dek: &Dek, aad: &[u8]) -> Result<Vec<u8>, KeyError> {
        let key = self.key_of(kek)?;
        match self.wrap_under_current(&key, dek, aad).await {
            Ok(encrypted) => Ok(encrypted.to_wrapped()),
            Err(fault) => Err(fault.of_kek(kek, &key)),
        }
    }

    async fn unwrap(&self, kek: &KekId, wrapped: &[u8], aad: &[u8]) -> Result<Dek, KeyError> {
        let tampered = || KeyError::Tampered { kek: kek.clone() };
        let key = self.key_of(kek)?;
        let wrapped = Wrapped::parse(wrapped).ok_or_else(tampered)?;
        match self.decrypt(&key, wrapped, aad).await {
            Ok(dek) => Ok(dek),
            Err(Fault::Invalid(_)) => Err(tampered()),
            Err(fault) => Err(fault.of_kek(kek, &key)),
        }
    }

    async fn rotate_kek(&self, kek: &KekId) -> Result<u64, KeyError> {
        let key = self.key_of(kek)?;
        let rotated = async {
            let version = self.create_version(&key).await?;
            self.set_primary(&key, version).await?;
            Ok(version)
        };
        let version = rotated
            .await
            .map_err(|fault: Fault| fault.of_kek(kek, &key))?;
        self.versions.learn(&key, version);
        tracing::info!(kek.id = %kek, kek.version = version, "made version {version} of {kek}");
        Ok(u64::from(version))
    }

    /// `current` is 0 where the key has no primary version.
    async fn describe(&self, kek: &KekId) -> Result<KekInfo, KeyError> {
        let key = self.key_of(kek)?;
        let current = self.primary_version(kek, &key).await?;
        let versions = self.list_versions(&key).await;
        Ok(KekInfo {
            kek: kek.clone(),
            current: u64::from(current),
            versions: versions.map_err(|fault| fault.of_kek(kek, &key))?,
        })
    }

    async fn current_version(&self, kek: &KekId) -> Result<u64, KeyError> {
        let key = self.key_of(kek)?;
        let current = match self.versions.fresh(&key) {
            Some(version) => version,
            None => self.primary_version(kek, &key).await?,
        };
        Ok(u64::from(current))
    }

    fn wrapped_version(&self, wrapped: &[u8]) -> Option<u64> {
        Wrapped::parse(wrapped).map(|wrapped| u64::from(wrapped.version))
    }

    /// Asks for the key ring. Credentials that may not look at it are as good: it shows that Cloud KMS answers them.
    async fn check(&self) -> Result<(), KeyError> {
        let name = self.key_ring.as_str();
        let operation = self.connection.operation();
        let found = operation
            .call(|kms| async move { Ok(kms.get_key_ring().set_name(name).send().await?) })
            .await;
        match found {
            Ok(_) | Err(Fault::Denied(_)) => Ok(()),
            Err(Fault::NotFound) => Err(self.key_ring_missing()),
            Err(fault) => Err(fault.of_resource(name)),
        }
    }
}

/// Which version an encryption asks for.
#[derive(Clone, Copy)]
struct Asked<'a> {
    key: &'a str,
    /// The version that the AAD names.
    version: u32,
    /// Whether the request names it too, or leaves the choice to Cloud KMS.
    by_number: bool,
}

impl Asked<'_> {
    fn resource(&self) -> String {
        if self.by_number {
            version_name(self.key, self.version)
        } else {
            self.key.to_owned()
        }
    }
}

/// A DEK under one version of a key.
struct Encrypted {
    version: u32,
    ciphertext: bytes::Bytes,
}

impl Encrypted {
    fn to_wrapped(&self) -> Vec<u8> {
        let wrapped = Wrapped {
            version: self.version,
            ciphertext: &self.ciphertext,
        };
        wrapped.to_bytes()
    }
}

/// The checks of an answer to an encryption.
fn checked(asked: Asked<'_>, answer: EncryptResponse) -> Result<Encrypted, Fault> {
    let verified =
        answer.verified_plaintext_crc32c && answer.verified_additional_authenticated_data_crc32c;
    if !verified {
        return Err(not_verified());
    }
    check_sum("ciphertext", &answer.ciphertext, answer.ciphertext_crc32c)?;
    let version = version_of(asked.key, &answer.name)?;
    if asked.by_number && version != asked.version {
        return Err(wrong_name());
    }
    let fits = (1..MAX_WRAPPED_LEN - 5).contains(&answer.ciphertext.len());
    if !fits {
        return Err(Fault::Passing("its ciphertext has no such length".into()));
    }
    Ok(Encrypted {
        version,
        ciphertext: answer.ciphertext,
    })
}

fn not_verified() -> Fault {
    Fault::Passing("it did not verify the request's checksums".to_owned())
}

fn wrong_name() -> Fault {
    Fault::Passing("its answer names another key version than the one asked for".to_owned())
}

/// Compares an answer's bytes with their checksum, which has to be there.
fn check_sum(what: &str, bytes: &[u8], sum: Option<i64>) -> Result<(), Fault> {
    if sum == Some(crc32c(bytes)) {
        Ok(())
    } else {
        Err(Fault::Passing(format!(
            "the {what} in its answer does not match its checksum"
        )))
    }
}

/// The number of a version of this key, from its name.
fn version_of(key: &str, name: &str) -> Result<u32, Fault> {
    name.strip_prefix(key)
        .and_then(|rest| rest.strip_prefix("/cryptoKeyVersions/"))
        .filter(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|number| number.parse().ok())
        .filter(|number| *number > 0)
        .ok_or_else(wrong_name)
}

fn version_name(key: &str, version: u32) -> String {
    format!("{key}/cryptoKeyVersions/{version}")
}

fn primary_of(key: &str, found: &CryptoKey) -> Option<u32> {
    version_of(key, &found.primary.as_ref()?.name).ok()
}

/// The id of a vault's key in Cloud KMS.
fn kek_key_id(vault: &str) -> Option<String> {
    let id = format!("{KEK_PREFIX}{vault}");
    (is_plain_name(vault) && id.len() <= MAX_KEY_ID_LEN).then_some(id)
}

fn check_purpose(kek: &KekId, key: &CryptoKey) -> Result<(), KeyError> {
    let fits = key.purpose == CryptoKeyPurpose::EncryptDecrypt;
    if fits {
        return Ok(());
    }
    Err(KeyError::Denied {
        provider: PROVIDER,
        kek: kek.clone(),
        reason: format!(
            "{} is not a key of purpose ENCRYPT_DECRYPT; use a key ring of Claviger's own",
            key.name
        ),
    })
}

fn kek_version(key: &str, version: &CryptoKeyVersion) -> Option<KekVersion> {
    let number = version_of(key, &version.name).ok()?;
    let created_at = version.create_time.as_ref();
    Some(KekVersion {
        number: u64::from(number),
        created_at: created_at
            .and_then(|at| OffsetDateTime::from_unix_timestamp(at.seconds()).ok()),
        state: state_of(&version.state),
        mechanism: MECHANISM,
    })
}

fn state_of(state: &CryptoKeyVersionState) -> KekState {
    match state {
        CryptoKeyVersionState::Enabled => KekState::Enabled,
        CryptoKeyVersionState::Destroyed
        | CryptoKeyVersionState::GenerationFailed
        | CryptoKeyVersionState::ImportFailed
        | CryptoKeyVersionState::PendingExternalDestruction
        | CryptoKeyVersionState::ExternalDestructionFailed => KekState::Destroyed,
        // Being made, disabled, or to be destroyed later: none of it is for good.
        _ => KekState::Disabled,
    }
}

#[cfg(test)]
mod tests;
