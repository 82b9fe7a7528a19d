//! Many nodes on one Postgres: control planes and injectors as processes, before one upstream.

use std::collections::BTreeMap;
use std::io;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tempfile::TempDir;
use test_postgres::{Database, PASSWORD, Pooler, Server};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::api::Api;
use super::custody::{Custody, private_file};
use super::ends::Ends;
use super::finish::Checks;
use super::node::{Launch, Node};
use super::stack::{HOSTS, home, install_crypto, loopback, network};
use super::token_endpoint::TokenEndpoint;
use super::upstream::Upstream;
use super::wait;
use super::wire::Reply;

/// How to start a [`Fleet`].
pub(crate) struct Builder<'s> {
    server: &'s Server,
    pooled: bool,
    control_planes: usize,
    injectors: usize,
    custody: Custody,
    log: &'static str,
    arguments: Vec<String>,
    variables: Vec<(String, String)>,
    token_endpoint: Option<&'static str>,
}

impl<'s> Builder<'s> {
    /// Runs a token endpoint of this name beside the upstream.
    pub(crate) fn token_endpoint(mut self, host: &'static str) -> Self {
        self.token_endpoint = Some(host);
        self
    }

    /// Keeps the database on `server` rather than on the one that all stories share.
    pub(crate) fn on(mut self, server: &'s Server) -> Self {
        self.server = server;
        self
    }

    /// Reaches the database through pgbouncer in transaction mode.
    pub(crate) fn pooled(mut self) -> Self {
        self.pooled = true;
        self
    }

    /// Starts this many of each.
    pub(crate) fn nodes(mut self, control_planes: usize, injectors: usize) -> Self {
        (self.control_planes, self.injectors) = (control_planes, injectors);
        self
    }

    pub(crate) fn custody(mut self, custody: Custody) -> Self {
        self.custody = custody;
        self
    }

    /// Logs at `level` rather than at `trace`, where the log itself would be the load.
    pub(crate) fn log(mut self, level: &'static str) -> Self {
        self.log = level;
        self
    }

    /// One more argument of every node.
    pub(crate) fn argument(mut self, argument: impl Into<String>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Sets a variable of every node's environment.
    pub(crate) fn variable(mut self, name: &str, value: impl Into<String>) -> Self {
        self.variables.push((name.to_owned(), value.into()));
        self
    }

    /// Starts the upstream and the first control plane, and then all other nodes at once.
    pub(crate) async fn start(mut self) -> Fleet<'s> {
        install_crypto();
        let home = Arc::new(home());
        let database = self.server.database();
        let pooler = self.pooled.then(|| Pooler::start(self.server, 4));
        let url = pooler
            .as_ref()
            .map_or_else(|| database.url(), |pooler| pooler.url(database.name()));
        let upstream = Upstream::start(HOSTS).await;
        self.arguments
            .extend(network(&upstream, home.path(), HOSTS, &[]));
        let mut tokens = None;
        if let Some(host) = self.token_endpoint {
            let endpoint = TokenEndpoint::start(upstream.acceptor_for(&[host])).await;
            let rule = format!("{host}:443={}", endpoint.addr);
            self.arguments.extend(["--resolve".to_owned(), rule]);
            tokens = Some(endpoint);
        }
        self.arguments.extend(loopback());
        self.variables.extend(database_variables(home.path(), &url));
        let custody = self.custody.variables(home.path()).await;
        self.variables.extend(custody);
        let recipe = Recipe {
            home: Arc::clone(&home),
            arguments: self.arguments,
            variables: self.variables,
            log: self.log,
        };

        let (data, launch) = recipe.launch("control-plane", 0);
        let mut nodes = vec![Node::start(data, launch).await];
        let others = (1..self.control_planes).map(|number| ("control-plane", number));
        let others = others.chain((0..self.injectors).map(|number| ("injector", number)));
        let started: Vec<_> = others
            .map(|(role, number)| {
                let (data, mut launch) = recipe.launch(role, number);
                let process = launch.start();
                (data, launch, process)
            })
            .collect();
        for (data, launch, process) in started {
            nodes.push(Node::ready(data, launch, process).await);
        }
        let first = &nodes[0];
        let injector = &nodes[self.control_planes];
        let ends = Ends::new(Arc::clone(&home), upstream, first, injector);
        Fleet {
            nodes,
            control_planes: self.control_planes,
            ends,
            recipe,
            database,
            tokens,
            _pooler: pooler,
            checks: Checks::owed(),
        }
    }
}

/// What the command lines of all nodes have in common.
struct Recipe {
    home: Arc<TempDir>,
    arguments: Vec<String>,
    variables: Vec<(String, String)>,
    log: &'static str,
}

impl Recipe {
    /// The data directory and the command line of one node.
    fn launch(&self, role: &str, number: usize) -> (PathBuf, Launch) {
        let name = format!("{role}-{number}");
        let data = self.home.path().join(&name);
        let output = self.home.path().join(format!("{name}.out"));
        std::fs::create_dir(&output).expect("the directory is ours");
        let mut arguments = vec![role.to_owned()];
        let own = [
            ("--data", data.display().to_string()),
            ("--node", name),
            ("--api", "127.0.0.1:0".to_owned()),
            ("--proxy", "127.0.0.1:0".to_owned()),
        ];
        for (option, value) in own {
            arguments.extend([option.to_owned(), value]);
        }
        arguments.extend(self.arguments.iter().cloned());
        let launch = Launch {
            output,
            log: self.log,
            variables: self.variables.clone(),
            ..Launch::new(self.home.path(), arguments)
        };
        (data, launch)
    }
}

/// Where the database is. The password is in a file, so that no process shows it.
fn database_variables(home: &Path, url: &str) -> [(String, String); 2] {
    let file = home.join("database-password");
    private_file(&file, PASSWORD.as_bytes());
    let url = url.replace(&format!(":{PASSWORD}@"), "@");
    [
        ("CLAVIGER_DATABASE".to_owned(), url),
        (
            "CLAVIGER_DATABASE_PASSWORD_FILE".to_owned(),
            file.display().to_string(),
        ),
    ]
}

/// Control planes and injectors of one installation, one upstream, one org.
///
/// It stands for its ends at the first control plane and the first injector; [`Self::by`] gives others.
pub(crate) struct Fleet<'s> {
    /// Control planes first. Before the directory, because fields are dropped in order and the logs lie there.
    pub(crate) nodes: Vec<Node>,
    control_planes: usize,
    ends: Ends,
    recipe: Recipe,
    database: Database<'s>,
    tokens: Option<TokenEndpoint>,
    _pooler: Option<Pooler>,
    pub(super) checks: Checks,
}

impl Deref for Fleet<'_> {
    type Target = Ends;

    fn deref(&self) -> &Ends {
        &self.ends
    }
}

impl<'s> Fleet<'s> {
    /// The token endpoint that it was built with.
    pub(crate) fn tokens(&self) -> &TokenEndpoint {
        self.tokens.as_ref().expect("the builder was asked for one")
    }

    /// One control plane and two injectors with software keys, on the server that all stories share.
    pub(crate) fn builder() -> Builder<'s> {
        Builder {
            server: Server::shared(),
            pooled: false,
            control_planes: 1,
            injectors: 2,
            custody: Custody::Software,
            log: "trace",
            arguments: Vec::new(),
            variables: Vec::new(),
            token_endpoint: None,
        }
    }

    /// The ends at the first control plane and the first injector, where they are now.
    pub(crate) fn ends(&self) -> Ends {
        self.by(0, 0)
    }

    /// The ends at these two nodes.
    pub(crate) fn by(&self, control_plane: usize, injector: usize) -> Ends {
        let api = self.ends.at(&self.nodes[control_plane]);
        let both = api.at(&self.nodes[self.control_planes + injector]);
        Ends {
            api_addr: api.api_addr,
            ..both
        }
    }

    pub(crate) fn injectors(&self) -> usize {
        self.nodes.len() - self.control_planes
    }

    pub(crate) fn control_plane(&mut self, number: usize) -> &mut Node {
        &mut self.nodes[..self.control_planes][number]
    }

    pub(crate) fn injector(&mut self, number: usize) -> &mut Node {
        &mut self.nodes[self.control_planes..][number]
    }

    /// The API of a node, as the administrator.
    pub(crate) fn api_of(&self, node: &Node) -> Api {
        self.ends.at(node).admin()
    }

    /// One more control plane, with these variables beside the usual ones.
    pub(crate) async fn add_control_plane(&mut self, variables: Vec<(String, String)>) {
        let number = self.control_planes;
        let (data, mut launch) = self.recipe.launch("control-plane", number);
        launch.variables.extend(variables);
        let node = Node::start(data, launch).await;
        self.nodes.insert(number, node);
        self.control_planes += 1;
    }

    /// Stops the nodes, sets these variables for all, and starts them again.
    pub(crate) async fn restart_with(&mut self, variables: &[(String, String)]) {
        for node in &mut self.nodes {
            node.stop().await;
        }
        for node in &mut self.nodes {
            for (name, value) in variables {
                node.launch.set(name, value);
            }
            node.start_again().await;
        }
    }

    /// Runs statements in the database as its superuser.
    pub(crate) fn sql(&self, statements: &str) -> String {
        self.database.admin(statements)
    }

    /// Every table's rows as text, bytes in hex.
    pub(crate) fn tables(&self) -> Vec<(String, String)> {
        let names = "SELECT format('%I.%I', table_schema, table_name) FROM information_schema.tables \
             WHERE table_type = 'BASE TABLE' AND table_schema NOT IN ('pg_catalog', 'information_schema')";
        let names = self.sql(names);
        names
            .lines()
            .map(|name| {
                let rows = self.sql(&format!("SELECT t::text FROM {name} t"));
                (name.to_owned(), rows)
            })
            .collect()
    }
}

/// Agents that send one request after the other by one lease, through every injector, until [`Load::end`].
pub(crate) struct Load {
    stop: watch::Sender<bool>,
    clients: Vec<JoinHandle<Told>>,
}

/// What the agents of a [`Load`] were told.
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// Answers of the upstream.
    pub(crate) passed: usize,
    /// Connections that broke.
    pub(crate) broken: usize,
    /// Answers of injectors: status and code, and how often.
    pub(crate) refused: BTreeMap<(u16, String), usize>,
    /// The longest wait for an answer.
    pub(crate) longest: Duration,
}

impl Told {
    fn add(&mut self, reply: &io::Result<Reply>, took: Duration) {
        match reply {
            Ok(reply) if reply.status == 200 => self.passed += 1,
            Ok(reply) => {
                *self
                    .refused
                    .entry((reply.status, reply.code()))
                    .or_default() += 1;
            }
            Err(_) => {
                self.broken += 1;
                return;
            }
        }
        self.longest = self.longest.max(took);
    }

    /// Checks that whoever got an answer got the upstream's.
    #[track_caller]
    pub(crate) fn expect_no_refusals(&self) {
        assert!(self.refused.is_empty(), "{self:?}");
    }
}

impl Load {
    /// Starts this many agents on each injector, each as busy as it can be.
    pub(crate) async fn start(fleet: &Fleet<'_>, token: &str, agents: usize) -> Self {
        Self::of(fleet, token, agents, Duration::ZERO).await
    }

    /// Starts one agent on each injector, with some requests a second: for stories that take their time.
    pub(crate) async fn trickle(fleet: &Fleet<'_>, token: &str) -> Self {
        Self::of(fleet, token, 1, Duration::from_millis(40)).await
    }

    async fn of(fleet: &Fleet<'_>, token: &str, agents: usize, pause: Duration) -> Self {
        let (stop, stopped) = watch::channel(false);
        let mut clients = Vec::new();
        for agent in 0..agents * fleet.injectors() {
            let ends = fleet.by(0, agent % fleet.injectors());
            let mut tunnel = ends.tunnel("api.stripe.com", token).await;
            let (token, stopped) = (token.to_owned(), stopped.clone());
            clients.push(tokio::spawn(async move {
                let mut told = Told::default();
                while !*stopped.borrow() {
                    tokio::time::sleep(pause).await;
                    let asked = Instant::now();
                    let reply = tunnel
                        .request("POST", "/v1/charges", &[], b"amount=1")
                        .await;
                    told.add(&reply, asked.elapsed());
                    if reply.is_err() {
                        match ends.try_tunnel("api.stripe.com", &token).await {
                            Ok(open) => tunnel = open,
                            Err(_) => break,
                        }
                    }
                }
                told
            }));
        }
        Self { stop, clients }
    }

    /// Lets every agent finish its request; gives what all were told.
    pub(crate) async fn end(self) -> Told {
        self.stop.send_replace(true);
        let mut all = Told::default();
        for client in self.clients {
            let told = wait::within("the agents to end", client).await;
            let told = told.expect("no agent panics");
            all.passed += told.passed;
            all.broken += told.broken;
            all.longest = all.longest.max(told.longest);
            for (refusal, count) in told.refused {
                *all.refused.entry(refusal).or_default() += count;
            }
        }
        all
    }
}
