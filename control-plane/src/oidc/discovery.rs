//! What is known of providers: asked for when it is needed, kept for a while, and not asked for again and again.

use std::sync::Arc;

use axum::body::Bytes;
use axum::http::{Request, Uri};
use serde::Deserialize;
use thiserror::Error;
use time::{Duration, OffsetDateTime};
use tokio::sync::Semaphore;

use super::Issuer;
use super::keys::{self, Key};
use super::token::Head;
use crate::outbound::{Bounds, Outbound, OutboundError};

/// Why a provider cannot be asked.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum ProviderError {
    /// It did not answer.
    #[error("{issuer} cannot be asked")]
    Silent {
        /// The provider.
        issuer: Issuer,
        /// Why not.
        #[source]
        cause: OutboundError,
    },
    /// What it answers is not what it should be.
    #[error("{issuer} {problem}")]
    Document {
        /// The provider.
        issuer: Issuer,
        /// What is wrong.
        problem: &'static str,
    },
    /// It failed a moment ago.
    #[error("{0} failed less than 30 s ago, and is not asked again yet")]
    Failed(Issuer),
    /// Too many wait for answers of providers.
    #[error("too many wait for identity providers")]
    Busy,
}

/// The providers that were asked for.
pub(crate) struct Providers {
    known: moka::sync::Cache<String, Arc<Known>>,
    places: Semaphore,
}

impl std::fmt::Debug for Providers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Providers").finish_non_exhaustive()
    }
}

/// One of them.
#[derive(Default)]
struct Known {
    /// Held by whoever asks, so that one asks for all.
    turn: tokio::sync::Mutex<()>,
    state: parking_lot::Mutex<State>,
}

#[derive(Default)]
struct State {
    found: Option<(Arc<Provider>, OffsetDateTime)>,
    asked_at: Option<OffsetDateTime>,
}

/// What a provider says of itself.
pub(crate) struct Provider {
    pub(crate) endpoints: Endpoints,
    keys: Vec<Key>,
}

/// Its document (OpenID Connect Discovery 1.0, section 3), as far as it is used.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Endpoints {
    issuer: String,
    jwks_uri: String,
    pub(crate) authorization_endpoint: Option<String>,
    pub(crate) token_endpoint: Option<String>,
    pub(crate) token_endpoint_auth_methods_supported: Option<Vec<String>>,
    /// RFC 9207.
    #[serde(default)]
    pub(crate) authorization_response_iss_parameter_supported: bool,
}

impl Provider {
    /// The key of a token. Without an id only one key may be meant.
    pub(super) fn key(&self, head: &Head) -> Option<&Key> {
        let takes = |key: &&Key| key.takes(head.algorithm);
        let mut fitting = self.keys.iter().filter(takes);
        if let Some(kid) = head.kid.as_deref() {
            return fitting.find(|key| key.kid() == Some(kid));
        }
        let first = fitting.next()?;
        fitting.next().is_none().then_some(first)
    }
}

impl Default for Providers {
    fn default() -> Self {
        Self {
            known: moka::sync::Cache::new(MAX_KNOWN),
            places: Semaphore::new(PLACES),
        }
    }
}

impl Providers {
    /// What is known of a provider, asked for if it is nothing, or old. With the head of a token it is asked again if the key is
    /// not known, at most every 30 s: whoever invents ids of keys keeps nobody busy.
    ///
    /// # Errors
    /// [`ProviderError`].
    pub(crate) async fn get(
        &self,
        outbound: &Outbound,
        issuer: &Issuer,
        head: Option<&Head>,
        now: OffsetDateTime,
    ) -> Result<Arc<Provider>, ProviderError> {
        let known = self
            .known
            .get_with_by_ref(issuer.as_str(), Arc::<Known>::default);
        if let Some(answer) = known.state.lock().answer(issuer, head, now) {
            return answer;
        }
        let _place = self.places.try_acquire().map_err(|_| ProviderError::Busy)?;
        let _turn = known.turn.lock().await;
        if let Some(answer) = known.state.lock().answer(issuer, head, now) {
            return answer;
        }
        let asked = ask(outbound, issuer).await;
        let mut state = known.state.lock();
        state.asked_at = Some(now);
        match asked {
            Ok(provider) => {
                let provider = Arc::new(provider);
                state.found = Some((Arc::clone(&provider), now));
                Ok(provider)
            }
            Err(error) => {
                tracing::warn!(error = %Chain(&error), "an identity provider was asked in vain");
                // What was known stays good for a while, so that a short silence shuts nobody out.
                let kept = state.found.as_ref();
                let kept = kept.filter(|(_, at)| now - *at < STALE);
                kept.map(|(provider, _)| Arc::clone(provider)).ok_or(error)
            }
        }
    }
}

impl State {
    /// What can be said without asking.
    fn answer(
        &self,
        issuer: &Issuer,
        head: Option<&Head>,
        now: OffsetDateTime,
    ) -> Option<Result<Arc<Provider>, ProviderError>> {
        let was_asked = self.asked_at.is_some_and(|at| now - at < RETRY);
        match &self.found {
            Some((provider, at)) if now - *at < STALE => {
                let is_known = head.is_none_or(|head| provider.key(head).is_some());
                let is_fresh = now - *at < FRESH;
                let is_enough = was_asked || is_fresh && is_known;
                is_enough.then(|| Ok(Arc::clone(provider)))
            }
            Some(_) | None => was_asked.then(|| Err(ProviderError::Failed(issuer.clone()))),
        }
    }
}

/// Reads the document of a provider, then its keys.
async fn ask(outbound: &Outbound, issuer: &Issuer) -> Result<Provider, ProviderError> {
    let wrong = |problem| ProviderError::Document {
        issuer: issuer.clone(),
        problem,
    };
    let document = fetch(outbound, issuer, &issuer.document()).await?;
    let endpoints: Endpoints = serde_json::from_slice(&document)
        .map_err(|_| wrong("describes itself by no document of OpenID Connect Discovery"))?;
    // Section 4.3: or one provider could speak for another.
    if endpoints.issuer != issuer.as_str() {
        return Err(wrong("describes itself as another issuer"));
    }
    let document = fetch(outbound, issuer, &endpoints.jwks_uri).await?;
    let keys = keys::read(&document).ok_or_else(|| wrong("publishes no set of keys"))?;
    Ok(Provider { endpoints, keys })
}

async fn fetch(outbound: &Outbound, issuer: &Issuer, url: &str) -> Result<Bytes, ProviderError> {
    let wrong = |problem| ProviderError::Document {
        issuer: issuer.clone(),
        problem,
    };
    let uri: Uri = url
        .parse()
        .map_err(|_| wrong("names a URL that cannot be read"))?;
    let request = Request::get(uri)
        .header("accept", "application/json")
        .body(Bytes::new())
        .map_err(|_| wrong("names a URL that cannot be asked"))?;
    let answer = outbound.send(request, Bounds::default()).await;
    let answer = answer.map_err(|cause| ProviderError::Silent {
        issuer: issuer.clone(),
        cause,
    })?;
    if answer.status() != 200 {
        return Err(wrong("does not answer 200 for its documents"));
    }
    Ok(answer.into_body())
}

/// An error and its causes on one line.
pub(crate) struct Chain<'a>(pub(crate) &'a dyn std::error::Error);

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

/// How long what a provider said is taken as it is: a key that it withdraws is good for so long at most.
const FRESH: Duration = Duration::minutes(10);
/// The same while it cannot be asked.
const STALE: Duration = Duration::hours(1);
/// How long it is left alone after it was asked.
const RETRY: Duration = Duration::seconds(30);
/// Providers that are remembered.
const MAX_KNOWN: u64 = 1_000;
/// Requests that wait for providers at once, so that a slow one does not keep all of the API waiting.
const PLACES: usize = 32;
