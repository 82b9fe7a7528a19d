//! The load generator: one thread, a closed loop, one kind of work for a bounded time.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::ServerName;
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio::sync::Barrier;
use tokio::task::JoinSet;
use tokio::time::error::Elapsed;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::http1::Http1;
use crate::{HOST, certificates, process};

/// How long connections may take to open before the measurement starts.
const OPENING: Duration = Duration::from_secs(5);
/// How long a request under way may take once the time is over. What takes longer counts as an error.
const LAST_REQUEST: Duration = Duration::from_secs(2);
/// A worker that fails as often stops: the point is lost anyway.
const MAX_ERRORS: u32 = 10;
/// How often the proxy's memory is looked at.
const MEMORY_INTERVAL: Duration = Duration::from_millis(100);

#[derive(clap::Args, Clone)]
pub(crate) struct Args {
    #[arg(long)]
    pub(crate) proxy: SocketAddr,
    /// The root that the proxy's leaves chain to
    #[arg(long)]
    pub(crate) ca: PathBuf,
    #[arg(long)]
    pub(crate) port: u16,
    /// For the proxy
    #[arg(long)]
    pub(crate) lease: String,
    /// For the upstream
    #[arg(long)]
    pub(crate) authorization: String,
    /// The proxy's process
    #[arg(long)]
    pub(crate) pid: u32,
    #[arg(long, value_parser = crate::seconds)]
    pub(crate) seconds: Duration,
    #[arg(long)]
    pub(crate) connections: usize,
    /// Bytes of each response's body
    #[arg(long)]
    pub(crate) down: u64,
    /// Bytes of each request's body
    #[arg(long)]
    pub(crate) up: u64,
    /// Opens a tunnel for each request
    #[arg(long)]
    pub(crate) new: bool,
    /// Requests a second, over all connections; without it, as many as can be
    #[arg(long)]
    pub(crate) rate: Option<u32>,
}

/// What was measured.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Point {
    pub(crate) requests: u32,
    pub(crate) errors: u32,
    pub(crate) first_error: Option<String>,
    pub(crate) seconds: f64,
    /// In seconds, as all times here.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) longest: f64,
    /// The proxy's CPU time.
    pub(crate) cpu: f64,
    /// The proxy's largest resident memory.
    pub(crate) resident_kib: u64,
}

type Connection = Http1<TlsStream<TcpStream>>;

/// Measures one point and prints it.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let client = Arc::new(Client::new(args)?);
    let pid = client.args.pid;
    let gate = Arc::new(Barrier::new(client.args.connections + 1));
    let mut workers = JoinSet::new();
    for turn in 0..client.args.connections {
        let (client, gate) = (Arc::clone(&client), Arc::clone(&gate));
        workers.spawn(async move { client.work(turn, &gate).await });
    }
    // Once when every connection is open, and once more when the clocks are read.
    gate.wait().await;
    let (start, cpu) = (Instant::now(), process::cpu(pid));
    gate.wait().await;

    let mut look = tokio::time::interval(MEMORY_INTERVAL);
    let (mut tally, mut resident_kib) = (Tally::default(), 0);
    loop {
        tokio::select! {
            worker = workers.join_next() => match worker {
                Some(worker) => tally.add(worker?),
                None => break,
            },
            _ = look.tick() => resident_kib = resident_kib.max(process::resident(pid)),
        }
    }
    let (seconds, cpu) = (
        start.elapsed().as_secs_f64(),
        process::cpu(pid).saturating_sub(cpu).as_secs_f64(),
    );
    println!(
        "{}",
        serde_json::to_string(&Point {
            seconds,
            cpu,
            resident_kib,
            ..tally.point()?
        })?
    );
    Ok(())
}

struct Client {
    args: Args,
    tls: TlsConnector,
    connect: String,
    request: String,
}

impl Client {
    fn new(args: Args) -> anyhow::Result<Self> {
        let Args {
            port,
            down,
            up,
            lease,
            authorization,
            ..
        } = &args;
        let method = if *up > 0 { "POST" } else { "GET" };
        Ok(Self {
            tls: TlsConnector::from(certificates::client(&args.ca)?),
            connect: format!(
                "CONNECT {HOST}:{port} HTTP/1.1\r\nhost: {HOST}:{port}\r\nproxy-authorization: Bearer {lease}\r\n\r\n"
            ),
            request: format!(
                "{method} /bytes/{down} HTTP/1.1\r\nhost: {HOST}:{port}\r\naccept: */*\r\nuser-agent: bench/1.0\r\n\
                 authorization: {authorization}\r\ncontent-length: {up}\r\n\r\n"
            ),
            args,
        })
    }

    async fn work(&self, turn: usize, gate: &Barrier) -> Tally {
        let mut tally = Tally::default();
        // One request beforehand: what is measured has its tunnel and its upstream connection.
        let mut kept = tally
            .settle(timeout(OPENING, self.ask(None)).await)
            .flatten();
        gate.wait().await;
        gate.wait().await;
        let start = Instant::now();
        let deadline = start + self.args.seconds;
        // The connections take turns: all at once would be a burst of them, and its last one's wait.
        let mut due = start + self.apart() * u32::try_from(turn).unwrap_or(u32::MAX);
        while Instant::now() < deadline && tally.errors < MAX_ERRORS {
            let connection = kept.take().filter(|_| !self.args.new);
            let start = self.next(&mut due).await;
            let asked = timeout_at(deadline + LAST_REQUEST, self.ask(connection)).await;
            if let Some(connection) = tally.settle(asked) {
                tally.latencies.push(start.elapsed());
                kept = connection;
            }
        }
        tally
    }

    /// When the next request starts. At a rate, one that waits for an answer before it starts when it was due: whoever
    /// asks at that rate waits that long.
    async fn next(&self, due: &mut Instant) -> Instant {
        if self.args.rate.is_none() {
            return Instant::now();
        }
        let this = *due;
        let workers = u32::try_from(self.args.connections).unwrap_or(u32::MAX);
        *due += around(self.apart() * workers);
        if Instant::now() >= this {
            return this;
        }
        sleep_until(this).await;
        Instant::now()
    }

    /// The time between two requests of all connections together, at a rate.
    fn apart(&self) -> Duration {
        self.args
            .rate
            .map_or(Duration::ZERO, |rate| Duration::from_secs(1) / rate.max(1))
    }

    /// One request, on this connection or a new one. Gives the connection back if it can carry another.
    async fn ask(&self, connection: Option<Connection>) -> io::Result<Option<Connection>> {
        let mut connection = match connection {
            Some(connection) => connection,
            None => self.open().await?,
        };
        connection
            .send(self.request.as_bytes(), self.args.up)
            .await?;
        let response = connection.response().await?;
        if response.status != 200 || response.length != self.args.down {
            return Err(io::Error::other(format!(
                "status {} and {} bytes",
                response.status, response.length
            )));
        }
        connection.skip(response.length).await?;
        Ok((!response.is_last).then_some(connection))
    }

    async fn open(&self) -> io::Result<Connection> {
        let tcp = TcpStream::connect(self.args.proxy).await?;
        tcp.set_nodelay(true)?;
        let mut plain = Http1::new(tcp);
        plain.send(self.connect.as_bytes(), 0).await?;
        let answer = plain.response().await?;
        if answer.status != 200 {
            return Err(io::Error::other(format!(
                "status {} to CONNECT",
                answer.status
            )));
        }
        let name = ServerName::try_from(HOST).expect("a constant name");
        Ok(Http1::new(
            self.tls.connect(name, plain.into_inner()).await?,
        ))
    }
}

/// A random time from none to twice the `mean`. Two loads of one even pace would keep their phases: each request of one would
/// meet an act of the other, or none would.
pub(crate) fn around(mean: Duration) -> Duration {
    mean.mul_f64(2.0 * fastrand::f64())
}

/// What one worker, or all of them, got.
#[derive(Default)]
struct Tally {
    latencies: Vec<Duration>,
    errors: u32,
    first_error: Option<String>,
}

impl Tally {
    /// The value, or nothing and one more error.
    fn settle<T>(&mut self, result: Result<io::Result<T>, Elapsed>) -> Option<T> {
        let error = match result {
            Ok(Ok(value)) => return Some(value),
            Ok(Err(error)) => error.to_string(),
            Err(elapsed) => elapsed.to_string(),
        };
        self.errors += 1;
        self.first_error.get_or_insert(error);
        None
    }

    fn add(&mut self, other: Self) {
        self.latencies.extend(other.latencies);
        self.errors += other.errors;
        self.first_error = self.first_error.take().or(other.first_error);
    }

    fn point(mut self) -> anyhow::Result<Point> {
        self.latencies.sort_unstable();
        let last = self.latencies.len().saturating_sub(1);
        let quantile = |percent: usize| {
            self.latencies
                .get(last * percent / 100)
                .map_or(0.0, Duration::as_secs_f64)
        };
        Ok(Point {
            requests: u32::try_from(self.latencies.len())?,
            errors: self.errors,
            p50: quantile(50),
            p99: quantile(99),
            longest: quantile(100),
            first_error: self.first_error,
            ..Point::default()
        })
    }
}
