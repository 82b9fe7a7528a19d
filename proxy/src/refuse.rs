//! The one exit from any error to the wire: what is refused, why, and what to do next.
//!
//! A refusal is RFC 9457 problem+json with a `Proxy-Status` field (RFC 9209), so that an agent can tell
//! our answer from the provider's. The codes and statuses are the contract's.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use leases::authorize::{Denial, Dimension};
use pingora::http::ResponseHeader;
use serde_json::json;
use store::ledger::UseRefusal;

use crate::chunk::ChunkError;
use crate::head::HeadError;

/// The stable code of a refusal, as in the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    /// No lease came with the request.
    LeaseMissing,
    /// The lease is malformed or forged.
    LeaseInvalid,
    /// The lease, or a child of it, has ended.
    LeaseExpired,
    /// The lease, or a block of it, was revoked.
    LeaseRevoked,
    /// A single-use lease was used before.
    LeaseConsumed,
    /// The holder narrowed the lease, and this request lies outside.
    LeaseScope,
    /// The grant does not allow this request.
    GrantDenied,
    /// The address may not be dialled.
    DestinationBlocked,
    /// A credential would travel in the clear.
    PlaintextDenied,
    /// Only WebSocket upgrades pass.
    UpgradeDenied,
    /// The request can be read in two ways.
    AmbiguousRequest,
    /// Nothing is served under this path of the injector itself.
    NotFound,
    /// The method is not proxied.
    MethodNotAllowed,
    /// The body is larger than the scheme can sign.
    BodyTooLarge,
    /// The request target is too long.
    UriTooLong,
    /// Host, `:authority`, SNI and CONNECT do not name one host.
    AuthorityMismatch,
    /// Too many or too large header fields.
    HeadersTooLarge,
    /// The grant's rate is used up.
    RateLimited,
    /// The upstream could not be reached.
    UpstreamConnect,
    /// The upstream's certificate or handshake was refused.
    UpstreamTls,
    /// The upstream did not speak HTTP as expected.
    UpstreamProtocol,
    /// The upstream did not answer in time.
    UpstreamTimeout,
    /// The agent closed its connection before the end. Never sent: there is nobody to send it to.
    AgentGone,
    /// No durable record can be written, so nothing is forwarded.
    LedgerUnavailable,
    /// The key provider cannot open the credential.
    KeyUnavailable,
    /// More is under way than this process takes on.
    Overloaded,
}

impl Code {
    /// The code as it stands in `error`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::LeaseMissing => "lease_missing",
            Self::LeaseInvalid => "lease_invalid",
            Self::LeaseExpired => "lease_expired",
            Self::LeaseRevoked => "lease_revoked",
            Self::LeaseConsumed => "lease_consumed",
            Self::LeaseScope => "lease_scope",
            Self::GrantDenied => "grant_denied",
            Self::DestinationBlocked => "destination_blocked",
            Self::PlaintextDenied => "plaintext_denied",
            Self::UpgradeDenied => "upgrade_denied",
            Self::AmbiguousRequest => "ambiguous_request",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::BodyTooLarge => "body_too_large",
            Self::UriTooLong => "uri_too_long",
            Self::AuthorityMismatch => "authority_mismatch",
            Self::HeadersTooLarge => "headers_too_large",
            Self::RateLimited => "rate_limited",
            Self::UpstreamConnect => "upstream_connect",
            Self::UpstreamTls => "upstream_tls",
            Self::UpstreamProtocol => "upstream_protocol",
            Self::UpstreamTimeout => "upstream_timeout",
            Self::AgentGone => "agent_gone",
            Self::LedgerUnavailable => "ledger_unavailable",
            Self::KeyUnavailable => "key_unavailable",
            Self::Overloaded => "overloaded",
        }
    }

    /// The status past the door. At the door, a missing or bad lease answers 407, or 401 in the gateway form.
    const fn status(self) -> u16 {
        match self {
            Self::LeaseMissing | Self::LeaseInvalid => 407,
            Self::LeaseExpired
            | Self::LeaseRevoked
            | Self::LeaseConsumed
            | Self::LeaseScope
            | Self::GrantDenied
            | Self::DestinationBlocked
            | Self::PlaintextDenied
            | Self::UpgradeDenied => 403,
            Self::AmbiguousRequest | Self::AgentGone => 400,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::BodyTooLarge => 413,
            Self::UriTooLong => 414,
            Self::AuthorityMismatch => 421,
            Self::HeadersTooLarge => 431,
            Self::RateLimited => 429,
            Self::UpstreamConnect | Self::UpstreamTls | Self::UpstreamProtocol => 502,
            Self::UpstreamTimeout => 504,
            Self::LedgerUnavailable | Self::KeyUnavailable | Self::Overloaded => 503,
        }
    }

    const fn title(self) -> &'static str {
        match self {
            Self::LeaseMissing => "A lease is required",
            Self::LeaseInvalid => "The lease is not valid",
            Self::LeaseExpired => "The lease has expired",
            Self::LeaseRevoked => "The lease was revoked",
            Self::LeaseConsumed => "The lease was already used",
            Self::LeaseScope => "Outside what this lease was narrowed to",
            Self::GrantDenied => "The grant does not allow this",
            Self::DestinationBlocked => "The address may not be reached",
            Self::PlaintextDenied => "No credential over cleartext",
            Self::UpgradeDenied => "This upgrade is not proxied",
            Self::AmbiguousRequest => "The request can be read in two ways",
            Self::NotFound => "Nothing is served here",
            Self::MethodNotAllowed => "The method is not proxied",
            Self::BodyTooLarge => "The body is too large to sign",
            Self::UriTooLong => "The request target is too long",
            Self::AuthorityMismatch => "The request names another host than its tunnel",
            Self::HeadersTooLarge => "The header fields are too large",
            Self::RateLimited => "The grant's rate is used up",
            Self::UpstreamConnect => "The provider cannot be reached",
            Self::UpstreamTls => "The provider's certificate was not accepted",
            Self::UpstreamProtocol => "The provider did not answer with proper HTTP",
            Self::UpstreamTimeout => "The provider did not answer in time",
            Self::AgentGone => "The agent is gone",
            Self::LedgerUnavailable => "No durable record can be written",
            Self::KeyUnavailable => "The credential cannot be opened",
            Self::Overloaded => "The injector is at its limit",
        }
    }

    /// The `error` token of RFC 9209 section 2.3 that comes nearest.
    const fn proxy_status(self) -> &'static str {
        match self {
            Self::UpstreamConnect => "connection_refused",
            Self::UpstreamTls => "tls_certificate_error",
            Self::UpstreamProtocol => "http_protocol_error",
            Self::UpstreamTimeout => "connection_timeout",
            Self::DestinationBlocked => "destination_ip_prohibited",
            Self::LedgerUnavailable | Self::KeyUnavailable | Self::Overloaded => {
                "proxy_internal_error"
            }
            Self::AmbiguousRequest
            | Self::AgentGone
            | Self::NotFound
            | Self::MethodNotAllowed
            | Self::BodyTooLarge
            | Self::UriTooLong
            | Self::AuthorityMismatch
            | Self::HeadersTooLarge => "http_request_error",
            Self::LeaseMissing
            | Self::LeaseInvalid
            | Self::LeaseExpired
            | Self::LeaseRevoked
            | Self::LeaseConsumed
            | Self::LeaseScope
            | Self::GrantDenied
            | Self::PlaintextDenied
            | Self::UpgradeDenied
            | Self::RateLimited => "http_request_denied",
        }
    }

    /// The closed set of kinds that metrics and logs count by.
    pub const fn kind(self) -> &'static str {
        match self {
            Self::AmbiguousRequest
            | Self::AgentGone
            | Self::NotFound
            | Self::MethodNotAllowed
            | Self::BodyTooLarge
            | Self::UriTooLong
            | Self::AuthorityMismatch
            | Self::HeadersTooLarge => "caller",
            Self::LeaseMissing
            | Self::LeaseInvalid
            | Self::LeaseExpired
            | Self::LeaseRevoked
            | Self::LeaseConsumed
            | Self::LeaseScope
            | Self::GrantDenied
            | Self::DestinationBlocked
            | Self::PlaintextDenied
            | Self::UpgradeDenied => "denied",
            Self::RateLimited | Self::Overloaded => "limit",
            Self::UpstreamConnect
            | Self::UpstreamTls
            | Self::UpstreamProtocol
            | Self::UpstreamTimeout => "upstream",
            Self::KeyUnavailable => "vault",
            Self::LedgerUnavailable => "internal",
        }
    }
}

/// Which form the agent speaks to us in: it decides how a missing lease is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Door {
    /// CONNECT or absolute-form: 407 and `Proxy-Authenticate`.
    #[default]
    Proxy,
    /// The gateway is an origin server to its client: 401 and `WWW-Authenticate`.
    Gateway,
    /// Past the door: the request came through a tunnel that a lease opened.
    Inside,
}

/// A request that is not forwarded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: Code,
    pub(crate) detail: Cow<'static, str>,
    pub(crate) retry_after: Option<Duration>,
}

impl Refusal {
    pub(crate) fn new(code: Code, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code,
            detail: detail.into(),
            retry_after: None,
        }
    }

    /// The status on this door.
    pub(crate) fn status(&self, door: Door) -> u16 {
        let of_lease = matches!(
            self.code,
            Code::LeaseMissing | Code::LeaseInvalid | Code::LeaseExpired | Code::LeaseRevoked
        );
        match door {
            Door::Proxy if of_lease => 407,
            Door::Gateway if of_lease => 401,
            // A tunnel keeps its lease, so its own lease being bad inside is a refusal like others.
            Door::Inside if of_lease => 403,
            Door::Proxy | Door::Gateway | Door::Inside => self.code.status(),
        }
    }

    /// The problem document and its header fields.
    pub(crate) fn respond(&self, door: Door, request_id: &str) -> (ResponseHeader, Bytes) {
        let status = self.status(door);
        let code = self.code.as_str();
        let body = json!({
            "type": format!("https://claviger.dev/errors/{code}"),
            "title": self.code.title(),
            "status": status,
            "detail": self.detail,
            "instance": format!("urn:uuid:{request_id}"),
            "error": code,
        });
        let body = Bytes::from(body.to_string());
        let mut fields = vec![
            ("content-type", Cow::Borrowed("application/problem+json")),
            ("content-length", body.len().to_string().into()),
            ("cache-control", "no-store".into()),
            (
                "proxy-status",
                format!(
                    "claviger; error={}; details=\"{code}\"",
                    self.code.proxy_status()
                )
                .into(),
            ),
        ];
        match status {
            407 => fields.push(("proxy-authenticate", CHALLENGE.into())),
            401 => fields.push(("www-authenticate", "Bearer realm=\"claviger\"".into())),
            405 => fields.push(("allow", crate::normalize::ALLOWED_METHODS.into())),
            _ => {}
        }
        if let Some(wait) = self.retry_after {
            fields.push(("retry-after", wait.as_secs().max(1).to_string().into()));
        }
        (header(status, &fields), body)
    }
}

/// Basic first: it is the scheme that every proxy client knows.
const CHALLENGE: &str = "Basic realm=\"claviger lease\", charset=\"UTF-8\"";

fn header(status: u16, fields: &[(&'static str, Cow<'_, str>)]) -> ResponseHeader {
    let mut header = ResponseHeader::build(status, Some(fields.len()))
        .expect("the statuses of refusals are valid");
    for (name, value) in fields {
        header
            .insert_header(*name, value.as_ref())
            .expect("the fields of refusals are made of visible ASCII");
    }
    header
}

impl From<HeadError> for Refusal {
    fn from(error: HeadError) -> Self {
        let code = match error {
            HeadError::TargetTooLong => Code::UriTooLong,
            HeadError::TooLarge => Code::HeadersTooLarge,
            HeadError::RequestLine
            | HeadError::Version
            | HeadError::LineEnd
            | HeadError::Folded
            | HeadError::Name
            | HeadError::Value
            | HeadError::ContentLength
            | HeadError::TransferEncoding
            | HeadError::BothLengths
            | HeadError::Host => Code::AmbiguousRequest,
        };
        Self::new(
            code,
            format!("{error}; send the request in its one plain HTTP form (RFC 9112)"),
        )
    }
}

impl From<ChunkError> for Refusal {
    fn from(error: ChunkError) -> Self {
        Self::new(
            Code::AmbiguousRequest,
            format!("{error}; send the body in plain chunks (RFC 9112 section 7.1)"),
        )
    }
}

impl From<UseRefusal> for Refusal {
    fn from(refusal: UseRefusal) -> Self {
        match refusal {
            UseRefusal::LeaseRevoked { .. } => {
                Self::new(Code::LeaseRevoked, "this lease was revoked; mint a new one")
            }
            UseRefusal::LeaseConsumed => Self::new(
                Code::LeaseConsumed,
                "a request lease is good for one use; mint one for each request, or a workflow lease",
            ),
            UseRefusal::LeaseExpired { .. } => {
                Self::new(Code::LeaseExpired, "this lease has expired; mint a new one")
            }
            UseRefusal::GrantRevoked => Self::new(
                Code::GrantDenied,
                "the grant behind this lease was revoked; ask for a new grant",
            ),
            UseRefusal::GrantExpired => Self::new(
                Code::GrantDenied,
                "the grant behind this lease has expired; ask for a new grant",
            ),
            UseRefusal::AgentInactive => Self::new(
                Code::GrantDenied,
                "the agent of this lease is not active; ask an administrator to activate it",
            ),
            UseRefusal::SetGone => Self::new(
                Code::GrantDenied,
                "the secret set of this lease was deleted; ask for a grant on another",
            ),
            UseRefusal::RateLimited { retry_after } => Self {
                retry_after: Some(retry_after),
                ..Self::new(
                    Code::RateLimited,
                    "the grant's rate is used up; wait as Retry-After says",
                )
            },
            // A lease that verifies but has no row is from another installation's past: one answer with revoked.
            UseRefusal::Unknown => Self::new(
                Code::LeaseRevoked,
                "this lease is not known here; mint a new one",
            ),
            UseRefusal::Overloaded => Self {
                retry_after: Some(Duration::from_secs(1)),
                ..Self::new(
                    Code::Overloaded,
                    "too many uses wait for their record; try again in a second",
                )
            },
            // A refusal that is not known here closes, too.
            _ => Self {
                retry_after: Some(Duration::from_secs(2)),
                ..Self::new(
                    Code::LedgerUnavailable,
                    "the use could not be recorded, so nothing was forwarded; try again, and see /v1/health",
                )
            },
        }
    }
}

impl Refusal {
    /// What a lease does not allow, told with the value that lies outside.
    pub(crate) fn of_denial(denial: &Denial, value: impl Fn(Dimension) -> String) -> Self {
        let (code, what) = match denial {
            Denial::Expired { .. } => (Code::LeaseExpired, None),
            Denial::Limits => (Code::LeaseScope, None),
            Denial::Plaintext => (Code::PlaintextDenied, None),
            Denial::Scope { what, .. } => (Code::LeaseScope, Some(*what)),
            Denial::Grant { what, .. } => (Code::GrantDenied, Some(*what)),
        };
        let detail = denial.to_string();
        let detail = what.map_or(detail.clone(), |what| {
            let named = format!("{what} {} is outside", value(what));
            detail.replacen(&format!("{what} is outside"), &named, 1)
        });
        Self::new(code, detail)
    }
}
