//! One question to a token endpoint: by the same address policy and the same verified TLS as any upstream, with a deadline, a
//! bound on the answer, and no redirect followed.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HOST};
use leases::id::OrgId;
use pingora::connectors::ConnectorOptions;
use pingora::connectors::http::Connector;
use pingora::http::RequestHeader;
use pingora::protocols::http::client::HttpSession;
use pingora::server::configuration::ServerConf;
use providers::exchange::{LONGEST_ANSWER, TokenRequest};
use providers::host::{Host, Scheme};
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
    pub(super) body: Zeroizing<Vec<u8>>,
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
        let status = session
            .response_header()
            .map_or(0, |head| head.status.as_u16());
        // Sized once, so that no half-read copy is left behind when it grows.
        let mut body = Zeroizing::new(Vec::with_capacity(LONGEST_ANSWER));
        while let Some(part) = session.read_response_body().await? {
            if body.len() + part.len() > LONGEST_ANSWER {
                return Err(Failure::TooLong);
            }
            body.extend_from_slice(&part);
        }
        session.shutdown().await;
        Ok(Answer { status, body })
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
