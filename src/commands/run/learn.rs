//! What a program did and tried, read from the audit trail, and the grants that would allow it.
//!
//! A lease is minted from one grant for each set, and a grant is hosts by methods by paths. So what is printed is the least
//! grant of that shape, with how many further combinations it allows, and for AWS with services, regions, buckets and actions.

mod aws;

use std::collections::{BTreeMap, BTreeSet};

use leases::scope::{PathGlob, Scope};
use providers::Catalog;
use serde_json::Value;

use self::aws::AwsNeeds;

use super::super::Context;
use crate::client::{Client, segment, text};
use crate::units::SetName;

/// Tells people on stderr: the program's own output has stdout.
pub(super) async fn tell(context: &Context, client: &Client, sets: &[SetName], leases: &[String]) {
    match learn(client, sets, leases).await {
        Ok(learned) => {
            for line in learned.lines() {
                context.output.note(line);
            }
        }
        Err(error) => context.output.warn(format!(
            "what the program tried cannot be read; the audit trail is read with a person's key: {error:#}"
        )),
    }
}

/// All of it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Learned {
    sets: BTreeMap<String, Needs>,
    /// Hosts that no set of the run serves, with how often they were tried.
    elsewhere: BTreeMap<String, usize>,
    agent: String,
}

/// A request as the audit trail tells it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Request {
    /// The host, and its port where it is not that of https.
    authority: String,
    method: String,
    path: String,
}

/// What one set was needed for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Needs {
    seen: BTreeSet<Request>,
    /// Hosts that were refused at CONNECT, where methods and paths are not known yet.
    connects: BTreeSet<String>,
    /// Refused requests that hand out credentials, with what the template says of them: a grant would have to name them.
    minting: BTreeSet<(String, String)>,
    used: usize,
    refused: usize,
    grants: BTreeSet<String>,
}

async fn learn(client: &Client, sets: &[SetName], leases: &[String]) -> anyhow::Result<Learned> {
    let mut names = BTreeMap::new();
    for set in sets {
        names.insert(
            text(&client.set(set).await?, "id").to_owned(),
            set.to_string(),
        );
    }
    let mut learned = Learned::default();
    let mut homeless = Vec::new();
    for lease in leases {
        let path = format!("/v1/audit/events?lease_id={}", segment(lease));
        for event in client.all(&path, "events").await? {
            if !learned.note(&event, &names) {
                homeless.push(event);
            }
        }
    }
    for event in homeless {
        let set = serving(client, &event, &learned.agent, &names).await;
        learned.note_refused(&event, set);
    }
    Ok(learned)
}

/// The set of this run that serves the host of a refused request.
async fn serving(
    client: &Client,
    event: &Value,
    agent: &str,
    names: &BTreeMap<String, String>,
) -> Option<String> {
    let url = format!("https://{}{}", authority(event), text(event, "path"));
    let query = format!("/v1/explain?url={}&agent={}", segment(&url), segment(agent));
    let answer = client.get(&query).await.ok()?;
    let candidates = answer["candidates"].as_array()?;
    candidates
        .iter()
        .find_map(|candidate| names.get(text(candidate, "secret_set_id")))
        .cloned()
}

impl Learned {
    /// Takes an event into account; false for a refusal that names no set.
    fn note(&mut self, event: &Value, names: &BTreeMap<String, String>) -> bool {
        let is_use = text(event, "action") == "lease.use";
        if !is_use && text(event, "action") != "lease.refuse" {
            return true;
        }
        text(event, "agent_id").clone_into(&mut self.agent);
        let Some(set) = names.get(text(event, "secret_set_id")) else {
            return false;
        };
        let needs = self.sets.entry(set.clone()).or_default();
        needs.note(event, set, is_use);
        true
    }

    fn note_refused(&mut self, event: &Value, set: Option<String>) {
        match set {
            Some(set) => {
                let needs = self.sets.entry(set.clone()).or_default();
                needs.note(event, &set, false);
            }
            None => *self.elsewhere.entry(authority(event)).or_default() += 1,
        }
    }

    fn lines(&self) -> Vec<String> {
        if self.sets.is_empty() && self.elsewhere.is_empty() {
            return vec!["learned: the program made no request".to_owned()];
        }
        let mut lines = Vec::new();
        for (set, needs) in &self.sets {
            lines.extend(needs.lines(&self.agent, set));
        }
        for (host, times) in &self.elsewhere {
            lines.push(format!(
                "learned: {host} was refused {times} times; no set of this run serves it: claviger explain https://{host}/"
            ));
        }
        lines
    }
}

impl Needs {
    fn note(&mut self, event: &Value, set: &str, is_use: bool) {
        if is_use {
            self.used += 1;
            self.grants.insert(text(event, "grant_id").to_owned());
        } else {
            self.refused += 1;
        }
        if !is_use && let Some(why) = hands_out_credentials(set, event) {
            let request = format!(
                "{} https://{}{}",
                text(event, "method"),
                authority(event),
                text(event, "path")
            );
            self.minting.insert((request, why));
            return;
        }
        if text(event, "method") == "CONNECT" {
            self.connects.insert(authority(event));
        } else {
            self.seen.insert(Request {
                authority: authority(event),
                method: text(event, "method").to_owned(),
                path: text(event, "path").to_owned(),
            });
        }
    }

    fn lines(&self, agent: &str, set: &str) -> Vec<String> {
        let provider = set.split('/').next().unwrap_or_default();
        let mut left_out = self.left_out();
        let mut grant = LeastGrant::default();
        for request in &self.seen {
            match request.glob(provider) {
                Ok(glob) => grant.take(request, glob),
                Err(why) => left_out.push(format!("{}: {why}", request.shown())),
            }
        }
        let counts = format!(
            "learned: {set} was used {} times and refused {} times",
            self.used, self.refused
        );
        let mut lines = Vec::new();
        if grant.taken.is_empty() {
            lines.push(format!("{counts}; no grant can be told from it"));
        } else {
            if provider == "aws" {
                grant.aws = AwsNeeds::of(&grant.taken);
            }
            lines.push(format!("{counts}; this is enough for it:"));
            lines.push(format!("  {}", grant.command(agent, set)));
            lines.extend(grant.notes().iter().map(|note| format!("  {note}")));
        }
        lines.extend(left_out.iter().map(|what| format!("  left out: {what}")));
        if !grant.taken.is_empty() {
            let replaced = self.grants.iter();
            lines.extend(replaced.map(|grant| format!("  then: claviger grant revoke {grant}")));
        }
        lines
    }

    /// What no grant is printed for, with the reason.
    fn left_out(&self) -> Vec<String> {
        let minting = self.minting.iter();
        let mut left_out: Vec<String> = minting
            .map(|(request, why)| format!("{request}: {why}"))
            .collect();
        let is_unseen =
            |host: &&String| !self.seen.iter().any(|request| request.authority == **host);
        left_out.extend(self.connects.iter().filter(is_unseen).map(|host| {
            format!("CONNECT {host}: its requests are not known; run again with a grant that holds the host")
        }));
        left_out
    }
}

impl Request {
    fn host(&self) -> &str {
        let authority = &self.authority;
        authority
            .rsplit_once(':')
            .filter(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()))
            .map_or(authority, |(host, _)| host)
    }

    fn shown(&self) -> String {
        format!("{} https://{}{}", self.method, self.authority, self.path)
    }

    /// The path as a grant's; an escaped slash, which that cannot hold, as `*`.
    fn glob(&self, provider: &str) -> Result<String, String> {
        // The audit trail has a `*` for what a template masks; any other is the path's own, and a grant's would mean any text.
        let template = Catalog::builtin().get(provider);
        let without = self.path.replace('*', "x");
        let masked = template.and_then(|it| it.mask_path(self.host(), &without));
        if stars(&self.path) > masked.as_deref().map_or(0, stars) {
            return Err("its path holds a `*`, which in a grant stands for any text".to_owned());
        }
        let mut glob = self.path.replace("%2F", "*").replace("%2f", "*");
        while glob.contains("**") {
            glob = glob.replace("**", "*");
        }
        PathGlob::parse(&glob)
            .map(|_| glob)
            .map_err(|error| error.to_string())
    }
}

fn stars(path: &str) -> usize {
    path.matches('*').count()
}

/// The least grant that takes some requests.
#[derive(Debug, Default)]
struct LeastGrant {
    taken: BTreeSet<Request>,
    paths: BTreeSet<String>,
    /// The limits on AWS, for a set that signs.
    aws: Option<AwsNeeds>,
}

impl LeastGrant {
    fn take(&mut self, request: &Request, glob: String) {
        self.taken.insert(request.clone());
        self.paths.insert(glob);
    }

    fn hosts(&self) -> BTreeSet<&str> {
        let hosts = self.taken.iter().map(|request| request.authority.as_str());
        hosts.collect()
    }

    fn methods(&self) -> BTreeSet<&str> {
        let methods = self.taken.iter().map(|request| request.method.as_str());
        methods.collect()
    }

    /// Combinations that the grant allows and nobody tried.
    fn further(&self) -> usize {
        let seen: BTreeSet<&str> = self.taken.iter().map(|it| it.path.as_str()).collect();
        let mut count = 0;
        for authority in self.hosts() {
            for method in self.methods() {
                for path in &seen {
                    let request = Request {
                        authority: authority.to_owned(),
                        method: method.to_owned(),
                        path: (*path).to_owned(),
                    };
                    let takes = |aws: &AwsNeeds| aws.take(&request);
                    let is_new = !self.taken.contains(&request);
                    count += usize::from(is_new && self.aws.as_ref().is_none_or(takes));
                }
            }
        }
        count
    }

    fn has_too_many_paths(&self) -> bool {
        self.paths.len() > Scope::MAX_ENTRIES
    }

    fn command(&self, agent: &str, set: &str) -> String {
        let joined = |values: BTreeSet<&str>| values.into_iter().collect::<Vec<_>>().join(",");
        let mut words: Vec<String> = [
            "claviger", "grant", "create", "--agent", agent, "--set", set,
        ]
        .into_iter()
        .chain(["--actions", "proxy_use,mint_workflow_lease"])
        .map(str::to_owned)
        .collect();
        words.extend(["--host".to_owned(), joined(self.hosts())]);
        words.extend(["--method".to_owned(), joined(self.methods())]);
        if !self.has_too_many_paths() {
            let paths = self.paths.iter();
            words.extend(paths.flat_map(|path| ["--path".to_owned(), quoted(path)]));
        }
        words.extend(self.aws.iter().flat_map(AwsNeeds::options));
        words.join(" ")
    }

    /// What it allows beside what was seen.
    fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if self.has_too_many_paths() {
            notes.push(format!(
                "it allows every path: {} were seen, and a grant holds {}; sum them up with --path /PREFIX/**",
                self.paths.len(),
                Scope::MAX_ENTRIES
            ));
        } else {
            let further = self.further();
            if further > 0 {
                notes.push(format!(
                    "it also allows {further} combinations of method, host and path that were not seen"
                ));
            }
        }
        let is_escaped = |request: &Request| request.path.to_ascii_uppercase().contains("%2F");
        if self.taken.iter().any(is_escaped) && !self.has_too_many_paths() {
            notes.push("a `*` stands for %2F, which the path of a grant cannot hold".to_owned());
        }
        notes.extend(self.aws.iter().flat_map(AwsNeeds::notes));
        notes
    }
}

/// What a provider's built-in template says of a refused request that hands out new credentials.
fn hands_out_credentials(set: &str, event: &Value) -> Option<String> {
    let provider = set.split('/').next().unwrap_or_default();
    let template = Catalog::builtin().get(provider)?;
    let [host, method, path] = ["host", "method", "path"].map(|field| text(event, field));
    let denied = template.denied(host, method, path, std::iter::empty);
    denied.map(|denied| denied.to_string())
}

/// The host, and its port where it is not that of https.
fn authority(event: &Value) -> String {
    let host = text(event, "host");
    match event["port"].as_u64() {
        None | Some(443) => host.to_owned(),
        Some(port) => format!("{host}:{port}"),
    }
}

/// For a POSIX shell.
fn quoted(word: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-:@%+,=".contains(&byte);
    if word.bytes().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn names() -> BTreeMap<String, String> {
        BTreeMap::from([("set_1".to_owned(), "stripe/dev/me".to_owned())])
    }

    fn event(action: &str, set: &str, method: &str, host: &str, path: &str) -> Value {
        json!({ "action": action, "agent_id": "agt_1", "grant_id": "grn_1", "secret_set_id": set,
            "method": method, "host": host, "port": 443, "path": path })
    }

    #[test]
    fn a_set_needs_what_was_seen_and_no_more() {
        let mut learned = Learned::default();
        for (method, path) in [
            ("GET", "/v1/balance"),
            ("POST", "/v1/charges"),
            ("GET", "/v1/balance"),
        ] {
            assert!(learned.note(
                &event("lease.use", "set_1", method, "api.stripe.com", path),
                &names()
            ));
        }
        assert!(learned.note(&event("lease.outcome", "set_1", "", "", ""), &names()));
        assert_eq!(
            learned.lines(),
            [
                "learned: stripe/dev/me was used 3 times and refused 0 times; this is enough for it:",
                "  claviger grant create --agent agt_1 --set stripe/dev/me --actions proxy_use,mint_workflow_lease \
                 --host api.stripe.com --method GET,POST --path /v1/balance --path /v1/charges",
                "  it also allows 2 combinations of method, host and path that were not seen",
                "  then: claviger grant revoke grn_1",
            ]
        );
    }

    #[test]
    fn an_endpoint_that_hands_out_credentials_is_not_granted_in_passing() {
        let mut learned = Learned::default();
        for (action, method, path) in [
            ("lease.use", "GET", "/v1/balance"),
            ("lease.refuse", "POST", "/v1/ephemeral_keys"),
        ] {
            let event = event(action, "set_1", method, "api.stripe.com", path);
            assert!(learned.note(&event, &names()));
        }
        let lines = learned.lines();
        assert!(!lines[1].contains("ephemeral_keys"), "{lines:?}");
        assert!(lines[1].ends_with("--path /v1/balance"), "{lines:?}");
        assert!(
            lines[2].starts_with("  left out: POST https://api.stripe.com/v1/ephemeral_keys: "),
            "{lines:?}"
        );
    }

    /// The lines for a set of a provider whose requests were these, each `METHOD HOST PATH`.
    fn learned(set: &str, requests: &[&str]) -> Vec<String> {
        let names = BTreeMap::from([("set_1".to_owned(), set.to_owned())]);
        let mut learned = Learned::default();
        for request in requests {
            let [method, host, path] = request.split(' ').collect::<Vec<_>>()[..] else {
                panic!("{request}")
            };
            assert!(learned.note(&event("lease.use", "set_1", method, host, path), &names));
        }
        learned.lines()
    }

    #[test]
    fn a_set_of_aws_is_bound_to_what_hosts_and_paths_tell() {
        let lines = learned(
            "aws/prod/x",
            &[
                "POST dynamodb.us-east-1.amazonaws.com /",
                "GET bkt.s3.amazonaws.com /a/b%20c.txt",
                "PUT bkt.s3.amazonaws.com /out",
            ],
        );
        assert!(
            lines[1].ends_with(
                "--host bkt.s3.amazonaws.com,dynamodb.us-east-1.amazonaws.com --method GET,POST,PUT --path / \
                 --path /a/b%20c.txt --path /out --aws-service dynamodb,s3 --aws-region us-east-1 --aws-bucket bkt \
                 --aws-action 'dynamodb:*,s3:GetObject,s3:PutObject'"
            ),
            "{lines:?}"
        );
        // Of S3 two objects by three methods, less two, and of DynamoDB three paths by three methods, less one.
        assert_eq!(
            lines[2],
            "  it also allows 12 combinations of method, host and path that were not seen"
        );
        assert!(
            lines[3].contains("every operation of dynamodb"),
            "{lines:?}"
        );
        assert!(lines[3].contains("`POST /`"), "{lines:?}");
        assert!(lines[4].contains("actions of s3"), "{lines:?}");
    }

    #[test]
    fn what_hands_out_credentials_at_aws_is_in_no_action_that_is_printed() {
        let lines = learned(
            "aws/prod/x",
            &[
                "POST sts.us-east-1.amazonaws.com /",
                "GET s3.us-east-1.amazonaws.com /",
            ],
        );
        assert!(!lines[1].contains("--aws-action"), "{lines:?}");
        assert!(!lines[1].contains("--aws-bucket"), "{lines:?}");
        assert!(lines[1].contains("--aws-service s3,sts"), "{lines:?}");
        let notes = lines.join("\n");
        assert!(
            notes.contains("what hands out credentials must be"),
            "{lines:?}"
        );
        assert!(notes.contains("every bucket"), "{lines:?}");
    }

    #[test]
    fn a_path_that_a_grant_cannot_hold_is_left_out_and_said() {
        let long = format!("GET api.telegram.org /bot*/{}", "x".repeat(600));
        let lines = learned(
            "telegram/prod/x",
            &[
                "GET api.telegram.org /bot*/getMe",
                "GET api.telegram.org /bot*/a*b",
                "GET api.telegram.org /bot*/%2a%20x",
                "GET api.telegram.org /bot*/[a]",
                &long,
            ],
        );
        assert!(lines[1].ends_with("--path '/bot*/getMe'"), "{lines:?}");
        let left_out: Vec<&String> = lines
            .iter()
            .filter(|line| line.starts_with("  left out: GET https://api.telegram.org/bot*/"))
            .collect();
        assert_eq!(left_out.len(), 4, "{lines:?}");
        let lines = learned("stripe/dev/me", &["GET api.stripe.com /v1/*"]);
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[0].ends_with("no grant can be told from it"));
    }

    #[test]
    fn a_star_stands_for_an_escaped_slash() {
        let lines = learned(
            "aws/prod/x",
            &[
                "GET eks.us-east-1.amazonaws.com /clusters/c/access-entries/arn%3Aaws%3Aiam%3A%3A1%3Arole%2F%2Fadmin",
            ],
        );
        let path = "--path '/clusters/c/access-entries/arn%3Aaws%3Aiam%3A%3A1%3Arole*admin'";
        assert!(lines[1].contains(path), "{lines:?}");
        assert!(lines[2].contains("stands for %2F"), "{lines:?}");
    }

    #[test]
    fn more_paths_than_a_grant_holds_are_none() {
        let requests: Vec<String> = (0..65)
            .map(|at| format!("GET api.stripe.com /v1/charges/{at}"))
            .collect();
        let requests: Vec<&str> = requests.iter().map(String::as_str).collect();
        let lines = learned("stripe/dev/me", &requests);
        assert!(!lines[1].contains("--path"), "{lines:?}");
        assert!(lines[2].contains("every path: 65 were seen"), "{lines:?}");
    }

    #[test]
    fn a_host_that_was_refused_at_connect_makes_no_grant() {
        let mut learned = Learned::default();
        let refused = event("lease.refuse", "set_1", "CONNECT", "api.stripe.com", "");
        assert!(learned.note(&refused, &names()));
        let lines = learned.lines();
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[1].starts_with("  left out: CONNECT api.stripe.com"));
    }

    #[test]
    fn a_host_of_no_set_is_told_apart() {
        let mut learned = Learned::default();
        let refused = event("lease.refuse", "", "CONNECT", "example.com", "");
        assert!(!learned.note(&refused, &names()));
        learned.note_refused(&refused, None);
        assert_eq!(
            learned.lines(),
            [
                "learned: example.com was refused 1 times; no set of this run serves it: claviger explain https://example.com/"
            ]
        );
    }

    #[test]
    fn a_path_is_quoted_for_the_shell() {
        assert_eq!(quoted("/v1/a-b_c"), "/v1/a-b_c");
        assert_eq!(quoted("/it's (*)"), r"'/it'\''s (*)'");
    }

    #[test]
    fn a_program_that_asked_for_nothing_is_said_so() {
        assert_eq!(
            Learned::default().lines(),
            ["learned: the program made no request"]
        );
    }
}
