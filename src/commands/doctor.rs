//! `doctor`: probes what a request needs on its way, and says for each what to do.

use std::time::Duration;

use http::Method;
use leases::clock::{Clock as _, SystemClock};
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

use super::{Context, ca, run::injector};
use crate::client::{Caller, Client, text};
use crate::failure::Failure;
use crate::output::{Output, Tone, clean};
use crate::tunnel::{Call, Door, Place};

/// Probe what a request needs on its way: server, key, store, ledger, key provider, CA, injector, clock, trust
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  claviger doctor")]
pub(crate) struct Args {}

/// What a probe found.
enum Finding {
    Fine(String),
    /// It works, and something should be known or done.
    Note(String, String),
    Broken(String, String),
}

use Finding::{Broken, Fine, Note};

/// Leases are refused beyond this difference of clocks.
const MAX_SKEW: Duration = Duration::from_secs(30);

struct Report {
    output: Output,
    probes: Vec<Value>,
    broken: usize,
}

pub(crate) async fn run(context: &Context, _: &Args) -> anyhow::Result<()> {
    let mut report = Report {
        output: context.output,
        probes: Vec::new(),
        broken: 0,
    };
    report.add("data directory", data_directory(context));
    report.add("trust bundle", trust_bundle());
    report.add("CA certificate", ca_certificate(context).await);
    match health(context).await {
        Err(error) => report.add("server", broken(&error)),
        Ok((health, date)) => {
            report.add("server", server(context, &health));
            for (name, fix) in PARTS {
                report.add(name, part(&health, name, fix));
            }
            report.add("restore", restore(&health));
            report.add("clock skew", clock(date));
            match context.connection.client().await {
                Err(error) => report.add("key", broken(&error)),
                Ok(client) => {
                    report.add("key", key(&client).await);
                    report.add("injector", proxy(context, &client).await);
                }
            }
        }
    }
    report.end()
}

impl Report {
    fn add(&mut self, probe: &str, finding: Finding) {
        let (state, tone, found, fix) = match finding {
            Fine(found) => ("ok", Tone::Good, found, None),
            Note(found, fix) => ("note", Tone::Warn, found, Some(fix)),
            Broken(found, fix) => ("broken", Tone::Bad, found, Some(fix)),
        };
        self.broken += usize::from(state == "broken");
        if !self.output.is_json() {
            let state = self.output.paint(tone, &format!("{state:<6}"));
            self.output
                .say(format!("{state}  {probe:<16} {}", clean(&found)));
            if let Some(fix) = &fix {
                self.output.say(format!(
                    "                         {}",
                    self.output.paint(Tone::Quiet, &clean(fix))
                ));
            }
        }
        self.probes
            .push(json!({ "probe": probe, "state": state, "found": found, "fix": fix }));
    }

    fn end(self) -> anyhow::Result<()> {
        if self.output.is_json() {
            self.output
                .value(&json!({ "ok": self.broken == 0, "probes": self.probes }));
        }
        match self.broken {
            0 => Ok(()),
            broken => Err(
                Failure::new(format!("{broken} of {} probes failed", self.probes.len()))
                    .code("unhealthy")
                    .hint("mend the first one; those after it may follow from it")
                    .into(),
            ),
        }
    }
}

fn broken(error: &anyhow::Error) -> Finding {
    let hint = error
        .downcast_ref::<Failure>()
        .and_then(Failure::next_action)
        .unwrap_or("the server's log has the cause");
    Broken(format!("{error:#}"), hint.to_owned())
}

fn data_directory(context: &Context) -> Finding {
    use std::os::unix::fs::PermissionsExt as _;
    let Ok(data) = context.connection.data_dir() else {
        return Broken(
            "this user has no place for data".to_owned(),
            "name one: --data DIR".to_owned(),
        );
    };
    let path = data.path().display().to_string();
    match std::fs::metadata(data.path()) {
        Err(_) if context.connection.url.is_some() => Fine("none here; the server is elsewhere".to_owned()),
        Err(error) => Note(format!("{path}: {error}"), "`claviger serve` makes it; or name another: --data DIR".to_owned()),
        Ok(found) if found.permissions().mode() & 0o077 != 0 => {
            Broken(format!("{path} is open to others (mode {:04o})", found.permissions().mode() & 0o7777), format!("run `chmod 700 {path}`"))
        }
        Ok(_) => Note(
            path,
            "programs of this user can read it: run agents that you do not trust as another user, or in a container".to_owned(),
        ),
    }
}

fn trust_bundle() -> Finding {
    let found = rustls_native_certs::load_native_certs();
    match (found.certs.len(), found.errors.first()) {
        (0, error) => Broken(
            format!(
                "no roots on this machine{}",
                error.map_or_else(String::new, |error| format!(": {error}"))
            ),
            "install the package ca-certificates".to_owned(),
        ),
        (count, Some(error)) => Note(
            format!("{count} roots; {error}"),
            "reinstall the package ca-certificates".to_owned(),
        ),
        (count, None) => Fine(format!("{count} roots on this machine")),
    }
}

async fn ca_certificate(context: &Context) -> Finding {
    let place = ca::local(&context.connection).map_or_else(
        || "from the server".to_owned(),
        |path| path.display().to_string(),
    );
    match ca::pem(&context.connection).await {
        Err(error) => broken(&error),
        Ok(pem) if CertificateDer::from_pem_slice(pem.as_bytes()).is_err() => Broken(
            format!("{place} holds no certificate"),
            "restart the server; it writes the file anew".to_owned(),
        ),
        Ok(_) => Fine(place),
    }
}

/// The public health document, and the server's time. A degraded server answers 503 with the same document.
async fn health(context: &Context) -> anyhow::Result<(Value, Option<OffsetDateTime>)> {
    let response = context.connection.public("/v1/health").await?;
    let date = response
        .headers()
        .get("date")
        .and_then(|date| date.to_str().ok());
    let date =
        date.and_then(|date| OffsetDateTime::parse(&date.replace("GMT", "+0000"), &Rfc2822).ok());
    Ok((response.json().await.unwrap_or_default(), date))
}

fn server(context: &Context, health: &Value) -> Finding {
    let base = context
        .connection
        .server()
        .map(|(base, _)| base)
        .unwrap_or_default();
    match text(health, "status") {
        "ok" => Fine(base),
        "degraded" => Note(
            format!("{base} says it is degraded"),
            "the parts below say which".to_owned(),
        ),
        _ => Broken(
            format!("{base} answers, and is no Claviger server"),
            "set CLAVIGER_URL to the API's address".to_owned(),
        ),
    }
}

/// The parts that the server looks after. Each is fine unless the health document names it.
const PARTS: [(&str, &str); 4] = [
    (
        "store",
        "look at the server's log; free space on its disk, and check that the database's file is its own",
    ),
    (
        "ledger",
        "look at the server's log; nothing is injected until uses can be recorded: free space on its disk",
    ),
    (
        "keys",
        "the key provider does not answer: check the modes of DIR/keys and its files",
    ),
    ("clock", "the machine's clock went back: set it by NTP"),
];

/// Whether the server began an epoch when it started, and what is left to do by hand.
fn restore(health: &Value) -> Finding {
    match health["restored_to"].as_str() {
        None => Fine("ok".to_owned()),
        Some(time) => Note(
            format!("the database was put back to its state of {}; every lease was revoked", clean(time)),
            "make again what was changed since, above all revocations of agents, grants and keys; then restart the server"
                .to_owned(),
        ),
    }
}

fn part(health: &Value, name: &str, fix: &str) -> Finding {
    let is_degraded = health["degraded"]
        .as_array()
        .into_iter()
        .flatten()
        .any(|part| part == name);
    if is_degraded {
        Broken("degraded".to_owned(), fix.to_owned())
    } else {
        Fine("ok".to_owned())
    }
}

fn clock(server: Option<OffsetDateTime>) -> Finding {
    let Some(server) = server else {
        return Fine("the server does not tell its time".to_owned());
    };
    let skew = (SystemClock.now() - server).unsigned_abs();
    let told = format!("{} s apart", skew.as_secs());
    if skew > MAX_SKEW {
        Broken(
            told,
            "set both clocks by NTP; a lease's times are checked by the server's".to_owned(),
        )
    } else {
        Fine(told)
    }
}

async fn key(client: &Client) -> Finding {
    match client.caller() {
        // Turning the key into a token was the probe.
        Caller::Agent => Fine("an agent's key, accepted".to_owned()),
        Caller::Person => match client.get("/v1/vault/secret-sets?limit=1").await {
            Ok(_) => Fine("accepted".to_owned()),
            Err(error) => broken(&error),
        },
    }
}

/// A CONNECT without a lease: the injector asks for one by 407.
async fn proxy(context: &Context, client: &Client) -> Finding {
    let proxy = match injector(client, &context.connection, None).await {
        Ok(proxy) => proxy,
        Err(error) => return broken(&error),
    };
    let door = Door {
        proxy: proxy.clone(),
        ca_pem: ca::pem(&context.connection).await.unwrap_or_default(),
        lease: String::new(),
    };
    let call = Call {
        method: Method::GET,
        host: "doctor.claviger.invalid",
        port: 443,
        path: "/",
        headers: &[],
        body: "",
    };
    match door.call(&call).await {
        Ok(answer)
            if answer.place == Place::Door
                && answer.status.as_u16() == 407
                && answer.headers.contains_key("proxy-authenticate") =>
        {
            Fine(format!("{proxy} asks for a lease"))
        }
        Ok(answer) => Broken(
            format!(
                "{proxy} answers CONNECT with {}; that is no Claviger injector",
                answer.status
            ),
            "set CLAVIGER_PROXY to the injector's address, not the API's".to_owned(),
        ),
        Err(error) => Broken(
            format!("{error:#}"),
            "set CLAVIGER_PROXY to the injector's address: the server's ready line has it"
                .to_owned(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restore_is_noted_with_its_time_and_what_to_do() {
        let health = json!({ "status": "degraded", "degraded": ["restore"], "restored_to": "2026-11-22T07:00:00.000Z" });
        let Note(found, fix) = restore(&health) else {
            panic!("a note");
        };
        assert!(found.contains("2026-11-22T07:00:00.000Z"), "{found}");
        assert!(
            fix.contains("revocations of agents, grants and keys"),
            "{fix}"
        );
        assert!(matches!(restore(&json!({ "status": "ok" })), Fine(_)));
    }

    #[test]
    fn a_part_is_fine_unless_the_server_names_it_degraded() {
        let health = json!({ "status": "degraded", "degraded": ["ledger"] });
        assert!(matches!(part(&health, "store", "fix"), Fine(_)));
        assert!(matches!(part(&health, "ledger", "fix"), Broken(_, fix) if fix == "fix"));
    }

    #[test]
    fn clocks_may_differ_by_half_a_minute() {
        let now = SystemClock.now();
        assert!(matches!(clock(Some(now)), Fine(_)));
        assert!(matches!(
            clock(Some(now - Duration::from_mins(2))),
            Broken(..)
        ));
    }
}
