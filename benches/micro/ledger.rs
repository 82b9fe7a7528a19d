//! The ledger: what a use costs when so many of them wait for one commit.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use leases::clock::{Clock as _, SystemClock};
use leases::{Action, Keys, Kind, Scope, VaultId};
use store::{
    Actor, Ledger, NewAgent, NewGrant, NewLease, NewSet, NewVault, RequestFacts, Sealed, Store,
    StoreOptions, Synchronous, UseRequest,
};
use tokio::runtime::Runtime;

use crate::support::{Table, time};
use crate::token::lease_on;

/// How long each size is measured.
const TOTAL: Duration = Duration::from_millis(800);

/// A table by batch size. Synced commits are on stable storage; the other column is what remains without the sync.
pub(crate) fn measure(runtime: &Runtime) -> anyhow::Result<Table> {
    let mut table = Table::new(
        0,
        &[
            "uses at once",
            "synced, a use",
            "uses/s",
            "uses/commit",
            "not synced, a use",
            "uses/s",
            "uses/commit",
        ],
    );
    // Beside the build, not in a temporary directory: that one is often memory, where a sync costs nothing.
    let home = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    runtime.block_on(async {
        let synced = Subject::open(&home.path().join("synced.db"), Synchronous::Full).await?;
        let unsynced = Subject::open(&home.path().join("unsynced.db"), Synchronous::Off).await?;
        for at_once in (0..=8).map(|power| 1 << power) {
            let mut row = vec![at_once.to_string()];
            for subject in [&synced, &unsynced] {
                row.extend(subject.uses(at_once).await?.cells());
            }
            table.row(row);
        }
        synced.store.close().await;
        unsynced.store.close().await;
        Ok(table)
    })
}

/// A store with one workflow lease.
struct Subject {
    store: Store,
    request: UseRequest,
}

struct Figures {
    uses: f64,
    commits: f64,
    seconds: f64,
}

impl Figures {
    fn cells(&self) -> [String; 3] {
        [
            time(Duration::from_secs_f64(self.seconds / self.uses)),
            format!("{:.0}", self.uses / self.seconds),
            format!("{:.1}", self.uses / self.commits),
        ]
    }
}

impl Subject {
    async fn open(path: &Path, synchronous: Synchronous) -> anyhow::Result<Self> {
        let mut options = StoreOptions::new(path, Arc::new(SystemClock));
        options.checkpoint = path.with_extension("checkpoint");
        options.synchronous = synchronous;
        let store = Store::open(options).await?;
        let request = lease(&store).await?;
        Ok(Self { store, request })
    }

    async fn uses(&self, at_once: u32) -> anyhow::Result<Figures> {
        let ledger: &Ledger = self.store.ledger();
        let before = ledger.health();
        let start = Instant::now();
        while start.elapsed() < TOTAL {
            for recorded in
                join_all((0..at_once).map(|_| ledger.record_use(self.request.clone()))).await
            {
                recorded?;
            }
        }
        let seconds = start.elapsed().as_secs_f64();
        let after = ledger.health();
        let count = |after: u64, before: u64| u32::try_from(after - before).map(f64::from);
        Ok(Figures {
            uses: count(after.uses, before.uses)?,
            commits: count(after.batches, before.batches)?,
            seconds,
        })
    }
}

async fn lease(store: &Store) -> anyhow::Result<UseRequest> {
    let (now, actor) = (SystemClock.now(), Actor::system("benchmark"));
    let org = store.orgs().ensure_first_org("benchmark").await?.id;
    let vault = NewVault {
        id: VaultId::new(now),
        kek_id: "software:default".to_owned(),
    };
    store.vaults().ensure_default(&org, vault).await?;
    let sealed = Sealed {
        path: "stripe/prod/bot/STRIPE_SECRET_KEY".to_owned(),
        version: 1,
        bytes: vec![0; 256],
    };
    let set = NewSet {
        provider: "stripe".to_owned(),
        environment: "prod".to_owned(),
        name: "bot".to_owned(),
        entries: vec![("STRIPE_SECRET_KEY".to_owned(), sealed)],
        custom: None,
        kek_id: None,
    };
    let set = store.secret_sets().create(&org, set, &actor).await?.id;
    let agent = NewAgent {
        name: "bot".to_owned(),
        description: None,
        key_hash: Some([0; 32]),
        ..NewAgent::default()
    };
    let agent = store.agents().create(&org, agent, &actor).await?.id;
    let grant = NewGrant {
        agent_id: agent.clone(),
        secret_set_id: set.clone(),
        allowed_actions: vec![Action::ProxyUse, Action::MintWorkflowLease],
        allowed_keys: Keys::All,
        expires_at: None,
        constraints: Scope::default(),
        preset: None,
        rate: None,
        spend: None,
    };
    let grant = store.grants().create(&org, grant, &actor).await?.id;
    let (request, minted) = lease_on(&org, &agent, &set, &grant, now)?;
    let lease = NewLease {
        id: request.lease.clone(),
        agent_id: agent.clone(),
        kind: Kind::Workflow,
        action: Action::ProxyUse,
        sets: vec![(set.clone(), grant.clone())],
        issued_at: request.issued_at,
        expires_at: minted.expires_at,
        revocation_id: minted.revocation_id,
        cut_off: 0,
        keys: Keys::All,
        parent: None,
    };
    store.leases().create(&org, lease, &actor).await?;
    Ok(UseRequest {
        org,
        lease: request.lease,
        agent,
        set,
        grant,
        kind: Kind::Workflow,
        action: Action::ProxyUse,
        revocation_ids: Arc::from([minted.revocation_id]),
        expires_at: minted.expires_at,
        keys: Arc::from(["STRIPE_SECRET_KEY".to_owned()]),
        approval: None,
        estimate: store::Amount::default(),
        request: RequestFacts {
            request_id: "01M0V3QZ8N5J2K4P6R8T0W2Y4A".to_owned(),
            client_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
            method: "GET".to_owned(),
            scheme: "https",
            host: Arc::from("api.stripe.com"),
            port: 443,
            address: Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            path: "/v1/charges".to_owned(),
        },
    })
}
