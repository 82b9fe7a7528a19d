//! How an upstream is dialled where Pingora's own way will not do: through a proxy of the network, and for a WebSocket.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::BytesMut;
use pingora::connectors::L4Connect;
use pingora::protocols::l4::ext::connect;
use pingora::protocols::l4::socket::SocketAddr as PeerAddr;
use pingora::protocols::l4::stream::Stream;
use pingora::protocols::l4::virt::{VirtualSockOpt, VirtualSocket, VirtualSocketStream};
use pingora::{Error, ErrorType};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::head::end_of_head;

/// The longest answer to CONNECT that is read.
const MAX_ANSWER: usize = 16 * 1024;
/// The most fields that it may have.
const MAX_ANSWER_FIELDS: usize = 64;

/// A proxy of the network, by which providers are reached (`--upstream-proxy`). TLS goes through it end to end.
#[derive(Clone)]
pub struct UpstreamProxy {
    /// Its name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// User and password, if it asks for them.
    pub credentials: Option<(String, Zeroizing<String>)>,
}

impl fmt::Debug for UpstreamProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpstreamProxy")
            .field("host", &self.host)
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

/// Why the network's proxy gave no tunnel. Nothing was sent to the provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum UpstreamProxyError {
    #[error(
        "the upstream proxy cannot be reached, and nothing was sent; an operator sees to network.upstream_proxy"
    )]
    Unreachable,
    #[error(
        "the upstream proxy does not take the injector's credentials (407), and nothing was sent; an operator sets the user in network.upstream_proxy and network.upstream_proxy_password_file"
    )]
    Credentials,
    #[error(
        "the upstream proxy refused a tunnel to the provider with {0}, and nothing was sent; its operator can allow it"
    )]
    Refused(u16),
    #[error(
        "the upstream proxy did not answer CONNECT with proper HTTP, and nothing was sent; an operator sees to network.upstream_proxy"
    )]
    Answer,
}

/// Opens connections for one request.
#[derive(Debug)]
pub(crate) struct Dialer {
    /// The proxy, and what it is asked for.
    pub(crate) via: Option<(Arc<UpstreamProxy>, String)>,
    pub(crate) is_websocket: bool,
    /// How long it may take.
    pub(crate) within: Duration,
}

#[async_trait]
impl L4Connect for Dialer {
    async fn connect(&self, address: &PeerAddr) -> pingora::Result<Stream> {
        let Some(address) = address.as_inet() else {
            return Error::e_explain(ErrorType::InternalError, "no address of the internet");
        };
        match timeout(self.within, self.open(address)).await {
            Ok(opened) => opened,
            Err(_) => Error::e_explain(ErrorType::ConnectTimedout, "while dialling"),
        }
    }
}

impl Dialer {
    async fn open(&self, address: &SocketAddr) -> pingora::Result<Stream> {
        let dialled = connect(address, None).await;
        let tcp = match &self.via {
            None => dialled?,
            Some((proxy, authority)) => {
                let mut tcp = dialled.map_err(|error| {
                    let kind = error.etype().clone();
                    Error::because(
                        kind,
                        "to the upstream proxy",
                        UpstreamProxyError::Unreachable,
                    )
                })?;
                proxy.tunnel(&mut tcp, authority).await.map_err(|error| {
                    Error::because(ErrorType::ConnectProxyFailure, "CONNECT", error)
                })?;
                tcp
            }
        };
        Ok(if self.is_websocket {
            VirtualSocketStream::new(Box::new(Unhurried::new(tcp))).into()
        } else {
            tcp.into()
        })
    }
}

impl UpstreamProxy {
    /// Asks for a tunnel to `authority` (RFC 9110 section 9.3.6).
    async fn tunnel<S>(&self, stream: &mut S, authority: &str) -> Result<(), UpstreamProxyError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut request = Zeroizing::new(format!(
            "CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n"
        ));
        if let Some((user, password)) = &self.credentials {
            let pair = Zeroizing::new(format!("{user}:{}", password.as_str()));
            let pair = Zeroizing::new(STANDARD.encode(pair.as_bytes()));
            request.push_str("Proxy-Authorization: Basic ");
            request.push_str(&pair);
            request.push_str("\r\n");
        }
        request.push_str("\r\n");
        let broken = |_: io::Error| UpstreamProxyError::Answer;
        stream.write_all(request.as_bytes()).await.map_err(broken)?;
        stream.flush().await.map_err(broken)?;
        let mut answer = BytesMut::with_capacity(1024);
        let end = loop {
            if let Some(end) = end_of_head(&answer) {
                break end;
            }
            let read = stream.read_buf(&mut answer).await.map_err(broken)?;
            if read == 0 || answer.len() > MAX_ANSWER {
                return Err(UpstreamProxyError::Answer);
            }
        };
        match status(&answer[..end])? {
            // The provider waits for us to speak first, so what follows at once is not from it.
            200..300 if answer.len() == end => Ok(()),
            200..300 => Err(UpstreamProxyError::Answer),
            407 => Err(UpstreamProxyError::Credentials),
            other => Err(UpstreamProxyError::Refused(other)),
        }
    }
}

fn status(head: &[u8]) -> Result<u16, UpstreamProxyError> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_ANSWER_FIELDS];
    let mut answer = httparse::Response::new(&mut fields);
    let parsed = answer.parse(head);
    match (parsed, answer.code) {
        (Ok(httparse::Status::Complete(_)), Some(status)) => Ok(status),
        _ => Err(UpstreamProxyError::Answer),
    }
}

/// A stream that is read a few polls after a write, and not at once.
///
/// Pingora carries an upgrade in one task with two halves, and ends it when one of them reads the 101 before the other's
/// mark for the end of the request has come over. The mark is on its way after one poll of both, so a reader that has
/// nothing for some polls always meets it first. Without that, a provider on the same machine wins the race now and then.
struct Unhurried {
    tcp: TcpStream,
    /// Polls until the next read.
    polls: u8,
    /// Polls that may still be put off over the stream's life: the first few writes are handshake and request.
    left: u8,
}

/// Polls that a read is put off after a write.
const PUT_OFF: u8 = 4;
/// The same over the life of a stream: enough for TLS with a second hello, and the request.
const PUT_OFF_IN_ALL: u8 = 32;

impl Unhurried {
    const fn new(tcp: TcpStream) -> Self {
        Self {
            tcp,
            polls: 0,
            left: PUT_OFF_IN_ALL,
        }
    }

    fn wrote(&mut self, written: &Poll<io::Result<usize>>) {
        if matches!(written, Poll::Ready(Ok(1..))) {
            self.polls = PUT_OFF.min(self.left);
        }
    }
}

impl AsyncRead for Unhurried {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.polls > 0 {
            this.polls -= 1;
            this.left = this.left.saturating_sub(1);
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Pin::new(&mut this.tcp).poll_read(cx, buf)
    }
}

impl AsyncWrite for Unhurried {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.tcp).poll_write(cx, buf);
        this.wrote(&written);
        written
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.tcp).poll_write_vectored(cx, bufs);
        this.wrote(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tcp).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tcp).poll_shutdown(cx)
    }
}

impl VirtualSocket for Unhurried {
    fn set_socket_option(&self, option: VirtualSockOpt) -> io::Result<()> {
        match option {
            VirtualSockOpt::NoDelay => self.tcp.set_nodelay(true),
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for Unhurried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unhurried").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn ask(answer: &'static [u8]) -> (Result<(), UpstreamProxyError>, String) {
        let (mut ours, mut theirs) = tokio::io::duplex(64 * 1024);
        let proxy = UpstreamProxy {
            host: "proxy.example".to_owned(),
            port: 3128,
            credentials: Some(("user".to_owned(), "pass".to_owned().into())),
        };
        let (outcome, asked) = tokio::join!(
            async {
                let outcome = proxy.tunnel(&mut ours, "api.example:443").await;
                drop(ours);
                outcome
            },
            async {
                let mut asked = BytesMut::new();
                while end_of_head(&asked).is_none() {
                    theirs.read_buf(&mut asked).await.unwrap();
                }
                let _ = theirs.write_all(answer).await;
                drop(theirs);
                String::from_utf8(asked.to_vec()).unwrap()
            }
        );
        (outcome, asked)
    }

    #[tokio::test]
    async fn a_tunnel_is_asked_for_by_name_with_the_proxys_own_credentials() {
        let (outcome, asked) = ask(b"HTTP/1.1 200 OK\r\nVia: x\r\n\r\n").await;
        assert_eq!(outcome, Ok(()));
        assert_eq!(
            asked,
            "CONNECT api.example:443 HTTP/1.1\r\nHost: api.example:443\r\nProxy-Authorization: Basic dXNlcjpwYXNz\r\n\r\n"
        );
    }

    #[tokio::test]
    async fn every_other_answer_is_told_apart() {
        let cases: [(&'static [u8], UpstreamProxyError); 6] = [
            (
                b"HTTP/1.1 407 Auth\r\nContent-Length: 5\r\n\r\nhello",
                UpstreamProxyError::Credentials,
            ),
            (b"HTTP/1.0 403 No\r\n\r\n", UpstreamProxyError::Refused(403)),
            (
                b"220 smtp.example ready\r\n\r\n",
                UpstreamProxyError::Answer,
            ),
            (b"HTTP/1.1 200 OK\r\n", UpstreamProxyError::Answer),
            (b"HTTP/1.1 200 OK\r\n\r\nmore", UpstreamProxyError::Answer),
            (b"", UpstreamProxyError::Answer),
        ];
        for (answer, error) in cases {
            assert_eq!(ask(answer).await.0, Err(error));
        }
        let endless = Box::leak(vec![b'a'; 2 * MAX_ANSWER].into_boxed_slice());
        assert_eq!(ask(endless).await.0, Err(UpstreamProxyError::Answer));
    }

    #[test]
    fn its_password_is_in_no_debug_text() {
        let proxy = UpstreamProxy {
            host: "proxy.example".to_owned(),
            port: 3128,
            credentials: Some(("user".to_owned(), "hush".to_owned().into())),
        };
        assert!(!format!("{proxy:?}").contains("hush"));
    }
}
