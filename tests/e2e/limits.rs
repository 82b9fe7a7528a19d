//! Whoever keeps a connection open without using it is ended by a deadline, and others are served meanwhile.

use std::time::{Duration, Instant};

use crate::support::tunnel::basic;
use crate::support::{Stack, Wire};

/// The deadline for a request's head and for the TLS hello, with room for a busy machine.
const HEAD_DEADLINE: Duration = Duration::from_secs(16);

/// Sends the start of something and waits for the other side to have enough of waiting for the rest.
async fn linger(mut wire: Wire, start: &str) -> Duration {
    let started = Instant::now();
    wire.send(start).await.unwrap();
    wire.rest().await;
    started.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heads_and_hellos_that_never_end_are_ended() {
    let stack = Stack::start().await;
    let access = stack.stripe().await;
    let token = stack.workflow_lease(&access).await;

    let at_the_door = stack.proxy_wire().await;
    let (reply, before_hello) = stack.connect("api.stripe.com:443", &basic(&token)).await;
    reply.expect_status(200);
    let first_inside = stack.tunnel("api.stripe.com", &token).await.wire;
    let mut used = stack.tunnel("api.stripe.com", &token).await;
    used.get("/v1/balance").await.expect_status(200);

    let slow = [
        tokio::spawn(linger(at_the_door, "CONNECT api.stripe.com:443 HT")),
        tokio::spawn(linger(before_hello, "\x16\x03\x01\x02\x00")),
        tokio::spawn(linger(
            first_inside,
            "GET /v1/balance HTTP/1.1\r\nHost: api.str",
        )),
        tokio::spawn(linger(
            used.wire,
            "GET /v1/balance HTTP/1.1\r\nHost: api.str",
        )),
    ];
    stack
        .get("api.stripe.com", "/v1/balance", &token)
        .await
        .expect_status(200);
    for (place, ended) in slow.into_iter().enumerate() {
        let after = ended.await.unwrap();
        assert!(after < HEAD_DEADLINE, "{place}: {after:?}");
    }

    assert_eq!(stack.upstream.count(), 2);
    stack.finish().await;
}
