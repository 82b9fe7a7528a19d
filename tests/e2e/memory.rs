//! Bodies stream: the process does not grow with their size, and their bytes arrive unchanged.

use std::fmt::Write as _;

use crate::support::{Stack, wait};

const SIZE: u64 = 256 << 20;
const GROWTH_MAX: u64 = 64 << 20;
/// The process's size is read once per so many bytes.
const SAMPLE: u64 = 1 << 20;
const BLOCK: usize = 256 << 10;

/// Bytes of `/bytes/N`, which follow from their places within each 64 KiB.
fn is_expected(place: u64, byte: u8) -> bool {
    u64::from(byte) == (place % (64 << 10)) % 251
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_download_streams_through_without_growth() {
    let stack = Stack::builder().log("info").start().await;
    let access = stack.stripe().await;
    let token = stack.workflow_lease(&access).await;
    let mut tunnel = stack.unrecorded_tunnel("api.stripe.com", &token).await;
    tunnel.get("/bytes/1000000").await.expect_status(200);
    let before = stack.process().resident();

    tunnel
        .send("GET", &format!("/bytes/{SIZE}"), &[], b"")
        .await
        .unwrap();
    let (head, mut framing) = tunnel.wire.open("GET").await.unwrap();
    assert_eq!(
        head.field("content-length"),
        Some(SIZE.to_string().as_str())
    );
    let (mut received, mut peak) = (0, before);
    while let Some(piece) = tunnel.wire.piece(&mut framing).await.unwrap() {
        assert!(is_expected(received, piece[0]), "at {received}");
        let before_piece = received;
        received += piece.len() as u64;
        if before_piece / SAMPLE != received / SAMPLE {
            peak = peak.max(stack.process().resident());
        }
    }

    assert_eq!(received, SIZE);
    assert!(
        peak - before < GROWTH_MAX,
        "grew by {} MiB",
        (peak - before) >> 20
    );
    stack.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_upload_streams_through_without_growth() {
    let stack = Stack::builder().log("info").start().await;
    let access = stack.stripe().await;
    let token = stack.workflow_lease(&access).await;
    let mut tunnel = stack.tunnel("api.stripe.com", &token).await;
    tunnel
        .request("POST", "/upload", &[], &vec![1; 1_000_000])
        .await
        .unwrap()
        .expect_status(200);
    let before = stack.process().resident();

    for chunked in [false, true] {
        let length = if chunked {
            "Transfer-Encoding: chunked".to_owned()
        } else {
            format!("Content-Length: {SIZE}")
        };
        let head = format!("POST /upload HTTP/1.1\r\nHost: api.stripe.com\r\n{length}\r\n\r\n");
        tunnel.wire.send(head).await.unwrap();
        let mut block = vec![7; BLOCK];
        if chunked {
            let mut size = String::new();
            write!(size, "{BLOCK:x}\r\n").unwrap();
            block = [size.as_bytes(), &block, b"\r\n"].concat();
        }
        let mut peak = before;
        for _ in 0..SIZE / BLOCK as u64 {
            tunnel.wire.send(&block).await.unwrap();
            peak = peak.max(stack.process().resident());
        }
        if chunked {
            tunnel.wire.send("0\r\n\r\n").await.unwrap();
        }
        let reply = tunnel.wire.reply("POST").await.unwrap().expect_status(200);
        assert_eq!(reply.json()["received"], SIZE);
        assert!(
            peak - before < GROWTH_MAX,
            "grew by {} MiB",
            (peak - before) >> 20
        );
    }
    stack.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_makes_the_upstream_wait_and_not_the_memory_grow() {
    let stack = Stack::builder().log("info").start().await;
    let access = stack.stripe().await;
    let token = stack.workflow_lease(&access).await;
    let mut tunnel = stack.unrecorded_tunnel("api.stripe.com", &token).await;
    tunnel.get("/bytes/1000000").await.expect_status(200);
    let before = stack.process().resident();
    let body = stack.upstream.stream("fast");

    tunnel.send("GET", "/stream/fast", &[], b"").await.unwrap();
    let (_, mut framing) = tunnel.wire.open("GET").await.unwrap();
    let block = bytes::Bytes::from(vec![7; 1 << 20]);
    // Nobody reads: sooner or later the upstream cannot go on sending, long before this many MiB.
    let mut sent = 0;
    while let Ok(result) =
        tokio::time::timeout(wait::patience() / 10, body.send(block.clone())).await
    {
        result.unwrap();
        sent += 1;
        assert!(sent < 200, "200 MiB went somewhere");
    }
    let grown = stack.process().resident().saturating_sub(before);
    assert!(grown < GROWTH_MAX, "grew by {} MiB", grown >> 20);

    drop(body);
    while tunnel.wire.piece(&mut framing).await.unwrap().is_some() {}
    stack.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_tunnel_costs_at_most_64_kib() {
    const TUNNELS: usize = 400;
    let stack = Stack::builder().log("info").start().await;
    let access = stack.stripe().await;
    let token = stack.workflow_lease(&access).await;
    let mut idle = Vec::new();
    for _ in 0..20 {
        let mut tunnel = stack.tunnel("api.stripe.com", &token).await;
        tunnel.get("/v1/balance").await.expect_status(200);
        idle.push(tunnel);
    }
    let before = stack.process().resident();

    for _ in 0..TUNNELS {
        let mut tunnel = stack.tunnel("api.stripe.com", &token).await;
        tunnel.get("/v1/balance").await.expect_status(200);
        idle.push(tunnel);
    }

    let each = stack.process().resident().saturating_sub(before) / TUNNELS as u64;
    assert!(each <= 64 << 10, "an idle tunnel costs {each} bytes");
    drop(idle);
    stack.finish().await;
}
