//! The trail told to others by the built product: webhooks over crashes, signed heads in a file and a bucket, logs for a collector.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use prost_otlp::Message as _;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

use crate::support::stack::Ran;
use crate::support::{Fleet, Stack, wait};

/// A request as a receiver got it.
#[derive(Debug, Clone)]
pub(crate) struct Got {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
}

impl Got {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// Takes everything.
#[derive(Debug, Clone)]
pub(crate) struct Receiver {
    addr: SocketAddr,
    got: Arc<Mutex<Vec<Got>>>,
}

impl Receiver {
    pub(crate) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let receiver = Self {
            addr: listener.local_addr().unwrap(),
            got: Arc::default(),
        };
        let app = Router::new().fallback(take).with_state(receiver.clone());
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        receiver
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }

    pub(crate) fn got(&self) -> Vec<Got> {
        self.got.lock().unwrap().clone()
    }
}

async fn take(
    State(receiver): State<Receiver>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> StatusCode {
    receiver.got.lock().unwrap().push(Got {
        method,
        uri,
        headers,
        body,
    });
    StatusCode::OK
}

async fn claviger(stack: &Stack, arguments: &[&str]) -> Ran {
    let mut command = crate::support::stack::binary(stack.home.path());
    command.args(arguments).arg("--data").arg(&stack.data);
    stack.run(command).await
}

/// Asks `examples/verify_webhook.py` whether deliveries are by this secret: one answer for each.
async fn python_verifies(secret: &str, deliveries: &[Got]) -> Vec<bool> {
    const PROGRAM: &str = "import json, sys\nfrom verify_webhook import verify\n\
        for line in sys.stdin:\n    one = json.loads(line)\n    print(verify(one['secret'], one['headers'], one['body'].encode()))\n";
    let mut python = tokio::process::Command::new("python3")
        .args(["-B", "-c", PROGRAM])
        .env(
            "PYTHONPATH",
            concat!(env!("CARGO_MANIFEST_DIR"), "/examples"),
        )
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = python.stdin.take().unwrap();
    for one in deliveries {
        let names = ["webhook-id", "webhook-timestamp", "webhook-signature"];
        let headers: serde_json::Map<String, Value> = names
            .iter()
            .map(|name| ((*name).to_owned(), json!(one.header(name))))
            .collect();
        let body = std::str::from_utf8(&one.body).unwrap();
        let line = json!({"secret": secret, "headers": headers, "body": body});
        input
            .write_all(format!("{line}\n").as_bytes())
            .await
            .unwrap();
    }
    drop(input);
    let output = python.wait_with_output().await.unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| line == "True").collect()
}

#[tokio::test]
async fn kill_9_and_restarts_lose_no_delivery_and_receivers_verify_each() {
    let mut stack = Stack::start().await;
    let receiver = Receiver::start().await;
    let made = stack
        .admin()
        .post(
            "/v1/webhooks",
            &json!({"url": receiver.url("/hook"), "events": ["agent.create"]}),
        )
        .await
        .expect_status(201)
        .json();
    let secret = made["secret"].as_str().unwrap().to_owned();
    let mut names = Vec::new();
    for round in 0..3 {
        let before = receiver.got().len();
        for index in 0..20 {
            let name = format!("agent-{round}-{index}");
            let body = json!({"name": name});
            stack
                .admin()
                .post("/v1/agents", &body)
                .await
                .expect_status(201);
            names.push(name);
        }
        // In the middle of a batch: some are told, and not all of them are noted.
        wait::until("a delivery", async || {
            (receiver.got().len() > before).then_some(())
        })
        .await;
        stack.kill().await;
        stack.start_again().await;
    }
    wait::until("all deliveries", async || {
        let mut ids: Vec<String> = receiver
            .got()
            .iter()
            .map(|got| got.header("webhook-id").to_owned())
            .collect();
        ids.sort();
        ids.dedup();
        (ids.len() == names.len()).then_some(())
    })
    .await;

    let got = receiver.got();
    let mut told: Vec<(String, String)> = Vec::new();
    for one in &got {
        let body = one.json();
        let id = one.header("webhook-id").to_owned();
        assert_eq!(body["data"]["id"], id.as_str());
        let stream = body["data"]["seq"].as_u64().unwrap();
        if !told.iter().any(|(known, _)| *known == id) {
            told.push((id, format!("{stream:09}")));
        }
    }
    // In order, but for what is told again after a crash.
    assert!(told.is_sorted_by_key(|(_, seq)| seq.clone()));
    assert!(
        python_verifies(&secret, &got)
            .await
            .iter()
            .all(|good| *good)
    );
    let mut forged = got[0].clone();
    forged.body = Bytes::from(String::from_utf8_lossy(&forged.body).replace("allow", "deny_"));
    assert_eq!(python_verifies(&secret, &[forged]).await, [false]);
    stack.finish_after_crash().await;
}

/// Ids of the events that a receiver got.
fn told(receiver: &Receiver) -> BTreeSet<String> {
    let got = receiver.got();
    got.iter()
        .map(|one| one.header("webhook-id").to_owned())
        .collect()
}

#[tokio::test]
async fn of_many_nodes_one_tells_and_when_it_dies_another_goes_on_without_a_gap() {
    let mut fleet = Fleet::builder().nodes(3, 1).start().await;
    let receiver = Receiver::start().await;
    let hook = json!({"url": receiver.url("/hook"), "events": ["agent.create"]});
    let made = fleet.admin().post("/v1/webhooks", &hook).await;
    let made = made.expect_status(201).json();
    let hook = made["webhook"]["id"].as_str().unwrap();
    let create = async |fleet: &Fleet<'_>, planes: &[usize], round: usize| {
        let calls = planes.iter().flat_map(|plane| {
            let api = fleet.by(*plane, 0).admin();
            (0..10).map(move |index| {
                let body = json!({"name": format!("agent-{round}-{plane}-{index}")});
                let api = api.clone();
                async move { api.post("/v1/agents", &body).await.expect_status(201) }
            })
        });
        futures::future::join_all(calls).await;
    };

    create(&fleet, &[0, 1, 2], 0).await;
    wait::until("what all planes did", async || {
        (told(&receiver).len() == 30).then_some(())
    })
    .await;
    // All were alive, so each was told once.
    assert_eq!(receiver.got().len(), 30);

    let holder = fleet.sql(&format!(
        "SELECT holder FROM audit_sinks WHERE sink = '{hook}'"
    ));
    let number = holder.trim().strip_prefix("control-plane-").unwrap();
    let teller: usize = number.strip_suffix("/control").unwrap().parse().unwrap();
    let others: Vec<usize> = (0..3).filter(|plane| *plane != teller).collect();
    create(&fleet, &[0, 1, 2], 1).await;
    wait::until("some of it", async || {
        (told(&receiver).len() > 30).then_some(())
    })
    .await;
    fleet.control_plane(teller).kill().await;
    create(&fleet, &others, 2).await;
    // What it had taken in hand is its own for a minute.
    let minutes = std::time::Duration::from_mins(2);
    wait::until_after(minutes, "the rest, told by another", async || {
        (told(&receiver).len() == 80).then_some(())
    })
    .await;
    let holder = fleet.sql(&format!(
        "SELECT holder FROM audit_sinks WHERE sink = '{hook}'"
    ));
    assert_ne!(holder.trim(), format!("control-plane-{teller}/control"));
    fleet.control_plane(teller).start_again().await;
    fleet.finish_after_crash().await;
}

#[tokio::test]
async fn webhooks_are_managed_from_the_command_line() {
    let stack = Stack::start().await;
    let receiver = Receiver::start().await;
    let url = receiver.url("/hook");
    let refused = claviger(&stack, &["webhook", "create", "http://169.254.169.254/"]).await;
    assert_eq!(refused.status, Some(1), "{refused:#?}");
    assert!(refused.stderr.contains("url: "), "{refused:#?}");
    let made = claviger(
        &stack,
        &["webhook", "create", &url, "--event", "lease.*", "--json"],
    )
    .await;
    let made: Value = serde_json::from_str(&made.expect_success().stdout).unwrap();
    let (id, secret) = (
        made["webhook"]["id"].as_str().unwrap(),
        made["secret"].as_str().unwrap(),
    );
    let tested = claviger(&stack, &["webhook", "test", id]).await;
    tested.expect_success();
    assert_eq!(python_verifies(secret, &receiver.got()).await, [true]);
    let access = stack.stripe().await;
    stack.workflow_lease(&access).await;
    wait::until("the delivery", async || {
        (receiver.got().len() > 1).then_some(())
    })
    .await;
    assert_eq!(receiver.got()[1].json()["type"], "lease.mint");
    let deliveries = wait::until("the note of it", async || {
        let listed = claviger(&stack, &["webhook", "deliveries", id, "--json"]).await;
        let listed: Value = serde_json::from_str(&listed.expect_success().stdout).unwrap();
        (!listed["deliveries"].as_array().unwrap().is_empty()).then_some(listed)
    })
    .await;
    assert_eq!(deliveries["deliveries"][0]["action"], "lease.mint");
    let listed = claviger(&stack, &["webhook", "list"])
        .await
        .expect_success();
    assert!(listed.stdout.contains(id) && !listed.stdout.contains("whsec_"));
    let shown = claviger(&stack, &["webhook", "show", id])
        .await
        .expect_success();
    assert!(shown.stdout.contains(&url) && !shown.stdout.contains("whsec_"));
    let rotated = claviger(&stack, &["webhook", "rotate-secret", id])
        .await
        .expect_success();
    assert!(rotated.stdout.starts_with("whsec_") && rotated.stdout.trim() != secret);
    claviger(&stack, &["webhook", "delete", id])
        .await
        .expect_success();
    let gone = claviger(&stack, &["webhook", "test", id]).await;
    assert_eq!(gone.status, Some(1));
    stack.finish().await;
}

#[tokio::test]
async fn whoever_holds_published_heads_finds_a_directory_that_was_put_back() {
    let elsewhere = tempfile::tempdir().unwrap();
    let heads = elsewhere.path().join("heads.jsonl");
    let mut stack = Stack::builder()
        .variable(
            "CLAVIGER_AUDIT_CHECKPOINT_FILE",
            heads.display().to_string(),
        )
        .variable("CLAVIGER_AUDIT_CHECKPOINT_EVERY", "1s")
        .start()
        .await;
    stack.stripe().await;
    let against = [
        "audit",
        "verify",
        "--checkpoints",
        heads.to_str().unwrap(),
        "--json",
    ];
    // The server runs: the database is read beside it.
    wait::until("a published head", async || heads.exists().then_some(())).await;
    claviger(&stack, &against).await.expect_success();
    stack.stop().await;
    let older = elsewhere.path().join("older");
    copy(&stack.data, &older);
    stack.start_again().await;
    for index in 0..5 {
        let body = json!({"name": format!("later-{index}")});
        stack
            .admin()
            .post("/v1/agents", &body)
            .await
            .expect_status(201);
    }
    stack.check_and_stop().await;
    let lines = std::fs::read_to_string(&heads).unwrap();
    let key: Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    let key = key["key"].as_str().unwrap().to_owned();
    let good = claviger(&stack, &[&against[..], &["--key", &key]].concat()).await;
    good.expect_success();

    // Database, checkpoint and keys as they were before: nothing in the directory tells.
    std::fs::remove_dir_all(&stack.data).unwrap();
    copy(&older, &stack.data);
    claviger(&stack, &["audit", "verify", "--json"])
        .await
        .expect_success();
    let found = claviger(&stack, &[&against[..], &["--key", &key]].concat()).await;
    assert_eq!(found.status, Some(1), "{found:#?}");
    let report: Value = serde_json::from_str(&found.stdout).unwrap();
    assert_eq!(report["first_bad"]["reason"], "truncated", "{report}");
    assert_eq!(report["first_bad"]["stream"], "local/control");
    assert!(
        found.stderr.contains("audit_tampered") || found.stderr.contains("was truncated"),
        "{found:#?}"
    );
    // And so does a head by a key that is none of ours.
    let other = claviger(
        &stack,
        &[&against[..], &["--key", &"00".repeat(32)]].concat(),
    )
    .await;
    assert_eq!(other.status, Some(1));
    let mistyped = claviger(&stack, &[&against[..], &["--key", "no"]].concat()).await;
    assert_eq!(mistyped.status, Some(2));
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    let copied = std::process::Command::new("cp")
        .arg("-a")
        .arg(from)
        .arg(to)
        .status();
    assert!(copied.unwrap().success());
}

#[tokio::test]
async fn heads_are_put_to_a_url_with_its_token_and_to_a_bucket_signed() {
    let secrets = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = secrets.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let token = file("token", "token-of-the-store\n");
    let keys = file(
        "aws",
        "aws_access_key_id=AKIDEXAMPLE\naws_secret_access_key=wJalrXUtnFEMI\n",
    );
    let receiver = Receiver::start().await;
    let stack = Stack::builder()
        .variable("CLAVIGER_AUDIT_CHECKPOINT_URL", receiver.url("/heads/"))
        .variable("CLAVIGER_AUDIT_CHECKPOINT_TOKEN_FILE", token)
        .variable("CLAVIGER_AUDIT_CHECKPOINT_EVERY", "1s")
        .start()
        .await;
    let put = wait::until("a head", async || receiver.got().first().cloned()).await;
    assert_eq!(put.method, Method::PUT);
    assert!(put.uri.path().starts_with("/heads/local/2"), "{}", put.uri);
    assert_eq!(put.header("authorization"), "Bearer token-of-the-store");
    assert!(put.json()["statement"]["heads"]["local/control"]["seq"].is_u64());
    stack.finish().await;

    let receiver = Receiver::start().await;
    let stack = Stack::builder()
        .variable("CLAVIGER_AUDIT_CHECKPOINT_URL", "s3://heads/claviger")
        .variable("CLAVIGER_AUDIT_CHECKPOINT_ENDPOINT", receiver.url(""))
        .variable("CLAVIGER_AUDIT_CHECKPOINT_REGION", "eu-central-1")
        .variable("CLAVIGER_AUDIT_CHECKPOINT_CREDENTIALS_FILE", keys)
        .variable("CLAVIGER_AUDIT_CHECKPOINT_EVERY", "1s")
        .start()
        .await;
    let put = wait::until("a head", async || receiver.got().first().cloned()).await;
    assert!(
        put.uri.path().starts_with("/heads/claviger/local/2"),
        "{}",
        put.uri
    );
    let authorization = put.header("authorization");
    assert!(
        authorization.contains("Credential=AKIDEXAMPLE/")
            && authorization.contains("/eu-central-1/s3/")
    );
    assert_eq!(put.header("x-amz-content-sha256").len(), 64);
    stack.finish().await;
}

#[tokio::test]
async fn a_collector_gets_uses_as_otlp_logs_over_a_crash() {
    let collector = Receiver::start().await;
    let secrets = tempfile::tempdir().unwrap();
    let headers = secrets.path().join("headers");
    std::fs::write(&headers, "x-api-key: of-the-collector\n").unwrap();
    std::fs::set_permissions(
        &headers,
        std::os::unix::fs::PermissionsExt::from_mode(0o600),
    )
    .unwrap();
    let mut stack = Stack::builder()
        .variable("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url(""))
        .variable(
            "CLAVIGER_TELEMETRY_HEADERS_FILE",
            headers.display().to_string(),
        )
        .start()
        .await;
    let access = stack.stripe().await;
    let token = stack.workflow_lease(&access).await;
    wait::until("the first logs", async || {
        let name = format!(
            "agent-{}",
            collector.got().len() + stack.events().await.len()
        );
        stack
            .admin()
            .post("/v1/agents", &json!({"name": name}))
            .await;
        (!collector.got().is_empty()).then_some(())
    })
    .await;
    for _ in 0..3 {
        stack
            .get("api.stripe.com", "/v1/balance", &token)
            .await
            .expect_status(200);
    }
    stack.kill().await;
    stack.start_again().await;
    let uses = wait::until("the uses", async || {
        let uses = records(&collector, "claviger.lease.use");
        (uses.len() >= 3).then_some(uses)
    })
    .await;
    let attribute = |name: &str| {
        let found = uses[0].iter().find(|(key, _)| key == name);
        found.unwrap_or_else(|| panic!("no {name}")).1.clone()
    };
    assert_eq!(
        attribute("server.address"),
        "StringValue(\"api.stripe.com\")"
    );
    assert_eq!(attribute("http.request.method"), "StringValue(\"GET\")");
    assert_eq!(attribute("url.path"), "StringValue(\"/v1/balance\")");
    assert_eq!(collector.got()[0].uri.path(), "/v1/logs");
    assert_eq!(collector.got()[0].header("x-api-key"), "of-the-collector");
    stack.finish_after_crash().await;
}

/// The attributes of every record of this name, once each.
fn records(collector: &Receiver, name: &str) -> Vec<Vec<(String, String)>> {
    let mut found: Vec<Vec<(String, String)>> = Vec::new();
    for got in collector.got() {
        let request = ExportLogsServiceRequest::decode(got.body).unwrap();
        let scopes = request
            .resource_logs
            .into_iter()
            .flat_map(|logs| logs.scope_logs);
        for record in scopes.flat_map(|scope| scope.log_records) {
            let attributes: Vec<(String, String)> = record
                .attributes
                .into_iter()
                .map(|one| {
                    let value = one.value.and_then(|value| value.value);
                    (
                        one.key,
                        value.map_or_else(String::new, |value| format!("{value:?}")),
                    )
                })
                .collect();
            if record.event_name == name && !found.contains(&attributes) {
                found.push(attributes);
            }
        }
    }
    found
}

#[test]
fn the_readme_shows_the_receiver_that_is_tested_here() {
    let readme = include_str!("../../README.md");
    assert!(readme.contains(include_str!("../../examples/verify_webhook.py")));
}
