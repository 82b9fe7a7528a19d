//! `migrate`: the database's schema, brought up to date while no server runs.

use serde_json::json;
use store::Store;

use super::Context;
use super::serve::plant;
use crate::failure::Failure;

/// Bring the database's schema up to date; `serve` does the same when it starts
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  claviger migrate --data /var/lib/claviger")]
pub(crate) struct Args {}

pub(crate) async fn run(context: &Context, _: &Args) -> anyhow::Result<()> {
    let (config, data) = plant::installation(context)?;
    let database = plant::database(&config, &data);
    if !database.exists() {
        return Err(
            Failure::new(format!("{} does not exist", database.display()))
                .hint("`claviger serve` makes a database; name another directory with --data DIR")
                .into(),
        );
    }
    let _held = data.hold()?;
    Store::migrate(&database).await?;
    context.output.done(
        &json!({ "migrated": database }),
        format!("the schema of {} is up to date", database.display()),
    );
    Ok(())
}
