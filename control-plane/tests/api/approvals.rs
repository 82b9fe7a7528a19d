//! Approvals: who sees them, who decides, and that a decision is made once.

use std::time::Duration;

use axum::http::Method;
use leases::id::{AgentId, GrantId, LeaseId, SetId};
use serde_json::{Value, json};
use store::approvals::{Asked, ShownField, ShownHead};
use store::{Actor, ActorKind, Role};

use crate::support::{Granted, START, Who, World, person, request};

fn head() -> ShownHead {
    let field = |name: &str, value: Option<&str>, sha256: Option<&str>| ShownField {
        name: name.to_owned(),
        value: value.map(str::to_owned),
        sha256: sha256.map(str::to_owned),
    };
    ShownHead {
        actions: vec!["dynamodb:DeleteTable".to_owned()],
        fields: vec![
            field("x-amz-target", Some("DynamoDB_20120810.DeleteTable"), None),
            field("x-token", None, Some("00")),
        ],
    }
}

/// What the injector does when the agent asks for a refund of `path`; the approval's id.
async fn ask(world: &World, granted: &Granted, path: &str) -> String {
    let agent = AgentId::parse(&granted.agent_id).unwrap();
    let asked = Asked {
        agent: agent.clone(),
        grant: GrantId::parse(&granted.grant_id).unwrap(),
        set: SetId::parse(&granted.set_id).unwrap(),
        lease: LeaseId::new(START),
        method: "POST".to_owned(),
        scheme: "https",
        host: "api.stripe.com".to_owned(),
        port: 443,
        path: path.to_owned(),
        path_as_sent: path.to_owned(),
        query: Some("amount=5".to_owned()),
        body_sha256: [7; 32],
        body_bytes: 12,
        head_sha256: [9; 32],
        head: head(),
        pending: Duration::from_mins(5),
        ttl: Duration::from_mins(5),
    };
    let actor = Actor {
        kind: ActorKind::Agent,
        id: agent.to_string(),
        client_ip: None,
        request_id: None,
    };
    let approvals = world.store.approvals();
    let approval = approvals.ask(&world.home.org, &asked, &actor).await;
    approval.unwrap().id.to_string()
}

async fn shown(world: &World, id: &str, who: &Who) -> Value {
    let path = format!("/v1/approvals/{id}");
    world.get(&path, who).await.ok(200)
}

#[tokio::test]
async fn a_person_sees_what_is_asked_for_and_decides_once() {
    let world = World::new().await;
    let granted = world.granted(json!({})).await;
    let admin = &world.home.admin;
    let id = ask(&world, &granted, "/v1/refunds").await;
    let asked = shown(&world, &id, admin).await;
    assert_eq!(
        asked,
        json!({
            "id": id, "status": "pending", "agent_id": granted.agent_id, "grant_id": granted.grant_id,
            "secret_set_id": granted.set_id, "lease_id": asked["lease_id"], "method": "POST", "scheme": "https",
            "host": "api.stripe.com", "port": 443, "path": "/v1/refunds",
            "query_sha256": asked["query_sha256"],
            "body_sha256": "07".repeat(32), "body_bytes": 12, "aws_actions": ["dynamodb:DeleteTable"],
            "head": [
                {"name": "x-amz-target", "value": "DynamoDB_20120810.DeleteTable"}, {"name": "x-token", "sha256": "00"},
            ],
            "created_at": "2026-11-22T07:00:00.000Z", "expires_at": "2026-11-22T07:05:00.000Z",
            "decided_by": null, "decided_at": null,
        })
    );
    assert_eq!(asked["query_sha256"].as_str().unwrap().len(), 64);
    world.clock.advance(Duration::from_mins(2));
    let body = json!({"decision": "approved", "reason": "the customer called"});
    let path = format!("/v1/approvals/{id}/decide");
    let decided = world.post(&path, admin, body.clone()).await.ok(200);
    assert_eq!(decided["status"], "approved");
    assert_eq!(decided["reason"], "the customer called");
    assert_eq!(decided["decided_at"], "2026-11-22T07:02:00.000Z");
    assert_eq!(decided["expires_at"], "2026-11-22T07:07:00.000Z");
    assert!(decided["decided_by"].as_str().unwrap().starts_with("usr_"));
    for body in [body, json!({"decision": "rejected"})] {
        let detail = world.post(&path, admin, body).await;
        let detail = detail.refused(409, "approval_settled");
        assert!(detail.contains("is approved"), "{detail}");
    }
    world.clock.advance(Duration::from_mins(6));
    assert_eq!(shown(&world, &id, admin).await["status"], "expired");
    let told: Vec<_> = world.events("").await;
    let told: Vec<_> = told
        .iter()
        .filter(|event| event["approval_id"] == id.as_str())
        .map(|event| (event["action"].as_str().unwrap(), event["path"].as_str()))
        .collect();
    assert_eq!(
        told,
        [
            ("approval.request", Some("/v1/refunds")),
            ("approval.approve", Some("/v1/refunds"))
        ]
    );
}

#[tokio::test]
async fn the_short_forms_approve_and_deny() {
    let world = World::new().await;
    let granted = world.granted(json!({})).await;
    let member = person(&world.store, &world.home.org, "member", Role::Member).await;
    for (word, status) in [("approve", "approved"), ("deny", "rejected")] {
        let id = ask(&world, &granted, &format!("/v1/{word}")).await;
        let path = format!("/v1/approvals/{id}/{word}");
        let answer = world
            .send(request(Method::POST, &path, &member, None))
            .await;
        assert_eq!(answer.ok(200)["status"], status);
        let again = world.post(&path, &member, json!({"reason": "again"})).await;
        again.refused(409, "approval_settled");
    }
}

#[tokio::test]
async fn what_has_expired_is_not_decided() {
    let world = World::new().await;
    let granted = world.granted(json!({})).await;
    let id = ask(&world, &granted, "/v1/refunds").await;
    world.clock.advance(Duration::from_mins(5));
    let path = format!("/v1/approvals/{id}/approve");
    let detail = world.post(&path, &world.home.admin, json!({})).await;
    let detail = detail.refused(409, "approval_settled");
    assert!(detail.contains("expired"), "{detail}");
}

#[tokio::test]
async fn an_agent_sees_its_own_and_decides_nothing_and_an_auditor_reads_alone() {
    let world = World::new().await;
    let granted = world.granted(json!({})).await;
    let (_, second) = world.agent(&world.home.admin, "second").await;
    let auditor = person(&world.store, &world.home.org, "auditor", Role::Auditor).await;
    let id = ask(&world, &granted, "/v1/refunds").await;
    let path = format!("/v1/approvals/{id}");
    for who in [&granted.agent, &auditor] {
        assert_eq!(shown(&world, &id, who).await["status"], "pending");
        let listed = world.get("/v1/approvals?status=pending", who).await.ok(200);
        assert_eq!(listed["approvals"][0]["id"], id.as_str());
        for (word, body) in [
            ("decide", json!({"decision": "approved"})),
            ("approve", json!({})),
            ("deny", json!({})),
        ] {
            world
                .post(&format!("{path}/{word}"), who, body)
                .await
                .refused(403, "forbidden");
        }
    }
    world.get(&path, &second).await.refused(404, "not_found");
    let listed = world.get("/v1/approvals", &second).await.ok(200);
    assert_eq!(listed["approvals"], json!([]));
    assert_eq!(shown(&world, &id, &auditor).await["status"], "pending");
}

#[tokio::test]
async fn another_organisations_approval_is_like_none_at_all() {
    let world = World::new().await;
    let granted = world.granted(json!({})).await;
    let id = ask(&world, &granted, "/v1/refunds").await;
    let theirs = &world.other.admin;
    for id in [id.as_str(), "apr_01ARZ3NDEKTSV4RRFFQ69G5FAV", "x"] {
        let path = format!("/v1/approvals/{id}");
        world.get(&path, theirs).await.refused(404, "not_found");
        for (word, body) in [
            ("decide", json!({"decision": "approved"})),
            ("approve", json!({})),
            ("deny", json!({})),
        ] {
            world
                .post(&format!("{path}/{word}"), theirs, body)
                .await
                .refused(404, "not_found");
        }
    }
    let listed = world.get("/v1/approvals", theirs).await.ok(200);
    assert_eq!(listed["approvals"], json!([]));
    let mine = shown(&world, &id, &world.home.admin).await;
    assert_eq!(mine["status"], "pending");
}

#[tokio::test]
async fn lists_are_filtered_by_status_and_agent() {
    let world = World::new().await;
    let granted = world.granted(json!({})).await;
    let admin = &world.home.admin;
    let mut ids = Vec::new();
    for path in ["/a", "/b", "/c"] {
        ids.push(ask(&world, &granted, path).await);
        world.clock.advance(Duration::from_millis(5));
    }
    world
        .post(
            &format!("/v1/approvals/{}/approve", ids[0]),
            admin,
            json!({}),
        )
        .await
        .ok(200);
    world
        .post(&format!("/v1/approvals/{}/deny", ids[1]), admin, json!({}))
        .await
        .ok(200);
    let listed = |filter: &'static str| {
        let world = &world;
        async move {
            let page = world.get(&format!("/v1/approvals{filter}"), admin).await;
            let page = page.ok(200);
            let listed = page["approvals"].as_array().unwrap().iter();
            let ids: Vec<_> = listed
                .map(|one| one["id"].as_str().unwrap().to_owned())
                .collect();
            ids
        }
    };
    assert_eq!(listed("").await, ids);
    assert_eq!(listed("?status=approved").await, ids[..1]);
    assert_eq!(listed("?status=rejected").await, ids[1..2]);
    assert_eq!(listed("?status=pending").await, ids[2..]);
    assert_eq!(listed("?status=expired").await, [""; 0]);
    assert_eq!(listed("?status=consumed").await, [""; 0]);
    assert_eq!(listed("?limit=2").await, ids[..2]);
    let of_agent = format!("/v1/approvals?agent_id={}", granted.agent_id);
    let page = world.get(&of_agent, admin).await.ok(200);
    assert_eq!(page["approvals"].as_array().unwrap().len(), 3);
    world.clock.advance(Duration::from_mins(10));
    assert_eq!(listed("?status=pending").await, [""; 0]);
    assert_eq!(
        listed("?status=expired").await,
        [ids[0].clone(), ids[2].clone()]
    );
    world
        .get("/v1/approvals?status=open", admin)
        .await
        .refused(400, "invalid_request");
}

#[tokio::test]
async fn a_decision_names_itself_and_knows_no_other_field() {
    let world = World::new().await;
    let granted = world.granted(json!({})).await;
    let id = ask(&world, &granted, "/v1/refunds").await;
    let path = format!("/v1/approvals/{id}/decide");
    for (body, code) in [
        (json!({}), "invalid_request"),
        (json!({"decision": "yes"}), "invalid_request"),
        (
            json!({"decision": "approved", "reason": "a\nb"}),
            "invalid_request",
        ),
        (json!({"decision": "approved", "until": 5}), "unknown_field"),
    ] {
        world
            .post(&path, &world.home.admin, body)
            .await
            .refused(400, code);
    }
}

#[tokio::test]
async fn a_grant_says_what_asks_for_approval() {
    let world = World::new().await;
    let rule = json!({"methods": ["POST"], "ttl_seconds": 60});
    let granted = world
        .granted(json!({"constraints": {"approval": rule}}))
        .await;
    let path = format!("/v1/vault/grants/{}", granted.grant_id);
    let grant = world.get(&path, &world.home.admin).await.ok(200);
    assert_eq!(
        grant["constraints"]["approval"],
        json!({"methods": ["POST"], "ttl_seconds": 60, "pending_seconds": 300})
    );
    let minted = world
        .post(
            "/v1/vault/leases",
            &granted.agent,
            json!({"secret_set_id": granted.set_id}),
        )
        .await
        .ok(201);
    let bound = &minted["constraints"]["secret_sets"][0]["constraints"];
    assert_eq!(bound["approval"], grant["constraints"]["approval"]);
    let base = json!({"agent_id": granted.agent_id, "secret_set_id": granted.set_id});
    for (more, code) in [
        (
            json!({"constraints": {"approval": "yes"}}),
            "invalid_request",
        ),
        (
            json!({"constraints": {"approval": {"methods": ["TRACE"]}}}),
            "invalid_request",
        ),
        (
            json!({"constraints": {"approval": {"ttl_seconds": 0}}}),
            "invalid_request",
        ),
        (
            json!({"constraints": {"approval": {"ttl_seconds": 86_401}}}),
            "invalid_request",
        ),
        (
            json!({"constraints": {"approval": {"ttl": 60}}}),
            "unknown_field",
        ),
        // Nobody could hold the plaintext to one request.
        (
            json!({"constraints": {"approval": true}, "allowed_actions": ["proxy_use", "export_plaintext"]}),
            "invalid_request",
        ),
    ] {
        let mut body = base.clone();
        body.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        world
            .post("/v1/vault/grants", &world.home.admin, body)
            .await
            .refused(400, code);
    }
}

fn question(target: &str) -> Value {
    json!({
        "action": "deploy", "target_type": "service", "target_id": target,
        "summary": "put 2.1 live", "reason": "the tests pass",
    })
}

#[tokio::test]
async fn an_agent_asks_a_person_and_reads_the_answer() {
    let world = World::new().await;
    let admin = &world.home.admin;
    let (agent_id, agent) = world.agent(admin, "bot").await;
    let (_, other) = world.agent(admin, "other").await;
    let asked = world.post(QUESTION, &agent, question("web")).await.ok(202);
    let id = asked["id"].as_str().unwrap();
    assert_eq!(
        asked,
        json!({
            "id": id, "status": "pending", "action": "deploy", "target_type": "service", "target_id": "web",
            "summary": "put 2.1 live", "reason": "the tests pass",
            "requested_by": agent_id, "requested_by_type": "agent",
            "created_at": "2026-11-22T07:00:00.000Z", "expires_at": "2026-11-23T07:00:00.000Z",
            "decided_by": null, "decided_at": null,
        })
    );
    assert_eq!(shown(&world, id, &agent).await, asked);
    let path = format!("/v1/approvals/{id}");
    for stranger in [&other, &world.other.admin] {
        world.get(&path, stranger).await.refused(404, "not_found");
    }
    // People decide, of its organisation, and it does not.
    let decide = format!("{path}/decide");
    let yes = json!({"decision": "approved", "reason": "well done"});
    let own = world.post(&decide, &agent, yes.clone()).await;
    own.refused(403, "forbidden");
    let foreign = world.post(&decide, &world.other.admin, yes.clone()).await;
    foreign.refused(404, "not_found");
    let auditor = person(&world.store, &world.home.org, "auditor", Role::Auditor).await;
    for path in [&decide, &QUESTION.to_owned()] {
        let refused = world.post(path, &auditor, yes.clone()).await;
        refused.refused(403, "forbidden");
    }
    let decided = world.post(&decide, admin, yes).await.ok(200);
    assert_eq!(decided["status"], "approved");
    assert_eq!(decided["decision_reason"], "well done");
    let read = shown(&world, id, &agent).await;
    assert_eq!(read, decided);
    assert!(read["decided_by"].as_str().unwrap().starts_with("usr_"));
    assert_eq!(read["decided_at"], "2026-11-22T07:00:00.000Z");
    for word in ["approve", "deny"] {
        let again = world
            .post(&format!("{path}/{word}"), admin, json!({}))
            .await;
        again.refused(409, "approval_settled");
    }
    let second = world.post(QUESTION, &agent, question("api")).await;
    let deny = format!("/v1/approvals/{}/deny", second.field("/id"));
    let denied = world.post(&deny, admin, json!({})).await.ok(200);
    assert_eq!(denied["status"], "rejected");
}

#[tokio::test]
async fn questions_and_requests_are_one_list() {
    let world = World::new().await;
    let granted = world.granted(json!({})).await;
    let admin = &world.home.admin;
    let mut ids = Vec::new();
    for nth in 0..3 {
        ids.push(ask(&world, &granted, &format!("/v1/refunds/{nth}")).await);
        world.clock.advance(Duration::from_millis(2));
        let asked = world.post(QUESTION, &granted.agent, question("web")).await;
        ids.push(asked.field("/id"));
        world.clock.advance(Duration::from_millis(2));
    }
    let by_person = world.post(QUESTION, admin, question("mine")).await.ok(202);
    assert_eq!(by_person["requested_by_type"], "user");
    let listed = async |who: &Who| {
        let (mut found, mut cursor) = (Vec::new(), String::new());
        loop {
            let path = format!("/v1/approvals?status=pending&limit=2{cursor}");
            let page = world.get(&path, who).await.ok(200);
            let approvals = page["approvals"].as_array().unwrap();
            assert!(approvals.len() <= 2);
            found.extend(
                approvals
                    .iter()
                    .map(|one| one["id"].as_str().unwrap().to_owned()),
            );
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return found,
            }
        }
    };
    assert_eq!(listed(&granted.agent).await, ids);
    ids.push(by_person["id"].as_str().unwrap().to_owned());
    assert_eq!(listed(admin).await, ids);
}

#[tokio::test]
async fn a_question_is_bounded_and_so_is_their_number() {
    let world = World::new().await;
    let (_, agent) = world.agent(&world.home.admin, "bot").await;
    for (field, most) in [
        ("action", 128),
        ("target_type", 64),
        ("target_id", 256),
        ("summary", 1024),
        ("reason", 256),
    ] {
        for bad in [String::new(), "a\nb".to_owned(), "x".repeat(most + 1)] {
            let mut body = question("web");
            body[field] = json!(bad);
            let detail = world.post(QUESTION, &agent, body).await;
            let detail = detail.refused(400, "invalid_request");
            assert!(detail.starts_with(&format!("{field}: ")), "{detail}");
        }
    }
    let mut wider = question("web");
    wider["grant_id"] = json!("grt_01ARZ3NDEKTSV4RRFFQ69G5FAV");
    let refused = world.post(QUESTION, &agent, wider).await;
    refused.refused(400, "unknown_field");
    for nth in 0..32 {
        let asked = world.post(QUESTION, &agent, question(&format!("web-{nth}")));
        asked.await.ok(202);
    }
    let refused = world.post(QUESTION, &agent, question("one more")).await;
    refused.refused(429, "approval_limit");
    world.clock.advance(Duration::from_hours(24));
    world.post(QUESTION, &agent, question("web")).await.ok(202);
}

const QUESTION: &str = "/v1/approvals/request";
