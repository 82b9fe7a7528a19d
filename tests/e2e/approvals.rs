//! A request that its grant lets pass only with a person's approval: approved by exactly what it is, and once.

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::support::aws::Aws;
use crate::support::tunnel::race;
use crate::support::wire::Reply;
use crate::support::{Access, Ends, Fleet, Stack, wait};

const HOST: &str = "api.stripe.com";
const REFUND: &[u8] = b"charge=ch_1&amount=500";

/// A grant that asks for approval of these.
fn asking(approval: &Value) -> Value {
    json!({ "constraints": { "approval": approval } })
}

/// The request is refused for want of approval; the approval's id.
#[track_caller]
fn asked(reply: Reply) -> String {
    let reply = reply.expect_refusal(403, "approval_required");
    let body = reply.json();
    let id = body["approval_request_id"].as_str().unwrap().to_owned();
    assert!(id.starts_with("apr_"), "{body}");
    let detail = body["detail"].as_str().unwrap();
    assert!(detail.contains(&id), "{detail}");
    id
}

/// One POST in a tunnel of its own.
async fn post(ends: &Ends, token: &str, path: &str, body: &[u8]) -> Reply {
    let mut tunnel = ends.tunnel(HOST, token).await;
    tunnel.request("POST", path, &[], body).await.unwrap()
}

async fn shown(ends: &Ends, key: &str, id: &str) -> Value {
    let path = format!("/v1/approvals/{id}");
    ends.api(key).get(&path).await.expect_status(200).json()
}

async fn decide(ends: &Ends, word: &str, id: &str) {
    ends.cli(&["approval", word, id]).await.expect_success();
}

#[tokio::test]
async fn an_approved_request_passes_once_and_nothing_else_does() {
    let stack = Stack::start().await;
    let rule = asking(&json!({ "methods": ["POST", "DELETE"] }));
    let access = stack.stripe_with(&rule).await;
    let single = stack.long_request_lease(&access).await;
    let many = stack.workflow_lease(&access).await;

    // What the rule does not name needs nobody.
    stack
        .get(HOST, "/v1/balance", &many)
        .await
        .expect_status(200);

    let reply = post(&stack, &single, "/v1/refunds?expand=charge", REFUND).await;
    assert_eq!(reply.field("retry-after"), Some("5"));
    let id = asked(reply);
    // Asked again, by another lease too, it is the same request, and neither attempt used a lease up.
    for token in [&single, &many] {
        let again = asked(post(&stack, token, "/v1/refunds?expand=charge", REFUND).await);
        assert_eq!(again, id);
    }
    let waiting = shown(&stack, &access.agent_key, &id).await;
    assert_eq!(waiting["status"], "pending");
    assert_eq!(waiting["path"], "/v1/refunds");
    assert_eq!(waiting["body_sha256"], hex::encode(Sha256::digest(REFUND)));
    let listed = stack
        .cli(&["approval", "list", "--status", "pending"])
        .await
        .expect_success();
    assert!(listed.stdout.contains(&id), "{listed:?}");

    decide(&stack, "approve", &id).await;
    assert_eq!(stack.upstream.count(), 1);
    // Another body, path, query, method or fewer of them is another request.
    let others = [
        ("/v1/refunds?expand=charge", &b"charge=ch_1&amount=5000"[..]),
        ("/v1/refunds?expand=charge", b""),
        ("/v1/refunds/1?expand=charge", REFUND),
        ("/v1/refunds?expand=customer", REFUND),
        ("/v1/refunds", REFUND),
        ("/v1/refunds?", REFUND),
    ];
    for (path, body) in others {
        let other = asked(post(&stack, &many, path, body).await);
        assert_ne!(other, id, "{path}");
    }
    let mut tunnel = stack.tunnel(HOST, &many).await;
    let reply = tunnel.request("DELETE", "/v1/refunds?expand=charge", &[], REFUND);
    assert_ne!(asked(reply.await.unwrap()), id);
    assert_eq!(stack.upstream.count(), 1);

    post(&stack, &single, "/v1/refunds?expand=charge", REFUND)
        .await
        .expect_status(200);
    assert_eq!(stack.upstream.last().body(), REFUND);
    let used = shown(&stack, &access.agent_key, &id).await;
    assert_eq!(used["status"], "consumed");
    let next = asked(post(&stack, &many, "/v1/refunds?expand=charge", REFUND).await);
    assert_ne!(next, id);
    assert_eq!(stack.upstream.count(), 2);

    let told: Vec<Value> = stack.events().await;
    let told: Vec<_> = told
        .iter()
        .filter(|event| event["approval_id"] == id.as_str())
        .map(|event| event["action"].as_str().unwrap())
        .collect();
    assert_eq!(told.len(), 4, "{told:?}");
    for action in [
        "approval.request",
        "approval.approve",
        "lease.use",
        "approval.consume",
    ] {
        assert!(told.contains(&action), "{told:?}");
    }
    stack.finish().await;
}

#[tokio::test]
async fn a_rejected_request_is_told_so_and_why() {
    let stack = Stack::start().await;
    let access = stack.stripe_with(&asking(&json!(true))).await;
    let token = stack.workflow_lease(&access).await;
    let id = asked(post(&stack, &token, "/v1/refunds", REFUND).await);
    stack
        .cli(&["approval", "reject", &id, "--reason", "not this customer"])
        .await
        .expect_success();
    let reply = post(&stack, &token, "/v1/refunds", REFUND).await;
    assert_eq!(reply.field("retry-after"), None);
    let body = reply.json();
    assert_eq!(body["approval_status"], "rejected");
    assert!(
        body["detail"]
            .as_str()
            .unwrap()
            .contains("not this customer"),
        "{body}"
    );
    assert_eq!(asked(reply), id);
    let late = stack.cli(&["approval", "approve", &id]).await;
    assert_eq!(late.status, Some(1));
    assert!(late.stderr.contains("rejected"), "{late:?}");
    stack.finish_without_traffic().await;
}

#[tokio::test]
async fn an_approval_that_is_not_used_in_time_is_none() {
    let stack = Stack::start().await;
    let access = stack
        .stripe_with(&asking(&json!({ "ttl_seconds": 1, "pending_seconds": 2 })))
        .await;
    let token = stack.workflow_lease(&access).await;
    let approved = asked(post(&stack, &token, "/v1/refunds", REFUND).await);
    decide(&stack, "approve", &approved).await;
    let left = asked(post(&stack, &token, "/v1/payouts", b"").await);
    for id in [&approved, &left] {
        wait::until("the approval has expired", async || {
            (shown(&stack, &access.agent_key, id).await["status"] == "expired").then_some(())
        })
        .await;
    }
    for (path, body, before) in [
        ("/v1/refunds", REFUND, &approved),
        ("/v1/payouts", b"", &left),
    ] {
        let next = asked(post(&stack, &token, path, body).await);
        assert_ne!(next, *before);
    }
    let late = stack.cli(&["approval", "approve", &left]).await;
    assert_eq!(late.status, Some(1));
    assert!(late.stderr.contains("expired"), "{late:?}");
    stack.finish_without_traffic().await;
}

#[tokio::test]
async fn what_is_approved_is_the_whole_body_however_it_comes() {
    let stack = Stack::start().await;
    let access = stack
        .stripe_with(&asking(&json!({ "methods": ["POST"] })))
        .await;
    let token = stack.workflow_lease(&access).await;
    let large: Vec<u8> = (0..300_000_u32).map(|at| (at % 251) as u8).collect();
    let id = asked(post(&stack, &token, "/v1/files", &large).await);
    decide(&stack, "approve", &id).await;
    post(&stack, &token, "/v1/files", &large)
        .await
        .expect_status(200);
    assert_eq!(stack.upstream.last().body(), large);

    // In chunks it is the same body, and an agent that waits for `100 Continue` gets one.
    let chunked = "POST /v1/refunds HTTP/1.1\r\nHost: api.stripe.com\r\nTransfer-Encoding: chunked\r\n\r\n\
        6\r\ncharge\r\n10\r\n=ch_1&amount=500\r\n0\r\n\r\n";
    let mut tunnel = stack.tunnel(HOST, &token).await;
    let id = asked(tunnel.raw(chunked).await.unwrap());
    decide(&stack, "approve", &id).await;
    let shown = shown(&stack, &access.agent_key, &id).await;
    assert_eq!(shown["body_sha256"], hex::encode(Sha256::digest(REFUND)));
    tunnel.raw(chunked).await.unwrap().expect_status(200);
    assert_eq!(stack.upstream.last().body(), REFUND);
    // The connection is as good as before.
    tunnel.get("/v1/balance").await.expect_status(200);

    let waiting = "POST /v1/waiting HTTP/1.1\r\nHost: api.stripe.com\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n";
    let call = async || {
        let mut tunnel = stack.tunnel(HOST, &token).await;
        tunnel.wire.send(waiting).await.unwrap();
        let go_on = tunnel.wire.expect(b"HTTP/1.1 100 Continue\r\n\r\n");
        go_on.await.unwrap();
        tunnel.wire.send("four").await.unwrap();
        tunnel.wire.reply("POST").await.unwrap()
    };
    let id = asked(call().await);
    decide(&stack, "approve", &id).await;
    call().await.expect_status(200);
    assert_eq!(stack.upstream.last().body(), b"four");

    // It is refused by its head: whoever goes on writing may find the connection closed.
    let too_large =
        "POST /v1/files HTTP/1.1\r\nHost: api.stripe.com\r\nContent-Length: 1048577\r\n\r\n";
    let mut tunnel = stack.tunnel(HOST, &token).await;
    let reply = tunnel.raw(too_large).await.unwrap();
    let reply = reply.expect_refusal(413, "body_too_large");
    assert!(reply.text().contains("1048576"), "{}", reply.text());
    stack.finish().await;
}

#[tokio::test]
async fn an_agent_has_so_many_requests_waiting_and_no_more() {
    const MOST: usize = 32;
    let stack = Stack::start().await;
    let access = stack.stripe_with(&asking(&json!(true))).await;
    let token = stack.workflow_lease(&access).await;
    let mut tunnel = stack.tunnel(HOST, &token).await;
    let mut ids = Vec::new();
    for number in 0..MOST {
        ids.push(asked(tunnel.get(&format!("/v1/charges/{number}")).await));
    }
    let reply = tunnel.get("/v1/charges/more").await;
    assert!(reply.field("retry-after").is_some());
    reply.expect_refusal(429, "approval_limit");
    // Those that wait are the same as before, and one decided makes room.
    assert_eq!(asked(tunnel.get("/v1/charges/0").await), ids[0]);
    decide(&stack, "approve", &ids[0]).await;
    asked(tunnel.get("/v1/charges/more").await);
    tunnel.get("/v1/charges/0").await.expect_status(200);
    stack.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_64_racers_on_two_injectors_exactly_one_uses_an_approval() {
    const RACERS: usize = 64;
    let fleet = Fleet::builder().nodes(1, 2).log("info").start().await;
    let access: Access = fleet.stripe_with(&asking(&json!(true))).await;
    let token = fleet.workflow_lease(&access).await;
    let first = post(&fleet.by(0, 1), &token, "/v1/charges/1", b"amount=1").await;
    let id = asked(first);
    fleet
        .admin()
        .post(&format!("/v1/approvals/{id}/approve"), &json!({}))
        .await
        .expect_status(200);
    let mut tunnels = Vec::new();
    for racer in 0..RACERS {
        let ends = fleet.by(0, racer % fleet.injectors());
        tunnels.push(ends.tunnel(HOST, &token).await);
    }
    // It posts the same.
    let replies = race(tunnels, "/v1/charges/1").await;
    let (winners, losers): (Vec<_>, Vec<_>) =
        replies.into_iter().partition(|reply| reply.status == 200);
    assert_eq!(winners.len(), 1);
    for loser in losers {
        loser.expect_refusal(403, "approval_required");
    }
    assert_eq!(fleet.upstream.count(), 1);
    fleet.finish().await;
}

#[tokio::test]
async fn over_http2_it_is_the_same() {
    let stack = Stack::builder()
        .upstream_alpn(&[b"h2", b"http/1.1"])
        .start()
        .await;
    let access = stack.stripe_with(&asking(&json!(true))).await;
    let token = stack.workflow_lease(&access).await;
    let mut h2 = stack.tunnel_h2(HOST, &token).await;
    let uri = "https://api.stripe.com/v1/files?purpose=evidence";
    let body: Vec<u8> = (0..200_000_u32).map(|at| (at % 249) as u8).collect();
    let id = asked(h2.request("POST", uri, &[], &body).await.unwrap());
    decide(&stack, "approve", &id).await;
    let other = h2.request("POST", uri, &[], &body[1..]).await.unwrap();
    assert_ne!(asked(other), id);
    h2.request("POST", uri, &[], &body)
        .await
        .unwrap()
        .expect_status(200);
    assert_eq!(stack.upstream.last().body(), body);
    let bare = "https://api.stripe.com/v1/balance";
    let id = asked(h2.request("GET", bare, &[], b"").await.unwrap());
    decide(&stack, "approve", &id).await;
    h2.request("GET", bare, &[], b"")
        .await
        .unwrap()
        .expect_status(200);
    stack.finish().await;
}

#[tokio::test]
async fn an_approved_body_is_signed_anew_for_aws() {
    const DYNAMODB: &str = "dynamodb.us-east-1.amazonaws.com";
    let stack = Stack::start().await;
    let aws = Aws::grant(&stack, false, &asking(&json!(true))).await;
    let token = stack.workflow_lease(&aws.access).await;
    let signature = format!(
        "Authorization: AWS4-HMAC-SHA256 Credential=AKIAPLACEHOLDER/20250101/us-east-1/dynamodb/aws4_request, \
         SignedHeaders=host;x-amz-date;x-amz-target, Signature={}",
        "0".repeat(64)
    );
    let fields = [
        signature.as_str(),
        "X-Amz-Date: 20250101T000000Z",
        "X-Amz-Target: DynamoDB_20120810.ListTables",
        "Content-Type: application/x-amz-json-1.0",
    ];
    let call = async || {
        let mut tunnel = stack.tunnel(DYNAMODB, &token).await;
        let reply = tunnel.request("POST", "/", &fields, b"{\"Limit\": 1}");
        reply.await.unwrap()
    };
    let id = asked(call().await);
    decide(&stack, "approve", &id).await;
    call().await.expect_status(200);
    let requests = stack.upstream.requests();
    assert_eq!(requests.len(), 1);
    aws.expect_signed(&requests).await;
    stack.finish().await;
}

#[tokio::test]
async fn an_approval_of_one_operation_is_none_of_another_that_the_head_names() {
    const DYNAMODB: &str = "dynamodb.us-east-1.amazonaws.com";
    const S3: &str = "bucket.s3.us-east-1.amazonaws.com";
    let stack = Stack::builder().host(S3).start().await;
    let aws = Aws::grant(
        &stack,
        false,
        &asking(&json!({ "methods": ["POST", "PUT"] })),
    )
    .await;
    let token = stack.workflow_lease(&aws.access).await;
    let send = async |host: &str,
                      method: &str,
                      path: &str,
                      date: &str,
                      more: &[&str],
                      body: &[u8]| {
        let service = if host == S3 { "s3" } else { "dynamodb" };
        let signature = format!(
            "Authorization: AWS4-HMAC-SHA256 Credential=AKIAPLACEHOLDER/20250101/us-east-1/{service}/aws4_request, \
             SignedHeaders=host;x-amz-date, Signature={}",
            "0".repeat(64)
        );
        let date = format!("X-Amz-Date: {date}");
        let fields = [&[signature.as_str(), &date], more].concat();
        let mut tunnel = stack.tunnel(host, &token).await;
        tunnel.request(method, path, &fields, body).await.unwrap()
    };
    let (first, later) = ("20250101T000000Z", "20250101T000009Z");

    let call = async |operation: &str, date: &str, attempt: &str| {
        let target = format!("X-Amz-Target: DynamoDB_20120810.{operation}");
        let attempt = format!("Amz-Sdk-Request: attempt={attempt}");
        let fields = [
            target.as_str(),
            &attempt,
            "Content-Type: application/x-amz-json-1.0",
        ];
        send(
            DYNAMODB,
            "POST",
            "/",
            date,
            &fields,
            b"{\"TableName\":\"t\"}",
        )
        .await
    };
    let describe = asked(call("DescribeTable", first, "1").await);
    decide(&stack, "approve", &describe).await;
    let delete = asked(call("DeleteTable", first, "1").await);
    assert_ne!(delete, describe);
    // The person can tell them apart.
    let seen = shown(&stack, &aws.access.agent_key, &delete).await;
    assert_eq!(seen["aws_actions"], json!(["dynamodb:DeleteTable"]));
    let target = json!({"name": "x-amz-target", "value": "DynamoDB_20120810.DeleteTable"});
    let fields = seen["head"].as_array().unwrap();
    assert!(fields.contains(&target), "{seen}");
    assert!(!seen.to_string().contains("AKIAPLACEHOLDER"), "{seen}");
    let seen = stack.cli(&["approval", "show", &delete]).await;
    let seen = seen.expect_success().stdout;
    assert!(seen.contains("DynamoDB_20120810.DeleteTable"), "{seen}");
    let listed = stack.cli(&["approval", "list"]).await.expect_success();
    assert!(
        listed.stdout.contains("(dynamodb:DeleteTable)"),
        "{listed:?}"
    );
    assert_eq!(stack.upstream.count(), 0);
    // A client signs each try anew, and says which one it is.
    call("DescribeTable", later, "2").await.expect_status(200);

    let put = async |more: &[&str]| {
        let hash = format!("X-Amz-Content-Sha256: {}", hex::encode(Sha256::digest(b"")));
        let fields = [&[hash.as_str()], more].concat();
        send(S3, "PUT", "/report", first, &fields, b"").await
    };
    let id = asked(put(&[]).await);
    decide(&stack, "approve", &id).await;
    for more in [
        "X-Amz-Copy-Source: /bucket/private",
        "X-Amz-Acl: public-read",
        "Connection: x-amz-meta-a",
    ] {
        assert_ne!(asked(put(&[more]).await), id, "{more}");
    }
    assert_eq!(stack.upstream.count(), 1);
    put(&[]).await.expect_status(200);
    aws.expect_signed(&stack.upstream.requests()).await;
    stack.finish().await;
}

#[tokio::test]
async fn nobody_is_asked_for_what_would_be_refused_all_the_same() {
    let stack = Stack::start().await;
    let access = stack.stripe_with(&asking(&json!(true))).await;
    let (token, lease) = stack.workflow_lease_with_id(&access).await;
    let other = stack.workflow_lease(&access).await;
    let mut revoked = stack.tunnel(HOST, &token).await;
    let mut ungranted = stack.tunnel(HOST, &other).await;
    let admin = stack.admin();
    let path = format!("/v1/vault/leases/{lease}");
    admin.delete(&path).await.expect_status(204);
    let reply = revoked.get("/v1/balance").await;
    reply.expect_refusal(403, "lease_revoked");
    let path = format!("/v1/vault/grants/{}", access.grant);
    admin.delete(&path).await.expect_status(204);
    let reply = ungranted.get("/v1/balance").await;
    reply.expect_refusal(403, "grant_denied");
    let listed = admin.get("/v1/approvals").await.expect_status(200).json();
    assert_eq!(listed["approvals"], json!([]));
    stack.finish_without_traffic().await;
}

#[tokio::test]
async fn a_websocket_is_approved_by_its_handshake_which_has_no_body() {
    let stack = Stack::start().await;
    let access = stack.stripe_with(&asking(&json!(true))).await;
    let token = stack.workflow_lease(&access).await;
    let handshake = |more: &str| {
        format!(
            "GET /websocket/chat HTTP/1.1\r\nHost: api.stripe.com\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{more}"
        )
    };
    let mut tunnel = stack.tunnel(HOST, &token).await;
    let id = asked(tunnel.raw(&handshake("\r\n")).await.unwrap());
    decide(&stack, "approve", &id).await;
    let mut tunnel = stack.tunnel(HOST, &token).await;
    let hidden = handshake("Content-Length: 4\r\n\r\nfour");
    tunnel
        .raw(&hidden)
        .await
        .unwrap()
        .expect_refusal(400, "ambiguous_request");
    let mut tunnel = stack.tunnel(HOST, &token).await;
    tunnel.wire.send(handshake("\r\n")).await.unwrap();
    let (head, _) = tunnel.wire.open("GET").await.unwrap();
    assert_eq!(head.status, 101);
    drop(tunnel);
    let used = shown(&stack, &access.agent_key, &id).await;
    assert_eq!(used["status"], "consumed");
    stack.finish().await;
}
