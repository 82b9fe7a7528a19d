//! Header names: which are twins of each other, and which never hold a credential.

/// Whether two names are read as one by some server: case does not count, `_` is `-` (as CGI and WSGI see it), and
/// neither counts at the ends (Traefik, CVE-2026-54763).
pub(crate) fn is_twin(a: &str, b: &str) -> bool {
    is_same(trim(a), trim(b))
}

/// [`is_twin`] of trimmed names. Most differ in length, and this is asked of every header of every request.
fn is_same(a: &str, b: &str) -> bool {
    a.len() == b.len() && a.bytes().zip(b.bytes()).all(|(a, b)| plain(a) == plain(b))
}

/// Why a header cannot be a slot, if it cannot.
pub(crate) fn why_never_a_slot(name: &str) -> Option<&'static str> {
    let is = |names: &[&str]| names.iter().any(|other| is_twin(name, other));
    let begins = |prefix: &str| {
        trim(name)
            .bytes()
            .map(plain)
            .take(prefix.len())
            .eq(prefix.bytes())
    };
    if is(&FRAMING)
        || begins("proxy-")
        || begins("content-")
        || begins("accept")
        || begins("sec-")
        || begins("if-")
    {
        return Some("it frames or negotiates the message, or belongs to one hop");
    }
    if is(&["cookie", "set-cookie", "cookie2", "set-cookie2"]) {
        return Some("cookies are many values in one header, some of them the agent's");
    }
    if is_routing_header(name) {
        return Some("some servers route by it");
    }
    begins("claviger-").then_some("it is Claviger's own")
}

/// Whether a request header steers a server's routing behind the back of the policy (`X-Original-URL`,
/// `X-Forwarded-Host`, `X-HTTP-Method-Override`, `Forwarded` …) in any spelling. Such fields are never forwarded.
///
/// oauth2-proxy, CVE-2026-40575, is the usual case.
pub fn is_routing_header(name: &str) -> bool {
    let name = trim(name);
    let begins = name
        .bytes()
        .map(plain)
        .take(FORWARDED.len())
        .eq(FORWARDED.bytes());
    begins || ROUTING.iter().any(|other| is_same(name, other))
}

fn trim(name: &str) -> &str {
    let is_plain = |end: Option<&u8>| !matches!(end, Some(b'-' | b'_'));
    let bytes = name.as_bytes();
    if is_plain(bytes.first()) && is_plain(bytes.last()) {
        return name;
    }
    name.trim_matches(['-', '_'])
}

fn plain(byte: u8) -> u8 {
    if byte == b'_' {
        b'-'
    } else {
        byte.to_ascii_lowercase()
    }
}

const FORWARDED: &str = "x-forwarded";
const ROUTING: [&str; 15] = [
    "forwarded",
    "x-original-url",
    "x-original-uri",
    "x-original-host",
    "x-original-method",
    "x-rewrite-url",
    "x-override-url",
    "x-host",
    "x-http-host-override",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-http-destinationurl",
    "x-real-ip",
    "x-proxyuser-ip",
];
const FRAMING: [&str; 18] = [
    "host",
    "connection",
    "keep-alive",
    "transfer-encoding",
    "te",
    "trailer",
    "upgrade",
    "expect",
    "max-forwards",
    "range",
    "via",
    "date",
    "origin",
    "referer",
    "user-agent",
    "http2-settings",
    "alt-svc",
    "cache-control",
];
