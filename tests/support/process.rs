//! The server as a process: started, watched, stopped, killed.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};

use super::wait;

/// A `claviger` process whose output goes to files. It is killed when it is dropped.
pub(crate) struct Process {
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
    pid: u32,
}

impl Process {
    /// Starts `command`, with `stdout.N` and `stderr.N` in `dir` as its output.
    pub(crate) fn start(mut command: Command, dir: &Path, number: usize) -> io::Result<Self> {
        let stdout = dir.join(format!("stdout.{number}"));
        let stderr = dir.join(format!("stderr.{number}"));
        let child = command
            .stdin(Stdio::null())
            .stdout(File::create(&stdout)?)
            .stderr(File::create(&stderr)?)
            .kill_on_drop(true)
            .spawn()?;
        let pid = child
            .id()
            .ok_or_else(|| io::Error::other("the process has ended already"))?;
        Ok(Self {
            child,
            stdout,
            stderr,
            pid,
        })
    }

    /// Waits for the line `ready …` and gives it back.
    pub(crate) async fn ready_line(&mut self) -> String {
        let stdout = self.stdout.clone();
        let stderr = self.stderr.clone();
        let child = &mut self.child;
        wait::until("the ready line", async || {
            let text = std::fs::read_to_string(&stdout).unwrap_or_default();
            if let Some((line, _)) = text.split_once('\n') {
                return Some(line.to_owned());
            }
            if let Ok(Some(status)) = child.try_wait() {
                panic!("the server ended with {status}: {}", tail(&stderr));
            }
            None
        })
        .await
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.pid).expect("process ids are small"));
        kill(pid, signal).expect("the process is ours");
    }

    /// Asks the server to drain and end; it has to end with status 0.
    pub(crate) async fn stop(mut self) {
        self.signal(Signal::SIGTERM);
        let status = wait::within("the server to drain", self.child.wait())
            .await
            .expect("the process is ours");
        assert!(
            status.success(),
            "the server ended with {status}: {}",
            tail(&self.stderr)
        );
    }

    /// Waits for the server to end by itself; gives its status.
    pub(crate) async fn fails(mut self) -> Option<i32> {
        let status = wait::within("the server to give up", self.child.wait()).await;
        status.expect("the process is ours").code()
    }

    /// Kills the server as `kill -9` does.
    pub(crate) async fn kill(mut self) {
        self.signal(Signal::SIGKILL);
        let _ = wait::within("the server to be dead", self.child.wait()).await;
    }

    /// Resident memory in bytes.
    pub(crate) fn resident(&self) -> u64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap_or_default();
        let kib = status
            .lines()
            .find_map(|line| {
                line.strip_prefix("VmRSS:")?
                    .trim()
                    .split(' ')
                    .next()?
                    .parse::<u64>()
                    .ok()
            })
            .expect("a running process has a resident size");
        kib * 1024
    }

    /// What anybody on the machine could read of the process: its environment and its command line.
    pub(crate) fn environ_and_cmdline(&self) -> Vec<u8> {
        let mut all = std::fs::read(format!("/proc/{}/environ", self.pid)).unwrap_or_default();
        all.extend(std::fs::read(format!("/proc/{}/cmdline", self.pid)).unwrap_or_default());
        all
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            report(&tail(&self.stderr));
        }
    }
}

#[expect(
    clippy::print_stderr,
    reason = "the log of the server explains a failed test"
)]
fn report(log: &str) {
    eprintln!("--- the server's log ---\n{log}\n---");
}

/// The last lines of a log that are of use to a reader of a failed test.
pub(crate) fn tail(log: &Path) -> String {
    let text = String::from_utf8_lossy(&std::fs::read(log).unwrap_or_default()).into_owned();
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| !line.contains("TRACE") && !line.contains("DEBUG"))
        .collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}
