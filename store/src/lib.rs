#![doc = include_str!("../README.md")]

use std::path::PathBuf;
use std::sync::Arc;

use ::leases::clock::Clock;
use parking_lot::RwLock;

use crate::chain::Heads;
use crate::db::{ControlHead, Pool};
use crate::due::Due;
use crate::timekeeper::Timekeeper;

#[cfg(test)]
mod agents_conformance;
mod chain;
#[cfg(test)]
mod conformance;
mod due;
#[cfg(test)]
mod growth;
#[cfg(test)]
mod many_nodes;
mod open;
#[cfg(test)]
mod people_conformance;
mod postgres;
#[cfg(test)]
mod testing;
mod timekeeper;

pub mod actor;
pub mod agents;
pub mod approvals;
pub mod audit;
pub mod bindings;
pub mod consents;
pub mod credentials;
pub mod db;
pub mod device_logins;
pub mod enrolments;
pub mod epoch;
pub mod event;
pub mod grants;
pub mod idempotency;
pub mod identities;
pub mod invitations;
pub mod ip_rules;
pub mod kill_switch;
pub mod leases;
pub mod ledger;
pub mod location;
pub mod members;
pub mod nodes;
pub mod nonces;
pub mod oidc_logins;
pub mod orgs;
pub mod page;
pub mod personal_keys;
pub mod policies;
pub mod quotas;
pub mod requests;
pub mod rotations;
pub mod sealed_keys;
pub mod seals;
pub mod second_factors;
pub mod secret_sets;
pub mod secrets;
pub mod sessions;
pub mod shares;
pub mod sinks;
pub mod spend;
pub mod transfer;
pub mod users;
pub mod vaults;
pub mod webhooks;

pub use actor::{Actor, ActorKind};
pub use agents::{
    Agent, AgentOidc, AgentPatch, AgentSettings, Agents, AuthMethod, CreateAgentError,
    IdentityKeys, IdentityPlace, NewAgent, NewIdentity, PatchAgentError, RotateIdentityError,
    RotateKeyError, SettingsError, SettingsPatch,
};
pub use approvals::Approvals;
pub use audit::{
    Audit, BadReason, BadRecord, CheckpointSigner, EventFilter, Followed, OfflineOptions,
    SignedHeads, Step, Steps, StreamReport, VerifyError, VerifyReport,
};
pub use bindings::{Binding, Bindings, CreateBindingError, NewBinding, Source};
pub use consents::Consents;
pub use credentials::{AccountError, Credentials, NewAccount, PasswordDigest, ProfilePatch};
pub use db::{DatabaseError, StoreError};
pub use device_logins::{DeviceLogins, DevicePoll, NewDeviceLogin};
pub use enrolments::{
    Decider, Enrolling, Enrolment, EnrolmentError, EnrolmentStatus, Enrolments, NewEnrolment,
};
pub use epoch::Restored;
pub use event::{Decision, Event, NewEvent};
pub use grants::{CreateGrantError, Grant, Grants, NewGrant, Rate};
pub use idempotency::{Idempotency, IdempotencyKeys};
pub use identities::{Identified, Identities, Identity, LinkError};
pub use invitations::{Acceptance, Invitation, Invitations, InviteError, NewInvitation};
pub use ip_rules::{IpRule, IpRuleError, IpRuleKind, IpRules, NewIpRule};
pub use kill_switch::{KillSwitch, Minting, Pause, Press, Switch};
pub use leases::{CreateLeaseError, LeaseRecord, Leases, NewLease};
pub use ledger::{
    ApprovedUse, Hold, Ledger, LedgerError, LedgerHealth, Outcome, Overspent, RecordedUse, Refused,
    RequestFacts, Settled, UseRefusal, UseRequest,
};
pub use location::{Location, LocationError, PostgresUrl};
pub use members::{MemberError, Members};
pub use nodes::{Node, NodeFacts, NodeState, Nodes};
pub use nonces::{NonceUse, Nonces};
pub use oidc_logins::{BegunOidcLogin, NewOidcLogin, OidcLogins};
pub use orgs::{Org, Orgs};
pub use page::{Page, PageRequest};
pub use personal_keys::{KeyOwner, NewPersonalKey, PersonalKey, PersonalKeys};
pub use policies::{CreatePolicyError, NewPolicy, Policies, Policy, PolicyPatch, PolicyPrincipal};
pub use quotas::{Allowance, Allowances, Holdings, OverQuota, Quota, Quotas, Resource};
pub use requests::{Requests, Standing};
pub use rotations::{
    Rotation, RotationKind, RotationState, RotationStep, Rotations, StartRotationError,
};
pub use sealed_keys::{NewSealedKey, SealedKey, SealedKeys};
pub use seals::{SealKind, SealRef, SealRow, Seals, Swap};
pub use second_factors::{Attempt, SecondFactor, SecondFactors};
pub use secret_sets::{
    NewSet, NextVersions, Sealed, SealedEntry, SecretSet, SecretSets, SetChange, SetContents,
    SetVersion, WriteSetError,
};
pub use secrets::{
    Gone, NewSecret, NextVersion, OpenedRow, ReadSecretError, SecretHead, SecretVersion, Secrets,
    WriteSecretError,
};
pub use sessions::{Session, SessionRef, Sessions};
pub use shares::{CreateShareError, NewShare, Recipient, Share, Shares};
pub use sinks::{Sink, Sinks};
pub use spend::{Amount, Spend, Spent};
pub use users::{CreateUserError, NewUser, Role, User, Users};
pub use vaults::{
    AGENT_KEYS, CreateVaultError, DeleteVaultError, NamedVault, NewVault, Vault, Vaults,
};
pub use webhooks::{CreateWebhookError, Delivery, NewWebhook, Webhook, WebhookPatch, Webhooks};

/// When a commit counts as durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Synchronous {
    /// A commit is on stable storage when it returns. The only mode for real use.
    #[default]
    Full,
    /// Commits are not synced: a power cut may lose them. For benchmarks alone.
    Off,
}

/// How to open a [`Store`].
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// The database. A file is created, with its directory's mode untouched, as 0600.
    pub location: Location,
    /// Names this process in the audit streams: `<node>/ledger` and `<node>/control`. Of two
    /// processes that use one name, the later one writes.
    pub node: String,
    /// Durability of commits.
    pub synchronous: Synchronous,
    /// The source of time.
    pub clock: Arc<dyn Clock>,
    /// Where signed heads are written and, before anything is appended, read: the chain goes on
    /// from the signed head when the table falls short of it. Beside a database file unless said
    /// otherwise.
    pub checkpoint: PathBuf,
}

impl StoreOptions {
    /// Durable, with the checkpoint file beside the database at `path`, as node `local`.
    pub fn new(path: impl Into<PathBuf>, clock: Arc<dyn Clock>) -> Self {
        let path = path.into();
        let checkpoint = path.with_file_name("audit.checkpoint");
        Self::at(Location::Sqlite(path), checkpoint, clock)
    }

    /// Durable, with signed heads in the file at `checkpoint`, as node `local`.
    pub fn at(location: Location, checkpoint: impl Into<PathBuf>, clock: Arc<dyn Clock>) -> Self {
        Self {
            location,
            checkpoint: checkpoint.into(),
            node: "local".to_owned(),
            synchronous: Synchronous::Full,
            clock,
        }
    }
}

/// Why a store does not open.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process has the database open for writing.
    #[error("{path} is in use by another process; stop it first")]
    InUse {
        /// The database file.
        path: PathBuf,
    },
    /// SQLite's own check found damage. Nothing was changed.
    #[error("{path} is damaged ({finding}); restore a backup")]
    Damaged {
        /// The database file.
        path: PathBuf,
        /// The first finding of SQLite's check.
        finding: String,
    },
    /// The schema is newer than this program. Nothing was changed.
    #[error(
        "the schema of {database} is newer ({found}) than this program knows ({known}); use the program that migrated it, or a later one"
    )]
    SchemaTooNew {
        /// The database.
        database: String,
        /// The newest migration in the database.
        found: i64,
        /// The newest migration that this program has.
        known: i64,
    },
    /// A migration failed. What it did was taken back.
    #[error("the schema of {database} cannot be brought up to date")]
    Migrate {
        /// The database.
        database: String,
        /// What went wrong.
        #[source]
        source: MigrateError,
    },
    /// The signed checkpoint exists and cannot be read.
    #[error(
        "{path} cannot be read as an audit checkpoint ({reason}); move it away only after `claviger audit verify`"
    )]
    Checkpoint {
        /// The checkpoint file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The file system refused.
    #[error("cannot open {path}")]
    Io {
        /// The file concerned.
        path: PathBuf,
        /// The operating system's answer.
        #[source]
        source: std::io::Error,
    },
    /// The database refused, or does not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a migration fails.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MigrateError {
    /// A migration that was applied is not the one of that number in this program.
    #[error("migration {0} was changed after it was applied")]
    Changed(i64),
    /// A statement failed.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// The machinery of SQLite's migrations failed.
    #[error(transparent)]
    Sqlite(sqlx::migrate::MigrateError),
}

/// The embedded store: SQLite in WAL mode, the ledger's thread and the audit chain.
///
/// Clones share one store. When the last one goes, the ledger writes what is queued and ends;
/// [`Store::close`] waits for that.
#[derive(Debug, Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    location: Location,
    checkpoint: PathBuf,
    synchronous: Synchronous,
    /// Names this run of the process, as the writer of its streams.
    run: Arc<str>,
    pool: Pool,
    time: Arc<Timekeeper>,
    heads: Arc<Heads>,
    control_head: tokio::sync::Mutex<ControlHead>,
    turn: Arc<tokio::sync::Mutex<()>>,
    /// When answers to repeated requests were last forgotten.
    answers_sweep: Due,
    /// When nonces whose time is over were last swept.
    nonces_sweep: Due,
    /// When approvals of long ago were last deleted.
    approvals_sweep: Due,
    /// What every organisation may have of which the operator says nothing else.
    quota: RwLock<Quota>,
    requests: requests::Counts,
    ledger: Ledger,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.ledger.end();
    }
}

impl Store {
    /// Opens the database, brings its schema up to date, checks it and starts the ledger.
    ///
    /// # Errors
    /// [`OpenError`]; the file is unchanged unless a migration ran.
    pub async fn open(options: StoreOptions) -> Result<Self, OpenError> {
        let (pool, lock) = match &options.location {
            Location::Sqlite(path) => {
                let lock = open::prepare(path).await?;
                let pool = open::connect(path, options.synchronous).await?;
                open::migrate(path, &pool).await?;
                (Pool::Sqlite(pool), Some(lock))
            }
            Location::Postgres(url) => {
                let pool = postgres::Pool::new(url.clone());
                postgres::migrate(&pool, &url.to_string()).await?;
                (Pool::Postgres(pool), None)
            }
        };
        let time = Arc::new(Timekeeper::new(Arc::clone(&options.clock)));
        let turn = Arc::new(tokio::sync::Mutex::new(()));
        let run = run_id()?;
        let (ledger, heads) = Ledger::start(ledger::Start {
            options: options.clone(),
            time: Arc::clone(&time),
            turn: Arc::clone(&turn),
            run: Arc::clone(&run),
            lock,
        })
        .await?;
        Ok(Self {
            inner: Arc::new(Inner {
                location: options.location,
                checkpoint: options.checkpoint,
                synchronous: options.synchronous,
                run,
                pool,
                time,
                heads,
                control_head: tokio::sync::Mutex::new(ControlHead { uncertain: None }),
                turn,
                answers_sweep: Due::default(),
                nonces_sweep: Due::default(),
                approvals_sweep: Due::default(),
                quota: RwLock::default(),
                requests: requests::Counts::default(),
                ledger,
            }),
        })
    }

    /// Brings the schema of a database up to date and leaves it closed. Twice, or from two nodes at
    /// once, does the same as once.
    ///
    /// # Errors
    /// [`OpenError::InUse`] while a server runs on a file, [`OpenError::SchemaTooNew`],
    /// [`OpenError::Migrate`].
    pub async fn migrate(location: &Location) -> Result<(), OpenError> {
        match location {
            Location::Sqlite(path) => {
                let _lock = open::prepare(path).await?;
                let pool = open::connect(path, Synchronous::Full).await?;
                let migrated = open::migrate(path, &pool).await;
                pool.close().await;
                migrated
            }
            Location::Postgres(url) => {
                let pool = postgres::Pool::new(url.clone());
                postgres::migrate(&pool, &url.to_string()).await
            }
        }
    }

    /// Where the database is.
    pub fn location(&self) -> &Location {
        &self.inner.location
    }

    /// The hot path: uses, outcomes and refusals.
    pub fn ledger(&self) -> &Ledger {
        &self.inner.ledger
    }

    /// The audit chain.
    pub const fn audit(&self) -> Audit<'_> {
        Audit { store: self }
    }

    /// The processes that share the database.
    pub const fn nodes(&self) -> Nodes<'_> {
        Nodes { store: self }
    }

    /// Organisations.
    pub const fn orgs(&self) -> Orgs<'_> {
        Orgs { store: self }
    }

    /// People and their personal keys.
    pub const fn users(&self) -> Users<'_> {
        Users { store: self }
    }

    /// Keys of people.
    pub const fn personal_keys(&self) -> PersonalKeys<'_> {
        PersonalKeys { store: self }
    }

    /// Tokens of people.
    pub const fn sessions(&self) -> Sessions<'_> {
        Sessions { store: self }
    }

    /// Emails and passwords.
    pub const fn credentials(&self) -> Credentials<'_> {
        Credentials { store: self }
    }

    /// Second factors.
    pub const fn second_factors(&self) -> SecondFactors<'_> {
        SecondFactors { store: self }
    }

    /// Who belongs to an organisation.
    pub const fn members(&self) -> Members<'_> {
        Members { store: self }
    }

    /// Invitations.
    pub const fn invitations(&self) -> Invitations<'_> {
        Invitations { store: self }
    }

    /// Rules on where callers come from.
    pub const fn ip_rules(&self) -> IpRules<'_> {
        IpRules { store: self }
    }

    /// Devices that wait for a person.
    pub const fn device_logins(&self) -> DeviceLogins<'_> {
        DeviceLogins { store: self }
    }

    /// Who people are to identity providers.
    pub const fn identities(&self) -> Identities<'_> {
        Identities { store: self }
    }

    /// Sign-ins that wait for an identity provider.
    pub const fn oidc_logins(&self) -> OidcLogins<'_> {
        OidcLogins { store: self }
    }

    /// Agents and their keys.
    pub const fn agents(&self) -> Agents<'_> {
        Agents { store: self }
    }

    /// Vaults.
    pub const fn vaults(&self) -> Vaults<'_> {
        Vaults { store: self }
    }

    /// Secret sets and the secrets below them.
    pub const fn secret_sets(&self) -> SecretSets<'_> {
        SecretSets { store: self }
    }

    /// Secrets by their paths.
    pub const fn secrets(&self) -> Secrets<'_> {
        Secrets { store: self }
    }

    /// Policies on secrets.
    pub const fn policies(&self) -> Policies<'_> {
        Policies { store: self }
    }

    /// What is shared with whom.
    pub const fn shares(&self) -> Shares<'_> {
        Shares { store: self }
    }

    /// What organisations may have.
    pub const fn quotas(&self) -> Quotas<'_> {
        Quotas { store: self }
    }

    /// What organisations asked for in a month.
    pub const fn requests(&self) -> Requests<'_> {
        Requests { store: self }
    }

    /// Bindings.
    pub const fn bindings(&self) -> Bindings<'_> {
        Bindings { store: self }
    }

    /// Grants.
    pub const fn grants(&self) -> Grants<'_> {
        Grants { store: self }
    }

    /// Requests that wait for a person, and what became of them.
    pub const fn approvals(&self) -> Approvals<'_> {
        Approvals { store: self }
    }

    /// Questions that wait for a person, and what became of them.
    pub const fn consents(&self) -> Consents<'_> {
        Consents { store: self }
    }

    /// What stops minting, and revokes everything at one stroke.
    pub const fn kill_switch(&self) -> KillSwitch<'_> {
        KillSwitch { store: self }
    }

    /// Lease records and revoked blocks.
    pub const fn leases(&self) -> Leases<'_> {
        Leases { store: self }
    }

    /// Sealed keys of the service: lease roots, JWT, CA, checkpoints.
    pub const fn sealed_keys(&self) -> SealedKeys<'_> {
        SealedKeys { store: self }
    }

    /// Everything sealed under a vault's key.
    pub const fn seals(&self) -> Seals<'_> {
        Seals { store: self }
    }

    /// Rotations of vaults' keys.
    pub const fn rotations(&self) -> Rotations<'_> {
        Rotations { store: self }
    }

    /// Where the trail is told to.
    pub const fn webhooks(&self) -> Webhooks<'_> {
        Webhooks { store: self }
    }

    /// How far the trail was told.
    pub const fn sinks(&self) -> Sinks<'_> {
        Sinks { store: self }
    }

    /// Answers kept for repeated requests.
    pub const fn idempotency(&self) -> IdempotencyKeys<'_> {
        IdempotencyKeys { store: self }
    }

    /// Agents that asked for themselves.
    pub const fn enrolments(&self) -> Enrolments<'_> {
        Enrolments { store: self }
    }

    /// What agents may say once.
    pub const fn nonces(&self) -> Nonces<'_> {
        Nonces { store: self }
    }

    /// How far the clock stands behind the latest time this store has seen; zero when it does not.
    ///
    /// Expiry is decided by the latest time seen, so a clock that steps back revives nothing.
    /// Refuse to mint when this is above 30 s.
    pub fn clock_behind(&self) -> std::time::Duration {
        self.inner.time.behind()
    }

    /// Whether the database answers a read now.
    ///
    /// # Errors
    /// [`StoreError`] says why not.
    pub async fn check(&self) -> Result<(), StoreError> {
        db::query("SELECT 1 FROM orgs LIMIT 1")
            .fetch_optional(self.pool())
            .await?;
        Ok(())
    }

    /// Writes what is queued and counted, signs the heads a last time and ends the ledger's thread.
    pub async fn close(&self) {
        // A store that does not answer loses the counts of the last seconds, as a crash does.
        let _ = self.requests().flush().await;
        self.inner.ledger.close().await;
        self.inner.pool.close().await;
    }
}

/// A name that no other run of any process has.
fn run_id() -> Result<Arc<str>, OpenError> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|error| {
        StoreError::Unavailable(std::io::Error::other(error.to_string()).into())
    })?;
    Ok(hex::encode(random).into())
}

/// The newest migration that this program has.
fn newest(migrations: &sqlx::migrate::Migrator) -> i64 {
    migrations
        .iter()
        .map(|migration| migration.version)
        .max()
        .unwrap_or(0)
}
