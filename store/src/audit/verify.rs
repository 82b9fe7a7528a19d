//! Verification: walks every stream once, in bounded memory, and names what is not as written.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use rusqlite::{Connection, OpenFlags, OptionalExtension as _, Row, params};
use serde::Deserialize;

use super::checkpoint::Checkpoint;
use super::{
    BadReason, BadRecord, CHECKPOINT_KEY, RolledBack, StreamReport, VerifyError, VerifyReport,
};
use crate::chain::{Link, Stream, hash};
use crate::timekeeper::millis;

/// Records read by one statement. Between statements no snapshot is held, so that a long
/// verification does not keep the log from being copied.
const ROWS: i64 = 10_000;

/// What the chain is held against.
#[derive(Debug)]
pub(super) struct Evidence {
    pub(super) database: PathBuf,
    pub(super) checkpoint: PathBuf,
    /// The key that must have signed; without it one of those in the database.
    pub(super) trusted_key: Option<[u8; 32]>,
    /// Heads that a live writer holds.
    pub(super) in_memory: BTreeMap<String, Link>,
}

/// What one stream has to agree with.
#[derive(Debug, Default)]
struct Expected {
    /// By place: the hash that was signed there.
    signed: BTreeMap<u64, [u8; 32]>,
    in_memory: Option<Link>,
}

/// Verifies every stream.
pub(super) fn verify(evidence: &Evidence) -> Result<VerifyReport, VerifyError> {
    let checkpoints = Checkpoint::read_all(&evidence.checkpoint)
        .map_err(|(path, reason)| VerifyError::Checkpoint { path, reason })?;
    let database = |error: rusqlite::Error| VerifyError::Database {
        path: evidence.database.clone(),
        reason: error.to_string(),
    };
    let db = Connection::open_with_flags(&evidence.database, OpenFlags::SQLITE_OPEN_READ_ONLY)
        .map_err(database)?;
    db.busy_timeout(std::time::Duration::from_secs(5))
        .map_err(database)?;
    let trusted = trusted_keys(&db, evidence.trusted_key).map_err(database)?;
    let mut expected: BTreeMap<String, Expected> = BTreeMap::new();
    let mut untrusted = None;
    for checkpoint in &checkpoints {
        let is_trusted =
            trusted.is_empty() || checkpoint.key().is_some_and(|key| trusted.contains(&key));
        for (stream, link) in checkpoint.heads() {
            if is_trusted {
                let expected = expected.entry(stream.to_owned()).or_default();
                expected.signed.insert(link.seq, link.hash);
            } else {
                untrusted = Some(bad_signature(stream, link));
            }
        }
    }
    for (stream, link) in &evidence.in_memory {
        expected.entry(stream.clone()).or_default().in_memory = Some(*link);
    }
    let mut versions = BTreeMap::new();
    let mut streams = Vec::new();
    for (stream, expected) in all_streams(&db, expected).map_err(database)? {
        streams.push(walk(&db, &stream, &expected, &mut versions).map_err(database)?);
    }
    let rolled_back = rolled_back(&db, versions).map_err(database)?;
    let first_bad = streams
        .iter()
        .find_map(|stream: &StreamReport| stream.first_bad.clone())
        .or(untrusted);
    Ok(VerifyReport {
        streams,
        first_bad,
        checkpoint_key: checkpoints
            .first()
            .and_then(Checkpoint::key)
            .map(hex::encode),
        rolled_back,
    })
}

fn trusted_keys(
    db: &Connection,
    trusted: Option<[u8; 32]>,
) -> rusqlite::Result<BTreeSet<[u8; 32]>> {
    if let Some(key) = trusted {
        return Ok([key].into());
    }
    let mut query = db.prepare("SELECT public FROM sealed_keys WHERE name = ?1")?;
    let keys = query.query_map([CHECKPOINT_KEY], |row| row.get::<_, Vec<u8>>(0))?;
    let mut trusted = BTreeSet::new();
    for key in keys {
        trusted.extend(<[u8; 32]>::try_from(key?));
    }
    Ok(trusted)
}

/// Every stream of the table or of the evidence; one without a number has no record at all.
fn all_streams(
    db: &Connection,
    mut expected: BTreeMap<String, Expected>,
) -> rusqlite::Result<Vec<(Stream, Expected)>> {
    let mut query = db.prepare("SELECT number, stream FROM audit_streams ORDER BY number")?;
    let mut rows = query.query([])?;
    let mut streams = Vec::new();
    while let Some(row) = rows.next()? {
        let name: String = row.get(1)?;
        let expected = expected.remove(&name).unwrap_or_default();
        let stream = Stream {
            number: row.get(0)?,
            name: name.into(),
        };
        streams.push((stream, expected));
    }
    streams.extend(expected.into_iter().map(|(name, expected)| {
        let stream = Stream {
            number: -1,
            name: name.into(),
        };
        (stream, expected)
    }));
    Ok(streams)
}

/// Walks one stream up to its end or its first bad record.
fn walk(
    db: &Connection,
    stream: &Stream,
    expected: &Expected,
    versions: &mut BTreeMap<String, u64>,
) -> rusqlite::Result<StreamReport> {
    let mut link = Link::START;
    let mut bad = None;
    let mut query = db.prepare(
        "SELECT position, org_id, created_at, action, agent_id, lease_id, secret_set_id, \
         prev_hash, hash, body FROM audit_events \
         WHERE position > ?1 AND position < ?2 ORDER BY position LIMIT ?3",
    )?;
    'stream: loop {
        let from = link.seq;
        let mut rows = query.query(params![stream.position(from), stream.ceiling(), ROWS])?;
        while let Some(row) = rows.next()? {
            match check(row, stream, link, expected, versions)? {
                Ok(next) => link = next,
                Err(found) => {
                    bad = Some(found);
                    break 'stream;
                }
            }
        }
        if link.seq == from {
            break;
        }
    }
    let first_bad = bad.or_else(|| check_end(stream, link, expected));
    Ok(StreamReport {
        stream: stream.name.to_string(),
        events: link.seq,
        head_seq: link.seq,
        head_hash: hex::encode(link.hash),
        checkpoint_seq: expected.signed.keys().next_back().copied(),
        first_bad,
    })
}

/// What the copied columns say again, and what places a record.
#[derive(Deserialize)]
struct Body {
    stream: String,
    seq: u64,
    created_at: String,
    org_id: String,
    action: String,
    agent_id: Option<String>,
    lease_id: Option<String>,
    secret_set_id: Option<String>,
    secret_version: Option<u64>,
}

/// Checks one record against the one before; gives the link that it makes.
fn check(
    row: &Row<'_>,
    stream: &Stream,
    link: Link,
    expected: &Expected,
    versions: &mut BTreeMap<String, u64>,
) -> rusqlite::Result<Result<Link, BadRecord>> {
    let seq = Stream::seq(row.get(0)?);
    let place = link.seq + 1;
    if seq != place {
        return Ok(Err(bad(stream, place, BadReason::Missing)));
    }
    // Bytes, since an edit may leave text that is none.
    let (Ok(prev_hash), Ok(stored_hash), Ok(body)) = (
        row.get_ref(7)?.as_bytes(),
        row.get_ref(8)?.as_bytes(),
        row.get_ref(9)?.as_str(),
    ) else {
        return Ok(Err(bad(stream, seq, BadReason::Edited)));
    };
    let is_whole = hash(prev_hash, body) == stored_hash;
    let parsed = serde_json::from_str::<Body>(body).ok();
    let Some(parsed) = parsed.filter(|_| is_whole) else {
        return Ok(Err(bad(stream, seq, BadReason::Edited)));
    };
    if parsed.seq != seq || *parsed.stream != *stream.name {
        return Ok(Err(bad(stream, seq, BadReason::OutOfOrder)));
    }
    if prev_hash != link.hash {
        return Ok(Err(bad(stream, seq, BadReason::Unlinked)));
    }
    if !columns_agree(row, &parsed)? {
        return Ok(Err(bad(stream, seq, BadReason::ColumnDiffers)));
    }
    let next = link.next(body);
    let is_signed = expected
        .signed
        .get(&seq)
        .is_none_or(|signed| *signed == next.hash);
    let is_remembered = expected
        .in_memory
        .is_none_or(|head| head.seq != seq || head.hash == next.hash);
    if !is_signed || !is_remembered {
        return Ok(Err(bad(stream, seq, BadReason::Rewritten)));
    }
    if parsed.action.starts_with("secret_set.")
        && let (Some(set), Some(version)) = (parsed.secret_set_id, parsed.secret_version)
    {
        let highest = versions.entry(set).or_default();
        *highest = version.max(*highest);
    }
    Ok(Ok(next))
}

fn columns_agree(row: &Row<'_>, body: &Body) -> rusqlite::Result<bool> {
    let format = &time::format_description::well_known::Rfc3339;
    let created_at = time::OffsetDateTime::parse(&body.created_at, format).map(millis);
    let text = |column: usize| {
        Ok::<_, rusqlite::Error>(row.get_ref(column)?.as_str_or_null().ok().flatten())
    };
    Ok(created_at.ok() == row.get_ref(2)?.as_i64().ok()
        && text(1)? == Some(&body.org_id)
        && text(3)? == Some(&body.action)
        && text(4)? == body.agent_id.as_deref()
        && text(5)? == body.lease_id.as_deref()
        && text(6)? == body.secret_set_id.as_deref())
}

/// Checks that the stream reaches every head that was signed or is in memory.
fn check_end(stream: &Stream, link: Link, expected: &Expected) -> Option<BadRecord> {
    let signed = expected.signed.keys().next_back().copied().unwrap_or(0);
    let reached = expected.in_memory.map_or(0, |head| head.seq).max(signed);
    (link.seq < reached).then(|| bad(stream, link.seq + 1, BadReason::Truncated))
}

fn bad(stream: &Stream, seq: u64, reason: BadReason) -> BadRecord {
    let name = &stream.name;
    let before = seq.saturating_sub(1);
    let why = match reason {
        BadReason::Edited => format!("record {seq} of {name} was edited"),
        BadReason::Missing => format!("record {seq} of {name} is missing"),
        BadReason::OutOfOrder => {
            format!("another record stands in the place of record {seq} of {name}")
        }
        BadReason::Unlinked => {
            format!("record {seq} of {name} does not follow record {before}: one was replaced")
        }
        BadReason::Truncated => format!("{name} was truncated after record {before}"),
        BadReason::ColumnDiffers => {
            format!("a column of record {seq} of {name} differs from its text")
        }
        BadReason::Rewritten => {
            format!("{name} was written anew: record {seq} is not the one that was signed")
        }
        BadReason::BadSignature => {
            format!("the checkpoint of {name} at record {seq} is signed by an unknown key")
        }
    };
    BadRecord {
        stream: name.to_string(),
        seq,
        reason,
        why,
    }
}

fn bad_signature(stream: &str, link: Link) -> BadRecord {
    let stream = Stream {
        number: 0,
        name: stream.into(),
    };
    bad(&stream, link.seq, BadReason::BadSignature)
}

/// Sets whose rows are older than what the chain tells of them.
fn rolled_back(
    db: &Connection,
    versions: BTreeMap<String, u64>,
) -> rusqlite::Result<Vec<RolledBack>> {
    let mut query = db.prepare("SELECT version FROM secret_sets WHERE id = ?1")?;
    let mut found = Vec::new();
    for (secret_set_id, recorded) in versions {
        let stored: Option<i64> = query
            .query_row([&secret_set_id], |row| row.get(0))
            .optional()?;
        let stored = u64::try_from(stored.unwrap_or(0)).unwrap_or(0);
        if stored < recorded {
            found.push(RolledBack {
                secret_set_id,
                recorded,
                stored,
            });
        }
    }
    Ok(found)
}
