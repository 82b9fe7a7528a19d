//! Where a credential may go beyond headers and the query: a path's segment, a cookie, a field of the body, the TLS
//! handshake. And nowhere else: a placeholder outside its slot is refused with a hint.

use hmac::Mac as _;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};

use crate::support::canary::Canary;
use crate::support::{Access, Stack};

const TELEGRAM_PLACEHOLDER: &str = "1234567890:claviger-placeholder-00000000000000";
const PLACEHOLDER: &str = "claviger-placeholder-00000000000000000000";
const HOST: &str = "api.example-vendor.com";

async fn telegram(stack: &Stack, grant: &Value) -> Access {
    let secret = stack.watch(Canary::new("7000000001:AA"));
    let entries = json!({ "TELEGRAM_BOT_TOKEN": secret.text() });
    stack.access("telegram", &entries, &secret, grant).await
}

/// A stack with a `custom` set of one key at [`HOST`], and a workflow lease of it.
async fn custom(inject: Value) -> (Stack, Access, String) {
    let stack = Stack::builder().host(HOST).start().await;
    let secret = stack.secret("vk_");
    let spec =
        json!({ "hosts": [HOST], "inject": [inject], "env": { "VENDOR_KEY": "VENDOR_KEY" } });
    let entries = json!({ "VENDOR_KEY": secret.text() });
    let access = stack
        .custom_access("vendor", &entries, &spec, &secret)
        .await;
    let token = stack.workflow_lease(&access).await;
    (stack, access, token)
}

#[tokio::test]
async fn a_path_segment_is_filled_and_no_record_shows_it() {
    let stack = Stack::start().await;
    let access = telegram(&stack, &json!({})).await;
    let token = stack.workflow_lease(&access).await;
    let mut tunnel = stack.tunnel("api.telegram.org", &token).await;

    for written in [TELEGRAM_PLACEHOLDER, "anything", ""] {
        let path = format!("/bot{written}/getMe?offset=1");
        tunnel.get(&path).await.expect_status(200);
        let target = format!("/bot{}/getMe?offset=1", access.secret.text());
        assert_eq!(stack.upstream.last().target, target);
    }
    let path = format!("/file/bot{TELEGRAM_PLACEHOLDER}/photos/file_1.jpg");
    tunnel.get(&path).await.expect_status(200);
    let target = format!("/file/bot{}/photos/file_1.jpg", access.secret.text());
    assert_eq!(stack.upstream.last().target, target);

    let paths: Vec<String> = stack
        .events()
        .await
        .iter()
        .filter(|event| event["action"] == "lease.use")
        .map(|event| event["path"].as_str().unwrap().to_owned())
        .collect();
    let get_me = "/bot*/getMe".to_owned();
    assert_eq!(
        paths,
        [
            get_me.clone(),
            get_me.clone(),
            get_me,
            "/file/bot*/photos/file_1.jpg".to_owned()
        ]
    );
    stack.finish().await;
}

#[tokio::test]
async fn a_filled_path_that_comes_back_is_scrubbed() {
    let stack = Stack::start().await;
    let access = telegram(&stack, &json!({})).await;
    let token = stack.workflow_lease(&access).await;
    let mut tunnel = stack.tunnel("api.telegram.org", &token).await;

    let reply = tunnel.get("/botx/getMe").await.expect_status(200);

    let (_, behind) = access.secret.text().split_at(4);
    assert!(!reply.text().contains(behind), "{}", reply.text());
    assert!(reply.text().contains("/bot******"), "{}", reply.text());
    stack.finish().await;
}

#[tokio::test]
async fn a_grants_paths_name_the_slot_by_a_star() {
    let stack = Stack::start().await;
    let grant = json!({ "constraints": { "paths": ["/bot*/sendMessage"] } });
    let access = telegram(&stack, &grant).await;
    let token = stack.workflow_lease(&access).await;
    let mut tunnel = stack.tunnel("api.telegram.org", &token).await;

    let path = format!("/bot{TELEGRAM_PLACEHOLDER}/sendMessage");
    let reply = tunnel.request("POST", &path, &[], b"chat_id=1").await;
    reply.unwrap().expect_status(200);
    let reply = tunnel
        .get(&format!("/bot{TELEGRAM_PLACEHOLDER}/deleteWebhook"))
        .await;
    reply.expect_refusal(403, "grant_denied");
    assert_eq!(stack.upstream.count(), 1);
    stack.finish().await;
}

#[tokio::test]
async fn a_placeholder_outside_its_slot_is_refused_with_a_hint() {
    let stack = Stack::start().await;
    let access = telegram(&stack, &json!({})).await;
    let token = stack.workflow_lease(&access).await;
    let mut tunnel = stack.tunnel("api.telegram.org", &token).await;

    let header = format!("X-Note: see {TELEGRAM_PLACEHOLDER}");
    for (path, field) in [
        (format!("/store/{TELEGRAM_PLACEHOLDER}"), "X-A: b"),
        (format!("/botx/{TELEGRAM_PLACEHOLDER}"), "X-A: b"),
        (
            format!("/botx/sendMessage?text={TELEGRAM_PLACEHOLDER}"),
            "X-A: b",
        ),
        ("/botx/sendMessage".to_owned(), &*header),
    ] {
        let reply = tunnel.request("GET", &path, &[field], b"").await.unwrap();
        let problem = reply.json();
        reply.expect_refusal(400, "ambiguous_request");
        let detail = problem["detail"].as_str().unwrap();
        assert!(
            detail.contains("TELEGRAM_BOT_TOKEN")
                && detail.contains("the path `/bot${TELEGRAM_BOT_TOKEN}/**`"),
            "{detail}"
        );
    }
    assert_eq!(stack.upstream.count(), 0);
    // In a body it stays what it is: what an agent stores there can be read back, and is no key.
    let body = format!("text={TELEGRAM_PLACEHOLDER}");
    let reply = tunnel
        .request("POST", "/botx/sendMessage", &[], body.as_bytes())
        .await;
    reply.unwrap().expect_status(200);
    assert_eq!(stack.upstream.last().body(), body.as_bytes());
    stack.finish().await;
}

#[tokio::test]
async fn a_placeholder_in_an_emptied_slot_is_no_mistake() {
    let stack = Stack::start().await;
    let access = stack.stripe().await;
    let token = stack.workflow_lease(&access).await;
    let mut tunnel = stack.tunnel("api.stripe.com", &token).await;
    let brought = "Authorization: Bearer sk_test_clavigerplaceholder00000";
    let reply = tunnel.request("GET", "/v1/balance", &[brought], b"").await;
    reply.unwrap().expect_status(200);
    let brought = "X-Key: sk_test_clavigerplaceholder00000";
    let reply = tunnel.request("GET", "/v1/balance", &[brought], b"").await;
    reply.unwrap().expect_refusal(400, "ambiguous_request");
    stack.finish().await;
}

#[tokio::test]
async fn one_cookie_is_set_and_the_agents_others_stay() {
    let (stack, access, token) =
        custom(json!({ "cookie": "vendor_session", "value": "${VENDOR_KEY}" })).await;
    let mut tunnel = stack.tunnel(HOST, &token).await;

    let own = format!("vendor_session={}", access.secret.text());
    for (fields, cookie) in [
        (
            &["Cookie: theme=dark; vendor_session=mine; lang=en"][..],
            format!("theme=dark; lang=en; {own}"),
        ),
        (
            &["Cookie: VENDOR_SESSION=mine", "Cookie: theme=dark"],
            format!("theme=dark; {own}"),
        ),
        (&[], own.clone()),
    ] {
        let reply = tunnel.request("GET", "/echo", fields, b"").await.unwrap();
        reply.expect_status(200);
        assert_eq!(stack.upstream.last().field("cookie"), cookie);
    }
    stack.finish().await;
}

#[tokio::test]
async fn a_custom_sets_cookies_pass_unless_it_drops_them() {
    let stack = Stack::builder().host(HOST).start().await;
    for (name, cookies, passes) in [("usual", None, true), ("dropping", Some("drop"), false)] {
        let secret = stack.secret("vk_");
        let slot = json!({ "header": "authorization", "value": "Bearer ${VENDOR_KEY}" });
        let mut spec = json!({ "hosts": [HOST], "inject": [slot] });
        if let Some(word) = cookies {
            spec["cookies"] = word.into();
        }
        let entries = json!({ "VENDOR_KEY": secret.text() });
        let access = stack.custom_access(name, &entries, &spec, &secret).await;
        let token = stack.workflow_lease(&access).await;
        let mut tunnel = stack.tunnel(HOST, &token).await;
        let field = ["Cookie: crumb=1"];
        let reply = tunnel.request("GET", "/echo", &field, b"").await.unwrap();
        let reply = reply.expect_status(200);
        assert_eq!(reply.field("set-cookie").is_some(), passes, "{name}");
        let sent = stack.upstream.last().fields("cookie");
        assert_eq!(!sent.is_empty(), passes, "{name}: {sent:?}");
    }
    stack.finish().await;
}

#[tokio::test]
async fn a_form_field_is_set_in_the_body_and_its_length_corrected() {
    let (stack, access, token) =
        custom(json!({ "form": "api_key", "value": "${VENDOR_KEY}" })).await;
    // The canary stands in the body alone, where the upstream double does not look for credentials.
    stack.mark("case-of-a-form");
    let mut tunnel = stack.tunnel(HOST, &token).await;

    let kind = "Content-Type: application/x-www-form-urlencoded";
    let body = format!("api_key={PLACEHOLDER}&amount=1");
    let reply = tunnel
        .request(
            "POST",
            "/upload",
            &[kind, "X-Case: case-of-a-form"],
            body.as_bytes(),
        )
        .await;
    reply.unwrap().expect_status(200);
    let sent = stack.upstream.last();
    let expected = format!("amount=1&api_key={}", access.secret.text());
    assert_eq!(sent.body(), expected.as_bytes());
    assert_eq!(sent.field("content-length"), expected.len().to_string());

    // Another kind of body could hold the agent's own credential where the vendor reads it.
    for kind in [
        "Content-Type: application/json",
        "Content-Type: multipart/form-data; boundary=x",
    ] {
        let mut tunnel = stack.tunnel(HOST, &token).await;
        let reply = tunnel
            .request("POST", "/upload", &[kind], b"{}")
            .await
            .unwrap();
        reply.expect_refusal(400, "ambiguous_request");
    }
    let fields = [kind, "Content-Encoding: gzip"];
    let mut tunnel = stack.tunnel(HOST, &token).await;
    let reply = tunnel
        .request("POST", "/upload", &fields, b"a=b")
        .await
        .unwrap();
    reply.expect_refusal(400, "ambiguous_request");
    // Without a body there is no field to set.
    let mut tunnel = stack.tunnel(HOST, &token).await;
    let reply = tunnel
        .request("GET", "/upload", &["X-Case: case-of-a-form"], b"")
        .await;
    reply.unwrap().expect_status(200);
    assert_eq!(stack.upstream.count(), 2);
    stack.finish().await;
}

#[tokio::test]
async fn a_json_member_is_set_at_its_place_and_a_doubled_one_refused() {
    let (stack, access, token) =
        custom(json!({ "json": "/auth/api_key", "value": "${VENDOR_KEY}", "paths": ["/upload"] }))
            .await;
    stack.mark("case-of-json");
    let mut tunnel = stack.tunnel(HOST, &token).await;

    let kind = "Content-Type: application/json; charset=utf-8";
    let body = format!(r#"{{"auth": {{"api_key": "{PLACEHOLDER}"}}, "n": 1.50}}"#);
    let reply = tunnel
        .request(
            "POST",
            "/upload",
            &[kind, "X-Case: case-of-json"],
            body.as_bytes(),
        )
        .await;
    reply.unwrap().expect_status(200);
    let expected = body.replace(PLACEHOLDER, access.secret.text());
    assert_eq!(stack.upstream.last().body(), expected.as_bytes());

    for body in [
        r#"{"auth": {"api_key": 1, "api_key": 2}}"#,
        r#"{"auth": {}, "auth": {"api_key": "x"}}"#,
        r#"{"auth": []}"#,
        "[]",
        "nonsense",
    ] {
        let mut tunnel = stack.tunnel(HOST, &token).await;
        let reply = tunnel
            .request("POST", "/upload", &[kind], body.as_bytes())
            .await;
        reply.unwrap().expect_refusal(400, "ambiguous_request");
    }
    let mut tunnel = stack.tunnel(HOST, &token).await;
    // Refused by its head, before its body is read.
    let head = format!(
        "POST /upload HTTP/1.1\r\nHost: {HOST}\r\n{kind}\r\nContent-Length: 2097152\r\n\r\n"
    );
    tunnel.wire.send(head.as_bytes()).await.unwrap();
    let reply = tunnel.wire.reply("POST").await;
    reply.unwrap().expect_refusal(413, "body_too_large");
    assert_eq!(stack.upstream.count(), 1);
    stack.finish().await;
}

/// An authority, and a client's certificate and key under it.
fn client_certificate() -> (String, String, String) {
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_pem = ca.self_signed(&ca_key).unwrap().pem();
    let issuer = Issuer::new(ca, ca_key);
    let key = KeyPair::generate().unwrap();
    let mut client = CertificateParams::new(vec!["billing-bot".to_owned()]).unwrap();
    client.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let certificate = client.signed_by(&key, &issuer).unwrap();
    (ca_pem, certificate.pem(), key.serialize_pem())
}

#[tokio::test]
async fn a_client_certificate_is_presented_and_a_set_without_the_right_one_is_turned_away() {
    let (authority, certificate, key) = client_certificate();
    let (_, strange_certificate, strange_key) = client_certificate();
    let stack = Stack::builder()
        .host(HOST)
        .client_authority(authority)
        .start()
        .await;
    let secret = stack.secret("vk_");
    for key in [&key, &strange_key] {
        stack.watch(Canary::of(key.lines().nth(1).unwrap()));
    }
    let spec = json!({
        "hosts": [HOST],
        "inject": [
            { "client_certificate": { "certificate": "${TLS_CERT}", "key": "${TLS_KEY}" } },
            { "header": "x-vendor-key", "value": "${VENDOR_KEY}" },
        ],
    });
    let entries = |certificate: &str, key: &str| json!({ "TLS_CERT": certificate, "TLS_KEY": key, "VENDOR_KEY": secret.text() });
    let entries_right = entries(&certificate, &key);
    let access = stack
        .custom_access("vendor", &entries_right, &spec, &secret)
        .await;
    let token = stack.workflow_lease(&access).await;
    let mut tunnel = stack.tunnel(HOST, &token).await;
    tunnel.get("/echo").await.expect_status(200);
    assert_eq!(stack.upstream.last().field("x-vendor-key"), secret.text());

    // Another set's connections are never shared with it, and its certificate is not the vendor's.
    let entries_strange = entries(&strange_certificate, &strange_key);
    let other = stack
        .custom_access("stranger", &entries_strange, &spec, &secret)
        .await;
    let token = stack.workflow_lease(&other).await;
    let mut tunnel = stack.tunnel(HOST, &token).await;
    let reply = tunnel.get("/echo").await;
    assert!(reply.status == 502, "{}", reply.text());
    assert_eq!(stack.upstream.count(), 1);

    // A certificate that is none is said so.
    let broken = entries(&certificate, &strange_key);
    let broken = stack.custom_access("broken", &broken, &spec, &secret).await;
    let token = stack.workflow_lease(&broken).await;
    let mut tunnel = stack.tunnel(HOST, &token).await;
    let reply = tunnel.get("/echo").await;
    reply.expect_refusal(403, "grant_denied");
    stack.finish_after_crash().await;
}

#[tokio::test]
async fn a_keyed_hash_signs_the_request_as_it_leaves() {
    let stack = Stack::builder().host(HOST).start().await;
    let secret = stack.secret("hs_");
    stack.mark("x-vendor-sign");
    let hmac = json!({
        "key": "${VENDOR_KEY}", "over": "{time}{method}{target}{body}", "header": "x-vendor-sign", "prefix": "v1=",
        "time": "milliseconds", "time_header": "x-vendor-time",
    });
    let spec = json!({ "hosts": [HOST], "inject": [{ "hmac": hmac }] });
    let entries = json!({ "VENDOR_KEY": secret.text() });
    let access = stack
        .custom_access("signer", &entries, &spec, &secret)
        .await;
    let token = stack.workflow_lease(&access).await;
    let mut tunnel = stack.tunnel(HOST, &token).await;

    let forged = ["X-Vendor-Sign: v1=00", "X-Vendor-Time: 1"];
    for (method, path, body) in [
        ("POST", "/upload?a=b%20c", &b"{\"n\": 1}"[..]),
        ("GET", "/upload", b""),
    ] {
        let reply = tunnel.request(method, path, &forged, body).await.unwrap();
        reply.expect_status(200);
        let sent = stack.upstream.last();
        assert_eq!(sent.body(), body);
        let mut mac = hmac::Hmac::<sha2::Sha256>::new_from_slice(secret.bytes()).unwrap();
        for part in [
            sent.field("x-vendor-time").as_bytes(),
            method.as_bytes(),
            path.as_bytes(),
            body,
        ] {
            mac.update(part);
        }
        let expected = format!("v1={}", hex::encode(mac.finalize().into_bytes()));
        assert_eq!(sent.field("x-vendor-sign"), expected);
    }
    stack.finish().await;
}
