//! What a program did and tried, read from the audit trail, and the grants that would allow it.
//!
//! A lease is minted from one grant for each set, and a grant is hosts by methods by paths. So what is printed is the least
//! grant of that shape, with how many further combinations it allows.

use std::collections::{BTreeMap, BTreeSet};

use providers::Catalog;
use serde_json::Value;

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

/// What one set was needed for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Needs {
    seen: BTreeSet<(String, String, String)>,
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
            lines.push(needs.summary(set));
            lines.push(format!("  {}", needs.command(&self.agent, set)));
            let further = needs.further();
            if further > 0 {
                lines.push(format!(
                    "  it also allows {further} combinations of method, host and path that were not seen"
                ));
            }
            for (request, why) in &needs.minting {
                lines.push(format!("  left out: {request}: {why}"));
            }
            for grant in &needs.grants {
                lines.push(format!("  then: claviger grant revoke {grant}"));
            }
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
        // A refused CONNECT tells the host alone.
        if text(event, "method") != "CONNECT" {
            self.seen.insert((
                authority(event),
                text(event, "method").to_owned(),
                text(event, "path").to_owned(),
            ));
        }
    }

    fn summary(&self, set: &str) -> String {
        format!(
            "learned: {set} was used {} times and refused {} times; this is enough for it:",
            self.used, self.refused
        )
    }

    fn hosts(&self) -> BTreeSet<&str> {
        self.seen.iter().map(|(host, _, _)| host.as_str()).collect()
    }

    fn methods(&self) -> BTreeSet<&str> {
        self.seen
            .iter()
            .map(|(_, method, _)| method.as_str())
            .collect()
    }

    fn paths(&self) -> BTreeSet<&str> {
        self.seen.iter().map(|(_, _, path)| path.as_str()).collect()
    }

    /// Combinations that the grant allows and nobody tried.
    fn further(&self) -> usize {
        self.hosts().len() * self.methods().len() * self.paths().len() - self.seen.len()
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
        if !self.seen.is_empty() {
            words.extend(["--host".to_owned(), joined(self.hosts())]);
            words.extend(["--method".to_owned(), joined(self.methods())]);
        }
        let paths = self.paths().into_iter();
        words.extend(paths.flat_map(|path| ["--path".to_owned(), quoted(path)]));
        words.join(" ")
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
