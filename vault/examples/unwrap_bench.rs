//! How many DEKs a second each key provider unwraps, with 1, 4 and 16 callers at once.
//!
//! ```text
//! cargo run --release -p vault --example unwrap_bench [SECONDS]
//! ```
//!
//! `SoftHSM2` must be installed. Cloud KMS is measured where `CLAVIGER_BENCH_KMS_ENDPOINT` and
//! `CLAVIGER_BENCH_KMS_KEY_RING` name one; an endpoint on the loopback interface is spoken to without credentials.
#![expect(clippy::print_stdout, reason = "the table is what it is for")]

use std::{
    env,
    error::Error,
    sync::Arc,
    time::{Duration, Instant},
};

use vault::{
    Dek, KekId, KeyWrapper, Pkcs11Keys, Protection, SoftwareKeys,
    keys::{
        gcp_kms::{Credentials, GcpKmsKeys, GcpKmsOptions},
        pkcs11::softhsm::{self, SoftHsm},
    },
};

const AAD: &[u8] = b"org_1 vlt_1 stripe/prod/bot/STRIPE_SECRET_KEY 1";
const CALLERS: [usize; 3] = [1, 4, 16];
/// Where the token lies, across the process's replacement of itself.
const DIR_VARIABLE: &str = "CLAVIGER_BENCH_DIR";

type AnyError = Box<dyn Error + Send + Sync>;

fn main() -> Result<(), AnyError> {
    let Some(dir) = env::var_os(DIR_VARIABLE) else {
        return in_a_directory_of_its_own();
    };
    let hsm = SoftHsm::prepare(dir.as_ref())?;
    softhsm::enter(&hsm.conf())?;
    let seconds = env::args().nth(1).map_or(Ok(2), |text| text.parse())?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(measure_all(
        &hsm,
        dir.as_ref(),
        Duration::from_secs(seconds),
    ))
}

/// Runs this program once more, in a directory that is removed afterwards.
fn in_a_directory_of_its_own() -> Result<(), AnyError> {
    let dir = tempfile::tempdir()?;
    let status = std::process::Command::new(env::current_exe()?)
        .args(env::args_os().skip(1))
        .env(DIR_VARIABLE, dir.path())
        .status()?;
    if status.success() {
        Ok(())
    } else {
        Err("the measurement failed".into())
    }
}

async fn measure_all(hsm: &SoftHsm, dir: &std::path::Path, time: Duration) -> Result<(), AnyError> {
    println!(
        "{:<12} {:>8} {:>12} {:>10} {:>10}",
        "provider", "callers", "unwraps/s", "p50 us", "p99 us"
    );
    let software = SoftwareKeys::open(&dir.join("keys"), Protection::File)?;
    measure(Arc::new(software), time).await?;
    let pkcs11 = Pkcs11Keys::open(hsm.initialise()?).await?;
    measure(pkcs11, time).await?;
    if let Some(options) = kms_options()? {
        measure(GcpKmsKeys::open(options).await?, time).await?;
    }
    Ok(())
}

fn kms_options() -> Result<Option<GcpKmsOptions>, AnyError> {
    let Ok(endpoint) = env::var("CLAVIGER_BENCH_KMS_ENDPOINT") else {
        return Ok(None);
    };
    let key_ring = env::var("CLAVIGER_BENCH_KMS_KEY_RING")?;
    let mut options = GcpKmsOptions::new(key_ring);
    if endpoint.starts_with("http://") {
        options.credentials = Credentials::Anonymous;
    }
    options.endpoint = Some(endpoint);
    Ok(Some(options))
}

async fn measure(keys: Arc<dyn KeyWrapper>, time: Duration) -> Result<(), AnyError> {
    let kek = keys.create_kek("vlt_bench").await?;
    let wrapped: Arc<[u8]> = keys.wrap(&kek, &Dek::generate()?, AAD).await?.into();
    for callers in CALLERS {
        let started = Instant::now();
        let tasks: Vec<_> = (0..callers)
            .map(|_| {
                let (keys, kek, wrapped) = (Arc::clone(&keys), kek.clone(), Arc::clone(&wrapped));
                tokio::spawn(unwrap_until(keys, kek, wrapped, started + time))
            })
            .collect();
        let mut times = Vec::new();
        for task in tasks {
            times.append(&mut task.await??);
        }
        let rate = times.len() as u128 * 1_000_000 / started.elapsed().as_micros().max(1);
        times.sort_unstable();
        let quantile = |percent: usize| times[(times.len() - 1) * percent / 100].as_micros();
        println!(
            "{:<12} {callers:>8} {rate:>12} {:>10} {:>10}",
            keys.provider(),
            quantile(50),
            quantile(99),
        );
    }
    Ok(())
}

async fn unwrap_until(
    keys: Arc<dyn KeyWrapper>,
    kek: KekId,
    wrapped: Arc<[u8]>,
    end: Instant,
) -> Result<Vec<Duration>, AnyError> {
    let mut times = Vec::new();
    loop {
        let started = Instant::now();
        keys.unwrap(&kek, &wrapped, AAD).await?;
        times.push(started.elapsed());
        if Instant::now() >= end {
            return Ok(times);
        }
        tokio::task::yield_now().await;
    }
}
