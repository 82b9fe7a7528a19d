//! WebSocket: the handshake is injected, frames pass both ways at once, and what they reflect is masked.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::tunnel::Tunnel;
use crate::support::{Stack, soak, wait};

use super::sdk::{environment, script};

/// One second by design, and room for a busy machine.
const CUT_WITHIN: Duration = Duration::from_secs(5);

/// A frame of a client, with a mask that changes nothing.
fn frame(opcode: u8, payload: &str) -> Vec<u8> {
    let length = u8::try_from(payload.len()).unwrap();
    assert!(length < 126);
    [
        &[0x80 | opcode, 0x80 | length, 0, 0, 0, 0][..],
        payload.as_bytes(),
    ]
    .concat()
}

/// The same as its server sends it.
fn echoed(opcode: u8, payload: &str) -> Vec<u8> {
    let length = u8::try_from(payload.len()).unwrap();
    [&[0x80 | opcode, length][..], payload.as_bytes()].concat()
}

async fn shake_hands(tunnel: &mut Tunnel) -> Vec<(String, String)> {
    let fields = [
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Extensions: permessage-deflate",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    ];
    tunnel
        .send("GET", "/websocket/chat", &fields, b"")
        .await
        .unwrap();
    let (head, _) = tunnel.wire.open("GET").await.unwrap();
    assert_eq!(head.status, 101);
    head.fields
}

#[tokio::test]
async fn half_a_handshake_is_400_and_does_not_go_on() {
    const WHOLE: [&str; 4] = [
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    ];
    let stack = Stack::start().await;
    let access = stack.stripe().await;
    let token = stack.workflow_lease(&access).await;
    for (place, field) in [
        (1, "Connection: keep-alive"),
        (2, "Sec-WebSocket-Version: 12"),
        (3, "X-No-Key: 1"),
    ] {
        let mut fields = WHOLE;
        fields[place] = field;
        let mut tunnel = stack.tunnel("api.stripe.com", &token).await;
        tunnel
            .request("GET", "/websocket/chat", &fields, b"")
            .await
            .unwrap()
            .expect_refusal(400, "ambiguous_request");
    }
    assert_eq!(stack.upstream.count(), 0);
    stack.finish().await;
}

#[tokio::test]
async fn frames_pass_in_both_directions_and_the_handshake_is_injected() {
    let stack = Stack::start().await;
    let access = stack.stripe().await;
    let token = stack.workflow_lease(&access).await;
    let mut tunnel = stack.tunnel("api.stripe.com", &token).await;

    let fields = shake_hands(&mut tunnel).await;
    let accept = (
        "sec-websocket-accept".to_owned(),
        "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=".to_owned(),
    );
    assert!(fields.contains(&accept), "{fields:?}");
    for (message, answer) in [
        (frame(1, "ignis"), echoed(1, "ignis")),
        (frame(2, "\u{1}\u{2}"), echoed(2, "\u{1}\u{2}")),
        (frame(9, "are you there"), echoed(10, "are you there")),
    ] {
        tunnel.wire.send(message).await.unwrap();
        tunnel.wire.expect(&answer).await.unwrap();
    }
    tunnel.wire.send(frame(8, "")).await.unwrap();
    tunnel.wire.expect(&echoed(8, "")).await.unwrap();

    let request = stack.upstream.last();
    assert_eq!(
        request.field("authorization"),
        format!("Bearer {}", access.secret.text())
    );
    assert!(
        request.fields("sec-websocket-extensions").is_empty(),
        "compressed frames could not be scanned, so none are agreed on"
    );
    drop(tunnel);
    stack.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_accepts_at_once_keeps_its_websocket() {
    let stack = Stack::builder().log("info").start().await;
    let access = stack.stripe().await;
    let token = stack.workflow_lease(&access).await;

    for round in 0..60 {
        let mut tunnel = stack.tunnel("api.stripe.com", &token).await;
        shake_hands(&mut tunnel).await;
        let text = format!("round {round}");
        tunnel.wire.send(frame(1, &text)).await.unwrap();
        tunnel.wire.expect(&echoed(1, &text)).await.unwrap();
    }
    stack.finish().await;
}

#[tokio::test]
async fn a_credential_in_a_message_is_masked_in_one_frame_and_in_several() {
    let stack = Stack::start().await;
    let access = stack.stripe().await;
    let token = stack.workflow_lease(&access).await;
    let mut tunnel = stack.tunnel("api.stripe.com", &token).await;
    shake_hands(&mut tunnel).await;
    let masked = "*".repeat(access.secret.text().len());

    tunnel.wire.send(frame(1, "key")).await.unwrap();
    let whole = format!("your key is {masked}, keep it well");
    tunnel.wire.expect(&echoed(1, &whole)).await.unwrap();

    tunnel.wire.send(frame(1, "key in pieces")).await.unwrap();
    let (mut text, mut is_final) = (String::new(), false);
    while !is_final {
        let head = tunnel.wire.take(2).await.unwrap();
        is_final = head[0] & 0x80 != 0;
        let payload = tunnel.wire.take(usize::from(head[1])).await.unwrap();
        text.push_str(std::str::from_utf8(&payload).unwrap());
    }
    assert_eq!(text, format!("{masked}!"));
    drop(tunnel);
    stack.finish().await;
}

#[tokio::test]
async fn a_silent_websocket_lives_on() {
    let silence = soak(Duration::from_mins(11), Duration::from_secs(2));
    let stack = Stack::start().await;
    let access = stack.stripe().await;
    let token = stack.workflow_lease(&access).await;
    let mut tunnel = stack.tunnel("api.stripe.com", &token).await;
    shake_hands(&mut tunnel).await;
    let mut stream = tunnel.wire.into_stream();

    let heard = tokio::time::timeout(silence, stream.read_u8()).await;
    assert!(heard.is_err(), "it ended in silence: {heard:?}");

    stream.write_all(&frame(1, "still there")).await.unwrap();
    stream.flush().await.unwrap();
    let mut answer = vec![0; echoed(1, "still there").len()];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, echoed(1, "still there"));
    drop(stream);
    stack.finish().await;
}

#[tokio::test]
async fn a_silent_websocket_is_cut_when_its_lease_is_revoked_and_when_it_expires() {
    let stack = Stack::start().await;
    let access = stack.stripe().await;
    let (token, lease) = stack.workflow_lease_with_id(&access).await;
    let mut revoked = stack.tunnel("api.stripe.com", &token).await;
    shake_hands(&mut revoked).await;
    let short = serde_json::json!({
        "secret_set_id": access.set, "agent_id": access.agent, "kind": "workflow", "ttl_seconds": 4,
    });
    let minted = Instant::now();
    let mut expiring = stack
        .tunnel("api.stripe.com", &stack.mint(&short).await)
        .await;
    shake_hands(&mut expiring).await;

    stack
        .admin()
        .delete(&format!("/v1/vault/leases/{lease}"))
        .await
        .expect_status(204);
    let at = Instant::now();
    revoked.wire.rest().await;
    assert!(at.elapsed() < CUT_WITHIN, "{:?}", at.elapsed());
    expiring.wire.rest().await;
    let lived = minted.elapsed();
    assert!(lived < Duration::from_secs(4) + CUT_WITHIN, "{lived:?}");

    let cut = wait::until("both outcomes", async || {
        let events = stack.events().await;
        let cut: Vec<_> = events
            .iter()
            .filter(|event| event["action"] == "lease.outcome" && !event["error"].is_null())
            .map(|event| event["error"].as_str().unwrap().to_owned())
            .collect();
        (cut.len() == 2).then_some(cut)
    })
    .await;
    assert!(cut.contains(&"lease_revoked".to_owned()), "{cut:?}");
    assert!(cut.contains(&"lease_expired".to_owned()), "{cut:?}");
    stack.finish().await;
}

async fn client(program: &str, name: &str) {
    let stack = Stack::start().await;
    let access = stack.stripe().await;
    let script = script(name);
    let run = [
        "run",
        "--set",
        "stripe/test/stripe-bot",
        "--",
        program,
        &script,
    ];
    let mut command = stack.command(&run);
    if program == "node" {
        command.env("NODE_PATH", environment("CLAVIGER_TEST_NODE_MODULES"));
    }
    let ran = stack.run(command).await.expect_success();

    let masked = "*".repeat(access.secret.text().len());
    for line in [
        &format!("masked: your key is {masked}, keep it well"),
        &format!("pieces: {masked}!"),
        "websocket: ok",
    ] {
        assert!(ran.stdout.contains(line), "{line} in {ran:#?}");
    }
    assert_eq!(
        stack.upstream.last().field("authorization"),
        format!("Bearer {}", access.secret.text())
    );
    stack.finish().await;
}

#[tokio::test]
async fn the_python_client_works_unchanged() {
    client(&environment("CLAVIGER_TEST_PYTHON"), "websocket_client.py").await;
}

#[tokio::test]
async fn the_node_client_works_with_its_proxy_agent() {
    client("node", "websocket_client.cjs").await;
}
