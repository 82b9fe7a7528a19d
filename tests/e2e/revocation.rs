//! A revocation holds from the moment it commits, in tunnels that are open already.

use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::json;
use tokio::sync::mpsc;

use crate::support::tunnel::Tunnel;
use crate::support::wire::Framing;
use crate::support::{Access, Stack};

/// One second by design, and room for a busy machine.
const CUT_WITHIN: Duration = Duration::from_secs(5);

/// A stack with a tunnel in which one request has passed.
async fn in_use() -> (Stack, Access, String, Tunnel) {
    let stack = Stack::start().await;
    let access = stack.stripe().await;
    let (token, lease) = stack.workflow_lease_with_id(&access).await;
    let mut tunnel = stack.tunnel("api.stripe.com", &token).await;
    tunnel.get("/v1/balance").await.expect_status(200);
    (stack, access, lease, tunnel)
}

/// The next request in the tunnel is refused with this code, and the upstream sees no more than the first.
async fn expect_refused(stack: Stack, mut tunnel: Tunnel, code: &str, detail: &str) {
    let reply = tunnel.get("/v1/balance").await.expect_refusal(403, code);
    let text = reply.json()["detail"].as_str().unwrap().to_lowercase();
    assert!(text.contains(detail), "{text}");
    assert_eq!(stack.upstream.count(), 1);
    stack.finish().await;
}

#[tokio::test]
async fn a_revoked_lease_ends_in_its_open_tunnel() {
    let (stack, _, lease, tunnel) = in_use().await;
    stack
        .admin()
        .delete(&format!("/v1/vault/leases/{lease}"))
        .await
        .expect_status(204);
    expect_refused(stack, tunnel, "lease_revoked", "revoked").await;
}

#[tokio::test]
async fn a_revoked_grant_ends_in_open_tunnels() {
    let (stack, access, _, tunnel) = in_use().await;
    stack
        .admin()
        .delete(&format!("/v1/vault/grants/{}", access.grant))
        .await
        .expect_status(204);
    expect_refused(stack, tunnel, "grant_denied", "grant").await;
}

#[tokio::test]
async fn an_agent_switched_off_ends_in_open_tunnels_and_goes_on_when_switched_on() {
    let (stack, access, _, mut tunnel) = in_use().await;
    let path = format!("/v1/agents/{}", access.agent);
    stack
        .admin()
        .patch(&path, &json!({ "is_active": false }))
        .await
        .expect_status(200);
    let reply = tunnel
        .get("/v1/balance")
        .await
        .expect_refusal(403, "grant_denied");
    assert!(reply.text().contains("agent"), "{}", reply.text());

    stack
        .admin()
        .patch(&path, &json!({ "is_active": true }))
        .await
        .expect_status(200);
    tunnel.get("/v1/balance").await.expect_status(200);

    assert_eq!(stack.upstream.count(), 2);
    stack.finish().await;
}

#[tokio::test]
async fn a_deleted_agent_ends_in_open_tunnels() {
    let (stack, access, _, tunnel) = in_use().await;
    stack
        .admin()
        .delete(&format!("/v1/agents/{}", access.agent))
        .await
        .expect_status(204);
    expect_refused(stack, tunnel, "grant_denied", "agent").await;
}

#[tokio::test]
async fn a_deleted_set_ends_in_open_tunnels() {
    let (stack, access, _, tunnel) = in_use().await;
    stack
        .admin()
        .delete(&format!("/v1/vault/secret-sets/{}", access.set))
        .await
        .expect_status(204);
    expect_refused(stack, tunnel, "grant_denied", "").await;
}

#[tokio::test]
async fn a_new_version_of_the_secret_is_sent_from_the_next_request_on() {
    let (stack, access, _, mut tunnel) = in_use().await;
    let old = access.secret.text();
    assert_eq!(
        stack.upstream.last().field("authorization"),
        format!("Bearer {old}")
    );
    let new = stack.secret("sk_live_");
    let set = format!("/v1/vault/secret-sets/{}", access.set);
    stack
        .admin()
        .put(
            &set,
            &json!({ "entries": { "STRIPE_SECRET_KEY": new.text() } }),
        )
        .await
        .expect_status(200);

    tunnel.get("/v1/balance").await.expect_status(200);
    assert_eq!(
        stack.upstream.last().field("authorization"),
        format!("Bearer {}", new.text())
    );
    stack
        .admin()
        .post(&format!("{set}/rollback"), &json!({ "version": 1 }))
        .await
        .expect_status(200);
    tunnel.get("/v1/balance").await.expect_status(200);
    assert_eq!(
        stack.upstream.last().field("authorization"),
        format!("Bearer {old}")
    );

    let events = stack.events().await;
    let versions: Vec<_> = events
        .iter()
        .filter(|event| event["action"] == "lease.use")
        .map(|event| event["secret_version"].clone())
        .collect();
    assert_eq!(versions, [json!(1), json!(2), json!(3)]);
    stack.finish().await;
}

/// Opens a stream in the tunnel and reads its first event.
async fn streaming(stack: &Stack, tunnel: &mut Tunnel) -> (mpsc::Sender<Bytes>, Framing) {
    let events = stack.upstream.stream("events");
    tunnel
        .send("GET", "/stream/events", &[], b"")
        .await
        .unwrap();
    let (head, mut framing) = tunnel.wire.open("GET").await.unwrap();
    assert_eq!(head.status, 200);
    events.send("data: 1\n\n".into()).await.unwrap();
    assert_eq!(
        tunnel.wire.piece(&mut framing).await.unwrap().unwrap(),
        "data: 1\n\n"
    );
    (events, framing)
}

/// Waits for the stream to break off, which the upstream alone would never do.
async fn expect_cut(tunnel: &mut Tunnel, framing: &mut Framing) {
    let cut = loop {
        match tunnel.wire.piece(framing).await {
            Ok(Some(_)) => {}
            other => break other,
        }
    };
    assert!(cut.is_err(), "a cut stream does not look complete: {cut:?}");
}

#[tokio::test]
async fn a_live_stream_is_cut_soon_after_its_lease_is_revoked() {
    let (stack, _, lease, mut tunnel) = in_use().await;
    let (events, mut framing) = streaming(&stack, &mut tunnel).await;

    stack
        .admin()
        .delete(&format!("/v1/vault/leases/{lease}"))
        .await
        .expect_status(204);
    let revoked = Instant::now();
    expect_cut(&mut tunnel, &mut framing).await;

    assert!(revoked.elapsed() < CUT_WITHIN, "{:?}", revoked.elapsed());
    drop(events);
    stack.finish().await;
}

#[tokio::test]
async fn a_live_stream_is_cut_soon_after_its_secret_set_is_deleted() {
    let (stack, access, _, mut tunnel) = in_use().await;
    let (events, mut framing) = streaming(&stack, &mut tunnel).await;

    stack
        .admin()
        .delete(&format!("/v1/vault/secret-sets/{}", access.set))
        .await
        .expect_status(204);
    let deleted = Instant::now();
    expect_cut(&mut tunnel, &mut framing).await;

    assert!(deleted.elapsed() < CUT_WITHIN, "{:?}", deleted.elapsed());
    drop(events);
    stack.finish().await;
}

#[tokio::test]
async fn a_live_stream_is_cut_soon_after_its_lease_expires() {
    let stack = Stack::start().await;
    let access = stack.stripe().await;
    let body = json!({
        "secret_set_id": access.set, "agent_id": access.agent, "kind": "workflow", "ttl_seconds": 3,
    });
    let token = stack.mint(&body).await;
    let minted = Instant::now();
    let mut tunnel = stack.tunnel("api.stripe.com", &token).await;
    let (events, mut framing) = streaming(&stack, &mut tunnel).await;

    expect_cut(&mut tunnel, &mut framing).await;

    assert!(
        minted.elapsed() < Duration::from_secs(3) + CUT_WITHIN,
        "{:?}",
        minted.elapsed()
    );
    drop(events);
    stack.finish().await;
}

#[tokio::test]
async fn a_new_key_of_an_agent_ends_what_the_old_one_got() {
    let stack = Stack::start().await;
    let access = stack.stripe().await;
    let token = stack.workflow_lease(&access).await;
    let mut tunnel = stack.tunnel("api.stripe.com", &token).await;
    tunnel.get("/v1/balance").await.expect_status(200);

    let rotate = format!("/v1/agents/{}/rotate-key", access.agent);
    let rotated = stack.admin().post(&rotate, &json!({})).await;
    let rotated = rotated.expect_status(200).json();
    let key = rotated["api_key"].as_str().unwrap();
    stack.watch_token(key);
    let reply = tunnel.get("/v1/balance").await;
    reply.expect_refusal(403, "lease_revoked");
    let reply = stack.attempt("api.stripe.com", "/v1/balance", &token).await;
    reply.expect_refusal(407, "lease_revoked");
    let lease = json!({ "secret_set_id": access.set });
    let old = stack.api(&access.agent_key);
    let refused = old.post("/v1/vault/leases", &lease).await;
    refused.expect_problem(401, "unauthenticated");

    let minted = stack.api(key).post("/v1/vault/leases", &lease).await;
    let minted = minted.expect_status(201).json();
    let token = minted["token"].as_str().unwrap();
    stack.watch_token(token);
    let reply = stack.get("api.stripe.com", "/v1/balance", token).await;
    reply.expect_status(200);
    assert_eq!(stack.upstream.count(), 2);
    stack.finish().await;
}
