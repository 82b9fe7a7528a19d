//! `kill -9` under load: what reached the upstream is in the ledger, the chain holds, and used leases stay used.

use crate::support::{Stack, wait};

const CLIENTS: usize = 8;
/// Enough requests for the kill to fall into the middle of a batch.
const BEFORE_THE_KILL: usize = 60;

/// Sends requests in one tunnel until the connection breaks.
async fn until_it_breaks(stack: &Stack, token: &str) -> tokio::task::JoinHandle<usize> {
    let mut tunnel = stack.tunnel("api.stripe.com", token).await;
    tokio::spawn(async move {
        let mut answered = 0;
        while let Ok(reply) = tunnel
            .request("POST", "/v1/charges", &[], b"amount=1")
            .await
        {
            if reply.status != 200 {
                break;
            }
            answered += 1;
        }
        answered
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_kill_9_under_load_every_request_at_the_upstream_has_its_record() {
    let mut stack = Stack::start().await;
    let access = stack.stripe().await;
    let token = stack.workflow_lease(&access).await;
    let single = stack.request_lease(&access).await;
    stack
        .get("api.stripe.com", "/v1/balance", &single)
        .await
        .expect_status(200);

    for round in 1..=3 {
        let mut clients = Vec::new();
        for _ in 0..CLIENTS {
            clients.push(until_it_breaks(&stack, &token).await);
        }
        stack.upstream.reached(1 + round * BEFORE_THE_KILL).await;
        stack.kill().await;
        let mut answered = 0;
        for client in clients {
            answered += client.await.unwrap();
        }
        assert!(answered > 0);
        stack.start_again().await;

        let uses = stack
            .events()
            .await
            .iter()
            .filter(|event| event["action"] == "lease.use")
            .count();
        let reached = stack.credentialed().len();
        assert!(
            reached <= uses,
            "round {round}: {reached} requests at the upstream, {uses} uses in the ledger"
        );
        let verified = stack
            .admin()
            .get("/v1/audit/verify")
            .await
            .expect_status(200)
            .json();
        assert!(verified["first_bad"].is_null(), "{verified}");
    }

    stack
        .get("api.stripe.com", "/v1/balance", &single)
        .await
        .expect_refusal(403, "lease_consumed");
    stack
        .get("api.stripe.com", "/v1/balance", &token)
        .await
        .expect_status(200);
    stack.finish_after_crash().await;
}

#[tokio::test]
async fn sets_grants_and_leases_survive_a_restart() {
    let mut stack = Stack::start().await;
    let access = stack.stripe().await;
    let token = stack.workflow_lease(&access).await;
    let (revoked, lease) = stack.workflow_lease_with_id(&access).await;
    stack
        .admin()
        .delete(&format!("/v1/vault/leases/{lease}"))
        .await
        .expect_status(204);

    stack.stop().await;
    stack.start_again().await;

    let reply = stack.get("api.stripe.com", "/v1/balance", &token).await;
    reply.expect_status(200);
    let (reply, _) = stack
        .connect(
            "api.stripe.com:443",
            &crate::support::tunnel::basic(&revoked),
        )
        .await;
    reply.expect_refusal(407, "lease_revoked");
    stack.finish().await;
}

#[tokio::test]
async fn a_stopping_server_lets_requests_end() {
    let mut stack = Stack::start().await;
    let access = stack.stripe().await;
    let token = stack.workflow_lease(&access).await;
    let body = stack.upstream.stream("slow");
    let mut tunnel = stack.tunnel("api.stripe.com", &token).await;
    tunnel.send("GET", "/stream/slow", &[], b"").await.unwrap();
    body.send("first ".into()).await.unwrap();
    let (head, mut framing) = tunnel.wire.open("GET").await.unwrap();
    assert_eq!(head.status, 200);
    let mut text = tunnel
        .wire
        .piece(&mut framing)
        .await
        .unwrap()
        .unwrap()
        .to_vec();

    let process = stack.node.process.take().unwrap();
    let stopping = tokio::spawn(process.stop());
    let proxy = stack.proxy_addr;
    wait::until("the server to accept no more", async || {
        tokio::net::TcpStream::connect(proxy)
            .await
            .is_err()
            .then_some(())
    })
    .await;
    body.send("second".into()).await.unwrap();
    drop(body);
    while let Some(piece) = tunnel.wire.piece(&mut framing).await.unwrap() {
        text.extend_from_slice(&piece);
    }

    assert_eq!(String::from_utf8_lossy(&text), "first second");
    drop(tunnel);
    stopping.await.unwrap();
    stack.start_again().await;
    stack.finish().await;
}
