//! Requests to providers as calls of this API, for agents that cannot set a proxy: what is asked for, and what comes back.

pub(crate) mod call;
pub(crate) mod explicit;
pub(crate) mod profile;

use std::collections::BTreeMap;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::error::ApiError;
use crate::injector::{Incoming, MAX_WAIT, Outgoing};
use crate::problem::Code;
use crate::text::excerpt;

/// A request to a provider.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct Target {
    /// `GET` when left out.
    pub(crate) method: Option<String>,
    /// Absolute. It is sent as it stands here: what could be read in two ways is refused.
    #[schema(example = "https://api.stripe.com/v1/charges")]
    pub(crate) url: String,
    /// Each a text or a list of texts. Credentials among them are dropped: the injector sets its own.
    #[serde(default)]
    #[schema(value_type = Option<BTreeMap<String, String>>)]
    pub(crate) headers: BTreeMap<String, FieldValues>,
    /// A text is sent as it stands, anything else as JSON.
    #[schema(value_type = Option<Object>)]
    pub(crate) body: Option<Box<RawValue>>,
    /// A body that is no text, instead of `body`.
    pub(crate) body_base64: Option<String>,
    /// For how long the answer is waited for: at most, and by default, 60000.
    pub(crate) timeout_ms: Option<u64>,
}

/// The values of one field.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "expected a text or a list of texts")]
pub(crate) enum FieldValues {
    One(String),
    Many(Vec<String>),
}

impl Target {
    /// The request as it is to be sent. `place` is its field in the call's body, for the refusals.
    pub(crate) fn check(self, place: &str) -> Result<Outgoing, ApiError> {
        let method = self.method.as_deref().unwrap_or("GET");
        let methods = "GET, HEAD, POST, PUT, PATCH, DELETE or OPTIONS";
        let Ok(method) = Method::from_bytes(method.as_bytes()) else {
            let rule = format_args!("must be {methods}, and is {}", excerpt(method));
            return Err(ApiError::invalid(&format!("{place}.method"), rule));
        };
        if method == Method::CONNECT {
            // It would open a tunnel, and no answer could come back by this call.
            let detail = format!("{place}.method: CONNECT is not proxied; use {methods}");
            return Err(ApiError::new(Code::MethodNotAllowed, detail));
        }
        let url = check_url(&self.url, place)?;
        let mut headers = check_headers(self.headers, place)?;
        let body = match (&self.body, &self.body_base64) {
            (Some(_), Some(_)) => {
                return Err(ApiError::invalid(
                    &format!("{place}.body"),
                    "comes beside body_base64; send one of them",
                ));
            }
            (Some(raw), None) => read_body(raw, &mut headers)?,
            (None, Some(text)) => {
                let bytes = STANDARD.decode(text).map_err(|_| {
                    ApiError::invalid(&format!("{place}.body_base64"), "is no base64 (RFC 4648)")
                })?;
                Bytes::from(bytes)
            }
            (None, None) => Bytes::new(),
        };
        let wait = self.timeout_ms.map_or(MAX_WAIT, Duration::from_millis);
        if wait.is_zero() || wait > MAX_WAIT {
            return Err(ApiError::invalid(
                &format!("{place}.timeout_ms"),
                format_args!("must be 1 to {}", MAX_WAIT.as_millis()),
            ));
        }
        Ok(Outgoing {
            method,
            url,
            headers,
            body,
            wait,
        })
    }
}

/// A text stands for itself; any other JSON is sent as it was written.
fn read_body(raw: &RawValue, headers: &mut HeaderMap) -> Result<Bytes, ApiError> {
    if raw.get().starts_with('"') {
        let text: String = serde_json::from_str(raw.get()).map_err(ApiError::internal)?;
        return Ok(Bytes::from(text));
    }
    headers
        .entry(header::CONTENT_TYPE)
        .or_insert(HeaderValue::from_static("application/json"));
    Ok(Bytes::from(raw.get().to_owned()))
}

/// Only what a parser would silently leave out or read otherwise is refused here; the rest is for the injector to judge.
fn check_url(text: &str, place: &str) -> Result<Uri, ApiError> {
    let refuse = |problem: &str| {
        Err(ApiError::new(
            Code::AmbiguousRequest,
            format!("{place}.url {problem}"),
        ))
    };
    if text.contains('#') {
        return refuse("has a fragment, which is never sent; leave it out");
    }
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return refuse("holds characters that must be percent-encoded");
    }
    let Ok(url) = text.parse::<Uri>() else {
        return refuse("is no URL; write it like https://api.example.org/path");
    };
    let is_absolute = matches!(url.scheme_str(), Some("https" | "http"))
        && url
            .authority()
            .is_some_and(|name| !name.as_str().contains('@'));
    if !is_absolute {
        return refuse(
            "must be absolute, begin with https:// and name no user; write it like https://api.example.org/path",
        );
    }
    Ok(url)
}

fn check_headers(
    fields: BTreeMap<String, FieldValues>,
    place: &str,
) -> Result<HeaderMap, ApiError> {
    let mut headers = HeaderMap::new();
    for (name, values) in fields {
        let invalid = |problem: &str| {
            let field = format!("{place}.headers");
            ApiError::invalid(&field, format_args!("{} {problem}", excerpt(&name)))
        };
        let parsed = HeaderName::from_bytes(name.as_bytes());
        let parsed = parsed.map_err(|_| invalid("is no name of a header field"))?;
        if parsed == header::UPGRADE {
            let detail = "this call sends plain requests; a WebSocket goes through the injector itself: set HTTPS_PROXY to it";
            return Err(ApiError::new(Code::UpgradeDenied, detail));
        }
        if FRAMING.contains(&parsed) {
            return Err(ApiError::new(
                Code::AmbiguousRequest,
                format!("{place}.headers: {parsed} is set by the body that is sent; leave it out"),
            ));
        }
        if OURS.contains(&parsed) {
            continue;
        }
        let values = match values {
            FieldValues::One(value) => vec![value],
            FieldValues::Many(values) => values,
        };
        for value in values {
            let value = HeaderValue::from_str(&value)
                .map_err(|_| invalid("has a value that no header field may have"))?;
            headers.append(parsed.clone(), value);
        }
    }
    Ok(headers)
}

/// What the transport says of the body.
const FRAMING: [HeaderName; 3] = [header::TRANSFER_ENCODING, header::TRAILER, header::TE];
/// What this side's own exchange with the injector has in their place.
const OURS: [HeaderName; 3] = [
    header::PROXY_AUTHORIZATION,
    header::CONTENT_LENGTH,
    header::EXPECT,
];

/// A provider's answer, and what was taken out of it.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct Proxied {
    #[serde(flatten)]
    answer: ProxyAnswer,
    /// How often the credential stood in the answer, in any spelling, and was masked.
    #[serde(default)]
    #[schema(required = true)]
    redactions_applied: u64,
}

/// A provider's answer, scrubbed of what the injector put in.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct ProxyAnswer {
    /// The provider's.
    status: u16,
    /// A field that came more than once is joined by commas.
    headers: BTreeMap<String, String>,
    /// A text, or base64 where `body_encoding` says so.
    body: String,
    /// `text` or `base64`.
    body_encoding: BodyEncoding,
}

/// How a body stands in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum BodyEncoding {
    Text,
    Base64,
}

impl From<Incoming> for Proxied {
    fn from(incoming: Incoming) -> Self {
        Self {
            redactions_applied: incoming.masked,
            answer: incoming.into(),
        }
    }
}

impl From<Incoming> for ProxyAnswer {
    fn from(incoming: Incoming) -> Self {
        let mut headers: BTreeMap<String, String> = BTreeMap::new();
        for (name, value) in &incoming.headers {
            if HOP.contains(name) {
                continue;
            }
            let value = String::from_utf8_lossy(value.as_bytes());
            let known = headers.entry(name.as_str().to_owned());
            known
                .and_modify(|known| {
                    known.push_str(", ");
                    known.push_str(&value);
                })
                .or_insert_with(|| value.into_owned());
        }
        let (body, body_encoding) = match std::str::from_utf8(&incoming.body) {
            Ok(text) => (text.to_owned(), BodyEncoding::Text),
            Err(_) => (STANDARD.encode(&incoming.body), BodyEncoding::Base64),
        };
        Self {
            status: incoming.status,
            headers,
            body,
            body_encoding,
        }
    }
}

impl Proxied {
    /// What another process's [`call`] answered.
    pub(crate) fn read(self) -> Result<Incoming, ApiError> {
        let answer = self.answer;
        let mut headers = HeaderMap::new();
        for (name, value) in &answer.headers {
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(ApiError::internal)?;
            let value = HeaderValue::from_str(value).map_err(ApiError::internal)?;
            headers.insert(name, value);
        }
        let body = match answer.body_encoding {
            BodyEncoding::Text => Bytes::from(answer.body),
            BodyEncoding::Base64 => {
                Bytes::from(STANDARD.decode(answer.body).map_err(ApiError::internal)?)
            }
        };
        Ok(Incoming {
            status: answer.status,
            headers,
            body,
            masked: self.redactions_applied,
        })
    }
}

/// Of the exchange with the injector, not with the provider.
const HOP: [HeaderName; 2] = [header::CONNECTION, header::TRANSFER_ENCODING];

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[expect(
        clippy::needless_pass_by_value,
        reason = "the cases are written in place"
    )]
    fn target(value: serde_json::Value) -> Result<Outgoing, Code> {
        let target: Target = crate::json::parse(value.to_string().as_bytes()).unwrap();
        target.check("target").map_err(|error| error.code())
    }

    #[test]
    fn a_request_is_sent_as_it_was_written() {
        let sent = target(json!({"method": "POST", "url": "https://api.stripe.com/v1/a?b=c", "body": {"n": 1.50, "a": [1, null]},
            "headers": {"X-One": "1", "x-two": ["2", "3"], "Content-Length": "999", "proxy-authorization": "Bearer x"}}))
        .unwrap();
        assert_eq!(sent.url, "https://api.stripe.com/v1/a?b=c");
        assert_eq!(sent.headers["content-type"], "application/json");
        assert_eq!(sent.headers.get_all("x-two").iter().count(), 2);
        assert!(!sent.headers.contains_key("content-length"));
        assert!(!sent.headers.contains_key("proxy-authorization"));
        let sent: Target = crate::json::parse(
            br#"{"url":"https://a.example/", "body": {"big": 12345678901234567890123, "n": 1.50}}"#,
        )
        .unwrap();
        let sent = sent.check("target").unwrap();
        assert_eq!(sent.body, r#"{"big": 12345678901234567890123, "n": 1.50}"#);
        assert_eq!(sent.method, Method::GET);
    }

    #[test]
    fn a_text_stands_for_itself_and_base64_for_bytes() {
        let url = "https://a.example/";
        let sent = target(json!({"url": url, "body": "a=b&c=\u{e4}"})).unwrap();
        assert_eq!(sent.body, "a=b&c=\u{e4}");
        assert!(!sent.headers.contains_key("content-type"));
        let sent = target(json!({"url": url, "body_base64": "AP8="})).unwrap();
        assert_eq!(&sent.body[..], [0, 255]);
        for bad in [
            json!({"url": url, "body_base64": "?"}),
            json!({"url": url, "body": "a", "body_base64": "AA=="}),
        ] {
            assert_eq!(target(bad).unwrap_err(), Code::InvalidRequest);
        }
    }

    #[test]
    fn what_a_parser_would_read_otherwise_is_refused() {
        for url in [
            "https://a.example/#x",
            "https://user:pass@a.example/",
            "https://a.example/a b",
            "https://a.example/\u{e4}",
            "https://a.example/\r\nhost: b",
            "ftp://a.example/",
            "//a.example/",
            "/v1/charges",
            "a.example",
            "",
        ] {
            let refused = target(json!({ "url": url })).unwrap_err();
            assert_eq!(refused, Code::AmbiguousRequest, "{url}");
        }
    }

    #[test]
    fn fields_that_frame_switch_or_break_out_are_refused() {
        let with = |headers: serde_json::Value| {
            target(json!({"url": "https://a.example/", "headers": headers})).unwrap_err()
        };
        assert_eq!(
            with(json!({"Transfer-Encoding": "chunked"})),
            Code::AmbiguousRequest
        );
        assert_eq!(with(json!({"Upgrade": "websocket"})), Code::UpgradeDenied);
        for bad in [
            json!({"a b": "x"}),
            json!({"x": "a\r\nb: c"}),
            json!({"": "x"}),
        ] {
            assert_eq!(with(bad), Code::InvalidRequest);
        }
        let method = |method: &str| {
            target(json!({"url": "https://a.example/", "method": method})).unwrap_err()
        };
        assert_eq!(method("CONNECT"), Code::MethodNotAllowed);
        assert_eq!(method("GE T"), Code::InvalidRequest);
        for wait in [0, 60_001] {
            let refused =
                target(json!({"url": "https://a.example/", "timeout_ms": wait})).unwrap_err();
            assert_eq!(refused, Code::InvalidRequest);
        }
    }

    #[test]
    fn an_answer_goes_through_json_and_back() {
        let mut headers = HeaderMap::new();
        headers.append("x-a", HeaderValue::from_static("1"));
        headers.append("x-a", HeaderValue::from_static("2"));
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        for (body, encoding) in [(&b"ok"[..], "text"), (&[0xff, 0][..], "base64")] {
            let answer = Proxied::from(Incoming {
                status: 201,
                headers: headers.clone(),
                body: Bytes::copy_from_slice(body),
                masked: 3,
            });
            let json = serde_json::to_value(&answer).unwrap();
            assert_eq!(json["body_encoding"], encoding);
            assert_eq!(json["headers"], json!({"x-a": "1, 2"}));
            assert_eq!(json["redactions_applied"], 3);
            let back: Proxied = serde_json::from_value(json).unwrap();
            let back = back.read().unwrap();
            assert_eq!((back.status, &back.body[..]), (201, body));
            assert_eq!(back.masked, 3);
        }
    }
}
