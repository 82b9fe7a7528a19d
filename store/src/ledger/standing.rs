//! Whether leases still stand: reads that decide nothing for good, beside the thread that does.
//!
//! The door asks at CONNECT, and the injector asks for streams that outlast their use. Each use is decided
//! again in its own transaction, so these reads need no turn with the writer.

use std::path::PathBuf;

use ::leases::RevocationId;
use ::leases::id::{AgentId, GrantId, LeaseId, OrgId, SetId};
use parking_lot::{Mutex, MutexGuard};
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, params};

use super::LedgerError;

/// Connections to read with. The reads take microseconds, so a few serve many threads.
const READERS: usize = 4;

/// A lease as it is held.
#[derive(Debug, Clone)]
pub struct Holding<'a> {
    /// Its organisation.
    pub org: &'a OrgId,
    /// The lease.
    pub lease: &'a LeaseId,
    /// Who holds it.
    pub agent: &'a AgentId,
    /// The grant in use, once a request has selected one.
    pub grant: Option<&'a GrantId>,
    /// The secret set of that grant.
    pub set: Option<&'a SetId>,
    /// Of every block of the token, authority first.
    pub revocation_ids: &'a [RevocationId],
}

/// What can be said of a holding at this moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Nothing was revoked.
    Good,
    /// The lease, or one block of the token, was revoked.
    Revoked,
    /// The grant was revoked.
    GrantRevoked,
    /// The secret set was deleted.
    SetGone,
    /// The agent is inactive or deleted.
    AgentInactive,
    /// No such lease in this organisation.
    Unknown,
}

/// Where leases are looked up.
#[derive(Debug)]
pub(super) enum Readers {
    /// In the file.
    Sqlite(Box<FileReaders>),
    /// On the server.
    Postgres(super::postgres::Reader),
}

impl Readers {
    pub(super) async fn standing(&self, holding: &Holding<'_>) -> Result<Standing, LedgerError> {
        match self {
            Self::Sqlite(readers) => readers.standing(holding),
            Self::Postgres(reader) => reader.standing(holding).await,
        }
    }

    /// One standing for each holding, in their order.
    pub(super) async fn standings(
        &self,
        holdings: &[Holding<'_>],
    ) -> Result<Vec<Standing>, LedgerError> {
        match self {
            Self::Sqlite(readers) => readers.standings(holdings),
            Self::Postgres(reader) => reader.standings(holdings).await,
        }
    }
}

/// Read-only connections, opened when first needed and again after an error.
pub(super) struct FileReaders {
    path: PathBuf,
    slots: [Mutex<Option<Connection>>; READERS],
}

impl std::fmt::Debug for FileReaders {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileReaders").finish_non_exhaustive()
    }
}

impl FileReaders {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            slots: Default::default(),
        }
    }

    fn standing(&self, holding: &Holding<'_>) -> Result<Standing, LedgerError> {
        self.read(|db| read(db, holding))
    }

    fn standings(&self, holdings: &[Holding<'_>]) -> Result<Vec<Standing>, LedgerError> {
        self.read(|db| holdings.iter().map(|holding| read(db, holding)).collect())
    }

    fn read<T>(&self, ask: impl Fn(&Connection) -> rusqlite::Result<T>) -> Result<T, LedgerError> {
        let unavailable = |error: rusqlite::Error| LedgerError::Unavailable(error.to_string());
        let mut slot = self.slot();
        let db = match slot.take() {
            Some(db) => db,
            None => self.open().map_err(unavailable)?,
        };
        // A connection that failed is not put back: the next read opens another.
        let answer = ask(&db).map_err(unavailable)?;
        *slot = Some(db);
        Ok(answer)
    }

    fn slot(&self) -> MutexGuard<'_, Option<Connection>> {
        self.slots
            .iter()
            .find_map(Mutex::try_lock)
            .unwrap_or_else(|| self.slots[0].lock())
    }

    fn open(&self) -> rusqlite::Result<Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let db = Connection::open_with_flags(&self.path, flags)?;
        db.busy_timeout(std::time::Duration::from_millis(250))?;
        db.pragma_update(None, "query_only", true)?;
        Ok(db)
    }
}

fn read(db: &Connection, holding: &Holding<'_>) -> rusqlite::Result<Standing> {
    let row: Option<(bool, bool)> = db
        .prepare_cached(
            "SELECT l.revoked_at IS NOT NULL OR EXISTS (SELECT 1 FROM kill_switches k \
             WHERE k.org_id = l.org_id AND k.agent_id IN ('', l.agent_id) AND k.cut_off > l.cut_off), \
             a.is_active = 1 AND a.deleted_at IS NULL \
             FROM leases l JOIN agents a ON a.id = l.agent_id \
             WHERE l.id = $1 AND l.org_id = $2 AND l.agent_id = $3",
        )?
        .query_row(
            params![
                holding.lease.as_str(),
                holding.org.as_str(),
                holding.agent.as_str()
            ],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .optional()?;
    let Some((is_revoked, is_active)) = row else {
        return Ok(Standing::Unknown);
    };
    if is_revoked || any_block_revoked(db, holding)? {
        return Ok(Standing::Revoked);
    }
    if !is_active {
        return Ok(Standing::AgentInactive);
    }
    if let Some(grant) = holding.grant
        && is_grant_revoked(db, holding.org, grant)?
    {
        return Ok(Standing::GrantRevoked);
    }
    match holding.set {
        Some(set) if is_set_gone(db, holding.org, set)? => Ok(Standing::SetGone),
        _ => Ok(Standing::Good),
    }
}

fn any_block_revoked(db: &Connection, holding: &Holding<'_>) -> rusqlite::Result<bool> {
    let mut statement =
        db.prepare_cached("SELECT 1 FROM revoked_blocks WHERE revocation_id = $1 AND org_id = $2")?;
    for id in holding.revocation_ids {
        if statement.exists(params![id.as_bytes(), holding.org.as_str()])? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn is_grant_revoked(db: &Connection, org: &OrgId, grant: &GrantId) -> rusqlite::Result<bool> {
    let mut statement = db.prepare_cached(
        "SELECT 1 FROM grants WHERE id = $1 AND org_id = $2 AND revoked_at IS NULL",
    )?;
    Ok(!statement.exists(params![grant.as_str(), org.as_str()])?)
}

fn is_set_gone(db: &Connection, org: &OrgId, set: &SetId) -> rusqlite::Result<bool> {
    let mut statement = db.prepare_cached(
        "SELECT 1 FROM secret_sets WHERE id = $1 AND org_id = $2 AND deleted_at IS NULL",
    )?;
    Ok(!statement.exists(params![set.as_str(), org.as_str()])?)
}
