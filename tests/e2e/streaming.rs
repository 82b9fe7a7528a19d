//! Events pass at once: each is read by the agent before the upstream sends the next.

use crate::support::wire::{Framing, Wire};
use crate::support::{Stack, wait};

/// Reads until `event` has arrived whole.
async fn expect_event(wire: &mut Wire, framing: &mut Framing, event: &str) {
    let mut text = String::new();
    while text != event {
        let piece = wait::within("the event", wire.piece(framing))
            .await
            .unwrap();
        let piece = piece.unwrap_or_else(|| panic!("the stream ended before {event:?}"));
        text.push_str(std::str::from_utf8(&piece).unwrap());
        assert!(
            event.starts_with(&text),
            "{text:?} is not the start of {event:?}"
        );
    }
}

#[tokio::test]
async fn each_event_arrives_before_the_next_is_sent() {
    let stack = Stack::start().await;
    let access = stack.stripe().await;
    let token = stack.workflow_lease(&access).await;
    let events = stack.upstream.stream("events");
    let mut tunnel = stack.tunnel("api.stripe.com", &token).await;
    tunnel
        .send("GET", "/stream/events", &["Accept: text/event-stream"], b"")
        .await
        .unwrap();
    let (head, mut framing) = tunnel.wire.open("GET").await.unwrap();
    assert_eq!(head.field("content-type"), Some("text/event-stream"));

    for number in 0..20 {
        let event = format!("id: {number}\ndata: {{\"token\": \"word {number}\"}}\n\n");
        events.send(event.clone().into()).await.unwrap();
        expect_event(&mut tunnel.wire, &mut framing, &event).await;
    }
    drop(events);

    assert_eq!(tunnel.wire.piece(&mut framing).await.unwrap(), None);
    tunnel.get("/v1/balance").await.expect_status(200);
    stack.finish().await;
}

#[tokio::test]
async fn a_request_body_reaches_the_upstream_while_it_is_still_being_sent() {
    let stack = Stack::start().await;
    let access = stack.stripe().await;
    let token = stack.workflow_lease(&access).await;
    let mut tunnel = stack.tunnel("api.stripe.com", &token).await;
    tunnel
        .wire
        .send("POST /upload HTTP/1.1\r\nHost: api.stripe.com\r\nTransfer-Encoding: chunked\r\n\r\n")
        .await
        .unwrap();

    for number in 1..=5 {
        tunnel.wire.send("4\r\nabcd\r\n").await.unwrap();
        wait::until("the chunk at the upstream", async || {
            let request = stack.upstream.requests().pop()?;
            (request.body_length() == 4 * number).then_some(())
        })
        .await;
    }
    tunnel.wire.send("0\r\n\r\n").await.unwrap();

    let reply = tunnel.wire.reply("POST").await.unwrap().expect_status(200);
    assert_eq!(reply.json()["received"], 20);
    assert!(stack.upstream.last().is_complete());
    stack.finish().await;
}

#[tokio::test]
async fn expect_100_continue_is_answered() {
    let stack = Stack::start().await;
    let access = stack.stripe().await;
    let token = stack.workflow_lease(&access).await;
    let mut tunnel = stack.tunnel("api.stripe.com", &token).await;
    let head = "POST /upload HTTP/1.1\r\nHost: api.stripe.com\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n";

    tunnel.wire.send(head).await.unwrap();
    tunnel.wire.send("abcd").await.unwrap();

    let reply = tunnel.wire.reply("POST").await.unwrap().expect_status(200);
    assert_eq!(reply.json()["received"], 4);
    stack.finish().await;
}
