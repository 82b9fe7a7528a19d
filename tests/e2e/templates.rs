//! Every built-in template: what it puts where, as the provider receives it. (AWS has its own story, `sigv4`.)

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::support::Stack;
use crate::support::stack::HOSTS;

/// An entry of the set: a secret with this prefix, or a value that is none.
enum Entry {
    Secret(&'static str, &'static str),
    Plain(&'static str, &'static str),
}

use Entry::{Plain, Secret};

/// Host, path, and the fields with `{KEY}` for that key's value; the part after `Basic ` is given decoded.
type Call = (
    &'static str,
    &'static str,
    &'static [(&'static str, &'static str)],
);

/// Stores the entries, calls each host, and compares the fields at the upstream byte for byte.
async fn check(provider: &str, entries: &[Entry], calls: &[Call]) {
    let stack = Stack::start().await;
    let mut values = BTreeMap::new();
    let mut secrets = Vec::new();
    for entry in entries {
        match entry {
            Secret(key, prefix) => {
                let secret = stack.secret(prefix);
                values.insert((*key).to_owned(), secret.text().to_owned());
                secrets.push(secret);
            }
            Plain(key, value) => {
                values.insert((*key).to_owned(), (*value).to_owned());
            }
        }
    }
    let access = stack
        .access(provider, &json!(values), &secrets[0], &json!({}))
        .await;
    let token = stack.workflow_lease(&access).await;

    for (host, path, fields) in calls {
        // What the agent brings in the slot is a placeholder, as its SDK wants one.
        let brought: Vec<String> = fields
            .iter()
            .map(|(name, _)| format!("{name}: placeholder"))
            .collect();
        let brought: Vec<&str> = brought.iter().map(String::as_str).collect();
        let mut tunnel = stack.tunnel(host, &token).await;
        tunnel
            .request("GET", path, &brought, b"")
            .await
            .unwrap()
            .expect_status(200);

        let request = stack.upstream.last();
        assert_eq!(request.authority, *host);
        assert_eq!(request.target, *path);
        for (name, template) in *fields {
            assert_eq!(
                request.field(name),
                expected(template, &values),
                "{name} at {host}"
            );
        }
        for (key, value) in &values {
            let expected_somewhere = fields
                .iter()
                .any(|(_, template)| template.contains(&format!("{{{key}}}")));
            if !expected_somewhere {
                assert!(
                    !String::from_utf8_lossy(&request.head).contains(value),
                    "{key} went to {host}"
                );
            }
        }
    }
    stack.finish().await;
}

fn expected(template: &str, values: &BTreeMap<String, String>) -> String {
    let mut text = template.to_owned();
    for (key, value) in values {
        text = text.replace(&format!("{{{key}}}"), value);
    }
    match text.strip_prefix("Basic ") {
        Some(pair) => format!("Basic {}", STANDARD.encode(pair)),
        None => text,
    }
}

#[tokio::test]
async fn openai_with_organization_and_project() {
    let fields = &[
        ("authorization", "Bearer {OPENAI_API_KEY}"),
        ("openai-organization", "{OPENAI_ORG_ID}"),
        ("openai-project", "{OPENAI_PROJECT_ID}"),
    ];
    let entries = [
        Secret("OPENAI_API_KEY", "sk-proj-"),
        Plain("OPENAI_ORG_ID", "org-1"),
        Plain("OPENAI_PROJECT_ID", "proj_1"),
    ];
    check(
        "openai",
        &entries,
        &[("api.openai.com", "/v1/models", fields)],
    )
    .await;
}

#[tokio::test]
async fn openai_without_organization() {
    let fields = &[("authorization", "Bearer {OPENAI_API_KEY}")];
    check(
        "openai",
        &[Secret("OPENAI_API_KEY", "sk-")],
        &[("api.openai.com", "/v1/models", fields)],
    )
    .await;
}

#[tokio::test]
async fn anthropic() {
    let fields = &[("x-api-key", "{ANTHROPIC_API_KEY}")];
    check(
        "anthropic",
        &[Secret("ANTHROPIC_API_KEY", "sk-ant-")],
        &[("api.anthropic.com", "/v1/models", fields)],
    )
    .await;
}

#[tokio::test]
async fn gemini() {
    let fields = &[("x-goog-api-key", "{GEMINI_API_KEY}")];
    let calls = [(
        "generativelanguage.googleapis.com",
        "/v1beta/models",
        &fields[..],
    )];
    check("gemini", &[Secret("GEMINI_API_KEY", "AIza")], &calls).await;
}

#[tokio::test]
async fn mistral() {
    let fields = &[("authorization", "Bearer {MISTRAL_API_KEY}")];
    check(
        "mistral",
        &[Secret("MISTRAL_API_KEY", "m")],
        &[("api.mistral.ai", "/v1/models", fields)],
    )
    .await;
}

#[tokio::test]
async fn groq() {
    let fields = &[("authorization", "Bearer {GROQ_API_KEY}")];
    check(
        "groq",
        &[Secret("GROQ_API_KEY", "gsk_")],
        &[("api.groq.com", "/openai/v1/models", fields)],
    )
    .await;
}

#[tokio::test]
async fn openrouter() {
    let fields = &[("authorization", "Bearer {OPENROUTER_API_KEY}")];
    check(
        "openrouter",
        &[Secret("OPENROUTER_API_KEY", "sk-or-")],
        &[("openrouter.ai", "/api/v1/models", fields)],
    )
    .await;
}

#[tokio::test]
async fn cohere() {
    let fields = &[("authorization", "Bearer {COHERE_API_KEY}")];
    check(
        "cohere",
        &[Secret("COHERE_API_KEY", "co")],
        &[("api.cohere.com", "/v2/chat", fields)],
    )
    .await;
}

#[tokio::test]
async fn stripe_with_account_and_never_the_webhook_secret() {
    let fields = &[
        ("authorization", "Bearer {STRIPE_SECRET_KEY}"),
        ("stripe-account", "{STRIPE_ACCOUNT_ID}"),
    ];
    let entries = [
        Secret("STRIPE_SECRET_KEY", "sk_live_"),
        Plain("STRIPE_ACCOUNT_ID", "acct_1"),
        Secret("STRIPE_WEBHOOK_SECRET", "whsec_"),
    ];
    let calls = [
        ("api.stripe.com", "/v1/balance", &fields[..]),
        ("files.stripe.com", "/v1/files", fields),
    ];
    check("stripe", &entries, &calls).await;
}

#[tokio::test]
async fn github_in_all_its_forms() {
    let bearer = &[("authorization", "Bearer {GITHUB_TOKEN}")][..];
    let basic = &[("authorization", "Basic x-access-token:{GITHUB_TOKEN}")][..];
    let calls = [
        ("api.github.com", "/user", bearer),
        ("api.github.com", "/graphql", bearer),
        ("uploads.github.com", "/repos/a/b/releases/1/assets", bearer),
        ("raw.githubusercontent.com", "/a/b/main/README", bearer),
        ("github.com", "/a/b/info/refs", basic),
    ];
    check("github", &[Secret("GITHUB_TOKEN", "ghp_")], &calls).await;
}

#[tokio::test]
async fn gitlab() {
    let api = &[("private-token", "{GITLAB_TOKEN}")][..];
    let git = &[("authorization", "Basic oauth2:{GITLAB_TOKEN}")][..];
    let calls = [
        ("gitlab.com", "/api/v4/user", api),
        ("gitlab.com", "/a/b.git/info/refs", git),
    ];
    check("gitlab", &[Secret("GITLAB_TOKEN", "glpat-")], &calls).await;
}

#[tokio::test]
async fn slack() {
    let fields = &[("authorization", "Bearer {SLACK_BOT_TOKEN}")];
    check(
        "slack",
        &[Secret("SLACK_BOT_TOKEN", "xoxb-")],
        &[("slack.com", "/api/auth.test", fields)],
    )
    .await;
}

#[tokio::test]
async fn notion() {
    let fields = &[("authorization", "Bearer {NOTION_API_KEY}")];
    check(
        "notion",
        &[Secret("NOTION_API_KEY", "ntn_")],
        &[("api.notion.com", "/v1/users", fields)],
    )
    .await;
}

#[tokio::test]
async fn linear() {
    let fields = &[("authorization", "{LINEAR_API_KEY}")];
    check(
        "linear",
        &[Secret("LINEAR_API_KEY", "lin_api_")],
        &[("api.linear.app", "/graphql", fields)],
    )
    .await;
}

#[tokio::test]
async fn sendgrid() {
    let fields = &[("authorization", "Bearer {SENDGRID_API_KEY}")];
    check(
        "sendgrid",
        &[Secret("SENDGRID_API_KEY", "SG.")],
        &[("api.sendgrid.com", "/v3/scopes", fields)],
    )
    .await;
}

#[tokio::test]
async fn twilio() {
    let fields = &[(
        "authorization",
        "Basic {TWILIO_ACCOUNT_SID}:{TWILIO_AUTH_TOKEN}",
    )];
    let entries = [
        Secret("TWILIO_AUTH_TOKEN", "t"),
        Plain("TWILIO_ACCOUNT_SID", "AC00000000000000000000000000000001"),
    ];
    check(
        "twilio",
        &entries,
        &[(
            "api.twilio.com",
            "/2010-04-01/Accounts/AC00000000000000000000000000000001/Messages.json",
            fields,
        )],
    )
    .await;
}

#[tokio::test]
async fn datadog() {
    let fields = &[
        ("dd-api-key", "{DD_API_KEY}"),
        ("dd-application-key", "{DD_APP_KEY}"),
    ];
    let entries = [Secret("DD_API_KEY", "d"), Secret("DD_APP_KEY", "a")];
    check(
        "datadog",
        &entries,
        &[("api.datadoghq.com", "/api/v1/validate", fields)],
    )
    .await;
}

/// What the vendors' own clients send, as it was recorded: name of the template, host, method, target and fields.
fn recordings() -> Vec<(String, String, String, String, Vec<String>)> {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/providers/recordings");
    let files = std::fs::read_dir(directory)
        .unwrap()
        .map(|file| file.unwrap().path());
    let heads = files.filter(|path| {
        path.extension()
            .is_some_and(|extension| extension == "http")
    });
    let mut all: Vec<_> = heads
        .map(|path| {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            let text = std::fs::read_to_string(&path).unwrap();
            let mut lines = text.lines().skip(1);
            let mut start = lines.next().unwrap().split(' ').map(str::to_owned);
            let (method, target) = (start.next().unwrap(), start.next().unwrap());
            let is_host = |line: &&str| line.to_ascii_lowercase().starts_with("host: ");
            let (host, fields): (Vec<&str>, Vec<&str>) = lines.partition(is_host);
            let host = host[0]["host: ".len()..].to_owned();
            let own = |line: &&&str| !line.to_ascii_lowercase().starts_with("connection:");
            let fields = fields
                .iter()
                .filter(own)
                .map(|&line| line.to_owned())
                .collect();
            (name, host, method, target, fields)
        })
        // The upstream of the stories serves port 443 alone.
        .filter(|(_, host, ..)| !host.contains(':'))
        .collect();
    all.sort();
    all
}

/// A head in which what stands in Basic is decoded.
fn decoded(head: &[u8]) -> String {
    let head = String::from_utf8_lossy(head);
    let decode = |line: &str| match line.split_once(": Basic ") {
        Some((name, pair)) => {
            let pair = STANDARD.decode(pair.trim()).unwrap();
            format!("{name}: {}", String::from_utf8(pair).unwrap())
        }
        None => line.to_owned(),
    };
    head.lines().map(decode).collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn what_each_vendors_client_sends_reaches_its_provider_with_the_sets_key() {
    let recordings = recordings();
    assert!(recordings.len() >= 100, "{}", recordings.len());
    let hosts: BTreeSet<&str> = recordings
        .iter()
        .map(|(_, host, ..)| host.as_str())
        .collect();
    let mut builder = Stack::builder();
    for host in hosts.iter().filter(|host| !HOSTS.contains(host)) {
        builder = builder.host((*host).to_owned().leak());
    }
    let stack = builder.start().await;
    let secret = stack.secret("key-");
    let (mut sent, mut wrong) = (0, Vec::new());

    for (name, host, method, target, fields) in &recordings {
        let view = stack.admin().get(&format!("/v1/providers/{name}")).await;
        let view = view.expect_status(200).json();
        let is_sent = |(_, value): &(&String, &serde_json::Value)| *value != "never_sent";
        let keys = view["keys"].as_object().unwrap().iter().filter(is_sent);
        let entries: BTreeMap<&String, &str> = keys.map(|(key, _)| (key, secret.text())).collect();
        let access = stack
            .access(name, &json!(entries), &secret, &json!({}))
            .await;
        let token = stack.workflow_lease(&access).await;
        let mut tunnel = stack.tunnel(host, &token).await;
        let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
        let reply = tunnel.request(method, target, &fields, b"").await;
        let reply = reply.unwrap_or_else(|error| panic!("{name}: {error:?}"));
        if stack.upstream.count() != sent + 1 {
            wrong.push(format!("{name}: {}", reply.text()));
            continue;
        }
        sent += 1;

        let request = stack.upstream.last();
        assert_eq!(request.authority, *host, "{name}");
        let received = decoded(&request.head);
        let lower = received.to_ascii_lowercase();
        let is_left = lower.contains("claviger") || lower.contains("c1a519e4-0000-4000-8000");
        if is_left || !received.contains(secret.text()) {
            wrong.push(format!("{name}: {received}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(stack.upstream.count(), recordings.len());
    stack.finish().await;
}

#[tokio::test]
async fn a_set_without_its_required_key_warns_and_sends_nothing() {
    let stack = Stack::start().await;
    let secret = stack.secret("acct_");
    let body = json!({
        "provider": "stripe", "environment": "test", "name": "half", "entries": { "STRIPE_ACCOUNT_ID": secret.text() },
    });
    let made = stack
        .admin()
        .post("/v1/vault/secret-sets", &body)
        .await
        .expect_status(201)
        .json();
    assert!(
        made["warnings"].to_string().contains("STRIPE_SECRET_KEY"),
        "{made}"
    );
    let (agent, _) = stack.agent("half").await;
    let set = made["id"].as_str().unwrap();
    stack.grant(&agent, set, &json!({})).await;
    let token = stack
        .mint(&json!({ "secret_set_id": set, "agent_id": agent }))
        .await;

    let reply = stack
        .attempt("api.stripe.com", "/v1/balance", &token)
        .await
        .expect_refusal(403, "grant_denied");

    assert!(
        reply.text().contains("STRIPE_SECRET_KEY"),
        "{}",
        reply.text()
    );
    assert_eq!(stack.upstream.count(), 0);
    stack.finish().await;
}
