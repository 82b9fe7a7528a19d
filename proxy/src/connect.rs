//! The front of the listener: CONNECT, 407 with the connection kept, and the hand-over to the pipeline.
//!
//! Pingora serves requests; a tunnel is opened here, before it sees anything. One connection may carry
//! several requests before a CONNECT (a 407 and its retry, an absolute-form request), and nothing after it.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use leases::authorize::covers_host;
use leases::verify::VerifiedLease;
use pingora::apps::{HttpServerApp, ServerApp};
use pingora::http::ResponseHeader;
use pingora::protocols::ALPN;
use pingora::protocols::http::ServerSession;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::proxy::HttpProxy;
use providers::host::Scheme;
use store::ledger::{Refused, RequestFacts};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::rustls::server::Acceptor;

use crate::account;
use crate::authenticate::proxy_token;
use crate::context::{Link, Tunnel};
use crate::door;
use crate::head::{Head, HeadError, MAX_HEAD, end_of_head};
use crate::normalize::{Endpoint, scheme_name};
use crate::pipeline::{Pipeline, Shared};
use crate::refuse::{Code, Door, Refusal};
use crate::stream::{Conn, ConnState, HEAD_DEADLINE};
use crate::tls::leaf::Leaves;

/// How long a connection may be idle between requests.
const IDLE: Duration = Duration::from_secs(60);
/// How long a tunnel may take from its 200 to the end of its TLS handshake (threats.md H3).
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);
/// First byte of a TLS record that carries a handshake (RFC 8446 section 5.1).
const TLS_HANDSHAKE: u8 = 0x16;
/// A fatal `unrecognized_name` alert in a record of its own (RFC 6066 section 3).
const UNRECOGNIZED_NAME: [u8; 7] = [0x15, 3, 3, 0, 2, 2, 112];
/// How many bytes of a refused tunnel's leftovers are read away before the close.
const LINGER: Duration = Duration::from_millis(500);

/// Serves the connections of one listener.
#[derive(Debug)]
pub(crate) struct Front {
    pub(crate) pipeline: Arc<Pipeline>,
    pub(crate) proxy: Arc<HttpProxy<Shared>>,
    pub(crate) leaves: Leaves,
}

/// An open connection from an agent, between requests.
struct Waiting {
    tcp: TcpStream,
    ahead: BytesMut,
    client: SocketAddr,
}

/// What to do with a connection after a request.
enum Next {
    Keep(Waiting),
    Close,
}

impl Front {
    /// Serves one connection to its end.
    pub(crate) async fn serve(&self, tcp: TcpStream, client: SocketAddr, shutdown: &watch::Receiver<bool>) {
        let mut door = Waiting { tcp, ahead: BytesMut::new(), client };
        let mut down = shutdown.clone();
        loop {
            let end = tokio::select! {
                end = read_head(&mut door) => end,
                _ = down.wait_for(|down| *down) => return,
            };
            let end = match end {
                Ok(Some(end)) => end,
                Ok(None) => return,
                Err(refusal) => {
                    let _ = answer(&mut door.tcp, &refusal, Door::Proxy, &self.request_id(), false).await;
                    linger(&mut door.tcp).await;
                    return;
                }
            };
            let next = if door.ahead.starts_with(b"CONNECT ") {
                self.connect(door, end, shutdown).await
            } else {
                self.request(door, shutdown).await
            };
            match next {
                Next::Keep(kept) => door = kept,
                Next::Close => return,
            }
        }
    }

    /// A request to the proxy itself: absolute-form or gateway. Pingora serves it and gives the connection back.
    async fn request(&self, door: Waiting, shutdown: &watch::Receiver<bool>) -> Next {
        let client = door.client;
        let state = Arc::new(ConnState::default());
        let conn = Conn::new(ReadAhead::none(door.tcp), 0)
            .with_read_ahead(door.ahead.freeze())
            .with_digest(link(client.ip(), &state, None))
            .with_state(state);
        let mut session = ServerSession::new_http1(Box::new(conn));
        session.set_keepalive((!*shutdown.borrow()).then_some(IDLE.as_secs()));
        let Some(reused) = self.proxy.process_new_http(session, shutdown).await else {
            return Next::Close;
        };
        let (stream, _) = reused.consume();
        let Ok(conn) = stream.into_any().downcast::<Conn<ReadAhead>>() else {
            return Next::Close;
        };
        let (io, ahead) = conn.into_parts();
        Next::Keep(Waiting { tcp: io.tcp, ahead: BytesMut::from(&ahead[..]), client })
    }

    /// A CONNECT: admit it, then serve the tunnel to its end.
    async fn connect(&self, mut door: Waiting, end: usize, shutdown: &watch::Receiver<bool>) -> Next {
        let head = door.ahead.split_to(end).freeze();
        let request_id = self.request_id();
        match self.admit(&head, door.client.ip(), &request_id).await {
            Ok(tunnel) => {
                self.tunnel(door, tunnel, &request_id, shutdown).await;
                Next::Close
            }
            Err(refusal) => {
                // What follows a refused CONNECT is the retry, unless the client sent a body or did not wait.
                let keep = door.ahead.is_empty() && refusal.code != Code::AmbiguousRequest;
                match answer(&mut door.tcp, &refusal, Door::Proxy, &request_id, keep).await {
                    Ok(()) if keep => Next::Keep(door),
                    _ => {
                        linger(&mut door.tcp).await;
                        Next::Close
                    }
                }
            }
        }
    }

    /// The door: a lease, standing, that names this host, at an address that may be dialled.
    async fn admit(&self, head: &Bytes, client: IpAddr, request_id: &str) -> Result<Tunnel, Refusal> {
        let head = Head::parse(head)?;
        if head.has_body {
            return Err(Refusal::new(Code::AmbiguousRequest, "CONNECT has no body; send it without Content-Length"));
        }
        let token = proxy_token(head.values("proxy-authorization"));
        let endpoint = Endpoint::of_connect(head.target)?;
        let lease = self.pipeline.authenticator.verify(&token?)?;
        let admitted = self.admit_lease(&lease, &endpoint, head.host).await;
        if let Err(refusal) = &admitted {
            self.record(&lease, &endpoint, client, request_id, refusal).await;
        }
        admitted.map(|()| Tunnel { endpoint, lease })
    }

    async fn admit_lease(&self, lease: &VerifiedLease, endpoint: &Endpoint, host: Option<&str>) -> Result<(), Refusal> {
        let now = self.pipeline.clock.now();
        if let Some(host) = host {
            agrees(endpoint, host)?;
        }
        door::check_standing(&self.pipeline.store, lease, now)?;
        covers_host(lease, endpoint.host.as_str(), endpoint.port, now)?;
        self.pipeline.upstreams.addresses(&endpoint.host, endpoint.port).await?;
        Ok(())
    }

    /// Serves an admitted tunnel: TLS with a leaf for its host, or cleartext, as its first byte tells.
    async fn tunnel(&self, mut door: Waiting, mut tunnel: Tunnel, request_id: &str, shutdown: &watch::Receiver<bool>) {
        if door.tcp.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.is_err() {
            return;
        }
        let deadline = Instant::now() + HANDSHAKE_DEADLINE;
        if door.ahead.is_empty() {
            let read = timeout_at(deadline, door.tcp.read_buf(&mut door.ahead)).await;
            if !matches!(read, Ok(Ok(1..))) {
                return;
            }
        }
        let (client, fd) = (door.client.ip(), door.tcp.as_raw_fd());
        let state = Arc::new(ConnState::default());
        let is_tls = door.ahead.first() == Some(&TLS_HANDSHAKE);
        let io = ReadAhead { tcp: door.tcp, bytes: door.ahead.freeze() };
        if !is_tls {
            tunnel.endpoint.scheme = Scheme::Http;
            state.await_head();
            let conn = Conn::new(io, fd)
                .with_digest(link(client, &state, Some(tunnel)))
                .with_state(state);
            ServerApp::process_new(&self.proxy, Box::new(conn), shutdown).await;
            return;
        }
        let Ok(Some(tls)) = timeout_at(deadline, self.handshake(io, &tunnel, client, request_id)).await else {
            return;
        };
        let is_h2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
        if !is_h2 {
            state.await_head();
        }
        let conn = Conn::new(tls, fd)
            .with_alpn(Some(if is_h2 { ALPN::H2 } else { ALPN::H1 }))
            .with_digest(link(client, &state, Some(tunnel)))
            .with_state(state);
        ServerApp::process_new(&self.proxy, Box::new(conn), shutdown).await;
    }

    /// TLS with the agent. A name other than the tunnel's ends the handshake and is recorded.
    async fn handshake(
        &self,
        io: ReadAhead,
        tunnel: &Tunnel,
        client: IpAddr,
        request_id: &str,
    ) -> Option<tokio_rustls::server::TlsStream<ReadAhead>> {
        let start = LazyConfigAcceptor::new(Acceptor::default(), io).await.ok()?;
        let named = start.client_hello().server_name().map(str::to_owned);
        if let Some(named) = named
            && agrees(&tunnel.endpoint, &format!("{named}:{}", tunnel.endpoint.port)).is_err()
        {
            let refusal = Refusal::new(Code::AuthorityMismatch, "the TLS handshake names another host than CONNECT");
            let mut io = start.io;
            let _ = io.write_all(&UNRECOGNIZED_NAME).await;
            let _ = io.shutdown().await;
            self.record(&tunnel.lease, &tunnel.endpoint, client, request_id, &refusal).await;
            return None;
        }
        let settings = self
            .leaves
            .settings(&tunnel.endpoint.host.to_shared(), self.pipeline.clock.now())
            .inspect_err(|error| tracing::error!(%error, server.address = %tunnel.endpoint.host, "no leaf could be minted"))
            .ok()?;
        start.into_stream(settings).await.ok()
    }

    async fn record(&self, lease: &VerifiedLease, endpoint: &Endpoint, client: IpAddr, request_id: &str, refusal: &Refusal) {
        let refused = Refused {
            org: lease.org().clone(),
            error: refusal.code.as_str().to_owned(),
            agent: Some(lease.agent().clone()),
            lease: Some(lease.lease().clone()),
            set: None,
            grant: None,
            request: RequestFacts {
                request_id: request_id.to_owned(),
                client_ip: client,
                method: "CONNECT".to_owned(),
                scheme: scheme_name(endpoint.scheme),
                host: endpoint.host.to_shared(),
                port: endpoint.port,
                address: None,
                path: String::new(),
            },
        };
        self.pipeline.metrics.count(refusal.code.kind(), "");
        tracing::info!(
            request.id = request_id,
            principal.id = %lease.agent(),
            lease.id = %lease.lease(),
            server.address = %endpoint.host,
            http.request.method = "CONNECT",
            error.code = refusal.code.as_str(),
            "refused CONNECT {}: {}",
            endpoint.host,
            refusal.code.as_str(),
        );
        if let Err(error) = self.pipeline.store.ledger().record_refusal(refused).await {
            tracing::error!(request.id = request_id, %error, "a refusal could not be recorded");
        }
    }

    fn request_id(&self) -> String {
        account::request_id(self.pipeline.clock.now())
    }
}

/// Host on a CONNECT may leave the port out; where it is written, it must be the target's.
fn agrees(endpoint: &Endpoint, host: &str) -> Result<(), Refusal> {
    if host == endpoint.host.as_str() {
        return Ok(());
    }
    endpoint.agrees(host)
}

fn link(client: IpAddr, state: &Arc<ConnState>, tunnel: Option<Tunnel>) -> Arc<ProxyDigest> {
    let link = Link { client, state: Arc::clone(state), tunnel };
    let response = ResponseHeader::build(200, Some(0)).expect("200 is a status");
    Arc::new(ProxyDigest::new(Box::new(response), Some(Box::new(link))))
}

/// Reads until a head is whole: its length, or `None` when the agent is gone or idle for too long.
async fn read_head(door: &mut Waiting) -> Result<Option<usize>, Refusal> {
    let mut deadline = None;
    loop {
        if let Some(end) = end_of_head(&door.ahead) {
            return Ok(Some(end));
        }
        if door.ahead.first() == Some(&TLS_HANDSHAKE) {
            return Ok(None);
        }
        if door.ahead.len() > MAX_HEAD {
            return Err(HeadError::TooLarge.into());
        }
        if !door.ahead.is_empty() && deadline.is_none() {
            deadline = Some(Instant::now() + HEAD_DEADLINE);
        }
        let until = deadline.unwrap_or_else(|| Instant::now() + IDLE);
        match timeout_at(until, door.tcp.read_buf(&mut door.ahead)).await {
            Ok(Ok(1..)) => {}
            _ => return Ok(None),
        }
    }
}

async fn answer(tcp: &mut TcpStream, refusal: &Refusal, door: Door, request_id: &str, keep: bool) -> std::io::Result<()> {
    let (head, body) = refusal.respond(door, request_id);
    let mut text = BytesMut::with_capacity(1024);
    text.extend_from_slice(format!("HTTP/1.1 {}\r\n", head.status).as_bytes());
    for (name, value) in &head.headers {
        text.extend_from_slice(name.as_str().as_bytes());
        text.extend_from_slice(b": ");
        text.extend_from_slice(value.as_bytes());
        text.extend_from_slice(b"\r\n");
    }
    text.extend_from_slice(if keep { b"connection: keep-alive\r\n\r\n" } else { b"connection: close\r\n\r\n" });
    text.extend_from_slice(&body);
    timeout(IDLE, tcp.write_all(&text)).await.map_err(std::io::Error::other)?
}

/// Closes so that an answer survives: what the agent still sends is read for a moment, lest a reset overtake it.
async fn linger(tcp: &mut TcpStream) {
    let _ = tcp.shutdown().await;
    let mut sink = [0; 4096];
    let _ = timeout(LINGER, async { while matches!(tcp.read(&mut sink).await, Ok(1..)) {} }).await;
}

/// A TCP stream whose first bytes were read already.
#[derive(Debug)]
pub(crate) struct ReadAhead {
    tcp: TcpStream,
    bytes: Bytes,
}

impl ReadAhead {
    fn none(tcp: TcpStream) -> Self {
        Self { tcp, bytes: Bytes::new() }
    }
}

impl AsyncRead for ReadAhead {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let this = self.get_mut();
        if this.bytes.is_empty() {
            return Pin::new(&mut this.tcp).poll_read(cx, buf);
        }
        let n = this.bytes.len().min(buf.remaining());
        buf.put_slice(&this.bytes[..n]);
        this.bytes.advance(n);
        if this.bytes.is_empty() {
            // The buffer behind an empty view is let go.
            this.bytes = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ReadAhead {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.get_mut().tcp).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.get_mut().tcp).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().tcp).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().tcp).poll_shutdown(cx)
    }
}
