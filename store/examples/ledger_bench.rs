//! Measures the ledger alone: uses and outcomes per second, CPU per use, batch sizes.
//!
//! `cargo run --release -p store --example ledger_bench -- [callers] [seconds] [off]`; `off` does not sync.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use leases::RevocationId;
use leases::clock::{Clock, SystemClock};
use leases::id::{GrantId, LeaseId, OrgId, SetId, VaultId};
use leases::scope::{Action, Keys, Kind, Scope};
use store::{
    Actor, LeaseRecord, NewAgent, NewGrant, NewLease, NewSet, NewVault, Outcome, RecordedUse,
    RequestFacts, Sealed, Store, StoreOptions, Synchronous, UseRequest,
};

type Failed = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failed> {
    let mut arguments = std::env::args().skip(1);
    let callers: u32 = arguments.next().map_or(Ok(32), |text| text.parse())?;
    let seconds: u64 = arguments.next().map_or(Ok(5), |text| text.parse())?;
    let directory = tempfile::tempdir()?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let mut options = StoreOptions::new(directory.path().join("bench.db"), Arc::clone(&clock));
    if arguments.next().as_deref() == Some("off") {
        options.synchronous = Synchronous::Off;
    }
    let store = Store::open(options).await?;
    let request = prepare(&store, clock.as_ref()).await?;
    let cpu = cpu_ticks()?;
    let began = Instant::now();
    let uses = Arc::new(AtomicU64::new(0));
    let tasks: Vec<_> = (0..callers)
        .map(|_| {
            let (store, request, uses) = (store.clone(), request.clone(), Arc::clone(&uses));
            tokio::spawn(async move {
                while began.elapsed() < Duration::from_secs(seconds) {
                    let recorded = store.ledger().record_use(request.clone()).await?;
                    store.ledger().record_outcome(outcome(&request, &recorded));
                    uses.fetch_add(1, Ordering::Relaxed);
                }
                Ok::<_, Failed>(())
            })
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    let took = began.elapsed();
    let cpu = cpu_ticks()? - cpu;
    report(uses.load(Ordering::Relaxed), took, cpu, &store);
    store.close().await;
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the example's result")]
#[expect(
    clippy::cast_precision_loss,
    reason = "a few digits are all that is shown"
)]
fn report(uses: u64, took: Duration, cpu_ticks: u64, store: &Store) {
    let health = store.ledger().health();
    let rate = uses as f64 / took.as_secs_f64();
    let cpu_micros = cpu_ticks as f64 * 10_000.0 / uses as f64;
    println!("{uses} uses, {rate:.0}/s, {cpu_micros:.1} us CPU a use (callers included)");
    let batches = health.batches.max(1);
    let per_batch = uses as f64 / batches as f64;
    let commit = health.commit_micros as f64 / batches as f64;
    println!("{batches} batches, {per_batch:.1} uses each, {commit:.0} us a commit");
    println!(
        "batches by uses, up to 1, 2, 4 ...: {:?}",
        health.batch_sizes
    );
}

/// User and system time of this process, in hundredths of a second.
fn cpu_ticks() -> Result<u64, Failed> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or("").split(' ').collect();
    Ok(fields.get(11).unwrap_or(&"0").parse::<u64>()?
        + fields.get(12).unwrap_or(&"0").parse::<u64>()?)
}

async fn prepare(store: &Store, clock: &dyn Clock) -> Result<UseRequest, Failed> {
    let actor = Actor::system("bench");
    let now = clock.now();
    let org = store.orgs().ensure_first_org("bench").await?.id;
    let vault = NewVault {
        id: VaultId::new(now),
        kek_id: "kek".to_owned(),
    };
    store.vaults().ensure_default(&org, vault).await?;
    let agent = NewAgent {
        name: "bench".to_owned(),
        description: None,
        key_hash: [0; 32],
    };
    let agent = store.agents().create(&org, agent, &actor).await?.id;
    let sealed = Sealed {
        path: "openai/prod/bench/OPENAI_API_KEY".to_owned(),
        version: 1,
        bytes: vec![0; 128],
    };
    let set = NewSet {
        provider: "openai".to_owned(),
        environment: "prod".to_owned(),
        name: "bench".to_owned(),
        entries: vec![("OPENAI_API_KEY".to_owned(), sealed)],
        custom: None,
    };
    let set = store.secret_sets().create(&org, set, &actor).await?.id;
    let grant = NewGrant {
        agent_id: agent.clone(),
        secret_set_id: set.clone(),
        allowed_actions: vec![Action::ProxyUse],
        allowed_keys: Keys::All,
        expires_at: None,
        constraints: Scope::default(),
        rate: None,
    };
    let grant = store.grants().create(&org, grant, &actor).await?.id;
    let lease = NewLease {
        id: LeaseId::new(now),
        agent_id: agent.clone(),
        kind: Kind::Workflow,
        action: Action::ProxyUse,
        sets: vec![(set.clone(), grant.clone())],
        issued_at: now,
        expires_at: now + Duration::from_hours(1),
        revocation_id: RevocationId::from_bytes(&[1; 64])?,
    };
    let lease = store.leases().create(&org, lease, &actor).await?;
    Ok(use_request(org, lease, set, grant))
}

fn use_request(org: OrgId, lease: LeaseRecord, set: SetId, grant: GrantId) -> UseRequest {
    UseRequest {
        org,
        lease: lease.id,
        agent: lease.agent_id,
        set,
        grant,
        kind: Kind::Workflow,
        action: Action::ProxyUse,
        revocation_ids: [lease.revocation_id].into(),
        expires_at: lease.expires_at,
        keys: ["OPENAI_API_KEY".to_owned()].into(),
        request: RequestFacts {
            request_id: "01998bd4-0000-7000-8000-000000000000".to_owned(),
            client_ip: [127, 0, 0, 1].into(),
            method: "POST".to_owned(),
            scheme: "https",
            host: "api.openai.com".into(),
            port: 443,
            address: Some([192, 0, 2, 1].into()),
            path: "/v1/chat/completions".to_owned(),
        },
    }
}

fn outcome(request: &UseRequest, recorded: &RecordedUse) -> Outcome {
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
        bytes_up: 512,
        bytes_down: 2_048,
        duration_ms: 140,
        attempts: 1,
        address: request.request.address,
    }
}
