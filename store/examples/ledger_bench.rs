//! Measures the ledger alone: uses and outcomes per second, the time of a use, batch sizes, CPU per use.
//!
//! `cargo run --release -p store --example ledger_bench -- [--callers N] [--seconds N] [--off] [--request] [URL …]`
//!
//! Without a URL it measures SQLite. For each `postgres://…` (an empty database), it measures 1, 2 and 4 nodes too, each
//! with its share of the callers. `--request` uses single-use leases in place of one workflow lease; `--off` does not sync
//! SQLite.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use leases::RevocationId;
use leases::clock::{Clock, SystemClock};
use leases::id::{AgentId, GrantId, LeaseId, OrgId, SetId, VaultId};
use leases::scope::{Action, Keys, Kind, Scope};
use store::{
    Actor, Location, NewAgent, NewGrant, NewLease, NewSet, NewVault, Sealed, Store, StoreOptions,
    Synchronous, UseRequest,
};

mod support;

type Failed = Box<dyn std::error::Error + Send + Sync>;

/// Single-use leases made for each caller; callers that have used theirs up end early.
const LEASES_EACH: usize = 400;

/// What to measure.
struct Plan {
    callers: usize,
    seconds: u64,
    is_off: bool,
    kind: Kind,
    urls: Vec<String>,
}

/// What was measured.
struct Measured {
    uses: usize,
    took: Duration,
    cpu_ticks: u64,
    /// Of each use, sorted.
    times: Vec<Duration>,
    batches: u64,
    commit_micros: u64,
    batch_sizes: [u64; 11],
}

#[tokio::main]
#[expect(clippy::print_stdout, reason = "the example's result")]
async fn main() -> Result<(), Failed> {
    let plan = Plan::parse(std::env::args().skip(1))?;
    println!("{HEADINGS}");
    let directory = tempfile::tempdir()?;
    let mut options = at(
        Location::Sqlite(directory.path().join("bench.db")),
        &directory,
    );
    if plan.is_off {
        options.synchronous = Synchronous::Off;
    }
    let measured = measure(&plan, vec![Store::open(options).await?]).await?;
    println!("{}", measured.line("sqlite", 1));
    for url in &plan.urls {
        let location = Location::parse(url)?;
        for nodes in [1, 2, 4] {
            let mut stores = Vec::new();
            for number in 0..nodes {
                let mut options = at(location.clone(), &directory);
                options.node = format!("bench-{number}");
                options.checkpoint = directory.path().join(&options.node);
                stores.push(Store::open(options).await?);
            }
            let measured = measure(&plan, stores).await?;
            println!("{}", measured.line("postgres", nodes));
        }
    }
    Ok(())
}

const HEADINGS: &str = "database  nodes  uses/s    p50 ms   p99 ms   CPU us/use  batches/s  uses/batch  \
    commit us  batches by uses, up to 1, 2, 4 ...";

impl Plan {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, Failed> {
        let mut plan = Self {
            callers: 32,
            seconds: 5,
            is_off: false,
            kind: Kind::Workflow,
            urls: Vec::new(),
        };
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or("a number is missing");
            match argument.as_str() {
                "--callers" => plan.callers = value()?.parse()?,
                "--seconds" => plan.seconds = value()?.parse()?,
                "--off" => plan.is_off = true,
                "--request" => plan.kind = Kind::Request,
                _ => plan.urls.push(argument),
            }
        }
        Ok(plan)
    }
}

fn at(location: Location, directory: &tempfile::TempDir) -> StoreOptions {
    let checkpoint = directory.path().join("audit.checkpoint");
    StoreOptions::at(location, checkpoint, Arc::new(SystemClock))
}

/// Has the callers use leases on these nodes until the time is over.
async fn measure(plan: &Plan, stores: Vec<Store>) -> Result<Measured, Failed> {
    let (store, clock) = (&stores[0], SystemClock);
    let mut each = Vec::new();
    let like = prepare(store, &clock).await?;
    for _ in 0..plan.callers {
        let mut own = vec![like.clone()];
        if plan.kind == Kind::Request {
            own.clear();
            for _ in 0..LEASES_EACH {
                let held = (&like.org, &like.agent, &like.set, &like.grant);
                own.push(mint(store, &clock, Kind::Request, held).await?);
            }
        }
        each.push(own);
    }
    let before: Vec<_> = stores.iter().map(|store| store.ledger().health()).collect();
    let cpu = cpu_ticks()?;
    let began = Instant::now();
    let until = began + Duration::from_secs(plan.seconds);
    let tasks: Vec<_> = each
        .into_iter()
        .enumerate()
        .map(|(caller, own)| {
            let store = stores[caller % stores.len()].clone();
            tokio::spawn(call(store, own, until))
        })
        .collect();
    let mut times = Vec::new();
    for task in tasks {
        times.extend(task.await??);
    }
    times.sort_unstable();
    let mut measured = Measured {
        uses: times.len(),
        took: began.elapsed(),
        cpu_ticks: cpu_ticks()? - cpu,
        times,
        batches: 0,
        commit_micros: 0,
        batch_sizes: [0; 11],
    };
    for (store, before) in stores.iter().zip(before) {
        let after = store.ledger().health();
        measured.batches += after.batches - before.batches;
        measured.commit_micros += after.commit_micros - before.commit_micros;
        let sizes = after.batch_sizes.iter().zip(before.batch_sizes);
        for (sum, (after, before)) in measured.batch_sizes.iter_mut().zip(sizes) {
            *sum += after - before;
        }
        store.close().await;
    }
    Ok(measured)
}

/// Uses a workflow lease over and over, or each request lease once.
async fn call(store: Store, own: Vec<UseRequest>, until: Instant) -> Result<Vec<Duration>, Failed> {
    let mut times = Vec::new();
    let is_once = own.len() > 1;
    let mut next = own.iter().cycle();
    while Instant::now() < until && !(is_once && times.len() == own.len()) {
        let Some(request) = next.next() else {
            break;
        };
        let began = Instant::now();
        let recorded = store.ledger().record_use(request.clone()).await?;
        times.push(began.elapsed());
        store
            .ledger()
            .record_outcome(support::outcome(request, &recorded));
    }
    Ok(times)
}

impl Measured {
    #[expect(
        clippy::cast_precision_loss,
        reason = "a few digits are all that is shown"
    )]
    fn line(&self, database: &str, nodes: usize) -> String {
        let (uses, seconds) = (self.uses.max(1) as f64, self.took.as_secs_f64());
        let batches = self.batches.max(1) as f64;
        let at = |part: usize| {
            let index = (self.times.len() * part / 100).min(self.times.len().saturating_sub(1));
            let time = self.times.get(index).copied().unwrap_or_default();
            time.as_secs_f64() * 1_000.0
        };
        let mut line = String::new();
        let written = write!(
            line,
            "{database:<8}  {nodes:>5}  {:>6.0}  {:>8.2} {:>8.2}  {:>10.1}  {:>9.0}  {:>10.1}  {:>9.0}  {:?}",
            uses / seconds,
            at(50),
            at(99),
            self.cpu_ticks as f64 * 10_000.0 / uses,
            batches / seconds,
            uses / batches,
            self.commit_micros as f64 / batches,
            self.batch_sizes
        );
        written.map_or_else(|_| String::new(), |()| line)
    }
}

/// User and system time of this process, in hundredths of a second.
fn cpu_ticks() -> Result<u64, Failed> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or("").split(' ').collect();
    Ok(fields.get(11).unwrap_or(&"0").parse::<u64>()?
        + fields.get(12).unwrap_or(&"0").parse::<u64>()?)
}

/// An organisation with all that a use needs, and a workflow lease. Each call makes an agent, a set and a grant anew.
async fn prepare(store: &Store, clock: &dyn Clock) -> Result<UseRequest, Failed> {
    let actor = Actor::system("bench");
    let now = clock.now();
    let name = LeaseId::new(now).as_str()["lse_".len()..].to_lowercase();
    let org = store.orgs().ensure_first_org("bench").await?.id;
    let vault = NewVault {
        id: VaultId::new(now),
        kek_id: "kek".to_owned(),
    };
    store.vaults().ensure_default(&org, vault).await?;
    let mut key_hash = [0; 32];
    key_hash[..name.len()].copy_from_slice(name.as_bytes());
    let agent = NewAgent {
        name: name.clone(),
        description: None,
        key_hash: Some(key_hash),
        ..NewAgent::default()
    };
    let agent = store.agents().create(&org, agent, &actor).await?.id;
    let sealed = Sealed {
        path: format!("openai/prod/{name}/OPENAI_API_KEY"),
        version: 1,
        bytes: vec![0; 128],
    };
    let set = NewSet {
        provider: "openai".to_owned(),
        environment: "prod".to_owned(),
        name,
        entries: vec![("OPENAI_API_KEY".to_owned(), sealed)],
        custom: None,
        kek_id: None,
    };
    let set = store.secret_sets().create(&org, set, &actor).await?.id;
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
    mint(store, clock, Kind::Workflow, (&org, &agent, &set, &grant)).await
}

async fn mint(
    store: &Store,
    clock: &dyn Clock,
    kind: Kind,
    (org, agent, set, grant): (&OrgId, &AgentId, &SetId, &GrantId),
) -> Result<UseRequest, Failed> {
    let now = clock.now();
    let lease = NewLease {
        id: LeaseId::new(now),
        agent_id: agent.clone(),
        kind,
        action: Action::ProxyUse,
        sets: vec![(set.clone(), grant.clone())],
        issued_at: now,
        expires_at: now + Duration::from_hours(1),
        revocation_id: RevocationId::from_bytes(&[1; 64])?,
        cut_off: 0,
        keys: Keys::All,
        parent: None,
    };
    let lease = store
        .leases()
        .create(org, lease, &Actor::system("bench"))
        .await?;
    Ok(UseRequest {
        org: org.clone(),
        lease: lease.id,
        agent: lease.agent_id,
        set: set.clone(),
        grant: grant.clone(),
        kind,
        action: Action::ProxyUse,
        revocation_ids: [lease.revocation_id].into(),
        expires_at: lease.expires_at,
        keys: ["OPENAI_API_KEY".to_owned()].into(),
        approval: None,
        estimate: store::Amount::default(),
        request: support::facts(),
    })
}
