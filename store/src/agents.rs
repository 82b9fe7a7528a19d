//! Agents: the principals that hold leases, and the digests of their keys.

use ::leases::id::{AgentId, OrgId, UserId};
use time::OffsetDateTime;

use crate::db::{Change, Row, WriteTx, count, id, optional_time, query, stored, time};
use crate::quotas::{Guard, OverQuota, QuotaError, Resource};
use crate::timekeeper::{at, millis};
use crate::{Actor, ActorKind, NewEvent, Page, PageRequest, Store, StoreError};

mod auth_method;
pub(crate) mod identity;
mod oidc;
mod settings;

pub use auth_method::AuthMethod;
pub use identity::{IdentityKeys, IdentityPlace, NewIdentity, RotateIdentityError};
pub use oidc::AgentOidc;
pub use settings::{AgentSettings, SettingsError, SettingsPatch};

use identity::{RemovedIdentity, StoredIdentity};

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
    /// How it authenticates, and the bounds of what it gets by that.
    pub settings: AgentSettings,
    /// The public halves of its identity keys; absent for one that was made before agents had them.
    pub identity: Option<IdentityKeys>,
    /// Tokens that were made in an earlier epoch have ended.
    pub token_epoch: u64,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// When it last changed.
    pub updated_at: OffsetDateTime,
    /// When a lease of it was last used, to about a second.
    pub last_used_at: Option<OffsetDateTime>,
}

impl Agent {
    /// Whether it may act at this time.
    pub fn is_live(&self, now: OffsetDateTime) -> bool {
        self.is_active && self.settings.expires_at.is_none_or(|end| now < end)
    }
}

/// An agent to be made.
#[derive(Debug, Clone, Default)]
pub struct NewAgent {
    /// Unique among the organisation's agents.
    pub name: String,
    /// Free text.
    pub description: Option<String>,
    /// SHA-256 of its key's text; none for an agent that authenticates by something else.
    pub key_hash: Option<[u8; 32]>,
    /// How it authenticates, and the bounds of what it gets by that.
    pub settings: AgentSettings,
    /// Its identity keys, which decide its id.
    pub identity: Option<NewIdentity>,
}

/// What to change; `None` leaves a field as it is.
#[derive(Debug, Clone, Default)]
pub struct AgentPatch {
    /// A new name.
    pub name: Option<String>,
    /// A new description; `Some(None)` removes it.
    pub description: Option<Option<String>>,
    /// Whether it may act. An agent that is stopped loses its tokens for good.
    pub is_active: Option<bool>,
    /// How it authenticates, and the bounds of what it gets by that.
    pub settings: SettingsPatch,
}

/// Why an agent is not made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CreateAgentError {
    /// The name is taken in this organisation.
    #[error("an agent of that name exists")]
    NameTaken,
    /// The settings do not go together.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The organisation has as many as it may.
    #[error(transparent)]
    Limit(OverQuota),
    /// The vault of identity keys was made, or got another key, meanwhile: ask for the place again and seal anew.
    #[error("the vault of identity keys changed meanwhile")]
    Moved,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<RotateIdentityError> for CreateAgentError {
    fn from(error: RotateIdentityError) -> Self {
        match error {
            RotateIdentityError::Moved => Self::Moved,
            RotateIdentityError::Store(error) => Self::Store(error),
        }
    }
}

impl From<QuotaError> for CreateAgentError {
    fn from(error: QuotaError) -> Self {
        match error {
            QuotaError::Over(over) => Self::Limit(over),
            QuotaError::Store(error) => Self::Store(error),
        }
    }
}

/// Why an agent is not changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PatchAgentError {
    /// The name is taken in this organisation.
    #[error("an agent of that name exists")]
    NameTaken,
    /// The settings do not go together.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why an agent gets no new key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RotateKeyError {
    /// It has none.
    #[error("the agent authenticates by {0} and has no key")]
    NoKey(AuthMethod),
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
    /// [`CreateAgentError`].
    pub async fn create(
        &self,
        org: &OrgId,
        new: NewAgent,
        actor: &Actor,
    ) -> Result<Agent, CreateAgentError> {
        let mut tx = self.store.write(Change::Org(org)).await?;
        let made = put(self.store, &mut tx, org, new, actor).await?;
        made.record(&mut tx, actor).await?;
        tx.commit().await?;
        Ok(made.agent)
    }

    /// The person who made an agent; `None` when no person did.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn creator(&self, org: &OrgId, id: &AgentId) -> Result<Option<UserId>, StoreError> {
        let row = query("SELECT user_id FROM agent_creators WHERE org_id = $1 AND agent_id = $2")
            .bind(org.as_str())
            .bind(id.as_str())
            .fetch_optional(self.store.pool())
            .await?;
        row.map(|row| self::id(&row, "user_id", "agent"))
            .transpose()
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
    /// With another method or other means the old ones end at once with all that they gave, tokens and leases; with an earlier end
    /// the leases beyond it, and with fewer vaults every lease.
    ///
    /// # Errors
    /// [`PatchAgentError`].
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
        let settings = agent.settings.with(patch.settings)?;
        settings.check(&mut tx, org).await?;
        let is_stopped = patch.is_active == Some(false);
        let is_other = !settings.authenticates_like(&agent.settings);
        if is_stopped || is_other {
            agent.token_epoch += 1;
        }
        if settings.auth_method != agent.settings.auth_method {
            put_key(&mut tx, &agent, &no_key()?).await?;
        }
        let is_narrowed = settings.reaches_less_than(&agent.settings);
        agent.is_active = patch.is_active.unwrap_or(agent.is_active);
        agent.settings = settings;
        agent.updated_at = at(tx.now());
        query(UPDATE)
            .bind(&agent.name)
            .bind(&agent.description)
            .bind(i64::from(agent.is_active))
            .bind(tx.now())
            .bind(org.as_str())
            .bind(id.as_str())
            .bind_all(agent.settings.values()?)
            .bind(stored(agent.token_epoch))
            .execute(tx.conn())
            .await?;
        let end = if is_narrowed || is_other {
            Some(agent.updated_at)
        } else {
            agent.settings.expires_at
        };
        if let Some(end) = end {
            end_leases(&mut tx, &agent, end).await?;
        }
        record(&mut tx, &agent, "agent.update", actor).await?;
        tx.commit().await?;
        Ok(Some(agent))
    }

    /// Deletes an agent softly: its key, grants and leases end at once, its name is free again, and its identity keys are deleted
    /// as softly. False when there is none.
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
        let Some(Removed { agent, identity }) = remove(&mut tx, org, id).await? else {
            return Ok(false);
        };
        identity.record(&mut tx, org, actor).await?;
        record(&mut tx, &agent, "agent.delete", actor).await?;
        tx.commit().await?;
        Ok(true)
    }

    /// Deletes those of these agents that there are, each as [`Self::delete`] does, and gives their ids.
    ///
    /// A few at a time, for nothing is used while one of them is deleted: after an error some may be gone.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn delete_many(
        &self,
        org: &OrgId,
        ids: &[AgentId],
        actor: &Actor,
    ) -> Result<Vec<AgentId>, StoreError> {
        let mut deleted = Vec::new();
        for some in ids.chunks(DELETED_AT_ONCE) {
            let mut tx = self.store.write(Change::Narrowing(org)).await?;
            let mut found = Vec::new();
            for id in some {
                found.extend(remove(&mut tx, org, id).await?);
            }
            for Removed { agent, identity } in found {
                identity.record(&mut tx, org, actor).await?;
                record(&mut tx, &agent, "agent.delete", actor).await?;
                deleted.push(agent.id);
            }
            tx.commit().await?;
        }
        Ok(deleted)
    }

    /// Puts another key in place of the agent's key, with which its tokens and leases end; `None` when there is no such agent.
    ///
    /// # Errors
    /// [`RotateKeyError::NoKey`] if the agent authenticates by something else, [`RotateKeyError::Store`].
    pub async fn rotate_key(
        &self,
        org: &OrgId,
        id: &AgentId,
        key_hash: &[u8; 32],
        actor: &Actor,
    ) -> Result<Option<Agent>, RotateKeyError> {
        let mut tx = self.store.write(Change::Narrowing(org)).await?;
        let Some(mut agent) = find(&mut tx, org, id).await? else {
            return Ok(None);
        };
        let method = agent.settings.auth_method;
        if method != AuthMethod::ApiKey {
            return Err(RotateKeyError::NoKey(method));
        }
        put_key(&mut tx, &agent, key_hash).await?;
        agent.token_epoch += 1;
        agent.updated_at = at(tx.now());
        query("UPDATE agents SET token_epoch = $1, updated_at = $2 WHERE org_id = $3 AND id = $4")
            .bind(stored(agent.token_epoch))
            .bind(tx.now())
            .bind(org.as_str())
            .bind(id.as_str())
            .execute(tx.conn())
            .await?;
        end_leases(&mut tx, &agent, agent.updated_at).await?;
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
        let row = query(
            "SELECT * FROM agents WHERE key_hash = $1 AND auth_method = 'api_key' AND deleted_at IS NULL",
        )
        .bind(&key_hash[..])
        .fetch_optional(self.store.pool())
        .await?;
        let agent = row.as_ref().map(read).transpose()?;
        Ok(agent.map(|agent| (agent.org.clone(), agent)))
    }

    /// The agent of this id, active or not, of whichever organisation: for who is not known to belong to one yet.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn find_anywhere(&self, id: &AgentId) -> Result<Option<Agent>, StoreError> {
        let row = query("SELECT * FROM agents WHERE id = $1 AND deleted_at IS NULL")
            .bind(id.as_str())
            .fetch_optional(self.store.pool())
            .await?;
        row.as_ref().map(read).transpose()
    }
}

const GET: &str = "SELECT * FROM agents WHERE org_id = $1 AND id = $2 AND deleted_at IS NULL";

const INSERT: &str = "INSERT INTO agents \
    (id, org_id, name, description, key_hash, is_active, created_at, updated_at, \
    auth_method, public_key, client_cert_fingerprint, oidc_issuer, oidc_client_id, oidc_audience, \
    token_ttl_seconds, vault_ids, expires_at, ssh_public_key, ecdh_public_key) \
    VALUES ($1, $2, $3, $4, $5, 1, $6, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)";

const UPDATE: &str = "UPDATE agents SET name = $1, description = $2, is_active = $3, updated_at = $4, \
    auth_method = $7, public_key = $8, client_cert_fingerprint = $9, oidc_issuer = $10, \
    oidc_client_id = $11, oidc_audience = $12, token_ttl_seconds = $13, vault_ids = $14, expires_at = $15, \
    token_epoch = $16 WHERE org_id = $5 AND id = $6";

/// What narrows has a second on Postgres, and each agent takes three statements and three events.
const DELETED_AT_ONCE: usize = 25;

/// An agent that was made, with what was made for it.
pub(crate) struct Made {
    pub(crate) agent: Agent,
    identity: Option<StoredIdentity>,
}

impl Made {
    /// Appends what was made.
    pub(crate) async fn record(
        &self,
        tx: &mut WriteTx<'_>,
        actor: &Actor,
    ) -> Result<(), StoreError> {
        if let Some(identity) = &self.identity {
            identity.record(tx, &self.agent.org, actor).await?;
        }
        record(tx, &self.agent, "agent.create", actor).await
    }
}

/// Makes an agent, active. The events are the caller's to append.
pub(crate) async fn put(
    store: &Store,
    tx: &mut WriteTx<'_>,
    org: &OrgId,
    new: NewAgent,
    actor: &Actor,
) -> Result<Made, CreateAgentError> {
    if is_taken(tx, org, &new.name, None).await? {
        return Err(CreateAgentError::NameTaken);
    }
    new.settings.check(tx, org).await?;
    let now = at(tx.now());
    let identity = new.identity;
    let agent = Agent {
        id: identity.as_ref().map_or_else(
            || AgentId::new(now),
            |identity| identity.place.agent.clone(),
        ),
        org: org.clone(),
        name: new.name,
        description: new.description,
        is_active: true,
        settings: new.settings,
        identity: identity.as_ref().map(|identity| identity.public),
        token_epoch: 0,
        created_at: now,
        updated_at: now,
        last_used_at: None,
    };
    let key_hash = new.key_hash.map_or_else(no_key, Ok)?;
    let guard = Guard::begin(store, tx, org, Resource::Agents).await?;
    query(INSERT)
        .bind(agent.id.as_str())
        .bind(org.as_str())
        .bind(&agent.name)
        .bind(&agent.description)
        .bind(&key_hash[..])
        .bind(tx.now())
        .bind_all(agent.settings.values()?)
        .bind_all(identity::values(agent.identity))
        .execute(tx.conn())
        .await?;
    Guard::check(guard, tx, org).await?;
    if actor.kind == ActorKind::User {
        query("INSERT INTO agent_creators (agent_id, org_id, user_id) VALUES ($1, $2, $3)")
            .bind(agent.id.as_str())
            .bind(org.as_str())
            .bind(&actor.id)
            .execute(tx.conn())
            .await?;
    }
    let identity = match identity {
        Some(identity) => Some(identity.store(tx, org, actor).await?),
        None => None,
    };
    Ok(Made { agent, identity })
}

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

/// An agent that was marked as deleted, with what went with it.
struct Removed {
    agent: Agent,
    identity: RemovedIdentity,
}

/// Marks an agent and its identity keys as deleted; `None` when there is none.
async fn remove(
    tx: &mut WriteTx<'_>,
    org: &OrgId,
    id: &AgentId,
) -> Result<Option<Removed>, StoreError> {
    let Some(agent) = find(tx, org, id).await? else {
        return Ok(None);
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
    let identity = identity::remove(tx, &agent).await?;
    Ok(Some(Removed { agent, identity }))
}

async fn put_key(
    tx: &mut WriteTx<'_>,
    agent: &Agent,
    key_hash: &[u8; 32],
) -> Result<(), StoreError> {
    query("UPDATE agents SET key_hash = $1 WHERE org_id = $2 AND id = $3")
        .bind(&key_hash[..])
        .bind(agent.org.as_str())
        .bind(agent.id.as_str())
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// What stands for the digest of a key where there is none.
fn no_key() -> Result<[u8; 32], StoreError> {
    let mut random = [0; 32];
    getrandom::fill(&mut random).map_err(|error| {
        StoreError::Unavailable(std::io::Error::other(error.to_string()).into())
    })?;
    Ok(random)
}

/// Ends the agent's leases that would outlive a time.
async fn end_leases(
    tx: &mut WriteTx<'_>,
    agent: &Agent,
    end: OffsetDateTime,
) -> Result<(), StoreError> {
    query(
        "UPDATE leases SET revoked_at = $1 WHERE org_id = $2 AND agent_id = $3 \
         AND revoked_at IS NULL AND expires_at > $1 AND expires_at > $4",
    )
    .bind(tx.now())
    .bind(agent.org.as_str())
    .bind(agent.id.as_str())
    .bind(millis(end))
    .execute(tx.conn())
    .await?;
    Ok(())
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

/// Appends what happened to an agent.
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
        settings: AgentSettings::read(row)?,
        identity: identity::read(row)?,
        token_epoch: count(row, "token_epoch")?,
        created_at: time(row, "created_at")?,
        updated_at: time(row, "updated_at")?,
        last_used_at: optional_time(row, "last_used_at")?,
    })
}
