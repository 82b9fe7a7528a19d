//! A database that goes away, and comes back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ::leases::clock::SystemClock;
use tempfile::TempDir;
use test_postgres::{Database, Server};

use super::{
    assert_each_use_is_recorded_once, count, lasting_lease, open_node, request_leases, use_on,
    verify,
};
use crate::testing::*;
use crate::{CheckpointSigner, Location, Store, UseRefusal, UseRequest};

/// Waits, at most `seconds`, until a use succeeds; gives how long that took.
async fn until_used(store: &Store, request: &UseRequest, seconds: u64) -> Duration {
    let began = Instant::now();
    loop {
        match use_on(store, request).await {
            Ok(()) => return began.elapsed(),
            Err(UseRefusal::Unavailable(_)) => {
                assert!(
                    began.elapsed() < Duration::from_secs(seconds),
                    "no recovery"
                );
            }
            Err(other) => panic!("{other}"),
        }
    }
}

/// A node on a server of its own, with leases to use up and a load that does so.
pub(super) struct Outage {
    server: &'static Server,
    pub(super) database: Database<'static>,
    pub(super) store: Store,
    pub(super) request: UseRequest,
    _directory: TempDir,
}

impl Outage {
    pub(super) async fn new() -> Self {
        let server: &'static Server = Box::leak(Box::new(Server::start()));
        let database = server.database();
        let directory = tempfile::tempdir().unwrap();
        let store = open_node(&database.url(), &directory, "node", Arc::new(SystemClock)).await;
        store
            .audit()
            .start_checkpoints(CheckpointSigner::from_seed(&[7; 32]));
        let one = tenant(&store, "one").await;
        let request = lasting_lease(&store, &one).await;
        Self {
            server,
            database,
            store,
            request,
            _directory: directory,
        }
    }

    /// Uses each of `leases` once from four tasks while `fault` happens; checks that no refusal took longer than it may,
    /// and at the end that what was told is what is recorded.
    async fn under_load(&self, leases: usize, fault: impl AsyncFnOnce()) {
        let requests = request_leases(&self.database, &self.request, leases);
        let told = Arc::new(AtomicU64::new(0));
        let is_over = Arc::new(AtomicBool::new(false));
        let load: Vec<_> = requests
            .chunks(leases.div_ceil(4))
            .map(|share| {
                let (store, share) = (self.store.clone(), share.to_vec());
                let (told, is_over) = (Arc::clone(&told), Arc::clone(&is_over));
                tokio::spawn(async move {
                    for request in share {
                        if is_over.load(Ordering::Relaxed) {
                            break;
                        }
                        let began = Instant::now();
                        let used = use_on(&store, &request).await;
                        assert!(began.elapsed() < Duration::from_millis(2_400), "{used:?}");
                        match used {
                            Ok(()) => drop(told.fetch_add(1, Ordering::Relaxed)),
                            Err(UseRefusal::Unavailable(_)) => {}
                            Err(other) => panic!("{other}"),
                        }
                    }
                })
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(200)).await;
        fault().await;
        let recovered = until_used(&self.store, &self.request, 10).await;
        assert!(recovered < Duration::from_secs(10));
        is_over.store(true, Ordering::Relaxed);
        for task in load {
            task.await.unwrap();
        }
        assert!(told.load(Ordering::Relaxed) > 0);
        let recorded = count(
            &self.database,
            "SELECT count(*) FROM leases WHERE kind = 'request' AND uses = 1",
        );
        assert!(
            recorded >= told.load(Ordering::Relaxed),
            "a use was told and not recorded"
        );
        assert_each_use_is_recorded_once(&self.database);
        let report = verify(&self.store).await;
        assert!(report.is_intact(), "{report:?}");
        // Outcomes of uses whose callers were refused follow.
        let open = "SELECT count(*) FROM audit_events AS u WHERE action = 'lease.use' AND lease_id IN \
            (SELECT id FROM leases WHERE kind = 'request') AND NOT EXISTS (SELECT 1 FROM audit_events AS o \
            WHERE o.action = 'lease.outcome' AND o.body::JSON ->> 'use_id' = u.body::JSON ->> 'use_id')";
        let told = told.load(Ordering::Relaxed);
        eventually("the outcomes of unheard uses", || {
            count(&self.database, open) == told
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_under_load_loses_no_record_and_its_return_is_noticed() {
    let outage = Outage::new().await;
    outage
        .under_load(4_000, async || {
            for _ in 0..3 {
                outage.server.kill();
                tokio::time::sleep(Duration::from_millis(300)).await;
                outage.server.resume();
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_server_is_away_uses_are_refused_in_time_and_leases_stand_unknown() {
    let outage = Outage::new().await;
    outage
        .under_load(2_000, async || {
            outage.server.stop();
            for _ in 0..2 {
                let began = Instant::now();
                let refused = use_on(&outage.store, &outage.request).await;
                assert!(matches!(refused, Err(UseRefusal::Unavailable(_))));
                assert!(began.elapsed() < Duration::from_millis(2_400));
            }
            assert!(outage.store.ledger().health().last_error.is_some());
            outage.server.resume();
        })
        .await;
    let health = outage.store.ledger().health();
    assert!(health.last_error.is_none(), "{health:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_says_nothing_is_waited_for_within_bounds() {
    let outage = Outage::new().await;
    outage
        .under_load(2_000, async || {
            outage.server.freeze();
            let began = Instant::now();
            let refused = use_on(&outage.store, &outage.request).await;
            assert!(matches!(refused, Err(UseRefusal::Unavailable(_))));
            assert!(began.elapsed() < Duration::from_millis(2_400));
            tokio::time::sleep(Duration::from_secs(1)).await;
            outage.server.thaw();
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_are_cut_under_load_refuse_nobody() {
    let outage = Outage::new().await;
    outage
        .under_load(4_000, async || {
            for _ in 0..20 {
                outage.database.admin(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                     WHERE datname = current_database() AND pid <> pg_backend_pid()",
                );
                use_on(&outage.store, &outage.request).await.unwrap();
            }
        })
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_never_commits_holds_uses_up_for_two_seconds_at_most() {
    let outage = Outage::new().await;
    let blocker = tokio::task::spawn_blocking({
        let url = outage.database.url();
        move || {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            runtime.block_on(async {
                let Location::Postgres(url) = Location::parse(&url).unwrap() else {
                    panic!("a URL of Postgres");
                };
                let client = crate::postgres::connect(&url).await.unwrap();
                let begin = "BEGIN; SET LOCAL idle_in_transaction_session_timeout = '2s'; SELECT ledger_changing()";
                client.batch_execute(begin).await.unwrap();
                tokio::time::sleep(Duration::from_secs(4)).await;
            });
        }
    });
    let locked =
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ExclusiveLock'";
    eventually("the lock", || count(&outage.database, locked) > 0).await;
    let took = until_used(&outage.store, &outage.request, 10).await;
    assert!(took < Duration::from_secs(5), "{took:?}");
    blocker.await.unwrap();
}
