//! Endpoints that hand out new credentials are refused by their template, unless the grant names them (threats.md C15).

use serde_json::json;

use crate::support::Stack;

const EPHEMERAL_KEYS: &str = "/v1/ephemeral_keys";

/// A set of Stripe, an agent with a grant of these constraints, and a lease for many requests.
async fn lease(stack: &Stack, constraints: serde_json::Value) -> String {
    let secret = stack.secret("sk_live_");
    let entries = json!({ "STRIPE_SECRET_KEY": secret.text() });
    let grant = json!({ "constraints": constraints });
    let access = stack.access("stripe", &entries, &secret, &grant).await;
    stack.workflow_lease(&access).await
}

#[tokio::test]
async fn a_new_credential_is_refused_in_every_spelling_of_its_endpoint() {
    let stack = Stack::start().await;
    let token = lease(&stack, json!({})).await;

    for path in [
        EPHEMERAL_KEYS,
        "/v1/ephemeral_keys/",
        "/v1/Ephemeral_Keys",
        "/v1/ephemeral%5fkeys",
        "/v1/ephemeral_keys;a=b",
        "/v1/ephemeral_keys.json",
        "/v1/ephemeral_keys?customer=cus_1",
    ] {
        let mut tunnel = stack.tunnel("api.stripe.com", &token).await;
        let reply = tunnel.request("POST", path, &[], b"").await.unwrap();
        let reply = reply.expect_refusal(403, "grant_denied");
        assert!(
            reply
                .text()
                .contains("ask for a grant whose paths hold `/v1/ephemeral_keys`"),
            "{path}: {}",
            reply.text()
        );
    }

    assert_eq!(stack.upstream.count(), 0);
    let mut tunnel = stack.tunnel("api.stripe.com", &token).await;
    let reply = tunnel.request("POST", "/v1/charges", &[], b"").await;
    reply.unwrap().expect_status(200);
    stack.finish().await;
}

#[tokio::test]
async fn a_path_for_everything_names_no_endpoint() {
    let stack = Stack::start().await;
    let token = lease(&stack, json!({ "paths": ["/**"] })).await;
    let mut tunnel = stack.tunnel("api.stripe.com", &token).await;
    let reply = tunnel.request("POST", EPHEMERAL_KEYS, &[], b"").await;
    reply.unwrap().expect_refusal(403, "grant_denied");
    assert_eq!(stack.upstream.count(), 0);
    stack.finish().await;
}

#[tokio::test]
async fn a_grant_that_names_the_endpoint_allows_it_and_no_other() {
    let stack = Stack::start().await;
    let token = lease(&stack, json!({ "paths": ["/**", EPHEMERAL_KEYS] })).await;
    for path in [EPHEMERAL_KEYS, "/v1/balance"] {
        let mut tunnel = stack.tunnel("api.stripe.com", &token).await;
        let reply = tunnel.request("POST", path, &[], b"").await;
        reply.unwrap().expect_status(200);
    }
    let mut tunnel = stack.tunnel("api.stripe.com", &token).await;
    let reply = tunnel
        .request("POST", "/v1/account_sessions", &[], b"")
        .await;
    reply.unwrap().expect_refusal(403, "grant_denied");
    assert_eq!(stack.upstream.count(), 2);
    stack.finish().await;
}

#[tokio::test]
async fn a_preset_is_the_grants_limit_and_stands_in_listing_and_audit() {
    let stack = Stack::start().await;
    let token = lease(&stack, json!({ "preset": "read-only" })).await;

    let mut tunnel = stack.tunnel("api.stripe.com", &token).await;
    let reply = tunnel.request("GET", "/v1/charges", &[], b"").await;
    reply.unwrap().expect_status(200);
    let reply = tunnel.request("POST", "/v1/charges", &[], b"").await;
    let reply = reply.unwrap().expect_refusal(403, "grant_denied");
    assert!(
        reply.text().contains("allowed: GET, HEAD"),
        "{}",
        reply.text()
    );
    assert_eq!(stack.upstream.count(), 1);

    let admin = stack.admin();
    let grants = admin
        .get("/v1/vault/grants")
        .await
        .expect_status(200)
        .json();
    let constraints = &grants["grants"][0]["constraints"];
    assert_eq!(constraints["preset"], "read-only");
    assert_eq!(constraints["methods"], json!(["GET", "HEAD"]));
    let events = admin.get("/v1/vault/audit?action=grant.create").await;
    assert_eq!(
        events.expect_status(200).json()["events"][0]["preset"],
        "read-only"
    );
    stack.finish().await;
}

#[tokio::test]
async fn explain_says_what_the_injector_says() {
    let stack = Stack::start().await;
    let token = lease(&stack, json!({})).await;
    let admin = stack.admin();
    let ask = |path: &str| format!("/v1/explain?method=POST&url=https://api.stripe.com{path}");

    let denied = admin
        .get(&ask(EPHEMERAL_KEYS))
        .await
        .expect_status(200)
        .json();
    assert_eq!(denied["decision"], "deny");
    assert!(
        denied["reason"].to_string().contains("/v1/ephemeral_keys"),
        "{denied}"
    );
    let allowed = admin
        .get(&ask("/v1/charges"))
        .await
        .expect_status(200)
        .json();
    assert_eq!(allowed["decision"], "allow");

    // A method that is named elsewhere, or that is none.
    let mut tunnel = stack.tunnel("api.stripe.com", &token).await;
    for query in ["?_method=DELETE", "?X-HTTP-Method-Override=DELETE"] {
        let path = format!("/v1/charges{query}");
        let refused = tunnel.request("POST", &path, &[], b"").await.unwrap();
        refused.expect_refusal(400, "ambiguous_request");
        let query = query.replacen('?', "%3F", 1);
        let told = admin.get(&ask(&format!("/v1/charges{query}"))).await;
        assert_eq!(
            told.expect_status(200).json()["decision"],
            "deny",
            "{query}"
        );
    }
    let refused = tunnel
        .request("post", "/v1/charges", &[], b"")
        .await
        .unwrap();
    refused.expect_refusal(405, "method_not_allowed");
    let told = stack
        .cli(&["explain", "post", "https://api.stripe.com/v1/charges"])
        .await;
    assert_eq!(told.status, Some(1), "{told:?}");
    assert!(
        format!("{}{}", told.stdout, told.stderr).contains("post is not proxied"),
        "{told:?}"
    );
    stack.finish().await;
}

#[tokio::test]
async fn a_grant_with_paths_deletes_a_repository_only_where_it_lists_the_method() {
    for (constraints, deletes) in [
        (json!({ "preset": "no-admin" }), false),
        (
            json!({ "paths": ["/repos/**"], "methods": ["GET", "DELETE"] }),
            true,
        ),
        (json!({}), true),
    ] {
        let stack = Stack::start().await;
        let secret = stack.secret("ghp_");
        let entries = json!({ "GITHUB_TOKEN": secret.text() });
        let grant = json!({ "constraints": constraints });
        let access = stack.access("github", &entries, &secret, &grant).await;
        let token = stack.workflow_lease(&access).await;
        let mut tunnel = stack.tunnel("api.github.com", &token).await;
        tunnel.get("/repos/o/r").await.expect_status(200);
        let reply = tunnel.request("DELETE", "/repos/o/r", &[], b"").await;
        let reply = reply.unwrap();
        if deletes {
            reply.expect_status(200);
        } else {
            let reply = reply.expect_refusal(403, "grant_denied");
            let text = reply.text();
            assert!(text.contains("whose methods hold DELETE"), "{text}");
        }
        stack.finish().await;
    }
}
