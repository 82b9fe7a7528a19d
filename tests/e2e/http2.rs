//! What HTTP/2 has of its own: a name in two places, bodies that stall, interim responses, crumbs of cookies, trailers.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use serde_json::json;

use crate::support::{Stack, wait};

/// The time that an agent may be silent within a body, and room for a busy machine behind it.
const SILENCE: Duration = Duration::from_mins(1);
const ROOM: Duration = Duration::from_secs(15);

fn post(path: &str) -> Request<()> {
    Request::builder()
        .method(Method::POST)
        .uri(format!("https://api.stripe.com{path}"))
        .body(())
        .unwrap()
}

#[tokio::test]
async fn a_host_beside_authority_is_the_same_host_or_421() {
    let stack = Stack::start().await;
    let access = stack.stripe().await;
    let token = stack.workflow_lease(&access).await;
    let mut h2 = stack.tunnel_h2("api.stripe.com", &token).await;
    let uri = "https://api.stripe.com/v1/balance";

    for host in [
        "api.stripe.com",
        "API.stripe.com",
        "api.stripe.com:443",
        "api.stripe.com.",
    ] {
        h2.request("GET", uri, &[("host", host)], b"")
            .await
            .unwrap()
            .expect_status(200);
        assert_eq!(stack.upstream.last().authority, "api.stripe.com");
    }
    for host in ["files.stripe.com", "api.stripe.com:8443", "api.openai.com"] {
        h2.request("GET", uri, &[("host", host)], b"")
            .await
            .unwrap()
            .expect_refusal(421, "authority_mismatch");
    }
    let refused = stack.events().await;
    let refused = refused.iter().filter(|event| event["decision"] == "deny");
    assert_eq!(refused.count(), 3, "each is recorded");
    for fields in [
        &[("host", "user@api.stripe.com")][..],
        &[("host", "api.stripe.com"), ("host", "api.stripe.com")],
    ] {
        h2.request("GET", uri, fields, b"")
            .await
            .unwrap()
            .expect_refusal(400, "ambiguous_request");
    }
    for length in ["", "00"] {
        h2.request("POST", uri, &[("content-length", length)], b"")
            .await
            .unwrap()
            .expect_refusal(400, "ambiguous_request");
    }
    for uri in [
        "https://user@api.stripe.com/v1/balance",
        "http://api.stripe.com/v1/balance",
        "https://api.stripe.com:0443/v1/balance",
    ] {
        h2.request("GET", uri, &[], b"")
            .await
            .unwrap()
            .expect_refusal(400, "ambiguous_request");
    }

    assert_eq!(stack.upstream.count(), 4);
    stack.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_stalls_is_ended_and_its_neighbours_are_not() {
    let stack = Stack::start().await;
    let access = stack.stripe().await;
    let token = stack.workflow_lease(&access).await;
    let mut frames = stack.frames("api.stripe.com", &token).await;
    let (response, mut body) = frames.send_request(post("/v1/charges"), false).unwrap();
    body.send_data(Bytes::from_static(b"amount"), false)
        .unwrap();
    let request = stack.upstream.reached(1).await;

    let started = Instant::now();
    let stalled = tokio::spawn(tokio::time::timeout(SILENCE + ROOM, response));
    frames = frames.ready().await.unwrap();
    let (neighbour, _) = frames.send_request(post("/v1/refunds"), true).unwrap();
    assert_eq!(neighbour.await.unwrap().status(), StatusCode::OK);
    let response = stalled.await.unwrap().expect("an answer in time").unwrap();

    assert!(started.elapsed() + Duration::from_secs(1) > SILENCE);
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    assert_eq!(
        response.headers()["content-type"],
        "application/problem+json"
    );
    assert!(!request.is_complete());
    frames = frames.ready().await.unwrap();
    let (neighbour, _) = frames.send_request(post("/v1/refunds"), true).unwrap();
    assert_eq!(neighbour.await.unwrap().status(), StatusCode::OK);
    drop(body);
    assert_eq!(stack.upstream.count(), 3);
    stack.finish().await;
}

#[tokio::test]
async fn an_agent_that_expects_100_continue_gets_it_once_its_use_is_recorded() {
    let stack = Stack::start().await;
    let access = stack
        .stripe_with(&serde_json::json!({ "constraints": { "paths": ["/v1/charges"] } }))
        .await;
    let token = stack.workflow_lease(&access).await;
    let mut frames = stack.frames("api.stripe.com", &token).await;
    let expecting = |path| {
        let mut request = post(path);
        let expect = http::HeaderValue::from_static("100-continue");
        request.headers_mut().insert(http::header::EXPECT, expect);
        request
    };

    let (mut response, mut body) = frames
        .send_request(expecting("/v1/charges"), false)
        .unwrap();
    let interim = std::future::poll_fn(|cx| response.poll_informational(cx));
    let interim = wait::within("100 Continue", interim)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(interim.status(), StatusCode::CONTINUE);
    body.send_data(Bytes::from_static(b"amount=5"), true)
        .unwrap();
    let response = wait::within("the answer", response).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let request = stack.upstream.last();
    assert_eq!(request.body(), b"amount=5");
    assert!(request.fields("expect").is_empty());

    frames = frames.ready().await.unwrap();
    let (mut response, body) = frames
        .send_request(expecting("/v1/refunds"), false)
        .unwrap();
    let interim = std::future::poll_fn(|cx| response.poll_informational(cx));
    let interim = wait::within("no interim response", interim).await;
    assert!(
        interim.is_none(),
        "a refused request is not continued: {interim:?}"
    );
    let refused = wait::within("the refusal", response).await.unwrap();
    assert_eq!(refused.status(), StatusCode::FORBIDDEN);
    drop(body);

    assert_eq!(stack.upstream.count(), 1);
    stack.finish().await;
}

#[tokio::test]
async fn crumbs_of_cookies_are_one_field_for_an_http1_upstream() {
    let host = "api.example-vendor.com";
    let stack = Stack::builder().host(host).start().await;
    let secret = stack.secret("vk_");
    let slot = json!({ "header": "authorization", "value": "Bearer ${VENDOR_KEY}" });
    let spec = json!({ "hosts": [host], "inject": [slot], "cookies": "pass" });
    let entries = json!({ "VENDOR_KEY": secret.text() });
    let access = stack
        .custom_access("vendor", &entries, &spec, &secret)
        .await;
    let token = stack.workflow_lease(&access).await;
    let mut h2 = stack.tunnel_h2(host, &token).await;

    let crumbs = [("cookie", "a=1"), ("cookie", "b=2; c=3"), ("cookie", "d=4")];
    h2.request("GET", &format!("https://{host}/v1/balance"), &crumbs, b"")
        .await
        .unwrap()
        .expect_status(200);

    let request = stack.upstream.last();
    assert_eq!(request.version, "HTTP/1.1");
    assert_eq!(request.field("cookie"), "a=1; b=2; c=3; d=4");
    stack.finish().await;
}

#[tokio::test]
async fn an_agent_that_takes_trailers_says_so_to_an_http2_upstream() {
    let stack = Stack::builder().upstream_alpn(&[b"h2"]).start().await;
    let access = stack.stripe().await;
    let token = stack.workflow_lease(&access).await;
    let mut h2 = stack.tunnel_h2("api.stripe.com", &token).await;

    let uri = "https://api.stripe.com/v1/balance";
    h2.request(
        "GET",
        uri,
        &[("te", "trailers"), ("proxy-authorization", "Basic eDp5")],
        b"",
    )
    .await
    .unwrap()
    .expect_status(200);

    let request = stack.upstream.last();
    assert_eq!(request.field("te"), "trailers");
    assert!(request.fields("proxy-authorization").is_empty());
    stack.finish().await;
}

#[tokio::test]
async fn a_stream_that_its_agent_gives_up_leaves_the_others_be() {
    let stack = Stack::start().await;
    let access = stack.stripe().await;
    let token = stack.workflow_lease(&access).await;
    let mut frames = stack.frames("api.stripe.com", &token).await;

    let (response, mut body) = frames.send_request(post("/hang"), true).unwrap();
    stack.upstream.reached(1).await;
    body.send_reset(h2::Reason::CANCEL);
    drop((response, body));
    frames = frames.ready().await.unwrap();
    let (next, _) = frames.send_request(post("/v1/charges"), true).unwrap();

    assert_eq!(next.await.unwrap().status(), StatusCode::OK);
    wait::until("the outcome of the stream given up", async || {
        let events = stack.events().await;
        events
            .iter()
            .any(|event| event["error"] == "agent_gone")
            .then_some(())
    })
    .await;
    stack.finish().await;
}

#[tokio::test]
async fn an_agent_that_closes_its_connection_in_mid_answer_is_gone() {
    let stack = Stack::start().await;
    let access = stack.stripe().await;
    let token = stack.workflow_lease(&access).await;
    // The provider goes on: an answer that ended would be one that arrived.
    let mut streams = Vec::new();
    for is_answered in [true, false] {
        let events = stack.upstream.stream("events");
        let tls = stack.tls_for_h2("api.stripe.com", &token).await;
        let (sender, connection) = h2::client::handshake(tls).await.unwrap();
        let connection = tokio::spawn(connection);
        let mut sender = sender.ready().await.unwrap();
        let path = if is_answered {
            "/stream/events"
        } else {
            "/hang"
        };
        let (response, _body) = sender.send_request(post(path), true).unwrap();
        if is_answered {
            let _answer = response.await.unwrap();
            events.send("data: 1\n\n".into()).await.unwrap();
        } else {
            stack.upstream.reached(2).await;
        }
        connection.abort();
        // What is sent now finds nobody.
        let _ = events.send("data: 2\n\n".into()).await;
        streams.push(events);
    }
    let errors = wait::until("both outcomes", async || {
        let events = stack.events().await;
        let outcomes = events
            .iter()
            .filter(|event| event["action"] == "lease.outcome");
        let errors: Vec<_> = outcomes.map(|event| event["error"].clone()).collect();
        (errors.len() == 2).then_some(errors)
    })
    .await;
    assert_eq!(errors, ["agent_gone", "agent_gone"]);
    stack.finish().await;
}

#[tokio::test]
async fn a_body_that_belies_its_length_leaves_with_nothing() {
    let stack = Stack::start().await;
    let access = stack.stripe().await;
    let token = stack.workflow_lease(&access).await;
    let mut frames = stack.frames("api.stripe.com", &token).await;

    for declared in ["0", "3", "10"] {
        let mut request = post("/v1/charges");
        let declared = http::HeaderValue::from_static(declared);
        request
            .headers_mut()
            .insert(http::header::CONTENT_LENGTH, declared);
        let (response, mut body) = frames.send_request(request, false).unwrap();
        body.send_data(Bytes::from_static(b"hello"), true).unwrap();
        let answer = wait::within("an answer or a reset", response).await;
        assert!(answer.map_or(true, |answer| answer.status() == StatusCode::BAD_REQUEST));
    }

    assert_eq!(stack.upstream.count(), 0);
    // The connection is as good as before.
    let mut honest = post("/v1/charges");
    let length = http::HeaderValue::from_static("5");
    honest
        .headers_mut()
        .insert(http::header::CONTENT_LENGTH, length);
    let (response, mut body) = frames.send_request(honest, false).unwrap();
    body.send_data(Bytes::from_static(b"a=b&c"), true).unwrap();
    assert_eq!(response.await.unwrap().status(), StatusCode::OK);
    assert_eq!(stack.upstream.last().body(), b"a=b&c");
    stack.finish().await;
}
