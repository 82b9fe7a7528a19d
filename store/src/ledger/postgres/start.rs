//! Starting the ledger on Postgres: the node's name is taken, and its chain and unfinished uses with it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::Runtime;
use tokio_postgres::Client;
use tokio_postgres::types::{ToSql, Type};

use super::calls::CallError;
use super::epoch::{self, Owner};
use super::line::Line;
use super::neighbours::{self, Neighbours};
use super::sheet::Sheet;
use super::standing::{Reader, Shelf};
use super::{Desk, MAX_OUTCOMES, Worker};
use crate::chain::{Heads, Link, Stream};
use crate::ledger::docket::{self, Docket};
use crate::ledger::keeper::{Keeper, Keeping};
use crate::ledger::queue::Queue;
use crate::ledger::standing::Readers;
use crate::ledger::start::{set_aside, spawn, take_up};
use crate::ledger::stats::Stats;
use crate::ledger::{Shared, Start, ThisNode};
use crate::{DatabaseError, Location, OpenError, StoreError};

/// How often the heartbeat is written when nothing happens; a lost connection is noticed by it too.
const IDLE_NOTE_EVERY: Duration = Duration::from_secs(2);
/// A node that is silent for so long has its open uses closed by another.
const DEAD_AFTER: Duration = Duration::from_mins(5);

/// What the database tells when a run begins.
struct Begun {
    ends: [(Stream, Link); 2],
    time_seen: i64,
    open_from: i64,
    unclean_starts: i64,
    restore_epochs: i64,
}

impl Begun {
    fn stats(&self) -> Stats {
        let stats = Stats::default();
        for (counter, before) in [
            (&stats.unclean_starts, self.unclean_starts),
            (&stats.restore_epochs, self.restore_epochs),
        ] {
            counter.store(before.cast_unsigned(), Ordering::Relaxed);
        }
        stats
    }
}

/// Connects, takes the node's name and starts both threads.
pub(in crate::ledger) fn start(start: Start) -> Result<(Arc<Shared>, Arc<Heads>), OpenError> {
    let Start {
        options,
        time,
        run,
        #[cfg(test)]
        turn,
        ..
    } = start;
    let Location::Postgres(url) = options.location else {
        return Err(StoreError::Closed.into());
    };
    let runtime = runtime()?;
    let client = runtime
        .block_on(crate::postgres::connect(&url))
        .map_err(StoreError::from)?;
    let begun = runtime
        .block_on(begin(&client, &options.node, &run))
        .map_err(unavailable)?;
    let stats = begun.stats();
    time.reached(begun.time_seen);
    // A node may have lost its directory, as containers do, and its neighbours' leases would end with it.
    let expects_signed = false;
    let link_at = |stream: &Stream, seq| {
        let link = link_at(&client, stream, seq);
        runtime.block_on(link).map_err(unavailable)
    };
    let taken_up = take_up(begun.ends, &options.checkpoint, expects_signed, link_at)?;
    let heads = taken_up.heads;
    let number = heads.ledger.stream.number;
    let left = runtime
        .block_on(neighbours::open_uses(&client, number, begun.open_from))
        .map_err(unavailable)?;
    if let Some(rollback) = taken_up.rollback {
        let owner = Owner {
            node: &options.node,
            run: &run,
            writer: &run,
        };
        let epoch = epoch::begin(&client, owner, &heads, &rollback, time.now());
        let epoch = runtime.block_on(epoch).map_err(unavailable)?;
        rollback.tell(&epoch.restored);
        stats.began_epoch(epoch);
    }
    set_aside(taken_up.disputed, &options.checkpoint)?;
    let heads = Arc::new(heads);
    let shelf = Arc::<Shelf>::default();
    let shared = Arc::new(Shared {
        queue: Queue::default(),
        stats,
        keeper: Keeper::default(),
        readers: Readers::Postgres(Reader::new(url.clone(), Arc::clone(&shelf))),
        threads: Mutex::default(),
        probing: tokio::sync::Mutex::default(),
        this_node: ThisNode::new(&options.node, time.now()),
        time,
        dead_after: Mutex::new(DEAD_AFTER),
        #[cfg(test)]
        before_next: Mutex::default(),
        #[cfg(test)]
        lose_next_answer: std::sync::atomic::AtomicBool::default(),
    });
    let mut docket = Docket::new(
        Arc::clone(&shared),
        Arc::clone(&heads),
        left,
        IDLE_NOTE_EVERY,
    );
    docket.max_outcomes = MAX_OUTCOMES;
    let line = Line {
        url,
        node: options.node,
        writer: run.to_string(),
        run,
        stream: heads.ledger.stream.clone(),
        connections: 0,
        client: Some(client),
    };
    let keeping = Keeping {
        shared: Arc::clone(&shared),
        heads: Arc::clone(&heads),
        db: None,
        checkpoint: options.checkpoint,
        carried: taken_up.carried,
        _lock: None,
    };
    let worker = Worker {
        docket,
        runtime,
        desk: desk(line, shelf),
        #[cfg(test)]
        turn,
    };
    let threads = [
        spawn("ledger", move || docket::run(worker))?,
        spawn("ledger-keeper", move || keeping.run())?,
    ];
    shared.threads.lock().extend(threads);
    Ok((shared, heads))
}

/// What the ledger's thread waits by.
fn runtime() -> Result<Runtime, OpenError> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| OpenError::Io {
            path: "the ledger's runtime".into(),
            source,
        })
}

fn desk(line: Line, shelf: Arc<Shelf>) -> Desk {
    Desk {
        line,
        sheet: Sheet::default(),
        doubt: None,
        neighbours: Neighbours::default(),
        shelf,
        was_closed: false,
        skew: None,
        is_skewed: false,
        is_away: false,
    }
}

fn unavailable(error: CallError) -> OpenError {
    let error = match error {
        CallError::Postgres(error) => error.into(),
        CallError::Connect(error) => error,
        CallError::Unreadable(error) => DatabaseError::Io(std::io::Error::other(error)),
    };
    StoreError::Unavailable(error).into()
}

/// Takes the node's name and with it both streams. Whoever had it before writes no more.
async fn begin(client: &Client, node: &str, run: &str) -> Result<Begun, CallError> {
    let values: [(&(dyn ToSql + Sync), Type); 2] = [(&node, Type::TEXT), (&run, Type::TEXT)];
    let row = client
        .query_typed_one("SELECT * FROM node_begin($1, $2)", &values)
        .await?;
    let end = |plane: &str, column: usize| {
        let stream = Stream {
            number: row.try_get(column)?,
            name: format!("{node}/{plane}").into(),
        };
        let seq: Option<i64> = row.try_get(column + 1)?;
        let hash: Option<&[u8]> = row.try_get(column + 2)?;
        let link = seq.zip(hash).map_or(Link::START, |(seq, hash)| Link {
            seq: seq.cast_unsigned(),
            // A hash of another length was put there by someone else, and verification names it.
            hash: hash.try_into().unwrap_or_default(),
        });
        Ok::<_, tokio_postgres::Error>((stream, link))
    };
    Ok(Begun {
        ends: [end("control", 0)?, end("ledger", 3)?],
        time_seen: row.try_get(6)?,
        open_from: row.try_get(8)?,
        unclean_starts: row.try_get(9)?,
        restore_epochs: row.try_get(10)?,
    })
}

async fn link_at(client: &Client, stream: &Stream, seq: u64) -> Result<Option<Link>, CallError> {
    if seq == 0 {
        return Ok(Some(Link::START));
    }
    let position = seq.cast_signed();
    let values: [(&(dyn ToSql + Sync), Type); 2] =
        [(&stream.number, Type::INT8), (&position, Type::INT8)];
    let row = client
        .query_typed_one("SELECT audit_stream_link($1, $2)", &values)
        .await?;
    let hash: Option<&[u8]> = row.try_get(0)?;
    Ok(hash.and_then(|hash| {
        let hash = hash.try_into().ok()?;
        Some(Link { seq, hash })
    }))
}
