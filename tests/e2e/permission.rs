//! Further in: what a lease, its narrowing and its grant do not allow is 403, and nothing reaches the upstream.

use serde_json::json;

use crate::support::tunnel::basic;
use crate::support::{Stack, Wire, wait};

#[tokio::test]
async fn a_request_lease_is_consumed_by_its_first_use() {
    let stack = Stack::start().await;
    let access = stack.stripe().await;
    let token = stack.request_lease(&access).await;
    let mut tunnel = stack.tunnel("api.stripe.com", &token).await;

    tunnel.get("/v1/balance").await.expect_status(200);
    tunnel
        .get("/v1/balance")
        .await
        .expect_refusal(403, "lease_consumed");

    assert_eq!(stack.upstream.count(), 1);
    stack.finish().await;
}

#[tokio::test]
async fn a_lease_that_expires_in_an_open_tunnel_is_refused_there() {
    let stack = Stack::start().await;
    let access = stack.stripe().await;
    let body = json!({
        "secret_set_id": access.set, "agent_id": access.agent, "kind": "workflow", "ttl_seconds": 2,
    });
    let token = stack.mint(&body).await;
    let mut tunnel = stack.tunnel("api.stripe.com", &token).await;

    let refusal = wait::until("the lease to expire", async || {
        let reply = tunnel.get("/v1/balance").await;
        (reply.status != 200).then_some(reply)
    })
    .await;

    refusal.expect_refusal(403, "lease_expired");
    stack.finish().await;
}

#[tokio::test]
async fn a_grant_for_methods_and_paths_denies_all_others() {
    let stack = Stack::start().await;
    let constraints = json!({ "constraints": { "methods": ["GET"], "paths": ["/v1/charges/*"] } });
    let access = stack.stripe_with(&constraints).await;
    let token = stack.workflow_lease(&access).await;
    let mut tunnel = stack.tunnel("api.stripe.com", &token).await;

    tunnel.get("/v1/charges/ch_1").await.expect_status(200);
    tunnel
        .get("/v1/charges/ch_1?expand=all")
        .await
        .expect_status(200);
    for path in [
        "/v1/charges",
        "/v1/charges/ch_1/refunds",
        "/v1/balance",
        "/V1/charges/ch_1",
        "/v1/balance?x=/v1/charges/1",
    ] {
        let reply = tunnel.get(path).await.expect_refusal(403, "grant_denied");
        assert!(
            reply.json()["detail"].as_str().unwrap().contains("path"),
            "{}",
            reply.text()
        );
    }
    let reply = tunnel
        .request("DELETE", "/v1/charges/ch_1", &[], b"")
        .await
        .unwrap();
    let reply = reply.expect_refusal(403, "grant_denied");
    assert!(
        reply.json()["detail"].as_str().unwrap().contains("DELETE"),
        "{}",
        reply.text()
    );

    assert_eq!(stack.upstream.count(), 2);
    stack.finish().await;
}

#[tokio::test]
async fn a_grant_for_another_network_denies_this_client() {
    let stack = Stack::start().await;
    let access = stack
        .stripe_with(&json!({ "constraints": { "cidrs": ["10.0.0.0/8"] } }))
        .await;
    let token = stack.workflow_lease(&access).await;

    // The network may be judged at the door or at the request: either way nothing passes.
    let (reply, wire) = stack.connect("api.stripe.com:443", &basic(&token)).await;
    let refusal = if reply.status == 200 {
        drop(wire);
        stack
            .tunnel("api.stripe.com", &token)
            .await
            .get("/v1/balance")
            .await
    } else {
        reply
    };

    refusal.expect_refusal(403, "grant_denied");
    assert_eq!(stack.upstream.count(), 0);
    stack.finish().await;
}

#[tokio::test]
async fn a_grant_for_one_host_of_the_template_denies_the_others() {
    let stack = Stack::start().await;
    let access = stack
        .stripe_with(&json!({ "constraints": { "hosts": ["files.stripe.com"] } }))
        .await;
    let token = stack.workflow_lease(&access).await;

    stack
        .get("files.stripe.com", "/v1/files", &token)
        .await
        .expect_status(200);
    let (reply, _) = stack.connect("api.stripe.com:443", &basic(&token)).await;

    reply.expect_refusal(403, "grant_denied");
    stack.finish().await;
}

#[tokio::test]
async fn a_grant_without_the_key_that_the_template_needs_is_denied() {
    let stack = Stack::start().await;
    let secret = stack.secret("sk_live_");
    let entries = json!({ "STRIPE_SECRET_KEY": secret.text(), "STRIPE_ACCOUNT_ID": "acct_1" });
    let access = stack
        .access(
            "stripe",
            &entries,
            &secret,
            &json!({ "allowed_keys": ["STRIPE_ACCOUNT_ID"] }),
        )
        .await;
    let token = stack.workflow_lease(&access).await;

    let reply = stack
        .get("api.stripe.com", "/v1/balance", &token)
        .await
        .expect_refusal(403, "grant_denied");

    assert!(
        reply.json()["detail"]
            .as_str()
            .unwrap()
            .contains("STRIPE_SECRET_KEY"),
        "{}",
        reply.text()
    );
    assert_eq!(stack.upstream.count(), 0);
    stack.finish().await;
}

#[tokio::test]
async fn a_rate_limit_answers_429_with_retry_after_and_counts_exactly() {
    let stack = Stack::start().await;
    let rate = json!({ "constraints": { "rate": { "requests": 3, "per_seconds": 3600 } } });
    let access = stack.stripe_with(&rate).await;
    let token = stack.workflow_lease(&access).await;
    let mut tunnel = stack.tunnel("api.stripe.com", &token).await;

    for _ in 0..3 {
        tunnel.get("/v1/balance").await.expect_status(200);
    }
    let refusal = tunnel
        .get("/v1/balance")
        .await
        .expect_refusal(429, "rate_limited");

    let wait: u64 = refusal.field("retry-after").unwrap().parse().unwrap();
    assert!((1..=3600).contains(&wait), "{wait}");
    assert_eq!(stack.upstream.count(), 3);
    stack.finish().await;
}

#[tokio::test]
async fn no_lease_is_minted_without_a_grant() {
    let stack = Stack::start().await;
    let access = stack.stripe().await;
    let (stranger, _) = stack.agent("stranger").await;

    let body = json!({ "secret_set_id": access.set, "agent_id": stranger });
    let reply = stack
        .admin()
        .post("/v1/vault/leases", &body)
        .await
        .expect_status(403);

    assert_eq!(
        reply.field("content-type"),
        Some("application/problem+json")
    );
    stack.finish().await;
}

#[tokio::test]
async fn a_workflow_lease_needs_its_own_action_in_the_grant() {
    let stack = Stack::start().await;
    let access = stack
        .stripe_with(&json!({ "allowed_actions": ["proxy_use"] }))
        .await;

    let body = json!({ "secret_set_id": access.set, "agent_id": access.agent, "kind": "workflow" });
    stack
        .admin()
        .post("/v1/vault/leases", &body)
        .await
        .expect_status(403);

    stack.finish().await;
}

#[tokio::test]
async fn an_upgrade_other_than_websocket_is_denied() {
    let stack = Stack::start().await;
    let access = stack.stripe().await;
    let token = stack.workflow_lease(&access).await;

    for upgrade in ["h2c", "TLS/1.0", "foo"] {
        let mut tunnel = stack.tunnel("api.stripe.com", &token).await;
        let fields = ["Connection: Upgrade", &format!("Upgrade: {upgrade}")];
        let reply = tunnel
            .request("GET", "/v1/balance", &fields, b"")
            .await
            .unwrap();
        reply.expect_refusal(403, "upgrade_denied");
    }
    assert_eq!(stack.upstream.count(), 0);
    stack.finish().await;
}

#[tokio::test]
async fn cleartext_to_a_granted_host_is_plaintext_denied() {
    let stack = Stack::builder()
        .argument("--resolve=api.stripe.com:80=127.0.0.1:9")
        .start()
        .await;
    let access = stack.stripe().await;
    let token = stack.workflow_lease(&access).await;

    let mut absolute = stack.proxy_wire().await;
    let request = format!(
        "GET http://api.stripe.com/v1/balance HTTP/1.1\r\nHost: api.stripe.com\r\n{}\r\n",
        basic(&token)
    );
    absolute.send(request).await.unwrap();
    absolute
        .reply("GET")
        .await
        .unwrap()
        .expect_refusal(403, "plaintext_denied");

    // Clients open a tunnel for http:// too, and hide the answer to CONNECT from their caller.
    for port in [443, 80] {
        let authority = format!("api.stripe.com:{port}");
        let (reply, mut inside) = stack.connect(&authority, &basic(&token)).await;
        reply.expect_status(200);
        for _ in 0..2 {
            inside
                .send(format!(
                    "GET /v1/balance HTTP/1.1\r\nHost: {authority}\r\n\r\n"
                ))
                .await
                .unwrap();
            inside
                .reply("GET")
                .await
                .unwrap()
                .expect_refusal(403, "plaintext_denied");
        }
    }
    let (reply, _) = stack.connect("api.stripe.com:8080", &basic(&token)).await;
    reply.expect_refusal(403, "grant_denied");

    // TLS on the port of cleartext is another port than the granted one.
    let (reply, wire) = stack.connect("api.stripe.com:80", &basic(&token)).await;
    reply.expect_status(200);
    let tls = stack
        .handshake(wire, "api.stripe.com", &[b"http/1.1"])
        .await
        .unwrap();
    let mut inside = Wire::new(tls, Some(stack.seen.clone()));
    inside
        .send("GET /v1/balance HTTP/1.1\r\nHost: api.stripe.com:80\r\n\r\n")
        .await
        .unwrap();
    inside
        .reply("GET")
        .await
        .unwrap()
        .expect_refusal(403, "grant_denied");

    assert_eq!(stack.upstream.count(), 0);
    stack.finish().await;
}

#[tokio::test]
async fn a_refusal_is_in_the_audit_trail_with_its_reason() {
    let stack = Stack::start().await;
    let access = stack
        .stripe_with(&json!({ "constraints": { "methods": ["GET"] } }))
        .await;
    let token = stack.workflow_lease(&access).await;
    let mut tunnel = stack.tunnel("api.stripe.com", &token).await;
    tunnel
        .request("POST", "/v1/charges", &[], b"amount=1")
        .await
        .unwrap()
        .expect_refusal(403, "grant_denied");

    let refusal = wait::until("the refusal in the trail", async || {
        stack
            .events()
            .await
            .into_iter()
            .find(|event| event["action"] == "lease.refuse")
    })
    .await;

    assert_eq!(refusal["decision"], "deny", "{refusal}");
    assert_eq!(refusal["error"], "grant_denied", "{refusal}");
    assert_eq!(refusal["method"], "POST", "{refusal}");
    assert_eq!(refusal["host"], "api.stripe.com", "{refusal}");
    assert_eq!(refusal["path"], "/v1/charges", "{refusal}");
    assert_eq!(refusal["agent_id"], access.agent.as_str(), "{refusal}");
    stack.finish().await;
}
