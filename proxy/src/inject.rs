//! Step 7, second half: the request as it leaves: the agent's credentials out, ours in.

use bytes::Bytes;
use http::header::{
    ACCEPT_ENCODING, CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, HOST, IF_RANGE, RANGE, REFERER,
};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Uri, Version};
use pingora::http::RequestHeader;
use providers::inject::sigv4::{AgentScope, PayloadHash, Presigned, Signable, StreamedBody};
use providers::inject::{AgentHead, Cookies, HmacRequest, Plan, is_routing_header};
use time::OffsetDateTime;
use zeroize::Zeroizing;

use crate::normalize::{RawTarget, Target, default_port};
use crate::refuse::{Code, Refusal};
use crate::strays::drop_leases;

/// Compressions of messages that a gRPC client takes.
const GRPC_ACCEPT_ENCODING: HeaderName = HeaderName::from_static("grpc-accept-encoding");
/// How many fields `Connection` may name.
const MAX_NOMINATIONS: usize = 8;

/// Refuses a `Connection` field that names a field which we must keep or set (threats.md C9). Others it may name: they
/// end here, as RFC 9110 section 7.6.1 says.
pub(crate) fn check_nominations(headers: &HeaderMap, plan: Option<&Plan>) -> Result<(), Refusal> {
    let mut count = 0;
    for value in headers.get_all(CONNECTION) {
        let named = value.to_str().unwrap_or("\u{0}").split(',').map(str::trim);
        for name in named.filter(|name| !name.is_empty()) {
            count += 1;
            let name = name.to_ascii_lowercase();
            let is_kept = matches!(
                &*name,
                "host" | "content-length" | "content-type" | "transfer-encoding" | "cookie"
            );
            let is_ours = is_unwanted_credential(&name)
                || is_routing_header(&name)
                || plan.is_some_and(|plan| plan.is_slot(&name));
            if is_kept
                || is_ours
                || count > MAX_NOMINATIONS
                || HeaderName::try_from(&*name).is_err()
            {
                return Err(Refusal::new(
                    Code::AmbiguousRequest,
                    "Connection names too many fields, or one that may not be hop-by-hop; send `keep-alive`, `close` or `upgrade` alone",
                ));
            }
        }
    }
    Ok(())
}

/// Refuses a placeholder of ours outside its slot: nothing is put in its place there (threats.md C11).
pub(crate) fn check_placeholders(
    headers: &HeaderMap,
    plan: &Plan,
    target: &Target,
) -> Result<(), Refusal> {
    let host = target.host.as_str();
    let masked = plan.template().mask_path(host, &target.written);
    let head = AgentHead {
        host,
        path: masked.as_deref().unwrap_or(&target.written),
        query: target.query.as_deref(),
        headers,
    };
    plan.check_placeholders(&head)
        .map_err(|misplaced| Refusal::new(Code::AmbiguousRequest, misplaced.to_string()))
}

/// Declares the length of a body that leaves other than it came. Without a declared length the framing says it.
pub(crate) fn set_length(request: &mut RequestHeader, body: &Bytes) {
    if request.headers.contains_key(CONTENT_LENGTH) {
        set(request, CONTENT_LENGTH, HeaderValue::from(body.len()));
    }
}

/// Sets the keyed hashes over the request as it leaves.
pub(crate) fn sign_hmacs(
    request: &mut RequestHeader,
    plan: &Plan,
    target: &Target,
    body: &[u8],
    now: OffsetDateTime,
) {
    if !plan.has_hmacs() {
        return;
    }
    let host = authority(target);
    let signed = plan.hmacs(
        target.host.as_str(),
        &target.path,
        &HmacRequest {
            method: request.method.as_str(),
            host: &host,
            path: request.uri.path(),
            query: request.uri.query(),
            body,
        },
        now,
    );
    for (name, value) in signed {
        set(request, name, value);
    }
}

/// Rewrites the head that goes upstream. `signing` is there for a scheme that signs; what comes back, the body passes.
pub(crate) fn inject(
    request: &mut RequestHeader,
    plan: &Plan,
    target: &Target,
    signing: Option<&(AgentScope, PayloadHash)>,
    is_upgrade: bool,
    now: OffsetDateTime,
) -> Result<Option<StreamedBody>, Refusal> {
    drop_unwanted(request, plan);
    // In the gateway form the lease stood in a slot of the URL's provider, which need not be one of the set's.
    drop_leases(request);
    join_cookies(request);
    set_cookies(request, plan, target);
    let presigned = signing.and_then(|(scope, _)| scope.presigned.as_ref());
    set_target(request, plan, target, presigned)?;
    // A body that could reflect the credential must come readable. `identity` is asked for, and what comes
    // encoded all the same is decoded before it is scanned.
    set(
        request,
        ACCEPT_ENCODING,
        HeaderValue::from_static("identity"),
    );
    if plan.sigv4().is_none() {
        // A slice of a response could carry a part of a reflected credential past the scanner. What SigV4
        // sends cannot be reflected into a credential, and its storage services live on ranges.
        request.remove_header(&RANGE);
        request.remove_header(&IF_RANGE);
    }
    if request.headers.contains_key(GRPC_ACCEPT_ENCODING) {
        // Compressed messages could not be scanned either.
        set(
            request,
            GRPC_ACCEPT_ENCODING,
            HeaderValue::from_static("identity"),
        );
    }
    if is_upgrade {
        // Compressed WebSocket frames could not be scanned.
        request.remove_header("sec-websocket-extensions");
    }
    match (plan.sigv4(), signing) {
        (Some(sigv4), Some((scope, payload))) => {
            let path_and_query = request
                .uri
                .path_and_query()
                .map_or("/", |p| p.as_str())
                .to_owned();
            let host = authority(target);
            let signable = Signable {
                method: request.method.as_str(),
                host: &host,
                path_and_query: &path_and_query,
                headers: &request.headers,
                payload,
            };
            let signed = sigv4
                .sign(&signable, scope, now)
                .map_err(|error| Refusal::new(Code::GrantDenied, error.to_string()))?;
            for (name, value) in signed.headers {
                set(request, name, value);
            }
            return Ok(signed.body);
        }
        (Some(_), None) => {
            return Err(Refusal::new(
                Code::GrantDenied,
                "the request carries no AWS signature to take its scope from",
            ));
        }
        (None, _) => {
            for (name, value) in plan.headers(target.host.as_str(), &target.path) {
                set(request, name.clone(), value.clone());
            }
        }
    }
    Ok(None)
}

/// Takes out what the agent brought in credential slots, in any spelling, cookies that do not pass, and what could route or
/// log it.
fn drop_unwanted(request: &mut RequestHeader, plan: &Plan) {
    let unwanted: Vec<HeaderName> = request
        .headers
        .keys()
        .filter(|name| {
            let name = name.as_str();
            is_unwanted(name) || plan.is_slot(name) || plan.drops_cookie(name)
        })
        .cloned()
        .collect();
    for name in unwanted {
        request.remove_header(&name);
    }
    if plan.has_url_credential() {
        // The next request would carry the URL, and with it what an agent may have put there.
        request.remove_header(&REFERER);
    }
    request.remove_header(&EXPECT);
}

/// Joins the crumbs that HTTP/2 may break Cookie into, which HTTP/1 takes in one field (RFC 9113 section 8.2.3).
fn join_cookies(request: &mut RequestHeader) {
    if request.version == Version::HTTP_2 || request.headers.get_all(COOKIE).iter().nth(1).is_none()
    {
        return;
    }
    let crumbs: Vec<&[u8]> = request
        .headers
        .get_all(COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    let whole = HeaderValue::from_bytes(&crumbs.join(b"; ".as_slice()));
    set(request, COOKIE, whole.expect("made of field values"));
}

/// Puts our cookie in place of the agent's of the same name.
fn set_cookies(request: &mut RequestHeader, plan: &Plan, target: &Target) {
    let fields = request.headers.get_all(COOKIE).iter();
    let fields = fields.map(HeaderValue::as_bytes);
    match plan.rewrite_cookies(target.host.as_str(), &target.path, fields) {
        Cookies::Unchanged => {}
        Cookies::Set(value) => set(request, COOKIE, value),
        Cookies::Removed => {
            request.remove_header(&COOKIE);
        }
    }
}

/// Credentials and routing overrides that no template wants from an agent.
pub(crate) fn is_unwanted(name: &str) -> bool {
    matches!(name, "proxy-connection" | "keep-alive")
        || is_unwanted_credential(name)
        || is_routing_header(name)
}

/// The usual slots of credentials, also spelled with `_`, which some servers read as `-`.
fn is_unwanted_credential(name: &str) -> bool {
    let is_usual = |name: &str| {
        matches!(
            name,
            "authorization" | "proxy-authorization" | "x-api-key" | "api-key"
        )
    };
    is_usual(name) || (name.contains('_') && is_usual(&name.replace('_', "-")))
}

/// Sets the target in origin form, with the query as the plan wants it or without the agent's signature, and one Host.
fn set_target(
    request: &mut RequestHeader,
    plan: &Plan,
    target: &Target,
    presigned: Option<&Presigned>,
) -> Result<(), Refusal> {
    let query = plan.rewrite_query(target.host.as_str(), &target.path, target.query.as_deref());
    let raw = RawTarget::of(request)?;
    // Over HTTP/2 the path stands alone anyway; in HTTP/1 an absolute form must become one.
    let is_as_decided = raw.path == &*target.written
        && (raw.is_origin_form() || request.version == Version::HTTP_2);
    let filled = plan.fill_path(target.host.as_str(), &target.written);
    let query = match (presigned, &query) {
        (Some(presigned), _) => presigned.query.as_deref(),
        (None, Some(rewritten)) => rewritten.as_str(),
        (None, None) if is_as_decided && filled.is_none() => return set_host(request, target),
        (None, None) => target.query.as_deref(),
    };
    let path = filled
        .as_ref()
        .map_or(&*target.written, |path| path.as_str());
    let mark = if query.is_some() { "?" } else { "" };
    // The text may hold a credential, so its memory is zeroized with the last that refers to it.
    let text = Zeroizing::new(
        [path, mark, query.unwrap_or_default()]
            .concat()
            .into_bytes(),
    );
    let text = PathAndQuery::from_maybe_shared(Bytes::from_owner(text)).map_err(|_| malformed())?;
    let mut parts = http::uri::Parts::default();
    parts.path_and_query = Some(text);
    if request.version == Version::HTTP_2 {
        parts.scheme = request.uri.scheme().cloned();
        parts.authority = request.uri.authority().cloned();
    }
    request.set_uri(Uri::from_parts(parts).map_err(|_| malformed())?);
    set_host(request, target)
}

fn set_host(request: &mut RequestHeader, target: &Target) -> Result<(), Refusal> {
    let host = authority(target);
    let same = request
        .headers
        .get(HOST)
        .is_some_and(|value| value.as_bytes() == host.as_bytes());
    if !same {
        let value = HeaderValue::try_from(host).map_err(|_| malformed())?;
        set(request, HOST, value);
    }
    Ok(())
}

/// The authority as Host carries it: without the scheme's own port, IPv6 in brackets.
fn authority(target: &Target) -> String {
    let host = target.host.as_str();
    let host = if host.contains(':') {
        format!("[{host}]")
    } else {
        host.to_owned()
    };
    if target.port == default_port(target.scheme) {
        host
    } else {
        format!("{host}:{}", target.port)
    }
}

fn set(request: &mut RequestHeader, name: HeaderName, value: HeaderValue) {
    request
        .insert_header(name, value)
        .expect("a typed name and value are always accepted");
}

fn malformed() -> Refusal {
    Refusal::new(
        Code::AmbiguousRequest,
        "the request target cannot be forwarded as it is; percent-encode it",
    )
}

#[cfg(test)]
mod tests;
