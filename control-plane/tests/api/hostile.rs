//! Requests that mean harm, against every operation that the description has: fields that are not the caller's to set, bombs of JSON, pages
//! of any size, and races. A new route is tried as soon as it is described.

use std::num::NonZeroU32;

use axum::body::Body;
use axum::http::{Method, Request, header};
use serde_json::{Value, json};

use crate::support::{Who, World, nobody, request};

/// Operations whose bodies may have fields that nobody knows: the seeds' clients send more than we take, and none of it widens
/// access. All others refuse an unknown field by name.
const LENIENT: [&str; 11] = [
    "agentToken",
    "apiKeyToken",
    "createSecretSet",
    "createVault",
    "deviceToken",
    "enrollAgent",
    "finishOidc",
    "importSecretSet",
    "signIn",
    "signInWithGoogle",
    "updateSecretSet",
];

/// What takes a lease as its credential.
const UNDER_LEASE: [&str; 1] = ["exportSecrets"];

/// What a caller might wish to set for itself.
const COVETED: [&str; 8] = [
    "org_id",
    "organization_id",
    "is_admin",
    "created_by",
    "owner",
    "export",
    "__proto__",
    "id",
];

struct Operation {
    name: String,
    method: Method,
    path: String,
    parameters: Vec<String>,
    has_body: bool,
}

fn operations() -> Vec<Operation> {
    let document: Value = serde_json::from_str(include_str!("../../openapi.json")).unwrap();
    let paths = document["paths"].as_object().unwrap();
    let all = paths.iter().flat_map(|(path, item)| {
        let operations = item.as_object().unwrap().iter();
        operations.map(move |(method, operation)| {
            let parameters = operation["parameters"].as_array().into_iter().flatten();
            Operation {
                name: operation["operationId"].as_str().unwrap().to_owned(),
                method: method.to_uppercase().parse().unwrap(),
                path: path.replace(['{', '}'], ""),
                parameters: parameters
                    .filter_map(|parameter| parameter["name"].as_str().map(str::to_owned))
                    .collect(),
                has_body: operation.get("requestBody").is_some(),
            }
        })
    });
    all.collect()
}

/// A world whose limits on tries do not hide the answers behind them.
async fn patient() -> World {
    let auth_failure_burst = NonZeroU32::new(10_000).unwrap();
    World::with(control_plane::Limits {
        auth_failure_burst,
        ..Default::default()
    })
    .await
}

fn raw(operation: &Operation, actor: &Who, body: Vec<u8>) -> Request<Body> {
    let mut request = request(operation.method.clone(), &operation.path, actor, None);
    *request.body_mut() = Body::from(body);
    let json = "application/json".parse().unwrap();
    request.headers_mut().insert(header::CONTENT_TYPE, json);
    request
}

#[tokio::test]
async fn no_field_is_set_that_is_not_the_callers_to_set() {
    let world = patient().await;
    let mut tried = 0;
    for operation in operations().iter().filter(|operation| operation.has_body) {
        for field in COVETED {
            let body = json!({ field: "org_01ARZ3NDEKTSV4RRFFQ69G5FAV" });
            let body = serde_json::to_vec(&body).unwrap();
            let answer = world.send(raw(operation, &world.home.admin, body)).await;
            let name = &operation.name;
            if LENIENT.contains(&name.as_str()) {
                // The field alone makes nothing: what is needed is missing, or there is nothing to change.
                assert!(
                    !answer.status.is_success(),
                    "{name} {field}: {}",
                    answer.text
                );
                continue;
            }
            // What takes a lease is refused for want of one before its body is read.
            if UNDER_LEASE.contains(&name.as_str()) {
                answer.refused(401, "lease_invalid");
                continue;
            }
            let detail = answer.refused(400, "unknown_field");
            assert!(detail.contains(field), "{name} {field}: {detail}");
            tried += 1;
        }
    }
    assert!(tried > 100, "{tried}");
}

#[tokio::test]
async fn bombs_and_twisted_json_are_refused_by_every_operation() {
    let world = patient().await;
    let deep = [vec![b'['; 100_000], vec![b']'; 100_000]].concat();
    let deep_objects = br#"{"a":"#.repeat(10_000);
    let wide = format!("{{\"a\":[{}0]}}", "0,".repeat(120_000)).into_bytes();
    let huge_number = format!("{{\"a\":{}}}", "9".repeat(400)).into_bytes();
    let bombs: [&[u8]; 9] = [
        &deep,
        &deep_objects,
        &wide,
        &huge_number,
        br#"{"a":1,"a":2}"#,
        br#"{"a":1e999}"#,
        b"{\"a\":\"\xff\xfe\"}",
        br#"{"a":"\ud800"}"#,
        br#"["a"]"#,
    ];
    for operation in operations().iter().filter(|operation| operation.has_body) {
        if operation.name == "exportSecrets" {
            continue;
        }
        for bomb in bombs {
            // Calls without a credential in the head take 64 KiB.
            let answer = world
                .send(raw(operation, &world.home.admin, bomb.to_vec()))
                .await;
            assert!(
                matches!(answer.status.as_u16(), 400 | 413),
                "{}: {} {}",
                operation.name,
                answer.status,
                answer.text
            );
            assert!(answer.text.len() < 2_000, "{}", answer.text.len());
        }
    }
}

#[tokio::test]
async fn no_list_is_longer_than_a_page_and_no_cursor_breaks_it() {
    let world = World::new().await;
    for number in 0..3 {
        world
            .agent(&world.home.admin, &format!("bot-{number}"))
            .await;
    }
    let paged = |operation: &Operation| operation.parameters.iter().any(|name| name == "cursor");
    let mut tried = 0;
    for operation in operations().iter().filter(|operation| paged(operation)) {
        // A feed has no pages, and an export is the whole of them.
        if matches!(operation.name.as_str(), "tailAudit" | "exportAudit") {
            continue;
        }
        let path = operation.path.replace("vault_id", "default");
        // Of a thing that is not there nothing is listed.
        if path.ends_with("/id") || path.contains("/id/") {
            continue;
        }
        let ask = async |query: &str| {
            let target = format!("{path}?{query}");
            world.get(&target, &world.home.admin).await
        };
        for query in [
            "limit=0",
            "limit=-1",
            "limit=4294967296",
            "limit=1e3",
            "limit=",
            "limit=2&limit=3",
        ] {
            ask(query).await.refused(400, "invalid_request");
        }
        if operation.name == "listSecretVersions" {
            continue;
        }
        let most = ask("limit=1000000000").await.ok(200);
        let items = most.as_object().unwrap().values().find_map(Value::as_array);
        assert!(items.unwrap().len() <= 200, "{path}");
        let long = format!("cursor={}", "A".repeat(6_000));
        for query in [
            "cursor=x",
            "cursor=-1",
            "cursor=%00",
            "cursor=%27%20OR%201=1--",
            "cursor=eyJhIjoxfQ",
            &long,
        ] {
            let status = ask(query).await.status.as_u16();
            // An empty page would read as the end of the list. Paths are cursors of their own list.
            let is_place = operation.name == "listSecrets"
                && matches!(query, "cursor=x" | "cursor=eyJhIjoxfQ" | "cursor=-1");
            assert!(
                status == 400 || (is_place && status == 200),
                "{path}?{query}: {status}"
            );
        }
        tried += 1;
    }
    assert!(tried >= 10, "{tried}");
}

#[tokio::test]
async fn a_prefix_is_text_and_no_pattern() {
    let world = World::new().await;
    let secret = "/v1/vaults/default/secrets/payments/key";
    let put = world.put(secret, &world.home.admin, json!({"value": "x"}));
    put.await.ok(201);
    for prefix in [
        "%25",
        "_",
        "%5F",
        "p%25",
        "%5C",
        "%27",
        "payments/_ey",
        "PAYMENTS",
    ] {
        let path = format!("/v1/vaults/default/secrets?prefix={prefix}");
        let answer = world.get(&path, &world.home.admin).await;
        assert!(
            !answer.text.contains("payments/key"),
            "{prefix}: {}",
            answer.text
        );
    }
}

#[tokio::test]
async fn of_many_who_take_a_name_one_gets_it() {
    let world = World::new().await;
    let admin = &world.home.admin;
    let set = json!({"provider": "stripe", "environment": "prod", "name": "n", "entries": {"STRIPE_SECRET_KEY": "sk_live_0123456789"}});
    for (path, body) in [
        ("/v1/agents", json!({"name": "n"})),
        ("/v1/vaults", json!({"name": "n"})),
        ("/v1/vault/secret-sets", set),
    ] {
        let tries = (0..12).map(|_| world.post(path, admin, body.clone()));
        let answers = futures::future::join_all(tries).await;
        let made = answers.iter().filter(|answer| answer.status == 201).count();
        assert_eq!(made, 1, "{path}");
        for answer in answers.into_iter().filter(|answer| answer.status != 201) {
            answer.refused(409, "name_taken");
        }
    }
}

#[tokio::test]
async fn a_key_that_is_rotated_while_its_agent_is_deleted_opens_nothing() {
    let world = patient().await;
    let admin = &world.home.admin;
    let (id, _) = world.agent(admin, "bot").await;
    let rotate = format!("/v1/agents/{id}/rotate-key");
    let rotations = async {
        let tries = (0..8).map(|_| world.post(&rotate, admin, json!({})));
        futures::future::join_all(tries).await
    };
    let gone = format!("/v1/agents/{id}");
    let (rotated, deleted) = tokio::join!(rotations, world.delete(&gone, admin));
    deleted.ok(204);
    for answer in rotated {
        if answer.status != 200 {
            answer.refused(404, "not_found");
            continue;
        }
        let key = answer.field("/api_key");
        world
            .post("/v1/auth/agent-token", &nobody(), json!({"api_key": key}))
            .await
            .refused(401, "unauthenticated");
    }
}

#[tokio::test]
async fn a_version_is_rolled_back_to_and_written_at_once_without_a_gap() {
    let world = World::new().await;
    let admin = &world.home.admin;
    let set = world.stripe_set(admin, "n").await;
    let path = format!("/v1/vault/secret-sets/{set}");
    let rollback = format!("{path}/rollback");
    let entries = json!({"entries": {"STRIPE_SECRET_KEY": "sk_live_9876543210"}});
    let writes = (0..4).map(|_| world.put(&path, admin, entries.clone()));
    let rollbacks = (0..4).map(|_| world.post(&rollback, admin, json!({"version": 1})));
    let (written, rolled) = tokio::join!(
        futures::future::join_all(writes),
        futures::future::join_all(rollbacks)
    );
    let mut versions: Vec<u64> = Vec::new();
    for answer in written.into_iter().chain(rolled) {
        if answer.status == 200 {
            versions.push(answer.json()["version"].as_u64().unwrap());
        } else {
            answer.refused(409, "conflict");
        }
    }
    versions.sort_unstable();
    let expected: Vec<u64> = (2..).take(versions.len()).collect();
    assert_eq!(versions, expected);
    assert!(!versions.is_empty());
}
