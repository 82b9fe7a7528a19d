//! Requests that agents sign themselves: what is taken, once, and what is not.

use std::num::NonZeroU32;
use std::time::Duration;

use ::leases::clock::Clock as _;
use axum::body::Body;
use axum::http::Request;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use control_plane::Limits;
use ed25519_dalek::{Signer as _, SigningKey};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::support::{Answer, Base, Setup, Who, World, nobody};

/// An agent with a key of its own.
struct Signer {
    agent: String,
    key: SigningKey,
}

/// A request before it is signed.
#[derive(Clone)]
struct Draft {
    method: &'static str,
    path: String,
    signed_path: String,
    body: String,
    signed_body: String,
    timestamp: String,
    nonce: String,
}

impl Draft {
    fn new(world: &World, method: &'static str, path: &str, body: &Value, nonce: &str) -> Self {
        let now = world.clock.now().unix_timestamp_nanos() / 1_000_000;
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        Self {
            method,
            path: path.to_owned(),
            signed_path: path.split('?').next().unwrap().to_owned(),
            signed_body: body.clone(),
            body,
            timestamp: now.to_string(),
            nonce: nonce.to_owned(),
        }
    }
}

impl Signer {
    async fn register(world: &World, admin: &Who, seed: u8) -> Self {
        let key = SigningKey::from_bytes(&[seed; 32]);
        let public = STANDARD.encode(key.verifying_key().to_bytes());
        let body = json!({"name": format!("signer-{seed}"), "auth_method": "signed_request", "public_key": public});
        let made = world.post("/v1/agents", admin, body).await.ok(201);
        assert_eq!(made["agent"]["auth_method"], "signed_request");
        assert_eq!(made["agent"]["public_key"], public);
        assert_eq!(made.get("api_key"), None);
        let agent = made["agent"]["id"].as_str().unwrap().to_owned();
        Self { agent, key }
    }

    fn request(&self, draft: &Draft) -> Request<Body> {
        let digest = hex::encode(Sha256::digest(&draft.signed_body));
        let lines = [
            draft.method,
            &draft.signed_path,
            &draft.timestamp,
            &draft.nonce,
            &digest,
        ];
        let signature = self.key.sign(lines.join("\n").as_bytes()).to_bytes();
        Request::builder()
            .method(draft.method)
            .uri(&draft.path)
            .header("X-Clawb-Agent-Id", &self.agent)
            .header("X-Clawb-Timestamp", &draft.timestamp)
            .header("X-Clawb-Nonce", &draft.nonce)
            .header("X-Clawb-Signature", STANDARD.encode(signature))
            .header("content-type", "application/json")
            .body(Body::from(draft.body.clone()))
            .unwrap()
    }

    async fn get(&self, world: &World, path: &str, nonce: &str) -> Answer {
        let draft = Draft::new(world, "GET", path, &Value::Null, nonce);
        world.send(self.request(&draft)).await
    }
}

async fn patient() -> World {
    World::with(Limits {
        auth_failure_burst: NonZeroU32::new(100).unwrap(),
        ..Limits::default()
    })
    .await
}

const LEASES: &str = "/v1/vault/leases";

#[tokio::test]
async fn a_signed_request_acts_as_its_agent() {
    let world = World::new().await;
    let admin = &world.home.admin;
    let signer = Signer::register(&world, admin, 7).await;
    let set = world.stripe_set(admin, "billing-bot").await;
    world.grant(admin, &signer.agent, &set, json!({})).await;
    let mint = json!({"secret_set_id": set, "kind": "request"});
    let draft = Draft::new(&world, "POST", LEASES, &mint, "mint-1");
    let minted = world.send(signer.request(&draft)).await.ok(201);
    assert_eq!(minted["agent_id"], json!(signer.agent));
    let listed = signer.get(&world, LEASES, "list-1").await.ok(200);
    assert_eq!(listed["leases"][0]["lease_id"], minted["lease_id"]);
    let me = signer.get(&world, "/v1/agents/me", "me-1").await.ok(200);
    assert_eq!(me["id"], json!(signer.agent));
    // What is for people stays so.
    signer
        .get(&world, "/v1/agents", "agents-1")
        .await
        .refused(403, "forbidden");
    let trail = world.events("").await;
    let by_signer = |event: &&Value| event["actor_id"] == json!(signer.agent);
    assert!(
        trail
            .iter()
            .any(|event| by_signer(&event) && event["action"] == "lease.mint")
    );
    assert!(
        trail
            .iter()
            .any(|event| by_signer(&event) && event["action"] == "auth.success")
    );
}

#[tokio::test]
async fn a_prefix_and_a_query_of_a_read_are_not_signed() {
    let world = World::new().await;
    let signer = Signer::register(&world, &world.home.admin, 7).await;
    signer
        .get(&world, "/v1/vault/leases?limit=1", "1")
        .await
        .ok(200);
}

#[tokio::test]
async fn whatever_is_not_as_it_was_signed_gets_the_one_answer() {
    let world = patient().await;
    let signer = Signer::register(&world, &world.home.admin, 7).await;
    let other = Signer::register(&world, &world.home.admin, 8).await;
    let good = Draft::new(&world, "POST", LEASES, &json!({"secret_set": "a/b/c"}), "n");
    let strange = Signer {
        agent: "agt_01ARZ3NDEKTSV4RRFFQ69G5FAV".to_owned(),
        key: signer.key.clone(),
    };
    let anothers = Signer {
        agent: signer.agent.clone(),
        key: other.key.clone(),
    };
    let mut wrong = vec![strange.request(&good), anothers.request(&good)];
    let changes: [fn(&mut Draft); 4] = [
        |draft| draft.body = json!({"secret_set": "a/b/d"}).to_string(),
        |draft| draft.signed_path = "/v1/agents".to_owned(),
        |draft| draft.signed_path = "/v1/vault/leases?limit=1".to_owned(),
        |draft| draft.nonce = "x".repeat(129),
    ];
    for change in changes {
        let mut draft = good.clone();
        change(&mut draft);
        wrong.push(signer.request(&draft));
    }
    for (name, value) in [
        ("X-Clawb-Signature", ""),
        ("X-Clawb-Signature", "AAAA"),
        ("X-Clawb-Nonce", "another"),
        ("X-Clawb-Timestamp", "now"),
        ("X-Clawb-Timestamp", "-1"),
        ("X-Clawb-Agent-Id", &other.agent),
        ("X-Clawb-Agent-Id", "1"),
    ] {
        let mut request = signer.request(&good);
        request.headers_mut().insert(name, value.parse().unwrap());
        wrong.push(request);
    }
    for name in ["X-Clawb-Signature", "X-Clawb-Nonce", "X-Clawb-Agent-Id"] {
        let mut missing = signer.request(&good);
        missing.headers_mut().remove(name);
        wrong.push(missing);
        let mut twice = signer.request(&good);
        let value = twice.headers()[name].clone();
        twice.headers_mut().append(name, value);
        wrong.push(twice);
    }
    // Two credentials could name two principals.
    let key = world.home.admin.0.clone().unwrap();
    for (name, value) in [
        ("authorization", format!("Bearer {key}")),
        ("x-clawb-api-key", key),
    ] {
        let mut both = signer.request(&good);
        both.headers_mut().insert(name, value.parse().unwrap());
        wrong.push(both);
    }
    let mut texts = Vec::new();
    for request in wrong {
        let answer = world.send(request).await;
        let mut body = answer.json();
        body["instance"] = json!(null);
        texts.push(body.to_string());
        answer.refused(401, "unauthenticated");
    }
    texts.dedup();
    assert_eq!(texts.len(), 1, "{texts:?}");
    // None of them has used the nonce up.
    let mut own = good.clone();
    own.body = json!({}).to_string();
    own.signed_body = own.body.clone();
    let answer = world.send(signer.request(&own)).await;
    assert_ne!(answer.status, 401, "{}", answer.text);
}

#[tokio::test]
async fn a_nonce_is_taken_once_over_all_nodes() {
    for base in [Base::File, Base::Postgres] {
        let mut world = World::of(Setup {
            base,
            ..Setup::default()
        })
        .await;
        let signer = Signer::register(&world, &world.home.admin, 7).await;
        let other = Signer::register(&world, &world.home.admin, 8).await;
        let draft = Draft::new(&world, "GET", LEASES, &Value::Null, "once");
        world.send(signer.request(&draft)).await.ok(200);
        let again = world.send(signer.request(&draft)).await;
        again.refused(401, "replay_detected");
        // A nonce is its agent's own.
        world.send(other.request(&draft)).await.ok(200);
        let plane = world
            .plane(&world.vault, control_plane::Signers::default(), Vec::new())
            .await;
        world.through(&plane);
        let elsewhere = world.send(signer.request(&draft)).await;
        elsewhere.refused(401, "replay_detected");
    }
}

#[tokio::test]
async fn of_many_copies_of_one_request_one_is_taken() {
    let world = World::new().await;
    let signer = Signer::register(&world, &world.home.admin, 7).await;
    let draft = Draft::new(&world, "GET", LEASES, &Value::Null, "race");
    let copies = (0..10).map(|_| world.send(signer.request(&draft)));
    let answers = futures::future::join_all(copies).await;
    let taken = answers.iter().filter(|answer| answer.status == 200).count();
    assert_eq!(taken, 1);
}

#[tokio::test]
async fn a_request_is_good_for_five_minutes_before_and_after_its_time() {
    let world = patient().await;
    let signer = Signer::register(&world, &world.home.admin, 7).await;
    let draft = |nonce| Draft::new(&world, "GET", LEASES, &Value::Null, nonce);
    let (early, late) = (draft("early"), draft("late"));
    let (replayed, stale) = (draft("replayed"), draft("stale"));
    world.send(signer.request(&replayed)).await.ok(200);
    world.clock.advance(Duration::from_mins(5));
    world.send(signer.request(&early)).await.ok(200);
    // As long as the time would be good, the nonce is remembered.
    let again = world.send(signer.request(&replayed)).await;
    again.refused(401, "replay_detected");
    world.clock.advance(Duration::from_millis(1));
    let detail = world.send(signer.request(&stale)).await;
    let detail = detail.refused(401, "timestamp_out_of_range");
    assert!(detail.contains("milliseconds"), "{detail}");
    let mut ahead = late;
    let now = world.clock.now().unix_timestamp_nanos() / 1_000_000;
    ahead.timestamp = (now + 300_000).to_string();
    world.send(signer.request(&ahead)).await.ok(200);
    ahead.timestamp = (now + 300_001).to_string();
    let refused = world.send(signer.request(&ahead)).await;
    refused.refused(401, "timestamp_out_of_range");
    // Seconds are not milliseconds.
    ahead.timestamp = (now / 1000).to_string();
    let refused = world.send(signer.request(&ahead)).await;
    refused.refused(401, "timestamp_out_of_range");
}

#[tokio::test]
async fn a_query_that_is_not_signed_changes_nothing() {
    let world = World::new().await;
    let signer = Signer::register(&world, &world.home.admin, 7).await;
    for (method, path) in [
        ("POST", "/v1/vault/leases?agent_id=x"),
        ("DELETE", "/v1/vault/leases/lse_01ARZ3NDEKTSV4RRFFQ69G5FAV?"),
    ] {
        let draft = Draft::new(&world, method, path, &json!({}), "q");
        let refused = world.send(signer.request(&draft)).await;
        let detail = refused.refused(400, "invalid_request");
        assert!(detail.starts_with("query: "), "{detail}");
    }
}

#[tokio::test]
async fn a_signature_ends_with_its_agent_and_its_key() {
    let world = patient().await;
    let admin = &world.home.admin;
    let signer = Signer::register(&world, admin, 7).await;
    let path = format!("/v1/agents/{}", signer.agent);
    signer.get(&world, LEASES, "1").await.ok(200);
    let stopped = json!({"is_active": false});
    world.patch(&path, admin, stopped).await.ok(200);
    let refused = signer.get(&world, LEASES, "2").await;
    refused.refused(401, "unauthenticated");
    let resumed = json!({"is_active": true});
    world.patch(&path, admin, resumed).await.ok(200);
    signer.get(&world, LEASES, "3").await.ok(200);

    let next = SigningKey::from_bytes(&[9; 32]);
    let public = STANDARD.encode(next.verifying_key().to_bytes());
    let change = json!({"public_key": public});
    world.patch(&path, admin, change).await.ok(200);
    let refused = signer.get(&world, LEASES, "4").await;
    refused.refused(401, "unauthenticated");
    let signer = Signer {
        key: next,
        ..signer
    };
    signer.get(&world, LEASES, "5").await.ok(200);

    let back = json!({"auth_method": "api_key"});
    world.patch(&path, admin, back).await.ok(200);
    let refused = signer.get(&world, LEASES, "6").await;
    refused.refused(401, "unauthenticated");
    let rotate = format!("{path}/rotate-key");
    let fresh = world.post(&rotate, admin, json!({})).await;
    let fresh = fresh.field("/api_key");
    let key = crate::support::holder(fresh);
    world.get(LEASES, &key).await.ok(200);
    world.delete(&path, admin).await.ok(204);
    world
        .get(LEASES, &key)
        .await
        .refused(401, "unauthenticated");
}

#[tokio::test]
async fn what_is_registered_is_a_key_of_its_method() {
    let world = World::new().await;
    let admin = &world.home.admin;
    let key = STANDARD.encode(SigningKey::from_bytes(&[7; 32]).verifying_key().to_bytes());
    let mut identity = [0; 32];
    identity[0] = 1;
    let weak = STANDARD.encode(identity);
    for (body, field) in [
        (json!({"auth_method": "signed_request"}), "public_key"),
        (
            json!({"auth_method": "signed_request", "public_key": "AAAA"}),
            "public_key",
        ),
        (
            json!({"auth_method": "signed_request", "public_key": weak}),
            "public_key",
        ),
        (json!({"public_key": key}), "auth_method"),
        (json!({"auth_method": "password"}), "auth_method"),
        (json!({"auth_method": "mtls"}), "client_cert_fingerprint"),
        (
            json!({"auth_method": "mtls", "client_cert_fingerprint": "ab"}),
            "client_cert_fingerprint",
        ),
        (
            json!({"auth_method": "mtls", "client_cert_fingerprint": "ab".repeat(32), "public_key": key}),
            "auth_method",
        ),
        (json!({"token_ttl_seconds": 59}), "token_ttl_seconds"),
        (json!({"token_ttl_seconds": 3601}), "token_ttl_seconds"),
        (json!({"vault_ids": []}), "vault_ids"),
        (json!({"expires_at": "2026-11-22T06:59:59Z"}), "expires_at"),
    ] {
        let mut body = body;
        body["name"] = json!("bot");
        let refused = world.post("/v1/agents", admin, body.clone()).await;
        let detail = refused.refused(400, "invalid_request");
        assert!(
            detail.starts_with(&format!("{field}: ")),
            "{body}: {detail}"
        );
    }
    let signer = Signer::register(&world, admin, 7).await;
    let path = format!("/v1/agents/{}/rotate-key", signer.agent);
    let refused = world.post(&path, admin, json!({})).await;
    let detail = refused.refused(409, "wrong_auth_method");
    assert!(detail.contains("signed_request"), "{detail}");
    // An agent registers nobody, not even itself.
    let body = json!({"name": "other"});
    let draft = Draft::new(&world, "POST", "/v1/agents", &body, "1");
    let refused = world.send(signer.request(&draft)).await;
    refused.refused(403, "forbidden");
    let refused = world.post("/v1/agents", &nobody(), body).await;
    refused.refused(401, "unauthenticated");
}

#[tokio::test]
async fn a_repeated_request_with_a_new_signature_has_one_effect() {
    let world = World::new().await;
    let admin = &world.home.admin;
    let signer = Signer::register(&world, admin, 7).await;
    let set = world.stripe_set(admin, "billing-bot").await;
    world.grant(admin, &signer.agent, &set, json!({})).await;
    let send = async |nonce: &str| {
        let body = json!({"secret_set_id": set});
        let draft = Draft::new(&world, "POST", LEASES, &body, nonce);
        let mut request = signer.request(&draft);
        let key = "k".parse().unwrap();
        request.headers_mut().insert("idempotency-key", key);
        world.send(request).await
    };
    send("1").await.ok(201);
    // What the first answer showed is readable by nobody, for a signed request shows no secret to keep it under.
    send("2").await.refused(409, "idempotency_conflict");
    let leases = world.get(LEASES, admin).await.ok(200);
    assert_eq!(leases["leases"].as_array().unwrap().len(), 1);
}
