//! Agents: the principals that hold leases, and the digests of their keys.

use ::leases::id::{AgentId, OrgId};
use time::OffsetDateTime;

use crate::db::{Change, Row, WriteTx, id, optional_time, query, time};
use crate::timekeeper::at;
use crate::{Actor, NewEvent, Page, PageRequest, Store, StoreError};

/// An agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agent {
    /// Its id.
    pub id: AgentId,
    /// Its organisation.
    pub org: OrgId,
    /// Unique among the organisation's agents that are not deleted.
    pub name: String,
    /// Free text.
    pub description: Option<String>,
    /// An inactive agent gets no lease, and its leases are refused.
    pub is_active: bool,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// When it last changed.
    pub updated_at: OffsetDateTime,
    /// When a lease of it was last used, to about a second.
    pub last_used_at: Option<OffsetDateTime>,
}

/// An agent to be made.
#[derive(Debug, Clone)]
pub struct NewAgent {
    /// Unique among the organisation's agents.
    pub name: String,
    /// Free text.
    pub description: Option<String>,
    /// SHA-256 of its key's text.
    pub key_hash: [u8; 32],
}

/// What to change; `None` leaves a field as it is.
#[derive(Debug, Clone, Default)]
pub struct AgentPatch {
    /// A new name.
    pub name: Option<String>,
    /// A new description; `Some(None)` removes it.
    pub description: Option<Option<String>>,
    /// Whether it may act.
    pub is_active: Option<bool>,
}

/// Why an agent is not made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CreateAgentError {
    /// The name is taken in this organisation.
    #[error("an agent of that name exists")]
    NameTaken,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why an agent is not changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PatchAgentError {
    /// The name is taken in this organisation.
    #[error("an agent of that name exists")]
    NameTaken,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The agents of a store.
#[derive(Debug, Clone, Copy)]
pub struct Agents<'a> {
    pub(crate) store: &'a Store,
}

impl Agents<'_> {
    /// Makes an agent, active.
    ///
    /// # Errors
    /// [`CreateAgentError::NameTaken`], [`CreateAgentError::Store`].
    pub async fn create(
        &self,
        org: &OrgId,
        new: NewAgent,
        actor: &Actor,
    ) -> Result<Agent, CreateAgentError> {
        let mut tx = self.store.write(Change::Org(org)).await?;
        if is_taken(&mut tx, org, &new.name, None).await? {
            return Err(CreateAgentError::NameTaken);
        }
        let now = at(tx.now());
        let agent = Agent {
            id: AgentId::new(now),
            org: org.clone(),
            name: new.name,
            description: new.description,
            is_active: true,
            created_at: now,
            updated_at: now,
            last_used_at: None,
        };
        query(INSERT)
            .bind(agent.id.as_str())
            .bind(org.as_str())
            .bind(&agent.name)
            .bind(&agent.description)
            .bind(&new.key_hash[..])
            .bind(tx.now())
            .execute(tx.conn())
            .await?;
        record(&mut tx, &agent, "agent.create", actor).await?;
        tx.commit().await?;
        Ok(agent)
    }

    /// One agent that is not deleted.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn get(&self, org: &OrgId, id: &AgentId) -> Result<Option<Agent>, StoreError> {
        let row = query(GET)
            .bind(org.as_str())
            .bind(id.as_str())
            .fetch_optional(self.store.pool())
            .await?;
        row.as_ref().map(read).transpose()
    }

    /// One agent that is not deleted, by its name.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn get_by_name(&self, org: &OrgId, name: &str) -> Result<Option<Agent>, StoreError> {
        let row =
            query("SELECT * FROM agents WHERE org_id = $1 AND name = $2 AND deleted_at IS NULL")
                .bind(org.as_str())
                .bind(name)
                .fetch_optional(self.store.pool())
                .await?;
        row.as_ref().map(read).transpose()
    }

    /// Agents in the order they were made, without the deleted.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn list(&self, org: &OrgId, page: &PageRequest) -> Result<Page<Agent>, StoreError> {
        let limit = page.bounded_limit();
        let rows = query(
            "SELECT * FROM agents WHERE org_id = $1 AND id > $2 AND deleted_at IS NULL \
             ORDER BY id LIMIT $3",
        )
        .bind(org.as_str())
        .bind(page.after_id()?)
        .bind(limit + 1)
        .fetch_all(self.store.pool())
        .await?;
        let agents = rows.iter().map(read).collect::<Result<_, _>>()?;
        Ok(Page::from_overfull(agents, limit, |agent: &Agent| {
            agent.id.as_str()
        }))
    }

    /// Changes an agent; `None` when there is none.
    ///
    /// # Errors
    /// [`PatchAgentError::NameTaken`], [`PatchAgentError::Store`].
    pub async fn patch(
        &self,
        org: &OrgId,
        id: &AgentId,
        patch: AgentPatch,
        actor: &Actor,
    ) -> Result<Option<Agent>, PatchAgentError> {
        let mut tx = self.store.write(Change::Narrowing(org)).await?;
        let Some(mut agent) = find(&mut tx, org, id).await? else {
            return Ok(None);
        };
        if let Some(name) = patch.name {
            if is_taken(&mut tx, org, &name, Some(id)).await? {
                return Err(PatchAgentError::NameTaken);
            }
            agent.name = name;
        }
        agent.description = patch.description.unwrap_or(agent.description);
        agent.is_active = patch.is_active.unwrap_or(agent.is_active);
        agent.updated_at = at(tx.now());
        query(
            "UPDATE agents SET name = $1, description = $2, is_active = $3, updated_at = $4 \
             WHERE org_id = $5 AND id = $6",
        )
        .bind(&agent.name)
        .bind(&agent.description)
        .bind(i64::from(agent.is_active))
        .bind(tx.now())
        .bind(org.as_str())
        .bind(id.as_str())
        .execute(tx.conn())
        .await?;
        record(&mut tx, &agent, "agent.update", actor).await?;
        tx.commit().await?;
        Ok(Some(agent))
    }

    /// Deletes an agent softly: its key, grants and leases end at once, its name is free again.
    /// False when there is none.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn delete(
        &self,
        org: &OrgId,
        id: &AgentId,
        actor: &Actor,
    ) -> Result<bool, StoreError> {
        let mut tx = self.store.write(Change::Narrowing(org)).await?;
        let Some(agent) = find(&mut tx, org, id).await? else {
            return Ok(false);
        };
        query(
            "UPDATE agents SET deleted_at = $1, updated_at = $1, is_active = 0 \
             WHERE org_id = $2 AND id = $3",
        )
        .bind(tx.now())
        .bind(org.as_str())
        .bind(id.as_str())
        .execute(tx.conn())
        .await?;
        record(&mut tx, &agent, "agent.delete", actor).await?;
        tx.commit().await?;
        Ok(true)
    }

    /// Puts another key in place of the agent's key; `None` when there is no such agent.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn rotate_key(
        &self,
        org: &OrgId,
        id: &AgentId,
        key_hash: &[u8; 32],
        actor: &Actor,
    ) -> Result<Option<Agent>, StoreError> {
        let mut tx = self.store.write(Change::Org(org)).await?;
        let Some(mut agent) = find(&mut tx, org, id).await? else {
            return Ok(None);
        };
        agent.updated_at = at(tx.now());
        query("UPDATE agents SET key_hash = $1, updated_at = $2 WHERE org_id = $3 AND id = $4")
            .bind(&key_hash[..])
            .bind(tx.now())
            .bind(org.as_str())
            .bind(id.as_str())
            .execute(tx.conn())
            .await?;
        record(&mut tx, &agent, "agent.rotate_key", actor).await?;
        tx.commit().await?;
        Ok(Some(agent))
    }

    /// The agent, active or not, whose key has this SHA-256.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn find_by_key_hash(
        &self,
        key_hash: &[u8; 32],
    ) -> Result<Option<(OrgId, Agent)>, StoreError> {
        let row = query("SELECT * FROM agents WHERE key_hash = $1 AND deleted_at IS NULL")
            .bind(&key_hash[..])
            .fetch_optional(self.store.pool())
            .await?;
        let agent = row.as_ref().map(read).transpose()?;
        Ok(agent.map(|agent| (agent.org.clone(), agent)))
    }
}

const GET: &str = "SELECT * FROM agents WHERE org_id = $1 AND id = $2 AND deleted_at IS NULL";

const INSERT: &str = "INSERT INTO agents \
    (id, org_id, name, description, key_hash, is_active, created_at, updated_at) \
    VALUES ($1, $2, $3, $4, $5, 1, $6, $6)";

async fn find(
    tx: &mut WriteTx<'_>,
    org: &OrgId,
    id: &AgentId,
) -> Result<Option<Agent>, StoreError> {
    let row = query(GET)
        .bind(org.as_str())
        .bind(id.as_str())
        .fetch_optional(tx.conn())
        .await?;
    row.as_ref().map(read).transpose()
}

/// Whether an agent other than `but` has the name.
async fn is_taken(
    tx: &mut WriteTx<'_>,
    org: &OrgId,
    name: &str,
    but: Option<&AgentId>,
) -> Result<bool, StoreError> {
    let taken = query(
        "SELECT 1 FROM agents \
         WHERE org_id = $1 AND name = $2 AND deleted_at IS NULL AND id <> $3",
    )
    .bind(org.as_str())
    .bind(name)
    .bind(but.map_or("", AgentId::as_str))
    .fetch_optional(tx.conn())
    .await?;
    Ok(taken.is_some())
}

async fn record(
    tx: &mut WriteTx<'_>,
    agent: &Agent,
    action: &'static str,
    actor: &Actor,
) -> Result<(), StoreError> {
    let event = NewEvent {
        action,
        agent_id: Some(agent.id.clone()),
        ..NewEvent::default()
    };
    tx.append(&agent.org, actor, &event).await?;
    Ok(())
}

fn read(row: &Row) -> Result<Agent, StoreError> {
    Ok(Agent {
        id: id(row, "id", "agent")?,
        org: id(row, "org_id", "agent")?,
        name: row.try_get("name")?,
        description: row.try_get("description")?,
        is_active: row.try_get::<i64>("is_active")? != 0,
        created_at: time(row, "created_at")?,
        updated_at: time(row, "updated_at")?,
        last_used_at: optional_time(row, "last_used_at")?,
    })
}
