//! What all aggregates share: the database's type, its errors, and the one way to write.

use ::leases::id::{EventId, OrgId};
use sqlx::Row as _;
use time::OffsetDateTime;

use crate::chain::Link;
use crate::event::{Draft, rfc3339};
use crate::timekeeper::at;
use crate::{Actor, Event, NewEvent, Store};

/// The database behind the cold path. The one place that names it.
pub(crate) type Database = sqlx::Sqlite;

/// Its connections.
pub(crate) type Pool = sqlx::Pool<Database>;

/// One row of a result.
pub(crate) type Row = <Database as sqlx::Database>::Row;

/// Takes the write lock at once: a transaction that read first could not get it later.
const BEGIN: &str = "BEGIN IMMEDIATE";

/// Why a read or write of the store failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The database does not answer: full, read-only, locked for too long, or gone.
    #[error("the store is unavailable")]
    Unavailable(#[source] DatabaseError),
    /// Something that must be unique is taken, or changed meanwhile.
    #[error("{what} is taken or changed meanwhile")]
    Conflict {
        /// What is taken.
        what: &'static str,
    },
    /// A row does not hold what its column promises.
    #[error("a stored {what} cannot be read")]
    Corrupt {
        /// The kind of row.
        what: &'static str,
    },
    /// The cursor is none that this list gave out.
    #[error("the cursor is not one of this list; start again without it")]
    BadCursor,
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
}

/// What the database, or the way to it, answered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DatabaseError {
    /// SQLite refused.
    #[error(transparent)]
    Sqlite(#[from] sqlx::Error),
    /// Postgres refused, or the connection to it broke.
    #[error(transparent)]
    Postgres(#[from] tokio_postgres::Error),
    /// The operating system refused.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// TLS to Postgres cannot be set up.
    #[error("TLS: {0}")]
    Tls(String),
    /// Nothing came back in time.
    #[error("no answer within {0:?}")]
    Late(std::time::Duration),
    /// Another process took this node's name, and writes its streams now.
    #[error("another process runs as this node")]
    Fenced,
}

impl StoreError {
    /// Whether the same call can succeed later.
    pub const fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match error {
            sqlx::Error::PoolClosed => Self::Closed,
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::ColumnNotFound(_) => {
                Self::Corrupt { what: "row" }
            }
            sqlx::Error::Database(error) if error.is_unique_violation() => Self::Conflict {
                what: "a unique value",
            },
            other => Self::Unavailable(other.into()),
        }
    }
}

/// Reads a time column.
pub(crate) fn time(row: &Row, column: &str) -> Result<OffsetDateTime, StoreError> {
    Ok(at(row.try_get(column)?))
}

/// Reads a time column that may be absent.
pub(crate) fn optional_time(row: &Row, column: &str) -> Result<Option<OffsetDateTime>, StoreError> {
    Ok(row.try_get::<Option<i64>, _>(column)?.map(at))
}

/// Reads an id column; `what` names the kind of row if it holds something else.
pub(crate) fn id<T: std::str::FromStr>(
    row: &Row,
    column: &str,
    what: &'static str,
) -> Result<T, StoreError> {
    row.try_get::<&str, _>(column)?
        .parse()
        .map_err(|_| StoreError::Corrupt { what })
}

/// Reads a count, which no statement lets go below zero.
pub(crate) fn count(row: &Row, column: &str) -> Result<u64, StoreError> {
    u64::try_from(row.try_get::<i64, _>(column)?).map_err(|_| StoreError::Corrupt { what: "count" })
}

/// Reads a JSON column.
pub(crate) fn json<T: serde::de::DeserializeOwned>(
    row: &Row,
    column: &str,
    what: &'static str,
) -> Result<T, StoreError> {
    from_json(row.try_get(column)?, what)
}

/// Reads stored JSON.
pub(crate) fn from_json<T: serde::de::DeserializeOwned>(
    text: &str,
    what: &'static str,
) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|_| StoreError::Corrupt { what })
}

/// Writes JSON for a column.
pub(crate) fn to_json<T: serde::Serialize>(
    value: &T,
    what: &'static str,
) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|_| StoreError::Corrupt { what })
}

/// For a column of 64 signed bits; what does not fit would never be reached by counting.
pub(crate) fn stored(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// The control stream's end as its writers hold it.
#[derive(Debug)]
pub(crate) struct ControlHead {
    /// What a commit that neither succeeded nor failed for sure would have made of it.
    pub(crate) uncertain: Option<Link>,
}

/// A change in progress: the transaction, the control stream's head and the turn to write.
///
/// Writers of one process take turns here and with the ledger's thread, first come, first served:
/// SQLite's own lock is polled, and a busy ledger would let nobody else in.
pub(crate) struct WriteTx<'a> {
    // Declared first, so that a dropped change is rolled back before the next writer's turn.
    tx: sqlx::Transaction<'static, Database>,
    link: Link,
    now: i64,
    store: &'a Store,
    head: tokio::sync::MutexGuard<'a, ControlHead>,
    _turn: tokio::sync::OwnedMutexGuard<()>,
}

impl<'a> WriteTx<'a> {
    /// Waits for its turn and begins.
    pub(crate) async fn begin(store: &'a Store) -> Result<Self, StoreError> {
        let inner = &store.inner;
        let mut head = inner.control_head.lock().await;
        let turn = std::sync::Arc::clone(&inner.turn).lock_owned().await;
        let mut tx = inner.pool.begin_with(BEGIN).await?;
        if let Some(link) = head.uncertain {
            if is_committed(store, &mut tx, link).await? {
                inner.heads.control.set(link);
            }
            head.uncertain = None;
        }
        Ok(Self {
            tx,
            link: inner.heads.control.get(),
            now: inner.time.now(),
            store,
            head,
            _turn: turn,
        })
    }

    /// The time of this change, in milliseconds since the epoch.
    pub(crate) const fn now(&self) -> i64 {
        self.now
    }

    /// Where statements run.
    pub(crate) fn conn(&mut self) -> &mut <Database as sqlx::Database>::Connection {
        &mut self.tx
    }

    /// Appends an event to the control stream.
    pub(crate) async fn append(
        &mut self,
        org: &OrgId,
        actor: &Actor,
        event: &NewEvent,
    ) -> Result<Event, StoreError> {
        let id = EventId::new(at(self.now));
        let stream = &self.store.inner.heads.control.stream;
        let mut created_at = String::new();
        rfc3339(&mut created_at, self.now);
        let draft = Draft {
            id: id.as_str(),
            stream: &stream.name,
            seq: self.link.seq + 1,
            created_at: &created_at,
            org_id: org.as_str(),
            actor_type: actor.kind.as_str(),
            actor_id: &actor.id,
            request_id: actor.request_id.as_deref(),
            client_ip: actor.client_ip,
            ..event.draft()
        };
        let mut body = String::new();
        draft.write(&mut body);
        let next = self.link.next(&body);
        sqlx::query(INSERT_EVENT)
            .bind(stream.position(next.seq))
            .bind(draft.org_id)
            .bind(self.now)
            .bind(draft.action)
            .bind(draft.agent_id)
            .bind(draft.lease_id)
            .bind(draft.secret_set_id)
            .bind(&self.link.hash[..])
            .bind(&next.hash[..])
            .bind(&body)
            .execute(&mut *self.tx)
            .await?;
        let mut written: Event = from_json(&body, "audit event")?;
        written.prev_hash = hex::encode(self.link.hash);
        written.hash = hex::encode(next.hash);
        self.link = next;
        Ok(written)
    }

    /// Makes the change durable, then moves the head in memory.
    pub(crate) async fn commit(mut self) -> Result<(), StoreError> {
        // Set before the attempt, so that a caller who goes away meanwhile leaves the doubt behind.
        self.head.uncertain = Some(self.link);
        self.tx.commit().await?;
        self.head.uncertain = None;
        self.store.inner.heads.control.set(self.link);
        Ok(())
    }
}

/// Whether the record at the end of `link` is in the table.
async fn is_committed(
    store: &Store,
    tx: &mut sqlx::Transaction<'static, Database>,
    link: Link,
) -> Result<bool, StoreError> {
    if link.seq == 0 {
        return Ok(false);
    }
    let stored: Option<Vec<u8>> =
        sqlx::query_scalar("SELECT hash FROM audit_events WHERE position = $1")
            .bind(store.inner.heads.control.stream.position(link.seq))
            .fetch_optional(&mut **tx)
            .await?;
    Ok(stored.is_some_and(|stored| stored == link.hash))
}

/// One record of the chain.
const INSERT_EVENT: &str = "INSERT INTO audit_events \
    (position, org_id, created_at, action, agent_id, lease_id, secret_set_id, prev_hash, hash, body) \
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";

impl Store {
    /// Waits for the turn to write and begins a change.
    pub(crate) async fn write(&self) -> Result<WriteTx<'_>, StoreError> {
        WriteTx::begin(self).await
    }

    /// Connections for reads.
    pub(crate) fn pool(&self) -> &Pool {
        &self.inner.pool
    }
}
