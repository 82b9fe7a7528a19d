//! The stack under test: both planes in one process, with the upstream.

use std::net::SocketAddr;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Once};

use super::custody::init_token;
use super::ends::Ends;
use super::finish::Checks;
use super::node::{Launch, Node};
use super::process::Process;
use super::token_endpoint::TokenEndpoint;
use super::upstream::Upstream;

pub(crate) use super::ends::Ran;
pub(crate) use super::node::{binary, built};

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
    "api.telegram.org",
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
    unresolved: Option<&'static str>,
    resolve: Vec<String>,
    arguments: Vec<String>,
    api: String,
    proxy: &'static str,
    variables: Vec<(String, String)>,
    token: bool,
    client_authority: Option<String>,
    token_endpoint: Option<&'static str>,
}

impl Builder {
    /// Runs a token endpoint of this name beside the upstream.
    pub(crate) fn token_endpoint(mut self, host: &'static str) -> Self {
        self.token_endpoint = Some(host);
        self
    }

    /// The upstream takes connections only from clients with a certificate of this authority, in PEM.
    pub(crate) fn client_authority(mut self, pem: String) -> Self {
        self.client_authority = Some(pem);
        self
    }

    /// Sets a variable of the server's environment.
    pub(crate) fn variable(mut self, name: &str, value: impl Into<String>) -> Self {
        self.variables.push((name.to_owned(), value.into()));
        self
    }

    /// Keeps the keys in a `SoftHSM` token, which is made in the data directory first.
    pub(crate) fn token(mut self) -> Self {
        self.token = true;
        self
    }

    /// Listens for the REST API at `addr`.
    pub(crate) fn api(mut self, addr: SocketAddr) -> Self {
        self.api = addr.to_string();
        self
    }

    /// Listens for agents at `addr`.
    pub(crate) fn proxy(mut self, addr: &'static str) -> Self {
        self.proxy = addr;
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

    /// The upstream answers to `host`, and the server is not told where that is.
    pub(crate) fn unresolved(mut self, host: &'static str) -> Self {
        self.unresolved = Some(host);
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
    pub(crate) async fn start(mut self) -> Stack {
        install_crypto();
        let home = Arc::new(home());
        let named: Vec<&str> = self
            .hosts
            .iter()
            .copied()
            .filter(|host| Some(*host) != self.unnamed)
            .collect();
        let upstream =
            Upstream::start_for(&named, self.alpn, self.client_authority.as_deref()).await;
        let mut tokens = None;
        if let Some(host) = self.token_endpoint {
            let endpoint = TokenEndpoint::start(upstream.acceptor_for(&[host])).await;
            self.resolve.push(format!("{host}:443={}", endpoint.addr));
            tokens = Some(endpoint);
        }
        let usual = if self.names_data {
            "data"
        } else {
            ".local/share/claviger"
        };
        let data = self.data.unwrap_or_else(|| home.path().join(usual));

        if self.token {
            init_token(home.path(), &data).await;
        }

        let mut arguments = vec!["serve".to_owned()];
        let mut option = |name: &str, value: String| arguments.extend([name.to_owned(), value]);
        if self.names_data {
            option("--data", data.display().to_string());
        }
        option("--api", self.api.clone());
        option("--proxy", self.proxy.to_owned());
        let told: Vec<&str> = self
            .hosts
            .iter()
            .copied()
            .filter(|host| Some(*host) != self.unresolved)
            .collect();
        arguments.extend(network(&upstream, home.path(), &told, &self.resolve));
        if self.loopback {
            arguments.extend(loopback());
        }
        arguments.extend(self.arguments);

        let launch = Launch {
            log: self.log,
            variables: self.variables,
            ..Launch::new(home.path(), arguments)
        };
        let node = Node::start(data, launch).await;
        Stack {
            ends: Ends::new(home, upstream, &node, &node),
            node,
            tokens,
            checks: Checks::owed(),
        }
    }
}

/// A new directory for a story.
pub(crate) fn home() -> tempfile::TempDir {
    tempfile::Builder::new()
        .prefix("claviger-e2e-")
        .tempdir()
        .expect("a temporary directory")
}

/// The options that let an injector reach `upstream` by the names of `hosts`, but for those with a rule of their own.
pub(crate) fn network(
    upstream: &Upstream,
    home: &Path,
    hosts: &[&str],
    rules: &[String],
) -> Vec<String> {
    let ca = home.join("upstream-ca.pem");
    std::fs::write(&ca, upstream.ca_pem()).expect("the directory is ours");
    let mut arguments = vec!["--upstream-ca".to_owned(), ca.display().to_string()];
    let overridden = |host: &str| {
        let start = format!("{host}:443=");
        rules.iter().any(|rule| rule.starts_with(&start))
    };
    for host in hosts.iter().filter(|host| !overridden(host)) {
        let rule = format!("{host}:443={}", upstream.addr);
        arguments.extend(["--resolve".to_owned(), rule]);
    }
    for rule in rules {
        arguments.extend(["--resolve".to_owned(), rule.clone()]);
    }
    arguments
}

/// The option that lets an injector dial this machine.
pub(crate) fn loopback() -> [String; 2] {
    ["--allow-address".to_owned(), "127.0.0.0/8".to_owned()]
}

/// One server, one upstream, one org.
pub(crate) struct Stack {
    /// Before the directory, because fields are dropped in order and the log lies there.
    pub(crate) node: Node,
    pub(crate) ends: Ends,
    tokens: Option<TokenEndpoint>,
    pub(super) checks: Checks,
}

impl Deref for Stack {
    type Target = Ends;

    fn deref(&self) -> &Ends {
        &self.ends
    }
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
            unresolved: None,
            resolve: Vec::new(),
            arguments: Vec::new(),
            api: "127.0.0.1:0".to_owned(),
            proxy: "127.0.0.1:0",
            variables: Vec::new(),
            token: false,
            client_authority: None,
            token_endpoint: None,
        }
    }

    /// A stack with every default.
    pub(crate) async fn start() -> Self {
        Self::builder().start().await
    }

    /// The token endpoint that it was built with.
    pub(crate) fn tokens(&self) -> &TokenEndpoint {
        self.tokens.as_ref().expect("the builder was asked for one")
    }

    /// The running process.
    pub(crate) fn process(&self) -> &Process {
        self.node.process()
    }

    /// Kills the server as `kill -9` does; [`Self::start_again`] brings it back.
    pub(crate) async fn kill(&mut self) {
        self.node.kill().await;
    }

    /// Ends the server in good order.
    pub(crate) async fn stop(&mut self) {
        self.node.stop().await;
    }

    /// Starts the server on the same data.
    pub(crate) async fn start_again(&mut self) {
        self.node.start_again().await;
        self.ends.api_addr = self.node.api;
        self.ends.proxy_addr = self.node.proxy.expect("it runs both planes");
    }
}

/// Makes ring the process's provider of cryptography.
pub(crate) fn install_crypto() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}
