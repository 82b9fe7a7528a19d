//! One `claviger` process of an installation: its data directory, its command line, where it answers.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use tokio::process::Command;

use super::process::Process;

/// The command line of a node, kept for restarts.
pub(crate) struct Launch {
    /// The subcommand and its options.
    pub(crate) arguments: Vec<String>,
    /// `HOME` of the process.
    pub(crate) home: PathBuf,
    /// Where its output goes: a file for each start.
    pub(crate) output: PathBuf,
    pub(crate) log: &'static str,
    pub(crate) variables: Vec<(String, String)>,
    /// How often it was started.
    pub(crate) starts: usize,
}

impl Launch {
    /// `arguments` with its output in `home` too.
    pub(crate) fn new(home: &Path, arguments: Vec<String>) -> Self {
        Self {
            arguments,
            home: home.to_owned(),
            output: home.to_owned(),
            log: "trace",
            variables: Vec::new(),
            starts: 0,
        }
    }

    /// Sets a variable of the environment from the next start on.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.variables.retain(|(set, _)| set != name);
        self.variables.push((name.to_owned(), value.to_owned()));
    }

    /// The same command line for the data directory `to` in the place of `from`, with its output beside it.
    pub(crate) fn moved(&self, from: &Path, to: &Path) -> Self {
        let from = from.display().to_string();
        let output = to.with_extension("out");
        std::fs::create_dir(&output).expect("the directory is ours");
        let arguments = self.arguments.iter();
        let arguments = arguments.map(|argument| match argument {
            argument if *argument == from => to.display().to_string(),
            argument => argument.clone(),
        });
        Self {
            arguments: arguments.collect(),
            home: self.home.clone(),
            output,
            log: self.log,
            variables: self.variables.clone(),
            starts: 0,
        }
    }

    /// Starts the process, which has to give up; gives what it said.
    pub(crate) async fn fails(&mut self) -> String {
        let status = self.start().fails().await;
        assert_eq!(status, Some(1), "{}", self.errors());
        self.errors()
    }

    /// Starts the process, without waiting for it to be ready.
    pub(crate) fn start(&mut self) -> Process {
        self.starts += 1;
        let mut command = binary(&self.home);
        command
            .args(&self.arguments)
            .env("RUST_LOG", self.log)
            // Every agent and person of a story calls from one address.
            .env("CLAVIGER_LIMITS_API_REQUESTS_PER_SECOND", "0")
            .envs(self.variables.iter().map(|(name, value)| (name, value)));
        Process::start(command, &self.output, self.starts).expect("the binary starts")
    }

    /// What the latest start wrote to its standard error.
    pub(crate) fn errors(&self) -> String {
        let file = self.output.join(format!("stderr.{}", self.starts));
        String::from_utf8_lossy(&std::fs::read(file).unwrap_or_default()).into_owned()
    }
}

/// A node and where it answers.
pub(crate) struct Node {
    /// `None` while it is down.
    pub(crate) process: Option<Process>,
    pub(crate) data: PathBuf,
    pub(crate) api: SocketAddr,
    /// `None` of a control plane alone.
    pub(crate) proxy: Option<SocketAddr>,
    pub(crate) ca: PathBuf,
    pub(crate) launch: Launch,
}

impl Node {
    /// Starts a node and waits until it answers.
    pub(crate) async fn start(data: PathBuf, mut launch: Launch) -> Self {
        let process = launch.start();
        Self::ready(data, launch, process).await
    }

    /// Waits until a node that was started answers.
    pub(crate) async fn ready(data: PathBuf, launch: Launch, mut process: Process) -> Self {
        let ready = Ready::parse(&process.ready_line().await);
        Self {
            process: Some(process),
            data,
            api: ready.api,
            proxy: ready.proxy,
            ca: ready.ca,
            launch,
        }
    }

    /// The running process.
    pub(crate) fn process(&self) -> &Process {
        self.process.as_ref().expect("the node runs")
    }

    /// Kills the process as `kill -9` does; [`Self::start_again`] brings it back.
    pub(crate) async fn kill(&mut self) {
        self.process.take().expect("the node runs").kill().await;
    }

    /// Ends the process in good order.
    pub(crate) async fn stop(&mut self) {
        self.process.take().expect("the node runs").stop().await;
    }

    /// Starts it on the same data, perhaps on other ports.
    pub(crate) async fn start_again(&mut self) {
        let mut process = self.launch.start();
        let ready = Ready::parse(&process.ready_line().await);
        self.process = Some(process);
        (self.api, self.proxy) = (ready.api, ready.proxy);
    }
}

/// The line that a node prints once it answers.
struct Ready {
    api: SocketAddr,
    proxy: Option<SocketAddr>,
    ca: PathBuf,
}

impl Ready {
    #[track_caller]
    fn parse(line: &str) -> Self {
        let words: Vec<&str> = line.split(' ').collect();
        assert_eq!(words[0], "ready", "{line:?}");
        let value = |name: &str| {
            let mut values = words
                .iter()
                .filter_map(|word| word.strip_prefix(name)?.strip_prefix('='));
            values.next()
        };
        let addr = |url: &str| {
            url.strip_prefix("http://")
                .or_else(|| url.strip_prefix("https://"))
                .and_then(|addr| addr.parse().ok())
                .unwrap_or_else(|| panic!("{url:?}"))
        };
        let named = |name: &str| value(name).unwrap_or_else(|| panic!("no {name} in {line:?}"));
        Self {
            api: addr(named("api")),
            proxy: value("proxy").map(addr),
            ca: PathBuf::from(named("ca")),
        }
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
