//! Consents: questions of agents and people to a person, beside the [requests](crate::approvals) that wait for approval.
//!
//! A consent says what was asked and what was answered, and whoever asked acts on it. It opens nothing here: no use looks at
//! this table, so none of its rows can stand for the approval of a request.

use std::time::Duration;

use ::leases::id::{AgentId, ApprovalId, OrgId};
use time::OffsetDateTime;

use crate::approvals::{ApprovalStatus, AskError, Verdict, check_waiting, page_rows};
use crate::db::{Change, On, Row, WriteTx, id, optional_time, query, time};
use crate::timekeeper::{at, millis};
use crate::{Actor, ActorKind, NewEvent, Page, PageRequest, Store, StoreError};

/// A question and its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consent {
    /// Its id, of the same kind as those of requests.
    pub id: ApprovalId,
    /// Its organisation.
    pub org: OrgId,
    /// Id of who asks.
    pub asked_by: String,
    /// The kind of that principal, as events name it.
    pub asked_by_type: String,
    /// What they ask.
    pub question: Question,
    /// How it stands now; never [`ApprovalStatus::Consumed`].
    pub status: ApprovalStatus,
    /// When it was asked.
    pub created_at: OffsetDateTime,
    /// Until when it waits, or is good once it is approved.
    pub expires_at: OffsetDateTime,
    /// Id of who decided.
    pub decided_by: Option<String>,
    /// When it was decided.
    pub decided_at: Option<OffsetDateTime>,
    /// Why it was decided so.
    pub decision_reason: Option<String>,
}

/// What is asked, in words of who asks: nobody has checked them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// What they want to do.
    pub action: String,
    /// The kind of thing they want to do it to.
    pub target_type: String,
    /// Which one.
    pub target_id: String,
    /// The question in a sentence.
    pub summary: String,
    /// Why they want to.
    pub reason: Option<String>,
}

/// Why a decision on a consent is not made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecideConsentError {
    /// It was decided before, or its time has passed.
    #[error("approval {} is {}", .0.id, .0.status.as_str())]
    Settled(Box<Consent>),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The consents of a store.
#[derive(Debug, Clone, Copy)]
pub struct Consents<'a> {
    pub(crate) store: &'a Store,
}

impl Consents<'_> {
    /// Puts a question up for a decision. At most [`MAX_PENDING`](crate::approvals::MAX_PENDING) of one principal wait at once.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn ask(
        &self,
        org: &OrgId,
        question: Question,
        actor: &Actor,
    ) -> Result<Consent, AskError> {
        // First beside everybody else's changes: one that asks too much keeps nobody waiting.
        check_room(self.store.pool(), org, actor, self.store.inner.time.now()).await?;
        let mut tx = self.store.write(Change::Org(org)).await?;
        let now = tx.now();
        check_room(tx.conn(), org, actor, now).await?;
        let consent = Consent {
            id: ApprovalId::new(at(now)),
            org: org.clone(),
            asked_by: actor.id.clone(),
            asked_by_type: actor.kind.as_str().to_owned(),
            question,
            status: ApprovalStatus::Pending,
            created_at: at(now),
            expires_at: at(now) + LIFETIME,
            decided_by: None,
            decided_at: None,
            decision_reason: None,
        };
        insert(&mut tx, &consent).await?;
        record(&mut tx, &consent, "approval.request", actor).await?;
        tx.commit().await?;
        Ok(consent)
    }

    /// One consent; with an agent, only if that one asked.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn get(
        &self,
        org: &OrgId,
        agent: Option<&AgentId>,
        id: &ApprovalId,
    ) -> Result<Option<Consent>, StoreError> {
        let now = self.store.inner.time.now();
        let row = query(GET)
            .bind(org.as_str())
            .bind(id.as_str())
            .fetch_optional(self.store.pool())
            .await?;
        let consent = row.as_ref().map(|row| read(row, now)).transpose()?;
        Ok(consent.filter(|consent| agent.is_none_or(|agent| consent.asked_by == agent.as_str())))
    }

    /// Consents in the order they were asked for, of one agent or of all, of one status or of all.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn list(
        &self,
        org: &OrgId,
        agent: Option<&AgentId>,
        status: Option<ApprovalStatus>,
        page: &PageRequest,
    ) -> Result<Page<Consent>, StoreError> {
        let now = self.store.inner.time.now();
        let place = ("consents", "asked_by");
        let rows = page_rows(self.store, place, org, (agent, status), page, now).await?;
        let consents = rows
            .iter()
            .map(|row| read(row, now))
            .collect::<Result<_, _>>()?;
        Ok(Page::from_overfull(
            consents,
            page.bounded_limit(),
            |one: &Consent| one.id.as_str(),
        ))
    }

    /// Decides on a consent that waits. `None` when there is none of that id.
    ///
    /// # Errors
    /// [`DecideConsentError::Settled`] with how it stands, [`DecideConsentError::Store`].
    pub async fn decide(
        &self,
        org: &OrgId,
        id: &ApprovalId,
        verdict: Verdict,
        reason: Option<&str>,
        actor: &Actor,
    ) -> Result<Option<Consent>, DecideConsentError> {
        let mut tx = self.store.write(Change::Org(org)).await?;
        let now = tx.now();
        let (status, action, ends) = match verdict {
            Verdict::Approve => ("approved", "approval.approve", Some(at(now) + LIFETIME)),
            // It stands until its wait would have ended, as a rejected request does.
            Verdict::Reject => ("rejected", "approval.reject", None),
        };
        let decided = query(DECIDE)
            .bind(org.as_str())
            .bind(id.as_str())
            .bind(now)
            .bind(status)
            .bind(&actor.id)
            .bind(reason)
            .bind(ends.map(millis))
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
        let consent = read(&row, now)?;
        if decided == 0 {
            return Err(DecideConsentError::Settled(Box::new(consent)));
        }
        record(&mut tx, &consent, action, actor).await?;
        tx.commit().await?;
        Ok(Some(consent))
    }
}

/// For so long a consent waits for its decision, and an approved one is good from then on: as long as a request's may.
const LIFETIME: Duration = Duration::from_hours(24);
const GET: &str = "SELECT * FROM consents WHERE org_id = $1 AND id = $2";
const INSERT: &str = "INSERT INTO consents (id, org_id, asked_by, asked_by_type, action, target_type, target_id, \
    summary, reason, status, created_at, expires_at) \
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 'pending', $10, $11)";
const DECIDE: &str = "UPDATE consents SET status = $4, decided_at = $3, decided_by = $5, decision_reason = $6, \
    expires_at = COALESCE($7, expires_at) \
    WHERE org_id = $1 AND id = $2 AND status = 'pending' AND expires_at > $3";
const PENDING: &str = "SELECT COUNT(*) AS waiting, MIN(expires_at) AS first FROM consents \
    WHERE org_id = $1 AND asked_by = $2 AND status = 'pending' AND expires_at > $3";

async fn check_room<'c>(
    on: impl Into<On<'c>>,
    org: &OrgId,
    actor: &Actor,
    now: i64,
) -> Result<(), AskError> {
    let row = query(PENDING)
        .bind(org.as_str())
        .bind(&actor.id)
        .bind(now)
        .fetch_optional(on)
        .await?;
    row.map_or(Ok(()), |row| check_waiting(&row, now))
}

async fn insert(tx: &mut WriteTx<'_>, consent: &Consent) -> Result<(), StoreError> {
    let question = &consent.question;
    query(INSERT)
        .bind(consent.id.as_str())
        .bind(consent.org.as_str())
        .bind(&consent.asked_by)
        .bind(&consent.asked_by_type)
        .bind(&question.action)
        .bind(&question.target_type)
        .bind(&question.target_id)
        .bind(&question.summary)
        .bind(&question.reason)
        .bind(millis(consent.created_at))
        .bind(millis(consent.expires_at))
        .execute(tx.conn())
        .await?;
    Ok(())
}

async fn record(
    tx: &mut WriteTx<'_>,
    consent: &Consent,
    action: &'static str,
    actor: &Actor,
) -> Result<(), StoreError> {
    let question = &consent.question;
    let is_agents = consent.asked_by_type == ActorKind::Agent.as_str();
    let agent = is_agents.then(|| consent.asked_by.parse());
    let event = NewEvent {
        action,
        agent_id: agent.transpose().map_err(|_| CORRUPT)?,
        approval_id: Some(consent.id.clone()),
        keys: vec![
            question.action.clone(),
            question.target_type.clone(),
            question.target_id.clone(),
        ],
        reason: consent
            .decision_reason
            .clone()
            .or_else(|| question.reason.clone()),
        ..NewEvent::default()
    };
    tx.append(&consent.org, actor, &event).await?;
    Ok(())
}

fn read(row: &Row, now: i64) -> Result<Consent, StoreError> {
    let expires_at = time(row, "expires_at")?;
    let status = ApprovalStatus::parse(row.try_get("status")?).ok_or(CORRUPT)?;
    Ok(Consent {
        id: id(row, "id", WHAT)?,
        org: id(row, "org_id", WHAT)?,
        asked_by: row.try_get("asked_by")?,
        asked_by_type: row.try_get("asked_by_type")?,
        question: Question {
            action: row.try_get("action")?,
            target_type: row.try_get("target_type")?,
            target_id: row.try_get("target_id")?,
            summary: row.try_get("summary")?,
            reason: row.try_get("reason")?,
        },
        status: status.at(expires_at, now),
        created_at: time(row, "created_at")?,
        expires_at,
        decided_by: row.try_get("decided_by")?,
        decided_at: optional_time(row, "decided_at")?,
        decision_reason: row.try_get("decision_reason")?,
    })
}

const WHAT: &str = "consent";
const CORRUPT: StoreError = StoreError::Corrupt { what: WHAT };

#[cfg(test)]
mod tests;
