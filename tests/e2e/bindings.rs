//! Bindings: an agent sends by a name, and what is behind it is a secret set, a grant, a lease and the injector.

use serde_json::{Value, json};

use crate::support::canary::Canary;
use crate::support::custody::private_file;
use crate::support::{Reply, Stack};

const HOST: &str = "api.notion.com";

/// An agent with one binding to a host of the upstream.
struct Scene {
    stack: Stack,
    agent: String,
    key: String,
    secret: Canary,
}

impl Scene {
    async fn start(more: &Value) -> Self {
        let stack = Stack::start().await;
        let secret = stack.secret("tok_");
        let (agent, key) = stack.agent("bot").await;
        let scene = Self {
            stack,
            agent,
            key,
            secret,
        };
        let mut body = scene.wish();
        for (name, value) in more.as_object().unwrap() {
            body[name] = value.clone();
        }
        scene.create(&body).await.expect_status(201);
        scene
    }

    fn wish(&self) -> Value {
        json!({
            "name": "api", "binding_type": "http",
            "config": { "base_url": format!("https://{HOST}"), "auth_type": "bearer" },
            "credential": { "token": self.secret.text() },
        })
    }

    fn path(&self, rest: &str) -> String {
        format!("/v1/agents/{}{rest}", self.agent)
    }

    async fn create(&self, body: &Value) -> Reply {
        let path = self.path("/bindings");
        self.stack.admin().post(&path, body).await
    }

    async fn execute(&self, params: Value) -> Reply {
        let body = json!({ "binding": "api", "intent_type": "http", "params": params });
        let path = self.path("/execute");
        self.stack.api(&self.key).post(&path, &body).await
    }

    async fn get(&self, path: &str) -> Value {
        let reply = self.execute(json!({ "path": path })).await;
        reply.expect_status(200).json()
    }

    async fn executions(&self) -> Vec<Value> {
        let reply = self
            .stack
            .api(&self.key)
            .get(&self.path("/executions"))
            .await;
        let page = reply.expect_status(200).json();
        page["events"].as_array().unwrap().clone()
    }
}

#[tokio::test]
async fn an_agent_executes_by_name_and_the_trail_is_its_history() {
    let scene = Scene::start(&json!({})).await;
    let done = scene
        .execute(json!({ "method": "POST", "path": "/v1/pages?a=b", "headers": { "x-own": "1" }, "body": { "n": 1 } }))
        .await
        .expect_status(200)
        .json();
    assert_eq!(done["status"], "completed", "{done}");
    assert_eq!(done["result"]["status"], 200);
    assert_eq!(done["error"], Value::Null);
    let sent = scene.stack.upstream.last();
    assert_eq!(sent.authority, HOST);
    assert_eq!(
        sent.field("authorization"),
        format!("Bearer {}", scene.secret.text())
    );
    assert_eq!(sent.target, "/v1/pages?a=b");
    assert_eq!(sent.body(), br#"{"n":1}"#);

    assert_eq!(done["redactions_applied"], 0, "{done}");

    let echoed = scene.get("/echo").await;
    assert!(!echoed.to_string().contains(scene.secret.text()));
    // A field of its own, a cookie, and once in the body.
    assert_eq!(echoed["redactions_applied"], 3, "{echoed}");
    let wrong = scene
        .execute(json!({ "url": "https://api.openai.com/v1/models" }))
        .await
        .expect_status(200)
        .json();
    assert_eq!(wrong["status"], "denied");
    assert_eq!(wrong["error_code"], "grant_denied");
    let failed = scene.get("/garbage").await;
    assert_eq!(failed["status"], "error");
    assert_eq!(failed["error_code"], "upstream_protocol");

    // The outcome is written behind the answer.
    let history = loop {
        let history = scene.executions().await;
        if history.iter().all(|event| event["status"] != "sent") {
            break history;
        }
        tokio::task::yield_now().await;
    };
    let told: Vec<_> = history
        .iter()
        .map(|event| (event["status"].as_str().unwrap(), event["id"].clone()))
        .collect();
    let expected = [
        ("error", &failed),
        ("denied", &wrong),
        ("success", &echoed),
        ("success", &done),
    ];
    let of_echo = history
        .iter()
        .find(|event| event["id"] == echoed["execution_id"]);
    assert_eq!(of_echo.unwrap()["redactions_applied"], 3);
    // Streams of refusals and uses are two, so of one instant either may be first.
    assert_eq!(told.len(), expected.len(), "{history:?}");
    for (status, execution) in expected {
        assert!(
            told.contains(&(status, execution["execution_id"].clone())),
            "{told:?}"
        );
    }
    scene.stack.finish().await;
}

#[tokio::test]
async fn people_make_bindings_and_agents_use_their_own() {
    let scene = Scene::start(&json!({})).await;
    let stack = &scene.stack;
    let agent = stack.api(&scene.key);
    let bindings = scene.path("/bindings");
    agent
        .post(&bindings, &scene.wish())
        .await
        .expect_problem(403, "forbidden");
    scene
        .create(&scene.wish())
        .await
        .expect_problem(409, "name_taken");
    let shown = agent.get(&format!("{bindings}/api")).await;
    let shown = shown.expect_status(200).json();
    assert_eq!(shown["credential_set"], true);
    assert!(shown.get("credential").is_none());
    let listed = agent.get(&bindings).await.expect_status(200).json();
    assert_eq!(listed["bindings"][0]["id"], shown["id"]);

    let (_, other) = stack.agent("other").await;
    let other = stack.api(&other);
    for path in [
        &bindings,
        &format!("{bindings}/api"),
        &scene.path("/executions"),
    ] {
        other.get(path).await.expect_problem(404, "not_found");
    }
    let body = json!({ "binding": shown["id"], "params": { "path": "/" } });
    other
        .post(&scene.path("/execute"), &body)
        .await
        .expect_problem(404, "not_found");
    let (own, _) = stack.agent("third").await;
    stack
        .admin()
        .get(&format!(
            "/v1/agents/{own}/bindings/{}",
            shown["id"].as_str().unwrap()
        ))
        .await
        .expect_problem(404, "not_found");
    stack
        .admin()
        .post(&scene.path("/execute"), &body)
        .await
        .expect_problem(403, "forbidden");
    for kind in ["postgres", "redis", "smtp", "anything"] {
        let mut wish = scene.wish();
        wish["binding_type"] = json!(kind);
        scene
            .create(&wish)
            .await
            .expect_problem(400, "binding_type_unsupported");
    }
    assert_eq!(stack.upstream.count(), 0);
    scene.stack.finish().await;
}

#[tokio::test]
async fn limits_of_a_binding_hold_and_change_at_once() {
    let scene = Scene::start(&json!({
        "config": { "base_url": format!("https://{HOST}/v1"), "auth_type": "header", "header_name": "X-Key", "allowed_paths": ["/v1/pages*"] },
        "guardrails": { "allowed_methods": ["GET"] },
    }))
    .await;
    for (path, status) in [
        ("/pages", "completed"),
        ("/pages/1/2", "completed"),
        ("/users", "denied"),
    ] {
        assert_eq!(scene.get(path).await["status"], status, "{path}");
    }
    let posted = scene
        .execute(json!({ "path": "/pages", "method": "POST" }))
        .await;
    assert_eq!(posted.expect_status(200).json()["status"], "denied");
    assert_eq!(
        scene.stack.upstream.last().field("x-key"),
        scene.secret.text()
    );

    let admin = scene.stack.admin();
    let binding = scene.path("/bindings/api");
    let changed = json!({ "guardrails": { "max_requests_per_minute": 1 } });
    admin.patch(&binding, &changed).await.expect_status(200);
    let posted = scene
        .execute(json!({ "path": "/pages", "method": "POST" }))
        .await;
    assert_eq!(posted.expect_status(200).json()["status"], "completed");
    scene
        .execute(json!({ "path": "/pages" }))
        .await
        .expect_problem(429, "rate_limited");
    let stopped = json!({ "is_active": false, "guardrails": {} });
    admin.patch(&binding, &stopped).await.expect_status(200);
    scene
        .execute(json!({ "path": "/pages" }))
        .await
        .expect_problem(403, "grant_denied");
    let resumed = json!({ "is_active": true });
    admin.patch(&binding, &resumed).await.expect_status(200);
    assert_eq!(scene.get("/pages").await["status"], "completed");
    let kind =
        json!({ "config": { "base_url": format!("https://{HOST}"), "auth_type": "bearer" } });
    admin.patch(&binding, &kind).await.expect_status(400);
    admin.delete(&binding).await.expect_status(204);
    scene
        .execute(json!({ "path": "/pages" }))
        .await
        .expect_problem(404, "not_found");
    scene.stack.finish().await;
}

/// The number of sealed credentials of bindings that the database holds.
fn sealed_credentials(stack: &Stack) -> i64 {
    let database = rusqlite::Connection::open(stack.data.join("claviger.db")).unwrap();
    let count = "SELECT COUNT(*) FROM secret_versions WHERE path LIKE 'custom/bindings/%'";
    database.query_row(count, [], |row| row.get(0)).unwrap()
}

#[tokio::test]
async fn a_deleted_bindings_credential_is_gone_from_the_database() {
    let scene = Scene::start(&json!({})).await;
    let stack = &scene.stack;
    let admin = stack.admin();
    scene.get("/v1/x").await;
    let next = stack.secret("tok_");
    let rotated = json!({ "credential": next.text() });
    let path = scene.path("/bindings/api/rotate-credential");
    admin.post(&path, &rotated).await.expect_status(200);
    assert_eq!(sealed_credentials(stack), 2);
    let mut kept = scene.wish();
    kept["name"] = json!("kept");
    scene.create(&kept).await.expect_status(201);

    // Also where somebody deleted its set before, which alone keeps what was sealed.
    let shown = admin.get(&scene.path("/bindings/api")).await.json();
    let set = shown["secret_set_id"].as_str().unwrap();
    let set = format!("/v1/vault/secret-sets/{set}");
    admin.delete(&set).await.expect_status(204);
    assert_eq!(sealed_credentials(stack), 3);
    let binding = scene.path("/bindings/api");
    admin.delete(&binding).await.expect_status(204);
    assert_eq!(sealed_credentials(stack), 1);
    let events = stack.events().await;
    let purged = events
        .iter()
        .filter(|event| event["action"] == "secret_set.purge");
    assert_eq!(purged.count(), 1);
    let body = json!({ "binding": "kept", "params": { "path": "/v1/x" } });
    let done = stack
        .api(&scene.key)
        .post(&scene.path("/execute"), &body)
        .await;
    assert_eq!(done.expect_status(200).json()["status"], "completed");
    scene.stack.finish().await;
}

#[tokio::test]
async fn a_rotated_credential_is_the_next_requests() {
    let scene = Scene::start(&json!({})).await;
    let stack = &scene.stack;
    let admin = stack.admin();
    scene.get("/v1/x").await;
    let next = stack.secret("tok_");
    let path = scene.path("/bindings/api/rotate-credential");
    let rotated = json!({ "credential": next.text() });
    admin.post(&path, &rotated).await.expect_status(200);
    scene.get("/v1/x").await;
    assert_eq!(
        stack.upstream.last().field("authorization"),
        format!("Bearer {}", next.text())
    );
    let path = scene.path("/bindings/api/test");
    let tested = admin.post(&path, &json!({})).await.expect_status(200);
    assert_eq!(tested.json()["success"], true, "{}", tested.text());
    stack
        .api(&scene.key)
        .post(&path, &json!({}))
        .await
        .expect_problem(403, "forbidden");
    scene.stack.finish().await;
}

#[tokio::test]
async fn a_credential_by_reference_follows_its_secret_and_ends_with_it() {
    let scene = Scene::start(&json!({})).await;
    let stack = &scene.stack;
    let admin = stack.admin();
    let (first, second) = (stack.secret("tok_"), stack.secret("tok_"));
    let secret = "/v1/vaults/default/secrets/partner/key";
    let put = async |value: &Canary| {
        let body = json!({ "value": value.text() });
        admin.put(secret, &body).await.expect_status(201);
    };
    put(&first).await;
    let mut wish = scene.wish();
    wish["name"] = json!("referring");
    wish["credential"] = Value::Null;
    wish["credential_source"] =
        json!({ "type": "vault_ref", "vault_id": "default", "path": "partner/key" });
    let made = scene.create(&wish).await.expect_status(201).json();
    assert_eq!(made["credential_source_type"], "vault_ref");
    assert_eq!(made["credential_path"], "partner/key");
    let execute = async || {
        let body = json!({ "binding": "referring", "params": { "path": "/v1/x" } });
        stack
            .api(&scene.key)
            .post(&scene.path("/execute"), &body)
            .await
    };
    for value in [&first, &second] {
        put(value).await;
        assert_eq!(
            execute().await.expect_status(200).json()["status"],
            "completed"
        );
        assert_eq!(
            stack.upstream.last().field("authorization"),
            format!("Bearer {}", value.text())
        );
    }
    let rotate = scene.path("/bindings/referring/rotate-credential");
    let other = json!({ "credential": "tok_other_1234567890" });
    admin
        .post(&rotate, &other)
        .await
        .expect_problem(409, "conflict");
    admin.delete(secret).await.expect_status(204);
    execute().await.expect_problem(410, "secret_gone");
    assert_eq!(stack.upstream.count(), 2);
    scene.stack.finish().await;
}

#[tokio::test]
async fn a_graphql_binding_sends_its_question() {
    let scene = Scene::start(&json!({})).await;
    let mut wish = scene.wish();
    wish["name"] = json!("graph");
    wish["binding_type"] = json!("graphql");
    wish["config"] = json!({ "base_url": format!("https://{HOST}/graphql"), "auth_type": "basic" });
    wish["credential"] = json!({ "username": "bot", "password": scene.secret.text() });
    scene.create(&wish).await.expect_status(201);
    let body = json!({ "binding": "graph", "intent_type": "graphql",
        "params": { "query": "query Q($n: Int) { a(n: $n) }", "variables": { "n": 1 }, "operation_name": "Q" } });
    let agent = scene.stack.api(&scene.key);
    let done = agent.post(&scene.path("/execute"), &body).await;
    assert_eq!(done.expect_status(200).json()["status"], "completed");
    let sent = scene.stack.upstream.last();
    assert_eq!((sent.method.as_str(), sent.path()), ("POST", "/graphql"));
    let question: Value = serde_json::from_slice(&sent.body()).unwrap();
    assert_eq!(question["variables"], json!({ "n": 1 }));
    assert_eq!(question["operationName"], "Q");
    assert!(sent.field("authorization").starts_with("Basic "));
    let wrong = json!({ "binding": "graph", "params": { "path": "/x" } });
    agent
        .post(&scene.path("/execute"), &wrong)
        .await
        .expect_status(400);
    scene.stack.finish().await;
}

#[tokio::test]
async fn the_command_line_makes_tries_and_deletes_bindings() {
    let scene = Scene::start(&json!({})).await;
    let stack = &scene.stack;
    let file = stack.home.path().join("credential");
    std::fs::write(&file, format!("{}\n", scene.secret.text())).unwrap();
    let file = file.display().to_string();
    let url = format!("https://{HOST}");
    let cli = async |arguments: &[&str]| {
        let mut all = vec!["binding"];
        all.extend_from_slice(arguments);
        all.extend_from_slice(&["--agent", "bot", "--json"]);
        stack.cli(&all).await
    };
    let made = [
        "create",
        "cli",
        "--base-url",
        &url,
        "--method",
        "GET",
        "--file",
        &file,
    ];
    cli(&made).await.expect_success();
    std::fs::remove_file(&file).unwrap();
    let listed = cli(&["list"]).await.expect_success();
    assert!(listed.stdout.contains("\"cli\""), "{}", listed.stdout);
    cli(&["test", "cli"]).await.expect_success();
    cli(&["delete", "cli"]).await.expect_success();
    let gone = cli(&["show", "cli"]).await;
    assert_eq!(gone.status, Some(1), "{}", gone.stderr);
    assert_eq!(stack.upstream.count(), 1);
    scene.stack.finish().await;
}

#[tokio::test]
async fn an_agent_executes_from_the_command_line() {
    let scene = Scene::start(&json!({})).await;
    let stack = &scene.stack;
    let key = stack.home.path().join("bot.key");
    private_file(&key, scene.key.as_bytes());
    let execute = async |key: Option<&std::path::Path>, arguments: &[&str]| {
        let mut command = stack.command(&[&["execute"], arguments].concat());
        if let Some(key) = key {
            command.env("CLAVIGER_KEY_FILE", key);
        }
        stack.run(command).await
    };
    let post = [
        "api",
        "POST",
        "/v1/pages?a=b",
        "-H",
        "X-Own: 1",
        "--body",
        "{\"n\":1}",
    ];
    let done = execute(Some(&key), &post).await.expect_success();
    assert_eq!(done.stdout, r#"{"ok":true,"path":"/v1/pages"}"#);
    assert!(done.stderr.contains("200 in "), "{}", done.stderr);
    let sent = stack.upstream.last();
    assert_eq!(
        (sent.method.as_str(), sent.target.as_str()),
        ("POST", "/v1/pages?a=b")
    );
    assert_eq!(sent.field("x-own"), "1");
    assert_eq!(sent.body(), br#"{"n":1}"#);

    let echoed = execute(Some(&key), &["api", "/echo", "--json"]).await;
    let told: Value = serde_json::from_str(&echoed.expect_success().stdout).unwrap();
    assert_eq!(told["redactions_applied"], 3, "{told}");
    let echoed = execute(Some(&key), &["api", "/echo"])
        .await
        .expect_success();
    assert!(
        echoed.stderr.contains("masked, 3 times"),
        "{}",
        echoed.stderr
    );

    for (key, arguments, says) in [
        (
            Some(&key),
            &["api", "https://api.openai.com/v1/models"][..],
            "audit list --lease lse_",
        ),
        (Some(&key), &["other", "/"], "hint:"),
        (None, &["api", "/"], "binding test"),
    ] {
        let refused = execute(key.map(std::path::PathBuf::as_path), arguments).await;
        assert_eq!(refused.status, Some(1), "{refused:?}");
        assert!(refused.stderr.contains(says), "{}", refused.stderr);
    }
    std::fs::remove_file(&key).unwrap();
    assert_eq!(stack.upstream.count(), 3);
    scene.stack.finish().await;
}

#[tokio::test]
async fn inner_addresses_are_closed_to_bindings() {
    let stack = Stack::builder().without_loopback().start().await;
    let (agent, key) = stack.agent("bot").await;
    for (name, url) in [
        ("loopback", "https://127.0.0.1"),
        ("metadata", "https://169.254.169.254"),
        ("named", "https://api.notion.com"),
    ] {
        let body = json!({ "name": name, "binding_type": "http", "credential": "tok_1234567890",
            "config": { "base_url": url, "auth_type": "bearer" } });
        let path = format!("/v1/agents/{agent}/bindings");
        let made = stack.admin().post(&path, &body).await;
        if made.status == 422 {
            continue;
        }
        made.expect_status(201);
        let path = format!("/v1/agents/{agent}/execute");
        let body = json!({ "binding": name, "params": { "path": "/latest/meta-data/" } });
        let done = stack
            .api(&key)
            .post(&path, &body)
            .await
            .expect_status(200)
            .json();
        assert_eq!(done["error_code"], "destination_blocked", "{done}");
        let path = format!("/v1/agents/{agent}/bindings/{name}/test");
        let tested = stack.admin().post(&path, &json!({})).await;
        assert_eq!(tested.expect_status(200).json()["success"], false);
    }
    assert_eq!(stack.upstream.connections(), 0);
    stack.finish().await;
}
