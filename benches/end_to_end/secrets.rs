//! Secrets by their paths over the REST API: how many are read and written a second, on each database, and whether reads stay quick
//! while strangers try passwords and keys.
//!
//! The load comes from this process, one thread in a closed loop.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use test_postgres::Server as Postgres;
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

use crate::contender::Api;
use crate::http1::Http1;
use crate::process;
use crate::support::{self, Table, time};

/// Secrets that are read and written in turn: more than one row, few enough for any cache.
const SECRETS: u32 = 100;
/// How long a request under way may take once the time is over.
const LAST_REQUEST: Duration = Duration::from_secs(2);
/// How long one answer may take before the measurement starts.
const PATIENCE: Duration = Duration::from_secs(5);
/// Strangers who try at once, as fast as they are answered.
const STRANGERS: u32 = 32;
/// A worker that fails as often stops: the point is lost anyway.
const MAX_ERRORS: u32 = 10;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// How long each point is measured, in seconds
    #[arg(long, default_value = "3", value_parser = crate::seconds)]
    seconds: Duration,
    /// How often each point is measured; the table has the medians
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// SQLite alone: no Postgres is started
    #[arg(long)]
    sqlite: bool,
}

/// What is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Call {
    /// The page of an error code: HTTP and the layers, and nothing below them.
    Page,
    Read,
    Write,
    List,
}

/// What strangers do meanwhile.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Beside {
    Nobody,
    /// Each a password for an account of its own, from an address of its own: no limit but the hasher's queue holds them back.
    Passwords,
    /// The same with agents' keys.
    Keys,
}

/// Measures all of it and prints two tables.
pub(crate) async fn run(args: &Args) -> anyhow::Result<()> {
    ensure!(args.rounds > 0, "no round, no figure");
    // Beside the build, not in a temporary directory: that one is often memory, where a sync costs nothing.
    let home = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let dir = home.path();
    let postgres = (!args.sqlite).then(Postgres::start);
    let database = postgres.as_ref().map(Postgres::database);
    let mut servers = vec![Server::start(dir, "SQLite", "sqlite", None).await?];
    if let Some(database) = &database {
        servers.push(Server::start(dir, "Postgres", "postgres", Some(&database.url())).await?);
    }
    println!(
        "{}; {} rounds of {:?}, {SECRETS} secrets\n",
        support::machine(),
        args.rounds,
        args.seconds
    );
    calls(&servers, args).await?;
    strangers(&servers, args).await
}

async fn calls(servers: &[Server], args: &Args) -> anyhow::Result<()> {
    let columns = [
        "call", "database", "callers", "rate", "p50", "p99", "CPU/call", "errors",
    ];
    let mut table = Table::new(2, &columns);
    for call in [Call::Page, Call::List, Call::Read, Call::Write] {
        for callers in [1, 32] {
            let mut points: Vec<Vec<Point>> = servers.iter().map(|_| Vec::new()).collect();
            for _ in 0..args.rounds {
                for (server, points) in servers.iter().zip(&mut points) {
                    points.push(server.measure(call, callers, args.seconds).await?);
                }
            }
            for (server, points) in servers.iter().zip(&points) {
                table.row(vec![
                    call.name().to_owned(),
                    server.name.to_owned(),
                    callers.to_string(),
                    format!("{:.0}/s", median(points, Point::rate)),
                    seconds(median(points, |point| point.p50)),
                    seconds(median(points, |point| point.p99)),
                    seconds(median(points, |point| point.cpu)),
                    points
                        .iter()
                        .map(|point| point.errors)
                        .sum::<u32>()
                        .to_string(),
                ]);
            }
        }
    }
    println!("{table}");
    Ok(())
}

async fn strangers(servers: &[Server], args: &Args) -> anyhow::Result<()> {
    let columns = [
        "reads beside",
        "database",
        "reads",
        "p50",
        "p99",
        "longest",
        "401",
        "429",
        "errors",
    ];
    let mut table = Table::new(2, &columns);
    for beside in [Beside::Nobody, Beside::Passwords, Beside::Keys] {
        for server in servers {
            let mut points = Vec::new();
            let tried = Tried::default();
            let tried = Arc::new(tried);
            for _ in 0..args.rounds {
                // Dropped, and so stopped, at the end of the round.
                let _storm = server.storm(beside, &tried);
                points.push(server.measure(Call::Read, 8, args.seconds).await?);
            }
            let took: f64 = points.iter().map(|point| point.seconds).sum();
            let rate = |count: &AtomicU32| {
                format!("{:.0}/s", f64::from(count.load(Ordering::Relaxed)) / took)
            };
            table.row(vec![
                beside.name().to_owned(),
                server.name.to_owned(),
                format!("{:.0}/s", median(&points, Point::rate)),
                seconds(median(&points, |point| point.p50)),
                seconds(median(&points, |point| point.p99)),
                seconds(points.iter().map(|point| point.longest).fold(0.0, f64::max)),
                rate(&tried.refused),
                rate(&tried.held_back),
                points
                    .iter()
                    .map(|point| point.errors)
                    .sum::<u32>()
                    .to_string(),
            ]);
        }
    }
    println!("{table}");
    Ok(())
}

impl Call {
    fn name(self) -> &'static str {
        match self {
            Self::Page => "an error's page",
            Self::Read => "read a secret",
            Self::Write => "write a secret",
            Self::List => "list 50 secrets",
        }
    }

    /// The `number`th request.
    fn request(self, key: &str, number: u32) -> String {
        let secret = number % SECRETS;
        let (method, path, body) = match self {
            Self::Page => ("GET", "/v1/problems/not_found".to_owned(), String::new()),
            Self::List => (
                "GET",
                "/v1/vaults/default/secrets".to_owned(),
                String::new(),
            ),
            Self::Read => ("GET", path_of(secret), String::new()),
            Self::Write => {
                let value = format!("value-{number:0>64}");
                let body = format!(r#"{{"type":"api_key","value":"{value}"}}"#);
                ("PUT", path_of(secret), body)
            }
        };
        message(method, &path, Some(key), &body)
    }

    fn good(self) -> u16 {
        if self == Self::Write { 201 } else { 200 }
    }
}

impl Beside {
    fn name(self) -> &'static str {
        match self {
            Self::Nobody => "nobody",
            Self::Passwords => "passwords tried",
            Self::Keys => "keys tried",
        }
    }

    fn request(self, number: u32) -> String {
        let (path, body) = match self {
            Self::Nobody | Self::Passwords => (
                "/v1/auth/token",
                format!(
                    r#"{{"email":"stranger-{number}@example.org","password":"Wrong-password-1"}}"#
                ),
            ),
            Self::Keys => (
                "/v1/auth/agent-token",
                format!(r#"{{"api_key":"ocv_{number:0>43}"}}"#),
            ),
        };
        message("POST", path, None, &body)
    }
}

fn path_of(secret: u32) -> String {
    format!("/v1/vaults/default/secrets/bench/secret-{secret}")
}

fn message(method: &str, path: &str, key: Option<&str>, body: &str) -> String {
    let authorization = key.map_or_else(String::new, |key| {
        format!("authorization: Bearer {key}\r\n")
    });
    let length = body.len();
    format!(
        "{method} {path} HTTP/1.1\r\nhost: api\r\n{authorization}content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
}

/// A server with its secrets.
struct Server {
    name: &'static str,
    api: Api,
    address: SocketAddr,
    key: Arc<str>,
}

/// How many tries were answered, and how.
#[derive(Default)]
struct Tried {
    made: AtomicU32,
    refused: AtomicU32,
    held_back: AtomicU32,
}

/// What was measured, times in seconds.
struct Point {
    calls: u32,
    errors: u32,
    seconds: f64,
    p50: f64,
    p99: f64,
    longest: f64,
    /// The server's, for one call.
    cpu: f64,
}

impl Point {
    fn rate(&self) -> f64 {
        f64::from(self.calls) / self.seconds
    }
}

impl Server {
    /// Starts one as it is shipped, and stores the secrets.
    async fn start(
        dir: &Path,
        name: &'static str,
        directory: &str,
        database: Option<&str>,
    ) -> anyhow::Result<Self> {
        let more: Vec<&str> = database
            .map(|url| ["--database", url])
            .into_iter()
            .flatten()
            .collect();
        let api = Api::start(dir, directory, &more, &[]).await?;
        let key = tokio::fs::read_to_string(&api.key).await?;
        let server = Self {
            name,
            address: api.url.trim_start_matches("http://").parse()?,
            key: key.trim().into(),
            api,
        };
        let mut connection = connect(server.address, None).await?;
        for number in 0..SECRETS {
            let request = Call::Write.request(&server.key, number);
            let status = timeout(PATIENCE, ask(&mut connection, &request)).await??;
            ensure!(status == Call::Write.good(), "status {status} to a write");
        }
        Ok(server)
    }

    /// Has so many callers ask for this, each as soon as it is answered.
    async fn measure(&self, call: Call, callers: u32, seconds: Duration) -> anyhow::Result<Point> {
        let pid = self.api.pid().context("the server has ended")?;
        let mut workers = JoinSet::new();
        let (start, cpu) = (Instant::now(), process::cpu(pid));
        let deadline = start + seconds;
        for caller in 0..callers {
            let (address, key) = (self.address, Arc::clone(&self.key));
            // Each begins elsewhere, so that they do not follow each other over the same rows.
            let first = caller * (SECRETS / callers.min(SECRETS));
            workers.spawn(async move { work(call, address, &key, first, deadline).await });
        }
        let (mut times, mut errors) = (Vec::new(), 0);
        while let Some(worker) = workers.join_next().await {
            let (of_worker, failed) = worker?;
            times.extend(of_worker);
            errors += failed;
        }
        let took = start.elapsed().as_secs_f64();
        let cpu = process::cpu(pid).saturating_sub(cpu).as_secs_f64();
        times.sort_unstable();
        let last = times.len().saturating_sub(1);
        let quantile = |percent: usize| {
            times
                .get(last * percent / 100)
                .map_or(0.0, Duration::as_secs_f64)
        };
        let calls = u32::try_from(times.len())?;
        Ok(Point {
            calls,
            errors,
            seconds: took,
            p50: quantile(50),
            p99: quantile(99),
            longest: quantile(100),
            cpu: cpu / f64::from(calls.max(1)),
        })
    }

    /// Strangers who try until this is dropped.
    fn storm(&self, beside: Beside, tried: &Arc<Tried>) -> JoinSet<()> {
        let mut storm = JoinSet::new();
        if beside == Beside::Nobody {
            return storm;
        }
        for _ in 0..STRANGERS {
            let (address, tried) = (self.address, Arc::clone(tried));
            storm.spawn(async move {
                loop {
                    // One that fails is no try, and the next one follows.
                    drop(attempt(beside, address, &tried).await);
                    tokio::task::yield_now().await;
                }
            });
        }
        storm
    }
}

async fn work(
    call: Call,
    address: SocketAddr,
    key: &str,
    first: u32,
    deadline: Instant,
) -> (Vec<Duration>, u32) {
    let (mut times, mut errors, mut number) = (Vec::new(), 0, first);
    let mut kept = None;
    while Instant::now() < deadline && errors < MAX_ERRORS {
        let start = Instant::now();
        let request = call.request(key, number);
        number = number.wrapping_add(1);
        let asked = timeout_at(deadline + LAST_REQUEST, async {
            let mut connection = match kept.take() {
                Some(connection) => connection,
                None => connect(address, None).await?,
            };
            let status = ask(&mut connection, &request).await?;
            io::Result::Ok((connection, status))
        });
        match asked.await {
            Ok(Ok((connection, status))) if status == call.good() => {
                times.push(start.elapsed());
                kept = Some(connection);
            }
            _ => errors += 1,
        }
    }
    (times, errors)
}

/// One try, from an address that nobody has tried from.
async fn attempt(beside: Beside, address: SocketAddr, tried: &Tried) -> io::Result<()> {
    let number = tried.made.fetch_add(1, Ordering::Relaxed);
    let [_, high, middle, low] = number.to_be_bytes();
    // All of 127.0.0.0/8 is this machine (RFC 6890).
    let from = Ipv4Addr::new(127, high.max(1), middle, low.max(1));
    let mut connection = connect(address, Some(from)).await?;
    let count = match ask(&mut connection, &beside.request(number)).await? {
        429 => &tried.held_back,
        _ => &tried.refused,
    };
    count.fetch_add(1, Ordering::Relaxed);
    Ok(())
}

async fn connect(address: SocketAddr, from: Option<Ipv4Addr>) -> io::Result<Http1<TcpStream>> {
    let stream = match from {
        None => TcpStream::connect(address).await?,
        Some(from) => {
            let socket = TcpSocket::new_v4()?;
            socket.bind((from, 0).into())?;
            socket.connect(address).await?
        }
    };
    stream.set_nodelay(true)?;
    Ok(Http1::new(stream))
}

/// The status of the answer, whose body is read away.
async fn ask(connection: &mut Http1<TcpStream>, request: &str) -> io::Result<u16> {
    connection.send_all(request.as_bytes()).await?;
    let response = connection.response().await?;
    connection.skip(response.length).await?;
    Ok(response.status)
}

fn median(points: &[Point], figure: impl Fn(&Point) -> f64) -> f64 {
    let mut figures: Vec<f64> = points.iter().map(figure).collect();
    figures.sort_unstable_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(0.0)
}

fn seconds(seconds: f64) -> String {
    time(Duration::from_secs_f64(seconds))
}
