//! At the door: CONNECT and absolute-form answer 407 and keep the connection, the gateway form answers 401.

use serde_json::json;

use crate::support::canary::random_text;
use crate::support::tunnel::{basic, bearer};
use crate::support::{Reply, Stack, wait};

/// Checks the form of a refusal at the door of the forward proxy.
fn expect_407(reply: Reply, code: &str) {
    let reply = reply.expect_refusal(407, code);
    assert!(
        reply
            .field("proxy-authenticate")
            .is_some_and(|value| value.contains("Basic")),
        "{:?}",
        reply.fields
    );
    assert_ne!(
        reply.field("connection"),
        Some("close"),
        "the connection is kept for the retry"
    );
}

#[tokio::test]
async fn connect_without_a_lease_is_407_and_the_retry_on_the_same_connection_works() {
    let stack = Stack::start().await;
    let access = stack.stripe().await;
    let token = stack.request_lease(&access).await;
    let mut wire = stack.proxy_wire().await;

    wire.send("CONNECT api.stripe.com:443 HTTP/1.1\r\nHost: api.stripe.com:443\r\n\r\n")
        .await
        .unwrap();
    expect_407(wire.reply("CONNECT").await.unwrap(), "lease_missing");
    let retry = format!(
        "CONNECT api.stripe.com:443 HTTP/1.1\r\nHost: api.stripe.com:443\r\n{}\r\n",
        basic(&token)
    );
    wire.send(retry).await.unwrap();
    wire.reply("CONNECT").await.unwrap().expect_status(200);

    stack
        .handshake(wire, "api.stripe.com", &[b"http/1.1"])
        .await
        .unwrap();
    stack.finish().await;
}

#[tokio::test]
async fn every_spelling_of_the_lease_opens_the_door() {
    let stack = Stack::start().await;
    let access = stack.stripe().await;
    let token = stack.workflow_lease(&access).await;

    for fields in [basic(&token), bearer(&token)] {
        let (reply, _) = stack.connect("api.stripe.com:443", &fields).await;
        reply.expect_status(200);
    }
    stack.finish().await;
}

#[tokio::test]
async fn a_lease_that_is_none_is_lease_invalid_with_one_answer_for_all() {
    let stack = Stack::start().await;
    let access = stack.stripe().await;
    let token = stack.workflow_lease(&access).await;
    let garbage = random_text(400, b"ABCDEFabcdef0123456789-_");

    let mut answers = Vec::new();
    for wrong in [
        "clv_".to_owned(),
        format!("clv_{garbage}"),
        token[..token.len() - 4].to_owned(),
        token.replacen("clv_", "CLV_", 1),
        token.trim_start_matches("clv_").to_owned(),
        format!("clv_{}", "A".repeat(20_000)),
    ] {
        let (reply, _) = stack.connect("api.stripe.com:443", &basic(&wrong)).await;
        answers.push((reply.status, reply.json()["detail"].clone()));
        expect_407(reply, "lease_invalid");
    }
    answers.dedup();
    assert_eq!(
        answers.len(),
        1,
        "the answer tells one wrong lease from another: {answers:?}"
    );
    stack.finish().await;
}

#[tokio::test]
async fn an_expired_lease_is_407_lease_expired() {
    let stack = Stack::start().await;
    let access = stack.stripe().await;
    let body = json!({ "secret_set_id": access.set, "agent_id": access.agent, "ttl_seconds": 1 });
    let token = stack.mint(&body).await;

    let reply = wait::until("the lease to expire", async || {
        let (reply, _) = stack.connect("api.stripe.com:443", &basic(&token)).await;
        (reply.status != 200).then_some(reply)
    })
    .await;

    expect_407(reply, "lease_expired");
    stack.finish().await;
}

#[tokio::test]
async fn a_revoked_lease_is_407_lease_revoked() {
    let stack = Stack::start().await;
    let access = stack.stripe().await;
    let (token, lease) = stack.workflow_lease_with_id(&access).await;
    stack
        .admin()
        .delete(&format!("/v1/vault/leases/{lease}"))
        .await
        .expect_status(204);

    let (reply, _) = stack.connect("api.stripe.com:443", &basic(&token)).await;

    expect_407(reply, "lease_revoked");
    stack.finish().await;
}

#[tokio::test]
async fn absolute_form_without_a_lease_is_407() {
    let stack = Stack::start().await;
    let mut wire = stack.proxy_wire().await;

    wire.send("GET http://api.stripe.com/v1/balance HTTP/1.1\r\nHost: api.stripe.com\r\n\r\n")
        .await
        .unwrap();

    expect_407(wire.reply("GET").await.unwrap(), "lease_missing");
    stack.finish().await;
}

#[tokio::test]
async fn the_gateway_form_answers_401_with_www_authenticate() {
    let stack = Stack::start().await;
    let access = stack.stripe().await;
    let (token, lease) = stack.workflow_lease_with_id(&access).await;
    stack
        .admin()
        .delete(&format!("/v1/vault/leases/{lease}"))
        .await
        .expect_status(204);

    for (field, code) in [
        (String::new(), "lease_missing"),
        (
            "Authorization: Bearer clv_AAAA\r\n".to_owned(),
            "lease_invalid",
        ),
        (
            format!("Authorization: Bearer {token}\r\n"),
            "lease_revoked",
        ),
    ] {
        let mut wire = stack.proxy_wire().await;
        let request = format!(
            "GET /gateway/stripe/v1/balance HTTP/1.1\r\nHost: {}\r\n{field}\r\n",
            stack.proxy_addr
        );
        wire.send(request).await.unwrap();
        let reply = wire.reply("GET").await.unwrap().expect_refusal(401, code);
        assert!(
            reply.field("www-authenticate").is_some(),
            "{:?}",
            reply.fields
        );
        assert!(
            reply.field("proxy-authenticate").is_none(),
            "{:?}",
            reply.fields
        );
    }
    assert_eq!(stack.upstream.count(), 0);
    stack.finish().await;
}

#[tokio::test]
async fn a_host_outside_the_lease_is_refused_at_connect() {
    let stack = Stack::start().await;
    let access = stack.stripe().await;
    let token = stack.workflow_lease(&access).await;

    for authority in [
        "api.openai.com:443",
        "api.stripe.com.evil.example:443",
        "evilapi.stripe.com:443",
        "stripe.com:443",
        "api.stripe.com:8443",
        "api.stripe.com:22",
        "127.0.0.1:443",
    ] {
        let (reply, _) = stack.connect(authority, &basic(&token)).await;
        let reply = reply.expect_refusal(403, "grant_denied");
        assert!(
            reply.json()["detail"]
                .as_str()
                .unwrap()
                .contains("api.stripe.com"),
            "{}",
            reply.text()
        );
    }
    assert_eq!(stack.upstream.connections(), 0);
    stack.finish().await;
}

#[tokio::test]
async fn equal_spellings_of_a_granted_host_are_one_host() {
    let stack = Stack::start().await;
    let access = stack.stripe().await;
    let token = stack.workflow_lease(&access).await;

    for authority in ["API.Stripe.COM:443", "api.stripe.com.:443"] {
        let (reply, _) = stack.connect(authority, &basic(&token)).await;
        reply.expect_status(200);
    }
    stack.finish().await;
}

#[tokio::test]
async fn an_odd_authority_is_400() {
    let stack = Stack::start().await;
    let access = stack.stripe().await;
    let token = stack.workflow_lease(&access).await;

    for authority in [
        "api.stripe.com",
        "api.stripe.com:",
        "api.stripe.com:0443",
        "api.stripe.com:65979",
        "api.stripe.com:443/",
        "user@api.stripe.com:443",
        "api..stripe.com:443",
        "[api.stripe.com]:443",
        "0x7f.1:443",
        "127.1:443",
        "2130706433:443",
    ] {
        let (reply, _) = stack.connect(authority, &basic(&token)).await;
        assert_eq!(
            (reply.status, reply.code().as_str()),
            (400, "ambiguous_request"),
            "{authority}: {}",
            reply.text()
        );
    }
    assert_eq!(stack.upstream.connections(), 0);
    stack.finish().await;
}

#[tokio::test]
async fn a_source_of_wrong_leases_waits_and_leases_known_by_then_do_not() {
    let stack = Stack::start().await;
    let access = stack.stripe().await;
    let token = stack.workflow_lease(&access).await;
    stack
        .get("api.stripe.com", "/v1/known", &token)
        .await
        .expect_status(200);
    let ask = |fields: &str| {
        format!("CONNECT api.stripe.com:443 HTTP/1.1\r\nHost: api.stripe.com:443\r\n{fields}\r\n")
    };

    let mut wire = stack.proxy_wire().await;
    let mut waits = None;
    for number in 0..20_000 {
        let wrong = ask(&bearer(&format!("clv_{number}")));
        wire.send(wrong).await.unwrap();
        let reply = wire.reply("CONNECT").await.unwrap();
        if reply.status == 429 {
            waits = Some(reply.expect_refusal(429, "rate_limited"));
            break;
        }
        expect_407(reply, "lease_invalid");
    }

    let waits = waits.expect("guessing comes to an end");
    assert_eq!(waits.field("retry-after"), Some("1"));
    stack
        .get("api.stripe.com", "/v1/known", &token)
        .await
        .expect_status(200);
    stack.finish().await;
}
