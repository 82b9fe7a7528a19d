//! Agents that ask for themselves: each waits until the person whom it named decides.
//!
//! Whether anybody has the email is not to be found out by asking, so the same statements run either way.

use std::net::IpAddr;
use std::time::Duration;

use ::leases::id::{AgentId, EnrolmentId, OrgId, UserId};
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;

use crate::agents::{self, Agent, CreateAgentError, NewAgent};
use crate::db::{Change, On, Row, WriteTx, id, optional_time, query, time};
use crate::timekeeper::at;
use crate::{Actor, Decision, NewEvent, Page, PageRequest, Store, StoreError};

/// An agent that asked for itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enrolment {
    /// Its id.
    pub id: EnrolmentId,
    /// The organisation of the person whom it named.
    pub org: OrgId,
    /// That person.
    pub user: UserId,
    /// What it calls itself.
    pub name: String,
    /// What it says of itself.
    pub description: Option<String>,
    /// Where it asked from.
    pub client_ip: Option<String>,
    /// How it stands.
    pub status: EnrolmentStatus,
    /// When it asked.
    pub created_at: OffsetDateTime,
    /// Until when it waits.
    pub expires_at: OffsetDateTime,
    /// When somebody decided.
    pub decided_at: Option<OffsetDateTime>,
    /// Who decided.
    pub decided_by: Option<String>,
    /// The agent that it became.
    pub agent: Option<AgentId>,
}

/// How an enrolment stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EnrolmentStatus {
    /// It waits.
    Pending,
    /// It became an agent.
    Approved,
    /// Somebody said no.
    Rejected,
}

impl EnrolmentStatus {
    /// As it is stored and as it stands in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Approved => "approved",
            Self::Rejected => "rejected",
        }
    }

    fn read(text: &str) -> Result<Self, StoreError> {
        let mut all = [Self::Pending, Self::Approved, Self::Rejected].into_iter();
        all.find(|status| status.as_str() == text).ok_or(CORRUPT)
    }
}

/// An agent that asks for itself.
#[derive(Debug, Clone)]
pub struct NewEnrolment {
    /// What it calls itself.
    pub name: String,
    /// What it says of itself.
    pub description: Option<String>,
    /// The canonical email of the person whom it names. It is not stored.
    pub email: String,
    /// What its address counts as for the limit.
    pub source: IpAddr,
}

/// What became of a request to be enrolled. That the email is nobody's makes no difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Enrolling {
    /// It waits under this id, for 7 days.
    Waits(EnrolmentId),
    /// Its address, or somebody for this email, asked too often.
    TooOften(Duration),
}

/// Why an enrolment is not decided.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EnrolmentError {
    /// It was decided before.
    #[error("the enrolment was {} before", .0.as_str())]
    Settled(EnrolmentStatus),
    /// No agent can be made of it.
    #[error(transparent)]
    Agent(#[from] CreateAgentError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Who decides about an enrolment.
#[derive(Debug, Clone, Copy)]
pub struct Decider<'a> {
    /// The organisation.
    pub org: &'a OrgId,
    /// The one person whose enrolments these may be; none for whoever decides for everybody.
    pub only: Option<&'a str>,
    /// Who it is.
    pub actor: &'a Actor,
}

/// The enrolments of a store.
#[derive(Debug, Clone, Copy)]
pub struct Enrolments<'a> {
    pub(crate) store: &'a Store,
}

impl Enrolments<'_> {
    /// Lets an agent wait for the person of an email. It is on record with that person's organisation, and with `otherwise` if
    /// there is none.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn begin(
        &self,
        new: NewEnrolment,
        otherwise: &OrgId,
        actor: &Actor,
    ) -> Result<Enrolling, StoreError> {
        let mut tx = self.store.write(Change::Installation).await?;
        sweep(&mut tx).await?;
        let address = source("address", &new.source.to_string());
        let email = source("email", &new.email);
        for (source, limit) in [(address, ADDRESS), (email, EMAIL)] {
            if let Some(wait) = take(&mut tx, &source, limit).await? {
                // What the address has taken up counts although the email has not.
                tx.commit().await?;
                return Ok(Enrolling::TooOften(wait));
            }
        }
        let found = query("SELECT org_id, id FROM users WHERE email = $1 AND removed_at IS NULL")
            .bind(&new.email)
            .fetch_optional(tx.conn())
            .await?;
        let named = found.as_ref().map(person).transpose()?;
        let enrolment = EnrolmentId::new(at(tx.now()));
        // What waits for nobody is gone with the next sweep.
        let lives = if named.is_some() { LIFETIME_MS } else { 0 };
        let (org, user) = named.clone().unzip();
        query(
            "INSERT INTO enrolments (id, org_id, user_id, name, description, client_ip, status, created_at, expires_at) \
             VALUES ($1, $2, $3, $4, $5, $6, 'pending', $7, $8)",
        )
        .bind(enrolment.as_str())
        .bind(org.as_ref().map(ToString::to_string))
        .bind(user.as_ref().map(ToString::to_string))
        .bind(&new.name)
        .bind(&new.description)
        .bind(actor.client_ip.map(|ip| ip.to_string()))
        .bind(tx.now())
        .bind(tx.now() + lives)
        .execute(tx.conn())
        .await?;
        let event = NewEvent {
            action: "agent.enroll",
            keys: vec![enrolment.to_string()],
            ..NewEvent::default()
        };
        tx.append(org.as_ref().unwrap_or(otherwise), actor, &event)
            .await?;
        tx.commit().await?;
        Ok(Enrolling::Waits(enrolment))
    }

    /// Enrolments in the order they were asked for, of all people of an organisation or of one.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn list(
        &self,
        org: &OrgId,
        only: Option<&str>,
        page: &PageRequest,
    ) -> Result<Page<Enrolment>, StoreError> {
        let limit = page.bounded_limit();
        let rows = query(
            "SELECT * FROM enrolments WHERE org_id = $1 AND id > $2 AND expires_at > $3 \
             AND ($4 IS NULL OR user_id = $4) ORDER BY id LIMIT $5",
        )
        .bind(org.as_str())
        .bind(page.after_id()?)
        .bind(self.store.inner.time.now())
        .bind(only)
        .bind(limit + 1)
        .fetch_all(self.store.pool())
        .await?;
        let found = rows.iter().map(read).collect::<Result<_, _>>()?;
        Ok(Page::from_overfull(found, limit, |one: &Enrolment| {
            one.id.as_str()
        }))
    }

    /// An enrolment that waits for this person, if it does.
    ///
    /// # Errors
    /// [`EnrolmentError::Settled`], [`EnrolmentError::Store`].
    pub async fn waiting(
        &self,
        decider: Decider<'_>,
        id: &EnrolmentId,
    ) -> Result<Option<Enrolment>, EnrolmentError> {
        find(self.store.pool(), self.store.inner.time.now(), decider, id).await
    }

    /// Makes an agent of an enrolment; `None` when none waits for this person. `make` says which agent.
    ///
    /// # Errors
    /// [`EnrolmentError`]; nothing was changed then.
    pub async fn approve(
        &self,
        decider: Decider<'_>,
        id: &EnrolmentId,
        make: impl FnOnce(&Enrolment) -> NewAgent,
    ) -> Result<Option<Agent>, EnrolmentError> {
        let mut tx = self.store.write(Change::Org(decider.org)).await?;
        let now = tx.now();
        let Some(enrolment) = find(tx.conn(), now, decider, id).await? else {
            return Ok(None);
        };
        let new = make(&enrolment);
        let admitted = agents::put(self.store, &mut tx, decider.org, new, decider.actor).await?;
        let approved = EnrolmentStatus::Approved;
        settle(&mut tx, decider, id, (approved, Some(&admitted.agent.id))).await?;
        let event = NewEvent {
            action: "agent.enroll_approve",
            agent_id: Some(admitted.agent.id.clone()),
            keys: vec![id.to_string()],
            ..NewEvent::default()
        };
        tx.append(decider.org, decider.actor, &event).await?;
        admitted.record(&mut tx, decider.actor).await?;
        tx.commit().await?;
        Ok(Some(admitted.agent))
    }

    /// Turns an enrolment away. False when none waits for this person.
    ///
    /// # Errors
    /// [`EnrolmentError`].
    pub async fn reject(
        &self,
        decider: Decider<'_>,
        id: &EnrolmentId,
    ) -> Result<bool, EnrolmentError> {
        let mut tx = self.store.write(Change::Org(decider.org)).await?;
        let now = tx.now();
        if find(tx.conn(), now, decider, id).await?.is_none() {
            return Ok(false);
        }
        settle(&mut tx, decider, id, (EnrolmentStatus::Rejected, None)).await?;
        let event = NewEvent {
            action: "agent.enroll_reject",
            decision: Decision::Deny,
            keys: vec![id.to_string()],
            ..NewEvent::default()
        };
        tx.append(decider.org, decider.actor, &event).await?;
        tx.commit().await?;
        Ok(true)
    }
}

/// The enrolment that waits for this person.
async fn find<'c>(
    on: impl Into<On<'c>>,
    now: i64,
    decider: Decider<'_>,
    id: &EnrolmentId,
) -> Result<Option<Enrolment>, EnrolmentError> {
    let row = query(
        "SELECT * FROM enrolments WHERE org_id = $1 AND id = $2 AND expires_at > $3 \
         AND ($4 IS NULL OR user_id = $4)",
    )
    .bind(decider.org.as_str())
    .bind(id.as_str())
    .bind(now)
    .bind(decider.only)
    .fetch_optional(on)
    .await?;
    let found = row.as_ref().map(read).transpose()?;
    match found {
        Some(found) if found.status != EnrolmentStatus::Pending => {
            Err(EnrolmentError::Settled(found.status))
        }
        found => Ok(found),
    }
}

async fn settle(
    tx: &mut WriteTx<'_>,
    decider: Decider<'_>,
    id: &EnrolmentId,
    (status, agent): (EnrolmentStatus, Option<&AgentId>),
) -> Result<(), StoreError> {
    query(
        "UPDATE enrolments SET status = $1, decided_at = $2, decided_by = $3, agent_id = $4 \
         WHERE org_id = $5 AND id = $6",
    )
    .bind(status.as_str())
    .bind(tx.now())
    .bind(&decider.actor.id)
    .bind(agent.map(AgentId::as_str))
    .bind(decider.org.as_str())
    .bind(id.as_str())
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Forgets what no longer waits, and limits that hold nobody back.
async fn sweep(tx: &mut WriteTx<'_>) -> Result<(), StoreError> {
    for statement in [
        query("DELETE FROM enrolments WHERE expires_at <= $1"),
        query("DELETE FROM enrolment_limits WHERE due_at <= $1"),
    ] {
        statement.bind(tx.now()).execute(tx.conn()).await?;
    }
    Ok(())
}

/// How often something may happen.
#[derive(Debug, Clone, Copy)]
struct Limit {
    /// From one to the next in the long run, in milliseconds.
    every: i64,
    /// So many at once.
    burst: i64,
}

const ADDRESS: Limit = Limit {
    every: 1_000,
    burst: 5,
};
const EMAIL: Limit = Limit {
    every: 10 * 60 * 1_000,
    burst: 1,
};

/// Counts one; the wait if it is one too many. The generic cell rate algorithm (ITU-T I.371): a row holds the time at which the
/// next one would be due at the least rate.
async fn take(
    tx: &mut WriteTx<'_>,
    source: &[u8; 32],
    limit: Limit,
) -> Result<Option<Duration>, StoreError> {
    let now = tx.now();
    let due: Option<i64> = query("SELECT due_at FROM enrolment_limits WHERE source = $1")
        .bind(&source[..])
        .fetch_value(tx.conn())
        .await?;
    let next = due.unwrap_or(now).max(now) + limit.every;
    let early = next - now - limit.every * limit.burst;
    if early > 0 {
        return Ok(Some(Duration::from_millis(early.unsigned_abs())));
    }
    query(
        "INSERT INTO enrolment_limits (source, due_at) VALUES ($1, $2) \
         ON CONFLICT (source) DO UPDATE SET due_at = excluded.due_at",
    )
    .bind(&source[..])
    .bind(next)
    .execute(tx.conn())
    .await?;
    Ok(None)
}

fn source(kind: &str, name: &str) -> [u8; 32] {
    let digest = Sha256::new().chain_update(kind).chain_update([0]);
    digest.chain_update(name).finalize().into()
}

fn person(row: &Row) -> Result<(OrgId, UserId), StoreError> {
    Ok((id(row, "org_id", "user")?, id(row, "id", "user")?))
}

fn read(row: &Row) -> Result<Enrolment, StoreError> {
    const WHAT: &str = "enrolment";
    let agent: Option<&str> = row.try_get("agent_id")?;
    Ok(Enrolment {
        id: id(row, "id", WHAT)?,
        org: id(row, "org_id", WHAT)?,
        user: id(row, "user_id", WHAT)?,
        name: row.try_get("name")?,
        description: row.try_get("description")?,
        client_ip: row.try_get("client_ip")?,
        status: EnrolmentStatus::read(row.try_get("status")?)?,
        created_at: time(row, "created_at")?,
        expires_at: time(row, "expires_at")?,
        decided_at: optional_time(row, "decided_at")?,
        decided_by: row.try_get("decided_by")?,
        agent: agent
            .map(|agent| agent.parse().map_err(|_| CORRUPT))
            .transpose()?,
    })
}

const CORRUPT: StoreError = StoreError::Corrupt { what: "enrolment" };
/// How long an enrolment waits: over a weekend.
const LIFETIME_MS: i64 = 7 * 24 * 60 * 60 * 1_000;
