//! Approvals: requests that wait for a person, one request each.
//!
//! An approval is bound to what was asked by a digest over all of it. Whoever repeats the request finds the same one. It is
//! used up by the ledger, in the transaction that records the use.

use std::time::Duration;

use ::leases::id::{AgentId, ApprovalId, GrantId, LeaseId, OrgId, SetId};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;

use crate::db::{
    Change, Query, Row, Value, WriteTx, built, count, from_json, id, optional_time, query, stored,
    time, to_json,
};
use crate::timekeeper::{at, millis};
use crate::{Actor, NewEvent, Page, PageRequest, Store, StoreError};

/// How an approval stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ApprovalStatus {
    /// It waits for a person.
    Pending,
    /// A person approved it, and it was not used yet.
    Approved,
    /// A person rejected it.
    Rejected,
    /// Its time passed: before it was decided, or before it was used.
    Expired,
    /// Its one request was made.
    Consumed,
}

impl ApprovalStatus {
    const ALL: [Self; 5] = [
        Self::Pending,
        Self::Approved,
        Self::Rejected,
        Self::Expired,
        Self::Consumed,
    ];

    /// The word stored and shown.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Approved => "approved",
            Self::Rejected => "rejected",
            Self::Expired => "expired",
            Self::Consumed => "consumed",
        }
    }

    /// The status of that word.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == text)
    }

    /// What a stored status is at a time.
    pub(crate) fn at(self, expires_at: OffsetDateTime, now: i64) -> Self {
        let is_open = matches!(self, Self::Pending | Self::Approved);
        if is_open && expires_at <= at(now) {
            Self::Expired
        } else {
            self
        }
    }

    /// The rows that have it, at the time `$4`. None is stored as expired.
    pub(crate) const fn condition(self) -> &'static str {
        match self {
            Self::Pending => "AND status = 'pending' AND expires_at > $4",
            Self::Approved => "AND status = 'approved' AND expires_at > $4",
            Self::Rejected => "AND status = 'rejected'",
            Self::Expired => "AND status IN ('pending', 'approved') AND expires_at <= $4",
            Self::Consumed => "AND status = 'consumed'",
        }
    }
}

/// An approval.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approval {
    /// Its id.
    pub id: ApprovalId,
    /// Its organisation.
    pub org: OrgId,
    /// Who asks.
    pub agent_id: AgentId,
    /// Under which grant.
    pub grant_id: GrantId,
    /// To use what.
    pub secret_set_id: SetId,
    /// The lease of the first attempt; another one of the same agent and grant does as well.
    pub lease_id: LeaseId,
    /// How it stands now.
    pub status: ApprovalStatus,
    /// HTTP method.
    pub method: String,
    /// `https` or `http`.
    pub scheme: String,
    /// The host.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The path without its query.
    pub path: String,
    /// SHA-256 of the query's text, if there is one.
    pub query_sha256: Option<Vec<u8>>,
    /// SHA-256 of the body.
    pub body_sha256: Vec<u8>,
    /// Bytes of the body.
    pub body_bytes: u64,
    /// What is shown of the head that it is bound to; nothing for one that was asked for before heads were bound.
    pub head: Option<ShownHead>,
    /// When it was first asked for.
    pub created_at: OffsetDateTime,
    /// Until when it waits, or is good once it is approved.
    pub expires_at: OffsetDateTime,
    /// Id of who decided.
    pub decided_by: Option<String>,
    /// When it was decided.
    pub decided_at: Option<OffsetDateTime>,
    /// Why, in that person's words.
    pub reason: Option<String>,
    /// When its request was made.
    pub consumed_at: Option<OffsetDateTime>,
}

/// What a person is shown of a request's head.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShownHead {
    /// What is asked of AWS, as `dynamodb:DeleteTable`; empty if it is not AWS, or cannot be told.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub actions: Vec<String>,
    /// The fields that the approval is bound to, by name.
    pub fields: Vec<ShownField>,
}

/// A field of a head: its value, or what tells that it is the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShownField {
    /// The name in lower case.
    pub name: String,
    /// The whole value, where it may be shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// Otherwise its SHA-256, lower-case hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

/// A request that asks for approval.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Who asks.
    pub agent: AgentId,
    /// Under which grant.
    pub grant: GrantId,
    /// To use what.
    pub set: SetId,
    /// The lease at hand.
    pub lease: LeaseId,
    /// HTTP method.
    pub method: String,
    /// `https` or `http`.
    pub scheme: &'static str,
    /// The host.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The path without its query, as people are shown it.
    pub path: String,
    /// The path as it will be sent.
    pub path_as_sent: String,
    /// The query's text, if there is one.
    pub query: Option<String>,
    /// SHA-256 of the body.
    pub body_sha256: [u8; 32],
    /// Bytes of the body.
    pub body_bytes: u64,
    /// SHA-256 over all of the head that it is bound to.
    pub head_sha256: [u8; 32],
    /// What a person is shown of it.
    pub head: ShownHead,
    /// For how long it waits for its decision.
    pub pending: Duration,
    /// For how long an approval of it is good.
    pub ttl: Duration,
}

impl Asked {
    /// Names all that an approval is bound to. Each part is preceded by its length, so that none can lend to another.
    fn digest(&self) -> [u8; 32] {
        let port = self.port.to_string();
        // The prefix tells which parts are bound, so that one of another version is that of no request.
        let mut digest = Sha256::new_with_prefix("claviger approval 2\0");
        let mut add = |part: &[u8]| {
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part);
        };
        for part in [
            self.agent.as_str(),
            self.grant.as_str(),
            &self.method,
            self.scheme,
            &self.host,
            &port,
            &self.path_as_sent,
        ] {
            add(part.as_bytes());
        }
        match &self.query {
            // No query and an empty one are two requests.
            None => add(b"-"),
            Some(query) => {
                add(b"?");
                add(query.as_bytes());
            }
        }
        add(&self.body_sha256);
        add(&self.head_sha256);
        digest.finalize().into()
    }
}

/// Why a request is not put up for approval.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    /// The agent has asked for too much.
    #[error("{MAX_PENDING} requests of this agent wait for approval")]
    TooMany {
        /// When one of them no longer counts.
        retry_after: Duration,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What a person decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The request may be made, once.
    Approve,
    /// It may not.
    Reject,
}

/// Why a decision is not made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecideError {
    /// It was decided before, or its time has passed.
    #[error("approval {} is {}", .0.id, .0.status.as_str())]
    Settled(Box<Approval>),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The most requests of one agent that wait, those included whose time passed within the last minute.
pub const MAX_PENDING: i64 = 32;

/// The approvals of a store.
#[derive(Debug, Clone, Copy)]
pub struct Approvals<'a> {
    pub(crate) store: &'a Store,
}

impl Approvals<'_> {
    /// The approval of a request, which is put up for a decision unless it was already: pending, approved or rejected.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn ask(
        &self,
        org: &OrgId,
        asked: &Asked,
        actor: &Actor,
    ) -> Result<Approval, AskError> {
        let digest = asked.digest();
        let now = self.store.inner.time.now();
        let found = find_live(org, &digest, now)
            .fetch_optional(self.store.pool())
            .await?;
        if let Some(row) = found {
            return Ok(read(&row, now)?);
        }
        let change = Change::Approval {
            org,
            agent: &asked.agent,
        };
        let mut tx = self.store.write(change).await?;
        let now = tx.now();
        let found = find_live(org, &digest, now)
            .fetch_optional(tx.conn())
            .await?;
        if let Some(row) = found {
            return Ok(read(&row, now)?);
        }
        check_room(&mut tx, org, &asked.agent).await?;
        let approval = fresh(org, asked, now);
        insert(&mut tx, &approval, &digest, asked.ttl).await?;
        record(&mut tx, &approval, "approval.request", actor).await?;
        tx.commit().await?;
        Ok(approval)
    }

    /// One approval; with an agent, only if it is that one's.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn get(
        &self,
        org: &OrgId,
        agent: Option<&AgentId>,
        id: &ApprovalId,
    ) -> Result<Option<Approval>, StoreError> {
        let now = self.store.inner.time.now();
        let row = query(GET)
            .bind(org.as_str())
            .bind(id.as_str())
            .fetch_optional(self.store.pool())
            .await?;
        let approval = row.as_ref().map(|row| read(row, now)).transpose()?;
        Ok(approval.filter(|approval| agent.is_none_or(|agent| approval.agent_id == *agent)))
    }

    /// Approvals in the order they were asked for, of one agent or of all, of one status or of all.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn list(
        &self,
        org: &OrgId,
        agent: Option<&AgentId>,
        status: Option<ApprovalStatus>,
        page: &PageRequest,
    ) -> Result<Page<Approval>, StoreError> {
        let now = self.store.inner.time.now();
        let place = ("approvals", "agent_id");
        let rows = page_rows(self.store, place, org, (agent, status), page, now).await?;
        let approvals = rows
            .iter()
            .map(|row| read(row, now))
            .collect::<Result<_, _>>()?;
        Ok(Page::from_overfull(
            approvals,
            page.bounded_limit(),
            |one: &Approval| one.id.as_str(),
        ))
    }

    /// Decides on a request that waits. `None` when there is none of that id.
    ///
    /// # Errors
    /// [`DecideError::Settled`] with how it stands, [`DecideError::Store`].
    pub async fn decide(
        &self,
        org: &OrgId,
        id: &ApprovalId,
        verdict: Verdict,
        reason: Option<&str>,
        actor: &Actor,
    ) -> Result<Option<Approval>, DecideError> {
        let mut tx = self.store.write(Change::Org(org)).await?;
        let statement = match verdict {
            Verdict::Approve => APPROVE,
            Verdict::Reject => REJECT,
        };
        let decided = query(statement)
            .bind(org.as_str())
            .bind(id.as_str())
            .bind(tx.now())
            .bind(&actor.id)
            .bind(reason)
            .execute(tx.conn())
            .await?;
        let row = query(GET)
            .bind(org.as_str())
            .bind(id.as_str())
            .fetch_optional(tx.conn())
            .await?;
        let Some(row) = row else {
            return Ok(None);
        };
        let approval = read(&row, tx.now())?;
        if decided == 0 {
            return Err(DecideError::Settled(Box::new(approval)));
        }
        let action = match verdict {
            Verdict::Approve => "approval.approve",
            Verdict::Reject => "approval.reject",
        };
        record(&mut tx, &approval, action, actor).await?;
        tx.commit().await?;
        Ok(Some(approval))
    }

    /// Deletes approvals, and consents, that ended 30 days ago, whatever became of them: every ten minutes, however often it is
    /// called, and 2,000 of either at a time. Gives their number.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn sweep(&self) -> Result<u64, StoreError> {
        let inner = &self.store.inner;
        let now = inner.time.now();
        if !inner.approvals_sweep.take(now, SWEEP_EVERY_MS) {
            return Ok(0);
        }
        let kept = i64::try_from(KEPT.as_millis()).unwrap_or(i64::MAX);
        let mut tx = self.store.write(Change::Installation).await?;
        let mut swept = 0;
        for statement in SWEEP {
            swept += query(statement)
                .bind(now.saturating_sub(kept))
                .execute(tx.conn())
                .await?;
        }
        tx.commit().await?;
        Ok(swept)
    }
}

/// One more row of a table than a page has, in the order they were asked for: of one agent, whose id stands in `asker`, or of all,
/// and of one status or of all. Consents are listed by the same text.
pub(crate) async fn page_rows(
    store: &Store,
    (table, asker): (&'static str, &'static str),
    org: &OrgId,
    (agent, status): (Option<&AgentId>, Option<ApprovalStatus>),
    page: &PageRequest,
    now: i64,
) -> Result<Vec<Row>, StoreError> {
    let of_agent = agent.map_or_else(String::new, |_| format!("AND {asker} = $5"));
    let in_status = status.map_or("", ApprovalStatus::condition);
    // Each text has a `$4`, so that an agent is `$5` in all of them.
    let text = format!(
        "SELECT *, $4 AS looked_at FROM {table} WHERE org_id = $1 AND id > $2 {of_agent} {in_status} \
         ORDER BY id LIMIT $3"
    );
    let mut statement = built(text)
        .bind(org.as_str())
        .bind(page.after_id()?)
        .bind(page.bounded_limit() + 1)
        .bind(now);
    if let Some(agent) = agent {
        statement = statement.bind(agent.as_str());
    }
    statement.fetch_all(store.pool()).await
}

/// For so long after its end an approval is kept. The trail tells of it for ever.
const KEPT: Duration = Duration::from_hours(30 * 24);
/// How often old ones are deleted.
const SWEEP_EVERY_MS: i64 = 10 * 60 * 1_000;
/// What one sweep deletes: a short change, so that a backlog keeps nobody waiting.
const SWEEP: [&str; 2] = [
    "DELETE FROM approvals WHERE id IN \
     (SELECT id FROM approvals WHERE expires_at < $1 ORDER BY expires_at LIMIT 2000)",
    "DELETE FROM consents WHERE id IN \
     (SELECT id FROM consents WHERE expires_at < $1 ORDER BY expires_at LIMIT 2000)",
];
const GET: &str = "SELECT * FROM approvals WHERE org_id = $1 AND id = $2";
const FIND: &str = "SELECT * FROM approvals WHERE org_id = $1 AND digest = $2 AND expires_at > $3 \
    AND status <> 'consumed' ORDER BY id DESC LIMIT 1";
const INSERT: &str = "INSERT INTO approvals (id, org_id, agent_id, grant_id, secret_set_id, lease_id, digest, status, \
    method, scheme, host, port, path, query_sha256, body_sha256, body_bytes, head, ttl_ms, created_at, expires_at) \
    VALUES ($1, $2, $3, $4, $5, $6, $7, 'pending', $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19)";
const APPROVE: &str = "UPDATE approvals SET status = 'approved', decided_at = $3, decided_by = $4, reason = $5, \
    expires_at = $3 + ttl_ms WHERE org_id = $1 AND id = $2 AND status = 'pending' AND expires_at > $3";
/// It stands until its wait would have ended, so that a repeated request is told.
const REJECT: &str = "UPDATE approvals SET status = 'rejected', decided_at = $3, decided_by = $4, reason = $5 \
    WHERE org_id = $1 AND id = $2 AND status = 'pending' AND expires_at > $3";
const PENDING: &str = "SELECT COUNT(*) AS waiting, MIN(expires_at) AS first FROM approvals \
    WHERE org_id = $1 AND agent_id = $2 AND status = 'pending' AND expires_at > $3";
/// What an agent left to expire counts for so long, so that short waits are no way around the bound.
const REMEMBERED: Duration = Duration::from_mins(1);

fn find_live(org: &OrgId, digest: &[u8; 32], now: i64) -> Query {
    query(FIND).bind(org.as_str()).bind(&digest[..]).bind(now)
}

async fn check_room(tx: &mut WriteTx<'_>, org: &OrgId, agent: &AgentId) -> Result<(), AskError> {
    let remembered = i64::try_from(REMEMBERED.as_millis()).unwrap_or(i64::MAX);
    let since = tx.now().saturating_sub(remembered);
    let row = query(PENDING)
        .bind(org.as_str())
        .bind(agent.as_str())
        .bind(since)
        .fetch_optional(tx.conn())
        .await?;
    row.map_or(Ok(()), |row| check_waiting(&row, since))
}

/// Refuses one more than [`MAX_PENDING`]: `waiting` is how many wait, and `first` when the first of them no longer counts.
pub(crate) fn check_waiting(row: &Row, since: i64) -> Result<(), AskError> {
    if row.try_get::<i64>("waiting")? < MAX_PENDING {
        return Ok(());
    }
    let first = row.try_get::<Option<i64>>("first")?.unwrap_or(since);
    let retry_after = Duration::from_millis(u64::try_from(first - since).unwrap_or(0));
    Err(AskError::TooMany { retry_after })
}

fn fresh(org: &OrgId, asked: &Asked, now: i64) -> Approval {
    let created_at = at(now);
    Approval {
        id: ApprovalId::new(created_at),
        org: org.clone(),
        agent_id: asked.agent.clone(),
        grant_id: asked.grant.clone(),
        secret_set_id: asked.set.clone(),
        lease_id: asked.lease.clone(),
        status: ApprovalStatus::Pending,
        method: asked.method.clone(),
        scheme: asked.scheme.to_owned(),
        host: asked.host.clone(),
        port: asked.port,
        path: asked.path.clone(),
        query_sha256: asked
            .query
            .as_ref()
            .map(|query| Sha256::digest(query).to_vec()),
        body_sha256: asked.body_sha256.to_vec(),
        body_bytes: asked.body_bytes,
        head: Some(asked.head.clone()),
        created_at,
        expires_at: created_at + asked.pending,
        decided_by: None,
        decided_at: None,
        reason: None,
        consumed_at: None,
    }
}

async fn insert(
    tx: &mut WriteTx<'_>,
    approval: &Approval,
    digest: &[u8; 32],
    ttl: Duration,
) -> Result<(), StoreError> {
    let head = approval
        .head
        .as_ref()
        .map(|head| to_json(head, "approval head"));
    let head = head.transpose()?;
    query(INSERT)
        .bind(approval.id.as_str())
        .bind(approval.org.as_str())
        .bind(approval.agent_id.as_str())
        .bind(approval.grant_id.as_str())
        .bind(approval.secret_set_id.as_str())
        .bind(approval.lease_id.as_str())
        .bind(&digest[..])
        .bind(&approval.method)
        .bind(&approval.scheme)
        .bind(&approval.host)
        .bind(i64::from(approval.port))
        .bind(&approval.path)
        .bind(Value::Bytes(approval.query_sha256.clone()))
        .bind(&approval.body_sha256)
        .bind(stored(approval.body_bytes))
        .bind(head)
        .bind(i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX))
        .bind(millis(approval.created_at))
        .bind(millis(approval.expires_at))
        .execute(tx.conn())
        .await?;
    Ok(())
}

async fn record(
    tx: &mut WriteTx<'_>,
    approval: &Approval,
    action: &'static str,
    actor: &Actor,
) -> Result<(), StoreError> {
    let event = NewEvent {
        action,
        agent_id: Some(approval.agent_id.clone()),
        grant_id: Some(approval.grant_id.clone()),
        secret_set_id: Some(approval.secret_set_id.clone()),
        lease_id: Some(approval.lease_id.clone()),
        method: Some(approval.method.clone()),
        host: Some(approval.host.clone()),
        port: Some(approval.port),
        path: Some(approval.path.clone()),
        approval_id: Some(approval.id.clone()),
        reason: approval.reason.clone(),
        ..NewEvent::default()
    };
    tx.append(&approval.org, actor, &event).await?;
    Ok(())
}

fn read(row: &Row, now: i64) -> Result<Approval, StoreError> {
    const WHAT: &str = "approval";
    let corrupt = || StoreError::Corrupt { what: WHAT };
    let expires_at = time(row, "expires_at")?;
    let status = ApprovalStatus::parse(row.try_get("status")?).ok_or_else(corrupt)?;
    let head = row.try_get::<Option<&str>>("head")?;
    let head = head.map(|text| from_json(text, WHAT)).transpose()?;
    Ok(Approval {
        id: id(row, "id", WHAT)?,
        org: id(row, "org_id", WHAT)?,
        agent_id: id(row, "agent_id", WHAT)?,
        grant_id: id(row, "grant_id", WHAT)?,
        secret_set_id: id(row, "secret_set_id", WHAT)?,
        lease_id: id(row, "lease_id", WHAT)?,
        status: status.at(expires_at, now),
        method: row.try_get("method")?,
        scheme: row.try_get("scheme")?,
        host: row.try_get("host")?,
        port: u16::try_from(row.try_get::<i64>("port")?).map_err(|_| corrupt())?,
        path: row.try_get("path")?,
        query_sha256: row.try_get("query_sha256")?,
        body_sha256: row.try_get("body_sha256")?,
        body_bytes: count(row, "body_bytes")?,
        head,
        created_at: time(row, "created_at")?,
        expires_at,
        decided_by: row.try_get("decided_by")?,
        decided_at: optional_time(row, "decided_at")?,
        reason: row.try_get("reason")?,
        consumed_at: optional_time(row, "consumed_at")?,
    })
}

#[cfg(test)]
mod tests;
