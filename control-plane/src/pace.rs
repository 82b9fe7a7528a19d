//! How many requests one address may send, whatever they ask for.

use std::net::IpAddr;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

use crate::auth::source_of;
use crate::context::RequestContext;
use crate::error::ApiError;
use crate::problem::Code;
use crate::{AppState, Limits};

/// Requests of each address; `None` for no limit.
#[derive(Debug)]
pub(crate) struct Pace {
    limiter: Option<DefaultKeyedRateLimiter<IpAddr>>,
    with_loopback: bool,
}

impl Pace {
    pub(crate) fn new(limits: &Limits) -> Self {
        let limiter = limits.requests_per_second.map(|rate| {
            let quota = Quota::per_second(rate).allow_burst(limits.request_burst.max(rate));
            RateLimiter::keyed(quota)
        });
        Self {
            limiter,
            with_loopback: limits.paces_loopback,
        }
    }

    /// Counts a request; the wait once the source has sent too many.
    fn count(&self, source: IpAddr) -> Result<(), Duration> {
        let Some(limiter) = &self.limiter else {
            return Ok(());
        };
        if source.is_loopback() && !self.with_loopback {
            return Ok(());
        }
        if limiter.len() > MAX_SOURCES {
            limiter.retain_recent();
        }
        let allowed = limiter.check_key(&source);
        allowed.map_err(|until| until.wait_time_from(DefaultClock::default().now()))
    }
}

/// 2b. Turns away an address that sends too many requests, before anything is done for it.
///
/// Health is answered all the same: whoever watches it must not take a flood for a failure.
pub(crate) async fn keep(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let context = request.extensions().get::<RequestContext>();
    let source = source_of(context.and_then(|context| context.client_ip));
    if request.uri().path() == "/v1/health" {
        return next.run(request).await;
    }
    match state.pace.count(source) {
        Ok(()) => next.run(request).await,
        Err(wait) => {
            let detail = "too many requests come from this address; wait as long as Retry-After says (the operator's limits.api_requests_per_second)";
            ApiError::new(Code::RateLimited, detail)
                .retry_after(wait)
                .into_response()
        }
    }
}

const MAX_SOURCES: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_burst_of_its_own_and_none_has_a_limit_when_there_is_none() {
        let limits = Limits {
            requests_per_second: 1.try_into().ok(),
            request_burst: 3.try_into().unwrap(),
            ..Limits::default()
        };
        let pace = Pace::new(&limits);
        let one = IpAddr::from([192, 0, 2, 1]);
        assert!((0..3).all(|_| pace.count(one).is_ok()));
        assert!(pace.count(one).unwrap_err() <= Duration::from_secs(1));
        assert!(pace.count(IpAddr::from([192, 0, 2, 2])).is_ok());
        let here = IpAddr::from([127, 0, 0, 1]);
        assert!((0..1000).all(|_| pace.count(here).is_ok()));
        let strict = Pace::new(&Limits {
            paces_loopback: true,
            ..limits.clone()
        });
        assert!((0..4).any(|_| strict.count(here).is_err()));
        let unlimited = Pace::new(&Limits {
            requests_per_second: None,
            ..limits
        });
        assert!((0..1000).all(|_| unlimited.count(one).is_ok()));
    }
}
