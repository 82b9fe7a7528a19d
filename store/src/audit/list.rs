//! Reading the trail: pages of it newest first, all of it oldest first.
//!
//! The table has no index but its position. A page is found by walking each stream from its end
//! (or start) in windows of bounded size, so that a filter that matches little costs a bounded
//! amount of reading a page, and the cursor says how far the walk came.

use std::collections::VecDeque;

use ::leases::id::OrgId;
use futures::stream::{self, BoxStream, StreamExt as _};

use super::{EventFilter, Followed, Step, Steps};
use crate::chain::Stream;
use crate::db::{Row, from_json, query};
use crate::timekeeper::millis;
use crate::{Event, Page, PageRequest, Store, StoreError};

/// Records looked at by one statement.
const WINDOW: i64 = 20_000;
/// Records looked at in one stream for one page.
const MOST_PER_PAGE: i64 = 200_000;
/// Streams looked into at once.
const AT_A_TIME: usize = 3;
/// Records that an export takes at a time.
const EXPORT_ROWS: i64 = 500;

/// Where a walk through one stream stands.
#[derive(Debug)]
struct Walk {
    stream: Stream,
    /// Newest first: records from here on were given. Oldest first: those before.
    at: i64,
    /// No record beyond this is part of the walk.
    end: i64,
    /// Newest first: all records from here to `at` were looked at.
    horizon: i64,
    /// What was found there and not given yet.
    found: VecDeque<Found>,
}

#[derive(Debug)]
struct Found {
    position: i64,
    created_at: i64,
    event: Event,
}

/// A page of events, newest first.
pub(super) async fn newest_first(
    store: &Store,
    org: &OrgId,
    filter: &EventFilter,
    page: &PageRequest,
) -> Result<Page<Event>, StoreError> {
    let limit = page.bounded_limit();
    let mut walks = walks(store, |stream, last| (last + 1, stream.floor() + 1)).await?;
    if let Some(cursor) = &page.cursor {
        resume(&mut walks, cursor)?;
    }
    // Of many nodes, a few at a time: each look takes one of the connections.
    for some in walks.chunks_mut(AT_A_TIME) {
        let looks = some
            .iter_mut()
            .map(|walk| walk.look_back(store, org, filter, limit));
        futures::future::try_join_all(looks).await?;
    }
    let mut items = Vec::new();
    while items.len() < usize::try_from(limit).unwrap_or(0) {
        let Some(found) = take_latest(&mut walks) else {
            break;
        };
        items.push(found.event);
    }
    for walk in &mut walks {
        if walk.found.is_empty() {
            walk.at = walk.horizon;
        }
    }
    let is_done = walks.iter().all(|walk| walk.at == walk.end);
    Ok(Page {
        items,
        next_cursor: (!is_done).then(|| cursor(&walks)),
    })
}

/// Takes the newest event of all walks. None once a walk has nothing left although its stream goes
/// on: what lies behind its bound may be newer than what the others have.
fn take_latest(walks: &mut [Walk]) -> Option<Found> {
    if walks.iter().any(Walk::is_bounded) {
        return None;
    }
    let walk = walks
        .iter_mut()
        .filter(|walk| !walk.found.is_empty())
        .max_by_key(|walk| walk.found.front().map(Found::order))?;
    let found = walk.found.pop_front()?;
    walk.at = found.position;
    Some(found)
}

/// Takes the oldest event of all walks, each stream's in its own order.
fn take_earliest(walks: &mut [Walk]) -> Option<Found> {
    walks
        .iter_mut()
        .filter(|walk| !walk.found.is_empty())
        .min_by_key(|walk| walk.found.front().map(Found::order))?
        .found
        .pop_front()
}

impl Found {
    const fn order(&self) -> (i64, i64) {
        (self.created_at, self.position)
    }
}

impl Walk {
    /// The stream's number, and the last record that lies behind the walk.
    fn last(&self) -> (i64, u64) {
        (self.stream.number, Stream::seq(self.at - 1))
    }

    fn is_bounded(&self) -> bool {
        self.found.is_empty() && self.horizon > self.end
    }

    /// Looks for `limit` matches from the newest record on, within the bound of one page.
    async fn look_back(
        &mut self,
        store: &Store,
        org: &OrgId,
        filter: &EventFilter,
        limit: i64,
    ) -> Result<(), StoreError> {
        self.horizon = self.at;
        let bound = self.end.max(self.at - MOST_PER_PAGE);
        let mut missing = limit;
        while missing > 0 && self.horizon > bound {
            let from = bound.max(self.horizon - WINDOW);
            let range = (from, self.horizon);
            let found = select(BACK, store, Some(org), filter, range, missing).await?;
            missing -= i64::try_from(found.len()).unwrap_or(missing);
            self.horizon = match found.last() {
                Some(last) if missing <= 0 => last.position,
                _ => from,
            };
            self.found.extend(found);
        }
        Ok(())
    }

    /// Looks from where the walk stands to its end, until something is found.
    async fn look_ahead(
        &mut self,
        store: &Store,
        org: Option<&OrgId>,
        filter: &EventFilter,
    ) -> Result<(), StoreError> {
        while self.found.is_empty() && self.at < self.end {
            let to = (self.at + WINDOW).min(self.end);
            let found = select(FORTH, store, org, filter, (self.at, to), EXPORT_ROWS).await?;
            self.at = match found.last() {
                Some(last) if found.len() == usize::try_from(EXPORT_ROWS).unwrap_or(0) => {
                    last.position + 1
                }
                _ => to,
            };
            self.found.extend(found);
        }
        Ok(())
    }
}

/// Begins a walk through each stream; `range` says from where to where.
async fn walks(
    store: &Store,
    range: impl Fn(&Stream, i64) -> (i64, i64),
) -> Result<Vec<Walk>, StoreError> {
    let rows = query(STREAMS).fetch_all(store.pool()).await?;
    let mut walks = Vec::with_capacity(rows.len());
    for row in rows {
        let name: &str = row.try_get("stream")?;
        let stream = Stream {
            number: row.try_get("number")?,
            name: name.into(),
        };
        let last: Option<i64> = row.try_get("last")?;
        let (at, end) = range(&stream, last.unwrap_or_else(|| stream.floor()));
        walks.push(Walk {
            stream,
            at,
            end,
            horizon: at,
            found: VecDeque::new(),
        });
    }
    Ok(walks)
}

/// `<stream number>.<seq>` of each walk that goes on, joined by `_`.
fn cursor(walks: &[Walk]) -> String {
    let places: Vec<String> = walks
        .iter()
        .filter(|walk| walk.at != walk.end)
        .map(|walk| format!("{}.{}", walk.stream.number, Stream::seq(walk.at)))
        .collect();
    places.join("_")
}

/// Takes the walks up where a page before ended. A stream without a place is left out: it was read
/// to its start, or is new since then, with events that are newer than all that page gave.
fn resume(walks: &mut Vec<Walk>, cursor: &str) -> Result<(), StoreError> {
    let places = places(cursor)?;
    walks.retain_mut(|walk| {
        let place = places
            .iter()
            .find(|(number, _)| *number == walk.stream.number);
        if let Some((_, seq)) = place {
            let at = walk.stream.position(*seq);
            walk.at = at.clamp(walk.end, walk.at);
        }
        place.is_some()
    });
    Ok(())
}

/// The number of a stream and a record's place in it, of each stream that a cursor names.
fn places(cursor: &str) -> Result<Vec<(i64, u64)>, StoreError> {
    let read = |place: &str| {
        let (number, seq) = place.split_once('.')?;
        Some((number.parse().ok()?, seq.parse().ok()?))
    };
    cursor
        .split('_')
        .map(|place| read(place).ok_or(StoreError::BadCursor))
        .collect()
}

/// The events behind a place that pass the filter, oldest first, and the place behind them. Without a place: none, and
/// the place where every stream ends now.
///
/// A stream has one writer, which appends in the order of its commits: nothing comes to lie before a place later.
pub(super) async fn after(
    store: &Store,
    org: &OrgId,
    filter: &EventFilter,
    place: Option<&str>,
) -> Result<Followed, StoreError> {
    let mut walks = behind(store, place).await?;
    for walk in &mut walks {
        walk.look_ahead(store, Some(org), filter).await?;
    }
    let place = place_of(&walks);
    let found = std::iter::from_fn(|| take_earliest(&mut walks));
    Ok(Followed {
        events: found.map(|found| found.event).collect(),
        place,
    })
}

/// The events behind a place, each with the place behind it: of an organisation, or of all.
pub(super) async fn steps(
    store: &Store,
    org: Option<&OrgId>,
    place: &str,
) -> Result<Steps, StoreError> {
    let mut walks = behind(store, Some(place)).await?;
    let mut at: Vec<(i64, u64)> = walks.iter().map(Walk::last).collect();
    for walk in &mut walks {
        walk.look_ahead(store, org, &EventFilter::default()).await?;
    }
    let end = place_of(&walks);
    let mut steps = Vec::new();
    while let Some(found) = take_earliest(&mut walks) {
        let number = Stream::number_of(found.position);
        if let Some((_, seq)) = at.iter_mut().find(|(of, _)| *of == number) {
            *seq = Stream::seq(found.position);
        }
        steps.push(Step {
            event: found.event,
            place: text_of(at.iter().copied()),
        });
    }
    Ok(Steps { steps, end })
}

/// The place where every stream ends now.
pub(super) async fn end(store: &Store) -> Result<String, StoreError> {
    Ok(place_of(&behind(store, None).await?))
}

/// Begins a walk through what lies behind a place; without one, behind all that there is.
async fn behind(store: &Store, place: Option<&str>) -> Result<Vec<Walk>, StoreError> {
    // Of no stream at all: all of them are newer.
    let known = place
        .map(|place| match place {
            "" => Ok(Vec::new()),
            place => places(place),
        })
        .transpose()?;
    walks(store, |stream, last| {
        let seen = known.as_ref().map_or(last, |known| {
            let place = known.iter().find(|(number, _)| *number == stream.number);
            // A stream without a place is newer than it.
            place.map_or(stream.floor(), |(_, seq)| stream.position(*seq))
        });
        (seen.clamp(stream.floor(), last) + 1, last + 1)
    })
    .await
}

fn place_of(walks: &[Walk]) -> String {
    text_of(walks.iter().map(Walk::last))
}

fn text_of(places: impl Iterator<Item = (i64, u64)>) -> String {
    let places: Vec<String> = places
        .map(|(number, seq)| format!("{number}.{seq}"))
        .collect();
    places.join("_")
}

/// All events that pass the filter, oldest first; what is written meanwhile is not part of it.
pub(super) fn oldest_first(
    store: Store,
    org: OrgId,
    filter: EventFilter,
) -> BoxStream<'static, Result<Event, StoreError>> {
    let export = Export {
        store,
        org,
        filter,
        walks: None,
    };
    stream::try_unfold(export, |mut export| async move {
        let next = export.next().await?;
        Ok(next.map(|event| (event, export)))
    })
    .boxed()
}

struct Export {
    store: Store,
    org: OrgId,
    filter: EventFilter,
    walks: Option<Vec<Walk>>,
}

impl Export {
    async fn next(&mut self) -> Result<Option<Event>, StoreError> {
        if self.walks.is_none() {
            let begun = walks(&self.store, |stream, last| (stream.floor() + 1, last + 1)).await?;
            self.walks = Some(begun);
        }
        let walks = self.walks.as_mut().map_or(&mut [][..], Vec::as_mut_slice);
        for walk in walks.iter_mut() {
            walk.look_ahead(&self.store, Some(&self.org), &self.filter)
                .await?;
        }
        Ok(take_earliest(walks).map(|found| found.event))
    }
}

/// Every stream and its last position; 1099511627776 is 2^40, the positions of one stream.
const STREAMS: &str = "SELECT s.number, s.stream, (SELECT e.position FROM audit_events e \
    WHERE e.position > s.number * 1099511627776 AND e.position < (s.number + 1) * 1099511627776 \
    ORDER BY e.position DESC LIMIT 1) AS last FROM audit_streams s ORDER BY s.number";
const BACK: &str = "SELECT position, created_at, prev_hash, hash, body FROM audit_events \
    WHERE position >= $1 AND position < $2 AND org_id = $3 \
    AND ($4 IS NULL OR secret_set_id = $4) AND ($5 IS NULL OR agent_id = $5) \
    AND ($6 IS NULL OR lease_id = $6) AND ($7 IS NULL OR action = $7) \
    AND ($8 IS NULL OR created_at >= $8) AND ($9 IS NULL OR created_at < $9) \
    AND ($10 IS NULL OR body LIKE $10 ESCAPE '!') AND ($11 IS NULL OR body LIKE $11 ESCAPE '!') \
    ORDER BY position DESC LIMIT $12";
const FORTH: &str = "SELECT position, created_at, prev_hash, hash, body FROM audit_events \
    WHERE position >= $1 AND position < $2 AND ($3 IS NULL OR org_id = $3) \
    AND ($4 IS NULL OR secret_set_id = $4) AND ($5 IS NULL OR agent_id = $5) \
    AND ($6 IS NULL OR lease_id = $6) AND ($7 IS NULL OR action = $7) \
    AND ($8 IS NULL OR created_at >= $8) AND ($9 IS NULL OR created_at < $9) \
    AND ($10 IS NULL OR body LIKE $10 ESCAPE '!') AND ($11 IS NULL OR body LIKE $11 ESCAPE '!') \
    ORDER BY position LIMIT $12";

const AT: &str = "SELECT e.body FROM audit_events e JOIN audit_streams s ON e.position = s.number * 1099511627776 + $2 \
    WHERE s.stream = $1 AND e.org_id = $3";

async fn select(
    text: &'static str,
    store: &Store,
    org: Option<&OrgId>,
    filter: &EventFilter,
    (from, to): (i64, i64),
    limit: i64,
) -> Result<Vec<Found>, StoreError> {
    let actor = filter.actor_id.as_deref().map(|id| holds("actor_id", id));
    let field = filter.field.as_ref().map(|(field, id)| holds(field, id));
    let rows = query(text)
        .bind(from)
        .bind(to)
        .bind(org.map(OrgId::as_str))
        .bind(filter.secret_set_id.as_ref().map(AsRef::<str>::as_ref))
        .bind(filter.agent_id.as_ref().map(AsRef::<str>::as_ref))
        .bind(filter.lease_id.as_ref().map(AsRef::<str>::as_ref))
        .bind(filter.action.as_deref())
        .bind(filter.from.map(millis))
        .bind(filter.to.map(millis))
        .bind(actor.as_deref())
        .bind(field.as_deref())
        .bind(limit)
        .fetch_all(store.pool())
        .await?;
    rows.iter().map(read).collect()
}

/// The pattern of a record with this text in this field. A quote within a value is escaped in the record, so no value is taken
/// for a field; a text that would have to be escaped is in none.
fn holds(field: &str, text: &str) -> String {
    let literal = text
        .replace('!', "!!")
        .replace('%', "!%")
        .replace('_', "!_");
    format!("%\"{}\":\"{literal}\"%", field.replace('_', "!_"))
}

/// The id that an organisation's record at a place of a stream says it has.
pub(super) async fn id_at(
    store: &Store,
    org: &OrgId,
    (stream, seq): (&str, u64),
) -> Result<Option<String>, StoreError> {
    let row = query(AT)
        .bind(stream)
        .bind(i64::try_from(seq).unwrap_or(i64::MAX))
        .bind(org.as_str())
        .fetch_optional(store.pool())
        .await?;
    let Some(row) = row else {
        return Ok(None);
    };
    // What is bad may be no record at all any more.
    let event: Option<Event> = serde_json::from_str(row.try_get("body")?).ok();
    Ok(event.map(|event| event.id))
}

fn read(row: &Row) -> Result<Found, StoreError> {
    let mut event: Event = from_json(row.try_get("body")?, "audit event")?;
    event.prev_hash = hex::encode(row.try_get::<&[u8]>("prev_hash")?);
    event.hash = hex::encode(row.try_get::<&[u8]>("hash")?);
    Ok(Found {
        position: row.try_get("position")?,
        created_at: row.try_get("created_at")?,
        event,
    })
}
