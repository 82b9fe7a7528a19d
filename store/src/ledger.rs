//! The ledger: every use is checked, counted and committed here before anything is sent.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ::leases::RevocationId;
use ::leases::id::{AgentId, ApprovalId, GrantId, LeaseId, OrgId, SetId, UseId};
use ::leases::scope::{Action, Kind};
use parking_lot::Mutex;
use time::OffsetDateTime;
use tokio::sync::oneshot;

use crate::chain::Heads;
use crate::nodes::{Node, NodeFacts, NodeState};
use crate::open::Lock;
use crate::spend::Amount;
use crate::timekeeper::{Timekeeper, at};
use crate::{CheckpointSigner, Location, OpenError, Restored, StoreError, StoreOptions};

mod book;
mod budget;
mod docket;
mod keeper;
mod pace;
mod postgres;
mod queue;
mod record;
mod rollback;
mod rows;
mod standing;
mod start;
mod stats;
mod worker;

pub use budget::{Hold, Overspent, Settled, Unit};
pub use standing::{Holding, Standing};

use keeper::Keeper;
use queue::{NotQueued, Queue, Waiting};
use standing::Readers;
use stats::Stats;

/// A use to be decided and recorded.
#[derive(Debug, Clone)]
pub struct UseRequest {
    /// The lease's organisation.
    pub org: OrgId,
    /// The lease, from the token's authority block.
    pub lease: LeaseId,
    /// Who holds it.
    pub agent: AgentId,
    /// The set that the request's host selected.
    pub set: SetId,
    /// The grant that binds it.
    pub grant: GrantId,
    /// One use or many.
    pub kind: Kind,
    /// What for.
    pub action: Action,
    /// Of every block, authority first.
    pub revocation_ids: Arc<[RevocationId]>,
    /// The earliest end of all blocks.
    pub expires_at: OffsetDateTime,
    /// Names of the entries that may be used; empty for all. What is recorded, and may be opened, are those of them
    /// that the set's current version has.
    pub keys: Arc<[String]>,
    /// The approval that it uses up, where its grant asks for one.
    pub approval: Option<ApprovedUse>,
    /// What it may spend, as far as can be told before it is sent. It is held if the grant has a budget.
    pub estimate: Amount,
    /// The request itself.
    pub request: RequestFacts,
}

/// A person's approval of exactly one request, as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApprovedUse {
    /// The approval.
    pub id: ApprovalId,
    /// Until when it is good.
    pub expires_at: OffsetDateTime,
}

/// What the audit trail tells of a request.
#[derive(Debug, Clone)]
pub struct RequestFacts {
    /// As logs and problem bodies name it.
    pub request_id: String,
    /// Where it came from.
    pub client_ip: IpAddr,
    /// HTTP method.
    pub method: String,
    /// `https` or `http`.
    pub scheme: &'static str,
    /// The host asked for.
    pub host: Arc<str>,
    /// The port asked for.
    pub port: u16,
    /// The address dialled, if known by now.
    pub address: Option<IpAddr>,
    /// The path without its query.
    pub path: String,
}

/// Proof that a use is committed. Only the ledger makes it.
#[derive(Debug)]
pub struct RecordedUse {
    use_id: UseId,
    set: SetId,
    secret_set_version: u64,
    keys: Arc<[String]>,
    at: OffsetDateTime,
    hold: Option<Hold>,
}

impl RecordedUse {
    /// Joins the use with its outcome.
    pub const fn use_id(&self) -> &UseId {
        &self.use_id
    }

    /// The set to open.
    pub const fn set(&self) -> &SetId {
        &self.set
    }

    /// The set's version at the use's commit: the one to open.
    pub const fn secret_set_version(&self) -> u64 {
        self.secret_set_version
    }

    /// Names of the entries that may be opened.
    pub const fn keys(&self) -> &Arc<[String]> {
        &self.keys
    }

    /// When it was recorded.
    pub const fn at(&self) -> OffsetDateTime {
        self.at
    }

    /// What it holds of its grant's budget, if that has one. Its outcome tells what was spent instead.
    pub const fn hold(&self) -> Option<Hold> {
        self.hold
    }
}

/// Why a use is refused. Unless said, the refusal itself is recorded as `lease.refuse`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UseRefusal {
    /// The lease, or one block of the token, was revoked.
    #[error("the lease was revoked")]
    LeaseRevoked {
        /// When.
        at: OffsetDateTime,
    },
    /// A request lease was used before.
    #[error("the lease is for one request, which was made")]
    LeaseConsumed,
    /// The lease's time is over.
    #[error("the lease expired")]
    LeaseExpired {
        /// When.
        at: OffsetDateTime,
    },
    /// The grant was revoked.
    #[error("the grant was revoked")]
    GrantRevoked,
    /// The grant's time is over.
    #[error("the grant expired")]
    GrantExpired,
    /// The agent is inactive or deleted.
    #[error("the agent is not active")]
    AgentInactive,
    /// The secret set was deleted.
    #[error("the secret set is gone")]
    SetGone,
    /// The grant's rate is used up.
    #[error("the grant's rate is used up")]
    RateLimited {
        /// When its window ends.
        retry_after: Duration,
    },
    /// The approval that the use would have used up is used up, or its time is over.
    #[error("the approval was used or has expired")]
    ApprovalGone,
    /// Nothing is left of the grant's budget.
    #[error("{0}")]
    SpendExceeded(Overspent),
    /// No such lease in this organisation.
    #[error("the lease is unknown")]
    Unknown,
    /// Too many uses wait. Not recorded.
    #[error("too many uses wait for the ledger")]
    Overloaded,
    /// The use could not be committed. Not recorded, or not known to be.
    #[error("the ledger is unavailable: {0}")]
    Unavailable(String),
}

impl UseRefusal {
    /// The refusal's code in events and answers.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::LeaseRevoked { .. } => "lease_revoked",
            Self::LeaseConsumed => "lease_consumed",
            Self::LeaseExpired { .. } => "lease_expired",
            Self::GrantRevoked | Self::GrantExpired | Self::AgentInactive | Self::SetGone => {
                "grant_denied"
            }
            Self::RateLimited { .. } => "rate_limited",
            Self::ApprovalGone => "approval_required",
            Self::SpendExceeded(_) => "spend_exceeded",
            Self::Unknown => "lease_invalid",
            Self::Overloaded => "overloaded",
            Self::Unavailable(_) => "ledger_unavailable",
        }
    }
}

/// How a recorded use ended.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The use.
    pub use_id: UseId,
    /// The lease's organisation.
    pub org: OrgId,
    /// The lease.
    pub lease: LeaseId,
    /// Who held it.
    pub agent: AgentId,
    /// The set used.
    pub set: SetId,
    /// The grant that bound it.
    pub grant: GrantId,
    /// As logs and problem bodies name the request.
    pub request_id: String,
    /// Status of the provider's answer.
    pub status: Option<u16>,
    /// The refusal's code, if no answer came.
    pub error: Option<String>,
    /// Bytes of body sent to the provider.
    pub bytes_up: u64,
    /// Bytes of body received from the provider.
    pub bytes_down: u64,
    /// From the use's record to the end of the answer.
    pub duration_ms: u64,
    /// How often the provider was dialled.
    pub attempts: u32,
    /// The address dialled.
    pub address: Option<IpAddr>,
    /// What it spent, of a use that holds part of a budget.
    pub spent: Option<Settled>,
    /// How often the credential stood in the answer and was masked.
    pub reflections: u64,
}

/// A request refused before the ledger was asked.
#[derive(Debug, Clone)]
pub struct Refused {
    /// The organisation: of the lease, or of the node when the lease is unknown.
    pub org: OrgId,
    /// The refusal's code, e.g. `grant_denied`.
    pub error: String,
    /// Who held the lease, when it was genuine.
    pub agent: Option<AgentId>,
    /// The lease, when it was genuine.
    pub lease: Option<LeaseId>,
    /// The set that the host selected, if any.
    pub set: Option<SetId>,
    /// The grant that binds it, if any.
    pub grant: Option<GrantId>,
    /// The request itself.
    pub request: RequestFacts,
}

/// Why something was not recorded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LedgerError {
    /// Too much waits.
    #[error("too many events wait for the ledger")]
    Overloaded,
    /// It could not be committed.
    #[error("the ledger is unavailable: {0}")]
    Unavailable(String),
}

/// How the ledger fares, for `/v1/health` and metrics.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LedgerHealth {
    /// What the last batch failed with; `None` after one that succeeded.
    pub last_error: Option<String>,
    /// Jobs that wait.
    pub queue_length: usize,
    /// Outcomes held back until the database takes them.
    pub held_outcomes: usize,
    /// Outcomes lost because too many were held back.
    pub lost_outcomes: u64,
    /// Batches committed.
    pub batches: u64,
    /// Uses committed.
    pub uses: u64,
    /// Refusals committed.
    pub refusals: u64,
    /// Batches that failed; `audit_write_errors`.
    pub write_errors: u64,
    /// Batches that found the database locked; `store_busy`.
    pub busy: u64,
    /// Batches by their number of uses: at most 1, 2, 4, … 512, and more.
    pub batch_sizes: [u64; 11],
    /// Sum of commit times, in microseconds.
    pub commit_micros: u64,
    /// Times that the clock was seen behind what was seen before; `clock_step`.
    pub clock_steps: u64,
    /// Starts that found the store not closed in order; `unclean_starts`.
    pub unclean_starts: u64,
    /// Epochs that this node began because the database had been put back to an earlier state; `restore_epoch`.
    pub restore_epochs: u64,
    /// What this start found, if it began one.
    pub restored: Option<Restored>,
    /// How far the database's clock stands before this machine's, in milliseconds; behind it when negative. Above
    /// 30 s either way is an alarm. Zero for a file.
    pub clock_skew_ms: i64,
    /// Another process has taken this node's name: this one records nothing more and is to be stopped.
    pub is_fenced: bool,
}

/// The ledger's handle. Clones share one ledger, which ends with its [`Store`](crate::Store).
#[derive(Debug, Clone)]
pub struct Ledger {
    shared: Arc<Shared>,
}

/// What a ledger is started from.
pub(crate) struct Start {
    pub(crate) options: StoreOptions,
    pub(crate) time: Arc<Timekeeper>,
    pub(crate) turn: Arc<tokio::sync::Mutex<()>>,
    /// Names this run of the process, as the writer of its streams.
    pub(crate) run: Arc<str>,
    /// Of a database file.
    pub(crate) lock: Option<Arc<Lock>>,
}

impl Ledger {
    /// Opens the ledger's own connection, takes up the chain where it ended and starts the threads.
    pub(crate) async fn start(start: Start) -> Result<(Self, Arc<Heads>), OpenError> {
        let (shared, heads) = tokio::task::spawn_blocking(move || match start.options.location {
            Location::Sqlite(_) => start::start(start),
            Location::Postgres(_) => postgres::start(start),
        })
        .await
        .map_err(|_| StoreError::Closed)??;
        Ok((Self { shared }, heads))
    }

    /// Decides and records a use. It is committed, and synced, when this returns `Ok`.
    ///
    /// # Errors
    /// [`UseRefusal`]; after 2 s [`UseRefusal::Unavailable`]. A use that was refused so may still
    /// have been recorded and then stays consumed; nothing may be sent for it.
    pub async fn record_use(&self, request: UseRequest) -> Result<RecordedUse, UseRefusal> {
        let (answer, answered) = oneshot::channel();
        self.shared
            .queue
            .push(Waiting::Use(request, answer))
            .map_err(|full| match full {
                NotQueued::Full => UseRefusal::Overloaded,
                NotQueued::Ended => UseRefusal::Unavailable(ENDED.to_owned()),
            })?;
        match tokio::time::timeout(DEADLINE, answered).await {
            Ok(Ok(decided)) => decided,
            Ok(Err(_)) => Err(UseRefusal::Unavailable(ENDED.to_owned())),
            Err(_) => Err(UseRefusal::Unavailable(LATE.to_owned())),
        }
    }

    /// Queues how a use ended. Never waits; at most about 20 ms later it is committed.
    pub fn record_outcome(&self, outcome: Outcome) {
        if !self.shared.queue.push_outcome(outcome) {
            self.shared
                .stats
                .lost_outcomes
                .fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Records a refusal that was decided elsewhere, as `lease.refuse`.
    ///
    /// # Errors
    /// [`LedgerError`].
    pub async fn record_refusal(&self, refused: Refused) -> Result<(), LedgerError> {
        let (answer, answered) = oneshot::channel();
        self.shared
            .queue
            .push(Waiting::Refusal(refused, answer))
            .map_err(|full| match full {
                NotQueued::Full => LedgerError::Overloaded,
                NotQueued::Ended => LedgerError::Unavailable(ENDED.to_owned()),
            })?;
        match tokio::time::timeout(DEADLINE, answered).await {
            Ok(Ok(decided)) => decided,
            Ok(Err(_)) => Err(LedgerError::Unavailable(ENDED.to_owned())),
            Err(_) => Err(LedgerError::Unavailable(LATE.to_owned())),
        }
    }

    /// Whether a lease still stands, for the door and for streams that last. It decides nothing: each use is
    /// decided again in its own transaction. It does not wait for the writer, and takes some microseconds of a file
    /// or one round trip to a server.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`] if the database cannot be read, on a server after 1 s.
    pub async fn standing(&self, holding: &Holding<'_>) -> Result<Standing, LedgerError> {
        self.shared.readers.standing(holding).await
    }

    /// The same of many leases at once: one standing for each, in their order. A server is asked about up to 1,000 in
    /// one round trip.
    ///
    /// # Errors
    /// [`LedgerError::Unavailable`] if the database cannot be read, on a server after 1 s for all of them together.
    pub async fn standings(&self, holdings: &[Holding<'_>]) -> Result<Vec<Standing>, LedgerError> {
        self.shared.readers.standings(holdings).await
    }

    /// Tries an empty transaction if the last batch failed, so that [`Ledger::health`] tells of now and not of then.
    /// Takes at most 2 s, and nothing while the ledger is good; those who ask at once share one try.
    pub async fn probe(&self) {
        let _turn = self.shared.probing.lock().await;
        if self.shared.stats.is_good() {
            return;
        }
        let (answer, answered) = oneshot::channel();
        if self.shared.queue.push(Waiting::Probe(answer)).is_ok() {
            // Whether it succeeded is what the health then tells.
            let _tried = tokio::time::timeout(DEADLINE, answered).await;
        }
    }

    /// How the ledger fares.
    pub fn health(&self) -> LedgerHealth {
        let mut health = self.shared.stats.read();
        health.queue_length = self.shared.queue.len();
        health.clock_steps = self.shared.time.steps();
        health
    }

    /// The process that this is.
    pub(crate) fn this_node(&self) -> &ThisNode {
        &self.shared.this_node
    }

    /// Gives the keeper a key to sign the heads with.
    pub(crate) fn sign_with(&self, signer: CheckpointSigner) {
        self.shared.keeper.sign_with(signer);
    }

    /// The key that signs the heads, if there is one yet.
    pub(crate) fn signer(&self) -> Option<Arc<CheckpointSigner>> {
        self.shared.keeper.signer()
    }

    pub(crate) fn checkpoint_key(&self) -> Option<[u8; 32]> {
        self.shared.keeper.checkpoint_key()
    }

    /// Whether heads were signed in this run.
    pub(crate) fn has_signed(&self) -> bool {
        self.shared.keeper.has_signed()
    }

    /// Tells the threads to write what is queued and end.
    pub(crate) fn end(&self) {
        self.shared.queue.end();
    }

    /// Ends the threads and waits for them.
    pub(crate) async fn close(&self) {
        self.end();
        let threads = std::mem::take(&mut *self.shared.threads.lock());
        let joined = tokio::task::spawn_blocking(move || {
            threads.into_iter().all(|thread| thread.join().is_ok())
        });
        if !joined.await.unwrap_or(false) {
            tracing::error!("a thread of the ledger panicked");
        }
    }
}

/// How long a use waits for its commit.
const DEADLINE: Duration = Duration::from_secs(2);
const ENDED: &str = "it has ended";
const LATE: &str = "no commit within 2 s";

/// This process, as it has announced itself.
#[derive(Debug)]
pub(crate) struct ThisNode {
    pub(crate) name: String,
    started_at: i64,
    facts: Mutex<NodeFacts>,
}

impl ThisNode {
    fn new(name: &str, started_at: i64) -> Self {
        Self {
            name: name.to_owned(),
            started_at,
            facts: Mutex::default(),
        }
    }

    pub(crate) fn is(&self, facts: NodeFacts) {
        *self.facts.lock() = facts;
    }

    /// As it would be listed at `now`.
    pub(crate) fn as_node(&self, now: i64) -> Node {
        Node {
            name: self.name.clone(),
            facts: self.facts.lock().clone(),
            started_at: at(self.started_at),
            heartbeat: at(now),
            state: NodeState::Running,
        }
    }
}

/// What handles and threads share.
#[derive(Debug)]
struct Shared {
    queue: Queue,
    stats: Stats,
    time: Arc<Timekeeper>,
    keeper: Keeper,
    readers: Readers,
    threads: Mutex<Vec<std::thread::JoinHandle<()>>>,
    probing: tokio::sync::Mutex<()>,
    this_node: ThisNode,
    /// A node of which nothing was heard for so long has its open uses closed by another.
    dead_after: Mutex<Duration>,
    /// Run on the ledger's connection before its next transaction: how tests break a disk.
    #[cfg(test)]
    before_next: Mutex<Option<&'static str>>,
    /// The next commit succeeds, and the ledger does not learn it.
    #[cfg(test)]
    lose_next_answer: std::sync::atomic::AtomicBool,
}

#[cfg(test)]
mod spend_tests;
#[cfg(test)]
mod tests;
