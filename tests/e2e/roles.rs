//! Roles of AWS: the set's key is exchanged for a session's credentials, which sign the agent's requests and which no agent
//! sees; what STS turns down, or answers oddly, is a clear refusal.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::process::Command;

use crate::support::aws::{Aws, ask, dummy_signature, python, script};
use crate::support::canary::{Canary, random_text};
use crate::support::token_endpoint::{Asked, Said};
use crate::support::tunnel::Tunnel;
use crate::support::upstream::Recorded;
use crate::support::{Access, Reply, Stack, wait};

const S3: &str = "s3.us-east-1.amazonaws.com";
const STS: &str = "sts.us-east-1.amazonaws.com";
const ROLE: &str = "arn:aws:iam::123456789012:role/reports";
const UNSIGNED: &str = "X-Amz-Content-Sha256: UNSIGNED-PAYLOAD";

/// A set whose key assumes a role, at an STS of ours.
struct Scene {
    stack: Stack,
    /// The key of the set.
    stored: Aws,
}

impl Scene {
    async fn start(grant: &Value) -> Self {
        let stack = Stack::builder().token_endpoint(STS).start().await;
        let secret = stack.watch(Canary::with_symbols("aws"));
        let key_id = key_id("AKIA");
        let entries = json!({
            "AWS_ACCESS_KEY_ID": key_id, "AWS_SECRET_ACCESS_KEY": secret.text(), "AWS_REGION": "us-east-1",
            "AWS_ROLE_ARN": ROLE, "AWS_ROLE_EXTERNAL_ID": "acme-7",
        });
        let access = stack.access("aws", &entries, &secret, grant).await;
        let stored = Aws {
            access,
            key_id,
            session: None,
        };
        Self { stack, stored }
    }

    async fn lease(&self) -> String {
        self.stack.workflow_lease(&self.stored.access).await
    }

    /// Makes a new version of the set, with the same key.
    async fn store_again(&self) {
        let Access { set, secret, .. } = &self.stored.access;
        let path = format!("/v1/vault/secret-sets/{set}");
        let entries = json!({ "entries": { "AWS_SECRET_ACCESS_KEY": secret.text() } });
        let stored = self.stack.admin().put(&path, &entries).await;
        stored.expect_status(200);
    }

    /// Credentials of a session that nobody but STS and the injector knows.
    fn session(&self) -> Aws {
        let key_id = key_id("ASIA");
        self.stack.mark(&key_id);
        let secret = self.stack.watch(Canary::with_symbols("session-key"));
        Aws {
            access: Access {
                secret,
                ..self.stored.access.clone()
            },
            key_id,
            session: Some(self.stack.watch(Canary::with_symbols("session-token"))),
        }
    }

    /// `GET` of an object; the agent's SDK signs with placeholders.
    async fn get(&self, tunnel: &mut Tunnel) -> Reply {
        let signature = dummy_signature("s3", "us-east-1");
        let fields = [signature.as_str(), UNSIGNED];
        tunnel
            .request("GET", "/reports/a", &fields, b"")
            .await
            .unwrap()
    }

    async fn makings(&self) -> Vec<Value> {
        let events = self.stack.events().await;
        events
            .into_iter()
            .filter(|event| event["action"] == "credential.make")
            .collect()
    }
}

fn key_id(prefix: &str) -> String {
    let rest = random_text(16, b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567");
    format!("{prefix}{rest}")
}

/// STS's answer with these credentials, good for so many seconds.
fn given(session: &Aws, seconds: i64) -> String {
    let ends = OffsetDateTime::now_utc() + time::Duration::seconds(seconds);
    let ends = ends
        .replace_nanosecond(0)
        .unwrap()
        .format(&Rfc3339)
        .unwrap();
    format!(
        "<AssumeRoleResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><AssumeRoleResult><AssumedRoleUser>\
         <AssumedRoleId>AROAEXAMPLE:claviger</AssumedRoleId></AssumedRoleUser><Credentials>\
         <AccessKeyId>{}</AccessKeyId><SecretAccessKey>{}</SecretAccessKey><SessionToken>{}</SessionToken>\
         <Expiration>{ends}</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>",
        session.key_id,
        session.access.secret.text(),
        session.session.as_ref().unwrap().text(),
    )
}

fn xml(status: &str, body: &str) -> Said {
    let length = body.len();
    Said::Raw(
        format!(
            "HTTP/1.1 {status}\r\ncontent-type: text/xml\r\ncontent-length: {length}\r\n\r\n{body}"
        )
        .into_bytes(),
    )
}

fn form(asked: &Asked) -> BTreeMap<String, String> {
    let pairs = asked
        .body
        .split('&')
        .filter_map(|pair| pair.split_once('='));
    pairs
        .map(|(name, value)| {
            let value = percent_encoding::percent_decode_str(value)
                .decode_utf8()
                .unwrap();
            (name.to_owned(), value.into_owned())
        })
        .collect()
}

/// Checks with botocore that a question was signed with the set's own key.
async fn expect_asked_by(stored: &Aws, asked: &Asked) {
    let authorization = asked.field("authorization").unwrap();
    let call = json!([{
        "method": "POST",
        "url": format!("https://{STS}/"),
        "headers": { "content-type": asked.field("content-type") },
        "body": STANDARD.encode(&asked.body),
        "date": asked.field("x-amz-date"),
        "key_id": stored.key_id,
        "secret": stored.access.secret.text(),
        "session": null,
        "region": "us-east-1",
        "service": "sts",
        "authorization": authorization,
    }]);
    let mut command = Command::new(python());
    command.arg(script("sigv4_oracle.py"));
    let expected = ask(command, &call).await;
    assert_eq!(expected[0], authorization);
}

#[tokio::test]
async fn a_role_is_assumed_once_and_its_session_signs() {
    let scene = Scene::start(&json!({})).await;
    let stack = &scene.stack;
    let session = scene.session();
    let answer = given(&session, 3600);
    stack.tokens().says(xml("200 OK", &answer));
    let token = scene.lease().await;

    let mut tunnels = Vec::new();
    for _ in 0..24 {
        tunnels.push(stack.tunnel(S3, &token).await);
    }
    let all = tunnels.iter_mut().map(|tunnel| scene.get(tunnel));
    for reply in futures::future::join_all(all).await {
        reply.expect_status(200);
    }

    let asked = stack.tokens().asked();
    assert_eq!(asked.len(), 1);
    assert!(
        asked[0].head.starts_with("POST / HTTP/1.1\r\n"),
        "{}",
        asked[0].head
    );
    assert_eq!(asked[0].field("host"), Some(STS));
    let form = form(&asked[0]);
    assert_eq!(form["Action"], "AssumeRole");
    assert_eq!(form["RoleArn"], ROLE);
    assert_eq!(form["ExternalId"], "acme-7");
    assert!(!form.contains_key("Policy"));
    expect_asked_by(&scene.stored, &asked[0]).await;
    let requests = stack.upstream.requests();
    assert_eq!(requests.len(), 24);
    session.expect_signed(&requests).await;

    let makings = scene.makings().await;
    assert_eq!(makings.len(), 1, "{makings:#?}");
    assert_eq!(makings[0]["host"], STS);
    let keys = makings[0]["keys"].as_array().unwrap();
    assert!(
        keys.contains(&json!("AWS_ROLE_ARN")) && keys.contains(&json!("AWS_ROLE_SESSION")),
        "{keys:?}"
    );
    scene.stack.finish().await;
}

#[tokio::test]
async fn nothing_of_a_session_comes_back_to_the_agent() {
    let scene = Scene::start(&json!({})).await;
    let stack = &scene.stack;
    let session = scene.session();
    stack.tokens().says(xml("200 OK", &given(&session, 3600)));
    let token = scene.lease().await;
    let mut tunnel = stack.tunnel(S3, &token).await;
    let signature = dummy_signature("s3", "us-east-1");
    let fields = [signature.as_str(), UNSIGNED];
    let reply = tunnel.request("GET", "/echo", &fields, b"").await.unwrap();
    let reply = reply.expect_status(200);
    assert!(reply.text().contains("****"), "{}", reply.text());
    for part in [&session.key_id, session.session.as_ref().unwrap().text()] {
        assert!(!reply.text().contains(part), "{}", reply.text());
    }
    scene.stack.finish().await;
}

#[tokio::test]
async fn a_session_is_renewed_ahead_of_its_end() {
    let scene = Scene::start(&json!({})).await;
    let stack = &scene.stack;
    let sessions: Arc<Vec<Aws>> = Arc::new((0..40).map(|_| scene.session()).collect());
    let mut next = 0;
    let giving = Arc::clone(&sessions);
    stack.tokens().answers(move |_| {
        next += 1;
        xml("200 OK", &given(&giving[next - 1], 8))
    });
    let token = scene.lease().await;
    let mut tunnel = stack.tunnel(S3, &token).await;

    wait::until("a third session", async || {
        scene.get(&mut tunnel).await.expect_status(200);
        (stack.tokens().asked().len() >= 3).then_some(())
    })
    .await;

    for pair in stack.tokens().asked().windows(2) {
        let between = pair[1].at - pair[0].at;
        assert!(between < Duration::from_secs(8), "{between:?}");
    }
    let requests = stack.upstream.requests();
    let signed_by = |session: &&Aws| {
        let is_by = |request: &&Arc<Recorded>| {
            let authorization = request.field("authorization");
            authorization.contains(&session.key_id)
        };
        requests.iter().filter(is_by).cloned().collect::<Vec<_>>()
    };
    let by_each: Vec<_> = sessions.iter().map(|one| signed_by(&one)).collect();
    let all: usize = by_each.iter().map(Vec::len).sum();
    assert_eq!(all, requests.len());
    for (session, mine) in sessions.iter().zip(&by_each) {
        session
            .expect_signed(&mine[mine.len().saturating_sub(1)..])
            .await;
    }
    scene.stack.finish().await;
}

#[tokio::test]
async fn a_role_that_is_denied_and_an_odd_answer_are_clear_refusals() {
    let scene = Scene::start(&json!({})).await;
    let stack = &scene.stack;
    let session = scene.session();
    let good = given(&session, 3600);
    let error = |code: &str| {
        let text = session.access.secret.text();
        format!(
            "<ErrorResponse><Error><Code>{code}</Code><Message>{text}</Message></Error></ErrorResponse>"
        )
    };
    let bomb = format!(
        "<!DOCTYPE lolz [<!ENTITY a \"aaaaaaaaaa\"><!ENTITY b \"&a;&a;&a;&a;&a;&a;&a;&a;\">]>{}",
        good.replace("<SessionToken>", "<SessionToken>&b;")
    );
    let outside = format!("<!DOCTYPE a SYSTEM \"file:///etc/passwd\">{good}");
    let huge = good.replace(
        "<SessionToken>",
        &format!("<SessionToken>{}", "x".repeat(80 * 1024)),
    );
    let twice = good.replace("</AssumeRoleResult>", "<Credentials/></AssumeRoleResult>");
    let token = scene.lease().await;
    let cases = [
        (
            xml("403 Forbidden", &error("AccessDenied")),
            "refuses the stored credential (AccessDenied)",
        ),
        (
            xml("400 Bad Request", &error("Odd")),
            "refuses the stored credential (status 400)",
        ),
        (xml("400 Bad Request", &error("Throttling")), "status 400"),
        (xml("200 OK", &bomb), "not the XML of a session"),
        (xml("200 OK", &outside), "not the XML of a session"),
        (xml("200 OK", &huge), "longer than 65536 bytes"),
        (xml("200 OK", &twice), "not the XML of a session"),
        (
            xml("200 OK", &good[..good.len() / 2]),
            "not the XML of a session",
        ),
        (
            xml("200 OK", &good.replace("<Expiration>", "<Expiration>x")),
            "not the XML of a session",
        ),
        (
            Said::Json(200, json!({ "Credentials": {} })),
            "not the XML of a session",
        ),
        (xml("307 Elsewhere", ""), "a redirect (status 307)"),
    ];
    let count = cases.len();
    for (said, why) in cases {
        stack.tokens().says(said);
        // An endpoint that failed is left alone for a while, but not for another version of the set.
        scene.store_again().await;
        let reply = scene.get(&mut stack.tunnel(S3, &token).await).await;
        let detail = reply.json()["detail"].as_str().unwrap().to_owned();
        reply.expect_refusal(503, "key_unavailable");
        assert!(
            detail.contains(STS) && detail.contains(why),
            "{why}: {detail}"
        );
    }
    assert_eq!(stack.upstream.count(), 0);
    let failures = scene.makings().await;
    let failures = failures.iter().filter(|event| event["decision"] == "deny");
    assert_eq!(failures.count(), count);

    stack.tokens().says(xml("200 OK", &given(&session, 3600)));
    scene.store_again().await;
    let mut tunnel = stack.tunnel(S3, &token).await;
    scene.get(&mut tunnel).await.expect_status(200);
    scene.stack.finish().await;
}

#[tokio::test]
async fn an_agent_that_asks_sts_itself_is_refused() {
    let scene = Scene::start(&json!({})).await;
    let stack = &scene.stack;
    let session = scene.session();
    stack.tokens().says(xml("200 OK", &given(&session, 3600)));
    let token = scene.lease().await;
    let signature = dummy_signature("sts", "us-east-1");
    let fields = [
        signature.as_str(),
        "Content-Type: application/x-www-form-urlencoded",
    ];
    for body in [
        format!("Action=AssumeRole&Version=2011-06-15&RoleSessionName=x&RoleArn={ROLE}"),
        "Action=GetSessionToken&Version=2011-06-15".to_owned(),
        "Action=GetFederationToken&Version=2011-06-15&Name=x".to_owned(),
    ] {
        let mut tunnel = stack.tunnel(STS, &token).await;
        let reply = tunnel
            .request("POST", "/", &fields, body.as_bytes())
            .await
            .unwrap();
        assert!(
            reply.text().contains("hands out new credentials"),
            "{}",
            reply.text()
        );
        reply.expect_refusal(403, "grant_denied");
    }
    // What STS heard are our own questions, by the stored key.
    for asked in stack.tokens().asked() {
        expect_asked_by(&scene.stored, &asked).await;
        assert_eq!(form(&asked)["RoleSessionName"], "claviger");
    }
    scene.stack.finish().await;
}

#[tokio::test]
async fn each_grant_has_a_session_of_its_own_limits() {
    let bounds =
        json!({ "constraints": { "aws": { "buckets": ["reports"], "actions": ["s3:Get*"] } } });
    let scene = Scene::start(&bounds).await;
    let stack = &scene.stack;
    let sessions: Vec<Aws> = (0..2).map(|_| scene.session()).collect();
    let answers: Vec<String> = sessions.iter().map(|one| given(one, 3600)).collect();
    let narrowed = answers[0].clone();
    let (narrow, wide) = (narrowed, answers[1].clone());
    stack.tokens().answers(move |asked| {
        let is_narrow = form(asked).contains_key("Policy");
        xml("200 OK", if is_narrow { &narrow } else { &wide })
    });
    let (agent, _) = stack.agent("other").await;
    stack
        .grant(&agent, &scene.stored.access.set, &json!({}))
        .await;
    let other = Access {
        agent,
        ..scene.stored.access.clone()
    };
    for (token, session) in [
        (scene.lease().await, &sessions[0]),
        (stack.workflow_lease(&other).await, &sessions[1]),
        (scene.lease().await, &sessions[0]),
    ] {
        let mut tunnel = stack.tunnel(S3, &token).await;
        scene.get(&mut tunnel).await.expect_status(200);
        session.expect_signed(&[stack.upstream.last()]).await;
    }

    let asked = stack.tokens().asked();
    assert_eq!(asked.len(), 2);
    let policy: Value = serde_json::from_str(&form(&asked[0])["Policy"]).unwrap();
    assert_eq!(policy["Statement"][1]["Action"], json!(["s3:Get*"]));
    let resources = policy["Statement"][1]["Resource"].as_array().unwrap();
    assert!(
        resources.contains(&json!("arn:*:s3:::reports/*")),
        "{policy}"
    );
    scene.stack.finish().await;
}

#[tokio::test]
async fn a_grant_that_leaves_the_role_out_gets_no_key_at_all() {
    let keys =
        json!({ "allowed_keys": ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"] });
    let scene = Scene::start(&keys).await;
    let token = scene.lease().await;
    let reply = scene.get(&mut scene.stack.tunnel(S3, &token).await).await;
    assert!(reply.text().contains("AWS_ROLE_"), "{}", reply.text());
    reply.expect_refusal(403, "grant_denied");
    assert!(scene.stack.tokens().asked().is_empty());
    assert_eq!(scene.stack.upstream.count(), 0);
    scene.stack.finish().await;
}
