//! `migrate`: the database's schema, brought up to date.

use serde_json::json;
use store::{Location, Store};

use super::Context;
use super::serve::plant;

/// Bring the database's schema up to date; servers do the same when they start, if they may
#[derive(Debug, clap::Args)]
#[expect(clippy::doc_markdown, reason = "the comments are help texts")]
#[command(after_help = "\
Examples:
  claviger migrate --data /var/lib/claviger
  claviger migrate --database postgres://claviger_owner@db.internal/claviger")]
pub(crate) struct Args {
    // A URL may carry a password, and clap repeats what it refuses.
    /// The database: sqlite:PATH or postgres://USER@HOST/NAME [default: DIR/claviger.db] [env: CLAVIGER_DATABASE]
    #[arg(long, value_name = "URL")]
    database: Option<String>,
}

pub(crate) async fn run(context: &Context, args: &Args) -> anyhow::Result<()> {
    let (config, data) = plant::installation(context, args.database.as_deref())?;
    let location = plant::location(&config, &data)?;
    plant::existing(&location)?;
    // Beside servers of a shared database a migration is safe; a file has one process.
    let _held = match location {
        Location::Sqlite(_) => Some(data.hold()?),
        Location::Postgres(_) => None,
    };
    Store::migrate(&location).await?;
    let database = location.to_string();
    context.output.done(
        &json!({ "migrated": database }),
        format!("the schema of {database} is up to date"),
    );
    Ok(())
}
