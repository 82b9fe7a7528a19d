//! `keys`: what seals the vaults and what signs, their rotation and their move; a new key for an owner who lost theirs.

use std::io::IsTerminal as _;
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, SystemTime};

use clap::{Args, Subcommand, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::Context;
use super::serve::plant;
use crate::client::{Client, segment, text};
use crate::failure::Failure;

/// Keys: what seals the vaults, what signs, and the owner's own
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the keys that seal the vaults and those that sign, with their versions
    #[command(
        visible_alias = "ls",
        after_help = "Without a server it lists the key files of this machine.\n\nExample:\n  claviger keys list"
    )]
    List,
    /// Make a new version of a vault's key and wrap all its data keys anew, or make a new signing key
    #[command(
        after_help = "Traffic goes on meanwhile. A rotation that was cut off goes on by itself.\n\nExamples:\n  claviger keys rotate\n  claviger keys rotate --key lease-root"
    )]
    Rotate(Rotate),
    /// Move a vault, and with the default one the signing keys, to the server's key provider from another
    #[command(
        after_help = "Example:\n  claviger keys migrate --to pkcs11\n\nFirst start every node with the new provider as `keys.provider` and the old one in `keys.also`."
    )]
    Migrate(Migrate),
    /// End the owner's key and write another to DIR/admin.key, while no server runs
    #[command(after_help = "Example:\n  claviger keys reissue-admin")]
    ReissueAdmin,
}

/// What to rotate.
#[derive(Debug, Args)]
pub(crate) struct Rotate {
    /// The vault, by id or name [default: default]
    #[arg(long, value_name = "VAULT", conflicts_with = "key")]
    vault: Option<String>,
    /// A key of the service in the place of a vault's
    #[arg(long)]
    key: Option<ServiceKey>,
    #[command(flatten)]
    wait: Wait,
}

/// Where to move.
#[derive(Debug, Args)]
pub(crate) struct Migrate {
    /// The provider to move to
    #[arg(long)]
    to: Provider,
    /// The vault, by id or name [default: default]
    #[arg(long, value_name = "VAULT")]
    vault: Option<String>,
    #[command(flatten)]
    wait: Wait,
}

#[derive(Clone, Copy, Debug, Args)]
struct Wait {
    /// Return once it is begun; `keys list` shows how far it is
    #[arg(long)]
    no_wait: bool,
}

/// The keys of the service.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum ServiceKey {
    /// Mints leases
    LeaseRoot,
    /// Signs agents' tokens
    Jwt,
    /// The injector's certificate authority
    Ca,
}

/// Who may hold keys.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Provider {
    /// Files of the server's machine
    Software,
    /// A token by PKCS #11
    Pkcs11,
    /// Google Cloud KMS
    GcpKms,
}

/// How often the server is asked how far it is.
const ASK: Duration = Duration::from_millis(300);

pub(crate) async fn run(context: &Context, command: Command) -> anyhow::Result<()> {
    match command {
        Command::List => list(context).await,
        Command::Rotate(rotate) => {
            let client = context.connection.client().await?;
            let body = match (&rotate.key, &rotate.vault) {
                (Some(key), _) => json!({ "key": name(key) }),
                (None, Some(vault)) => json!({ "vault": vault }),
                (None, None) => json!({}),
            };
            let begun = client.post("/v1/keys/rotate", &body).await?;
            match begun.get("key") {
                Some(key) => context.output.done(&begun, new_key(key)),
                None => follow(context, &client, begun, rotate.wait).await?,
            }
            Ok(())
        }
        Command::Migrate(migrate) => {
            let client = context.connection.client().await?;
            let mut body = json!({ "to": name(&migrate.to) });
            if let Some(vault) = &migrate.vault {
                body["vault"] = json!(vault);
            }
            let begun = client.post("/v1/keys/migrate", &body).await?;
            follow(context, &client, begun, migrate.wait).await
        }
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

fn name(value: &impl ValueEnum) -> String {
    let value = value.to_possible_value();
    value.map_or_else(String::new, |value| value.get_name().to_owned())
}

fn new_key(key: &Value) -> String {
    format!(
        "{} version {} is made and signs from {}; what the one before it signed stays good until it ends",
        text(key, "name"),
        key["version"],
        text(key, "signs_from")
    )
}

/// Waits for a rotation, and shows how far it is.
async fn follow(
    context: &Context,
    client: &Client,
    begun: Value,
    wait: Wait,
) -> anyhow::Result<()> {
    let mut rotation = begun["rotation"].clone();
    let id = text(&rotation, "id").to_owned();
    if wait.no_wait {
        let sentence = format!("rotation {id} runs; `claviger keys list` shows how far it is");
        context.output.done(&begun, sentence);
        return Ok(());
    }
    let mut shown = Progress::new(context);
    while text(&rotation, "state") == "running" {
        shown.show(&rotation);
        tokio::time::sleep(ASK).await;
        let path = format!("/v1/keys/rotations/{}", segment(&id));
        rotation = client.get(&path).await?;
    }
    shown.finish();
    let skipped = rotation["skipped"].as_u64().unwrap_or(0);
    if skipped > 0 {
        return Err(Failure::new(format!(
            "rotation {id} has ended, and {skipped} seals that do not open stayed under the old key"
        ))
        .hint("keep the old key; the log of the control planes names the seals: store those secrets anew, then rotate again")
        .into());
    }
    let sentence = format!(
        "vault {}: all {} seals are under version {} of {}",
        text(&rotation, "vault_id"),
        rotation["total"],
        rotation["target_version"],
        rotation["to"].as_str().unwrap_or("its key")
    );
    context
        .output
        .done(&json!({ "rotation": rotation }), sentence);
    Ok(())
}

/// A bar on a terminal, else a line each time a tenth more is done.
struct Progress<'a> {
    context: &'a Context,
    bar: Option<ProgressBar>,
    tenth: Option<u64>,
}

impl<'a> Progress<'a> {
    fn new(context: &'a Context) -> Self {
        let draws = std::io::stderr().is_terminal() && !context.output.is_json();
        let bar = draws.then(|| {
            let style = ProgressStyle::with_template("{bar:40} {pos}/{len} {msg}");
            let bar = ProgressBar::new(0);
            bar.set_style(style.expect("the template is well formed"));
            bar
        });
        Self {
            context,
            bar,
            tenth: None,
        }
    }

    fn show(&mut self, rotation: &Value) {
        let done = rotation["done"].as_u64().unwrap_or(0);
        let total = rotation["total"].as_u64().unwrap_or(0);
        let waits = done >= total;
        if let Some(bar) = &self.bar {
            bar.set_length(total);
            bar.set_position(done);
            bar.set_message(if waits { "waiting for writers" } else { "" });
            return;
        }
        let tenth = (done * 10).checked_div(total).unwrap_or(10);
        if self.tenth != Some(tenth) {
            self.tenth = Some(tenth);
            let waiting = if waits { ", waiting for writers" } else { "" };
            self.context.output.note(format!("{done}/{total}{waiting}"));
        }
    }

    fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

async fn list(context: &Context) -> anyhow::Result<()> {
    let asked = match context.connection.client().await {
        Ok(client) => client.get("/v1/keys").await,
        Err(error) => Err(error),
    };
    match asked {
        Ok(keys) => {
            show(context, &keys);
            Ok(())
        }
        Err(error) if is_offline(&error) => list_files(context),
        Err(error) => Err(error),
    }
}

/// Whether there is nobody to ask: no server, or no key because none ever ran.
fn is_offline(error: &anyhow::Error) -> bool {
    let code = error.downcast_ref().and_then(Failure::error_code);
    matches!(code, Some("unreachable" | "no_key"))
}

fn show(context: &Context, keys: &Value) {
    if context.output.is_json() {
        return context.output.value(keys);
    }
    let empty = Vec::new();
    let all = |of: &Value, field: &str| of[field].as_array().unwrap_or(&empty).clone();
    let mut rows = Vec::new();
    for vault in all(keys, "vaults") {
        for version in all(&vault, "versions") {
            let current = version["version"] == vault["current"];
            rows.push(json!({
                "provider": vault["provider"], "key": vault["kek"], "version": version["version"],
                "state": if current { json!("current") } else { version["state"].clone() },
                "mechanism": version["mechanism"], "created_at": version["created_at"],
            }));
        }
        if let Some(error) = vault["error"].as_str() {
            let key = text(&vault, "kek");
            context.output.note(format!("{key}: {error}"));
        }
    }
    for key in all(keys, "signing_keys") {
        let state = match (key["signs"].as_bool(), key["retired_at"].is_null()) {
            (Some(true), _) => "current",
            (_, true) => "next",
            (_, false) => "retired",
        };
        rows.push(json!({
            "provider": key["where"], "key": key["name"], "version": key["version"],
            "state": state, "mechanism": Value::Null, "created_at": key["created_at"],
        }));
    }
    let columns = [
        ("PROVIDER", "provider"),
        ("KEY", "key"),
        ("VERSION", "version"),
        ("STATE", "state"),
        ("MECHANISM", "mechanism"),
        ("CREATED", "created_at"),
    ];
    context.output.list("keys", &columns, &rows);
    for vault in all(keys, "vaults") {
        let rotation = &vault["rotation"];
        if !rotation.is_null() {
            context.output.say(format!(
                "rotation {} of vault {}: {} of {} seals",
                text(rotation, "id"),
                text(&vault, "vault"),
                rotation["done"],
                rotation["total"]
            ));
        }
    }
    if let Some(last) = all(keys, "rotations").first()
        && last["skipped"].as_u64().unwrap_or(0) > 0
    {
        context.output.note(format!(
            "rotation {}: {} seals did not open and are under the old key still; keep it",
            text(last, "id"),
            last["skipped"]
        ));
    }
}

/// The files of the software provider, as far as this machine has them.
fn list_files(context: &Context) -> anyhow::Result<()> {
    let dir = context.connection.data_dir()?.keys();
    let entries = std::fs::read_dir(&dir).map_err(|error| {
        Failure::new(format!(
            "no server answers, and no keys are on this machine: {}: {error}",
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
