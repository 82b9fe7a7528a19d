//! Agents without a key, by their own clients: signed requests, client certificates, and tokens that are bound to a key.

use std::path::{Path, PathBuf};

use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::sdk::{environment, script};
use crate::support::Stack;
use crate::support::stack::Ran;

const SET: &str = "stripe/test/stripe-bot";

impl Stack {
    async fn agent_script(&self, arguments: &[&str]) -> Ran {
        let mut command = Command::new(environment("CLAVIGER_TEST_PYTHON"));
        command.arg(script("agent_auth.py")).args(arguments);
        self.run(command).await.expect_success()
    }

    fn url(&self) -> String {
        format!("http://{}", self.api_addr)
    }

    /// Uses a lease once, and checks what reached the provider.
    async fn expect_used(&self, token: &str, secret: &str) {
        let reply = self.get("api.stripe.com", "/v1/balance", token).await;
        reply.expect_status(200);
        let sent = self.upstream.last().field("authorization");
        assert_eq!(sent, format!("Bearer {secret}"));
    }
}

#[tokio::test]
async fn an_agent_signs_its_requests_with_a_key_that_never_leaves_it() {
    let stack = Stack::start().await;
    let access = stack.stripe().await;
    let file = stack.home.path().join("seed").display().to_string();
    let public = stack.agent_script(&["key", &file]).await.stdout;
    let public = public.trim();
    let create = ["agent", "create", "signer", "--public-key", public];
    let made = stack.cli(&create).await.expect_success();
    assert!(made.stderr.contains("signed_request"), "{made:#?}");
    let grant = ["grant", "create", "--agent", "signer", "--set", SET];
    stack.cli(&grant).await.expect_success();
    let shown = stack.cli(&["--json", "agent", "show", "signer"]).await;
    let shown: Value = serde_json::from_str(&shown.expect_success().stdout).unwrap();
    assert_eq!(shown["public_key"], public);
    let id = shown["id"].as_str().unwrap();

    let url = stack.url();
    let minted = stack.agent_script(&["signed", &url, id, &file, SET]).await;
    let token = minted.stdout.trim();
    stack.watch_token(token);
    stack.expect_used(token, access.secret.text()).await;
    stack
        .cli(&["agent", "deactivate", "signer"])
        .await
        .expect_success();
    let mut command = Command::new(environment("CLAVIGER_TEST_PYTHON"));
    command.args([&script("agent_auth.py"), "signed", &url, id, &file, SET]);
    let stopped = stack.run(command).await;
    assert_eq!(stopped.status, Some(1), "{stopped:#?}");
    assert!(stopped.stderr.contains("unauthenticated"), "{stopped:#?}");
    stack.finish().await;
}

#[tokio::test]
async fn a_stolen_token_is_worth_nothing_without_the_key_that_it_is_bound_to() {
    let stack = Stack::start().await;
    let access = stack.stripe().await;
    let (agent, key) = stack.agent("prover").await;
    let sets = stack.admin().get("/v1/vault/secret-sets").await.json();
    let set = sets["secret_sets"][0]["id"].as_str().unwrap();
    stack.grant(&agent, set, &json!({})).await;
    let file = stack.home.path().join("prover.key");
    std::fs::write(&file, key).unwrap();

    let file = file.display().to_string();
    let ran = stack
        .agent_script(&["proven", &stack.url(), &file, SET])
        .await;
    std::fs::remove_file(&file).unwrap();
    let (stolen, token) = ran.stdout.trim().split_once('\n').unwrap();
    stack.watch_token(stolen);
    stack.watch_token(token);
    let refused = stack.api(stolen).get("/v1/vault/leases").await;
    let refused = refused.expect_status(401).json();
    assert_eq!(refused["error"], "invalid_dpop_proof");
    stack.expect_used(token, access.secret.text()).await;
    stack.finish().await;
}

/// A certificate with its key.
struct Pair {
    cert: PathBuf,
    key: PathBuf,
}

/// One that is its own root, by openssl.
async fn openssl(dir: &Path, name: &str) -> Pair {
    let file = |end: &str| dir.join(format!("{name}.{end}"));
    let (cert, key) = (file("crt"), file("key"));
    let mut command = Command::new("openssl");
    command
        .args(["req", "-x509", "-newkey", "ec", "-nodes", "-days", "2"])
        .args(["-pkeyopt", "ec_paramgen_curve:prime256v1"])
        .args(["-subj", &format!("/CN={name}")])
        .args(["-addext", "subjectAltName=DNS:localhost"])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&cert);
    let made = command.output().await.unwrap();
    assert!(made.status.success(), "{made:?}");
    Pair { cert, key }
}

/// One whose dates are over.
fn expired(dir: &Path) -> Pair {
    let pair = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2021, 1, 1);
    let (cert, key) = (dir.join("expired.crt"), dir.join("expired.key"));
    std::fs::write(&cert, params.self_signed(&pair).unwrap().pem()).unwrap();
    std::fs::write(&key, pair.serialize_pem()).unwrap();
    Pair { cert, key }
}

/// What curl gets of the API over TLS, which shows this certificate there.
struct Curl<'a> {
    stack: &'a Stack,
    server: &'a Path,
    client: Option<&'a Pair>,
}

impl Curl<'_> {
    async fn ran(&self, path: &str, options: &[&str]) -> Ran {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--cacert"]).arg(self.server);
        if let Some(client) = self.client {
            curl.arg("--cert").arg(&client.cert);
            curl.arg("--key").arg(&client.key);
        }
        let url = format!("https://localhost:{}{path}", self.stack.api_addr.port());
        curl.args(["-H", "content-type: application/json"]);
        curl.args(options).arg(url);
        self.stack.run(curl).await
    }

    async fn json(&self, path: &str, options: &[&str]) -> Value {
        let ran = self.ran(path, options).await.expect_success();
        serde_json::from_str(&ran.stdout).unwrap_or_else(|_| panic!("{ran:#?}"))
    }
}

#[tokio::test]
async fn an_agent_shows_a_client_certificate_and_its_token_is_worth_nothing_without_it() {
    let dir = tempfile::tempdir().unwrap();
    let server = openssl(dir.path(), "server").await;
    let own = openssl(dir.path(), "tls-bot").await;
    let other = openssl(dir.path(), "other").await;
    let stack = Stack::builder()
        .argument(format!("--api-tls-cert={}", server.cert.display()))
        .argument(format!("--api-tls-key={}", server.key.display()))
        .start()
        .await;
    let access = stack.stripe().await;
    let cert = own.cert.display().to_string();
    // The command beside the server speaks cleartext with it.
    let create = ["--json", "agent", "create", "tls-bot", "--cert", &cert];
    let made = stack.cli(&create).await.expect_success();
    let made: Value = serde_json::from_str(&made.stdout).unwrap();
    assert_eq!(made.get("api_key"), None);
    let grant = ["grant", "create", "--agent", "tls-bot", "--set", SET];
    stack.cli(&grant).await.expect_success();

    let with = |client| Curl {
        stack: &stack,
        server: &server.cert,
        client,
    };
    let id = made["agent"]["id"].as_str().unwrap();
    let body = json!({ "agent_id": id }).to_string();
    let exchange = ["-d", body.as_str()];
    for refused in [with(None), with(Some(&other))] {
        let refused = refused.json("/v1/auth/agent-token", &exchange).await;
        assert_eq!(refused["error"], "unauthenticated");
    }
    let late = expired(dir.path());
    let late = with(Some(&late))
        .ran("/v1/auth/agent-token", &exchange)
        .await;
    assert_ne!(late.status, Some(0), "the handshake fails");

    let answer = with(Some(&own))
        .json("/v1/auth/agent-token", &exchange)
        .await;
    let token = answer["access_token"].as_str().unwrap();
    stack.watch_token(token);
    let bearer = format!("authorization: Bearer {token}");
    for version in ["--http1.1", "--http2"] {
        let mint = json!({ "secret_set": SET }).to_string();
        let mint = [version, "-H", &bearer, "-d", &mint];
        let minted = with(Some(&own)).json("/v1/vault/leases", &mint).await;
        let lease = minted["token"].as_str().unwrap();
        stack.watch_token(lease);
        stack.expect_used(lease, access.secret.text()).await;
    }
    for refused in [with(None), with(Some(&other))] {
        let refused = refused.json("/v1/vault/leases", &["-H", &bearer]).await;
        assert_eq!(refused["error"], "certificate_required");
    }
    let cleartext = stack.api(token).get("/v1/vault/leases").await;
    let cleartext = cleartext.expect_status(401).json();
    assert_eq!(cleartext["error"], "certificate_required");

    // Another certificate is registered: what the first one got is over.
    let next = other.cert.display().to_string();
    let update = ["agent", "update", "tls-bot", "--cert", &next];
    stack.cli(&update).await.expect_success();
    let over = with(Some(&own))
        .json("/v1/vault/leases", &["-H", &bearer])
        .await;
    assert_eq!(over["error"], "unauthenticated");
    let answer = with(Some(&other))
        .json("/v1/auth/agent-token", &exchange)
        .await;
    stack.watch_token(answer["access_token"].as_str().unwrap());
    stack.finish().await;
}

#[tokio::test]
async fn an_api_beyond_loopback_needs_a_certificate_that_can_be_used() {
    let stack = Stack::start().await;
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data").display().to_string();
    let serve = [
        "serve",
        "--data",
        &data,
        "--proxy",
        "127.0.0.1:0",
        "--api",
        "0.0.0.0:0",
    ];
    let serve_with = async |arguments: &[&str]| {
        let mut command = stack.command(arguments);
        // To a client it is the injector's URL.
        command.env_remove("CLAVIGER_PROXY");
        stack.run(command).await
    };
    let ran = serve_with(&serve).await;
    assert_eq!(ran.status, Some(1), "{ran:#?}");
    assert!(ran.stderr.contains("--api-tls-cert"), "{ran:#?}");
    let half = [&serve[..], &["--api-tls-cert", "/nowhere"]].concat();
    let ran = serve_with(&half).await;
    assert_eq!(ran.status, Some(1), "{ran:#?}");
    assert!(ran.stderr.contains("only one is given"), "{ran:#?}");
    let pair = openssl(dir.path(), "server").await;
    let (cert, key) = (
        pair.cert.display().to_string(),
        pair.cert.display().to_string(),
    );
    let swapped = [
        &serve[..],
        &["--api-tls-cert", &cert, "--api-tls-key", &key],
    ]
    .concat();
    let ran = serve_with(&swapped).await;
    assert_eq!(ran.status, Some(1), "{ran:#?}");
    assert!(ran.stderr.contains("holds no private key"), "{ran:#?}");
    stack.finish().await;
}

#[tokio::test]
async fn an_agent_asks_for_itself_and_its_person_decides() {
    let stack = Stack::start().await;
    let ada = ["account", "email", "ada@example.org"];
    stack.cli(&ada).await.expect_success();
    let asks = async |name: &str, email: &str| {
        let mut command = stack.command(&["agent", "enroll", name, "--email", email]);
        command.env_remove("CLAVIGER_KEY_FILE");
        stack.run(command).await
    };
    let known = asks("bot", "ada@example.org").await.expect_success();
    let unknown = asks("bot", "eve@example.org").await.expect_success();
    assert_eq!(known.stdout, unknown.stdout);
    let again = asks("bot", "ada@example.org").await;
    assert_eq!(again.status, Some(1), "{again:#?}");
    assert!(again.stderr.contains("hint:"), "{again:#?}");

    let listed = stack.cli(&["--json", "agent", "enrolments"]).await;
    let listed = listed.expect_success().stdout;
    let waiting: Vec<Value> = listed
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let waiting = match &waiting[..] {
        [one] => one.get("enrolments").map_or(one, |all| &all[0]),
        other => panic!("{other:?}"),
    };
    assert_eq!(waiting["name"], "bot");
    let id = waiting["id"].as_str().unwrap();
    let approved = stack.cli(&["agent", "approve", id]).await;
    let key = approved.expect_success().stdout.trim().to_owned();
    stack.watch_token(&key);
    let reply = stack.api(&key).get("/v1/agents/me").await;
    assert_eq!(reply.expect_status(200).json()["name"], "bot");
    let settled = stack.cli(&["agent", "reject", id]).await;
    assert_eq!(settled.status, Some(1), "{settled:#?}");
    stack.finish().await;
}
