//! SOCKS5 for programs that speak to no HTTP proxy (RFC 1928): no authentication, since the port serves one process tree
//! alone, and CONNECT, since that is what the injector takes.
//!
//! Of the crate only the protocol is used, on a stream of ours. Its resolver is not: names are passed on as they are, and the
//! injector resolves them.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use fast_socks5::server::Socks5ServerProtocol;
use fast_socks5::server::states::CommandRead;
use fast_socks5::util::target_addr::TargetAddr;
use fast_socks5::{ReplyError, Socks5Command};
use http::StatusCode;
use http::uri::Authority;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

/// First byte of a greeting (RFC 1928 section 3).
pub(super) const VERSION: u8 = 5;
/// First byte of a request of SOCKS4, which knows addresses alone.
pub(super) const OLD_VERSION: u8 = 4;
/// How long greeting and request may take together.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);
/// Where the tunnel starts, as its reply has to say. Nobody but the injector knows.
const NOWHERE: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0));

/// A request for a tunnel, which waits for its reply.
pub(super) struct Connect<S> {
    authority: Authority,
    is_address: bool,
    protocol: Socks5ServerProtocol<S, CommandRead>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connect<S> {
    /// Reads greeting and request, at most 519 bytes of them and nothing behind. Everything but a request for a tunnel has been
    /// answered then, as far as it has an answer.
    pub(super) async fn read(stream: S) -> Option<Self> {
        Self::read_within(HANDSHAKE_DEADLINE, stream).await
    }

    async fn read_within(bound: Duration, stream: S) -> Option<Self> {
        timeout(bound, Self::handshake(stream)).await.ok()?
    }

    async fn handshake(stream: S) -> Option<Self> {
        let protocol = Socks5ServerProtocol::accept_no_auth(stream).await.ok()?;
        let (protocol, command, target) = protocol.read_command().await.ok()?;
        if command != Socks5Command::TCPConnect {
            // Whoever asked may be gone, here and below.
            let _ = protocol.reply_error(&ReplyError::CommandNotSupported).await;
            return None;
        }
        let Some(authority) = authority(&target) else {
            let _ = protocol.reply_error(&ReplyError::GeneralFailure).await;
            return None;
        };
        Some(Self {
            authority,
            is_address: target.is_ip(),
            protocol,
        })
    }

    /// Where the tunnel is to lead.
    pub(super) const fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Whether the program looked the name up itself, or had none.
    pub(super) const fn is_address(&self) -> bool {
        self.is_address
    }

    /// Says that the tunnel is open: from now on all bytes are the program's.
    pub(super) async fn accept(self) -> Option<S> {
        self.protocol.reply_success(NOWHERE).await.ok()
    }

    /// Says that there is no tunnel, and ends the connection.
    pub(super) async fn refuse(self, why: ReplyError) {
        let _ = self.protocol.reply_error(&why).await;
    }
}

/// The reply that comes nearest to the injector's refusal (RFC 1928 section 6).
pub(super) fn reply_to(status: StatusCode) -> ReplyError {
    match status.as_u16() {
        403 | 407 | 421 => ReplyError::ConnectionNotAllowed,
        502 => ReplyError::ConnectionRefused,
        504 => ReplyError::HostUnreachable,
        _ => ReplyError::GeneralFailure,
    }
}

/// The target as CONNECT writes it. A name is whole: what would be read as a user or a port in it is refused.
fn authority(target: &TargetAddr) -> Option<Authority> {
    let authority: Authority = target.to_string().parse().ok()?;
    let is_whole = match target {
        TargetAddr::Ip(_) => true,
        TargetAddr::Domain(name, port) => {
            !name.is_empty() && authority.host() == name && authority.port_u16() == Some(*port)
        }
    };
    is_whole.then_some(authority)
}

#[cfg(test)]
mod tests;
