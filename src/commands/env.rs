//! `env`: secrets as the variables of an environment, for what has to hold its values itself.

mod format;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Subcommand;
use control_plane::dotenv;
use serde_json::{Map, Value, json};
use tempfile::NamedTempFile;
use vault::Secret;
use zeroize::Zeroizing;

use self::format::Format;
use super::grant::Action;
use super::lease::{self, Kind, Mint};
use super::run::{only_agent, with_environment};
use super::set::{read_file, read_stdin};
use super::vault::path_of as vault_path;
use super::{Context, block_on};
use crate::client::{Caller, Client, segment, text};
use crate::environment;
use crate::failure::Failure;
use crate::output::clean;
use crate::units::SetName;

/// Secrets as an environment, in plaintext: out of a vault into a file or a program, and back
///
/// Whoever holds the environment holds the values. Where a provider's key is only to be used, `claviger run` gives a program its use
/// without the key.
#[derive(Debug, Subcommand)]
#[expect(clippy::doc_markdown, reason = "the comments are help texts")]
pub(crate) enum Command {
    /// Print the secrets of a vault or a set as variables, or write them to a file
    ///
    /// The secret PREFIX/db/url becomes the variable db_url: what stands behind the prefix, with _ for / and -. A secret of type env_bundle
    /// gives the variables of its lines. Each value counts as a read, and is on record.
    #[command(after_help = "\
Examples:
  claviger env pull --vault payments --prefix web/prod --output .env
  claviger env pull --prefix web/dev --format shell | ssh build 'cat > env.sh'
  claviger env pull --set stripe/prod/billing --agent billing-bot --format json --show")]
    Pull(Pull),
    /// Store the variables of a .env file as secrets of a vault
    ///
    /// The variable DB_URL becomes the secret PREFIX/DB_URL, as a new one or as its next version. What the vault has beside them stays.
    #[command(after_help = "\
Examples:
  claviger env push .env --vault payments --prefix web/prod --dry-run
  pass show web-env | claviger env push - --prefix web/dev")]
    Push(Push),
    /// Run a program with the secrets in its environment
    ///
    /// It ends with the program's status. The values are in the program's environment alone: neither on its command line nor on disk.
    #[command(
        after_help = "Example:\n  claviger env run --vault payments --prefix web/prod -- ./server"
    )]
    Run(Run),
}

/// Which secrets.
#[derive(Debug, clap::Args)]
pub(crate) struct Origin {
    /// The vault's name or id
    #[arg(long, default_value = "default")]
    vault: String,
    /// Those below this path alone
    #[arg(long, value_name = "PATH")]
    prefix: Option<String>,
    /// The keys of a secret set instead; its grant has to allow `export_plaintext`
    #[arg(long, value_name = "P/E/N", conflicts_with_all = ["vault", "prefix"])]
    set: Option<SetName>,
    /// With --set: the agent that holds the grant [default: the only one]
    #[arg(long, requires = "set")]
    agent: Option<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Pull {
    #[command(flatten)]
    origin: Origin,
    /// How it is written [default: dotenv; with --json: json]
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Write this file, which nobody else may read (mode 0600), in the place of what it was; - is standard output
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Print the values although a terminal shows them
    #[arg(long, conflicts_with = "output")]
    show: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Push {
    /// The .env file; - is standard input
    file: PathBuf,
    /// The vault's name or id
    #[arg(long, default_value = "default")]
    vault: String,
    /// Where in the vault, as web/prod
    #[arg(long, value_name = "PATH")]
    prefix: String,
    /// Say what would be stored, and store nothing
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Run {
    #[command(flatten)]
    origin: Origin,
    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// Names of variables with their values.
type Variables = BTreeMap<String, Zeroizing<String>>;

pub(crate) fn run(context: &Context, command: Command) -> anyhow::Result<ExitCode> {
    let done = |()| ExitCode::SUCCESS;
    match command {
        Command::Pull(pull) => block_on(pulled(context, &pull)).map(done),
        Command::Push(push) => block_on(pushed(context, &push)).map(done),
        Command::Run(run) => ran(context, &run),
    }
}

async fn pulled(context: &Context, pull: &Pull) -> anyhow::Result<()> {
    let file = pull
        .output
        .as_deref()
        .filter(|path| *path != Path::new("-"));
    let is_seen = file.is_none() && io::stdout().is_terminal();
    if is_seen && !pull.show {
        // Before anything is read: a read counts.
        return Err(Failure::new("a terminal would show the values")
            .hint("write them to a file with --output FILE, pipe them on, or print them all the same with --show")
            .into());
    }
    let format = pull.format.unwrap_or(if context.output.is_json() {
        Format::Json
    } else {
        Format::Dotenv
    });
    let client = context.connection.client().await?;
    let variables = gather(context, &client, &pull.origin).await?;
    let document = format::write(format, &variables)?;
    match file {
        None => context.output.raw(document.as_bytes()),
        Some(path) => {
            keep(path, document.as_bytes())?;
            let names: Vec<&str> = variables.keys().map(String::as_str).collect();
            let answer = json!({ "file": path.display().to_string(), "variables": names });
            let sentence = format!("wrote {} ({})", path.display(), names.join(", "));
            context.output.done(&answer, sentence);
        }
    }
    Ok(())
}

fn ran(context: &Context, run: &Run) -> anyhow::Result<ExitCode> {
    with_environment(context, &run.command, async {
        let client = context.connection.client().await?;
        let variables = gather(context, &client, &run.origin).await?;
        if let Some((name, _)) = variables.iter().find(|(_, value)| value.contains('\0')) {
            return Err(Failure::new(format!(
                "the value of {name} has a NUL in it, which no environment holds"
            ))
            .hint("take it by `claviger secret get --reveal`, or store it encoded")
            .into());
        }
        context.output.warn(
            "the program and its children hold these values in plaintext; `claviger run` gives a program the use of a provider's key without it",
        );
        Ok(environment::with_values(std::env::vars_os(), &variables))
    })
}

/// Reads the values. Nothing is read before all names are known to be good.
async fn gather(context: &Context, client: &Client, origin: &Origin) -> anyhow::Result<Variables> {
    if let Some(set) = &origin.set {
        return exported(client, set, origin.agent.as_deref()).await;
    }
    let (found, entries) = list(client, &origin.vault, origin.prefix.as_deref()).await?;
    if entries > 0 {
        context.output.note(format!(
            "note: left out {entries} entries of secret sets; `--set P/E/N` takes those of one set"
        ));
    }
    let mut named = BTreeMap::new();
    for secret in &found {
        let path = text(secret, "path");
        if text(secret, "type") != BUNDLE {
            let name = variable(path, origin.prefix.as_deref())?;
            if let Some(other) = named.insert(name.clone(), path) {
                return Err(collision(&name, other, path));
            }
        }
    }
    let mut variables = Variables::new();
    for (name, path) in named {
        variables.insert(name, value(client, &origin.vault, path).await?);
    }
    for secret in found.iter().filter(|secret| text(secret, "type") == BUNDLE) {
        let path = text(secret, "path");
        for (name, line) in bundle(path, &value(client, &origin.vault, path).await?)? {
            if variables.insert(name.clone(), line).is_some() {
                return Err(collision(&name, path, "another secret"));
            }
        }
    }
    if variables.is_empty() {
        let place = origin.prefix.as_deref().unwrap_or("this vault");
        return Err(Failure::new(format!("there are no secrets in {}", clean(place)))
            .code("not_found")
            .hint("`claviger secret list` shows those there are; `claviger env push` stores a file's")
            .into());
    }
    Ok(variables)
}

/// The secrets of a vault at or below a path, and how many entries of sets are beside them.
async fn list(
    client: &Client,
    vault: &str,
    prefix: Option<&str>,
) -> anyhow::Result<(Vec<Value>, usize)> {
    let prefix = prefix.map(|prefix| prefix.trim_end_matches('/'));
    let query = prefix.map_or_else(String::new, |prefix| format!("?prefix={}", segment(prefix)));
    let all = client
        .all(&format!("{}/secrets{query}", vault_path(vault)), "secrets")
        .await?;
    let below = |secret: &Value| {
        prefix.is_none_or(|prefix| {
            let rest = text(secret, "path").strip_prefix(prefix);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    };
    let (entries, secrets): (Vec<_>, Vec<_>) = all
        .into_iter()
        .filter(below)
        .partition(|secret| secret.get("secret_set").is_some_and(|set| !set.is_null()));
    Ok((secrets, entries.len()))
}

async fn value(client: &Client, vault: &str, path: &str) -> anyhow::Result<Zeroizing<String>> {
    let place = format!("{}/secrets/{}", vault_path(vault), segment(path));
    let mut answer = client
        .get(&place)
        .await
        .map_err(|error| named(error, path))?;
    match answer.get_mut("value").map(Value::take) {
        Some(Value::String(value)) => Ok(Zeroizing::new(value)),
        _ => anyhow::bail!("the server's answer for {} has no value", clean(path)),
    }
}

/// The same failure, with the secret that it is about.
fn named(error: anyhow::Error, path: &str) -> anyhow::Error {
    let Some(failure) = error.downcast_ref::<Failure>() else {
        return error;
    };
    let mut about = Failure::new(format!("{}: {}", clean(path), failure.reason()));
    if let Some(hint) = failure.next_action() {
        about = about.hint(hint);
    }
    if let Some(code) = failure.error_code() {
        about = about.code(code);
    }
    about.into()
}

/// The keys of a set, by a lease that is used up with it.
async fn exported(
    client: &Client,
    set: &SetName,
    agent: Option<&str>,
) -> anyhow::Result<Variables> {
    let sets = vec![set.clone()];
    let agent = match (agent, client.caller()) {
        (Some(agent), _) => Some(agent.to_owned()),
        (None, Caller::Agent) => None,
        (None, Caller::Person) => Some(only_agent(client, &sets).await?),
    };
    let mint = Mint {
        set: sets,
        agent,
        kind: Kind::Request,
        action: Action::ExportPlaintext,
        keys: Vec::new(),
        grant: Vec::new(),
        ttl: LEASE_SECONDS,
    };
    let mut lease = lease::request(client, &mint).await?;
    let Some(Value::String(token)) = lease.get_mut("token").map(Value::take) else {
        anyhow::bail!("the server's answer has no lease");
    };
    let holder = client.as_holder_of(Zeroizing::new(token));
    let mut answer = holder.post("/v1/vault/export", &json!({})).await?;
    let Some(Value::Object(secrets)) = answer.get_mut("secrets").map(Value::take) else {
        anyhow::bail!("the server's answer has no secrets");
    };
    let text = |(name, value)| match value {
        Value::String(value) => Some((name, Zeroizing::new(value))),
        _ => None,
    };
    Ok(secrets.into_iter().filter_map(text).collect())
}

/// What stands behind the prefix, as the name of a variable.
fn variable(path: &str, prefix: Option<&str>) -> Result<String, Failure> {
    let prefix = prefix.unwrap_or_default().trim_end_matches('/');
    let rest = path.strip_prefix(prefix).unwrap_or(path);
    let rest = rest.trim_start_matches('/');
    let own = if rest.is_empty() {
        // The prefix is the secret's whole path.
        path.rsplit('/').next().unwrap_or(path)
    } else {
        rest
    };
    let name = own.replace(['/', '-'], "_");
    if name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_') {
        return Ok(name);
    }
    Err(Failure::new(format!(
        "the secret {} would be the variable {}, and no variable's name begins with a digit",
        clean(path),
        clean(&name)
    ))
    .hint("give another --prefix, or store the secret at another path"))
}

fn bundle(path: &str, value: &str) -> Result<Vec<(String, Zeroizing<String>)>, Failure> {
    let wrong = |error: String| {
        Failure::new(format!("the env_bundle {}: {error}", clean(path)))
            .hint("store it anew with `claviger secret put --type env_bundle`")
    };
    let lines = dotenv::parse(&Secret::new(value.as_bytes().to_vec()));
    let lines = lines.map_err(|error| wrong(error.to_string()))?;
    Ok(lines.into_iter().map(owned).collect())
}

fn owned((name, secret): (String, Secret)) -> (String, Zeroizing<String>) {
    // The parser takes UTF-8 alone.
    let value = secret.expose_str().unwrap_or_default().to_owned();
    (name, Zeroizing::new(value))
}

fn collision(name: &str, one: &str, other: &str) -> anyhow::Error {
    Failure::new(format!(
        "both {} and {} would be the variable {name}",
        clean(one),
        clean(other)
    ))
    .hint("give a deeper --prefix, or store one of them at another path")
    .into()
}

/// Writes a file that nobody else may read, whole or not at all.
fn keep(path: &Path, document: &[u8]) -> anyhow::Result<()> {
    let dir = path
        .parent()
        .filter(|dir| !dir.as_os_str().is_empty())
        .unwrap_or_else(|| Path::new("."));
    let write = || {
        // 0600 from its first moment.
        let mut file = NamedTempFile::new_in(dir)?;
        file.write_all(document)?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        io::Result::Ok(())
    };
    write().map_err(|error| {
        Failure::new(format!("cannot write {}: {error}", path.display()))
            .hint("name a file in a directory that you may write to")
            .into()
    })
}

async fn pushed(context: &Context, push: &Push) -> anyhow::Result<()> {
    // What is written wrongly is told before a server is asked.
    let variables = read(&push.file)?;
    let client = context.connection.client().await?;
    let prefix = push.prefix.trim_end_matches('/');
    let (there, _) = list(&client, &push.vault, Some(prefix)).await?;
    let there: BTreeMap<&str, &Value> = there
        .iter()
        .map(|secret| (text(secret, "path"), secret))
        .collect();
    let at = |name: &str| format!("{prefix}/{name}");
    let (next, new): (Vec<&String>, Vec<&String>) = variables
        .keys()
        .partition(|name| there.contains_key(at(name).as_str()));

    if !push.dry_run {
        for (name, value) in &variables {
            let path = at(name);
            let body = stored(there.get(path.as_str()).copied(), value);
            let place = format!("{}/secrets/{}", vault_path(&push.vault), segment(&path));
            let put = client.put(&place, &body).await;
            put.map_err(|error| named(error, &path))?;
        }
    }
    let answer = json!({ "vault": push.vault, "prefix": prefix, "dry_run": push.dry_run, "new": new, "next_version": next });
    let verb = if push.dry_run {
        "would store"
    } else {
        "stored"
    };
    let mut parts = Vec::new();
    for (what, names) in [("new", &new), ("next version of", &next)] {
        if !names.is_empty() {
            let names: Vec<&str> = names.iter().map(|name| name.as_str()).collect();
            parts.push(format!("{what} {}", names.join(", ")));
        }
    }
    let sentence = format!("{verb} below {prefix}: {}", parts.join("; "));
    context.output.done(&answer, sentence);
    Ok(())
}

fn read(file: &Path) -> anyhow::Result<Variables> {
    let content = if file == Path::new("-") {
        read_stdin()?
    } else {
        read_file(file)?
    };
    let wrong = |reason: String| {
        Failure::new(format!("{}: {reason}", file.display()))
            .hint("a line is KEY=VALUE, KEY='VALUE' or KEY=\"VALUE\"")
    };
    let lines = dotenv::parse(&Secret::new(content.as_bytes().to_vec()));
    let lines = lines.map_err(|error| wrong(error.to_string()))?;
    let variables: Variables = lines.into_iter().map(owned).collect();
    if let Some((name, _)) = variables.iter().find(|(_, value)| value.is_empty()) {
        return Err(wrong(format!("{name} has no value; leave the line out")).into());
    }
    if variables.is_empty() {
        return Err(wrong("no variable is set in it".to_owned()).into());
    }
    Ok(variables)
}

/// A variable as the server takes it; what was said of the secret before stays said.
fn stored(before: Option<&Value>, value: &str) -> Value {
    let mut body = Map::new();
    body.insert("type".to_owned(), json!("env"));
    for field in ["type", "metadata"] {
        if let Some(kept) = before.and_then(|secret| secret.get(field)) {
            body.insert(field.to_owned(), kept.clone());
        }
    }
    body.insert("value".to_owned(), json!(value));
    Value::Object(body)
}

/// The type of a secret that holds `KEY=VALUE` lines.
const BUNDLE: &str = "env_bundle";
/// The lease is used as soon as it is minted.
const LEASE_SECONDS: u64 = 60;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_variable_is_named_by_what_stands_behind_the_prefix() {
        for (path, prefix, expected) in [
            ("web/prod/DB_URL", Some("web/prod"), "DB_URL"),
            ("web/prod/DB_URL", Some("web/prod/"), "DB_URL"),
            ("web/prod/db-1/url", Some("web"), "prod_db_1_url"),
            ("web/prod", None, "web_prod"),
            ("web/prod", Some("web/prod"), "prod"),
        ] {
            assert_eq!(variable(path, prefix).unwrap(), expected);
        }
        let refused = variable("web/2fa", Some("web")).unwrap_err();
        assert!(refused.reason().contains("begins with a digit"));
    }

    #[test]
    fn a_file_is_written_for_its_owner_alone_whatever_it_was_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(".env");
        std::fs::write(&path, "OLD=1\n").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        keep(&path, b"NEW=1\n").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"NEW=1\n");
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(keep(&dir.path().join("no/such/place"), b"").is_err());
    }

    #[test]
    fn a_file_without_values_is_refused_before_anybody_is_asked() {
        for (content, expected) in [
            ("# nothing\n", "no variable"),
            ("A=\n", "A has no value"),
            ("A=\"hunter2", "line 1 opens a quote"),
        ] {
            let file = NamedTempFile::new().unwrap();
            std::fs::write(file.path(), content).unwrap();
            let error = read(file.path()).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn the_next_version_keeps_what_was_said_of_the_secret() {
        assert_eq!(stored(None, "x"), json!({ "type": "env", "value": "x" }));
        let before = json!({ "type": "password", "metadata": { "team": "web" }, "version": 3 });
        let expected = json!({ "type": "password", "metadata": { "team": "web" }, "value": "x" });
        assert_eq!(stored(Some(&before), "x"), expected);
    }

    #[test]
    fn a_bundle_gives_the_variables_of_its_lines() {
        let lines = bundle("web/env", "# web\nB='2'\nA=1\n").unwrap();
        let names: Vec<&str> = lines.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["A", "B"]);
        let error = bundle("web/env", "hunter2").unwrap_err();
        assert!(!error.reason().contains("hunter2"), "{error}");
    }
}
