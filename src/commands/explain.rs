//! `explain`: what the injector would decide on a request, and what is missing for it.

use serde_json::Value;

use super::Context;
use crate::client::{segment, text};
use crate::failure::Failure;
use crate::output::{Tone, clean};

/// Say which secret sets and grants cover a request, and if none does, which is missing
///
/// The server rehearses the injector's own decision; nothing is opened and nothing is sent.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  claviger explain https://api.stripe.com/v1/charges
  claviger explain POST https://api.openai.com/v1/responses --agent bot")]
pub(crate) struct Args {
    /// The method, GET if left out, and the URL
    #[arg(required = true, num_args = 1..=2, value_names = ["METHOD", "URL"])]
    request: Vec<String>,
    /// The agent in question, by name or id [default: all]
    #[arg(long)]
    agent: Option<String>,
}

pub(crate) async fn run(context: &Context, args: &Args) -> anyhow::Result<()> {
    let client = context.connection.client().await?;
    let answer = client.get(&format!("/v1/explain?{}", query(args))).await?;
    if context.output.is_json() {
        context.output.value(&answer);
    } else {
        show(context, &answer);
    }
    if text(&answer, "decision") == "allow" {
        Ok(())
    } else {
        Err(missing(&answer).into())
    }
}

fn query(args: &Args) -> String {
    let (method, url) = match args.request.as_slice() {
        // As it is written: the names of methods are case-sensitive, and the injector says so.
        [method, url] => (method.as_str(), url.as_str()),
        [url] => ("GET", url.as_str()),
        _ => ("GET", ""),
    };
    let url = if url.contains("://") {
        url.to_owned()
    } else {
        format!("https://{url}")
    };
    let agent = args
        .agent
        .as_ref()
        .map_or_else(String::new, |agent| format!("&agent={}", segment(agent)));
    format!("method={}&url={}{agent}", segment(method), segment(&url))
}

fn show(context: &Context, answer: &Value) {
    let output = context.output;
    let request = format!(
        "{} {}://{}:{}{}",
        text(answer, "method"),
        text(answer, "scheme"),
        text(answer, "host"),
        answer["port"],
        text(answer, "path")
    );
    output.say(output.paint(Tone::Strong, &clean(&request)));
    for candidate in answer["candidates"].as_array().into_iter().flatten() {
        let (mark, tone) = if text(candidate, "decision") == "allow" {
            ("allowed", Tone::Good)
        } else {
            ("refused", Tone::Bad)
        };
        let line = format!(
            "{}  {}  {}",
            text(candidate, "secret_set"),
            text(candidate, "grant_id"),
            text(candidate, "agent_id")
        );
        output.say(format!("  {}  {}", output.paint(tone, mark), clean(&line)));
        output.say(output.paint(
            Tone::Quiet,
            &format!("           {}", clean(text(candidate, "reason"))),
        ));
    }
}

/// What would have to be added for the request to pass.
fn missing(answer: &Value) -> Failure {
    let host = text(answer, "host");
    let mut candidates = answer["candidates"].as_array().into_iter().flatten();
    if let Some(named) = candidates.find(|it| text(it, "decision") == "allow") {
        return Failure::new(text(answer, "reason"))
            .code("not_covered")
            .hint(format!(
                "claviger run --agent {} --set {} --grant {} -- CMD",
                text(named, "agent_id"),
                text(named, "secret_set"),
                text(named, "grant_id")
            ));
    }
    let refused_anyway = ["ambiguous_request:", "plaintext_denied:"];
    if refused_anyway
        .iter()
        .any(|code| text(answer, "reason").starts_with(code))
    {
        return Failure::new(text(answer, "reason"))
            .code("not_covered")
            .hint("no grant covers such a request; mend the URL");
    }
    let hint = match (
        answer["candidates"].get(0),
        answer["templates"].get(0).and_then(Value::as_str),
    ) {
        (Some(candidate), _) => format!(
            "claviger grant create --agent {} --set {} --host {host} --method {}",
            text(candidate, "agent_id"),
            text(candidate, "secret_set"),
            text(answer, "method")
        ),
        (None, Some(provider)) => {
            format!(
                "claviger set put {provider}/ENVIRONMENT/NAME KEY=-, then claviger grant create --agent AGENT --set {provider}/ENVIRONMENT/NAME"
            )
        }
        (None, None) => format!(
            "claviger set put custom/ENVIRONMENT/NAME KEY=- --host {host} --inject 'authorization: Bearer ${{KEY}}'"
        ),
    };
    Failure::new(text(answer, "reason"))
        .code("not_covered")
        .hint(hint)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn args(words: &[&str]) -> Args {
        Args {
            request: words.iter().map(|word| (*word).to_owned()).collect(),
            agent: None,
        }
    }

    #[test]
    fn a_request_is_a_url_with_or_without_method_and_scheme() {
        assert_eq!(
            query(&args(&["POST", "https://a.example/x?y=1"])),
            "method=POST&url=https%3A%2F%2Fa.example%2Fx%3Fy%3D1"
        );
        // As it stands: the names of methods have a case.
        assert_eq!(
            query(&args(&["post", "a.example"])),
            "method=post&url=https%3A%2F%2Fa.example"
        );
        assert_eq!(
            query(&args(&["a.example/x"])),
            "method=GET&url=https%3A%2F%2Fa.example%2Fx"
        );
    }

    #[test]
    fn the_hint_is_the_command_that_is_missing() {
        let hint = |answer: Value| missing(&answer).next_action().unwrap().to_owned();
        let candidate = json!({ "agent_id": "agt_1", "secret_set": "stripe/dev/me" });
        let refused = json!({ "host": "api.stripe.com", "method": "POST", "candidates": [candidate], "templates": ["stripe"] });
        assert_eq!(
            hint(refused),
            "claviger grant create --agent agt_1 --set stripe/dev/me --host api.stripe.com --method POST"
        );
        assert!(
            hint(json!({ "candidates": [], "templates": ["stripe"] }))
                .starts_with("claviger set put stripe/")
        );
        assert!(
            hint(json!({ "host": "a.example", "candidates": [], "templates": [] }))
                .contains("custom/ENVIRONMENT/NAME KEY=- --host a.example")
        );
    }
}
