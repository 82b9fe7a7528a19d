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
        ..OfflineOptions::default()
    };
    let report = verify_offline(&world.location(), &world.checkpoint(), &options)
        .await
        .unwrap();
    assert_eq!(report.first_bad.unwrap().reason, BadReason::BadSignature);
    let options = OfflineOptions {
        trusted_key: Some(CheckpointSigner::from_seed(&[7; 32]).public()),
        ..OfflineOptions::default()
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

/// Policies and secrets by path, put back or written behind the store's back: on both databases.
mod behind_the_store {
    use ::leases::policy::{Effect, PathPattern, Permission, Rule};
    use ::leases::secret_path::SecretPath;

    use super::*;
    use crate::{NewPolicy, NewSecret, PolicyPatch, PolicyPrincipal};

    on_both! {
        a_secret_put_back_is_found,
        a_policy_put_back_or_written_is_found,
        what_was_deleted_and_restored_is_no_finding,
    }

    struct Laid {
        tenant: Tenant,
        policy: String,
    }

    /// A secret `a/b` with three versions, the second disabled and the third read twice, a deleted secret `a/gone`, and a policy
    /// that was changed once.
    async fn lay(world: &World) -> Laid {
        let tenant = tenant(&world.store, "one").await;
        let (org, vault) = (&tenant.org, &tenant.vault);
        for _ in 0..3 {
            put(world, &tenant, "a/b").await;
        }
        let secrets = world.store.secrets();
        let at = SecretPath::parse("a/b").unwrap();
        secrets
            .disable(org, vault, &at, 2, &person())
            .await
            .unwrap();
        for _ in 0..2 {
            let event = NewEvent {
                action: "secret.read",
                ..NewEvent::default()
            };
            let read = secrets
                .take_read(org, vault, &at, None, event, &person())
                .await;
            read.unwrap().unwrap();
        }
        put(world, &tenant, "a/gone").await;
        let gone = SecretPath::parse("a/gone").unwrap();
        secrets.delete(org, vault, &gone, &person()).await.unwrap();
        let policies = world.store.policies();
        let new = NewPolicy {
            principal: PolicyPrincipal::Agent(tenant.agent.clone()),
            rule: Rule {
                pattern: PathPattern::parse("a/**").unwrap(),
                permissions: vec![Permission::Read],
                effect: Effect::Allow,
                priority: 0,
                conditions: serde_json::from_str("{}").unwrap(),
                environments: Vec::new(),
                expires_at: None,
            },
        };
        let made = policies.create(org, vault, new, &person()).await.unwrap();
        let patch = PolicyPatch {
            effect: Some(Effect::Deny),
            ..PolicyPatch::default()
        };
        let changed = policies.patch(org, vault, &made.id, patch, &person()).await;
        changed.unwrap().unwrap();
        Laid {
            policy: made.id.to_string(),
            tenant,
        }
    }

    async fn put(world: &World, tenant: &Tenant, path: &str) {
        let (secrets, vaults) = (world.store.secrets(), world.store.vaults());
        let vault = vaults.get(&tenant.org, "default").await.unwrap().unwrap();
        let at = SecretPath::parse(path).unwrap();
        let new = NewSecret {
            place: secrets
                .next_version(&tenant.org, &vault, &at)
                .await
                .unwrap(),
            sealed: b"sealed".to_vec(),
            kind: "generic".to_owned(),
            metadata: None,
            rotation_policy: None,
            expires_at: None,
            max_reads: None,
        };
        let put = secrets
            .put(&tenant.org, new, "secret.write", &person())
            .await;
        put.unwrap();
    }

    /// What is found of rows, live and without a server.
    async fn found(world: &World) -> Vec<PutBack> {
        let live = world.store.audit().verify().await.unwrap();
        assert_eq!(live.first_bad, None);
        let offline = offline(world).await;
        assert_eq!(live.put_back, offline.put_back);
        assert_eq!(live.put_back.is_empty(), live.is_intact());
        live.put_back
    }

    async fn expect(world: &World, statement: &str, name: &str, why: &str) {
        world.tamper(statement);
        let found = found(world).await;
        assert_eq!(found.len(), 1, "{statement}: {found:?}");
        assert_eq!(found[0].name, name, "{statement}");
        assert!(found[0].why.contains(why), "{statement}: {}", found[0].why);
    }

    async fn a_secret_put_back_is_found(world: World) {
        lay(&world).await;
        assert_eq!(found(&world).await, []);
        for (statement, mended, name, why) in [
            (
                "UPDATE secrets SET version = 2 WHERE path = 'a/b'",
                "UPDATE secrets SET version = 3 WHERE path = 'a/b'",
                "a/b",
                "its version is 2, and the audit trail tells of 3",
            ),
            (
                "UPDATE secret_versions SET disabled_at = NULL WHERE path = 'a/b'",
                "UPDATE secret_versions SET disabled_at = 5 WHERE path = 'a/b' AND version = 2",
                "a/b",
                "version 2 is enabled again",
            ),
            (
                "UPDATE secret_versions SET reads = 1 WHERE path = 'a/b' AND version = 3",
                "UPDATE secret_versions SET reads = 2 WHERE path = 'a/b' AND version = 3",
                "a/b",
                "version 3 counts 1 reads, and the audit trail tells of 2",
            ),
            (
                "UPDATE secrets SET deleted_at = NULL WHERE path = 'a/gone'",
                "UPDATE secrets SET deleted_at = 5 WHERE path = 'a/gone'",
                "a/gone",
                "it is there again",
            ),
        ] {
            expect(&world, statement, name, why).await;
            world.tamper(mended);
        }
        assert_eq!(found(&world).await, []);
    }

    async fn a_policy_put_back_or_written_is_found(world: World) {
        let Laid { tenant, policy } = lay(&world).await;
        for (statement, mended, why) in [
            (
                "UPDATE policies SET version = 1, effect = 'allow'",
                "UPDATE policies SET version = 2, effect = 'deny'",
                "its version is 1, and the audit trail tells of 2",
            ),
            (
                "UPDATE policies SET effect = 'allow'",
                "UPDATE policies SET effect = 'deny'",
                "it says something else",
            ),
            (
                "UPDATE policies SET path_pattern = '**'",
                "UPDATE policies SET path_pattern = 'a/**'",
                "it says something else",
            ),
        ] {
            expect(&world, statement, &policy, why).await;
            world.tamper(mended);
        }
        assert_eq!(found(&world).await, []);
        let id = ::leases::id::PolicyId::parse(&policy).unwrap();
        let policies = world.store.policies();
        let deleted = policies
            .delete(&tenant.org, &tenant.vault, &id, &person())
            .await;
        assert!(deleted.unwrap());
        assert_eq!(found(&world).await, []);
        let revived = "UPDATE policies SET deleted_at = NULL";
        expect(&world, revived, &policy, "it is in force again").await;
        expect(&world, "DELETE FROM policies", &policy, "its version is 0").await;
    }

    async fn what_was_deleted_and_restored_is_no_finding(world: World) {
        let Laid { tenant, .. } = lay(&world).await;
        let gone = SecretPath::parse("a/gone").unwrap();
        let secrets = world.store.secrets();
        for _ in 0..2 {
            let restored = secrets
                .restore(&tenant.org, &tenant.vault, &gone, &person())
                .await;
            restored.unwrap().unwrap();
            assert_eq!(found(&world).await, []);
            let deleted = secrets
                .delete(&tenant.org, &tenant.vault, &gone, &person())
                .await;
            assert!(deleted.unwrap());
            assert_eq!(found(&world).await, []);
        }
        // A write brings it back as well.
        put(&world, &tenant, "a/gone").await;
        assert_eq!(found(&world).await, []);
    }
}

/// Heads that were published while the server ran.
mod published {
    use std::fmt::Write as _;

    use super::*;

    /// Three heads, signed one after the other, a line each.
    async fn publish(world: &World, one: &Tenant) -> String {
        let mut lines = String::new();
        for _ in 0..3 {
            update_set(&world.store, one, &["STRIPE_SECRET_KEY"]).await;
            let signed = world.store.audit().signed_heads().unwrap();
            writeln!(lines, "{}", signed.line).unwrap();
        }
        lines
    }

    async fn verify(world: &World, lines: &str) -> Result<VerifyReport, VerifyError> {
        let file = world.directory.path().join("published.jsonl");
        std::fs::write(&file, lines).unwrap();
        let options = OfflineOptions {
            trusted_key: Some(CheckpointSigner::from_seed(&[7; 32]).public()),
            published: Some(file),
        };
        // The server's own checkpoint went back with the database: nothing here may rest on it.
        let gone = world.directory.path().join("gone.checkpoint");
        verify_offline(&world.location(), &gone, &options).await
    }

    #[tokio::test]
    async fn heads_that_the_chain_holds_are_no_finding() {
        let (world, one) = world().await;
        let lines = publish(&world, &one).await;
        world.store.close().await;
        let report = verify(&world, &lines).await.unwrap();
        // `unanchored` would be a finding: the published heads are anchors too.
        assert!(report.is_intact(), "{report:?}");
        assert!(
            report
                .streams
                .iter()
                .all(|stream| stream.checkpoint_seq.is_some())
        );
    }

    #[tokio::test]
    async fn nothing_is_signed_without_a_key() {
        let world = World::new().await;
        assert_eq!(world.store.audit().signed_heads(), None);
    }

    #[tokio::test]
    async fn an_older_database_is_found_by_who_holds_the_heads() {
        let (world, one) = world().await;
        let older = world.directory.path().join("older.db");
        let copy = format!("VACUUM INTO '{}'", older.display());
        world.intruder().execute(&copy, []).unwrap();
        let lines = publish(&world, &one).await;
        world.store.close().await;
        std::fs::rename(older, world.database()).unwrap();
        let report = verify(&world, &lines).await.unwrap();
        let bad = report.first_bad.unwrap();
        assert_eq!(
            (bad.stream.as_str(), bad.reason),
            ("local/control", BadReason::Truncated)
        );
    }

    #[tokio::test]
    async fn a_record_that_differs_from_a_published_head_is_named() {
        let (world, one) = world().await;
        let lines = publish(&world, &one).await;
        world.store.close().await;
        rewrite(&world, 4);
        let report = verify(&world, &lines).await.unwrap();
        let bad = report.first_bad.unwrap();
        assert_eq!(
            (bad.stream.as_str(), bad.reason),
            ("local/ledger", BadReason::Rewritten)
        );
    }

    #[tokio::test]
    async fn an_edited_line_is_refused_and_one_that_breaks_off_says_nothing() {
        let (world, one) = world().await;
        let lines = publish(&world, &one).await;
        world.store.close().await;
        let broken = format!("{}\n{}", &lines[..lines.len() / 2 - 20], lines);
        verify(&world, &broken).await.unwrap();
        let edited = lines.replacen("\"seq\":9", "\"seq\":8", 1);
        assert_ne!(edited, lines);
        let refused = verify(&world, &edited).await.unwrap_err();
        assert!(
            refused
                .to_string()
                .contains("line 1: its signature does not fit"),
            "{refused}"
        );
        let refused = verify(&world, "no JSON\n").await.unwrap_err();
        assert!(refused.to_string().contains("line 1"), "{refused}");
    }

    #[tokio::test]
    async fn heads_by_another_key_are_a_finding() {
        let (world, _) = world().await;
        world
            .store
            .audit()
            .start_checkpoints(CheckpointSigner::from_seed(&[9; 32]));
        let line = world.store.audit().signed_heads().unwrap().line;
        world.store.close().await;
        let report = verify(&world, &line).await.unwrap();
        assert_eq!(report.first_bad.unwrap().reason, BadReason::BadSignature);
    }
}
