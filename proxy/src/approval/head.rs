//! What of a request's head an approval is bound to: every field that goes on, but for those that change from try to try and
//! ask for nothing. What is not known to be such is bound, so that a field that a provider reads as an order is never left out.

use http::HeaderMap;
use http::header::{CONNECTION, COOKIE};
use providers::inject::sigv4::AgentScope;
use providers::template::Template;
use sha2::{Digest, Sha256};
use store::approvals::{ShownField, ShownHead};

use super::Request;
use crate::aws;
use crate::inject::is_unwanted;
use crate::strays::without_leases;

/// The bytes of a value that a person is shown whole.
const LONGEST_SHOWN: usize = 1024;
/// The bytes of all that are shown of one head. Values beyond are shown by their digests.
const SHOWN: usize = 8 * 1024;
/// The bytes of a name that are shown.
const LONGEST_NAME: usize = 64;

/// A head as an approval is bound to it.
#[derive(Debug)]
pub(super) struct BoundHead {
    pub(super) sha256: [u8; 32],
    pub(super) shown: ShownHead,
}

/// Reads what is bound of a request's head. `template` is known but for a `custom` set, whose slots are bound like other
/// fields: its client sends the same in them each time.
pub(super) fn read(request: &Request<'_>, template: Option<&Template>) -> BoundHead {
    let &Request {
        method,
        target,
        headers,
        body,
    } = request;
    let mut fields = bound_fields(headers, template);
    let scope = AgentScope::read(headers, target.query.as_deref()).ok();
    // Behind an AWS signature its service and region are a part of what is asked for, and our signature repeats them.
    fields.extend(scope.as_ref().map(|scope| {
        let said = format!("{}/{}", scope.region_set, scope.service);
        (AWS_SCOPE.to_owned(), said.into_bytes())
    }));
    let actions = scope.and_then(|scope| {
        let asking = aws::asking(&scope, target, method, headers, body.bytes());
        let actions = asking.actions(true).ok().flatten()?;
        let name = |action: String| format!("{}:{action}", scope.service);
        Some(actions.into_iter().map(name).collect())
    });
    BoundHead {
        sha256: digest(&fields),
        shown: ShownHead {
            actions: actions.unwrap_or_default(),
            fields: show(&fields),
        },
    }
}

/// The fields in order of their names, and of one name as they stand. HTTP/2's crumbs of Cookie are one field.
fn bound_fields(headers: &HeaderMap, template: Option<&Template>) -> Vec<(String, Vec<u8>)> {
    let is_slot = |name: &str| template.is_some_and(|template| template.is_slot(name));
    let mut fields: Vec<(String, Vec<u8>)> = without_leases(headers)
        .into_iter()
        .map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec()))
        .filter(|(name, _)| !(is_unbound(name) || is_unwanted(name) || is_slot(name)))
        .collect();
    fields.extend(nominations(headers));
    fields.sort_by(|a, b| a.0.cmp(&b.0));
    fields.dedup_by(|crumb, cookie| {
        let is_crumb = crumb.0 == COOKIE.as_str() && cookie.0 == COOKIE.as_str();
        if is_crumb {
            cookie.1.extend_from_slice(b"; ");
            cookie.1.append(&mut crumb.1);
        }
        is_crumb
    });
    fields
}

/// What `Connection` names beyond the connection itself: such a field ends here, so naming it changes what goes on.
fn nominations(headers: &HeaderMap) -> Option<(String, Vec<u8>)> {
    let values = headers.get_all(CONNECTION).into_iter();
    let mut named: Vec<Vec<u8>> = values
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(|name| name.trim_ascii().to_ascii_lowercase())
        .filter(|name| !OF_THE_CONNECTION.contains(&name.as_slice()))
        .collect();
    named.sort_unstable();
    (!named.is_empty()).then(|| (CONNECTION.as_str().to_owned(), named.join(&b","[..])))
}

/// Whether a field is not bound although it goes on, or is framing that the body's digest stands for.
fn is_unbound(name: &str) -> bool {
    UNBOUND.contains(&name)
        || UNBOUND_BEGINNINGS
            .iter()
            .any(|start| name.starts_with(start))
}

/// Each part is preceded by its length, so that none can lend to another.
fn digest(fields: &[(String, Vec<u8>)]) -> [u8; 32] {
    let mut digest = Sha256::new();
    for (name, value) in fields {
        for part in [name.as_bytes(), value] {
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part);
        }
    }
    digest.finalize().into()
}

fn show(fields: &[(String, Vec<u8>)]) -> Vec<ShownField> {
    let mut room = SHOWN;
    fields
        .iter()
        .map(|(name, value)| {
            let shown = visible(name, value).filter(|text| text.len() <= room);
            room -= shown.map_or(0, str::len);
            ShownField {
                name: name.chars().take(LONGEST_NAME).collect(),
                value: shown.map(str::to_owned),
                sha256: shown.is_none().then(|| hex::encode(Sha256::digest(value))),
            }
        })
        .collect()
}

/// A value that a person may see, and that looks on a terminal as it is.
fn visible<'v>(name: &str, value: &'v [u8]) -> Option<&'v str> {
    let is_plain = value.iter().all(|byte| matches!(byte, b' '..=b'~'));
    if !is_plain || value.len() > LONGEST_SHOWN || may_name_secret(name, value) {
        return None;
    }
    std::str::from_utf8(value).ok()
}

/// Whether a field's name, or how its value begins, says that it holds a credential.
fn may_name_secret(name: &str, value: &[u8]) -> bool {
    let begins = |scheme: &str| {
        let start = value.get(..scheme.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(scheme.as_bytes()))
    };
    SECRET_WORDS.iter().any(|word| name.contains(word)) || SCHEMES.iter().any(|one| begins(one))
}

/// Not a field's name, so no field is taken for it.
const AWS_SCOPE: &str = "(aws scope)";

/// What `Connection` says of itself.
const OF_THE_CONNECTION: [&[u8]; 5] = [b"", b"close", b"keep-alive", b"te", b"upgrade"];

/// Fields that are not bound, by their exact names: another spelling is.
const UNBOUND: [&str; 40] = [
    // Framing, and what ends here or is set by us. The body is bound by its digest, the host by its own.
    "host",
    "connection",
    "content-length",
    "transfer-encoding",
    "expect",
    "te",
    "accept-encoding",
    "grpc-accept-encoding",
    "grpc-timeout",
    "sec-websocket-key",
    // Who asks, in the words of the library that it uses.
    "user-agent",
    "x-amz-user-agent",
    "x-goog-api-client",
    "x-stripe-client-user-agent",
    "x-stripe-client-telemetry",
    // When it was asked. AWS's date is a part of the signature, which is made anew.
    "date",
    "x-amz-date",
    "x-ms-date",
    // Which try of which call it was.
    "request-id",
    "x-request-id",
    "correlation-id",
    "x-correlation-id",
    "client-request-id",
    "x-client-request-id",
    "x-ms-client-request-id",
    "x-amzn-trace-id",
    "x-cloud-trace-context",
    "traceparent",
    "tracestate",
    "baggage",
    "b3",
    "sentry-trace",
    "uber-trace-id",
    "newrelic",
    "grpc-trace-bin",
    "grpc-tags-bin",
    // A client makes a new one for each call that a program makes, so a repeated call has another. It can make a provider do
    // what was asked once less, never something else: one approval is one send, and an old key gets the old answer.
    "idempotency-key",
    "x-idempotency-key",
    "paypal-request-id",
    "x-goog-gcs-idempotency-token",
];
/// Families of fields that tell of libraries and traces alone.
const UNBOUND_BEGINNINGS: [&str; 4] = ["amz-sdk-", "x-stainless-", "x-b3-", "x-datadog-"];

const SECRET_WORDS: [&str; 9] = [
    "auth",
    "cookie",
    "credential",
    "key",
    "passw",
    "secret",
    "session",
    "signature",
    "token",
];
const SCHEMES: [&str; 4] = ["bearer ", "basic ", "token ", "aws4-"];

#[cfg(test)]
mod tests;
