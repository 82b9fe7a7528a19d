//! KEKs in a PKCS#11 token: a hardware security module, or `SoftHSM`.

mod error;
mod options;

use std::sync::Arc;

use async_trait::async_trait;

pub use self::{
    error::Pkcs11Error,
    options::{PinSource, Pkcs11Options, TokenRef},
};
use super::{Dek, KekId, KekInfo, KeyError, KeySigner, KeyWrapper};

/// The provider's name, and the start of its KEK ids.
pub const PROVIDER: &str = "pkcs11";

/// The PKCS#11 key provider: one token.
#[derive(Debug)]
pub struct Pkcs11Keys {
    _private: (),
}

impl Pkcs11Keys {
    /// Loads the module, logs in to the token and checks the keys in it.
    ///
    /// # Errors
    /// [`KeyError::Pkcs11`] for what an operator must put right, [`KeyError::Unavailable`] if the token does not answer.
    #[expect(clippy::unused_async, reason = "the signature comes before the body")]
    pub async fn open(_options: Pkcs11Options) -> Result<Arc<Self>, KeyError> {
        Err(unavailable())
    }

    /// The signer of this token, if the token can sign by Ed25519.
    pub fn signer(self: &Arc<Self>) -> Option<Arc<dyn KeySigner>> {
        None
    }
}

fn unavailable() -> KeyError {
    KeyError::Unavailable {
        provider: PROVIDER,
        reason: "not yet".to_owned(),
    }
}

#[async_trait]
impl KeyWrapper for Pkcs11Keys {
    fn provider(&self) -> &'static str {
        PROVIDER
    }

    async fn create_kek(&self, _vault: &str) -> Result<KekId, KeyError> {
        Err(unavailable())
    }

    async fn wrap(&self, _kek: &KekId, _dek: &Dek, _aad: &[u8]) -> Result<Vec<u8>, KeyError> {
        Err(unavailable())
    }

    async fn unwrap(&self, _kek: &KekId, _wrapped: &[u8], _aad: &[u8]) -> Result<Dek, KeyError> {
        Err(unavailable())
    }

    async fn rotate_kek(&self, _kek: &KekId) -> Result<u64, KeyError> {
        Err(unavailable())
    }

    async fn describe(&self, _kek: &KekId) -> Result<KekInfo, KeyError> {
        Err(unavailable())
    }

    fn wrapped_version(&self, _wrapped: &[u8]) -> Option<u64> {
        None
    }

    async fn check(&self) -> Result<(), KeyError> {
        Err(unavailable())
    }
}
