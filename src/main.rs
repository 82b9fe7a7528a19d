//! `claviger`: parse the command line, run one command, say how it went.

mod client;
mod commands;
mod config;
mod data_dir;
mod environment;
mod failure;
mod hardening;
mod logins;
mod loopback;
mod output;
mod prompt;
mod telemetry;
mod trust;
mod tunnel;
mod units;

use std::process::ExitCode;

use clap::Parser as _;

use crate::commands::Cli;
use crate::failure::Failure;
use crate::output::Output;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The status of a command that was written wrongly, as clap gives it.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    // Every TLS configuration of the process takes the installed provider; there is one, ring.
    let installed = rustls::crypto::ring::default_provider().install_default();
    debug_assert!(installed.is_ok(), "nothing installs a provider before main");
    telemetry::withhold_panic_payloads();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return misused(&error),
    };
    let output = Output::new(cli.json);
    match commands::dispatch(cli, output) {
        Ok(code) => code,
        Err(error) => {
            output.failure(&error);
            let is_usage = error
                .downcast_ref::<Failure>()
                .is_some_and(Failure::is_usage);
            if is_usage {
                ExitCode::from(USAGE)
            } else {
                ExitCode::FAILURE
            }
        }
    }
}

/// Says what is wrong with a command line, or shows the help that was asked for.
fn misused(error: &clap::Error) -> ExitCode {
    let is_json = std::env::args_os()
        .take_while(|word| word != "--")
        .any(|word| word == "--json");
    if !is_json || !error.use_stderr() {
        // Nobody is left to be told that telling failed.
        let _ = error.print();
        return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(USAGE));
    }
    let text = error.render().to_string();
    let reason = text.lines().next().unwrap_or_default();
    let failure = Failure::new(reason.strip_prefix("error: ").unwrap_or(reason))
        .code("usage")
        .hint("`--help` shows how the command is written");
    Output::new(true).failure(&failure.into());
    ExitCode::from(USAGE)
}
