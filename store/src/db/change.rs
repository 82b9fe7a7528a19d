//! The one way to change anything: a transaction, its place among other writers, and the events
//! that tell of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ::leases::id::{AgentId, EventId, OrgId};
use sha2::{Digest as _, Sha256};
use tokio::sync::{MutexGuard, OwnedMutexGuard};

use super::query::{Conn, Pool, in_time, query};
use super::{DatabaseError, StoreError, from_json};
use crate::chain::Link;
use crate::event::{Draft, rfc3339};
use crate::postgres::Pooled;
use crate::timekeeper::at;
use crate::{Actor, Event, NewEvent, Store, Synchronous};

/// What a change is going to touch, and so which others it must not run beside.
///
/// SQLite has one writer, so there it makes no difference. On Postgres many nodes write at once,
/// and each kind takes the locks under which its checks stay true until its commit.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Change<'a> {
    /// Rows that belong to no organisation: alone in the installation.
    Installation,
    /// Rows of an organisation: alone in it.
    Org(&'a OrgId),
    /// The same, and a lease may open less afterwards: no use is decided from here to the commit.
    Narrowing(&'a OrgId),
    /// New rows that depend on others of their organisation and on none of their kind: beside
    /// others of this sort.
    Mint(&'a OrgId),
    /// The row of one idempotency key: beside all but those who claim the same.
    Claim {
        org: &'a OrgId,
        principal: &'a str,
        key: &'a str,
    },
    /// A request of one agent that asks for approval: beside all but those of the same agent.
    Approval { org: &'a OrgId, agent: &'a AgentId },
    /// The bytes of seals, each under the condition that they are the ones that were read.
    Seals,
    /// An event alone, which only the stream's own order concerns.
    Event,
    /// A row that is there once whoever writes it, by its key alone.
    Once,
}

/// The control stream's end as its writers hold it.
#[derive(Debug)]
pub(crate) struct ControlHead {
    /// What a commit that neither succeeded nor failed for sure would have made of it.
    pub(crate) uncertain: Option<Link>,
}

/// A change in progress.
///
/// On SQLite, writers of one process take turns here and with the ledger's thread, first come,
/// first served: SQLite's own lock is polled, and a busy ledger would let nobody else in. On
/// Postgres they run beside each other until they append to the control stream, which comes last.
pub(crate) struct WriteTx<'a> {
    // Declared first, so that a dropped change is rolled back before the next writer's turn.
    tx: Tx,
    /// The control stream's end with what this change has appended, once it has taken it up.
    link: Option<Link>,
    now: i64,
    store: &'a Store,
    head: Option<MutexGuard<'a, ControlHead>>,
    /// By when a change that holds uses up has to commit.
    narrow_until: Option<Instant>,
    _turn: Option<OwnedMutexGuard<()>>,
}

/// A transaction that is rolled back unless it is committed.
enum Tx {
    Sqlite(sqlx::Transaction<'static, sqlx::Sqlite>),
    Postgres(Pooled),
}

impl<'a> WriteTx<'a> {
    /// Waits for its turn and begins.
    async fn begin(store: &'a Store, change: Change<'_>) -> Result<Self, StoreError> {
        let inner = &store.inner;
        match &inner.pool {
            Pool::Sqlite(pool) => {
                let head = inner.control_head.lock().await;
                let turn = Arc::clone(&inner.turn).lock_owned().await;
                let mut begun = Self {
                    tx: Tx::Sqlite(pool.begin_with(BEGIN_IMMEDIATE).await?),
                    link: None,
                    now: inner.time.now(),
                    store,
                    head: Some(head),
                    narrow_until: None,
                    _turn: Some(turn),
                };
                begun.take_up().await?;
                Ok(begun)
            }
            Pool::Postgres(pool) => {
                let mut connection = pool.get().await?;
                connection.begins();
                in_time(connection.batch_execute(&begin(change, inner.synchronous))).await?;
                let mut begun = Self {
                    tx: Tx::Postgres(connection),
                    link: None,
                    // Asked once the locks are held, so that of two changes the later has the later time.
                    now: inner.time.now(),
                    store,
                    head: None,
                    narrow_until: None,
                    _turn: None,
                };
                if let Change::Narrowing(_) = change {
                    begun.narrow().await?;
                }
                Ok(begun)
            }
        }
    }

    /// From here to the commit a lease may come to open less: no use is decided meanwhile, on any node, so what takes
    /// long comes before, and the rest has a second. A change of one organisation's rows goes on as
    /// [`Change::Narrowing`] from here.
    pub(crate) async fn narrow(&mut self) -> Result<(), StoreError> {
        let inner = &self.store.inner;
        if let Tx::Postgres(connection) = &self.tx {
            // Before the nodes wait for this change: its turn may take a while.
            self.head = Some(inner.control_head.lock().await);
            in_time(connection.batch_execute(NARROW)).await?;
            self.narrow_until = Some(Instant::now() + NARROWING);
            self.now = inner.time.now();
        }
        Ok(())
    }

    /// Fails a change that has held uses up for too long: better this one than all of them.
    fn still_narrows(&self) -> Result<(), StoreError> {
        match self.narrow_until {
            Some(until) if until < Instant::now() => Err(DatabaseError::Late(NARROWING).into()),
            _ => Ok(()),
        }
    }

    /// The time of this change, in milliseconds since the epoch.
    pub(crate) const fn now(&self) -> i64 {
        self.now
    }

    /// Where statements run.
    pub(crate) fn conn(&mut self) -> Conn<'_> {
        match &mut self.tx {
            Tx::Sqlite(tx) => Conn::Sqlite(tx),
            Tx::Postgres(connection) => Conn::Postgres(connection),
        }
    }

    /// Appends an event to the control stream. Nothing but other events may follow: from here to
    /// the commit, the other writers of this process wait.
    pub(crate) async fn append(
        &mut self,
        org: &OrgId,
        actor: &Actor,
        event: &NewEvent,
    ) -> Result<Event, StoreError> {
        self.still_narrows()?;
        let link = match self.link {
            Some(link) => link,
            None => self.take_up().await?,
        };
        let id = EventId::new(at(self.now));
        let stream = &self.store.inner.heads.control.stream;
        let mut created_at = String::new();
        rfc3339(&mut created_at, self.now);
        let draft = Draft {
            id: id.as_str(),
            stream: &stream.name,
            seq: link.seq + 1,
            created_at: &created_at,
            org_id: org.as_str(),
            actor_type: actor.kind.as_str(),
            actor_id: &actor.id,
            request_id: actor.request_id.as_deref(),
            client_ip: actor.client_ip,
            ..event.draft()
        };
        let mut body = String::new();
        draft.write(&mut body);
        let next = link.next(&body);
        let insert = match self.tx {
            Tx::Sqlite(_) => query(INSERT_EVENT),
            // A role may append to its own stream without any right to the table.
            Tx::Postgres(_) => query(APPEND_EVENT).bind(&*self.store.inner.run),
        };
        insert
            .bind(stream.position(next.seq))
            .bind(draft.org_id)
            .bind(self.now)
            .bind(draft.action)
            .bind(draft.agent_id)
            .bind(draft.lease_id)
            .bind(draft.secret_set_id)
            .bind(&link.hash[..])
            .bind(&next.hash[..])
            .bind(&body)
            .execute(self.conn())
            .await?;
        let mut written: Event = from_json(&body, "audit event")?;
        written.prev_hash = hex::encode(link.hash);
        written.hash = hex::encode(next.hash);
        self.link = Some(next);
        Ok(written)
    }

    /// Makes the change durable, then moves the head in memory.
    pub(crate) async fn commit(mut self) -> Result<(), StoreError> {
        self.still_narrows()?;
        let appended = self.link.take().zip(self.head.take());
        let mut appended = appended.map(|(link, mut head)| {
            // Set before the attempt, so that a caller who goes away meanwhile leaves the doubt behind.
            head.uncertain = Some(link);
            (link, head)
        });
        match self.tx {
            Tx::Sqlite(tx) => tx.commit().await?,
            Tx::Postgres(mut connection) => {
                let answer = in_time(connection.batch_execute("COMMIT")).await;
                connection.discard_after(&answer);
                answer?;
                connection.ended();
            }
        }
        if let Some((link, head)) = &mut appended {
            head.uncertain = None;
            self.store.inner.heads.control.set(*link);
        }
        Ok(())
    }

    /// Takes up the control stream where its last writer left it.
    async fn take_up(&mut self) -> Result<Link, StoreError> {
        let inner = &self.store.inner;
        if self.head.is_none() {
            self.head = Some(inner.control_head.lock().await);
        }
        self.take_stream().await?;
        if let Some(link) = self.head.as_ref().and_then(|head| head.uncertain) {
            if self.is_committed(link).await? {
                inner.heads.control.set(link);
            }
            if let Some(head) = &mut self.head {
                head.uncertain = None;
            }
        }
        let link = inner.heads.control.get();
        self.link = Some(link);
        Ok(link)
    }

    /// On Postgres, locks the stream's row until the end of this change, and makes sure that the
    /// stream is still this process's.
    ///
    /// A change whose commit is in doubt holds that lock as long as it is under way, so what is
    /// read after this is how it ended.
    async fn take_stream(&mut self) -> Result<(), StoreError> {
        let inner = &self.store.inner;
        if let Tx::Sqlite(_) = self.tx {
            return Ok(());
        }
        let taken = query("SELECT audit_stream_hold($1, $2, $3)")
            .bind(inner.heads.control.stream.number)
            .bind(&*inner.run)
            .bind(self.now)
            .fetch_value::<i64>(self.conn())
            .await?;
        if taken == Some(1) {
            Ok(())
        } else {
            Err(DatabaseError::Fenced.into())
        }
    }

    /// Whether the record at the end of `link` is in the table.
    async fn is_committed(&mut self, link: Link) -> Result<bool, StoreError> {
        if link.seq == 0 {
            return Ok(false);
        }
        let stream = &self.store.inner.heads.control.stream;
        let look_up = match self.tx {
            Tx::Sqlite(_) => query("SELECT hash FROM audit_events WHERE position = $1")
                .bind(stream.position(link.seq)),
            Tx::Postgres(_) => query("SELECT audit_stream_link($1, $2)")
                .bind(stream.number)
                .bind(link.seq.cast_signed()),
        };
        let stored: Option<Option<Vec<u8>>> = look_up.fetch_value(self.conn()).await?;
        Ok(stored.flatten().is_some_and(|stored| stored == link.hash))
    }
}

impl Store {
    /// Waits for the turn to write and begins a change.
    pub(crate) async fn write(&self, change: Change<'_>) -> Result<WriteTx<'_>, StoreError> {
        WriteTx::begin(self, change).await
    }

    /// Connections for reads.
    pub(crate) fn pool(&self) -> &Pool {
        &self.inner.pool
    }
}

/// Takes the write lock at once: a transaction that read first could not get it later.
const BEGIN_IMMEDIATE: &str = "BEGIN IMMEDIATE";

/// How long uses may be held up by one change.
const NARROWING: Duration = Duration::from_secs(1);
/// Waits for the batches under way and holds up those to come. What follows is a handful of statements.
const NARROW: &str = "SET LOCAL idle_in_transaction_session_timeout = '1s'; SELECT ledger_changing(); \
    SET LOCAL statement_timeout = '1s'";

/// One record of the chain.
const INSERT_EVENT: &str = "INSERT INTO audit_events \
    (position, org_id, created_at, action, agent_id, lease_id, secret_set_id, prev_hash, hash, body) \
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";

/// The same where the table is not this role's.
const APPEND_EVENT: &str = "SELECT audit_append($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)";

/// Begins on Postgres and takes the locks, in one message.
///
/// READ COMMITTED: each statement sees all that was committed before it, so whatever follows a lock
/// sees the work of whoever held it before. A snapshot of the whole transaction would be older than
/// the lock. The locks end with the transaction, wherever a pooler runs it.
fn begin(change: Change<'_>, synchronous: Synchronous) -> String {
    // A server that answers before its log is on disk is told to wait here, and only here.
    let durable = match synchronous {
        Synchronous::Full => {
            "SELECT set_config('synchronous_commit', 'on', true) \
             WHERE current_setting('synchronous_commit') = 'off'"
        }
        Synchronous::Off => "SET LOCAL synchronous_commit = off",
    };
    let locks = match change {
        Change::Installation => alone("installation", &[]),
        Change::Org(org) | Change::Narrowing(org) => alone("org", &[org.as_str()]),
        Change::Mint(org) => {
            let key = lock_key("org", &[org.as_str()]);
            format!("SELECT pg_advisory_xact_lock_shared({key})")
        }
        Change::Claim {
            org,
            principal,
            key,
        } => alone("idempotency", &[org.as_str(), principal, key]),
        Change::Approval { org, agent } => alone("approval", &[org.as_str(), agent.as_str()]),
        Change::Seals | Change::Event | Change::Once => String::new(),
    };
    format!(
        "BEGIN ISOLATION LEVEL READ COMMITTED; \
         SET LOCAL lock_timeout = '5s'; \
         SET LOCAL statement_timeout = '8s'; \
         SET LOCAL idle_in_transaction_session_timeout = '10s'; \
         {durable}; {locks}"
    )
}

fn alone(kind: &str, names: &[&str]) -> String {
    format!("SELECT pg_advisory_xact_lock({})", lock_key(kind, names))
}

/// The number of a lock. Two things that share one by chance wait for each other, and no more.
fn lock_key(kind: &str, names: &[&str]) -> i64 {
    let mut digest = Sha256::new_with_prefix("claviger lock\0");
    digest.update(kind);
    for name in names {
        digest.update([0]);
        digest.update(name);
    }
    let digest = digest.finalize();
    i64::from_be_bytes(std::array::from_fn(|index| digest[index]))
}
