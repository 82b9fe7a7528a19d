//! Authorization: a verified lease and a request become a permit, or a denial that says why.

use std::{fmt, net::IpAddr, sync::Arc};

use time::OffsetDateTime;

use crate::{host::Scheme, mint::Binding, scope::Action, verify::VerifiedLease};

/// The request to be decided on.
#[derive(Debug, Clone, Copy)]
pub struct AccessRequest<'a> {
    /// What is to be done.
    pub action: Action,
    /// How the host is reached.
    pub scheme: Scheme,
    /// The canonical host: lower-case A-labels or an address, no final dot.
    pub host: &'a str,
    /// The port.
    pub port: u16,
    /// The method, as it will be sent.
    pub method: &'a str,
    /// The path, as it will be sent: normalised, without the query.
    pub path: &'a str,
    /// The client's address.
    pub client_ip: IpAddr,
}

/// What a limit is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dimension {
    /// The host and its port.
    Host,
    /// The method.
    Method,
    /// The path.
    Path,
    /// The client's address.
    Client,
    /// The time.
    Time,
    /// The key of the set.
    Key,
    /// The action.
    Action,
    /// A check in Datalog whose meaning is not one of the others.
    Other,
}

/// Why a lease does not allow a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    /// The lease, or a block that narrows it, has ended: `lease_expired`.
    #[error("the lease expired at {at}; mint a new one")]
    Expired {
        /// When.
        at: OffsetDateTime,
    },
    /// A block after the authority block does not allow it: `lease_scope`.
    #[error("the lease was narrowed: {detail}")]
    Scope {
        /// The block; the authority block is 0.
        block: usize,
        /// What it limits.
        what: Dimension,
        /// Text for the caller.
        detail: String,
    },
    /// The grant does not allow it: `grant_denied`.
    #[error("{what} is outside the grant (allowed: {allowed}); ask for a grant that includes it")]
    Grant {
        /// What is outside.
        what: Dimension,
        /// What is allowed.
        allowed: String,
    },
    /// The credential would leave without TLS: `plaintext_denied`.
    #[error("a credential is not sent without TLS; use https, or ask for a grant with `cleartext`")]
    Plaintext,
    /// The decision took more work than is allowed. Counted apart: under load it is no fault of the caller.
    #[error("the lease's checks took more work than is allowed")]
    Limits,
}

impl fmt::Display for Dimension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Host => "host",
            Self::Method => "method",
            Self::Path => "path",
            Self::Client => "client",
            Self::Time => "time",
            Self::Key => "key",
            Self::Action => "action",
            Self::Other => "request",
        })
    }
}

/// Proof that this lease allows this request. Only [`authorize`] makes it.
#[derive(Debug, Clone)]
pub struct Permit {
    lease: Arc<VerifiedLease>,
    binding: usize,
    action: Action,
}

impl Permit {
    /// The lease.
    pub const fn lease(&self) -> &Arc<VerifiedLease> {
        &self.lease
    }

    /// The set that serves the request, and its grant.
    pub fn binding(&self) -> &Binding {
        &self.lease.bindings()[self.binding]
    }

    /// What may be done.
    pub const fn action(&self) -> Action {
        self.action
    }
}

/// Decides on a request.
///
/// # Errors
/// [`Denial`].
pub fn authorize(
    lease: &Arc<VerifiedLease>,
    request: &AccessRequest<'_>,
    now: OffsetDateTime,
) -> Result<Permit, Denial> {
    let _ = (lease, request, now);
    unimplemented!()
}

/// Decides at CONNECT whether a host may be reached at all: by host and time only.
///
/// # Errors
/// [`Denial`].
pub fn covers_host<'a>(
    lease: &'a VerifiedLease,
    host: &str,
    port: u16,
    now: OffsetDateTime,
) -> Result<&'a Binding, Denial> {
    let _ = (lease, host, port, now);
    unimplemented!()
}
