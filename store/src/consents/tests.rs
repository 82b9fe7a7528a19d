use ::leases::scope::Kind;

use super::*;
use crate::approvals::MAX_PENDING;
use crate::testing::*;
use crate::{ApprovedUse, EventFilter, UseRefusal, UseRequest};

on_both! {
    a_question_is_asked_decided_once_and_seen_by_its_asker,
    what_waited_too_long_has_expired_and_so_has_an_old_answer,
    so_many_of_one_principal_wait,
    an_approved_question_approves_no_use,
    each_step_is_on_record,
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

fn question(target: &str) -> Question {
    Question {
        action: "deploy".to_owned(),
        target_type: "service".to_owned(),
        target_id: target.to_owned(),
        summary: "put the new version live".to_owned(),
        reason: Some("the tests pass".to_owned()),
    }
}

async fn ask(world: &World, tenant: &Tenant, target: &str) -> Consent {
    let consents = world.store.consents();
    let asked = consents
        .ask(&tenant.org, question(target), &agent(tenant))
        .await;
    asked.unwrap()
}

async fn decide(world: &World, tenant: &Tenant, id: &ApprovalId, verdict: Verdict) -> Consent {
    let consents = world.store.consents();
    let decided = consents
        .decide(&tenant.org, id, verdict, Some("well"), &person())
        .await;
    decided.unwrap().unwrap()
}

async fn a_question_is_asked_decided_once_and_seen_by_its_asker(world: World) {
    let one = tenant(&world.store, "one").await;
    let other = tenant(&world.store, "other").await;
    let consents = world.store.consents();
    let asked = ask(&world, &one, "web").await;
    assert_eq!(asked.status, ApprovalStatus::Pending);
    assert_eq!(asked.expires_at, START + Duration::from_hours(24));
    let mine = consents.get(&one.org, Some(&one.agent), &asked.id).await;
    assert_eq!(mine.unwrap(), Some(asked.clone()));
    let anothers = consents.get(&one.org, Some(&other.agent), &asked.id).await;
    assert_eq!(anothers.unwrap(), None);
    let foreign = consents.get(&other.org, None, &asked.id).await;
    assert_eq!(foreign.unwrap(), None);
    let foreign = consents
        .decide(&other.org, &asked.id, Verdict::Approve, None, &person())
        .await;
    assert!(foreign.unwrap().is_none());

    let decided = decide(&world, &one, &asked.id, Verdict::Approve).await;
    assert_eq!(decided.status, ApprovalStatus::Approved);
    assert_eq!(decided.decided_by, Some(person().id));
    assert_eq!(decided.question, question("web"));
    let again = consents
        .decide(&one.org, &asked.id, Verdict::Reject, None, &person())
        .await;
    assert!(matches!(again, Err(DecideConsentError::Settled(as_it_is)) if *as_it_is == decided));
    let second = ask(&world, &one, "api").await;
    let second = decide(&world, &one, &second.id, Verdict::Reject).await;
    assert_eq!(second.status, ApprovalStatus::Rejected);
    let page = PageRequest::default();
    for (agent, status, mut expected) in [
        (None, None, vec![&decided, &second]),
        (Some(&one.agent), None, vec![&decided, &second]),
        (Some(&other.agent), None, vec![]),
        (None, Some(ApprovalStatus::Rejected), vec![&second]),
        (None, Some(ApprovalStatus::Consumed), vec![]),
    ] {
        // Two of one millisecond have their order by chance.
        expected.sort_by(|one, other| one.id.cmp(&other.id));
        let listed = consents.list(&one.org, agent, status, &page).await.unwrap();
        assert_eq!(listed.items.iter().collect::<Vec<_>>(), expected);
    }
}

async fn what_waited_too_long_has_expired_and_so_has_an_old_answer(world: World) {
    let one = tenant(&world.store, "one").await;
    let consents = world.store.consents();
    let late = ask(&world, &one, "web").await;
    let answered = ask(&world, &one, "api").await;
    world.advance(Duration::from_hours(23));
    decide(&world, &one, &answered.id, Verdict::Approve).await;
    world.advance(Duration::from_hours(1));
    let refused = consents
        .decide(&one.org, &late.id, Verdict::Approve, None, &person())
        .await;
    assert!(
        matches!(refused, Err(DecideConsentError::Settled(one)) if one.status == ApprovalStatus::Expired)
    );
    let status = async |id| {
        let found = consents.get(&one.org, None, id).await;
        found.unwrap().unwrap().status
    };
    assert_eq!(status(&answered.id).await, ApprovalStatus::Approved);
    world.advance(Duration::from_hours(23));
    assert_eq!(status(&answered.id).await, ApprovalStatus::Expired);
}

async fn so_many_of_one_principal_wait(world: World) {
    let one = tenant(&world.store, "one").await;
    let consents = world.store.consents();
    let mut first = None;
    for nth in 0..MAX_PENDING {
        let asked = ask(&world, &one, &format!("target {nth}")).await;
        first.get_or_insert(asked.id);
    }
    let full = consents.ask(&one.org, question("more"), &agent(&one)).await;
    let day = Duration::from_hours(24);
    assert!(matches!(full, Err(AskError::TooMany { retry_after }) if retry_after == day));
    // The bound is each principal's own, and a decision makes room.
    let person_asks = consents.ask(&one.org, question("mine"), &person()).await;
    assert_eq!(person_asks.unwrap().asked_by_type, "user");
    decide(&world, &one, &first.unwrap(), Verdict::Reject).await;
    ask(&world, &one, "again").await;
}

async fn an_approved_question_approves_no_use(world: World) {
    let store = &world.store;
    let one = tenant(store, "one").await;
    let asked = ask(&world, &one, "https://api.stripe.com/v1/refunds").await;
    let approved = decide(&world, &one, &asked.id, Verdict::Approve).await;
    let forged = UseRequest {
        approval: Some(ApprovedUse {
            id: approved.id.clone(),
            expires_at: approved.expires_at,
        }),
        ..one.lease(store, Kind::Request).await
    };
    let refused = store.ledger().record_use(forged).await.unwrap_err();
    assert_eq!(refused, UseRefusal::ApprovalGone);
    // Nor does a request that waits find it, nor a question a request.
    let request = one.asked("/v1/refunds", b"body");
    let request = store
        .approvals()
        .ask(&one.org, &request, &agent(&one))
        .await;
    let request = request.unwrap();
    assert_eq!(request.status, ApprovalStatus::Pending);
    let among_requests = store.approvals().get(&one.org, None, &approved.id).await;
    assert_eq!(among_requests.unwrap(), None);
    let among_questions = store.consents().get(&one.org, None, &request.id).await;
    assert_eq!(among_questions.unwrap(), None);
}

async fn each_step_is_on_record(world: World) {
    let one = tenant(&world.store, "one").await;
    let asked = ask(&world, &one, "web").await;
    decide(&world, &one, &asked.id, Verdict::Approve).await;
    let page = PageRequest::default();
    let events = world.store.audit();
    let events = events.list(&one.org, &EventFilter::default(), &page).await;
    let events = events.unwrap().items.into_iter();
    let mut told: Vec<_> = events
        .filter(|event| event.approval_id.as_deref() == Some(asked.id.as_str()))
        .map(|event| (event.action, event.agent_id, event.keys, event.reason))
        .collect();
    told.reverse();
    let keys = ["deploy", "service", "web"].map(str::to_owned).to_vec();
    let of = |action: &str, reason: &str| {
        (
            action.to_owned(),
            Some(one.agent.to_string()),
            keys.clone(),
            Some(reason.to_owned()),
        )
    };
    let expected = [
        of("approval.request", "the tests pass"),
        of("approval.approve", "well"),
    ];
    assert_eq!(told, expected);
}

async fn what_ended_long_ago_is_swept(world: World) {
    let one = tenant(&world.store, "one").await;
    let asked = ask(&world, &one, "web").await;
    let approvals = world.store.approvals();
    world.advance(Duration::from_hours(30 * 24));
    assert_eq!(approvals.sweep().await.unwrap(), 0);
    world.advance(Duration::from_hours(25));
    assert_eq!(approvals.sweep().await.unwrap(), 1);
    let gone = world.store.consents().get(&one.org, None, &asked.id).await;
    assert_eq!(gone.unwrap(), None);
}
