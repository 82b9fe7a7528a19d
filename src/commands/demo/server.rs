//! The server of the story: this same program, started as anyone starts it.

use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use zeroize::Zeroizing;

use super::stage::Stage;
use super::stand_in::StandIn;
use crate::client::{Client, text};
use crate::failure::Failure;
use crate::tunnel::Door;

/// A server on a directory of its own, both of which end with the story.
pub(super) struct Server {
    child: Child,
    dir: TempDir,
    ready: Value,
    log: JoinHandle<String>,
}

const START: Duration = Duration::from_secs(30);
const STOP: Duration = Duration::from_secs(35);

impl Server {
    /// Starts it and waits for the line that says both planes answer.
    pub(super) async fn start(stand_in: &StandIn) -> anyhow::Result<Self> {
        let dir =
            TempDir::with_prefix("claviger-demo-").context("cannot make a temporary directory")?;
        let ca = dir.path().join("stand-in-ca.pem");
        std::fs::write(&ca, stand_in.ca_pem()).context("cannot write the stand-in's CA")?;
        let mut command = Command::new(std::env::current_exe()?);
        command
            .arg("serve")
            .arg("--json")
            .arg("--data")
            .arg(dir.path().join("data"));
        command.args([
            "--api",
            "127.0.0.1:0",
            "--proxy",
            "127.0.0.1:0",
            "--allow-address",
            "127.0.0.0/8",
        ]);
        command
            .arg("--resolve")
            .arg(stand_in.resolve())
            .arg("--upstream-ca")
            .arg(&ca);
        // What configures the owner's server does not belong to this one.
        for (name, _) in
            std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("CLAVIGER_"))
        {
            command.env_remove(name);
        }
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().context("the server cannot start")?;
        let (stdout, mut stderr) = (
            child.stdout.take().context("no stdout")?,
            child.stderr.take().context("no stderr")?,
        );
        let log = tokio::spawn(async move {
            let mut log = Vec::new();
            // What was read before a fault is still worth searching.
            let _ = stderr.read_to_end(&mut log).await;
            String::from_utf8_lossy(&log).into_owned()
        });
        let mut line = String::new();
        let read = tokio::time::timeout(START, BufReader::new(stdout).read_line(&mut line)).await;
        let ready = matches!(read, Ok(Ok(_)))
            .then(|| serde_json::from_str::<Value>(&line).ok())
            .flatten();
        let Some(ready) = ready else {
            let _ = child.kill().await;
            let said = log.await.unwrap_or_default();
            let last = said.lines().last().unwrap_or("it said nothing").to_owned();
            return Err(
                Failure::new(format!("the server did not get ready: {last}"))
                    .hint("`claviger serve` in a terminal shows why")
                    .into(),
            );
        };
        Ok(Self {
            child,
            dir,
            ready,
            log,
        })
    }

    pub(super) fn api(&self) -> &str {
        text(&self.ready, "api")
    }

    /// The owner's client, with the key that the first start left in the directory.
    pub(super) async fn client(&self) -> anyhow::Result<Client> {
        let key = std::fs::read_to_string(self.dir.path().join("data/admin.key"))
            .context("no admin key")?;
        Client::new(
            self.api().to_owned(),
            Zeroizing::new(key.trim().to_owned()),
            None,
        )
        .await
    }

    /// The injector's door, without a lease.
    pub(super) fn door(&self) -> anyhow::Result<Door> {
        let proxy = text(&self.ready, "proxy")
            .trim_start_matches("http://")
            .parse()
            .map_err(anyhow::Error::msg)?;
        let ca_pem = std::fs::read_to_string(text(&self.ready, "ca")).context("no CA")?;
        Ok(Door {
            proxy,
            ca_pem,
            lease: String::new(),
        })
    }

    /// Asks it to stop and returns what it logged.
    pub(super) async fn stop(mut self, stage: &mut Stage) -> anyhow::Result<String> {
        if let Some(id) = self.child.id() {
            kill(Pid::from_raw(i32::try_from(id)?), Signal::SIGTERM)?;
        }
        let status = tokio::time::timeout(STOP, self.child.wait())
            .await
            .context("the server does not stop")??;
        stage.chapter("The end");
        stage.check(
            "the server drains and stops",
            status.success(),
            &status.to_string(),
        );
        Ok(self.log.await?)
    }
}
