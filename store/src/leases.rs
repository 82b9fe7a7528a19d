//! Lease records: what was minted, and what was revoked. Uses are the ledger's.

use ::leases::RevocationId;
use ::leases::id::{AgentId, GrantId, LeaseId, OrgId, SetId};
use ::leases::scope::{Action, Keys, Kind};
use time::OffsetDateTime;

use crate::db::{
    Change, Row, WriteTx, count, from_json, id, json, optional_time, query, stored, time, to_json,
};
use crate::timekeeper::{at, millis};
use crate::{Actor, NewEvent, Page, PageRequest, Pause, Store, StoreError, kill_switch};

/// What the store knows of a lease; the token itself is kept nowhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseRecord {
    /// Its id, in the token's authority block.
    pub id: LeaseId,
    /// Its organisation.
    pub org: OrgId,
    /// Who holds it.
    pub agent_id: AgentId,
    /// One use or many.
    pub kind: Kind,
    /// What it is for.
    pub action: Action,
    /// The sets that it opens, each by which grant.
    pub sets: Vec<(SetId, GrantId)>,
    /// When it was minted.
    pub issued_at: OffsetDateTime,
    /// When it ends.
    pub expires_at: OffsetDateTime,
    /// When it was revoked.
    pub revoked_at: Option<OffsetDateTime>,
    /// How often it was used. Exact for a request lease; of a workflow lease up to a second late.
    pub uses: u64,
    /// Revocation id of the authority block.
    pub revocation_id: RevocationId,
    /// The keys that were asked for of each set. `None` of a lease that was minted before this was recorded.
    pub keys: Option<Keys>,
    /// The workflow lease that it was minted from, with which it ends.
    pub parent: Option<LeaseId>,
}

/// A lease to be recorded, before its token is given out.
#[derive(Debug, Clone)]
pub struct NewLease {
    /// Its id, in the token's authority block.
    pub id: LeaseId,
    /// Who holds it.
    pub agent_id: AgentId,
    /// One use or many.
    pub kind: Kind,
    /// What it is for.
    pub action: Action,
    /// The sets that it opens, each by which grant.
    pub sets: Vec<(SetId, GrantId)>,
    /// When it was minted.
    pub issued_at: OffsetDateTime,
    /// When it ends.
    pub expires_at: OffsetDateTime,
    /// Revocation id of the authority block.
    pub revocation_id: RevocationId,
    /// The cut-off that was known when minting began: [`Minting::cut_off`](crate::Minting::cut_off).
    pub cut_off: u64,
    /// The keys that were asked for of each set, within what its grant allows.
    pub keys: Keys,
    /// The workflow lease of the same agent that it is minted from: it ends with it.
    pub parent: Option<LeaseId>,
}

/// Why a lease is not recorded, and so must not be given out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CreateLeaseError {
    /// The agent is gone, inactive or at its end.
    #[error("agent {0} is not active")]
    AgentInactive(AgentId),
    /// A grant is revoked, expired, or of another agent or set.
    #[error("grant {0} no longer holds")]
    GrantGone(GrantId),
    /// A set is deleted.
    #[error("secret set {0} is gone")]
    SetGone(SetId),
    /// The lease would outlive a grant of it.
    #[error("the lease would outlive grant {grant}")]
    OutlivesGrant {
        /// The grant that ends first.
        grant: GrantId,
        /// When it ends.
        ends_at: OffsetDateTime,
    },
    /// The lease would outlive its agent.
    #[error("the lease would outlive its agent, which ends at {ends_at}")]
    OutlivesAgent {
        /// When it ends.
        ends_at: OffsetDateTime,
    },
    /// The workflow lease that it was to be minted from has ended, was revoked, or ends before it.
    #[error("the workflow lease {0} no longer holds")]
    ParentGone(LeaseId),
    /// Minting is paused, for the organisation or the agent.
    #[error("minting is paused: {}", .0.press.reason)]
    Paused(Box<Pause>),
    /// Everything was revoked while the lease was made.
    #[error("everything was revoked while this lease was made")]
    CutOff,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The lease records of a store.
#[derive(Debug, Clone, Copy)]
pub struct Leases<'a> {
    pub(crate) store: &'a Store,
}

impl Leases<'_> {
    /// Records a lease, after a last look at agent, grants and sets in the same transaction.
    ///
    /// # Errors
    /// [`CreateLeaseError`]; the token must then not be given out.
    pub async fn create(
        &self,
        org: &OrgId,
        new: NewLease,
        actor: &Actor,
    ) -> Result<LeaseRecord, CreateLeaseError> {
        let mut tx = self.store.write(Change::Mint(org)).await?;
        check_kill_switch(&mut tx, org, &new).await?;
        check_agent(&mut tx, org, &new).await?;
        for (set, grant) in &new.sets {
            check_grant(&mut tx, org, &new, set, grant).await?;
        }
        if let Some(parent) = &new.parent {
            check_parent(&mut tx, org, &new, parent).await?;
        }
        let lease = LeaseRecord {
            id: new.id,
            org: org.clone(),
            agent_id: new.agent_id,
            kind: new.kind,
            action: new.action,
            sets: new.sets,
            issued_at: new.issued_at,
            expires_at: new.expires_at,
            revoked_at: None,
            uses: 0,
            revocation_id: new.revocation_id,
            keys: Some(new.keys),
            parent: new.parent,
        };
        insert(&mut tx, &lease, new.cut_off).await?;
        record(&mut tx, &lease, "lease.mint", actor).await?;
        tx.commit().await?;
        Ok(lease)
    }

    /// One lease.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn get(&self, org: &OrgId, id: &LeaseId) -> Result<Option<LeaseRecord>, StoreError> {
        let row = query(GET)
            .bind(org.as_str())
            .bind(id.as_str())
            .fetch_optional(self.store.pool())
            .await?;
        row.as_ref().map(read).transpose()
    }

    /// Leases in the order they were minted, of one agent or of all.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn list(
        &self,
        org: &OrgId,
        agent: Option<&AgentId>,
        page: &PageRequest,
    ) -> Result<Page<LeaseRecord>, StoreError> {
        let limit = page.bounded_limit();
        // Two statements, so that each walks an index that has nothing else in it.
        let statement = match agent {
            None => query(LIST).bind(org.as_str()),
            Some(agent) => query(LIST_OF_AGENT).bind(org.as_str()).bind(agent.as_str()),
        };
        let rows = statement
            .bind(page.after_id()?)
            .bind(limit + 1)
            .fetch_all(self.store.pool())
            .await?;
        let leases = rows.iter().map(read).collect::<Result<_, _>>()?;
        Ok(Page::from_overfull(leases, limit, |lease: &LeaseRecord| {
            lease.id.as_str()
        }))
    }

    /// Revokes a lease, every child of it and every lease that was minted from it: when this returns, no later use is
    /// recorded, on any node. Revoking again changes nothing. `None` when there is no such lease.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn revoke(
        &self,
        org: &OrgId,
        id: &LeaseId,
        actor: &Actor,
    ) -> Result<Option<LeaseRecord>, StoreError> {
        let mut tx = self.store.write(Change::Narrowing(org)).await?;
        let Some(mut lease) = find(&mut tx, org, id).await? else {
            return Ok(None);
        };
        if lease.revoked_at.is_some() {
            return Ok(Some(lease));
        }
        for statement in [REVOKE, REVOKE_MINTED_FROM] {
            query(statement)
                .bind(tx.now())
                .bind(org.as_str())
                .bind(id.as_str())
                .execute(tx.conn())
                .await?;
        }
        lease.revoked_at = Some(at(tx.now()));
        record(&mut tx, &lease, "lease.revoke", actor).await?;
        tx.commit().await?;
        Ok(Some(lease))
    }

    /// Revokes one block of a lease and all below it, until the lease ends anyway. False when
    /// there is no such lease.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn revoke_block(
        &self,
        org: &OrgId,
        id: &LeaseId,
        block: &RevocationId,
        until: OffsetDateTime,
        actor: &Actor,
    ) -> Result<bool, StoreError> {
        let mut tx = self.store.write(Change::Narrowing(org)).await?;
        let Some(lease) = find(&mut tx, org, id).await? else {
            return Ok(false);
        };
        // Past its lease's end a block is refused anyway.
        query("DELETE FROM revoked_blocks WHERE until < $1")
            .bind(tx.now())
            .execute(tx.conn())
            .await?;
        query(
            "INSERT INTO revoked_blocks (revocation_id, org_id, lease_id, revoked_at, until) \
             VALUES ($1, $2, $3, $4, $5) ON CONFLICT (revocation_id) DO NOTHING",
        )
        .bind(&block.as_bytes()[..])
        .bind(org.as_str())
        .bind(id.as_str())
        .bind(tx.now())
        .bind(millis(until.max(lease.expires_at)))
        .execute(tx.conn())
        .await?;
        record(&mut tx, &lease, "lease.revoke", actor).await?;
        tx.commit().await?;
        Ok(true)
    }

    /// Whether a block was revoked on its own.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn is_block_revoked(
        &self,
        org: &OrgId,
        block: &RevocationId,
    ) -> Result<bool, StoreError> {
        let found = query("SELECT 1 FROM revoked_blocks WHERE org_id = $1 AND revocation_id = $2")
            .bind(org.as_str())
            .bind(&block.as_bytes()[..])
            .fetch_optional(self.store.pool())
            .await?;
        Ok(found.is_some())
    }
}

/// A lease that a cut-off ended has that for its revocation.
macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT id, org_id, agent_id, kind, action, sets, issued_at, expires_at, uses, revocation_id, keys, parent_id, \
             COALESCE(revoked_at, (SELECT MIN(k.revoked_at) FROM kill_switches k WHERE k.org_id = leases.org_id \
             AND k.agent_id IN ('', leases.agent_id) AND k.cut_off > leases.cut_off AND k.revoked_at < leases.expires_at)) \
             AS revoked_at FROM leases ",
            $rest
        )
    };
}

const GET: &str = select!("WHERE org_id = $1 AND id = $2");
const LIST: &str = select!("WHERE org_id = $1 AND id > $2 ORDER BY id LIMIT $3");
const LIST_OF_AGENT: &str =
    select!("WHERE org_id = $1 AND agent_id = $2 AND id > $3 ORDER BY id LIMIT $4");
const INSERT: &str = "INSERT INTO leases (id, org_id, agent_id, kind, action, sets, issued_at, \
    expires_at, uses, revocation_id, cut_off, keys, parent_id) \
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 0, $9, $10, $11, $12)";
const REVOKE: &str = "UPDATE leases SET revoked_at = $1 WHERE org_id = $2 AND id = $3";
const REVOKE_MINTED_FROM: &str =
    "UPDATE leases SET revoked_at = $1 WHERE org_id = $2 AND parent_id = $3 AND revoked_at IS NULL";

async fn find(
    tx: &mut WriteTx<'_>,
    org: &OrgId,
    id: &LeaseId,
) -> Result<Option<LeaseRecord>, StoreError> {
    let row = query(GET)
        .bind(org.as_str())
        .bind(id.as_str())
        .fetch_optional(tx.conn())
        .await?;
    row.as_ref().map(read).transpose()
}

/// Mints and the kill switch exclude each other, so what this reads holds until the commit.
async fn check_kill_switch(
    tx: &mut WriteTx<'_>,
    org: &OrgId,
    new: &NewLease,
) -> Result<(), CreateLeaseError> {
    let minting = kill_switch::minting(tx, org, &new.agent_id).await?;
    if let Some(pause) = minting.pause {
        return Err(CreateLeaseError::Paused(Box::new(pause)));
    }
    if minting.cut_off == new.cut_off {
        Ok(())
    } else {
        Err(CreateLeaseError::CutOff)
    }
}

async fn check_agent(
    tx: &mut WriteTx<'_>,
    org: &OrgId,
    new: &NewLease,
) -> Result<(), CreateLeaseError> {
    let active = query(
        "SELECT expires_at FROM agents \
         WHERE org_id = $1 AND id = $2 AND is_active = 1 AND deleted_at IS NULL \
         AND (expires_at IS NULL OR expires_at > $3)",
    )
    .bind(org.as_str())
    .bind(new.agent_id.as_str())
    .bind(tx.now())
    .fetch_optional(tx.conn())
    .await?;
    let Some(row) = active else {
        return Err(CreateLeaseError::AgentInactive(new.agent_id.clone()));
    };
    match optional_time(&row, "expires_at")? {
        Some(ends_at) if ends_at < new.expires_at => {
            Err(CreateLeaseError::OutlivesAgent { ends_at })
        }
        _ => Ok(()),
    }
}

async fn check_grant(
    tx: &mut WriteTx<'_>,
    org: &OrgId,
    new: &NewLease,
    set: &SetId,
    grant: &GrantId,
) -> Result<(), CreateLeaseError> {
    let live = query(
        "SELECT g.expires_at, s.deleted_at AS set_deleted_at \
         FROM grants g JOIN secret_sets s ON s.id = g.secret_set_id AND s.org_id = g.org_id \
         WHERE g.org_id = $1 AND g.id = $2 AND g.agent_id = $3 AND g.secret_set_id = $4 \
         AND g.revoked_at IS NULL AND (g.expires_at IS NULL OR g.expires_at > $5)",
    )
    .bind(org.as_str())
    .bind(grant.as_str())
    .bind(new.agent_id.as_str())
    .bind(set.as_str())
    .bind(tx.now())
    .fetch_optional(tx.conn())
    .await?;
    let Some(row) = live else {
        return Err(CreateLeaseError::GrantGone(grant.clone()));
    };
    if optional_time(&row, "set_deleted_at")?.is_some() {
        return Err(CreateLeaseError::SetGone(set.clone()));
    }
    match optional_time(&row, "expires_at")? {
        Some(ends_at) if ends_at < new.expires_at => Err(CreateLeaseError::OutlivesGrant {
            grant: grant.clone(),
            ends_at,
        }),
        _ => Ok(()),
    }
}

/// A revocation and a mint exclude each other, so a parent that stands here is revoked together with its new child at the
/// earliest.
async fn check_parent(
    tx: &mut WriteTx<'_>,
    org: &OrgId,
    new: &NewLease,
    parent: &LeaseId,
) -> Result<(), CreateLeaseError> {
    let stands = find(tx, org, parent).await?.is_some_and(|parent| {
        parent.kind == Kind::Workflow
            && parent.agent_id == new.agent_id
            && parent.revoked_at.is_none()
            && new.expires_at <= parent.expires_at
            && new.sets.iter().all(|bound| parent.sets.contains(bound))
    });
    if stands {
        Ok(())
    } else {
        Err(CreateLeaseError::ParentGone(parent.clone()))
    }
}

async fn insert(tx: &mut WriteTx<'_>, lease: &LeaseRecord, cut_off: u64) -> Result<(), StoreError> {
    query(INSERT)
        .bind(lease.id.as_str())
        .bind(lease.org.as_str())
        .bind(lease.agent_id.as_str())
        .bind(lease.kind.as_str())
        .bind(lease.action.as_str())
        .bind(to_json(&lease.sets, "lease")?)
        .bind(millis(lease.issued_at))
        .bind(millis(lease.expires_at))
        .bind(&lease.revocation_id.as_bytes()[..])
        .bind(stored(cut_off))
        .bind(
            lease
                .keys
                .as_ref()
                .map(|keys| to_json(keys, "lease"))
                .transpose()?,
        )
        .bind(lease.parent.as_ref().map(LeaseId::as_str))
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// One event for each set, so that a set's trail names every lease that opens it.
async fn record(
    tx: &mut WriteTx<'_>,
    lease: &LeaseRecord,
    action: &'static str,
    actor: &Actor,
) -> Result<(), StoreError> {
    for (set, grant) in &lease.sets {
        let event = NewEvent {
            action,
            agent_id: Some(lease.agent_id.clone()),
            lease_id: Some(lease.id.clone()),
            grant_id: Some(grant.clone()),
            secret_set_id: Some(set.clone()),
            ..NewEvent::default()
        };
        tx.append(&lease.org, actor, &event).await?;
    }
    Ok(())
}

fn read(row: &Row) -> Result<LeaseRecord, StoreError> {
    const WHAT: &str = "lease";
    let corrupt = StoreError::Corrupt { what: WHAT };
    Ok(LeaseRecord {
        id: id(row, "id", WHAT)?,
        org: id(row, "org_id", WHAT)?,
        agent_id: id(row, "agent_id", WHAT)?,
        kind: id(row, "kind", WHAT)?,
        action: id(row, "action", WHAT)?,
        sets: json(row, "sets", WHAT)?,
        issued_at: time(row, "issued_at")?,
        expires_at: time(row, "expires_at")?,
        revoked_at: optional_time(row, "revoked_at")?,
        uses: count(row, "uses")?,
        revocation_id: RevocationId::from_bytes(row.try_get("revocation_id")?)
            .map_err(|_| corrupt)?,
        keys: row
            .try_get::<Option<&str>>("keys")?
            .map(|keys| from_json(keys, WHAT))
            .transpose()?,
        parent: row
            .try_get::<Option<&str>>("parent_id")?
            .map(|parent| {
                parent
                    .parse()
                    .map_err(|_| StoreError::Corrupt { what: WHAT })
            })
            .transpose()?,
    })
}

#[cfg(test)]
mod tests;
