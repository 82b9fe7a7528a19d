//! Verification: walks every stream once, in bounded memory, and names what is not as written.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::Deserialize;

use super::checkpoint::Checkpoint;
use super::told::Told;
use super::{
    BadReason, BadRecord, CHECKPOINT_KEY, PutBack, StreamReport, VerifyError, VerifyReport,
};
use crate::chain::{Link, Stream, hash};
use crate::db::{Pool, Row, query};
use crate::timekeeper::millis;
use crate::{Location, StoreError};

/// Records read by one statement. Between statements no snapshot is held, so that a long
/// verification keeps nothing from being tidied up.
const ROWS: usize = 10_000;

/// What the chain is held against.
#[derive(Debug)]
pub(super) struct Evidence {
    pub(super) location: Location,
    pub(super) pool: Pool,
    pub(super) checkpoint: PathBuf,
    /// The key that must have signed; without it one of those in the database.
    pub(super) trusted_key: Option<[u8; 32]>,
    /// Heads that were published, a signed one a line.
    pub(super) published: Option<PathBuf>,
    /// Whether a signed head has to be at hand; without an answer, if the database holds a key for them.
    pub(super) expects_signed: Option<bool>,
    /// Heads that a live writer holds.
    pub(super) in_memory: BTreeMap<String, Link>,
}

/// What one stream has to agree with.
#[derive(Debug, Default)]
struct Expected {
    /// By place: the hashes that were signed there. Two of them contradict each other.
    signed: BTreeMap<u64, BTreeSet<[u8; 32]>>,
    in_memory: Option<Link>,
}

/// Verifies every stream.
pub(super) async fn verify(evidence: Evidence) -> Result<VerifyReport, VerifyError> {
    let checkpoints = Checkpoint::read_all(&evidence.checkpoint)
        .map_err(|(path, reason)| VerifyError::Checkpoint { path, reason })?;
    let database = |error: StoreError| VerifyError::Database {
        database: evidence.location.to_string(),
        reason: crate::db::chain_of(&error),
    };
    let pool = &evidence.pool;
    let trusted = trusted_keys(pool, evidence.trusted_key)
        .await
        .map_err(database)?;
    let mut expected: BTreeMap<String, Expected> = BTreeMap::new();
    let mut untrusted = None;
    // The key is stored before the first head is signed, which happens at once.
    let is_unanchored = checkpoints.is_empty()
        && evidence.published.is_none()
        && evidence.expects_signed.unwrap_or(!trusted.is_empty());
    let mut expect = |checkpoint: &Checkpoint| {
        let is_trusted =
            trusted.is_empty() || checkpoint.key().is_some_and(|key| trusted.contains(&key));
        for (stream, link) in checkpoint.heads() {
            if is_trusted {
                let expected = expected.entry(stream.to_owned()).or_default();
                expected
                    .signed
                    .entry(link.seq)
                    .or_default()
                    .insert(link.hash);
            } else {
                untrusted = Some(bad_signature(stream, link));
            }
        }
    };
    checkpoints.iter().for_each(&mut expect);
    if let Some(published) = &evidence.published {
        Checkpoint::read_lines(published, &mut expect)
            .map_err(|(path, reason)| VerifyError::Checkpoint { path, reason })?;
    }
    for (stream, link) in &evidence.in_memory {
        expected.entry(stream.clone()).or_default().in_memory = Some(*link);
    }
    let mut told = Told::default();
    let (mut streams, mut walks) = (Vec::new(), Vec::new());
    for (stream, expected) in all_streams(pool, expected).await.map_err(database)? {
        let mut walk = Walk {
            stream,
            expected,
            link: Link::START,
            told,
        };
        let first_bad;
        (walk, first_bad) = walk.finish(pool).await.map_err(database)?;
        streams.push(walk.report(first_bad));
        told = std::mem::take(&mut walk.told);
        walks.push(walk);
    }
    let rolled_back = told.rolled_back(pool).await.map_err(database)?;
    let put_back = put_back(pool, told, walks).await.map_err(database)?;
    let first_bad = streams
        .iter()
        .find_map(|stream: &StreamReport| stream.first_bad.clone())
        .or(untrusted)
        .or_else(|| {
            streams
                .iter()
                .find_map(unanchored)
                .filter(|_| is_unanchored)
        });
    Ok(VerifyReport {
        streams,
        first_bad,
        checkpoint_key: checkpoints
            .first()
            .and_then(Checkpoint::key)
            .map(hex::encode),
        rolled_back,
        put_back,
    })
}

/// Secrets and policies whose rows are other than what is told. The database may be in use: what a row's finding rests on
/// must not have changed until after the row was read.
async fn put_back(pool: &Pool, told: Told, walks: Vec<Walk>) -> Result<Vec<PutBack>, StoreError> {
    let mut found = told.put_back(pool).await?;
    if found.is_empty() {
        return Ok(found);
    }
    let mut later = told.clone();
    for mut walk in walks {
        walk.told = later;
        (walk, _) = walk.finish(pool).await?;
        later = walk.told;
    }
    found.retain(|found| later.is_as_in(&told, found));
    Ok(found)
}

async fn trusted_keys(
    pool: &Pool,
    trusted: Option<[u8; 32]>,
) -> Result<BTreeSet<[u8; 32]>, StoreError> {
    if let Some(key) = trusted {
        return Ok([key].into());
    }
    let rows = query("SELECT public FROM sealed_keys WHERE name = $1 OR name LIKE $2")
        .bind(CHECKPOINT_KEY)
        .bind(format!("{CHECKPOINT_KEY}/%"))
        .fetch_all(pool)
        .await?;
    let mut trusted = BTreeSet::new();
    for row in &rows {
        trusted.extend(<[u8; 32]>::try_from(row.try_get::<&[u8]>("public")?));
    }
    Ok(trusted)
}

/// Every stream of the table or of the evidence; one without a number has no record at all.
async fn all_streams(
    pool: &Pool,
    mut expected: BTreeMap<String, Expected>,
) -> Result<Vec<(Stream, Expected)>, StoreError> {
    let rows = query("SELECT number, stream FROM audit_streams ORDER BY number")
        .fetch_all(pool)
        .await?;
    let mut streams = Vec::new();
    for row in &rows {
        let name: &str = row.try_get("stream")?;
        let expected = expected.remove(name).unwrap_or_default();
        let stream = Stream {
            number: row.try_get("number")?,
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

/// A walk through one stream.
struct Walk {
    stream: Stream,
    expected: Expected,
    /// The last good record.
    link: Link,
    /// What the records told, of this stream and of those before it.
    told: Told,
}

impl Walk {
    /// Walks up to the stream's end or its first bad record.
    async fn finish(mut self, pool: &Pool) -> Result<(Self, Option<BadRecord>), StoreError> {
        loop {
            let rows = query(RECORDS)
                .bind(self.stream.position(self.link.seq))
                .bind(self.stream.ceiling())
                .bind(i64::try_from(ROWS).unwrap_or(i64::MAX))
                .fetch_all(pool)
                .await?;
            let is_last = rows.len() < ROWS;
            // Hashing so many takes a while.
            let checked = tokio::task::spawn_blocking(move || {
                let bad = rows.iter().find_map(|row| self.check(row).err());
                (self, bad)
            });
            let bad;
            (self, bad) = checked.await.map_err(|_| StoreError::Closed)?;
            if is_last || bad.is_some() {
                return Ok((self, bad));
            }
        }
    }

    /// Checks one record against the one before.
    fn check(&mut self, row: &Row) -> Result<(), BadRecord> {
        let (stream, link) = (&self.stream, self.link);
        let place = link.seq + 1;
        let seq = row.try_get("position").map_or(0, Stream::seq);
        if seq != place {
            return Err(bad(stream, place, BadReason::Missing));
        }
        // An edit may leave what cannot even be read.
        let (Ok(prev_hash), Ok(stored_hash), Ok(body)) = (
            row.try_get::<&[u8]>("prev_hash"),
            row.try_get::<&[u8]>("hash"),
            row.try_get::<&str>("body"),
        ) else {
            return Err(bad(stream, seq, BadReason::Edited));
        };
        let is_whole = hash(prev_hash, body) == stored_hash;
        let parsed = serde_json::from_str::<Body>(body).ok();
        let Some(parsed) = parsed.filter(|_| is_whole) else {
            return Err(bad(stream, seq, BadReason::Edited));
        };
        if parsed.seq != seq || *parsed.stream != *stream.name {
            return Err(bad(stream, seq, BadReason::OutOfOrder));
        }
        if prev_hash != link.hash {
            return Err(bad(stream, seq, BadReason::Unlinked));
        }
        if !columns_agree(row, &parsed) {
            return Err(bad(stream, seq, BadReason::ColumnDiffers));
        }
        let next = link.next(body);
        let is_signed = self
            .expected
            .signed
            .get(&seq)
            .is_none_or(|signed| signed.iter().all(|signed| *signed == next.hash));
        let is_remembered = self
            .expected
            .in_memory
            .is_none_or(|head| head.seq != seq || head.hash == next.hash);
        if !is_signed || !is_remembered {
            return Err(bad(stream, seq, BadReason::Rewritten));
        }
        self.told.take(&parsed.action, body);
        self.link = next;
        Ok(())
    }

    fn report(&self, bad: Option<BadRecord>) -> StreamReport {
        let (stream, link, expected) = (&self.stream, self.link, &self.expected);
        StreamReport {
            stream: stream.name.to_string(),
            events: link.seq,
            head_seq: link.seq,
            head_hash: hex::encode(link.hash),
            checkpoint_seq: expected.signed.keys().next_back().copied(),
            first_bad: bad.or_else(|| check_end(stream, link, expected)),
        }
    }
}

const RECORDS: &str = "SELECT position, org_id, created_at, action, agent_id, lease_id, \
    secret_set_id, prev_hash, hash, body FROM audit_events \
    WHERE position > $1 AND position < $2 ORDER BY position LIMIT $3";

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
}

fn columns_agree(row: &Row, body: &Body) -> bool {
    let format = &time::format_description::well_known::Rfc3339;
    let created_at = time::OffsetDateTime::parse(&body.created_at, format).map(millis);
    let says = |column: &str, said: Option<&str>| {
        row.try_get::<Option<&str>>(column)
            .is_ok_and(|stored| stored == said)
    };
    created_at.ok() == row.try_get("created_at").ok()
        && says("org_id", Some(&body.org_id))
        && says("action", Some(&body.action))
        && says("agent_id", body.agent_id.as_deref())
        && says("lease_id", body.lease_id.as_deref())
        && says("secret_set_id", body.secret_set_id.as_deref())
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
        BadReason::Unanchored => format!(
            "no signed head is at hand: whether {name} ends with record {seq} or was cut there cannot be told"
        ),
    };
    BadRecord {
        stream: name.to_string(),
        seq,
        reason,
        why,
    }
}

/// A stream that has records, of which nobody can tell whether they are all.
fn unanchored(report: &StreamReport) -> Option<BadRecord> {
    let stream = Stream {
        number: 0,
        name: report.stream.as_str().into(),
    };
    (report.events > 0).then(|| bad(&stream, report.head_seq, BadReason::Unanchored))
}

fn bad_signature(stream: &str, link: Link) -> BadRecord {
    let stream = Stream {
        number: 0,
        name: stream.into(),
    };
    bad(&stream, link.seq, BadReason::BadSignature)
}
