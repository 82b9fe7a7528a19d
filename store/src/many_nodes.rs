//! What one writer gives SQLite for nothing, many writers have to keep on Postgres.

use ::leases::clock::{Clock, ManualClock};
use ::leases::scope::Kind;
use std::sync::Arc;

use crate::testing::*;
use crate::{
    CreateLeaseError, DatabaseError, Idempotency, Rate, SetChange, Store, StoreError, StoreOptions,
    WriteSetError,
};

const NODES: usize = 3;

/// Stores of other processes on one database.
async fn nodes(world: &World) -> Vec<Store> {
    let mut nodes = Vec::new();
    for number in 0..NODES {
        nodes.push(node(world, &format!("node-{number}")).await);
    }
    nodes
}

async fn node(world: &World, name: &str) -> Store {
    let clock = Arc::<ManualClock>::clone(&world.clock) as Arc<dyn Clock>;
    let checkpoint = world.directory.path().join(format!("{name}.checkpoint"));
    let options = StoreOptions {
        node: name.to_owned(),
        ..StoreOptions::at(world.location(), checkpoint, clock)
    };
    Store::open(options).await.unwrap()
}

/// Does one thing many times at once, each on the next node; gives the answers.
async fn race<T, F>(nodes: &[Store], times: usize, act: impl Fn(Store, usize) -> F) -> Vec<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let racers = (0..times).map(|number| {
        let act = act(nodes[number % nodes.len()].clone(), number);
        tokio::spawn(act)
    });
    futures::future::join_all(racers)
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_name_is_taken_once_on_all_nodes() {
    let world = World::on_postgres().await;
    let (one, other) = (
        tenant(&world.store, "one").await,
        tenant(&world.store, "other").await,
    );
    let nodes = nodes(&world).await;
    for org in [&one.org, &other.org] {
        let made = race(&nodes, 24, |store, number| {
            let org = org.clone();
            async move {
                let new = new_agent("contested", &format!("{org} {number}"));
                store.agents().create(&org, new, &person()).await.is_ok()
            }
        });
        assert_eq!(made.await.into_iter().filter(|made| *made).count(), 1);
    }
    let first = race(&nodes, 12, |store, _| async move {
        store.orgs().ensure_first_org("again").await.unwrap().id
    });
    assert!(
        first
            .await
            .iter()
            .all(|id| *id == one.org || *id == other.org)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_version_is_given_once_on_all_nodes() {
    let world = World::on_postgres().await;
    let (one, other) = (
        tenant(&world.store, "one").await,
        tenant(&world.store, "other").await,
    );
    let nodes = nodes(&world).await;
    let put = sealed(&world.store, &one.org, "bot", &["STRIPE_SECRET_KEY"]).await;
    let written = race(&nodes, 12, |store, _| {
        let (org, set) = (one.org.clone(), one.set.clone());
        let change = SetChange {
            put: put.clone(),
            ..SetChange::default()
        };
        async move {
            store
                .secret_sets()
                .update(&org, &set, change, &person())
                .await
        }
    })
    .await;
    let (did, moved): (Vec<_>, Vec<_>) = written.into_iter().partition(Result::is_ok);
    assert_eq!(did.len(), 1);
    assert!(
        moved
            .iter()
            .all(|moved| matches!(moved, Err(WriteSetError::Moved)))
    );
    // Rollbacks need no new seal, so each of them makes a version.
    let versions = race(&nodes, 12, |store, _| {
        let (org, set) = (one.org.clone(), one.set.clone());
        async move {
            let back = store.secret_sets().rollback(&org, &set, 1, &person()).await;
            back.unwrap().unwrap().version
        }
    });
    let mut versions = versions.await;
    versions.sort_unstable();
    assert_eq!(versions, (3..=14).collect::<Vec<_>>());
    let theirs = world.store.secret_sets().get(&other.org, &other.set).await;
    assert_eq!(theirs.unwrap().unwrap().version, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_key_is_claimed_once_on_all_nodes_and_others_do_not_wait() {
    let world = World::on_postgres().await;
    let (one, other) = (
        tenant(&world.store, "one").await,
        tenant(&world.store, "other").await,
    );
    let nodes = nodes(&world).await;
    let claims = race(&nodes, 36, |store, number| {
        let org = if number % 2 == 0 {
            one.org.clone()
        } else {
            other.org.clone()
        };
        async move {
            store
                .idempotency()
                .begin(&org, "usr_a", "k", &[1; 32])
                .await
                .unwrap()
        }
    });
    let fresh = claims
        .await
        .into_iter()
        .filter(|claim| *claim == Idempotency::Fresh)
        .count();
    assert_eq!(fresh, 2, "one for each organisation");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_lease_is_recorded_after_its_grant_was_revoked_elsewhere() {
    let world = World::on_postgres().await;
    let (one, other) = (
        tenant(&world.store, "one").await,
        tenant(&world.store, "other").await,
    );
    let nodes = nodes(&world).await;
    for _ in 0..5 {
        let rate = Rate {
            requests: 1,
            per_seconds: 1,
        };
        let contested = grant(
            &world.store,
            &one.org,
            &one.agent,
            &one.set,
            None,
            Some(rate),
        )
        .await;
        let minted = race(&nodes, 12, |store, number| {
            let (one, contested) = (one.clone(), contested.clone());
            async move {
                if number == 6 {
                    store
                        .grants()
                        .revoke(&one.org, &contested.id, &person())
                        .await
                        .unwrap();
                    return None;
                }
                let mut new = one.new_lease(Kind::Request);
                new.sets = vec![(one.set.clone(), contested.id.clone())];
                let minted = store.leases().create(&one.org, new, &person()).await;
                match minted {
                    Ok(lease) => Some(lease.id),
                    Err(CreateLeaseError::GrantGone(_)) => None,
                    Err(error) => panic!("{error}"),
                }
            }
        });
        minted.await;
        let after = {
            let mut new = one.new_lease(Kind::Request);
            new.sets = vec![(one.set.clone(), contested.id.clone())];
            nodes[0].leases().create(&one.org, new, &person()).await
        };
        assert!(matches!(after, Err(CreateLeaseError::GrantGone(_))));
    }
    let new = other.new_lease(Kind::Request);
    let theirs = world
        .store
        .leases()
        .create(&other.org, new, &person())
        .await;
    assert!(theirs.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_nodes_events_are_listed_once_in_order_and_verified() {
    let world = World::on_postgres().await;
    let (one, other) = (
        tenant(&world.store, "one").await,
        tenant(&world.store, "other").await,
    );
    let nodes = nodes(&world).await;
    race(&nodes, 60, |store, number| {
        let org = if number % 2 == 0 {
            one.org.clone()
        } else {
            other.org.clone()
        };
        async move {
            let new = new_agent(&format!("agent {number}"), &format!("key {number}"));
            store.agents().create(&org, new, &person()).await.unwrap();
        }
    })
    .await;
    let report = nodes[1].audit().verify().await.unwrap();
    assert!(report.is_intact(), "{report:?}");
    let control = report
        .streams
        .iter()
        .filter(|stream| stream.stream.ends_with("/control"));
    assert_eq!(control.clone().count(), NODES + 1);
    assert!(control.clone().all(|stream| stream.events > 0));
    let mut page = crate::PageRequest {
        limit: 7,
        cursor: None,
    };
    let mut ids = Vec::new();
    loop {
        let filter = crate::EventFilter {
            action: Some("agent.create".to_owned()),
            ..crate::EventFilter::default()
        };
        let got = nodes[2]
            .audit()
            .list(&one.org, &filter, &page)
            .await
            .unwrap();
        assert!(
            got.items
                .iter()
                .all(|event| event.org_id == one.org.as_str())
        );
        ids.extend(got.items.into_iter().map(|event| event.id));
        page.cursor = got.next_cursor;
        if page.cursor.is_none() {
            break;
        }
    }
    assert_eq!(ids.len(), 31);
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 31);
}

#[tokio::test]
async fn of_two_processes_with_one_name_the_later_writes() {
    let world = World::on_postgres().await;
    let (one, other) = (
        tenant(&world.store, "one").await,
        tenant(&world.store, "other").await,
    );
    let earlier = node(&world, "twin").await;
    let make = |store: &Store, name: &str| {
        let (store, new, org) = (store.clone(), new_agent(name, name), one.org.clone());
        async move { store.agents().create(&org, new, &person()).await }
    };
    make(&earlier, "a").await.unwrap();
    let later = node(&world, "twin").await;
    make(&later, "b").await.unwrap();
    let refused = make(&earlier, "c").await.unwrap_err();
    assert!(
        matches!(
            refused,
            crate::CreateAgentError::Store(StoreError::Unavailable(DatabaseError::Fenced))
        ),
        "{refused:?}"
    );
    make(&later, "d").await.unwrap();
    assert!(later.audit().verify().await.unwrap().is_intact());
    assert!(
        earlier
            .agents()
            .get(&other.org, &other.agent)
            .await
            .unwrap()
            .is_some()
    );
}

#[tokio::test]
async fn a_commit_in_doubt_is_looked_up_before_anything_is_appended() {
    let world = World::on_postgres().await;
    let one = tenant(&world.store, "one").await;
    let inner = &world.store.inner;
    let make = |name: &'static str| {
        let new = new_agent(name, name);
        async { world.store.agents().create(&one.org, new, &person()).await }
    };
    // One that was committed, although its writer never heard of it.
    let before = inner.heads.control.get();
    make("heard by nobody").await.unwrap();
    let after = inner.heads.control.get();
    inner.heads.control.set(before);
    inner.control_head.lock().await.uncertain = Some(after);
    make("a").await.unwrap();
    assert_eq!(inner.heads.control.get().seq, after.seq + 1);
    // And one that was not.
    let before = inner.heads.control.get();
    inner.control_head.lock().await.uncertain = Some(before.next("never written"));
    make("b").await.unwrap();
    assert_eq!(inner.heads.control.get().seq, before.seq + 1);
    assert!(world.store.audit().verify().await.unwrap().is_intact());
}
