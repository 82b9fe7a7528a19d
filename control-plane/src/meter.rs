//! Requests of an organisation in a month: counted, shown in the answer where there is a limit, and refused above it.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use leases::id::OrgId;
use store::{Standing, requests};
use tokio::sync::watch;

use crate::AppState;
use crate::auth::Caller;
use crate::error::ApiError;

/// 4b. Counts a request of somebody who is known, and refuses it when the month's requests are used up.
///
/// What takes something away, or shows what was done and how the organisation stands, always passes: nobody is to be kept from
/// revoking, nor from the trail.
pub(crate) async fn count(State(state): State<AppState>, request: Request, next: Next) -> Response {
    let Some(org) = request
        .extensions()
        .get::<Caller>()
        .map(|caller| caller.org().clone())
    else {
        return next.run(request).await;
    };
    let must_pass = always_passes(request.method(), request.uri().path());
    let counted = state.store.requests().admit(&org, must_pass).await;
    let standing = match counted {
        Ok(Ok(standing)) => standing,
        Ok(Err(over)) => return refuse(&state, &org, over.into()).await,
        Err(error) => return ApiError::from(error).into_response(),
    };
    let mut response = next.run(request).await;
    if response.headers().contains_key(REPLAYED) {
        state.store.requests().uncount(&org);
    }
    show(response.headers_mut(), standing);
    response
}

async fn refuse(state: &AppState, org: &OrgId, error: ApiError) -> Response {
    let mut response = error.into_response();
    if let Ok(standing) = state.store.requests().standing(org).await {
        show(response.headers_mut(), standing);
    }
    response
}

fn always_passes(method: &Method, path: &str) -> bool {
    let paths = [
        "/v1/identity/kill-switch/",
        "/v1/vault/leases/revoke",
        "/v1/audit/",
        "/v1/vault/audit",
        "/v1/auth/",
        "/v1/security/",
        "/v1/usage",
        "/v1/billing/",
    ];
    *method == Method::DELETE
        || path.ends_with("/decline")
        || path.ends_with("/rotate-key")
        || paths.iter().any(|prefix| path.starts_with(prefix))
}

/// The seeds' fields, where there is a limit.
fn show(headers: &mut HeaderMap, Standing { used, limit }: Standing) {
    let Some(limit) = limit else {
        return;
    };
    let percent = percent(used, limit);
    for (name, number) in [
        ("x-ratelimit-requests-used", used),
        ("x-ratelimit-requests-limit", limit),
        ("x-ratelimit-requests-percent", percent),
    ] {
        headers.insert(name, HeaderValue::from(number));
    }
    if percent > WARN_ABOVE {
        let warning = format!("{percent}% of this month's requests are used");
        if let Ok(warning) = HeaderValue::from_str(&warning) {
            headers.insert("x-quota-warning", warning);
        }
    }
}

/// A whole number, rounded down. Of no requests all are used.
pub(crate) fn percent(used: u64, limit: u64) -> u64 {
    let percent = u128::from(used) * 100 / u128::from(limit.max(1));
    if limit == 0 {
        100
    } else {
        u64::try_from(percent).unwrap_or(u64::MAX)
    }
}

/// Writes what was counted, now and then, until the plane ends. The store's close writes the rest.
pub(crate) async fn flush(state: AppState, mut shutdown: watch::Receiver<bool>) {
    let mut ticks = tokio::time::interval(requests::FLUSH);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            // A sender that is gone means the same.
            _ = shutdown.wait_for(|down| *down) => return,
        }
        if let Err(error) = state.store.requests().flush().await {
            tracing::warn!(error = %error, "the count of requests was not written; it is kept for the next time");
        }
    }
}

const REPLAYED: &str = "idempotency-replayed";
/// As the seeds' service documents it.
const WARN_ABOVE: u64 = 80;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn revoking_and_looking_always_pass() {
        for (method, path) in [
            (Method::DELETE, "/v1/vault/grants/grt_x"),
            (Method::POST, "/v1/vault/leases/revoke"),
            (Method::POST, "/v1/identity/kill-switch/revoke-all"),
            (Method::POST, "/v1/agents/agt_x/rotate-key"),
            (Method::POST, "/v1/shares/shr_x/decline"),
            (Method::GET, "/v1/usage"),
            (Method::GET, "/v1/audit/export"),
        ] {
            assert!(always_passes(&method, path), "{method} {path}");
        }
        for (method, path) in [
            (Method::POST, "/v1/vault/leases"),
            (Method::GET, "/v1/vaults/x/secrets/a"),
            (Method::PUT, "/v1/vaults/x/secrets/a"),
        ] {
            assert!(!always_passes(&method, path), "{method} {path}");
        }
    }

    #[test]
    fn what_is_used_is_told_where_there_is_a_limit_and_warned_of_near_its_end() {
        let shown = |used, limit| {
            let mut headers = HeaderMap::new();
            show(&mut headers, Standing { used, limit });
            headers
        };
        assert!(shown(7, None).is_empty());
        let some = shown(80, Some(100));
        assert_eq!(some["x-ratelimit-requests-used"], "80");
        assert_eq!(some["x-ratelimit-requests-limit"], "100");
        assert_eq!(some["x-ratelimit-requests-percent"], "80");
        assert!(!some.contains_key("x-quota-warning"));
        assert!(shown(81, Some(100)).contains_key("x-quota-warning"));
        assert_eq!(percent(3, 0), 100);
        assert_eq!(percent(u64::MAX, 1), u64::MAX);
    }
}
