//! Biscuit's authorizer over the whole token: the facts of a request, and what comes of its checks.

use std::time::Duration;

use biscuit_auth::{
    AuthorizerBuilder, AuthorizerLimits,
    builder::{BlockBuilder, Fact, Policy, PolicyKind},
    error::{FailedCheck, Logic, Token},
};
use time::OffsetDateTime;

use crate::{
    authorize::{AccessRequest, Denial, Dimension},
    datalog::{date, fact, number, query, text},
    host::without_brackets,
    mint::Binding,
    net,
    verify::VerifiedLease,
    window,
};

/// The limits of an evaluation.
///
/// The facts and the work are bounded before (see [`crate::bounds`]) and there are no rules, so the first two are never
/// met. The time is a last resort, and far above what an evaluation takes, because it is the clock on the wall: the
/// library's own millisecond denies requests on a busy machine.
fn limits() -> AuthorizerLimits {
    AuthorizerLimits {
        max_facts: 2_000,
        max_iterations: 4,
        max_time: Duration::from_millis(250),
    }
}

/// Lets Biscuit decide on a request that the binding would serve.
pub(crate) fn evaluate(
    lease: &VerifiedLease,
    binding: &Binding,
    request: &AccessRequest<'_>,
    now: OffsetDateTime,
) -> Result<(), Denial> {
    let block = BlockBuilder {
        facts: facts(binding, request, now),
        ..BlockBuilder::default()
    };
    let allow = Policy {
        queries: vec![query(vec![], vec![])],
        kind: PolicyKind::Allow,
    };
    let verdict = AuthorizerBuilder::new()
        .merge_block(block)
        .set_limits(limits())
        .policy(allow)
        .and_then(|builder| builder.build(lease.biscuit()))
        .and_then(|mut authorizer| authorizer.authorize());
    match verdict {
        Ok(_) => Ok(()),
        Err(error) => Err(denial(lease, &error)),
    }
}

/// The facts by which checks know a request.
fn facts(binding: &Binding, request: &AccessRequest<'_>, now: OffsetDateTime) -> Vec<Fact> {
    let host = without_brackets(request.host);
    let mut facts = vec![
        fact(
            "time",
            &[date(u64::try_from(now.unix_timestamp()).unwrap_or(0))],
        ),
        fact("set", &[text(binding.set.as_str())]),
        fact("action", &[text(request.action.as_str())]),
        fact("scheme", &[text(request.scheme.as_str())]),
        fact("host", &[text(host)]),
        fact("port", &[number(request.port)]),
        fact("at", &[text(host), number(request.port)]),
        fact("method", &[text(request.method)]),
        fact("path", &[text(request.path)]),
        fact(
            "client_ip",
            &[text(&request.client_ip.to_canonical().to_string())],
        ),
        fact("client_net", &[text(&net::client_bits(request.client_ip))]),
    ];
    // A pattern without a port means the scheme's own, which stands in tokens as 0.
    if request.port == request.scheme.default_port() {
        facts.push(fact("at", &[text(host), number(0)]));
    }
    let minutes = window::minutes(now);
    facts.extend(minutes.map(|(period, minute)| fact("minute", &[number(period), number(minute)])));
    facts
}

fn denial(lease: &VerifiedLease, error: &Token) -> Denial {
    match error {
        Token::RunLimit(_) => Denial::Limits,
        Token::FailedLogic(
            Logic::Unauthorized { checks, .. } | Logic::NoMatchingPolicy { checks },
        ) => failed(checks),
        // A type error, an overflow or a division by zero in a check: the library does not say in which one.
        _ => {
            let blocks = lease.blocks().iter();
            let block = blocks.take_while(|block| block.others.is_empty()).count() + 1;
            scope(block, Dimension::Other, "a check could not be evaluated")
        }
    }
}

/// The oldest block whose check failed.
fn failed(checks: &[FailedCheck]) -> Denial {
    let checks = checks.iter().filter_map(|check| match check {
        FailedCheck::Block(check) => Some(check),
        FailedCheck::Authorizer(_) => None,
    });
    match checks.min_by_key(|check| check.block_id) {
        Some(check) if check.block_id > 0 => {
            scope(check.block_id as usize, dimension(&check.rule), &check.rule)
        }
        // The authority block's checks say what was tested before. Should they differ, the token is right.
        Some(_) | None => Denial::Grant {
            what: Dimension::Other,
            allowed: "what the lease's own checks say".to_owned(),
        },
    }
}

fn scope(block: usize, what: Dimension, check: &str) -> Denial {
    const SHOWN: usize = 200;
    let shown: String = check
        .chars()
        .take(SHOWN)
        .flat_map(char::escape_debug)
        .collect();
    Denial::Scope {
        block,
        what,
        detail: format!(
            "block {block} does not allow it ({shown}); use the lease that it was narrowed from"
        ),
    }
}

/// What a check in Datalog is about, if it names one thing only.
fn dimension(source: &str) -> Dimension {
    let named = [
        (Dimension::Host, &["host(", "at(", "port("][..]),
        (Dimension::Method, &["method("]),
        (Dimension::Path, &["path("]),
        (Dimension::Client, &["client_ip(", "client_net("]),
        (Dimension::Time, &["time(", "minute("]),
        (Dimension::Action, &["action("]),
    ];
    let mut found = named
        .iter()
        .filter(|(_, names)| names.iter().any(|name| source.contains(name)));
    match (found.next(), found.next()) {
        (Some((dimension, _)), None) => *dimension,
        _ => Dimension::Other,
    }
}
