//! The story that every database must pass: each operation by two organisations that must never
//! see or change what is the other's.

use std::collections::BTreeSet;
use std::time::Duration;

use ::leases::RevocationId;
use ::leases::id::{AgentId, GrantId, LeaseId, SetId, UserId, VaultId};
use ::leases::scope::{Keys, Kind};

use crate::testing::*;
use crate::{
    AgentPatch, CreateAgentError, CreateGrantError, CreateLeaseError, CreateUserError, Idempotency,
    NewGrant, NewSealedKey, NewSet, NewUser, NewVault, PageRequest, PatchAgentError, Rate, Role,
    SetChange, StoreError, WriteSetError,
};

on_both! {
    the_first_organisation_is_made_once,
    a_user_is_found_by_a_live_key_and_only_in_its_organisation,
    an_agent_is_made_changed_and_deleted_by_its_own_organisation_alone,
    an_agents_name_is_taken_once_and_free_after_its_deletion,
    of_many_who_make_one_name_one_wins,
    a_default_vault_is_made_once_for_each_organisation,
    a_set_gets_a_version_with_each_change_and_keeps_all_of_them,
    a_rollback_makes_a_new_version_with_the_old_contents,
    a_set_needs_a_free_name_an_entry_and_seals_for_the_right_place,
    of_two_writers_who_sealed_the_same_version_one_must_seal_anew,
    a_deleted_sets_name_is_free_and_its_secrets_versions_go_on,
    a_purged_sets_values_are_gone_and_no_other_sets,
    a_set_is_nothing_to_another_organisation,
    a_custom_description_is_kept_with_its_version,
    a_grant_joins_an_agent_and_a_set_of_one_organisation,
    only_live_grants_are_found_for_an_agent_and_a_set,
    a_lease_is_recorded_only_while_agent_grant_and_set_hold,
    a_lease_is_read_listed_and_revoked_by_its_own_organisation_alone,
    a_sealed_key_is_followed_by_the_next_version_alone,
    a_repeated_request_gets_the_first_answer,
    an_abandoned_claim_is_free_at_once_and_a_forgotten_one_after_a_minute,
    of_many_who_claim_one_key_one_is_first,
    pages_give_everything_once_and_only_take_their_own_cursors,
    what_is_written_is_there_after_a_restart,
}

async fn two(world: &World) -> (Tenant, Tenant) {
    let one = tenant(&world.store, "one").await;
    let other = tenant(&world.store, "other").await;
    (one, other)
}

fn everything() -> PageRequest {
    PageRequest {
        limit: 200,
        cursor: None,
    }
}

async fn the_first_organisation_is_made_once(world: World) {
    let orgs = world.store.orgs();
    assert_eq!(orgs.first().await.unwrap(), None);
    let first = orgs.ensure_first_org("first").await.unwrap();
    assert_eq!(orgs.ensure_first_org("again").await.unwrap(), first);
    world.clock.advance(Duration::from_millis(1));
    orgs.create("second", &person()).await.unwrap();
    assert_eq!(orgs.first().await.unwrap(), Some(first.clone()));
    assert_eq!(orgs.get(&first.id).await.unwrap(), Some(first));
}

async fn a_user_is_found_by_a_live_key_and_only_in_its_organisation(world: World) {
    let (one, other) = two(&world).await;
    let users = world.store.users();
    let new = NewUser {
        name: "ada".to_owned(),
        role: Role::Admin,
    };
    let ada = users
        .create(&one.org, new.clone(), &person())
        .await
        .unwrap();
    let taken = users.create(&one.org, new.clone(), &person()).await;
    assert!(matches!(taken, Err(CreateUserError::NameTaken)));
    users.create(&other.org, new, &person()).await.unwrap();
    let key = key_hash("1ck_a");
    assert!(
        !users
            .add_key(&other.org, &ada.id, &key, &person())
            .await
            .unwrap()
    );
    assert!(
        users
            .add_key(&one.org, &ada.id, &key, &person())
            .await
            .unwrap()
    );
    let again = users.add_key(&one.org, &ada.id, &key, &person()).await;
    assert!(matches!(again, Err(StoreError::Conflict { .. })));
    let keys = world.store.personal_keys();
    let found = keys.find(&key).await.unwrap();
    assert_eq!(found.map(|found| found.user), Some(ada.clone()));
    assert_eq!(
        users.get(&one.org, &ada.id).await.unwrap(),
        Some(ada.clone())
    );
    assert_eq!(users.get(&other.org, &ada.id).await.unwrap(), None);
    let listed = users.list(&other.org, &everything()).await.unwrap().items;
    assert!(listed.iter().all(|user| user.org == other.org));
    assert!(
        !users
            .revoke_keys(&other.org, &ada.id, &person())
            .await
            .unwrap()
    );
    assert!(keys.find(&key).await.unwrap().is_some());
    assert!(
        users
            .revoke_keys(&one.org, &ada.id, &person())
            .await
            .unwrap()
    );
    assert!(keys.find(&key).await.unwrap().is_none());
    assert!(
        !users
            .revoke_keys(&one.org, &UserId::new(START), &person())
            .await
            .unwrap()
    );
}

async fn an_agent_is_made_changed_and_deleted_by_its_own_organisation_alone(world: World) {
    let (one, other) = two(&world).await;
    let agents = world.store.agents();
    assert!(agents.get(&other.org, &one.agent).await.unwrap().is_none());
    assert!(
        agents
            .get_by_name(&other.org, "nobody")
            .await
            .unwrap()
            .is_none()
    );
    let patch = AgentPatch {
        name: Some("renamed".to_owned()),
        description: Some(Some("text".to_owned())),
        is_active: Some(false),
        ..AgentPatch::default()
    };
    let foreign = agents
        .patch(&other.org, &one.agent, patch.clone(), &person())
        .await;
    assert!(foreign.unwrap().is_none());
    world.clock.advance(Duration::from_secs(1));
    let changed = agents.patch(&one.org, &one.agent, patch, &person()).await;
    let changed = changed.unwrap().unwrap();
    assert_eq!(changed.name, "renamed");
    assert_eq!(changed.updated_at, START + Duration::from_secs(1));
    assert!(!changed.is_active);
    let found = agents.get_by_name(&one.org, "renamed").await.unwrap();
    assert_eq!(found, Some(changed));
    let foreign = agents
        .rotate_key(&other.org, &one.agent, &[9; 32], &person())
        .await;
    assert!(foreign.unwrap().is_none());
    agents
        .rotate_key(&one.org, &one.agent, &[8; 32], &person())
        .await
        .unwrap()
        .unwrap();
    assert!(
        agents
            .find_by_key_hash(&key_hash("one"))
            .await
            .unwrap()
            .is_none()
    );
    let found = agents.find_by_key_hash(&[8; 32]).await.unwrap().unwrap();
    assert_eq!((found.0, found.1.id), (one.org.clone(), one.agent.clone()));
    assert!(
        !agents
            .delete(&other.org, &one.agent, &person())
            .await
            .unwrap()
    );
    assert!(
        agents
            .delete(&one.org, &one.agent, &person())
            .await
            .unwrap()
    );
    assert!(
        !agents
            .delete(&one.org, &one.agent, &person())
            .await
            .unwrap()
    );
    assert!(agents.find_by_key_hash(&[8; 32]).await.unwrap().is_none());
    assert!(
        agents
            .list(&one.org, &everything())
            .await
            .unwrap()
            .items
            .is_empty()
    );
    assert_eq!(
        agents
            .list(&other.org, &everything())
            .await
            .unwrap()
            .items
            .len(),
        1
    );
}

async fn an_agents_name_is_taken_once_and_free_after_its_deletion(world: World) {
    let (one, _) = two(&world).await;
    let agents = world.store.agents();
    let taken = agents
        .create(&one.org, new_agent("builder", "k2"), &person())
        .await;
    assert!(matches!(taken, Err(CreateAgentError::NameTaken)));
    let second = agents
        .create(&one.org, new_agent("second", "k3"), &person())
        .await
        .unwrap();
    let patch = AgentPatch {
        name: Some("builder".to_owned()),
        ..AgentPatch::default()
    };
    let taken = agents
        .patch(&one.org, &second.id, patch.clone(), &person())
        .await;
    assert!(matches!(taken, Err(PatchAgentError::NameTaken)));
    agents
        .delete(&one.org, &one.agent, &person())
        .await
        .unwrap();
    agents
        .patch(&one.org, &second.id, patch, &person())
        .await
        .unwrap()
        .unwrap();
}

async fn of_many_who_make_one_name_one_wins(world: World) {
    let (one, _) = two(&world).await;
    let racers = (0..16).map(|number| {
        let (store, org) = (world.store.clone(), one.org.clone());
        tokio::spawn(async move {
            let new = new_agent("contested", &format!("key {number}"));
            store.agents().create(&org, new, &person()).await.is_ok()
        })
    });
    let won = futures::future::join_all(racers).await;
    assert_eq!(
        won.into_iter().filter(|won| *won.as_ref().unwrap()).count(),
        1
    );
}

async fn a_default_vault_is_made_once_for_each_organisation(world: World) {
    let (one, other) = two(&world).await;
    let vaults = world.store.vaults();
    let again = NewVault {
        id: VaultId::new(START),
        kek_id: "another".to_owned(),
    };
    let vault = vaults.ensure_default(&one.org, again).await.unwrap();
    assert_eq!(
        (vault.id.clone(), vault.kek_id.as_str()),
        (one.vault.clone(), "kek-one")
    );
    assert_eq!(
        vaults.default_vault(&other.org).await.unwrap().unwrap().id,
        other.vault
    );
    assert!(
        !vaults
            .set_kek(&other.org, &one.vault, "stolen", &person())
            .await
            .unwrap()
    );
    assert!(
        vaults
            .set_kek(&one.org, &one.vault, "new", &person())
            .await
            .unwrap()
    );
    assert_eq!(vaults.list(&one.org).await.unwrap()[0].kek_id, "new");
}

async fn a_set_gets_a_version_with_each_change_and_keeps_all_of_them(world: World) {
    let (one, _) = two(&world).await;
    let sets = world.store.secret_sets();
    let second = update_set(
        &world.store,
        &one,
        &["STRIPE_SECRET_KEY", "STRIPE_ACCOUNT_ID"],
    )
    .await;
    assert_eq!(second.version, 2);
    assert_eq!(second.keys, ["STRIPE_ACCOUNT_ID", "STRIPE_SECRET_KEY"]);
    let change = SetChange {
        drop: vec!["STRIPE_ACCOUNT_ID".to_owned()],
        ..SetChange::default()
    };
    let third = sets
        .update(&one.org, &one.set, change, &person())
        .await
        .unwrap()
        .unwrap();
    assert_eq!((third.version, third.keys.len()), (3, 1));
    let first = sets.contents(&one.org, &one.set, 1).await.unwrap().unwrap();
    assert_eq!(first.entries[0].version, 1);
    let third = sets.contents(&one.org, &one.set, 3).await.unwrap().unwrap();
    assert_eq!(third.entries[0].version, 2);
    assert_eq!(third.entries[0].path, "stripe/prod/bot/STRIPE_SECRET_KEY");
    let versions = sets.versions(&one.org, &one.set).await.unwrap().unwrap();
    assert_eq!(
        versions
            .iter()
            .map(|version| version.version)
            .collect::<Vec<_>>(),
        [3, 2, 1]
    );
    assert!(
        sets.contents(&one.org, &one.set, 4)
            .await
            .unwrap()
            .is_none()
    );
}

async fn a_rollback_makes_a_new_version_with_the_old_contents(world: World) {
    let (one, other) = two(&world).await;
    let sets = world.store.secret_sets();
    update_set(&world.store, &one, &["STRIPE_SECRET_KEY"]).await;
    let foreign = sets
        .rollback(&other.org, &one.set, 1, &person())
        .await
        .unwrap();
    assert!(foreign.is_none());
    let back = sets
        .rollback(&one.org, &one.set, 1, &person())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(back.version, 3);
    let first = sets.sealed_entries(&one.org, &one.set, 1).await.unwrap();
    assert_eq!(
        sets.sealed_entries(&one.org, &one.set, 3).await.unwrap(),
        first
    );
    let versions = sets.versions(&one.org, &one.set).await.unwrap().unwrap();
    assert_eq!(versions[0].rolled_back_to, Some(1));
    let missing = sets.rollback(&one.org, &one.set, 9, &person()).await;
    assert!(matches!(missing, Err(WriteSetError::NoSuchVersion(9))));
}

async fn a_set_needs_a_free_name_an_entry_and_seals_for_the_right_place(world: World) {
    let (one, other) = two(&world).await;
    let sets = world.store.secret_sets();
    let new = |entries| NewSet {
        provider: "stripe".to_owned(),
        environment: "prod".to_owned(),
        name: "bot".to_owned(),
        entries,
        custom: None,
        kek_id: None,
    };
    let entries = sealed(&world.store, &one.org, "bot", &["A"]).await;
    let taken = sets.create(&one.org, new(entries.clone()), &person()).await;
    assert!(matches!(taken, Err(WriteSetError::NameTaken)));
    let empty = sets.create(&one.org, new(Vec::new()), &person()).await;
    assert!(matches!(empty, Err(WriteSetError::Empty)));
    let change = SetChange {
        drop: vec!["STRIPE_SECRET_KEY".to_owned()],
        ..SetChange::default()
    };
    let empty = sets.update(&one.org, &one.set, change, &person()).await;
    assert!(matches!(empty, Err(WriteSetError::Empty)));
    let change = SetChange {
        put: sealed(&world.store, &one.org, "elsewhere", &["A"]).await,
        ..SetChange::default()
    };
    let misplaced = sets.update(&one.org, &one.set, change, &person()).await;
    assert!(matches!(misplaced, Err(WriteSetError::Moved)));
    let bare = world.store.orgs().create("bare", &person()).await.unwrap();
    let unready = sets.next_versions(&bare.id, "a", "b", "c", &[]).await;
    assert!(matches!(unready, Err(WriteSetError::NoVault)));
    assert_eq!(
        sets.get(&other.org, &other.set)
            .await
            .unwrap()
            .unwrap()
            .version,
        1
    );
}

async fn of_two_writers_who_sealed_the_same_version_one_must_seal_anew(world: World) {
    let (one, _) = two(&world).await;
    let sets = world.store.secret_sets();
    let put = sealed(&world.store, &one.org, "bot", &["STRIPE_SECRET_KEY"]).await;
    let change = SetChange {
        put,
        ..SetChange::default()
    };
    let first = sets
        .update(&one.org, &one.set, change.clone(), &person())
        .await;
    assert_eq!(first.unwrap().unwrap().version, 2);
    let second = sets.update(&one.org, &one.set, change, &person()).await;
    assert!(matches!(second, Err(WriteSetError::Moved)));
    assert_eq!(
        sets.get(&one.org, &one.set).await.unwrap().unwrap().version,
        2
    );
}

async fn a_deleted_sets_name_is_free_and_its_secrets_versions_go_on(world: World) {
    let (one, other) = two(&world).await;
    let sets = world.store.secret_sets();
    assert!(!sets.delete(&other.org, &one.set, &person()).await.unwrap());
    assert!(sets.delete(&one.org, &one.set, &person()).await.unwrap());
    assert!(!sets.delete(&one.org, &one.set, &person()).await.unwrap());
    assert!(sets.get(&one.org, &one.set).await.unwrap().is_none());
    assert!(
        sets.contents(&one.org, &one.set, 1)
            .await
            .unwrap()
            .is_none()
    );
    assert!(sets.versions(&one.org, &one.set).await.unwrap().is_none());
    let again = create_set(&world.store, &one.org, "bot", &["STRIPE_SECRET_KEY"]).await;
    assert_ne!(again.id, one.set);
    assert_eq!(again.version, 1);
    let entries = sets
        .sealed_entries(&one.org, &again.id, 1)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        entries[0].version, 2,
        "a seal of the deleted set's version 1 must not fit here"
    );
}

async fn a_purged_sets_values_are_gone_and_no_other_sets(world: World) {
    let (one, other) = two(&world).await;
    let sets = world.store.secret_sets();
    update_set(
        &world.store,
        &one,
        &["STRIPE_SECRET_KEY", "STRIPE_ACCOUNT_ID"],
    )
    .await;
    assert!(!sets.purge(&other.org, &one.set, &person()).await.unwrap());
    assert_eq!(values(&world, &one).await, 3);
    assert!(sets.purge(&one.org, &one.set, &person()).await.unwrap());
    assert_eq!(values(&world, &one).await, 0);
    assert!(sets.get(&one.org, &one.set).await.unwrap().is_none());
    assert!(
        sets.contents(&one.org, &one.set, 2)
            .await
            .unwrap()
            .is_none()
    );

    // One that was deleted before is purged all the same, and what came after it under its name is not.
    let second = create_set(&world.store, &one.org, "bot", &["STRIPE_SECRET_KEY"]).await;
    sets.delete(&one.org, &second.id, &person()).await.unwrap();
    let third = create_set(&world.store, &one.org, "bot", &["STRIPE_SECRET_KEY"]).await;
    assert_eq!(values(&world, &one).await, 2);
    for set in [&second.id, &second.id, &one.set] {
        assert!(sets.purge(&one.org, set, &person()).await.unwrap());
        assert_eq!(values(&world, &one).await, 1);
    }
    let entries = sets.sealed_entries(&one.org, &third.id, 1).await.unwrap();
    assert_eq!(entries.unwrap()[0].version, 4);
    assert_eq!(values(&world, &other).await, 1);
    let (all, page) = (crate::EventFilter::default(), everything());
    let audit = world.store.audit();
    let told = audit.list(&one.org, &all, &page).await.unwrap().items;
    let count = |action: &str| told.iter().filter(|event| event.action == action).count();
    assert_eq!(count("secret_set.delete"), 2);
    assert_eq!(count("secret_set.purge"), 2);
}

/// The number of sealed values in an organisation's vault.
async fn values(world: &World, tenant: &Tenant) -> u64 {
    let seals = world.store.seals();
    seals.count(&tenant.org, &tenant.vault).await.unwrap()
}

async fn a_set_is_nothing_to_another_organisation(world: World) {
    let (one, other) = two(&world).await;
    let sets = world.store.secret_sets();
    assert!(sets.get(&other.org, &one.set).await.unwrap().is_none());
    assert!(sets.versions(&other.org, &one.set).await.unwrap().is_none());
    assert!(
        sets.contents(&other.org, &one.set, 1)
            .await
            .unwrap()
            .is_none()
    );
    let change = SetChange {
        put: sealed(&world.store, &other.org, "bot", &["STRIPE_SECRET_KEY"]).await,
        ..SetChange::default()
    };
    let foreign = sets
        .update(&other.org, &one.set, change, &person())
        .await
        .unwrap();
    assert!(foreign.is_none());
    let found = sets
        .get_by_name(&other.org, "stripe", "prod", "bot")
        .await
        .unwrap();
    assert_eq!(found.unwrap().id, other.set);
    let listed = sets.list(&one.org, &everything()).await.unwrap().items;
    assert_eq!(
        listed.iter().map(|set| &set.id).collect::<Vec<_>>(),
        [&one.set]
    );
    let entries = sets
        .sealed_entries(&one.org, &one.set, 1)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(entries[0].vault, one.vault);
}

async fn a_custom_description_is_kept_with_its_version(world: World) {
    let (one, _) = two(&world).await;
    let sets = world.store.secret_sets();
    let custom = serde_json::json!({"hosts": ["api.example.com"]});
    let change = SetChange {
        custom: Some(custom.clone()),
        ..SetChange::default()
    };
    sets.update(&one.org, &one.set, change, &person())
        .await
        .unwrap()
        .unwrap();
    let kept = update_set(&world.store, &one, &["STRIPE_SECRET_KEY"]).await;
    assert_eq!(kept.custom, Some(custom.clone()));
    assert_eq!(
        sets.contents(&one.org, &one.set, 1)
            .await
            .unwrap()
            .unwrap()
            .custom,
        None
    );
    let third = sets.contents(&one.org, &one.set, 3).await.unwrap().unwrap();
    assert_eq!(third.custom, Some(custom));
}

async fn a_grant_joins_an_agent_and_a_set_of_one_organisation(world: World) {
    let (one, other) = two(&world).await;
    let grants = world.store.grants();
    let new = |agent: &AgentId, set: &SetId| NewGrant {
        agent_id: agent.clone(),
        secret_set_id: set.clone(),
        allowed_actions: Vec::new(),
        allowed_keys: Keys::Only(vec!["A".to_owned()]),
        expires_at: None,
        constraints: ::leases::scope::Scope::default(),
        preset: None,
        spend: None,
        rate: Some(Rate {
            requests: 60,
            per_seconds: 60,
        }),
    };
    let foreign = grants
        .create(&one.org, new(&other.agent, &one.set), &person())
        .await;
    assert!(matches!(foreign, Err(CreateGrantError::NoAgent(_))));
    let foreign = grants
        .create(&one.org, new(&one.agent, &other.set), &person())
        .await;
    assert!(matches!(foreign, Err(CreateGrantError::NoSet(_))));
    let made = grants
        .create(&one.org, new(&one.agent, &one.set), &person())
        .await
        .unwrap();
    let read = grants.get(&one.org, &made.id).await.unwrap().unwrap();
    assert_eq!(format!("{read:?}"), format!("{made:?}"));
    assert!(grants.get(&other.org, &made.id).await.unwrap().is_none());
    assert!(
        grants
            .revoke(&other.org, &made.id, &person())
            .await
            .unwrap()
            .is_none()
    );
    assert_eq!(
        grants
            .list(&one.org, &everything())
            .await
            .unwrap()
            .items
            .len(),
        2
    );
    assert_eq!(
        grants
            .list(&other.org, &everything())
            .await
            .unwrap()
            .items
            .len(),
        1
    );
    let revoked = grants
        .revoke(&one.org, &made.id, &person())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(revoked.revoked_at, Some(START));
    world.clock.advance(Duration::from_secs(5));
    let again = grants
        .revoke(&one.org, &made.id, &person())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(again.revoked_at, Some(START));
    assert!(
        grants
            .revoke(&one.org, &GrantId::new(START), &person())
            .await
            .unwrap()
            .is_none()
    );
}

async fn only_live_grants_are_found_for_an_agent_and_a_set(world: World) {
    let (one, other) = two(&world).await;
    let grants = world.store.grants();
    let store = &world.store;
    let ends_at = START + Duration::from_mins(1);
    let short = grant(store, &one.org, &one.agent, &one.set, Some(ends_at), None)
        .await
        .id;
    let ids = |found: Vec<crate::Grant>| {
        found
            .into_iter()
            .map(|grant| grant.id)
            .collect::<BTreeSet<_>>()
    };
    let found = grants
        .find_for(&one.org, &one.agent, &one.set, START)
        .await
        .unwrap();
    assert_eq!(ids(found), [one.grant.clone(), short].into());
    let found = grants
        .find_for(&one.org, &one.agent, &one.set, ends_at)
        .await
        .unwrap();
    assert_eq!(ids(found), BTreeSet::from([one.grant.clone()]));
    grants
        .revoke(&one.org, &one.grant, &person())
        .await
        .unwrap();
    let found = grants
        .find_for(&one.org, &one.agent, &one.set, ends_at)
        .await
        .unwrap();
    assert!(found.is_empty());
    let found = grants
        .find_for(&other.org, &one.agent, &one.set, START)
        .await
        .unwrap();
    assert!(found.is_empty());
}

async fn a_lease_is_recorded_only_while_agent_grant_and_set_hold(world: World) {
    let (one, other) = two(&world).await;
    let leases = world.store.leases();
    let new = || one.new_lease(Kind::Request);
    let foreign = leases.create(&other.org, new(), &person()).await;
    assert!(matches!(foreign, Err(CreateLeaseError::AgentInactive(_))));
    let mut mixed = new();
    mixed.sets = vec![(other.set.clone(), one.grant.clone())];
    let mixed = leases.create(&one.org, mixed, &person()).await;
    assert!(matches!(mixed, Err(CreateLeaseError::GrantGone(_))));
    let ends_at = START + Duration::from_mins(1);
    let short = grant(
        &world.store,
        &one.org,
        &one.agent,
        &one.set,
        Some(ends_at),
        None,
    )
    .await;
    let mut long = new();
    long.sets = vec![(one.set.clone(), short.id.clone())];
    let long = leases.create(&one.org, long, &person()).await;
    assert!(
        matches!(long, Err(CreateLeaseError::OutlivesGrant { grant, .. }) if grant == short.id)
    );
    leases.create(&one.org, new(), &person()).await.unwrap();
    world
        .store
        .secret_sets()
        .delete(&one.org, &one.set, &person())
        .await
        .unwrap();
    let gone = leases.create(&one.org, new(), &person()).await;
    assert!(matches!(gone, Err(CreateLeaseError::SetGone(_))));
    world
        .store
        .grants()
        .revoke(&one.org, &one.grant, &person())
        .await
        .unwrap();
    let gone = leases.create(&one.org, new(), &person()).await;
    assert!(matches!(gone, Err(CreateLeaseError::GrantGone(_))));
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
    let inactive = leases.create(&one.org, new(), &person()).await;
    assert!(matches!(inactive, Err(CreateLeaseError::AgentInactive(_))));
}

async fn a_lease_is_read_listed_and_revoked_by_its_own_organisation_alone(world: World) {
    let (one, other) = two(&world).await;
    let leases = world.store.leases();
    let new = one.new_lease(Kind::Workflow);
    let made = leases.create(&one.org, new, &person()).await.unwrap();
    assert_eq!(
        leases.get(&one.org, &made.id).await.unwrap(),
        Some(made.clone())
    );
    assert_eq!(leases.get(&other.org, &made.id).await.unwrap(), None);
    assert!(
        leases
            .list(&other.org, None, &everything())
            .await
            .unwrap()
            .items
            .is_empty()
    );
    let listed = leases
        .list(&one.org, Some(&one.agent), &everything())
        .await
        .unwrap();
    assert_eq!(listed.items, std::slice::from_ref(&made));
    let listed = leases
        .list(&one.org, Some(&other.agent), &everything())
        .await
        .unwrap();
    assert!(listed.items.is_empty());
    let block = RevocationId::from_bytes(&[5; 64]).unwrap();
    let until = made.expires_at;
    assert!(
        !leases
            .revoke_block(&other.org, &made.id, &block, until, &person())
            .await
            .unwrap()
    );
    assert!(
        leases
            .revoke_block(&one.org, &made.id, &block, until, &person())
            .await
            .unwrap()
    );
    assert!(
        leases
            .revoke_block(&one.org, &made.id, &block, until, &person())
            .await
            .unwrap()
    );
    assert!(leases.is_block_revoked(&one.org, &block).await.unwrap());
    assert!(!leases.is_block_revoked(&other.org, &block).await.unwrap());
    assert!(
        leases
            .revoke(&other.org, &made.id, &person())
            .await
            .unwrap()
            .is_none()
    );
    let revoked = leases
        .revoke(&one.org, &made.id, &person())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(revoked.revoked_at, Some(START));
    let missing = LeaseId::new(START);
    assert!(
        leases
            .revoke(&one.org, &missing, &person())
            .await
            .unwrap()
            .is_none()
    );
}

async fn a_sealed_key_is_followed_by_the_next_version_alone(world: World) {
    let (one, other) = two(&world).await;
    let keys = world.store.sealed_keys();
    let new = |version| NewSealedKey {
        kek_id: None,
        name: "lease-root".to_owned(),
        version,
        sealed: vec![1, 2, 3],
        public: vec![4],
    };
    keys.put(&one.org, new(1), &person()).await.unwrap();
    for version in [1, 3] {
        let refused = keys.put(&one.org, new(version), &person()).await;
        assert!(
            matches!(refused, Err(StoreError::Conflict { .. })),
            "{version}"
        );
    }
    let second = keys.put(&one.org, new(2), &person()).await.unwrap();
    assert_eq!(
        keys.current(&one.org, "lease-root").await.unwrap(),
        Some(second)
    );
    let versions = keys.versions(&one.org, "lease-root").await.unwrap();
    assert_eq!(versions[1].retired_at, Some(START));
    assert_eq!(keys.current(&other.org, "lease-root").await.unwrap(), None);
    assert!(
        keys.versions(&other.org, "lease-root")
            .await
            .unwrap()
            .is_empty()
    );
    assert!(
        !keys
            .remove(&one.org, "lease-root", 2, &person())
            .await
            .unwrap()
    );
    assert!(
        !keys
            .remove(&other.org, "lease-root", 1, &person())
            .await
            .unwrap()
    );
    assert!(
        keys.remove(&one.org, "lease-root", 1, &person())
            .await
            .unwrap()
    );
    assert_eq!(
        keys.versions(&one.org, "lease-root").await.unwrap().len(),
        1
    );
}

async fn a_repeated_request_gets_the_first_answer(world: World) {
    let (one, other) = two(&world).await;
    let keys = world.store.idempotency();
    let fresh = keys.begin(&one.org, "usr_a", "k", &[1; 32]).await.unwrap();
    assert_eq!(fresh, Idempotency::Fresh);
    let running = keys.begin(&one.org, "usr_a", "k", &[1; 32]).await.unwrap();
    assert_eq!(running, Idempotency::InProgress);
    let different = keys.begin(&one.org, "usr_a", "k", &[2; 32]).await.unwrap();
    assert_eq!(different, Idempotency::Conflict);
    for (org, principal) in [(&other.org, "usr_a"), (&one.org, "usr_b")] {
        let theirs = keys.begin(org, principal, "k", &[2; 32]).await.unwrap();
        assert_eq!(theirs, Idempotency::Fresh);
    }
    keys.finish(&one.org, "usr_a", "k", 201, b"body")
        .await
        .unwrap();
    let replay = keys.begin(&one.org, "usr_a", "k", &[1; 32]).await.unwrap();
    assert_eq!(
        replay,
        Idempotency::Replay {
            status: 201,
            body: b"body".to_vec()
        }
    );
    keys.abandon(&one.org, "usr_a", "k").await.unwrap();
    let kept = keys.begin(&one.org, "usr_a", "k", &[2; 32]).await.unwrap();
    assert_eq!(kept, Idempotency::Conflict);
    world.clock.advance(Duration::from_hours(25));
    let forgotten = keys.begin(&one.org, "usr_a", "k", &[2; 32]).await.unwrap();
    assert_eq!(forgotten, Idempotency::Fresh);
}

async fn an_abandoned_claim_is_free_at_once_and_a_forgotten_one_after_a_minute(world: World) {
    let (one, _) = two(&world).await;
    let keys = world.store.idempotency();
    keys.begin(&one.org, "usr_a", "k", &[1; 32]).await.unwrap();
    keys.abandon(&one.org, "usr_a", "k").await.unwrap();
    let fresh = keys.begin(&one.org, "usr_a", "k", &[1; 32]).await.unwrap();
    assert_eq!(fresh, Idempotency::Fresh);
    world.clock.advance(Duration::from_secs(61));
    let taken_over = keys.begin(&one.org, "usr_a", "k", &[1; 32]).await.unwrap();
    assert_eq!(taken_over, Idempotency::Fresh);
    let running = keys.begin(&one.org, "usr_a", "k", &[1; 32]).await.unwrap();
    assert_eq!(running, Idempotency::InProgress);
}

async fn of_many_who_claim_one_key_one_is_first(world: World) {
    let (one, _) = two(&world).await;
    let racers = (0..16).map(|_| {
        let (store, org) = (world.store.clone(), one.org.clone());
        tokio::spawn(async move {
            store
                .idempotency()
                .begin(&org, "usr_a", "k", &[1; 32])
                .await
                .unwrap()
        })
    });
    let claims = futures::future::join_all(racers).await;
    let first = claims
        .iter()
        .filter(|claim| *claim.as_ref().unwrap() == Idempotency::Fresh);
    assert_eq!(first.count(), 1);
}

async fn pages_give_everything_once_and_only_take_their_own_cursors(world: World) {
    let (one, other) = two(&world).await;
    let agents = world.store.agents();
    for number in 0..24 {
        let new = new_agent(&format!("agent {number}"), &format!("key {number}"));
        agents.create(&one.org, new, &person()).await.unwrap();
    }
    let mut names = BTreeSet::new();
    let mut page = PageRequest {
        limit: 10,
        cursor: None,
    };
    let mut sizes = Vec::new();
    loop {
        let got = agents.list(&one.org, &page).await.unwrap();
        sizes.push(got.items.len());
        names.extend(got.items.into_iter().map(|agent| agent.name));
        page.cursor = got.next_cursor;
        if page.cursor.is_none() {
            break;
        }
    }
    assert_eq!(sizes, [10, 10, 5]);
    assert_eq!(names.len(), 25);
    page.cursor = Some("' OR 1=1".to_owned());
    let refused = agents.list(&one.org, &page).await;
    assert!(matches!(refused, Err(StoreError::BadCursor)));
    let huge = PageRequest {
        limit: u32::MAX,
        cursor: None,
    };
    assert_eq!(agents.list(&other.org, &huge).await.unwrap().items.len(), 1);
}

async fn what_is_written_is_there_after_a_restart(mut world: World) {
    let (one, _) = two(&world).await;
    world.restart().await;
    assert!(
        world
            .store
            .agents()
            .get(&one.org, &one.agent)
            .await
            .unwrap()
            .is_some()
    );
    let contents = world
        .store
        .secret_sets()
        .contents(&one.org, &one.set, 1)
        .await;
    assert_eq!(contents.unwrap().unwrap().entries.len(), 1);
    assert!(world.store.audit().verify().await.unwrap().is_intact());
    assert_eq!(world.store.ledger().health().unclean_starts, 0);
}
