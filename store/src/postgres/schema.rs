//! The schema on Postgres: every migration that is missing, in one transaction.
//!
//! sqlx's own runner holds a lock of the session, which a pooler does not keep together, and this
//! program speaks to Postgres by another client. So the migrations are compiled in by sqlx and run
//! here: under a lock of the transaction, and all or none of them.

use tokio_postgres::types::Type;
use tokio_postgres::{Client, SimpleQueryMessage};

use super::Pool;
use crate::db::{DatabaseError, StoreError};
use crate::{MigrateError, OpenError};

pub(super) static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("../migrations/postgres");

/// One migration at a time on one database. The number is arbitrary.
const LOCK: &str = "SELECT pg_advisory_xact_lock(5577006791947779410)";
/// Waiting for a table keeps everyone else who wants it waiting too.
const TABLES: &str = "SET LOCAL lock_timeout = '10s'; \
    CREATE TABLE IF NOT EXISTS schema_migrations ( \
        version     BIGINT NOT NULL PRIMARY KEY, \
        description TEXT   NOT NULL, \
        checksum    BYTEA  NOT NULL, \
        applied_at  TIMESTAMPTZ NOT NULL DEFAULT now() \
    )";
const EXISTS: &str = "SELECT 1 WHERE to_regclass('schema_migrations') IS NOT NULL";
const APPLIED: &str = "SELECT version, checksum FROM schema_migrations ORDER BY version";
const APPLY: &str =
    "INSERT INTO schema_migrations (version, description, checksum) VALUES ($1, $2, $3)";

/// What a database says of its schema.
enum State {
    Current,
    /// So many of the program's migrations are applied.
    Behind(usize),
}

/// Why a schema cannot be used.
enum Unfit {
    TooNew { found: i64 },
    Migrate(MigrateError),
}

/// Brings the schema up to date.
///
/// A database that is up to date is only read, so that a node may run as a role that cannot change
/// the schema.
pub(crate) async fn migrate(pool: &Pool, database: &str) -> Result<(), OpenError> {
    let mut connection = pool.get().await?;
    let unfit = |unfit| match unfit {
        Unfit::TooNew { found } => OpenError::SchemaTooNew {
            database: database.to_owned(),
            found,
            known: crate::newest(&MIGRATIONS),
        },
        Unfit::Migrate(source) => OpenError::Migrate {
            database: database.to_owned(),
            source,
        },
    };
    if let State::Current = look(&connection).await.map_err(unfit)? {
        return Ok(());
    }
    connection.begins();
    apply(&connection).await.map_err(unfit)?;
    connection.ended();
    Ok(())
}

async fn look(client: &Client) -> Result<State, Unfit> {
    let found = client.simple_query(EXISTS).await?;
    if !found
        .iter()
        .any(|message| matches!(message, SimpleQueryMessage::Row(_)))
    {
        return Ok(State::Behind(0));
    }
    state(client).await
}

async fn state(client: &Client) -> Result<State, Unfit> {
    let applied = client.query_typed(APPLIED, &[]).await?;
    let mut known = MIGRATIONS.iter();
    for row in &applied {
        let version: i64 = row.try_get(0)?;
        match known.next() {
            None => return Err(Unfit::TooNew { found: version }),
            Some(migration) => {
                let checksum: &[u8] = row.try_get(1)?;
                if migration.version != version || migration.checksum != checksum {
                    return Err(MigrateError::Changed(version).into());
                }
            }
        }
    }
    Ok(if known.next().is_some() {
        State::Behind(applied.len())
    } else {
        State::Current
    })
}

async fn apply(client: &Client) -> Result<(), Unfit> {
    client
        .batch_execute("BEGIN ISOLATION LEVEL READ COMMITTED")
        .await?;
    client.batch_execute(LOCK).await?;
    client.batch_execute(TABLES).await?;
    // Asked again under the lock: another node may have been here meanwhile.
    if let State::Behind(applied) = state(client).await? {
        for migration in MIGRATIONS.iter().skip(applied) {
            client.batch_execute(migration.sql.as_str()).await?;
            let checksum: &[u8] = &migration.checksum;
            let description: &str = &migration.description;
            client
                .execute_typed(
                    APPLY,
                    &[
                        (&migration.version, Type::INT8),
                        (&description, Type::TEXT),
                        (&checksum, Type::BYTEA),
                    ],
                )
                .await?;
        }
    }
    client.batch_execute("COMMIT").await?;
    Ok(())
}

impl<E: Into<MigrateError>> From<E> for Unfit {
    fn from(error: E) -> Self {
        Self::Migrate(error.into())
    }
}

impl From<tokio_postgres::Error> for MigrateError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Database(error.into())
    }
}

impl From<DatabaseError> for StoreError {
    fn from(error: DatabaseError) -> Self {
        Self::Unavailable(error)
    }
}
