//! Requests that two servers could read in two ways are refused, and so are those beyond the bounds.

use crate::support::tunnel::{Tunnel, basic};
use crate::support::{Reply, Stack};

/// A stack with a tunnel to Stripe that is good for many requests, and its lease.
async fn ready() -> (Stack, String) {
    let stack = Stack::start().await;
    let access = stack.stripe().await;
    let token = stack.workflow_lease(&access).await;
    (stack, token)
}

/// Sends each request in a tunnel of its own; all have to be 400 `ambiguous_request`, in full form.
async fn expect_ambiguous(stack: &Stack, token: &str, requests: impl IntoIterator<Item = String>) {
    let mut passed = Vec::new();
    for request in requests {
        let reply = send(stack, token, &request).await;
        if (reply.status, reply.code().as_str()) != (400, "ambiguous_request") {
            passed.push(format!("{request:?}: {} {}", reply.status, reply.text()));
        }
    }
    assert!(passed.is_empty(), "{passed:#?}");
    assert_eq!(stack.upstream.count(), 0);
}

async fn send(stack: &Stack, token: &str, request: &str) -> Reply {
    let mut tunnel: Tunnel = stack.tunnel("api.stripe.com", token).await;
    match tunnel.raw(request).await {
        Ok(reply) => reply,
        Err(error) => panic!("no answer to {request:?}: {error}"),
    }
}

#[tokio::test]
async fn requests_with_two_readings_are_400() {
    let (stack, token) = ready().await;
    let host = "Host: api.stripe.com\r\n";
    let requests = [
        // Two lengths, or two ways to find the end (RFC 9112 section 6.3).
        format!(
            "POST /a HTTP/1.1\r\n{host}Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
        ),
        format!(
            "POST /a HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n"
        ),
        format!("POST /a HTTP/1.1\r\n{host}Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc"),
        format!("POST /a HTTP/1.1\r\n{host}Content-Length: 3, 4\r\n\r\nabc"),
        format!("POST /a HTTP/1.1\r\n{host}Content-Length: +3\r\n\r\nabc"),
        format!("POST /a HTTP/1.1\r\n{host}Content-Length: 0x3\r\n\r\nabc"),
        format!("POST /a HTTP/1.1\r\n{host}Content-Length: 003\r\n\r\nabc"),
        format!("POST /a HTTP/1.1\r\n{host}Content-Length: -1\r\n\r\n"),
        format!("POST /a HTTP/1.1\r\n{host}Content-Length: 99999999999999999999\r\n\r\n"),
        format!("POST /a HTTP/1.1\r\n{host}Content-Length:\r\n\r\n"),
        // Codings that are not exactly `chunked`.
        format!("POST /a HTTP/1.1\r\n{host}Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n"),
        format!("POST /a HTTP/1.1\r\n{host}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
        format!(
            "POST /a HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n"
        ),
        format!("POST /a HTTP/1.0\r\n{host}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        format!("POST /a HTTP/1.0\r\n{host}\r\nabc"),
        format!(
            "POST /a HTTP/1.1\r\n{host}Content-Length: 3\r\nTransfer_Encoding: chunked\r\n\r\nabc"
        ),
        format!("POST /a HTTP/1.1\r\n{host}Content-Length: 3\r\nContent_Length: 9\r\n\r\nabc"),
        // Lines that end with LF or CR alone.
        "GET /a HTTP/1.1\nHost: api.stripe.com\n\n".to_owned(),
        "GET /a HTTP/1.1\rHost: api.stripe.com\r\r".to_owned(),
        // Names of the authority.
        format!("GET /a HTTP/1.1\r\n{host}{host}\r\n"),
        "GET /a HTTP/1.1\r\n\r\n".to_owned(),
        "GET /a HTTP/1.1\r\nHost:\r\n\r\n".to_owned(),
        "GET /a HTTP/1.1\r\nHost: api.stripe.com, api.stripe.com\r\n\r\n".to_owned(),
        "GET /a HTTP/1.1\r\nHost: user@api.stripe.com\r\n\r\n".to_owned(),
        "GET /a HTTP/1.1\r\nHost: api.stripe.com/x\r\n\r\n".to_owned(),
        // Lines.
        format!("GET /a HTTP/1.1\r\n{host}X-Folded: one\r\n two\r\n\r\n"),
        format!("GET /a HTTP/1.1\r\n{host}X-Spaced : one\r\n\r\n"),
        format!("GET /a HTTP/1.1\r\n{host}X-Nul: a\0b\r\n\r\n"),
        format!("GET /a HTTP/1.1\r\n{host}X-Cr: a\rb\r\n\r\n"),
        format!("GET /a HTTP/1.1\r\n{host}: empty\r\n\r\n"),
        format!("GET /a HTTP/1.1\r\n{host}Bad(Name): x\r\n\r\n"),
        format!(
            "GET /a HTTP/1.1\n{}X-Bare: lf\r\n\r\n",
            "Host: api.stripe.com\n"
        ),
        format!("GET  /a HTTP/1.1\r\n{host}\r\n"),
        // A credential slot may not be named as hop by hop (CVE-2026-105299).
        format!("GET /a HTTP/1.1\r\n{host}Connection: authorization\r\n\r\n"),
        format!("GET /a HTTP/1.1\r\n{host}Connection: close, Authorization\r\n\r\n"),
    ];

    expect_ambiguous(&stack, &token, requests).await;
    stack.finish().await;
}

#[tokio::test]
async fn chunked_bodies_in_any_form_but_one_are_400() {
    let (stack, token) = ready().await;
    let head =
        "POST /v1/charges HTTP/1.1\r\nHost: api.stripe.com\r\nTransfer-Encoding: chunked\r\n\r\n";
    let bodies = [
        " 5\r\nhello\r\n0\r\n\r\n",
        "5 \r\nhello\r\n0\r\n\r\n",
        "5\t\r\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
        "-5\r\nhello\r\n0\r\n\r\n",
        "0_5\r\nhello\r\n0\r\n\r\n",
        "fffffffffffffffff\r\nhello\r\n0\r\n\r\n",
        "10000000000000005\r\nhello\r\n0\r\n\r\n",
        "\r\nhello\r\n0\r\n\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "5\rhello\r\n0\r\n\r\n",
        "5;ext\nhello\r\n0\r\n\r\n",
        "5;ext\rhello\r\n0\r\n\r\n",
        "5;ext=\"\r\n\"\r\nhello\r\n0\r\n\r\n",
        "5 ;ext\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\r\nhello world\r\n0\r\n\r\n",
        "5\r\nhello\r\n0\r\n\n",
        "5\r\nhello\r\n0 \r\n\r\n",
        "5\r\nhello\r\n0\r\nX : y\r\n\r\n",
        "5\r\nhello\r\n0\r\nX: y\n\r\n",
        "5\r\nhello\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: api.stripe.com\r\n\r\n",
    ];

    expect_ambiguous(&stack, &token, bodies.map(|body| format!("{head}{body}"))).await;
    stack.finish().await;
}

#[tokio::test]
async fn a_chunk_that_is_odd_later_ends_the_request_with_400() {
    let (stack, token) = ready().await;
    let mut tunnel = stack.tunnel("api.stripe.com", &token).await;
    tunnel
        .wire
        .send("POST /v1/charges HTTP/1.1\r\nHost: api.stripe.com\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        .await
        .unwrap();
    let request = stack.upstream.reached(1).await;

    let odd = format!("5 \r\nworld\r\n{}0\r\n\r\n", "400\r\n".repeat(4096));
    tunnel.wire.send(odd).await.unwrap();
    let reply = tunnel.wire.reply("POST").await.unwrap();

    reply.expect_refusal(400, "ambiguous_request");
    let rest = tunnel.wire.rest().await;
    assert!(rest.is_empty(), "{:?}", String::from_utf8_lossy(&rest));
    assert!(!request.is_complete());
    assert!(
        b"hello".starts_with(&request.body()),
        "{:?}",
        request.body()
    );
    assert_eq!(stack.upstream.count(), 1);
    stack.finish().await;
}

#[tokio::test]
async fn an_odd_chunk_behind_the_head_of_the_answer_ends_the_connection() {
    let (stack, token) = ready().await;
    let pieces = stack.upstream.stream("answer");
    let mut tunnel = stack.tunnel("api.stripe.com", &token).await;
    tunnel
        .wire
        .send("GET /early/answer HTTP/1.1\r\nHost: api.stripe.com\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        .await
        .unwrap();
    pieces.send("first".into()).await.unwrap();
    let (head, mut framing) = tunnel.wire.open("GET").await.unwrap();
    assert_eq!(head.status, 200);
    tunnel.wire.piece(&mut framing).await.unwrap();

    tunnel.wire.send("5\nworld\r\n0\r\n\r\n").await.unwrap();

    assert!(tunnel.wire.piece(&mut framing).await.is_err());
    assert_eq!(stack.upstream.count(), 1);
    stack.finish().await;
}

#[tokio::test]
async fn a_chunked_body_in_its_one_form_goes_on_however_it_arrives() {
    let (stack, token) = ready().await;
    let mut tunnel = stack.tunnel("api.stripe.com", &token).await;
    let head =
        "POST /v1/charges HTTP/1.1\r\nHost: api.stripe.com\r\nTransfer-Encoding: chunked\r\n\r\n";
    let body = "5;a=b;c=\"d\"\r\nhello\r\n00006\r\n world\r\n0;e\r\nDigest: x\r\n\r\n";

    tunnel
        .raw(&format!("{head}{body}"))
        .await
        .unwrap()
        .expect_status(200);
    tunnel.wire.send(head).await.unwrap();
    for byte in body.as_bytes() {
        tunnel.wire.send([*byte]).await.unwrap();
    }
    tunnel.wire.reply("POST").await.unwrap().expect_status(200);
    tunnel.get("/v1/balance").await.expect_status(200);

    for request in &stack.upstream.requests()[..2] {
        assert_eq!(request.body(), b"hello world");
        assert!(request.is_complete());
    }
    assert_eq!(stack.upstream.count(), 3);
    stack.finish().await;
}

#[tokio::test]
async fn paths_that_servers_read_differently_are_400() {
    let (stack, token) = ready().await;

    let paths = [
        "/v1/../admin",
        "/v1/./charges",
        "/v1//charges",
        "/v1/%2e%2e/admin",
        "/v1/%2E%2E/admin",
        "/v1/a%2fb",
        "/v1/a%2Fb",
        "/v1/a%5cb",
        "/v1/a\\b",
        "/v1/a%00b",
        "/v1/%zz",
        "/v1/a%252fb",
        "/v1/%25%32%65%25%32%65%25%32%66admin",
        "/v1/..%3b/admin",
        "/v1/%2e%2e%3b/admin",
        "/v1/charges?_method=DELETE",
        "/v1/charges?a=1;x-http-method-override=PUT",
        "/v1/..",
        "/v1/a;b=1/../c",
    ];
    let requests = paths.map(|path| format!("GET {path} HTTP/1.1\r\nHost: api.stripe.com\r\n\r\n"));
    expect_ambiguous(&stack, &token, requests).await;
    stack.finish().await;
}

#[tokio::test]
async fn a_form_that_names_another_method_does_not_arrive_whole() {
    let (stack, token) = ready().await;
    let form = "Content-Type: application/x-www-form-urlencoded";
    let parts = "Content-Type: multipart/form-data; boundary=xyz";
    let part = |name: &str| {
        format!(
            "--xyz\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\nDELETE\r\n--xyz--\r\n"
        )
    };
    // Behind what goes on its way alone.
    let far = format!("note={}&%5Fmethod=DELETE", "x".repeat(200_000));
    for (media, body) in [
        (form, "amount=1&_method=DELETE".to_owned()),
        (form, far),
        (parts, part("_method")),
    ] {
        let mut tunnel = stack.tunnel("api.stripe.com", &token).await;
        tunnel
            .request("POST", "/v1/charges", &[media], body.as_bytes())
            .await
            .unwrap()
            .expect_refusal(400, "ambiguous_request");
    }
    let (name, kind) = form.split_once(": ").unwrap();
    let mut h2 = stack.tunnel_h2("api.stripe.com", &token).await;
    h2.request(
        "POST",
        "https://api.stripe.com/v1/charges",
        &[(name, kind)],
        b"amount=1&_method=DELETE",
    )
    .await
    .unwrap()
    .expect_refusal(400, "ambiguous_request");
    let arrived = stack.upstream.requests();
    assert!(arrived.iter().all(|request| !request.is_complete()));

    let mut tunnel = stack.tunnel("api.stripe.com", &token).await;
    for (media, body) in [
        (form, "payment_method=card&note=_method".to_owned()),
        (parts, part("payment_method")),
    ] {
        tunnel
            .request("POST", "/v1/charges", &[media], body.as_bytes())
            .await
            .unwrap()
            .expect_status(200);
        assert_eq!(stack.upstream.last().body(), body.as_bytes());
    }
    stack.finish().await;
}

#[tokio::test]
async fn paths_go_on_byte_for_byte() {
    let (stack, token) = ready().await;
    let mut tunnel = stack.tunnel("api.stripe.com", &token).await;

    for path in [
        "/v1/charges?limit=3&starting_after=ch_1",
        "/v1/a%20b?q=%2F..%2F&x=a%2fb",
        "/v1/a:b@c!$&'()*+,=~",
        "/v1/charges/",
        "/v1/%E2%82%AC",
    ] {
        tunnel.get(path).await.expect_status(200);
        assert_eq!(stack.upstream.last().target, path);
    }
    stack.finish().await;
}

#[tokio::test]
async fn tracing_and_nested_tunnels_are_405() {
    let (stack, token) = ready().await;

    for request in [
        "TRACE /v1/balance HTTP/1.1\r\nHost: api.stripe.com\r\n\r\n",
        "TRACK /v1/balance HTTP/1.1\r\nHost: api.stripe.com\r\n\r\n",
        "CONNECT api.stripe.com:443 HTTP/1.1\r\nHost: api.stripe.com\r\n\r\n",
        "OPTIONS /v1/balance HTTP/1.1\r\nHost: api.stripe.com\r\nMax-Forwards: 0\r\n\r\n",
    ] {
        send(&stack, &token, request)
            .await
            .expect_refusal(405, "method_not_allowed");
    }
    assert_eq!(stack.upstream.count(), 0);
    stack.finish().await;
}

#[tokio::test]
async fn a_request_beyond_the_bounds_is_414_or_431() {
    let (stack, token) = ready().await;

    let long = format!(
        "GET /{} HTTP/1.1\r\nHost: api.stripe.com\r\n\r\n",
        "a".repeat(40 << 10)
    );
    send(&stack, &token, &long)
        .await
        .expect_refusal(414, "uri_too_long");
    let undecided = format!(
        "GET /{} HTTP/1.1\r\nHost: api.stripe.com\r\n\r\n",
        "a".repeat(5_000)
    );
    let reply = send(&stack, &token, &undecided)
        .await
        .expect_refusal(414, "uri_too_long");
    assert!(reply.text().contains("4096"), "{}", reply.text());
    let many = format!(
        "GET / HTTP/1.1\r\nHost: api.stripe.com\r\n{}\r\n",
        "X-A: 1\r\n".repeat(400)
    );
    send(&stack, &token, &many)
        .await
        .expect_refusal(431, "headers_too_large");
    let large = format!(
        "GET / HTTP/1.1\r\nHost: api.stripe.com\r\nX-A: {}\r\n\r\n",
        "a".repeat(80 << 10)
    );
    send(&stack, &token, &large)
        .await
        .expect_refusal(431, "headers_too_large");

    assert_eq!(stack.upstream.count(), 0);
    stack.finish().await;
}

#[tokio::test]
async fn host_and_authority_other_than_the_tunnels_are_421() {
    let (stack, token) = ready().await;

    for request in [
        "GET /v1/balance HTTP/1.1\r\nHost: api.openai.com\r\n\r\n",
        "GET /v1/balance HTTP/1.1\r\nHost: files.stripe.com\r\n\r\n",
        "GET /v1/balance HTTP/1.1\r\nHost: api.stripe.com:8443\r\n\r\n",
    ] {
        send(&stack, &token, request)
            .await
            .expect_refusal(421, "authority_mismatch");
    }
    for (target, host) in [
        ("https://files.stripe.com/v1/balance", "api.stripe.com"),
        ("https://api.stripe.com/v1/balance", "files.stripe.com"),
        ("https://api.stripe.com:8443/v1/balance", "api.stripe.com"),
    ] {
        let request = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        send(&stack, &token, &request)
            .await
            .expect_refusal(421, "authority_mismatch");
    }
    for (target, host) in [
        ("/v1/balance", "api.stripe.com"),
        ("/v1/balance", "API.STRIPE.COM"),
        ("/v1/balance", "api.stripe.com:443"),
        ("https://API.stripe.com/v1/balance", "api.stripe.com:443"),
        ("https://api.stripe.com:443/v1/balance", "api.stripe.com."),
    ] {
        let request = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        send(&stack, &token, &request).await.expect_status(200);
        assert_eq!(stack.upstream.last().target, "/v1/balance");
        assert_eq!(
            stack
                .upstream
                .last()
                .authority
                .to_ascii_lowercase()
                .trim_end_matches(":443"),
            "api.stripe.com"
        );
    }
    let mut h2 = stack.tunnel_h2("api.stripe.com", &token).await;
    let reply = h2
        .request("GET", "https://files.stripe.com/v1/balance", &[], b"")
        .await
        .unwrap();
    reply.expect_refusal(421, "authority_mismatch");

    assert_eq!(stack.upstream.count(), 5);
    stack.finish().await;
}

#[tokio::test]
async fn an_sni_other_than_the_connect_name_ends_the_handshake_and_is_recorded() {
    let (stack, token) = ready().await;
    let (reply, wire) = stack.connect("api.stripe.com:443", &basic(&token)).await;
    reply.expect_status(200);

    let error = stack
        .handshake(wire, "files.stripe.com", &[b"http/1.1"])
        .await
        .map(drop)
        .unwrap_err();

    assert!(
        format!("{error:?}").contains("UnrecognisedName"),
        "{error:?}"
    );
    crate::support::wait::until("the refusal in the trail", async || {
        stack
            .events()
            .await
            .into_iter()
            .find(|event| event["decision"] == "deny")
    })
    .await;
    assert_eq!(stack.upstream.connections(), 0);
    stack.finish().await;
}

#[tokio::test]
async fn bytes_after_a_refused_request_are_no_request() {
    let (stack, token) = ready().await;
    let mut tunnel = stack.tunnel("api.stripe.com", &token).await;
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: api.stripe.com\r\n\r\n";
    let request = format!(
        "POST /a HTTP/1.1\r\nHost: api.stripe.com\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}"
    );

    tunnel.raw(&request).await.unwrap().expect_status(400);
    let rest = tunnel.wire.rest().await;

    assert!(rest.is_empty(), "{:?}", String::from_utf8_lossy(&rest));
    assert_eq!(stack.upstream.count(), 0);
    stack.finish().await;
}

#[tokio::test]
async fn pipelined_requests_are_served_one_after_the_other() {
    let (stack, token) = ready().await;
    let mut tunnel = stack.tunnel("api.stripe.com", &token).await;
    let filler = "f".repeat(3_000);
    let request = |path: &str, body: &str| {
        format!(
            "POST {path} HTTP/1.1\r\nHost: api.stripe.com\r\nX-Filler: {filler}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let paths = ["/v1/one", "/v1/two", "/v1/three", "/v1/four"];
    let all: String = paths.iter().map(|path| request(path, path)).collect();

    tunnel.wire.send(&all).await.unwrap();
    for path in paths {
        let reply = tunnel.wire.reply("POST").await.unwrap().expect_status(200);
        assert_eq!(reply.json()["path"], path);
    }
    // The connection goes on.
    tunnel
        .request("GET", "/v1/five", &[], b"")
        .await
        .unwrap()
        .expect_status(200);

    let seen = stack.upstream.requests();
    for (request, path) in seen.iter().zip(paths) {
        assert_eq!(
            (request.path(), request.body()),
            (path, path.as_bytes().to_vec())
        );
    }
    assert_eq!(seen.len(), 5);
    stack.finish().await;
}

#[tokio::test]
async fn what_follows_a_request_in_flight_waits_for_its_answer() {
    let (stack, token) = ready().await;
    let mut tunnel = stack.tunnel("api.stripe.com", &token).await;
    let answer = stack.upstream.stream("slow");

    tunnel.send("GET", "/stream/slow", &[], b"").await.unwrap();
    stack.upstream.reached(1).await;
    tunnel.send("GET", "/v1/next", &[], b"").await.unwrap();
    answer
        .send(bytes::Bytes::from_static(b"first"))
        .await
        .unwrap();
    drop(answer);
    let first = tunnel.wire.reply("GET").await.unwrap().expect_status(200);
    let next = tunnel.wire.reply("GET").await.unwrap().expect_status(200);

    assert_eq!(first.text(), "first");
    assert_eq!(next.json()["path"], "/v1/next");
    stack.finish().await;
}

/// Sends an absolute-form request of this lease to the listener itself.
async fn absolute(stack: &Stack, token: &str, target: &str, host: &str) -> Reply {
    let mut wire = stack.proxy_wire().await;
    let request = format!(
        "GET {target} HTTP/1.1\r\nHost: {host}\r\n{}\r\n",
        basic(token)
    );
    wire.send(request).await.unwrap();
    wire.reply("GET").await.unwrap()
}

#[tokio::test]
async fn two_spellings_of_one_host_are_one_and_two_hosts_are_421() {
    let (stack, token) = ready().await;

    for (target, host) in [
        ("http://api.stripe.com/v1/balance", "api.stripe.com"),
        ("http://api.stripe.com/v1/balance", "API.Stripe.com"),
        ("http://api.stripe.com:80/v1/balance", "api.stripe.com"),
        ("http://api.stripe.com./v1/balance", "api.stripe.com:80"),
        ("HTTP://API.STRIPE.COM/v1/balance", "api.stripe.com"),
    ] {
        // That no credential goes over cleartext is the lease's answer: the request was understood.
        absolute(&stack, &token, target, host)
            .await
            .expect_refusal(403, "plaintext_denied");
    }
    let before = stack.events().await.len();
    for (target, host) in [
        ("http://api.stripe.com/v1/balance", "files.stripe.com"),
        ("http://api.stripe.com/v1/balance", "api.stripe.com:8080"),
        ("http://api.stripe.com:8080/v1/balance", "api.stripe.com"),
    ] {
        absolute(&stack, &token, target, host)
            .await
            .expect_refusal(421, "authority_mismatch");
    }
    let refused = stack.events().await;
    assert_eq!(refused.len() - before, 3, "each is recorded");
    absolute(
        &stack,
        "clv_forged",
        "http://api.stripe.com/",
        "files.stripe.com",
    )
    .await
    .expect_refusal(407, "lease_invalid");

    assert_eq!(stack.upstream.connections(), 0);
    stack.finish().await;
}

#[tokio::test]
async fn odd_authorities_at_the_door_are_400() {
    let (stack, token) = ready().await;

    for (target, host) in [
        ("http://user@api.stripe.com/", "api.stripe.com"),
        ("http://api.stripe.com/", "user@api.stripe.com"),
        ("http:///v1", "api.stripe.com"),
        ("http://api.stripe.com:/", "api.stripe.com"),
        ("http://api.stripe.com:0x50/", "api.stripe.com"),
        ("http://[::1/", "api.stripe.com"),
        ("http:/api.stripe.com/", "api.stripe.com"),
        ("http^://api.stripe.com/", "api.stripe.com"),
        ("ftp://api.stripe.com/", "api.stripe.com"),
        ("http:api.stripe.com", "api.stripe.com"),
        ("api.stripe.com", "api.stripe.com"),
        ("//api.stripe.com/", "user@api.stripe.com"),
        ("/gateway/stripe/v1/balance", "user@127.0.0.1"),
    ] {
        absolute(&stack, &token, target, host)
            .await
            .expect_refusal(400, "ambiguous_request");
    }

    assert_eq!(stack.upstream.connections(), 0);
    stack.finish().await;
}
