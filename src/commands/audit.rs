//! `audit`: what was done, by whom, under which lease; and that nobody changed the record since.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Subcommand, ValueEnum};
use eventsource_stream::{Event as Message, EventStreamError, Eventsource as _};
use futures::StreamExt as _;
use futures::stream::BoxStream;
use serde_json::{Value, json};
use store::audit::verify_offline;
use store::{BadRecord, OfflineOptions, VerifyReport};

use super::Context;
use super::serve::plant;
use crate::client::{Client, segment, text};
use crate::failure::Failure;
use crate::output::{Output, Tone, clean};
use crate::units::SetName;

/// Events shown before the first that comes.
const LINES_BEFORE: u32 = 10;
/// How often a feed that broke off is opened anew, a second apart.
const RETRIES: u32 = 60;

/// The audit trail: every use, refusal and change, in a chain that shows every later edit
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List events, newest first
    #[command(
        visible_alias = "ls",
        after_help = "Example:\n  claviger audit list --agent billing-bot --limit 20"
    )]
    List {
        #[command(flatten)]
        filter: Filter,
        /// How many
        #[arg(long, default_value = "50", value_parser = clap::value_parser!(u32).range(1..=200))]
        limit: u32,
        /// Go on where a list ended
        #[arg(long)]
        cursor: Option<String>,
    },
    /// Follow events as they come
    #[command(after_help = "Example:\n  claviger audit tail")]
    Tail {
        #[command(flatten)]
        filter: Filter,
    },
    /// Write all events as JSON lines, or for a spreadsheet
    #[command(
        after_help = "Example:\n  claviger audit export > events.ndjson\n  claviger audit export --format csv > events.csv"
    )]
    Export {
        #[command(flatten)]
        filter: Filter,
        /// How they are written
        #[arg(long, value_enum, default_value = "ndjson")]
        format: Format,
    },
    /// Check the chain; names the first bad record
    #[command(
        after_help = "Example:\n  claviger audit verify\n  claviger audit verify --checkpoints /mnt/worm/heads.jsonl --key 3b6a27bc..."
    )]
    Verify(VerifyArgs),
}

/// What the chain is held against.
#[derive(Debug, clap::Args)]
pub(crate) struct VerifyArgs {
    /// Signed heads that were published to a file, one a line: the database is read, and has to hold all of them
    #[arg(long, value_name = "FILE")]
    checkpoints: Option<PathBuf>,
    /// The public key that must have signed them, hex; without it a key in the database is trusted
    #[arg(long, value_name = "HEX", requires = "checkpoints", value_parser = public_key)]
    key: Option<PublicKey>,
}

/// 32 bytes.
type PublicKey = [u8; 32];

fn public_key(text: &str) -> Result<PublicKey, String> {
    let mut key = PublicKey::default();
    hex::decode_to_slice(text, &mut key).map_err(|_| {
        "is no public key: 64 hexadecimal digits, as `key` in each line has".to_owned()
    })?;
    Ok(key)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// A JSON object a line
    Ndjson,
    /// Comma-separated values with a line of names
    Csv,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Filter {
    /// Events of this agent, by name or id
    #[arg(long)]
    agent: Option<String>,
    /// Events of this set: provider/environment/name
    #[arg(long, value_name = "P/E/N")]
    set: Option<SetName>,
    /// Events of this lease
    #[arg(long)]
    lease: Option<String>,
    /// Events of this action, as lease.use
    #[arg(long)]
    action: Option<String>,
    /// Events since this date
    #[arg(long, value_name = "DATE")]
    from: Option<String>,
    /// Events until this date
    #[arg(long, value_name = "DATE")]
    to: Option<String>,
}

pub(crate) async fn run(context: &Context, command: Command) -> anyhow::Result<()> {
    if let Command::Verify(args) = &command {
        return verify(context, args).await;
    }
    let client = context.connection.client().await?;
    match command {
        Command::List {
            filter,
            limit,
            cursor,
        } => {
            let query = filter.query(&client).await?;
            let mut answer = client
                .get(&format!(
                    "/v1/audit/events?limit={limit}{query}{}",
                    after(cursor.as_deref())
                ))
                .await?;
            if context.output.is_json() {
                context.output.value(&answer);
                return Ok(());
            }
            let events = events_of(&mut answer);
            let columns = [
                ("TIME", "created_at"),
                ("ACTION", "action"),
                ("DECISION", "decision"),
                ("AGENT", "agent_id"),
                ("METHOD", "method"),
                ("HOST", "host"),
                ("PATH", "path"),
                ("STATUS", "status"),
                ("ERROR", "error"),
            ];
            context.output.list("events", &columns, &events);
            if let Some(next) = answer["next_cursor"].as_str() {
                context.output.note(format!("older ones: --cursor {next}"));
            }
            Ok(())
        }
        Command::Tail { filter } => tail(context, &client, &filter.query(&client).await?).await,
        Command::Export { filter, format } => {
            let mut query = filter.query(&client).await?;
            if format == Format::Csv {
                query.push_str("&format=csv");
            }
            export(context, &client, &query).await
        }
        // Answered above, for it needs no server.
        Command::Verify(_) => Ok(()),
    }
}

impl Filter {
    async fn query(&self, client: &Client) -> anyhow::Result<String> {
        let mut query = String::new();
        let mut add = |field: &str, value: &str| {
            query.push('&');
            query.push_str(field);
            query.push('=');
            query.push_str(&segment(value));
        };
        if let Some(agent) = &self.agent {
            add("agent_id", text(&client.agent(agent).await?, "id"));
        }
        if let Some(set) = &self.set {
            add("secret_set_id", text(&client.set(set).await?, "id"));
        }
        for (field, value) in [
            ("lease_id", &self.lease),
            ("action", &self.action),
            ("from", &self.from),
            ("to", &self.to),
        ] {
            if let Some(value) = value {
                add(field, value);
            }
        }
        Ok(query)
    }
}

async fn page(client: &Client, query: &str, limit: u32) -> anyhow::Result<Vec<Value>> {
    let mut answer = client
        .get(&format!("/v1/audit/events?limit={limit}{query}"))
        .await?;
    Ok(events_of(&mut answer))
}

fn events_of(answer: &mut Value) -> Vec<Value> {
    match answer.get_mut("events").map(Value::take) {
        Some(Value::Array(events)) => events,
        _ => Vec::new(),
    }
}

fn after(cursor: Option<&str>) -> String {
    cursor.map_or_else(String::new, |cursor| format!("&cursor={}", segment(cursor)))
}

/// Follows the server's feed, and goes on where it was when the feed breaks off.
async fn tail(context: &Context, client: &Client, query: &str) -> anyhow::Result<()> {
    let follow = async {
        let mut feed = feed(client, query, "").await?;
        // Those before the feed's beginning, for context. Events between the two come twice, and are shown once.
        let mut before = page(client, query, LINES_BEFORE).await?;
        before.reverse();
        let mut shown: Vec<String> = Vec::new();
        for event in &before {
            show(context.output, event);
            shown.push(text(event, "id").to_owned());
        }
        let mut place = String::new();
        loop {
            while let Some(message) = feed.next().await {
                let Ok(message) = message else { break };
                place = message.id;
                let event: Value = serde_json::from_str(&message.data)?;
                if !shown.iter().any(|id| id == text(&event, "id")) {
                    show(context.output, &event);
                }
            }
            feed = again(client, query, &place).await?;
        }
    };
    tokio::select! {
        ended = follow => ended,
        stopped = tokio::signal::ctrl_c() => Ok(stopped?),
    }
}

type Feed = BoxStream<'static, Result<Message, EventStreamError<reqwest::Error>>>;

async fn feed(client: &Client, query: &str, place: &str) -> anyhow::Result<Feed> {
    let cursor = if place.is_empty() {
        String::new()
    } else {
        format!("&cursor={place}")
    };
    let path = format!(
        "/v1/audit/tail?{}",
        format!("{query}{cursor}").trim_start_matches('&')
    );
    let answer = client.stream(path.trim_end_matches('?')).await?;
    Ok(answer.bytes_stream().eventsource().boxed())
}

/// Opens the feed anew once its server is back, for as long as a restart takes.
async fn again(client: &Client, query: &str, place: &str) -> anyhow::Result<Feed> {
    let mut tries = 0;
    loop {
        match feed(client, query, place).await {
            Err(error) if is_absent(&error) && tries < RETRIES => tries += 1,
            opened => return opened,
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

fn show(output: Output, event: &Value) {
    if output.is_json() {
        output.value(event);
    } else {
        output.say(sentence(output, event));
    }
}

/// An event as one line: when, what, whether, who, where.
pub(crate) fn sentence(output: Output, event: &Value) -> String {
    let field = |name: &str| clean(text(event, name));
    let time = field("created_at");
    let time = time.split_once('T').map_or(time.clone(), |(_, time)| {
        time.trim_end_matches('Z').chars().take(12).collect()
    });
    let decision = field("decision");
    let tone = if decision == "deny" {
        Tone::Bad
    } else {
        Tone::Good
    };
    let target = format!("{} {}{}", field("method"), field("host"), field("path"));
    let outcome = match (event.get("status").and_then(Value::as_u64), field("error")) {
        (_, error) if !error.is_empty() => error,
        (Some(status), _) => status.to_string(),
        (None, _) => String::new(),
    };
    let line = format!(
        "{}  {:<18} {}  {} {}",
        output.paint(Tone::Quiet, &format!("{time:<12}")),
        field("action"),
        output.paint(tone, &format!("{decision:<5}")),
        target.trim(),
        output.paint(Tone::Quiet, &outcome),
    );
    line.trim_end().to_owned()
}

async fn export(context: &Context, client: &Client, query: &str) -> anyhow::Result<()> {
    let path = format!("/v1/audit/export?{}", query.trim_start_matches('&'));
    let mut body = client
        .stream(path.trim_end_matches('?'))
        .await?
        .bytes_stream();
    while let Some(chunk) = body.next().await {
        context.output.raw(&chunk?);
    }
    Ok(())
}

async fn verify(context: &Context, args: &VerifyArgs) -> anyhow::Result<()> {
    let report = match &args.checkpoints {
        Some(file) => against(context, file, args.key).await?,
        None => asked(context).await?,
    };
    if let Some(finding) = finding(&report) {
        if context.output.is_json() {
            context.output.value(&report);
        }
        return Err(finding.into());
    }
    let streams: Vec<String> = report["streams"]
        .as_array()
        .into_iter()
        .flatten()
        .map(stream)
        .collect();
    context.output.done(
        &report,
        format!("the audit trail is whole: {}", streams.join(", ")),
    );
    Ok(())
}

/// What the server says, or, where none runs, the files.
async fn asked(context: &Context) -> anyhow::Result<Value> {
    let answer = async {
        // Without a record no server of this directory runs; what listens on the default port is another's.
        if context.connection.data.is_some() && context.connection.server()?.1.is_none() {
            return Err(Failure::new("no server of this data directory runs")
                .code("unreachable")
                .into());
        }
        context
            .connection
            .client()
            .await?
            .get("/v1/audit/verify")
            .await
    };
    match answer.await {
        Err(error) if is_absent(&error) => offline(context).await?.ok_or(error),
        answer => answer,
    }
}

/// What is not as it was written, and what to do about it.
fn finding(report: &Value) -> Option<Failure> {
    if let Some(bad) = report.get("first_bad").filter(|bad| !bad.is_null()) {
        let why = clean(text(bad, "why"));
        if text(bad, "reason") == "unanchored" {
            return Some(Failure::new(why).code("audit_unanchored").hint(
                "put audit.checkpoint back into the data directory, from a copy kept elsewhere; if there is none, compare with an earlier `claviger audit export`",
            ));
        }
        let place = format!(
            "stream {} record {}",
            clean(text(bad, "stream")),
            bad["seq"]
        );
        return Some(Failure::new(format!("the audit trail was changed: {place}: {why}"))
            .code("audit_tampered")
            .hint("keep the database and audit.checkpoint as they are, and compare with an earlier `claviger audit export`"));
    }
    if let Some(row) = report["put_back"].as_array().and_then(|rows| rows.first()) {
        let why = clean(text(row, "why"));
        return Some(
            Failure::new(format!(
                "a row was put back or written by somebody else: {why}"
            ))
            .code("audit_tampered")
            .hint("write it again as it is to be, and find out who wrote to the database"),
        );
    }
    let set = report["rolled_back"].as_array()?.first()?;
    Some(Failure::new(format!(
        "secret set {} was put back: its version is {}, and the audit trail tells of {}",
        clean(text(set, "secret_set_id")), set["stored"], set["recorded"]
    ))
    .code("audit_tampered")
    .hint("store the set's current values again with `claviger set put`, and find out who wrote to the database"))
}

/// Whether there was no server to ask, rather than one that refused.
fn is_absent(error: &anyhow::Error) -> bool {
    let code = error
        .downcast_ref::<Failure>()
        .and_then(Failure::error_code);
    matches!(code, Some("unreachable" | "no_key"))
}

/// The same from the files alone, where no server answers and the data directory is on this machine.
async fn offline(context: &Context) -> anyhow::Result<Option<Value>> {
    let (config, data) = plant::installation(context, None)?;
    let location = plant::location(&config, &data)?;
    if context.connection.url.is_some() || plant::existing(&location).is_err() {
        return Ok(None);
    }
    context.output.note(format!("no server answers; {location} is read as it stands, and the checkpoints' keys are taken from it"));
    let report = verify_offline(&location, &data.checkpoint(), &OfflineOptions::default()).await?;
    Ok(Some(told(&report)))
}

/// The database against heads that were published. It may be in use, or be a copy.
async fn against(context: &Context, file: &Path, key: Option<PublicKey>) -> anyhow::Result<Value> {
    let (config, data) = plant::installation(context, None)?;
    let location = plant::location(&config, &data)?;
    plant::existing(&location)?;
    if key.is_none() {
        context.output.warn(format!(
            "the keys in {location} are trusted, which whoever can write it may have put there; name the one you know with --key"
        ));
    }
    let options = OfflineOptions {
        trusted_key: key,
        published: Some(file.to_owned()),
    };
    let report = verify_offline(&location, &data.checkpoint(), &options).await?;
    Ok(told(&report))
}

/// A report as the server would give it.
fn told(report: &VerifyReport) -> Value {
    let bad = |bad: &BadRecord| json!({ "stream": bad.stream, "seq": bad.seq, "reason": bad.reason.as_str(), "why": bad.why });
    let streams: Vec<Value> = report
        .streams
        .iter()
        .map(|stream| json!({ "stream": stream.stream, "events": stream.events, "checkpoint_seq": stream.checkpoint_seq }))
        .collect();
    let rolled_back: Vec<Value> = report
        .rolled_back
        .iter()
        .map(|set| json!({ "secret_set_id": set.secret_set_id, "recorded": set.recorded, "stored": set.stored }))
        .collect();
    let put_back: Vec<Value> = report
        .put_back
        .iter()
        .map(|row| json!({ "kind": row.kind, "vault_id": row.vault_id, "name": row.name, "why": row.why }))
        .collect();
    json!({
        "intact": report.is_intact(), "first_bad": report.first_bad.as_ref().map(bad), "streams": streams,
        "checkpoint_key": report.checkpoint_key, "rolled_back": rolled_back, "put_back": put_back,
    })
}

fn stream(stream: &Value) -> String {
    let name = clean(text(stream, "stream"));
    let events = &stream["events"];
    // Another node's signed head lies on its own machine.
    let anchor = if stream["checkpoint_seq"].is_null() && *events != json!(0) {
        " (no signed head here)"
    } else {
        ""
    };
    format!("{name} {events} records{anchor}")
}
