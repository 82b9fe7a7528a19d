use std::path::PathBuf;

use ::leases::scope::Kind;

use crate::approvals::Verdict;
use crate::audit::CHECKPOINT_KEY;
use crate::audit::checkpoint::Checkpoint;
use crate::ledger::{Holding, Standing};
use crate::testing::*;
use crate::{
    ApprovedUse, BadReason, CheckpointSigner, Event, EventFilter, Idempotency, NewSealedKey,
    OfflineOptions, PageRequest, UseRefusal, UseRequest, VerifyReport,
};

/// Opens a closed store again.
async fn reopen(world: &mut World) {
    world.store = open_at(world.location(), &world.directory, &world.clock).await;
    world.sign();
}

fn files(world: &World) -> [(PathBuf, PathBuf); 2] {
    ["claviger.db", "claviger.db-wal"].map(|name| {
        let file = world.directory.path().join(name);
        (file, world.directory.path().join(format!("{name}.kept")))
    })
}

/// Keeps a copy of the database, which nothing has open.
fn back_up(world: &World) {
    if let Some(database) = &world.postgres {
        database.admin("CREATE TABLE kept_events AS SELECT position FROM audit_events");
        return;
    }
    for (file, kept) in files(world) {
        if file.exists() {
            std::fs::copy(file, kept).unwrap();
        }
    }
}

/// Puts the copy back, and leaves the signed heads as they are.
fn put_back(world: &World) {
    if let Some(database) = &world.postgres {
        database.admin(
            "DELETE FROM audit_events WHERE position NOT IN (SELECT position FROM kept_events); \
             UPDATE leases SET uses = 0, revoked_at = NULL; \
             UPDATE approvals SET status = 'approved', consumed_at = NULL",
        );
        return;
    }
    for (file, kept) in files(world) {
        let _ = std::fs::remove_file(&file);
        if kept.exists() {
            std::fs::copy(kept, file).unwrap();
        }
    }
}

/// A use that a person approved.
async fn approved(world: &World, tenant: &Tenant) -> UseRequest {
    let approvals = world.store.approvals();
    let asked = tenant.asked("/v1/refunds", b"");
    let asked = approvals.ask(&tenant.org, &asked, &person()).await.unwrap();
    let decided = approvals
        .decide(&tenant.org, &asked.id, Verdict::Approve, None, &person())
        .await;
    UseRequest {
        approval: Some(ApprovedUse {
            id: asked.id,
            expires_at: decided.unwrap().unwrap().expires_at,
        }),
        ..tenant.lease(&world.store, Kind::Workflow).await
    }
}

async fn use_of(world: &World, request: &UseRequest) -> Result<(), UseRefusal> {
    let recorded = world.store.ledger().record_use(request.clone()).await;
    recorded.map(drop)
}

async fn standing(world: &World, request: &UseRequest) -> Standing {
    let holding = Holding {
        org: &request.org,
        lease: &request.lease,
        agent: &request.agent,
        grant: None,
        set: None,
        revocation_ids: &request.revocation_ids,
    };
    world.store.ledger().standing(&holding).await.unwrap()
}

async fn epochs(world: &World, tenant: &Tenant) -> Vec<Event> {
    let filter = EventFilter {
        action: Some("restore.epoch".to_owned()),
        ..EventFilter::default()
    };
    let page = PageRequest {
        limit: 200,
        cursor: None,
    };
    let audit = world.store.audit();
    audit.list(&tenant.org, &filter, &page).await.unwrap().items
}

async fn offline(world: &World) -> VerifyReport {
    let options = OfflineOptions::default();
    crate::audit::verify_offline(&world.location(), &world.checkpoint(), &options)
        .await
        .unwrap()
}

fn is_revoked(answer: &Result<(), UseRefusal>) -> bool {
    matches!(answer, Err(UseRefusal::LeaseRevoked { .. }))
}

async fn after_a_rollback_no_lease_of_before_opens_anything(mut world: World) {
    world.sign();
    let one = tenant(&world.store, "one").await;
    let workflow = one.lease(&world.store, Kind::Workflow).await;
    let single = one.lease(&world.store, Kind::Request).await;
    let keys = world.store.idempotency();
    keys.begin(&one.org, "usr_a", "k", &[1; 32]).await.unwrap();
    keys.finish(&one.org, "usr_a", "k", 201, b"a lease")
        .await
        .unwrap();
    let approved = approved(&world, &one).await;
    world.store.close().await;
    back_up(&world);
    reopen(&mut world).await;
    assert_eq!(world.store.restored(), None);
    use_of(&world, &single).await.unwrap();
    use_of(&world, &approved).await.unwrap();
    let leases = world.store.leases();
    leases
        .revoke(&one.org, &workflow.lease, &person())
        .await
        .unwrap();
    world.store.close().await;
    put_back(&world);

    reopen(&mut world).await;
    let restored = world.store.restored().unwrap();
    assert_eq!(restored.restored_to, Some(START));
    assert_eq!(restored.ended_leases, 3);
    assert_eq!(world.store.ledger().health().restore_epochs, 1);
    for request in [&workflow, &single] {
        let answer = use_of(&world, request).await;
        assert!(is_revoked(&answer), "{answer:?}");
        assert_eq!(standing(&world, request).await, Standing::Revoked);
        let lease = world.store.leases().get(&one.org, &request.lease).await;
        assert!(lease.unwrap().unwrap().revoked_at.is_some());
    }
    let again = world
        .store
        .idempotency()
        .begin(&one.org, "usr_a", "k", &[1; 32])
        .await
        .unwrap();
    assert_eq!(again, Idempotency::Fresh);
    let fresh = one.lease(&world.store, Kind::Workflow).await;
    use_of(&world, &fresh).await.unwrap();
    // An approval that was used since the backup is not good again.
    let again = UseRequest {
        approval: approved.approval,
        ..fresh.clone()
    };
    assert_eq!(use_of(&world, &again).await, Err(UseRefusal::ApprovalGone));

    let told = epochs(&world, &one).await;
    let streams: Vec<&str> = told.iter().map(|event| event.stream.as_str()).collect();
    assert_eq!(streams.len(), 2, "{told:?}");
    for event in &told {
        assert_eq!(
            (event.actor_type.as_str(), event.actor_id.as_str()),
            ("system", "local")
        );
        assert!(event.found_seq < event.signed_seq, "{event:?}");
        assert_eq!(Some(event.seq), event.signed_seq.map(|seq| seq + 1));
    }

    // The loss stays to be seen, and the next start has nothing to tell of.
    world.store.close().await;
    let bad = offline(&world).await.first_bad.unwrap();
    let control = told.iter().find(|event| event.stream == "local/control");
    let found = control.and_then(|event| event.found_seq);
    assert_eq!(bad.reason, BadReason::Missing);
    assert_eq!(Some(bad.seq), found.map(|seq| seq + 1));
    reopen(&mut world).await;
    assert_eq!(world.store.restored(), None);
    assert_eq!(world.store.ledger().health().restore_epochs, 1);
    use_of(&world, &fresh).await.unwrap();
    assert_eq!(epochs(&world, &one).await.len(), 2);
}

async fn one_cut_stream_is_enough_and_ends_leases_once(mut world: World) {
    world.sign();
    let one = tenant(&world.store, "one").await;
    let request = one.lease(&world.store, Kind::Workflow).await;
    for _ in 0..3 {
        use_of(&world, &request).await.unwrap();
    }
    world.store.close().await;
    world.tamper(
        "DELETE FROM audit_events WHERE action = 'lease.use' \
         AND position > (SELECT min(position) FROM audit_events WHERE action = 'lease.use')",
    );
    reopen(&mut world).await;
    assert_eq!(world.store.restored().unwrap().ended_leases, 1);
    assert!(is_revoked(&use_of(&world, &request).await));
    let told = epochs(&world, &one).await;
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].stream, "local/ledger");
    let fresh = one.lease(&world.store, Kind::Workflow).await;
    world.store.close().await;
    reopen(&mut world).await;
    assert_eq!(world.store.restored(), None);
    use_of(&world, &fresh).await.unwrap();
}

async fn an_epoch_can_be_begun_by_hand(world: World) {
    world.sign();
    let one = tenant(&world.store, "one").await;
    let request = one.lease(&world.store, Kind::Workflow).await;
    assert_eq!(world.store.begin_epoch(&person()).await.unwrap(), 1);
    assert!(is_revoked(&use_of(&world, &request).await));
    assert_eq!(epochs(&world, &one).await.len(), 1);
    assert_eq!(world.store.begin_epoch(&person()).await.unwrap(), 0);
    let fresh = one.lease(&world.store, Kind::Workflow).await;
    use_of(&world, &fresh).await.unwrap();
    assert!(world.store.audit().verify().await.unwrap().is_intact());
}

/// A store whose key for signed heads is in the database, as a server's is, and a lease of it.
async fn with_its_key(world: &World) -> (Tenant, UseRequest) {
    let one = tenant(&world.store, "one").await;
    let key = NewSealedKey {
        kek_id: None,
        name: CHECKPOINT_KEY.to_owned(),
        version: 1,
        sealed: vec![1],
        public: CheckpointSigner::from_seed(&[7; 32]).public().to_vec(),
    };
    let keys = world.store.sealed_keys();
    keys.put(&one.org, key, &person()).await.unwrap();
    world.sign();
    let request = one.lease(&world.store, Kind::Workflow).await;
    use_of(world, &request).await.unwrap();
    (one, request)
}

async fn a_missing_signed_head_is_named(world: World) {
    with_its_key(&world).await;
    let heads = world.store.inner.heads.each().map(crate::chain::Head::get);
    eventually("the last signature", || {
        let signed = Checkpoint::read(&world.checkpoint()).unwrap();
        signed.is_some_and(|signed| {
            [signed.head("local/control"), signed.head("local/ledger")] == heads.map(Some)
        })
    })
    .await;
    let kept = std::fs::read(world.checkpoint()).unwrap();
    std::fs::remove_file(world.checkpoint()).unwrap();
    let live = world.store.audit().verify().await.unwrap();
    assert_eq!(live.first_bad.unwrap().reason, BadReason::Unanchored);
    std::fs::write(world.checkpoint(), kept).unwrap();
    world.store.close().await;
    assert!(offline(&world).await.is_intact());
    std::fs::remove_file(world.checkpoint()).unwrap();
    let report = offline(&world).await;
    assert!(!report.is_intact());
    let bad = report.first_bad.unwrap();
    assert_eq!(bad.reason, BadReason::Unanchored);
    assert!(bad.why.contains("no signed head is at hand"), "{}", bad.why);
}

#[tokio::test]
async fn a_database_file_without_its_signed_heads_begins_an_epoch() {
    let mut world = World::new().await;
    let (one, request) = with_its_key(&world).await;
    world.store.close().await;
    std::fs::remove_file(world.checkpoint()).unwrap();
    reopen(&mut world).await;
    assert!(world.store.restored().is_some());
    assert!(is_revoked(&use_of(&world, &request).await));
    let told = epochs(&world, &one).await;
    assert!(told.iter().all(|event| event.signed_seq.is_none()));
    assert_eq!(told.len(), 2);
}

#[tokio::test]
async fn a_node_that_lost_its_directory_ends_nobodys_leases() {
    let mut world = World::on_postgres().await;
    let (_, request) = with_its_key(&world).await;
    world.store.close().await;
    std::fs::remove_file(world.checkpoint()).unwrap();
    reopen(&mut world).await;
    assert_eq!(world.store.restored(), None);
    use_of(&world, &request).await.unwrap();
}

on_both!(
    after_a_rollback_no_lease_of_before_opens_anything,
    one_cut_stream_is_enough_and_ends_leases_once,
    an_epoch_can_be_begun_by_hand,
    a_missing_signed_head_is_named,
);
