//! The rows that decide about uses, and the decision.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use ::leases::RevocationId;
use ::leases::id::{AgentId, GrantId, LeaseId, SetId};
use ::leases::scope::Kind;
use rusqlite::{Connection, OptionalExtension as _, Row};

use super::{UseRefusal, UseRequest};
use crate::timekeeper::at;

/// Rows kept between batches; above this they are read anew.
const MAX_ROWS: usize = 8_192;

/// The rows read so far. They are kept from batch to batch for as long as no other connection has
/// committed anything, which SQLite's `data_version` tells once inside the write transaction: what
/// is decided is always decided by the rows as they stand at this transaction.
#[derive(Debug, Default)]
pub(super) struct Book {
    data_version: Option<i64>,
    has_revoked_blocks: bool,
    leases: HashMap<LeaseId, Option<LeaseRow>>,
    agents: HashMap<AgentId, Option<AgentRow>>,
    sets: HashMap<SetId, Option<SetRow>>,
    grants: HashMap<GrantId, Option<GrantRow>>,
    blocks: HashMap<RevocationId, Option<i64>>,
    changed_windows: Vec<GrantId>,
}

#[derive(Debug)]
struct LeaseRow {
    org: String,
    agent: String,
    is_single_use: bool,
    expires_at: i64,
    revoked_at: Option<i64>,
    uses: i64,
}

#[derive(Debug)]
struct AgentRow {
    org: String,
    is_active: bool,
}

#[derive(Debug)]
struct SetRow {
    org: String,
    version: i64,
    is_deleted: bool,
    /// Names of the current version's entries, sorted.
    keys: Arc<[String]>,
}

/// What is opened for a use that is allowed.
#[derive(Debug)]
pub(super) struct Opening {
    /// The version of the secret set.
    pub(super) version: u64,
    /// Names of its entries among those that the request may use.
    pub(super) keys: Arc<[String]>,
}

#[derive(Debug)]
struct GrantRow {
    org: String,
    agent: String,
    set: String,
    expires_at: Option<i64>,
    is_revoked: bool,
    rate: Option<(i64, i64)>,
    window: Window,
}

/// The current window of a rate: when it began and how many uses it has.
#[derive(Debug, Default, Clone, Copy)]
struct Window {
    started_at: i64,
    used: i64,
}

impl Book {
    /// Forgets everything, after a transaction that was rolled back.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// To be called first in each transaction: forgets rows that may have changed.
    pub(super) fn refresh(&mut self, db: &Connection) -> rusqlite::Result<()> {
        let data_version = db
            .prepare_cached("PRAGMA data_version")?
            .query_row([], |row| row.get(0))?;
        let rows = [
            self.leases.len(),
            self.agents.len(),
            self.sets.len(),
            self.grants.len(),
            self.blocks.len(),
        ];
        if self.data_version == Some(data_version) && rows.iter().sum::<usize>() < MAX_ROWS {
            return Ok(());
        }
        self.clear();
        self.data_version = Some(data_version);
        self.has_revoked_blocks = db
            .prepare_cached("SELECT EXISTS (SELECT 1 FROM revoked_blocks)")?
            .query_row([], |row| row.get(0))?;
        Ok(())
    }

    /// Decides about a use, and counts it if it is allowed.
    pub(super) fn decide(
        &mut self,
        db: &Connection,
        request: &UseRequest,
        now: i64,
    ) -> rusqlite::Result<Result<Opening, UseRefusal>> {
        if let Err(refusal) = self.check_lease(db, request, now)? {
            return Ok(Err(refusal));
        }
        if let Err(refusal) = self.check_agent(db, request)? {
            return Ok(Err(refusal));
        }
        let opening = match self.check_set(db, request)? {
            Ok(opening) => opening,
            Err(refusal) => return Ok(Err(refusal)),
        };
        if let Err(refusal) = self.check_grant(db, request, now)? {
            return Ok(Err(refusal));
        }
        if let Err(refusal) = self.consume(db, request)? {
            return Ok(Err(refusal));
        }
        self.count(request, now);
        Ok(Ok(opening))
    }

    /// Writes the windows that this transaction changed.
    pub(super) fn write_windows(&mut self, db: &Connection) -> rusqlite::Result<()> {
        for grant in self.changed_windows.drain(..) {
            if let Some(Some(row)) = self.grants.get(&grant) {
                db.prepare_cached(WRITE_WINDOW)?.execute((
                    grant.as_str(),
                    row.window.started_at,
                    row.window.used,
                ))?;
            }
        }
        Ok(())
    }

    fn check_lease(
        &mut self,
        db: &Connection,
        request: &UseRequest,
        now: i64,
    ) -> rusqlite::Result<Result<(), UseRefusal>> {
        let row = kept(&mut self.leases, &request.lease, || {
            find(db, LEASE, request.lease.as_str(), read_lease)
        })?;
        let Some(lease) = row.as_ref() else {
            return Ok(Err(UseRefusal::Unknown));
        };
        // A genuine token that does not match its row is as unknown as one without a row.
        if lease.org != request.org.as_str() || lease.agent != request.agent.as_str() {
            return Ok(Err(UseRefusal::Unknown));
        }
        if let Some(revoked_at) = lease.revoked_at {
            let at = at(revoked_at);
            return Ok(Err(UseRefusal::LeaseRevoked { at }));
        }
        let ends_at = at(lease.expires_at).min(request.expires_at);
        let is_used_up = is_single_use(lease, request) && lease.uses > 0;
        if let Some(revoked_at) = self.revoked_block(db, request)? {
            let at = at(revoked_at);
            return Ok(Err(UseRefusal::LeaseRevoked { at }));
        }
        if ends_at <= at(now) {
            return Ok(Err(UseRefusal::LeaseExpired { at: ends_at }));
        }
        if is_used_up {
            return Ok(Err(UseRefusal::LeaseConsumed));
        }
        Ok(Ok(()))
    }

    /// When any block of the token was revoked on its own.
    fn revoked_block(
        &mut self,
        db: &Connection,
        request: &UseRequest,
    ) -> rusqlite::Result<Option<i64>> {
        if !self.has_revoked_blocks {
            return Ok(None);
        }
        for block in request.revocation_ids.iter() {
            let revoked_at = *kept(&mut self.blocks, block, || {
                db.prepare_cached(BLOCK)?
                    .query_row((&block.as_bytes()[..], request.org.as_str()), |row| {
                        row.get(0)
                    })
                    .optional()
            })?;
            if revoked_at.is_some() {
                return Ok(revoked_at);
            }
        }
        Ok(None)
    }

    fn check_agent(
        &mut self,
        db: &Connection,
        request: &UseRequest,
    ) -> rusqlite::Result<Result<(), UseRefusal>> {
        let row = kept(&mut self.agents, &request.agent, || {
            find(db, AGENT, request.agent.as_str(), read_agent)
        })?;
        let may_act = row
            .as_ref()
            .is_some_and(|agent| agent.is_active && agent.org == request.org.as_str());
        Ok(may_act.then_some(()).ok_or(UseRefusal::AgentInactive))
    }

    fn check_set(
        &mut self,
        db: &Connection,
        request: &UseRequest,
    ) -> rusqlite::Result<Result<Opening, UseRefusal>> {
        let row = kept(&mut self.sets, &request.set, || {
            find(db, SET, request.set.as_str(), read_set)
        })?;
        let opening = row
            .as_ref()
            .filter(|set| !set.is_deleted && set.org == request.org.as_str())
            .and_then(|set| {
                Some(Opening {
                    version: u64::try_from(set.version).ok()?,
                    keys: set.named(&request.keys),
                })
            });
        Ok(opening.ok_or(UseRefusal::SetGone))
    }

    fn check_grant(
        &mut self,
        db: &Connection,
        request: &UseRequest,
        now: i64,
    ) -> rusqlite::Result<Result<(), UseRefusal>> {
        let row = kept(&mut self.grants, &request.grant, || {
            find(db, GRANT, request.grant.as_str(), read_grant)
        })?;
        let grant = row.as_ref().filter(|grant| {
            !grant.is_revoked
                && grant.org == request.org.as_str()
                && grant.agent == request.agent.as_str()
                && grant.set == request.set.as_str()
        });
        let Some(grant) = grant else {
            return Ok(Err(UseRefusal::GrantRevoked));
        };
        if grant.expires_at.is_some_and(|ends_at| ends_at <= now) {
            return Ok(Err(UseRefusal::GrantExpired));
        }
        let Some((requests, per_ms)) = grant.rate else {
            return Ok(Ok(()));
        };
        let window = grant.window.at(now, per_ms);
        if window.used < requests {
            return Ok(Ok(()));
        }
        let left = window.started_at.saturating_add(per_ms) - now;
        Ok(Err(UseRefusal::RateLimited {
            retry_after: Duration::from_millis(u64::try_from(left).unwrap_or(0)),
        }))
    }

    /// Uses up a single-use lease. The statement's own condition decides, whatever is remembered.
    fn consume(
        &mut self,
        db: &Connection,
        request: &UseRequest,
    ) -> rusqlite::Result<Result<(), UseRefusal>> {
        let Some(Some(lease)) = self.leases.get_mut(&request.lease) else {
            return Ok(Err(UseRefusal::Unknown));
        };
        if !is_single_use(lease, request) {
            return Ok(Ok(()));
        }
        let consumed = db
            .prepare_cached(CONSUME)?
            .execute([request.lease.as_str()])?;
        lease.uses += 1;
        Ok((consumed == 1)
            .then_some(())
            .ok_or(UseRefusal::LeaseConsumed))
    }

    /// Counts a use in its grant's window.
    fn count(&mut self, request: &UseRequest, now: i64) {
        let Some(Some(grant)) = self.grants.get_mut(&request.grant) else {
            return;
        };
        if let Some((_, per_ms)) = grant.rate {
            grant.window = grant.window.at(now, per_ms);
            grant.window.used += 1;
            if !self.changed_windows.contains(&request.grant) {
                self.changed_windows.push(request.grant.clone());
            }
        }
    }
}

impl SetRow {
    /// The names of the set that are among `usable`, or all when nothing is said.
    fn named(&self, usable: &[String]) -> Arc<[String]> {
        let is_usable = |key: &&String| usable.is_empty() || usable.contains(key);
        if self.keys.iter().all(|key| is_usable(&key)) {
            return Arc::clone(&self.keys);
        }
        self.keys.iter().filter(is_usable).cloned().collect()
    }
}

impl Window {
    /// The window as it stands at `now`: a new one if the last is over or none began.
    const fn at(self, now: i64, per_ms: i64) -> Self {
        if self.used == 0 || now >= self.started_at.saturating_add(per_ms) {
            Self {
                started_at: now,
                used: 0,
            }
        } else {
            self
        }
    }
}

/// Row and token agree unless one was tampered with; then the stricter holds.
fn is_single_use(lease: &LeaseRow, request: &UseRequest) -> bool {
    lease.is_single_use || request.kind == Kind::Request
}

/// The row of `key`, loaded if it is not there yet.
fn kept<'a, K: Clone + Eq + Hash, V>(
    rows: &'a mut HashMap<K, V>,
    key: &K,
    load: impl FnOnce() -> rusqlite::Result<V>,
) -> rusqlite::Result<&'a mut V> {
    if !rows.contains_key(key) {
        rows.insert(key.clone(), load()?);
    }
    Ok(rows.get_mut(key).expect("inserted above if it was missing"))
}

fn find<T>(
    db: &Connection,
    query: &str,
    id: &str,
    read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Option<T>> {
    db.prepare_cached(query)?.query_row([id], read).optional()
}

const LEASE: &str =
    "SELECT org_id, agent_id, kind, expires_at, revoked_at, uses FROM leases WHERE id = ?1";
const AGENT: &str = "SELECT org_id, is_active, deleted_at FROM agents WHERE id = ?1";
const SET: &str = "SELECT s.org_id, s.version, s.deleted_at, v.manifest FROM secret_sets s \
    JOIN secret_set_versions v ON v.set_id = s.id AND v.version = s.version WHERE s.id = ?1";
const GRANT: &str = "SELECT g.org_id, g.agent_id, g.secret_set_id, g.expires_at, g.revoked_at, \
    g.rate_requests, g.rate_per_seconds, w.started_at, w.used \
    FROM grants g LEFT JOIN rate_windows w ON w.grant_id = g.id WHERE g.id = ?1";
const BLOCK: &str =
    "SELECT revoked_at FROM revoked_blocks WHERE revocation_id = ?1 AND org_id = ?2";
const CONSUME: &str = "UPDATE leases SET uses = 1 WHERE id = ?1 AND uses = 0";
const WRITE_WINDOW: &str = "INSERT INTO rate_windows (grant_id, started_at, used) \
    VALUES (?1, ?2, ?3) ON CONFLICT (grant_id) DO UPDATE \
    SET started_at = excluded.started_at, used = excluded.used";

fn read_lease(row: &Row<'_>) -> rusqlite::Result<LeaseRow> {
    Ok(LeaseRow {
        org: row.get(0)?,
        agent: row.get(1)?,
        is_single_use: row.get_ref(2)?.as_str()? != Kind::Workflow.as_str(),
        expires_at: row.get(3)?,
        revoked_at: row.get(4)?,
        uses: row.get(5)?,
    })
}

fn read_agent(row: &Row<'_>) -> rusqlite::Result<AgentRow> {
    Ok(AgentRow {
        org: row.get(0)?,
        is_active: row.get::<_, i64>(1)? == 1 && row.get::<_, Option<i64>>(2)?.is_none(),
    })
}

fn read_set(row: &Row<'_>) -> rusqlite::Result<SetRow> {
    Ok(SetRow {
        org: row.get(0)?,
        version: row.get(1)?,
        is_deleted: row.get::<_, Option<i64>>(2)?.is_some(),
        keys: read_keys(row.get_ref(3)?.as_str()?)?,
    })
}

/// The keys of a manifest, `{"KEY": version, …}`.
fn read_keys(manifest: &str) -> rusqlite::Result<Arc<[String]>> {
    let manifest: BTreeMap<String, u64> = serde_json::from_str(manifest).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(3, rusqlite::types::Type::Text, Box::new(error))
    })?;
    Ok(manifest.into_keys().collect())
}

fn read_grant(row: &Row<'_>) -> rusqlite::Result<GrantRow> {
    let requests: Option<i64> = row.get(5)?;
    let per_seconds: Option<i64> = row.get(6)?;
    Ok(GrantRow {
        org: row.get(0)?,
        agent: row.get(1)?,
        set: row.get(2)?,
        expires_at: row.get(3)?,
        is_revoked: row.get::<_, Option<i64>>(4)?.is_some(),
        rate: requests.zip(per_seconds.map(|seconds| seconds.saturating_mul(1_000))),
        window: Window {
            started_at: row.get::<_, Option<i64>>(7)?.unwrap_or_default(),
            used: row.get::<_, Option<i64>>(8)?.unwrap_or_default(),
        },
    })
}
