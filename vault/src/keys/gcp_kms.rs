//! KEKs in Google Cloud KMS.

mod error;
mod options;

use std::sync::Arc;

use async_trait::async_trait;

use self::options::{KeyRing, check_endpoint};
pub use self::{
    error::GcpKmsError,
    options::{Credentials, GcpKmsOptions},
};
use super::{Dek, KekId, KekInfo, KeyError, KeySigner, KeyWrapper};

/// The provider's name, and the start of its KEK ids.
pub const PROVIDER: &str = "gcp-kms";

/// The Cloud KMS key provider: one key ring.
#[derive(Debug)]
pub struct GcpKmsKeys {
    key_ring: KeyRing,
}

impl GcpKmsKeys {
    /// Checks the options. Nothing is asked of Cloud KMS before the first operation.
    ///
    /// # Errors
    /// [`KeyError::GcpKms`] for what an operator must put right.
    #[expect(clippy::unused_async, reason = "the signature comes before the body")]
    pub async fn open(options: GcpKmsOptions) -> Result<Arc<Self>, KeyError> {
        check_endpoint(options.endpoint.as_deref(), &options.credentials)?;
        let key_ring = KeyRing::parse(&options.key_ring)?;
        Ok(Arc::new(Self { key_ring }))
    }

    /// The signer of this key ring: Cloud KMS signs by Ed25519.
    pub fn signer(self: &Arc<Self>) -> Option<Arc<dyn KeySigner>> {
        None
    }
}

fn not_yet() -> KeyError {
    error::unavailable("not yet".to_owned())
}

#[async_trait]
impl KeyWrapper for GcpKmsKeys {
    fn provider(&self) -> &'static str {
        PROVIDER
    }

    async fn create_kek(&self, _vault: &str) -> Result<KekId, KeyError> {
        Err(not_yet())
    }

    async fn wrap(&self, _kek: &KekId, _dek: &Dek, _aad: &[u8]) -> Result<Vec<u8>, KeyError> {
        Err(not_yet())
    }

    async fn unwrap(&self, _kek: &KekId, _wrapped: &[u8], _aad: &[u8]) -> Result<Dek, KeyError> {
        Err(not_yet())
    }

    async fn rotate_kek(&self, _kek: &KekId) -> Result<u64, KeyError> {
        Err(not_yet())
    }

    async fn describe(&self, _kek: &KekId) -> Result<KekInfo, KeyError> {
        Err(not_yet())
    }

    fn wrapped_version(&self, _wrapped: &[u8]) -> Option<u64> {
        None
    }

    async fn check(&self) -> Result<(), KeyError> {
        Err(not_yet())
    }
}
