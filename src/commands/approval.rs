//! `approval`: the requests of agents that wait for a person, and what is asked of people beside them.

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::Context;
use crate::client::{segment, text};

/// Approvals: requests of agents, and questions, that wait for a person
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the requests that wait, or those of another status
    #[command(
        visible_alias = "ls",
        after_help = "Example:\n  claviger approval list --status pending"
    )]
    List {
        /// Those of this status alone
        #[arg(long)]
        status: Option<Status>,
    },
    /// Show what is asked for
    #[command(after_help = "Example:\n  claviger approval show apr_01K3ABCDEFGHJKMNPQRSTVWXYZ")]
    Show {
        /// The approval's id, as the agent's refusal names it
        id: String,
    },
    /// Ask a person for approval of something that you do yourself; it lets no request pass
    #[command(
        after_help = "Example:\n  claviger approval ask deploy service web --summary 'put 2.1 live' --reason 'the tests pass'"
    )]
    Ask(Ask),
    /// Let a request be made, once
    #[command(after_help = "Example:\n  claviger approval approve apr_01K3ABCDEFGHJKMNPQRSTVWXYZ")]
    Approve(Decision),
    /// Reject a request
    #[command(
        visible_alias = "deny",
        after_help = "Example:\n  claviger approval reject apr_01K3ABCDEFGHJKMNPQRSTVWXYZ --reason 'too much'"
    )]
    Reject(Decision),
}

/// What is asked.
#[derive(Debug, Args)]
pub(crate) struct Ask {
    /// What you want to do
    action: String,
    /// The kind of thing that it is done to
    target_type: String,
    /// Which one
    target_id: String,
    /// The question in a sentence
    #[arg(long, value_name = "TEXT")]
    summary: String,
    /// Why
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

/// What is decided on, and why.
#[derive(Debug, Args)]
pub(crate) struct Decision {
    /// The approval's id, as the agent's refusal names it
    id: String,
    /// Why, for the audit trail and for the agent
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

/// How an approval stands.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Status {
    /// It waits for a decision
    Pending,
    /// It may be used once
    Approved,
    /// It may not
    Rejected,
    /// Its time passed
    Expired,
    /// It was used
    Consumed,
}

pub(crate) async fn run(context: &Context, command: Command) -> anyhow::Result<()> {
    let client = context.connection.client().await?;
    let output = &context.output;
    match command {
        Command::List { status } => {
            let filter = status
                .and_then(|status| status.to_possible_value())
                .map_or_else(String::new, |status| {
                    format!("?status={}", status.get_name())
                });
            let mut approvals = client
                .all(&format!("/v1/approvals{filter}"), "approvals")
                .await?;
            if !output.is_json() {
                approvals.iter_mut().for_each(add_columns);
            }
            let columns = [
                ("ID", "id"),
                ("STATUS", "status"),
                ("BY", "by"),
                ("ASKS FOR", "asks_for"),
                ("EXPIRES", "expires_at"),
            ];
            output.list("approvals", &columns, &approvals);
        }
        Command::Show { id } => {
            let path = format!("/v1/approvals/{}", segment(&id));
            let approval = client.get(&path).await?;
            output.fields(&if output.is_json() {
                approval
            } else {
                with_plain_head(approval)
            });
        }
        Command::Ask(ask) => {
            let body = json!({
                "action": ask.action, "target_type": ask.target_type, "target_id": ask.target_id,
                "summary": ask.summary, "reason": ask.reason,
            });
            let asked = client.post("/v1/approvals/request", &body).await?;
            output.note("a person decides; `claviger approval show` says how it stands:");
            output.done(&asked, text(&asked, "id"));
        }
        Command::Approve(decision) => {
            let decided = decide(&client, &decision, "approved").await?;
            let once = if is_request(&decided) { " once" } else { "" };
            let sentence = format!(
                "approved {}{once}, until {}",
                asks_for(&decided),
                text(&decided, "expires_at")
            );
            output.done(&decided, sentence);
        }
        Command::Reject(decision) => {
            let decided = decide(&client, &decision, "rejected").await?;
            output.done(&decided, format!("rejected {}", decision.id));
        }
    }
    Ok(())
}

/// Whether it lets a request pass, and is no question.
fn is_request(approval: &Value) -> bool {
    approval.get("method").is_some()
}

fn asks_for(approval: &Value) -> String {
    if is_request(approval) {
        let [method, host, path] = ["method", "host", "path"].map(|field| text(approval, field));
        let actions = approval["aws_actions"].as_array();
        let actions: Vec<_> = actions
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        if actions.is_empty() {
            return format!("{method} {host}{path}");
        }
        return format!("{method} {host}{path} ({})", actions.join(", "));
    }
    let [action, kind, target, summary] =
        ["action", "target_type", "target_id", "summary"].map(|field| text(approval, field));
    format!("{action} {kind} {target}: {summary}")
}

/// The same with the head as an object of names and values, a line each.
fn with_plain_head(mut approval: Value) -> Value {
    let Some(fields) = approval["head"].as_array() else {
        return approval;
    };
    let mut plain = serde_json::Map::new();
    for field in fields {
        let value = match field.get("value") {
            Some(value) => value.clone(),
            None => json!(format!("sha256 {}", text(field, "sha256"))),
        };
        let values = plain
            .entry(text(field, "name"))
            .or_insert_with(|| json!([]));
        if let Some(values) = values.as_array_mut() {
            values.push(value);
        }
    }
    approval["head"] = Value::Object(plain);
    approval
}

/// What people see of either kind in one table.
fn add_columns(approval: &mut Value) {
    let by = if is_request(approval) {
        "agent_id"
    } else {
        "requested_by"
    };
    approval["by"] = json!(text(approval, by));
    approval["asks_for"] = json!(asks_for(approval));
}

async fn decide(
    client: &crate::client::Client,
    decision: &Decision,
    word: &str,
) -> anyhow::Result<Value> {
    let mut body = json!({ "decision": word });
    if let Some(reason) = &decision.reason {
        body["reason"] = json!(reason);
    }
    let path = format!("/v1/approvals/{}/decide", segment(&decision.id));
    client.post(&path, &body).await
}
