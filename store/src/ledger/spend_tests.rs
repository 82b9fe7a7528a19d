//! The stories of a budget, on both databases.

use std::time::Duration;

use ::leases::scope::Kind;
use futures::future::join_all;

use super::*;
use crate::testing::*;
use crate::{Event, EventFilter, PageRequest, Spend, Spent, Store};

const fn amount(tokens: u64, usd_micros: u64) -> Amount {
    Amount { tokens, usd_micros }
}

const fn tokens(limit: u64, per_seconds: Option<u32>) -> Spend {
    Spend {
        tokens: Some(limit),
        usd_micros: None,
        per_seconds,
    }
}

/// A lease on a grant with a budget, whose uses hold `estimate`.
async fn budgeted(
    store: &Store,
    tenant: &mut Tenant,
    spend: Spend,
    estimate: Amount,
) -> UseRequest {
    tenant.grant = grant_with(store, tenant, spend).await;
    UseRequest {
        estimate,
        ..tenant.lease(store, Kind::Workflow).await
    }
}

async fn use_on(store: &Store, request: &UseRequest) -> Result<RecordedUse, UseRefusal> {
    store.ledger().record_use(request.clone()).await
}

/// Ends a use that has spent so much.
fn end(store: &Store, request: &UseRequest, used: &RecordedUse, tokens_out: u64, usd_micros: u64) {
    let hold = used.hold().unwrap();
    store.ledger().record_outcome(Outcome {
        spent: Some(hold.spent(0, tokens_out, usd_micros)),
        ..outcome(request, used)
    });
}

/// What was spent of the tenant's grant, once the outcomes before are recorded.
async fn spent(store: &Store, one: &Tenant, now: OffsetDateTime) -> Spent {
    let probe = Refused {
        org: one.org.clone(),
        error: "grant_denied".to_owned(),
        agent: None,
        lease: None,
        set: None,
        grant: None,
        request: facts(),
    };
    // What was queued before is in the same batch or in one before.
    store.ledger().record_refusal(probe).await.unwrap();
    let spent = store.grants().spent(&one.org, &one.grant, now).await;
    spent.unwrap().unwrap()
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

fn overspent(refused: Result<RecordedUse, UseRefusal>) -> Overspent {
    match refused {
        Err(UseRefusal::SpendExceeded(over)) => over,
        other => panic!("a budget that is used up and not {other:?}"),
    }
}

on_both!(
    a_budget_is_spent_and_begins_anew,
    of_64_uses_at_once_no_more_begin_than_the_budget_holds,
    of_64_uses_that_each_hold_more_than_the_budget_one_begins,
    what_was_held_is_given_back_and_the_rest_can_be_spent,
    a_budget_for_life_stays_spent_over_a_restart,
    dollars_and_tokens_bound_each_for_itself,
    another_grant_is_not_hit_and_a_grant_without_one_holds_nothing,
    a_use_that_is_not_ended_stays_charged_with_what_it_held,
    a_use_of_which_nothing_was_sent_has_spent_nothing,
    a_budget_is_read_with_its_grant,
);

async fn a_budget_is_spent_and_begins_anew(world: World) {
    let mut one = tenant(&world.store, "one").await;
    let store = &world.store;
    let request = budgeted(store, &mut one, tokens(100, Some(60)), amount(10, 0)).await;
    let used = use_on(store, &request).await.unwrap();
    assert_eq!(used.hold().unwrap().amount(), amount(10, 0));
    end(store, &request, &used, 120, 77);
    world.advance(Duration::from_secs(20));
    let over = overspent(use_on(store, &request).await);
    assert_eq!((over.unit, over.limit), (Unit::Tokens, 100));
    assert_eq!((over.spent, over.held), (120, 0));
    assert_eq!(over.retry_after, Some(Duration::from_secs(40)));
    assert_eq!(over.resets_at, Some(START + Duration::from_mins(1)));
    let refusal = &events(store, &one, "lease.refuse").await[0];
    assert_eq!(refusal.error.as_deref(), Some("spend_exceeded"));
    let use_event = &events(store, &one, "lease.use").await[0];
    assert_eq!(use_event.held_tokens, Some(10));
    let ended = &events(store, &one, "lease.outcome").await[0];
    assert_eq!((ended.tokens_in, ended.tokens_out), (Some(0), Some(120)));
    assert_eq!(ended.usd_micros, Some(77));
    world.advance(Duration::from_secs(40));
    let again = use_on(store, &request).await.unwrap();
    end(store, &request, &again, 5, 1);
    let now = spent(store, &one, START + Duration::from_secs(61)).await;
    assert_eq!((now.spent, now.held), (amount(5, 1), amount(0, 0)));
}

async fn of_64_uses_at_once_no_more_begin_than_the_budget_holds(world: World) {
    let mut one = tenant(&world.store, "one").await;
    let request = budgeted(&world.store, &mut one, tokens(100, None), amount(10, 0)).await;
    let uses = (0..64).map(|_| {
        let (store, request) = (world.store.clone(), request.clone());
        tokio::spawn(async move { use_on(&store, &request).await })
    });
    let mut begun = 0;
    for ended in join_all(uses).await {
        match ended.unwrap() {
            Ok(_) => begun += 1,
            refused => assert_eq!(overspent(refused).retry_after, Some(Duration::from_secs(1))),
        }
    }
    assert_eq!(begun, 10);
    let held = spent(&world.store, &one, START).await;
    assert_eq!((held.spent, held.held), (amount(0, 0), amount(100, 0)));
}

async fn of_64_uses_that_each_hold_more_than_the_budget_one_begins(world: World) {
    let mut one = tenant(&world.store, "one").await;
    let store = &world.store;
    let request = budgeted(store, &mut one, tokens(20_000, None), amount(100_000, 0)).await;
    let racers = join_all((0..64).map(|_| use_on(store, &request))).await;
    let begun: Vec<_> = racers.into_iter().flatten().collect();
    assert_eq!(begun.len(), 1);
    end(store, &request, &begun[0], 90_000, 0);
    let spent = spent(store, &one, START).await;
    assert_eq!((spent.spent, spent.held), (amount(90_000, 0), amount(0, 0)));
    overspent(use_on(store, &request).await);
}

async fn what_was_held_is_given_back_and_the_rest_can_be_spent(world: World) {
    let mut one = tenant(&world.store, "one").await;
    let store = &world.store;
    let request = budgeted(store, &mut one, tokens(100, Some(60)), amount(100, 0)).await;
    for round in 0..5 {
        let used = use_on(store, &request).await.unwrap();
        let over = overspent(use_on(store, &request).await);
        assert_eq!((over.spent, over.held), (round * 20, 100));
        end(store, &request, &used, 20, 0);
    }
    assert_eq!(overspent(use_on(store, &request).await).spent, 100);
}

async fn a_budget_for_life_stays_spent_over_a_restart(mut world: World) {
    let mut one = tenant(&world.store, "one").await;
    let request = budgeted(&world.store, &mut one, tokens(100, None), amount(10, 0)).await;
    let used = use_on(&world.store, &request).await.unwrap();
    end(&world.store, &request, &used, 100, 0);
    world.restart().await;
    world.advance(Duration::from_mins(9));
    let over = overspent(use_on(&world.store, &request).await);
    assert_eq!((over.retry_after, over.resets_at), (None, None));
    assert_eq!((over.spent, over.held), (100, 0));
}

async fn dollars_and_tokens_bound_each_for_itself(world: World) {
    let mut one = tenant(&world.store, "one").await;
    let store = &world.store;
    let spend = Spend {
        tokens: Some(1_000),
        usd_micros: Some(50),
        per_seconds: Some(60),
    };
    let request = budgeted(store, &mut one, spend, amount(1, 1)).await;
    let used = use_on(store, &request).await.unwrap();
    end(store, &request, &used, 3, 49);
    let used = use_on(store, &request).await.unwrap();
    end(store, &request, &used, 3, 1);
    let over = overspent(use_on(store, &request).await);
    assert_eq!(
        (over.unit, over.limit, over.spent),
        (Unit::UsdMicros, 50, 50)
    );
}

async fn another_grant_is_not_hit_and_a_grant_without_one_holds_nothing(world: World) {
    let mut one = tenant(&world.store, "one").await;
    let store = &world.store;
    let free = one.lease(store, Kind::Workflow).await;
    let request = budgeted(store, &mut one, tokens(1, None), amount(1, 0)).await;
    let mut neighbour = one.clone();
    let theirs = budgeted(store, &mut neighbour, tokens(1, None), amount(1, 0)).await;
    use_on(store, &request).await.unwrap();
    overspent(use_on(store, &request).await);
    use_on(store, &theirs).await.unwrap();
    let used = use_on(store, &free).await.unwrap();
    assert_eq!(used.hold(), None);
    let none = store.grants().spent(&one.org, &free.grant, START).await;
    assert_eq!(none.unwrap(), None);
    let other = tenant(store, "other").await;
    let hidden = store.grants().spent(&other.org, &one.grant, START).await;
    assert_eq!(hidden.unwrap(), None, "another organisation's");
}

async fn a_use_that_is_not_ended_stays_charged_with_what_it_held(mut world: World) {
    let mut one = tenant(&world.store, "one").await;
    let request = budgeted(&world.store, &mut one, tokens(100, None), amount(60, 9)).await;
    use_on(&world.store, &request).await.unwrap();
    world.restart().await;
    let after = spent(&world.store, &one, START).await;
    assert_eq!((after.spent, after.held), (amount(60, 9), amount(0, 0)));
    let ended = &events(&world.store, &one, "lease.outcome").await[0];
    assert_eq!(ended.error.as_deref(), Some("unknown"));
    assert_eq!((ended.tokens_in, ended.usd_micros), (Some(60), Some(9)));
}

async fn a_use_of_which_nothing_was_sent_has_spent_nothing(mut world: World) {
    let mut one = tenant(&world.store, "one").await;
    let request = budgeted(&world.store, &mut one, tokens(100, None), amount(60, 9)).await;
    let used = use_on(&world.store, &request).await.unwrap();
    let outcome = outcome(&request, &used);
    world.store.ledger().record_outcome(outcome);
    world.restart().await;
    let after = spent(&world.store, &one, START).await;
    assert_eq!((after.spent, after.held), (amount(0, 0), amount(0, 0)));
}

async fn a_budget_is_read_with_its_grant(world: World) {
    let mut one = tenant(&world.store, "one").await;
    let store = &world.store;
    let free = one.grant.clone();
    let spend = Spend {
        tokens: Some(Spend::MOST),
        usd_micros: Some(25_000_000),
        per_seconds: Some(86_400),
    };
    one.grant = grant_with(store, &one, spend).await;
    let read = store.grants().get(&one.org, &one.grant).await.unwrap();
    assert_eq!(read.unwrap().spend, Some(spend));
    let list = store.grants().list(&one.org, &PageRequest::default()).await;
    let list = list.unwrap().items;
    assert_eq!(list.len(), 2);
    for grant in list {
        assert_eq!(grant.spend, (grant.id != free).then_some(spend));
    }
    let now = store.grants().spent(&one.org, &one.grant, START).await;
    assert_eq!(now.unwrap(), Some(Spent::default()));
}

#[tokio::test]
async fn a_commit_of_which_nothing_was_heard_counts_what_was_spent_once() {
    let world = World::new().await;
    let mut one = tenant(&world.store, "one").await;
    let store = &world.store;
    let request = budgeted(store, &mut one, tokens(100, None), amount(10, 0)).await;
    let used = use_on(store, &request).await.unwrap();
    let lose = &store.ledger().shared.lose_next_answer;
    lose.store(true, Ordering::Relaxed);
    end(store, &request, &used, 60, 0);
    eventually("the lost answer", || !lose.load(Ordering::Relaxed)).await;
    let after = spent(store, &one, START).await;
    assert_eq!((after.spent, after.held), (amount(60, 0), amount(0, 0)));
    // The use itself: its caller was refused and sends nothing.
    lose.store(true, Ordering::Relaxed);
    let refused = use_on(store, &request).await;
    assert!(matches!(refused, Err(UseRefusal::Unavailable(_))));
    for _ in 0..1_000 {
        if spent(store, &one, START).await.held == amount(0, 0) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let after = spent(store, &one, START).await;
    assert_eq!((after.spent, after.held), (amount(60, 0), amount(0, 0)));
}
