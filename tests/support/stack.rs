//! The stack under test: a data directory, the server's process, the upstream, and all that was said to anybody.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Once};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::process::Command;

use super::api::Api;
use super::canary::Canary;
use super::process::Process;
use super::upstream::{Recorded, Upstream};
use super::wait;
use super::wire::{Seen, Wire};

/// The names that the upstream answers to, and that the server dials there.
pub(crate) const HOSTS: &[&str] = &[
    "api.anthropic.com",
    "api.cohere.com",
    "api.datadoghq.com",
    "api.github.com",
    "api.groq.com",
    "api.linear.app",
    "api.mistral.ai",
    "api.notion.com",
    "api.openai.com",
    "api.sendgrid.com",
    "api.stripe.com",
    "api.twilio.com",
    "dynamodb.us-east-1.amazonaws.com",
    "files.stripe.com",
    "generativelanguage.googleapis.com",
    "github.com",
    "gitlab.com",
    "openrouter.ai",
    "raw.githubusercontent.com",
    "s3.us-east-1.amazonaws.com",
    "slack.com",
    "sts.us-east-1.amazonaws.com",
    "uploads.github.com",
];

/// How to start a [`Stack`].
pub(crate) struct Builder {
    data: Option<PathBuf>,
    names_data: bool,
    log: &'static str,
    loopback: bool,
    alpn: &'static [&'static [u8]],
    hosts: Vec<&'static str>,
    unnamed: Option<&'static str>,
    resolve: Vec<String>,
    arguments: Vec<String>,
    api: String,
    variables: Vec<(&'static str, &'static str)>,
}

impl Builder {
    /// Sets a variable of the server's environment.
    pub(crate) fn variable(mut self, name: &'static str, value: &'static str) -> Self {
        self.variables.push((name, value));
        self
    }

    /// Listens for the REST API at `addr`.
    pub(crate) fn api(mut self, addr: SocketAddr) -> Self {
        self.api = addr.to_string();
        self
    }

    /// Keeps the data in `dir`.
    pub(crate) fn data(mut self, dir: &Path) -> Self {
        self.data = Some(dir.to_owned());
        self
    }

    /// Lets the server choose its data directory: the platform's, below `HOME`.
    pub(crate) fn default_data(mut self) -> Self {
        self.names_data = false;
        self
    }

    /// Logs at `level` rather than at `trace`, where the log itself would be the load.
    pub(crate) fn log(mut self, level: &'static str) -> Self {
        self.log = level;
        self
    }

    /// Leaves the address policy as it is by default: loopback is blocked.
    pub(crate) fn without_loopback(mut self) -> Self {
        self.loopback = false;
        self
    }

    /// The upstream offers these protocols by ALPN.
    pub(crate) fn upstream_alpn(mut self, alpn: &'static [&'static [u8]]) -> Self {
        self.alpn = alpn;
        self
    }

    /// The upstream answers to `host` as well.
    pub(crate) fn host(mut self, host: &'static str) -> Self {
        self.hosts.push(host);
        self
    }

    /// The upstream's certificate leaves `host` out, which still is dialled there.
    pub(crate) fn certificate_without(mut self, host: &'static str) -> Self {
        self.unnamed = Some(host);
        self
    }

    /// Dials `host` on port 443 at `addr`.
    pub(crate) fn resolve(mut self, host: &str, addr: impl std::fmt::Display) -> Self {
        self.resolve.push(format!("{host}:443={addr}"));
        self
    }

    /// One more argument of `serve`.
    pub(crate) fn argument(mut self, argument: impl Into<String>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Starts upstream and server.
    pub(crate) async fn start(self) -> Stack {
        install_crypto();
        let home = tempfile::Builder::new()
            .prefix("claviger-e2e-")
            .tempdir()
            .expect("a temporary directory");
        let named: Vec<&str> = self
            .hosts
            .iter()
            .copied()
            .filter(|host| Some(*host) != self.unnamed)
            .collect();
        let upstream = Upstream::start_with(&named, self.alpn).await;
        let upstream_ca = home.path().join("upstream-ca.pem");
        std::fs::write(&upstream_ca, upstream.ca_pem()).expect("the directory is ours");
        let usual = if self.names_data {
            "data"
        } else {
            ".local/share/claviger"
        };
        let data = self.data.unwrap_or_else(|| home.path().join(usual));

        let mut arguments = vec!["serve".to_owned()];
        let mut option = |name: &str, value: String| arguments.extend([name.to_owned(), value]);
        if self.names_data {
            option("--data", data.display().to_string());
        }
        option("--api", self.api.clone());
        option("--proxy", "127.0.0.1:0".to_owned());
        option("--upstream-ca", upstream_ca.display().to_string());
        if self.loopback {
            option("--allow-address", "127.0.0.0/8".to_owned());
        }
        let overridden = |host: &str| {
            self.resolve
                .iter()
                .any(|rule| rule.starts_with(&format!("{host}:443=")))
        };
        for host in self.hosts.iter().filter(|host| !overridden(host)) {
            option("--resolve", format!("{host}:443={}", upstream.addr));
        }
        for rule in &self.resolve {
            option("--resolve", rule.clone());
        }
        arguments.extend(self.arguments);

        let launch = Launch {
            arguments,
            home: home.path().to_owned(),
            log: self.log,
            starts: 0,
            variables: self.variables,
        };
        Stack::launch(home, data, upstream, launch).await
    }
}

/// The server's command line, kept for restarts.
struct Launch {
    arguments: Vec<String>,
    home: PathBuf,
    log: &'static str,
    starts: usize,
    variables: Vec<(&'static str, &'static str)>,
}

impl Launch {
    fn start(&mut self) -> Process {
        self.starts += 1;
        let mut command = binary(&self.home);
        command
            .args(&self.arguments)
            .env("RUST_LOG", self.log)
            .envs(self.variables.iter().copied());
        Process::start(command, &self.home, self.starts).expect("the binary starts")
    }
}

/// Where the built binary is.
pub(crate) fn built() -> PathBuf {
    // A test archive carries the binary along and says where it is; else it is where cargo built it.
    std::env::var_os("NEXTEST_BIN_EXE_claviger")
        .unwrap_or_else(|| env!("CARGO_BIN_EXE_claviger").into())
        .into()
}

/// The built binary with a clean environment and `home` for whatever it keeps.
pub(crate) fn binary(home: &Path) -> Command {
    let mut command = Command::new(built());
    command
        .env_clear()
        .env("HOME", home)
        .env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command
}

/// One server, one upstream, one org.
pub(crate) struct Stack {
    /// Before the directory, because fields are dropped in order and the log lies there.
    pub(crate) process: Option<Process>,
    pub(crate) home: TempDir,
    pub(crate) data: PathBuf,
    pub(crate) upstream: Upstream,
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
    launch: Launch,
}

impl Stack {
    pub(crate) fn builder() -> Builder {
        Builder {
            data: None,
            names_data: true,
            log: "trace",
            loopback: true,
            alpn: &[b"http/1.1"],
            hosts: HOSTS.to_vec(),
            unnamed: None,
            resolve: Vec::new(),
            arguments: Vec::new(),
            api: "127.0.0.1:0".to_owned(),
            variables: Vec::new(),
        }
    }

    /// A stack with every default.
    pub(crate) async fn start() -> Self {
        Self::builder().start().await
    }

    async fn launch(home: TempDir, data: PathBuf, upstream: Upstream, mut launch: Launch) -> Self {
        let mut process = launch.start();
        let ready = Ready::parse(&process.ready_line().await);
        let admin_key = std::fs::read_to_string(data.join("admin.key"))
            .expect("the first start writes admin.key");
        Self {
            home,
            data,
            upstream,
            api_addr: ready.api,
            proxy_addr: ready.proxy,
            ca: ready.ca,
            admin_key: admin_key.trim().to_owned(),
            process: Some(process),
            seen: Seen::default(),
            secrets: Arc::default(),
            marks: Arc::default(),
            tokens: Arc::default(),
            launch,
        }
    }

    /// The running process.
    pub(crate) fn process(&self) -> &Process {
        self.process.as_ref().expect("the server runs")
    }

    /// Kills the server as `kill -9` does; [`Self::start_again`] brings it back.
    pub(crate) async fn kill(&mut self) {
        self.process.take().expect("the server runs").kill().await;
    }

    /// Ends the server in good order.
    pub(crate) async fn stop(&mut self) {
        self.process.take().expect("the server runs").stop().await;
    }

    /// Starts the server on the same data.
    pub(crate) async fn start_again(&mut self) {
        let mut process = self.launch.start();
        let ready = Ready::parse(&process.ready_line().await);
        self.process = Some(process);
        (self.api_addr, self.proxy_addr) = (ready.api, ready.proxy);
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
        let output = tokio::time::timeout(wait::PATIENCE * 4, command.output())
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

/// The line that `serve` prints once both planes answer.
struct Ready {
    api: SocketAddr,
    proxy: SocketAddr,
    ca: PathBuf,
}

impl Ready {
    #[track_caller]
    fn parse(line: &str) -> Self {
        let words: Vec<&str> = line.split(' ').collect();
        assert_eq!(words[0], "ready", "{line:?}");
        let value = |name: &str| {
            words
                .iter()
                .find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
                .unwrap_or_else(|| panic!("{name} is missing in {line:?}"))
        };
        let addr = |name: &str| {
            let url = value(name);
            url.strip_prefix("http://")
                .and_then(|addr| addr.parse().ok())
                .unwrap_or_else(|| panic!("{url:?}"))
        };
        Self {
            api: addr("api"),
            proxy: addr("proxy"),
            ca: PathBuf::from(value("ca")),
        }
    }
}

/// Makes ring the process's provider of cryptography.
pub(crate) fn install_crypto() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}
