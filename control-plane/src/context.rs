//! What is known of a request before anybody looks at its content.

use std::net::{IpAddr, SocketAddr};

use axum::extract::{ConnectInfo, FromRequestParts, Request};
use axum::http::request::Parts;
use leases::clock::{Clock as _, SystemClock};

use crate::error::ApiError;

/// The request's id and where it came from.
#[derive(Debug, Clone)]
pub(crate) struct RequestContext {
    /// A UUID, the `instance` of a problem and the `request_id` of events.
    pub(crate) id: String,
    /// The peer's address; headers that claim another one are not trusted.
    pub(crate) client_ip: Option<IpAddr>,
}

impl RequestContext {
    pub(crate) fn of(request: &Request) -> Self {
        let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
        // `::ffff:127.0.0.1` is 127.0.0.1 to every rule that looks at it.
        Self {
            id: new_id(),
            client_ip: peer.map(|info| info.0.ip().to_canonical()),
        }
    }
}

impl<S: Sync> FromRequestParts<S> for RequestContext {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let known = parts.extensions.get::<Self>().cloned();
        Ok(known.unwrap_or_else(|| Self {
            id: new_id(),
            client_ip: None,
        }))
    }
}

fn new_id() -> String {
    leases::request_id(SystemClock.now())
}

/// Bytes of the operating system's generator.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
    bytes
}
