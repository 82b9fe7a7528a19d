//! When the provider fails: each way has its own code, nothing is said of what was inside, and nothing is sent twice.

use crate::support::{Stack, Upstream, wait};

#[tokio::test]
async fn an_upstream_that_nobody_answers_at_is_502_upstream_connect() {
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let stack = Stack::builder()
        .resolve("api.stripe.com", closed)
        .start()
        .await;
    let access = stack.stripe().await;
    let token = stack.workflow_lease(&access).await;

    let reply = stack
        .get("api.stripe.com", "/v1/balance", &token)
        .await
        .expect_refusal(502, "upstream_connect");

    assert!(
        !reply.text().contains("127.0.0.1"),
        "the address is the operator's: {}",
        reply.text()
    );
    stack.finish().await;
}

#[tokio::test]
async fn an_upstream_whose_certificate_does_not_verify_is_502_upstream_tls() {
    let impostor = Upstream::start(&["api.stripe.com"]).await;
    let stack = Stack::builder()
        .resolve("api.stripe.com", impostor.addr)
        .start()
        .await;
    let access = stack.stripe().await;
    let token = stack.workflow_lease(&access).await;

    stack
        .get("api.stripe.com", "/v1/balance", &token)
        .await
        .expect_refusal(502, "upstream_tls");

    assert_eq!(impostor.count(), 0, "nothing was sent to the impostor");
    stack.finish().await;
}

#[tokio::test]
async fn an_upstream_with_a_certificate_for_another_name_is_502_upstream_tls() {
    let stack = Stack::builder()
        .certificate_without("api.stripe.com")
        .start()
        .await;
    let access = stack.stripe().await;
    let token = stack.workflow_lease(&access).await;

    stack
        .get("api.stripe.com", "/v1/balance", &token)
        .await
        .expect_refusal(502, "upstream_tls");

    assert_eq!(stack.upstream.count(), 0);
    stack.finish().await;
}

#[tokio::test]
async fn an_upstream_that_does_not_speak_http_is_502_upstream_protocol() {
    let stack = Stack::start().await;
    let access = stack.stripe().await;
    let token = stack.workflow_lease(&access).await;

    for path in ["/garbage", "/close-before"] {
        let reply = stack
            .get("api.stripe.com", path, &token)
            .await
            .expect_refusal(502, "upstream_protocol");
        assert!(!reply.text().contains("ESMTP"), "{}", reply.text());
    }
    stack.finish().await;
}

#[tokio::test]
async fn a_post_whose_connection_breaks_is_not_sent_again() {
    let stack = Stack::start().await;
    let access = stack.stripe().await;
    let token = stack.workflow_lease(&access).await;
    let mut tunnel = stack.tunnel("api.stripe.com", &token).await;
    // The connection to the upstream is in the pool, and breaks when it is used again.
    tunnel.get("/v1/balance").await.expect_status(200);

    tunnel
        .request("POST", "/close-before", &[], b"amount=1")
        .await
        .unwrap()
        .expect_refusal(502, "upstream_protocol");

    assert_eq!(stack.upstream.count(), 2);
    stack.finish().await;
}

#[tokio::test]
async fn a_body_that_breaks_off_breaks_off_for_the_agent_too() {
    let stack = Stack::start().await;
    let access = stack.stripe().await;
    let token = stack.workflow_lease(&access).await;
    let mut tunnel = stack.tunnel("api.stripe.com", &token).await;

    let broken = tunnel.request("GET", "/close-midway", &[], b"").await;

    assert!(broken.is_err(), "{broken:?}");
    stack.finish().await;
}

#[tokio::test]
async fn extra_bytes_of_one_response_are_not_the_next_response() {
    let stack = Stack::start().await;
    let access = stack.stripe().await;
    let token = stack.workflow_lease(&access).await;
    let mut tunnel = stack.tunnel("api.stripe.com", &token).await;

    let first = tunnel.get("/two-responses").await.expect_status(200);
    assert_eq!(first.text(), "first");
    let second = stack
        .get("api.stripe.com", "/v1/balance", &token)
        .await
        .expect_status(200);

    assert_eq!(second.json()["path"], "/v1/balance");
    stack.finish().await;
}

#[tokio::test]
async fn an_agent_that_leaves_ends_its_request_at_the_upstream() {
    let stack = Stack::start().await;
    let access = stack.stripe().await;
    let token = stack.workflow_lease(&access).await;
    let mut tunnel = stack.tunnel("api.stripe.com", &token).await;
    tunnel.send("GET", "/hang", &[], b"").await.unwrap();
    stack.upstream.reached(1).await;

    drop(tunnel);

    wait::until("the upstream connection to close", async || {
        (stack.upstream.open_connections() == 0).then_some(())
    })
    .await;
    stack.finish().await;
}

#[tokio::test]
async fn a_redirect_is_the_agents_to_follow() {
    let stack = Stack::start().await;
    let access = stack.stripe().await;
    let token = stack.workflow_lease(&access).await;

    let reply = stack
        .get("api.stripe.com", "/redirect/evil.example/steal", &token)
        .await
        .expect_status(302);

    assert_eq!(reply.field("location"), Some("https://evil.example/steal"));
    assert_eq!(stack.upstream.count(), 1);
    stack.finish().await;
}

#[tokio::test]
async fn an_upstream_that_never_answers_the_handshake_is_504_upstream_timeout() {
    // The kernel takes the connection; nobody ever reads from it.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stack = Stack::builder()
        .resolve("api.stripe.com", silent.local_addr().unwrap())
        .start()
        .await;
    let access = stack.stripe().await;
    let token = stack.workflow_lease(&access).await;

    stack
        .get("api.stripe.com", "/v1/balance", &token)
        .await
        .expect_refusal(504, "upstream_timeout");

    stack.finish().await;
}

#[tokio::test]
async fn without_its_key_the_vault_opens_nothing_and_goes_on_once_the_key_is_back() {
    let stack = Stack::builder()
        .variable("CLAVIGER_CACHE_TTL", "0s")
        .start()
        .await;
    let access = stack.stripe().await;
    let token = stack.workflow_lease(&access).await;
    let mut tunnel = stack.tunnel("api.stripe.com", &token).await;
    tunnel.get("/v1/balance").await.expect_status(200);
    let (keys, aside) = (stack.data.join("keys"), stack.data.join("keys-aside"));

    std::fs::rename(&keys, &aside).unwrap();
    tunnel
        .get("/v1/balance")
        .await
        .expect_refusal(503, "key_unavailable");
    assert_eq!(stack.upstream.count(), 1);
    std::fs::rename(&aside, &keys).unwrap();

    wait::until("the key to be found again", async || {
        let reply = stack.get("api.stripe.com", "/v1/balance", &token).await;
        (reply.status == 200).then_some(())
    })
    .await;
    stack.finish().await;
}
