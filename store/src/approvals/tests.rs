use std::sync::Arc;

use ::leases::clock::{Clock, ManualClock};
use ::leases::scope::Kind;

use super::*;
use crate::testing::*;
use crate::{ActorKind, ApprovedUse, EventFilter, StoreOptions, UseRefusal, UseRequest};

on_both! {
    a_request_is_asked_for_once_however_often_it_is_repeated,
    an_approval_is_bound_to_every_part_of_its_request,
    what_is_shown_of_a_head_is_kept_and_an_older_one_shows_none,
    an_approval_is_used_once_and_a_refused_use_leaves_the_lease,
    a_decision_is_made_once_in_its_own_organisation_and_in_time,
    what_was_rejected_stays_so_until_its_wait_would_have_ended,
    an_agent_has_so_many_waiting_and_short_waits_are_no_way_around,
    each_step_is_on_record,
    of_64_uses_of_one_approval_one_is_recorded,
    what_ended_long_ago_is_swept,
}

fn agent(tenant: &Tenant) -> Actor {
    Actor {
        kind: ActorKind::Agent,
        id: tenant.agent.to_string(),
        client_ip: None,
        request_id: None,
    }
}

async fn ask(store: &Store, tenant: &Tenant, asked: &Asked) -> Approval {
    let approvals = store.approvals();
    let approval = approvals.ask(&tenant.org, asked, &agent(tenant)).await;
    approval.unwrap()
}

async fn decide(store: &Store, tenant: &Tenant, id: &ApprovalId, verdict: Verdict) -> Approval {
    let approvals = store.approvals();
    let decided = approvals
        .decide(&tenant.org, id, verdict, None, &person())
        .await;
    decided.unwrap().unwrap()
}

/// An approved request, and the use that uses it up.
async fn approved(store: &Store, tenant: &Tenant, path: &str, kind: Kind) -> UseRequest {
    let asked = ask(store, tenant, &tenant.asked(path, b"body")).await;
    let approval = decide(store, tenant, &asked.id, Verdict::Approve).await;
    UseRequest {
        approval: Some(ApprovedUse {
            id: approval.id,
            expires_at: approval.expires_at,
        }),
        ..tenant.lease(store, kind).await
    }
}

async fn status(store: &Store, tenant: &Tenant, id: &ApprovalId) -> ApprovalStatus {
    let approval = store.approvals().get(&tenant.org, None, id).await;
    approval.unwrap().unwrap().status
}

async fn a_request_is_asked_for_once_however_often_it_is_repeated(world: World) {
    let store = &world.store;
    let one = tenant(store, "one").await;
    let first = ask(store, &one, &one.asked("/v1/refunds", b"5")).await;
    assert_eq!(first.status, ApprovalStatus::Pending);
    assert_eq!(first.expires_at, START + Duration::from_mins(5));
    let again = Asked {
        lease: LeaseId::new(START),
        ..one.asked("/v1/refunds", b"5")
    };
    assert_eq!(ask(store, &one, &again).await, first);
    let racers = (0..16).map(|_| ask(store, &one, &again));
    for racer in futures::future::join_all(racers).await {
        assert_eq!(racer.id, first.id);
    }
    world.advance(Duration::from_mins(5));
    let next = ask(store, &one, &again).await;
    assert_ne!(next.id, first.id);
    assert_eq!(
        status(store, &one, &first.id).await,
        ApprovalStatus::Expired
    );
}

async fn an_approval_is_bound_to_every_part_of_its_request(world: World) {
    let store = &world.store;
    let one = tenant(store, "one").await;
    let other = new_agent("other", "other");
    let other = store.agents().create(&one.org, other, &person()).await;
    let set = create_set(store, &one.org, "second", &["A"]).await.id;
    let grant = grant(store, &one.org, &one.agent, &set, None, None).await;
    let base = one.asked("/v1/refunds", b"5");
    let first = ask(store, &one, &base).await;
    decide(store, &one, &first.id, Verdict::Approve).await;
    let others: [Asked; 12] = [
        Asked {
            agent: other.unwrap().id,
            ..base.clone()
        },
        Asked {
            grant: grant.id,
            ..base.clone()
        },
        Asked {
            method: "PUT".to_owned(),
            ..base.clone()
        },
        Asked {
            scheme: "http",
            ..base.clone()
        },
        Asked {
            host: "files.stripe.com".to_owned(),
            ..base.clone()
        },
        Asked {
            port: 8443,
            ..base.clone()
        },
        Asked {
            path_as_sent: "/v1/refunds/".to_owned(),
            ..base.clone()
        },
        Asked {
            query: Some(String::new()),
            ..base.clone()
        },
        Asked {
            query: Some("a=1".to_owned()),
            ..base.clone()
        },
        Asked {
            query: Some("a=2".to_owned()),
            ..base.clone()
        },
        Asked {
            body_sha256: [0; 32],
            ..base.clone()
        },
        Asked {
            head_sha256: [1; 32],
            ..base.clone()
        },
    ];
    let mut ids = vec![first.id.clone()];
    for other in &others {
        let asked = ask(store, &one, other).await;
        assert_eq!(asked.status, ApprovalStatus::Pending, "{other:?}");
        ids.push(asked.id);
    }
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 1 + others.len());
    assert_eq!(ask(store, &one, &base).await.id, first.id);
    assert_eq!(
        ask(store, &one, &base).await.status,
        ApprovalStatus::Approved
    );
}

/// What is shown is for the person: what tells one request from another is the digest.
async fn what_is_shown_of_a_head_is_kept_and_an_older_one_shows_none(world: World) {
    let store = &world.store;
    let one = tenant(store, "one").await;
    let shown = ShownHead {
        actions: vec!["dynamodb:DeleteTable".to_owned()],
        fields: vec![
            ShownField {
                name: "x-amz-target".to_owned(),
                value: Some("DynamoDB_20120810.DeleteTable".to_owned()),
                sha256: None,
            },
            ShownField {
                name: "x-token".to_owned(),
                value: None,
                sha256: Some("00".repeat(32)),
            },
        ],
    };
    let asked = Asked {
        head: shown.clone(),
        ..one.asked("/", b"")
    };
    let first = ask(store, &one, &asked).await;
    assert_eq!(first.head.as_ref(), Some(&shown));
    assert_eq!(ask(store, &one, &asked).await, first);
    let older = query("UPDATE approvals SET head = NULL").execute(store.pool());
    older.await.unwrap();
    assert_eq!(ask(store, &one, &asked).await.head, None);
}

async fn an_approval_is_used_once_and_a_refused_use_leaves_the_lease(world: World) {
    let store = &world.store;
    let (one, stranger) = (tenant(store, "one").await, tenant(store, "other").await);
    let ledger = store.ledger();
    let request = approved(store, &one, "/v1/refunds", Kind::Request).await;
    let id = request.approval.clone().unwrap().id;
    // What is pending, of another organisation, or nothing at all is no approval.
    let pending = ask(store, &one, &one.asked("/v1/payouts", b"")).await;
    let foreign = approved(store, &stranger, "/v1/refunds", Kind::Workflow).await;
    let none = ApprovedUse {
        id: ApprovalId::new(START),
        expires_at: START + Duration::from_mins(5),
    };
    let pending = ApprovedUse {
        id: pending.id,
        expires_at: pending.expires_at,
    };
    for wrong in [pending, none] {
        let wrong = UseRequest {
            approval: Some(wrong),
            ..request.clone()
        };
        let refused = ledger.record_use(wrong).await.unwrap_err();
        assert_eq!(refused, UseRefusal::ApprovalGone);
    }
    ledger.record_use(request.clone()).await.unwrap();
    assert_eq!(status(store, &one, &id).await, ApprovalStatus::Consumed);
    let fresh = UseRequest {
        approval: request.approval.clone(),
        ..one.lease(store, Kind::Request).await
    };
    let refused = ledger.record_use(fresh.clone()).await.unwrap_err();
    assert_eq!(refused, UseRefusal::ApprovalGone);
    let plain = UseRequest {
        approval: None,
        ..fresh
    };
    ledger.record_use(plain).await.unwrap();
    // A use that its lease refuses leaves the approval.
    let revoked = approved(store, &one, "/v1/charges", Kind::Workflow).await;
    let leases = store.leases();
    leases
        .revoke(&one.org, &revoked.lease, &person())
        .await
        .unwrap();
    ledger.record_use(revoked.clone()).await.unwrap_err();
    let left = revoked.approval.unwrap();
    assert_eq!(
        status(store, &one, &left.id).await,
        ApprovalStatus::Approved
    );
    let late = UseRequest {
        approval: Some(left.clone()),
        ..one.lease(store, Kind::Workflow).await
    };
    world.advance(Duration::from_mins(5));
    let refused = ledger.record_use(late).await.unwrap_err();
    assert_eq!(refused, UseRefusal::ApprovalGone);
    assert_eq!(status(store, &one, &left.id).await, ApprovalStatus::Expired);
    ledger.record_use(foreign).await.unwrap_err();
}

async fn a_decision_is_made_once_in_its_own_organisation_and_in_time(world: World) {
    let store = &world.store;
    let (one, other) = (tenant(store, "one").await, tenant(store, "other").await);
    let approvals = store.approvals();
    let asked = ask(store, &one, &one.asked("/v1/refunds", b"")).await;
    let foreign = approvals
        .decide(&other.org, &asked.id, Verdict::Approve, None, &person())
        .await;
    assert_eq!(foreign.unwrap(), None);
    assert_eq!(
        approvals.get(&other.org, None, &asked.id).await.unwrap(),
        None
    );
    let not_mine = approvals.get(&one.org, Some(&other.agent), &asked.id).await;
    assert_eq!(not_mine.unwrap(), None);
    world.advance(Duration::from_mins(4));
    let decided = decide(store, &one, &asked.id, Verdict::Approve).await;
    assert_eq!(decided.status, ApprovalStatus::Approved);
    assert_eq!(
        decided.expires_at,
        world.clock.now() + Duration::from_mins(5)
    );
    assert_eq!(decided.decided_by, Some(person().id));
    for verdict in [Verdict::Approve, Verdict::Reject] {
        let again = approvals
            .decide(&one.org, &asked.id, verdict, None, &person())
            .await;
        let Err(DecideError::Settled(settled)) = again else {
            panic!("{again:?}");
        };
        assert_eq!(*settled, decided);
    }
    let late = ask(store, &one, &one.asked("/v1/payouts", b"")).await;
    world.advance(Duration::from_mins(5));
    let late = approvals
        .decide(&one.org, &late.id, Verdict::Approve, None, &person())
        .await;
    let Err(DecideError::Settled(settled)) = late else {
        panic!("{late:?}");
    };
    assert_eq!(settled.status, ApprovalStatus::Expired);
}

async fn what_was_rejected_stays_so_until_its_wait_would_have_ended(world: World) {
    let store = &world.store;
    let one = tenant(store, "one").await;
    let asked = one.asked("/v1/refunds", b"");
    let first = ask(store, &one, &asked).await;
    let approvals = store.approvals();
    approvals
        .decide(&one.org, &first.id, Verdict::Reject, Some("no"), &person())
        .await
        .unwrap();
    world.advance(Duration::from_mins(4));
    let again = ask(store, &one, &asked).await;
    assert_eq!(again.id, first.id);
    assert_eq!(again.status, ApprovalStatus::Rejected);
    assert_eq!(again.reason.as_deref(), Some("no"));
    world.advance(Duration::from_mins(1));
    let next = ask(store, &one, &asked).await;
    assert_ne!(next.id, first.id);
    assert_eq!(
        status(store, &one, &first.id).await,
        ApprovalStatus::Rejected
    );
}

async fn an_agent_has_so_many_waiting_and_short_waits_are_no_way_around(world: World) {
    let store = &world.store;
    let one = tenant(store, "one").await;
    let brief = |number: i64| Asked {
        pending: Duration::from_secs(1),
        ..one.asked(&format!("/v1/charges/{number}"), b"")
    };
    for number in 0..MAX_PENDING {
        ask(store, &one, &brief(number)).await;
    }
    let approvals = store.approvals();
    world.advance(Duration::from_secs(2));
    for wait in [59, 29] {
        let refused = approvals.ask(&one.org, &brief(-1), &agent(&one)).await;
        let Err(AskError::TooMany { retry_after }) = refused else {
            panic!("{refused:?}");
        };
        assert_eq!(retry_after, Duration::from_secs(wait));
        world.advance(Duration::from_secs(30));
    }
    ask(store, &one, &brief(-1)).await;
}

async fn each_step_is_on_record(world: World) {
    let store = &world.store;
    let one = tenant(store, "one").await;
    let request = approved(store, &one, "/v1/refunds", Kind::Request).await;
    let id = request.approval.clone().unwrap().id;
    let used = store.ledger().record_use(request).await.unwrap();
    let rejected = ask(store, &one, &one.asked("/v1/payouts", b"")).await;
    decide(store, &one, &rejected.id, Verdict::Reject).await;
    let page = PageRequest {
        limit: 200,
        cursor: None,
    };
    let events = store
        .audit()
        .list(&one.org, &EventFilter::default(), &page)
        .await
        .unwrap()
        .items;
    let of = |id: &ApprovalId| {
        let told = events
            .iter()
            .filter(|event| event.approval_id.as_deref() == Some(id.as_str()));
        let mut told: Vec<_> = told
            .map(|event| (event.action.clone(), event.actor_type.clone()))
            .collect();
        told.sort_unstable();
        told
    };
    let said = |action: &str, by: &str| (action.to_owned(), by.to_owned());
    assert_eq!(
        of(&id),
        [
            said("approval.approve", "user"),
            said("approval.consume", "agent"),
            said("approval.request", "agent"),
            said("lease.use", "agent"),
        ]
    );
    assert_eq!(
        of(&rejected.id),
        [
            said("approval.reject", "user"),
            said("approval.request", "agent")
        ]
    );
    let consumed = events
        .iter()
        .find(|event| event.action == "approval.consume")
        .unwrap();
    assert_eq!(consumed.use_id.as_deref(), Some(used.use_id().as_str()));
}

async fn of_64_uses_of_one_approval_one_is_recorded(world: World) {
    let store = &world.store;
    let one = tenant(store, "one").await;
    let request = approved(store, &one, "/v1/refunds", Kind::Workflow).await;
    let racers = (0..64).map(|_| {
        let (ledger, request) = (store.ledger().clone(), request.clone());
        tokio::spawn(async move { ledger.record_use(request).await })
    });
    let mut used = 0;
    for racer in futures::future::join_all(racers).await {
        match racer.unwrap() {
            Ok(_) => used += 1,
            Err(refusal) => assert_eq!(refusal, UseRefusal::ApprovalGone),
        }
    }
    assert_eq!(used, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_64_uses_of_each_approval_over_four_nodes_one_is_recorded() {
    let world = World::on_postgres().await;
    let one = tenant(&world.store, "one").await;
    let mut nodes = vec![world.store.clone()];
    for number in 0..3 {
        let clock = Arc::<ManualClock>::clone(&world.clock) as Arc<dyn Clock>;
        let name = format!("node-{number}");
        let checkpoint = world.directory.path().join(format!("{name}.checkpoint"));
        let options = StoreOptions {
            node: name,
            ..StoreOptions::at(world.location(), checkpoint, clock)
        };
        nodes.push(Store::open(options).await.unwrap());
    }
    for round in 0..8 {
        let path = format!("/v1/refunds/{round}");
        let request = approved(&world.store, &one, &path, Kind::Workflow).await;
        let racers = (0..64).map(|racer| {
            let (ledger, request) = (nodes[racer % 4].ledger().clone(), request.clone());
            tokio::spawn(async move { ledger.record_use(request).await })
        });
        let mut used = 0;
        for racer in futures::future::join_all(racers).await {
            match racer.unwrap() {
                Ok(_) => used += 1,
                Err(refusal) => assert_eq!(refusal, UseRefusal::ApprovalGone),
            }
        }
        assert_eq!(used, 1);
    }
    for node in &nodes[1..] {
        node.close().await;
    }
}

async fn what_ended_long_ago_is_swept(world: World) {
    let one = tenant(&world.store, "one").await;
    let approvals = world.store.approvals();
    let ask = async |path| {
        let asked = one.asked(path, b"");
        approvals.ask(&one.org, &asked, &agent(&one)).await.unwrap()
    };
    let (expired, rejected) = (ask("/v1/a").await, ask("/v1/b").await);
    let decided = approvals
        .decide(&one.org, &rejected.id, Verdict::Reject, None, &person())
        .await;
    decided.unwrap().unwrap();
    let left = async || {
        let listed = approvals
            .list(&one.org, None, None, &PageRequest::default())
            .await;
        listed.unwrap().items.len()
    };
    assert_eq!(approvals.sweep().await.unwrap(), 0);
    world.advance(KEPT);
    assert_eq!((approvals.sweep().await.unwrap(), left().await), (0, 2));
    let asked_anew = ask("/v1/a").await;
    let after_both = expired.expires_at.max(rejected.expires_at) - expired.created_at;
    world.advance(after_both.unsigned_abs() + Duration::from_mins(1));
    // Not again so soon, or it is done: never in between.
    world.advance(Duration::from_mins(10));
    assert_eq!((approvals.sweep().await.unwrap(), left().await), (2, 1));
    assert_eq!((approvals.sweep().await.unwrap(), left().await), (0, 1));
    let kept = approvals.get(&one.org, None, &asked_anew.id).await.unwrap();
    assert_eq!(kept.unwrap().status, ApprovalStatus::Expired);
}
