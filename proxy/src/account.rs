//! Step 10: one log line and one count for each request, and the ids that join them to the audit trail.

use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;

use leases::id::{OrgId, SetId};
use pingora::proxy::Session;
use pingora::{Error, ErrorSource, ErrorType};

use crate::context::RequestContext;
use crate::metrics::Metrics;
use crate::patience::too_slow;
use crate::stream::chunk_error;

/// What keeps the pooled connections of one org apart from every other's.
pub(crate) fn group(org: &OrgId) -> u64 {
    SEED.hash_one(org.as_str())
}

/// What keeps the pooled connections of one version of a set apart, where a connection itself is authenticated.
pub(crate) fn set_group(org: &OrgId, set: &SetId, version: u64) -> u64 {
    SEED.hash_one((org.as_str(), set.as_str(), version))
}

/// The same for connections that end at one address, a proxy of the network, and lead on to several ports.
pub(crate) fn port_group(group: u64, port: u16) -> u64 {
    SEED.hash_one((group, port))
}

static SEED: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// Counts and logs a finished request.
pub(crate) fn finish(
    metrics: &Metrics,
    session: &Session,
    ctx: &RequestContext,
    error: Option<&Error>,
) {
    let seconds = ctx.started.elapsed().as_secs_f64();
    let provider = ctx
        .credential
        .as_ref()
        .map_or("", |c| c.plan.template().name());
    let agent_gone = error.is_some_and(is_agent_gone);
    let outcome = match &ctx.refusal {
        _ if agent_gone => "agent_gone",
        Some(refusal) => refusal.code.kind(),
        None => "forwarded",
    };
    metrics.count(outcome, provider);
    metrics.duration.observe(seconds);
    let reflections = ctx.reflections();
    if reflections > 0 {
        metrics.reflections.inc_by(reflections as u64);
        tracing::warn!(
            request.id = ctx.request_id,
            reflections,
            "masked a reflected credential in an answer"
        );
    }
    if let Some(refusal) = ctx.refusal.as_ref().filter(|r| r.code.kind() == "upstream") {
        metrics
            .upstream_errors
            .with_label_values(&[refusal.code.as_str()])
            .inc();
    }
    log_line(session, ctx, outcome, seconds, error);
}

/// Whether the agent's connection ended before its answer did.
pub(crate) fn is_agent_gone(error: &Error) -> bool {
    *error.esource() == ErrorSource::Downstream
        && matches!(
            error.etype(),
            ErrorType::ConnectionClosed
                | ErrorType::ReadError
                | ErrorType::WriteError
                | ErrorType::WriteTimedout
        )
        && chunk_error(error).is_none()
        && too_slow(error).is_none()
}

fn log_line(
    session: &Session,
    ctx: &RequestContext,
    outcome: &str,
    seconds: f64,
    error: Option<&Error>,
) {
    if !tracing::enabled!(tracing::Level::INFO) {
        return;
    }
    let method = session.req_header().method.as_str();
    let host = ctx
        .target
        .as_ref()
        .map_or("", |target| target.host.as_str());
    let lease = ctx.lease.as_deref();
    let binding = ctx.permit.as_ref().map(leases::authorize::Permit::binding);
    // The cause of an upstream failure names addresses and libraries, never a header.
    let cause = error.map(|error| error.etype().as_str());
    tracing::info!(
        request.id = ctx.request_id.as_str(),
        principal.id = lease.map(|l| l.agent().as_str()),
        lease.id = lease.map(|l| l.lease().as_str()),
        secret_set.id = binding.map(|b| b.set.as_str()),
        provider.name = ctx.credential.as_ref().map(|c| c.plan.template().name()),
        server.address = host,
        http.request.method = method,
        http.response.status_code = ctx.status,
        outcome,
        error.kind = ctx.refusal.as_ref().map(|r| r.code.kind()),
        error.code = ctx.refusal.as_ref().map(|r| r.code.as_str()),
        error.cause = cause,
        duration_ms = seconds * 1000.0,
        "{} {method} {host}{}",
        if ctx.refusal.is_some() {
            "refused"
        } else {
            outcome
        },
        Reason(ctx),
    );
}

/// `: lease_expired` behind a refusal's line.
struct Reason<'a>(&'a RequestContext);

impl std::fmt::Display for Reason<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0.refusal {
            Some(refusal) => write!(f, ": {}", refusal.code.as_str()),
            None => Ok(()),
        }
    }
}
