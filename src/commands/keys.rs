//! `keys`: the key provider and what it holds; a new key for an owner who lost theirs.

use std::os::unix::fs::PermissionsExt as _;
use std::time::SystemTime;

use clap::Subcommand;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::Context;
use super::serve::plant;
use crate::failure::Failure;

/// Keys: what seals the vaults, and the owner's own
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the keys that seal the vaults, by name and version
    #[command(visible_alias = "ls", after_help = "Example:\n  claviger keys list")]
    List,
    /// End the owner's key and write another to DIR/admin.key, while no server runs
    #[command(after_help = "Example:\n  claviger keys reissue-admin")]
    ReissueAdmin,
}

pub(crate) async fn run(context: &Context, command: Command) -> anyhow::Result<()> {
    match command {
        Command::List => list(context),
        Command::ReissueAdmin => {
            let path = plant::reissue_admin_key(context).await?;
            context.output.done(
                &json!({ "admin_key": path }),
                format!(
                    "the owner's old key has ended; the new one is in {}",
                    path.display()
                ),
            );
            Ok(())
        }
    }
}

fn list(context: &Context) -> anyhow::Result<()> {
    let dir = context.connection.data_dir()?.keys();
    let entries = std::fs::read_dir(&dir).map_err(|error| {
        Failure::new(format!(
            "no keys on this machine: {}: {error}",
            dir.display()
        ))
        .hint("`claviger serve` makes them; name another directory with --data DIR")
    })?;
    let mut keys = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some((vault, version)) = name
            .strip_suffix(".kek")
            .and_then(|name| name.rsplit_once(".v"))
        else {
            continue;
        };
        let metadata = entry.metadata()?;
        keys.push(json!({
            "provider": "software", "vault": vault, "version": version.parse::<u64>().ok(),
            "mode": format!("{:04o}", metadata.permissions().mode() & 0o7777), "created_at": metadata.modified().ok().and_then(date),
        }));
    }
    keys.sort_by_key(|key| (key["vault"].to_string(), key["version"].as_u64()));
    let columns = [
        ("PROVIDER", "provider"),
        ("VAULT", "vault"),
        ("VERSION", "version"),
        ("MODE", "mode"),
        ("CREATED", "created_at"),
    ];
    context.output.list("keys", &columns, &keys);
    Ok(())
}

fn date(time: SystemTime) -> Option<Value> {
    let whole = OffsetDateTime::from(time).replace_nanosecond(0).ok()?;
    whole.format(&Rfc3339).ok().map(Value::String)
}
