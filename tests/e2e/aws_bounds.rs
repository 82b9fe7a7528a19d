//! What a grant says of AWS: services, regions, buckets, actions, presigned URLs, and credentials that are handed out.

use serde_json::{Value, json};

use crate::support::Stack;
use crate::support::aws::{Aws, dummy_signature};
use crate::support::wire::Reply;

const S3: &str = "s3.us-east-1.amazonaws.com";
const STS: &str = "sts.us-east-1.amazonaws.com";
const DYNAMODB: &str = "dynamodb.us-east-1.amazonaws.com";
const FORM: &str = "Content-Type: application/x-www-form-urlencoded";
const JSON: &str = "Content-Type: application/x-amz-json-1.0";

/// A request that an SDK with placeholder keys would send.
struct Call<'c> {
    host: &'c str,
    service: &'c str,
    method: &'c str,
    target: &'c str,
    fields: &'c [&'c str],
    body: &'c str,
}

impl<'c> Call<'c> {
    fn s3(method: &'c str, target: &'c str) -> Self {
        Self {
            host: S3,
            service: "s3",
            method,
            target,
            fields: &["X-Amz-Content-Sha256: UNSIGNED-PAYLOAD"],
            body: "",
        }
    }

    fn form(host: &'c str, service: &'c str, body: &'c str) -> Self {
        Self {
            host,
            service,
            method: "POST",
            target: "/",
            fields: &[FORM],
            body,
        }
    }

    async fn send(&self, stack: &Stack, token: &str) -> Reply {
        let signature = dummy_signature(self.service, "us-east-1");
        let fields: Vec<&str> = [&[signature.as_str()][..], self.fields].concat();
        let mut tunnel = stack.tunnel(self.host, token).await;
        let body = self.body.as_bytes();
        tunnel
            .request(self.method, self.target, &fields, body)
            .await
            .unwrap()
    }
}

/// A lease of a grant that says this of AWS.
async fn bound(stack: &Stack, aws: Value) -> (Aws, String) {
    let grant = json!({ "constraints": { "aws": aws } });
    let aws = Aws::grant(stack, false, &grant).await;
    let token = stack.workflow_lease(&aws.access).await;
    (aws, token)
}

async fn expect(stack: &Stack, token: &str, cases: &[(Call<'_>, Option<&str>)]) {
    for (call, refusal) in cases {
        let reply = call.send(stack, token).await;
        let what = format!(
            "{} {} {}: {}",
            call.method,
            call.target,
            call.body,
            reply.text()
        );
        match refusal {
            None => assert_eq!(reply.status, 200, "{what}"),
            Some(said) => {
                let code = if said.contains("two ways") {
                    (400, "ambiguous_request")
                } else {
                    (403, "grant_denied")
                };
                assert_eq!((reply.status, reply.code().as_str()), code, "{what}");
                assert!(reply.text().contains(said), "{what}");
                reply.expect_refusal(code.0, code.1);
            }
        }
    }
    let passed = cases
        .iter()
        .filter(|(_, refusal)| refusal.is_none())
        .count();
    assert_eq!(stack.upstream.count(), passed);
}

#[tokio::test]
async fn credentials_are_handed_out_only_where_the_grant_names_the_action() {
    let stack = Stack::builder().host("iam.amazonaws.com").start().await;
    let aws = Aws::grant(&stack, false, &json!({})).await;
    let token = stack.workflow_lease(&aws.access).await;
    let iam = |body| Call::form("iam.amazonaws.com", "iam", body);
    let mints = Some("hands out new credentials");
    let cases = [
        (Call::form(STS, "sts", "Action=GetCallerIdentity"), None),
        (Call::form(STS, "sts", "Action=AssumeRole&RoleArn=x"), mints),
        (Call::form(STS, "sts", "Version=2011-06-15"), mints),
        (
            Call {
                target: "/?Action=GetSessionToken",
                method: "GET",
                fields: &[],
                ..Call::form(STS, "sts", "")
            },
            mints,
        ),
        (
            Call {
                fields: &["Content-Type: text/plain"],
                ..Call::form(STS, "sts", "Action=GetCallerIdentity")
            },
            mints,
        ),
        (iam("Action=ListUsers"), None),
        (iam("Action=CreateAccessKey&UserName=root"), mints),
        (
            Call {
                target: "/?Action=ListUsers",
                ..iam("Action=CreateAccessKey")
            },
            Some("two ways"),
        ),
        (
            iam("Action=ListUsers&Action=CreateAccessKey"),
            Some("two ways"),
        ),
        (
            Call {
                fields: &[FORM, "X-Amz-Target: A.ListUsers"],
                ..iam("Action=CreateAccessKey")
            },
            Some("two ways"),
        ),
        (
            Call {
                fields: &[FORM, "X_Amz_Target: A.ListUsers"],
                ..iam("Action=CreateAccessKey")
            },
            Some("two ways"),
        ),
        (Call::s3("GET", "/bucket?session"), mints),
    ];
    expect(&stack, &token, &cases).await;
    stack.finish().await;

    let stack = Stack::start().await;
    let (_, token) = bound(&stack, json!({ "actions": ["sts:AssumeRole"] })).await;
    let cases = [
        (Call::form(STS, "sts", "Action=AssumeRole&RoleArn=x"), None),
        (
            Call::form(STS, "sts", "Action=GetSessionToken"),
            Some("outside the grant"),
        ),
        (Call::s3("GET", "/bucket/key"), Some("outside the grant")),
    ];
    expect(&stack, &token, &cases).await;
    stack.finish().await;
}

#[tokio::test]
async fn an_action_is_read_from_the_body_also_where_the_body_is_declared_unsigned() {
    let stack = Stack::start().await;
    let aws = Aws::grant(&stack, false, &json!({})).await;
    let token = stack.workflow_lease(&aws.access).await;
    let fields = &[FORM, "X-Amz-Content-Sha256: UNSIGNED-PAYLOAD"];
    let cases = [
        (
            Call {
                fields,
                ..Call::form(STS, "sts", "Action=GetCallerIdentity")
            },
            None,
        ),
        (
            Call {
                fields,
                ..Call::form(STS, "sts", "Action=AssumeRole")
            },
            Some("hands out"),
        ),
    ];
    expect(&stack, &token, &cases).await;
    let sent = stack.upstream.last();
    assert_eq!(sent.field("x-amz-content-sha256"), "UNSIGNED-PAYLOAD");
    assert_eq!(sent.body(), b"Action=GetCallerIdentity");
    stack.finish().await;
}

#[tokio::test]
async fn services_regions_buckets_and_actions_are_bounds() {
    let stack = Stack::builder()
        .host("data.s3.us-east-1.amazonaws.com")
        .host("other.s3.us-east-1.amazonaws.com")
        .start()
        .await;
    let (_, token) = bound(
        &stack,
        json!({ "services": ["s3", "dynamodb"], "regions": ["us-east-1"], "buckets": ["data"],
                "actions": ["s3:Get*", "s3:ListBucket", "dynamodb:GetItem"] }),
    )
    .await;
    let dynamodb = |fields: &'static [&'static str]| Call {
        fields,
        ..Call::form(DYNAMODB, "dynamodb", "{}")
    };
    let outside = Some("outside the grant");
    let at = |host, target| Call {
        host,
        ..Call::s3("GET", target)
    };
    let cases = [
        (Call::s3("GET", "/data/key"), None),
        (Call::s3("GET", "/data?list-type=2"), None),
        (at("data.s3.us-east-1.amazonaws.com", "/key"), None),
        (at("other.s3.us-east-1.amazonaws.com", "/data/key"), outside),
        (Call::s3("GET", "/other/key"), outside),
        (Call::s3("GET", "/data-2/key"), outside),
        (
            Call::s3("GET", "/"),
            Some("bucket of the request cannot be told"),
        ),
        (Call::s3("PUT", "/data/key"), outside),
        (Call::s3("DELETE", "/data/key"), outside),
        (
            Call::s3("GET", "/data/key?unheard"),
            Some("action of the request cannot be told"),
        ),
        (
            Call {
                fields: &[
                    "X-Amz-Content-Sha256: UNSIGNED-PAYLOAD",
                    "X-Amz-Copy-Source: other/key",
                ],
                ..Call::s3("GET", "/data/key")
            },
            outside,
        ),
        (
            dynamodb(&[JSON, "X-Amz-Target: DynamoDB_20120810.GetItem"]),
            None,
        ),
        (
            dynamodb(&[JSON, "X-Amz-Target: DynamoDB_20120810.PutItem"]),
            outside,
        ),
        (
            dynamodb(&[JSON]),
            Some("action of the request cannot be told"),
        ),
        (Call::form(STS, "sts", "Action=GetCallerIdentity"), outside),
    ];
    expect(&stack, &token, &cases).await;
    stack.finish().await;

    let stack = Stack::start().await;
    let (_, token) = bound(&stack, json!({ "regions": ["eu-west-1"] })).await;
    expect(&stack, &token, &[(Call::s3("GET", "/data/key"), outside)]).await;
    stack.finish().await;
}

/// The query of a presigned URL, signed `ago` seconds before now for this long.
fn presigned(ago: i64, expires: u32) -> String {
    let now = time::OffsetDateTime::now_utc() - time::Duration::seconds(ago);
    let format = time::macros::format_description!("[year][month][day]T[hour][minute][second]Z");
    let date = now.format(&format).unwrap();
    format!(
        "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAPLACEHOLDER%2F{}%2Fus-east-1%2Fs3%2Faws4_request\
         &X-Amz-Date={date}&X-Amz-Expires={expires}&X-Amz-SignedHeaders=host&X-Amz-Security-Token=agents\
         &X-Amz-Signature={}",
        &date[..8],
        "0".repeat(64)
    )
}

#[tokio::test]
async fn a_presigned_url_passes_signed_by_header_where_the_grant_says_so() {
    let stack = Stack::start().await;
    let (aws, token) = bound(&stack, json!({ "presigned": true })).await;
    let mut tunnel = stack.tunnel(S3, &token).await;

    let target = format!(
        "/data/a%20b?versionId=1&{}&x-id=GetObject",
        presigned(0, 60)
    );
    tunnel.get(&target).await.expect_status(200);
    let put = format!("/data/up?{}", presigned(0, 60));
    tunnel
        .request("PUT", &put, &[], b"contents")
        .await
        .unwrap()
        .expect_status(200);

    let requests = stack.upstream.requests();
    assert_eq!(requests[0].target, "/data/a%20b?versionId=1&x-id=GetObject");
    assert_eq!(requests[1].target, "/data/up");
    assert_eq!(
        requests[1].field("x-amz-content-sha256"),
        "UNSIGNED-PAYLOAD"
    );
    assert_eq!(requests[1].body(), b"contents");
    aws.expect_signed(&requests).await;

    for (what, query) in [
        ("over", presigned(120, 60)),
        ("to come", presigned(-3600, 7200)),
    ] {
        let reply = tunnel.get(&format!("/data/key?{query}")).await;
        let reply = reply.expect_refusal(403, "grant_denied");
        assert!(reply.text().contains("not good at this time"), "{what}");
    }
    for (what, query) in [
        ("two signatures", presigned(0, 60) + "&x-amz-signature=00"),
        ("no bound", presigned(0, 604_801)),
    ] {
        let reply = tunnel.get(&format!("/data/key?{query}")).await;
        assert_eq!(reply.code(), "ambiguous_request", "{what}");
    }
    assert_eq!(stack.upstream.count(), 2);
    stack.finish().await;
}

#[tokio::test]
async fn a_presigned_url_is_refused_without_the_grants_word() {
    let stack = Stack::start().await;
    let (_, token) = bound(&stack, json!({ "services": ["s3"] })).await;
    let reply = stack
        .get(S3, &format!("/data/key?{}", presigned(0, 60)), &token)
        .await;
    let reply = reply.expect_refusal(403, "grant_denied");
    assert!(reply.text().contains("aws.presigned"), "{}", reply.text());
    assert_eq!(stack.upstream.count(), 0);
    stack.finish().await;
}

#[tokio::test]
async fn version_4a_is_signed_with_the_derived_key_and_the_agents_set_of_regions() {
    const MRAP: &str = "alias.mrap.accesspoint.s3-global.amazonaws.com";
    let stack = Stack::builder().host(MRAP).start().await;
    let aws = Aws::grant(&stack, true, &json!({})).await;
    let token = stack.workflow_lease(&aws.access).await;
    let authorization = format!(
        "Authorization: AWS4-ECDSA-P256-SHA256 Credential=AKIAPLACEHOLDER/20250101/s3/aws4_request, \
         SignedHeaders=host;x-amz-date;x-amz-region-set, Signature={}\r\nX-Amz-Date: 20250101T000000Z",
        "30".repeat(71)
    );
    let sha = "X-Amz-Content-Sha256: UNSIGNED-PAYLOAD";
    let mut tunnel = stack.tunnel(MRAP, &token).await;
    let mut put = async |set: &str| {
        let set = format!("X-Amz-Region-Set: {set}");
        let fields = [authorization.as_str(), sha, set.as_str()];
        tunnel
            .request("PUT", "/a%20b/c?x-id=PutObject", &fields, b"contents")
            .await
            .unwrap()
    };

    put("us-east-1").await.expect_status(200);
    // The set is for us-east-1, and what is asked for is every region.
    put("*").await.expect_refusal(403, "grant_denied");

    let sent = stack.upstream.requests();
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].field("x-amz-region-set"), "us-east-1");
    aws.expect_signed(&sent).await;
    stack.finish().await;
}

#[tokio::test]
async fn keys_of_s3_are_signed_and_sent_as_they_stand() {
    let stack = Stack::start().await;
    let grant = json!({ "constraints": { "paths": ["/data/**"] } });
    let aws = Aws::grant(&stack, false, &grant).await;
    let token = stack.workflow_lease(&aws.access).await;
    let targets = [
        "/data/a//b",
        "/data/./a",
        "/data/a/../b",
        "/data/a/./../b//",
        "/data/with%20blank/plus+and%2Bplus",
        "/data/%E2%82%AC/~!'()*@:,=&$;x",
        "/data/key?prefix=a%2Fb%20c&empty=&x",
        "/data/ts=2020%252000%253A00/%252e%252E/%252F",
    ];
    for target in targets {
        Call::s3("GET", target)
            .send(&stack, &token)
            .await
            .expect_status(200);
    }
    let requests = stack.upstream.requests();
    let sent: Vec<&str> = requests
        .iter()
        .map(|request| request.target.as_str())
        .collect();
    assert_eq!(sent, targets);
    aws.expect_signed(&requests).await;
    for target in [
        "/data/../other/key",
        "/data/a/../../key",
        "//data/key",
        "/data/%2e%2e/key",
        "/data/a%2Fb",
        "/data/%2525%5Cb",
    ] {
        let reply = Call::s3("GET", target).send(&stack, &token).await;
        assert!(
            matches!(reply.status, 400 | 403),
            "{target}: {}",
            reply.text()
        );
    }
    assert_eq!(stack.upstream.count(), targets.len());
    stack.finish().await;
}

#[tokio::test]
async fn the_bounds_are_given_on_the_command_line_and_shown() {
    let stack = Stack::start().await;
    let aws = Aws::grant(&stack, false, &json!({})).await;
    let set = "aws/test/aws-bot";
    let ran = stack
        .cli(&[
            "grant",
            "create",
            "--agent",
            &aws.access.agent,
            "--set",
            set,
            "--aws-bucket",
            "data,logs-*",
            "--aws-action",
            "s3:Get*,iam:CreateAccessKey",
            "--aws-presigned",
            "--json",
        ])
        .await
        .expect_success();
    let grant: Value = serde_json::from_str(&ran.stdout).unwrap();
    let expected = json!({
        "buckets": ["data", "logs-*"], "actions": ["s3:Get*", "iam:CreateAccessKey"], "presigned": true,
    });
    assert_eq!(grant["constraints"]["aws"], expected);
    assert!(
        grant["warnings"]
            .to_string()
            .contains("iam:CreateAccessKey"),
        "{grant}"
    );
    let listed = stack.cli(&["grant", "list"]).await.expect_success();
    assert!(listed.stdout.contains("logs-*"), "{}", listed.stdout);
    let refused = stack
        .cli(&[
            "grant",
            "create",
            "--agent",
            &aws.access.agent,
            "--set",
            set,
            "--aws-action",
            "*",
        ])
        .await;
    assert_eq!(refused.status, Some(1));
    assert!(
        refused.stderr.contains("aws.actions[0]"),
        "{}",
        refused.stderr
    );
    stack.finish().await;
}
