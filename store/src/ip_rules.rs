//! Rules on where an organisation's callers come from. What they mean is the caller's to decide.

use ::leases::id::{IpRuleId, OrgId};
use time::OffsetDateTime;

use crate::db::{Change, Row, id, query, time};
use crate::timekeeper::at;
use crate::{Actor, NewEvent, Store, StoreError};

/// What a rule does with the addresses in its network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IpRuleKind {
    /// They may call; those outside of every such rule may not.
    Allow,
    /// They may not call, whatever allows them.
    Block,
}

impl IpRuleKind {
    /// The word stored and shown.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Block => "block",
        }
    }

    /// The kind of that word.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Allow, Self::Block]
            .into_iter()
            .find(|kind| kind.as_str() == text)
    }
}

/// A rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IpRule {
    /// Its id.
    pub id: IpRuleId,
    /// What it does.
    pub kind: IpRuleKind,
    /// The network, as its maker's library writes it.
    pub cidr: String,
    /// Free text.
    pub description: String,
    /// Who made it.
    pub created_by: String,
    /// When it was made.
    pub created_at: OffsetDateTime,
}

/// A rule to be made.
#[derive(Debug, Clone)]
pub struct NewIpRule {
    /// What it does.
    pub kind: IpRuleKind,
    /// The network.
    pub cidr: String,
    /// Free text.
    pub description: String,
}

/// Why a rule is not made or removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IpRuleError {
    /// The organisation has as many rules as it may.
    #[error("the organisation has {0} rules")]
    Full(usize),
    /// There is no such rule.
    #[error("there is no such rule")]
    Missing,
    /// The rules as they would be were refused by the caller's check.
    #[error("the rules would shut their maker out")]
    ShutsOut,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The rules of a store.
#[derive(Debug, Clone, Copy)]
pub struct IpRules<'a> {
    pub(crate) store: &'a Store,
}

impl IpRules<'_> {
    /// All rules of an organisation, in the order they were made.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn list(&self, org: &OrgId) -> Result<Vec<IpRule>, StoreError> {
        let rows = query(LIST)
            .bind(org.as_str())
            .fetch_all(self.store.pool())
            .await?;
        rows.iter().map(read).collect()
    }

    /// Makes a rule, if `fits` takes the rules as they will be.
    ///
    /// # Errors
    /// [`IpRuleError`].
    pub async fn create(
        &self,
        org: &OrgId,
        new: NewIpRule,
        actor: &Actor,
        fits: impl Fn(&[IpRule]) -> bool,
    ) -> Result<IpRule, IpRuleError> {
        let mut tx = self.store.write(Change::Org(org)).await?;
        let rows = query(LIST).bind(org.as_str()).fetch_all(tx.conn()).await?;
        let mut rules: Vec<IpRule> = rows.iter().map(read).collect::<Result<_, _>>()?;
        if rules.len() >= MAX_RULES {
            return Err(IpRuleError::Full(MAX_RULES));
        }
        let created_at = at(tx.now());
        let rule = IpRule {
            id: IpRuleId::new(created_at),
            kind: new.kind,
            cidr: new.cidr,
            description: new.description,
            created_by: actor.id.clone(),
            created_at,
        };
        rules.push(rule.clone());
        if !fits(&rules) {
            return Err(IpRuleError::ShutsOut);
        }
        query(
            "INSERT INTO ip_rules (id, org_id, rule_type, cidr, description, created_by, created_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(rule.id.as_str())
        .bind(org.as_str())
        .bind(rule.kind.as_str())
        .bind(&rule.cidr)
        .bind(&rule.description)
        .bind(&rule.created_by)
        .bind(tx.now())
        .execute(tx.conn())
        .await?;
        let event = NewEvent {
            action: "ip_rule.create",
            keys: vec![
                rule.id.to_string(),
                format!("{} {}", rule.kind.as_str(), rule.cidr),
            ],
            ..NewEvent::default()
        };
        tx.append(org, actor, &event).await?;
        tx.commit().await?;
        Ok(rule)
    }

    /// Removes a rule, if `fits` takes the rules that stay.
    ///
    /// # Errors
    /// [`IpRuleError`].
    pub async fn delete(
        &self,
        org: &OrgId,
        id: &IpRuleId,
        actor: &Actor,
        fits: impl Fn(&[IpRule]) -> bool,
    ) -> Result<(), IpRuleError> {
        let mut tx = self.store.write(Change::Org(org)).await?;
        let rows = query(LIST).bind(org.as_str()).fetch_all(tx.conn()).await?;
        let mut rules: Vec<IpRule> = rows.iter().map(read).collect::<Result<_, _>>()?;
        let before = rules.len();
        rules.retain(|rule| rule.id != *id);
        if rules.len() == before {
            return Err(IpRuleError::Missing);
        }
        if !fits(&rules) {
            return Err(IpRuleError::ShutsOut);
        }
        query("DELETE FROM ip_rules WHERE org_id = $1 AND id = $2")
            .bind(org.as_str())
            .bind(id.as_str())
            .execute(tx.conn())
            .await?;
        let event = NewEvent {
            action: "ip_rule.delete",
            keys: vec![id.to_string()],
            ..NewEvent::default()
        };
        tx.append(org, actor, &event).await?;
        tx.commit().await?;
        Ok(())
    }

    /// Removes all rules of an organisation; how many there were.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn clear(&self, org: &OrgId, actor: &Actor) -> Result<u64, StoreError> {
        let mut tx = self.store.write(Change::Org(org)).await?;
        let rows = query(LIST).bind(org.as_str()).fetch_all(tx.conn()).await?;
        let rules: Vec<IpRule> = rows.iter().map(read).collect::<Result<_, _>>()?;
        let cleared = query("DELETE FROM ip_rules WHERE org_id = $1")
            .bind(org.as_str())
            .execute(tx.conn())
            .await?;
        let event = NewEvent {
            action: "ip_rule.clear",
            keys: rules
                .iter()
                .map(|rule| format!("{} {}", rule.kind.as_str(), rule.cidr))
                .collect(),
            ..NewEvent::default()
        };
        tx.append(org, actor, &event).await?;
        tx.commit().await?;
        Ok(cleared)
    }
}

const LIST: &str = "SELECT * FROM ip_rules WHERE org_id = $1 ORDER BY id";
/// All of them are read for each call.
const MAX_RULES: usize = 200;

fn read(row: &Row) -> Result<IpRule, StoreError> {
    let what = "address rule";
    Ok(IpRule {
        id: id(row, "id", what)?,
        kind: IpRuleKind::parse(row.try_get("rule_type")?).ok_or(StoreError::Corrupt { what })?,
        cidr: row.try_get("cidr")?,
        description: row.try_get("description")?,
        created_by: row.try_get("created_by")?,
        created_at: time(row, "created_at")?,
    })
}
