//! Plaintext leaves through one door alone: an export lease, from a grant that says `export_plaintext`.

use serde_json::json;

use crate::support::{Access, Stack};

const EXPORTING: [&str; 2] = ["proxy_use", "export_plaintext"];

async fn exporting() -> (Stack, Access, String) {
    let stack = Stack::start().await;
    let access = stack
        .stripe_with(&json!({ "allowed_actions": EXPORTING }))
        .await;
    let body = json!({
        "secret_set_id": access.set, "agent_id": access.agent, "action": "export_plaintext", "kind": "request",
    });
    let token = stack.mint(&body).await;
    (stack, access, token)
}

#[tokio::test]
async fn an_export_lease_gives_the_named_keys_once_and_is_audited() {
    let (stack, access, token) = exporting().await;
    let body = json!({ "keys": ["STRIPE_SECRET_KEY"] });

    let reply = stack.api(&token).export(&body).await.expect_status(200);
    assert_eq!(
        reply.json()["secrets"],
        json!({ "STRIPE_SECRET_KEY": access.secret.text() })
    );
    assert_eq!(reply.field("cache-control"), Some("no-store"));
    let again = stack.api(&token).export(&body).await.expect_status(403);
    assert!(!again.text().contains(access.secret.text()));

    let events = stack.events().await;
    let exports: Vec<_> = events
        .iter()
        .filter(|event| event["action"] == "secret.export")
        .collect();
    assert!(
        exports.iter().any(|event| event["decision"] != "deny"),
        "{exports:?}"
    );
    assert_eq!(exports[0]["keys"], json!(["STRIPE_SECRET_KEY"]));
    assert_eq!(exports[0]["agent_id"], access.agent.as_str());
    assert_eq!(stack.upstream.count(), 0);
    stack.finish_without_traffic().await;
}

#[tokio::test]
async fn a_grant_without_export_mints_no_export_lease() {
    let stack = Stack::start().await;
    let access = stack.stripe().await;
    let body = json!({ "secret_set_id": access.set, "agent_id": access.agent, "action": "export_plaintext" });

    stack
        .admin()
        .post("/v1/vault/leases", &body)
        .await
        .expect_status(403);

    stack.finish().await;
}

#[tokio::test]
async fn a_proxy_lease_exports_nothing_and_an_export_lease_proxies_nothing() {
    let (stack, access, export) = exporting().await;
    let proxy = stack.request_lease(&access).await;

    let reply = stack
        .api(&proxy)
        .export(&json!({ "keys": ["STRIPE_SECRET_KEY"] }))
        .await
        .expect_status(403);
    assert!(!reply.text().contains(access.secret.text()));
    let (reply, wire) = stack
        .connect(
            "api.stripe.com:443",
            &crate::support::tunnel::basic(&export),
        )
        .await;
    if reply.status == 200 {
        drop(wire);
        stack
            .get("api.stripe.com", "/v1/balance", &export)
            .await
            .expect_status(403);
    } else {
        reply.expect_status(403);
    }

    assert_eq!(stack.upstream.count(), 0);
    stack.finish().await;
}

#[tokio::test]
async fn no_other_route_gives_a_value_back() {
    let stack = Stack::start().await;
    let access = stack.stripe().await;
    let set = format!("/v1/vault/secret-sets/{}", access.set);
    let new = stack.secret("sk_live_");
    let admin = stack.admin();
    admin
        .put(
            &set,
            &json!({ "entries": { "STRIPE_SECRET_KEY": new.text() } }),
        )
        .await
        .expect_status(200);
    let imported = stack.secret("sk-");
    let dotenv = format!("# keys\nexport OPENAI_API_KEY=\"{}\"\n", imported.text());
    let body = json!({ "provider": "openai", "environment": "test", "name": "imported", "dotenv": dotenv });
    admin
        .post("/v1/vault/secret-sets/import", &body)
        .await
        .expect_status(201);

    for path in [
        set.clone(),
        format!("{set}/versions"),
        "/v1/vault/secret-sets".to_owned(),
        "/v1/vault/grants".to_owned(),
        "/v1/vault/leases".to_owned(),
        "/v1/agents".to_owned(),
        "/v1/vault/audit".to_owned(),
        "/v1/health".to_owned(),
        "/openapi.json".to_owned(),
    ] {
        admin.get(&path).await.expect_status(200);
    }
    // A mistake beside a value must not say the value.
    let wrong = stack.secret("sk-");
    let body = json!({ "provider": "stripe", "environment": "test", "name": "x", "entries": { "NO_SUCH_KEY": wrong.text() } });
    admin.post("/v1/vault/secret-sets", &body).await;
    let body = json!({ "provider": "stripe", "environment": "test", "name": "y", "entries": { "STRIPE_SECRET_KEY": [wrong.text()] } });
    let reply = admin.post("/v1/vault/secret-sets", &body).await;
    assert_eq!(reply.status / 100, 4, "{}", reply.text());
    let body = json!({ "provider": "openai", "environment": "test", "name": "z", "dotenv": format!("A B={}", wrong.text()) });
    admin.post("/v1/vault/secret-sets/import", &body).await;
    stack.cli(&["set", "list", "--json"]).await.expect_success();
    stack
        .cli(&["set", "show", "stripe/test/stripe-bot"])
        .await
        .expect_success();
    stack
        .cli(&["set", "versions", "stripe/test/stripe-bot"])
        .await
        .expect_success();

    // The sweep at the end looks through every answer above.
    stack.finish().await;
}
