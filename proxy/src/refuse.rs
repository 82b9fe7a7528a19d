//! The one exit from any error to the wire: what is refused, why, and what to do next.
//!
//! A refusal is RFC 9457 problem+json with a `Proxy-Status` field (RFC 9209), so that an agent can tell
//! our answer from the provider's. The codes and statuses are the contract's.

use std::borrow::Cow;
use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use leases::authorize::{Denial, Dimension};
use leases::scope::Kind;
use leases::verify::VerifiedLease;
use pingora::http::ResponseHeader;
use serde_json::json;
use store::ledger::UseRefusal;

use crate::approval::Missing;
use crate::chunk::ChunkError;
use crate::head::HeadError;

/// What is said of each code: one row for all of it.
struct Row {
    status: u16,
    kind: &'static str,
    proxy_status: &'static str,
    code: &'static str,
    title: &'static str,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident: $status:literal, $kind:literal, $proxy_status:literal, $code:literal, $title:literal;)*) => {
        /// The stable code of a refusal, as in the contract.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Code {
            $($(#[$doc])* $name,)*
        }

        impl Code {
            const fn row(self) -> &'static Row {
                match self {
                    $(Self::$name => &Row {
                        status: $status,
                        kind: $kind,
                        proxy_status: $proxy_status,
                        code: $code,
                        title: $title,
                    },)*
                }
            }
        }
    };
}

// The status past the door; the kind that metrics count by; the `error` of RFC 9209 section 2.3 that comes nearest; the code
// as it stands in `error`; the title. At the door, a missing or bad lease answers 407, or 401 in the gateway form.
codes! {
    /// No lease came with the request.
    LeaseMissing: 407, "denied", "http_request_denied", "lease_missing", "A lease is required";
    /// The lease is malformed or forged.
    LeaseInvalid: 407, "denied", "http_request_denied", "lease_invalid", "The lease is not valid";
    /// The lease, or a child of it, has ended.
    LeaseExpired: 403, "denied", "http_request_denied", "lease_expired", "The lease has expired";
    /// The lease, or a block of it, was revoked.
    LeaseRevoked: 403, "denied", "http_request_denied", "lease_revoked", "The lease was revoked";
    /// A single-use lease was used before.
    LeaseConsumed: 403, "denied", "http_request_denied", "lease_consumed", "The lease was already used";
    /// The holder narrowed the lease, and this request lies outside.
    LeaseScope: 403, "denied", "http_request_denied", "lease_scope", "Outside what this lease was narrowed to";
    /// The grant does not allow this request.
    GrantDenied: 403, "denied", "http_request_denied", "grant_denied", "The grant does not allow this";
    /// The grant lets this request pass only with a person's approval.
    ApprovalRequired: 403, "denied", "http_request_denied", "approval_required", "A person has to approve this request";
    /// The organisation's requests of the month are used up.
    ResourceLimitExceeded: 403, "limit", "http_request_denied", "resource_limit_exceeded", "The organization may have no more of these";
    /// The address may not be dialled.
    DestinationBlocked: 403, "denied", "destination_ip_prohibited", "destination_blocked", "The address may not be reached";
    /// A credential would travel in the clear.
    PlaintextDenied: 403, "denied", "http_request_denied", "plaintext_denied", "No credential over cleartext";
    /// Only WebSocket upgrades pass.
    UpgradeDenied: 403, "denied", "http_request_denied", "upgrade_denied", "This upgrade is not proxied";
    /// The request can be read in two ways.
    AmbiguousRequest: 400, "caller", "http_request_error", "ambiguous_request", "The request can be read in two ways";
    /// Nothing is served under this path of the injector itself.
    NotFound: 404, "caller", "http_request_error", "not_found", "Nothing is served here";
    /// The method is not proxied.
    MethodNotAllowed: 405, "caller", "http_request_error", "method_not_allowed", "The method is not proxied";
    /// The body is larger than what can be signed or approved.
    BodyTooLarge: 413, "caller", "http_request_error", "body_too_large", "The body is too large to be read first";
    /// A body or the reading of an answer moves slower than the least rate. The answer's end is cut, and this recorded.
    TooSlow: 408, "caller", "http_request_error", "too_slow", "The agent is too slow";
    /// The request target is too long.
    UriTooLong: 414, "caller", "http_request_error", "uri_too_long", "The request target is too long";
    /// Host, `:authority`, SNI and CONNECT do not name one host.
    AuthorityMismatch: 421, "caller", "http_request_error", "authority_mismatch", "The request names two hosts";
    /// Too many or too large header fields.
    HeadersTooLarge: 431, "caller", "http_request_error", "headers_too_large", "The header fields are too large";
    /// A rate is used up, the grant's or a limit of this process.
    RateLimited: 429, "limit", "http_request_denied", "rate_limited", "A limit is used up";
    /// Too many requests of this agent wait for approval.
    ApprovalLimit: 429, "limit", "http_request_denied", "approval_limit", "Too many requests wait for approval";
    /// Nothing is left of the grant's budget.
    SpendExceeded: 429, "limit", "http_request_denied", "spend_exceeded", "The budget is spent";
    /// The upstream could not be reached.
    UpstreamConnect: 502, "upstream", "connection_refused", "upstream_connect", "The provider cannot be reached";
    /// The upstream's certificate or handshake was refused.
    UpstreamTls: 502, "upstream", "tls_certificate_error", "upstream_tls", "The provider's certificate was not accepted";
    /// The upstream did not speak HTTP as expected.
    UpstreamProtocol: 502, "upstream", "http_protocol_error", "upstream_protocol", "The provider did not answer with proper HTTP";
    /// The upstream did not answer in time.
    UpstreamTimeout: 504, "upstream", "connection_timeout", "upstream_timeout", "The provider did not answer in time";
    /// The agent closed its connection before the end. Never sent: there is nobody to send it to.
    AgentGone: 400, "caller", "http_request_error", "agent_gone", "The agent is gone";
    /// No durable record can be written, so nothing is forwarded.
    LedgerUnavailable: 503, "internal", "proxy_internal_error", "ledger_unavailable", "No durable record can be written";
    /// The key provider cannot open the credential.
    KeyUnavailable: 503, "vault", "proxy_internal_error", "key_unavailable", "The credential cannot be opened";
    /// More is under way than this process takes on.
    Overloaded: 503, "limit", "proxy_internal_error", "overloaded", "The injector is at its limit";
}

impl Code {
    /// The code as it stands in `error`.
    pub const fn as_str(self) -> &'static str {
        self.row().code
    }

    /// The closed set of kinds that metrics and logs count by.
    pub const fn kind(self) -> &'static str {
        self.row().kind
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
    /// The address that was not dialled, for the record alone.
    pub(crate) address: Option<IpAddr>,
    /// The approval that is missing.
    pub(crate) approval: Option<Missing>,
}

impl Refusal {
    pub(crate) fn new(code: Code, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            code,
            detail: detail.into(),
            retry_after: None,
            address: None,
            approval: None,
        }
    }

    /// The same, met once the use is recorded: a request lease has had its one use, so trying again takes another lease.
    #[must_use]
    pub(crate) fn after_use(self, lease: &VerifiedLease) -> Self {
        if self.code != Code::KeyUnavailable || lease.kind() != Kind::Request {
            return self;
        }
        Self {
            detail: format!(
                "{}; request lease {} is used up by this, so mint a new one first (`POST /v1/vault/leases`)",
                self.detail,
                lease.lease()
            )
            .into(),
            ..self
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
            Door::Proxy | Door::Gateway | Door::Inside => self.code.row().status,
        }
    }

    /// The problem document and its header fields.
    pub(crate) fn respond(&self, door: Door, request_id: &str) -> (ResponseHeader, Bytes) {
        let status = self.status(door);
        let code = self.code.as_str();
        let mut body = json!({
            "type": format!("https://claviger.dev/errors/{code}"),
            "title": self.code.row().title,
            "status": status,
            "detail": self.detail,
            "instance": format!("urn:uuid:{request_id}"),
            "error": code,
        });
        if let Some(missing) = &self.approval {
            body["approval_request_id"] = json!(missing.id);
            body["approval_status"] = json!(missing.status.as_str());
        }
        let body = Bytes::from(body.to_string());
        let mut fields = vec![
            ("content-type", Cow::Borrowed("application/problem+json")),
            ("content-length", body.len().to_string().into()),
            ("cache-control", "no-store".into()),
            (
                "proxy-status",
                format!(
                    "claviger; error={}; details=\"{code}\"",
                    self.code.row().proxy_status
                )
                .into(),
            ),
        ];
        match status {
            407 => fields.push(("proxy-authenticate", CHALLENGE.into())),
            401 => fields.push(("www-authenticate", "Bearer realm=\"claviger\"".into())),
            405 => fields.push(("allow", providers::method::PROXIED.into())),
            _ => {}
        }
        if let Some(wait) = self.retry_after {
            fields.push(("retry-after", whole_seconds(wait).to_string().into()));
        }
        (header(status, &fields), body)
    }
}

/// Whole seconds that are not shorter than the wait, and at least one.
fn whole_seconds(wait: Duration) -> u64 {
    let partial = u64::from(wait.subsec_nanos() > 0);
    wait.as_secs().saturating_add(partial).max(1)
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
            | HeadError::FramingTwin
            | HeadError::Undelimited
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
            UseRefusal::ApprovalGone => Self::new(
                Code::ApprovalRequired,
                "the approval of this request was used by another just now; send it again to ask for another",
            ),
            UseRefusal::SpendExceeded(over) => Self {
                retry_after: over.retry_after,
                ..Self::new(Code::SpendExceeded, over.to_string())
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

/// The longest command that a refusal names, in bytes.
const LONGEST_COMMAND: usize = 300;

impl Refusal {
    /// The same, where a grant or a lease is too narrow, with the command that says which grants cover the request.
    ///
    /// `url` is what the agent asked for, without a query. It is written only if a shell reads it as it stands: somebody may
    /// paste it.
    #[must_use]
    pub(crate) fn explained(self, method: &str, url: &str) -> Self {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:/%@+,=".contains(&byte);
        let is_narrow = matches!(self.code, Code::GrantDenied | Code::LeaseScope);
        if !is_narrow || url.len() > LONGEST_COMMAND || !url.bytes().all(is_plain) {
            return self;
        }
        Self {
            detail: format!(
                "{}; `claviger explain {method} {url}` says which grants cover it",
                self.detail
            )
            .into(),
            ..self
        }
    }

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

#[cfg(test)]
mod tests {
    use leases::ApprovalId;
    use serde_json::Value;
    use store::approvals::ApprovalStatus;
    use store::ledger::{Overspent, Unit};

    use super::*;
    use crate::fixtures::NOW;

    #[test]
    fn a_refusal_tells_programs_and_people_what_is_wrong() {
        for (code, door, status, kind, challenge) in [
            (
                Code::LeaseMissing,
                Door::Proxy,
                407,
                "denied",
                Some((
                    "proxy-authenticate",
                    "Basic realm=\"claviger lease\", charset=\"UTF-8\"",
                )),
            ),
            (
                Code::LeaseMissing,
                Door::Gateway,
                401,
                "denied",
                Some(("www-authenticate", "Bearer realm=\"claviger\"")),
            ),
            (
                Code::MethodNotAllowed,
                Door::Inside,
                405,
                "caller",
                Some(("allow", "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")),
            ),
            (Code::GrantDenied, Door::Inside, 403, "denied", None),
            (Code::UpstreamTls, Door::Inside, 502, "upstream", None),
        ] {
            let (head, body) = Refusal::new(code, "why").respond(door, "the-id");
            let name = code.as_str();
            assert_eq!(
                (head.status.as_u16(), code.kind()),
                (status, kind),
                "{code:?}"
            );
            assert_eq!(head.headers["content-type"], "application/problem+json");
            assert_eq!(head.headers["content-length"], body.len().to_string());
            assert_eq!(head.headers["cache-control"], "no-store");
            let proxy_status = head.headers["proxy-status"].to_str().unwrap();
            assert!(
                proxy_status.starts_with("claviger; error="),
                "{proxy_status}"
            );
            assert!(
                proxy_status.ends_with(&format!("; details=\"{name}\"")),
                "{proxy_status}"
            );
            for field in ["proxy-authenticate", "www-authenticate", "allow"] {
                let expected = challenge.filter(|(name, _)| *name == field);
                let value = head.headers.get(field).map(|value| value.to_str().unwrap());
                assert_eq!(value, expected.map(|(_, value)| value), "{code:?} {field}");
            }
            let body: Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(body["type"], format!("https://claviger.dev/errors/{name}"));
            assert_eq!(body["error"], name);
            assert_eq!(body["status"], status);
            assert_eq!(body["detail"], "why");
            assert_eq!(body["instance"], "urn:uuid:the-id");
            assert!(body.get("approval_request_id").is_none());
        }
    }

    #[test]
    fn a_missing_approval_is_named_for_programs() {
        let id = ApprovalId::new(NOW);
        let refusal = Refusal {
            approval: Some(Missing {
                id: id.clone(),
                status: ApprovalStatus::Pending,
            }),
            ..Refusal::new(Code::ApprovalRequired, "wait")
        };
        let (_, body) = refusal.respond(Door::Inside, "the-id");
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["approval_request_id"], id.as_str());
        assert_eq!(body["approval_status"], "pending");
    }

    #[test]
    fn a_head_is_refused_by_what_is_wrong_with_it() {
        for (error, code) in [
            (HeadError::TargetTooLong, Code::UriTooLong),
            (HeadError::TooLarge, Code::HeadersTooLarge),
            (HeadError::BothLengths, Code::AmbiguousRequest),
            (HeadError::Host, Code::AmbiguousRequest),
        ] {
            let refusal = Refusal::from(error);
            assert_eq!(refusal.code, code);
            assert!(
                refusal.detail.starts_with(&error.to_string()),
                "{}",
                refusal.detail
            );
        }
        let refusal = Refusal::from(ChunkError::DataEnd);
        assert_eq!(refusal.code, Code::AmbiguousRequest);
        assert!(
            refusal.detail.contains("plain chunks"),
            "{}",
            refusal.detail
        );
    }

    #[test]
    fn who_waits_as_long_as_told_has_waited_long_enough() {
        for (wait, told) in [
            (Duration::ZERO, "1"),
            (Duration::from_millis(1), "1"),
            (Duration::from_secs(1), "1"),
            (Duration::from_millis(1_001), "2"),
            (Duration::from_millis(29_999), "30"),
        ] {
            let refusal = Refusal {
                retry_after: Some(wait),
                ..Refusal::new(Code::RateLimited, "wait")
            };
            let (head, _) = refusal.respond(Door::Proxy, "id");
            assert_eq!(head.headers["retry-after"], told, "{wait:?}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_lease_has_its_status_by_the_door_and_all_else_has_one() {
        for code in [
            Code::LeaseMissing,
            Code::LeaseInvalid,
            Code::LeaseExpired,
            Code::LeaseRevoked,
        ] {
            let status = |door| Refusal::new(code, "no").status(door);
            let statuses = [Door::Proxy, Door::Gateway, Door::Inside].map(status);
            assert_eq!(statuses, [407, 401, 403], "{code:?}");
        }
        for (code, status) in [
            (Code::LeaseConsumed, 403),
            (Code::LeaseScope, 403),
            (Code::GrantDenied, 403),
            (Code::AmbiguousRequest, 400),
            (Code::RateLimited, 429),
            (Code::LedgerUnavailable, 503),
        ] {
            for door in [Door::Proxy, Door::Gateway, Door::Inside] {
                assert_eq!(Refusal::new(code, "no").status(door), status, "{code:?}");
            }
        }
    }

    #[test]
    fn each_refused_use_says_why() {
        let (retry_after, at) = (Duration::from_secs(3), NOW);
        let overspent = Overspent {
            unit: Unit::Tokens,
            limit: 10,
            spent: 10,
            held: 0,
            resets_at: None,
            retry_after: Some(Duration::from_secs(9)),
        };
        let unavailable = || UseRefusal::Unavailable("no disk".to_owned());
        for (refused, code, why, seconds) in [
            (
                UseRefusal::LeaseRevoked { at },
                Code::LeaseRevoked,
                "was revoked",
                None,
            ),
            (
                UseRefusal::LeaseExpired { at },
                Code::LeaseExpired,
                "has expired",
                None,
            ),
            (
                UseRefusal::LeaseConsumed,
                Code::LeaseConsumed,
                "one use",
                None,
            ),
            (UseRefusal::GrantRevoked, Code::GrantDenied, "revoked", None),
            (UseRefusal::GrantExpired, Code::GrantDenied, "expired", None),
            (
                UseRefusal::AgentInactive,
                Code::GrantDenied,
                "not active",
                None,
            ),
            (UseRefusal::SetGone, Code::GrantDenied, "deleted", None),
            (
                UseRefusal::RateLimited { retry_after },
                Code::RateLimited,
                "rate",
                Some(3),
            ),
            (
                UseRefusal::ApprovalGone,
                Code::ApprovalRequired,
                "by another",
                None,
            ),
            (
                UseRefusal::SpendExceeded(overspent),
                Code::SpendExceeded,
                "budget",
                Some(9),
            ),
            (UseRefusal::Unknown, Code::LeaseRevoked, "not known", None),
            (
                UseRefusal::Overloaded,
                Code::Overloaded,
                "too many",
                Some(1),
            ),
            (
                unavailable(),
                Code::LedgerUnavailable,
                "nothing was forwarded",
                Some(2),
            ),
        ] {
            let refusal = Refusal::from(refused);
            assert_eq!(refusal.code, code);
            assert!(refusal.detail.contains(why), "{}", refusal.detail);
            assert_eq!(
                refusal.retry_after,
                seconds.map(Duration::from_secs),
                "{why}"
            );
        }
        let inside = Refusal::from(unavailable()).detail;
        assert!(!inside.contains("no disk"), "causes are for the log alone");
    }

    #[test]
    fn a_command_is_named_where_it_helps_and_a_shell_reads_it_as_it_stands() {
        let explained = |code, url: &str| Refusal::new(code, "no").explained("GET", url).detail;
        let plain = "https://api.stripe.com/v1/charges";
        for code in [Code::GrantDenied, Code::LeaseScope] {
            let detail = explained(code, plain);
            assert!(detail.contains(&format!("`claviger explain GET {plain}`")));
        }
        assert_eq!(explained(Code::LeaseConsumed, plain), "no");
        assert_eq!(
            explained(Code::GrantDenied, "https://a.example/$(id)"),
            "no"
        );
        let of_length = |length: usize| format!("https://a.example/{}", "a".repeat(length - 18));
        let longest = explained(Code::GrantDenied, &of_length(LONGEST_COMMAND));
        assert!(longest.contains("explain"));
        let longer = explained(Code::GrantDenied, &of_length(LONGEST_COMMAND + 1));
        assert_eq!(longer, "no");
    }
}
