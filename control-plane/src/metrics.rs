//! Counters of this plane; every label comes from a closed list.

mod ledger;

use std::time::Duration;

use axum::http::{Method, StatusCode};
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGauge, Opts, Registry};
use store::rotations::Rotation;

use crate::error::ErrorKind;

/// The metrics of the REST API, registered with the process's registry.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    duration: HistogramVec,
    auth_failures: IntCounterVec,
    told: IntCounterVec,
    rotation: RotationMetrics,
    ledger: ledger::LedgerMetrics,
}

impl Metrics {
    /// Registers the API's metrics with `registry`, which the injector shares.
    ///
    /// # Errors
    /// If the registry holds metrics of these names already.
    pub fn new(registry: Registry) -> Result<Self, prometheus::Error> {
        let requests = Opts::new(
            "api_requests_total",
            "REST requests by route, method, status class and error kind.",
        );
        let duration = HistogramOpts::new(
            "api_request_duration_seconds",
            "Seconds from the head of a REST request to the head of its answer.",
        );
        let failures = Opts::new(
            "api_auth_failures_total",
            "Credentials that the REST API refused, by outcome.",
        );
        let told = Opts::new(
            "audit_told_total",
            "Attempts to tell the trail to a webhook or a collector, by receiver and outcome.",
        );
        let metrics = Self {
            told: IntCounterVec::new(told, &["receiver", "outcome"])?,
            requests: IntCounterVec::new(requests, &["route", "method", "status", "kind"])?,
            duration: HistogramVec::new(duration, &["route"])?,
            auth_failures: IntCounterVec::new(failures, &["outcome"])?,
            rotation: RotationMetrics::register(&registry)?,
            ledger: ledger::LedgerMetrics::register(&registry)?,
            registry,
        };
        metrics
            .registry
            .register(Box::new(metrics.requests.clone()))?;
        metrics
            .registry
            .register(Box::new(metrics.duration.clone()))?;
        metrics
            .registry
            .register(Box::new(metrics.auth_failures.clone()))?;
        metrics.registry.register(Box::new(metrics.told.clone()))?;
        Ok(metrics)
    }

    /// Takes over what the ledger counted, for the exposition that follows.
    pub(crate) fn take_ledger(&self, health: &store::ledger::LedgerHealth) {
        self.ledger.take(health);
    }

    /// Takes over how far the rotations that run are.
    pub(crate) fn rotations(&self, running: &[Rotation]) {
        let sum = |of: fn(&Rotation) -> u64| {
            let sum = running.iter().map(of).sum::<u64>();
            i64::try_from(sum).unwrap_or(i64::MAX)
        };
        self.rotation.state.set(i64::from(!running.is_empty()));
        self.rotation.done.set(sum(|one| one.done.min(one.total)));
        self.rotation.total.set(sum(|one| one.total));
    }

    /// Takes over how many seals a rotation that has ended left out.
    pub(crate) fn rotation_ended(&self, ended: &Rotation) {
        let skipped = i64::try_from(ended.skipped).unwrap_or(i64::MAX);
        self.rotation.skipped.set(skipped);
    }

    /// The registry, for the exposition.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    pub(crate) fn answered(
        &self,
        route: &str,
        method: &Method,
        status: StatusCode,
        took: Duration,
    ) {
        let kind = if status.as_u16() < 400 {
            "none"
        } else {
            ErrorKind::of(status).as_str()
        };
        let labels = [route, method_label(method), status_label(status), kind];
        self.requests.with_label_values(&labels).inc();
        self.duration
            .with_label_values(&[route])
            .observe(took.as_secs_f64());
    }

    /// Counts an attempt to tell the trail.
    pub(crate) fn told(&self, receiver: Told, is_delivered: bool) {
        let outcome = if is_delivered { "delivered" } else { "failed" };
        self.told
            .with_label_values(&[receiver.as_str(), outcome])
            .inc();
    }

    pub(crate) fn auth_failed(&self, outcome: AuthOutcome) {
        self.auth_failures
            .with_label_values(&[outcome.as_str()])
            .inc();
    }
}

/// How far rotations of KEKs are.
#[derive(Debug, Clone)]
struct RotationMetrics {
    state: IntGauge,
    done: IntGauge,
    total: IntGauge,
    skipped: IntGauge,
}

impl RotationMetrics {
    fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str| -> Result<IntGauge, prometheus::Error> {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        Ok(Self {
            state: gauge("rotation_state", "1 while a KEK is rotated, else 0.")?,
            done: gauge(
                "rotation_done",
                "Seals that the rotations which run have looked at.",
            )?,
            total: gauge(
                "rotation_total",
                "Seals that the rotations which run began with.",
            )?,
            skipped: gauge(
                "rotation_skipped",
                "Seals that did not open in the last rotation which ended here, and stayed under the old key.",
            )?,
        })
    }
}

/// Whom the trail is told to.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Told {
    Webhook,
    Collector,
}

impl Told {
    fn as_str(self) -> &'static str {
        match self {
            Self::Webhook => "webhook",
            Self::Collector => "otlp",
        }
    }
}

/// What became of a refused credential.
#[derive(Debug, Clone, Copy)]
pub(crate) enum AuthOutcome {
    Refused,
    Limited,
}

impl AuthOutcome {
    fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Limited => "limited",
        }
    }
}

/// A method is the client's text, so an unknown one must not become a label of its own.
fn method_label(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        _ => "other",
    }
}

fn status_label(status: StatusCode) -> &'static str {
    match status.as_u16() / 100 {
        2 => "2xx",
        3 => "3xx",
        4 => "4xx",
        5 => "5xx",
        _ => "other",
    }
}
