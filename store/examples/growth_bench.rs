//! Measures decisions and start-up with a full database beside an empty one. A decision is the door's look at the lease,
//! and the use on record.
//!
//! `cargo run --release -p store --example growth_bench -- [--database sqlite|postgres] [--scale F] [--audit-scale F]
//! [--behind N] [--seconds F] [--rounds N]`
//!
//! At scale 1 the full one has a million secrets, 100,000 grants, 100,000 live leases and ten million audit records,
//! which are a chain as the ledger writes it, and is verified at the end. `--audit-scale` scales the records apart from
//! the rest. `--behind N` has a process die while a use was open that N records follow: a start reads those.
//!
//! The empty one has one agent, set, grant and workflow lease. Both have single-use leases enough for the run. Databases
//! are made where `TMPDIR` says, and go with the program; there should be a disk, and 12 GB of it at scale 1.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures::SinkExt as _;
use leases::RevocationId;
use leases::clock::{Clock as _, SystemClock};
use leases::id::{AgentId, GrantId, LeaseId, OrgId, SetId, UseId, VaultId};
use leases::scope::{Action, Kind};
use rusqlite::types::Value;
use sha2::{Digest as _, Sha256};
use store::ledger::{Holding, Standing};
use store::{Location, Store, StoreOptions, UseRequest};
use tempfile::TempDir;
use test_postgres::Server;
use time::OffsetDateTime;
use tokio::signal::unix::{SignalKind, signal};
use tokio_postgres::NoTls;

#[path = "../../benches/support/mod.rs"]
mod print;
mod support;

use print::{Table, time};

type Failed = Box<dyn std::error::Error + Send + Sync>;
/// A table, with its columns where some have defaults, and its rows.
type Rows = (&'static str, Box<dyn Iterator<Item = Vec<Value>>>);

const KEYS: [&str; 4] = [
    "OPENAI_API_KEY",
    "OPENAI_BASE_URL",
    "OPENAI_ORGANIZATION",
    "OPENAI_PROJECT",
];
/// Bytes of a sealed secret of some length.
const SEALED: usize = 256;
/// Rows between two looks at whether to stop.
const CHUNK: usize = 10_000;
/// Steps through all leases without an order that an index could be read in.
const STRIDE: usize = 7_919;
/// The ledger's stream, as in `audit_streams`.
const STREAM: i64 = 1;

struct Plan {
    is_postgres: bool,
    scale: f64,
    audit_scale: Option<f64>,
    behind: usize,
    seconds: f64,
    rounds: usize,
}

/// How much a database holds.
#[derive(Clone, Copy)]
struct Amount {
    agents: usize,
    sets: usize,
    grants: usize,
    workflow_leases: usize,
    request_leases: usize,
    records: usize,
    /// How many of the records follow a use that was open when the last process died.
    behind: usize,
}

/// One kind of load.
#[derive(Clone, Copy)]
struct Load {
    name: &'static str,
    kind: Kind,
    callers: usize,
    /// Its part of the single-use leases, in percent.
    share: usize,
}

const LOADS: [Load; 4] = [
    load("workflow lease", Kind::Workflow, 1, 0),
    load("workflow lease", Kind::Workflow, 32, 0),
    load("request lease", Kind::Request, 1, 20),
    load("request lease", Kind::Request, 32, 80),
];

const fn load(name: &'static str, kind: Kind, callers: usize, share: usize) -> Load {
    Load {
        name,
        kind,
        callers,
        share,
    }
}

#[tokio::main]
async fn main() -> Result<(), Failed> {
    let plan = Plan::parse(std::env::args().skip(1))?;
    let (mut terminate, mut interrupt) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    // A signal drops, and so removes, what was made.
    tokio::select! {
        result = run(&plan) => result,
        _ = terminate.recv() => Err("stopped by a signal".into()),
        _ = interrupt.recv() => Err("stopped by a signal".into()),
    }
}

#[expect(clippy::print_stdout, reason = "the example's result")]
async fn run(plan: &Plan) -> Result<(), Failed> {
    let full = plan.full();
    full.check_space(plan.is_postgres)?;
    println!("{}; {}\n", print::machine(), full.text(plan.is_postgres));
    let server = plan
        .is_postgres
        .then(|| Server::start_with(&[("shared_buffers", "256MB"), ("max_wal_size", "512MB")]));
    let mut empty = Subject::new(server.as_ref(), Amount::EMPTY).await?;
    let mut filled = Subject::new(server.as_ref(), full).await?;
    let mut table = Table::new(
        2,
        &[
            "lease",
            "callers",
            "empty p50",
            "full p50",
            "ratio",
            "empty p99",
            "full p99",
            "ratio",
        ],
    );
    for load in LOADS {
        let (mut small, mut large) = (Vec::new(), Vec::new());
        for _ in 0..plan.rounds {
            small.push(empty.measure(load, plan).await?);
            large.push(filled.measure(load, plan).await?);
        }
        let mut cells = vec![load.name.to_owned(), load.callers.to_string()];
        for percent in [50, 99] {
            let (small, large) = (quantile(&small, percent), quantile(&large, percent));
            let ratio = large.as_secs_f64() / small.as_secs_f64();
            cells.extend([time(small), time(large), format!("{ratio:.2}")]);
        }
        table.row(cells);
    }
    println!("{table}");
    println!(
        "start-up: empty {}, full {} ({} MiB)",
        time(empty.started_in),
        time(filled.started_in),
        filled.bytes()? >> 20
    );
    let began = Instant::now();
    let report = filled.store.audit().verify().await?;
    if let Some(bad) = report.streams.iter().find_map(|it| it.first_bad.as_ref()) {
        return Err(format!("the records are no chain: {bad:?}").into());
    }
    println!("the chain verifies in {}", time(began.elapsed()));
    empty.store.close().await;
    filled.store.close().await;
    Ok(())
}

impl Plan {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self, Failed> {
        let mut plan = Self {
            is_postgres: false,
            scale: 1.0,
            audit_scale: None,
            behind: 0,
            seconds: 2.0,
            rounds: 3,
        };
        while let Some(argument) = arguments.next() {
            let value = arguments.next().ok_or("a value is missing")?;
            match argument.as_str() {
                "--database" => {
                    plan.is_postgres = match value.as_str() {
                        "sqlite" => false,
                        "postgres" => true,
                        _ => return Err("--database takes sqlite or postgres".into()),
                    }
                }
                "--scale" => plan.scale = scale(&value)?,
                "--audit-scale" => plan.audit_scale = Some(scale(&value)?),
                "--behind" => plan.behind = value.parse()?,
                "--seconds" => plan.seconds = value.parse::<f64>()?.clamp(0.2, 30.0),
                "--rounds" => plan.rounds = value.parse::<usize>()?.clamp(1, 20),
                _ => return Err(format!("no option is called {argument}").into()),
            }
        }
        Ok(plan)
    }

    fn full(&self) -> Amount {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a scale between 0 and 1"
        )]
        let part = |of: u32, scale: f64| (f64::from(of) * scale).ceil() as usize;
        let leases = part(50_000, self.scale).max(Amount::EMPTY.request_leases);
        let records = part(10_000_000, self.audit_scale.unwrap_or(self.scale));
        Amount {
            agents: part(10_000, self.scale),
            sets: part(250_000, self.scale),
            grants: part(100_000, self.scale),
            workflow_leases: leases,
            request_leases: leases,
            records,
            behind: self.behind.min(records),
        }
    }
}

fn scale(text: &str) -> Result<f64, Failed> {
    text.parse()
        .ok()
        .filter(|scale| (0.000_1..=1.0).contains(scale))
        .ok_or_else(|| "a scale lies between 0.0001 and 1".into())
}

impl Amount {
    const EMPTY: Self = Self {
        agents: 1,
        sets: 1,
        grants: 1,
        workflow_leases: 1,
        request_leases: 10_000,
        records: 0,
        behind: 0,
    };

    const fn secrets(&self) -> usize {
        self.sets * KEYS.len()
    }

    const fn leases(&self) -> usize {
        self.workflow_leases + self.request_leases
    }

    fn text(&self, is_postgres: bool) -> String {
        format!(
            "{}: {} secrets in {} sets, {} agents, {} grants, {} live leases, {} audit records",
            if is_postgres { "postgres" } else { "sqlite" },
            self.secrets(),
            self.sets,
            self.agents,
            self.grants,
            self.leases(),
            self.records
        )
    }

    /// Refuses what the disk has no room for.
    fn check_space(&self, is_postgres: bool) -> Result<(), Failed> {
        let directory = std::env::temp_dir();
        let rows = self.records * 1_150 + self.secrets() * 1_000 + self.leases() * 900;
        // The server's log, and what the run adds.
        let other = if is_postgres { 1_200 } else { 300 };
        let needed = (rows >> 20) + other;
        let free = free_mib(&directory)?;
        if free < needed {
            let place = directory.display();
            return Err(format!(
                "{place} has {free} MiB free and {needed} MiB are needed: set TMPDIR to another disk, or lower --scale"
            )
            .into());
        }
        Ok(())
    }

    /// All tables, those that others refer to first.
    fn tables(self, at: OffsetDateTime) -> Result<Vec<Rows>, Failed> {
        let now = i64::try_from(at.unix_timestamp_nanos() / 1_000_000)?;
        let mut tables = Vec::from(self.secret_tables(now));
        tables.extend(self.permission_tables(now));
        tables.extend(self.audit_tables(at, now)?);
        Ok(tables)
    }

    fn secret_tables(self, now: i64) -> [Rows; 6] {
        let path = |number: usize| {
            let key = KEYS[number % KEYS.len()];
            text(format!("openai/prod/{:08}/{key}", number / KEYS.len()))
        };
        let manifest = format!("{{\"{}\":1}}", KEYS.join("\":1,\""));
        [
            rows("orgs", 1, move |_| vec![org(), text("bench"), now.into()]),
            rows(
                "vaults (id, org_id, name, kek_id, created_at)",
                1,
                move |_| vec![vault(), org(), text("default"), text("kek"), now.into()],
            ),
            rows(
                "secrets (org_id, vault_id, path, version, created_at, deleted_at)",
                self.secrets(),
                move |number| {
                    vec![
                        org(),
                        vault(),
                        path(number),
                        1.into(),
                        now.into(),
                        Value::Null,
                    ]
                },
            ),
            rows(
                "secret_versions (org_id, vault_id, path, version, sealed, created_at)",
                self.secrets(),
                move |number| {
                    let sealed = Sha256::digest(number.to_be_bytes()).repeat(SEALED / 32);
                    vec![
                        org(),
                        vault(),
                        path(number),
                        1.into(),
                        sealed.into(),
                        now.into(),
                    ]
                },
            ),
            rows("secret_sets", self.sets, move |number| {
                vec![
                    set(number),
                    org(),
                    vault(),
                    text("openai"),
                    text("prod"),
                    text(format!("{number:08}")),
                    1.into(),
                    now.into(),
                    now.into(),
                    Value::Null,
                ]
            }),
            rows("secret_set_versions", self.sets, move |number| {
                vec![
                    set(number),
                    1.into(),
                    org(),
                    text(&manifest),
                    Value::Null,
                    now.into(),
                    text("bench"),
                    Value::Null,
                ]
            }),
        ]
    }

    fn permission_tables(self, now: i64) -> [Rows; 3] {
        let ends_at = now + 24 * 3_600_000;
        [
            rows("agents", self.agents, move |number| {
                vec![
                    agent(number),
                    org(),
                    text(format!("agent-{number:06}")),
                    Value::Null,
                    Sha256::digest(number.to_be_bytes()).to_vec().into(),
                    1.into(),
                    now.into(),
                    now.into(),
                    Value::Null,
                    Value::Null,
                ]
            }),
            rows("grants", self.grants, move |number| {
                vec![
                    text(id(GrantId::PREFIX, number)),
                    org(),
                    agent(number % self.agents),
                    set(number),
                    text("[\"proxy_use\"]"),
                    text("\"*\""),
                    text("{}"),
                    Value::Null,
                    Value::Null,
                    ends_at.into(),
                    text("bench"),
                    now.into(),
                    Value::Null,
                ]
            }),
            rows(
                "leases (id, org_id, agent_id, kind, action, sets, issued_at, expires_at, revoked_at, uses, revocation_id)",
                self.leases(),
                move |number| {
                    let held = self.held(number);
                    vec![
                        text(held.lease),
                        org(),
                        text(held.agent),
                        text(self.kind(number).as_str()),
                        text(Action::ProxyUse.as_str()),
                        text(format!("[[\"{}\",\"{}\"]]", held.set, held.grant)),
                        now.into(),
                        ends_at.into(),
                        Value::Null,
                        0.into(),
                        revocation_id(number).to_vec().into(),
                    ]
                },
            ),
        ]
    }

    fn audit_tables(self, at: OffsetDateTime, now: i64) -> Result<[Rows; 3], Failed> {
        let records = Records::new(self, at)?;
        let open_from = i64::try_from(self.records - self.behind + 1)?;
        let was_killed = i64::from(self.behind > 0);
        Ok([
            rows("audit_streams (number, stream)", 1, |_| {
                vec![STREAM.into(), text(STREAM_NAME)]
            }),
            ("audit_events", Box::new(records)),
            rows("ledger_state", 1, move |_| {
                vec![
                    text(NODE),
                    now.into(),
                    open_from.into(),
                    was_killed.into(),
                    0.into(),
                    0.into(),
                ]
            }),
        ])
    }

    const fn kind(&self, lease: usize) -> Kind {
        if lease < self.workflow_leases {
            Kind::Workflow
        } else {
            Kind::Request
        }
    }

    fn held(&self, lease: usize) -> Held {
        let grant = lease % self.grants;
        Held {
            lease: id(LeaseId::PREFIX, lease),
            agent: id(AgentId::PREFIX, grant % self.agents),
            set: id(SetId::PREFIX, grant),
            grant: id(GrantId::PREFIX, grant),
        }
    }

    /// The `place`-th lease of that kind, in an order that no table has.
    const fn nth(&self, kind: Kind, place: usize) -> usize {
        match kind {
            Kind::Workflow => place * STRIDE % self.workflow_leases,
            Kind::Request => self.workflow_leases + place * STRIDE % self.request_leases,
        }
    }

    fn request(&self, lease: usize, expires_at: OffsetDateTime) -> Result<UseRequest, Failed> {
        let held = self.held(lease);
        Ok(UseRequest {
            org: OrgId::parse(&id(OrgId::PREFIX, 0))?,
            lease: LeaseId::parse(&held.lease)?,
            agent: AgentId::parse(&held.agent)?,
            set: SetId::parse(&held.set)?,
            grant: GrantId::parse(&held.grant)?,
            kind: self.kind(lease),
            action: Action::ProxyUse,
            revocation_ids: [RevocationId::from_bytes(&revocation_id(lease))?].into(),
            expires_at,
            keys: KEYS.map(str::to_owned).into(),
            approval: None,
            estimate: store::Amount::default(),
            request: support::facts(),
        })
    }
}

const NODE: &str = "local";
const STREAM_NAME: &str = "local/ledger";

/// Whom a lease is for.
struct Held {
    lease: String,
    agent: String,
    set: String,
    grant: String,
}

fn rows(table: &'static str, count: usize, row: impl FnMut(usize) -> Vec<Value> + 'static) -> Rows {
    (table, Box::new((0..count).map(row)))
}

fn text(text: impl Into<String>) -> Value {
    Value::Text(text.into())
}

fn id(prefix: &str, number: usize) -> String {
    format!("{prefix}01{number:024}")
}

fn org() -> Value {
    text(id(OrgId::PREFIX, 0))
}

fn vault() -> Value {
    text(id(VaultId::PREFIX, 0))
}

fn agent(number: usize) -> Value {
    text(id(AgentId::PREFIX, number))
}

fn set(number: usize) -> Value {
    text(id(SetId::PREFIX, number))
}

fn revocation_id(lease: usize) -> [u8; 64] {
    let mut bytes = [7; 64];
    bytes[..8].copy_from_slice(&lease.to_be_bytes());
    bytes
}

/// The records of uses and their outcomes, each linked to the one before.
struct Records {
    amount: Amount,
    at: i64,
    created_at: String,
    seq: usize,
    hash: [u8; 32],
}

impl Records {
    fn new(amount: Amount, at: OffsetDateTime) -> Result<Self, Failed> {
        let form = time::macros::format_description!(
            "[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z"
        );
        Ok(Self {
            amount,
            at: i64::try_from(at.unix_timestamp_nanos() / 1_000_000)?,
            created_at: at.format(form)?,
            seq: 0,
            hash: [0; 32],
        })
    }
}

impl Iterator for Records {
    type Item = Vec<Value>;

    fn next(&mut self) -> Option<Vec<Value>> {
        if self.seq == self.amount.records {
            return None;
        }
        let (place, is_use) = (self.seq / 2, self.seq.is_multiple_of(2));
        self.seq += 1;
        let Held {
            lease,
            agent,
            set,
            grant,
        } = self.amount.held(place * STRIDE % self.amount.leases());
        let (org, use_id) = (id(OrgId::PREFIX, 0), id(UseId::PREFIX, place));
        let action = if is_use { "lease.use" } else { "lease.outcome" };
        let facts = support::facts();
        let (request_id, path) = (&facts.request_id, &facts.path);
        let mut body = format!(
            "{{\"id\":\"{}\",\"stream\":\"{STREAM_NAME}\",\"seq\":{},\"created_at\":\"{}\",\"org_id\":\"{org}\",\
             \"action\":\"{action}\",\"decision\":\"allow\",\"actor_type\":\"agent\",\"actor_id\":\"{agent}\",\
             \"agent_id\":\"{agent}\",\"lease_id\":\"{lease}\",\"grant_id\":\"{grant}\",\"secret_set_id\":\"{set}\",",
            id("evt_", self.seq),
            self.seq,
            self.created_at
        );
        let written = if is_use {
            write!(
                body,
                "\"secret_version\":1,\"keys\":[\"{}\"],\"use_id\":\"{use_id}\",\"request_id\":\"{request_id}\",\
                 \"client_ip\":\"127.0.0.1\",\"method\":\"POST\",\"scheme\":\"https\",\"host\":\"api.openai.com\",\
                 \"port\":443,\"address\":\"192.0.2.1\",\"path\":\"{path}\"}}",
                KEYS.join("\",\"")
            )
        } else {
            write!(
                body,
                "\"use_id\":\"{use_id}\",\"request_id\":\"{request_id}\",\"address\":\"192.0.2.1\",\"status\":200,\
                 \"bytes_up\":512,\"bytes_down\":2048,\"duration_ms\":140,\"attempts\":1}}"
            )
        };
        written.ok()?;
        let before = self.hash;
        self.hash = Sha256::new()
            .chain_update(before)
            .chain_update(&body)
            .finalize()
            .into();
        let position = (STREAM << 40) | i64::try_from(self.seq).ok()?;
        Some(vec![
            position.into(),
            text(org),
            self.at.into(),
            text(action),
            text(agent),
            text(lease),
            text(set),
            before.to_vec().into(),
            self.hash.to_vec().into(),
            text(body),
        ])
    }
}

/// A database that is measured.
struct Subject<'s> {
    directory: TempDir,
    postgres: Option<test_postgres::Database<'s>>,
    amount: Amount,
    store: Store,
    started_in: Duration,
    /// Single-use leases that were used up.
    used_up: usize,
}

impl<'s> Subject<'s> {
    /// Makes a database, fills it, and starts a store on it.
    async fn new(server: Option<&'s Server>, amount: Amount) -> Result<Self, Failed> {
        let directory = tempfile::tempdir()?;
        let file = directory.path().join("claviger.db");
        let postgres = server.map(Server::database);
        let location = match &postgres {
            Some(database) => Location::parse(&database.url())?,
            None => Location::Sqlite(file.clone()),
        };
        Store::migrate(&location).await?;
        let mut loader = match server.zip(postgres.as_ref()) {
            Some((server, database)) => Loader::of_server(server, database.name()).await?,
            None => Loader::of_file(&file)?,
        };
        let at = SystemClock.now() - Duration::from_hours(1);
        for (table, mut rows) in amount.tables(at)? {
            loop {
                let chunk: Vec<_> = rows.by_ref().take(CHUNK).collect();
                if chunk.is_empty() {
                    break;
                }
                loader.write(table, &chunk).await?;
                tokio::task::yield_now().await;
            }
        }
        loader.finish().await?;
        let checkpoint = directory.path().join("audit.checkpoint");
        let options = StoreOptions::at(location, checkpoint, Arc::new(SystemClock));
        let began = Instant::now();
        let store = Store::open(options).await?;
        Ok(Self {
            directory,
            postgres,
            amount,
            store,
            started_in: began.elapsed(),
            used_up: 0,
        })
    }

    fn bytes(&self) -> Result<u64, Failed> {
        let Some(database) = &self.postgres else {
            return Ok(file_of(&self.directory).metadata()?.len());
        };
        let size = database.admin("SELECT pg_database_size(current_database())");
        Ok(size.trim().parse()?)
    }

    /// How long each use took, sorted.
    async fn measure(&mut self, load: Load, plan: &Plan) -> Result<Vec<Duration>, Failed> {
        let most = match load.kind {
            Kind::Workflow => usize::MAX,
            Kind::Request => self.amount.request_leases * load.share / 100 / plan.rounds,
        };
        let next = Arc::new(AtomicUsize::new(0));
        let until = Instant::now() + Duration::from_secs_f64(plan.seconds);
        let tasks: Vec<_> = (0..load.callers)
            .map(|_| {
                let caller = Caller {
                    store: self.store.clone(),
                    amount: self.amount,
                    kind: load.kind,
                    from: self.used_up,
                    most,
                    next: Arc::clone(&next),
                };
                tokio::spawn(caller.call(until))
            })
            .collect();
        let mut times = Vec::new();
        for task in tasks {
            times.extend(task.await??);
        }
        if load.kind == Kind::Request {
            self.used_up += next.load(Ordering::Relaxed).min(most);
        }
        times.sort_unstable();
        Ok(times)
    }
}

/// Looks at one lease after the other, and uses it.
struct Caller {
    store: Store,
    amount: Amount,
    kind: Kind,
    /// Leases before this place were used.
    from: usize,
    most: usize,
    /// Shared by all callers of a point.
    next: Arc<AtomicUsize>,
}

impl Caller {
    async fn call(self, until: Instant) -> Result<Vec<Duration>, Failed> {
        let mut times = Vec::new();
        let expires_at = SystemClock.now() + Duration::from_hours(1);
        while Instant::now() < until {
            let place = self.next.fetch_add(1, Ordering::Relaxed);
            if place >= self.most {
                break;
            }
            let lease = self.amount.nth(self.kind, self.from + place);
            let request = self.amount.request(lease, expires_at)?;
            let holding = Holding {
                org: &request.org,
                lease: &request.lease,
                agent: &request.agent,
                grant: None,
                set: None,
                revocation_ids: &request.revocation_ids,
            };
            let ledger = self.store.ledger();
            let began = Instant::now();
            let standing = ledger.standing(&holding).await?;
            let recorded = ledger.record_use(request.clone()).await?;
            times.push(began.elapsed());
            if standing != Standing::Good {
                return Err(format!("the lease stands as {standing:?}").into());
            }
            ledger.record_outcome(support::outcome(&request, &recorded));
        }
        Ok(times)
    }
}

/// The median of the points' quantiles.
fn quantile(points: &[Vec<Duration>], percent: usize) -> Duration {
    let mut figures: Vec<Duration> = points
        .iter()
        .filter_map(|times| times.get(times.len() * percent / 100).copied())
        .collect();
    figures.sort_unstable();
    figures.get(figures.len() / 2).copied().unwrap_or_default()
}

/// Writes rows by the thousand, past the store.
enum Loader {
    Sqlite(rusqlite::Connection),
    Postgres(tokio_postgres::Client),
}

impl Loader {
    fn of_file(path: &Path) -> Result<Self, Failed> {
        let db = rusqlite::Connection::open(path)?;
        // One transaction that nothing has to survive.
        db.execute_batch(
            "PRAGMA journal_mode = delete; PRAGMA journal_mode = off; PRAGMA synchronous = off; \
             PRAGMA cache_size = -262144; BEGIN",
        )?;
        Ok(Self::Sqlite(db))
    }

    async fn of_server(server: &Server, database: &str) -> Result<Self, Failed> {
        let (client, connection) = tokio_postgres::Config::new()
            .host_path(server.socket_directory())
            .port(server.port())
            .user("postgres")
            .dbname(database)
            .connect(NoTls)
            .await?;
        tokio::spawn(connection);
        // Rows that refer to others are right, and nobody decides by them yet.
        client
            .batch_execute("SET session_replication_role = replica; SET synchronous_commit = off")
            .await?;
        Ok(Self::Postgres(client))
    }

    async fn write(&mut self, table: &str, rows: &[Vec<Value>]) -> Result<(), Failed> {
        match self {
            Self::Sqlite(db) => {
                let places = vec!["?"; rows[0].len()].join(",");
                let mut insert =
                    db.prepare_cached(&format!("INSERT INTO {table} VALUES ({places})"))?;
                for row in rows {
                    insert.execute(rusqlite::params_from_iter(row))?;
                }
            }
            Self::Postgres(client) => {
                let sink = client.copy_in(&format!("COPY {table} FROM STDIN")).await?;
                let mut sink = std::pin::pin!(sink);
                let lines: String = rows.iter().map(|row| line(row)).collect();
                sink.send(std::io::Cursor::new(lines.into_bytes())).await?;
                sink.finish().await?;
            }
        }
        Ok(())
    }

    /// Leaves the database as one that has been in use.
    async fn finish(self) -> Result<(), Failed> {
        match self {
            Self::Sqlite(db) => db.execute_batch("COMMIT; PRAGMA journal_mode = wal")?,
            Self::Postgres(client) => {
                client.batch_execute("VACUUM (ANALYZE)").await?;
                client.batch_execute("CHECKPOINT").await?;
            }
        }
        Ok(())
    }
}

/// A row as `COPY` reads it.
fn line(row: &[Value]) -> String {
    let mut line = String::new();
    for (number, value) in row.iter().enumerate() {
        if number > 0 {
            line.push('\t');
        }
        match value {
            Value::Null => line.push_str("\\N"),
            Value::Integer(number) => line.push_str(&number.to_string()),
            Value::Real(number) => line.push_str(&number.to_string()),
            Value::Text(text) => {
                debug_assert!(!text.contains(['\\', '\t', '\n']), "nothing to escape");
                line.push_str(text);
            }
            Value::Blob(bytes) => {
                line.push_str("\\\\x");
                line.push_str(&hex::encode(bytes));
            }
        }
    }
    line.push('\n');
    line
}

fn file_of(directory: &TempDir) -> PathBuf {
    directory.path().join("claviger.db")
}

fn free_mib(directory: &Path) -> Result<usize, Failed> {
    let output = std::process::Command::new("df")
        .args(["-Pm"])
        .arg(directory)
        .output()?;
    let text = String::from_utf8(output.stdout)?;
    let free = text
        .lines()
        .nth(1)
        .and_then(|line| line.split_whitespace().nth(3));
    Ok(free.ok_or("df does not say how much is free")?.parse()?)
}
