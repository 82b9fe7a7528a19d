use std::time::Duration;

use ::leases::id::VaultId;
use ::leases::secret_path::SecretPath;
use futures::future::join_all;

use super::*;
use crate::testing::*;
use crate::{
    CreateAgentError, CreateVaultError, NamedVault, NewSecret, NewSet, NewVault, SetChange,
    WriteSecretError, WriteSetError,
};

on_both! {
    of_many_who_race_for_the_last_places_as_many_win_as_there_are,
    what_is_given_up_makes_room_and_what_is_there_may_change,
    an_operators_word_on_one_organisation_is_on_that_one_alone,
    a_set_that_would_have_too_many_entries_changes_nothing,
}

async fn make_vault(world: &World, org: &OrgId, name: &str) -> Result<(), CreateVaultError> {
    let new = NamedVault {
        vault: NewVault {
            id: VaultId::new(START),
            kek_id: "kek".to_owned(),
        },
        name: name.to_owned(),
        description: None,
    };
    let vaults = world.store.vaults();
    vaults.create(org, new, &person()).await.map(|_| ())
}

async fn make_agent(world: &World, org: &OrgId, name: &str) -> Result<(), CreateAgentError> {
    let new = new_agent(name, &format!("{name} of {org}"));
    let agents = world.store.agents();
    agents.create(org, new, &person()).await.map(|_| ())
}

async fn make_secret(world: &World, org: &OrgId, path: &str) -> Result<(), WriteSecretError> {
    let vault = world.store.vaults().get(org, "default").await.unwrap();
    let secrets = world.store.secrets();
    let path = SecretPath::parse(path).unwrap();
    let place = secrets.next_version(org, &vault.unwrap(), &path).await?;
    let new = NewSecret {
        place,
        sealed: b"sealed".to_vec(),
        kind: "generic".to_owned(),
        metadata: None,
        rotation_policy: None,
        expires_at: None,
        max_reads: None,
    };
    let put = secrets.put(org, new, "secret.write", &person()).await;
    put.map(|_| ())
}

async fn of_many_who_race_for_the_last_places_as_many_win_as_there_are(world: World) {
    let one = tenant(&world.store, "one").await;
    // The tenant has a default vault, which nobody made, an agent and a secret.
    world.store.quotas().set_default(Quota {
        vaults: Some(3),
        secrets: Some(4),
        agents: Some(5),
        requests_per_month: None,
    });
    let (world, org) = (&world, &one.org);
    let names: Vec<String> = (0..12).map(|nth| format!("n{nth}")).collect();
    let made = join_all(names.iter().map(|name| make_vault(world, org, name))).await;
    let refused = OverQuota {
        resource: Resource::Vaults,
        limit: 3,
    };
    assert_eq!(made.iter().filter(|made| made.is_ok()).count(), 3);
    assert!(
        made.iter()
            .filter_map(|made| made.as_ref().err())
            .all(|error| matches!(error, CreateVaultError::Limit(over) if *over == refused))
    );
    assert_eq!(
        refused.to_string(),
        "Vault limit reached: this organisation may have 3"
    );
    let made = join_all(names.iter().map(|name| make_agent(world, org, name))).await;
    assert_eq!(made.iter().filter(|made| made.is_ok()).count(), 4);
    let made = join_all(names.iter().map(|name| make_secret(world, org, name))).await;
    assert_eq!(made.iter().filter(|made| made.is_ok()).count(), 3);
    let holdings = world.store.quotas().holdings(org).await.unwrap();
    let expected = Holdings {
        vaults: 3,
        secrets: 4,
        agents: 5,
    };
    assert_eq!(holdings, expected);
}

async fn what_is_given_up_makes_room_and_what_is_there_may_change(world: World) {
    let one = tenant(&world.store, "one").await;
    let org = &one.org;
    make_secret(&world, org, "a").await.unwrap();
    make_secret(&world, org, "b").await.unwrap();
    // The limit is set below what there is: that stays, and may get versions.
    world.store.quotas().set_default(Quota {
        secrets: Some(2),
        ..Quota::default()
    });
    make_secret(&world, org, "a").await.unwrap();
    update_set(&world.store, &one, &["STRIPE_SECRET_KEY"]).await;
    let full = make_secret(&world, org, "c").await;
    assert!(matches!(full, Err(WriteSecretError::Limit(_))));
    let secrets = world.store.secrets();
    for gone in ["a", "b"] {
        let path = SecretPath::parse(gone).unwrap();
        secrets
            .delete(org, &one.vault, &path, &person())
            .await
            .unwrap();
    }
    make_secret(&world, org, "c").await.unwrap();
    // Neither a new version nor a restoration brings a deleted one back above the limit.
    let again = make_secret(&world, org, "a").await;
    assert!(matches!(again, Err(WriteSecretError::Limit(_))));
    let path = SecretPath::parse("b").unwrap();
    let restored = secrets.restore(org, &one.vault, &path, &person()).await;
    assert!(matches!(restored, Err(WriteSecretError::Limit(_))));
}

async fn an_operators_word_on_one_organisation_is_on_that_one_alone(world: World) {
    let one = tenant(&world.store, "one").await;
    let other = tenant(&world.store, "other").await;
    let quotas = world.store.quotas();
    quotas.set_default(Quota {
        agents: Some(1),
        ..Quota::default()
    });
    let more = Allowances {
        agents: Allowance::AtMost(2),
        vaults: Allowance::AtMost(0),
        ..Allowances::default()
    };
    assert!(quotas.allow(&one.org, more, &person()).await.unwrap());
    assert_eq!(quotas.allowances(&one.org).await.unwrap(), more);
    make_agent(&world, &one.org, "second").await.unwrap();
    let refused = make_agent(&world, &one.org, "third").await;
    assert!(matches!(refused, Err(CreateAgentError::Limit(_))));
    let refused = make_vault(&world, &one.org, "v").await;
    assert!(matches!(refused, Err(CreateVaultError::Limit(_))));
    let refused = make_agent(&world, &other.org, "second").await;
    assert!(matches!(refused, Err(CreateAgentError::Limit(_))));
    make_vault(&world, &other.org, "v").await.unwrap();
    let lifted = Allowances {
        agents: Allowance::Unlimited,
        ..Allowances::default()
    };
    assert!(quotas.allow(&one.org, lifted, &person()).await.unwrap());
    make_agent(&world, &one.org, "third").await.unwrap();
    assert_eq!(quotas.of(&one.org).await.unwrap(), Quota::default());
    let nobody = OrgId::new(START);
    assert!(!quotas.allow(&nobody, lifted, &person()).await.unwrap());
}

async fn a_set_that_would_have_too_many_entries_changes_nothing(world: World) {
    let one = tenant(&world.store, "one").await;
    let org = &one.org;
    world.store.quotas().set_default(Quota {
        secrets: Some(2),
        ..Quota::default()
    });
    let sets = world.store.secret_sets();
    let new = NewSet {
        provider: "stripe".to_owned(),
        environment: "prod".to_owned(),
        name: "second".to_owned(),
        entries: sealed(&world.store, org, "second", &["A", "B"]).await,
        custom: None,
        kek_id: None,
    };
    let refused = sets.create(org, new, &person()).await;
    assert!(matches!(refused, Err(WriteSetError::Limit(_))));
    let change = SetChange {
        put: sealed(&world.store, org, "bot", &["A", "B"]).await,
        ..SetChange::default()
    };
    let refused = sets.update(org, &one.set, change, &person()).await;
    assert!(matches!(refused, Err(WriteSetError::Limit(_))));
    assert_eq!(sets.get(org, &one.set).await.unwrap().unwrap().version, 1);
    // One more in the place of one that goes is none more.
    update_set(&world.store, &one, &["A"]).await;
    let change = SetChange {
        put: sealed(&world.store, org, "bot", &["B"]).await,
        drop: vec!["A".to_owned()],
        ..SetChange::default()
    };
    sets.update(org, &one.set, change, &person()).await.unwrap();
    // A rollback may bring back more than there is room for.
    make_secret(&world, org, "a").await.unwrap_err();
    world.advance(Duration::from_secs(1));
    let change = SetChange {
        drop: vec!["B".to_owned()],
        ..SetChange::default()
    };
    sets.update(org, &one.set, change, &person()).await.unwrap();
    make_secret(&world, org, "a").await.unwrap();
    let refused = sets.rollback(org, &one.set, 2, &person()).await;
    assert!(matches!(refused, Err(WriteSetError::Limit(_))));
}
