use std::sync::Arc;

use ::leases::clock::{Clock, ManualClock};

use super::*;
use crate::testing::*;
use crate::{Allowance, Allowances, Quota, StoreOptions};

on_both! {
    a_limit_is_exact_in_a_process_and_begins_anew_with_the_month,
    what_may_never_be_refused_is_counted_and_passes,
    counts_outlive_a_process_that_ends_and_nothing_of_another_organisation,
}

fn limited(world: &World, most: u64) {
    world.store.quotas().set_default(Quota {
        requests_per_month: Some(most),
        ..Quota::default()
    });
}

async fn admitted(world: &World, org: &OrgId, times: usize) -> usize {
    let tries = (0..times).map(|_| async {
        let admitted = world.store.requests().admit(org, false).await;
        admitted.unwrap().is_ok()
    });
    let admitted = futures::future::join_all(tries).await;
    admitted.into_iter().filter(|admitted| *admitted).count()
}

async fn a_limit_is_exact_in_a_process_and_begins_anew_with_the_month(world: World) {
    let one = tenant(&world.store, "one").await;
    let requests = world.store.requests();
    limited(&world, 10);
    assert_eq!(admitted(&world, &one.org, 7).await, 7);
    requests.flush().await.unwrap();
    assert_eq!(admitted(&world, &one.org, 50).await, 3);
    let refused = requests.admit(&one.org, false).await.unwrap().unwrap_err();
    assert_eq!(
        refused.to_string(),
        "Request limit reached: this organisation may have 10"
    );
    requests.flush().await.unwrap();
    requests.flush().await.unwrap();
    let standing = requests.standing(&one.org).await.unwrap();
    let full = Standing {
        used: 10,
        limit: Some(10),
    };
    assert_eq!(standing, full);
    // START is the 22nd; nine days later it is December.
    world.advance(Duration::from_hours(9 * 24));
    assert_eq!(requests.standing(&one.org).await.unwrap().used, 0);
    assert_eq!(admitted(&world, &one.org, 50).await, 10);
}

async fn what_may_never_be_refused_is_counted_and_passes(world: World) {
    let one = tenant(&world.store, "one").await;
    let requests = world.store.requests();
    limited(&world, 1);
    assert_eq!(admitted(&world, &one.org, 1).await, 1);
    let passed = requests.admit(&one.org, true).await.unwrap().unwrap();
    assert_eq!(passed.used, 2);
    // What turns out to be a repetition is taken back.
    requests.uncount(&one.org);
    requests.flush().await.unwrap();
    assert_eq!(requests.standing(&one.org).await.unwrap().used, 1);
}

async fn counts_outlive_a_process_that_ends_and_nothing_of_another_organisation(mut world: World) {
    let one = tenant(&world.store, "one").await;
    let other = tenant(&world.store, "other").await;
    limited(&world, 10);
    assert_eq!(admitted(&world, &one.org, 4).await, 4);
    world.restart().await;
    limited(&world, 10);
    let requests = world.store.requests();
    assert_eq!(requests.standing(&one.org).await.unwrap().used, 4);
    assert_eq!(requests.standing(&other.org).await.unwrap().used, 0);
    // What an operator says of one holds from the next look on.
    let more = Allowances {
        requests_per_month: Allowance::AtMost(5),
        ..Allowances::default()
    };
    let quotas = world.store.quotas();
    quotas.allow(&one.org, more, &person()).await.unwrap();
    requests.flush().await.unwrap();
    assert_eq!(admitted(&world, &one.org, 50).await, 1);
    assert_eq!(admitted(&world, &other.org, 50).await, 10);
}

#[tokio::test]
async fn nodes_add_up_once_they_have_looked() {
    let world = World::on_postgres().await;
    let one = tenant(&world.store, "one").await;
    let clock = Arc::<ManualClock>::clone(&world.clock) as Arc<dyn Clock>;
    let checkpoint = world.directory.path().join("two.checkpoint");
    let options = StoreOptions {
        node: "two".to_owned(),
        ..StoreOptions::at(world.location(), checkpoint, clock)
    };
    let second = Store::open(options).await.unwrap();
    for store in [&world.store, &second] {
        for _ in 0..3 {
            let admitted = store.requests().admit(&one.org, false).await;
            assert!(admitted.unwrap().is_ok());
        }
    }
    for store in [&world.store, &second, &world.store] {
        store.requests().flush().await.unwrap();
    }
    for store in [&world.store, &second] {
        let standing = store.requests().standing(&one.org).await.unwrap();
        assert_eq!(standing.used, 6);
    }
    second.close().await;
}
