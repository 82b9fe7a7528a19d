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

/// The API of an injector: `http://` or `https://`, host and port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InjectorUrl(reqwest::Url);

/// A text that is no URL of an injector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no URL of an injector's API; write it like http://10.0.0.2:8181")]
pub struct InvalidInjectorUrl(String);

impl InjectorUrl {
    /// Reads a URL without path, query and user.
    ///
    /// # Errors
    /// [`InvalidInjectorUrl`].
    pub fn parse(text: &str) -> Result<Self, InvalidInjectorUrl> {
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
        url.map(Self).ok_or_else(|| {
            InvalidInjectorUrl(text.rsplit('@').next().unwrap_or_default().to_owned())
        })
    }
}

impl std::str::FromStr for InjectorUrl {
    type Err = InvalidInjectorUrl;

    fn from_str(text: &str) -> Result<Self, InvalidInjectorUrl> {
        Self::parse(text)
    }
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
    let forwarded = text.and_then(|text| state.tokens.verify_forwarded(text, now));
    match forwarded {
        Some(forwarded) if forwarded.request == digest(headers, body) => Ok(forwarded.client_ip),
        _ => Err(ApiError::invalid(
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
        for good in ["http://127.0.0.1:8181", "https://injector.internal/"] {
            InjectorUrl::parse(good).unwrap();
        }
        for bad in [
            "127.0.0.1:8181",
            "ftp://x",
            "http://x/path",
            "http://x?q",
            "",
        ] {
            assert!(InjectorUrl::parse(bad).is_err(), "{bad}");
        }
        let error = InjectorUrl::parse("http://user:password@host/path").unwrap_err();
        assert!(!error.to_string().contains("password"), "{error}");
    }
}
