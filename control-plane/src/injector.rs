//! The injector as this plane uses it: a request under a lease goes in, the provider's answer or the injector's refusal comes out.
//!
//! Nothing is injected here. The request is written to the injector of this process over a stream in memory, or handed on to
//! the API of another one ([`crate::forward`]); either way it passes every step of the injector's, which decides on it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri, header};
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use leases::id::AgentId;
use moka::sync::Cache;
use serde::Deserialize;
use tokio::io::DuplexStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use zeroize::Zeroizing;

use crate::AppState;
use crate::context::RequestContext;
use crate::error::ApiError;
use crate::forward;
use crate::held_lease::HeldLease;
use crate::middleware::{MAX_BODY, collect};
use crate::problem::Code;

/// The way into the injector of this process.
pub trait Inject: fmt::Debug + Send + Sync {
    /// Opens a connection for one request in absolute form. The injector takes it for `client`'s, whose address decides on its
    /// grant's networks, and records it as `request_id`. Once the answer has been read, `masked` says how often the credential
    /// stood in it. `None` when it takes no more.
    fn connect(
        &self,
        client: IpAddr,
        request_id: &str,
        masked: &Arc<AtomicUsize>,
    ) -> Option<DuplexStream>;

    /// Where it listens, as `http://127.0.0.1:8182`; the address may be the unspecified one. `None` when nobody can be told.
    fn url(&self) -> Option<String> {
        None
    }
}

/// A request to a provider.
#[derive(Debug, Clone)]
pub(crate) struct Outgoing {
    pub(crate) method: Method,
    /// Absolute, as the caller wrote it.
    pub(crate) url: Uri,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// For how long its answer is waited for; at most [`MAX_WAIT`].
    pub(crate) wait: Duration,
}

/// A provider's answer, without what the injector took out of it.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// How often the credential stood in it, and was masked.
    pub(crate) masked: u64,
}

/// Places of requests that are under way: beside the bound on what is in work at all, so that slow providers leave room for the
/// rest of the API, and one agent for the others.
#[derive(Debug)]
pub(crate) struct Places {
    all: Arc<Semaphore>,
    agents: Cache<AgentId, Arc<Semaphore>>,
}

impl Default for Places {
    fn default() -> Self {
        // Longer than any request, so that nobody is forgotten who has one under way.
        let agents = Cache::builder().time_to_idle(2 * MAX_WAIT);
        Self {
            all: Arc::new(Semaphore::new(MAX_PROXIED)),
            agents: agents.max_capacity(MAX_AGENTS).build(),
        }
    }
}

impl Places {
    /// A place among all and among the agent's own, until it is dropped.
    fn take(&self, agent: &AgentId) -> Option<[OwnedSemaphorePermit; 2]> {
        let fresh = || Arc::new(Semaphore::new(MAX_OF_AGENT));
        let own = self.agents.get_with(agent.clone(), fresh);
        let own = own.try_acquire_owned().ok()?;
        let all = Arc::clone(&self.all).try_acquire_owned().ok()?;
        Some([own, all])
    }
}

/// Sends a request under a lease.
///
/// # Errors
/// The injector's refusal, with its own code; [`Code::AnswerTooLarge`], [`Code::UpstreamTimeout`] and [`Code::UpstreamProtocol`]
/// once the request was sent; [`Code::InjectorUnavailable`] and [`Code::Overloaded`] before.
pub(crate) async fn send(
    state: &AppState,
    context: &RequestContext,
    held: &HeldLease,
    outgoing: Outgoing,
) -> Result<Incoming, ApiError> {
    let Some(_place) = state.places.take(held.lease().agent()) else {
        let detail = "as many requests to providers are under way by this API as it takes at once, of this agent or of all; try again in a second, or send this one through the injector itself";
        return Err(ApiError::new(Code::Overloaded, detail));
    };
    match &state.inject {
        Some(inject) => send_here(inject.as_ref(), context, held, outgoing).await,
        None => forward::proxied(state, context, held, &outgoing).await,
    }
}

/// By the injector of this process.
async fn send_here(
    inject: &dyn Inject,
    context: &RequestContext,
    held: &HeldLease,
    outgoing: Outgoing,
) -> Result<Incoming, ApiError> {
    // An address that is in no network, where there is none.
    let client = context
        .client_ip
        .unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let masked = Arc::default();
    let stream = inject
        .connect(client, &context.id, &masked)
        .ok_or_else(|| unavailable("the injector of this process takes no requests"))?;
    let wait = outgoing.wait.min(MAX_WAIT);
    let exchanged = tokio::time::timeout(wait, exchange(stream, held, outgoing)).await;
    let answer = exchanged.unwrap_or_else(|_| {
        let detail = format!(
            "the provider did not answer in full within {} ms, and the request may have been done; for what takes long set HTTPS_PROXY to the injector",
            wait.as_millis()
        );
        Err(ApiError::new(Code::UpstreamTimeout, detail))
    })?;
    Ok(Incoming {
        masked: masked.load(Ordering::Relaxed) as u64,
        ..answer
    })
}

async fn exchange(
    stream: DuplexStream,
    held: &HeldLease,
    outgoing: Outgoing,
) -> Result<Incoming, ApiError> {
    let broken = |error: hyper::Error| {
        let detail = "the injector ended the exchange before its answer; look at the audit trail for what was sent";
        ApiError::new(Code::UpstreamProtocol, detail).because(error)
    };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    // Ends with this call, so that the injector sees that nobody waits any more.
    let mut driving = JoinSet::new();
    driving.spawn(connection);
    let request = head(held, outgoing)?;
    let answer = sender.send_request(request).await.map_err(broken)?;
    receive(answer).await
}

/// The request as it enters the injector: in absolute form, with the lease where a proxy's credential stands.
fn head(held: &HeldLease, outgoing: Outgoing) -> Result<Request<Full<Bytes>>, ApiError> {
    let mut request = Request::new(Full::new(outgoing.body));
    *request.method_mut() = outgoing.method;
    *request.headers_mut() = outgoing.headers;
    if !request.headers().contains_key(header::HOST) {
        let authority = outgoing.url.authority().map_or("", |name| name.as_str());
        let host = HeaderValue::from_str(authority).map_err(ApiError::internal)?;
        request.headers_mut().insert(header::HOST, host);
    }
    *request.uri_mut() = outgoing.url;
    let bearer = Zeroizing::new(format!("Bearer {}", held.token()));
    let mut bearer = HeaderValue::from_str(&bearer).map_err(ApiError::internal)?;
    bearer.set_sensitive(true);
    request
        .headers_mut()
        .insert(header::PROXY_AUTHORIZATION, bearer);
    Ok(request)
}

/// Tells the injector's own answers from the provider's by a field that it takes out of theirs.
async fn receive(answer: Response<hyper::body::Incoming>) -> Result<Incoming, ApiError> {
    let (parts, body) = answer.into_parts();
    let is_refusal = parts
        .headers
        .get(PROXY_STATUS)
        .is_some_and(|value| value.as_bytes().starts_with(b"claviger;"));
    let body = collect(Body::new(body), MAX_ANSWER)
        .await
        .map_err(|error| unread(&error, parts.status.as_u16()))?;
    if is_refusal {
        return Err(refusal(&parts.headers, &body));
    }
    Ok(Incoming {
        status: parts.status.as_u16(),
        headers: parts.headers,
        body,
        masked: 0,
    })
}

fn unread(error: &ApiError, status: u16) -> ApiError {
    if error.code() == Code::BodyTooLarge {
        let detail = format!(
            "the request was done and the provider answered {status} with more than {MAX_ANSWER} bytes, the bound of this call; for large answers set HTTPS_PROXY to the injector"
        );
        return ApiError::new(Code::AnswerTooLarge, detail);
    }
    let detail = format!(
        "the request was done and the provider answered {status}, and the rest of its answer broke off or was withheld; the audit trail says why"
    );
    ApiError::new(Code::UpstreamProtocol, detail)
}

/// The problem document of an injector (RFC 9457).
#[derive(Debug, Deserialize)]
struct Told {
    error: String,
    detail: String,
    approval_request_id: Option<String>,
    approval_status: Option<String>,
}

/// What an injector refused, in this API's statuses.
pub(crate) fn refusal(headers: &HeaderMap, body: &[u8]) -> ApiError {
    let told: Option<Told> = serde_json::from_slice(body).ok();
    let known = told.and_then(|told| Code::parse(&told.error).map(|code| (code, told)));
    let Some((code, told)) = known else {
        // One that sheds load says no more than that.
        return ApiError::new(
            Code::Overloaded,
            "the injector takes no more at the moment; try again in a second",
        );
    };
    let wait = headers
        .get(header::RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.parse().ok())
        .map(Duration::from_secs);
    let error = ApiError::new(code, told.detail);
    let error = match told.approval_request_id.zip(told.approval_status) {
        Some((id, status)) => error.waits_for(id, status),
        None => error,
    };
    match wait {
        Some(wait) => error.retry_after(wait),
        None => error,
    }
}

pub(crate) fn unavailable(detail: &str) -> ApiError {
    ApiError::new(Code::InjectorUnavailable, detail)
}

/// How long a provider's whole answer may take.
pub(crate) const MAX_WAIT: Duration = Duration::from_mins(1);
/// Bytes of an answer's body.
const MAX_ANSWER: usize = MAX_BODY;
/// Requests to providers under way at once.
const MAX_PROXIED: usize = 64;
/// Those of one agent.
const MAX_OF_AGENT: usize = 32;
/// Agents whose requests are counted at once.
const MAX_AGENTS: u64 = 10_000;
const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_refusal_keeps_its_code_and_what_it_waits_for() {
        let body = json!({"error": "approval_required", "detail": "x", "status": 403,
            "approval_request_id": "apr_1", "approval_status": "pending"});
        let error = refusal(&HeaderMap::new(), body.to_string().as_bytes());
        assert_eq!(error.code(), Code::ApprovalRequired);
        assert_eq!(error.approval(), Some(("apr_1", "pending")));

        let mut headers = HeaderMap::new();
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("7"));
        let body = json!({"error": "rate_limited", "detail": "x"});
        let error = refusal(&headers, body.to_string().as_bytes());
        assert_eq!(error.code(), Code::RateLimited);
    }

    #[test]
    fn an_agent_leaves_places_to_others() {
        let places = Places::default();
        let now = time::macros::datetime!(2026-11-22 07:00 UTC);
        let (one, other) = (AgentId::new(now), AgentId::new(now));
        let held: Vec<_> = (0..MAX_OF_AGENT)
            .map(|_| places.take(&one).unwrap())
            .collect();
        assert!(places.take(&one).is_none());
        let others: Vec<_> = (MAX_OF_AGENT..MAX_PROXIED)
            .map(|_| places.take(&other).unwrap())
            .collect();
        assert!(places.take(&AgentId::new(now)).is_none(), "of all");
        drop((held, others));
        assert!(places.take(&one).is_some());
    }

    #[test]
    fn an_answer_of_the_injector_that_says_nothing_is_its_shedding() {
        for body in ["", "{}", r#"{"error":"no_such_code","detail":"x"}"#] {
            let error = refusal(&HeaderMap::new(), body.as_bytes());
            assert_eq!(error.code(), Code::Overloaded);
        }
    }
}
