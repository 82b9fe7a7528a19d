//! `webhook`: where the audit trail is told to.

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::Context;
use crate::client::{segment, text};
use crate::failure::Failure;
use crate::output::clean;

/// Webhooks: the audit trail, posted to a receiver event by event
///
/// Deliveries are signed as Standard Webhooks says, and come at least once and in order: a repeat has the same `webhook-id`.
/// A receiver that fails is tried again for three days.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Have events posted to a URL; prints the signing secret, once
    #[command(
        after_help = "Example:\n  claviger webhook create https://hooks.example.org/claviger --event 'lease.*' > webhook.secret"
    )]
    Create(CreateArgs),
    /// List webhooks
    #[command(visible_alias = "ls", after_help = "Example:\n  claviger webhook list")]
    List,
    /// Show a webhook and how far it was told
    #[command(after_help = "Example:\n  claviger webhook show whk_01K3ABCDEFGHJKMNPQRSTVWXYZ")]
    Show {
        /// The webhook's id
        id: String,
    },
    /// Change where and what a webhook is told, or let it go on after it failed for too long
    #[command(after_help = "\
Examples:
  claviger webhook update whk_01K3ABCDEFGHJKMNPQRSTVWXYZ --event 'lease.*' --event 'grant.*'
  claviger webhook update whk_01K3ABCDEFGHJKMNPQRSTVWXYZ --active true")]
    Update(UpdateArgs),
    /// Delete a webhook with its secret
    #[command(
        visible_alias = "rm",
        after_help = "Example:\n  claviger webhook delete whk_01K3ABCDEFGHJKMNPQRSTVWXYZ"
    )]
    Delete {
        /// The webhook's id
        id: String,
    },
    /// Make another signing secret and print it; for a day both sign
    #[command(
        after_help = "Example:\n  claviger webhook rotate-secret whk_01K3ABCDEFGHJKMNPQRSTVWXYZ > webhook.secret"
    )]
    RotateSecret {
        /// The webhook's id
        id: String,
    },
    /// Post an event that is none, and say what the receiver makes of it
    #[command(after_help = "Example:\n  claviger webhook test whk_01K3ABCDEFGHJKMNPQRSTVWXYZ")]
    Test {
        /// The webhook's id
        id: String,
    },
    /// List the last deliveries, newest first
    #[command(
        after_help = "Example:\n  claviger webhook deliveries whk_01K3ABCDEFGHJKMNPQRSTVWXYZ"
    )]
    Deliveries {
        /// The webhook's id
        id: String,
    },
}

/// A webhook to be made.
#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// Where events are posted to: https://
    #[arg(value_name = "URL")]
    receiver: String,
    /// Events of this action, as lease.use, or of all that begin alike, as lease.*; repeatable, all if left out
    #[arg(long = "event", value_name = "ACTION", default_value = "*")]
    events: Vec<String>,
    /// What it is for
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
}

/// What to change of a webhook.
#[derive(Debug, Args)]
#[group(id = "change", required = true, multiple = true, args = ["receiver", "events", "description", "active"])]
pub(crate) struct UpdateArgs {
    /// The webhook's id
    id: String,
    /// Where events are posted to from now on
    #[arg(long = "receiver", value_name = "URL")]
    receiver: Option<String>,
    /// What it is told from now on, in the place of all that it was told; repeatable
    #[arg(long = "event", value_name = "ACTION")]
    events: Vec<String>,
    /// What it is for
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// false stops it where it is; true goes on from there
    #[arg(long, value_name = "true|false")]
    active: Option<bool>,
}

impl UpdateArgs {
    /// As the API takes it: what is not named stays.
    fn body(&self) -> Value {
        let mut body = Map::new();
        let mut put = |field: &str, value: Value| body.insert(field.to_owned(), value);
        if let Some(receiver) = &self.receiver {
            put("url", json!(receiver));
        }
        if !self.events.is_empty() {
            put("events", json!(self.events));
        }
        if let Some(description) = &self.description {
            put("description", json!(description));
        }
        if let Some(active) = self.active {
            put("is_active", json!(active));
        }
        Value::Object(body)
    }
}

pub(crate) async fn run(context: &Context, command: Command) -> anyhow::Result<()> {
    let client = context.connection.client().await?;
    let output = &context.output;
    match command {
        Command::Create(args) => {
            let mut body = json!({ "url": args.receiver, "events": args.events });
            if let Some(description) = &args.description {
                body["description"] = json!(description);
            }
            let made = client.post("/v1/webhooks", &body).await?;
            let id = clean(text(&made["webhook"], "id"));
            output.note(format!(
                "made webhook {id}; its signing secret is shown this once:"
            ));
            output.done(&made, text(&made, "secret"));
        }
        Command::List => {
            let webhooks = client.all("/v1/webhooks", "webhooks").await?;
            let columns = [
                ("ID", "id"),
                ("URL", "url"),
                ("ACTIVE", "is_active"),
                ("DELIVERED", "delivered"),
                ("FAILED", "failed_attempts"),
                ("LAST ERROR", "last_error"),
            ];
            output.list("webhooks", &columns, &webhooks);
        }
        Command::Show { id } => output.fields(&client.get(&path(&id, "")).await?),
        Command::Update(change) => {
            let changed = client.patch(&path(&change.id, ""), &change.body()).await?;
            output.done(&changed, format!("changed webhook {}", clean(&change.id)));
        }
        Command::Delete { id } => {
            client.delete(&path(&id, "")).await?;
            output.done(&json!({ "deleted": id }), format!("deleted {id}"));
        }
        Command::RotateSecret { id } => {
            let made = client
                .post(&path(&id, "/rotate-secret"), &json!({}))
                .await?;
            output.note(
                "for a day deliveries are signed with the old secret too; the new one is shown this once:",
            );
            output.done(&made, text(&made, "secret"));
        }
        Command::Test { id } => {
            let tested = client.post(&path(&id, "/test"), &json!({})).await?;
            let took = &tested["duration_ms"];
            if tested["delivered"] != Value::Bool(true) {
                let why = clean(text(&tested, "error"));
                return Err(Failure::new(format!("the receiver did not take the test: {why}"))
                    .code("webhook_failed")
                    .hint("see that it answers 2xx within 10 s; `claviger webhook deliveries` lists what was tried")
                    .into());
            }
            let sentence = format!("the receiver answered {} after {took} ms", tested["status"]);
            output.done(&tested, sentence);
        }
        Command::Deliveries { id } => {
            let deliveries = client.all(&path(&id, "/deliveries"), "deliveries").await?;
            let columns = [
                ("NUMBER", "number"),
                ("TIME", "attempted_at"),
                ("ACTION", "action"),
                ("DELIVERED", "delivered"),
                ("ATTEMPTS", "attempts"),
                ("STATUS", "status"),
                ("ERROR", "error"),
            ];
            output.list("deliveries", &columns, &deliveries);
        }
    }
    Ok(())
}

fn path(id: &str, rest: &str) -> String {
    format!("/v1/webhooks/{}{rest}", segment(id))
}
