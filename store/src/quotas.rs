//! What an organisation may have: vaults, secrets, agents and requests a month. The operator says so, by a default for all and by
//! what differs for one; nobody inside of an organisation can.

use std::fmt;

use ::leases::id::OrgId;

use crate::db::{Change, On, Row, WriteTx, query, stored};
use crate::{Actor, NewEvent, Store, StoreError};

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource {
    /// Vaults that somebody made.
    Vaults,
    /// Secrets that are not deleted, entries of secret sets among them and identity keys of agents not.
    Secrets,
    /// Agents that are not deleted.
    Agents,
    /// Requests of a month.
    Requests,
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Vaults => "Vault",
            Self::Secrets => "Secret",
            Self::Agents => "Agent",
            Self::Requests => "Request",
        })
    }
}

/// What an organisation may have of each; `None` for any number.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Quota {
    /// Vaults beside those that the service makes.
    pub vaults: Option<u64>,
    /// Secrets.
    pub secrets: Option<u64>,
    /// Agents.
    pub agents: Option<u64>,
    /// Requests from the first of a month on, in UTC.
    pub requests_per_month: Option<u64>,
}

impl Quota {
    const fn of(&self, resource: Resource) -> Option<u64> {
        match resource {
            Resource::Vaults => self.vaults,
            Resource::Secrets => self.secrets,
            Resource::Agents => self.agents,
            Resource::Requests => self.requests_per_month,
        }
    }
}

/// What an operator says of one organisation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Allowance {
    /// What the configuration says of all.
    #[default]
    Default,
    /// Any number.
    Unlimited,
    /// At most so many.
    AtMost(u64),
}

impl Allowance {
    const fn or(self, default: Option<u64>) -> Option<u64> {
        match self {
            Self::Default => default,
            Self::Unlimited => None,
            Self::AtMost(most) => Some(most),
        }
    }

    fn column(self) -> Option<i64> {
        match self {
            Self::Default => None,
            Self::Unlimited => Some(-1),
            Self::AtMost(most) => Some(stored(most)),
        }
    }

    fn read(row: &Row, column: &str) -> Result<Self, StoreError> {
        let most: Option<i64> = row.try_get(column)?;
        Ok(most.map_or(Self::Default, |most| {
            u64::try_from(most).map_or(Self::Unlimited, Self::AtMost)
        }))
    }
}

/// What an operator says of one organisation, of each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Allowances {
    /// Vaults.
    pub vaults: Allowance,
    /// Secrets.
    pub secrets: Allowance,
    /// Agents.
    pub agents: Allowance,
    /// Requests a month.
    pub requests_per_month: Allowance,
}

impl Allowances {
    /// What holds, beside the default for all.
    pub const fn or(self, default: Quota) -> Quota {
        Quota {
            vaults: self.vaults.or(default.vaults),
            secrets: self.secrets.or(default.secrets),
            agents: self.agents.or(default.agents),
            requests_per_month: self.requests_per_month.or(default.requests_per_month),
        }
    }
}

/// An organisation has as many as it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{resource} limit reached: this organisation may have {limit}")]
pub struct OverQuota {
    /// Of what.
    pub resource: Resource,
    /// How many it may have.
    pub limit: u64,
}

/// Why a count under a quota fails.
#[derive(Debug, thiserror::Error)]
pub(crate) enum QuotaError {
    #[error(transparent)]
    Over(OverQuota),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// How many an organisation has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Holdings {
    /// Vaults that somebody made.
    pub vaults: u64,
    /// Secrets that are not deleted.
    pub secrets: u64,
    /// Agents that are not deleted.
    pub agents: u64,
}

/// The quotas of a store.
#[derive(Debug, Clone, Copy)]
pub struct Quotas<'a> {
    pub(crate) store: &'a Store,
}

impl Quotas<'_> {
    /// Says what holds for every organisation of which the operator says nothing else. Nothing is bounded before.
    pub fn set_default(&self, quota: Quota) {
        *self.store.inner.quota.write() = quota;
    }

    /// What an organisation may have.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn of(&self, org: &OrgId) -> Result<Quota, StoreError> {
        Ok(self.allowances(org).await?.or(self.default()))
    }

    /// What the operator says of one organisation.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn allowances(&self, org: &OrgId) -> Result<Allowances, StoreError> {
        allowances(self.store.pool(), org).await
    }

    /// Puts other allowances in place of an organisation's. It takes effect for the next change at once, and for requests when the
    /// planes have looked (`requests::FLUSH`). False when there is no such organisation.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn allow(
        &self,
        org: &OrgId,
        allowances: Allowances,
        actor: &Actor,
    ) -> Result<bool, StoreError> {
        let mut tx = self.store.write(Change::Org(org)).await?;
        let known = query("SELECT 1 FROM orgs WHERE id = $1")
            .bind(org.as_str())
            .fetch_optional(tx.conn())
            .await?;
        if known.is_none() {
            return Ok(false);
        }
        query(
            "INSERT INTO org_quotas (org_id, vaults, secrets, agents, requests_per_month, updated_at) \
             VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (org_id) DO UPDATE SET vaults = excluded.vaults, \
             secrets = excluded.secrets, agents = excluded.agents, \
             requests_per_month = excluded.requests_per_month, updated_at = excluded.updated_at",
        )
        .bind(org.as_str())
        .bind(allowances.vaults.column())
        .bind(allowances.secrets.column())
        .bind(allowances.agents.column())
        .bind(allowances.requests_per_month.column())
        .bind(tx.now())
        .execute(tx.conn())
        .await?;
        let event = NewEvent {
            action: "quota.set",
            ..NewEvent::default()
        };
        tx.append(org, actor, &event).await?;
        tx.commit().await?;
        Ok(true)
    }

    /// How many an organisation has.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn holdings(&self, org: &OrgId) -> Result<Holdings, StoreError> {
        let pool = || self.store.pool();
        Ok(Holdings {
            vaults: count(pool(), org, Resource::Vaults).await?,
            secrets: count(pool(), org, Resource::Secrets).await?,
            agents: count(pool(), org, Resource::Agents).await?,
        })
    }

    pub(crate) fn default(self) -> Quota {
        *self.store.inner.quota.read()
    }
}

/// What an organisation had of something before a change that may add to it.
///
/// The change is alone in its organisation ([`Change::Org`]), so what is counted at its end is what it leaves, and of two that
/// race for the last place one gets it.
pub(crate) struct Guard {
    resource: Resource,
    limit: u64,
    before: u64,
}

impl Guard {
    /// Counts, where there is a limit.
    pub(crate) async fn begin(
        store: &Store,
        tx: &mut WriteTx<'_>,
        org: &OrgId,
        resource: Resource,
    ) -> Result<Option<Self>, StoreError> {
        let quota = allowances(tx.conn(), org)
            .await?
            .or(store.quotas().default());
        let Some(limit) = quota.of(resource) else {
            return Ok(None);
        };
        Ok(Some(Self {
            resource,
            limit,
            before: count(tx.conn(), org, resource).await?,
        }))
    }

    /// Refuses a change that added something above the limit. One that adds nothing passes, wherever the limit was set since.
    pub(crate) async fn check(
        guard: Option<Self>,
        tx: &mut WriteTx<'_>,
        org: &OrgId,
    ) -> Result<(), QuotaError> {
        let Some(Self {
            resource,
            limit,
            before,
        }) = guard
        else {
            return Ok(());
        };
        let after = count(tx.conn(), org, resource).await?;
        if after > before && after > limit {
            return Err(QuotaError::Over(OverQuota { resource, limit }));
        }
        Ok(())
    }
}

async fn allowances<'c>(on: impl Into<On<'c>>, org: &OrgId) -> Result<Allowances, StoreError> {
    let row = query("SELECT * FROM org_quotas WHERE org_id = $1")
        .bind(org.as_str())
        .fetch_optional(on)
        .await?;
    let Some(row) = row else {
        return Ok(Allowances::default());
    };
    Ok(Allowances {
        vaults: Allowance::read(&row, "vaults")?,
        secrets: Allowance::read(&row, "secrets")?,
        agents: Allowance::read(&row, "agents")?,
        requests_per_month: Allowance::read(&row, "requests_per_month")?,
    })
}

async fn count<'c>(
    on: impl Into<On<'c>>,
    org: &OrgId,
    resource: Resource,
) -> Result<u64, StoreError> {
    let statement = match resource {
        // What the service makes for itself was made by nobody.
        Resource::Vaults => {
            "SELECT COUNT(*) FROM vaults WHERE org_id = $1 AND deleted_at IS NULL \
             AND created_by IS NOT NULL"
        }
        Resource::Secrets => {
            "SELECT COUNT(*) FROM secrets WHERE org_id = $1 AND deleted_at IS NULL AND vault_id NOT IN \
             (SELECT id FROM vaults WHERE org_id = $1 AND name = '__agent-keys' AND created_by IS NULL)"
        }
        Resource::Agents => "SELECT COUNT(*) FROM agents WHERE org_id = $1 AND deleted_at IS NULL",
        Resource::Requests => return Ok(0),
    };
    let held: Option<i64> = query(statement).bind(org.as_str()).fetch_value(on).await?;
    Ok(held.unwrap_or(0).unsigned_abs())
}

#[cfg(test)]
mod tests;
