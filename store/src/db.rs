//! What all aggregates share: the database's type, its errors, and the one way to write.

/// The database behind the cold path. The one place that names it.
pub(crate) type Database = sqlx::Sqlite;

/// Why a read or write of the store failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The database does not answer: full, read-only, locked for too long, or gone.
    #[error("the store is unavailable")]
    Unavailable(#[source] sqlx::Error),
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

impl StoreError {
    /// Whether the same call can succeed later.
    pub const fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}
