//! The records of a batch, column by column, as the database's functions take them.

use std::convert::Infallible;

use crate::chain::Stream;
use crate::ledger::record::{Record, Sink};

/// Columns of equal length.
#[derive(Debug, Default)]
pub(super) struct Sheet {
    /// Place of the first record in its stream.
    pub(super) first: i64,
    pub(super) orgs: Vec<String>,
    pub(super) actions: Vec<String>,
    pub(super) agents: Vec<Option<String>>,
    pub(super) leases: Vec<Option<String>>,
    pub(super) sets: Vec<Option<String>>,
    pub(super) prevs: Vec<Vec<u8>>,
    pub(super) hashes: Vec<Vec<u8>>,
    pub(super) bodies: Vec<String>,
}

impl Sheet {
    pub(super) fn clear(&mut self) {
        self.orgs.clear();
        self.actions.clear();
        self.agents.clear();
        self.leases.clear();
        self.sets.clear();
        self.prevs.clear();
        self.hashes.clear();
        self.bodies.clear();
    }
}

impl Sink for Sheet {
    type Error = Infallible;

    fn append(&mut self, record: &Record<'_>) -> Result<(), Infallible> {
        if self.bodies.is_empty() {
            self.first = Stream::seq(record.position).cast_signed();
        }
        let draft = record.draft;
        self.orgs.push(draft.org_id.to_owned());
        self.actions.push(draft.action.to_owned());
        self.agents.push(draft.agent_id.map(str::to_owned));
        self.leases.push(draft.lease_id.map(str::to_owned));
        self.sets.push(draft.secret_set_id.map(str::to_owned));
        self.prevs.push(record.prev_hash.to_vec());
        self.hashes.push(record.hash.to_vec());
        self.bodies.push(record.body.to_owned());
        Ok(())
    }
}
