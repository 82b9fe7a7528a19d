//! AWS: the agent signs with a placeholder, the injector signs again, and botocore says whether it did so rightly.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::support::canary::{Canary, random_text};
use crate::support::upstream::Recorded;
use crate::support::{Access, Stack, wait};

struct Aws {
    access: Access,
    key_id: String,
    session: Option<Canary>,
}

async fn aws(stack: &Stack, with_session: bool, grant: &Value) -> Aws {
    let secret = stack.watch(Canary::with_symbols("aws"));
    let key_id = format!(
        "AKIA{}",
        random_text(16, b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567")
    );
    stack.mark(&key_id);
    let mut entries = json!({
        "AWS_ACCESS_KEY_ID": key_id, "AWS_SECRET_ACCESS_KEY": secret.text(), "AWS_REGION": "us-east-1",
    });
    let session = with_session.then(|| stack.watch(Canary::with_symbols("session")));
    if let Some(session) = &session {
        entries["AWS_SESSION_TOKEN"] = json!(session.text());
    }
    let access = stack.access("aws", &entries, &secret, grant).await;
    Aws {
        access,
        key_id,
        session,
    }
}

/// Runs the Python script with `input` on stdin and reads JSON from stdout.
async fn botocore(mut command: Command, input: &Value) -> Value {
    command
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .kill_on_drop(true);
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.to_string().as_bytes()).await.unwrap();
    drop(stdin);
    let output = tokio::time::timeout(wait::patience() * 3, child.wait_with_output())
        .await
        .unwrap()
        .unwrap();
    assert!(output.status.success(), "{input}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn python() -> String {
    std::env::var("CLAVIGER_TEST_PYTHON")
        .expect("CLAVIGER_TEST_PYTHON is not set; hint: start these tests by tests/run e2e")
}

fn script(name: &str) -> String {
    format!("{}/tests/sdk/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// What botocore signs for the request as it reached the upstream, with the real key and the request's own date.
async fn expected(request: &Recorded, aws: &Aws, service: &str) -> Value {
    let names: Vec<String> = {
        let authorization = request.field("authorization");
        let signed = authorization
            .split("SignedHeaders=")
            .nth(1)
            .unwrap()
            .split(',')
            .next()
            .unwrap()
            .to_owned();
        signed.split(';').map(str::to_owned).collect()
    };
    let mut headers = serde_json::Map::new();
    for name in names
        .iter()
        .filter(|name| !["host", "x-amz-date", "x-amz-security-token"].contains(&name.as_str()))
    {
        headers.insert(name.clone(), json!(request.field(name)));
    }
    let input = json!({
        "method": request.method,
        "url": format!("https://{}{}", request.authority, request.target),
        "headers": headers,
        "body": String::from_utf8(request.body()).unwrap(),
        "date": request.field("x-amz-date"),
        "key_id": aws.key_id,
        "secret": aws.access.secret.text(),
        "session": aws.session.as_ref().map(Canary::text),
        "region": "us-east-1",
        "service": service,
    });
    let mut command = Command::new(python());
    command.arg(script("sigv4_oracle.py"));
    botocore(command, &input).await
}

/// Sends `calls` by an agent that has botocore and placeholders, and checks each signature at the upstream.
async fn expect_signed(with_session: bool, service: &str, calls: Value) {
    let stack = Stack::start().await;
    let aws = aws(&stack, with_session, &json!({})).await;
    let count = calls.as_array().unwrap().len();
    let command = {
        let mut command = stack.command(&[
            "run",
            "--set",
            "aws/test/aws-bot",
            "--",
            &python(),
            &script("sigv4_agent.py"),
        ]);
        command.env("AGENT_SERVICE", service);
        command
    };

    let statuses = botocore(command, &calls).await;

    assert_eq!(statuses, json!(vec![200; count]));
    let requests: Vec<Arc<Recorded>> = stack.upstream.requests();
    assert_eq!(requests.len(), count);
    for request in requests {
        let oracle = expected(&request, &aws, service).await;
        assert_eq!(
            request.field("authorization"),
            oracle["authorization"].as_str().unwrap(),
            "{}",
            request.target
        );
        assert!(
            request
                .field("authorization")
                .contains(&format!("Credential={}/", aws.key_id))
        );
        match &aws.session {
            Some(session) => assert_eq!(request.field("x-amz-security-token"), session.text()),
            None => assert!(request.fields("x-amz-security-token").is_empty()),
        }
    }
    stack.finish().await;
}

#[tokio::test]
async fn dynamodb_posts_are_signed_as_botocore_signs_them() {
    let host = "https://dynamodb.us-east-1.amazonaws.com/";
    let target = |action: &str| json!({ "x-amz-target": format!("DynamoDB_20120810.{action}"), "content-type": "application/x-amz-json-1.0" });
    let calls = json!([
        { "method": "POST", "url": host, "headers": target("ListTables"), "body": "{}" },
        { "method": "POST", "url": host, "headers": target("GetItem"), "body": "{\"TableName\": \"things\", \"Key\": {\"id\": {\"S\": \"\u{e9}\"}}}" },
    ]);
    expect_signed(false, "dynamodb", calls).await;
}

#[tokio::test]
async fn queries_and_odd_paths_are_signed_as_botocore_signs_them() {
    let host = "https://sts.us-east-1.amazonaws.com";
    let calls = json!([
        { "method": "GET", "url": format!("{host}/?Action=GetCallerIdentity&Version=2011-06-15"), "headers": {}, "body": "" },
        { "method": "GET", "url": format!("{host}/a%20b/%E2%82%AC?z=1&a=2&a=1&empty=&sp=%20x"), "headers": {}, "body": "" },
        { "method": "POST", "url": format!("{host}/"), "headers": { "content-type": "application/x-www-form-urlencoded" }, "body": "Action=GetCallerIdentity&Version=2011-06-15" },
    ]);
    expect_signed(false, "sts", calls).await;
}

#[tokio::test]
async fn s3_with_a_session_token_is_signed_as_botocore_signs_it() {
    let host = "https://s3.us-east-1.amazonaws.com";
    let calls = json!([
        { "method": "GET", "url": format!("{host}/bucket/key%20with%20blank?list-type=2&prefix=a"), "headers": {}, "body": "" },
        { "method": "PUT", "url": format!("{host}/bucket/key"), "headers": { "x-amz-meta-own": "kept" }, "body": "contents" },
        { "method": "PUT", "url": format!("{host}/bucket/unsigned"), "headers": { "x-amz-content-sha256": "UNSIGNED-PAYLOAD" }, "body": "contents" },
    ]);
    expect_signed(true, "s3", calls).await;
}

#[tokio::test]
async fn presigned_chunked_and_foreign_scopes_are_refused() {
    let stack = Stack::start().await;
    let aws = aws(&stack, false, &json!({})).await;
    let token = stack.workflow_lease(&aws.access).await;
    let date = "20250101T000000Z";
    let credential = |service: &str, region: &str| {
        format!(
            "Authorization: AWS4-HMAC-SHA256 Credential=AKIAPLACEHOLDER/20250101/{region}/{service}/aws4_request, \
             SignedHeaders=host;x-amz-date, Signature={}",
            "0".repeat(64)
        )
    };
    let date_field = format!("X-Amz-Date: {date}");
    let sha = "X-Amz-Content-Sha256: UNSIGNED-PAYLOAD".to_owned();

    let presigned = format!(
        "/bucket/key?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAPLACEHOLDER%2F20250101%2Fus-east-1%2Fs3%2Faws4_request\
         &X-Amz-Date={date}&X-Amz-Expires=60&X-Amz-SignedHeaders=host&X-Amz-Signature={}",
        "0".repeat(64)
    );
    let cases: Vec<(&str, String, Vec<String>)> = vec![
        ("presigned", presigned, vec![]),
        (
            "chunked",
            "/bucket/key".into(),
            vec![
                credential("s3", "us-east-1"),
                date_field.clone(),
                "X-Amz-Content-Sha256: STREAMING-AWS4-HMAC-SHA256-PAYLOAD".into(),
            ],
        ),
        (
            "another service",
            "/bucket/key".into(),
            vec![
                credential("iam", "us-east-1"),
                date_field.clone(),
                sha.clone(),
            ],
        ),
        (
            "another region",
            "/bucket/key".into(),
            vec![
                credential("s3", "eu-west-1"),
                date_field.clone(),
                sha.clone(),
            ],
        ),
        ("no signature", "/bucket/key".into(), vec![]),
    ];
    for (what, path, fields) in cases {
        let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
        let mut tunnel = stack.tunnel("s3.us-east-1.amazonaws.com", &token).await;
        let reply = tunnel.request("GET", &path, &fields, b"").await.unwrap();
        assert!(
            matches!(reply.status, 400 | 403),
            "{what}: {} {}",
            reply.status,
            reply.text()
        );
        assert_eq!(
            reply.field("content-type"),
            Some("application/problem+json"),
            "{what}"
        );
    }
    assert_eq!(stack.upstream.count(), 0);
    stack.finish().await;
}

#[tokio::test]
async fn a_body_too_large_to_hash_is_413_and_unsigned_it_passes() {
    let stack = Stack::start().await;
    let aws = aws(&stack, false, &json!({})).await;
    let token = stack.workflow_lease(&aws.access).await;
    let body = vec![7; (8 << 20) + 1];
    let scope = |service: &str, signed: &str| {
        format!(
            "Authorization: AWS4-HMAC-SHA256 Credential=AKIAPLACEHOLDER/20250101/us-east-1/{service}/aws4_request, \
             SignedHeaders=host;{signed}x-amz-date, Signature={}\r\nX-Amz-Date: 20250101T000000Z",
            "0".repeat(64)
        )
    };

    let mut tunnel = stack
        .tunnel("dynamodb.us-east-1.amazonaws.com", &token)
        .await;
    let head = format!(
        "POST / HTTP/1.1\r\nHost: dynamodb.us-east-1.amazonaws.com\r\n{}\r\nContent-Length: {}\r\n\r\n",
        scope("dynamodb", ""),
        body.len()
    );
    tunnel.wire.send(head).await.unwrap();
    tunnel
        .wire
        .reply("POST")
        .await
        .unwrap()
        .expect_refusal(413, "body_too_large");

    let unsigned =
        scope("s3", "x-amz-content-sha256;") + "\r\nX-Amz-Content-Sha256: UNSIGNED-PAYLOAD";
    let mut tunnel = stack.tunnel("s3.us-east-1.amazonaws.com", &token).await;
    tunnel
        .request("PUT", "/bucket/key", &[&unsigned], &body)
        .await
        .unwrap()
        .expect_status(200);

    assert_eq!(stack.upstream.last().body_length(), body.len() as u64);
    stack.finish().await;
}
