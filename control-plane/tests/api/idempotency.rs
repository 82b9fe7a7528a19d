//! `Idempotency-Key`: one effect, one answer, and nothing readable kept of it.

use axum::http::{HeaderValue, Method};
use serde_json::{Value, json};

use crate::support::{Answer, Who, World, request};

async fn post(world: &World, path: &str, actor: &Who, key: &str, body: Value) -> Answer {
    let mut request = request(Method::POST, path, actor, Some(body));
    request
        .headers_mut()
        .insert("idempotency-key", HeaderValue::from_str(key).unwrap());
    world.send(request).await
}

#[tokio::test]
async fn a_repeated_request_gets_the_first_answer_again() {
    let world = World::new().await;
    let make = || {
        post(
            &world,
            "/v1/agents",
            &world.home.admin,
            "key-1",
            json!({"name": "bot"}),
        )
    };
    let first = make().await;
    assert!(!first.headers.contains_key("idempotency-replayed"));
    let again = make().await;
    assert_eq!(again.headers["idempotency-replayed"], "true");
    assert_eq!(again.headers["content-type"], "application/json");
    assert_eq!(first.ok(201), again.ok(201));
    assert_eq!(
        world.get("/v1/agents", &world.home.admin).await.ok(200)["agents"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

#[tokio::test]
async fn a_key_for_another_request_is_a_conflict() {
    let world = World::new().await;
    post(
        &world,
        "/v1/agents",
        &world.home.admin,
        "key-1",
        json!({"name": "a"}),
    )
    .await
    .ok(201);
    post(
        &world,
        "/v1/agents",
        &world.home.admin,
        "key-1",
        json!({"name": "b"}),
    )
    .await
    .refused(409, "idempotency_conflict");
    let body = json!({"provider": "stripe", "environment": "e", "name": "n", "entries": {"STRIPE_SECRET_KEY": "x"}});
    post(
        &world,
        "/v1/vault/secret-sets",
        &world.home.admin,
        "key-1",
        body,
    )
    .await
    .refused(409, "idempotency_conflict");
}

#[tokio::test]
async fn a_request_that_failed_gives_its_key_back() {
    let world = World::new().await;
    post(
        &world,
        "/v1/agents",
        &world.home.admin,
        "key-1",
        json!({"name": ""}),
    )
    .await
    .refused(400, "invalid_request");
    post(
        &world,
        "/v1/agents",
        &world.home.admin,
        "key-1",
        json!({"name": "bot"}),
    )
    .await
    .ok(201);
}

#[tokio::test]
async fn every_principal_has_keys_of_its_own() {
    let world = World::new().await;
    post(
        &world,
        "/v1/agents",
        &world.home.admin,
        "key-1",
        json!({"name": "bot"}),
    )
    .await
    .ok(201);
    post(
        &world,
        "/v1/agents",
        &world.other.admin,
        "key-1",
        json!({"name": "other"}),
    )
    .await
    .ok(201);
}

#[tokio::test]
async fn of_many_at_once_one_has_an_effect() {
    let world = World::new().await;
    let tries = (0..8).map(|_| {
        post(
            &world,
            "/v1/agents",
            &world.home.admin,
            "key-1",
            json!({"name": "bot"}),
        )
    });
    let answers = futures::future::join_all(tries).await;
    let fresh = answers.iter().filter(|answer| {
        answer.status == 201 && !answer.headers.contains_key("idempotency-replayed")
    });
    assert_eq!(fresh.count(), 1);
    assert!(
        answers
            .iter()
            .all(|answer| answer.status == 201 || answer.json()["error"] == "idempotency_conflict")
    );
}

#[tokio::test]
async fn a_key_that_is_no_key_is_refused() {
    let world = World::new().await;
    for key in ["", "a b", "ä", &"x".repeat(256)] {
        let answer = post(
            &world,
            "/v1/agents",
            &world.home.admin,
            key,
            json!({"name": "bot"}),
        )
        .await;
        answer.refused(400, "invalid_request");
    }
}

#[tokio::test]
async fn kept_answers_are_not_readable_in_the_database() {
    let world = World::new().await;
    let granted = world.granted(json!({})).await;
    let lease = post(
        &world,
        "/v1/vault/leases",
        &granted.agent,
        "key-1",
        json!({"secret_set_id": granted.set_id}),
    )
    .await
    .field("/token");
    let agent = post(
        &world,
        "/v1/agents",
        &world.home.admin,
        "key-2",
        json!({"name": "second"}),
    )
    .await
    .field("/api_key");
    for entry in std::fs::read_dir(world.dir.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            let bytes = std::fs::read(&path).unwrap();
            for secret in [&lease, &agent] {
                assert!(
                    !bytes
                        .windows(40)
                        .any(|window| window == &secret.as_bytes()[4..44]),
                    "{}",
                    path.display()
                );
            }
        }
    }
}
