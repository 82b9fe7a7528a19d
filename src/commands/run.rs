//! `run`: a program with a way through the injector, a lease of its own, and no key.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use leases::clock::{Clock as _, SystemClock};
use providers::Catalog;
use providers::template::Template;
use serde_json::Value;
use tempfile::TempDir;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

mod helper;
mod holder;
mod kin;
mod learn;
mod program;
mod signals;
mod socks;

use self::helper::Helper;
use self::holder::{Holder, Lease};
use self::kin::Kin;
use self::signals::Signals;
use super::grant::Action;
use super::{Context, ca, lease};
use crate::client::{Caller, Client, Connection, segment, text};
use crate::environment::{self, Facts};
use crate::failure::Failure;
use crate::trust::{self, Inherited};
use crate::tunnel::Dialer;
use crate::units::{self, HostPort, ProxyUrl, SetName};

/// Run a program whose requests get the credentials put in on their way
///
/// The program finds a proxy of its own by its proxy variables and trusts the injector's CA. The proxy adds a lease to what
/// the program and its children send, renews it, and ends with the program: neither key nor lease is in its hands. Where it
/// looks for a key it finds a placeholder of the right shape. The same port speaks SOCKS5 too: SOCKS5_SERVER names it.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  claviger run --set openai/dev/me -- python agent.py
  claviger run --set github/dev/me --set stripe/test/me --agent bot --ttl 15m -- claude
  claviger run --set stripe/test/me -- curl https://api.stripe.com/v1/balance
  claviger run --learn --set openai/dev/me -- python agent.py     and the grants it needed")]
#[expect(clippy::doc_markdown, reason = "the comments are help texts")]
pub(crate) struct Args {
    /// A set: provider/environment/name; repeatable, the request's host decides
    #[arg(long, required = true, value_name = "P/E/N")]
    set: Vec<SetName>,
    /// The agent, by name or id [default: the only one that holds grants on these sets]
    #[arg(long)]
    agent: Option<String>,
    /// Mint from this grant alone, where the agent holds several on a set; repeatable
    #[arg(long, value_name = "ID")]
    grant: Vec<String>,
    /// How long a lease lives; it is renewed when half of that is over
    #[arg(long, value_parser = units::ttl_seconds, default_value = "1h")]
    ttl: u64,
    /// The injector, as host:port or a URL [default: as the server tells] [env: CLAVIGER_PROXY]
    #[arg(long, value_name = "URL")]
    proxy: Option<ProxyUrl>,
    /// Hand the lease itself to the program, for one whose requests come from elsewhere, as a container's do; it is not
    /// renewed
    #[arg(long)]
    lease_in_env: bool,
    /// Say at the end which grants would allow what the program did and tried, and no more
    #[arg(long)]
    learn: bool,
    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

pub(crate) fn run(context: &Context, args: &Args) -> anyhow::Result<ExitCode> {
    // The wrapped program often runs as the same user; it must not read the key from this process's memory.
    crate::hardening::keep_memory_private();
    super::block_on(async {
        // Before anything else starts a thread, so that all of them hold the signals back.
        let signals = Signals::hold()?;
        let client = context.connection.client().await?;
        let holder = Holder::begin(context, &client, mint(&client, args).await?).await?;
        let outcome = accompany(context, args, &client, &holder, signals).await;
        if args.learn {
            learn::tell(context, &client, &args.set, &holder.ids()).await;
        }
        holder.end().await;
        outcome
    })
}

/// Runs a program with this environment, and with nothing beside it.
pub(super) fn with_environment(
    context: &Context,
    command: &[OsString],
    environment: impl Future<Output = anyhow::Result<BTreeMap<OsString, OsString>>>,
) -> anyhow::Result<ExitCode> {
    crate::hardening::keep_memory_private();
    super::block_on(async {
        // Before anything else starts a thread, so that all of them hold the signals back.
        let signals = Signals::hold()?;
        program::run(context.output, command, environment.await?, signals, None).await
    })
}

/// The lease to ask for.
async fn mint(client: &Client, args: &Args) -> anyhow::Result<lease::Mint> {
    let agent = match (&args.agent, client.caller()) {
        (Some(agent), _) => Some(agent.clone()),
        (None, Caller::Agent) => None,
        (None, Caller::Person) => Some(only_agent(client, &args.set).await?),
    };
    Ok(lease::Mint {
        set: args.set.clone(),
        agent,
        kind: lease::Kind::Workflow,
        action: Action::ProxyUse,
        keys: Vec::new(),
        grant: args.grant.clone(),
        ttl: args.ttl,
    })
}

/// Runs the program to its end, with what it needs beside it.
async fn accompany(
    context: &Context,
    args: &Args,
    client: &Client,
    holder: &Holder<'_>,
    signals: Signals,
) -> anyhow::Result<ExitCode> {
    let ca = ca::pem(&context.connection).await?;
    // 0700, and removed when it is dropped.
    let dir = TempDir::with_prefix("claviger-run-").context("cannot make a temporary directory")?;
    let trust = trust::write(dir.path(), &ca, &Inherited::of_this_process())?;
    let (placeholders, withheld) = variables(client, &args.set).await;
    let proxy = injector(client, &context.connection, args.proxy.as_ref()).await?;
    let injector = Dialer::new(proxy, &ca);
    check_injector(&injector).await?;
    warn_of_shared_user(context);
    let way = Way::open(context, args, injector, holder).await?;
    let (proxy, lease) = way.of_program();
    let facts = Facts {
        proxy: &proxy,
        lease: lease.as_ref().map(|lease| lease.token.as_str()),
        trust: &trust,
        placeholders: &placeholders,
        withheld: &withheld,
    };
    let environment = environment::build(std::env::vars_os(), &facts);
    let program = program::run(
        context.output,
        &args.command,
        environment,
        signals,
        way.kin(),
    );
    tokio::select! {
        ended = program => ended,
        never = way.serve(holder) => match never {},
    }
}

/// How the program's requests come to the injector with a lease.
enum Way {
    /// By a port that adds it. The program holds none.
    Helper(Helper, Kin),
    /// The program holds the lease and shows it itself.
    Handed(ProxyUrl, Arc<Lease>),
}

impl Way {
    async fn open(
        context: &Context,
        args: &Args,
        injector: Dialer,
        holder: &Holder<'_>,
    ) -> anyhow::Result<Self> {
        if args.lease_in_env {
            return Ok(Self::handed(&injector, holder));
        }
        match Kin::of_this_process() {
            Ok(kin) => Ok(Self::Helper(
                Helper::open(injector, holder.leases(), kin, context.output).await?,
                kin,
            )),
            Err(error) => {
                context.output.warn(format!(
                    "the program is handed the lease in its environment, since a port could not be kept for it alone: {error:#}"
                ));
                Ok(Self::handed(&injector, holder))
            }
        }
    }

    fn handed(injector: &Dialer, holder: &Holder<'_>) -> Self {
        Self::Handed(
            injector.url().clone(),
            Arc::clone(&holder.leases().borrow()),
        )
    }

    /// What the program is told.
    fn of_program(&self) -> (ProxyUrl, Option<Arc<Lease>>) {
        match self {
            Self::Helper(helper, _) => (helper.address().into(), None),
            Self::Handed(injector, lease) => (injector.clone(), Some(Arc::clone(lease))),
        }
    }

    fn kin(&self) -> Option<Kin> {
        match self {
            Self::Helper(_, kin) => Some(*kin),
            Self::Handed(..) => None,
        }
    }

    /// What goes on beside the program. A lease that was handed over cannot be renewed.
    async fn serve(&self, holder: &Holder<'_>) -> Infallible {
        match self {
            Self::Helper(helper, _) => {
                tokio::select! {
                    never = helper.serve() => never,
                    never = holder.renew() => never,
                }
            }
            Self::Handed(..) => std::future::pending().await,
        }
    }
}

/// A program that may read the administrator's key needs no lease: whoever runs it should know.
fn warn_of_shared_user(context: &Context) {
    let Ok(data) = context.connection.data_dir() else {
        return;
    };
    let key = data.admin_key();
    if std::fs::File::open(&key).is_ok() {
        context.output.warn(format!(
            "the program runs as a user who can read {}, and could take any right with it; to keep them apart, let the \
             server run as a user of its own (examples/many-nodes/systemd) and give this one an agent's key by CLAVIGER_KEY_FILE",
            key.display()
        ));
    }
}

/// The one agent that holds a living grant on every set.
pub(super) async fn only_agent(client: &Client, sets: &[SetName]) -> anyhow::Result<String> {
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
    let mut placeholders = BTreeMap::new();
    // Also of providers that no set of this run is for: what the caller may do there is not the program's.
    let mut withheld: Vec<String> = builtin
        .iter()
        .flat_map(|template| keys_of(template))
        .collect();
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
            withheld.extend(stored.filter(|key| !template.identifiers().contains(key)));
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

/// The variables in which a provider's real keys may stand. An account's name opens nothing, and the agent writes it into paths
/// and bodies itself.
fn keys_of(template: &Template) -> impl Iterator<Item = String> {
    let opens = |key: &&String| !template.identifiers().contains(key);
    let variables = template.env().iter().filter(move |(_, key)| opens(key));
    let variables = variables.map(|(variable, _)| variable.clone());
    template
        .keys()
        .keys()
        .filter(opens)
        .cloned()
        .chain(variables)
}

/// For a template that gives no shape of its own.
fn placeholder(name: &str) -> String {
    format!("claviger-placeholder-{}", name.to_ascii_lowercase())
}

/// Where the injector listens: as was said, as the local server recorded, as `CLAVIGER_PROXY` says, as the server tells, else
/// beside the API.
pub(crate) async fn injector(
    client: &Client,
    connection: &Connection,
    named: Option<&ProxyUrl>,
) -> anyhow::Result<ProxyUrl> {
    if let Some(named) = named {
        return Ok(named.clone());
    }
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
    let api = reqwest::Url::parse(&url)?;
    let host = api.host_str().unwrap_or("127.0.0.1");
    let host = host.trim_matches(['[', ']']).to_owned();
    // A server of an earlier version does not tell, nor does one whose injectors run elsewhere.
    let told = client.get("/v1/injector").await.unwrap_or_default();
    if let Some(told) = beside(text(&told, "url"), &host) {
        return Ok(told);
    }
    Ok(HostPort { host, port: 8182 }.into())
}

/// What a server tells of its injector, as it is reached from here: its unspecified address is the API's host. Nothing where it
/// is loopback and the API is elsewhere.
fn beside(told: &str, api_host: &str) -> Option<ProxyUrl> {
    let is_any = told.contains("://0.0.0.0:") || told.contains("://[::]:");
    let mut told: ProxyUrl = told.parse().ok()?;
    if is_any {
        api_host.clone_into(&mut told.at.host);
    }
    let reachable = !is_loopback(&told.at.host) || is_loopback(api_host);
    reachable.then_some(told)
}

fn is_loopback(host: &str) -> bool {
    let address: Result<std::net::IpAddr, _> = host.parse();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// Refuses before the program starts: without an injector its requests would fail, each in its own way.
async fn check_injector(injector: &Dialer) -> anyhow::Result<()> {
    let dialled = tokio::time::timeout(INJECTOR_DEADLINE, injector.dial()).await;
    let why = match dialled {
        Ok(Ok(_)) => return Ok(()),
        Ok(Err(error)) => format!("{error:#}"),
        Err(_) => format!("the injector at {} does not answer", injector.url()),
    };
    Err(Failure::new(why)
        .code("injector_unreachable")
        .hint("name it with --proxy HOST:PORT or CLAVIGER_PROXY; the server's ready line has it, and `claviger doctor` looks for it")
        .into())
}

const INJECTOR_DEADLINE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_server_tells_of_its_injector_as_it_is_reached_from_here() {
        let told = |url: &str| beside(url, "api.internal").map(|url| url.to_string());
        let some = |url: &str| Some(url.to_owned());
        let local = beside("http://127.0.0.1:4", "localhost").map(|url| url.to_string());
        assert_eq!(local, some("http://127.0.0.1:4"));
        assert_eq!(told("http://127.0.0.1:4"), None);
        assert_eq!(told("http://10.0.0.0:4"), some("http://10.0.0.0:4"));
        assert_eq!(told("http://0.0.0.0:4"), some("http://api.internal:4"));
        assert_eq!(told("https://[::]:4"), some("https://api.internal:4"));
        assert_eq!(told(""), None);
    }

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
}
