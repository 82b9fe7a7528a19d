//! The ledger's thread: takes all that waits, decides, appends and commits it as one transaction.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::leases::id::UseId;
use rusqlite::{CachedStatement, Connection, ErrorCode, params};

use super::Outcome;
use super::docket::{Batch, Clerk, Docket};
use super::queue::Waiting;
use super::record::{Record, Sink};
use super::rows;
use crate::Synchronous;
use crate::chain::{Link, Stream};
use crate::open::Lock;

/// How long another process's lock is waited for: 1 ms each time.
const BUSY_WAITS: i32 = 1_000;
/// Above this, the log file is cut back when it starts anew.
const LOG_LIMIT: u32 = 64 * 1024 * 1024;

/// The thread's state.
pub(super) struct Worker {
    pub(super) docket: Docket,
    pub(super) turn: Arc<tokio::sync::Mutex<()>>,
    pub(super) database: Source,
    pub(super) db: Connection,
    pub(super) node: String,
    /// What a commit that neither succeeded nor failed for sure would have made.
    pub(super) uncertain: Option<Uncertain>,
    /// The connection has to be opened anew before it is used again.
    pub(super) is_stale: bool,
    /// Held until the thread has ended.
    pub(super) _lock: Arc<Lock>,
}

/// Where the database is and how it is opened.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) path: PathBuf,
    pub(super) synchronous: Synchronous,
}

/// A transaction whose commit was not confirmed.
pub(super) struct Uncertain {
    link: Link,
    uses: Vec<(UseId, u64)>,
    /// What becomes of those uses: their callers were refused.
    unheard: VecDeque<Outcome>,
    /// How many of the outcomes held it recorded, from the oldest on.
    outcomes: usize,
}

/// Why a batch was not committed.
#[derive(Debug, thiserror::Error)]
enum BatchError {
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    #[error("cannot be opened again: {0}")]
    Reopen(rusqlite::Error),
}

impl Source {
    /// Opens the ledger's connection.
    pub(super) fn open(&self) -> rusqlite::Result<Connection> {
        let db = Connection::open_with_flags(
            &self.path,
            rusqlite::OpenFlags::SQLITE_OPEN_READ_WRITE | rusqlite::OpenFlags::SQLITE_OPEN_NO_MUTEX,
        )?;
        db.busy_handler(Some(|waits| {
            std::thread::sleep(Duration::from_millis(1));
            waits < BUSY_WAITS
        }))?;
        db.set_prepared_statement_cache_capacity(32);
        db.pragma_update(None, "journal_mode", "wal")?;
        db.pragma_update(None, "wal_autocheckpoint", 0)?;
        db.pragma_update(None, "journal_size_limit", LOG_LIMIT)?;
        db.pragma_update(None, "cache_size", -16_384)?;
        db.pragma_update(
            None,
            "synchronous",
            match self.synchronous {
                Synchronous::Full => "full",
                Synchronous::Off => "off",
            },
        )?;
        Ok(db)
    }
}

impl Clerk for Worker {
    fn docket(&mut self) -> &mut Docket {
        &mut self.docket
    }

    fn commit(&mut self, waiting: &mut Vec<Waiting>, batch: &mut Batch, is_noting: bool) {
        let began = Instant::now();
        let turn = Arc::clone(&self.turn);
        let committed = {
            let _turn = turn.blocking_lock();
            self.write(waiting, batch, is_noting)
        };
        match committed {
            Ok(()) => {
                if is_noting {
                    self.docket.counts.noted();
                    self.docket.noted();
                }
                self.docket.settle(waiting, batch, began);
            }
            Err(error) => self.fail(waiting, &error),
        }
    }

    fn rest(&mut self) {
        if self.docket.shared.keeper.wants_log_restart() {
            let _turn = self.turn.blocking_lock();
            // With everyone else kept out, the rest of the log is small and nothing is added to it
            // meanwhile, so that the next commit starts the log anew.
            checkpoint(&self.db);
        }
    }

    fn finish(mut self) {
        self.docket.counts.gather();
        self.commit(&mut Vec::new(), &mut Batch::default(), true);
        let closed = self.db.execute(
            "UPDATE ledger_state SET is_open = 0 WHERE node = ?1",
            [&self.node],
        );
        if let Err(error) = closed {
            tracing::warn!(%error, "the ledger could not note that it ended in order");
        }
    }
}

impl Worker {
    /// One transaction: the decisions, their records, and the outcomes held until now.
    fn write(
        &mut self,
        waiting: &[Waiting],
        batch: &mut Batch,
        is_noting: bool,
    ) -> Result<(), BatchError> {
        batch.clear();
        if self.is_stale {
            self.db = self.database.open().map_err(BatchError::Reopen)?;
            self.is_stale = false;
        }
        #[cfg(test)]
        if let Some(pragma) = self.docket.shared.before_next.lock().take() {
            self.db.execute_batch(pragma)?;
        }
        self.db.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        self.settle_uncertain()?;
        let docket = &mut self.docket;
        rows::refresh(&mut docket.book, &self.db)?;
        let now = docket.shared.time.now();
        docket.writer.begin(docket.heads.ledger.get(), now);
        let mut insert = self.db.prepare_cached(INSERT_EVENT)?;
        docket.append(waiting, batch, &mut &self.db, &mut insert)?;
        drop(insert);
        rows::write_windows(&docket.book, &self.db)?;
        if is_noting {
            self.note(batch, now)?;
        }
        self.uncertain = Some(Uncertain {
            link: self.docket.writer.link,
            uses: Vec::new(),
            unheard: VecDeque::new(),
            outcomes: batch.outcomes,
        });
        let committed = self.db.prepare_cached("COMMIT")?.execute([]);
        #[cfg(test)]
        let committed = self.lose_answer(committed);
        if let Some(uncertain) = &mut self.uncertain
            && committed.is_err()
        {
            uncertain.unheard = Docket::unheard(waiting, batch);
            uncertain.uses = std::mem::take(&mut batch.uses);
        }
        committed?;
        self.uncertain = None;
        Ok(())
    }

    /// Finds out whether the commit that was not confirmed took place, and takes up the chain there.
    fn settle_uncertain(&mut self) -> rusqlite::Result<()> {
        let Some(uncertain) = self.uncertain.take() else {
            return Ok(());
        };
        let position = self.docket.heads.ledger.stream.position(uncertain.link.seq);
        let stored = self
            .db
            .prepare_cached("SELECT 1 FROM audit_events WHERE position = ?1 AND hash = ?2")
            .and_then(|mut query| query.exists(params![position, &uncertain.link.hash[..]]));
        match stored {
            Ok(true) => {
                self.docket.heads.ledger.set(uncertain.link);
                // They stand in the trail already, and would stand there twice.
                self.docket.settle_outcomes(uncertain.outcomes);
                self.docket.open_uses.extend(uncertain.uses);
                self.docket.held.extend(uncertain.unheard);
            }
            Ok(false) => {}
            Err(error) => {
                self.uncertain = Some(uncertain);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Turns a commit that succeeded into one of which that is not known, when a test asks for it.
    #[cfg(test)]
    fn lose_answer(&self, committed: rusqlite::Result<usize>) -> rusqlite::Result<usize> {
        let is_lost = &self.docket.shared.lose_next_answer;
        if committed.is_ok() && is_lost.swap(false, std::sync::atomic::Ordering::Relaxed) {
            let lost = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_IOERR);
            return Err(rusqlite::Error::SqliteFailure(lost, None));
        }
        committed
    }

    /// Writes the display counts and the place where a recovery would begin.
    fn note(&mut self, batch: &Batch, now: i64) -> rusqlite::Result<()> {
        let counts = self.docket.counts.next();
        let mut lease = self
            .db
            .prepare_cached("UPDATE leases SET uses = uses + ?1 WHERE id = ?2")?;
        for (id, uses) in &counts.leases {
            lease.execute((uses, id.as_str()))?;
        }
        let mut agent = self.db.prepare_cached(
            "UPDATE agents SET last_used_at = ?1 WHERE id = ?2 AND deleted_at IS NULL",
        )?;
        for (id, used_at) in &counts.agents {
            agent.execute((used_at, id.as_str()))?;
        }
        let open_from = self.docket.open_from(batch);
        self.db
            .prepare_cached(
                "UPDATE ledger_state SET time_seen = ?1, open_from = ?2 WHERE node = ?3",
            )?
            .execute((now, open_from.cast_signed(), &self.node))?;
        Ok(())
    }

    /// After a batch that was not committed: rolls back, refuses the callers, keeps the outcomes.
    fn fail(&mut self, waiting: &mut Vec<Waiting>, error: &BatchError) {
        let is_open = !self.db.is_autocommit();
        let is_rolled_back = !is_open || self.db.execute_batch("ROLLBACK").is_ok();
        self.is_stale = !is_rolled_back || error.needs_new_connection();
        if error.is_taken_position() {
            self.step_over();
        }
        self.docket
            .refuse(waiting, &error.to_string(), error.is_busy());
    }

    /// Someone else put a record where the next one belongs. It is left there for verification to
    /// name, and the chain goes on behind it from the head in memory.
    fn step_over(&mut self) {
        let head = &self.docket.heads.ledger;
        let last: rusqlite::Result<Option<i64>> = self.db.query_row(
            "SELECT MAX(position) FROM audit_events WHERE position < ?1",
            [head.stream.ceiling()],
            |row| row.get(0),
        );
        let link = head.get();
        let seq = last.ok().flatten().map_or(0, Stream::seq);
        if seq > link.seq {
            tracing::error!(
                seq,
                "a foreign record stands in the audit stream: run `claviger audit verify`"
            );
            head.set(Link {
                seq,
                hash: link.hash,
            });
        }
    }
}

/// Copies the log into the database. How far it got is the keeper's concern.
fn checkpoint(db: &Connection) {
    if let Err(error) = db.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())) {
        tracing::warn!(%error, "the log could not be copied into the database");
    }
}

impl BatchError {
    fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Sqlite(error) | Self::Reopen(error) => error.sqlite_error_code(),
        }
    }

    fn is_busy(&self) -> bool {
        matches!(
            self.code(),
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)
        )
    }

    fn is_taken_position(&self) -> bool {
        self.code() == Some(ErrorCode::ConstraintViolation)
    }

    /// A full disk, a lock and a constraint leave the connection as good as before. After anything
    /// else it may have been opened read-only or hold pages that never reached the file.
    fn needs_new_connection(&self) -> bool {
        !matches!(
            self.code(),
            Some(
                ErrorCode::DiskFull
                    | ErrorCode::DatabaseBusy
                    | ErrorCode::DatabaseLocked
                    | ErrorCode::ConstraintViolation
            )
        )
    }
}

const INSERT_EVENT: &str = "INSERT INTO audit_events \
    (position, org_id, created_at, action, agent_id, lease_id, secret_set_id, prev_hash, hash, body) \
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";

impl Sink for CachedStatement<'_> {
    type Error = rusqlite::Error;

    fn append(&mut self, record: &Record<'_>) -> rusqlite::Result<()> {
        let draft = record.draft;
        self.execute(params![
            record.position,
            draft.org_id,
            record.at,
            draft.action,
            draft.agent_id,
            draft.lease_id,
            draft.secret_set_id,
            &record.prev_hash[..],
            &record.hash[..],
            record.body,
        ])?;
        Ok(())
    }
}
