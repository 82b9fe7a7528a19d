//! One at a time over all nodes: for what must not be made twice by processes that start together.

use std::time::Duration;

use leases::id::OrgId;
use store::{Idempotency, Store, StoreError};

/// The turn of one process at a task; [`Turn::end`] gives it back.
///
/// A process that dies in the middle loses its turn after 60 s.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    store: &'a Store,
    org: &'a OrgId,
    task: &'static str,
}

impl<'a> Turn<'a> {
    /// Waits for the turn at `task`.
    pub(crate) async fn wait(
        store: &'a Store,
        org: &'a OrgId,
        task: &'static str,
    ) -> Result<Self, StoreError> {
        loop {
            let claim = store
                .idempotency()
                .begin(org, HOLDER, task, &[0; 32])
                .await?;
            if claim == Idempotency::Fresh {
                return Ok(Self { store, org, task });
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Lets the next one have it.
    pub(crate) async fn end(self) -> Result<(), StoreError> {
        let claims = self.store.idempotency();
        claims.abandon(self.org, HOLDER, self.task).await
    }
}

/// No principal's id: those begin with their kind.
const HOLDER: &str = "claviger";
const PAUSE: Duration = Duration::from_millis(100);
