//! The authority that signs leaves, as it is and as it is rotated.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use control_plane::{CaKey, KeyChest};
use leases::clock::Clock;
use proxy::tls::ca::Authority;
use tokio::sync::watch;

/// How often it is looked for another. A new one is trusted for a day before it signs, so this may be slow.
const LOOK: Duration = Duration::from_mins(1);

/// What signs now.
#[derive(Debug)]
pub(super) struct Signing {
    version: u64,
    authority: watch::Sender<Arc<Authority>>,
}

impl Signing {
    pub(super) fn new(ca: &CaKey) -> anyhow::Result<Self> {
        Ok(Self {
            version: ca.version,
            authority: watch::Sender::new(Arc::new(load(ca)?)),
        })
    }

    /// For the injector.
    pub(super) fn subscribe(&self) -> watch::Receiver<Arc<Authority>> {
        self.authority.subscribe()
    }

    /// Takes up each next authority when its time to sign has come, for as long as it is polled.
    pub(super) async fn follow(mut self, chest: KeyChest, clock: Arc<dyn Clock>) -> Infallible {
        loop {
            tokio::time::sleep(LOOK).await;
            if let Err(error) = self.look(&chest, clock.as_ref()).await {
                tracing::warn!(
                    error = error.as_ref() as &dyn std::error::Error,
                    "the CA cannot be looked at; leaves are signed by the one before"
                );
            }
        }
    }

    async fn look(&mut self, chest: &KeyChest, clock: &dyn Clock) -> anyhow::Result<()> {
        if let Some(ca) = CaKey::other_than(self.version, chest, clock.now()).await? {
            self.authority.send_replace(Arc::new(load(&ca)?));
            self.version = ca.version;
            tracing::info!(key.version = ca.version, "leaves are signed by another CA");
        }
        Ok(())
    }
}

fn load(ca: &CaKey) -> anyhow::Result<Authority> {
    Authority::load(&ca.certificate_pem, &ca.key).context("the CA cannot be loaded")
}
