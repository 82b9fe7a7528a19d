//! AWS: the agent signs with a placeholder, the injector signs again, and botocore says whether it did so rightly.

use serde_json::{Value, json};

use crate::support::Stack;
use crate::support::aws::{Aws, ask, python, script};

/// Sends `calls` by an agent that has botocore and placeholders, and checks each signature at the upstream.
async fn expect_signed(with_session: bool, service: &str, calls: Value, grant: &Value) {
    let stack = Stack::start().await;
    let aws = Aws::grant(&stack, with_session, grant).await;
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

    let statuses = ask(command, &calls).await;

    assert_eq!(statuses, json!(vec![200; count]));
    let requests = stack.upstream.requests();
    assert_eq!(requests.len(), count);
    aws.expect_signed(&requests).await;
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
    expect_signed(false, "dynamodb", calls, &json!({})).await;
}

#[tokio::test]
async fn queries_and_odd_paths_are_signed_as_botocore_signs_them() {
    let host = "https://sts.us-east-1.amazonaws.com";
    let calls = json!([
        { "method": "GET", "url": format!("{host}/?Action=GetCallerIdentity&Version=2011-06-15"), "headers": {}, "body": "" },
        { "method": "GET", "url": format!("{host}/a%20b/%E2%82%AC?z=1&a=2&a=1&empty=&sp=%20x"), "headers": {}, "body": "" },
        { "method": "POST", "url": format!("{host}/"), "headers": { "content-type": "application/x-www-form-urlencoded" }, "body": "Action=GetCallerIdentity&Version=2011-06-15" },
    ]);
    // An action that is in none of its places is one that may hand out credentials.
    let grant = json!({ "constraints": { "aws": { "actions": ["sts:*"] } } });
    expect_signed(false, "sts", calls, &grant).await;
}

#[tokio::test]
async fn names_with_slashes_in_a_path_are_signed_as_botocore_signs_them() {
    let stack = Stack::builder()
        .host("bedrock-runtime.us-east-1.amazonaws.com")
        .host("eks.us-east-1.amazonaws.com")
        .start()
        .await;
    let model =
        "/model/arn%3Aaws%3Abedrock%3Aus-east-1%3A1%3Aapplication-inference-profile%2Fabc/invoke";
    let entry = "/clusters/c/access-entries/arn%3Aaws%3Aiam%3A%3A123456789012%3Arole%2F%2Fadmin";
    // A `*` is one segment, with the slashes that are escaped in it.
    let grant =
        json!({ "constraints": { "paths": ["/model/*/invoke", "/clusters/c/access-entries/*"] } });
    let aws = Aws::grant(&stack, false, &grant).await;
    let token = stack.workflow_lease(&aws.access).await;
    for (service, host, method, path) in [
        ("bedrock", "bedrock-runtime", "POST", model),
        ("eks", "eks", "GET", entry),
    ] {
        let host = format!("{host}.us-east-1.amazonaws.com");
        let signature = crate::support::aws::dummy_signature(service, "us-east-1");
        let mut tunnel = stack.tunnel(&host, &token).await;
        let reply = tunnel.request(method, path, &[&signature], b"").await;
        reply.unwrap().expect_status(200);
        for (path, status, code) in [
            (
                "/clusters/c/access-entries/a%2F..%2Fb",
                400,
                "ambiguous_request",
            ),
            ("/clusters%2Fc/access-entries/a", 403, "grant_denied"),
            ("/model/a/b/invoke", 403, "grant_denied"),
        ] {
            let reply = tunnel.request(method, path, &[&signature], b"").await;
            reply.unwrap().expect_refusal(status, code);
        }
    }
    let requests = stack.upstream.requests();
    let sent: Vec<&str> = requests.iter().map(|it| it.target.as_str()).collect();
    assert_eq!(sent, [model, entry]);
    aws.expect_signed(&requests).await;
    stack.finish().await;
}

#[tokio::test]
async fn s3_with_a_session_token_is_signed_as_botocore_signs_it() {
    let host = "https://s3.us-east-1.amazonaws.com";
    let calls = json!([
        { "method": "GET", "url": format!("{host}/bucket/key%20with%20blank?list-type=2&prefix=a"), "headers": {}, "body": "" },
        { "method": "PUT", "url": format!("{host}/bucket/key"), "headers": { "x-amz-meta-own": "kept" }, "body": "contents" },
        { "method": "PUT", "url": format!("{host}/bucket/unsigned"), "headers": { "x-amz-content-sha256": "UNSIGNED-PAYLOAD" }, "body": "contents" },
    ]);
    expect_signed(true, "s3", calls, &json!({})).await;
}

#[tokio::test]
async fn unknown_streams_and_foreign_scopes_are_refused() {
    let stack = Stack::start().await;
    let aws = Aws::grant(&stack, false, &json!({})).await;
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
            "a stream of events",
            "/bucket/key".into(),
            vec![
                credential("s3", "us-east-1"),
                date_field.clone(),
                "X-Amz-Content-Sha256: STREAMING-AWS4-HMAC-SHA256-EVENTS".into(),
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
    let aws = Aws::grant(&stack, false, &json!({})).await;
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
