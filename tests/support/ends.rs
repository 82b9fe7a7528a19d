//! The two ends of an installation, where people and agents meet it, and all that was said to anybody there.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::Command;

use super::api::Api;
use super::canary::Canary;
use super::node::{Node, binary};
use super::upstream::{Recorded, Upstream};
use super::wait;
use super::wire::{Seen, Wire};

/// One API, one injector, one upstream, one org. Clones share what was said.
#[derive(Clone)]
pub(crate) struct Ends {
    pub(crate) home: Arc<TempDir>,
    /// Where `admin.key` is.
    pub(crate) data: PathBuf,
    pub(crate) upstream: Arc<Upstream>,
    pub(crate) api_addr: SocketAddr,
    pub(crate) proxy_addr: SocketAddr,
    pub(crate) ca: PathBuf,
    pub(crate) admin_key: String,
    /// What agents received. Provider secrets may not be in it.
    pub(crate) seen: Seen,
    /// The provider secrets of this test.
    pub(crate) secrets: Arc<Mutex<Vec<Canary>>>,
    /// What marks a request as credentialed and is no secret, such as an access key's id.
    pub(crate) marks: Arc<Mutex<Vec<Canary>>>,
    /// What agents may know but no log or file: leases and keys.
    pub(crate) tokens: Arc<Mutex<Vec<Canary>>>,
}

impl Ends {
    /// The API of the node that made the installation, and the injector at `injector`.
    pub(crate) fn new(
        home: Arc<TempDir>,
        upstream: Upstream,
        first: &Node,
        injector: &Node,
    ) -> Self {
        let admin_key = std::fs::read_to_string(first.data.join("admin.key"))
            .expect("the first start writes admin.key");
        Self {
            home,
            data: first.data.clone(),
            upstream: Arc::new(upstream),
            api_addr: first.api,
            proxy_addr: injector.proxy.expect("an injector listens for agents"),
            ca: injector.ca.clone(),
            admin_key: admin_key.trim().to_owned(),
            seen: Seen::default(),
            secrets: Arc::default(),
            marks: Arc::default(),
            tokens: Arc::default(),
        }
    }

    /// The same installation by this node's API and, if it has one, by its injector.
    pub(crate) fn at(&self, node: &Node) -> Self {
        Self {
            api_addr: node.api,
            proxy_addr: node.proxy.unwrap_or(self.proxy_addr),
            ca: if node.proxy.is_some() {
                node.ca.clone()
            } else {
                self.ca.clone()
            },
            ..self.clone()
        }
    }

    /// The REST API as the administrator.
    pub(crate) fn admin(&self) -> Api {
        self.api(&self.admin_key)
    }

    /// The REST API with another key or token.
    pub(crate) fn api(&self, key: &str) -> Api {
        Api::new(self.api_addr, key, self.seen.clone())
    }

    /// A new provider secret, which the leak sweep will look for.
    pub(crate) fn secret(&self, prefix: &str) -> Canary {
        self.watch(Canary::new(prefix))
    }

    /// Makes the leak sweep look for `secret`.
    pub(crate) fn watch(&self, secret: Canary) -> Canary {
        self.secrets
            .lock()
            .expect("no holder panics")
            .push(secret.clone());
        secret
    }

    /// Makes the leak sweep look for a lease or key where only its holder may have it.
    pub(crate) fn watch_token(&self, token: &str) {
        self.tokens
            .lock()
            .expect("no holder panics")
            .push(Canary::of(token));
    }

    /// Makes requests that carry `text` count as credentialed.
    pub(crate) fn mark(&self, text: &str) {
        self.marks
            .lock()
            .expect("no holder panics")
            .push(Canary::of(text));
    }

    /// The requests at the upstream that carry a credential of this test.
    pub(crate) fn credentialed(&self) -> Vec<Arc<Recorded>> {
        let mut texts = self.secrets();
        texts.extend(self.marks.lock().expect("no holder panics").iter().cloned());
        self.upstream.credentialed(&texts)
    }

    pub(crate) fn secrets(&self) -> Vec<Canary> {
        self.secrets.lock().expect("no holder panics").clone()
    }

    pub(crate) fn tokens(&self) -> Vec<Canary> {
        self.tokens.lock().expect("no holder panics").clone()
    }

    /// A plain connection to the injector.
    pub(crate) async fn proxy_wire(&self) -> Wire {
        Wire::new(self.proxy_stream().await, Some(self.seen.clone()))
    }

    pub(crate) async fn proxy_stream(&self) -> TcpStream {
        let stream = wait::within(
            "a connection to the injector",
            TcpStream::connect(self.proxy_addr),
        )
        .await
        .expect("the injector listens");
        stream
            .set_nodelay(true)
            .expect("a TCP socket has this option");
        stream
    }

    /// A command of the CLI, as the administrator, against this server.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = binary(self.home.path());
        command
            .args(arguments)
            .env("CLAVIGER_URL", format!("http://{}", self.api_addr))
            .env("CLAVIGER_PROXY", format!("http://{}", self.proxy_addr))
            .env("CLAVIGER_KEY_FILE", self.data.join("admin.key"))
            .kill_on_drop(true);
        command
    }

    /// Runs a command of the CLI to its end.
    pub(crate) async fn cli(&self, arguments: &[&str]) -> Ran {
        self.run(self.command(arguments)).await
    }

    /// Runs any command to its end; its output counts as seen by an agent.
    pub(crate) async fn run(&self, mut command: Command) -> Ran {
        command.stdin(std::process::Stdio::null());
        let output = tokio::time::timeout(wait::patience() * 4, command.output())
            .await
            .expect("the command ends in time")
            .expect("the command starts");
        self.seen.record(&output.stdout);
        self.seen.record(&output.stderr);
        Ran {
            status: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// The audit events as the export gives them.
    pub(crate) async fn events(&self) -> Vec<Value> {
        let reply = self
            .admin()
            .get("/v1/audit/export")
            .await
            .expect_status(200);
        reply
            .text()
            .lines()
            .map(|line| serde_json::from_str(line).expect("NDJSON"))
            .collect()
    }

    /// The lease of `id` as the API shows it.
    pub(crate) async fn lease(&self, id: &str) -> Value {
        self.admin()
            .get(&format!("/v1/vault/leases/{id}"))
            .await
            .expect_status(200)
            .json()
    }

    /// Mints by the administrator for an agent; the body may say more.
    pub(crate) async fn mint(&self, body: &Value) -> String {
        let minted = self
            .admin()
            .post("/v1/vault/leases", body)
            .await
            .expect_status(201)
            .json();
        let token = minted["token"]
            .as_str()
            .expect("a minted lease has a token")
            .to_owned();
        self.watch_token(&token);
        token
    }

    /// Stores a secret set.
    pub(crate) async fn put_set(&self, provider: &str, name: &str, entries: &Value) -> String {
        let body = json!({ "provider": provider, "environment": "test", "name": name, "entries": entries });
        let set = self
            .admin()
            .post("/v1/vault/secret-sets", &body)
            .await
            .expect_status(201)
            .json();
        set["id"].as_str().expect("a set has an id").to_owned()
    }
}

impl Ends {
    /// Stores a `custom` set.
    pub(crate) async fn put_custom_set(
        &self,
        name: &str,
        entries: &Value,
        custom: &Value,
    ) -> String {
        let body = json!({
            "provider": "custom", "environment": "test", "name": name, "entries": entries, "custom": custom,
        });
        let set = self
            .admin()
            .post("/v1/vault/secret-sets", &body)
            .await
            .expect_status(201)
            .json();
        set["id"].as_str().expect("a set has an id").to_owned()
    }
}

/// What a command did.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) status: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    #[track_caller]
    pub(crate) fn expect_success(self) -> Self {
        assert_eq!(self.status, Some(0), "{self:#?}");
        self
    }
}
