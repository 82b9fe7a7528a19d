//! How far the trail was told to whom: a row a receiver, which one node at a time moves on.
//!
//! A node that has something to tell claims the row for [`HELD`], tells, and moves the place on under the condition that it
//! still is where it found it. So of two nodes one tells, and what a node told without having moved the place is told again.

use std::time::Duration;

use ::leases::id::OrgId;
use time::OffsetDateTime;

use crate::db::{Change, Row, count, id, optional_time, query, stored};
use crate::timekeeper::{at, millis};
use crate::webhooks::{self, Delivery};
use crate::{Store, StoreError};

/// For so long a claim holds; each time that the place moves it holds anew. Longer than one attempt takes, and than clocks of
/// nodes differ.
pub const HELD: Duration = Duration::from_mins(1);

/// How far a receiver was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sink {
    /// A webhook's id, or a name of the operator's receiver.
    pub name: String,
    /// Its organisation; of an operator's receiver the first one.
    pub org: OrgId,
    /// Behind what it was told, as [`Audit::steps`](crate::Audit::steps) takes it.
    pub place: String,
    /// Attempts that failed since the last success.
    pub attempts: u64,
    /// Before this no other attempt is made.
    pub retry_at: OffsetDateTime,
    /// When the first of these attempts failed.
    pub failing_since: Option<OffsetDateTime>,
    /// How many events it took.
    pub delivered: u64,
    /// When it took the last one.
    pub delivered_at: Option<OffsetDateTime>,
    /// Why the last attempt failed.
    pub error: Option<String>,
}

/// How far the trail was told.
#[derive(Debug, Clone, Copy)]
pub struct Sinks<'a> {
    pub(crate) store: &'a Store,
}

impl Sinks<'_> {
    /// Notes an operator's receiver. It is told what is recorded from its first call on.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn ensure(&self, name: &str, org: &OrgId) -> Result<(), StoreError> {
        if self.get(name).await?.is_some() {
            return Ok(());
        }
        let place = self.store.audit().end().await?;
        let mut tx = self.store.write(Change::Org(org)).await?;
        insert(&mut tx, name, org, &place).await?;
        tx.commit().await
    }

    /// A receiver, if this node may tell it something now: not before its next attempt, and no other node has it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn due(&self, name: &str) -> Result<Option<Sink>, StoreError> {
        let row = query(
            "SELECT * FROM audit_sinks WHERE sink = $1 AND retry_at <= $2 \
             AND (held_until <= $2 OR holder = $3)",
        )
        .bind(name)
        .bind(self.store.inner.time.now())
        .bind(self.holder())
        .fetch_optional(self.store.pool())
        .await?;
        row.as_ref().map(read).transpose()
    }

    /// One receiver.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn get(&self, name: &str) -> Result<Option<Sink>, StoreError> {
        let row = query("SELECT * FROM audit_sinks WHERE sink = $1")
            .bind(name)
            .fetch_optional(self.store.pool())
            .await?;
        row.as_ref().map(read).transpose()
    }

    /// Takes a receiver for this node, for [`HELD`]. False when another node has it, or it was told more than `sink` says.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn claim(&self, sink: &Sink) -> Result<bool, StoreError> {
        let mut tx = self.store.write(Change::Event).await?;
        let claimed = query(
            "UPDATE audit_sinks SET holder = $1, held_until = $2 WHERE sink = $3 AND place = $4 \
             AND (held_until <= $5 OR holder = $1)",
        )
        .bind(self.holder())
        .bind(until(tx.now()))
        .bind(&sink.name)
        .bind(&sink.place)
        .bind(tx.now())
        .execute(tx.conn())
        .await?;
        tx.commit().await?;
        Ok(claimed == 1)
    }

    /// Moves a receiver on from `sink` to `next`, with what was delivered to it, and holds it for another [`HELD`]. False when
    /// another node has it by now, or it is gone; nothing was changed then.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn advance(
        &self,
        sink: &Sink,
        next: &Sink,
        deliveries: &[Delivery],
    ) -> Result<bool, StoreError> {
        let mut tx = self.store.write(Change::Event).await?;
        let moved = query(
            "UPDATE audit_sinks SET place = $1, attempts = $2, retry_at = $3, failing_since = $4, \
             delivered = $5, delivered_at = $6, error = $7, held_until = $8 \
             WHERE sink = $9 AND place = $10 AND holder = $11",
        )
        .bind(&next.place)
        .bind(stored(next.attempts))
        .bind(millis(next.retry_at))
        .bind(next.failing_since.map(millis))
        .bind(stored(next.delivered))
        .bind(next.delivered_at.map(millis))
        .bind(&next.error)
        .bind(until(tx.now()))
        .bind(&sink.name)
        .bind(&sink.place)
        .bind(self.holder())
        .execute(tx.conn())
        .await?;
        if moved == 0 {
            return Ok(false);
        }
        webhooks::keep(&mut tx, sink, deliveries).await?;
        tx.commit().await?;
        Ok(true)
    }

    /// This node. Its next run goes on where it was, without waiting for its own claim to end.
    pub(crate) fn holder(&self) -> &str {
        &self.store.inner.heads.control.stream.name
    }
}

const WHAT: &str = "receiver of the trail";

/// Notes a receiver that was told nothing yet. Of two who do, one does.
pub(crate) async fn insert(
    tx: &mut crate::db::WriteTx<'_>,
    name: &str,
    org: &OrgId,
    place: &str,
) -> Result<(), StoreError> {
    query(
        "INSERT INTO audit_sinks (sink, org_id, place, held_until, attempts, retry_at, delivered) \
         VALUES ($1, $2, $3, 0, 0, 0, 0) ON CONFLICT (sink) DO NOTHING",
    )
    .bind(name)
    .bind(org.as_str())
    .bind(place)
    .execute(tx.conn())
    .await?;
    Ok(())
}

fn until(now: i64) -> i64 {
    now.saturating_add(i64::try_from(HELD.as_millis()).unwrap_or(i64::MAX))
}

pub(crate) fn read(row: &Row) -> Result<Sink, StoreError> {
    Ok(Sink {
        name: row.try_get("sink")?,
        org: id(row, "org_id", WHAT)?,
        place: row.try_get("place")?,
        attempts: count(row, "attempts")?,
        retry_at: at(row.try_get("retry_at")?),
        failing_since: optional_time(row, "failing_since")?,
        delivered: count(row, "delivered")?,
        delivered_at: optional_time(row, "delivered_at")?,
        error: row.try_get("error")?,
    })
}
