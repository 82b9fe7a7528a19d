//! A credential that the upstream gives back does not reach the agent, however it is spelled, split or compressed.

use std::io::Read as _;

use serde_json::json;

use crate::support::{Access, Stack, wait};

async fn ready() -> (Stack, Access, String) {
    let stack = Stack::start().await;
    let access = stack.stripe().await;
    let token = stack.workflow_lease(&access).await;
    (stack, access, token)
}

#[tokio::test]
async fn an_echo_in_headers_and_body_is_scrubbed_and_keeps_its_length() {
    let (stack, access, token) = ready().await;
    let mut tunnel = stack.tunnel("api.stripe.com", &token).await;

    let reply = tunnel
        .request("GET", "/echo", &["X-Own: mine"], b"")
        .await
        .unwrap()
        .expect_status(200);

    let secret = access.secret.text();
    let echoed = reply.json()["headers"]["authorization"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(!reply.text().contains(secret));
    assert_eq!(
        echoed.len(),
        "Bearer ".len() + secret.len(),
        "the length stays: {echoed:?}"
    );
    assert!(echoed.ends_with('*'), "{echoed:?}");
    assert_eq!(reply.json()["headers"]["x-own"], "mine");
    for field in ["x-echo-authorization", "set-cookie"] {
        assert!(
            !reply.field(field).unwrap_or_default().contains(secret),
            "{field}"
        );
    }
    stack.finish().await;
}

#[tokio::test]
async fn every_spelling_of_the_credential_is_scrubbed() {
    let (stack, access, token) = ready().await;
    let mut tunnel = stack.tunnel("api.stripe.com", &token).await;

    for form in [
        "plain",
        "base64",
        "base64-of-pair",
        "hex",
        "percent",
        "percent-twice",
        "PERCENT-TWICE",
        "reverse",
        "json",
        "JSON",
        "html",
        "html-hex",
        "HTML-HEX",
        "html-padded",
        "html-names",
        "mail",
        "mail-specials",
        "mail-break",
        "mail-break-lf",
        "fields-of-an-event",
        "two-events",
    ] {
        let reply = tunnel
            .get(&format!("/reflect/{form}"))
            .await
            .expect_status(200);
        let text = reply.text();
        assert!(
            text.starts_with("<p>your key is ") && text.ends_with(", keep it well</p>"),
            "{form}: {text}"
        );
        let spelled = &text["<p>your key is ".len()..text.len() - ", keep it well</p>".len()];
        let left = spelled.chars().filter(|&shown| shown != '*').count();
        // Base64 of a pair shows its other half, and at the edges one character that is of both.
        assert!(
            left <= 8 && spelled.contains("****************"),
            "{form}: {text}"
        );
        assert!(!text.contains(access.secret.text()), "{form}: {text}");
    }
    stack.finish().await;
}

#[tokio::test]
async fn a_credential_split_over_chunks_is_scrubbed() {
    let (stack, access, token) = ready().await;
    let mut tunnel = stack.tunnel("api.stripe.com", &token).await;

    let reply = tunnel.get("/split-reflect").await.expect_status(200);

    let stars = "*".repeat(access.secret.text().len());
    assert_eq!(reply.text(), format!("your key is {stars}, keep it well"));
    stack.finish().await;
}

#[tokio::test]
async fn a_compressed_echo_is_scrubbed_or_withheld() {
    let (stack, _, token) = ready().await;

    for coding in ["gzip", "deflate", "br", "zstd"] {
        let mut tunnel = stack.tunnel("api.stripe.com", &token).await;
        let accept = format!("Accept-Encoding: {coding}");
        let reply = tunnel
            .request("GET", &format!("/{coding}-echo"), &[&accept], b"")
            .await
            .unwrap();
        if reply.status == 200 {
            assert_eq!(
                reply.field("content-encoding").unwrap_or("identity"),
                "identity",
                "{coding}"
            );
            assert!(
                reply.json()["headers"]["authorization"]
                    .as_str()
                    .unwrap()
                    .ends_with('*'),
                "{coding}"
            );
        } else {
            reply.expect_status(502);
        }
    }
    stack.finish().await;
}

#[tokio::test]
async fn a_field_that_is_named_after_the_credential_is_dropped() {
    let (stack, access, token) = ready().await;
    let mut tunnel = stack.tunnel("api.stripe.com", &token).await;

    let reply = tunnel.get("/reflect-in-name").await.expect_status(200);

    let secret = access.secret.text().to_ascii_lowercase();
    for (name, value) in &reply.fields {
        let field = format!("{name}: {value}").to_ascii_lowercase();
        assert!(!field.contains(&secret), "{field}");
    }
    assert_eq!(reply.text(), "see above");
    stack.finish().await;
}

#[tokio::test]
async fn a_credential_in_two_fields_of_one_name_is_scrubbed() {
    let (stack, access, token) = ready().await;
    let mut tunnel = stack.tunnel("api.stripe.com", &token).await;

    let reply = tunnel.get("/reflect-in-two").await.expect_status(200);

    let halves: Vec<&str> = reply
        .fields
        .iter()
        .filter(|(name, _)| name.eq_ignore_ascii_case("x-half"))
        .map(|(_, value)| value.as_str())
        .collect();
    assert_eq!(halves.len(), 2);
    assert_eq!(halves.concat(), "*".repeat(access.secret.text().len()));
    stack.finish().await;
}

#[tokio::test]
async fn a_credential_in_a_body_that_hides_its_compression_is_withheld() {
    let (stack, _, token) = ready().await;

    for coding in ["gzip", "deflate", "zstd"] {
        for kind in ["text/html", "application/octet-stream"] {
            let mut tunnel = stack.tunnel("api.stripe.com", &token).await;
            let path = format!("/reflect-undeclared/{coding}/{kind}");
            // Either our refusal or an answer that ends without a body.
            if let Ok(reply) = tunnel.request("GET", &path, &[], b"").await {
                assert!(
                    reply.status == 502 || reply.body.is_empty(),
                    "{coding} {kind}: {} with {} bytes",
                    reply.status,
                    reply.body.len()
                );
            }
        }
    }
    stack.finish().await;
}

#[tokio::test]
async fn a_compressed_download_arrives_as_it_is() {
    let (stack, _, token) = ready().await;

    for kind in ["text/html", "application/octet-stream", "application/gzip"] {
        let mut tunnel = stack.tunnel("api.stripe.com", &token).await;
        let path = format!("/reflect-undeclared/harmless/{kind}");
        let reply = tunnel.get(&path).await.expect_status(200);
        let mut plain = String::new();
        flate2::read::GzDecoder::new(&reply.body[..])
            .read_to_string(&mut plain)
            .expect(kind);
        assert_eq!(plain, "nothing to see");
    }
    stack.finish().await;
}

#[tokio::test]
async fn the_upstream_is_asked_only_for_codings_that_can_be_read() {
    let (stack, _, token) = ready().await;
    let mut tunnel = stack.tunnel("api.stripe.com", &token).await;

    tunnel
        .request(
            "GET",
            "/v1/balance",
            &["Accept-Encoding: x-own, compress"],
            b"",
        )
        .await
        .unwrap()
        .expect_status(200);

    for value in stack.upstream.last().fields("accept-encoding") {
        for coding in value.split(',').map(str::trim) {
            let name = coding.split(';').next().unwrap();
            assert!(
                ["identity", "gzip", "deflate", "br", "zstd"].contains(&name),
                "{value:?}"
            );
        }
    }
    stack.finish().await;
}

#[tokio::test]
async fn a_range_that_could_slice_the_credential_is_not_asked_for() {
    let (stack, _, token) = ready().await;
    let mut tunnel = stack.tunnel("api.stripe.com", &token).await;

    tunnel
        .request("GET", "/echo", &["Range: bytes=0-3", "If-Range: x"], b"")
        .await
        .unwrap()
        .expect_status(200);

    assert!(stack.upstream.last().fields("range").is_empty());
    stack.finish().await;
}

#[tokio::test]
async fn an_echo_over_http2_is_scrubbed_on_both_sides() {
    let stack = Stack::builder()
        .upstream_alpn(&[b"h2", b"http/1.1"])
        .start()
        .await;
    let access = stack.stripe().await;
    let token = stack.workflow_lease(&access).await;
    let mut h2 = stack.tunnel_h2("api.stripe.com", &token).await;

    let reply = h2
        .request("GET", "https://api.stripe.com/echo", &[], b"")
        .await
        .unwrap()
        .expect_status(200);
    assert!(!reply.text().contains(access.secret.text()));
    let reply = h2
        .request("GET", "https://api.stripe.com/split-reflect", &[], b"")
        .await
        .unwrap()
        .expect_status(200);
    assert_eq!(
        reply.text(),
        format!(
            "your key is {}, keep it well",
            "*".repeat(access.secret.text().len())
        )
    );

    stack.finish().await;
}

#[tokio::test]
async fn a_basic_credential_is_scrubbed_too() {
    let stack = Stack::start().await;
    let secret = stack.secret("ghp_");
    let entries = serde_json::json!({ "GITHUB_TOKEN": secret.text() });
    let access = stack
        .access("github", &entries, &secret, &serde_json::json!({}))
        .await;
    let token = stack.workflow_lease(&access).await;

    let reply = stack
        .get("github.com", "/echo/info/refs", &token)
        .await
        .expect_status(200);

    assert!(
        stack
            .upstream
            .last()
            .field("authorization")
            .starts_with("Basic ")
    );
    assert!(!reply.text().contains(secret.text()));
    stack.finish().await;
}

#[tokio::test]
async fn a_reflection_is_recorded() {
    let (stack, _, token) = ready().await;
    stack
        .get("api.stripe.com", "/echo", &token)
        .await
        .expect_status(200);

    wait::until("a metric of the reflection", async || {
        let metrics = stack.admin().get("/metrics").await.text();
        metrics
            .lines()
            .any(|line| {
                !line.starts_with('#') && line.contains("reflection") && !line.ends_with(" 0")
            })
            .then_some(())
    })
    .await;
    let outcome = wait::until("the outcome of the use", async || {
        let events = stack.events().await;
        events
            .into_iter()
            .find(|event| event["action"] == "lease.outcome")
    })
    .await;
    assert_eq!(
        (&outcome["status"], &outcome["decision"], &outcome["error"]),
        (&json!(200), &json!("allow"), &json!(null))
    );
    assert!(outcome["reflections"].as_u64() > Some(0), "{outcome}");
    stack.finish().await;
}
