//! `usage`, and `quota` for operators: what an organization has and asked for, and how much of it there may be.

use std::str::FromStr;

use clap::Subcommand;
use leases::id::OrgId;
use serde_json::{Value, json};
use store::{Actor, Allowance, Allowances, Store};

use super::Context;
use super::serve::plant;
use crate::failure::Failure;

/// Show what your organization has and asked for this month, and how much of it there may be
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  claviger usage")]
pub(crate) struct UsageArgs {}

/// Quotas: what one organization may have, for the operator of the installation
///
/// They work on the database itself, with the rights of its owner: nobody inside of an organization can change them. A database file
/// is one process's, so stop the server first; on Postgres it may run. What holds for all is in the configuration, `[quotas]`.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show what an organization may have, where it differs from the configuration
    #[command(after_help = "Example:\n  claviger quota show org_01K3ABCDEFGHJKMNPQRSTVWXYZ")]
    Show {
        /// The organization's id, as `claviger whoami` shows it [default: the first]
        org: Option<OrgId>,
        #[command(flatten)]
        database: Database,
    },
    /// Say what an organization may have; what is left out stays as it is
    #[command(after_help = "\
Examples:
  claviger quota set --agents 10 --secrets 500
  claviger quota set org_01K3ABCDEFGHJKMNPQRSTVWXYZ --requests-per-month unlimited
  claviger quota set org_01K3ABCDEFGHJKMNPQRSTVWXYZ --vaults default")]
    Set {
        /// The organization's id, as `claviger whoami` shows it [default: the first]
        org: Option<OrgId>,
        /// A number, `unlimited`, or `default` for what the configuration says
        #[arg(long, value_name = "N")]
        vaults: Option<Said>,
        /// The same for secrets, entries of secret sets among them
        #[arg(long, value_name = "N")]
        secrets: Option<Said>,
        /// The same for agents
        #[arg(long, value_name = "N")]
        agents: Option<Said>,
        /// The same for requests from the first of a month on
        #[arg(long, value_name = "N")]
        requests_per_month: Option<Said>,
        #[command(flatten)]
        database: Database,
    },
}

/// Which database.
#[derive(Debug, clap::Args)]
#[expect(clippy::doc_markdown, reason = "the comments are help texts")]
pub(crate) struct Database {
    // A URL may carry a password, and clap repeats what it refuses.
    /// The database: sqlite:PATH or postgres://USER@HOST/NAME [default: DIR/claviger.db] [env: CLAVIGER_DATABASE]
    #[arg(long, value_name = "URL")]
    database: Option<String>,
}

/// An allowance as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Said(Allowance);

impl FromStr for Said {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "default" => Ok(Self(Allowance::Default)),
            "unlimited" => Ok(Self(Allowance::Unlimited)),
            _ => text
                .parse::<u32>()
                .map(|most| Self(Allowance::AtMost(most.into())))
                .map_err(|_| {
                    format!(
                        "`{text}` is no number from 0 to {}, nor `unlimited` or `default`",
                        u32::MAX
                    )
                }),
        }
    }
}

pub(crate) async fn show(context: &Context, _: &UsageArgs) -> anyhow::Result<()> {
    let client = context.connection.client().await?;
    let usage = client.get("/v1/usage").await?;
    if context.output.is_json() {
        context.output.value(&usage);
        return Ok(());
    }
    let row = |what: &str, field: &str| json!({ "what": what, "used": usage[field]["used"], "limit": usage[field]["limit"], "percent": usage[field]["percent"] });
    let rows = [
        row("requests this month", "requests"),
        row("vaults", "vaults"),
        row("secrets", "secrets"),
        row("agents", "agents"),
    ];
    let columns = [
        ("OF", "what"),
        ("USED", "used"),
        ("AT MOST", "limit"),
        ("PERCENT", "percent"),
    ];
    context.output.list("usage", &columns, &rows);
    Ok(())
}

pub(crate) async fn quota(context: &Context, command: Command) -> anyhow::Result<()> {
    match command {
        Command::Show { org, database } => {
            let store = plant::open_for_operator(context, database.database.as_deref()).await?;
            let shown = shown(&store, org).await;
            store.close().await;
            context.output.fields(&shown?);
        }
        Command::Set {
            org,
            vaults,
            secrets,
            agents,
            requests_per_month,
            database,
        } => {
            let said = [vaults, secrets, agents, requests_per_month];
            if said.iter().all(Option::is_none) {
                return Err(Failure::new("nothing to set: no quota is given")
                    .usage()
                    .hint("claviger quota set --agents 10")
                    .into());
            }
            let store = plant::open_for_operator(context, database.database.as_deref()).await?;
            let shown = set(&store, org, said).await;
            store.close().await;
            let shown = shown?;
            let sentence = format!(
                "set; it holds at once, and for requests within ten seconds: {}",
                summary(&shown)
            );
            context.output.done(&shown, sentence);
        }
    }
    Ok(())
}

async fn set(store: &Store, org: Option<OrgId>, said: [Option<Said>; 4]) -> anyhow::Result<Value> {
    let org = find(store, org).await?;
    let was = store.quotas().allowances(&org).await?;
    let [vaults, secrets, agents, requests] =
        said.map(|said| said.map(|Said(allowance)| allowance));
    let allowances = Allowances {
        vaults: vaults.unwrap_or(was.vaults),
        secrets: secrets.unwrap_or(was.secrets),
        agents: agents.unwrap_or(was.agents),
        requests_per_month: requests.unwrap_or(was.requests_per_month),
    };
    let operator = Actor::system("operator");
    let quotas = store.quotas();
    if !quotas.allow(&org, allowances, &operator).await? {
        return Err(unknown(&org).into());
    }
    shown(store, Some(org)).await
}

async fn shown(store: &Store, org: Option<OrgId>) -> anyhow::Result<Value> {
    let org = find(store, org).await?;
    let said = store.quotas().allowances(&org).await?;
    Ok(json!({
        "org_id": org,
        "vaults": word(said.vaults),
        "secrets": word(said.secrets),
        "agents": word(said.agents),
        "requests_per_month": word(said.requests_per_month),
    }))
}

async fn find(store: &Store, org: Option<OrgId>) -> anyhow::Result<OrgId> {
    let orgs = store.orgs();
    let found = match &org {
        Some(org) => orgs.get(org).await?,
        None => orgs.first().await?,
    };
    match (found, org) {
        (Some(found), _) => Ok(found.id),
        (None, Some(org)) => Err(unknown(&org).into()),
        (None, None) => Err(Failure::new("the database has no organization")
            .hint("`claviger serve` makes the first one")
            .into()),
    }
}

fn unknown(org: &OrgId) -> Failure {
    Failure::new(format!("there is no organization {org}"))
        .code("not_found")
        .hint("`claviger whoami` shows the id of one's own")
}

fn word(allowance: Allowance) -> Value {
    match allowance {
        Allowance::Default => json!("default"),
        Allowance::Unlimited => json!("unlimited"),
        Allowance::AtMost(most) => json!(most),
    }
}

fn summary(shown: &Value) -> String {
    ["vaults", "secrets", "agents", "requests_per_month"]
        .map(|field| {
            let value = shown[field].as_str().map(str::to_owned);
            format!(
                "{field} {}",
                value.unwrap_or_else(|| shown[field].to_string())
            )
        })
        .join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_allowance_is_a_number_or_a_word() {
        for (text, allowance) in [
            ("default", Allowance::Default),
            ("unlimited", Allowance::Unlimited),
            ("0", Allowance::AtMost(0)),
            ("25000", Allowance::AtMost(25_000)),
        ] {
            assert_eq!(text.parse(), Ok(Said(allowance)));
        }
        for bad in ["", "-1", "many", "1.5", "99999999999"] {
            assert!(bad.parse::<Said>().is_err(), "{bad}");
        }
    }
}
