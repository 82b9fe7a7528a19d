//! `ca`: the certificate that programs must trust to go through the injector.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Subcommand;
use serde_json::json;

use super::Context;
use crate::client::Connection;
use crate::failure::Failure;

/// The injector's CA: its path on this machine, else the certificate itself
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  curl --cacert \"$(claviger ca)\" --proxy \"http://lease:$LEASE@127.0.0.1:8182\" https://api.stripe.com/v1/charges
  claviger ca export > claviger-ca.pem")]
pub(crate) struct Args {
    #[command(subcommand)]
    what: Option<What>,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Write the certificate as PEM
    #[command(after_help = "Example:\n  claviger ca export --out claviger-ca.pem")]
    Export {
        /// Where to [default: standard output]
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
}

pub(crate) async fn run(context: &Context, args: &Args) -> anyhow::Result<()> {
    match (&args.what, local(&context.connection)) {
        (None, Some(path)) => context
            .output
            .done(&json!({ "ca": path }), path.display().to_string()),
        (None, None) | (Some(What::Export { out: None }), _) => {
            let pem = pem(&context.connection).await?;
            if context.output.is_json() {
                context.output.value(&json!({ "pem": pem }));
            } else {
                context.output.raw(pem.as_bytes());
            }
        }
        (Some(What::Export { out: Some(path) }), _) => {
            let pem = pem(&context.connection).await?;
            std::fs::write(path, pem)
                .with_context(|| format!("cannot write {}", path.display()))?;
            context
                .output
                .done(&json!({ "ca": path }), path.display().to_string());
        }
    }
    Ok(())
}

/// The CA file of the server on this machine.
pub(crate) fn local(connection: &Connection) -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("CLAVIGER_CA") {
        return Some(PathBuf::from(path));
    }
    let (_, record) = connection.server().ok()?;
    let file = match record {
        Some(record) => Some(record.ca),
        // A server elsewhere has a CA of its own.
        None if connection.url.is_some() => None,
        None => connection.data_dir().ok().map(|data| data.ca()),
    };
    file.filter(|path| path.is_file())
}

/// The certificate: from this machine's file, else from the server, where it is public.
pub(crate) async fn pem(connection: &Connection) -> anyhow::Result<String> {
    if let Some(path) = local(connection) {
        return std::fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}", path.display()));
    }
    let answer = connection.public("/v1/ca.pem").await?;
    if !answer.status().is_success() {
        return Err(Failure::new(format!(
            "the server has no CA certificate: it answered {}",
            answer.status()
        ))
        .hint("name a copy of its ca.pem with CLAVIGER_CA")
        .into());
    }
    Ok(answer.text().await?)
}
