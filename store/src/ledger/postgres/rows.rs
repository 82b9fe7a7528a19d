//! The rows that decide, as Postgres gives them: read before the decision, and never during it.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use ::leases::RevocationId;
use ::leases::id::{AgentId, ApprovalId, GrantId, LeaseId, OrgId, SetId};
use ::leases::scope::Kind;
use serde::Deserialize;
use serde::de::Error as _;

use crate::ledger::book::{
    AgentRow, Book, CutOff, GrantRow, LeaseRow, Read, Rows, SetRow, Wanted, Window,
};
use crate::ledger::budget::{Budget, BudgetRow};
use crate::ledger::{Holding, Standing};

/// Stands in for a database that was asked already: what is not kept is not there.
pub(super) struct Absent;

impl Rows for Absent {
    type Error = Infallible;

    fn lease(&mut self, _: &LeaseId) -> Result<Option<LeaseRow>, Infallible> {
        Ok(None)
    }

    fn agent(&mut self, _: &AgentId) -> Result<Option<AgentRow>, Infallible> {
        Ok(None)
    }

    fn set(&mut self, _: &SetId) -> Result<Option<SetRow>, Infallible> {
        Ok(None)
    }

    fn grant(&mut self, _: &GrantId) -> Result<Option<GrantRow>, Infallible> {
        Ok(None)
    }

    fn block(&mut self, _: &RevocationId, _: &OrgId) -> Result<Option<i64>, Infallible> {
        Ok(None)
    }

    // The commit has the last word.
    fn consume(&mut self, _: &LeaseId) -> Result<bool, Infallible> {
        Ok(true)
    }

    // Here too.
    fn use_approval(&mut self, _: &ApprovalId, _: &OrgId, _: i64) -> Result<bool, Infallible> {
        Ok(true)
    }
}

/// What `ledger_rows` gives.
#[derive(Debug, Deserialize)]
pub(super) struct FreshRows {
    change: i64,
    has_revoked_blocks: bool,
    leases: Option<Vec<Lease>>,
    agents: Option<Vec<Agent>>,
    sets: Option<Vec<Set>>,
    grants: Option<Vec<Grant>>,
    blocks: Option<Vec<Block>>,
}

#[derive(Debug, Deserialize)]
struct Lease(LeaseId, String, String, String, i64, Option<i64>, i64, i64);

#[derive(Debug, Deserialize)]
struct Agent(AgentId, String, bool, Option<i64>, Option<i64>);

#[derive(Debug, Deserialize)]
struct Set(SetId, String, i64, bool, String);

#[derive(Debug, Deserialize)]
struct Grant(
    GrantId,
    String,
    String,
    String,
    Option<i64>,
    bool,
    Option<i64>,
    Option<i64>,
    Option<i64>,
    Option<i64>,
    Option<BudgetRow>,
);

#[derive(Debug, Deserialize)]
struct Block(String, i64);

impl FreshRows {
    /// Puts the rows into a book, which forgets those that stand on another number.
    pub(super) fn keep_in(self, book: &mut Book, asked: &Wanted) -> Result<(), serde_json::Error> {
        self.add_to(book)?;
        book.keep_absent(asked);
        Ok(())
    }

    /// Puts rows into a book that were read by the way. Those older than the book's are of no use to it.
    pub(super) fn offer_to(self, book: &mut Book, asked: &Wanted) -> Result<(), serde_json::Error> {
        if book.version().is_some_and(|version| version > self.change) {
            return Ok(());
        }
        self.add_to(book)?;
        book.keep_whole_blocks(asked);
        Ok(())
    }

    /// What they say of a holding for which they were read.
    pub(super) fn standing(&self, holding: &Holding<'_>) -> Standing {
        let lease = self.leases.iter().flatten().find(|lease| {
            lease.0 == *holding.lease
                && lease.1 == holding.org.as_str()
                && lease.2 == holding.agent.as_str()
        });
        let Some(Lease(.., revoked_at, _, minted_under)) = lease else {
            return Standing::Unknown;
        };
        let is_block_revoked = self.blocks.iter().flatten().next().is_some();
        if revoked_at.is_some() || is_block_revoked {
            return Standing::Revoked;
        }
        let mut agents = self.agents.iter().flatten();
        let agent = agents.find(|Agent(id, ..)| id == holding.agent);
        let Some(Agent(.., true, cut_off, _)) = agent else {
            return Standing::AgentInactive;
        };
        if cut_off.is_some_and(|cut_off| *minted_under < cut_off) {
            return Standing::Revoked;
        }
        if let Some(grant) = holding.grant
            && !self.grants(grant, holding.org)
        {
            return Standing::GrantRevoked;
        }
        match holding.set {
            Some(set) if !self.holds(set, holding.org) => Standing::SetGone,
            _ => Standing::Good,
        }
    }

    fn holds(&self, set: &SetId, in_org: &OrgId) -> bool {
        let mut sets = self.sets.iter().flatten();
        sets.any(|Set(id, org, _, is_deleted, _)| {
            id == set && org == in_org.as_str() && !is_deleted
        })
    }

    fn grants(&self, grant: &GrantId, in_org: &OrgId) -> bool {
        let mut grants = self.grants.iter().flatten();
        grants.any(|Grant(id, org, _, _, _, is_revoked, ..)| {
            id == grant && org == in_org.as_str() && !is_revoked
        })
    }

    fn add_to(self, book: &mut Book) -> Result<(), serde_json::Error> {
        if book.version() != Some(self.change) {
            book.begin(self.change, self.has_revoked_blocks);
        }
        for Lease(id, org, agent, kind, expires_at, revoked_at, uses, cut_off) in all(self.leases) {
            let row = LeaseRow {
                org,
                agent,
                is_single_use: kind != Kind::Workflow.as_str(),
                expires_at,
                revoked_at,
                uses,
                cut_off,
            };
            book.keep(Read::Lease(id, row));
        }
        for Agent(id, org, is_active, cut_off, cut_off_at) in all(self.agents) {
            let row = AgentRow {
                org,
                is_active,
                cut_off: CutOff {
                    number: cut_off.unwrap_or_default(),
                    at: cut_off_at.unwrap_or_default(),
                },
            };
            book.keep(Read::Agent(id, row));
        }
        for Set(id, org, version, is_deleted, manifest) in all(self.sets) {
            let row = SetRow {
                org,
                version,
                is_deleted,
                keys: keys(&manifest)?,
            };
            book.keep(Read::Set(id, row));
        }
        for grant in all(self.grants) {
            let (id, row) = grant.row();
            book.keep(Read::Grant(id, row));
        }
        for Block(id, revoked_at) in all(self.blocks) {
            let id = hex::decode(&id).ok();
            let id = id.and_then(|id| RevocationId::from_bytes(&id).ok());
            let id = id.ok_or_else(|| serde_json::Error::custom("a revocation id is none"))?;
            book.keep(Read::Block(id, Some(revoked_at)));
        }
        Ok(())
    }
}

impl Grant {
    fn row(self) -> (GrantId, GrantRow) {
        let Self(
            id,
            org,
            agent,
            set,
            expires_at,
            is_revoked,
            requests,
            seconds,
            started_at,
            used,
            budget,
        ) = self;
        let row = GrantRow {
            org,
            agent,
            set,
            expires_at,
            is_revoked,
            rate: requests.zip(seconds.map(|seconds| seconds.saturating_mul(1_000))),
            window: Window {
                started_at: started_at.unwrap_or_default(),
                used: used.unwrap_or_default(),
            },
            budget: budget.map(Budget::of),
        };
        (id, row)
    }
}

fn all<T>(rows: Option<Vec<T>>) -> impl Iterator<Item = T> {
    rows.into_iter().flatten()
}

/// The keys of a manifest, `{"KEY": version, …}`.
pub(super) fn keys(manifest: &str) -> Result<Arc<[String]>, serde_json::Error> {
    let manifest: BTreeMap<String, u64> = serde_json::from_str(manifest)?;
    Ok(manifest.into_keys().collect())
}
