//! Bindings: a name by which an agent sends requests to one API. Each is a view of a `custom` secret set and the grant on it.

use ::leases::id::{AgentId, BindingId, GrantId, OrgId, SetId, VaultId};
use serde_json::Value;
use time::OffsetDateTime;

use crate::db::{Change, Row, WriteTx, id, json, query, stored, time, to_json};
use crate::timekeeper::{at, millis};
use crate::{Actor, NewEvent, Page, PageRequest, Store, StoreError};

/// The most bindings of one agent.
pub const MAX_BINDINGS: i64 = 200;

/// A binding. It holds no secret: that lies in its set.
#[derive(Debug, Clone, PartialEq)]
pub struct Binding {
    /// Its id.
    pub id: BindingId,
    /// Its organisation.
    pub org: OrgId,
    /// Whose it is.
    pub agent_id: AgentId,
    /// By which the agent calls it; unique among the agent's.
    pub name: String,
    /// `http` or `graphql`.
    pub kind: String,
    /// Where it leads and how the credential travels, as the API has it.
    pub config: Value,
    /// What limits it, as the API has it.
    pub guardrails: Value,
    /// The set that holds the credential.
    pub set: SetId,
    /// The grant by which the agent uses it.
    pub grant: GrantId,
    /// The secret from which the credential is taken, if it is not its own.
    pub source: Option<Source>,
    /// Whether it may be used.
    pub is_active: bool,
    /// Id of who made it.
    pub created_by: String,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// When it was last changed.
    pub updated_at: OffsetDateTime,
}

/// A secret by its path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The vault.
    pub vault: VaultId,
    /// The path in it.
    pub path: String,
    /// The version that was taken last.
    pub version: u64,
}

/// A binding to be made, beside the set and the grant that were made for it.
#[derive(Debug, Clone)]
pub struct NewBinding {
    /// Its id, which names its set.
    pub id: BindingId,
    /// Whose it is.
    pub agent_id: AgentId,
    /// Its name.
    pub name: String,
    /// `http` or `graphql`.
    pub kind: String,
    /// As the API has it.
    pub config: Value,
    /// As the API has it.
    pub guardrails: Value,
    /// The set that holds the credential.
    pub set: SetId,
    /// The grant by which the agent uses it.
    pub grant: GrantId,
    /// The secret from which the credential was taken.
    pub source: Option<Source>,
}

/// Why a binding is not made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CreateBindingError {
    /// The organisation has no such agent.
    #[error("no agent {0}")]
    NoAgent(AgentId),
    /// The agent has another of this name.
    #[error("the name is taken")]
    NameTaken,
    /// The agent has as many as it may.
    #[error("the agent has {MAX_BINDINGS} bindings already")]
    TooMany,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The bindings of a store.
#[derive(Debug, Clone, Copy)]
pub struct Bindings<'a> {
    pub(crate) store: &'a Store,
}

impl Bindings<'_> {
    /// Makes a binding.
    ///
    /// # Errors
    /// [`CreateBindingError`].
    pub async fn create(
        &self,
        org: &OrgId,
        new: NewBinding,
        actor: &Actor,
    ) -> Result<Binding, CreateBindingError> {
        let mut tx = self.store.write(Change::Org(org)).await?;
        let agent = query(HAS_AGENT)
            .bind(org.as_str())
            .bind(new.agent_id.as_str())
            .fetch_optional(tx.conn())
            .await?;
        if agent.is_none() {
            return Err(CreateBindingError::NoAgent(new.agent_id));
        }
        let named = query(BY_NAME)
            .bind(org.as_str())
            .bind(new.agent_id.as_str())
            .bind(&new.name)
            .fetch_optional(tx.conn())
            .await?;
        if named.is_some() {
            return Err(CreateBindingError::NameTaken);
        }
        let held: Option<i64> = query(COUNT)
            .bind(org.as_str())
            .bind(new.agent_id.as_str())
            .fetch_value(tx.conn())
            .await?;
        if held.unwrap_or(0) >= MAX_BINDINGS {
            return Err(CreateBindingError::TooMany);
        }
        let now = at(tx.now());
        let binding = Binding {
            id: new.id,
            org: org.clone(),
            agent_id: new.agent_id,
            name: new.name,
            kind: new.kind,
            config: new.config,
            guardrails: new.guardrails,
            set: new.set,
            grant: new.grant,
            source: new.source,
            is_active: true,
            created_by: actor.id.clone(),
            created_at: now,
            updated_at: now,
        };
        insert(&mut tx, &binding).await?;
        record(&mut tx, &binding, "binding.create", actor).await?;
        tx.commit().await?;
        Ok(binding)
    }

    /// One binding of an agent, by its id or its name.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn get(
        &self,
        org: &OrgId,
        agent: &AgentId,
        named: &str,
    ) -> Result<Option<Binding>, StoreError> {
        let statement = if BindingId::parse(named).is_ok() {
            BY_ID
        } else {
            BY_NAME
        };
        let row = query(statement)
            .bind(org.as_str())
            .bind(agent.as_str())
            .bind(named)
            .fetch_optional(self.store.pool())
            .await?;
        row.as_ref().map(read).transpose()
    }

    /// An agent's bindings in the order they were made.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn list(
        &self,
        org: &OrgId,
        agent: &AgentId,
        page: &PageRequest,
    ) -> Result<Page<Binding>, StoreError> {
        let limit = page.bounded_limit();
        let rows = query(
            "SELECT * FROM bindings WHERE org_id = $1 AND agent_id = $2 AND id > $3 AND deleted_at IS NULL \
             ORDER BY id LIMIT $4",
        )
        .bind(org.as_str())
        .bind(agent.as_str())
        .bind(page.after_id()?)
        .bind(limit + 1)
        .fetch_all(self.store.pool())
        .await?;
        let bindings = rows.iter().map(read).collect::<Result<_, _>>()?;
        Ok(Page::from_overfull(bindings, limit, |binding: &Binding| {
            binding.id.as_str()
        }))
    }

    /// The sets of an agent's bindings, which binding each is of and of which kind that is, also of those that were deleted: what
    /// the trail tells of them stays.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn sets(
        &self,
        org: &OrgId,
        agent: &AgentId,
    ) -> Result<Vec<(SetId, BindingId, String)>, StoreError> {
        let rows = query(
            "SELECT secret_set_id, id, binding_type FROM bindings WHERE org_id = $1 AND agent_id = $2 ORDER BY id",
        )
        .bind(org.as_str())
        .bind(agent.as_str())
        .fetch_all(self.store.pool())
        .await?;
        rows.iter()
            .map(|row| {
                let kind = row.try_get("binding_type")?;
                Ok((id(row, "secret_set_id", WHAT)?, id(row, "id", WHAT)?, kind))
            })
            .collect()
    }

    /// Writes what changed of a binding; its id, its agent and its set never do. `None` when there is no such binding.
    ///
    /// # Errors
    /// [`StoreError`]; [`StoreError::Conflict`] if the agent has another of its name.
    pub async fn update(
        &self,
        binding: Binding,
        actor: &Actor,
    ) -> Result<Option<Binding>, StoreError> {
        let mut tx = self.store.write(Change::Org(&binding.org)).await?;
        let found = query(BY_ID)
            .bind(binding.org.as_str())
            .bind(binding.agent_id.as_str())
            .bind(binding.id.as_str())
            .fetch_optional(tx.conn())
            .await?;
        if found.is_none() {
            return Ok(None);
        }
        let binding = Binding {
            updated_at: at(tx.now()),
            ..binding
        };
        let source = binding.source.as_ref();
        query(
            "UPDATE bindings SET name = $1, config = $2, guardrails = $3, grant_id = $4, source_vault_id = $5, \
             source_path = $6, source_version = $7, is_active = $8, updated_at = $9 WHERE org_id = $10 AND id = $11",
        )
        .bind(&binding.name)
        .bind(to_json(&binding.config, WHAT)?)
        .bind(to_json(&binding.guardrails, WHAT)?)
        .bind(binding.grant.as_str())
        .bind(source.map(|source| source.vault.as_str()))
        .bind(source.map(|source| source.path.as_str()))
        .bind(source.map(|source| stored(source.version)))
        .bind(i64::from(binding.is_active))
        .bind(millis(binding.updated_at))
        .bind(binding.org.as_str())
        .bind(binding.id.as_str())
        .execute(tx.conn())
        .await?;
        record(&mut tx, &binding, "binding.update", actor).await?;
        tx.commit().await?;
        Ok(Some(binding))
    }

    /// Deletes a binding; its set and grant are the caller's to end. False when there is no such binding.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn delete(&self, binding: &Binding, actor: &Actor) -> Result<bool, StoreError> {
        let mut tx = self.store.write(Change::Org(&binding.org)).await?;
        let deleted = query(
            "UPDATE bindings SET deleted_at = $1, is_active = 0 WHERE org_id = $2 AND id = $3 AND deleted_at IS NULL",
        )
        .bind(tx.now())
        .bind(binding.org.as_str())
        .bind(binding.id.as_str())
        .execute(tx.conn())
        .await?;
        if deleted == 0 {
            return Ok(false);
        }
        record(&mut tx, binding, "binding.delete", actor).await?;
        tx.commit().await?;
        Ok(true)
    }
}

const WHAT: &str = "binding";
const HAS_AGENT: &str = "SELECT 1 FROM agents WHERE org_id = $1 AND id = $2 AND deleted_at IS NULL";
const BY_ID: &str = "SELECT * FROM bindings \
    WHERE org_id = $1 AND agent_id = $2 AND id = $3 AND deleted_at IS NULL";
const BY_NAME: &str = "SELECT * FROM bindings \
    WHERE org_id = $1 AND agent_id = $2 AND name = $3 AND deleted_at IS NULL";
const COUNT: &str = "SELECT COUNT(*) FROM bindings \
    WHERE org_id = $1 AND agent_id = $2 AND deleted_at IS NULL";

async fn insert(tx: &mut WriteTx<'_>, binding: &Binding) -> Result<(), StoreError> {
    let source = binding.source.as_ref();
    query(
        "INSERT INTO bindings (id, org_id, agent_id, name, binding_type, config, guardrails, secret_set_id, grant_id, \
         source_vault_id, source_path, source_version, is_active, created_by, created_at, updated_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $15)",
    )
    .bind(binding.id.as_str())
    .bind(binding.org.as_str())
    .bind(binding.agent_id.as_str())
    .bind(&binding.name)
    .bind(&binding.kind)
    .bind(to_json(&binding.config, WHAT)?)
    .bind(to_json(&binding.guardrails, WHAT)?)
    .bind(binding.set.as_str())
    .bind(binding.grant.as_str())
    .bind(source.map(|source| source.vault.as_str()))
    .bind(source.map(|source| source.path.as_str()))
    .bind(source.map(|source| stored(source.version)))
    .bind(i64::from(binding.is_active))
    .bind(&binding.created_by)
    .bind(millis(binding.created_at))
    .execute(tx.conn())
    .await?;
    Ok(())
}

async fn record(
    tx: &mut WriteTx<'_>,
    binding: &Binding,
    action: &'static str,
    actor: &Actor,
) -> Result<(), StoreError> {
    let event = NewEvent {
        action,
        agent_id: Some(binding.agent_id.clone()),
        grant_id: Some(binding.grant.clone()),
        secret_set_id: Some(binding.set.clone()),
        keys: vec![binding.name.clone()],
        ..NewEvent::default()
    };
    tx.append(&binding.org, actor, &event).await?;
    Ok(())
}

fn read(row: &Row) -> Result<Binding, StoreError> {
    let source = match row.try_get::<Option<&str>>("source_path")? {
        None => None,
        Some(path) => Some(Source {
            vault: id(row, "source_vault_id", WHAT)?,
            path: path.to_owned(),
            version: crate::db::count(row, "source_version")?,
        }),
    };
    Ok(Binding {
        id: id(row, "id", WHAT)?,
        org: id(row, "org_id", WHAT)?,
        agent_id: id(row, "agent_id", WHAT)?,
        name: row.try_get("name")?,
        kind: row.try_get("binding_type")?,
        config: json(row, "config", WHAT)?,
        guardrails: json(row, "guardrails", WHAT)?,
        set: id(row, "secret_set_id", WHAT)?,
        grant: id(row, "grant_id", WHAT)?,
        source,
        is_active: row.try_get::<i64>("is_active")? == 1,
        created_by: row.try_get("created_by")?,
        created_at: time(row, "created_at")?,
        updated_at: time(row, "updated_at")?,
    })
}

#[cfg(test)]
mod tests;
