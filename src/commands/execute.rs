//! `execute`: a request by one of an agent's own bindings.

use std::io::Read as _;
use std::time::Duration;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::Context;
use crate::client::{Caller, Client, segment, text};
use crate::failure::Failure;
use crate::output::{Tone, clean};

/// Send a request by one of your bindings, with an agent's key; prints the provider's answer
///
/// The server puts the credential in, on its way to the provider, and takes it out of the answer. The answer's status goes to
/// stderr; any answer of the provider is exit code 0, and a request that was refused or failed is 1.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  CLAVIGER_KEY_FILE=bot.key claviger execute billing /invoices
  claviger execute billing POST /invoices --header 'Content-Type: application/json' --body '{\"amount\":3}'
  claviger execute billing PUT /logo --body @logo.png
  claviger execute graph --query 'query Q($n: Int) { a(n: $n) }' --variables '{\"n\":1}' --json")]
pub(crate) struct Args {
    /// The binding's name or id
    binding: String,
    /// The method, GET if left out, and the path below the binding's URL, or a whole URL
    #[arg(num_args = 0..=2, value_names = ["METHOD", "PATH"])]
    request: Vec<String>,
    /// A header field, as 'Name: value' (repeatable)
    #[arg(long, short = 'H', value_name = "FIELD", value_parser = field)]
    header: Vec<(String, String)>,
    /// The body: a text, @FILE, or - for standard input
    #[arg(long, value_name = "TEXT")]
    body: Option<String>,
    /// The question, of a graphql binding
    #[arg(long, value_name = "GRAPHQL", conflicts_with_all = ["request", "body"])]
    query: Option<String>,
    /// The question's variables, a JSON object
    #[arg(long, value_name = "JSON", requires = "query", value_parser = object)]
    variables: Option<Value>,
    /// Which of the question's operations
    #[arg(long, value_name = "NAME", requires = "query")]
    operation: Option<String>,
}

pub(crate) async fn run(context: &Context, args: &Args) -> anyhow::Result<()> {
    let client = context.connection.client().await?;
    let agent = own_id(&client).await?;
    let body = json!({ "binding": args.binding, "params": args.params()? });
    let path = format!("/v1/agents/{}/execute", segment(&agent));
    let answer = client.post_once(&path, &body, PATIENCE).await?;
    if context.output.is_json() {
        context.output.value(&answer);
    }
    if text(&answer, "status") != "completed" {
        return Err(unfinished(&answer).into());
    }
    if !context.output.is_json() {
        show(context, &answer)?;
    }
    Ok(())
}

/// Longer than a provider's whole answer may take.
const PATIENCE: Duration = Duration::from_secs(70);

async fn own_id(client: &Client) -> anyhow::Result<String> {
    if client.caller() != Caller::Agent {
        let failure =
            Failure::new("requests by a binding are its agent's, and this is a person's key");
        return Err(failure
            .code("forbidden")
            .hint("name the agent's key with CLAVIGER_KEY_FILE; a person tries a binding with `claviger binding test`")
            .into());
    }
    let agent = client.get("/v1/agents/me").await?;
    Ok(text(&agent, "id").to_owned())
}

/// What is said of a request that did not reach its end.
fn unfinished(answer: &Value) -> Failure {
    let reason = match text(answer, "error") {
        "" => "the request was not completed",
        error => error,
    };
    Failure::new(clean(reason))
        .code(text(answer, "error_code"))
        .hint(format!(
            "`claviger audit list --lease {}` shows what was sent; a person reads it",
            text(answer, "execution_id")
        ))
}

fn show(context: &Context, answer: &Value) -> anyhow::Result<()> {
    let output = context.output;
    let result = &answer["result"];
    let status = format!("{} in {} ms", result["status"], answer["duration_ms"]);
    output.note(output.paint(Tone::Quiet, &status));
    if let Some(masked @ 1..) = answer["redactions_applied"].as_u64() {
        output.note(format!(
            "the credential stood in the answer and was masked, {masked} times in all"
        ));
    }
    let body = text(result, "body");
    if text(result, "body_encoding") == "base64" {
        let body = STANDARD
            .decode(body)
            .context("the server's answer is no base64")?;
        output.raw(&body);
    } else {
        output.raw(body.as_bytes());
    }
    Ok(())
}

impl Args {
    fn params(&self) -> anyhow::Result<Value> {
        let mut params = Map::new();
        let mut put = |name: &str, value: Value| params.insert(name.to_owned(), value);
        let (method, place) = match self.request.as_slice() {
            [method, place] => (Some(method.to_ascii_uppercase()), Some(place)),
            [place] => (None, Some(place)),
            _ => (None, None),
        };
        if let Some(method) = method {
            put("method", json!(method));
        }
        if let Some(place) = place {
            let is_whole = place.contains("://");
            put(if is_whole { "url" } else { "path" }, json!(place));
        }
        if !self.header.is_empty() {
            put("headers", headers(&self.header));
        }
        if let Some(body) = &self.body {
            let body = read_body(body)?;
            // Whatever is no text has no other way through JSON; a text is sent as it stands.
            match String::from_utf8(body) {
                Ok(text) => put("body", json!(text)),
                Err(bytes) => put("body_base64", json!(STANDARD.encode(bytes.as_bytes()))),
            };
        }
        for (name, value) in [
            ("query", self.query.as_ref().map(|query| json!(query))),
            ("variables", self.variables.clone()),
            (
                "operation_name",
                self.operation.as_ref().map(|name| json!(name)),
            ),
        ] {
            if let Some(value) = value {
                put(name, value);
            }
        }
        Ok(Value::Object(params))
    }
}

/// Fields by name; one that was given more than once is a list.
fn headers(fields: &[(String, String)]) -> Value {
    let mut headers: Map<String, Value> = Map::new();
    for (name, value) in fields {
        let values = headers.entry(name.clone()).or_insert_with(|| json!([]));
        if let Value::Array(values) = values {
            values.push(json!(value));
        }
    }
    Value::Object(headers)
}

fn read_body(given: &str) -> anyhow::Result<Vec<u8>> {
    let unreadable = |what: &str, error: std::io::Error| {
        Failure::new(format!("cannot read {what}: {error}"))
            .hint("write --body TEXT, --body @FILE, or --body - and pipe it in")
    };
    if given == "-" {
        let mut body = Vec::new();
        std::io::stdin()
            .read_to_end(&mut body)
            .map_err(|error| unreadable("standard input", error))?;
        return Ok(body);
    }
    match given.strip_prefix('@') {
        Some(file) => Ok(std::fs::read(file).map_err(|error| unreadable(file, error))?),
        None => Ok(given.as_bytes().to_vec()),
    }
}

fn field(text: &str) -> Result<(String, String), String> {
    let rule = "a header field is 'Name: value', as 'Accept: text/csv'";
    let (name, value) = text.split_once(':').ok_or(rule)?;
    if name.trim().is_empty() {
        return Err(rule.to_owned());
    }
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

fn object(text: &str) -> Result<Value, String> {
    match serde_json::from_str(text) {
        Ok(value @ Value::Object(_)) => Ok(value),
        _ => Err("variables are a JSON object, as '{\"n\":1}'".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn params(line: &[&str]) -> Value {
        let line = ["execute", "api"].iter().chain(line);
        Line::try_parse_from(line).unwrap().args.params().unwrap()
    }

    #[test]
    fn a_request_is_written_as_it_would_be_spoken() {
        assert_eq!(params(&[]), json!({}));
        assert_eq!(params(&["/a?b=c"]), json!({ "path": "/a?b=c" }));
        assert_eq!(
            params(&[
                "post",
                "https://api.example.org/a",
                "--body",
                "x",
                "-H",
                "X-A: 1",
                "-H",
                "X-A:2"
            ]),
            json!({ "method": "POST", "url": "https://api.example.org/a", "body": "x", "headers": { "X-A": ["1", "2"] } })
        );
        assert_eq!(
            params(&[
                "--query",
                "{ a }",
                "--variables",
                "{\"n\":1}",
                "--operation",
                "Q"
            ]),
            json!({ "query": "{ a }", "variables": { "n": 1 }, "operation_name": "Q" })
        );
    }

    #[test]
    fn a_body_that_is_no_text_goes_as_base64() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), [0xff, 0]).unwrap();
        let given = format!("@{}", file.path().display());
        assert_eq!(
            params(&["PUT", "/a", "--body", &given])["body_base64"],
            "/wA="
        );
    }

    #[test]
    fn what_is_no_request_is_a_mistake_of_usage() {
        for line in [
            &["--header", "no colon"][..],
            &["--variables", "{}"],
            &["--query", "{ a }", "--variables", "[1]"],
            &["--query", "{ a }", "--body", "x"],
            &["GET", "/a", "/b"],
        ] {
            let line = ["execute", "api"].iter().chain(line);
            assert!(Line::try_parse_from(line.clone()).is_err(), "{line:?}");
        }
    }
}
