//! `explain`: what the injector would do with a request, and what is missing for it.

use leases::clock::{Clock as _, SystemClock};
use leases::{HostPattern, PathGlob};
use providers::Catalog;
use serde_json::{Value, json};

use super::Context;
use super::run::lives;
use crate::client::{Client, segment, text};
use crate::failure::Failure;
use crate::output::Tone;

/// Say which secret sets and grants cover a request, and if none does, which is missing
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  claviger explain https://api.stripe.com/v1/charges
  claviger explain POST https://api.openai.com/v1/responses")]
pub(crate) struct Args {
    /// The method, GET if left out, and the URL
    #[arg(required = true, num_args = 1..=2, value_names = ["METHOD", "URL"])]
    request: Vec<String>,
}

/// The request in question.
#[derive(Debug)]
struct Question {
    method: String,
    host: String,
    port: u16,
    path: String,
}

pub(crate) async fn run(context: &Context, args: &Args) -> anyhow::Result<()> {
    let question = Question::parse(&args.request)?;
    let client = context.connection.client().await?;
    let sets = client.all("/v1/vault/secret-sets", "secret_sets").await?;
    let grants = client.all("/v1/vault/grants", "grants").await?;
    let agents = client.all("/v1/agents", "agents").await?;
    let mut found = Vec::new();
    for set in sets {
        if !covers(&client, &set, &question).await {
            continue;
        }
        let of_set = grants
            .iter()
            .filter(|grant| text(grant, "secret_set_id") == text(&set, "id"));
        let verdicts: Vec<Value> = of_set
            .map(|grant| verdict(grant, &question, &agents))
            .collect();
        found.push(json!({ "secret_set": name(&set), "grants": verdicts }));
    }
    let providers: Vec<String> = Catalog::builtin()
        .for_host(&question.host, question.port)
        .iter()
        .map(|template| template.name().to_owned())
        .collect();
    let is_allowed = found
        .iter()
        .flat_map(|set| set["grants"].as_array().into_iter().flatten())
        .any(|grant| grant["allowed"] == json!(true));
    let answer = json!({
        "request": format!("{} {}:{}{}", question.method, question.host, question.port, question.path),
        "allowed": is_allowed, "providers": providers, "secret_sets": found,
    });
    if context.output.is_json() {
        context.output.value(&answer);
    } else {
        show(context, &answer);
    }
    if is_allowed {
        Ok(())
    } else {
        Err(missing(&question, &answer).into())
    }
}

impl Question {
    fn parse(words: &[String]) -> Result<Self, Failure> {
        let (method, url) = match words {
            [method, url] => (method.to_ascii_uppercase(), url.as_str()),
            [url] => ("GET".to_owned(), url.as_str()),
            _ => ("GET".to_owned(), ""),
        };
        let shape = || {
            Failure::new("the request is no https URL")
                .hint("write it as: claviger explain POST https://api.openai.com/v1/responses")
        };
        let url = if url.contains("://") {
            url.to_owned()
        } else {
            format!("https://{url}")
        };
        let url = reqwest::Url::parse(&url).map_err(|_| shape())?;
        if url.scheme() != "https" {
            return Err(Failure::new(
                "a credential goes over https alone, unless its grant says otherwise",
            )
            .hint("explain the https URL"));
        }
        Ok(Self {
            method,
            host: url
                .host_str()
                .ok_or_else(shape)?
                .trim_end_matches('.')
                .to_owned(),
            port: url.port_or_known_default().unwrap_or(443),
            path: url.path().to_owned(),
        })
    }
}

fn name(set: &Value) -> String {
    format!(
        "{}/{}/{}",
        text(set, "provider"),
        text(set, "environment"),
        text(set, "name")
    )
}

/// Whether the set's template, built in, the operator's or the set's own, sends credentials there.
async fn covers(client: &Client, set: &Value, question: &Question) -> bool {
    let provider = text(set, "provider");
    if provider == "custom" {
        return patterns(&set["custom"]["hosts"])
            .any(|pattern| pattern.matches(&question.host, question.port));
    }
    if let Some(template) = Catalog::builtin().get(provider) {
        return template
            .endpoint(providers::Scheme::Https, &question.host, question.port)
            .is_some();
    }
    let template = client
        .get(&format!("/v1/providers/{}", segment(provider)))
        .await
        .unwrap_or_default();
    patterns(&template["hosts"]).any(|pattern| pattern.matches(&question.host, question.port))
}

fn patterns(list: &Value) -> impl Iterator<Item = HostPattern> {
    strings(list).filter_map(|text| HostPattern::parse(text.trim_start_matches("https://")).ok())
}

fn strings(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
}

/// Whether one grant allows the request, and why not.
fn verdict(grant: &Value, question: &Question, agents: &[Value]) -> Value {
    let agent = agents
        .iter()
        .find(|agent| text(agent, "id") == text(grant, "agent_id"));
    let reason = obstacle(grant, agent, question);
    let agent = agent.map_or_else(|| text(grant, "agent_id"), |agent| text(agent, "name"));
    json!({ "grant": text(grant, "id"), "agent": agent, "allowed": reason.is_none(), "reason": reason })
}

fn obstacle(grant: &Value, agent: Option<&Value>, question: &Question) -> Option<String> {
    let constraints = &grant["constraints"];
    let none = |list: &Value, matches: &dyn Fn(&str) -> bool| {
        strings(list).next().is_some() && !strings(list).any(matches)
    };
    if !lives(grant, SystemClock.now()) {
        return Some("it is revoked or has expired".to_owned());
    }
    if agent.is_some_and(|agent| agent.get("is_active").and_then(Value::as_bool) == Some(false)) {
        return Some("its agent is revoked".to_owned());
    }
    if !strings(&grant["allowed_actions"]).any(|action| action == "proxy_use") {
        return Some("it does not allow proxy_use".to_owned());
    }
    if none(&constraints["hosts"], &|text| {
        HostPattern::parse(text).is_ok_and(|pattern| pattern.matches(&question.host, question.port))
    }) {
        return Some(format!(
            "its hosts ({}) leave out {}",
            joined(&constraints["hosts"]),
            question.host
        ));
    }
    if none(&constraints["methods"], &|method| method == question.method) {
        return Some(format!(
            "its methods ({}) leave out {}",
            joined(&constraints["methods"]),
            question.method
        ));
    }
    if none(&constraints["paths"], &|text| {
        PathGlob::parse(text).is_ok_and(|glob| glob.matches(&question.path))
    }) {
        return Some(format!(
            "its paths ({}) leave out {}",
            joined(&constraints["paths"]),
            question.path
        ));
    }
    None
}

fn joined(list: &Value) -> String {
    strings(list).collect::<Vec<_>>().join(", ")
}

fn show(context: &Context, answer: &Value) {
    let output = context.output;
    output.say(output.paint(Tone::Strong, text(answer, "request")));
    for set in answer["secret_sets"].as_array().into_iter().flatten() {
        output.say(format!(
            "  {}",
            crate::output::clean(text(set, "secret_set"))
        ));
        for grant in set["grants"].as_array().into_iter().flatten() {
            let (mark, tone) = if grant["allowed"] == json!(true) {
                ("allowed", Tone::Good)
            } else {
                ("refused", Tone::Bad)
            };
            let line = format!(
                "{} for {}  {}",
                text(grant, "grant"),
                text(grant, "agent"),
                text(grant, "reason")
            );
            output.say(format!(
                "    {}  {}",
                output.paint(tone, mark),
                crate::output::clean(line.trim_end())
            ));
        }
    }
}

/// What would have to be added for the request to pass.
fn missing(question: &Question, answer: &Value) -> Failure {
    let first = |field: &str| {
        answer[field]
            .as_array()
            .and_then(|items| items.first())
            .cloned()
    };
    let failure = |reason: String| Failure::new(reason).code("not_covered");
    if let Some(set) = first("secret_sets") {
        let set = text(&set, "secret_set").to_owned();
        return failure(format!(
            "no grant allows {} {}",
            question.method, question.host
        ))
        .hint(format!(
            "claviger grant create --agent AGENT --set {set} --host {} --method {}",
            question.host, question.method
        ));
    }
    match first("providers").as_ref().and_then(Value::as_str) {
        Some(provider) => failure(format!("no secret set of {provider} is stored"))
            .hint(format!("claviger set put {provider}/ENVIRONMENT/NAME KEY=-")),
        None => failure(format!("no template and no set sends a credential to {}", question.host))
            .hint(format!("claviger set put custom/ENVIRONMENT/NAME KEY=- --host {} --inject 'authorization: Bearer ${{KEY}}'", question.host)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(words: &[&str]) -> Result<Question, Failure> {
        Question::parse(
            &words
                .iter()
                .map(|word| (*word).to_owned())
                .collect::<Vec<_>>(),
        )
    }

    #[test]
    fn a_request_is_a_url_with_or_without_method_and_scheme() {
        let asked = question(&["post", "https://API.stripe.com:8443/v1/charges?x=1"]).unwrap();
        assert_eq!(
            (
                asked.method.as_str(),
                asked.host.as_str(),
                asked.port,
                asked.path.as_str()
            ),
            ("POST", "api.stripe.com", 8443, "/v1/charges")
        );
        assert_eq!(question(&["api.stripe.com/v1"]).unwrap().port, 443);
        assert!(question(&["http://api.stripe.com"]).is_err());
        assert!(question(&["https://"]).is_err());
    }

    #[test]
    fn the_first_constraint_that_leaves_the_request_out_is_named() {
        let asked = question(&["POST", "https://api.stripe.com/v1/charges"]).unwrap();
        let grant = |constraints: Value| json!({ "allowed_actions": ["proxy_use"], "constraints": constraints });
        assert_eq!(obstacle(&grant(json!({})), None, &asked), None);
        assert_eq!(
            obstacle(
                &grant(
                    json!({ "hosts": ["api.stripe.com"], "methods": ["POST"], "paths": ["/v1/**"] })
                ),
                None,
                &asked
            ),
            None
        );
        assert!(
            obstacle(&grant(json!({ "methods": ["GET"] })), None, &asked)
                .unwrap()
                .contains("leave out POST")
        );
        assert!(
            obstacle(
                &grant(json!({ "hosts": ["files.stripe.com"] })),
                None,
                &asked
            )
            .unwrap()
            .contains("api.stripe.com")
        );
        assert!(
            obstacle(&grant(json!({ "paths": ["/v1/refunds"] })), None, &asked)
                .unwrap()
                .contains("/v1/charges")
        );
        assert!(
            obstacle(&json!({ "allowed_actions": ["read"] }), None, &asked)
                .unwrap()
                .contains("proxy_use")
        );
    }
}
