//! One question to a token endpoint: by the same address policy and the same verified TLS as any upstream, with a deadline, a
//! bound on the answer, and no redirect followed.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HOST, RETRY_AFTER};
use leases::id::OrgId;
use pingora::connectors::ConnectorOptions;
use pingora::connectors::http::Connector;
use pingora::http::RequestHeader;
use pingora::protocols::http::client::HttpSession;
use pingora::server::configuration::ServerConf;
use providers::exchange::{LONGEST_ANSWER, TokenRequest};
use providers::host::{Host, Scheme};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;
use zeroize::Zeroizing;

use super::unavailable;
use crate::account;
use crate::refuse::{Code, Refusal};
use crate::upstream::{self, Protocol, UpstreamTimeouts, Upstreams};

/// How long a token endpoint may take, from resolving its name to the end of its answer.
const DEADLINE: Duration = Duration::from_secs(10);
/// How many of a name's addresses are tried.
const ADDRESSES: usize = 2;

/// Reaches token endpoints.
pub(crate) struct Endpoints {
    upstreams: Arc<Upstreams>,
    connector: Connector,
    timeouts: UpstreamTimeouts,
}

/// What a token endpoint said. It may hold a token.
pub(super) struct Answer {
    pub(super) status: u16,
    /// How long it asks to be left alone, in seconds or until a date (RFC 9110 section 10.2.3).
    pub(super) retry_after: Option<RetryAfter>,
    pub(super) body: Zeroizing<Vec<u8>>,
}

/// An answer's Retry-After.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RetryAfter {
    Seconds(u64),
    At(OffsetDateTime),
}

impl RetryAfter {
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let seconds = text.parse().ok().map(Self::Seconds);
        seconds.or_else(|| OffsetDateTime::parse(text, &Rfc2822).ok().map(Self::At))
    }

    /// How long that is at `now`; nothing for a date that has passed.
    pub(super) fn from(self, now: OffsetDateTime) -> Option<Duration> {
        match self {
            Self::Seconds(seconds) => Some(Duration::from_secs(seconds)),
            Self::At(date) => Duration::try_from(date - now).ok(),
        }
    }
}

/// Why there is no answer.
enum Failure {
    Refused(Refusal),
    Connection(Box<pingora::Error>),
    TooLong,
}

impl From<Box<pingora::Error>> for Failure {
    fn from(error: Box<pingora::Error>) -> Self {
        Self::Connection(error)
    }
}

impl Endpoints {
    /// With the roots of `conf`, which are those of every upstream.
    pub(crate) fn new(upstreams: Arc<Upstreams>, conf: &ServerConf) -> Self {
        let connector = Connector::new(Some(ConnectorOptions::from_server_conf(conf)));
        Self {
            upstreams,
            connector,
            timeouts: UpstreamTimeouts {
                read: DEADLINE,
                write: DEADLINE,
                ..UpstreamTimeouts::default()
            },
        }
    }

    /// Sends the request and reads the whole answer.
    pub(super) async fn ask(&self, org: &OrgId, request: &TokenRequest) -> Result<Answer, Refusal> {
        match tokio::time::timeout(DEADLINE, self.exchange(org, request)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(failure)) => Err(failed(&request.host, failure)),
            Err(_) => Err(unavailable(format!(
                "the token endpoint {} did not answer in {} seconds; nothing was sent to the provider, so try again",
                request.host,
                DEADLINE.as_secs()
            ))),
        }
    }

    async fn exchange(&self, org: &OrgId, request: &TokenRequest) -> Result<Answer, Failure> {
        let mut session = self.connect(org, request).await?;
        let header = head(request)?;
        session.write_request_header(Box::new(header)).await?;
        let body = Bytes::from_owner(request.body.clone());
        session.write_request_body(body, true).await?;
        session.finish_request_body().await?;
        session.read_response_header().await?;
        let head = session.response_header();
        let status = head.map_or(0, |head| head.status.as_u16());
        let retry_after = head
            .and_then(|head| head.headers.get(RETRY_AFTER)?.to_str().ok())
            .and_then(RetryAfter::parse);
        // Sized once, so that no half-read copy is left behind when it grows.
        let mut body = Zeroizing::new(Vec::with_capacity(LONGEST_ANSWER));
        while let Some(part) = session.read_response_body().await? {
            if body.len() + part.len() > LONGEST_ANSWER {
                return Err(Failure::TooLong);
            }
            body.extend_from_slice(&part);
        }
        session.shutdown().await;
        Ok(Answer {
            status,
            retry_after,
            body,
        })
    }

    /// A connection of its own, which nobody else gets afterwards.
    async fn connect(&self, org: &OrgId, request: &TokenRequest) -> Result<HttpSession, Failure> {
        let addresses = self.upstreams.addresses(&request.host, request.port);
        let addresses = addresses.await.map_err(Failure::Refused)?;
        let mut failure = None;
        for address in (0..ADDRESSES).map_while(|at| addresses.get(at)) {
            let protocol = Protocol::Http1;
            let mut peer = upstream::peer(
                address,
                Scheme::Https,
                &request.host,
                protocol,
                account::group(org),
                self.timeouts,
            );
            let to = (&request.host, request.port);
            self.upstreams
                .route(&mut peer, &addresses, to, protocol, self.timeouts);
            match self.connector.get_http_session(&peer).await {
                Ok((session, _)) => return Ok(session),
                Err(error) if upstream::is_connect_failure(&error) => failure = Some(error),
                Err(error) => return Err(error.into()),
            }
        }
        let none = || pingora::Error::explain(pingora::ErrorType::ConnectError, "no address");
        Err(failure.unwrap_or_else(none).into())
    }
}

fn head(request: &TokenRequest) -> pingora::Result<RequestHeader> {
    let mut head = RequestHeader::build("POST", request.path.as_bytes(), None)?;
    let host = match request.port {
        443 => request.host.to_string(),
        port => format!("{}:{port}", request.host),
    };
    head.insert_header(HOST, host)?;
    for (name, value) in &request.headers {
        head.insert_header(name.clone(), value.clone())?;
    }
    head.insert_header(CONTENT_LENGTH, request.body.len())?;
    Ok(head)
}

/// What the agent is told. Addresses and causes stay in the log.
fn failed(host: &Host, failure: Failure) -> Refusal {
    let why = match failure {
        // An operator's address policy, or a name that does not resolve: said as for any upstream.
        Failure::Refused(refusal) if refusal.code == Code::DestinationBlocked => return refusal,
        Failure::Refused(refusal) => refusal.detail,
        Failure::TooLong => format!("its answer is longer than {LONGEST_ANSWER} bytes").into(),
        Failure::Connection(error) => {
            tracing::warn!(server.address = %host, error.cause = error.etype().as_str(), "a token endpoint was not reached");
            match upstream::refusal(&error).code {
                Code::UpstreamTls => "its certificate or handshake was not accepted".into(),
                Code::UpstreamConnect => "it cannot be reached".into(),
                Code::UpstreamTimeout => "it did not answer in time".into(),
                _ => "it did not answer with proper HTTP".into(),
            }
        }
    };
    unavailable(format!(
        "the token endpoint {host} gave no token: {why}; nothing was sent to the provider, so try again"
    ))
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn a_wait_is_told_in_seconds_or_by_a_date() {
        let now = datetime!(2026-11-23 07:00:00 UTC);
        let wait = |text| RetryAfter::parse(text).and_then(|told| told.from(now));
        assert_eq!(wait("7"), Some(Duration::from_secs(7)));
        let date = wait("Mon, 23 Nov 2026 07:01:30 GMT");
        assert_eq!(date, Some(Duration::from_secs(90)));
        for none in ["", "-1", "soon", "1.5", "Mon, 23 Nov 2026 06:59:00 GMT"] {
            assert_eq!(wait(none), None, "{none}");
        }
    }
}
