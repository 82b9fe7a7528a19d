use crate::testing::*;
use crate::{
    NewSealedKey, Rotation, RotationKind, RotationState, RotationStep, SealKind, SealRow,
    StartRotationError, Swap,
};
use ::leases::id::VaultId;

on_both! {
    every_seal_of_a_vault_is_paged_once_with_all_that_it_is_bound_to,
    a_seal_is_swapped_only_for_the_bytes_that_were_read,
    a_rotation_is_started_once_and_goes_on_where_it_was,
    of_two_who_take_the_same_step_one_does,
    a_rotation_is_nothing_to_another_organisation,
}

/// Two organisations with deleted, current and earlier secrets, and with keys.
async fn two(world: &World) -> (Tenant, Tenant) {
    let one = tenant(&world.store, "one").await;
    let other = tenant(&world.store, "other").await;
    for tenant in [&one, &other] {
        update_set(&world.store, tenant, &["STRIPE_SECRET_KEY", "A"]).await;
        let gone = create_set(&world.store, &tenant.org, "gone", &["B"]).await;
        let sets = world.store.secret_sets();
        sets.delete(&tenant.org, &gone.id, &person()).await.unwrap();
        for version in [1, 2] {
            let key = NewSealedKey {
                kek_id: None,
                name: "jwt".to_owned(),
                version,
                sealed: format!("key {version} of {}", tenant.org).into_bytes(),
                public: vec![1],
            };
            let keys = world.store.sealed_keys();
            keys.put(&tenant.org, key, &person()).await.unwrap();
        }
    }
    (one, other)
}

async fn all(world: &World, tenant: &Tenant, limit: u32) -> Vec<SealRow> {
    let seals = world.store.seals();
    let mut found: Vec<SealRow> = Vec::new();
    loop {
        let after = found.last().map(|row| row.seal.clone());
        let page = seals
            .page(&tenant.org, &tenant.vault, after.as_ref(), limit)
            .await
            .unwrap();
        let is_last = page.len() < limit as usize;
        found.extend(page);
        if is_last {
            return found;
        }
    }
}

async fn start(world: &World, tenant: &Tenant) -> Rotation {
    let rotations = world.store.rotations();
    rotations
        .start(
            &tenant.org,
            &tenant.vault,
            RotationKind::Rewrap,
            2,
            &person(),
        )
        .await
        .unwrap()
}

fn other_bytes(row: &SealRow) -> Swap {
    Swap {
        seal: row.seal.clone(),
        old: row.sealed.clone(),
        new: [b"new ".as_slice(), &row.sealed].concat(),
    }
}

async fn every_seal_of_a_vault_is_paged_once_with_all_that_it_is_bound_to(world: World) {
    let (one, _) = two(&world).await;
    let whole = all(&world, &one, 200).await;
    let told: Vec<(SealKind, &str, u64)> = whole
        .iter()
        .map(|row| (row.seal.kind, row.seal.path.as_str(), row.seal.version))
        .collect();
    assert_eq!(
        told,
        [
            (SealKind::Secret, "stripe/prod/bot/A", 1),
            (SealKind::Secret, "stripe/prod/bot/STRIPE_SECRET_KEY", 1),
            (SealKind::Secret, "stripe/prod/bot/STRIPE_SECRET_KEY", 2),
            (SealKind::Secret, "stripe/prod/gone/B", 1),
            (SealKind::Key, "__keys/jwt", 1),
            (SealKind::Key, "__keys/jwt", 2),
        ]
    );
    for row in &whole {
        assert_eq!((&row.seal.org, &row.seal.vault), (&one.org, &one.vault));
        let text = String::from_utf8(row.sealed.clone()).unwrap();
        assert!(text.ends_with(one.org.as_str()), "{text}");
    }
    for limit in [1, 2, 3, 6] {
        assert_eq!(all(&world, &one, limit).await, whole, "in pages of {limit}");
    }
    let seals = world.store.seals();
    assert_eq!(seals.count(&one.org, &one.vault).await.unwrap(), 6);
    let nowhere = VaultId::new(START);
    assert_eq!(seals.count(&one.org, &nowhere).await.unwrap(), 0);
    let foreign = seals.page(&one.org, &nowhere, None, 10).await.unwrap();
    assert!(foreign.is_empty());
}

async fn a_seal_is_swapped_only_for_the_bytes_that_were_read(world: World) {
    let (one, other) = two(&world).await;
    let whole = all(&world, &one, 200).await;
    let untouched = all(&world, &other, 200).await;
    let seals = world.store.seals();
    let mut swaps: Vec<Swap> = whole.iter().map(other_bytes).collect();
    swaps[1].old = b"what it was before".to_vec();
    // The order in which they come makes no difference.
    swaps.reverse();
    assert_eq!(seals.swap(&swaps).await.unwrap(), 5);
    let after = all(&world, &one, 200).await;
    for (index, (row, before)) in after.iter().zip(&whole).enumerate() {
        assert_eq!(row.sealed != before.sealed, index != 1, "{:?}", row.seal);
    }
    assert_eq!(seals.swap(&swaps).await.unwrap(), 0);
    assert_eq!(all(&world, &other, 200).await, untouched);
    let sets = world.store.secret_sets();
    let contents = sets.contents(&one.org, &one.set, 2).await.unwrap().unwrap();
    assert!(contents.entries[0].sealed.starts_with(b"new "));
}

async fn a_rotation_is_started_once_and_goes_on_where_it_was(mut world: World) {
    let (one, other) = two(&world).await;
    let started = start(&world, &one).await;
    assert_eq!((started.done, started.total), (0, 6));
    let again = world
        .store
        .rotations()
        .start(&one.org, &one.vault, RotationKind::Rewrap, 3, &person())
        .await;
    assert!(matches!(again, Err(StartRotationError::Running(running)) if *running == started));
    let kind = RotationKind::Migrate {
        to: "pkcs11:other".to_owned(),
    };
    let theirs = world
        .store
        .rotations()
        .start(&other.org, &other.vault, kind.clone(), 1, &person())
        .await
        .unwrap();
    assert_eq!(theirs.kind, kind);
    let rows = all(&world, &one, 200).await;
    let step = RotationStep {
        reached: Some(rows[4].seal.clone()),
        seen: 5,
        swaps: rows[..5].iter().map(other_bytes).collect(),
    };
    let rotations = world.store.rotations();
    let moved = rotations.advance(&started, &step).await.unwrap().unwrap();
    world.restart().await;
    let rotations = world.store.rotations();
    let running = rotations.running().await.unwrap();
    assert_eq!(running.len(), 2);
    assert!(running.contains(&moved) && running.contains(&theirs));
    assert_eq!(
        (moved.done, &moved.reached),
        (5, &Some(rows[4].seal.clone()))
    );
    assert!(all(&world, &one, 200).await[4].sealed.starts_with(b"new "));
    let anew = RotationStep::default();
    let moved = rotations.advance(&moved, &anew).await.unwrap().unwrap();
    assert_eq!((moved.done, &moved.reached), (0, &None));
    let ended = rotations.finish(&one.org, &moved.id, 0, &person()).await;
    let ended = ended.unwrap().unwrap();
    assert_eq!(ended.state, RotationState::Done);
    assert_eq!(ended.finished_at, Some(START));
    assert_eq!(rotations.advance(&moved, &anew).await.unwrap(), None);
    let twice = rotations.finish(&one.org, &moved.id, 0, &person()).await;
    assert_eq!(twice.unwrap(), None);
    let next = start(&world, &one).await;
    let listed = world.store.rotations().list(&one.org).await.unwrap();
    assert_eq!(listed.len(), 2);
    assert!(listed.contains(&next) && listed.contains(&ended));
    let ended = rotations.finish(&one.org, &next.id, 2, &person()).await;
    let ended = ended.unwrap().unwrap();
    assert_eq!((ended.state, ended.skipped), (RotationState::Incomplete, 2));
    let found = rotations.get(&one.org, &next.id).await.unwrap();
    assert_eq!(found, Some(ended));
}

async fn of_two_who_take_the_same_step_one_does(world: World) {
    let (one, _) = two(&world).await;
    let started = start(&world, &one).await;
    let rows = all(&world, &one, 200).await;
    let step = RotationStep {
        reached: Some(rows[0].seal.clone()),
        seen: 1,
        swaps: vec![other_bytes(&rows[0])],
    };
    let racers = (0..8).map(|_| {
        let (store, started, step) = (world.store.clone(), started.clone(), step.clone());
        tokio::spawn(async move { store.rotations().advance(&started, &step).await.unwrap() })
    });
    let moved = futures::future::join_all(racers).await;
    let did = moved
        .iter()
        .filter(|moved| moved.as_ref().unwrap().is_some());
    assert_eq!(did.count(), 1);
    let rotation = world.store.rotations().get(&one.org, &started.id).await;
    assert_eq!(rotation.unwrap().unwrap().done, 1);
}

async fn a_rotation_is_nothing_to_another_organisation(world: World) {
    let (one, other) = two(&world).await;
    let rotations = world.store.rotations();
    let foreign = rotations
        .start(&other.org, &one.vault, RotationKind::Rewrap, 2, &person())
        .await;
    assert!(matches!(foreign, Err(StartRotationError::NoVault(_))));
    let mine = start(&world, &one).await;
    assert_eq!(rotations.get(&other.org, &mine.id).await.unwrap(), None);
    assert!(rotations.list(&other.org).await.unwrap().is_empty());
    let foreign = rotations.finish(&other.org, &mine.id, 0, &person()).await;
    assert_eq!(foreign.unwrap(), None);
    let posing = Rotation {
        org: other.org.clone(),
        ..mine.clone()
    };
    let moved = rotations.advance(&posing, &RotationStep::default()).await;
    assert_eq!(moved.unwrap(), None);
    assert_eq!(rotations.get(&one.org, &mine.id).await.unwrap(), Some(mine));
}
