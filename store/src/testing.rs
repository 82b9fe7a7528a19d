//! What the tests of this crate share: a store in a directory of its own, two organisations and
//! what a use needs.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::leases::RevocationId;
use ::leases::clock::{Clock, ManualClock};
use ::leases::id::{AgentId, GrantId, LeaseId, OrgId, SetId, VaultId};
use ::leases::scope::{Action, Keys, Kind, Scope};
use tempfile::TempDir;
use test_postgres::{Database, Server};
use time::OffsetDateTime;
use time::macros::datetime;

use crate::approvals::{Asked, ShownHead};
use crate::{
    Actor, Amount, CheckpointSigner, Grant, LeaseRecord, Location, NewAgent, NewGrant, NewLease,
    NewSet, NewVault, Outcome, Rate, RecordedUse, RequestFacts, Sealed, SecretSet, SetChange,
    Spend, Store, StoreOptions, UseRequest,
};

pub(crate) const START: OffsetDateTime = datetime!(2026-11-22 07:00 UTC);

/// A store, and the clock that it lives by.
pub(crate) struct World {
    pub(crate) store: Store,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) directory: TempDir,
    /// The database, if it is not a file in the directory.
    pub(crate) postgres: Option<Database<'static>>,
}

/// Makes two tests of each story: on SQLite, and on Postgres.
macro_rules! on_both {
    ($($story:ident),* $(,)?) => {
        mod on_sqlite {
            $(
                #[tokio::test]
                async fn $story() {
                    super::$story($crate::testing::World::new().await).await;
                }
            )*
        }

        mod on_postgres {
            $(
                #[tokio::test]
                async fn $story() {
                    super::$story($crate::testing::World::on_postgres().await).await;
                }
            )*
        }
    };
}
pub(crate) use on_both;

impl World {
    pub(crate) async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::new(START));
        let store = open(&directory.path().join("claviger.db"), &clock).await;
        Self {
            store,
            clock,
            directory,
            postgres: None,
        }
    }

    pub(crate) async fn on_postgres() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::new(START));
        let database = Server::shared().database();
        let location = Location::parse(&database.url()).unwrap();
        Store::migrate(&location).await.unwrap();
        set_database_clock(&database, START);
        let store = open_at(location, &directory, &clock).await;
        Self {
            store,
            clock,
            directory,
            postgres: Some(database),
        }
    }

    pub(crate) fn location(&self) -> Location {
        self.store.location().clone()
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.directory.path().join("claviger.db")
    }

    pub(crate) fn checkpoint(&self) -> PathBuf {
        self.directory.path().join("audit.checkpoint")
    }

    /// Time goes by, on this machine and on the database's.
    pub(crate) fn advance(&self, by: Duration) {
        self.clock.advance(by);
        if let Some(database) = &self.postgres {
            set_database_clock(database, self.clock.now());
        }
    }

    /// Closes the store and opens it anew.
    pub(crate) async fn restart(&mut self) {
        self.store.close().await;
        self.store = open_at(self.location(), &self.directory, &self.clock).await;
    }

    /// A connection of somebody else, who may do anything to the file.
    pub(crate) fn intruder(&self) -> rusqlite::Connection {
        let db = rusqlite::Connection::open(self.database()).unwrap();
        db.busy_timeout(Duration::from_secs(5)).unwrap();
        db
    }

    /// Runs a statement behind the store's back.
    pub(crate) fn tamper(&self, statement: &str) {
        match &self.postgres {
            Some(database) => drop(database.admin(statement)),
            None => drop(self.intruder().execute(statement, []).unwrap()),
        }
    }

    pub(crate) fn sign(&self) {
        self.store
            .audit()
            .start_checkpoints(CheckpointSigner::from_seed(&[7; 32]));
    }
}

/// Stops the database's own clock at a time of the test's choice.
pub(crate) fn set_database_clock(database: &Database<'_>, at: OffsetDateTime) {
    database.admin(&format!(
        "CREATE OR REPLACE FUNCTION ledger_clock() RETURNS BIGINT LANGUAGE sql VOLATILE \
         AS 'SELECT {}::BIGINT'",
        crate::timekeeper::millis(at)
    ));
}

pub(crate) async fn open(path: &Path, clock: &Arc<ManualClock>) -> Store {
    let clock = Arc::<ManualClock>::clone(clock) as Arc<dyn Clock>;
    Store::open(StoreOptions::new(path, clock)).await.unwrap()
}

/// Opens the database at `location`, with the checkpoint in `directory`.
pub(crate) async fn open_at(
    location: Location,
    directory: &TempDir,
    clock: &Arc<ManualClock>,
) -> Store {
    let clock = Arc::<ManualClock>::clone(clock) as Arc<dyn Clock>;
    let checkpoint = directory.path().join("audit.checkpoint");
    Store::open(StoreOptions::at(location, checkpoint, clock))
        .await
        .unwrap()
}

/// Waits, at most 5 s, until something that another thread does has happened.
pub(crate) async fn eventually(what: &str, mut happened: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while !happened() {
        assert!(Instant::now() < deadline, "{what} did not happen");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(crate) fn person() -> Actor {
    Actor {
        kind: crate::ActorKind::User,
        id: "usr_01K3ZZZZZZZZZZZZZZZZZZZZZZ".to_owned(),
        client_ip: Some([127, 0, 0, 1].into()),
        request_id: Some("request-1".to_owned()),
    }
}

/// An organisation with a vault, an agent, a set and a grant.
#[derive(Debug, Clone)]
pub(crate) struct Tenant {
    pub(crate) org: OrgId,
    pub(crate) vault: VaultId,
    pub(crate) agent: AgentId,
    pub(crate) set: SetId,
    pub(crate) grant: GrantId,
}

pub(crate) async fn tenant(store: &Store, name: &str) -> Tenant {
    let org = store.orgs().create(name, &person()).await.unwrap().id;
    let vault = store
        .vaults()
        .ensure_default(
            &org,
            NewVault {
                id: VaultId::new(START),
                kek_id: format!("kek-{name}"),
            },
        )
        .await
        .unwrap()
        .id;
    let agent = store
        .agents()
        .create(&org, new_agent("builder", name), &person())
        .await
        .unwrap()
        .id;
    let set = create_set(store, &org, "bot", &["STRIPE_SECRET_KEY"])
        .await
        .id;
    let grant = grant(store, &org, &agent, &set, None, None).await.id;
    Tenant {
        org,
        vault,
        agent,
        set,
        grant,
    }
}

pub(crate) fn new_agent(name: &str, key: &str) -> NewAgent {
    NewAgent {
        name: name.to_owned(),
        description: None,
        key_hash: Some(key_hash(key)),
        ..NewAgent::default()
    }
}

pub(crate) fn key_hash(key: &str) -> [u8; 32] {
    crate::chain::hash(b"", key)
}

pub(crate) async fn sealed(
    store: &Store,
    org: &OrgId,
    name: &str,
    keys: &[&str],
) -> Vec<(String, Sealed)> {
    let keys: Vec<String> = keys.iter().map(|&key| key.to_owned()).collect();
    let next = store
        .secret_sets()
        .next_versions(org, "stripe", "prod", name, &keys)
        .await
        .unwrap();
    next.entries
        .into_iter()
        .map(|(key, (path, version))| {
            let bytes = format!("sealed {key} {version} of {org}").into_bytes();
            (
                key,
                Sealed {
                    path,
                    version,
                    bytes,
                },
            )
        })
        .collect()
}

pub(crate) async fn create_set(store: &Store, org: &OrgId, name: &str, keys: &[&str]) -> SecretSet {
    let new = NewSet {
        provider: "stripe".to_owned(),
        environment: "prod".to_owned(),
        name: name.to_owned(),
        entries: sealed(store, org, name, keys).await,
        custom: None,
        kek_id: None,
    };
    store
        .secret_sets()
        .create(org, new, &person())
        .await
        .unwrap()
}

pub(crate) async fn update_set(store: &Store, tenant: &Tenant, keys: &[&str]) -> SecretSet {
    let change = SetChange {
        put: sealed(store, &tenant.org, "bot", keys).await,
        ..SetChange::default()
    };
    store
        .secret_sets()
        .update(&tenant.org, &tenant.set, change, &person())
        .await
        .unwrap()
        .unwrap()
}

pub(crate) async fn grant(
    store: &Store,
    org: &OrgId,
    agent: &AgentId,
    set: &SetId,
    expires_at: Option<OffsetDateTime>,
    rate: Option<Rate>,
) -> Grant {
    let new = NewGrant {
        agent_id: agent.clone(),
        secret_set_id: set.clone(),
        allowed_actions: vec![Action::ProxyUse, Action::MintWorkflowLease],
        allowed_keys: Keys::All,
        expires_at,
        constraints: Scope::default(),
        preset: None,
        rate,
        spend: None,
    };
    store.grants().create(org, new, &person()).await.unwrap()
}

/// A grant of the tenant's with a budget.
pub(crate) async fn grant_with(store: &Store, tenant: &Tenant, spend: Spend) -> GrantId {
    let new = NewGrant {
        agent_id: tenant.agent.clone(),
        secret_set_id: tenant.set.clone(),
        allowed_actions: vec![Action::ProxyUse, Action::MintWorkflowLease],
        allowed_keys: Keys::All,
        expires_at: None,
        constraints: Scope::default(),
        preset: None,
        rate: None,
        spend: Some(spend),
    };
    let grant = store.grants().create(&tenant.org, new, &person()).await;
    grant.unwrap().id
}

impl Tenant {
    pub(crate) fn new_lease(&self, kind: Kind) -> NewLease {
        NewLease {
            id: LeaseId::new(START),
            agent_id: self.agent.clone(),
            kind,
            action: Action::ProxyUse,
            sets: vec![(self.set.clone(), self.grant.clone())],
            issued_at: START,
            expires_at: START + Duration::from_mins(10),
            revocation_id: RevocationId::from_bytes(&[1; 64]).unwrap(),
            cut_off: 0,
            keys: Keys::All,
            parent: None,
        }
    }

    /// Records a lease and gives the request that uses it.
    pub(crate) async fn lease(&self, store: &Store, kind: Kind) -> UseRequest {
        let new = self.new_lease(kind);
        let lease = store
            .leases()
            .create(&self.org, new, &person())
            .await
            .unwrap();
        self.use_of(&lease)
    }

    /// A request of this path and body that asks for approval.
    pub(crate) fn asked(&self, path: &str, body: &[u8]) -> Asked {
        Asked {
            agent: self.agent.clone(),
            grant: self.grant.clone(),
            set: self.set.clone(),
            lease: LeaseId::new(START),
            method: "POST".to_owned(),
            scheme: "https",
            host: "api.stripe.com".to_owned(),
            port: 443,
            path: path.to_owned(),
            path_as_sent: path.to_owned(),
            query: None,
            body_sha256: crate::chain::hash(b"", &String::from_utf8_lossy(body)),
            body_bytes: body.len() as u64,
            head_sha256: [0; 32],
            head: ShownHead::default(),
            pending: Duration::from_mins(5),
            ttl: Duration::from_mins(5),
        }
    }

    /// The request that uses a lease.
    pub(crate) fn use_of(&self, lease: &LeaseRecord) -> UseRequest {
        UseRequest {
            org: self.org.clone(),
            lease: lease.id.clone(),
            agent: self.agent.clone(),
            set: self.set.clone(),
            grant: self.grant.clone(),
            kind: lease.kind,
            action: Action::ProxyUse,
            revocation_ids: [lease.revocation_id].into(),
            expires_at: lease.expires_at,
            keys: ["STRIPE_SECRET_KEY".to_owned()].into(),
            approval: None,
            estimate: Amount::default(),
            request: facts(),
        }
    }
}

pub(crate) fn facts() -> RequestFacts {
    RequestFacts {
        request_id: "01998bd4-0000-7000-8000-000000000000".to_owned(),
        client_ip: [127, 0, 0, 1].into(),
        method: "POST".to_owned(),
        scheme: "https",
        host: "api.stripe.com".into(),
        port: 443,
        address: None,
        path: "/v1/charges".to_owned(),
    }
}

pub(crate) fn outcome(request: &UseRequest, recorded: &RecordedUse) -> Outcome {
    Outcome {
        use_id: recorded.use_id().clone(),
        org: request.org.clone(),
        lease: request.lease.clone(),
        agent: request.agent.clone(),
        set: request.set.clone(),
        grant: request.grant.clone(),
        request_id: request.request.request_id.clone(),
        status: Some(200),
        error: None,
        bytes_up: 12,
        bytes_down: 345,
        duration_ms: 67,
        attempts: 1,
        address: Some([192, 0, 2, 1].into()),
        spent: recorded.hold().map(crate::Hold::given_back),
        reflections: 0,
    }
}
