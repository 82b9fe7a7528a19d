//! `ca`: the certificate that programs must trust to go through the injector.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Subcommand;
use serde_json::json;

use super::Context;
use crate::client::Connection;
use crate::failure::Failure;

/// The injector's CA: its path on this machine, or the certificate itself
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
    match &args.what {
        None => match local(&context.connection) {
            Some(path) => context
                .output
                .done(&json!({ "ca": path }), path.display().to_string()),
            None => return Err(nowhere(&context.connection).into()),
        },
        Some(What::Export { out: None }) => {
            let pem = pem(&context.connection).await?;
            if context.output.is_json() {
                context.output.value(&json!({ "pem": pem }))
            } else {
                context.output.raw(pem.as_bytes())
            }
        }
        Some(What::Export { out: Some(path) }) => {
            std::fs::write(path, pem(&context.connection).await?)
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
    let record = connection
        .server()
        .ok()
        .and_then(|(_, record)| record)
        .map(|record| record.ca);
    let file = || connection.data_dir().ok().map(|data| data.ca());
    // A server elsewhere has a CA of its own.
    let is_elsewhere = connection.url.is_some();
    record
        .or_else(|| if is_elsewhere { None } else { file() })
        .filter(|path| path.is_file())
}

/// The certificate: from this machine's file, else from the server.
pub(crate) async fn pem(connection: &Connection) -> anyhow::Result<String> {
    if let Some(path) = local(connection) {
        return std::fs::read_to_string(&path)
            .with_context(|| format!("cannot read {}", path.display()));
    }
    let client = connection.client().await?;
    let answer = client
        .stream("/v1/ca")
        .await
        .map_err(|_| nowhere(connection))?;
    Ok(answer.text().await?)
}

fn nowhere(connection: &Connection) -> Failure {
    let place = connection.data_dir().map_or_else(
        |_| "this machine".to_owned(),
        |data| data.ca().display().to_string(),
    );
    Failure::new(format!("no CA certificate: {place} does not exist")).hint(
        "start the server with `claviger serve`, or name a copy of its ca.pem with CLAVIGER_CA",
    )
}
