//! Taking up what other processes changed: keys that were rotated, certificates, templates that were added.

use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use store::StoreError;
use time::OffsetDateTime;
use tokio::sync::watch;

use crate::AppState;
use crate::ca;
use crate::keys::{KeyChest, KeyChestError, POLL};
use crate::operator_templates::{self, OperatorTemplatesError};

/// Looks every [`POLL`] until `shutdown` says so.
pub(crate) async fn follow(state: AppState, mut shutdown: watch::Receiver<bool>) {
    let mut ticks = tokio::time::interval(POLL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut failing = false;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            // A sender that is gone means the same.
            _ = shutdown.wait_for(|down| *down) => return,
        }
        let followed = once(&state).await;
        match &followed {
            // Told once: it is asked again in a moment, for hours if need be.
            Err(error) if !failing => tracing::warn!(
                error = error as &dyn std::error::Error,
                "what other processes changed is not taken up"
            ),
            Ok(()) if failing => {
                tracing::info!("what other processes changed is taken up again");
            }
            _ => {}
        }
        failing = followed.is_err();
    }
}

/// Why a look around failed. What is not named was taken up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FollowError {
    /// A key of the service cannot be had.
    #[error(transparent)]
    Keys(#[from] KeyChestError),
    /// A template that was added over REST cannot be taken up.
    #[error(transparent)]
    Templates(#[from] OperatorTemplatesError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Looks once. Each part is tried, whatever became of the others.
pub(crate) async fn once(state: &AppState) -> Result<(), FollowError> {
    let (chest, now) = (&state.chest, state.clock.now());
    let (roots, tokens) = match &state.minting {
        Some(minting) => (
            minting.keys.reload(chest, now).await,
            minting.jwt.reload(chest, now).await,
        ),
        None => (
            state.verifying.reload(chest, now).await,
            state.tokens.reload(chest, now).await,
        ),
    };
    let trust = state.ca.refresh(chest, now).await;
    let templates = templates(state).await;
    let swept = match &state.minting {
        Some(_) => state.store.approvals().sweep().await,
        None => Ok(0),
    };
    swept?;
    roots?;
    tokens?;
    trust?;
    templates
}

/// Adds the templates of a list that is newer than the one taken up last.
async fn templates(state: &AppState) -> Result<(), FollowError> {
    let newest = operator_templates::newest(&state.store, state.chest.org()).await?;
    if newest == *state.templates_seen.lock() {
        return Ok(());
    }
    let mut catalog = state.catalog();
    operator_templates::load_templates(&state.chest, Arc::make_mut(&mut catalog)).await?;
    state.catalog.send_replace(catalog);
    *state.templates_seen.lock() = newest;
    Ok(())
}

/// The certificates that agents should trust, opened once each time they change.
#[derive(Debug)]
pub(crate) struct CaTrust {
    pem: RwLock<Arc<str>>,
    versions: Mutex<Vec<u64>>,
}

impl CaTrust {
    /// As they were at the start; empty where there is no injector, or where this process may not open them.
    pub(crate) fn new(pem: Arc<str>) -> Self {
        Self {
            pem: RwLock::new(pem),
            versions: Mutex::default(),
        }
    }

    pub(crate) fn pem(&self) -> Arc<str> {
        Arc::clone(&self.pem.read())
    }

    async fn refresh(&self, chest: &KeyChest, now: OffsetDateTime) -> Result<(), KeyChestError> {
        if self.pem().is_empty() {
            return Ok(());
        }
        let versions = ca::trusted_versions(chest, now).await?;
        if versions.is_empty() || versions == *self.versions.lock() {
            return Ok(());
        }
        let pem = ca::trust_pem(chest, now).await?;
        *self.pem.write() = pem.into();
        *self.versions.lock() = versions;
        Ok(())
    }
}
