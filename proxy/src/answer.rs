//! Step 9, first half: the head of a provider's answer. What it says of our connection with it is ours alone.

use http::header::{CONNECTION, SET_COOKIE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version};
use pingora::http::ResponseHeader;
use providers::Plan;

use crate::refuse::{Code, Refusal};

/// What a request that went to the provider asked for beyond an answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked {
    /// To switch to WebSocket.
    pub(crate) upgrade: bool,
    /// For a part of what there is (`Range`), which only requests that SigV4 signs keep.
    pub(crate) part: bool,
}

/// Refuses an answer that cannot be passed on as it is. Its connection is used no more.
pub(crate) fn check(head: &ResponseHeader, asked: Asked) -> Result<(), Refusal> {
    let odd = match head.status {
        StatusCode::SWITCHING_PROTOCOLS if !asked.upgrade => {
            "the provider switched to another protocol that nobody had asked for"
        }
        // A credential that is cut over two parts would be found in neither (threats.md C5).
        StatusCode::PARTIAL_CONTENT if !asked.part => {
            "the provider sent a part where nobody had asked for one"
        }
        _ => return Ok(()),
    };
    Err(Refusal::new(Code::UpstreamProtocol, odd))
}

/// Takes out what is the provider's connection with us and not the agent's (RFC 9110 section 7.6.1), and what the provider
/// says is such.
pub(crate) fn drop_hop_by_hop(head: &mut ResponseHeader) {
    if head.status != StatusCode::SWITCHING_PROTOCOLS {
        for name in nominated(head) {
            head.remove_header(&name);
        }
        for name in [CONNECTION, UPGRADE, TE] {
            head.remove_header(&name);
        }
        if head.version != Version::HTTP_2 {
            // Trailers of HTTP/1 are not passed on.
            head.remove_header(&TRAILER);
        }
    }
    for name in NEVER_PASSED {
        head.remove_header(name);
    }
}

/// Takes out the cookies that the provider sets and the agent does not get (threats.md C20), also of an interim answer.
pub(crate) fn drop_cookies(head: &mut ResponseHeader, plan: &Plan) {
    let Some(kept) = kept_cookies(&head.headers, plan) else {
        return;
    };
    for name in [SET_COOKIE, SET_COOKIE2] {
        head.remove_header(&name);
    }
    for value in kept {
        head.append_header(SET_COOKIE, value)
            .expect("a typed name and value are always accepted");
    }
}

/// The same of trailers, which clients read cookies from as well.
pub(crate) fn drop_trailing_cookies(trailers: &mut HeaderMap, plan: &Plan) {
    let Some(kept) = kept_cookies(trailers, plan) else {
        return;
    };
    for name in [SET_COOKIE, SET_COOKIE2] {
        trailers.remove(&name);
    }
    for value in kept {
        trailers.append(SET_COOKIE, value);
    }
}

/// What is left of Set-Cookie; none if nothing of it, or of its older form, has to go.
fn kept_cookies(fields: &HeaderMap, plan: &Plan) -> Option<Vec<HeaderValue>> {
    let set = fields.get_all(SET_COOKIE);
    let kept = set
        .iter()
        .filter(|value| !plan.drops_set_cookie(value.as_bytes()));
    let kept: Vec<HeaderValue> = kept.cloned().collect();
    // RFC 6265 ended Set-Cookie2, so nobody needs it: it goes wherever a cookie could.
    (kept.len() < set.iter().count() || fields.contains_key(SET_COOKIE2)).then_some(kept)
}

const SET_COOKIE2: HeaderName = HeaderName::from_static("set-cookie2");

/// Also with a switch of protocols: of the provider's own connection, or of what it is to us as a proxy.
const NEVER_PASSED: [&str; 6] = [
    "keep-alive",
    "proxy-authenticate",
    "proxy-authentication-info",
    "proxy-connection",
    "proxy-status",
    "alt-svc",
];

/// The fields that `Connection` names, but for those without which the answer could not be read.
fn nominated(head: &ResponseHeader) -> Vec<HeaderName> {
    head.headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| HeaderName::try_from(name.trim()).ok())
        .filter(|name| !name.as_str().starts_with("content-") && *name != TRANSFER_ENCODING)
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use vault::Secret;

    use super::*;

    fn head(status: u16, fields: &[(&'static str, &str)]) -> ResponseHeader {
        let mut head = ResponseHeader::build(status, None).unwrap();
        for (name, value) in fields {
            head.append_header(*name, *value).unwrap();
        }
        head
    }

    #[test]
    fn an_unasked_switch_or_part_is_no_answer() {
        for status in [101, 206, 200] {
            for (upgrade, part) in [(false, false), (true, false), (false, true)] {
                let passes = match status {
                    101 => upgrade,
                    206 => part,
                    _ => true,
                };
                let checked = check(&head(status, &[]), Asked { upgrade, part });
                let code = checked.err().map(|refusal| refusal.code);
                let expected = (!passes).then_some(Code::UpstreamProtocol);
                assert_eq!(code, expected, "{status} {upgrade} {part}");
            }
        }
    }

    #[test]
    fn what_concerns_the_connection_stays_here() {
        let mut answer = head(
            200,
            &[
                ("connection", "X-Foo, close, content-length"),
                ("x-foo", "1"),
                ("upgrade", "h2c"),
                ("te", "trailers"),
                ("trailer", "x-sum"),
                ("keep-alive", "timeout=9"),
                ("content-length", "3"),
                ("x-kept", "1"),
            ],
        );
        drop_hop_by_hop(&mut answer);
        let left: Vec<&str> = answer.headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(left, ["content-length", "x-kept"]);
    }

    fn plan(cookies: &str) -> Plan {
        let text = format!(
            "name = \"acme\"\nhosts = [\"acme.example\"]\nkeys = {{ K = \"required\" }}\n{cookies}\n[[inject]]\ncookie = \"session\"\nvalue = \"${{K}}\"\n"
        );
        let template = Arc::new(providers::parse_template("acme.toml", &text).unwrap());
        let secret = Arc::new(Secret::from("sk_live_0123456789abcdef".to_owned()));
        let secrets = BTreeMap::from([("K".to_owned(), secret)]);
        Plan::prepare(&template, |_| true, secrets).unwrap()
    }

    #[test]
    fn a_session_that_the_provider_opens_stays_with_it() {
        let fields = [
            ("set-cookie", "session=made; Path=/"),
            ("set-cookie", "theme=dark"),
            ("set-cookie2", "session=made"),
            ("x-kept", "1"),
        ];
        for (cookies, left) in [("cookies = \"drop\"", &[][..]), ("", &["theme=dark"])] {
            let plan = plan(cookies);
            for status in [103, 200] {
                let mut answer = head(status, &fields);
                drop_cookies(&mut answer, &plan);
                let set: Vec<_> = answer.headers.get_all(SET_COOKIE).iter().collect();
                assert_eq!(set, left);
                assert!(!answer.headers.contains_key(SET_COOKIE2));
                assert_eq!(answer.headers["x-kept"], "1");
            }
            let mut trailers = head(200, &fields).headers.clone();
            drop_trailing_cookies(&mut trailers, &plan);
            let set: Vec<_> = trailers.get_all(SET_COOKIE).iter().collect();
            assert_eq!(set, left);
            assert_eq!(trailers.len(), left.len() + 1);
        }
    }
}
