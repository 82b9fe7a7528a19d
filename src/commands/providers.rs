//! `providers`: the templates that say where credentials go.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use clap::Subcommand;
use providers::{Catalog, Scheme, Template, parse_template};
use serde_json::{Value, json};

use super::Context;
use super::set::read_file;
use crate::client::{segment, text as text_of};
use crate::failure::Failure;
use crate::output::{Tone, clean};

/// Provider templates: where credentials go, and how requests carry them
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the templates that the server knows
    #[command(
        visible_alias = "ls",
        after_help = "Examples:\n  claviger providers list\n  claviger providers list --built-in --json"
    )]
    List {
        /// Those of this program, without asking a server
        #[arg(long)]
        built_in: bool,
    },
    /// Show a template: hosts, keys, slots, what it denies, and its presets
    #[command(after_help = "Example:\n  claviger providers show github --built-in")]
    Show {
        /// The template's name
        name: String,
        /// That of this program, without asking a server
        #[arg(long)]
        built_in: bool,
    },
    /// Add a template to the server; injectors that run take it up within seconds
    #[command(after_help = "Example:\n  claviger providers add acme.toml")]
    Add {
        /// The template file
        file: PathBuf,
    },
    /// Check templates, and report every mistake with its file, line and field
    ///
    /// No server is asked.
    #[command(after_help = "Example:\n  claviger providers check templates/*.toml")]
    Check {
        /// Template files
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// Show what a template does to a request: the slots emptied, and those filled, by the names of their keys
    ///
    /// No server is asked and nothing is sent.
    #[command(after_help = "\
Examples:
  claviger providers test stripe
  claviger providers test ./acme.toml POST https://api.acme.example/v1/keys")]
    Test(Test),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Test {
    /// A built-in template's name, or a file
    #[arg(value_name = "NAME|FILE")]
    template: String,
    /// The method and the URL [default: GET and the first host]
    #[arg(num_args = 0..=2, value_names = ["METHOD", "URL"])]
    request: Vec<String>,
}

pub(crate) async fn run(context: &Context, command: Command) -> anyhow::Result<()> {
    match command {
        Command::List { built_in } => list(context, built_in).await,
        Command::Show { name, built_in } => show(context, &name, built_in).await,
        Command::Add { file } => add(context, &file).await,
        Command::Check { files } => check(context, &files),
        Command::Test(test) => test.run(context),
    }
}

async fn list(context: &Context, built_in: bool) -> anyhow::Result<()> {
    let templates = if built_in {
        let catalog = Catalog::builtin();
        catalog.iter().map(|one| view(one)).collect()
    } else {
        let client = context.connection.client().await?;
        client.all("/v1/providers", "providers").await?
    };
    let columns = [
        ("NAME", "name"),
        ("HOSTS", "hosts"),
        ("VARIABLES", "variables"),
    ];
    let rows: Vec<Value> = if context.output.is_json() {
        templates
    } else {
        templates.iter().map(row).collect()
    };
    context.output.list("providers", &columns, &rows);
    Ok(())
}

/// A line of the list: the first host stands for all.
fn row(template: &Value) -> Value {
    let hosts: Vec<&str> = strings(&template["hosts"]).collect();
    let first = hosts.first().map_or("-", |host| short(host));
    let hosts = match hosts.len() {
        0 | 1 => first.to_owned(),
        several => format!("{first} +{}", several - 1),
    };
    let variables = template["env"].as_object();
    let variables: Vec<&str> = variables
        .into_iter()
        .flatten()
        .map(|(name, _)| name.as_str())
        .collect();
    json!({ "name": template["name"], "hosts": hosts, "variables": variables })
}

async fn show(context: &Context, name: &str, built_in: bool) -> anyhow::Result<()> {
    let template = if built_in {
        view(&*find(name)?)
    } else {
        let client = context.connection.client().await?;
        client
            .get(&format!("/v1/providers/{}", segment(name)))
            .await?
    };
    context.output.fields(&template);
    Ok(())
}

async fn add(context: &Context, file: &Path) -> anyhow::Result<()> {
    let text = read_file(file)?;
    let client = context.connection.client().await?;
    let body = json!({ "template": text.as_str() });
    let answer = client.post("/v1/providers", &body).await?;
    let name = clean(text_of(&answer, "name"));
    context
        .output
        .done(&answer, format!("added provider {name}"));
    Ok(())
}

fn view(template: &Template) -> Value {
    control_plane::provider_view(template)
}

fn find(name: &str) -> anyhow::Result<Arc<Template>> {
    let unknown = || {
        Failure::new(format!("no built-in template is named {}", clean(name)))
            .code("not_found")
            .hint("`claviger providers list --built-in` shows them; a file is given by its path, as ./acme.toml")
    };
    Ok(Catalog::builtin().get(name).ok_or_else(unknown)?)
}

fn check(context: &Context, files: &[PathBuf]) -> anyhow::Result<()> {
    let mut reports = Vec::new();
    let mut count = 0;
    for file in files {
        let (name, mistakes) = match read(file)? {
            Ok(template) => (Some(template.name().to_owned()), Vec::new()),
            Err(errors) => (None, errors.0),
        };
        count += mistakes.len();
        if !context.output.is_json() {
            match &name {
                Some(name) => context
                    .output
                    .say(format!("{}: {name} is good", file.display())),
                None => mistakes
                    .iter()
                    .for_each(|mistake| context.output.say(clean(&mistake.to_string()))),
            }
        }
        let mistakes: Vec<Value> = mistakes
            .iter()
            .map(|one| json!({ "line": one.line, "field": one.field, "message": one.message }))
            .collect();
        reports.push(
            json!({ "file": file.display().to_string(), "name": name, "mistakes": mistakes }),
        );
    }
    if context.output.is_json() {
        context.output.value(&json!({ "files": reports }));
    }
    if count == 0 {
        return Ok(());
    }
    let mistakes = if count == 1 { "mistake" } else { "mistakes" };
    Err(
        Failure::new(format!("{count} {mistakes} in {} templates", files.len()))
            .code("invalid_template")
            .hint("each line says what to do; examples/provider-template.toml explains every field")
            .into(),
    )
}

fn read(file: &Path) -> anyhow::Result<Result<Template, providers::TemplateErrors>> {
    let shown = file.display().to_string();
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {shown}"))?;
    Ok(parse_template(&shown, &text))
}

impl Test {
    fn run(&self, context: &Context) -> anyhow::Result<()> {
        let template = self.template()?;
        let request = self.request(&template)?;
        let answer = answer(&template, &request);
        if context.output.is_json() {
            context.output.value(&answer);
        } else {
            say(context, &answer);
        }
        if answer["sent"] == true {
            return Ok(());
        }
        let reason = format!(
            "{} sends no credential to {}",
            template.name(),
            request.origin()
        );
        Err(Failure::new(reason)
            .code("not_covered")
            .hint(
                "use a URL with one of the template's hosts; `claviger providers show` lists them",
            )
            .into())
    }

    fn template(&self) -> anyhow::Result<Arc<Template>> {
        let path = Path::new(&self.template);
        let is_file = self.template.contains(std::path::MAIN_SEPARATOR)
            || path
                .extension()
                .is_some_and(|extension| extension == "toml");
        if !is_file {
            return find(&self.template);
        }
        let template = read(path)?.map_err(|errors| {
            Failure::new(errors.0[0].to_string())
                .code("invalid_template")
                .hint(format!("claviger providers check {}", self.template))
        })?;
        Ok(Arc::new(template))
    }

    fn request(&self, template: &Template) -> anyhow::Result<Request> {
        let (method, url) = match self.request.as_slice() {
            [method, url] => (method.to_ascii_uppercase(), url.clone()),
            [url] => ("GET".to_owned(), url.clone()),
            _ => ("GET".to_owned(), first_url(template)),
        };
        Request::parse(method, &url).ok_or_else(|| {
            Failure::new(format!("`{}` is no URL", clean(&url)))
                .usage()
                .hint("write it as https://api.example.com/v1/things")
                .into()
        })
    }
}

/// The first host, with a label in the place of a wildcard.
fn first_url(template: &Template) -> String {
    let Some(rule) = template.hosts().first() else {
        return String::new();
    };
    let host = rule.pattern().replace("**", "acme").replace('*', "acme");
    format!("{}://{host}:{}/", rule.scheme().as_str(), rule.port())
}

/// The request that a template is tried on.
struct Request {
    method: String,
    scheme: Scheme,
    host: providers::Host,
    port: u16,
    path: String,
}

impl Request {
    fn parse(method: String, url: &str) -> Option<Self> {
        let (scheme, rest) = match url.split_once("://") {
            Some(("https", rest)) => (Scheme::Https, rest),
            Some(("http", rest)) => (Scheme::Http, rest),
            Some(_) => return None,
            None => (Scheme::Https, url),
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let authority = providers::Authority::parse(&rest[..end]).ok()?;
        let path = rest[end..]
            .split(['?', '#'])
            .next()
            .filter(|path| !path.is_empty());
        Some(Self {
            method,
            scheme,
            port: authority.port.unwrap_or(scheme.default_port()),
            host: authority.host,
            path: path.unwrap_or("/").to_owned(),
        })
    }

    fn origin(&self) -> String {
        format!("{}://{}:{}", self.scheme.as_str(), self.host, self.port)
    }
}

fn answer(template: &Template, request: &Request) -> Value {
    let (host, path) = (request.host.as_str(), request.path.as_str());
    let sent = template
        .endpoint(request.scheme, host, request.port)
        .is_some();
    let sample = template.sample(host, path);
    let denied = template.denied(host, &request.method, path, std::iter::empty);
    json!({
        "template": template.name(),
        "request": format!("{} {}{path}", request.method, request.origin()),
        "sent": sent,
        "emptied": sample.emptied,
        "filled": if sent { json!(sample.filled) } else { json!([]) },
        "denied": denied.map(|denied| denied.to_string()),
    })
}

fn say(context: &Context, answer: &Value) {
    let output = context.output;
    let request = clean(answer["request"].as_str().unwrap_or_default());
    output.say(output.paint(Tone::Strong, &request));
    for slot in strings(&answer["emptied"]) {
        output.say(format!(
            "  {}  {slot}",
            output.paint(Tone::Quiet, "emptied")
        ));
    }
    for one in answer["filled"].as_array().into_iter().flatten() {
        let word = |field: &str| one[field].as_str().unwrap_or_default();
        let optional = if one["optional"] == true {
            "  (if the set has it)"
        } else {
            ""
        };
        let line = format!("{}  {}{optional}", word("slot"), word("value"));
        output.say(format!("  {}   {line}", output.paint(Tone::Good, "filled")));
    }
    if let Some(denied) = answer["denied"].as_str() {
        output.say(format!(
            "  {}   {}",
            output.paint(Tone::Bad, "denied"),
            clean(denied)
        ));
    }
}

fn strings(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
}

/// A host without what every host has: `https://` and `:443`.
fn short(host: &str) -> &str {
    let host = host.strip_prefix("https://").unwrap_or(host);
    host.strip_suffix(":443").unwrap_or(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn test(template: &str, request: &[&str]) -> Test {
        Test {
            template: template.to_owned(),
            request: request.iter().map(|word| (*word).to_owned()).collect(),
        }
    }

    fn answered(template: &str, request: &[&str]) -> Value {
        let test = test(template, request);
        let template = test.template().unwrap();
        answer(&template, &test.request(&template).unwrap())
    }

    #[test]
    fn a_test_without_a_url_is_about_the_first_host() {
        let answer = answered("github", &[]);
        assert_eq!(answer["request"], "GET https://api.github.com:443/");
        assert_eq!(answer["filled"][0]["value"], "Bearer ${GITHUB_TOKEN}");
        for template in Catalog::builtin().iter() {
            let name = template.name();
            assert_eq!(answered(name, &[])["sent"], true, "{name}");
        }
    }

    #[test]
    fn a_denied_endpoint_says_so() {
        let answer = answered(
            "stripe",
            &["post", "https://api.stripe.com/v1/ephemeral_keys?x=1"],
        );
        assert!(
            answer["denied"]
                .as_str()
                .unwrap()
                .contains("/v1/ephemeral_keys")
        );
        let answer = answered("stripe", &["api.stripe.com/v1/charges"]);
        assert_eq!(answer["denied"], Value::Null);
    }

    #[test]
    fn another_host_gets_nothing() {
        let answer = answered("stripe", &["https://example.com/"]);
        assert_eq!(
            (&answer["sent"], &answer["filled"]),
            (&json!(false), &json!([]))
        );
    }

    #[test]
    fn what_is_no_url_is_a_mistake_of_usage() {
        let template = find("stripe").unwrap();
        for url in ["ftp://a.example/", "https://", "https://a b/"] {
            let error = test("stripe", &[url]).request(&template).err().unwrap();
            assert!(error.downcast_ref::<Failure>().unwrap().is_usage(), "{url}");
        }
    }

    #[test]
    fn a_list_shows_the_first_host_and_how_many_follow() {
        let row = row(&view(&find("twilio").unwrap()));
        assert_eq!(row["hosts"], "api.twilio.com +23");
        assert_eq!(row["variables"], json!(["TWILIO_AUTH_TOKEN"]));
    }
}
