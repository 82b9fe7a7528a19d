use std::sync::Arc;
use std::time::Duration;

use ::leases::clock::{Clock, ManualClock};
use ::leases::id::{AgentId, OrgId};
use ::leases::scope::Kind;
use time::OffsetDateTime;

use crate::ledger::{Holding, Standing};
use crate::testing::*;
use crate::{
    CreateLeaseError, EventFilter, NewLease, PageRequest, Store, StoreOptions, UseRefusal,
};

on_both! {
    everything_minted_before_is_revoked_and_what_is_minted_after_is_not,
    an_agents_cut_off_leaves_the_others_alone,
    a_lease_that_was_begun_before_a_cut_off_is_not_minted_after_it,
    a_paused_agent_gets_no_lease_and_the_refusal_says_who_paused,
    a_switch_of_another_organisation_moves_nothing_here,
    each_press_is_on_record_with_its_reason,
}

async fn two(world: &World) -> (Tenant, Tenant) {
    let one = tenant(&world.store, "one").await;
    let other = tenant(&world.store, "other").await;
    (one, other)
}

/// A lease as it would be minted now.
async fn current(store: &Store, tenant: &Tenant, kind: Kind) -> NewLease {
    let switch = store.kill_switch();
    let minting = switch.minting(&tenant.org, &tenant.agent).await.unwrap();
    NewLease {
        cut_off: minting.cut_off,
        ..tenant.new_lease(kind)
    }
}

async fn set_minting(
    store: &Store,
    org: &OrgId,
    agent: Option<&AgentId>,
    is_paused: bool,
    reason: &str,
) -> bool {
    let switch = store.kill_switch();
    let set = switch
        .set_minting(org, agent, is_paused, reason, &person())
        .await;
    set.unwrap()
}

async fn cut(
    store: &Store,
    org: &OrgId,
    agent: Option<&AgentId>,
    reason: &str,
) -> Option<OffsetDateTime> {
    let switch = store.kill_switch();
    let cut = switch.revoke_all(org, agent, reason, &person()).await;
    cut.unwrap()
}

async fn is_used(store: &Store, request: &crate::UseRequest) -> bool {
    match store.ledger().record_use(request.clone()).await {
        Ok(_) => true,
        Err(UseRefusal::LeaseRevoked { .. }) => false,
        Err(other) => panic!("{other}"),
    }
}

async fn everything_minted_before_is_revoked_and_what_is_minted_after_is_not(world: World) {
    let (one, _) = two(&world).await;
    let store = &world.store;
    let (single, many) = (
        one.lease(store, Kind::Request).await,
        one.lease(store, Kind::Workflow).await,
    );
    assert!(is_used(store, &many).await);
    let holding = |request| {
        let request: &crate::UseRequest = request;
        Holding {
            org: &one.org,
            lease: &request.lease,
            agent: &request.agent,
            grant: None,
            set: None,
            revocation_ids: &request.revocation_ids,
        }
    };
    let standing = store.ledger().standing(&holding(&many)).await;
    assert_eq!(standing.unwrap(), Standing::Good);
    world.advance(Duration::from_secs(1));
    let cut_off = cut(store, &one.org, None, "a key leaked").await;
    assert_eq!(cut_off, Some(world.clock.now()));
    for request in [&single, &many] {
        let refused = store.ledger().record_use(request.clone()).await;
        let at = world.clock.now();
        assert_eq!(refused.unwrap_err(), UseRefusal::LeaseRevoked { at });
        let standing = store.ledger().standing(&holding(request)).await;
        assert_eq!(standing.unwrap(), Standing::Revoked);
    }
    let holdings = [holding(&single), holding(&many)];
    let standings = store.ledger().standings(&holdings).await.unwrap();
    assert_eq!(standings, [Standing::Revoked; 2]);
    let (leases, page) = (store.leases(), PageRequest::default());
    let listed = leases.list(&one.org, None, &page).await.unwrap().items;
    assert!(listed.iter().all(|lease| lease.revoked_at == cut_off));

    let new = current(store, &one, Kind::Workflow).await;
    let lease = store.leases().create(&one.org, new, &person()).await;
    let request = one.use_of(&lease.unwrap());
    assert!(is_used(store, &request).await);
    let standing = store.ledger().standing(&holding(&request)).await;
    assert_eq!(standing.unwrap(), Standing::Good);
    assert!(!is_used(store, &many).await);
    let shown = store.leases().get(&one.org, &request.lease).await.unwrap();
    assert_eq!(shown.unwrap().revoked_at, None);
}

async fn an_agents_cut_off_leaves_the_others_alone(world: World) {
    let (one, _) = two(&world).await;
    let store = &world.store;
    let second = new_agent("second", "second");
    let second = store.agents().create(&one.org, second, &person()).await;
    let second = second.unwrap().id;
    let grant = grant(store, &one.org, &second, &one.set, None, None).await;
    let second = Tenant {
        agent: second,
        grant: grant.id,
        ..one.clone()
    };
    let (first, other) = (
        one.lease(store, Kind::Workflow).await,
        second.lease(store, Kind::Workflow).await,
    );
    let agent = Some(&one.agent);
    assert!(cut(store, &one.org, agent, "it misbehaves").await.is_some());
    assert!(!is_used(store, &first).await);
    assert!(is_used(store, &other).await);
    // The numbers are the organisation's, so a later cut-off of all is above one agent's.
    let new = current(store, &one, Kind::Workflow).await;
    let lease = store.leases().create(&one.org, new, &person()).await;
    let later = one.use_of(&lease.unwrap());
    assert!(is_used(store, &later).await);
    assert!(cut(store, &one.org, None, "all of them").await.is_some());
    assert!(!is_used(store, &later).await);
    assert!(!is_used(store, &other).await);
}

async fn a_lease_that_was_begun_before_a_cut_off_is_not_minted_after_it(world: World) {
    let (one, _) = two(&world).await;
    let store = &world.store;
    let begun = current(store, &one, Kind::Request).await;
    cut(store, &one.org, None, "now").await;
    let leases = store.leases();
    let made = leases.create(&one.org, begun.clone(), &person()).await;
    assert!(matches!(made, Err(CreateLeaseError::CutOff)));
    let made = store.leases().get(&one.org, &begun.id).await.unwrap();
    assert_eq!(made, None);
}

async fn a_paused_agent_gets_no_lease_and_the_refusal_says_who_paused(world: World) {
    let (one, _) = two(&world).await;
    let store = &world.store;
    let before = one.lease(store, Kind::Workflow).await;
    for agent in [None, Some(&one.agent)] {
        assert!(set_minting(store, &one.org, agent, true, "an incident").await);
        let refused = store
            .leases()
            .create(&one.org, one.new_lease(Kind::Request), &person())
            .await;
        let Err(CreateLeaseError::Paused(pause)) = refused else {
            panic!("{refused:?}");
        };
        assert_eq!(pause.agent.as_ref(), agent);
        assert_eq!(pause.press.by, person().id);
        assert_eq!(pause.press.reason, "an incident");
        assert_eq!(pause.press.at, world.clock.now());
        assert!(is_used(store, &before).await, "a pause revokes nothing");
        assert!(set_minting(store, &one.org, agent, false, "over").await);
        one.lease(store, Kind::Request).await;
    }
    let nobody = AgentId::new(START);
    assert!(!set_minting(store, &one.org, Some(&nobody), true, "who?").await);
    assert_eq!(cut(store, &one.org, Some(&nobody), "who?").await, None);
}

async fn a_switch_of_another_organisation_moves_nothing_here(world: World) {
    let (one, other) = two(&world).await;
    let store = &world.store;
    let lease = one.lease(store, Kind::Workflow).await;
    let foreign = Some(&one.agent);
    assert_eq!(cut(store, &other.org, foreign, "not mine").await, None);
    assert!(!set_minting(store, &other.org, foreign, true, "not mine").await);
    assert!(cut(store, &other.org, None, "mine").await.is_some());
    assert!(set_minting(store, &other.org, None, true, "mine").await);
    assert!(is_used(store, &lease).await);
    one.lease(store, Kind::Request).await;
    let switch = store.kill_switch();
    assert_eq!(switch.status(&one.org).await.unwrap(), []);
}

async fn each_press_is_on_record_with_its_reason(world: World) {
    let (one, _) = two(&world).await;
    let store = &world.store;
    let agent = Some(&one.agent);
    // Resuming what runs is nothing to tell of.
    for (is_paused, reason) in [(false, "nothing"), (true, "drill"), (false, "drill over")] {
        assert!(set_minting(store, &one.org, agent, is_paused, reason).await);
    }
    cut(store, &one.org, agent, "leaked").await;
    let status = store.kill_switch().status(&one.org).await.unwrap();
    let [only] = &status[..] else {
        panic!("{status:?}");
    };
    assert_eq!(only.agent.as_ref(), agent);
    assert_eq!(only.pause, None);
    assert_eq!(only.cut_off.as_ref().unwrap().reason, "leaked");
    let page = PageRequest {
        limit: 50,
        cursor: None,
    };
    let events = world
        .store
        .audit()
        .list(&one.org, &EventFilter::default(), &page)
        .await
        .unwrap()
        .items;
    let told: Vec<_> = events
        .iter()
        .filter(|event| event.action.starts_with("kill_switch."))
        .map(|event| (event.action.as_str(), event.reason.as_deref().unwrap()))
        .collect();
    let mut expected = [
        ("kill_switch.pause", "drill"),
        ("kill_switch.resume", "drill over"),
        ("kill_switch.revoke_all", "leaked"),
    ];
    expected.reverse();
    assert_eq!(told, expected, "newest first");
}

/// Mints and uses on two nodes run against the cut-off: what was minted before its answer came is dead on both.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_slips_past_a_cut_off_while_two_nodes_mint() {
    let world = World::on_postgres().await;
    let one = Arc::new(tenant(&world.store, "one").await);
    let clock = Arc::<ManualClock>::clone(&world.clock) as Arc<dyn Clock>;
    let options = StoreOptions {
        node: "second".to_owned(),
        ..StoreOptions::at(
            world.location(),
            world.directory.path().join("second.checkpoint"),
            clock,
        )
    };
    let second = Store::open(options).await.unwrap();
    let nodes = [world.store.clone(), second];
    let minters: Vec<_> = (0..4)
        .map(|number| {
            let (store, one) = (nodes[number % 2].clone(), Arc::clone(&one));
            tokio::spawn(async move {
                let mut minted = Vec::new();
                for _ in 0..12 {
                    let new = current(&store, &one, Kind::Workflow).await;
                    let under = new.cut_off;
                    match store.leases().create(&one.org, new, &person()).await {
                        Ok(lease) => minted.push((under, one.use_of(&lease))),
                        Err(CreateLeaseError::CutOff) => {}
                        Err(other) => panic!("{other}"),
                    }
                }
                minted
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(20)).await;
    cut(&nodes[0], &one.org, None, "now").await;
    let mut minted = Vec::new();
    for minter in minters {
        minted.extend(minter.await.unwrap());
    }
    assert!(!minted.is_empty());
    for (under, request) in &minted {
        for store in &nodes {
            assert_eq!(is_used(store, request).await, *under == 1, "{under}");
        }
    }
    nodes[1].close().await;
}
