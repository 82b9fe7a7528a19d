//! Credentials: which are taken, and the one answer to those that are not.

use std::num::NonZeroU32;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Method, Request};
use control_plane::Limits;
use serde_json::json;
use store::Role;

use crate::support::{World, holder, nobody, person, request};

#[tokio::test]
async fn a_personal_key_is_taken_as_bearer_and_by_the_alias() {
    let world = World::new().await;
    world.get("/v1/agents", &world.home.admin).await.ok(200);
    let key = world.home.admin.0.clone().unwrap();
    let aliased = Request::get("/v1/agents")
        .header("X-Clawb-Api-Key", &key)
        .body(Body::empty())
        .unwrap();
    world.send(aliased).await.ok(200);
    let lower = Request::get("/v1/agents")
        .header("authorization", format!("bearer {key}"))
        .body(Body::empty())
        .unwrap();
    world.send(lower).await.ok(200);
}

#[tokio::test]
async fn every_bad_credential_gets_the_same_answer() {
    let world = World::with(Limits {
        auth_failure_burst: NonZeroU32::new(100).unwrap(),
        ..Limits::default()
    })
    .await;
    let unknown = control_plane::ApiKey::generate(control_plane::KeyHolder::Person);
    let key = world.home.admin.0.clone().unwrap();
    let none = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.eyJzdWIiOiJhZ2VudDphZ3RfMDFBUlozTkRFS1RTVjRSUkZGUTY5RzVGQVYifQ.";
    let mut texts = Vec::new();
    for credential in [
        "",
        "x",
        unknown.reveal(),
        &key.to_uppercase(),
        &format!("{key}="),
        &key[..46],
        "ocv_x",
        none,
        "a.b.c",
        &"a".repeat(10_000),
    ] {
        let answer = world.get("/v1/agents", &holder(credential)).await;
        let mut body = answer.json();
        body["instance"] = json!(null);
        texts.push(body.to_string());
        answer.refused(401, "unauthenticated");
    }
    let answer = world.get("/v1/agents", &nobody()).await;
    let mut body = answer.json();
    body["instance"] = json!(null);
    texts.push(body.to_string());
    texts.dedup();
    assert_eq!(texts.len(), 1, "{texts:?}");
}

#[tokio::test]
async fn an_agents_key_becomes_a_token_that_works_for_a_quarter_of_an_hour() {
    let world = World::new().await;
    let (id, key) = world.agent(&world.home.admin, "bot").await;
    let body = json!({"api_key": key.0, "agent_id": id, "runtime": {"of": "the seeds"}});
    let answer = world
        .post("/v1/auth/agent-token", &nobody(), body)
        .await
        .ok(200);
    assert_eq!(
        (
            &answer["token_type"],
            &answer["expires_in"],
            &answer["agent_id"]
        ),
        (&json!("Bearer"), &json!(900), &json!(id))
    );
    assert!(answer["vault_ids"][0].as_str().unwrap().starts_with("vlt_"));
    let token = holder(answer["access_token"].as_str().unwrap());
    assert_eq!(token.0.as_ref().unwrap().split('.').count(), 3);
    world.get("/v1/vault/leases", &token).await.ok(200);
    world.clock.advance(Duration::from_secs(899));
    world.get("/v1/vault/leases", &token).await.ok(200);
    world.clock.advance(Duration::from_secs(1));
    world
        .get("/v1/vault/leases", &token)
        .await
        .refused(401, "unauthenticated");
}

#[tokio::test]
async fn a_token_ends_with_its_agent() {
    let world = World::new().await;
    let (id, key) = world.agent(&world.home.admin, "bot").await;
    let token = world
        .post("/v1/auth/agent-token", &nobody(), json!({"api_key": key.0}))
        .await
        .field("/access_token");
    let token = holder(token);
    world.get("/v1/vault/leases", &token).await.ok(200);
    let path = format!("/v1/agents/{id}");
    world
        .patch(&path, &world.home.admin, json!({"is_active": false}))
        .await
        .ok(200);
    world
        .get("/v1/vault/leases", &token)
        .await
        .refused(401, "unauthenticated");
    world
        .post("/v1/auth/agent-token", &nobody(), json!({"api_key": key.0}))
        .await
        .refused(401, "unauthenticated");
    world
        .patch(&path, &world.home.admin, json!({"is_active": true}))
        .await
        .ok(200);
    // What was stopped once has ended for good; a new token is the agent's as long as it is there.
    world
        .get("/v1/vault/leases", &token)
        .await
        .refused(401, "unauthenticated");
    let token = world
        .post("/v1/auth/agent-token", &nobody(), json!({"api_key": key.0}))
        .await
        .field("/access_token");
    let token = holder(token);
    world.get("/v1/vault/leases", &token).await.ok(200);
    world.delete(&path, &world.home.admin).await.ok(204);
    world
        .get("/v1/vault/leases", &token)
        .await
        .refused(401, "unauthenticated");
}

#[tokio::test]
async fn no_other_key_becomes_a_token() {
    let world = World::new().await;
    let (_, key) = world.agent(&world.home.admin, "bot").await;
    let (other, _) = world.agent(&world.home.admin, "other").await;
    for body in [
        json!({"api_key": world.home.admin.0}),
        json!({"api_key": "ocv_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}),
        json!({"api_key": ""}),
        json!({"api_key": key.0, "agent_id": other}),
    ] {
        world
            .post("/v1/auth/agent-token", &nobody(), body)
            .await
            .refused(401, "unauthenticated");
    }
    world
        .post("/v1/auth/agent-token", &nobody(), json!({}))
        .await
        .refused(400, "invalid_request");
}

#[tokio::test]
async fn a_source_with_too_many_failures_waits_and_a_good_key_behind_it_works() {
    let world = World::with(Limits {
        auth_failure_burst: NonZeroU32::new(3).unwrap(),
        ..Limits::default()
    })
    .await;
    for _ in 0..3 {
        world
            .get("/v1/agents", &holder("1ck_wrong"))
            .await
            .refused(401, "unauthenticated");
    }
    world
        .get("/v1/agents", &holder("1ck_wrong"))
        .await
        .refused(429, "rate_limited");
    world
        .post(
            "/v1/auth/agent-token",
            &nobody(),
            json!({"api_key": "ocv_wrong"}),
        )
        .await
        .refused(429, "rate_limited");
    world.get("/v1/agents", &world.home.admin).await.ok(200);
}

#[tokio::test]
async fn successes_and_failures_are_on_record_and_a_flood_is_not_recorded_one_by_one() {
    let world = World::with(Limits {
        auth_failure_burst: NonZeroU32::new(1000).unwrap(),
        ..Limits::default()
    })
    .await;
    for _ in 0..200 {
        world
            .get("/v1/agents", &holder("1ck_wrong"))
            .await
            .refused(401, "unauthenticated");
    }
    let failures = world.events("?action=auth.failure").await;
    assert!((1..=30).contains(&failures.len()), "{}", failures.len());
    assert_eq!(failures[0]["decision"], "deny");
    assert_eq!(failures[0]["client_ip"], "192.0.2.7");
    let (_, key) = world.agent(&world.home.admin, "bot").await;
    world
        .post("/v1/auth/agent-token", &nobody(), json!({"api_key": key.0}))
        .await
        .ok(200);
    for _ in 0..5 {
        world.get("/v1/agents", &world.home.admin).await.ok(200);
    }
    let successes = world.events("?action=auth.success").await;
    assert_eq!(
        successes.len(),
        2,
        "one for the person's key, one for the token: {successes:?}"
    );
}

#[tokio::test]
async fn an_auditor_reads_and_changes_nothing() {
    let world = World::new().await;
    let auditor = person(&world.store, &world.home.org, "auditor", Role::Auditor).await;
    world.get("/v1/audit/events", &auditor).await.ok(200);
    world.get("/v1/agents", &auditor).await.ok(200);
    world
        .post("/v1/agents", &auditor, json!({"name": "x"}))
        .await
        .refused(403, "forbidden");
    let granted = world.granted(json!({})).await;
    let body = json!({"secret_set_id": granted.set_id, "agent_id": granted.agent_id});
    world
        .post("/v1/vault/leases", &auditor, body)
        .await
        .refused(403, "forbidden");
    let (id, _) = world
        .lease(&granted.agent, json!({"secret_set_id": granted.set_id}))
        .await;
    world
        .delete(&format!("/v1/vault/leases/{id}"), &auditor)
        .await
        .refused(403, "forbidden");
}

#[tokio::test]
async fn a_strangers_body_is_not_read() {
    let world = World::new().await;
    let endless = Body::from_stream(futures::stream::repeat_with(|| {
        Ok::<_, std::io::Error>(bytes::Bytes::from_static(&[b' '; 4096]))
    }));
    let mut upload = request(Method::POST, "/v1/agents", &nobody(), None);
    *upload.body_mut() = endless;
    world.send(upload).await.refused(401, "unauthenticated");
}
