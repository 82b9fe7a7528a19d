//! Several key providers as one: while an installation moves from one to another, and to read what the other still seals.

use std::sync::Arc;

use async_trait::async_trait;

use super::{Dek, KekId, KekInfo, KeyError, KeyWrapper};

/// Several key providers behind one [`KeyWrapper`].
///
/// A KEK goes to the provider whose name starts its id. New KEKs are made by the primary.
#[derive(Debug, Clone)]
pub struct Providers {
    // The primary is the first.
    all: Arc<[Arc<dyn KeyWrapper>]>,
}

impl Providers {
    /// These providers. Of two with one name the first is asked.
    pub fn new(primary: Arc<dyn KeyWrapper>, others: Vec<Arc<dyn KeyWrapper>>) -> Self {
        Self {
            all: std::iter::once(primary).chain(others).collect(),
        }
    }

    /// The provider that makes new KEKs.
    pub fn primary(&self) -> &Arc<dyn KeyWrapper> {
        &self.all[0]
    }

    /// The provider that a KEK belongs to.
    fn of(&self, kek: &KekId) -> Result<&dyn KeyWrapper, KeyError> {
        let found = self.all.iter().find(|provider| {
            let rest = kek.as_str().strip_prefix(provider.provider());
            rest.is_some_and(|rest| rest.starts_with(':'))
        });
        found
            .map(|provider| &**provider)
            .ok_or_else(|| KeyError::UnknownKek { kek: kek.clone() })
    }
}

#[async_trait]
impl KeyWrapper for Providers {
    /// The primary's name.
    fn provider(&self) -> &'static str {
        self.primary().provider()
    }

    async fn create_kek(&self, vault: &str) -> Result<KekId, KeyError> {
        self.primary().create_kek(vault).await
    }

    async fn wrap(&self, kek: &KekId, dek: &Dek, aad: &[u8]) -> Result<Vec<u8>, KeyError> {
        self.of(kek)?.wrap(kek, dek, aad).await
    }

    async fn unwrap(&self, kek: &KekId, wrapped: &[u8], aad: &[u8]) -> Result<Dek, KeyError> {
        self.of(kek)?.unwrap(kek, wrapped, aad).await
    }

    async fn rotate_kek(&self, kek: &KekId) -> Result<u64, KeyError> {
        self.of(kek)?.rotate_kek(kek).await
    }

    async fn describe(&self, kek: &KekId) -> Result<KekInfo, KeyError> {
        self.of(kek)?.describe(kek).await
    }

    async fn current_version(&self, kek: &KekId) -> Result<u64, KeyError> {
        self.of(kek)?.current_version(kek).await
    }

    fn wrapped_version(&self, wrapped: &[u8]) -> Option<u64> {
        self.all
            .iter()
            .find_map(|provider| provider.wrapped_version(wrapped))
    }

    /// Whether every one of them could answer.
    async fn check(&self) -> Result<(), KeyError> {
        for provider in &*self.all {
            provider.check().await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
