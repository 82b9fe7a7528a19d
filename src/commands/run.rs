//! `run`: a program with a way through the injector, a lease of its own, and no key.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{ExitCode, ExitStatus};

use anyhow::Context as _;
use leases::clock::{Clock as _, SystemClock};
use providers::Catalog;
use serde_json::Value;
use tempfile::TempDir;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::process::{Child, Command};
use zeroize::Zeroizing;

mod signals;

use self::signals::Signals;
use super::grant::Action;
use super::{Context, ca, lease};
use crate::client::{Caller, Client, Connection, segment, text};
use crate::environment::{self, Facts};
use crate::failure::Failure;
use crate::output::Output;
use crate::trust;
use crate::units::{self, HostPort, SetName};

/// Run a program whose requests get the credentials put in on their way
///
/// The program finds the injector by its proxy variables, trusts its CA, and holds a lease that ends with it. Where it looks
/// for a key it finds a placeholder of the right shape.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  claviger run --set openai/dev/me -- python agent.py
  claviger run --set github/dev/me --set stripe/test/me --agent bot --ttl 15m -- claude
  claviger run --set stripe/test/me -- curl https://api.stripe.com/v1/balance")]
pub(crate) struct Args {
    /// A set: provider/environment/name; repeatable, the request's host decides
    #[arg(long, required = true, value_name = "P/E/N")]
    set: Vec<SetName>,
    /// The agent, by name or id [default: the only one that holds grants on these sets]
    #[arg(long)]
    agent: Option<String>,
    /// How long the lease lives at most
    #[arg(long, value_parser = units::ttl_seconds, default_value = "1h")]
    ttl: u64,
    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// What shells answer for a program that is not there, or that may not be run.
const NOT_FOUND: u8 = 127;
const NOT_RUNNABLE: u8 = 126;

pub(crate) fn run(context: &Context, args: &Args) -> anyhow::Result<ExitCode> {
    // The wrapped program often runs as the same user; it must not read the key from this process's memory.
    crate::hardening::keep_memory_private();
    super::block_on(async {
        // Before anything else starts a thread, so that all of them hold the signals back.
        let signals = Signals::hold()?;
        let client = context.connection.client().await?;
        let lease = Lease::mint(&client, args).await?;
        let outcome = lease.accompany(context, args, signals).await;
        lease.end(context.output).await;
        outcome
    })
}

/// The lease of one run, which ends with it.
struct Lease<'a> {
    client: &'a Client,
    id: String,
    token: Zeroizing<String>,
    expires_at: String,
}

impl<'a> Lease<'a> {
    async fn mint(client: &'a Client, args: &Args) -> anyhow::Result<Self> {
        let agent = match (&args.agent, client.caller()) {
            (Some(agent), _) => Some(agent.clone()),
            (None, Caller::Agent) => None,
            (None, Caller::Person) => Some(only_agent(client, &args.set).await?),
        };
        let mint = lease::Mint {
            set: args.set.clone(),
            agent,
            kind: lease::Kind::Workflow,
            action: Action::ProxyUse,
            keys: Vec::new(),
            ttl: args.ttl,
        };
        let answer = lease::request(client, &mint).await?;
        Ok(Self {
            client,
            id: text(&answer, "lease_id").to_owned(),
            token: Zeroizing::new(text(&answer, "token").to_owned()),
            expires_at: text(&answer, "expires_at").to_owned(),
        })
    }

    async fn accompany(
        &self,
        context: &Context,
        args: &Args,
        signals: Signals,
    ) -> anyhow::Result<ExitCode> {
        let ca = ca::pem(&context.connection).await?;
        // 0700, and removed when it is dropped.
        let dir =
            TempDir::with_prefix("claviger-run-").context("cannot make a temporary directory")?;
        let also = std::env::var_os("NODE_EXTRA_CA_CERTS").map(PathBuf::from);
        let trust = trust::write(dir.path(), &ca, also.as_deref())?;
        let (placeholders, withheld) = variables(self.client, &args.set).await;
        let proxy = injector(self.client, &context.connection)?;
        let facts = Facts {
            proxy: &proxy,
            lease: &self.token,
            trust: &trust,
            placeholders: &placeholders,
            withheld: &withheld,
        };
        let environment = environment::build(std::env::vars_os(), &facts);
        start(context.output, &args.command, environment, signals).await
    }

    /// Best effort: the program's status is what the caller waits for, and the lease ends by itself.
    async fn end(&self, output: Output) {
        let path = format!("/v1/vault/leases/{}", segment(&self.id));
        if let Err(error) = self.client.delete(&path).await {
            output.warn(format!(
                "lease {} is not revoked and lives until {}: {error:#}",
                self.id, self.expires_at
            ));
        }
    }
}

async fn start(
    output: Output,
    command: &[OsString],
    environment: BTreeMap<OsString, OsString>,
    signals: Signals,
) -> anyhow::Result<ExitCode> {
    let Some((program, arguments)) = command.split_first() else {
        anyhow::bail!("no program is named")
    };
    let mut command = Command::new(program);
    command.args(arguments).env_clear().envs(environment);
    let spawned = signals.spawning(|| command.spawn())?;
    match spawned {
        Ok(child) => Ok(exit_code(attend(child, signals).await?)),
        Err(error) => {
            let code = if error.kind() == ErrorKind::NotFound {
                NOT_FOUND
            } else {
                NOT_RUNNABLE
            };
            let failure =
                Failure::new(format!("cannot run {}: {error}", program.to_string_lossy()))
                    .hint("check the program's name and PATH");
            output.failure(&failure.into());
            Ok(ExitCode::from(code))
        }
    }
}

/// Waits for the program and passes signals on meanwhile.
async fn attend(mut child: Child, mut signals: Signals) -> anyhow::Result<ExitStatus> {
    loop {
        tokio::select! {
            // Reaped here and nowhere else, so the id below is the child's as long as there is one.
            status = child.wait() => return status.context("cannot wait for the program"),
            signal = signals.next() => {
                let signal = signal?;
                if let Some(id) = child.id() {
                    signals::forward(signal, id);
                }
            }
        }
    }
}

/// The program's own status, or 128 and the number of the signal that ended it, as shells tell it.
fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal))
        .unwrap_or(1);
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}

/// The one agent that holds a living grant on every set.
async fn only_agent(client: &Client, sets: &[SetName]) -> anyhow::Result<String> {
    let grants = client.all("/v1/vault/grants", "grants").await?;
    let now = SystemClock.now();
    let mut common: Option<Vec<String>> = None;
    for set in sets {
        let set = client.set(set).await?;
        let mut agents: Vec<String> = grants
            .iter()
            .filter(|grant| text(grant, "secret_set_id") == text(&set, "id") && lives(grant, now))
            .map(|grant| text(grant, "agent_id").to_owned())
            .collect();
        agents.sort();
        agents.dedup();
        common = Some(match common {
            None => agents,
            Some(before) => before
                .into_iter()
                .filter(|agent| agents.contains(agent))
                .collect(),
        });
    }
    let common = common.unwrap_or_default();
    let names = sets
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(" and ");
    match common.as_slice() {
        [agent] => Ok(agent.clone()),
        [] => {
            let commands: Vec<String> = sets
                .iter()
                .map(|set| format!("claviger grant create --agent AGENT --set {set} --actions proxy_use,mint_workflow_lease"))
                .collect();
            Err(Failure::new(format!("no agent holds a grant on {names}"))
                .code("grant_denied")
                .hint(commands.join("; "))
                .into())
        }
        several => Err(
            Failure::new(format!("{} agents hold grants on {names}", several.len()))
                .hint("name the one to run as: --agent NAME; `claviger agent list` shows them")
                .into(),
        ),
    }
}

pub(crate) fn lives(grant: &Value, now: OffsetDateTime) -> bool {
    let is_revoked = grant.get("revoked_at").is_some_and(|at| !at.is_null());
    let has_ended =
        OffsetDateTime::parse(text(grant, "expires_at"), &Rfc3339).is_ok_and(|at| at <= now);
    !is_revoked && !has_ended
}

/// Placeholders by variable, and the other variables in which the sets' real keys may stand.
async fn variables(client: &Client, sets: &[SetName]) -> (BTreeMap<String, String>, Vec<String>) {
    let builtin = Catalog::builtin();
    let (mut placeholders, mut withheld) = (BTreeMap::new(), Vec::new());
    for set in sets {
        // The keys as they are stored name variables too, whatever the template says. An agent's key may not ask.
        let stored = client.set(set).await.unwrap_or_default();
        let stored = stored["keys"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .map(str::to_owned);
        if let Some(template) = builtin.get(&set.provider) {
            placeholders.extend(template.placeholders());
            // An account's name opens nothing, and the agent writes it into paths and bodies itself.
            let opens = |key: &String| !template.identifiers().contains(key);
            withheld.extend(template.keys().keys().cloned().chain(stored).filter(opens));
        } else {
            let template = client
                .get(&format!("/v1/providers/{}", segment(&set.provider)))
                .await
                .unwrap_or_default();
            let named = ["env", "keys"]
                .into_iter()
                .filter_map(|field| template[field].as_object())
                .flatten()
                .map(|(name, _)| name.clone());
            placeholders.extend(
                named
                    .chain(stored)
                    .map(|name| (name.clone(), placeholder(&name))),
            );
        }
    }
    (placeholders, withheld)
}

/// For a template that gives no shape of its own.
fn placeholder(name: &str) -> String {
    format!("claviger-placeholder-{}", name.to_ascii_lowercase())
}

/// Where the injector listens: as the local server recorded, as `CLAVIGER_PROXY` says, else beside the API.
pub(crate) fn injector(client: &Client, connection: &Connection) -> anyhow::Result<HostPort> {
    if let Some(proxy) = client.record().and_then(|record| record.proxy.as_ref()) {
        return proxy.parse().map_err(anyhow::Error::msg);
    }
    if let Ok(address) = std::env::var("CLAVIGER_PROXY") {
        return address.parse().map_err(|error: String| {
            Failure::new(format!("CLAVIGER_PROXY: {error}"))
                .hint("set it to the injector's address")
                .into()
        });
    }
    let (url, _) = connection.server()?;
    let host = reqwest::Url::parse(&url)?
        .host_str()
        .unwrap_or("127.0.0.1")
        .trim_matches(['[', ']'])
        .to_owned();
    Ok(HostPort { host, port: 8182 })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_grant_lives_until_it_is_revoked_or_expires() {
        let now = OffsetDateTime::UNIX_EPOCH;
        assert!(lives(
            &json!({ "expires_at": null, "revoked_at": null }),
            now
        ));
        assert!(lives(&json!({ "expires_at": "1970-01-01T00:00:01Z" }), now));
        assert!(!lives(
            &json!({ "expires_at": "1970-01-01T00:00:00Z" }),
            now
        ));
        assert!(!lives(
            &json!({ "revoked_at": "1969-01-01T00:00:00Z" }),
            now
        ));
    }

    #[test]
    fn a_signal_becomes_the_status_that_shells_tell() {
        assert_eq!(exit_code(ExitStatus::from_raw(3 << 8)), ExitCode::from(3));
        assert_eq!(exit_code(ExitStatus::from_raw(15)), ExitCode::from(143));
    }
}
