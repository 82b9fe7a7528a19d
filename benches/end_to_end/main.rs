//! Claviger beside a bare Pingora proxy that intercepts, in one run: what policy, ledger and injection cost.
//!
//! This program is also the upstream, the load generator and the bare proxy, each in a process of its own.
#![expect(
    clippy::print_stdout,
    reason = "the table is this program's output, and `ready` that of its parts"
)]

mod bare_pingora;
mod certificates;
mod contender;
mod hostile;
mod http1;
mod load;
mod process;
mod scenario;
mod secrets;
mod slow_keys;
mod upstream;

#[path = "../support/mod.rs"]
mod support;

use std::time::Duration;

use clap::{Parser, Subcommand};
use tokio::io::AsyncReadExt as _;
use tokio::signal::unix::{SignalKind, signal};

/// The name that the upstream's certificate carries.
const HOST: &str = "upstream.example";
/// What has to arrive at the upstream.
const CREDENTIAL: &str = "Bearer bench-4kXq0Zr8TbU2mWv6Yh1Ls9Dc3Nf7Gj5K";

/// The product's allocator, so that the bare proxy is no slower for lack of it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    run: scenario::Args,
    /// What cargo says to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
    #[command(subcommand)]
    role: Option<Role>,
}

#[derive(Subcommand)]
enum Role {
    /// Claviger with a key provider that takes 300 ms, beside one that takes none
    SlowKeys(slow_keys::Args),
    /// A polite client beside 10,000 idle tunnels, slow heads, floods of headers, resets and continuations, and bombs
    Hostile(hostile::Args),
    /// Secrets over the REST API: reads and writes a second, and reads beside strangers who try passwords and keys
    Secrets(secrets::Args),
    /// One attack, until its parent ends
    Attack(hostile::AttackArgs),
    /// HTTPS server: `/bytes/N`, and it reads whatever is uploaded
    Upstream(upstream::Args),
    /// CONNECT and interception with Pingora, and nothing else
    BarePingora(bare_pingora::Args),
    /// One point of load, as JSON
    Load(load::Args),
}

fn main() -> anyhow::Result<()> {
    rustls::crypto::ring::default_provider()
        .install_default()
        .map_err(|_| anyhow::anyhow!("a TLS provider is installed already"))?;
    let cli = Cli::parse();
    match cli.role {
        None => one_thread()?.block_on(until_stopped(scenario::run(&cli.run))),
        Some(Role::SlowKeys(args)) => one_thread()?.block_on(until_stopped(slow_keys::run(&args))),
        Some(Role::Hostile(args)) => one_thread()?.block_on(until_stopped(hostile::run(&args))),
        Some(Role::Secrets(args)) => one_thread()?.block_on(until_stopped(secrets::run(&args))),
        Some(Role::Attack(args)) => {
            one_thread()?.block_on(while_parent_lives(hostile::attack_for_ever(args)))
        }
        Some(Role::Load(args)) => one_thread()?.block_on(load::run(args)),
        Some(Role::Upstream(args)) => {
            one_thread()?.block_on(while_parent_lives(upstream::run(args)))
        }
        // As many threads as the product takes: one a core.
        Some(Role::BarePingora(args)) => {
            all_cores()?.block_on(while_parent_lives(bare_pingora::run(args)))
        }
    }
}

fn one_thread() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
}

fn all_cores() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
}

/// Ends with the first signal, which drops and so kills every process that was started.
async fn until_stopped(run: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let (mut terminate, mut interrupt) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    tokio::select! {
        result = run => result,
        _ = terminate.recv() => anyhow::bail!("stopped by a signal"),
        _ = interrupt.recv() => anyhow::bail!("stopped by a signal"),
    }
}

/// Ends with the parent, which holds the other end of standard input.
async fn while_parent_lives(run: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::select! {
        result = run => result,
        _ = async { tokio::io::stdin().read(&mut [0]).await } => Ok(()),
    }
}

/// Seconds of a point: enough to mean something, few enough to be no nuisance.
fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(seconds @ 0.2..=30.0) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("takes 0.2 to 30 seconds".to_owned()),
    }
}
