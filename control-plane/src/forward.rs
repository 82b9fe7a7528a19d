//! Handing on what this plane may not open to an injector, which may.

use std::net::IpAddr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::AppState;
use crate::auth;
use crate::context::RequestContext;
use crate::error::ApiError;
use crate::jwt::Forwarded;
use crate::middleware::collect;
use crate::problem::Code;

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
        self.ask(path, reqwest::Client::get).await
    }

    /// Asks one after the other until one takes the request. One that took it is not left: what it does may be done once only.
    async fn ask(
        &self,
        path: &str,
        request: impl Fn(&reqwest::Client, reqwest::Url) -> reqwest::RequestBuilder,
    ) -> Result<Response, ApiError> {
        let http = self.http()?;
        let first = self.turn.fetch_add(1, Ordering::Relaxed);
        for step in 0..self.urls.len() {
            let InjectorUrl(base) = &self.urls[first.wrapping_add(step) % self.urls.len()];
            let mut url = base.clone();
            url.set_path(path);
            match request(http, url).send().await {
                Ok(answer) => return relay(answer).await,
                Err(error) if error.is_connect() => {
                    tracing::warn!(
                        server.address = base.as_str(),
                        "an injector does not answer"
                    );
                }
                Err(error) => return Err(unanswered().because(error)),
            }
        }
        Err(unanswered())
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

/// Hands an export on to an injector as it came, and vouches for the address from which it came.
pub(crate) async fn export(
    state: &AppState,
    context: &RequestContext,
    headers: &HeaderMap,
    body: &Bytes,
) -> Result<Response, ApiError> {
    if state.injectors.is_empty() {
        let detail = "this control plane's key provider lets it seal and not open, and no injector is configured to answer this; set `injector_url`, or send the export to an injector's API";
        return Err(ApiError::new(Code::KeyUnavailable, detail));
    }
    let forwarded = Forwarded {
        request: digest(headers, body),
        client_ip: context.client_ip,
    };
    let jwt = &state.minting()?.jwt;
    let voucher = jwt.vouch(forwarded, state.clock.now()).await?;
    let mut passed = HeaderMap::new();
    if let Some(value) = headers.get(header::CONTENT_TYPE) {
        passed.insert(header::CONTENT_TYPE, value.clone());
    }
    let lease = auth::credential(headers).unwrap_or_default();
    let bearer = Zeroizing::new(format!("Bearer {lease}"));
    for (name, value) in [(header::AUTHORIZATION, &bearer), (VOUCHER, &voucher)] {
        let mut value = HeaderValue::from_str(value).map_err(ApiError::internal)?;
        value.set_sensitive(true);
        passed.insert(name, value);
    }
    let request =
        |http: &reqwest::Client, url| http.post(url).headers(passed.clone()).body(body.clone());
    state.injectors.ask(EXPORT, request).await
}

/// Who sent the request: the peer, or whom a control plane vouches for. A voucher that is not good is refused: without it the
/// request would seem to come from the control plane itself.
pub(crate) fn sender(
    state: &AppState,
    context: &RequestContext,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Option<IpAddr>, ApiError> {
    let Some(voucher) = headers.get(&VOUCHER) else {
        return Ok(context.client_ip);
    };
    let text = voucher.to_str().ok();
    let now = state.clock.now();
    let request = digest(headers, body);
    let forwarded = text.and_then(|text| state.tokens.take_forwarded(text, &request, now));
    match forwarded {
        Some(forwarded) => Ok(forwarded.client_ip),
        None => Err(ApiError::invalid(
            VOUCHER.as_str(),
            "is not a control plane's voucher for this request; leave it out",
        )),
    }
}

/// What a voucher is for: one credential with one body.
fn digest(headers: &HeaderMap, body: &[u8]) -> String {
    let credential = auth::credential(headers).unwrap_or_default();
    let mut hash = Sha256::new();
    hash.update((credential.len() as u64).to_be_bytes());
    hash.update(credential);
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

const EXPORT: &str = "/v1/vault/export";
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
/// A set of many values, each escaped.
const MAX_ANSWER: usize = 32 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

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
