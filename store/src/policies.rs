//! Policies: what a principal may do to the secrets under a path pattern of a vault.

use ::leases::id::{AgentId, OrgId, PolicyId, UserId, VaultId};
use ::leases::policy::{Conditions, Effect, Permission, Rule};
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;

use crate::db::{
    Change, Row, WriteTx, count, id, json, optional_time, query, stored, time, to_json,
};
use crate::timekeeper::{at, millis};
use crate::{Actor, NewEvent, Page, PageRequest, Store, StoreError};

/// The most policies of one vault: each request of an agent reads all of its own.
pub const MAX_POLICIES: i64 = 1000;

/// Whom a policy is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PolicyPrincipal {
    /// An agent, which may do nothing without one.
    Agent(AgentId),
    /// A person, whose role says what they may: a policy can only take from it.
    User(UserId),
}

impl PolicyPrincipal {
    /// The word in JSON.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Agent(_) => "agent",
            Self::User(_) => "user",
        }
    }

    /// The id of the agent or person.
    pub fn id(&self) -> &str {
        match self {
            Self::Agent(id) => id.as_str(),
            Self::User(id) => id.as_str(),
        }
    }
}

/// A policy.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// Its id.
    pub id: PolicyId,
    /// Its vault.
    pub vault: VaultId,
    /// Whom it is about.
    pub principal: PolicyPrincipal,
    /// What it says.
    pub rule: Rule,
    /// Counts its changes, so that the trail tells a policy that was put back. 0 for one that an earlier release made.
    pub version: u64,
    /// Id of who made it.
    pub created_by: String,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// When it was last changed.
    pub updated_at: OffsetDateTime,
}

/// A policy to be made.
#[derive(Debug, Clone)]
pub struct NewPolicy {
    /// Whom it is about.
    pub principal: PolicyPrincipal,
    /// What it says.
    pub rule: Rule,
}

/// What of a policy changes; pattern and principal never do.
#[derive(Debug, Clone, Default)]
pub struct PolicyPatch {
    /// Other permissions.
    pub permissions: Option<Vec<Permission>>,
    /// Other conditions, as a whole.
    pub conditions: Option<Conditions>,
    /// Other environments, as a whole.
    pub environments: Option<Vec<String>>,
    /// Another end; `Some(None)` for none.
    pub expires_at: Option<Option<OffsetDateTime>>,
    /// Another effect.
    pub effect: Option<Effect>,
    /// Another priority.
    pub priority: Option<i32>,
}

/// Why a policy is not made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CreatePolicyError {
    /// The organisation has no such vault.
    #[error("no vault {0}")]
    NoVault(VaultId),
    /// The organisation has no such agent or person.
    #[error("no such principal")]
    NoPrincipal(PolicyPrincipal),
    /// The vault has as many as it may.
    #[error("the vault has {MAX_POLICIES} policies already")]
    TooMany,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The policies of a store.
#[derive(Debug, Clone, Copy)]
pub struct Policies<'a> {
    pub(crate) store: &'a Store,
}

impl Policies<'_> {
    /// Makes a policy; the next request is decided by it.
    ///
    /// # Errors
    /// [`CreatePolicyError`].
    pub async fn create(
        &self,
        org: &OrgId,
        vault: &VaultId,
        new: NewPolicy,
        actor: &Actor,
    ) -> Result<Policy, CreatePolicyError> {
        let mut tx = self.store.write(Change::Org(org)).await?;
        if !is_there(&mut tx, HAS_VAULT, org, vault.as_str()).await? {
            return Err(CreatePolicyError::NoVault(vault.clone()));
        }
        let has_principal = match &new.principal {
            PolicyPrincipal::Agent(_) => HAS_AGENT,
            PolicyPrincipal::User(_) => HAS_USER,
        };
        if !is_there(&mut tx, has_principal, org, new.principal.id()).await? {
            return Err(CreatePolicyError::NoPrincipal(new.principal));
        }
        let held: Option<i64> = query(COUNT)
            .bind(org.as_str())
            .bind(vault.as_str())
            .fetch_value(tx.conn())
            .await?;
        if held.unwrap_or(0) >= MAX_POLICIES {
            return Err(CreatePolicyError::TooMany);
        }
        let now = at(tx.now());
        let policy = Policy {
            id: PolicyId::new(now),
            vault: vault.clone(),
            principal: new.principal,
            rule: new.rule,
            version: 1,
            created_by: actor.id.clone(),
            created_at: now,
            updated_at: now,
        };
        insert(&mut tx, org, &policy).await?;
        record(&mut tx, org, &policy, "policy.create", actor).await?;
        tx.commit().await?;
        Ok(policy)
    }

    /// Changes a policy; the next request is decided by it. `None` when the vault has no such policy.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn patch(
        &self,
        org: &OrgId,
        vault: &VaultId,
        policy: &PolicyId,
        patch: PolicyPatch,
        actor: &Actor,
    ) -> Result<Option<Policy>, StoreError> {
        let mut tx = self.store.write(Change::Org(org)).await?;
        let Some(mut policy) = find(&mut tx, org, vault, policy).await? else {
            return Ok(None);
        };
        let rule = &mut policy.rule;
        rule.permissions = patch
            .permissions
            .unwrap_or_else(|| rule.permissions.clone());
        rule.conditions = patch.conditions.unwrap_or_else(|| rule.conditions.clone());
        rule.environments = patch
            .environments
            .unwrap_or_else(|| rule.environments.clone());
        rule.expires_at = patch.expires_at.unwrap_or(rule.expires_at);
        rule.effect = patch.effect.unwrap_or(rule.effect);
        rule.priority = patch.priority.unwrap_or(rule.priority);
        policy.updated_at = at(tx.now());
        policy.version += 1;
        query(
            "UPDATE policies SET permissions = $1, effect = $2, priority = $3, conditions = $4, \
             environments = $5, expires_at = $6, updated_at = $7, version = $10 \
             WHERE org_id = $8 AND id = $9",
        )
        .bind(to_json(&policy.rule.permissions, WHAT)?)
        .bind(policy.rule.effect.as_str())
        .bind(i64::from(policy.rule.priority))
        .bind(to_json(&policy.rule.conditions, WHAT)?)
        .bind(to_json(&policy.rule.environments, WHAT)?)
        .bind(policy.rule.expires_at.map(millis))
        .bind(tx.now())
        .bind(org.as_str())
        .bind(policy.id.as_str())
        .bind(stored(policy.version))
        .execute(tx.conn())
        .await?;
        record(&mut tx, org, &policy, "policy.update", actor).await?;
        tx.commit().await?;
        Ok(Some(policy))
    }

    /// Ends a policy; the next request is decided without it. False when the vault has no such policy.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn delete(
        &self,
        org: &OrgId,
        vault: &VaultId,
        policy: &PolicyId,
        actor: &Actor,
    ) -> Result<bool, StoreError> {
        let mut tx = self.store.write(Change::Org(org)).await?;
        let Some(mut policy) = find(&mut tx, org, vault, policy).await? else {
            return Ok(false);
        };
        policy.version += 1;
        query("UPDATE policies SET deleted_at = $1, version = $4 WHERE org_id = $2 AND id = $3")
            .bind(tx.now())
            .bind(org.as_str())
            .bind(policy.id.as_str())
            .bind(stored(policy.version))
            .execute(tx.conn())
            .await?;
        record(&mut tx, org, &policy, "policy.delete", actor).await?;
        tx.commit().await?;
        Ok(true)
    }

    /// Policies of a vault in the order they were made, also those that have ended by themselves.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn list(
        &self,
        org: &OrgId,
        vault: &VaultId,
        page: &PageRequest,
    ) -> Result<Page<Policy>, StoreError> {
        let limit = page.bounded_limit();
        let rows = query(
            "SELECT * FROM policies WHERE org_id = $1 AND vault_id = $2 AND id > $3 \
             AND deleted_at IS NULL ORDER BY id LIMIT $4",
        )
        .bind(org.as_str())
        .bind(vault.as_str())
        .bind(page.after_id()?)
        .bind(limit + 1)
        .fetch_all(self.store.pool())
        .await?;
        let policies = rows.iter().map(read).collect::<Result<_, _>>()?;
        Ok(Page::from_overfull(policies, limit, |policy: &Policy| {
            policy.id.as_str()
        }))
    }

    /// All policies of a principal on a vault, in the order they were made: what decides a request.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn find_for(
        &self,
        org: &OrgId,
        vault: &VaultId,
        principal: &str,
    ) -> Result<Vec<Policy>, StoreError> {
        let rows = query(
            "SELECT * FROM policies WHERE org_id = $1 AND vault_id = $2 AND principal_id = $3 \
             AND deleted_at IS NULL ORDER BY id",
        )
        .bind(org.as_str())
        .bind(vault.as_str())
        .bind(principal)
        .fetch_all(self.store.pool())
        .await?;
        rows.iter().map(read).collect()
    }

    /// The vaults on which a principal has a policy.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn vaults_of(
        &self,
        org: &OrgId,
        principal: &str,
    ) -> Result<Vec<VaultId>, StoreError> {
        let rows = query(
            "SELECT DISTINCT vault_id FROM policies WHERE org_id = $1 AND principal_id = $2 \
             AND deleted_at IS NULL ORDER BY vault_id",
        )
        .bind(org.as_str())
        .bind(principal)
        .fetch_all(self.store.pool())
        .await?;
        rows.iter().map(|row| id(row, "vault_id", WHAT)).collect()
    }
}

const WHAT: &str = "policy";
const HAS_VAULT: &str = "SELECT 1 FROM vaults WHERE org_id = $1 AND id = $2 AND deleted_at IS NULL";
const HAS_AGENT: &str = "SELECT 1 FROM agents WHERE org_id = $1 AND id = $2 AND deleted_at IS NULL";
const HAS_USER: &str = "SELECT 1 FROM users WHERE org_id = $1 AND id = $2";
const COUNT: &str = "SELECT COUNT(*) FROM policies \
    WHERE org_id = $1 AND vault_id = $2 AND deleted_at IS NULL";
const GET: &str = "SELECT * FROM policies \
    WHERE org_id = $1 AND vault_id = $2 AND id = $3 AND deleted_at IS NULL";

async fn is_there(
    tx: &mut WriteTx<'_>,
    statement: &'static str,
    org: &OrgId,
    id: &str,
) -> Result<bool, StoreError> {
    let found = query(statement)
        .bind(org.as_str())
        .bind(id)
        .fetch_optional(tx.conn())
        .await?;
    Ok(found.is_some())
}

async fn find(
    tx: &mut WriteTx<'_>,
    org: &OrgId,
    vault: &VaultId,
    policy: &PolicyId,
) -> Result<Option<Policy>, StoreError> {
    let row = query(GET)
        .bind(org.as_str())
        .bind(vault.as_str())
        .bind(policy.as_str())
        .fetch_optional(tx.conn())
        .await?;
    row.as_ref().map(read).transpose()
}

async fn insert(tx: &mut WriteTx<'_>, org: &OrgId, policy: &Policy) -> Result<(), StoreError> {
    let rule = &policy.rule;
    query(
        "INSERT INTO policies (id, org_id, vault_id, principal_type, principal_id, path_pattern, \
         permissions, effect, priority, conditions, environments, expires_at, created_by, created_at, \
         updated_at, version) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $14, $15)",
    )
    .bind(policy.id.as_str())
    .bind(org.as_str())
    .bind(policy.vault.as_str())
    .bind(policy.principal.kind())
    .bind(policy.principal.id())
    .bind(rule.pattern.as_str())
    .bind(to_json(&rule.permissions, WHAT)?)
    .bind(rule.effect.as_str())
    .bind(i64::from(rule.priority))
    .bind(to_json(&rule.conditions, WHAT)?)
    .bind(to_json(&rule.environments, WHAT)?)
    .bind(rule.expires_at.map(millis))
    .bind(&policy.created_by)
    .bind(tx.now())
    .bind(stored(policy.version))
    .execute(tx.conn())
    .await?;
    Ok(())
}

async fn record(
    tx: &mut WriteTx<'_>,
    org: &OrgId,
    policy: &Policy,
    action: &'static str,
    actor: &Actor,
) -> Result<(), StoreError> {
    let agent = match &policy.principal {
        PolicyPrincipal::Agent(id) => Some(id.clone()),
        PolicyPrincipal::User(_) => None,
    };
    let event = NewEvent {
        action,
        agent_id: agent,
        vault_id: Some(policy.vault.clone()),
        policy_id: Some(policy.id.clone()),
        keys: vec![policy.rule.pattern.to_string()],
        secret_version: Some(policy.version),
        content_sha256: Some(content(policy)?),
        ..NewEvent::default()
    };
    tx.append(org, actor, &event).await?;
    Ok(())
}

/// SHA-256 over what a policy says, as its row has it, lower-case hex.
fn content(policy: &Policy) -> Result<String, StoreError> {
    let rule = &policy.rule;
    Ok(digest([
        policy.vault.as_str(),
        policy.principal.kind(),
        policy.principal.id(),
        rule.pattern.as_str(),
        &to_json(&rule.permissions, WHAT)?,
        rule.effect.as_str(),
        &rule.priority.to_string(),
        &to_json(&rule.conditions, WHAT)?,
        &to_json(&rule.environments, WHAT)?,
        &end(rule.expires_at.map(millis)),
    ]))
}

/// The same of a row.
pub(crate) fn content_of(row: &Row) -> Result<String, StoreError> {
    Ok(digest([
        row.try_get("vault_id")?,
        row.try_get("principal_type")?,
        row.try_get("principal_id")?,
        row.try_get("path_pattern")?,
        row.try_get("permissions")?,
        row.try_get("effect")?,
        &row.try_get::<i64>("priority")?.to_string(),
        row.try_get("conditions")?,
        row.try_get("environments")?,
        &end(row.try_get("expires_at")?),
    ]))
}

fn end(expires_at: Option<i64>) -> String {
    expires_at.map_or_else(String::new, |end| end.to_string())
}

/// Each text goes in with its length, so that no two lists of texts are one.
fn digest(texts: [&str; 10]) -> String {
    let mut digest = Sha256::new();
    for text in texts {
        digest.update((text.len() as u64).to_be_bytes());
        digest.update(text);
    }
    hex::encode(digest.finalize())
}

fn read(row: &Row) -> Result<Policy, StoreError> {
    let corrupt = || StoreError::Corrupt { what: WHAT };
    let principal = match row.try_get::<&str>("principal_type")? {
        "agent" => PolicyPrincipal::Agent(id(row, "principal_id", WHAT)?),
        "user" => PolicyPrincipal::User(id(row, "principal_id", WHAT)?),
        _ => return Err(corrupt()),
    };
    let effect = match row.try_get::<&str>("effect")? {
        "allow" => Effect::Allow,
        "deny" => Effect::Deny,
        _ => return Err(corrupt()),
    };
    Ok(Policy {
        id: id(row, "id", WHAT)?,
        vault: id(row, "vault_id", WHAT)?,
        principal,
        rule: Rule {
            pattern: id(row, "path_pattern", WHAT)?,
            permissions: json(row, "permissions", WHAT)?,
            effect,
            priority: i32::try_from(row.try_get::<i64>("priority")?).map_err(|_| corrupt())?,
            conditions: json(row, "conditions", WHAT)?,
            environments: json(row, "environments", WHAT)?,
            expires_at: optional_time(row, "expires_at")?,
        },
        version: count(row, "version")?,
        created_by: row.try_get("created_by")?,
        created_at: time(row, "created_at")?,
        updated_at: time(row, "updated_at")?,
    })
}

#[cfg(test)]
mod tests;
