//! The proxies that are measured, each a process of its own, and how one point is measured on one of them.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::load::Point;
use crate::scenario::Scenario;
use crate::{CREDENTIAL, HOST};

/// How long a process may take until it serves, or until it has done what it was asked.
const PATIENCE: Duration = Duration::from_mins(2);
const SET: &str = "custom/bench/upstream";

/// What every contender needs.
pub(crate) struct Stage<'a> {
    /// Certificates, data directories and logs.
    pub(crate) dir: &'a Path,
    pub(crate) upstream: SocketAddr,
}

/// A running proxy. It ends when this is dropped.
pub(crate) struct Contender {
    pub(crate) name: &'static str,
    process: Child,
    pub(crate) address: SocketAddr,
    pub(crate) ca: PathBuf,
    pub(crate) lease: String,
    authorization: &'static str,
}

/// This program in one of its roles, with its certificates, until it prints its address.
pub(crate) async fn start_role(
    role: &str,
    dir: &Path,
    arguments: &[&str],
) -> anyhow::Result<(Child, SocketAddr)> {
    let mut command = Command::new(std::env::current_exe()?);
    command
        .arg(role)
        .arg("--certificates")
        .arg(dir)
        .args(arguments);
    // The other end of its standard input tells it that this process lives.
    command.stdin(Stdio::piped());
    let (process, line) = start(command).await.context(role.to_owned())?;
    Ok((process, line.parse()?))
}

/// Starts a process and waits for its first line.
pub(crate) async fn start(mut command: Command) -> anyhow::Result<(Child, String)> {
    let mut process = command.stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
    let stdout = process.stdout.take().context("its output is piped")?;
    let line = timeout(PATIENCE, BufReader::new(stdout).lines().next_line())
        .await
        .context("it does not serve")??;
    Ok((process, line.context("it ended before it served")?))
}

/// A running server of ours. It ends when this is dropped.
pub(crate) struct Api {
    process: Child,
    pub(crate) url: String,
    proxy: String,
    ca: PathBuf,
    /// The file of the administrator's key.
    pub(crate) key: PathBuf,
}

impl Api {
    /// `claviger serve` with these arguments and variables; `directory` is its own.
    pub(crate) async fn start(
        dir: &Path,
        directory: &str,
        arguments: &[&str],
        settings: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
        #[derive(Deserialize)]
        struct Ready {
            api: String,
            proxy: String,
            ca: PathBuf,
        }
        let data = dir.join(directory);
        let mut serve = claviger(dir);
        serve.args(["serve", "--json", "--api", "127.0.0.1:0"]);
        serve.args(["--proxy", "127.0.0.1:0"]);
        serve.args(arguments).envs(settings.iter().copied());
        serve.arg("--data").arg(&data).stdin(Stdio::null());
        serve.stderr(File::create(dir.join(format!("{directory}.log")))?);
        let (process, line) = start(serve).await.context("claviger serve")?;
        let ready: Ready = serde_json::from_str(&line)?;
        Ok(Self {
            process,
            url: ready.api,
            proxy: ready.proxy,
            ca: ready.ca,
            key: data.join("admin.key"),
        })
    }

    /// The server's process.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.process.id()
    }
}

impl Contender {
    /// Pingora with interception and nothing else. The client sends the credential itself.
    pub(crate) async fn bare_pingora(stage: &Stage<'_>) -> anyhow::Result<Self> {
        let upstream = stage.upstream.to_string();
        let (process, address) =
            start_role("bare-pingora", stage.dir, &["--upstream", &upstream]).await?;
        Ok(Self {
            name: "bare pingora",
            process,
            address,
            ca: stage.dir.join("interception-ca.pem"),
            lease: "none".to_owned(),
            authorization: CREDENTIAL,
        })
    }

    /// Claviger as it is shipped, but for these settings, which are variables of its environment. `directory` is its own.
    pub(crate) async fn claviger(
        stage: &Stage<'_>,
        name: &'static str,
        directory: &str,
        settings: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
        let resolve = format!("{HOST}:{0}=127.0.0.1:{0}", stage.upstream.port());
        let authority = stage.dir.join("upstream-ca.pem");
        let authority = authority.to_str().context("a path in UTF-8")?;
        let network = ["--allow-address", "127.0.0.0/8", "--resolve", &resolve];
        let arguments = [&network[..], &["--upstream-ca", authority]].concat();
        let api = Api::start(stage.dir, directory, &arguments, settings).await?;
        let cli = Cli {
            dir: stage.dir,
            url: &api.url,
            key: api.key,
        };
        Ok(Self {
            name,
            process: api.process,
            address: api.proxy.trim_start_matches("http://").parse()?,
            ca: api.ca,
            lease: cli.lease(stage.upstream.port()).await?,
            authorization: "Bearer placeholder",
        })
    }

    /// Measures one point, with a load generator in a process of its own.
    pub(crate) async fn measure(
        &self,
        scenario: &Scenario,
        upstream: SocketAddr,
        seconds: Duration,
    ) -> anyhow::Result<Point> {
        let pid = self
            .process
            .id()
            .with_context(|| format!("{} has ended", self.name))?;
        let mut load = Command::new(std::env::current_exe()?);
        load.arg("load").arg("--ca").arg(&self.ca).args([
            "--lease",
            &self.lease,
            "--authorization",
            self.authorization,
        ]);
        for (name, value) in [
            ("--proxy", self.address.to_string()),
            ("--port", upstream.port().to_string()),
            ("--pid", pid.to_string()),
            ("--seconds", seconds.as_secs_f64().to_string()),
            ("--connections", scenario.connections.to_string()),
            ("--down", scenario.down.to_string()),
            ("--up", scenario.up.to_string()),
        ] {
            load.args([name, &value]);
        }
        if let Some(rate) = scenario.rate {
            load.args(["--rate", &rate.to_string()]);
        }
        if scenario.new {
            load.arg("--new");
        }
        Ok(serde_json::from_str(&run(load, "").await.context("load")?)?)
    }
}

/// The binary under test, with nothing of this process's environment.
fn claviger(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_claviger"));
    command.env_clear().env("HOME", home);
    command
}

/// The command line as the administrator of one server.
struct Cli<'a> {
    dir: &'a Path,
    url: &'a str,
    key: PathBuf,
}

impl Cli<'_> {
    /// Stores the credential and mints a lease for it.
    async fn lease(&self, port: u16) -> anyhow::Result<String> {
        let host = format!("{HOST}:{port}");
        self.run(
            &[
                "set",
                "put",
                SET,
                "CREDENTIAL=-",
                "--host",
                &host,
                "--inject",
                "authorization: ${CREDENTIAL}",
            ],
            CREDENTIAL,
        )
        .await?;
        self.run(&["agent", "create", "bench"], "").await?;
        self.run(
            &[
                "grant",
                "create",
                "--agent",
                "bench",
                "--set",
                SET,
                "--actions",
                "proxy_use,mint_workflow_lease",
            ],
            "",
        )
        .await?;
        let token = self
            .run(
                &[
                    "lease", "mint", "--agent", "bench", "--set", SET, "--kind", "workflow",
                    "--ttl", "24h",
                ],
                "",
            )
            .await?;
        Ok(token.trim().to_owned())
    }

    async fn run(&self, arguments: &[&str], input: &str) -> anyhow::Result<String> {
        let mut command = claviger(self.dir);
        command
            .args(arguments)
            .env("CLAVIGER_URL", self.url)
            .env("CLAVIGER_KEY_FILE", &self.key);
        run(command, input)
            .await
            .with_context(|| format!("claviger {}", arguments[..2].join(" ")))
    }
}

/// Runs a command to its end; its output.
async fn run(mut command: Command, input: &str) -> anyhow::Result<String> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut stdin = child.stdin.take().context("its input is piped")?;
    stdin.write_all(input.as_bytes()).await?;
    drop(stdin);
    let output = timeout(PATIENCE, child.wait_with_output())
        .await
        .context("it does not end")??;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8(output.stdout)?)
}
