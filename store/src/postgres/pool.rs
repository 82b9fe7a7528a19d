//! A few connections, lent one at a time.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_postgres::Client;

use crate::db::{DatabaseError, StoreError};
use crate::location::PostgresUrl;

/// Connections of the cold path; the ledger has its own.
const CONNECTIONS: usize = 8;
/// How long to wait for one that others have.
const TURN: Duration = Duration::from_secs(5);

/// Connections to one database, opened when first needed and again after they broke.
#[derive(Debug, Clone)]
pub(crate) struct Pool {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    url: PostgresUrl,
    permits: Arc<Semaphore>,
    idle: Mutex<Vec<Client>>,
}

/// A connection on loan; it goes back when dropped.
#[derive(Debug)]
pub(crate) struct Pooled {
    client: Option<Client>,
    /// Whether a transaction may be open.
    is_in_transaction: bool,
    shared: Arc<Shared>,
    _permit: OwnedSemaphorePermit,
}

impl Pool {
    pub(crate) fn new(url: PostgresUrl) -> Self {
        Self {
            shared: Arc::new(Shared {
                url,
                permits: Arc::new(Semaphore::new(CONNECTIONS)),
                idle: Mutex::default(),
            }),
        }
    }

    /// Waits for a connection, and opens one if none is idle.
    pub(crate) async fn get(&self) -> Result<Pooled, StoreError> {
        let permits = Arc::clone(&self.shared.permits);
        let permit = tokio::time::timeout(TURN, permits.acquire_owned())
            .await
            .map_err(|_| DatabaseError::Late(TURN))?
            .map_err(|_| StoreError::Closed)?;
        let client = match self.shared.take_idle() {
            Some(client) => client,
            None => super::connect(&self.shared.url).await?,
        };
        Ok(Pooled {
            client: Some(client),
            is_in_transaction: false,
            shared: Arc::clone(&self.shared),
            _permit: permit,
        })
    }

    /// Ends every connection; those on loan end when they come back.
    pub(crate) fn close(&self) {
        self.shared.permits.close();
        self.shared.idle.lock().clear();
    }
}

impl Shared {
    fn take_idle(&self) -> Option<Client> {
        let mut idle = self.idle.lock();
        // After a restart of the server all of them are closed.
        while let Some(client) = idle.pop() {
            if !client.is_closed() {
                return Some(client);
            }
        }
        None
    }
}

impl Pooled {
    /// Says that a transaction begins, so that the connection never comes back inside one.
    pub(crate) const fn begins(&mut self) {
        self.is_in_transaction = true;
    }

    /// Says that the transaction has ended.
    pub(crate) const fn ended(&mut self) {
        self.is_in_transaction = false;
    }

    /// Lets the connection go after an error: it may be broken, or still wait for an answer.
    pub(crate) fn discard_after<T, E>(&mut self, answer: &Result<T, E>) {
        if answer.is_err() {
            self.client = None;
        }
    }
}

impl Deref for Pooled {
    type Target = Client;

    fn deref(&self) -> &Client {
        self.client
            .as_ref()
            .expect("a connection is discarded with its last use")
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        let Some(client) = self.client.take() else {
            return;
        };
        if self.is_in_transaction {
            // The first poll queues the message ahead of anything that the next user sends; the
            // answer needs nobody to wait for it.
            let queued = client.batch_execute("ROLLBACK").now_or_never();
            if queued.is_some_and(|answer| answer.is_err()) {
                return;
            }
        }
        if !client.is_closed() && !self.shared.permits.is_closed() {
            self.shared.idle.lock().push(client);
        }
    }
}
