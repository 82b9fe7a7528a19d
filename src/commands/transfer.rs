//! `export-database`, `import-database`: an installation moves from one database to another, by a file.

use std::path::PathBuf;

use serde_json::{Map, Value, json};
use store::transfer::{self, TransferCounts, TransferError};
use store::{Location, OpenError};

use super::Context;
use super::serve::plant;
use crate::failure::Failure;

/// Write all rows of the database into a file, for `import-database` elsewhere; no server may run on it
///
/// Secrets stand in the file as they stand in the database: sealed. It is made for its owner alone, and is worth as much care
/// as the database. Keys are not in it: they stay with the key provider.
#[derive(Debug, clap::Args)]
#[expect(clippy::doc_markdown, reason = "the comments are help texts")]
#[command(after_help = "Example:\n  claviger export-database claviger.export")]
pub(crate) struct ExportArgs {
    /// The file to make
    #[arg(value_name = "FILE")]
    file: PathBuf,
    // A URL may carry a password, and clap repeats what it refuses.
    /// The database: sqlite:PATH or postgres://USER@HOST/NAME [default: DIR/claviger.db] [env: CLAVIGER_DATABASE]
    #[arg(long, value_name = "URL")]
    database: Option<String>,
}

/// Put the rows of an export into an empty database: all of them, or none
///
/// Leases that have not ended are revoked, since the old database may have seen them used or revoked after the export. The audit
/// trail keeps its places and hashes, so `claviger audit verify` goes on holding. Start servers on the new database
/// with the same keys: the same key directory, token or key ring.
#[derive(Debug, clap::Args)]
#[expect(clippy::doc_markdown, reason = "the comments are help texts")]
#[command(after_help = "\
Example:
  claviger import-database claviger.export --database postgres://claviger_owner@db.internal/claviger")]
pub(crate) struct ImportArgs {
    /// The file that `export-database` made
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The database: sqlite:PATH or postgres://USER@HOST/NAME [default: DIR/claviger.db] [env: CLAVIGER_DATABASE]
    #[arg(long, value_name = "URL")]
    database: Option<String>,
}

pub(crate) async fn export(context: &Context, args: &ExportArgs) -> anyhow::Result<()> {
    let (config, data) = plant::installation(context, args.database.as_deref())?;
    let from = plant::location(&config, &data)?;
    plant::existing(&from)?;
    let counts = transfer::export_database(&from, &data.checkpoint(), &args.file)
        .await
        .map_err(|error| refused(&error))?;
    let file = args.file.display();
    done(
        context,
        &counts,
        &from,
        format!("wrote {} rows of {from} into {file}", counts.total()),
    );
    Ok(())
}

pub(crate) async fn import(context: &Context, args: &ImportArgs) -> anyhow::Result<()> {
    let (config, data) = plant::installation(context, args.database.as_deref())?;
    data.create()?;
    let _held = data.hold()?;
    let into = plant::location(&config, &data)?;
    let counts = transfer::import_database(&args.file, &into, &data.checkpoint())
        .await
        .map_err(|error| refused(&error))?;
    let file = args.file.display();
    done(
        context,
        &counts,
        &into,
        format!(
            "put {} rows of {file} into {into}, and revoked {} leases that had not ended",
            counts.total(),
            counts.revoked_leases
        ),
    );
    Ok(())
}

fn done(context: &Context, counts: &TransferCounts, database: &Location, line: String) {
    let rows = counts.tables.iter();
    let rows: Map<String, Value> = rows
        .map(|(table, rows)| ((*table).to_owned(), json!(rows)))
        .collect();
    context.output.done(
        &json!({ "database": database.to_string(), "rows": rows, "revoked_leases": counts.revoked_leases }),
        line,
    );
}

fn refused(error: &TransferError) -> Failure {
    let hint = match error {
        TransferError::Open(OpenError::InUse { .. }) => {
            "stop the server that uses it, then try again"
        }
        TransferError::Running { .. } => {
            "stop every node of this database; one that was killed counts as running for a minute"
        }
        TransferError::NotEmpty { .. } => {
            "make a new database, or name another with --database URL"
        }
        TransferError::File { .. } => {
            "name a file in a directory of yours; an export overwrites none"
        }
        TransferError::Damaged { .. } => "copy the file again, or export again",
        _ => "check database.url, and that the role owns the schema there",
    };
    Failure::new(plant::chain(error))
        .code("transfer")
        .hint(hint)
}
