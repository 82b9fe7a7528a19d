use std::time::Duration;

use super::*;
use crate::testing::*;

on_both! {
    a_lease_minted_from_another_is_within_it_and_ends_with_it,
    the_keys_that_were_asked_for_are_kept,
}

fn child(tenant: &Tenant, parent: &LeaseRecord) -> NewLease {
    NewLease {
        id: LeaseId::new(START + Duration::from_millis(1)),
        parent: Some(parent.id.clone()),
        ..tenant.new_lease(Kind::Request)
    }
}

async fn a_lease_minted_from_another_is_within_it_and_ends_with_it(world: World) {
    let one = tenant(&world.store, "one").await;
    let leases = world.store.leases();
    let create = async |new: NewLease| leases.create(&one.org, new, &person()).await;
    let parent = create(one.new_lease(Kind::Workflow)).await.unwrap();
    let made = create(child(&one, &parent)).await.unwrap();
    assert_eq!(made.parent.as_ref(), Some(&parent.id));
    let request = create(NewLease {
        id: LeaseId::new(START),
        ..one.new_lease(Kind::Request)
    });
    let request = request.await.unwrap();
    for refused in [
        child(&one, &request),
        NewLease {
            expires_at: parent.expires_at + Duration::from_secs(1),
            ..child(&one, &parent)
        },
        NewLease {
            parent: Some(LeaseId::new(START)),
            ..child(&one, &parent)
        },
    ] {
        let refused = create(refused).await;
        assert!(
            matches!(refused, Err(CreateLeaseError::ParentGone(_))),
            "{refused:?}"
        );
    }

    leases
        .revoke(&one.org, &parent.id, &person())
        .await
        .unwrap();
    let used = world.store.ledger().record_use(one.use_of(&made)).await;
    assert!(
        matches!(used, Err(crate::UseRefusal::LeaseRevoked { .. })),
        "{used:?}"
    );
    let unrelated = world.store.ledger().record_use(one.use_of(&request)).await;
    unrelated.unwrap();
    let late = create(child(&one, &parent)).await;
    assert!(matches!(late, Err(CreateLeaseError::ParentGone(_))));
}

async fn the_keys_that_were_asked_for_are_kept(world: World) {
    let one = tenant(&world.store, "one").await;
    let leases = world.store.leases();
    for keys in [Keys::All, Keys::Only(vec!["A".to_owned()])] {
        let new = NewLease {
            id: LeaseId::new(START),
            keys: keys.clone(),
            ..one.new_lease(Kind::Workflow)
        };
        let made = leases.create(&one.org, new, &person()).await.unwrap();
        let found = leases.get(&one.org, &made.id).await.unwrap();
        assert_eq!(found.unwrap().keys, Some(keys));
    }
}
