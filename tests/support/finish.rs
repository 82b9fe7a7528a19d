//! The two checks that end every story: the ledger agrees with the upstream, and no secret got out.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::canary::{Canary, Spellings};
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
const UNCERTAIN: &[&str] = &["ambiguous_request", "upstream_timeout"];

/// Method, host and path: what the ledger and the upstream both know of a request.
type Route = (String, String, String);

/// How exactly ledger and upstream have to agree.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Agreement {
    /// Every committed use that was sent is at the upstream, and the other way round.
    Exact,
    /// Nothing may have gone to the upstream; an export is a use that sends nothing.
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

    async fn conclude(mut self, agreement: Agreement) {
        let events = self.settled_events(agreement).await;
        self.reconcile(&events, agreement).await;
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
        let metrics = self.admin().get("/metrics").await.expect_status(200);
        let exported = self
            .admin()
            .get("/v1/audit/export")
            .await
            .expect_status(200);
        let process = self.process().environ_and_cmdline();

        let secrets = Spellings::of(&self.secrets());
        let tokens = Spellings::of(&self.tokens());
        let all = [&secrets, &tokens];
        sweep(
            &[&secrets],
            "what the agents received",
            &self.seen.contents(),
        );
        sweep(&all, "the metrics", &metrics.body);
        sweep(&all, "the audit export", &exported.body);
        sweep(&all, "environment and command line", &process);
        self.sweep_files(&all);
        self.stop().await;
        self.sweep_files(&all);
    }

    fn tokens(&self) -> Vec<Canary> {
        self.tokens.lock().expect("no holder panics").clone()
    }

    /// The data directory with the database and its log, and what the server wrote to its outputs.
    fn sweep_files(&self, all: &[&Spellings]) {
        let mut files = files_below(&self.data);
        files.extend(files_below(self.home.path()).into_iter().filter(|file| {
            file.file_name().is_some_and(|name| {
                let name = name.to_string_lossy();
                name.starts_with("stdout.") || name.starts_with("stderr.")
            })
        }));
        for file in files {
            sweep(
                all,
                &file.display().to_string(),
                &std::fs::read(&file).unwrap_or_default(),
            );
        }
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
            *at_upstream
                .entry((request.method.clone(), host, request.path().to_owned()))
                .or_default() += 1;
        }
        let uses: Vec<&Value> = events
            .iter()
            .filter(|event| is_allowed(event, "lease.use"))
            .collect();
        let mut least: BTreeMap<Route, usize> = BTreeMap::new();
        let mut most: BTreeMap<Route, usize> = BTreeMap::new();
        for event in &uses {
            let sent = if agreement == Agreement::Exact {
                was_sent(event, events)
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
        let outcomes = || {
            events
                .iter()
                .filter(|event| event["action"] == "lease.outcome")
                .collect::<Vec<_>>()
        };
        if let Some(gap) = gap("at the upstream", &at_upstream, "recorded", &most)
            .or_else(|| gap("recorded as sent", &least, "at the upstream", &at_upstream))
        {
            panic!("{gap}; outcomes: {:#?}", outcomes());
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

/// What the outcome of a use says of it.
fn was_sent(event: &Value, events: &[Value]) -> Sent {
    let outcome = events
        .iter()
        .find(|other| other["action"] == "lease.outcome" && other["use_id"] == event["use_id"])
        .unwrap_or_else(|| panic!("a use without an outcome: {event}"));
    match outcome["error"].as_str() {
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
fn sweep(all: &[&Spellings], place: &str, bytes: &[u8]) {
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
