//! What a slow key provider costs a request whose secret is opened already: nothing, if renewals come in time.
//!
//! Two servers with keys in Cloud KMS, whose double answers one of them at once and the other after 300 ms.

use std::time::Duration;

use anyhow::ensure;
use kms_double::{Action, Call, KmsDouble};

use crate::certificates;
use crate::contender::{Contender, Stage, start_role};
use crate::load::Point;
use crate::scenario::{self, Figures, Scenario, keep_alive};
use crate::support::{self, Table, time};

/// What every call of the slow one takes.
const DELAY: Duration = Duration::from_millis(300);
const KEY_RING: &str = "projects/bench/locations/global/keyRings/claviger";

#[derive(clap::Args)]
pub(crate) struct Args {
    /// How long each point is measured, in seconds
    #[arg(long, default_value = "20", value_parser = crate::seconds)]
    seconds: Duration,
    /// How often each point is measured; the table has the medians
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// How long an opened secret is kept; it is renewed after three quarters of this
    #[arg(long, default_value = "5s")]
    cache_ttl: String,
    /// Requests a second. Not as many as can be: whoever waits for an answer before asking again would hardly ask while
    /// a key is waited for
    #[arg(long, default_value_t = 100)]
    rate: u32,
}

/// Measures both in turns and prints the table.
pub(crate) async fn run(args: &Args) -> anyhow::Result<()> {
    ensure!(args.rounds > 0, "no round, no figure");
    let home = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let dir = home.path();
    certificates::generate(dir, "upstream")?;
    let (_upstream, upstream) = start_role("upstream", dir, &[]).await?;
    let stage = Stage { dir, upstream };
    let doubles = [KmsDouble::start()?, KmsDouble::start()?];
    doubles[1].fault_all(Action::Delay(DELAY));
    let contenders = [
        contender(&stage, "at once", "fast", &doubles[0], args).await?,
        contender(&stage, "300 ms", "slow", &doubles[1], args).await?,
    ];
    let load = Scenario {
        rate: Some(args.rate),
        ..keep_alive("constant rate", 16)
    };
    println!(
        "{}; {}/s over {} connections, secrets kept for {}; {} rounds of {:?}\n",
        support::machine(),
        args.rate,
        load.connections,
        args.cache_ttl,
        args.rounds,
        args.seconds
    );
    for double in &doubles {
        double.forget();
    }
    let pace = scenario::Args {
        seconds: args.seconds,
        rounds: args.rounds,
    };
    let points = load.measure(&contenders, upstream, &pace).await?;
    let mut table = Table::new(
        1,
        &[
            "key provider",
            "rate",
            "p50",
            "p99",
            "longest",
            "unwraps",
            "errors",
        ],
    );
    for ((contender, double), points) in contenders.iter().zip(&doubles).zip(&points) {
        let figures = Figures::of(points);
        let of_seconds = |seconds: f64| time(Duration::from_secs_f64(seconds));
        table.row(vec![
            contender.name.to_owned(),
            format!("{:.0}/s", figures.rate),
            of_seconds(figures.p50),
            of_seconds(figures.p99),
            of_seconds(longest(points)),
            double.count(Call::Decrypt).to_string(),
            figures.errors.to_string(),
        ]);
    }
    println!("{table}");
    let [fast, slow] = [&points[0], &points[1]].map(|points| Figures::of(points).p99);
    println!(
        "p99 with the slow one, of that with the fast one: {:.2}",
        slow / fast
    );
    Ok(())
}

fn longest(points: &[Point]) -> f64 {
    points.iter().map(|point| point.longest).fold(0.0, f64::max)
}

async fn contender(
    stage: &Stage<'_>,
    name: &'static str,
    directory: &str,
    double: &KmsDouble,
    args: &Args,
) -> anyhow::Result<Contender> {
    let endpoint = double.endpoint();
    let settings = [
        ("CLAVIGER_KEY_PROVIDER", "gcp-kms"),
        ("CLAVIGER_GCP_KMS_KEY_RING", KEY_RING),
        ("CLAVIGER_GCP_KMS_ENDPOINT", &endpoint),
        ("CLAVIGER_CACHE_TTL", &args.cache_ttl),
    ];
    Contender::claviger(stage, name, directory, &settings).await
}
