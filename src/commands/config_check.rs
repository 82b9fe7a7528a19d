//! `config check`: the effective configuration and where each value comes from.

use std::path::PathBuf;

use clap::Subcommand;
use serde_json::Value;

use super::Context;
use crate::config::Loaded;
use crate::output::Tone;

/// The server's configuration
#[derive(Debug, Subcommand)]
#[expect(clippy::doc_markdown, reason = "the comments are help texts")]
pub(crate) enum Command {
    /// Check the configuration and print what is in effect; it holds names of files, never a secret
    #[command(
        after_help = "Example:\n  claviger config check --config /etc/claviger/claviger.toml"
    )]
    Check {
        /// The configuration [default: claviger.toml in the data directory, if there is one] [env: CLAVIGER_CONFIG]
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
}

pub(crate) fn run(context: &Context, command: &Command) -> anyhow::Result<()> {
    let Command::Check { config } = command;
    let data = context
        .connection
        .data
        .as_ref()
        .map(|data| data.display().to_string());
    let overrides = vec![("server.data", "--data", data.into_iter().collect())];
    let effective = Loaded::read(config.as_deref(), &overrides)?.effective();
    if context.output.is_json() {
        context.output.value(&effective);
        return Ok(());
    }
    for (section, fields) in effective.as_object().into_iter().flatten() {
        context
            .output
            .say(context.output.paint(Tone::Strong, &format!("[{section}]")));
        for (name, entry) in fields.as_object().into_iter().flatten() {
            let line = match &entry["value"] {
                Value::Null => format!("# {name} is not set"),
                value => format!("{name} = {value}"),
            };
            let origin = format!("# {}", entry["origin"].as_str().unwrap_or_default());
            context.output.say(format!(
                "{line:<56} {}",
                context.output.paint(Tone::Quiet, &origin)
            ));
        }
    }
    context.output.note("the configuration is sound");
    Ok(())
}
