//! Whether leases still stand, asked over a connection beside the ledger's.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio_postgres::Client;

use super::calls;
use super::rows::FreshRows;
use crate::ledger::book::Wanted;
use crate::ledger::{Holding, LedgerError, Standing};
use crate::location::PostgresUrl;

/// How long an answer may take.
const DEADLINE: Duration = Duration::from_secs(1);

/// One connection for all who ask: their questions follow each other without waiting for answers.
#[derive(Debug)]
pub(in crate::ledger) struct Reader {
    url: PostgresUrl,
    client: tokio::sync::Mutex<Option<Arc<Client>>>,
    shelf: Arc<Shelf>,
}

/// Rows that were read for the door. The use that follows finds them here, and needs no round trip to read them.
#[derive(Debug, Default)]
pub(super) struct Shelf(Mutex<Vec<(FreshRows, Wanted)>>);

/// More than this nobody has fetched in time.
const MOST: usize = 256;

impl Shelf {
    fn put(&self, rows: FreshRows, asked: Wanted) {
        let mut kept = self.0.lock();
        if kept.len() >= MOST {
            kept.clear();
        }
        kept.push((rows, asked));
    }

    pub(super) fn take(&self) -> Vec<(FreshRows, Wanted)> {
        std::mem::take(&mut self.0.lock())
    }
}

impl Reader {
    pub(super) fn new(url: PostgresUrl, shelf: Arc<Shelf>) -> Self {
        Self {
            url,
            client: tokio::sync::Mutex::default(),
            shelf,
        }
    }

    pub(in crate::ledger) async fn standing(
        &self,
        holding: &Holding<'_>,
    ) -> Result<Standing, LedgerError> {
        let asked = tokio::time::timeout(DEADLINE, self.ask(holding));
        if let Ok(answer) = asked.await {
            answer
        } else {
            self.client.lock().await.take();
            Err(LedgerError::Unavailable(format!(
                "no answer within {DEADLINE:?}"
            )))
        }
    }

    async fn ask(&self, holding: &Holding<'_>) -> Result<Standing, LedgerError> {
        let unavailable =
            |error: &dyn std::error::Error| LedgerError::Unavailable(error.to_string());
        let first = self.client().await.map_err(|error| unavailable(&error))?;
        let named = Wanted::of_holding(holding);
        let asked = match calls::rows(&first, &named).await {
            // It was open for long and may have broken since it was last used.
            Err(error) if error.is_broken() => {
                self.give_up(&first).await;
                let second = self.client().await.map_err(|error| unavailable(&error))?;
                calls::rows(&second, &named).await
            }
            answer => answer,
        };
        let rows = asked.map_err(|error| unavailable(&error))?;
        let standing = rows.standing(holding);
        if standing == Standing::Good {
            self.shelf.put(rows, named);
        }
        Ok(standing)
    }

    async fn client(&self) -> Result<Arc<Client>, crate::DatabaseError> {
        let mut slot = self.client.lock().await;
        match &*slot {
            Some(client) if !client.is_closed() => Ok(Arc::clone(client)),
            _ => {
                let client = Arc::new(crate::postgres::connect(&self.url).await?);
                *slot = Some(Arc::clone(&client));
                Ok(client)
            }
        }
    }

    async fn give_up(&self, broken: &Arc<Client>) {
        let mut slot = self.client.lock().await;
        if slot
            .as_ref()
            .is_some_and(|client| Arc::ptr_eq(client, broken))
        {
            *slot = None;
        }
    }
}
