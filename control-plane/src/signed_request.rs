//! Requests that an agent signs itself, as Clawb's clients do.
//!
//! `X-Clawb-Signature` is the Ed25519 signature, in base64, over these lines, joined by line feeds and without one at the end:
//! method, path, `X-Clawb-Timestamp` (milliseconds since the epoch), `X-Clawb-Nonce`, and the body's SHA-256 in lower-case
//! hexadecimal. The path is the one that was sent, without the query and without a prefix `/api`.
//!
//! The signature does not cover the query, so a signed request may have one only where it does no more than select what is
//! read: with GET and HEAD.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::VerifyingKey;
use leases::id::AgentId;
use sha2::{Digest, Sha256};
use store::{Agent, AuthMethod, NonceUse};
use time::OffsetDateTime;

use crate::AppState;
use crate::ed25519;
use crate::error::ApiError;
use crate::problem::Code;
use crate::proof::without_prefix;

/// What a request says of its signature.
#[derive(Debug, PartialEq, Eq)]
struct Claimed {
    agent: AgentId,
    /// As it was sent, and as it is signed.
    timestamp: String,
    at: OffsetDateTime,
    nonce: String,
    signature: [u8; 64],
}

/// Whether a request has any part of a signature: then no other credential counts.
pub(crate) fn is_signed(headers: &HeaderMap) -> bool {
    HEADERS.iter().any(|name| headers.contains_key(*name))
}

/// The agent that signed a request, and the request with its body read; `None` for every signature that is not good.
///
/// The body is read and the signature verified, by whichever key, before the answer depends on whether there is such an agent.
///
/// # Errors
/// What is wrong with a request apart from its signature: a body too large or too slow, a time out of range, a nonce that was
/// used, a query where none may be.
pub(crate) async fn identify(
    state: &AppState,
    request: Request,
) -> Result<Option<(Agent, Request)>, ApiError> {
    let (parts, body) = request.into_parts();
    let Some(claimed) = Claimed::read(&parts.headers) else {
        return Ok(None);
    };
    let now = state.clock.now();
    if (now - claimed.at).unsigned_abs() > SKEW {
        return Err(untimely());
    }
    check_query(&parts)?;
    let body = crate::middleware::read_in_time(body, crate::middleware::MAX_BODY).await?;
    let found = state.store.agents().find_anywhere(&claimed.agent).await?;
    let found = found.filter(|agent| {
        agent.is_live(now) && agent.settings.auth_method == AuthMethod::SignedRequest
    });
    let key = found.as_ref().and_then(|agent| agent.settings.public_key);
    let is_good = claimed.is_signed_by(&key_or_nobodys(key), &parts, &body);
    let Some(agent) = found.filter(|_| is_good && key.is_some()) else {
        return Ok(None);
    };
    claimed.take(state).await?;
    Ok(Some((agent, Request::from_parts(parts, Body::from(body)))))
}

impl Claimed {
    fn read(headers: &HeaderMap) -> Option<Self> {
        let [agent, timestamp, nonce, signature] = HEADERS.map(|name| one(headers, name));
        let (timestamp, nonce) = (timestamp?, nonce?);
        let digits = (1..=MAX_DIGITS).contains(&timestamp.len())
            && timestamp.bytes().all(|byte| byte.is_ascii_digit());
        let is_nonce = (1..=MAX_NONCE).contains(&nonce.len())
            && nonce.bytes().all(|byte| byte.is_ascii_graphic());
        if !digits || !is_nonce || headers.contains_key("authorization") || is_keyed(headers) {
            return None;
        }
        let nanoseconds = timestamp.parse::<i128>().ok()? * 1_000_000;
        Some(Self {
            agent: AgentId::parse(agent?).ok()?,
            timestamp: timestamp.to_owned(),
            at: OffsetDateTime::from_unix_timestamp_nanos(nanoseconds).ok()?,
            nonce: nonce.to_owned(),
            signature: STANDARD.decode(signature?).ok()?.try_into().ok()?,
        })
    }

    fn is_signed_by(&self, key: &VerifyingKey, parts: &Parts, body: &Bytes) -> bool {
        let digest = hex::encode(Sha256::digest(body));
        let (method, path) = (parts.method.as_str(), without_prefix(parts.uri.path()));
        let lines = [method, path, &self.timestamp, &self.nonce, &digest];
        ed25519::verify(key, lines.join("\n").as_bytes(), &self.signature)
    }

    /// Takes the nonce, after the signature was found good: a stranger uses none up.
    async fn take(&self, state: &AppState) -> Result<(), ApiError> {
        let digest = Sha256::new()
            .chain_update("signed request\0")
            .chain_update(self.agent.as_str())
            .chain_update([0])
            .chain_update(&self.nonce);
        let digest = digest.finalize().into();
        let until = self.at + SKEW;
        match state
            .store
            .nonces()
            .take(&self.agent, &digest, until)
            .await?
        {
            NonceUse::Fresh => Ok(()),
            NonceUse::Seen => {
                let detail =
                    "this X-Clawb-Nonce was used before; sign each request with a nonce of its own";
                Err(ApiError::new(Code::ReplayDetected, detail))
            }
            NonceUse::TooMany => {
                let detail = "this agent has sent more signed requests in ten minutes than are kept track of; wait a minute";
                Err(ApiError::new(Code::RateLimited, detail).retry_after(Duration::from_mins(1)))
            }
        }
    }
}

/// The agent's key, or one that belongs to nobody, so that an unknown agent takes the same time.
fn key_or_nobodys(key: Option<[u8; 32]>) -> VerifyingKey {
    let key = key.as_ref().and_then(ed25519::key);
    key.unwrap_or_else(|| {
        ed25519_dalek::SigningKey::from_bytes(&crate::context::random()).verifying_key()
    })
}

/// The one value of a header.
fn one<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

/// Two credentials could name two principals, so two are none.
fn is_keyed(headers: &HeaderMap) -> bool {
    headers.contains_key("x-clawb-api-key")
}

fn check_query(parts: &Parts) -> Result<(), ApiError> {
    let reads = matches!(parts.method, Method::GET | Method::HEAD);
    if reads || parts.uri.query().is_none() {
        return Ok(());
    }
    let rule = "is not covered by the request's signature, so a signed request that changes something has none; put it into the body";
    Err(ApiError::invalid("query", rule))
}

fn untimely() -> ApiError {
    let minutes = SKEW.as_secs() / 60;
    let detail = format!(
        "X-Clawb-Timestamp is more than {minutes} minutes from the server's time; it counts milliseconds since 1970, so set the clock and sign again"
    );
    ApiError::new(Code::TimestampOutOfRange, detail)
}

/// Agent, time, nonce, signature.
const HEADERS: [&str; 4] = [
    "x-clawb-agent-id",
    "x-clawb-timestamp",
    "x-clawb-nonce",
    "x-clawb-signature",
];
/// How far a request's time may be from ours, and so how long its nonce is remembered.
const SKEW: Duration = Duration::from_mins(5);
const MAX_NONCE: usize = 128;
const MAX_DIGITS: usize = 15;
