//! From a path to a database that may be worked on: lock, mode, integrity, connections, schema.

use std::fs::{File, OpenOptions, Permissions, TryLockError};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags};
use sqlx::SqlitePool;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};

use crate::db::StoreError;
use crate::{MigrateError, OpenError, Synchronous};

/// How long a process waits for its predecessor to end.
const HANDOVER: Duration = Duration::from_secs(5);
/// How long a writer waits for another process's lock.
const BUSY: Duration = Duration::from_secs(5);
/// Reads run beside each other; writes take turns anyway.
const CONNECTIONS: u32 = 4;
/// Above this size the audit records are left out of the check at the start: reading gigabytes
/// would keep a restart waiting, and their chain is verified by its own means.
const CHECKED_WHOLE: u64 = 256 * 1024 * 1024;

/// The right to be the one process that writes to a database; given up when dropped.
#[derive(Debug)]
pub(crate) struct Lock(#[expect(dead_code, reason = "held for its lock alone")] File);

/// Locks the database at `path`, makes its file or tightens its mode, and checks it.
pub(crate) async fn prepare(path: &Path) -> Result<Arc<Lock>, OpenError> {
    let path = path.to_owned();
    tokio::task::spawn_blocking(move || {
        let lock = lock(&path)?;
        own_file(&path)?;
        check(&path)?;
        Ok(Arc::new(lock))
    })
    .await
    .map_err(|_| StoreError::Closed)?
}

fn lock(path: &Path) -> Result<Lock, OpenError> {
    let lock_path = beside(path, ".lock");
    let file = own_file(&lock_path)?;
    let deadline = Instant::now() + HANDOVER;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(Lock(file)),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(TryLockError::WouldBlock) => {
                return Err(OpenError::InUse {
                    path: path.to_owned(),
                });
            }
            Err(TryLockError::Error(source)) => {
                return Err(OpenError::Io {
                    path: lock_path,
                    source,
                });
            }
        }
    }
}

/// The file of that name with `suffix` after it.
pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Opens or makes a file that only its owner can read. SQLite gives its other files the same mode.
fn own_file(path: &Path) -> Result<File, OpenError> {
    let open = || {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)?;
        if file.metadata()?.permissions().mode() & 0o077 != 0 {
            file.set_permissions(Permissions::from_mode(0o600))?;
        }
        Ok(file)
    };
    open().map_err(|source| OpenError::Io {
        path: path.to_owned(),
        source,
    })
}

/// Has SQLite look for damage, so that a corrupt file is named at the start and not in the middle.
fn check(path: &Path) -> Result<(), OpenError> {
    let finding = find_damage(path).unwrap_or_else(|error| Some(error.to_string()));
    finding.map_or(Ok(()), |finding| {
        Err(OpenError::Damaged {
            path: path.to_owned(),
            finding,
        })
    })
}

fn find_damage(path: &Path) -> rusqlite::Result<Option<String>> {
    let size = std::fs::metadata(path).map_or(0, |file| file.len());
    if size == 0 {
        return Ok(None);
    }
    let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    connection.busy_timeout(BUSY)?;
    if size <= CHECKED_WHOLE {
        return finding_of(&connection, None);
    }
    let mut tables = connection.prepare(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' \
         AND name <> 'audit_events'",
    )?;
    let names = tables.query_map([], |row| row.get::<_, String>(0))?;
    for name in names {
        if let Some(finding) = finding_of(&connection, Some(&name?))? {
            return Ok(Some(finding));
        }
    }
    Ok(None)
}

fn finding_of(connection: &Connection, table: Option<&str>) -> rusqlite::Result<Option<String>> {
    let query = table.map_or_else(
        || "PRAGMA quick_check(1)".to_owned(),
        |table| format!("PRAGMA quick_check('{}')", table.replace('\'', "''")),
    );
    let answer: String = connection.query_row(&query, [], |row| row.get(0))?;
    Ok((answer != "ok").then_some(answer))
}

/// Connections to the database at `path`.
pub(crate) async fn connect(
    path: &Path,
    synchronous: Synchronous,
) -> Result<SqlitePool, StoreError> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(false)
        // For a new file: an append to the audit trail then changes fewer pages and copies less.
        .page_size(16_384)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(match synchronous {
            Synchronous::Full => SqliteSynchronous::Full,
            Synchronous::Off => SqliteSynchronous::Off,
        })
        .foreign_keys(true)
        .busy_timeout(BUSY)
        // The ledger's keeper does checkpoints, so that no change waits for one.
        .pragma("wal_autocheckpoint", "0");
    let pool = SqlitePoolOptions::new()
        .max_connections(CONNECTIONS)
        .acquire_timeout(BUSY)
        .connect_with(options)
        .await?;
    Ok(pool)
}

/// A connection that only reads, beside whoever has the database open.
pub(crate) async fn read_only(path: &Path) -> Result<SqlitePool, StoreError> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .read_only(true)
        .busy_timeout(BUSY);
    let pool = SqlitePoolOptions::new()
        .max_connections(1)
        .connect_with(options)
        .await?;
    Ok(pool)
}

static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("../migrations/sqlite");

/// Brings the schema up to date.
pub(crate) async fn migrate(path: &Path, pool: &SqlitePool) -> Result<(), OpenError> {
    use sqlx::migrate::MigrateError as Sqlx;
    let database = path.display().to_string();
    MIGRATIONS.run(pool).await.map_err(|error| {
        let known = crate::newest(&MIGRATIONS);
        let source = match error {
            Sqlx::VersionMissing(found) if found > known => {
                return OpenError::SchemaTooNew {
                    database,
                    found,
                    known,
                };
            }
            Sqlx::VersionMissing(version) | Sqlx::VersionMismatch(version) => {
                MigrateError::Changed(version)
            }
            other => MigrateError::Sqlite(other),
        };
        OpenError::Migrate { database, source }
    })
}
