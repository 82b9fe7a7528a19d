use std::collections::BTreeSet;
use std::time::Duration;

use ::leases::scope::Kind;
use futures::TryStreamExt as _;
use rusqlite::{Connection, params};

use super::*;
use crate::chain::hash;
use crate::testing::*;

/// A store with records in both streams, signed.
async fn world() -> (World, Tenant) {
    let world = World::new().await;
    world.sign();
    let one = tenant(&world.store, "one").await;
    let request = one.lease(&world.store, Kind::Workflow).await;
    for _ in 0..9 {
        world
            .store
            .ledger()
            .record_use(request.clone())
            .await
            .unwrap();
    }
    (world, one)
}

async fn first_bad(world: &World) -> (String, u64, BadReason) {
    let live = world
        .store
        .audit()
        .verify()
        .await
        .unwrap()
        .first_bad
        .unwrap();
    (live.stream, live.seq, live.reason)
}

async fn offline(world: &World) -> VerifyReport {
    let options = OfflineOptions::default();
    verify_offline(&world.location(), &world.checkpoint(), &options)
        .await
        .unwrap()
}

/// The position of a record of the ledger's stream.
fn position(db: &Connection, seq: i64) -> i64 {
    let query = "SELECT (number << 40) + ?1 FROM audit_streams WHERE stream = 'local/ledger'";
    db.query_row(query, [seq], |row| row.get(0)).unwrap()
}

fn change(world: &World, statement: &str, seqs: &[i64]) {
    let db = world.intruder();
    let positions: Vec<i64> = seqs.iter().map(|&seq| position(&db, seq)).collect();
    let changed = db
        .execute(statement, rusqlite::params_from_iter(positions))
        .unwrap();
    assert!(changed > 0, "{statement}");
}

#[tokio::test]
async fn an_untouched_chain_is_intact_live_and_offline() {
    let (world, _) = world().await;
    let report = world.store.audit().verify().await.unwrap();
    assert!(report.is_intact(), "{report:?}");
    assert_eq!(report.streams.len(), 2);
    assert_eq!(report.streams[1].head_seq, 9);
    world.store.close().await;
    let report = offline(&world).await;
    assert!(report.is_intact(), "{report:?}");
    assert!(report.streams[1].checkpoint_seq >= Some(9));
    assert!(report.checkpoint_key.is_some());
}

#[tokio::test]
async fn an_edited_record_is_named() {
    let (world, _) = world().await;
    let edit = "UPDATE audit_events SET body = replace(body, '/v1/charges', '/v1/refunds') WHERE position = ?1";
    change(&world, edit, &[4]);
    let found = first_bad(&world).await;
    assert_eq!(found, ("local/ledger".to_owned(), 4, BadReason::Edited));
}

#[tokio::test]
async fn an_edited_column_is_named() {
    let (world, _) = world().await;
    for (edit, column) in [
        ("lease_id = NULL", "lease_id"),
        ("agent_id = 'agt_x'", "agent_id"),
        ("action = 'lease.none'", "action"),
        ("org_id = 'org_x'", "org_id"),
        ("created_at = 5", "created_at"),
        ("secret_set_id = NULL", "secret_set_id"),
    ] {
        let db = world.intruder();
        let at = position(&db, 5);
        let kept: rusqlite::types::Value = db
            .query_row(
                &format!("SELECT {column} FROM audit_events WHERE position = ?1"),
                [at],
                |row| row.get(0),
            )
            .unwrap();
        db.execute(
            &format!("UPDATE audit_events SET {edit} WHERE position = ?1"),
            [at],
        )
        .unwrap();
        let found = first_bad(&world).await;
        assert_eq!((found.1, found.2), (5, BadReason::ColumnDiffers), "{edit}");
        db.execute(
            &format!("UPDATE audit_events SET {column} = ?1 WHERE position = ?2"),
            params![kept, at],
        )
        .unwrap();
    }
    assert!(world.store.audit().verify().await.unwrap().is_intact());
}

#[tokio::test]
async fn a_deleted_record_is_named() {
    let (world, _) = world().await;
    change(&world, "DELETE FROM audit_events WHERE position = ?1", &[6]);
    let found = first_bad(&world).await;
    assert_eq!(found, ("local/ledger".to_owned(), 6, BadReason::Missing));
}

#[tokio::test]
async fn swapped_records_are_named() {
    let (world, _) = world().await;
    let db = world.intruder();
    let (third, seventh) = (position(&db, 3), position(&db, 7));
    for (from, to) in [(third, -1), (seventh, third), (-1, seventh)] {
        db.execute(
            "UPDATE audit_events SET position = ?2 WHERE position = ?1",
            [from, to],
        )
        .unwrap();
    }
    let found = first_bad(&world).await;
    assert_eq!((found.1, found.2), (3, BadReason::OutOfOrder));
}

#[tokio::test]
async fn a_tail_cut_while_the_store_runs_is_named_and_stays_so() {
    let (world, one) = world().await;
    change(
        &world,
        "DELETE FROM audit_events WHERE position >= ?1 AND position < (?1 | 1099511627775)",
        &[7],
    );
    let found = first_bad(&world).await;
    assert_eq!((found.1, found.2), (7, BadReason::Truncated));
    let request = one.lease(&world.store, Kind::Workflow).await;
    world.store.ledger().record_use(request).await.unwrap();
    let found = first_bad(&world).await;
    assert_eq!((found.1, found.2), (7, BadReason::Missing));
}

#[tokio::test]
async fn a_tail_cut_while_nothing_runs_is_named_and_stays_so() {
    let (mut world, one) = world().await;
    let request = one.lease(&world.store, Kind::Workflow).await;
    world.store.close().await;
    change(
        &world,
        "DELETE FROM audit_events WHERE position >= ?1",
        &[7],
    );
    let bad = offline(&world).await.first_bad.unwrap();
    assert_eq!((bad.seq, bad.reason), (7, BadReason::Truncated));
    assert_eq!(bad.why, "local/ledger was truncated after record 6");
    world.restart().await;
    world.sign();
    let refused = world.store.ledger().record_use(request).await;
    assert!(matches!(
        refused,
        Err(crate::UseRefusal::LeaseRevoked { .. })
    ));
    assert_eq!(first_bad(&world).await.1, 7);
    world.store.close().await;
    let bad = offline(&world).await.first_bad.unwrap();
    assert_eq!((bad.seq, bad.reason), (7, BadReason::Missing));
}

#[tokio::test]
async fn a_whole_stream_taken_away_is_named() {
    let (world, _) = world().await;
    world.store.close().await;
    let db = world.intruder();
    db.execute_batch("DELETE FROM audit_events; DELETE FROM audit_streams;")
        .unwrap();
    let report = offline(&world).await;
    assert_eq!(report.streams.len(), 2);
    for stream in report.streams {
        let bad = stream.first_bad.unwrap();
        assert_eq!((bad.seq, bad.reason), (1, BadReason::Truncated));
    }
}

/// Edits a record and makes all hashes from there on fit again.
fn rewrite(world: &World, seq: i64) {
    let db = world.intruder();
    let from = position(&db, seq);
    let mut prev: Vec<u8> = db
        .query_row(
            "SELECT prev_hash FROM audit_events WHERE position = ?1",
            [from],
            |row| row.get(0),
        )
        .unwrap();
    let mut rows = db
        .prepare("SELECT position, body FROM audit_events WHERE position >= ?1 ORDER BY position")
        .unwrap();
    let rows: Vec<(i64, String)> = rows
        .query_map([from], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap()
        .map(Result::unwrap)
        .collect();
    for (position, body) in rows {
        let body = body.replace("/v1/charges", "/v1/refunds");
        let new = hash(&prev, &body);
        db.execute(
            "UPDATE audit_events SET prev_hash = ?1, hash = ?2, body = ?3 WHERE position = ?4",
            params![prev, &new[..], body, position],
        )
        .unwrap();
        prev = new.to_vec();
    }
}

#[tokio::test]
async fn a_history_written_anew_differs_from_memory_and_from_the_signed_head() {
    let (mut world, _) = world().await;
    rewrite(&world, 5);
    let found = first_bad(&world).await;
    assert_eq!((found.1, found.2), (9, BadReason::Rewritten));
    world.store.close().await;
    let head = offline(&world).await.first_bad.unwrap();
    assert_eq!(head.reason, BadReason::Rewritten);
    // The signed head is evidence: a new start goes on and keeps it.
    world.restart().await;
    assert_eq!(world.store.restored().unwrap().ended_leases, 1);
    world.sign();
    world.store.close().await;
    assert_eq!(
        offline(&world).await.first_bad.unwrap().reason,
        BadReason::Rewritten
    );
    world.restart().await;
    assert_eq!(world.store.restored(), None);
}

#[tokio::test]
async fn a_record_put_in_by_someone_else_is_named_and_uses_go_on() {
    let (world, one) = world().await;
    let request = one.lease(&world.store, Kind::Workflow).await;
    let forge = "INSERT INTO audit_events SELECT position + 1, org_id, created_at, action, agent_id, \
         lease_id, secret_set_id, hash, hash, body FROM audit_events WHERE position = ?1";
    change(&world, forge, &[9]);
    let ledger = world.store.ledger();
    assert!(ledger.record_use(request.clone()).await.is_err());
    ledger.record_use(request).await.unwrap();
    let found = first_bad(&world).await;
    assert_eq!((found.1, found.2), (10, BadReason::Edited));
}

#[tokio::test]
async fn a_checkpoint_of_another_key_is_not_trusted() {
    let (world, _) = world().await;
    world.store.close().await;
    let options = OfflineOptions {
        trusted_key: Some(CheckpointSigner::from_seed(&[8; 32]).public()),
    };
    let report = verify_offline(&world.location(), &world.checkpoint(), &options)
        .await
        .unwrap();
    assert_eq!(report.first_bad.unwrap().reason, BadReason::BadSignature);
    let options = OfflineOptions {
        trusted_key: Some(CheckpointSigner::from_seed(&[7; 32]).public()),
    };
    let report = verify_offline(&world.location(), &world.checkpoint(), &options)
        .await
        .unwrap();
    assert!(report.is_intact());
}

#[tokio::test]
async fn an_edited_checkpoint_is_not_read_and_nothing_starts_on_it() {
    let (world, _) = world().await;
    world.store.close().await;
    let text = std::fs::read_to_string(world.checkpoint()).unwrap();
    std::fs::write(world.checkpoint(), text.replace("\"seq\": 9", "\"seq\": 8")).unwrap();
    let options = OfflineOptions::default();
    let refused = verify_offline(&world.location(), &world.checkpoint(), &options).await;
    assert!(matches!(refused, Err(VerifyError::Checkpoint { .. })));
    let clock = std::sync::Arc::clone(&world.clock) as std::sync::Arc<dyn ::leases::clock::Clock>;
    let opened = Store::open(crate::StoreOptions::new(world.database(), clock)).await;
    assert!(matches!(opened, Err(crate::OpenError::Checkpoint { .. })));
}

#[tokio::test]
async fn heads_are_signed_within_a_second() {
    let (world, one) = world().await;
    let request = one.lease(&world.store, Kind::Workflow).await;
    for _ in 0..3 {
        world
            .store
            .ledger()
            .record_use(request.clone())
            .await
            .unwrap();
        let head = world.store.inner.heads.ledger.get();
        let moved = std::time::Instant::now();
        eventually("the signature", || {
            checkpoint::Checkpoint::read(&world.checkpoint())
                .unwrap()
                .and_then(|checkpoint| checkpoint.head("local/ledger"))
                == Some(head)
        })
        .await;
        assert!(moved.elapsed() < Duration::from_secs(1));
    }
}

#[tokio::test]
async fn a_sets_version_put_back_is_found() {
    let (world, one) = world().await;
    update_set(&world.store, &one, &["STRIPE_SECRET_KEY"]).await;
    world
        .intruder()
        .execute("UPDATE secret_sets SET version = 1", [])
        .unwrap();
    let report = world.store.audit().verify().await.unwrap();
    assert_eq!(report.first_bad, None);
    let expected = RolledBack {
        secret_set_id: one.set.to_string(),
        recorded: 2,
        stored: 1,
    };
    assert_eq!(report.rolled_back, [expected]);
    assert!(!report.is_intact());
}

async fn all(world: &World, org: &OrgId, filter: &EventFilter, limit: u32) -> Vec<Event> {
    let mut page = PageRequest {
        limit,
        cursor: None,
    };
    let mut events = Vec::new();
    loop {
        let got = world.store.audit().list(org, filter, &page).await.unwrap();
        assert!(got.items.len() <= limit as usize);
        events.extend(got.items);
        page.cursor = got.next_cursor;
        if page.cursor.is_none() {
            return events;
        }
    }
}

#[tokio::test]
async fn pages_give_both_streams_newest_first_and_each_event_once() {
    let (world, one) = world().await;
    for _ in 0..5 {
        world.clock.advance(Duration::from_secs(1));
        let request = one.lease(&world.store, Kind::Workflow).await;
        world.clock.advance(Duration::from_secs(1));
        world.store.ledger().record_use(request).await.unwrap();
    }
    let whole = all(&world, &one.org, &EventFilter::default(), 200).await;
    for limit in [1, 2, 3, 7] {
        assert_eq!(
            all(&world, &one.org, &EventFilter::default(), limit).await,
            whole
        );
    }
    let times: Vec<&str> = whole
        .iter()
        .map(|event| event.created_at.as_str())
        .collect();
    assert!(times.is_sorted_by(|newer, older| newer >= older));
    let ids: BTreeSet<&str> = whole.iter().map(|event| event.id.as_str()).collect();
    assert_eq!(ids.len(), whole.len());
    let exported: Vec<Event> = world
        .store
        .audit()
        .export(&one.org, &EventFilter::default())
        .try_collect()
        .await
        .unwrap();
    assert_eq!(exported.into_iter().rev().collect::<Vec<_>>(), whole);
}

#[tokio::test]
async fn each_filter_limits_and_organisations_see_only_their_own() {
    let (world, one) = world().await;
    let other = tenant(&world.store, "other").await;
    world.clock.advance(Duration::from_secs(10));
    let later = one.lease(&world.store, Kind::Workflow).await;
    world
        .store
        .ledger()
        .record_use(later.clone())
        .await
        .unwrap();
    let cases = [
        (
            EventFilter {
                lease_id: Some(later.lease.clone()),
                ..EventFilter::default()
            },
            2,
        ),
        (
            EventFilter {
                action: Some("lease.use".to_owned()),
                ..EventFilter::default()
            },
            10,
        ),
        (
            EventFilter {
                secret_set_id: Some(one.set.clone()),
                ..EventFilter::default()
            },
            14,
        ),
        (
            EventFilter {
                agent_id: Some(one.agent.clone()),
                ..EventFilter::default()
            },
            14,
        ),
        (
            EventFilter {
                agent_id: Some(other.agent.clone()),
                ..EventFilter::default()
            },
            0,
        ),
        (
            EventFilter {
                from: Some(START + Duration::from_secs(10)),
                ..EventFilter::default()
            },
            2,
        ),
        (
            EventFilter {
                to: Some(START + Duration::from_secs(10)),
                ..EventFilter::default()
            },
            15,
        ),
    ];
    for (filter, expected) in cases {
        let found = all(&world, &one.org, &filter, 3).await;
        assert_eq!(found.len(), expected, "{filter:?}");
        assert!(found.iter().all(|event| event.org_id == one.org.as_str()));
    }
    let theirs = all(&world, &other.org, &EventFilter::default(), 200).await;
    assert!(
        theirs
            .iter()
            .all(|event| event.org_id == other.org.as_str())
    );
    let page = PageRequest {
        limit: 1,
        cursor: Some("1.x".to_owned()),
    };
    let refused = world
        .store
        .audit()
        .list(&one.org, &EventFilter::default(), &page)
        .await;
    assert!(matches!(refused, Err(StoreError::BadCursor)));
}

#[tokio::test]
async fn an_appended_event_carries_its_actor() {
    let (world, one) = world().await;
    let event = NewEvent {
        action: "auth.failure",
        decision: crate::Decision::Deny,
        error: Some("unauthorized".to_owned()),
        ..NewEvent::default()
    };
    let written = world
        .store
        .audit()
        .append(&one.org, event, &person())
        .await
        .unwrap();
    assert_eq!(
        (written.actor_type.as_str(), written.client_ip.as_deref()),
        ("user", Some("127.0.0.1"))
    );
    let listed = all(&world, &one.org, &EventFilter::default(), 1).await;
    assert!(listed.contains(&written));
}
