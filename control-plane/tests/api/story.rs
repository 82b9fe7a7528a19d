//! The whole story, with a canary in every place where a value goes in, and a search of every answer for it.

use serde_json::json;

use crate::support::{CANARY, World, holder, nobody};

#[tokio::test]
async fn no_answer_but_the_export_shows_a_value() {
    let world = World::new().await;
    let admin = &world.home.admin;
    let granted = world
        .granted(
            json!({"allowed_actions": ["proxy_use", "mint_workflow_lease", "export_plaintext"]}),
        )
        .await;
    let path = format!("/v1/vault/secret-sets/{}", granted.set_id);
    let dotenv = format!("STRIPE_SECRET_KEY={CANARY}\n");
    world
        .post(
            "/v1/vault/secret-sets/import",
            admin,
            json!({"provider": "stripe", "environment": "prod", "name": "i", "dotenv": dotenv}),
        )
        .await
        .ok(201);
    world
        .put(
            &path,
            admin,
            json!({"entries": {"STRIPE_ACCOUNT_ID": CANARY}}),
        )
        .await
        .ok(200);
    world
        .post(&format!("{path}/rollback"), admin, json!({"version": 1}))
        .await
        .ok(200);
    let spec =
        json!({"hosts": ["api.example.com"], "inject": [{"header": "x-key", "value": "${K}"}]});
    world.post("/v1/vault/secret-sets", admin, json!({"provider": "custom", "environment": "e", "name": "n", "entries": {"K": CANARY}, "custom": spec})).await.ok(201);

    misplace(&world, &path).await;
    read_all(&world).await;
    world.get(&path, admin).await.ok(200);
    world.get(&format!("{path}/versions"), admin).await.ok(200);
    let (_, token) = world
        .lease(
            &granted.agent,
            json!({"secret_set_id": granted.set_id, "kind": "workflow", "ttl_seconds": 600}),
        )
        .await;
    world
        .post("/v1/vault/export", &holder(&token), json!({}))
        .await
        .refused(403, "export_denied");

    let leaked: Vec<String> = world
        .seen
        .lock()
        .unwrap()
        .iter()
        .filter(|text| text.contains(CANARY))
        .cloned()
        .collect();
    assert_eq!(leaked, Vec::<String>::new());

    let (_, token) = world
        .lease(
            &granted.agent,
            json!({"secret_set_id": granted.set_id, "action": "export_plaintext"}),
        )
        .await;
    let exported = world
        .post("/v1/vault/export", &holder(&token), json!({}))
        .await
        .ok(200);
    assert_eq!(exported["secrets"]["STRIPE_SECRET_KEY"], CANARY);
}

/// Values in the wrong places, which must come back in no error text.
async fn misplace(world: &World, path: &str) {
    let admin = &world.home.admin;
    for body in [
        json!({"provider": "stripe", "environment": "prod", "name": "x", "entries": CANARY}),
        json!({"provider": "stripe", "environment": "prod", "name": "x", "entries": [CANARY]}),
        json!({"provider": "stripe", "environment": "prod", "name": "x", "entries": {"A": [CANARY]}}),
        json!({"provider": "stripe", "environment": "prod", "name": "x", "entries": {"A": {"value": CANARY}}}),
        json!({"provider": "stripe", "environment": "prod", "name": "billing-bot", "entries": {"A": CANARY}}),
    ] {
        assert!(
            !world
                .post("/v1/vault/secret-sets", admin, body)
                .await
                .status
                .is_success()
        );
    }
    for dotenv in [
        CANARY.to_owned(),
        format!("A=\"{CANARY}"),
        format!("A=\"{CANARY}\" {CANARY}"),
        format!("A=1\nA={CANARY}"),
    ] {
        let body =
            json!({"provider": "stripe", "environment": "prod", "name": "x", "dotenv": dotenv});
        assert!(
            !world
                .post("/v1/vault/secret-sets/import", admin, body)
                .await
                .status
                .is_success()
        );
    }
    world
        .put(path, admin, json!({"entries": {"A": [CANARY]}}))
        .await
        .refused(400, "invalid_request");
    world
        .post(
            "/v1/auth/agent-token",
            &nobody(),
            json!({"api_key": CANARY}),
        )
        .await
        .refused(401, "unauthenticated");
    world
        .get("/v1/agents", &holder(CANARY))
        .await
        .refused(401, "unauthenticated");
    world
        .post("/v1/vault/leases/revoke", admin, json!({"token": CANARY}))
        .await
        .refused(400, "invalid_request");
}

/// Everything there is to read.
async fn read_all(world: &World) {
    let admin = &world.home.admin;
    for read in [
        "/v1/agents",
        "/v1/vault/secret-sets",
        "/v1/vault/grants",
        "/v1/vault/leases",
        "/v1/providers",
        "/v1/audit/events?limit=200",
        "/v1/audit/export",
        "/v1/audit/verify",
        "/metrics",
        "/openapi.json",
        "/v1/health",
        "/v1/explain?url=https://api.stripe.com/v1/charges",
    ] {
        assert_eq!(world.get(read, admin).await.status, 200, "{read}");
    }
}

#[tokio::test]
async fn tokens_and_keys_are_shown_once_and_never_recorded() {
    let world = World::new().await;
    let granted = world.granted(json!({})).await;
    let (_, lease) = world
        .lease(&granted.agent, json!({"secret_set_id": granted.set_id}))
        .await;
    let token = world
        .post(
            "/v1/auth/agent-token",
            &nobody(),
            json!({"api_key": granted.agent.0}),
        )
        .await
        .field("/access_token");
    let trail = world.get("/v1/audit/export", &world.home.admin).await.text;
    let leases = world.get("/v1/vault/leases", &world.home.admin).await.text;
    for secret in [
        &lease[4..44],
        &token[token.len() - 40..],
        &granted.agent.0.as_ref().unwrap()[4..],
        &world.home.admin.0.as_ref().unwrap()[4..],
    ] {
        assert!(!trail.contains(secret) && !leases.contains(secret));
    }
}

#[tokio::test]
async fn no_value_lies_readable_in_the_data_directory() {
    let world = World::new().await;
    world.granted(json!({})).await;
    for entry in std::fs::read_dir(world.dir.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            let bytes = std::fs::read(&path).unwrap();
            assert!(
                !bytes
                    .windows(CANARY.len())
                    .any(|window| window == CANARY.as_bytes()),
                "{}",
                path.display()
            );
        }
    }
}
