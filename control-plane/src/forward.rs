//! Handing on what this plane may not open to an injector, which may.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use vault::Secret;
use zeroize::Zeroizing;

use crate::AppState;
use crate::auth;
use crate::context::RequestContext;
use crate::error::ApiError;
use crate::held_lease::HeldLease;
use crate::injector::{self, Incoming, MAX_WAIT, Outgoing};
use crate::jwt::Forwarded;
use crate::middleware::collect;
use crate::problem::Code;
use crate::routes::proxy::Proxied;
use crate::routes::proxy::call;
use crate::routes::secrets::open::{self, OpenRow, OpenedRow};

/// The API of an injector: `https://`, host and port. What is opened crosses in its answers, so `http://` is for loopback, or for
/// networks in which the operator allowed cleartext.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InjectorUrl(reqwest::Url);

/// Why a text is no URL of an injector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidInjectorUrl {
    /// It is no URL of scheme, host and port.
    #[error("`{0}` is no URL of an injector's API; write it like https://injector.internal:8181")]
    Malformed(String),
    /// It would send leases and opened values in cleartext beyond this machine.
    #[error(
        "`{0}` would carry leases and secrets in cleartext; put TLS before the injector's API and write https://, or allow it with `server.allow_plaintext_listener`"
    )]
    Cleartext(String),
}

impl InjectorUrl {
    /// Reads a URL without path, query and user; `http://` beyond loopback only where `allow_plaintext` says so.
    ///
    /// # Errors
    /// [`InvalidInjectorUrl`].
    pub fn parse(text: &str, allow_plaintext: bool) -> Result<Self, InvalidInjectorUrl> {
        let url = reqwest::Url::parse(text).ok().filter(|url| {
            matches!(url.scheme(), "http" | "https")
                && url.has_host()
                && url.path() == "/"
                && url.query().is_none()
                && url.fragment().is_none()
                && url.username().is_empty()
                && url.password().is_none()
        });
        // A text with a password in it is not shown.
        let shown = || text.rsplit('@').next().unwrap_or_default().to_owned();
        let url = url.ok_or_else(|| InvalidInjectorUrl::Malformed(shown()))?;
        if url.scheme() == "https" || allow_plaintext || is_loopback(&url) {
            return Ok(Self(url));
        }
        Err(InvalidInjectorUrl::Cleartext(shown()))
    }
}

fn is_loopback(url: &reqwest::Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']');
    let address: Result<IpAddr, _> = address.parse();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// The injectors that are asked, in turn.
#[derive(Debug)]
pub(crate) struct Injectors {
    urls: Vec<InjectorUrl>,
    turn: AtomicUsize,
    http: OnceLock<reqwest::Client>,
}

impl Injectors {
    pub(crate) fn new(urls: Vec<InjectorUrl>) -> Self {
        Self {
            urls,
            turn: AtomicUsize::new(0),
            http: OnceLock::new(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.urls.is_empty()
    }

    /// Fetches something public.
    pub(crate) async fn get(&self, path: &str) -> Result<Response, ApiError> {
        let answer = self.ask(path, reqwest::Client::get).await;
        relay(answer?).await
    }

    /// Asks one after the other until one takes the request. One that took it is not left: what it does may be done once only.
    async fn ask(
        &self,
        path: &str,
        request: impl Fn(&reqwest::Client, reqwest::Url) -> reqwest::RequestBuilder,
    ) -> Result<reqwest::Response, Unasked> {
        let http = self.http().map_err(Unasked::Client)?;
        let first = self.turn.fetch_add(1, Ordering::Relaxed);
        for step in 0..self.urls.len() {
            let InjectorUrl(base) = &self.urls[first.wrapping_add(step) % self.urls.len()];
            let mut url = base.clone();
            url.set_path(path);
            match request(http, url).send().await {
                Ok(answer) => return Ok(answer),
                Err(error) if error.is_connect() => {
                    tracing::warn!(
                        server.address = base.as_str(),
                        "an injector does not answer"
                    );
                }
                Err(error) => return Err(Unasked::Broken(error)),
            }
        }
        Err(Unasked::Nobody)
    }

    fn http(&self) -> Result<&reqwest::Client, ApiError> {
        if let Some(http) = self.http.get() {
            return Ok(http);
        }
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_DEADLINE)
            .timeout(DEADLINE)
            .build()
            .map_err(ApiError::internal)?;
        Ok(self.http.get_or_init(|| http))
    }
}

/// Why no injector answered.
#[derive(Debug)]
enum Unasked {
    /// None takes connections.
    Nobody,
    /// One took the request, and did not answer in full.
    Broken(reqwest::Error),
    /// No question could be made.
    Client(ApiError),
}

impl From<Unasked> for ApiError {
    fn from(unasked: Unasked) -> Self {
        match unasked {
            Unasked::Nobody => unanswered(),
            Unasked::Broken(error) => unanswered().because(error),
            Unasked::Client(error) => error,
        }
    }
}

/// Hands an export on to an injector as it came, and vouches for the address from which it came.
pub(crate) async fn export(
    state: &AppState,
    context: &RequestContext,
    what: Passed<'_>,
) -> Result<Response, ApiError> {
    if state.injectors.is_empty() {
        let detail = "this control plane's key provider lets it seal and not open, and no injector is configured to answer this; set `injector_url`, or send the export to an injector's API";
        return Err(ApiError::new(Code::KeyUnavailable, detail));
    }
    let passed = passed(state, context, what).await?;
    let request = |http: &reqwest::Client, url| {
        let request = http.post(url).headers(passed.clone());
        request.body(what.body.clone())
    };
    let answer = state.injectors.ask(what.path, request).await;
    relay(answer?).await
}

/// Hands a request to a provider on to the API of an injector, for a process that has none.
pub(crate) async fn proxied(
    state: &AppState,
    context: &RequestContext,
    held: &HeldLease,
    outgoing: &Outgoing,
) -> Result<Incoming, ApiError> {
    if state.injectors.is_empty() {
        return Err(injector::unavailable(
            "this process has no injector, and no other one is configured to take requests to providers; set `server.injectors`, or set HTTPS_PROXY to an injector",
        ));
    }
    let body = serde_json::to_vec(&handed_on(outgoing)?).map_err(ApiError::internal)?;
    let body = Bytes::from(body);
    let json = HeaderValue::from_static("application/json");
    let passed = passed(
        state,
        context,
        Passed {
            path: call::PATH,
            lease: Some(held.token()),
            media_type: Some(&json),
            body: &body,
        },
    )
    .await?;
    let request = |http: &reqwest::Client, url| {
        let wait = outgoing.wait.min(MAX_WAIT) + HANDING_ON;
        let request = http.post(url).headers(passed.clone());
        request.body(body.clone()).timeout(wait)
    };
    let answer = state.injectors.ask(call::PATH, request).await;
    let answer = answer.map_err(|unasked| match unasked {
        Unasked::Nobody => injector::unavailable(
            "no injector answers; look at GET /v1/health of the injectors and try again",
        ),
        Unasked::Broken(error) if error.is_timeout() => ApiError::new(
            Code::UpstreamTimeout,
            "the injector did not answer in time, and the request may have been done",
        ),
        Unasked::Broken(error) => ApiError::new(
            Code::UpstreamProtocol,
            "the injector ended the exchange before its answer; look at the audit trail for what was sent",
        )
        .because(error),
        Unasked::Client(error) => error,
    })?;
    let status = answer.status();
    let headers = answer.headers().clone();
    let body = collect(Body::from_stream(answer.bytes_stream()), MAX_ANSWER)
        .await
        .map_err(|_| {
            let detail =
                "the injector's answer broke off; look at the audit trail for what was sent";
            ApiError::new(Code::UpstreamProtocol, detail)
        })?;
    if !status.is_success() {
        return Err(injector::refusal(&headers, &body));
    }
    let told: Proxied = serde_json::from_slice(&body).map_err(ApiError::internal)?;
    told.read()
}

/// Has an injector open a secret whose read was decided, counted and recorded here.
pub(crate) async fn open(
    state: &AppState,
    context: &RequestContext,
    row: &OpenRow,
) -> Result<Secret, ApiError> {
    let body = Bytes::from(serde_json::to_vec(row).map_err(ApiError::internal)?);
    let what = Passed {
        path: open::PATH,
        lease: None,
        media_type: Some(&HeaderValue::from_static("application/json")),
        body: &body,
    };
    let passed = passed(state, context, what).await?;
    let request = |http: &reqwest::Client, url| {
        let request = http.post(url).headers(passed.clone());
        request.body(body.clone())
    };
    let answer = state.injectors.ask(open::PATH, request).await?;
    let (status, headers) = (answer.status(), answer.headers().clone());
    let body = collect(Body::from_stream(answer.bytes_stream()), MAX_ANSWER)
        .await
        .map_err(|_| unanswered())?;
    if !status.is_success() {
        return Err(injector::refusal(&headers, &body));
    }
    let opened: OpenedRow = serde_json::from_slice(&body).map_err(ApiError::internal)?;
    Ok(opened.value)
}

/// Whether a control plane vouches for this request, which has no other credential. Who sent it, and by which id it is known.
pub(crate) fn vouched(
    state: &AppState,
    context: RequestContext,
    path: &str,
    (headers, body): (&HeaderMap, &[u8]),
) -> Result<RequestContext, ApiError> {
    if headers.contains_key(&VOUCHER) {
        return sender(state, context, path, (headers, body));
    }
    Err(auth::unauthenticated())
}

/// A request as [`call`] takes it: what is no text goes as base64.
fn handed_on(outgoing: &Outgoing) -> Result<Value, ApiError> {
    let mut headers: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (name, value) in &outgoing.headers {
        // They came as texts.
        let value = value.to_str().map_err(ApiError::internal)?;
        headers.entry(name.as_str()).or_default().push(value);
    }
    Ok(json!({
        "target": {
            "method": outgoing.method.as_str(),
            "url": outgoing.url.to_string(),
            "headers": headers,
            "body_base64": STANDARD.encode(&outgoing.body),
            "timeout_ms": u64::try_from(outgoing.wait.as_millis()).unwrap_or(u64::MAX),
        },
    }))
}

/// What is handed on, under a lease unless the voucher alone is to speak for it.
#[derive(Clone, Copy)]
pub(crate) struct Passed<'a> {
    pub(crate) path: &'static str,
    pub(crate) lease: Option<&'a str>,
    pub(crate) media_type: Option<&'a HeaderValue>,
    pub(crate) body: &'a Bytes,
}

/// The header fields that go with it: the lease, and the voucher for this one request.
async fn passed(
    state: &AppState,
    context: &RequestContext,
    what: Passed<'_>,
) -> Result<HeaderMap, ApiError> {
    let forwarded = Forwarded {
        request: digest(what.path, what.lease.unwrap_or_default(), what.body),
        client_ip: context.client_ip,
        request_id: Some(context.id.clone()),
    };
    let jwt = &state.minting()?.jwt;
    let voucher = jwt.vouch(forwarded, state.clock.now()).await?;
    let mut passed = HeaderMap::new();
    if let Some(value) = what.media_type {
        passed.insert(header::CONTENT_TYPE, value.clone());
    }
    let bearer = what
        .lease
        .map(|lease| Zeroizing::new(format!("Bearer {lease}")));
    let bearer = bearer
        .as_ref()
        .map(|bearer| (header::AUTHORIZATION, bearer));
    for (name, value) in bearer.into_iter().chain([(VOUCHER, &voucher)]) {
        let mut value = HeaderValue::from_str(value).map_err(ApiError::internal)?;
        value.set_sensitive(true);
        passed.insert(name, value);
    }
    Ok(passed)
}

/// Who sent the request, and by which id it is known: the peer, or whom a control plane vouches for. A voucher that is not good
/// is refused: without it the request would seem to come from the control plane itself.
pub(crate) fn sender(
    state: &AppState,
    context: RequestContext,
    path: &str,
    (headers, body): (&HeaderMap, &[u8]),
) -> Result<RequestContext, ApiError> {
    let Some(voucher) = headers.get(&VOUCHER) else {
        return Ok(context);
    };
    let text = voucher.to_str().ok();
    let now = state.clock.now();
    let request = digest(path, auth::credential(headers).unwrap_or_default(), body);
    let forwarded = text.and_then(|text| state.tokens.take_forwarded(text, &request, now));
    match forwarded {
        Some(forwarded) => Ok(RequestContext {
            id: forwarded.request_id.unwrap_or(context.id),
            client_ip: forwarded.client_ip,
        }),
        None => Err(ApiError::invalid(
            VOUCHER.as_str(),
            "is not a control plane's voucher for this request; leave it out",
        )),
    }
}

/// What a voucher is for: one call, one credential, one body.
fn digest(path: &str, credential: &str, body: &[u8]) -> String {
    let mut hash = Sha256::new();
    for part in [path, credential] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.update(body);
    hex::encode(hash.finalize())
}

/// The injector's answer, in memory that is wiped: it may hold values.
async fn relay(answer: reqwest::Response) -> Result<Response, ApiError> {
    let status = StatusCode::from_u16(answer.status().as_u16()).map_err(ApiError::internal)?;
    let mut headers = HeaderMap::new();
    for name in RELAYED {
        if let Some(value) = answer.headers().get(&name) {
            headers.insert(name, value.clone());
        }
    }
    let body = collect(Body::from_stream(answer.bytes_stream()), MAX_ANSWER)
        .await
        .map_err(|error| unanswered().because(std::io::Error::other(error.detail().to_owned())))?;
    Ok((status, headers, body).into_response())
}

fn unanswered() -> ApiError {
    let detail = "this control plane's key provider lets it seal and not open, and no injector answered for it; look at GET /v1/health of the injectors and try again";
    ApiError::new(Code::KeyUnavailable, detail)
}

const VOUCHER: HeaderName = HeaderName::from_static("claviger-forwarded");
const RELAYED: [HeaderName; 5] = [
    header::CONTENT_TYPE,
    header::CONTENT_DISPOSITION,
    header::RETRY_AFTER,
    header::WWW_AUTHENTICATE,
    HeaderName::from_static("x-request-id"),
];
const CONNECT_DEADLINE: Duration = Duration::from_secs(1);
const DEADLINE: Duration = Duration::from_secs(15);
/// What handing on adds to the time that a provider may take.
const HANDING_ON: Duration = Duration::from_secs(5);
/// A set of many values, each escaped.
const MAX_ANSWER: usize = 32 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_voucher_is_for_one_call_with_one_credential_and_body() {
        let one = digest("/v1/vault/proxy", "clv_a", b"{}");
        for other in [
            digest("/v1/vault/export", "clv_a", b"{}"),
            digest("/v1/vault/proxy", "clv_b", b"{}"),
            digest("/v1/vault/proxy", "clv_a", b""),
            digest("/v1/vault/proxyclv", "_a", b"{}"),
        ] {
            assert_ne!(one, other);
        }
    }

    #[test]
    fn an_injector_is_named_by_scheme_host_and_port() {
        for good in [
            "http://127.0.0.1:8181",
            "http://[::1]:8181",
            "http://localhost:8181",
            "https://injector.internal/",
        ] {
            InjectorUrl::parse(good, false).unwrap();
        }
        for bad in [
            "127.0.0.1:8181",
            "ftp://x",
            "http://x/path",
            "http://x?q",
            "",
        ] {
            let refused = InjectorUrl::parse(bad, true);
            assert!(
                matches!(refused, Err(InvalidInjectorUrl::Malformed(_))),
                "{bad}"
            );
        }
        let error = InjectorUrl::parse("http://user:password@host/path", true).unwrap_err();
        assert!(!error.to_string().contains("password"), "{error}");
    }

    #[test]
    fn cleartext_leaves_the_machine_only_where_it_was_allowed() {
        for url in [
            "http://10.0.0.2:8181",
            "http://injector.internal:8181",
            "http://[fd00::1]:8181",
            "http://localhost.example:8181",
            "http://127.0.0.1.example:8181",
        ] {
            let refused = InjectorUrl::parse(url, false).unwrap_err();
            assert!(refused.to_string().contains("https://"), "{refused}");
            InjectorUrl::parse(url, true).unwrap();
        }
    }
}
