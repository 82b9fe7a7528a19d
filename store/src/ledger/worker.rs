//! The ledger's thread: takes all that waits, decides, appends and commits it as one transaction.

use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::leases::id::{AgentId, LeaseId, UseId};
use rusqlite::{CachedStatement, Connection, ErrorCode, params};
use ulid::Ulid;

use super::book::{Book, Opening};
use super::pace::Pace;
use super::queue::{MAX_OUTCOMES, Waiting, Wake};
use super::{
    LedgerError, Outcome, RecordedUse, Refused, RequestFacts, Shared, UseRefusal, UseRequest,
};
use crate::Synchronous;
use crate::chain::{Heads, Link, Stream};
use crate::event::{Decision, Draft, rfc3339};
use crate::open::Lock;
use crate::timekeeper::at;

/// How often display counts and the place to recover from are written.
const NOTE_EVERY: Duration = Duration::from_secs(1);
/// How often the time is written when nothing happens.
const IDLE_NOTE_EVERY: Duration = Duration::from_mins(1);
/// How long to wait before held outcomes are tried again.
const RETRY_AFTER: Duration = Duration::from_millis(250);
/// How long another process's lock is waited for: 1 ms each time.
const BUSY_WAITS: i32 = 1_000;
/// Above this, the log file is cut back when it starts anew.
const LOG_LIMIT: u32 = 64 * 1024 * 1024;
/// Rough size of a record in the log, for the keeper to know when to look.
const RECORD_BYTES: u64 = 1_200;

/// The thread's state.
pub(super) struct Worker {
    pub(super) shared: Arc<Shared>,
    pub(super) heads: Arc<Heads>,
    pub(super) turn: Arc<tokio::sync::Mutex<()>>,
    pub(super) database: Source,
    pub(super) db: Connection,
    pub(super) node: String,
    /// Uses without an outcome, and their places in the chain.
    pub(super) open_uses: HashMap<UseId, u64>,
    /// Outcomes not committed yet.
    pub(super) held: VecDeque<Outcome>,
    pub(super) book: Book,
    pub(super) writer: Writer,
    /// What a commit that neither succeeded nor failed for sure would have made.
    pub(super) uncertain: Option<Uncertain>,
    pub(super) counts: Counts,
    /// The connection has to be opened anew before it is used again.
    pub(super) is_stale: bool,
    pub(super) retry_at: Option<Instant>,
    pub(super) note_at: Instant,
    pub(super) pace: Pace,
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
}

/// Counts for display that are written now and then.
#[derive(Debug, Default)]
pub(super) struct Counts {
    leases: HashMap<LeaseId, i64>,
    agents: HashMap<AgentId, i64>,
}

/// What a batch came to, to be told once it is committed.
#[derive(Default)]
struct Batch {
    answers: Vec<Answer>,
    /// Uses recorded in this batch, and their places in the chain.
    uses: Vec<(UseId, u64)>,
    refusals: u64,
    records: u64,
}

enum Answer {
    Use(Result<RecordedUse, UseRefusal>),
    Refusal,
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

impl Worker {
    /// Works until the queue ends.
    pub(super) fn run(mut self) {
        let _end = EndOnDrop(Arc::clone(&self.shared));
        let mut waiting = Vec::new();
        let mut batch = Batch::default();
        loop {
            let wake = {
                let (due, linger) = (self.due(), self.pace.linger());
                self.shared
                    .queue
                    .take(&mut waiting, &mut self.held, due, linger)
            };
            self.work(&mut waiting, &mut batch);
            if wake == Wake::End {
                break;
            }
        }
        self.finish();
    }

    /// When there is something to do even without a job.
    fn due(&self) -> Instant {
        let note = self.note_due();
        if self.held.is_empty() {
            note
        } else {
            note.min(self.retry_at.unwrap_or_else(Instant::now))
        }
    }

    fn note_due(&self) -> Instant {
        if self.counts.is_empty() {
            self.note_at + IDLE_NOTE_EVERY
        } else {
            self.note_at
        }
    }

    fn work(&mut self, waiting: &mut Vec<Waiting>, batch: &mut Batch) {
        // A caller who gave up before its job was taken has had no effect.
        waiting.retain(|job| !job.is_abandoned());
        self.bound_held();
        let now = Instant::now();
        let is_noting = now >= self.note_due();
        let holds = !self.held.is_empty() && self.retry_at.is_none_or(|retry| now >= retry);
        if !waiting.is_empty() || holds || is_noting {
            self.commit_in_turn(waiting, batch, is_noting);
        }
        if self.shared.keeper.wants_log_restart() {
            let _turn = self.turn.blocking_lock();
            // With everyone else kept out, the rest of the log is small and nothing is added to it
            // meanwhile, so that the next commit starts the log anew.
            checkpoint(&self.db);
        }
    }

    fn commit_in_turn(&mut self, waiting: &mut Vec<Waiting>, batch: &mut Batch, is_noting: bool) {
        let began = Instant::now();
        let turn = Arc::clone(&self.turn);
        let committed = {
            let _turn = turn.blocking_lock();
            self.commit(waiting, batch, is_noting)
        };
        match committed {
            Ok(()) => {
                if is_noting {
                    self.counts.clear();
                    self.note_at = Instant::now() + NOTE_EVERY;
                }
                self.settle(waiting, batch, began);
            }
            Err(error) => self.fail(waiting, &error),
        }
    }

    /// Loses the newest held outcomes when there are too many: the next start finds their uses.
    fn bound_held(&mut self) {
        let lost = self.held.len().saturating_sub(MAX_OUTCOMES);
        if lost > 0 {
            self.held.truncate(MAX_OUTCOMES);
            let lost = u64::try_from(lost).unwrap_or(u64::MAX);
            self.shared
                .stats
                .lost_outcomes
                .fetch_add(lost, std::sync::atomic::Ordering::Relaxed);
        }
    }

    /// One transaction: the decisions, their records, and the outcomes held until now.
    fn commit(
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
        if let Some(pragma) = self.shared.before_next.lock().take() {
            self.db.execute_batch(pragma)?;
        }
        self.db.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        self.settle_uncertain()?;
        self.book.refresh(&self.db)?;
        let now = self.shared.time.now();
        self.writer.begin(self.heads.ledger.get(), now);
        self.append(waiting, batch)?;
        self.book.write_windows(&self.db)?;
        if is_noting {
            self.note(batch, now)?;
        }
        self.uncertain = Some(Uncertain {
            link: self.writer.link,
            uses: Vec::new(),
        });
        let committed = self.db.prepare_cached("COMMIT")?.execute([]);
        if let Some(uncertain) = &mut self.uncertain
            && committed.is_err()
        {
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
        let position = self.heads.ledger.stream.position(uncertain.link.seq);
        let stored = self
            .db
            .prepare_cached("SELECT 1 FROM audit_events WHERE position = ?1 AND hash = ?2")
            .and_then(|mut query| query.exists(params![position, &uncertain.link.hash[..]]));
        match stored {
            Ok(true) => {
                self.heads.ledger.set(uncertain.link);
                self.open_uses.extend(uncertain.uses);
            }
            Ok(false) => {}
            Err(error) => {
                self.uncertain = Some(uncertain);
                return Err(error);
            }
        }
        Ok(())
    }

    fn append(&mut self, waiting: &[Waiting], batch: &mut Batch) -> rusqlite::Result<()> {
        let Self {
            db,
            book,
            writer,
            heads,
            held,
            ..
        } = self;
        let stream = &heads.ledger.stream;
        let mut insert = db.prepare_cached(INSERT_EVENT)?;
        for job in waiting {
            match job {
                Waiting::Use(request, _) => {
                    let decided = book.decide(db, request, writer.now)?;
                    let answer = match decided {
                        Ok(opening) => {
                            let recorded =
                                writer.record_use(stream, &mut insert, request, opening)?;
                            batch.uses.push((recorded.use_id.clone(), writer.link.seq));
                            Ok(recorded)
                        }
                        Err(refusal) => {
                            writer.record_use_refusal(stream, &mut insert, request, &refusal)?;
                            batch.refusals += 1;
                            Err(refusal)
                        }
                    };
                    batch.answers.push(Answer::Use(answer));
                }
                Waiting::Refusal(refused, _) => {
                    writer.record_refusal(stream, &mut insert, refused)?;
                    batch.refusals += 1;
                    batch.answers.push(Answer::Refusal);
                }
            }
        }
        for outcome in held.iter() {
            writer.record_outcome(stream, &mut insert, outcome)?;
        }
        batch.records = u64::try_from(waiting.len() + held.len()).unwrap_or(u64::MAX);
        Ok(())
    }

    /// Writes the display counts and the place where a recovery would begin.
    fn note(&self, batch: &Batch, now: i64) -> rusqlite::Result<()> {
        let mut lease = self
            .db
            .prepare_cached("UPDATE leases SET uses = uses + ?1 WHERE id = ?2")?;
        for (id, uses) in &self.counts.leases {
            lease.execute((uses, id.as_str()))?;
        }
        let mut agent = self.db.prepare_cached(
            "UPDATE agents SET last_used_at = ?1 WHERE id = ?2 AND deleted_at IS NULL",
        )?;
        for (id, used_at) in &self.counts.agents {
            agent.execute((used_at, id.as_str()))?;
        }
        let settled: Vec<&UseId> = self.held.iter().map(|outcome| &outcome.use_id).collect();
        let settled: std::collections::HashSet<&UseId> = settled.into_iter().collect();
        let open_from = self
            .open_uses
            .iter()
            .map(|(id, seq)| (id, *seq))
            .chain(batch.uses.iter().map(|(id, seq)| (id, *seq)))
            .filter(|(id, _)| !settled.contains(id))
            .map(|(_, seq)| seq)
            .min()
            .unwrap_or(self.writer.link.seq + 1);
        self.db
            .prepare_cached(
                "UPDATE ledger_state SET time_seen = ?1, open_from = ?2 WHERE node = ?3",
            )?
            .execute((now, open_from.cast_signed(), &self.node))?;
        Ok(())
    }

    /// After a commit: moves the head, counts, and tells the callers.
    fn settle(&mut self, waiting: &mut Vec<Waiting>, batch: &mut Batch, began: Instant) {
        self.heads.ledger.set(self.writer.link);
        self.retry_at = None;
        for outcome in self.held.drain(..) {
            self.open_uses.remove(&outcome.use_id);
        }
        self.shared
            .stats
            .held_outcomes
            .store(0, std::sync::atomic::Ordering::Relaxed);
        self.pace.note(batch.uses.len(), Instant::now());
        let uses = u64::try_from(batch.uses.len()).unwrap_or(u64::MAX);
        self.shared
            .stats
            .committed(uses, batch.refusals, began.elapsed());
        self.shared.keeper.wrote((batch.records + 4) * RECORD_BYTES);
        self.open_uses.extend(batch.uses.drain(..));
        for (job, answer) in waiting.drain(..).zip(batch.answers.drain(..)) {
            self.tell(job, answer);
        }
    }

    fn tell(&mut self, job: Waiting, answer: Answer) {
        match (job, answer) {
            (Waiting::Use(request, sender), Answer::Use(decided)) => {
                if decided.is_ok() {
                    self.counts.used(&request, self.writer.now);
                }
                if let Err(Ok(unheard)) = sender.send(decided) {
                    // Its caller gave up meanwhile and sends nothing: the use stays consumed.
                    self.held.push_back(abandoned(&request, unheard.use_id));
                }
            }
            (Waiting::Refusal(_, sender), Answer::Refusal) => {
                // A caller that no longer listens does not need to know.
                let _unheard = sender.send(Ok(()));
            }
            (Waiting::Use(..), Answer::Refusal) | (Waiting::Refusal(..), Answer::Use(_)) => {
                unreachable!("answers are made in the order of their jobs")
            }
        }
    }

    /// After a batch that was not committed: rolls back, refuses the callers, keeps the outcomes.
    fn fail(&mut self, waiting: &mut Vec<Waiting>, error: &BatchError) {
        let message = error.to_string();
        self.shared.stats.failed(&message, error.is_busy());
        self.shared
            .stats
            .held_outcomes
            .store(self.held.len(), std::sync::atomic::Ordering::Relaxed);
        self.book.clear();
        self.retry_at = Some(Instant::now() + RETRY_AFTER);
        self.note_at = self.note_at.max(Instant::now() + RETRY_AFTER);
        let is_open = !self.db.is_autocommit();
        let is_rolled_back = !is_open || self.db.execute_batch("ROLLBACK").is_ok();
        self.is_stale = !is_rolled_back || error.needs_new_connection();
        if error.is_taken_position() {
            self.step_over();
        }
        for job in waiting.drain(..) {
            // A caller that no longer listens does not need to know.
            match job {
                Waiting::Use(_, sender) => {
                    let refusal = UseRefusal::Unavailable(message.clone());
                    drop(sender.send(Err(refusal)));
                }
                Waiting::Refusal(_, sender) => {
                    drop(sender.send(Err(LedgerError::Unavailable(message.clone()))));
                }
            }
        }
    }

    /// Someone else put a record where the next one belongs. It is left there for verification to
    /// name, and the chain goes on behind it from the head in memory.
    fn step_over(&mut self) {
        let head = &self.heads.ledger;
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

    /// Writes a last time, and that the ledger ended in order.
    fn finish(mut self) {
        self.commit_in_turn(&mut Vec::new(), &mut Batch::default(), true);
        let closed = self.db.execute(
            "UPDATE ledger_state SET is_open = 0 WHERE node = ?1",
            [&self.node],
        );
        if let Err(error) = closed {
            tracing::warn!(%error, "the ledger could not note that it ended in order");
        }
    }
}

/// Ends queue and keeper with the thread, also when it panics: uses are then refused at once, and
/// not only after their deadline.
struct EndOnDrop(Arc<Shared>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.0.queue.end();
        self.0.keeper.end();
    }
}

/// Copies the log into the database. How far it got is the keeper's concern.
fn checkpoint(db: &Connection) {
    if let Err(error) = db.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())) {
        tracing::warn!(%error, "the log could not be copied into the database");
    }
}

fn abandoned(request: &UseRequest, use_id: UseId) -> Outcome {
    Outcome {
        use_id,
        org: request.org.clone(),
        lease: request.lease.clone(),
        agent: request.agent.clone(),
        set: request.set.clone(),
        grant: request.grant.clone(),
        request_id: request.request.request_id.clone(),
        status: None,
        error: Some("abandoned".to_owned()),
        bytes_up: 0,
        bytes_down: 0,
        duration_ms: 0,
        attempts: 0,
        address: None,
    }
}

impl Batch {
    fn clear(&mut self) {
        self.answers.clear();
        self.uses.clear();
        self.refusals = 0;
        self.records = 0;
    }
}

impl Counts {
    fn is_empty(&self) -> bool {
        self.agents.is_empty()
    }

    fn clear(&mut self) {
        self.leases.clear();
        self.agents.clear();
    }

    fn used(&mut self, request: &UseRequest, now: i64) {
        if request.kind == ::leases::scope::Kind::Workflow {
            if let Some(uses) = self.leases.get_mut(&request.lease) {
                *uses += 1;
            } else {
                self.leases.insert(request.lease.clone(), 1);
            }
        }
        if let Some(used_at) = self.agents.get_mut(&request.agent) {
            *used_at = now;
        } else {
            self.agents.insert(request.agent.clone(), now);
        }
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

/// Makes records, in buffers that are used again and again.
pub(super) struct Writer {
    link: Link,
    now: i64,
    created_at: String,
    created_at_of: i64,
    body: String,
    id: String,
    ulid: Ulid,
}

impl Writer {
    pub(super) fn new() -> Self {
        Self {
            link: Link::START,
            now: 0,
            created_at: String::new(),
            created_at_of: i64::MIN,
            body: String::with_capacity(1_024),
            id: String::with_capacity(32),
            ulid: Ulid::nil(),
        }
    }

    /// Takes up the chain at `link`, for records made at `now`.
    fn begin(&mut self, link: Link, now: i64) {
        self.link = link;
        self.now = now;
        if self.created_at_of != now {
            self.created_at_of = now;
            rfc3339(&mut self.created_at, now);
        }
    }

    fn record_use(
        &mut self,
        stream: &Stream,
        insert: &mut CachedStatement<'_>,
        request: &UseRequest,
        opening: Opening,
    ) -> rusqlite::Result<RecordedUse> {
        self.next_id();
        let use_id = UseId::parse(&format!("{}{}", UseId::PREFIX, &self.id[4..]))
            .expect("a ULID after the prefix is an id");
        let draft = Draft {
            action: "lease.use",
            secret_version: Some(opening.version),
            use_id: Some(use_id.as_str()),
            keys: &opening.keys,
            ..use_draft(request)
        };
        self.insert(stream, insert, &draft)?;
        Ok(RecordedUse {
            use_id,
            set: request.set.clone(),
            secret_set_version: opening.version,
            keys: opening.keys,
            at: at(self.now),
        })
    }

    fn record_use_refusal(
        &mut self,
        stream: &Stream,
        insert: &mut CachedStatement<'_>,
        request: &UseRequest,
        refusal: &UseRefusal,
    ) -> rusqlite::Result<()> {
        self.next_id();
        let draft = Draft {
            action: "lease.refuse",
            decision: Decision::Deny,
            error: Some(refusal.code()),
            ..use_draft(request)
        };
        self.insert(stream, insert, &draft)
    }

    fn record_refusal(
        &mut self,
        stream: &Stream,
        insert: &mut CachedStatement<'_>,
        refused: &Refused,
    ) -> rusqlite::Result<()> {
        self.next_id();
        let agent = refused.agent.as_ref().map(AgentId::as_str);
        let draft = Draft {
            action: "lease.refuse",
            decision: Decision::Deny,
            error: Some(&refused.error),
            org_id: refused.org.as_str(),
            actor_type: if agent.is_some() { "agent" } else { "system" },
            actor_id: agent.unwrap_or("injector"),
            agent_id: agent,
            lease_id: refused.lease.as_ref().map(LeaseId::as_str),
            grant_id: refused.grant.as_ref().map(AsRef::as_ref),
            secret_set_id: refused.set.as_ref().map(AsRef::as_ref),
            ..request_draft(&refused.request)
        };
        self.insert(stream, insert, &draft)
    }

    fn record_outcome(
        &mut self,
        stream: &Stream,
        insert: &mut CachedStatement<'_>,
        outcome: &Outcome,
    ) -> rusqlite::Result<()> {
        self.next_id();
        let draft = Draft {
            action: "lease.outcome",
            error: outcome.error.as_deref(),
            org_id: outcome.org.as_str(),
            actor_type: "agent",
            actor_id: outcome.agent.as_str(),
            agent_id: Some(outcome.agent.as_str()),
            lease_id: Some(outcome.lease.as_str()),
            grant_id: Some(outcome.grant.as_str()),
            secret_set_id: Some(outcome.set.as_str()),
            use_id: Some(outcome.use_id.as_str()),
            request_id: Some(&outcome.request_id),
            address: outcome.address,
            status: outcome.status,
            bytes_up: Some(outcome.bytes_up),
            bytes_down: Some(outcome.bytes_down),
            duration_ms: Some(outcome.duration_ms),
            attempts: Some(outcome.attempts),
            ..Draft::default()
        };
        self.insert(stream, insert, &draft)
    }

    /// Puts the draft at the end of the chain.
    fn insert(
        &mut self,
        stream: &Stream,
        insert: &mut CachedStatement<'_>,
        draft: &Draft<'_>,
    ) -> rusqlite::Result<()> {
        let draft = Draft {
            id: &self.id,
            stream: &stream.name,
            seq: self.link.seq + 1,
            created_at: &self.created_at,
            ..*draft
        };
        draft.write(&mut self.body);
        let next = self.link.next(&self.body);
        insert.execute(params![
            stream.position(next.seq),
            draft.org_id,
            self.now,
            draft.action,
            draft.agent_id,
            draft.lease_id,
            draft.secret_set_id,
            &self.link.hash[..],
            &next.hash[..],
            self.body,
        ])?;
        self.link = next;
        Ok(())
    }

    /// The next event's id: within a millisecond the one before plus one, so that ids sort by
    /// their place and the system is asked for random bits once a millisecond.
    fn next_id(&mut self) {
        let millis = u64::try_from(self.now).unwrap_or(0);
        self.ulid = if self.ulid.timestamp_ms() == millis {
            self.ulid.increment()
        } else {
            None
        }
        .unwrap_or_else(|| {
            let mut random = [0; 16];
            getrandom::fill(&mut random)
                .expect("the operating system has a source of random bytes");
            // The top bit stays clear: room to count up.
            Ulid::from_parts(millis, u128::from_be_bytes(random) >> 49)
        });
        self.id.clear();
        self.id.push_str("evt_");
        self.id
            .push_str(self.ulid.array_to_str(&mut [0; ulid::ULID_LEN]));
    }
}

fn use_draft(request: &UseRequest) -> Draft<'_> {
    Draft {
        org_id: request.org.as_str(),
        actor_type: "agent",
        actor_id: request.agent.as_str(),
        agent_id: Some(request.agent.as_str()),
        lease_id: Some(request.lease.as_str()),
        grant_id: Some(request.grant.as_str()),
        secret_set_id: Some(request.set.as_str()),
        keys: &request.keys,
        ..request_draft(&request.request)
    }
}

fn request_draft(request: &RequestFacts) -> Draft<'_> {
    Draft {
        request_id: Some(&request.request_id),
        client_ip: Some(request.client_ip),
        method: Some(&request.method),
        scheme: Some(request.scheme),
        host: Some(&request.host),
        port: Some(request.port),
        address: request.address,
        path: Some(&request.path),
        ..Draft::default()
    }
}
