//! The wrapped program as a process: started with its environment, given the signals, waited for.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitCode, ExitStatus};

use anyhow::Context as _;
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

use super::kin::Kin;
use super::signals::{self, Signals};
use crate::failure::Failure;
use crate::output::Output;

/// What shells answer for a program that is not there, or that may not be run.
const NOT_FOUND: u8 = 127;
const NOT_RUNNABLE: u8 = 126;

/// Runs the program to its end. `kin` says that what it leaves behind is adopted, and has to be taken leave of.
pub(super) async fn run(
    output: Output,
    command: &[OsString],
    environment: BTreeMap<OsString, OsString>,
    signals: Signals,
    kin: Option<Kin>,
) -> anyhow::Result<ExitCode> {
    let Some((program, arguments)) = command.split_first() else {
        anyhow::bail!("no program is named")
    };
    let mut command = Command::new(program);
    command.args(arguments).env_clear().envs(environment);
    let spawned = signals.spawning(|| command.spawn())?;
    match spawned {
        Ok(child) => Ok(exit_code(attend(child, signals, kin).await?)),
        Err(error) => {
            let code = if error.kind() == ErrorKind::NotFound {
                NOT_FOUND
            } else {
                NOT_RUNNABLE
            };
            let failure =
                Failure::new(format!("cannot run {}: {error}", program.to_string_lossy()))
                    .hint("check the program's name and PATH");
            output.failure(&failure.into());
            Ok(ExitCode::from(code))
        }
    }
}

/// Waits for the program and passes signals on meanwhile.
async fn attend(
    mut child: Child,
    mut signals: Signals,
    kin: Option<Kin>,
) -> anyhow::Result<ExitStatus> {
    let mut ended = signal(SignalKind::child()).context("cannot wait for processes")?;
    loop {
        tokio::select! {
            // Reaped here and nowhere else, so the id below is the child's as long as there is one.
            status = child.wait() => return status.context("cannot wait for the program"),
            signal = signals.next() => {
                let signal = signal?;
                if let Some(id) = child.id() {
                    signals::forward(signal, id);
                }
            }
            _ = ended.recv() => {
                if let Some(kin) = kin {
                    kin.reap(child.id());
                }
            }
        }
    }
}

/// The program's own status, or 128 and the number of the signal that ended it, as shells tell it.
fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal))
        .unwrap_or(1);
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_becomes_the_status_that_shells_tell() {
        assert_eq!(exit_code(ExitStatus::from_raw(3 << 8)), ExitCode::from(3));
        assert_eq!(exit_code(ExitStatus::from_raw(15)), ExitCode::from(143));
    }
}
