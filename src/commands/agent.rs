//! `agent`: who may be granted something.

use clap::Subcommand;
use serde_json::json;

use super::Context;
use crate::client::{Client, segment, text};

/// Agents: programs that may be granted the use of secret sets
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make an agent; its key is printed once
    #[command(after_help = "Example:\n  claviger agent create billing-bot > billing-bot.key")]
    Create {
        /// A name, unique in your organization
        name: String,
        /// What it is for
        #[arg(long)]
        description: Option<String>,
    },
    /// List the agents
    #[command(visible_alias = "ls", after_help = "Example:\n  claviger agent list")]
    List,
    /// Show an agent
    #[command(after_help = "Example:\n  claviger agent show billing-bot")]
    Show {
        /// The agent's name or id
        agent: String,
    },
    /// Give an agent a new key; the old one ends at once
    #[command(after_help = "Example:\n  claviger agent rotate-key billing-bot > billing-bot.key")]
    RotateKey {
        /// The agent's name or id
        agent: String,
    },
    /// End an agent: its key and its leases stop at once
    #[command(
        visible_alias = "delete",
        after_help = "Example:\n  claviger agent revoke billing-bot"
    )]
    Revoke {
        /// The agent's name or id
        agent: String,
    },
}

pub(crate) async fn run(context: &Context, command: Command) -> anyhow::Result<()> {
    let client = context.connection.client().await?;
    match command {
        Command::Create { name, description } => {
            let answer = client
                .post(
                    "/v1/agents",
                    &json!({ "name": name, "description": description }),
                )
                .await?;
            context.output.note(format!(
                "made agent {name} ({}); its key is shown this once:",
                text(&answer["agent"], "id")
            ));
            context.output.done(&answer, text(&answer, "api_key"));
        }
        Command::List => {
            let agents = client.all("/v1/agents", "agents").await?;
            let columns = [
                ("ID", "id"),
                ("NAME", "name"),
                ("ACTIVE", "is_active"),
                ("CREATED", "created_at"),
                ("LAST USED", "last_used_at"),
            ];
            context.output.list("agents", &columns, &agents);
        }
        Command::Show { agent } => context.output.fields(&client.agent(&agent).await?),
        Command::RotateKey { agent } => {
            let answer = client
                .post(
                    &format!("{}/rotate-key", path_of(&client, &agent).await?),
                    &json!({}),
                )
                .await?;
            context.output.note(format!(
                "the old key of {agent} has ended; the new one is shown this once:"
            ));
            context.output.done(&answer, text(&answer, "api_key"));
        }
        Command::Revoke { agent } => {
            client.delete(&path_of(&client, &agent).await?).await?;
            context.output.done(
                &json!({ "revoked": agent }),
                format!("revoked agent {agent}"),
            );
        }
    }
    Ok(())
}

async fn path_of(client: &Client, agent: &str) -> anyhow::Result<String> {
    Ok(format!(
        "/v1/agents/{}",
        segment(text(&client.agent(agent).await?, "id"))
    ))
}
