//! What the chain tells of rows that could be put back to an earlier state behind the store's back, and whether they still say so.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::{PutBack, RolledBack};
use crate::StoreError;
use crate::db::{Pool, count, optional_time, query};
use crate::policies::content_of;

/// What the chain tells of sets, secrets and policies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Told {
    /// By set: the highest version.
    sets: BTreeMap<String, u64>,
    secrets: BTreeMap<Place, ToldSecret>,
    /// By id.
    policies: BTreeMap<String, ToldPolicy>,
}

/// Organisation, vault and path of a secret.
type Place = (String, String, String);

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct ToldSecret {
    /// The highest version.
    version: u64,
    /// By version that was the newest then: deletions less restorations. Either follows the other, so one or none is left,
    /// in whatever order the streams are read.
    deletions: BTreeMap<u64, i64>,
    disabled: BTreeSet<u64>,
    /// By version.
    reads: BTreeMap<u64, u64>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct ToldPolicy {
    org_id: String,
    vault_id: String,
    /// The highest version, and what it says.
    version: u64,
    content: Option<String>,
    is_deleted: bool,
}

/// What of an event is told here.
#[derive(Debug, Deserialize)]
struct Body {
    org_id: String,
    action: String,
    decision: String,
    secret_set_id: Option<String>,
    secret_version: Option<u64>,
    vault_id: Option<String>,
    policy_id: Option<String>,
    #[serde(default)]
    keys: Vec<String>,
    content_sha256: Option<String>,
}

impl Told {
    /// Takes up a record.
    pub(super) fn take(&mut self, action: &str, body: &str) {
        let is_told = ["secret_set.", "secret.", "policy."];
        if !is_told.iter().any(|kind| action.starts_with(kind)) {
            return;
        }
        let body = serde_json::from_str::<Body>(body).ok();
        // What was refused has changed nothing. An event of an earlier release may lack its version.
        let Some(mut body) = body.filter(|body| body.decision == "allow") else {
            return;
        };
        let Some(version) = body.secret_version else {
            return;
        };
        match (
            body.secret_set_id.take(),
            body.policy_id.take(),
            body.vault_id.take(),
        ) {
            (Some(set), _, _) if action.starts_with("secret_set.") => {
                let highest = self.sets.entry(set).or_default();
                *highest = version.max(*highest);
            }
            (None, Some(id), Some(vault)) if action.starts_with("policy.") => {
                self.take_policy(id, vault, version, body);
            }
            (None, _, Some(vault)) if action.starts_with("secret.") => {
                self.take_secret(vault, version, body);
            }
            _ => {}
        }
    }

    fn take_policy(&mut self, id: String, vault: String, version: u64, body: Body) {
        let told = self.policies.entry(id).or_default();
        (told.org_id, told.vault_id) = (body.org_id, vault);
        told.is_deleted |= body.action == "policy.delete";
        if version > told.version {
            told.version = version;
            told.content = body.content_sha256;
        }
    }

    fn take_secret(&mut self, vault: String, version: u64, body: Body) {
        let Some(path) = body.keys.into_iter().next() else {
            return;
        };
        let told = self.secrets.entry((body.org_id, vault, path)).or_default();
        told.version = version.max(told.version);
        match body.action.as_str() {
            "secret.read" => *told.reads.entry(version).or_default() += 1,
            "secret.disable" => {
                told.disabled.insert(version);
            }
            "secret.delete" => *told.deletions.entry(version).or_default() += 1,
            "secret.restore" => *told.deletions.entry(version).or_default() -= 1,
            _ => {}
        }
    }

    /// Sets whose rows are older than what is told of them.
    pub(super) async fn rolled_back(&self, pool: &Pool) -> Result<Vec<RolledBack>, StoreError> {
        let mut found = Vec::new();
        for (secret_set_id, &recorded) in &self.sets {
            let stored: Option<i64> = query("SELECT version FROM secret_sets WHERE id = $1")
                .bind(secret_set_id)
                .fetch_value(pool)
                .await?;
            let stored = u64::try_from(stored.unwrap_or(0)).unwrap_or(0);
            if stored < recorded {
                found.push(RolledBack {
                    secret_set_id: secret_set_id.clone(),
                    recorded,
                    stored,
                });
            }
        }
        Ok(found)
    }

    /// Secrets and policies whose rows are other than what is told of them.
    pub(super) async fn put_back(&self, pool: &Pool) -> Result<Vec<PutBack>, StoreError> {
        let mut found = Vec::new();
        for (place, told) in &self.secrets {
            found.extend(told.look(pool, place).await?.map(|why| PutBack {
                kind: "secret",
                org_id: place.0.clone(),
                vault_id: place.1.clone(),
                name: place.2.clone(),
                why: format!("secret {} of vault {}: {why}", place.2, place.1),
            }));
        }
        for (id, told) in &self.policies {
            found.extend(told.look(pool, id).await?.map(|why| PutBack {
                kind: "policy",
                org_id: told.org_id.clone(),
                vault_id: told.vault_id.clone(),
                name: id.clone(),
                why: format!("policy {id} of vault {}: {why}", told.vault_id),
            }));
        }
        Ok(found)
    }

    /// Whether nothing was told about a finding's row since `before`: a row that is newer than what was told then is no finding.
    pub(super) fn is_as_in(&self, before: &Self, found: &PutBack) -> bool {
        let place = (
            found.org_id.clone(),
            found.vault_id.clone(),
            found.name.clone(),
        );
        self.secrets.get(&place) == before.secrets.get(&place)
            && self.policies.get(&found.name) == before.policies.get(&found.name)
    }
}

impl ToldSecret {
    /// What is wrong with the secret's rows.
    async fn look(
        &self,
        pool: &Pool,
        (org, vault, path): &Place,
    ) -> Result<Option<String>, StoreError> {
        let row = query(
            "SELECT version, deleted_at FROM secrets WHERE org_id = $1 AND vault_id = $2 AND path = $3",
        )
        .bind(org)
        .bind(vault)
        .bind(path)
        .fetch_optional(pool)
        .await?;
        let (stored, is_deleted) = match &row {
            None => (0, false),
            Some(row) => (
                count(row, "version")?,
                optional_time(row, "deleted_at")?.is_some(),
            ),
        };
        if stored < self.version {
            return Ok(Some(older(stored, self.version)));
        }
        let is_told_deleted = self.deletions.get(&stored).is_some_and(|left| *left > 0);
        if is_told_deleted && !is_deleted {
            let why = "it is there again, and the audit trail tells of its deletion alone";
            return Ok(Some(why.to_owned()));
        }
        if self.disabled.is_empty() && self.reads.is_empty() {
            return Ok(None);
        }
        let rows = query(
            "SELECT version, reads, disabled_at FROM secret_versions \
             WHERE org_id = $1 AND vault_id = $2 AND path = $3 ORDER BY version",
        )
        .bind(org)
        .bind(vault)
        .bind(path)
        .fetch_all(pool)
        .await?;
        for row in &rows {
            let version = count(row, "version")?;
            let reads = count(row, "reads")?;
            let told = self.reads.get(&version).copied().unwrap_or(0);
            if reads < told {
                return Ok(Some(format!(
                    "version {version} counts {reads} reads, and the audit trail tells of {told}"
                )));
            }
            if self.disabled.contains(&version) && optional_time(row, "disabled_at")?.is_none() {
                return Ok(Some(format!(
                    "version {version} is enabled again, and the audit trail tells that it was disabled"
                )));
            }
        }
        Ok(None)
    }
}

impl ToldPolicy {
    /// What is wrong with the policy's row.
    async fn look(&self, pool: &Pool, id: &str) -> Result<Option<String>, StoreError> {
        let row = query("SELECT * FROM policies WHERE id = $1")
            .bind(id)
            .fetch_optional(pool)
            .await?;
        let Some(row) = row else {
            return Ok(Some(older(0, self.version)));
        };
        let stored = count(&row, "version")?;
        if stored < self.version {
            return Ok(Some(older(stored, self.version)));
        }
        if self.is_deleted && optional_time(&row, "deleted_at")?.is_none() {
            let why = "it is in force again, and the audit trail tells that it was deleted";
            return Ok(Some(why.to_owned()));
        }
        let is_told = stored == self.version;
        match &self.content {
            Some(content) if is_told && *content != content_of(&row)? => {
                let why = "it says something else than what the audit trail tells of this version";
                Ok(Some(why.to_owned()))
            }
            _ => Ok(None),
        }
    }
}

fn older(stored: u64, recorded: u64) -> String {
    format!("its version is {stored}, and the audit trail tells of {recorded}")
}
