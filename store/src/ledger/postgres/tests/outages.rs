//! A database that goes away, and comes back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ::leases::clock::SystemClock;
use parking_lot::Mutex;
use tempfile::TempDir;
use test_postgres::{Database, Server};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::{
    assert_each_use_is_recorded_once, count, lasting_lease, open_node, request_leases, use_on,
    verify,
};
use crate::ledger::{Holding, Standing};
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

/// The lease of a request, before it has selected a grant.
fn holding(request: &UseRequest) -> Holding<'_> {
    Holding {
        org: &request.org,
        lease: &request.lease,
        agent: &request.agent,
        grant: None,
        set: None,
        revocation_ids: &request.revocation_ids,
    }
}

/// A node on a server of its own, with leases to use up and a load that does so.
pub(super) struct Outage {
    server: &'static Server,
    pub(super) database: Database<'static>,
    pub(super) store: Store,
    pub(super) request: UseRequest,
    directory: TempDir,
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
            directory,
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
async fn however_many_leases_are_asked_about_a_server_that_says_nothing_is_waited_for_once() {
    let outage = Outage::new().await;
    let ledger = outage.store.ledger();
    let holdings = vec![holding(&outage.request); 2_500];
    let before = ledger.standings(&holdings).await.unwrap();
    outage.server.freeze();
    for _ in 0..2 {
        let began = Instant::now();
        let standings = ledger.standings(&holdings).await;
        assert!(standings.is_err(), "{standings:?}");
        assert!(began.elapsed() < Duration::from_millis(1_500));
    }
    outage.server.thaw();
    let after = ledger.standings(&holdings).await.unwrap();
    for standings in [before, after] {
        assert_eq!(standings, vec![Standing::Good; 2_500]);
    }
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
    // Nobody uses anything while it is open, and not for longer than it may be open.
    let bounds = Duration::from_millis(500)..Duration::from_secs(5);
    assert!(bounds.contains(&took), "{took:?}");
    blocker.await.unwrap();
}

/// A wire to the server that can lose the answer to the batch of a lease.
struct Wire {
    port: u16,
    state: Arc<AtomicU8>,
    lease: Arc<Mutex<String>>,
    /// How often rows were read.
    looks: Arc<AtomicU64>,
}

const WHOLE: u8 = 0;
/// The answer to the next batch is lost, and its connection.
const LOSES_ONE: u8 = 1;
/// The same, and then the wire is cut.
const LOSES_ONE_AND_ALL: u8 = 2;
/// New connections are closed at once.
const CUT: u8 = 3;

impl Wire {
    async fn to(server: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let wire = Self {
            port: listener.local_addr().unwrap().port(),
            state: Arc::default(),
            lease: Arc::new(Mutex::new("none".to_owned())),
            looks: Arc::default(),
        };
        let (state, lease) = (Arc::clone(&wire.state), Arc::clone(&wire.lease));
        let looks = Arc::clone(&wire.looks);
        tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                if state.load(Ordering::SeqCst) != CUT {
                    let server = TcpStream::connect(("127.0.0.1", server)).await.unwrap();
                    tokio::spawn(carry(
                        (client, server),
                        Arc::clone(&state),
                        Arc::clone(&lease),
                        Arc::clone(&looks),
                    ));
                }
            }
        });
        wire
    }

    fn is(&self, state: u8) {
        self.state.store(state, Ordering::SeqCst);
    }

    fn loses(&self, state: u8, batch_of: &UseRequest) {
        *self.lease.lock() = batch_of.lease.to_string();
        self.is(state);
    }
}

/// Carries bytes both ways, until the answer to a batch is to be lost.
async fn carry(
    (mut client, mut server): (TcpStream, TcpStream),
    state: Arc<AtomicU8>,
    lease: Arc<Mutex<String>>,
    looks: Arc<AtomicU64>,
) {
    let has = |bytes: &[u8], text: &str| {
        bytes
            .windows(text.len())
            .any(|part| part == text.as_bytes())
    };
    let (mut asked, mut answered) = (vec![0; 65_536], vec![0; 65_536]);
    let mut is_losing = false;
    loop {
        tokio::select! {
            count = client.read(&mut asked) => {
                let Ok(count @ 1..) = count else { break };
                let asked = &asked[..count];
                looks.fetch_add(u64::from(has(asked, "SELECT ledger_rows")), Ordering::SeqCst);
                let is_batch = has(asked, "ledger_commit") && has(asked, &lease.lock());
                let next = match state.load(Ordering::SeqCst) {
                    LOSES_ONE if is_batch => Some(WHOLE),
                    LOSES_ONE_AND_ALL if is_batch => Some(CUT),
                    _ => None,
                };
                if let Some(next) = next {
                    state.store(next, Ordering::SeqCst);
                    is_losing = true;
                }
                if server.write_all(asked).await.is_err() { break }
            }
            count = server.read(&mut answered) => {
                let Ok(count @ 1..) = count else { break };
                // The server answers once it has committed.
                if is_losing || client.write_all(&answered[..count]).await.is_err() { break }
            }
        }
    }
}

/// A node that reaches its server by a wire.
async fn wired() -> (Wire, Outage, Store) {
    let outage = Outage::new().await;
    let port = outage.server.port();
    let wire = Wire::to(port).await;
    let url = outage.database.url();
    let url = url.replacen(&format!(":{port}/"), &format!(":{}/", wire.port), 1);
    let store = open_node(&url, &outage.directory, "wired", Arc::new(SystemClock)).await;
    (wire, outage, store)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_lease_that_the_door_looked_at_is_used_in_one_round_trip() {
    let (wire, outage, store) = wired().await;
    // Where blocks are revoked, those of each token are looked up too.
    outage.database.admin(&format!(
        "INSERT INTO revoked_blocks SELECT '\\x00', org_id, id, 0, 0 FROM leases WHERE id = '{}'",
        outage.request.lease
    ));
    for single in request_leases(&outage.database, &outage.request, 10) {
        let standing = store.ledger().standing(&holding(&single)).await.unwrap();
        assert_eq!(standing, Standing::Good);
        let looks = wire.looks.load(Ordering::SeqCst);
        use_on(&store, &single).await.unwrap();
        assert_eq!(wire.looks.load(Ordering::SeqCst), looks);
    }
    let unseen = request_leases(&outage.database, &outage.request, 1).remove(0);
    let looks = wire.looks.load(Ordering::SeqCst);
    use_on(&store, &unseen).await.unwrap();
    assert_eq!(wire.looks.load(Ordering::SeqCst), looks + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_answer_was_lost_is_looked_up_and_told() {
    let (wire, outage, store) = wired().await;
    for single in request_leases(&outage.database, &outage.request, 10) {
        wire.loses(LOSES_ONE, &single);
        assert_eq!(use_on(&store, &single).await, Ok(()));
        assert_eq!(
            use_on(&store, &single).await,
            Err(UseRefusal::LeaseConsumed)
        );
    }
    assert_each_use_is_recorded_once(&outage.database);
    assert!(verify(&store).await.is_intact());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_is_found_after_its_caller_was_refused_stays_and_is_abandoned() {
    let (wire, outage, store) = wired().await;
    let single = request_leases(&outage.database, &outage.request, 1).remove(0);
    let earlier = store
        .ledger()
        .record_use(outage.request.clone())
        .await
        .unwrap();
    wire.loses(LOSES_ONE_AND_ALL, &single);
    store
        .ledger()
        .record_outcome(outcome(&outage.request, &earlier));
    let refused = use_on(&store, &single).await;
    assert!(
        matches!(refused, Err(UseRefusal::Unavailable(_))),
        "{refused:?}"
    );
    wire.is(WHOLE);
    until_used(&store, &outage.request, 10).await;
    assert_eq!(
        use_on(&store, &single).await,
        Err(UseRefusal::LeaseConsumed)
    );
    let outcomes = |error: &str| {
        let query = format!(
            "SELECT count(*) FROM audit_events WHERE action = 'lease.outcome' AND body LIKE '%{error}%'"
        );
        count(&outage.database, &query)
    };
    eventually("the outcome", || outcomes("\"error\":\"abandoned\"") == 1).await;
    // The outcome that was in the same batch is not recorded again.
    assert_eq!(outcomes(earlier.use_id().as_str()), 1);
    assert_each_use_is_recorded_once(&outage.database);
    assert!(verify(&store).await.is_intact());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_once_closed_still_gives_later_uses_in_doubt_their_outcome() {
    let (wire, outage, store) = wired().await;
    use_on(&store, &outage.request).await.unwrap();
    outage.database.admin(
        "UPDATE audit_streams SET writer = 'closed' WHERE stream = 'wired/ledger'; \
         UPDATE ledger_state SET is_open = 0 WHERE node = 'wired'",
    );
    use_on(&store, &outage.request).await.unwrap();
    let single = request_leases(&outage.database, &outage.request, 1).remove(0);
    wire.loses(LOSES_ONE_AND_ALL, &single);
    let refused = use_on(&store, &single).await;
    assert!(
        matches!(refused, Err(UseRefusal::Unavailable(_))),
        "{refused:?}"
    );
    wire.is(WHOLE);
    until_used(&store, &outage.request, 10).await;
    let abandoned = "SELECT count(*) FROM audit_events WHERE action = 'lease.outcome' \
        AND body LIKE '%\"error\":\"abandoned\"%'";
    eventually("the outcome", || count(&outage.database, abandoned) == 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_put_back_under_a_running_node_revives_no_lease() {
    let outage = Outage::new().await;
    let Outage {
        database,
        store,
        request,
        ..
    } = &outage;
    use_on(store, request).await.unwrap();
    database.admin("CREATE TABLE kept AS SELECT position FROM audit_events");
    use_on(store, request).await.unwrap();
    let leases = store.leases();
    leases
        .revoke(&request.org, &request.lease, &person())
        .await
        .unwrap();
    database.admin(
        "DELETE FROM audit_events WHERE position NOT IN (SELECT position FROM kept); \
         UPDATE leases SET revoked_at = NULL; \
         SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
         WHERE pid <> pg_backend_pid() AND datname = current_database()",
    );
    let refused = loop {
        match use_on(store, request).await {
            Err(UseRefusal::Unavailable(_)) => {}
            other => break other,
        }
    };
    assert!(
        matches!(refused, Err(UseRefusal::LeaseRevoked { .. })),
        "{refused:?}"
    );
    let health = store.ledger().health();
    assert_eq!(health.restore_epochs, 1);
    assert_eq!(health.restored.unwrap().ended_leases, 1);
    let bad = store.audit().verify().await.unwrap().first_bad.unwrap();
    assert_eq!(bad.reason, crate::BadReason::Truncated);
    store.close().await;
}
