//! Ed25519 keys in Cloud KMS.
//!
//! Version `n` of the signing key `name` is the key `sign-<name>-v<n>` with one version: two nodes that make it at once
//! make it once, and a number means the same key whatever was made and destroyed before.

use std::{collections::HashMap, sync::Arc};

use async_trait::async_trait;
use ed25519_dalek::{Signature, VerifyingKey, pkcs8::DecodePublicKey};
use google_cloud_kms_v1::model::{
    CryptoKey, CryptoKeyVersionTemplate, PublicKey, crypto_key::CryptoKeyPurpose,
    crypto_key_version::CryptoKeyVersionAlgorithm,
};
use parking_lot::Mutex;

use super::{
    FIRST, GcpKmsKeys, KeyError, KeySigner, MAX_KEY_ID_LEN, PROVIDER, check_sum,
    connection::Operation, crc32c, error::Fault, is_plain_name, not_verified, version_name,
    wrong_name,
};

/// The public keys that were read, by the name of the key version.
#[derive(Default)]
pub(super) struct PublicKeys(Mutex<HashMap<Arc<str>, VerifyingKey>>);

#[async_trait]
impl KeySigner for GcpKmsKeys {
    fn provider(&self) -> &'static str {
        PROVIDER
    }

    async fn create_signing_key(&self, name: &str, version: u64) -> Result<[u8; 32], KeyError> {
        let id = key_id(name, version)?;
        let resource = version_name(&self.key_ring.key(&id), FIRST);
        let template = CryptoKey::new()
            .set_purpose(CryptoKeyPurpose::AsymmetricSign)
            .set_version_template(
                CryptoKeyVersionTemplate::new()
                    .set_algorithm(CryptoKeyVersionAlgorithm::EcSignEd25519),
            );
        self.find_or_create(&id, &template).await?;
        let made = async {
            let operation = self.connection.operation();
            match self.public_key(&operation, &resource).await {
                // A new key is made in the background.
                Err(Fault::State(_)) => self.wait_until_made(&resource).await?,
                done => return done,
            }
            let operation = self.connection.operation();
            self.public_key(&operation, &resource).await
        };
        let key = made
            .await
            .map_err(|fault: Fault| fault.of_resource(&resource))?;
        Ok(key.to_bytes())
    }

    async fn sign(&self, name: &str, version: u64, message: &[u8]) -> Result<[u8; 64], KeyError> {
        let resource = version_name(&self.key_ring.key(&key_id(name, version)?), FIRST);
        let operation = self.connection.operation();
        let signed = async {
            let key = self.public_key(&operation, &resource).await?;
            self.signature(&operation, &resource, &key, message).await
        };
        signed.await.map_err(|fault: Fault| match fault {
            Fault::NotFound => KeyError::UnknownSigningKey {
                provider: PROVIDER,
                name: name.to_owned(),
                version,
            },
            fault => fault.of_resource(&resource),
        })
    }
}

impl GcpKmsKeys {
    async fn public_key(
        &self,
        operation: &Operation,
        resource: &str,
    ) -> Result<VerifyingKey, Fault> {
        if let Some(key) = self.public_keys.0.lock().get(resource) {
            return Ok(*key);
        }
        let key = operation
            .call(|kms| async move {
                let request = kms.get_public_key().set_name(resource);
                read_public_key(resource, &request.send().await?)
            })
            .await?;
        self.public_keys.0.lock().insert(resource.into(), key);
        Ok(key)
    }

    /// Signs, and verifies the signature: one that does not hold is never given out.
    async fn signature(
        &self,
        operation: &Operation,
        resource: &str,
        key: &VerifyingKey,
        message: &[u8],
    ) -> Result<[u8; 64], Fault> {
        let data = &bytes::Bytes::copy_from_slice(message);
        operation
            .call(|kms| async move {
                let request = kms
                    .asymmetric_sign()
                    .set_name(resource)
                    .set_data(data.clone())
                    .set_data_crc32c(crc32c(data));
                let answer = request.send().await?;
                if answer.name != resource {
                    return Err(wrong_name());
                }
                if !answer.verified_data_crc32c {
                    return Err(not_verified());
                }
                check_sum("signature", &answer.signature, answer.signature_crc32c)?;
                let bad = || Fault::Passing("its signature does not hold".to_owned());
                let signature = Signature::from_slice(&answer.signature).map_err(|_| bad())?;
                key.verify_strict(data, &signature).map_err(|_| bad())?;
                Ok(signature.to_bytes())
            })
            .await
    }
}

fn read_public_key(resource: &str, answer: &PublicKey) -> Result<VerifyingKey, Fault> {
    if answer.name != resource {
        return Err(wrong_name());
    }
    check_sum("public key", answer.pem.as_bytes(), answer.pem_crc32c)?;
    if answer.algorithm != CryptoKeyVersionAlgorithm::EcSignEd25519 {
        return Err(Fault::Invalid(
            "its algorithm is not EC_SIGN_ED25519; use a key ring of Claviger's own".to_owned(),
        ));
    }
    VerifyingKey::from_public_key_pem(&answer.pem)
        .map_err(|_| Fault::Passing("its public key cannot be read".to_owned()))
}

/// The id of a signing key's version in Cloud KMS.
fn key_id(name: &str, version: u64) -> Result<String, KeyError> {
    let id = format!("sign-{name}-v{version}");
    if is_plain_name(name) && id.len() <= MAX_KEY_ID_LEN {
        Ok(id)
    } else {
        Err(KeyError::BadName {
            name: name.to_owned(),
        })
    }
}
