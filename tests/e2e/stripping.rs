//! What an agent may not send does not reach the upstream: its own credentials, ours, and hop-by-hop fields.

use crate::support::Stack;

#[tokio::test]
async fn the_agents_own_credentials_are_dropped() {
    let stack = Stack::start().await;
    let access = stack.stripe().await;
    let token = stack.workflow_lease(&access).await;
    let mut tunnel = stack.tunnel("api.stripe.com", &token).await;

    for fields in [
        &["Authorization: Bearer sk-own"][..],
        &[
            "Authorization: Bearer sk-own",
            "authorization: Basic b3duOm93bg==",
        ],
        &["AUTHORIZATION: sk-own"],
        &["Authorization: Bearer sk-own", "Stripe-Account: acct_own"],
        &["Stripe-Context: acct_own", "stripe_context: acct_own"],
    ] {
        tunnel
            .request("GET", "/v1/balance", fields, b"")
            .await
            .unwrap()
            .expect_status(200);
        let request = stack.upstream.last();
        assert_eq!(
            request.field("authorization"),
            format!("Bearer {}", access.secret.text())
        );
        assert!(
            request.fields("stripe-account").is_empty(),
            "{:?}",
            request.names()
        );
        assert!(
            !String::from_utf8_lossy(&request.head).contains("own"),
            "{:?}",
            request.names()
        );
    }
    stack.finish().await;
}

#[tokio::test]
async fn twins_of_a_credential_slot_are_dropped() {
    let stack = Stack::start().await;
    let secret = stack.secret("sk-ant-");
    let entries = serde_json::json!({ "ANTHROPIC_API_KEY": secret.text() });
    let access = stack
        .access("anthropic", &entries, &secret, &serde_json::json!({}))
        .await;
    let token = stack.workflow_lease(&access).await;
    let mut tunnel = stack.tunnel("api.anthropic.com", &token).await;

    for twin in ["X_Api_Key: own", "x_api-key: own", "X-API-KEY: own"] {
        tunnel
            .request("GET", "/v1/models", &[twin], b"")
            .await
            .unwrap()
            .expect_status(200);
        let request = stack.upstream.last();
        assert_eq!(request.field("x-api-key"), secret.text());
        assert!(
            !String::from_utf8_lossy(&request.head).contains("own"),
            "{:?}",
            request.names()
        );
    }
    stack.finish().await;
}

#[tokio::test]
async fn the_lease_and_hop_by_hop_fields_stay_here() {
    let stack = Stack::start().await;
    let access = stack.stripe().await;
    let token = stack.workflow_lease(&access).await;
    let mut tunnel = stack.tunnel("api.stripe.com", &token).await;
    let fields = [
        &format!("Proxy-Authorization: Bearer {token}"),
        "Proxy-Connection: keep-alive",
        "Connection: keep-alive",
        "Keep-Alive: timeout=5",
        "TE: trailers",
        "X-Forwarded-For: 203.0.113.9",
        "X-Forwarded-Host: api.openai.com",
        "Forwarded: for=203.0.113.9;host=api.openai.com",
        "X-Original-URL: /admin",
        "X-Rewrite-URL: /admin",
        "X-HTTP-Method-Override: DELETE",
        "Idempotency-Key: kept",
        "Accept-Language: kept",
    ];

    tunnel
        .request("GET", "/v1/balance", &fields, b"")
        .await
        .unwrap()
        .expect_status(200);

    let request = stack.upstream.last();
    for gone in [
        "proxy-authorization",
        "proxy-connection",
        "keep-alive",
        "te",
        "x-forwarded-for",
        "x-forwarded-host",
        "forwarded",
        "x-original-url",
        "x-rewrite-url",
        "x-http-method-override",
        "via",
    ] {
        assert!(
            request.fields(gone).is_empty(),
            "{gone} in {:?}",
            request.names()
        );
    }
    assert_eq!(request.field("idempotency-key"), "kept");
    assert_eq!(request.field("accept-language"), "kept");
    assert!(!String::from_utf8_lossy(&request.head).contains(&token));
    stack.finish().await;
}

#[tokio::test]
async fn a_field_nominated_as_hop_by_hop_does_not_go_upstream() {
    let stack = Stack::start().await;
    let access = stack.stripe().await;
    let token = stack.workflow_lease(&access).await;
    let mut tunnel = stack.tunnel("api.stripe.com", &token).await;
    let fields = ["Connection: keep-alive, X-Nominated", "X-Nominated: 1"];

    // Either the whole request is refused, or it goes on without the field.
    let reply = tunnel
        .request("GET", "/v1/balance", &fields, b"")
        .await
        .unwrap();
    if reply.status == 200 {
        assert!(stack.upstream.last().fields("x-nominated").is_empty());
    } else {
        reply.expect_refusal(400, "ambiguous_request");
        assert_eq!(stack.upstream.count(), 0);
    }

    stack.finish().await;
}

#[tokio::test]
async fn a_lease_beside_its_slot_neither_travels_nor_is_recorded() {
    let stack = Stack::start().await;
    let access = stack.stripe().await;
    let token = stack.workflow_lease(&access).await;
    let mut tunnel = stack.tunnel("api.stripe.com", &token).await;
    let cookie = format!("Cookie: a=1; lease={token}; b=2");
    let fields = [&format!("X-Lease: {token}")[..], &cookie];

    tunnel
        .request("GET", "/v1/balance", &fields, b"")
        .await
        .unwrap()
        .expect_status(200);
    let request = stack.upstream.last();
    assert!(
        request.fields("x-lease").is_empty(),
        "{:?}",
        request.names()
    );
    assert!(request.fields("cookie").is_empty(), "no cookie passes");

    for target in [format!("/v1/{token}"), format!("/v1/balance?lease={token}")] {
        tunnel
            .request("GET", &target, &[], b"")
            .await
            .unwrap()
            .expect_refusal(400, "ambiguous_request");
    }
    assert_eq!(stack.upstream.count(), 1);
    stack.finish().await;
}

#[tokio::test]
async fn cookies_pass_neither_way_unless_the_template_says_so() {
    let stack = Stack::start().await;
    let access = stack.stripe().await;
    let token = stack.workflow_lease(&access).await;
    let mut h2 = stack.tunnel_h2("api.stripe.com", &token).await;
    let mut tunnel = stack.tunnel("api.stripe.com", &token).await;

    for fields in [
        &["Cookie: user_session=stolen; a=1", "Cookie2: $Version=1"][..],
        &[
            "COOKIE_: user_session=stolen",
            "Cookie: user_session=stolen",
        ],
        &[],
    ] {
        let reply = tunnel.request("GET", "/echo", fields, b"").await.unwrap();
        let reply = reply.expect_status(200);
        assert_eq!(reply.field("set-cookie"), None, "the provider set one");
        let request = stack.upstream.last();
        let head = String::from_utf8_lossy(&request.head).into_owned();
        assert!(!head.contains("stolen"), "{:?}", request.names());
    }
    let crumbs = [("cookie", "user_session=stolen"), ("cookie", "a=1")];
    let uri = "https://api.stripe.com/echo";
    let reply = h2.request("GET", uri, &crumbs, b"").await.unwrap();
    assert_eq!(reply.expect_status(200).field("set-cookie"), None);
    let names = stack.upstream.last().names();
    assert!(!names.iter().any(|name| name == "cookie"), "{names:?}");
    stack.finish().await;
}
