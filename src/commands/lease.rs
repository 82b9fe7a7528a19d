//! `lease`: minting asks the server; narrowing and reading a token are offline.

use std::io::Read as _;

use clap::{Subcommand, ValueEnum};
use leases::clock::{Clock as _, SystemClock};
use leases::token::PresentedToken;
use leases::{Narrowing, attenuate, inspect};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::Context;
use super::grant::Action;
use crate::client::{Caller, Client, segment, text};
use crate::failure::Failure;
use crate::units::{self, SetName};

/// Leases: short-lived tokens that let requests through the injector
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Mint a lease; the token goes to stdout
    #[command(after_help = "\
Examples:
  LEASE=$(claviger lease mint --agent bot --set stripe/prod/billing)
  claviger lease mint --agent bot --set openai/dev/me --set github/dev/me --kind workflow --ttl 1h")]
    Mint(Mint),
    /// Narrow a lease, offline: reads a token on stdin, writes the narrower one to stdout
    #[command(after_help = "\
Example:
  echo \"$LEASE\" | claviger lease narrow --method GET --path '/v1/charges/**' --ttl 5m")]
    Narrow(Narrow),
    /// Show what a lease allows: an id asks the server, a token on stdin is read offline and not verified
    #[command(after_help = "\
Examples:
  echo \"$LEASE\" | claviger lease inspect
  claviger lease inspect lse_01K3ZJ7Q8V5N2M4P6R8T0W2Y4A")]
    Inspect {
        /// A lease's id; none reads a token on stdin
        lease: Option<String>,
    },
    /// List the leases
    #[command(visible_alias = "ls", after_help = "Example:\n  claviger lease list")]
    List,
    /// End a lease at once, by its id; or, by a token on stdin, that token and all narrowed from it
    #[command(after_help = "\
Examples:
  claviger lease revoke lse_01K3ZJ7Q8V5N2M4P6R8T0W2Y4A
  echo \"$NARROWED\" | claviger lease revoke")]
    Revoke {
        /// A lease's id; none reads a token on stdin
        lease: Option<String>,
    },
}

/// How often a lease can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// Once
    Request,
    /// As often as its grant allows until it expires
    Workflow,
}

impl Kind {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Workflow => "workflow",
        }
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct Mint {
    /// A set: provider/environment/name; repeatable, the request's host decides
    #[arg(long, required = true, value_name = "P/E/N")]
    pub(crate) set: Vec<SetName>,
    /// The agent, by name or id; an agent's own key needs none
    #[arg(long)]
    pub(crate) agent: Option<String>,
    /// Once, or many times
    #[arg(long, value_enum, default_value = "request")]
    pub(crate) kind: Kind,
    /// What it is for
    #[arg(long, value_enum, default_value = "proxy_use")]
    pub(crate) action: Action,
    /// Keys of the set [default: all that the grant allows]
    #[arg(long, value_delimiter = ',', value_name = "KEY,…")]
    pub(crate) keys: Vec<String>,
    /// Mint from this grant alone, where the agent holds several on a set; repeatable
    #[arg(long, value_name = "ID")]
    pub(crate) grant: Vec<String>,
    /// How long it lives: at most 15m, a workflow lease 24h
    #[arg(long, value_parser = units::ttl_seconds, default_value = "60s")]
    pub(crate) ttl: u64,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = true)]
pub(crate) struct Narrow {
    /// Hosts that stay allowed
    #[arg(long, value_delimiter = ',')]
    host: Vec<leases::host::HostPattern>,
    /// Methods that stay allowed
    #[arg(long, value_delimiter = ',')]
    method: Vec<String>,
    /// Paths that stay allowed: * within a segment, ** any number of segments
    #[arg(long, value_name = "GLOB")]
    path: Vec<leases::glob::PathGlob>,
    /// Networks it may be used from
    #[arg(long, value_delimiter = ',')]
    cidr: Vec<ipnet::IpNet>,
    /// How long it still lives
    #[arg(long, value_parser = units::ttl_seconds)]
    ttl: Option<u64>,
}

pub(crate) async fn run(context: &Context, command: Command) -> anyhow::Result<()> {
    match command {
        Command::Mint(mint) => {
            let client = context.connection.client().await?;
            let answer = request(&client, &mint).await?;
            context.output.note(format!(
                "minted {} ({}), until {}",
                text(&answer, "lease_id"),
                mint.kind.as_str(),
                text(&answer, "expires_at")
            ));
            context.output.done(&answer, text(&answer, "token"));
        }
        Command::Narrow(narrow) => narrowed(context, narrow)?,
        Command::Inspect { lease: Some(lease) } => {
            let client = context.connection.client().await?;
            context.output.fields(&client.get(&path_of(&lease)).await?);
        }
        Command::Inspect { lease: None } => inspected(context)?,
        Command::List => {
            let client = context.connection.client().await?;
            let leases = client.all("/v1/vault/leases", "leases").await?;
            let columns = [
                ("ID", "lease_id"),
                ("KIND", "kind"),
                ("ACTION", "action"),
                ("AGENT", "agent_id"),
                ("USES", "uses"),
                ("EXPIRES", "expires_at"),
                ("REVOKED", "revoked_at"),
            ];
            context.output.list("leases", &columns, &leases);
        }
        Command::Revoke { lease: Some(lease) } => {
            let client = context.connection.client().await?;
            client.delete(&path_of(&lease)).await?;
            context
                .output
                .done(&json!({ "revoked": lease }), format!("revoked {lease}"));
        }
        Command::Revoke { lease: None } => {
            let client = context.connection.client().await?;
            let token = token_on_stdin()?;
            client
                .post(
                    "/v1/vault/leases/revoke",
                    &json!({ "token": token.as_str() }),
                )
                .await?;
            context.output.done(
                &json!({ "revoked": true }),
                "revoked this token and all narrowed from it",
            );
        }
    }
    Ok(())
}

/// Asks the server for a lease.
///
/// # Errors
/// A [`Failure`] whose hint is the grant that is missing, where one is.
pub(crate) async fn request(client: &Client, mint: &Mint) -> anyhow::Result<Value> {
    let mut body = json!({ "kind": mint.kind.as_str(), "action": mint.action.as_str(), "ttl_seconds": mint.ttl });
    match (&mint.agent, client.caller()) {
        (Some(agent), Caller::Person) => {
            body["agent_id"] = json!(text(&client.agent(agent).await?, "id"));
        }
        (None, Caller::Person) => {
            return Err(
                Failure::new("a person mints for an agent, and none is named")
                    .hint("name it: --agent NAME; `claviger agent list` shows them")
                    .into(),
            );
        }
        // The key says whose lease it is.
        (_, Caller::Agent) => {}
    }
    match mint.set.as_slice() {
        [set] => body["secret_set"] = json!(set.to_string()),
        sets => {
            body["secret_set"] = json!(sets.iter().map(ToString::to_string).collect::<Vec<_>>());
        }
    }
    if !mint.keys.is_empty() {
        body["keys"] = json!(mint.keys);
    }
    if !mint.grant.is_empty() {
        body["grant_ids"] = json!(mint.grant);
    }
    client
        .post("/v1/vault/leases", &body)
        .await
        .map_err(|error| missing_grant(error, mint))
}

/// A refused mint lacks a grant, and the command that makes it is known here.
fn missing_grant(error: anyhow::Error, mint: &Mint) -> anyhow::Error {
    let Some(failure) = error.downcast_ref::<Failure>() else {
        return error;
    };
    if !failure
        .error_code()
        .is_some_and(|code| code.contains("grant"))
    {
        return error;
    }
    let agent = mint.agent.as_deref().unwrap_or("AGENT");
    let actions = match (mint.kind, mint.action) {
        (Kind::Workflow, Action::ProxyUse) => "proxy_use,mint_workflow_lease",
        (Kind::Workflow, Action::ExportPlaintext) => "export_plaintext,mint_workflow_lease",
        (_, action) => action.as_str(),
    };
    let commands: Vec<String> = mint
        .set
        .iter()
        .map(|set| format!("claviger grant create --agent {agent} --set {set} --actions {actions}"))
        .collect();
    let code = failure.error_code().unwrap_or_default().to_owned();
    Failure::new(failure.reason().to_owned())
        .code(code)
        .hint(format!("a person grants it: {}", commands.join("; ")))
        .into()
}

fn narrowed(context: &Context, narrow: Narrow) -> anyhow::Result<()> {
    let now = SystemClock.now();
    let narrowing = Narrowing {
        hosts: narrow.host,
        methods: narrow
            .method
            .iter()
            .map(|method| method.to_ascii_uppercase())
            .collect(),
        paths: narrow.path,
        cidrs: narrow.cidr,
        expires_at: narrow
            .ttl
            .map(|seconds| now + std::time::Duration::from_secs(seconds)),
    };
    let token = attenuate(&presented()?, &narrowing, now).map_err(|error| {
        Failure::new(format!("the lease cannot be narrowed: {error}"))
            .code("lease_invalid")
            .hint("`claviger lease inspect` shows what it allows")
    })?;
    context
        .output
        .done(&json!({ "token": token.as_str() }), token.as_str());
    Ok(())
}

fn inspected(context: &Context) -> anyhow::Result<()> {
    let inspection = inspect(&presented()?).map_err(|error| {
        Failure::new(format!("the lease cannot be read: {error}"))
            .code("lease_invalid")
            .hint("give the whole token, as `clv_…`, on standard input")
    })?;
    context
        .output
        .note("read offline; the signature is checked where the lease is used");
    let mut shown = serde_json::to_value(&inspection)?;
    if context.output.is_json() {
        // By the names that the server has for them, beside the token's own.
        let sets = inspection.bindings.iter();
        let sets =
            sets.map(|it| json!({ "secret_set_id": it.secret_set_id, "grant_id": it.grant_id }));
        shown["secret_sets"] = sets.collect();
        shown["lease_id"] = json!(inspection.lease);
        shown["agent_id"] = json!(inspection.agent);
    }
    context.output.fields(&shown);
    Ok(())
}

fn path_of(lease: &str) -> String {
    format!("/v1/vault/leases/{}", segment(lease))
}

fn presented() -> anyhow::Result<PresentedToken> {
    let token = token_on_stdin()?;
    let parsed = PresentedToken::parse(token.as_str());
    parsed.map_err(|error| {
        Failure::new(format!("standard input holds no lease: {error}"))
            .code("lease_invalid")
            .hint("pipe a token in, as `clv_…`")
            .into()
    })
}

fn token_on_stdin() -> Result<Zeroizing<String>, Failure> {
    let mut token = Zeroizing::new(String::new());
    // A token is at most 4 KiB of binary; anything longer is a mistake, not something to hold.
    let read = std::io::stdin().take(16 * 1024).read_to_string(&mut token);
    read.map_err(|error| {
        Failure::new(format!("cannot read standard input: {error}"))
            .hint("pipe a token in: echo \"$LEASE\" | claviger lease …")
    })?;
    if token.trim().is_empty() {
        return Err(Failure::new("standard input holds no lease")
            .hint("pipe a token in: echo \"$LEASE\" | claviger lease …"));
    }
    Ok(Zeroizing::new(token.trim().to_owned()))
}
