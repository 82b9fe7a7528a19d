//! Beginning an epoch on Postgres: one call of a function, which has the rights that a node has not.

use tokio_postgres::Client;
use tokio_postgres::types::{ToSql, Type};

use super::calls::CallError;
use crate::Restored;
use crate::chain::Heads;
use crate::epoch::ORGS;
use crate::ledger::rollback::{Began, Rollback, settle};
use crate::timekeeper::at;

/// Whose streams they are.
#[derive(Clone, Copy)]
pub(super) struct Owner<'a> {
    pub(super) node: &'a str,
    pub(super) run: &'a str,
    /// Of the ledger's stream.
    pub(super) writer: &'a str,
}

/// Ends every lease and tells of it, in one transaction. All nodes' uses wait for it.
pub(super) async fn begin(
    client: &Client,
    owner: Owner<'_>,
    heads: &Heads,
    rollback: &Rollback,
    now: i64,
) -> Result<Began, CallError> {
    client.batch_execute(BEGIN).await?;
    let rows = client.query_typed(ORGS, &[]).await?;
    let orgs = rows
        .iter()
        .map(|row| row.try_get(0))
        .collect::<Result<_, _>>()?;
    let records = rollback.records(owner.node, heads, orgs, now);
    let positions: Vec<i64> = records.iter().map(|record| record.position).collect();
    let orgs: Vec<&str> = records.iter().map(|record| record.org.as_str()).collect();
    let prevs: Vec<&[u8]> = records.iter().map(|record| &record.prev.hash[..]).collect();
    let hashes: Vec<&[u8]> = records.iter().map(|record| &record.link.hash[..]).collect();
    let bodies: Vec<&str> = records.iter().map(|record| record.body.as_str()).collect();
    let values: [(&(dyn ToSql + Sync), Type); 9] = [
        (&owner.node, Type::TEXT),
        (&owner.run, Type::TEXT),
        (&owner.writer, Type::TEXT),
        (&now, Type::INT8),
        (&positions, Type::INT8_ARRAY),
        (&orgs, Type::TEXT_ARRAY),
        (&prevs, Type::BYTEA_ARRAY),
        (&hashes, Type::BYTEA_ARRAY),
        (&bodies, Type::TEXT_ARRAY),
    ];
    let row = client
        .query_typed_one(
            "SELECT restored_to, ended_leases, epochs \
             FROM node_begin_epoch($1, $2, $3, $4, $5, $6, $7, $8, $9)",
            &values,
        )
        .await?;
    client.batch_execute("COMMIT").await?;
    settle(heads, &records);
    let restored_to: Option<i64> = row.try_get(0)?;
    let (ended, epochs): (i64, i64) = (row.try_get(1)?, row.try_get(2)?);
    Ok(Began {
        restored: Restored {
            restored_to: restored_to.map(at),
            ended_leases: ended.cast_unsigned(),
        },
        epochs: epochs.cast_unsigned(),
    })
}

/// A caller that fails lets the connection go, and the transaction with it. There may be many leases to end.
const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED; \
    SET LOCAL lock_timeout = '10s'; SET LOCAL statement_timeout = '2min'; \
    SET LOCAL idle_in_transaction_session_timeout = '10s'; \
    SELECT set_config('synchronous_commit', 'on', true) WHERE current_setting('synchronous_commit') = 'off'";
