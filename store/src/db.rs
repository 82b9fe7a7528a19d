//! What all aggregates share: statements, rows, errors, and the one way to write.

use time::OffsetDateTime;
use tokio_postgres::error::SqlState;

use crate::timekeeper::at;

mod change;
mod query;

pub(crate) use change::{Change, ControlHead, WriteTx};
pub(crate) use query::{Conn, On, Pool, Query, Row, Value, built, insert_many, query};

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
            sqlx::Error::Database(error) if error.is_unique_violation() => Self::Conflict {
                what: "a unique value",
            },
            other => Self::Unavailable(other.into()),
        }
    }
}

impl From<tokio_postgres::Error> for StoreError {
    fn from(error: tokio_postgres::Error) -> Self {
        if error.code() == Some(&SqlState::UNIQUE_VIOLATION) {
            Self::Conflict {
                what: "a unique value",
            }
        } else {
            Self::Unavailable(error.into())
        }
    }
}

/// Reads a time column.
pub(crate) fn time(row: &Row, column: &str) -> Result<OffsetDateTime, StoreError> {
    Ok(at(row.try_get(column)?))
}

/// Reads a time column that may be absent.
pub(crate) fn optional_time(row: &Row, column: &str) -> Result<Option<OffsetDateTime>, StoreError> {
    Ok(row.try_get::<Option<i64>>(column)?.map(at))
}

/// Reads an id column; `what` names the kind of row if it holds something else.
pub(crate) fn id<T: std::str::FromStr>(
    row: &Row,
    column: &str,
    what: &'static str,
) -> Result<T, StoreError> {
    row.try_get::<&str>(column)?
        .parse()
        .map_err(|_| StoreError::Corrupt { what })
}

/// Reads a count, which no statement lets go below zero.
pub(crate) fn count(row: &Row, column: &str) -> Result<u64, StoreError> {
    u64::try_from(row.try_get::<i64>(column)?).map_err(|_| StoreError::Corrupt { what: "count" })
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

/// An error and its causes on one line.
pub(crate) fn chain_of(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
