//! `binding`: names by which agents send requests to one API each.

use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::Context;
use super::set::{read_file, read_stdin, without_line_end};
use crate::client::{Client, segment, text};
use crate::failure::Failure;

/// Bindings: names by which an agent sends to one API, by POST /v1/agents/ID/execute
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a binding; the credential comes from standard input, a file, or a secret
    #[command(after_help = "\
Examples:
  pass show billing | claviger binding create billing --agent bot --base-url https://api.example.org/v1
  claviger binding create billing --agent bot --base-url https://api.example.org --auth header --header X-Key --secret partner/key")]
    Create(Box<Create>),
    /// List an agent's bindings
    #[command(
        visible_alias = "ls",
        after_help = "Example:\n  claviger binding list --agent bot"
    )]
    List {
        /// The agent's name or id
        #[arg(long)]
        agent: String,
    },
    /// Show a binding
    #[command(after_help = "Example:\n  claviger binding show billing --agent bot")]
    Show {
        #[command(flatten)]
        place: Place,
    },
    /// Put another credential in a binding, from standard input or a file
    #[command(
        after_help = "Example:\n  claviger binding rotate billing --agent bot --file new.key"
    )]
    Rotate {
        #[command(flatten)]
        place: Place,
        /// A file that holds the credential [default: standard input]
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// Send a GET to a binding's URL, as its agent would
    #[command(after_help = "Example:\n  claviger binding test billing --agent bot")]
    Test {
        #[command(flatten)]
        place: Place,
    },
    /// Delete a binding with its credential and its grant
    #[command(after_help = "Example:\n  claviger binding delete billing --agent bot")]
    Delete {
        #[command(flatten)]
        place: Place,
    },
}

/// A binding.
#[derive(Debug, clap::Args)]
pub(crate) struct Place {
    /// The binding's name or id
    binding: String,
    /// The agent's name or id
    #[arg(long)]
    agent: String,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Create {
    #[command(flatten)]
    place: Place,
    /// Below what everything is sent: https://, a host, and perhaps a path
    #[arg(long, value_name = "URL")]
    base_url: String,
    /// How the credential travels
    #[arg(long, value_enum, default_value = "bearer")]
    auth: Auth,
    /// With --auth header: the field [default: X-API-Key]
    #[arg(long, value_name = "NAME")]
    header: Option<String>,
    #[arg(
        long,
        value_name = "NAME",
        help = "With --auth query: the parameter [default: api_key]"
    )]
    parameter: Option<String>,
    /// A path that may be called, `*` at its end for all that follows (repeatable) [default: all below the base URL]
    #[arg(long, value_name = "PATH")]
    path: Vec<String>,
    /// A method that may be used (repeatable) [default: all]
    #[arg(long)]
    method: Vec<String>,
    /// Requests a minute at most
    #[arg(long, value_name = "N")]
    rate: Option<u32>,
    /// Sends questions in GraphQL
    #[arg(long)]
    graphql: bool,
    /// Take the credential from this secret, each time as it is then
    #[arg(long, value_name = "PATH", conflicts_with = "file")]
    secret: Option<String>,
    /// The vault of that secret
    #[arg(long, default_value = "default", requires = "secret")]
    vault: String,
    /// A file that holds the credential, for basic as user:password [default: standard input]
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

/// How a credential travels.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Auth {
    Bearer,
    Basic,
    Header,
    Query,
}

impl Auth {
    fn as_str(self) -> &'static str {
        match self {
            Self::Bearer => "bearer",
            Self::Basic => "basic",
            Self::Header => "header",
            Self::Query => "query",
        }
    }
}

pub(crate) async fn run(context: &Context, command: Command) -> anyhow::Result<()> {
    let client = context.connection.client().await?;
    match command {
        Command::Create(create) => {
            let body = create.body()?;
            let path = bindings_of(&client, &create.place.agent).await?;
            let answer = client.post(&path, &body).await?;
            let sentence = format!("made binding {}", create.place.binding);
            context.output.done(&answer, sentence);
        }
        Command::List { agent } => {
            let path = bindings_of(&client, &agent).await?;
            let bindings = client.all(&path, "bindings").await?;
            context.output.list("bindings", &COLUMNS, &bindings);
        }
        Command::Show { place } => {
            let binding = client.get(&place.path(&client).await?).await?;
            context.output.fields(&binding);
        }
        Command::Rotate { place, file } => {
            let path = format!("{}/rotate-credential", place.path(&client).await?);
            let credential = credential(file.as_ref())?;
            let body = json!({ "credential": credential.as_str() });
            let answer = client.post(&path, &body).await?;
            let sentence = format!("the next request by {} has it", place.binding);
            context.output.done(&answer, sentence);
        }
        Command::Test { place } => {
            let path = format!("{}/test", place.path(&client).await?);
            let answer = client.post(&path, &json!({})).await?;
            if answer["success"] != true {
                let failure = Failure::new(text(&answer, "error"));
                return Err(failure
                    .code("binding_test")
                    .hint("`claviger audit list` shows what was sent")
                    .into());
            }
            let sentence = format!("{} answers in {} ms", place.binding, answer["latency_ms"]);
            context.output.done(&answer, sentence);
        }
        Command::Delete { place } => {
            client.delete(&place.path(&client).await?).await?;
            let sentence = format!("deleted binding {}", place.binding);
            let deleted = json!({ "deleted": place.binding });
            context.output.done(&deleted, sentence);
        }
    }
    Ok(())
}

const COLUMNS: [(&str, &str); 5] = [
    ("ID", "id"),
    ("NAME", "name"),
    ("TYPE", "binding_type"),
    ("ACTIVE", "is_active"),
    ("CREDENTIAL", "credential_source_type"),
];

/// Where the API has the bindings of an agent, who is named by name or id.
async fn bindings_of(client: &Client, agent: &str) -> anyhow::Result<String> {
    let agent = client.agent(agent).await?;
    Ok(format!(
        "/v1/agents/{}/bindings",
        segment(text(&agent, "id"))
    ))
}

impl Place {
    async fn path(&self, client: &Client) -> anyhow::Result<String> {
        let bindings = bindings_of(client, &self.agent).await?;
        Ok(format!("{bindings}/{}", segment(&self.binding)))
    }
}

impl Create {
    fn body(&self) -> anyhow::Result<Value> {
        let mut config = Map::new();
        config.insert("base_url".to_owned(), json!(self.base_url));
        config.insert("auth_type".to_owned(), json!(self.auth.as_str()));
        config.insert("allowed_paths".to_owned(), json!(self.path));
        for (field, given) in [
            ("header_name", &self.header),
            ("query_param", &self.parameter),
        ] {
            if let Some(name) = given {
                config.insert(field.to_owned(), json!(name));
            }
        }
        let mut body = json!({
            "name": self.place.binding,
            "binding_type": if self.graphql { "graphql" } else { "http" },
            "config": config,
            "guardrails": { "allowed_methods": self.method, "max_requests_per_minute": self.rate },
        });
        match &self.secret {
            Some(path) => {
                body["credential_source"] =
                    json!({ "type": "vault_ref", "vault_id": self.vault, "path": path });
            }
            None => body["credential"] = json!(credential(self.file.as_ref())?.as_str()),
        }
        Ok(body)
    }
}

fn credential(file: Option<&PathBuf>) -> anyhow::Result<Zeroizing<String>> {
    let read = match file {
        Some(path) => read_file(path)?,
        None => read_stdin()?,
    };
    let credential = Zeroizing::new(without_line_end(&read).to_owned());
    if credential.is_empty() {
        let failure = Failure::new("the credential is empty");
        return Err(failure
            .hint("pipe it in, name a file with --file, or a secret with --secret")
            .into());
    }
    Ok(credential)
}
