//! The two checks that end every story: the ledger agrees with the upstream, and no secret got out.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::slice;

use serde_json::Value;

use super::canary::Spellings;
use super::ends::Ends;
use super::fleet::Fleet;
use super::node::Node;
use super::stack::Stack;
use super::wait;

/// Errors of an outcome after which nothing can have reached the upstream.
const UNSENT: &[&str] = &[
    "body_too_large",
    "destination_blocked",
    "grant_denied",
    "key_unavailable",
    "overloaded",
    "upgrade_denied",
    "upstream_connect",
    "upstream_tls",
];

/// Errors of an outcome that leave open whether anything reached the upstream.
const UNCERTAIN: &[&str] = &["ambiguous_request", "too_slow", "upstream_timeout"];

/// The two checks, which every stack and fleet owes its story: one that ends without them fails.
pub(crate) struct Checks {
    are_owed: bool,
}

impl Checks {
    pub(crate) const fn owed() -> Self {
        Self { are_owed: true }
    }

    const fn begin(&mut self) {
        self.are_owed = false;
    }
}

impl Drop for Checks {
    fn drop(&mut self) {
        // A story that has failed before its end says why itself.
        assert!(
            !self.are_owed || std::thread::panicking(),
            "the story ends without its two checks; end it with `finish`"
        );
    }
}

/// Method, host and path: what the ledger and the upstream both know of a request.
type Route = (String, String, String);

/// How exactly ledger and upstream have to agree.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Agreement {
    /// Every committed use that was sent is at the upstream, and the other way round.
    Exact,
    /// Nothing may have gone to the upstream.
    NoTraffic,
    /// After a crash a use may have been committed and not sent; never the other way round.
    NoneUnrecorded,
}

impl Stack {
    /// Ends the story: reconciles, verifies the audit chain, stops the server, and sweeps for leaks.
    pub(crate) async fn finish(self) {
        self.conclude(Agreement::Exact).await;
    }

    /// The same after a crash, when committed uses may have been lost on their way.
    pub(crate) async fn finish_after_crash(self) {
        self.conclude(Agreement::NoneUnrecorded).await;
    }

    /// The same for a story in which secrets are exported and nothing is sent.
    pub(crate) async fn finish_without_traffic(self) {
        self.conclude(Agreement::NoTraffic).await;
    }

    /// The same after the database was put back to an earlier state: records are missing, so nothing can be reconciled,
    /// and the trail says so. What must not leak must not leak here either.
    pub(crate) async fn finish_after_restore(mut self) {
        self.checks.begin();
        let nodes = slice::from_mut(&mut self.node);
        search_for_leaks(&self.ends, nodes).await;
    }

    /// The same after everybody was shut out, so that nobody can ask for the trail: nothing may have gone to
    /// the upstream.
    pub(crate) async fn finish_shut_out(mut self) {
        self.checks.begin();
        let sent = self.credentialed().len();
        assert_eq!(sent, 0, "requests at the upstream");
        let nodes = slice::from_mut(&mut self.node);
        search_this_machine(&self.ends, nodes, &all_spellings(&self.ends)).await;
    }

    /// Makes the checks ahead of the end, which stops the server: for a story that goes on with the data as it lies there.
    pub(crate) async fn check_and_stop(&mut self) {
        self.check(Agreement::Exact).await;
    }

    async fn conclude(mut self, agreement: Agreement) {
        self.check(agreement).await;
    }

    async fn check(&mut self, agreement: Agreement) {
        self.checks.begin();
        let nodes = slice::from_mut(&mut self.node);
        conclude(&self.ends, nodes, agreement).await;
    }
}

impl Fleet<'_> {
    /// Ends the story: reconciles, verifies every audit stream, stops all nodes, and sweeps for leaks.
    pub(crate) async fn finish(self) {
        self.conclude(Agreement::Exact).await;
    }

    /// The same after a crash, when committed uses may have been lost on their way.
    pub(crate) async fn finish_after_crash(self) {
        self.conclude(Agreement::NoneUnrecorded).await;
    }

    async fn conclude(mut self, agreement: Agreement) {
        self.checks.begin();
        let ends = self.ends();
        conclude(&ends, &mut self.nodes, agreement).await;
        let all = all_spellings(&ends);
        for (table, rows) in self.tables() {
            sweep(&all, &format!("the table {table}"), rows.as_bytes());
        }
    }
}

/// The checks that every installation has to pass, with all its nodes up; they are stopped on the way.
async fn conclude(ends: &Ends, nodes: &mut [Node], agreement: Agreement) {
    let events = ends.settled_events(agreement).await;
    ends.reconcile(&events, agreement).await;
    ends.every_stream_verifies().await;
    search_for_leaks(ends, nodes).await;
}

/// Looks for secrets and tokens wherever they must not be, and stops the nodes on the way.
async fn search_for_leaks(ends: &Ends, nodes: &mut [Node]) {
    let all = all_spellings(ends);
    let exported = ends.admin().get("/v1/audit/export").await;
    let exported = exported.expect_status(200);
    sweep(&all, "the audit export", &exported.body);
    for node in &*nodes {
        let metrics = ends.at(node).admin().get("/metrics").await;
        sweep(&all, "the metrics", &metrics.expect_status(200).body);
    }
    search_this_machine(ends, nodes, &all).await;
}

/// The part of the search for which no node is asked.
async fn search_this_machine(ends: &Ends, nodes: &mut [Node], all: &[Spellings; 2]) {
    let [secrets, _] = all;
    let received = ends.seen.contents();
    sweep(
        slice::from_ref(secrets),
        "what the agents received",
        &received,
    );
    for node in &*nodes {
        let process = node.process().environ_and_cmdline();
        sweep(all, "environment and command line", &process);
        sweep_files(ends, node, all);
    }
    for node in &mut *nodes {
        node.stop().await;
        sweep_files(ends, node, all);
    }
}

/// The secrets of the story, and what its holders alone may have.
fn all_spellings(ends: &Ends) -> [Spellings; 2] {
    [
        Spellings::of(&ends.secrets()),
        Spellings::of(&ends.tokens()),
    ]
}

/// The data directory with whatever database is in it, and what the server wrote to its outputs.
fn sweep_files(ends: &Ends, node: &Node, all: &[Spellings]) {
    let mut files = files_below(&node.data);
    let outputs = files_below(ends.home.path()).into_iter().filter(|file| {
        file.file_name().is_some_and(|name| {
            let name = name.to_string_lossy();
            name.starts_with("stdout.") || name.starts_with("stderr.")
        })
    });
    files.extend(outputs.filter(|file| file.parent() == Some(&node.launch.output)));
    for file in files {
        sweep(
            all,
            &file.display().to_string(),
            &std::fs::read(&file).unwrap_or_default(),
        );
    }
}

impl Ends {
    /// Checks the whole trail, each node's stream of it.
    pub(crate) async fn every_stream_verifies(&self) {
        let verified = self
            .admin()
            .get("/v1/audit/verify")
            .await
            .expect_status(200)
            .json();
        assert!(
            verified["first_bad"].is_null(),
            "the audit chain is broken: {verified}"
        );
    }

    /// The audit events once every use has its outcome, as far as it can have one.
    async fn settled_events(&self, agreement: Agreement) -> Vec<Value> {
        if agreement != Agreement::Exact {
            return self.events().await;
        }
        wait::until("an outcome for every use", async || {
            let events = self.events().await;
            let count = |action: &str| {
                events
                    .iter()
                    .filter(|event| is_allowed(event, action))
                    .count()
            };
            (count("lease.outcome") >= count("lease.use")).then_some(events)
        })
        .await
    }

    async fn reconcile(&self, events: &[Value], agreement: Agreement) {
        let mut at_upstream: BTreeMap<Route, usize> = BTreeMap::new();
        for request in self.credentialed() {
            let host = request
                .authority
                .split(':')
                .next()
                .unwrap_or_default()
                .to_owned();
            // The trail names a path with `*` where a credential stands in it.
            let path = self
                .secrets()
                .iter()
                .fold(request.path().to_owned(), |path, secret| {
                    path.replace(secret.text(), "*")
                });
            *at_upstream
                .entry((request.method.clone(), host, path))
                .or_default() += 1;
        }
        let uses: Vec<&Value> = events
            .iter()
            .filter(|event| is_allowed(event, "lease.use"))
            .collect();
        let outcomes = outcomes(events);
        let mut least: BTreeMap<Route, usize> = BTreeMap::new();
        let mut most: BTreeMap<Route, usize> = BTreeMap::new();
        for event in &uses {
            let sent = if event["host"].as_str().is_none_or(str::is_empty) {
                // An export is answered by us.
                Sent::No
            } else if agreement == Agreement::Exact {
                was_sent(event, &outcomes)
            } else {
                Sent::Perhaps
            };
            if sent == Sent::Yes {
                *least.entry(route(event)).or_default() += 1;
            }
            if sent != Sent::No {
                *most.entry(route(event)).or_default() += 1;
            }
        }
        if agreement == Agreement::NoTraffic {
            assert!(at_upstream.is_empty(), "{at_upstream:?}");
        }
        if let Some(gap) = gap("at the upstream", &at_upstream, "recorded", &most)
            .or_else(|| gap("recorded as sent", &least, "at the upstream", &at_upstream))
        {
            panic!("{gap}; outcomes: {:#?}", outcomes.values());
        }
        self.single_use_leases_were_used_once(&uses).await;
    }

    async fn single_use_leases_were_used_once(&self, uses: &[&Value]) {
        let mut by_lease: BTreeMap<&str, usize> = BTreeMap::new();
        for event in uses {
            *by_lease
                .entry(event["lease_id"].as_str().expect("a use names its lease"))
                .or_default() += 1;
        }
        for (lease, count) in by_lease.into_iter().filter(|(_, count)| *count > 1) {
            let shown = self.lease(lease).await;
            assert_ne!(
                shown["kind"], "request",
                "single-use lease {lease} was used {count} times"
            );
        }
    }
}

fn is_allowed(event: &Value, action: &str) -> bool {
    event["action"] == action && event["decision"] != "deny"
}

/// Whether a recorded use has reached the upstream.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sent {
    Yes,
    No,
    Perhaps,
}

/// The outcome of each use, by the use's id.
fn outcomes(events: &[Value]) -> BTreeMap<&str, &Value> {
    let outcomes = events
        .iter()
        .filter(|event| event["action"] == "lease.outcome");
    outcomes
        .filter_map(|event| Some((event["use_id"].as_str()?, event)))
        .collect()
}

/// What the outcome of a use says of it.
fn was_sent(event: &Value, outcomes: &BTreeMap<&str, &Value>) -> Sent {
    let outcome = event["use_id"].as_str().and_then(|id| outcomes.get(id));
    let outcome = outcome.unwrap_or_else(|| panic!("a use without an outcome: {event}"));
    match outcome["error"].as_str() {
        // A live stream was cut: its answer had begun.
        Some("grant_denied") if outcome["status"] == 200 => Sent::Yes,
        Some(error) if UNSENT.contains(&error) => Sent::No,
        Some(error) if UNCERTAIN.contains(&error) => Sent::Perhaps,
        _ => Sent::Yes,
    }
}

/// Says which route stands in `there` less often than in `here`.
fn gap(
    here_name: &str,
    here: &BTreeMap<Route, usize>,
    there_name: &str,
    there: &BTreeMap<Route, usize>,
) -> Option<String> {
    here.iter().find_map(|(route, count)| {
        let other = there.get(route).copied().unwrap_or(0);
        (*count > other).then(|| format!("{route:?}: {count} {here_name}, {other} {there_name}"))
    })
}

fn route(event: &Value) -> Route {
    let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
    (text("method"), text("host"), text("path"))
}

#[track_caller]
fn sweep(all: &[Spellings], place: &str, bytes: &[u8]) {
    for spellings in all {
        if let Some(found) = spellings.find(bytes) {
            panic!("a secret is in {place}: {found}");
        }
    }
}

fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            files.extend(files_below(&path));
        } else {
            files.push(path);
        }
    }
    files
}
