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
        Err(finding) => report.add("server", finding),
        Ok((health, date)) => {
            report.add("server", server(context, &health));
            for (name, component) in components(&health) {
                report.add(&name, self::component(&component));
            }
            report.add("clock", clock(date));
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

/// The public health document, and the server's time.
async fn health(context: &Context) -> Result<(Value, Option<OffsetDateTime>), Finding> {
    let (base, _) = context
        .connection
        .server()
        .map_err(|failure| broken(&failure.into()))?;
    let gone = |cause: String| {
        Broken(
            format!("no server answers at {base}: {cause}"),
            "start one with `claviger serve`, or set CLAVIGER_URL to one that runs".to_owned(),
        )
    };
    let http = reqwest::Client::builder()
        .no_proxy()
        .timeout(Duration::from_secs(10))
        .build()
        .map_err(|error| gone(error.to_string()))?;
    let response = http
        .get(format!("{base}/v1/health"))
        .send()
        .await
        .map_err(|error| {
            let cause =
                std::iter::successors(std::error::Error::source(&error), |cause| cause.source())
                    .last();
            gone(cause.map_or_else(|| error.to_string(), ToString::to_string))
        })?;
    let date = response
        .headers()
        .get("date")
        .and_then(|date| date.to_str().ok());
    let date =
        date.and_then(|date| OffsetDateTime::parse(&date.replace("GMT", "+0000"), &Rfc2822).ok());
    // A degraded server answers 503 with the same document.
    let document = response
        .json()
        .await
        .map_err(|error| gone(error.to_string()))?;
    Ok((document, date))
}

fn server(context: &Context, health: &Value) -> Finding {
    let base = context
        .connection
        .server()
        .map(|(base, _)| base)
        .unwrap_or_default();
    match text(health, "status") {
        "ok" | "healthy" | "pass" => Fine(base),
        other => Broken(
            format!(
                "{base} says `{}`",
                if other.is_empty() {
                    "nothing of its state"
                } else {
                    other
                }
            ),
            "the parts below say which is degraded".to_owned(),
        ),
    }
}

/// The parts that the health document names: store, ledger, key provider and what comes to be added.
fn components(health: &Value) -> Vec<(String, Value)> {
    let named = ["components", "checks", "dependencies"]
        .iter()
        .find_map(|field| health.get(field)?.as_object());
    named
        .into_iter()
        .flatten()
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

fn component(value: &Value) -> Finding {
    let status = value.as_str().unwrap_or_else(|| text(value, "status"));
    let detail = ["detail", "error", "reason", "provider"]
        .iter()
        .map(|field| text(value, field))
        .find(|text| !text.is_empty());
    let found = detail.map_or_else(
        || status.to_owned(),
        |detail| format!("{status} ({detail})"),
    );
    match status {
        "ok" | "healthy" | "pass" => Fine(found),
        _ => Broken(found, "the server's log has the cause; free disk space and the key directory's mode come first".to_owned()),
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
    let proxy = match injector(client, &context.connection) {
        Ok(proxy) => proxy,
        Err(error) => return broken(&error),
    };
    let door = Door {
        proxy: proxy.clone(),
        ca_pem: String::new(),
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
            "the injector listens beside the API: see the server's ready line".to_owned(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_degraded_part_is_broken_and_a_sound_one_is_fine() {
        assert!(matches!(component(&json!("ok")), Fine(_)));
        assert!(matches!(component(&json!({ "status": "ok" })), Fine(_)));
        assert!(
            matches!(component(&json!({ "status": "unavailable", "detail": "disk full" })), Broken(found, _) if found == "unavailable (disk full)")
        );
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
