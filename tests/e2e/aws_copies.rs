//! What is copied is read: a lease that may not read an object does not copy it to where it may (threats.md B15).

use serde_json::{Value, json};

use crate::narrowing::narrow;
use crate::support::Stack;
use crate::support::aws::{Aws, dummy_signature};
use crate::support::canary::Canary;
use crate::support::wire::Reply;

const S3: &str = "s3.us-east-1.amazonaws.com";
const DATA: &str = "data.s3.us-east-1.amazonaws.com";
const OTHER: &str = "other.s3.us-east-1.amazonaws.com";
const GOOGLE: &str = "storage.googleapis.com";

async fn stack() -> Stack {
    Stack::builder()
        .host(DATA)
        .host(OTHER)
        .host(GOOGLE)
        .start()
        .await
}

/// A lease of a grant with these constraints.
async fn bound(stack: &Stack, constraints: Value) -> (Aws, String) {
    let grant = json!({ "constraints": constraints });
    let aws = Aws::grant(stack, false, &grant).await;
    let token = stack.workflow_lease(&aws.access).await;
    (aws, token)
}

/// A PUT that an SDK with placeholder keys would send.
async fn put(stack: &Stack, token: &str, host: &str, target: &str, fields: &[&str]) -> Reply {
    let signature = dummy_signature("s3", "us-east-1");
    let own = [signature.as_str(), "X-Amz-Content-Sha256: UNSIGNED-PAYLOAD"];
    let mut tunnel = stack.tunnel(host, token).await;
    tunnel
        .request("PUT", target, &[&own[..], fields].concat(), b"")
        .await
        .unwrap()
}

async fn copy(stack: &Stack, token: &str, host: &str, target: &str, source: &str) -> Reply {
    let field = format!("X-Amz-Copy-Source: {source}");
    put(stack, token, host, target, &[&field]).await
}

#[tokio::test]
async fn an_object_outside_the_paths_is_not_copied_into_them() {
    let stack = stack().await;
    let constraints = json!({ "paths": ["/public/**"], "aws": { "buckets": ["data"] } });
    let (aws, token) = bound(&stack, constraints).await;
    let to = "/public/copy";

    for source in [
        "data/public/a%20b",
        "/data/public/year=1/x?versionId=3.L4-_x",
        "data%2Fpublic%2Fx",
    ] {
        let reply = copy(&stack, &token, DATA, to, source).await;
        assert_eq!(reply.status, 200, "{source}: {}", reply.text());
    }
    let sent = stack.upstream.requests();
    aws.expect_signed(&sent).await;
    assert_eq!(sent[0].field("x-amz-copy-source"), "data/public/a%20b");

    for source in [
        "data/private/secret",
        "/data/private/secret",
        "data/priv%61te/secret?versionId=1",
        "data%2Fprivate%2Fsecret",
        "data/public%252Fsecret",
        "other/public/x",
        "arn:aws:s3:us-east-1:1:accesspoint/ap/object/public/x",
        "data/public/x?versionId=1&other",
        "data/public/a+b",
        "public/x",
    ] {
        let reply = copy(&stack, &token, DATA, to, source).await;
        assert_eq!(reply.status, 403, "{source}: {}", reply.text());
        reply.expect_refusal(403, "grant_denied");
    }
    let part = "/public/copy?partNumber=1&uploadId=u";
    let reply = copy(&stack, &token, DATA, part, "data/private/secret").await;
    let reply = reply.expect_refusal(403, "grant_denied");
    for said in [
        "x-amz-copy-source names data/private/secret",
        "path /private/secret is outside the grant",
        "claviger explain GET https://data.s3.us-east-1.amazonaws.com/private/secret",
    ] {
        assert!(reply.text().contains(said), "{}", reply.text());
    }
    let rename = ["X-Amz-Rename-Source: /data/private/secret"];
    put(&stack, &token, DATA, "/public/x?renameObject", &rename)
        .await
        .expect_refusal(403, "grant_denied");
    let dots = copy(&stack, &token, DATA, to, "data/../x").await;
    dots.expect_refusal(400, "ambiguous_request");
    assert_eq!(stack.upstream.count(), 3);
    stack.finish().await;
}

#[tokio::test]
async fn a_source_is_told_once_and_in_its_one_spelling() {
    let stack = stack().await;
    let (_, token) = bound(&stack, json!({ "paths": ["/public/**"] })).await;
    let inside = "X-Amz-Copy-Source: data/public/x";
    for (target, fields) in [
        ("/public/copy", &[inside, inside][..]),
        (
            "/public/copy",
            &[inside, "X-Goog-Copy-Source: data/private/x"],
        ),
        ("/public/copy", &["X_Amz_Copy_Source: data/public/x"]),
        (
            "/public/copy?x-amz-copy-source=data%2Fpublic%2Fx",
            &[inside],
        ),
    ] {
        put(&stack, &token, DATA, target, fields)
            .await
            .expect_refusal(400, "ambiguous_request");
    }
    let in_query = "/public/copy?X-Amz-Copy-Source=data%2Fprivate%2Fx";
    let reply = put(&stack, &token, DATA, in_query, &[]).await;
    reply.expect_refusal(403, "grant_denied");
    assert_eq!(stack.upstream.count(), 0);
    stack.finish().await;
}

#[tokio::test]
async fn another_bucket_is_a_source_only_where_its_host_and_path_are_allowed() {
    let stack = stack().await;
    let constraints = json!({ "hosts": [DATA], "paths": ["/public/**"] });
    let (_, one) = bound(&stack, constraints).await;
    let reply = copy(&stack, &one, DATA, "/public/x", "other/public/x").await;
    let reply = reply.expect_refusal(403, "grant_denied");
    assert!(
        reply.text().contains("host other.s3.us-east-1"),
        "{}",
        reply.text()
    );
    copy(&stack, &one, DATA, "/public/x", "data/public/y")
        .await
        .expect_status(200);
    stack.finish().await;

    let stack = self::stack().await;
    let (_, both) = bound(&stack, json!({ "hosts": [DATA, OTHER] })).await;
    copy(&stack, &both, DATA, "/x", "other/y")
        .await
        .expect_status(200);
    copy(&stack, &both, DATA, "/x", "third/y")
        .await
        .expect_refusal(403, "grant_denied");
    stack.finish().await;

    let stack = self::stack().await;
    let (_, by_path) = bound(&stack, json!({ "paths": ["/data/public/**"] })).await;
    copy(&stack, &by_path, S3, "/data/public/x", "data/public/y")
        .await
        .expect_status(200);
    for source in ["data/private/y", "other/public/y"] {
        copy(&stack, &by_path, S3, "/data/public/x", source)
            .await
            .expect_refusal(403, "grant_denied");
    }
    assert_eq!(stack.upstream.count(), 1);
    stack.finish().await;
}

#[tokio::test]
async fn a_lease_that_was_narrowed_offline_is_asked_for_the_source_too() {
    let stack = stack().await;
    let (_, token) = bound(&stack, json!({})).await;
    let paths = narrow(&stack, &token, &["--path", "/public/**"]).await;
    let hosts = narrow(&stack, &token, &["--host", DATA]).await;
    let reads = narrow(&stack, &paths, &["--method", "PUT"]).await;

    // A lease that is bound to nothing copies as before.
    copy(&stack, &token, DATA, "/public/x", "other/private/y")
        .await
        .expect_status(200);
    copy(&stack, &paths, DATA, "/public/x", "data/public/y")
        .await
        .expect_status(200);
    for (lease, source) in [
        (&paths, "data/private/y"),
        (&paths, "arn:aws:s3:us-east-1:1:accesspoint/ap/object/k"),
        (&hosts, "other/y"),
        (&reads, "data/public/y"),
    ] {
        let reply = copy(&stack, lease, DATA, "/public/x", source).await;
        let code = if source.starts_with("arn") {
            "grant_denied"
        } else {
            "lease_scope"
        };
        reply.expect_refusal(403, code);
    }
    assert_eq!(stack.upstream.count(), 2);
    stack.finish().await;
}

#[tokio::test]
async fn a_body_names_objects_only_where_the_paths_hold_all_of_them() {
    for (paths, status) in [
        (json!(["/", "/public/**"]), 403),
        (json!(["/", "/**"]), 200),
    ] {
        let stack = stack().await;
        let (_, token) = bound(&stack, json!({ "paths": paths })).await;
        let signature = dummy_signature("s3", "us-east-1");
        for target in ["/?delete", "/public/?delete", "/"] {
            let mut tunnel = stack.tunnel(DATA, &token).await;
            let fields = [signature.as_str(), "X-Amz-Content-Sha256: UNSIGNED-PAYLOAD"];
            let body = b"<Delete><Object><Key>private/x</Key></Object></Delete>";
            let reply = tunnel.request("POST", target, &fields, body).await.unwrap();
            assert_eq!(reply.status, status, "{target}: {}", reply.text());
            if status == 403 {
                let reply = reply.expect_refusal(403, "grant_denied");
                assert!(reply.text().contains("whose paths hold /**"));
            }
        }
        stack.finish().await;
    }
}

#[tokio::test]
async fn a_copy_takes_the_actions_of_its_source() {
    let stack = stack().await;
    let actions = json!(["s3:GetObject", "s3:PutObject"]);
    let aws = json!({ "aws": { "actions": actions, "buckets": ["data"] } });
    let (_, token) = bound(&stack, aws).await;
    let plain = copy(&stack, &token, DATA, "/x", "data/y").await;
    plain.expect_status(200);
    let version = copy(&stack, &token, DATA, "/x", "data/y?versionId=1").await;
    let version = version.expect_refusal(403, "grant_denied");
    assert!(version.text().contains("s3:GetObjectVersion"));
    let in_query = "/x?x-amz-copy-source=other%2Fy";
    put(&stack, &token, DATA, in_query, &[])
        .await
        .expect_refusal(403, "grant_denied");
    assert_eq!(stack.upstream.count(), 1);
    stack.finish().await;
}

#[tokio::test]
async fn a_copy_within_google_cloud_storage_is_decided_alike() {
    let stack = stack().await;
    let secret = stack.watch(Canary::with_symbols("google"));
    let custom = json!({
        "hosts": [GOOGLE], "inject": [{ "header": "authorization", "value": "Bearer ${TOKEN}" }],
    });
    let entries = json!({ "TOKEN": secret.text() });
    let set = stack.put_custom_set("gcs", &entries, &custom).await;
    let (agent, agent_key) = stack.agent("gcs-agent").await;
    let grant = json!({ "constraints": { "paths": ["/bkt-a/**"] } });
    let grant = stack.grant(&agent, &set, &grant).await;
    let access = crate::support::Access {
        set,
        agent,
        agent_key,
        grant,
        secret,
    };
    let token = stack.workflow_lease(&access).await;
    let mut tunnel = stack.tunnel(GOOGLE, &token).await;
    for (field, source, status) in [
        ("x-goog-copy-source", "/bkt-a/y", 200),
        ("x-goog-copy-source", "/bkt-b/secret", 403),
        ("x-goog-copy-source", "bkt-b%2Fsecret", 403),
        ("x-amz-copy-source", "/bkt-b/secret", 403),
    ] {
        let field = format!("{field}: {source}");
        let reply = tunnel
            .request("PUT", "/bkt-a/x", &[&field], b"")
            .await
            .unwrap();
        assert_eq!(reply.status, status, "{field}: {}", reply.text());
    }
    assert_eq!(stack.upstream.count(), 1);
    stack.finish().await;
}
