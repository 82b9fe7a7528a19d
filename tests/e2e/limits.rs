//! Whoever keeps a connection open without using it is ended by a deadline, and others are served meanwhile; what one agent or
//! org may have at once is bounded, and what all may.

use std::time::{Duration, Instant};

use crate::support::tunnel::basic;
use crate::support::{Stack, Wire, wait};

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

#[tokio::test]
async fn an_agent_has_so_many_tunnels_and_no_more() {
    let stack = Stack::builder()
        .variable("CLAVIGER_LIMITS_TUNNELS_PER_AGENT", "2")
        .start()
        .await;
    let access = stack.stripe().await;
    let token = stack.workflow_lease(&access).await;
    let first = stack.tunnel("api.stripe.com", &token).await;
    let mut second = stack.tunnel("api.stripe.com", &token).await;

    let (refusal, _) = stack.connect("api.stripe.com:443", &basic(&token)).await;
    let refusal = refusal.expect_refusal(429, "rate_limited");
    assert_eq!(refusal.field("retry-after"), Some("1"));
    let detail = refusal.json()["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains("limits.tunnels_per_agent"), "{detail}");

    second.get("/v1/balance").await.expect_status(200);
    let other = stack
        .workflow_lease(&stack.stripe_of("another").await)
        .await;
    stack
        .get("api.stripe.com", "/v1/balance", &other)
        .await
        .expect_status(200);
    drop(first);
    wait::until("room for another", async || {
        let (reply, _) = stack.connect("api.stripe.com:443", &basic(&token)).await;
        (reply.status == 200).then_some(())
    })
    .await;
    drop(second);
    stack.finish().await;
}

#[tokio::test]
async fn requests_at_once_are_bounded_for_an_agent_and_for_its_org() {
    for (variable, key) in [
        (
            "CLAVIGER_LIMITS_REQUESTS_PER_AGENT",
            "limits.requests_per_agent",
        ),
        (
            "CLAVIGER_LIMITS_REQUESTS_PER_ORG",
            "limits.requests_per_org",
        ),
    ] {
        let stack = Stack::builder().variable(variable, "1").start().await;
        let access = stack.stripe().await;
        let token = stack.workflow_lease(&access).await;
        let events = stack.upstream.stream("events");
        let mut busy = stack.tunnel("api.stripe.com", &token).await;
        busy.send("GET", "/stream/events", &[], b"").await.unwrap();
        let (_, mut framing) = busy.wire.open("GET").await.unwrap();

        let mut tunnel = stack.tunnel("api.stripe.com", &token).await;
        let refusal = tunnel
            .get("/v1/balance")
            .await
            .expect_refusal(429, "rate_limited");
        assert_eq!(refusal.field("retry-after"), Some("1"));
        let detail = refusal.json()["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains(key), "{detail}");

        drop(events);
        assert_eq!(busy.wire.piece(&mut framing).await.unwrap(), None);
        wait::until("room for another", async || {
            (tunnel.get("/v1/balance").await.status == 200).then_some(())
        })
        .await;
        assert_eq!(stack.upstream.count(), 2);
        stack.finish().await;
    }
}

#[tokio::test]
async fn beyond_what_the_process_takes_on_it_is_overloaded() {
    let stack = Stack::builder()
        .variable("CLAVIGER_LIMITS_REQUESTS", "1")
        .variable("CLAVIGER_LIMITS_CONNECTIONS", "2")
        .start()
        .await;
    let access = stack.stripe().await;
    let token = stack.workflow_lease(&access).await;
    let events = stack.upstream.stream("events");
    let mut busy = stack.tunnel("api.stripe.com", &token).await;
    busy.send("GET", "/stream/events", &[], b"").await.unwrap();
    busy.wire.open("GET").await.unwrap();
    let mut tunnel = stack.tunnel("api.stripe.com", &token).await;

    let refusal = tunnel
        .get("/v1/balance")
        .await
        .expect_refusal(503, "overloaded");
    assert_eq!(refusal.field("retry-after"), Some("1"));
    let (shed, _) = stack.connect("api.stripe.com:443", &basic(&token)).await;
    let shed = shed.expect_refusal(503, "overloaded");
    assert_eq!(shed.field("retry-after"), Some("1"));
    let status = shed.field("proxy-status").unwrap();
    assert!(status.contains("overloaded"), "{status}");

    drop((busy, tunnel, events));
    wait::until("room for another", async || {
        let (reply, _) = stack.connect("api.stripe.com:443", &basic(&token)).await;
        (reply.status == 200).then_some(())
    })
    .await;
    assert_eq!(stack.upstream.count(), 1);
    stack.finish().await;
}

#[tokio::test]
async fn an_agent_is_held_to_its_bytes_a_second() {
    const RATE: u32 = 400_000;
    let stack = Stack::builder()
        .variable(
            "CLAVIGER_LIMITS_BYTES_PER_SECOND_PER_AGENT",
            RATE.to_string(),
        )
        .start()
        .await;
    let access = stack.stripe().await;
    let token = stack.workflow_lease(&access).await;
    let started = Instant::now();
    let mut h2 = stack.tunnel_h2("api.stripe.com", &token).await;
    let mut tunnel = stack.tunnel("api.stripe.com", &token).await;

    // Over both tunnels, in both protocols and both ways: three seconds' worth, of which one is the burst.
    let up = vec![b'a'; RATE as usize];
    let path = format!("/bytes/{RATE}");
    tunnel.get(&path).await.expect_status(200);
    tunnel
        .request("POST", "/upload", &[], &up)
        .await
        .unwrap()
        .expect_status(200);
    h2.request("GET", &format!("https://api.stripe.com{path}"), &[], b"")
        .await
        .unwrap()
        .expect_status(200);

    let took = started.elapsed();
    assert!(took > Duration::from_millis(1_900), "{took:?}");
    assert!(took < Duration::from_secs(20), "{took:?}");
    drop((tunnel, h2));
    stack.finish().await;
}
