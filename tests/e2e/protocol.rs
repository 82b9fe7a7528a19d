//! The ways in: HTTP/1.1 and HTTP/2 on either side, and the gateway form for clients that cannot use a proxy.

use crate::support::Stack;

async fn pass(http2_inside: bool, http2_upstream: bool) {
    let alpn: &[&[u8]] = if http2_upstream {
        &[b"h2"]
    } else {
        &[b"http/1.1"]
    };
    let stack = Stack::builder().upstream_alpn(alpn).start().await;
    let access = stack.stripe().await;
    let token = stack.workflow_lease(&access).await;

    if http2_inside {
        let mut h2 = stack.tunnel_h2("api.stripe.com", &token).await;
        let uri = "https://api.stripe.com/v1/charges?limit=1";
        for _ in 0..2 {
            h2.request("POST", uri, &[("x-own", "kept")], b"amount=5")
                .await
                .unwrap()
                .expect_status(200);
        }
    } else {
        let mut tunnel = stack.tunnel("api.stripe.com", &token).await;
        for _ in 0..2 {
            let reply = tunnel
                .request("POST", "/v1/charges?limit=1", &["X-Own: kept"], b"amount=5")
                .await
                .unwrap();
            reply.expect_status(200);
        }
    }

    for request in stack.upstream.requests() {
        assert_eq!(
            request.version,
            if http2_upstream { "HTTP/2" } else { "HTTP/1.1" }
        );
        assert_eq!(request.sni.as_deref(), Some("api.stripe.com"));
        assert_eq!(request.authority, "api.stripe.com");
        assert_eq!(request.target, "/v1/charges?limit=1");
        assert_eq!(
            request.field("authorization"),
            format!("Bearer {}", access.secret.text())
        );
        assert_eq!(request.field("x-own"), "kept");
        assert_eq!(request.body(), b"amount=5");
    }
    assert_eq!(stack.upstream.count(), 2);
    assert_eq!(
        stack.upstream.connections(),
        1,
        "the upstream connection is kept"
    );
    stack.finish().await;
}

#[tokio::test]
async fn http1_inside_to_http1_upstream() {
    pass(false, false).await;
}

#[tokio::test]
async fn http1_inside_to_http2_upstream() {
    pass(false, true).await;
}

#[tokio::test]
async fn http2_inside_to_http1_upstream() {
    pass(true, false).await;
}

#[tokio::test]
async fn http2_inside_to_http2_upstream() {
    pass(true, true).await;
}

#[tokio::test]
async fn a_refusal_over_http2_is_a_response_and_the_connection_goes_on() {
    let stack = Stack::start().await;
    let access = stack
        .stripe_with(&serde_json::json!({ "constraints": { "paths": ["/v1/balance"] } }))
        .await;
    let token = stack.workflow_lease(&access).await;
    let mut h2 = stack.tunnel_h2("api.stripe.com", &token).await;

    let refused = h2
        .request("GET", "https://api.stripe.com/v1/charges", &[], b"")
        .await
        .unwrap();
    refused.expect_refusal(403, "grant_denied");
    h2.request("GET", "https://api.stripe.com/v1/balance", &[], b"")
        .await
        .unwrap()
        .expect_status(200);

    assert_eq!(stack.upstream.count(), 1);
    stack.finish().await;
}

#[tokio::test]
async fn the_gateway_takes_the_lease_where_the_providers_key_would_be() {
    let stack = Stack::start().await;
    let access = stack.stripe().await;
    let token = stack.workflow_lease(&access).await;
    let mut wire = stack.proxy_wire().await;

    for _ in 0..2 {
        let request = format!(
            "POST /gateway/stripe/v1/charges?limit=1 HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {token}\r\n\
             Content-Length: 8\r\n\r\namount=5",
            stack.proxy_addr
        );
        wire.send(request).await.unwrap();
        wire.reply("POST").await.unwrap().expect_status(200);
    }

    let request = stack.upstream.last();
    assert_eq!(request.authority, "api.stripe.com");
    assert_eq!(request.target, "/v1/charges?limit=1");
    assert_eq!(
        request.field("authorization"),
        format!("Bearer {}", access.secret.text())
    );
    assert!(
        !String::from_utf8_lossy(&request.head).contains(&token),
        "the lease went upstream"
    );
    stack.finish().await;
}

#[tokio::test]
async fn the_gateway_takes_one_lease_and_not_two() {
    let stack = Stack::start().await;
    let access = stack.stripe().await;
    let token = stack.workflow_lease(&access).await;
    for other in [&*token, "sk_live_of_the_agent"] {
        let mut wire = stack.proxy_wire().await;
        let request = format!(
            "GET /gateway/stripe/v1/charges HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {token}\r\n\
             Authorization: Bearer {other}\r\n\r\n",
            stack.proxy_addr
        );
        wire.send(request).await.unwrap();
        let reply = wire.reply("GET").await.unwrap();
        reply.expect_refusal(401, "lease_invalid");
    }
    assert_eq!(stack.upstream.count(), 0);
    stack.finish().await;
}

#[tokio::test]
async fn the_gateway_knows_each_providers_slot() {
    let stack = Stack::start().await;
    let secret = stack.secret("sk-ant-");
    let entries = serde_json::json!({ "ANTHROPIC_API_KEY": secret.text() });
    let access = stack
        .access("anthropic", &entries, &secret, &serde_json::json!({}))
        .await;
    let token = stack.workflow_lease(&access).await;
    let mut wire = stack.proxy_wire().await;

    let request = format!(
        "POST /gateway/anthropic/v1/messages HTTP/1.1\r\nHost: {}\r\nx-api-key: {token}\r\nContent-Length: 2\r\n\r\n{{}}",
        stack.proxy_addr
    );
    wire.send(request).await.unwrap();
    wire.reply("POST").await.unwrap().expect_status(200);

    assert_eq!(stack.upstream.last().field("x-api-key"), secret.text());
    stack.finish().await;
}

#[tokio::test]
async fn a_gateway_to_no_provider_is_refused() {
    let stack = Stack::start().await;
    let access = stack.stripe().await;
    let token = stack.workflow_lease(&access).await;
    let mut wire = stack.proxy_wire().await;

    let request = format!(
        "GET /gateway/nowhere/v1/balance HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {token}\r\n\r\n",
        stack.proxy_addr
    );
    wire.send(request).await.unwrap();
    let reply = wire.reply("GET").await.unwrap();

    assert!(matches!(reply.status, 401 | 403 | 404), "{}", reply.text());
    assert_eq!(stack.upstream.count(), 0);
    stack.finish().await;
}

#[tokio::test]
async fn many_http2_streams_of_one_tunnel_pass_at_once() {
    let stack = Stack::builder()
        .upstream_alpn(&[b"h2", b"http/1.1"])
        .start()
        .await;
    let access = stack.stripe().await;
    let token = stack.workflow_lease(&access).await;
    let mut requests = Vec::new();
    for _ in 0..4 {
        let mut h2 = stack.tunnel_h2("api.stripe.com", &token).await;
        requests.push(tokio::spawn(async move {
            for _ in 0..10 {
                h2.request("GET", "https://api.stripe.com/v1/balance", &[], b"")
                    .await
                    .unwrap()
                    .expect_status(200);
            }
        }));
    }
    for request in requests {
        request.await.unwrap();
    }
    assert_eq!(stack.upstream.count(), 40);
    stack.finish().await;
}

#[tokio::test]
async fn a_switch_that_nobody_asked_for_is_502_and_its_connection_is_not_used_again() {
    let stack = Stack::start().await;
    let access = stack.stripe().await;
    let token = stack.workflow_lease(&access).await;

    stack
        .get("api.stripe.com", "/unasked-switch", &token)
        .await
        .expect_refusal(502, "upstream_protocol");
    stack
        .get("api.stripe.com", "/v1/balance", &token)
        .await
        .expect_status(200);
    stack.finish().await;
}

#[tokio::test]
async fn what_a_provider_says_of_its_connection_stays_with_it() {
    let stack = Stack::start().await;
    let access = stack.stripe().await;
    let token = stack.workflow_lease(&access).await;

    let reply = stack
        .get("api.stripe.com", "/hop-by-hop", &token)
        .await
        .expect_status(200);

    for gone in ["x-nominated", "upgrade", "te", "trailer", "keep-alive"] {
        assert_eq!(reply.field(gone), None, "{gone}");
    }
    assert_eq!(reply.field("x-kept"), Some("1"));
    stack.finish().await;
}
