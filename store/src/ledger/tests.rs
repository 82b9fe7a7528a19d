use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use ::leases::RevocationId;
use ::leases::id::LeaseId;
use ::leases::scope::Kind;
use futures::future::join_all;

use super::*;
use crate::testing::*;
use crate::{AgentPatch, Event, EventFilter, PageRequest, Rate, Store};

async fn use_it(world: &World, request: &UseRequest) -> Result<RecordedUse, UseRefusal> {
    world.store.ledger().record_use(request.clone()).await
}

async fn events(store: &Store, tenant: &Tenant, action: &str) -> Vec<Event> {
    let filter = EventFilter {
        action: Some(action.to_owned()),
        ..EventFilter::default()
    };
    let page = PageRequest {
        limit: 200,
        cursor: None,
    };
    let page = store.audit().list(&tenant.org, &filter, &page).await;
    page.unwrap().items
}

/// Uses of one lease from many tasks at once.
async fn race(world: &World, request: &UseRequest, times: usize) -> Vec<Result<(), UseRefusal>> {
    let uses = (0..times).map(|_| {
        let (ledger, request) = (world.store.ledger().clone(), request.clone());
        tokio::spawn(async move { ledger.record_use(request).await.map(|_| ()) })
    });
    let ended = join_all(uses).await;
    ended.into_iter().map(|ended| ended.unwrap()).collect()
}

on_both!(
    a_use_and_its_outcome_are_two_events_with_one_id,
    of_64_uses_of_a_request_lease_exactly_one_wins,
    a_consumed_lease_stays_consumed_after_a_restart,
    a_narrowed_token_consumes_its_parents_lease,
    the_use_after_a_revocation_of_the_lease_is_refused,
    revoking_a_block_refuses_its_children_and_not_its_parent,
    the_use_after_a_revocation_of_the_grant_is_refused,
    an_inactive_or_deleted_agent_uses_nothing,
    a_use_gets_the_sets_version_of_its_commit_and_none_of_a_deleted_set,
    an_unknown_lease_and_another_organisations_are_refused_alike,
    a_lease_a_childs_time_and_a_grant_end_when_they_say,
    an_expired_grant_is_refused,
    a_clock_that_steps_back_revives_nothing_even_over_a_restart,
    a_rate_is_exact_in_each_window_and_over_a_restart,
    a_refusal_made_elsewhere_is_recorded,
    counts_for_display_follow_within_about_a_second,
    a_closed_ledger_refuses,
    the_standing_of_a_lease_follows_each_revocation,
    leases_asked_about_together_stand_each_for_itself,
    within_one_batch_a_request_lease_is_used_once,
    a_caller_that_gave_up_before_its_job_was_taken_has_used_nothing,
    a_use_whose_caller_gave_up_too_late_is_recorded_with_its_end,
    without_a_commit_a_use_is_refused_after_two_seconds,
);

async fn a_use_and_its_outcome_are_two_events_with_one_id(mut world: World) {
    let one = tenant(&world.store, "one").await;
    let request = one.lease(&world.store, Kind::Workflow).await;
    let recorded = use_it(&world, &request).await.unwrap();
    assert_eq!(recorded.secret_set_version(), 1);
    assert_eq!(recorded.set(), &one.set);
    assert_eq!(recorded.at(), START);
    let used = &events(&world.store, &one, "lease.use").await[0];
    assert_eq!(used.use_id.as_deref(), Some(recorded.use_id().as_str()));
    assert_eq!(used.keys, ["STRIPE_SECRET_KEY"]);
    assert_eq!(
        (used.host.as_deref(), used.port),
        (Some("api.stripe.com"), Some(443))
    );
    assert_eq!(used.grant_id.as_deref(), Some(one.grant.as_str()));
    assert_eq!(used.created_at, "2026-11-22T07:00:00.000Z");
    assert_eq!((used.stream.as_str(), used.seq), ("local/ledger", 1));
    world
        .store
        .ledger()
        .record_outcome(outcome(&request, &recorded));
    world.restart().await;
    let ended = &events(&world.store, &one, "lease.outcome").await[0];
    assert_eq!(ended.use_id, used.use_id);
    assert_eq!((ended.status, ended.bytes_down), (Some(200), Some(345)));
    assert_eq!(ended.address.as_deref(), Some("192.0.2.1"));
    assert_eq!(ended.prev_hash, used.hash);
}

async fn of_64_uses_of_a_request_lease_exactly_one_wins(world: World) {
    let one = tenant(&world.store, "one").await;
    let request = one.lease(&world.store, Kind::Request).await;
    let ended = race(&world, &request, 64).await;
    assert_eq!(ended.iter().filter(|ended| ended.is_ok()).count(), 1);
    let refused = ended.into_iter().filter_map(Result::err);
    assert!(
        refused
            .into_iter()
            .all(|refusal| refusal == UseRefusal::LeaseConsumed)
    );
    assert_eq!(events(&world.store, &one, "lease.use").await.len(), 1);
    let refusals = events(&world.store, &one, "lease.refuse").await;
    assert_eq!(refusals.len(), 63);
    assert!(
        refusals
            .iter()
            .all(|event| event.error.as_deref() == Some("lease_consumed"))
    );
    let lease = world
        .store
        .leases()
        .get(&one.org, &request.lease)
        .await
        .unwrap();
    assert_eq!(lease.unwrap().uses, 1);
}

/// Gives the thread a job while it is not its turn, and waits until it has taken it.
async fn occupy(
    world: &World,
    request: UseRequest,
) -> oneshot::Receiver<Result<RecordedUse, UseRefusal>> {
    let (answer, answered) = oneshot::channel();
    let queue = &world.store.ledger().shared.queue;
    queue.push(Waiting::Use(request, answer)).unwrap();
    eventually("the batch", || queue.len() == 0).await;
    answered
}

async fn within_one_batch_a_request_lease_is_used_once(world: World) {
    let one = tenant(&world.store, "one").await;
    let request = one.lease(&world.store, Kind::Request).await;
    let first = one.lease(&world.store, Kind::Workflow).await;
    let turn = world.store.inner.turn.lock().await;
    let blocker = occupy(&world, first).await;
    let race = race(&world, &request, 8);
    let free = async {
        eventually("the queue", || {
            world.store.ledger().health().queue_length >= 8
        })
        .await;
        drop(turn);
    };
    let (ended, ()) = futures::join!(race, free);
    blocker.await.unwrap().unwrap();
    assert_eq!(ended.iter().filter(|ended| ended.is_ok()).count(), 1);
}

async fn a_consumed_lease_stays_consumed_after_a_restart(mut world: World) {
    let one = tenant(&world.store, "one").await;
    let request = one.lease(&world.store, Kind::Request).await;
    use_it(&world, &request).await.unwrap();
    world.restart().await;
    let again = use_it(&world, &request).await;
    assert_eq!(again.unwrap_err(), UseRefusal::LeaseConsumed);
}

async fn a_narrowed_token_consumes_its_parents_lease(world: World) {
    let one = tenant(&world.store, "one").await;
    let parent = one.lease(&world.store, Kind::Request).await;
    let mut child = parent.clone();
    child.revocation_ids = [parent.revocation_ids[0], block(9)].into();
    use_it(&world, &child).await.unwrap();
    assert_eq!(
        use_it(&world, &parent).await.unwrap_err(),
        UseRefusal::LeaseConsumed
    );
}

fn block(byte: u8) -> RevocationId {
    RevocationId::from_bytes(&[byte; 64]).unwrap()
}

async fn the_use_after_a_revocation_of_the_lease_is_refused(world: World) {
    let one = tenant(&world.store, "one").await;
    let request = one.lease(&world.store, Kind::Workflow).await;
    use_it(&world, &request).await.unwrap();
    world
        .store
        .leases()
        .revoke(&one.org, &request.lease, &person())
        .await
        .unwrap();
    let refused = use_it(&world, &request).await.unwrap_err();
    assert_eq!(refused, UseRefusal::LeaseRevoked { at: START });
}

async fn revoking_a_block_refuses_its_children_and_not_its_parent(world: World) {
    let one = tenant(&world.store, "one").await;
    let parent = one.lease(&world.store, Kind::Workflow).await;
    let mut child = parent.clone();
    child.revocation_ids = [parent.revocation_ids[0], block(9), block(10)].into();
    use_it(&world, &child).await.unwrap();
    let leases = world.store.leases();
    leases
        .revoke_block(&one.org, &parent.lease, &block(9), START, &person())
        .await
        .unwrap();
    let refused = use_it(&world, &child).await.unwrap_err();
    assert_eq!(refused, UseRefusal::LeaseRevoked { at: START });
    use_it(&world, &parent).await.unwrap();
}

async fn the_use_after_a_revocation_of_the_grant_is_refused(world: World) {
    let one = tenant(&world.store, "one").await;
    let request = one.lease(&world.store, Kind::Workflow).await;
    use_it(&world, &request).await.unwrap();
    world
        .store
        .grants()
        .revoke(&one.org, &one.grant, &person())
        .await
        .unwrap();
    assert_eq!(
        use_it(&world, &request).await.unwrap_err(),
        UseRefusal::GrantRevoked
    );
}

async fn an_inactive_or_deleted_agent_uses_nothing(world: World) {
    let one = tenant(&world.store, "one").await;
    let request = one.lease(&world.store, Kind::Workflow).await;
    let agents = world.store.agents();
    for is_active in [false, true] {
        let patch = AgentPatch {
            is_active: Some(is_active),
            ..AgentPatch::default()
        };
        agents
            .patch(&one.org, &one.agent, patch, &person())
            .await
            .unwrap();
        assert_eq!(use_it(&world, &request).await.is_ok(), is_active);
    }
    agents
        .delete(&one.org, &one.agent, &person())
        .await
        .unwrap();
    assert_eq!(
        use_it(&world, &request).await.unwrap_err(),
        UseRefusal::AgentInactive
    );
}

async fn a_use_gets_the_sets_version_of_its_commit_and_none_of_a_deleted_set(world: World) {
    let one = tenant(&world.store, "one").await;
    let request = one.lease(&world.store, Kind::Workflow).await;
    assert_eq!(
        use_it(&world, &request).await.unwrap().secret_set_version(),
        1
    );
    update_set(&world.store, &one, &["STRIPE_SECRET_KEY"]).await;
    assert_eq!(
        use_it(&world, &request).await.unwrap().secret_set_version(),
        2
    );
    world
        .store
        .secret_sets()
        .delete(&one.org, &one.set, &person())
        .await
        .unwrap();
    assert_eq!(
        use_it(&world, &request).await.unwrap_err(),
        UseRefusal::SetGone
    );
}

async fn an_unknown_lease_and_another_organisations_are_refused_alike(world: World) {
    let one = tenant(&world.store, "one").await;
    let other = tenant(&world.store, "other").await;
    let request = one.lease(&world.store, Kind::Workflow).await;
    let mut unknown = request.clone();
    unknown.lease = LeaseId::new(START);
    assert_eq!(
        use_it(&world, &unknown).await.unwrap_err(),
        UseRefusal::Unknown
    );
    let mut foreign = request.clone();
    foreign.org = other.org.clone();
    assert_eq!(
        use_it(&world, &foreign).await.unwrap_err(),
        UseRefusal::Unknown
    );
    let mut stolen = request.clone();
    stolen.agent = other.agent.clone();
    assert_eq!(
        use_it(&world, &stolen).await.unwrap_err(),
        UseRefusal::Unknown
    );
    let mut set = request.clone();
    set.set = other.set.clone();
    assert_eq!(use_it(&world, &set).await.unwrap_err(), UseRefusal::SetGone);
    let mut grant = request;
    grant.grant = other.grant.clone();
    assert_eq!(
        use_it(&world, &grant).await.unwrap_err(),
        UseRefusal::GrantRevoked
    );
}

async fn a_lease_a_childs_time_and_a_grant_end_when_they_say(world: World) {
    let one = tenant(&world.store, "one").await;
    let request = one.lease(&world.store, Kind::Workflow).await;
    let mut child = request.clone();
    child.expires_at = START + Duration::from_secs(30);
    world.advance(Duration::from_secs(30));
    let refused = use_it(&world, &child).await.unwrap_err();
    assert_eq!(
        refused,
        UseRefusal::LeaseExpired {
            at: child.expires_at
        }
    );
    use_it(&world, &request).await.unwrap();
    let mut longer = request.clone();
    longer.expires_at += Duration::from_hours(1);
    world.advance(Duration::from_mins(10));
    let refused = use_it(&world, &longer).await.unwrap_err();
    assert_eq!(
        refused,
        UseRefusal::LeaseExpired {
            at: request.expires_at
        }
    );
}

async fn an_expired_grant_is_refused(world: World) {
    let mut one = tenant(&world.store, "one").await;
    let ends_at = START + Duration::from_mins(20);
    let short = grant(
        &world.store,
        &one.org,
        &one.agent,
        &one.set,
        Some(ends_at),
        None,
    )
    .await;
    one.grant = short.id;
    let request = one.lease(&world.store, Kind::Workflow).await;
    use_it(&world, &request).await.unwrap();
    // A grant's end never comes before its leases', unless its row is changed.
    world.tamper("UPDATE grants SET expires_at = 0");
    assert_eq!(
        use_it(&world, &request).await.unwrap_err(),
        UseRefusal::GrantExpired
    );
}

async fn a_clock_that_steps_back_revives_nothing_even_over_a_restart(mut world: World) {
    let one = tenant(&world.store, "one").await;
    let request = one.lease(&world.store, Kind::Workflow).await;
    world.advance(Duration::from_mins(11));
    assert!(use_it(&world, &request).await.is_err());
    world.clock.set(START);
    let expired = UseRefusal::LeaseExpired {
        at: request.expires_at,
    };
    assert_eq!(use_it(&world, &request).await.unwrap_err(), expired);
    assert_eq!(world.store.clock_behind(), Duration::from_mins(11));
    assert_eq!(world.store.ledger().health().clock_steps, 1);
    world.restart().await;
    assert_eq!(use_it(&world, &request).await.unwrap_err(), expired);
    assert_eq!(world.store.clock_behind(), Duration::from_mins(11));
}

async fn a_rate_is_exact_in_each_window_and_over_a_restart(mut world: World) {
    let mut one = tenant(&world.store, "one").await;
    let rate = Rate {
        requests: 10,
        per_seconds: 60,
    };
    one.grant = grant(
        &world.store,
        &one.org,
        &one.agent,
        &one.set,
        None,
        Some(rate),
    )
    .await
    .id;
    let request = one.lease(&world.store, Kind::Workflow).await;
    let ended = race(&world, &request, 64).await;
    assert_eq!(ended.iter().filter(|ended| ended.is_ok()).count(), 10);
    world.restart().await;
    world.advance(Duration::from_secs(20));
    let refused = use_it(&world, &request).await.unwrap_err();
    let retry_after = Duration::from_secs(40);
    assert_eq!(refused, UseRefusal::RateLimited { retry_after });
    world.advance(Duration::from_secs(40));
    let ended = race(&world, &request, 64).await;
    assert_eq!(ended.iter().filter(|ended| ended.is_ok()).count(), 10);
}

async fn a_refusal_made_elsewhere_is_recorded(world: World) {
    let one = tenant(&world.store, "one").await;
    let refused = Refused {
        org: one.org.clone(),
        error: "grant_denied".to_owned(),
        agent: Some(one.agent.clone()),
        lease: None,
        set: None,
        grant: None,
        request: facts(),
    };
    world.store.ledger().record_refusal(refused).await.unwrap();
    let event = &events(&world.store, &one, "lease.refuse").await[0];
    assert_eq!(event.decision, crate::Decision::Deny);
    assert_eq!(event.error.as_deref(), Some("grant_denied"));
    assert_eq!(event.actor_id, one.agent.as_str());
}

async fn counts_for_display_follow_within_about_a_second(mut world: World) {
    let one = tenant(&world.store, "one").await;
    let request = one.lease(&world.store, Kind::Workflow).await;
    for _ in 0..3 {
        use_it(&world, &request).await.unwrap();
    }
    world.restart().await;
    let store = &world.store;
    let lease = store.leases().get(&one.org, &request.lease).await.unwrap();
    assert_eq!(lease.unwrap().uses, 3);
    let agent = store
        .agents()
        .get(&one.org, &one.agent)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(agent.last_used_at, Some(START));
}

#[tokio::test]
async fn a_full_disk_refuses_uses_keeps_outcomes_and_heals_without_a_restart() {
    let world = World::new().await;
    let one = tenant(&world.store, "one").await;
    let workflow = one.lease(&world.store, Kind::Workflow).await;
    let single = one.lease(&world.store, Kind::Request).await;
    let recorded = use_it(&world, &workflow).await.unwrap();
    let ledger = world.store.ledger();
    *ledger.shared.before_next.lock() = Some("PRAGMA max_page_count = 1");
    let mut refused = 0;
    // A few records still fit the last page.
    for _ in 0..16 {
        refused += usize::from(matches!(
            use_it(&world, &workflow).await,
            Err(UseRefusal::Unavailable(_))
        ));
    }
    assert!(refused > 0);
    assert!(matches!(
        use_it(&world, &single).await,
        Err(UseRefusal::Unavailable(_))
    ));
    ledger.record_outcome(outcome(&workflow, &recorded));
    eventually("the hold", || ledger.health().held_outcomes == 1).await;
    let health = ledger.health();
    assert!(health.last_error.is_some() && health.write_errors > 0);
    *ledger.shared.before_next.lock() = Some("PRAGMA max_page_count = 4294967294");
    use_it(&world, &single).await.unwrap();
    let health = ledger.health();
    assert_eq!((health.last_error, health.held_outcomes), (None, 0));
    assert!(!events(&world.store, &one, "lease.outcome").await.is_empty());
    assert!(world.store.audit().verify().await.unwrap().is_intact());
}

#[tokio::test]
async fn a_read_only_connection_is_replaced_by_itself() {
    let world = World::new().await;
    let one = tenant(&world.store, "one").await;
    let request = one.lease(&world.store, Kind::Request).await;
    *world.store.ledger().shared.before_next.lock() = Some("PRAGMA query_only = 1");
    let refused = use_it(&world, &request).await;
    assert!(
        matches!(refused, Err(UseRefusal::Unavailable(_))),
        "{refused:?}"
    );
    use_it(&world, &request).await.unwrap();
    assert!(world.store.audit().verify().await.unwrap().is_intact());
}

#[tokio::test]
async fn a_commit_of_which_nothing_was_heard_is_found_and_nothing_of_it_recorded_twice() {
    let world = World::new().await;
    let one = tenant(&world.store, "one").await;
    let request = one.lease(&world.store, Kind::Workflow).await;
    let recorded = use_it(&world, &request).await.unwrap();
    let ledger = world.store.ledger();
    let lose = &ledger.shared.lose_next_answer;
    // An outcome alone: it is held on, and found to stand in the trail.
    lose.store(true, Ordering::Relaxed);
    ledger.record_outcome(outcome(&request, &recorded));
    eventually("the lost answer", || !lose.load(Ordering::Relaxed)).await;
    use_it(&world, &request).await.unwrap();
    let outcomes = events(&world.store, &one, "lease.outcome").await;
    assert_eq!(outcomes.len(), 1, "{outcomes:?}");
    // A use: its caller sends nothing, and the trail says so.
    lose.store(true, Ordering::Relaxed);
    let refused = use_it(&world, &request).await;
    assert!(matches!(refused, Err(UseRefusal::Unavailable(_))));
    use_it(&world, &request).await.unwrap();
    let uses = events(&world.store, &one, "lease.use").await;
    assert_eq!(uses.len(), 4);
    let unheard = async || events(&world.store, &one, "lease.outcome").await.len();
    for _ in 0..1_000 {
        if unheard().await == 2 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(unheard().await, 2);
    assert!(world.store.audit().verify().await.unwrap().is_intact());
}

#[tokio::test]
async fn a_lock_held_by_someone_else_is_waited_for_within_bounds() {
    let world = World::new().await;
    let one = tenant(&world.store, "one").await;
    let request = one.lease(&world.store, Kind::Request).await;
    let other = world.intruder();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let began = std::time::Instant::now();
    let refused = use_it(&world, &request).await;
    assert!(matches!(refused, Err(UseRefusal::Unavailable(_))));
    assert!(began.elapsed() < Duration::from_secs(3));
    other.execute_batch("ROLLBACK").unwrap();
    eventually("the lock's count", || {
        world.store.ledger().health().busy > 0
    })
    .await;
    use_it(&world, &request).await.unwrap();
}

async fn a_caller_that_gave_up_before_its_job_was_taken_has_used_nothing(world: World) {
    let one = tenant(&world.store, "one").await;
    let taken = one.lease(&world.store, Kind::Workflow).await;
    let single = one.lease(&world.store, Kind::Request).await;
    let turn = world.store.inner.turn.lock().await;
    let ledger = world.store.ledger();
    let waits = occupy(&world, taken).await;
    let gone = tokio::spawn({
        let (ledger, single) = (ledger.clone(), single.clone());
        async move { ledger.record_use(single).await }
    });
    eventually("the queue", || ledger.health().queue_length == 1).await;
    gone.abort();
    assert!(gone.await.unwrap_err().is_cancelled());
    drop(turn);
    waits.await.unwrap().unwrap();
    use_it(&world, &single).await.unwrap();
}

async fn a_use_whose_caller_gave_up_too_late_is_recorded_with_its_end(mut world: World) {
    let one = tenant(&world.store, "one").await;
    let single = one.lease(&world.store, Kind::Request).await;
    let turn = world.store.inner.turn.lock().await;
    let answered = occupy(&world, single.clone()).await;
    // Taken and filtered, the job now waits for its turn; only then does its caller go.
    tokio::time::sleep(Duration::from_millis(50)).await;
    drop(answered);
    drop(turn);
    assert_eq!(
        use_it(&world, &single).await.unwrap_err(),
        UseRefusal::LeaseConsumed
    );
    world.restart().await;
    let ended = &events(&world.store, &one, "lease.outcome").await[0];
    assert_eq!(ended.error.as_deref(), Some("abandoned"));
}

async fn without_a_commit_a_use_is_refused_after_two_seconds(world: World) {
    let one = tenant(&world.store, "one").await;
    let request = one.lease(&world.store, Kind::Request).await;
    let _turn = world.store.inner.turn.lock().await;
    let began = std::time::Instant::now();
    let refused = use_it(&world, &request).await;
    assert!(matches!(refused, Err(UseRefusal::Unavailable(_))));
    assert!(began.elapsed() >= Duration::from_secs(2));
}

async fn a_closed_ledger_refuses(world: World) {
    let one = tenant(&world.store, "one").await;
    let request = one.lease(&world.store, Kind::Request).await;
    world.store.close().await;
    assert!(matches!(
        use_it(&world, &request).await,
        Err(UseRefusal::Unavailable(_))
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_copy_made_under_load_holds_every_use_acknowledged_before_it() {
    let world = World::new().await;
    world.sign();
    let one = tenant(&world.store, "one").await;
    let request = one.lease(&world.store, Kind::Workflow).await;
    let single = one.lease(&world.store, Kind::Request).await;
    let finished = use_it(&world, &request).await.unwrap();
    world
        .store
        .ledger()
        .record_outcome(outcome(&request, &finished));
    use_it(&world, &single).await.unwrap();
    let load = tokio::spawn({
        let (ledger, request) = (world.store.ledger().clone(), request.clone());
        async move {
            loop {
                ledger.record_use(request.clone()).await.unwrap();
            }
        }
    });
    let before: Vec<_> = race(&world, &request, 200).await;
    assert!(before.iter().all(Result::is_ok));
    let copies = tempfile::tempdir().unwrap();
    let copy = copies.path().join("claviger.db");
    for suffix in ["", "-wal"] {
        let from = crate::open::beside(&world.database(), suffix);
        std::fs::copy(from, crate::open::beside(&copy, suffix)).unwrap();
    }
    load.abort();
    let crashed = open(&copy, &world.clock).await;
    assert_eq!(crashed.ledger().health().unclean_starts, 1);
    let again = crashed.ledger().record_use(single).await;
    assert_eq!(again.unwrap_err(), UseRefusal::LeaseConsumed);
    crashed.close().await;
    let crashed = open(&copy, &world.clock).await;
    assert!(crashed.audit().verify().await.unwrap().is_intact());
    let db = rusqlite::Connection::open(&copy).unwrap();
    let count = |what: &str| -> i64 {
        let query = format!("SELECT COUNT(*) FROM audit_events WHERE {what}");
        db.query_row(&query, [], |row| row.get(0)).unwrap()
    };
    let uses = count("action = 'lease.use'");
    assert!(uses >= 202, "{uses}");
    assert_eq!(count("action = 'lease.outcome'"), uses);
    assert_eq!(
        count("action = 'lease.outcome' AND body LIKE '%\"error\":\"unknown\"%'"),
        uses - 1
    );
    // What was settled once is not settled again.
    assert_eq!(crashed.ledger().health().unclean_starts, 1);
}

#[tokio::test]
async fn a_second_process_on_the_same_file_is_refused() {
    let world = World::new().await;
    let clock = Arc::clone(&world.clock) as Arc<dyn ::leases::clock::Clock>;
    let second = Store::open(StoreOptions::new(world.database(), clock)).await;
    assert!(matches!(second, Err(OpenError::InUse { .. })));
}

#[tokio::test]
async fn a_damaged_file_is_named_and_not_opened() {
    let world = World::new().await;
    let one = tenant(&world.store, "one").await;
    for _ in 0..20 {
        one.lease(&world.store, Kind::Workflow).await;
    }
    world.store.close().await;
    let mut bytes = std::fs::read(world.database()).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..].fill(0x5a);
    std::fs::write(world.database(), bytes).unwrap();
    let clock = Arc::clone(&world.clock) as Arc<dyn ::leases::clock::Clock>;
    let opened = Store::open(StoreOptions::new(world.database(), clock)).await;
    assert!(
        matches!(opened, Err(OpenError::Damaged { .. })),
        "{opened:?}"
    );
}

#[tokio::test]
async fn no_file_is_readable_by_others() {
    let world = World::new().await;
    world.sign();
    tenant(&world.store, "one").await;
    eventually("the checkpoint", || world.checkpoint().exists()).await;
    let mut names = Vec::new();
    for entry in std::fs::read_dir(world.directory.path()).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{:?}", entry.file_name());
        names.push(entry.file_name().into_string().unwrap());
    }
    for suffix in ["", "-wal", "-shm", ".lock"] {
        assert!(names.contains(&format!("claviger.db{suffix}")), "{names:?}");
    }
}

async fn the_standing_of_a_lease_follows_each_revocation(world: World) {
    let one = tenant(&world.store, "one").await;
    let other = tenant(&world.store, "other").await;
    let request = one.lease(&world.store, Kind::Workflow).await;
    let child = [request.revocation_ids[0], block(9)];
    let standing = async |org, ids| {
        let holding = Holding {
            org,
            lease: &request.lease,
            agent: &one.agent,
            grant: Some(&one.grant),
            set: Some(&one.set),
            revocation_ids: ids,
        };
        let ledger = world.store.ledger();
        let standing = ledger.standing(&holding).await.unwrap();
        let together = ledger.standings(&[holding.clone(), holding]).await.unwrap();
        assert_eq!(together, [standing; 2]);
        standing
    };
    let ids = &request.revocation_ids;
    assert_eq!(standing(&one.org, ids).await, Standing::Good);
    assert_eq!(standing(&other.org, ids).await, Standing::Unknown);
    let leases = world.store.leases();
    leases
        .revoke_block(&one.org, &request.lease, &block(9), START, &person())
        .await
        .unwrap();
    assert_eq!(standing(&one.org, &child).await, Standing::Revoked);
    assert_eq!(standing(&one.org, ids).await, Standing::Good);
    let sets = world.store.secret_sets();
    assert!(sets.delete(&one.org, &one.set, &person()).await.unwrap());
    assert_eq!(standing(&one.org, ids).await, Standing::SetGone);
    world
        .store
        .grants()
        .revoke(&one.org, &one.grant, &person())
        .await
        .unwrap();
    assert_eq!(standing(&one.org, ids).await, Standing::GrantRevoked);
    let patch = AgentPatch {
        is_active: Some(false),
        ..AgentPatch::default()
    };
    world
        .store
        .agents()
        .patch(&one.org, &one.agent, patch, &person())
        .await
        .unwrap();
    assert_eq!(standing(&one.org, ids).await, Standing::AgentInactive);
    leases
        .revoke(&one.org, &request.lease, &person())
        .await
        .unwrap();
    assert_eq!(standing(&one.org, ids).await, Standing::Revoked);
}

async fn leases_asked_about_together_stand_each_for_itself(world: World) {
    let one = tenant(&world.store, "one").await;
    let other = tenant(&world.store, "other").await;
    let good = one.lease(&world.store, Kind::Workflow).await;
    let revoked = one.lease(&world.store, Kind::Workflow).await;
    let barred = other.lease(&world.store, Kind::Workflow).await;
    let never = UseRequest {
        lease: LeaseId::new(START),
        ..good.clone()
    };
    let leases = world.store.leases();
    leases
        .revoke(&one.org, &revoked.lease, &person())
        .await
        .unwrap();
    leases
        .revoke_block(&one.org, &good.lease, &block(9), START, &person())
        .await
        .unwrap();
    world
        .store
        .grants()
        .revoke(&other.org, &other.grant, &person())
        .await
        .unwrap();
    let sets = world.store.secret_sets();
    assert!(
        sets.delete(&other.org, &other.set, &person())
            .await
            .unwrap()
    );
    let child = [good.revocation_ids[0], block(9)];
    let hold = |request, grant, revocation_ids| {
        let request: &UseRequest = request;
        Holding {
            org: &request.org,
            lease: &request.lease,
            agent: &request.agent,
            grant,
            set: None,
            revocation_ids,
        }
    };
    let of_set = |set| Holding {
        set: Some(set),
        ..hold(&good, Some(&one.grant), &good.revocation_ids)
    };
    let ids = &good.revocation_ids[..];
    let holdings = [
        hold(&never, None, ids),
        hold(&good, Some(&one.grant), ids),
        hold(&revoked, None, ids),
        hold(&good, None, &child),
        hold(&barred, Some(&other.grant), &child),
        hold(&barred, None, &child),
        hold(&good, None, &[]),
        hold(&good, Some(&other.grant), ids),
        of_set(&one.set),
        of_set(&other.set),
        Holding {
            set: Some(&other.set),
            ..hold(&barred, None, &child)
        },
    ];
    let standings = world.store.ledger().standings(&holdings).await.unwrap();
    let expected = [
        Standing::Unknown,
        Standing::Good,
        Standing::Revoked,
        Standing::Revoked,
        Standing::GrantRevoked,
        Standing::Good,
        Standing::Good,
        Standing::GrantRevoked,
        Standing::Good,
        Standing::SetGone,
        Standing::SetGone,
    ];
    assert_eq!(standings, expected);
    let none = world.store.ledger().standings(&[]).await.unwrap();
    assert!(none.is_empty());
}
