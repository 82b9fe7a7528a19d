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
  claviger migrate --database postgres://claviger_owner@db.internal/claviger
  claviger migrate --restored --data /var/lib/claviger")]
pub(crate) struct Args {
    // A URL may carry a password, and clap repeats what it refuses.
    /// The database: sqlite:PATH or postgres://USER@HOST/NAME [default: DIR/claviger.db] [env: CLAVIGER_DATABASE]
    #[arg(long, value_name = "URL")]
    database: Option<String>,
    /// The data was restored from a backup: revoke every lease, since those used or revoked after the backup are good
    /// again. A start sees by itself that the database alone was put back, but not that audit.checkpoint was as well
    #[arg(long)]
    restored: bool,
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
    if args.restored {
        let ended = plant::begin_epoch(&config, &data, location).await?;
        context.output.done(
            &json!({ "migrated": database, "revoked_leases": ended }),
            format!(
                "the schema of {database} is up to date, and {ended} leases are revoked; make again what was changed \
                 after the backup, above all revocations of agents, grants and keys"
            ),
        );
        return Ok(());
    }
    context.output.done(
        &json!({ "migrated": database }),
        format!("the schema of {database} is up to date"),
    );
    Ok(())
}
