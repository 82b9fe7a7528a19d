//! Starting the ledger: where the chain goes on, and what the last run left unfinished.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;
use rusqlite::{Connection, OptionalExtension as _, TransactionBehavior, params};

use super::docket::{self, Docket, Left};
use super::keeper::{Keeper, Keeping};
use super::queue::Queue;
use super::rollback::{Began, Loss, Rollback, settle};
use super::standing::{FileReaders, Readers};
use super::stats::Stats;
use super::worker::{Source, Worker};
use super::{Hold, Outcome, Shared, Start, ThisNode};
use crate::audit::CHECKPOINT_KEY;
use crate::audit::checkpoint::{Carried, Checkpoint};
use crate::chain::{Head, Heads, Link, Stream};
use crate::timekeeper::at;
use crate::{Event, OpenError, Restored, StoreError, epoch};

/// How often the time is written when nothing happens.
const IDLE_NOTE_EVERY: Duration = Duration::from_mins(1);

/// Opens the ledger's connection, takes up the chain and starts both threads.
pub(super) fn start(start: Start) -> Result<(Arc<Shared>, Arc<Heads>), OpenError> {
    let Start {
        options,
        time,
        turn,
        lock,
        ..
    } = start;
    let path = options.location.as_file().ok_or(StoreError::Closed)?;
    let lock = lock.ok_or(StoreError::Closed)?;
    let database = Source {
        path: path.to_owned(),
        synchronous: options.synchronous,
    };
    let mut db = database.open().map_err(unavailable)?;
    let keeper_db = database.open().map_err(unavailable)?;
    let ends = [
        end_of(&db, &format!("{}/control", options.node)).map_err(unavailable)?,
        end_of(&db, &format!("{}/ledger", options.node)).map_err(unavailable)?,
    ];
    let expects_signed = signs_heads(&db).map_err(unavailable)?;
    let TakenUp {
        heads,
        carried,
        rollback,
        disputed,
    } = take_up(ends, &options.checkpoint, expects_signed, |stream, seq| {
        link_at(&db, stream, seq).map_err(unavailable)
    })?;
    let stats = Stats::default();
    let open_from = begin_run(&db, &options.node, &time, &stats).map_err(unavailable)?;
    for head in heads.each() {
        if let Some(at) = last_time(&db, &head.stream).map_err(unavailable)? {
            time.reached(at);
        }
    }
    if let Some(rollback) = rollback {
        let began = begin_epoch(&mut db, &options.node, &heads, &rollback, time.now());
        let began = began.map_err(unavailable)?;
        rollback.tell(&began.restored);
        stats.began_epoch(began);
    }
    set_aside(disputed, &options.checkpoint)?;
    let left = find_left(&db, &heads.ledger.stream, open_from).map_err(unavailable)?;
    let heads = Arc::new(heads);
    let this_node = ThisNode::new(&options.node, time.now());
    let shared = Arc::new(Shared {
        queue: Queue::default(),
        stats,
        time,
        keeper: Keeper::default(),
        readers: Readers::Sqlite(Box::new(FileReaders::new(path.to_owned()))),
        threads: Mutex::default(),
        probing: tokio::sync::Mutex::default(),
        this_node,
        dead_after: Mutex::new(Duration::MAX),
        #[cfg(test)]
        before_next: Mutex::default(),
        #[cfg(test)]
        lose_next_answer: std::sync::atomic::AtomicBool::default(),
    });
    let worker = Worker {
        docket: Docket::new(
            Arc::clone(&shared),
            Arc::clone(&heads),
            left,
            IDLE_NOTE_EVERY,
        ),
        turn,
        database,
        db,
        node: options.node,
        uncertain: None,
        is_stale: false,
        _lock: Arc::clone(&lock),
    };
    let keeping = Keeping {
        shared: Arc::clone(&shared),
        heads: Arc::clone(&heads),
        db: Some(keeper_db),
        checkpoint: options.checkpoint,
        carried,
        _lock: Some(lock),
    };
    let threads = [
        spawn("ledger", move || docket::run(worker))?,
        spawn("ledger-keeper", move || keeping.run())?,
    ];
    shared.threads.lock().extend(threads);
    Ok((shared, heads))
}

pub(super) fn spawn(
    name: &str,
    work: impl FnOnce() + Send + 'static,
) -> Result<std::thread::JoinHandle<()>, OpenError> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .map_err(|source| OpenError::Io {
            path: name.into(),
            source,
        })
}

fn unavailable(error: rusqlite::Error) -> OpenError {
    OpenError::Store(StoreError::Unavailable(std::io::Error::other(error).into()))
}

/// Where the chain goes on.
pub(super) struct TakenUp {
    pub(super) heads: Heads,
    pub(super) carried: Carried,
    /// What the database no longer holds.
    pub(super) rollback: Option<Rollback>,
    /// A checkpoint that the chain contradicts. It is set aside once the epoch has begun, and found again until then.
    pub(super) disputed: Option<Checkpoint>,
}

/// Finds the heads to go on from: the table's, or the signed ones where those are ahead.
///
/// A tail that was cut while nothing ran would otherwise be filled up with new records, and the
/// next signature would cover the cut. With `expects_signed`, a stream that has records and no
/// signed head at all counts as one that lost some: nothing tells that it did not.
pub(super) fn take_up(
    ends: [(Stream, Link); 2],
    checkpoint: &std::path::Path,
    expects_signed: bool,
    mut link_at: impl FnMut(&Stream, u64) -> Result<Option<Link>, OpenError>,
) -> Result<TakenUp, OpenError> {
    let names = ends.each_ref().map(|(stream, _)| stream.name.to_string());
    let [control, ledger] = ends;
    let signed = Checkpoint::read(checkpoint).map_err(|reason| OpenError::Checkpoint {
        path: checkpoint.to_owned(),
        reason,
    })?;
    let mut is_disputed = false;
    let mut losses = Vec::new();
    let mut take = |(stream, last): (Stream, Link)| -> Result<Head, OpenError> {
        let loss = |signed: Option<Link>| Loss {
            stream: stream.name.to_string(),
            found: last.seq,
            signed: signed.map(|signed| signed.seq),
        };
        let head = signed.as_ref().and_then(|signed| signed.head(&stream.name));
        let Some(head) = head else {
            if signed.is_none() && expects_signed && last.seq > 0 {
                losses.push(loss(None));
            }
            return Ok(Head::new(stream, last));
        };
        if head.seq > last.seq {
            losses.push(loss(Some(head)));
            return Ok(Head::new(stream, head));
        }
        if link_at(&stream, head.seq)? != Some(head) {
            // Another history than the one that was signed, so other leases too.
            is_disputed = true;
            losses.push(loss(Some(head)));
        }
        Ok(Head::new(stream, last))
    };
    let heads = Heads {
        control: take(control)?,
        ledger: take(ledger)?,
    };
    let mut carried = Carried::default();
    let mut disputed = None;
    if let Some(signed) = signed {
        carried = signed.others(&names);
        disputed = is_disputed.then_some(signed);
    }
    Ok(TakenUp {
        heads,
        carried,
        rollback: Rollback::of(losses),
        disputed,
    })
}

/// Keeps a checkpoint that the chain contradicts where verification finds it and no start takes it up.
pub(super) fn set_aside(
    disputed: Option<Checkpoint>,
    checkpoint: &std::path::Path,
) -> Result<(), OpenError> {
    let set_aside = disputed.map(|disputed| disputed.keep_as_disputed(checkpoint));
    set_aside.unwrap_or(Ok(())).map_err(|source| OpenError::Io {
        path: checkpoint.to_owned(),
        source,
    })
}

/// Whether heads have been signed beside this database: with the first of them its key was stored.
fn signs_heads(db: &Connection) -> rusqlite::Result<bool> {
    db.prepare("SELECT 1 FROM sealed_keys WHERE name = ?1 OR name LIKE ?1 || '/%'")?
        .exists([CHECKPOINT_KEY])
}

/// Ends every lease and tells of it, in one transaction, before anything else is written.
fn begin_epoch(
    db: &mut Connection,
    node: &str,
    heads: &Heads,
    rollback: &Rollback,
    now: i64,
) -> rusqlite::Result<Began> {
    let last_times = heads.each().map(|head| last_time(db, &head.stream));
    let mut restored_to = None;
    for last in last_times {
        restored_to = restored_to.max(last?);
    }
    let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let ended = tx.execute(epoch::END_LEASES, [now])?;
    tx.execute(epoch::END_APPROVALS, [now])?;
    tx.execute(epoch::FORGET_ANSWERS, [])?;
    let orgs = tx
        .prepare(epoch::ORGS)?
        .query_map([], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    let records = rollback.records(node, heads, orgs, now);
    for record in &records {
        tx.execute(
            INSERT_RECORD,
            params![
                record.position,
                record.org,
                now,
                epoch::ACTION,
                record.prev.hash,
                record.link.hash,
                record.body
            ],
        )?;
    }
    let epochs: i64 = tx.query_row(COUNT_EPOCH, [node], |row| row.get(0))?;
    tx.commit()?;
    settle(heads, &records);
    Ok(Began {
        restored: Restored {
            restored_to: restored_to.map(at),
            ended_leases: ended as u64,
        },
        epochs: epochs.cast_unsigned(),
    })
}

const INSERT_RECORD: &str = "INSERT INTO audit_events \
    (position, org_id, created_at, action, prev_hash, hash, body) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
const COUNT_EPOCH: &str = "UPDATE ledger_state SET restore_epochs = restore_epochs + 1 \
    WHERE node = ?1 RETURNING restore_epochs";

/// The stream of that name and where its records end.
fn end_of(db: &Connection, name: &str) -> rusqlite::Result<(Stream, Link)> {
    let stream = stream(db, name)?;
    let last = last_link(db, &stream)?;
    Ok((stream, last))
}

/// The stream of that name, which this adds if it is new.
fn stream(db: &Connection, name: &str) -> rusqlite::Result<Stream> {
    db.execute(
        "INSERT INTO audit_streams (number, stream) \
         SELECT COALESCE(MAX(number), 0) + 1, ?1 FROM audit_streams \
         WHERE true ON CONFLICT (stream) DO NOTHING",
        [name],
    )?;
    let number = db.query_row(
        "SELECT number FROM audit_streams WHERE stream = ?1",
        [name],
        |row| row.get(0),
    )?;
    Ok(Stream {
        number,
        name: name.into(),
    })
}

fn last_link(db: &Connection, stream: &Stream) -> rusqlite::Result<Link> {
    let last = db
        .query_row(
            "SELECT position, hash FROM audit_events \
             WHERE position > ?1 AND position < ?2 ORDER BY position DESC LIMIT 1",
            [stream.floor(), stream.ceiling()],
            |row| {
                Ok(Link {
                    seq: Stream::seq(row.get(0)?),
                    hash: row.get(1)?,
                })
            },
        )
        .optional()?;
    Ok(last.unwrap_or(Link::START))
}

fn link_at(db: &Connection, stream: &Stream, seq: u64) -> rusqlite::Result<Option<Link>> {
    if seq == 0 {
        return Ok(Some(Link::START));
    }
    db.query_row(
        "SELECT hash FROM audit_events WHERE position = ?1",
        [stream.position(seq)],
        |row| {
            let hash = row.get(0)?;
            Ok(Link { seq, hash })
        },
    )
    .optional()
}

fn last_time(db: &Connection, stream: &Stream) -> rusqlite::Result<Option<i64>> {
    db.query_row(
        "SELECT created_at FROM audit_events \
         WHERE position > ?1 AND position < ?2 ORDER BY position DESC LIMIT 1",
        [stream.floor(), stream.ceiling()],
        |row| row.get(0),
    )
    .optional()
}

/// Notes that a run begins and gives the place from which uses may lack an outcome.
fn begin_run(
    db: &Connection,
    node: &str,
    time: &crate::timekeeper::Timekeeper,
    stats: &Stats,
) -> rusqlite::Result<u64> {
    db.execute(
        "INSERT INTO ledger_state (node, time_seen, open_from, is_open, unclean_starts) \
         VALUES (?1, 0, 1, 0, 0) ON CONFLICT (node) DO NOTHING",
        [node],
    )?;
    db.execute(
        "UPDATE ledger_state SET unclean_starts = unclean_starts + is_open, is_open = 1 \
         WHERE node = ?1",
        [node],
    )?;
    let (seen, open_from, unclean, epochs): (i64, i64, i64, i64) = db.query_row(
        "SELECT time_seen, open_from, unclean_starts, restore_epochs FROM ledger_state WHERE node = ?1",
        [node],
        |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)),
    )?;
    time.reached(seen);
    stats
        .unclean_starts
        .store(unclean.cast_unsigned(), Ordering::Relaxed);
    stats
        .restore_epochs
        .store(epochs.cast_unsigned(), Ordering::Relaxed);
    Ok(open_from.cast_unsigned())
}

/// Finds uses that have no outcome: whatever ended the last run, nobody knows how they ended.
fn find_left(db: &Connection, stream: &Stream, from: u64) -> rusqlite::Result<Left> {
    let mut open: HashMap<String, (u64, Event)> = HashMap::new();
    let mut query = db.prepare(
        "SELECT position, action, body FROM audit_events WHERE position >= ?1 AND position < ?2 \
         AND action IN ('lease.use', 'lease.outcome') ORDER BY position",
    )?;
    let mut rows = query.query(params![stream.position(from.max(1)), stream.ceiling()])?;
    while let Some(row) = rows.next()? {
        // A record that cannot be read is for verification to name.
        let Ok(event) = serde_json::from_str::<Event>(row.get_ref(2)?.as_str()?) else {
            continue;
        };
        let Some(use_id) = event.use_id.clone() else {
            continue;
        };
        if event.action == "lease.use" {
            open.insert(use_id, (Stream::seq(row.get(0)?), event));
        } else {
            open.remove(&use_id);
        }
    }
    Ok(Left::of(open.into_values()))
}

impl Left {
    /// Uses that nobody saw end, by their places and events.
    pub(super) fn of(uses: impl Iterator<Item = (u64, Event)>) -> Self {
        let mut left = Self::default();
        for (seq, event) in uses {
            if let Some(outcome) = unknown(&event) {
                left.open_uses.insert(outcome.use_id.clone(), seq);
                left.outcomes.push_back(outcome);
            }
        }
        left
    }
}

/// The outcome of a use that nobody saw end.
fn unknown(event: &Event) -> Option<Outcome> {
    Some(Outcome {
        use_id: event.use_id.as_deref()?.parse().ok()?,
        org: event.org_id.parse().ok()?,
        lease: event.lease_id.as_deref()?.parse().ok()?,
        agent: event.agent_id.as_deref()?.parse().ok()?,
        set: event.secret_set_id.as_deref()?.parse().ok()?,
        grant: event.grant_id.as_deref()?.parse().ok()?,
        request_id: event.request_id.clone().unwrap_or_default(),
        status: None,
        error: Some("unknown".to_owned()),
        bytes_up: 0,
        bytes_down: 0,
        duration_ms: 0,
        attempts: 0,
        address: None,
        spent: event.hold().map(Hold::kept),
        reflections: 0,
    })
}
