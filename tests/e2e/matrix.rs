//! HTTP/1.1 and HTTP/2 on either side, and what each of the four pairs does with streams, interim answers, trailers, ranges.

use bytes::Bytes;
use http::Request;

use crate::support::{Access, Reply, Stack, wait};

/// What agent and provider speak.
#[derive(Debug, Clone, Copy)]
struct Pair {
    agent_h2: bool,
    provider_h2: bool,
}

const PAIRS: [Pair; 4] = [
    Pair {
        agent_h2: false,
        provider_h2: false,
    },
    Pair {
        agent_h2: false,
        provider_h2: true,
    },
    Pair {
        agent_h2: true,
        provider_h2: false,
    },
    Pair {
        agent_h2: true,
        provider_h2: true,
    },
];

impl Pair {
    /// A provider that speaks this and nothing else.
    async fn stack(self) -> (Stack, Access, String) {
        let alpn: &[&[u8]] = if self.provider_h2 {
            &[b"h2"]
        } else {
            &[b"http/1.1"]
        };
        let stack = Stack::builder().upstream_alpn(alpn).start().await;
        let access = stack.stripe().await;
        let token = stack.workflow_lease(&access).await;
        (stack, access, token)
    }

    /// One whole request in a tunnel of its own.
    async fn ask(
        self,
        stack: &Stack,
        token: &str,
        method: &str,
        path: &str,
        field: (&str, &str),
        body: &[u8],
    ) -> Reply {
        if self.agent_h2 {
            let mut h2 = stack.tunnel_h2("api.stripe.com", token).await;
            let uri = format!("https://api.stripe.com{path}");
            h2.request(method, &uri, &[field], body).await.unwrap()
        } else {
            let mut tunnel = stack.tunnel("api.stripe.com", token).await;
            let line = format!("{}: {}", field.0, field.1);
            tunnel.request(method, path, &[&line], body).await.unwrap()
        }
    }
}

#[tokio::test]
async fn a_range_is_left_out_where_the_credential_travels() {
    for pair in PAIRS {
        let (stack, _, token) = pair.stack().await;
        let reply = pair
            .ask(
                &stack,
                &token,
                "GET",
                "/bytes/1000",
                ("range", "bytes=0-3"),
                b"",
            )
            .await;
        assert_eq!(reply.expect_status(200).body.len(), 1000, "{pair:?}");
        assert!(stack.upstream.last().fields("range").is_empty(), "{pair:?}");
        stack.finish().await;
    }
}

#[tokio::test]
async fn an_expected_continue_is_said_and_the_body_arrives() {
    for pair in PAIRS {
        let (stack, _, token) = pair.stack().await;
        let expect = ("expect", "100-continue");
        let reply = pair
            .ask(&stack, &token, "POST", "/upload", expect, b"abcd")
            .await;
        assert_eq!(reply.expect_status(200).json()["received"], 4, "{pair:?}");
        assert!(
            stack.upstream.last().fields("expect").is_empty(),
            "{pair:?}"
        );
        stack.finish().await;
    }
}

#[tokio::test]
async fn each_event_arrives_before_the_next_is_sent() {
    for pair in PAIRS {
        let (stack, _, token) = pair.stack().await;
        let events = stack.upstream.stream("events");
        let event = |number| format!("data: {number}\n\n");
        if pair.agent_h2 {
            let mut frames = stack.frames("api.stripe.com", &token).await;
            let request = Request::get("https://api.stripe.com/stream/events")
                .body(())
                .unwrap();
            let (response, _) = frames.send_request(request, true).unwrap();
            let mut body = wait::within("the head", response)
                .await
                .unwrap()
                .into_body();
            for number in 0..5 {
                events.send(event(number).into()).await.unwrap();
                let data = wait::within("the event", body.data())
                    .await
                    .unwrap()
                    .unwrap();
                assert_eq!(data, event(number), "{pair:?}");
                body.flow_control().release_capacity(data.len()).unwrap();
            }
            drop(events);
            // The end may come in a frame of its own.
            while let Some(part) = body.data().await {
                assert!(part.unwrap().is_empty(), "{pair:?}");
            }
        } else {
            let mut tunnel = stack.tunnel("api.stripe.com", &token).await;
            tunnel
                .send("GET", "/stream/events", &[], b"")
                .await
                .unwrap();
            let (_, mut framing) = tunnel.wire.open("GET").await.unwrap();
            for number in 0..5 {
                events.send(event(number).into()).await.unwrap();
                let piece = tunnel.wire.piece(&mut framing).await.unwrap();
                assert_eq!(piece, Some(Bytes::from(event(number))), "{pair:?}");
            }
            drop(events);
            assert_eq!(tunnel.wire.piece(&mut framing).await.unwrap(), None);
        }
        stack.finish().await;
    }
}

#[tokio::test]
async fn trailers_come_masked_over_http2_alone_and_the_body_always() {
    for pair in PAIRS {
        let (stack, access, token) = pair.stack().await;
        let te = ("te", "trailers");
        let reply = pair
            .ask(&stack, &token, "GET", "/trailers", te, b"")
            .await
            .expect_status(200);
        assert_eq!(reply.text(), "ok", "{pair:?}");
        let asked = !stack.upstream.last().fields("te").is_empty();
        assert_eq!(asked, pair.agent_h2 && pair.provider_h2, "{pair:?}");
        if pair.agent_h2 && pair.provider_h2 {
            let masked = format!("Bearer {}", "*".repeat(access.secret.text().len()));
            assert_eq!(reply.field("x-echo"), Some(masked.as_str()));
        } else {
            assert_eq!(reply.field("x-echo"), None, "{pair:?}");
        }
        stack.finish().await;
    }
}

#[tokio::test]
async fn early_hints_come_masked_or_not_at_all() {
    for agent_h2 in [false, true] {
        let pair = Pair {
            agent_h2,
            provider_h2: false,
        };
        let (stack, _, token) = pair.stack().await;
        // They hold the credential, which the sweep at the end looks for.
        let accept = ("accept", "*/*");
        let reply = pair
            .ask(&stack, &token, "GET", "/hints", accept, b"")
            .await
            .expect_status(200);
        assert_eq!(reply.text(), "ok", "{pair:?}");
        stack.finish().await;
    }
}
