//! Whether leases still stand, asked over a connection beside the ledger's.

use std::sync::Arc;
use std::time::Duration;

use ::leases::id::{GrantId, SetId};
use parking_lot::Mutex;
use tokio_postgres::Client;
use tokio_postgres::types::{ToSql, Type};

use super::calls::{self, CallError};
use super::rows::FreshRows;
use crate::ledger::book::Wanted;
use crate::ledger::{Holding, LedgerError, Standing};
use crate::location::PostgresUrl;

/// How long an answer may take, however many leases it is about.
const DEADLINE: Duration = Duration::from_secs(1);

/// Leases in one question. The door's questions wait behind it, so it takes milliseconds.
const TOGETHER: usize = 1_000;

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

    /// For the door: what was read is left for the use that follows.
    pub(in crate::ledger) async fn standing(
        &self,
        holding: &Holding<'_>,
    ) -> Result<Standing, LedgerError> {
        let named = Wanted::of_holding(holding);
        let wanted = &named;
        let rows = self
            .ask(|client| async move { calls::rows(&client, wanted).await })
            .await?;
        let standing = rows.standing(holding);
        if standing == Standing::Good {
            self.shelf.put(rows, named);
        }
        Ok(standing)
    }

    /// For streams that last: one standing for each, in their order, and all under one deadline.
    pub(in crate::ledger) async fn standings(
        &self,
        holdings: &[Holding<'_>],
    ) -> Result<Vec<Standing>, LedgerError> {
        self.ask(|client| async move {
            let mut standings = Vec::with_capacity(holdings.len());
            for some in holdings.chunks(TOGETHER) {
                standings.extend(read(&client, some).await?);
            }
            Ok(standings)
        })
        .await
    }

    async fn ask<T, F>(&self, question: impl Fn(Arc<Client>) -> F) -> Result<T, LedgerError>
    where
        F: Future<Output = Result<T, CallError>>,
    {
        if let Ok(answer) = tokio::time::timeout(DEADLINE, self.put(question)).await {
            return answer;
        }
        // Who holds the slot for longer than a moment is connecting anew, and nothing is to be given up.
        if let Ok(mut slot) = self.client.try_lock() {
            slot.take();
        }
        Err(LedgerError::Unavailable(format!(
            "no answer within {DEADLINE:?}"
        )))
    }

    async fn put<T, F>(&self, question: impl Fn(Arc<Client>) -> F) -> Result<T, LedgerError>
    where
        F: Future<Output = Result<T, CallError>>,
    {
        let unavailable =
            |error: &dyn std::error::Error| LedgerError::Unavailable(error.to_string());
        let first = self.client().await.map_err(|error| unavailable(&error))?;
        let answer = match question(Arc::clone(&first)).await {
            // It was open for long and may have broken since it was last used.
            Err(error) if error.is_broken() => {
                self.give_up(&first).await;
                let second = self.client().await.map_err(|error| unavailable(&error))?;
                question(second).await
            }
            answer => answer,
        };
        answer.map_err(|error| unavailable(&error))
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

async fn read(client: &Client, holdings: &[Holding<'_>]) -> Result<Vec<Standing>, CallError> {
    let leases: Vec<&str> = holdings.iter().map(|held| held.lease.as_str()).collect();
    let orgs: Vec<&str> = holdings.iter().map(|held| held.org.as_str()).collect();
    let agents: Vec<&str> = holdings.iter().map(|held| held.agent.as_str()).collect();
    let grants: Vec<Option<&str>> = holdings
        .iter()
        .map(|held| held.grant.map(GrantId::as_str))
        .collect();
    let sets: Vec<Option<&str>> = holdings
        .iter()
        .map(|held| held.set.map(SetId::as_str))
        .collect();
    let (blocks, holders): (Vec<&[u8]>, Vec<i64>) = (1..)
        .zip(holdings)
        .flat_map(|(place, held)| {
            let blocks = held.revocation_ids.iter();
            blocks.map(move |block| (&block.as_bytes()[..], place))
        })
        .unzip();
    let values: [(&(dyn ToSql + Sync), Type); 7] = [
        (&leases, Type::TEXT_ARRAY),
        (&orgs, Type::TEXT_ARRAY),
        (&agents, Type::TEXT_ARRAY),
        (&grants, Type::TEXT_ARRAY),
        (&sets, Type::TEXT_ARRAY),
        (&blocks, Type::BYTEA_ARRAY),
        (&holders, Type::INT8_ARRAY),
    ];
    let mut standings = vec![Standing::Unknown; holdings.len()];
    for row in client.query_typed(STANDINGS, &values).await? {
        let place: i64 = row.try_get(0)?;
        let (is_revoked, is_active): (bool, bool) = (row.try_get(1)?, row.try_get(2)?);
        let (is_granted, is_held): (bool, bool) = (row.try_get(3)?, row.try_get(4)?);
        let index = usize::try_from(place - 1).ok();
        if let Some(standing) = index.and_then(|index| standings.get_mut(index)) {
            *standing = if is_revoked {
                Standing::Revoked
            } else if !is_active {
                Standing::AgentInactive
            } else if !is_granted {
                Standing::GrantRevoked
            } else if !is_held {
                Standing::SetGone
            } else {
                Standing::Good
            };
        }
    }
    Ok(standings)
}

/// A row for each lease that is there, with its place among those asked for, from 1. `ledger_rows` would bring along
/// what a use needs, and say less of whose it is.
const STANDINGS: &str = "WITH held AS (SELECT * FROM unnest($1, $2, $3, $4, $5) WITH ORDINALITY \
        AS h (lease_id, org_id, agent_id, grant_id, set_id, place)), \
    revoked AS (SELECT h.place, b.org_id FROM unnest($6, $7) AS h (revocation_id, place) \
        JOIN revoked_blocks b ON b.revocation_id = h.revocation_id) \
    SELECT h.place, \
    l.revoked_at IS NOT NULL OR EXISTS (SELECT 1 FROM revoked r \
        WHERE r.place = h.place AND r.org_id = l.org_id) OR EXISTS (SELECT 1 FROM kill_switches k \
        WHERE k.org_id = l.org_id AND k.agent_id IN ('', l.agent_id) AND k.cut_off > l.cut_off), \
    a.is_active = 1 AND a.deleted_at IS NULL, \
    h.grant_id IS NULL OR EXISTS (SELECT 1 FROM grants g \
        WHERE g.id = h.grant_id AND g.org_id = l.org_id AND g.revoked_at IS NULL), \
    h.set_id IS NULL OR EXISTS (SELECT 1 FROM secret_sets s \
        WHERE s.id = h.set_id AND s.org_id = l.org_id AND s.deleted_at IS NULL) \
    FROM held h JOIN leases l ON l.id = h.lease_id AND l.org_id = h.org_id AND l.agent_id = h.agent_id \
    JOIN agents a ON a.id = l.agent_id";
