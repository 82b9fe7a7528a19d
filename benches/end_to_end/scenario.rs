//! The run: every scenario on every contender, in turns, and the table of medians.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use crate::certificates;
use crate::contender::{Contender, Stage, start_role};
use crate::load::Point;
use crate::support::{self, Table, time};

/// What a transfer of the two bulk scenarios carries.
const BULK_MIB: u32 = 100;
const BULK: u64 = BULK_MIB as u64 * 1024 * 1024;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// How long each point is measured, in seconds
    #[arg(long, default_value = "3", value_parser = crate::seconds)]
    pub(crate) seconds: Duration,
    /// How often each point is measured; the table has the medians
    #[arg(long, default_value_t = 3)]
    pub(crate) rounds: usize,
}

/// One kind of load.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) connections: usize,
    /// Bytes of each response's body.
    pub(crate) down: u64,
    /// Bytes of each request's body.
    pub(crate) up: u64,
    /// A tunnel for each request.
    pub(crate) new: bool,
    /// Requests a second, whatever the answers take; as many as can be, if there is none.
    pub(crate) rate: Option<u32>,
}

/// Bodies first and many connections last: what a process allocated once, it may keep.
const SCENARIOS: [Scenario; 6] = [
    Scenario {
        name: "100 MiB down",
        connections: 1,
        down: BULK,
        up: 0,
        new: false,
        rate: None,
    },
    Scenario {
        name: "100 MiB up",
        connections: 1,
        down: 0,
        up: BULK,
        new: false,
        rate: None,
    },
    keep_alive("1 connection", 1),
    keep_alive("32 connections", 32),
    keep_alive("256 connections", 256),
    Scenario {
        new: true,
        ..keep_alive("new CONNECT, 8 at once", 8)
    },
];

pub(crate) const fn keep_alive(name: &'static str, connections: usize) -> Scenario {
    Scenario {
        name,
        connections,
        down: 1024,
        up: 0,
        new: false,
        rate: None,
    }
}

/// Runs all of it and prints the table.
pub(crate) async fn run(args: &Args) -> anyhow::Result<()> {
    // Beside the build, not in a temporary directory: that one is often memory, where a sync costs nothing.
    let home = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let dir = home.path();
    certificates::generate(dir, "upstream")?;
    certificates::generate(dir, "interception")?;
    let (_upstream, upstream) = start_role("upstream", dir, &[]).await?;
    let stage = Stage { dir, upstream };
    let contenders = [
        Contender::bare_pingora(&stage).await?,
        Contender::claviger(&stage, "claviger, audit synced", "synced", &[]).await?,
        Contender::claviger(
            &stage,
            "claviger, audit committed",
            "committed",
            &[("CLAVIGER_LEDGER_DURABILITY", "committed")],
        )
        .await?,
    ];
    anyhow::ensure!(args.rounds > 0, "no round, no figure");
    println!(
        "{}; {} rounds of {:?}\n",
        support::machine(),
        args.rounds,
        args.seconds
    );
    let mut table = Table::new(
        2,
        &[
            "load",
            "proxy",
            "rate",
            "p50",
            "p99",
            "CPU/request",
            "of bare",
            "resident",
            "errors",
        ],
    );
    let mut failures = String::new();
    for scenario in &SCENARIOS {
        let points = scenario.measure(&contenders, upstream, args).await?;
        let bare = Figures::of(&points[0]).cpu;
        for (contender, points) in contenders.iter().zip(&points) {
            table.row(Figures::of(points).row(scenario, contender, bare));
            for error in points.iter().filter_map(|point| point.first_error.as_ref()) {
                writeln!(failures, "{}, {}: {error}", scenario.name, contender.name)?;
            }
        }
    }
    println!("{table}\n{failures}");
    Ok(())
}

impl Scenario {
    /// The points of each contender. Each round begins with another one, so that none always follows the same.
    pub(crate) async fn measure(
        &self,
        contenders: &[Contender],
        upstream: SocketAddr,
        args: &Args,
    ) -> anyhow::Result<Vec<Vec<Point>>> {
        let mut points: Vec<Vec<Point>> = contenders.iter().map(|_| Vec::new()).collect();
        for round in 0..args.rounds {
            for turn in 0..contenders.len() {
                let at = (turn + round) % contenders.len();
                points[at].push(contenders[at].measure(self, upstream, args.seconds).await?);
            }
        }
        Ok(points)
    }

    fn rate(&self, requests: f64) -> String {
        if self.up + self.down >= BULK {
            format!("{:.0} MiB/s", requests * f64::from(BULK_MIB))
        } else {
            format!("{requests:.0}/s")
        }
    }
}

/// The medians of a contender's points.
pub(crate) struct Figures {
    pub(crate) rate: f64,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    /// Seconds of the proxy's CPU time for a request.
    cpu: f64,
    resident_kib: u64,
    pub(crate) errors: u32,
}

impl Figures {
    pub(crate) fn of(points: &[Point]) -> Self {
        let per_request = |point: &Point| point.cpu / f64::from(point.requests.max(1));
        Self {
            rate: median(points, |point| f64::from(point.requests) / point.seconds),
            p50: median(points, |point| point.p50),
            p99: median(points, |point| point.p99),
            cpu: median(points, per_request),
            resident_kib: points
                .iter()
                .map(|point| point.resident_kib)
                .max()
                .unwrap_or(0),
            errors: points.iter().map(|point| point.errors).sum(),
        }
    }

    fn row(&self, scenario: &Scenario, contender: &Contender, bare: f64) -> Vec<String> {
        let time = |seconds: f64| time(Duration::from_secs_f64(seconds));
        vec![
            scenario.name.to_owned(),
            contender.name.to_owned(),
            scenario.rate(self.rate),
            time(self.p50),
            time(self.p99),
            time(self.cpu),
            format!("{:.2}", self.cpu / bare),
            format!("{} MiB", self.resident_kib / 1024),
            self.errors.to_string(),
        ]
    }
}

fn median(points: &[Point], figure: impl Fn(&Point) -> f64) -> f64 {
    let mut figures: Vec<f64> = points.iter().map(figure).collect();
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
