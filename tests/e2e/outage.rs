//! Without its ledger the injector forwards nothing, says so, and goes on by itself once the ledger is back.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use test_postgres::Server;
use tokio::task::block_in_place;

use crate::support::fleet::Load;
use crate::support::tunnel::Tunnel;
use crate::support::{Access, Fleet, Stack, chance, soak, wait};

const DISK: &str = "size=12m";
/// A committed use takes some hundred bytes, so a full disk of this size is reached long before.
const MOST_REQUESTS: usize = 20_000;

/// A small disk of its own, unmounted when it is dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None` where this machine does not let a test mount.
    fn mount(at: &Path) -> Option<Self> {
        std::fs::create_dir_all(at).unwrap();
        mount(
            Some("tmpfs"),
            at,
            Some("tmpfs"),
            MsFlags::empty(),
            Some(DISK),
        )
        .ok()?;
        Some(Self(at.to_owned()))
    }

    /// Takes every free byte; what is given back frees them when it is removed.
    fn fill(&self) -> PathBuf {
        let path = self.0.join("filler");
        let mut file = File::create(&path).unwrap();
        for size in [1 << 16, 1 << 12, 1] {
            let block = vec![0; size];
            while file.write_all(&block).is_ok() {}
        }
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

#[tokio::test]
async fn a_full_disk_is_503_ledger_unavailable_with_nothing_forwarded_and_heals_by_itself() {
    let home = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(&home.path().join("disk")) else {
        skip("this user may not mount a small disk to fill it");
        return;
    };
    let stack = Stack::builder()
        .data(&disk.0.join("data"))
        .log("info")
        .start()
        .await;
    let access = stack.stripe().await;
    let token = stack.workflow_lease(&access).await;
    let mut tunnel = stack.tunnel("api.stripe.com", &token).await;
    tunnel.get("/v1/balance").await.expect_status(200);
    let filler = disk.fill();

    let mut forwarded = 1;
    let refusal = loop {
        let reply = tunnel.get("/v1/balance").await;
        if reply.status != 200 {
            break reply;
        }
        forwarded += 1;
        assert!(
            forwarded < MOST_REQUESTS,
            "the disk is full and the ledger still commits"
        );
    };
    refusal.expect_refusal(503, "ledger_unavailable");
    assert_eq!(stack.upstream.count(), forwarded);
    for _ in 0..20 {
        let reply = stack.get("api.stripe.com", "/v1/balance", &token).await;
        if reply.status == 200 {
            // A checkpoint may find room once: then the use is on record.
            forwarded += 1;
        } else {
            reply.expect_refusal(503, "ledger_unavailable");
        }
        assert_eq!(stack.upstream.count(), forwarded);
    }
    let health = stack.admin().get("/v1/health").await;
    assert!(
        health.text().contains("ledger"),
        "health names what is degraded: {}",
        health.text()
    );

    std::fs::remove_file(filler).unwrap();
    healthy_again(&stack).await;
    wait::until("the ledger to come back without a restart", async || {
        let reply = stack.get("api.stripe.com", "/v1/balance", &token).await;
        (reply.status == 200).then_some(())
    })
    .await;
    stack.finish().await;
    drop(disk);
}

#[tokio::test]
async fn a_locked_database_is_503_within_its_deadline_and_heals_by_itself() {
    let stack = Stack::start().await;
    let access = stack.stripe().await;
    let token = stack.workflow_lease(&access).await;
    let mut tunnel = stack.tunnel("api.stripe.com", &token).await;
    tunnel.get("/v1/balance").await.expect_status(200);
    let blocker = rusqlite::Connection::open(stack.data.join("claviger.db")).unwrap();
    blocker
        .busy_timeout(std::time::Duration::from_secs(5))
        .unwrap();
    blocker.execute_batch("BEGIN IMMEDIATE").unwrap();

    let started = std::time::Instant::now();
    tunnel
        .get("/v1/balance")
        .await
        .expect_refusal(503, "ledger_unavailable");
    assert!(
        started.elapsed() < std::time::Duration::from_secs(6),
        "{:?}",
        started.elapsed()
    );
    assert_eq!(stack.upstream.count(), 1);

    blocker.execute_batch("ROLLBACK").unwrap();
    healthy_again(&stack).await;
    wait::until("the ledger to come back", async || {
        let reply = stack.get("api.stripe.com", "/v1/balance", &token).await;
        (reply.status == 200).then_some(())
    })
    .await;
    stack.finish().await;
}

/// The ledger's deadline of 2 s, and room for a busy machine.
const REFUSED_WITHIN: Duration = Duration::from_secs(4);
/// From the return of the database on.
const BACK_WITHIN: Duration = Duration::from_secs(10);

/// How Postgres goes away, and how it comes back.
struct Absence {
    go: fn(&Server),
    back: fn(&Server),
}

const CRASH: Absence = Absence {
    go: Server::crash,
    back: Server::resume,
};
const STANDSTILL: Absence = Absence {
    go: Server::freeze,
    back: Server::thaw,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_killed_under_load_is_503_with_nothing_forwarded_and_heals_by_itself() {
    without_postgres(&CRASH, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_that_hangs_under_load_is_503_with_nothing_forwarded_and_heals_by_itself() {
    without_postgres(&STANDSTILL, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_killed_behind_a_pooler_is_503_with_nothing_forwarded_and_heals_by_itself() {
    without_postgres(&CRASH, true).await;
}

/// Takes Postgres away under load, again and again, and looks at what agents and people are told meanwhile.
async fn without_postgres(absence: &Absence, pooled: bool) {
    let server = Server::start();
    let mut builder = Fleet::builder().on(&server).nodes(1, 2).log("info");
    if pooled {
        builder = builder.pooled();
    }
    let fleet = builder.start().await;
    let access = fleet.stripe().await;
    let token = fleet.workflow_lease(&access).await;
    let mut tunnels = Vec::new();
    for injector in 0..fleet.injectors() {
        let ends = fleet.by(0, injector);
        tunnels.push(ends.tunnel("api.stripe.com", &token).await);
    }

    for _ in 0..soak(20, 2) {
        let load = Load::start(&fleet, &token, 4).await;
        let before = fleet.upstream.count();
        fleet.upstream.reached(before + 1 + chance(60)).await;
        block_in_place(|| (absence.go)(&server));
        for tunnel in &mut tunnels {
            refused(tunnel).await;
        }
        let told = load.end().await;
        assert!(told.passed > 0, "{told:?}");
        assert!(told.longest < REFUSED_WITHIN, "{told:?}");
        let unavailable = (503, "ledger_unavailable".to_owned());
        assert!(
            told.refused.keys().all(|code| *code == unavailable),
            "{told:?}"
        );

        // What was on its way has arrived, and from here on nothing is sent.
        let sent = fleet.upstream.count();
        for tunnel in &mut tunnels {
            for _ in 0..3 {
                refused(tunnel).await;
            }
        }
        assert_eq!(fleet.upstream.count(), sent);
        for node in &fleet.nodes {
            let health = fleet.api_of(node).get("/v1/health").await;
            assert_eq!(health.status, 503, "{}", health.text());
        }

        block_in_place(|| (absence.back)(&server));
        back(&fleet, &access, &mut tunnels).await;
    }
    fleet.finish_after_crash().await;
}

/// One request is refused for want of the ledger, within its deadline.
async fn refused(tunnel: &mut Tunnel) {
    let asked = Instant::now();
    let reply = tunnel.get("/v1/balance").await;
    assert!(asked.elapsed() < REFUSED_WITHIN, "{:?}", asked.elapsed());
    reply.expect_refusal(503, "ledger_unavailable");
}

/// Waits for every injector to send again and for the control plane to mint again, within their time.
async fn back(fleet: &Fleet<'_>, access: &Access, tunnels: &mut [Tunnel]) {
    let returned = Instant::now();
    let left = || BACK_WITHIN.saturating_sub(returned.elapsed());
    for tunnel in tunnels {
        wait::until_after(left(), "an injector to send again", async || {
            let reply = tunnel.get("/v1/balance").await;
            (reply.status == 200).then_some(())
        })
        .await;
    }
    let body = serde_json::json!({ "secret_set_id": access.set, "agent_id": access.agent });
    wait::until_after(left(), "a lease", async || {
        let reply = fleet.admin().post("/v1/vault/leases", &body).await;
        (reply.status == 201).then(|| {
            let token = reply.json()["token"].as_str().map(str::to_owned);
            fleet.watch_token(&token.unwrap());
        })
    })
    .await;
}

/// Waits for health to be good while nobody uses a lease: load balancers send nothing to what is ill.
async fn healthy_again(stack: &Stack) {
    wait::until("good health of an idle server", async || {
        let health = stack.admin().get("/v1/health").await;
        (health.status == 200).then_some(())
    })
    .await;
}

#[expect(clippy::print_stderr, reason = "a skipped test says why")]
fn skip(reason: &str) {
    eprintln!("skipped: {reason}");
}
