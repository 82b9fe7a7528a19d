//! HTTP/2 by an agent that breaks its rules, frame by frame: each breach ends its stream or its connection, floods are bounded
//! in memory, nothing odd reaches the upstream, and other agents are served meanwhile (threats.md D7, H4; RFC 9113).

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::client::TlsStream;

use crate::support::wire::Duplex;
use crate::support::{Stack, wait};

const HOST: &str = "api.stripe.com";
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// How much the process may grow under a flood.
const GROWTH_MAX: u64 = 64 << 20;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;

/// A frame (RFC 9113 section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// A field by its own name and value, never indexed (RFC 7541 section 6.2.3).
fn literal(name: &str, value: &str) -> Vec<u8> {
    let mut bytes = vec![0x10];
    for text in [name, value] {
        assert!(text.len() < 127);
        bytes.push(u8::try_from(text.len()).unwrap());
        bytes.extend_from_slice(text.as_bytes());
    }
    bytes
}

fn fields(pairs: &[(&str, &str)]) -> Vec<u8> {
    pairs
        .iter()
        .flat_map(|(name, value)| literal(name, value))
        .collect()
}

const GET: [(&str, &str); 4] = [
    (":method", "GET"),
    (":scheme", "https"),
    (":authority", HOST),
    (":path", "/v1/balance"),
];

fn get() -> Vec<u8> {
    fields(&GET)
}

fn post() -> Vec<u8> {
    fields(&[
        (":method", "POST"),
        (":scheme", "https"),
        (":authority", HOST),
        (":path", "/upload"),
    ])
}

/// A request without a body.
fn ask(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &get())
}

/// A request whose body is still to come.
fn begin(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &post())
}

fn joined(frames: &[Vec<u8>]) -> Vec<u8> {
    frames.concat()
}

/// An agent that speaks in frames.
struct Agent {
    tls: TlsStream<Box<dyn Duplex>>,
    read: Vec<u8>,
}

/// What the injector said to a breach.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    /// The connection is over, with this error where one was said.
    Over(Option<u32>),
    /// A stream was reset, with this error.
    Reset(u32),
    /// A response's head came.
    Answer,
    /// Nothing in a while.
    Nothing,
}

impl Agent {
    async fn start(stack: &Stack, token: &str) -> Self {
        let mut agent = Self {
            tls: stack.tls_for_h2(HOST, token).await,
            read: Vec::new(),
        };
        agent
            .send(&[PREFACE, &frame(SETTINGS, 0, 0, b"")].concat())
            .await;
        agent
    }

    /// Sends what the other side takes within a while.
    async fn send(&mut self, bytes: &[u8]) -> bool {
        let sending = async {
            self.tls.write_all(bytes).await?;
            self.tls.flush().await
        };
        matches!(
            tokio::time::timeout(Duration::from_secs(2), sending).await,
            Ok(Ok(()))
        )
    }

    /// The next frame: its kind, flags, stream and payload.
    async fn frame(&mut self) -> Option<(u8, u8, u32, Vec<u8>)> {
        loop {
            if let Some((head, rest)) = self.read.split_first_chunk::<9>() {
                let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
                if rest.len() >= length {
                    let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
                    let found = (head[3], head[4], stream, rest[..length].to_vec());
                    self.read.drain(..9 + length);
                    return Some(found);
                }
            }
            let read =
                tokio::time::timeout(Duration::from_secs(3), self.tls.read_buf(&mut self.read))
                    .await;
            if !matches!(read, Ok(Ok(1..))) {
                return None;
            }
        }
    }

    /// Whether the other side has read all that was sent, as far as its next answer to PING tells.
    async fn ping(&mut self) -> bool {
        if !self.send(&frame(PING, 0, 0, b"are you ")).await {
            return false;
        }
        loop {
            match self.frame().await {
                Some((PING, ACK, ..)) => return true,
                Some((GOAWAY, flags, stream, payload)) => {
                    // Put back, for who asks what was said.
                    self.read = frame(GOAWAY, flags, stream, &payload);
                    return false;
                }
                Some(_) => {}
                None => return false,
            }
        }
    }

    /// The first that is said to a breach, beyond the handshake's own frames.
    async fn said(&mut self) -> Said {
        let code = |payload: &[u8], at: usize| {
            let bytes = payload.get(at..at + 4)?;
            Some(u32::from_be_bytes(bytes.try_into().ok()?))
        };
        loop {
            let Some((kind, _, _, payload)) = self.frame().await else {
                let mut byte = [0];
                let more =
                    tokio::time::timeout(Duration::from_millis(10), self.tls.read(&mut byte)).await;
                return if more.is_err() {
                    Said::Nothing
                } else {
                    Said::Over(None)
                };
            };
            match kind {
                GOAWAY => return Said::Over(code(&payload, 4)),
                RST_STREAM => return Said::Reset(code(&payload, 0).unwrap_or(0)),
                HEADERS => return Said::Answer,
                _ => {}
            }
        }
    }
}

async fn ready() -> (Stack, String) {
    let stack = Stack::builder().log("info").start().await;
    let access = stack.stripe().await;
    let token = stack.workflow_lease(&access).await;
    (stack, token)
}

/// Another agent is served.
async fn expect_service(stack: &Stack, token: &str) {
    let mut h2 = stack.tunnel_h2(HOST, token).await;
    let reply = h2
        .request("GET", &format!("https://{HOST}/v1/balance"), &[], b"")
        .await;
    reply.unwrap().expect_status(200);
}

/// Frames that end the connection (RFC 9113 section 5.4.1).
fn fatal() -> Vec<(&'static str, Vec<u8>)> {
    let settings = |id: u16, value: u32| {
        let pair = [&id.to_be_bytes()[..], &value.to_be_bytes()].concat();
        frame(SETTINGS, 0, 0, &pair)
    };
    vec![
        ("DATA on stream 0", frame(DATA, 0, 0, b"x")),
        (
            "HEADERS on stream 0",
            frame(HEADERS, END_HEADERS, 0, &get()),
        ),
        ("HEADERS on an even stream", ask(2)),
        ("DATA on an idle stream", frame(DATA, 0, 5, b"x")),
        (
            "an earlier stream opened later",
            joined(&[begin(5), ask(3)]),
        ),
        ("RST_STREAM on stream 0", frame(RST_STREAM, 0, 0, &[0; 4])),
        (
            "RST_STREAM on an idle stream",
            frame(RST_STREAM, 0, 9, &[0; 4]),
        ),
        (
            "a short RST_STREAM",
            joined(&[begin(1), frame(RST_STREAM, 0, 1, &[0; 3])]),
        ),
        ("SETTINGS on a stream", frame(SETTINGS, 0, 1, b"")),
        ("SETTINGS of five bytes", frame(SETTINGS, 0, 0, &[0; 5])),
        (
            "an acknowledgement with a payload",
            frame(SETTINGS, ACK, 0, &[0; 6]),
        ),
        ("ENABLE_PUSH of 2", settings(2, 2)),
        ("a window of 2^31", settings(4, 1 << 31)),
        ("frames of one byte", settings(5, 1)),
        ("frames of 2^24 bytes", settings(5, 1 << 24)),
        ("a PING of seven bytes", frame(PING, 0, 0, &[0; 7])),
        ("a PING on a stream", frame(PING, 0, 1, &[0; 8])),
        ("a short GOAWAY", frame(GOAWAY, 0, 0, &[0; 7])),
        (
            "a PUSH_PROMISE",
            joined(&[begin(1), frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2])]),
        ),
        (
            "WINDOW_UPDATE by nothing",
            frame(WINDOW_UPDATE, 0, 0, &[0; 4]),
        ),
        (
            "WINDOW_UPDATE of three bytes",
            frame(WINDOW_UPDATE, 0, 0, &[0; 3]),
        ),
        (
            "a window beyond 2^31",
            frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff]),
        ),
        (
            "WINDOW_UPDATE on an idle stream",
            frame(WINDOW_UPDATE, 0, 7, &[0, 0, 0, 1]),
        ),
    ]
}

/// Heads in pieces, paddings and tables that end the connection (RFC 9113 sections 6.10 and 4.3, RFC 7541).
fn fatal_heads() -> Vec<(&'static str, Vec<u8>)> {
    vec![
        (
            "CONTINUATION alone",
            frame(CONTINUATION, END_HEADERS, 1, &get()),
        ),
        (
            "CONTINUATION of another stream",
            joined(&[
                frame(HEADERS, 0, 1, &get()),
                frame(CONTINUATION, END_HEADERS, 3, b""),
            ]),
        ),
        (
            "a frame within a head",
            joined(&[frame(HEADERS, 0, 1, &get()), frame(PING, 0, 0, &[0; 8])]),
        ),
        (
            "DATA within a head",
            joined(&[frame(HEADERS, 0, 1, &get()), frame(DATA, 0, 1, b"x")]),
        ),
        (
            "an unknown frame within a head",
            joined(&[frame(HEADERS, 0, 1, &get()), frame(0xfe, 0, 1, b"x")]),
        ),
        ("a frame beyond 16 KiB", frame(DATA, 0, 1, &[0; 16_385])),
        (
            "SETTINGS beyond 16 KiB",
            frame(SETTINGS, 0, 0, &[0; 16_386]),
        ),
        (
            "more padding than payload",
            joined(&[begin(1), frame(DATA, PADDED, 1, &[200, 1, 2])]),
        ),
        (
            "padding of a head beyond it",
            frame(HEADERS, END_HEADERS | PADDED, 1, &[250, 0x82]),
        ),
        (
            "field 0 of the table",
            frame(HEADERS, END_HEADERS, 1, &[0x80]),
        ),
        (
            "a field that is not in the table",
            frame(HEADERS, END_HEADERS, 1, &[0xff, 0xff, 0xff, 0x7f]),
        ),
        (
            "an integer without end",
            frame(HEADERS, END_HEADERS, 1, &[0xff; 64]),
        ),
        (
            "a text longer than its block",
            frame(HEADERS, END_HEADERS, 1, &[0x10, 0x7f, b'a']),
        ),
        (
            "a table of 2^31 bytes",
            frame(
                HEADERS,
                END_HEADERS,
                1,
                &[0x3f, 0xff, 0xff, 0xff, 0xff, 0x07],
            ),
        ),
        (
            "Huffman's end of string",
            frame(
                HEADERS,
                END_HEADERS,
                1,
                &[0x10, 0x84, 0xff, 0xff, 0xff, 0xff, 0x01, b'a'],
            ),
        ),
        (
            "HTTP/1.1 in the middle",
            b"GET / HTTP/1.1\r\nHost: api.stripe.com\r\n\r\n".repeat(500),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_breaks_the_connections_rules_ends_it() {
    let (stack, token) = ready().await;
    for (what, bytes) in fatal().into_iter().chain(fatal_heads()) {
        let mut agent = Agent::start(&stack, &token).await;
        agent.send(&bytes).await;
        let said = agent.said().await;
        // RFC 9113 lets a receiver treat some of these as the stream's error.
        assert!(
            matches!(said, Said::Over(_) | Said::Reset(_)),
            "{what}: {said:?}"
        );
    }
    assert_eq!(
        stack
            .upstream
            .requests()
            .iter()
            .filter(|one| one.is_complete())
            .count(),
        0
    );
    expect_service(&stack, &token).await;
    // A request that was begun may have ended on either side of the upstream's door.
    stack.finish_after_crash().await;
}

/// Heads that no request may have (RFC 9113 section 8).
fn malformed() -> Vec<(&'static str, Vec<u8>)> {
    let with = |more: &[(&str, &str)]| fields(&[&GET[..], more].concat());
    let without = |name: &str| {
        let left: Vec<_> = GET
            .into_iter()
            .filter(|(other, _)| *other != name)
            .collect();
        fields(&left)
    };
    let replaced = |name: &str, value: &str| {
        let pairs: Vec<(&str, String)> = GET
            .into_iter()
            .map(|(other, old)| (other, if other == name { value } else { old }.to_owned()))
            .collect();
        pairs
            .iter()
            .flat_map(|(name, value)| literal(name, value))
            .collect::<Vec<u8>>()
    };
    vec![
        ("no method", without(":method")),
        ("no scheme", without(":scheme")),
        ("no path", without(":path")),
        ("an empty path", replaced(":path", "")),
        ("two paths", with(&[(":path", "/v1/other")])),
        ("two methods", with(&[(":method", "POST")])),
        (
            "two authorities",
            with(&[(":authority", "files.stripe.com")]),
        ),
        ("two schemes", with(&[(":scheme", "http")])),
        ("a field of a response", with(&[(":status", "200")])),
        ("an unknown field of its own", with(&[(":other", "x")])),
        (
            "a field before its own",
            [literal("x-a", "1"), get()].concat(),
        ),
        ("upper case", with(&[("X-Upper", "1")])),
        ("connection", with(&[("connection", "close")])),
        ("keep-alive", with(&[("keep-alive", "timeout=5")])),
        ("proxy-connection", with(&[("proxy-connection", "close")])),
        ("upgrade", with(&[("upgrade", "websocket")])),
        (
            "transfer-encoding",
            with(&[("transfer-encoding", "chunked")]),
        ),
        ("te", with(&[("te", "gzip")])),
        (
            "a line break in a value",
            with(&[("x-a", "1\r\nauthorization: x")]),
        ),
        ("a line feed in a value", with(&[("x-a", "1\nx")])),
        ("a NUL in a value", with(&[("x-a", "1\0x")])),
        (
            "a line break in the path",
            replaced(":path", "/v1 HTTP/1.1\r\nX: y"),
        ),
        ("a blank in the path", replaced(":path", "/v1 x")),
        ("a blank in a name", with(&[("x a", "1")])),
        ("a colon in a name", with(&[("x:a", "1")])),
        ("an empty name", with(&[("", "1")])),
        ("another host", replaced(":authority", "api.openai.com")),
        ("a user", replaced(":authority", "user@api.stripe.com")),
        (
            "a path in the authority",
            replaced(":authority", "api.stripe.com/x"),
        ),
        (
            "another host beside it",
            with(&[("host", "files.stripe.com")]),
        ),
        (
            "an absolute path",
            replaced(":path", "https://files.stripe.com/v1"),
        ),
        ("a path without a slash", replaced(":path", "v1/balance")),
        ("a star", replaced(":path", "*")),
        ("cleartext", replaced(":scheme", "http")),
        ("another scheme", replaced(":scheme", "ftp")),
        ("CONNECT", replaced(":method", "CONNECT")),
        ("TRACE", replaced(":method", "TRACE")),
        ("a method with a blank", replaced(":method", "GET /x")),
        ("a length that is none", with(&[("content-length", "-1")])),
        (
            "two lengths",
            with(&[("content-length", "0"), ("content-length", "1")]),
        ),
        (
            "a length of a body that does not come",
            with(&[("content-length", "5")]),
        ),
        ("a twin of a length", with(&[("content_length", "5")])),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heads_that_no_request_may_have_reach_nobody() {
    let (stack, token) = ready().await;
    for (what, block) in malformed() {
        let mut agent = Agent::start(&stack, &token).await;
        agent
            .send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &block))
            .await;
        let said = agent.said().await;
        assert_ne!(said, Said::Nothing, "{what}");
        assert_eq!(stack.upstream.count(), 0, "{what}: {said:?}");
    }
    expect_service(&stack, &token).await;
    stack.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_beyond_its_window_and_behind_its_end_is_refused() {
    let (stack, token) = ready().await;
    for (what, bytes) in [
        (
            "DATA behind the end",
            joined(&[ask(1), frame(DATA, END_STREAM, 1, b"x")]),
        ),
        ("HEADERS behind the end", joined(&[ask(1), ask(1)])),
        (
            "trailers that do not end",
            joined(&[begin(1), frame(HEADERS, END_HEADERS, 1, &literal("x", "y"))]),
        ),
        (
            "trailers with a field of a head",
            joined(&[
                begin(1),
                frame(HEADERS, END_HEADERS | END_STREAM, 1, &get()),
            ]),
        ),
        (
            "a stream's window by nothing",
            joined(&[begin(1), frame(WINDOW_UPDATE, 0, 1, &[0; 4])]),
        ),
        (
            "a stream's window beyond 2^31",
            joined(&[
                begin(1),
                frame(WINDOW_UPDATE, 0, 1, &[0x7f, 0xff, 0xff, 0xff]),
            ]),
        ),
    ] {
        let mut agent = Agent::start(&stack, &token).await;
        agent.send(&bytes).await;
        let mut said = agent.said().await;
        if said == Said::Answer {
            // The request itself was whole; the breach came behind it.
            said = agent.said().await;
        }
        assert_ne!(said, Said::Answer, "{what}");
    }
    expect_service(&stack, &token).await;
    // A request that was begun may have ended on either side of the upstream's door.
    stack.finish_after_crash().await;
}

/// Sends frames by the thousand until they are all out, or the injector takes no more.
async fn flood(stack: &Stack, token: &str, what: &str, begun: &[u8], piece: &[u8], times: usize) {
    expect_service(stack, token).await;
    let before = stack.process().resident();
    let mut agent = Agent::start(stack, token).await;
    agent.send(begun).await;
    let block = piece.repeat((1 << 16) / piece.len() + 1);
    let mut sent = 0;
    let mut peak = before;
    while sent < times * piece.len() && agent.send(&block).await {
        sent += block.len();
        peak = peak.max(stack.process().resident());
    }
    // Others are served under it.
    expect_service(stack, token).await;
    peak = peak.max(stack.process().resident());
    let grown = peak.saturating_sub(before);
    assert!(grown < GROWTH_MAX, "{what}: grew by {} MiB", grown >> 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn floods_of_frames_are_bounded_and_others_are_served() {
    let (stack, token) = ready().await;
    let none: &[u8] = &[];
    let head = frame(HEADERS, 0, 1, &get());
    let more = frame(CONTINUATION, 0, 1, &literal("x-flood", &"f".repeat(100)));
    flood(&stack, &token, "CONTINUATION", &head, &more, 100_000).await;
    let empty = frame(CONTINUATION, 0, 1, b"");
    flood(&stack, &token, "empty CONTINUATION", &head, &empty, 200_000).await;
    let empty = frame(DATA, 0, 1, b"");
    flood(&stack, &token, "empty DATA", &begin(1), &empty, 200_000).await;
    let padded = frame(DATA, PADDED, 1, &[255; 256]);
    flood(
        &stack,
        &token,
        "DATA that is padding",
        &begin(1),
        &padded,
        20_000,
    )
    .await;
    let settings = frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0xff, 0xff]);
    flood(&stack, &token, "SETTINGS", none, &settings, 200_000).await;
    let ping = frame(PING, 0, 0, &[7; 8]);
    flood(&stack, &token, "PING", none, &ping, 200_000).await;
    let unknown = frame(0xee, 0, 0, b"unknown");
    flood(&stack, &token, "unknown frames", none, &unknown, 200_000).await;
    let priority = frame(2, 0, 3, &[0, 0, 0, 0, 1]);
    flood(&stack, &token, "PRIORITY", none, &priority, 200_000).await;
    let window = frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]);
    flood(&stack, &token, "WINDOW_UPDATE", &begin(1), &window, 200_000).await;
    // A request that was begun may have ended on either side of the upstream's door.
    stack.finish_after_crash().await;
}

/// Opens streams one after the other, each ended at once by `end`; says how many the injector took.
async fn churn(stack: &Stack, token: &str, what: &str, end: impl Fn(u32) -> Vec<u8>) {
    expect_service(stack, token).await;
    let before = stack.process().resident();
    let mut agent = Agent::start(stack, token).await;
    let mut streams = (1..).step_by(2);
    for _ in 0..200 {
        let batch: Vec<u8> = streams.by_ref().take(100).flat_map(&end).collect();
        if !agent.send(&batch).await {
            break;
        }
    }
    let mut said = agent.said().await;
    while matches!(said, Said::Answer | Said::Reset(_)) {
        said = agent.said().await;
    }
    assert!(
        matches!(said, Said::Over(_)),
        "{what}: 20,000 streams, and {said:?}"
    );
    expect_service(stack, token).await;
    let grown = stack.process().resident().saturating_sub(before);
    assert!(grown < GROWTH_MAX, "{what}: grew by {} MiB", grown >> 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_end_as_they_begin_end_the_connection() {
    let (stack, token) = ready().await;
    // Rapid reset, CVE-2023-44487.
    churn(&stack, &token, "rapid reset", |id| {
        joined(&[ask(id), frame(RST_STREAM, 0, id, &[0, 0, 0, 8])])
    })
    .await;
    // MadeYouReset, CVE-2025-8671: the agent breaks a stream's rules, so that the server resets it.
    churn(&stack, &token, "window by nothing", |id| {
        joined(&[begin(id), frame(WINDOW_UPDATE, 0, id, &[0; 4])])
    })
    .await;
    churn(&stack, &token, "window overflow", |id| {
        joined(&[
            begin(id),
            frame(WINDOW_UPDATE, 0, id, &[0x7f, 0xff, 0xff, 0xff]),
        ])
    })
    .await;
    churn(&stack, &token, "malformed heads", |id| {
        let block = fields(&[&GET[..], &[("connection", "close")]].concat());
        frame(HEADERS, END_HEADERS | END_STREAM, id, &block)
    })
    .await;
    wait::until("the flood to have its outcomes", async || {
        let events = stack.events().await;
        let count = |action: &str| {
            events
                .iter()
                .filter(|event| event["action"] == action)
                .count()
        };
        (count("lease.use") == count("lease.outcome")).then_some(())
    })
    .await;
    stack.finish_after_crash().await;
}

/// Opens streams one after the other, each once the one before was taken up, and gives them all up: so many, until the
/// connection is over.
async fn given_up_one_by_one(agent: &mut Agent, bound: u32) -> Option<(u32, Said)> {
    for count in 0..bound {
        let id = count * 2 + 1;
        if !agent.send(&begin(id)).await || !agent.ping().await {
            return Some((count, agent.said().await));
        }
        if !agent.send(&frame(RST_STREAM, 0, id, &[0, 0, 0, 8])).await {
            return Some((count, agent.said().await));
        }
    }
    None
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_gives_up_all_its_requests_loses_its_connection() {
    let (stack, token) = ready().await;
    let mut agent = Agent::start(&stack, &token).await;
    let (count, said) = given_up_one_by_one(&mut agent, 300).await.unwrap();
    assert!((200..=201).contains(&count), "after {count}");
    // ENHANCE_YOUR_CALM, or the connection was closed behind it already.
    assert!(matches!(said, Said::Over(Some(11) | None)), "{said:?}");
    // One that gives up some is left alone.
    let mut agent = Agent::start(&stack, &token).await;
    let few = given_up_one_by_one(&mut agent, 50).await;
    assert!(few.is_none(), "{few:?}");
    drop(agent);
    expect_service(&stack, &token).await;
    stack.finish_after_crash().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_that_grows_when_it_is_read_is_bounded() {
    let (stack, token) = ready().await;
    expect_service(&stack, &token).await;
    let before = stack.process().resident();
    // One field of four thousand bytes enters the table, and each later byte names it again.
    let value = "v".repeat(3_900);
    let mut entry = vec![0x40, 1, b'x', 0x7f];
    let mut left = value.len() - 127;
    while left >= 128 {
        entry.push(u8::try_from(left % 128).unwrap() | 0x80);
        left /= 128;
    }
    entry.push(u8::try_from(left).unwrap());
    entry.extend_from_slice(value.as_bytes());
    for _ in 0..20 {
        let mut agent = Agent::start(&stack, &token).await;
        let block = [get(), entry.clone(), vec![0xbe; 10_000]].concat();
        agent
            .send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &block))
            .await;
        assert_ne!(agent.said().await, Said::Nothing);
    }
    let grown = stack.process().resident().saturating_sub(before);
    assert!(grown < GROWTH_MAX, "grew by {} MiB", grown >> 20);
    assert_eq!(stack.upstream.count(), 1);
    expect_service(&stack, &token).await;
    stack.finish().await;
}
