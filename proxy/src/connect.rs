//! The front of the listener: CONNECT, 407 with the connection kept, and the hand-over to the pipeline.
//!
//! Pingora serves requests; a tunnel is opened here, before it sees anything. One connection may carry
//! several requests before a CONNECT (a 407 and its retry, an absolute-form request), and nothing after it.
//! All of this may run inside TLS with the proxy itself, which the connection's first byte tells.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use leases::authorize::covers_host;
use leases::verify::VerifiedLease;
use pingora::apps::HttpServerApp;
use pingora::http::ResponseHeader;
use pingora::protocols::UniqueIDType;
use pingora::protocols::http::ServerSession;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::proxy::HttpProxy;
use providers::host::Scheme;
use store::ledger::{Refused, RequestFacts};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::rustls::server::Acceptor;
use tokio_rustls::{LazyConfigAcceptor, TlsAcceptor};

use crate::authenticate::proxy_token;
use crate::context::{Link, Tunnel};
use crate::door;
use crate::h2;
use crate::handed::Handed;
use crate::head::{Head, HeadError, MAX_HEAD, end_of_head, has_bare_line_end};
use crate::limits::Load;
use crate::normalize::{Endpoint, RawTarget, check_method, parse_authority, scheme_name};
use crate::pipeline::{Pipeline, Shared};
use crate::refuse::{Code, Door, Refusal};
use crate::stream::{Conn, Cut};
use crate::tls::leaf::Leaves;
use crate::tls::listener::ListenerSettings;

/// How long a request head may take from its first byte to its last (threats.md H1).
const HEAD_DEADLINE: Duration = Duration::from_secs(10);
/// What is read of a head at a time; most are shorter.
const HEAD_BUFFER: usize = 2048;
/// How long a connection may be idle between requests.
const IDLE: Duration = Duration::from_mins(1);
/// How long a tunnel may take from its 200 to the end of its TLS handshake (threats.md H3).
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);
/// Length of HTTP/2's opening bytes.
const H2_PREFACE: usize = 24;
/// First byte of a TLS record that carries a handshake (RFC 8446 section 5.1).
const TLS_HANDSHAKE: u8 = 0x16;
/// First byte of a SOCKS5 greeting, and the answer that none of its methods will do (RFC 1928 section 3).
const SOCKS5: u8 = 5;
const SOCKS5_UNACCEPTABLE: [u8; 2] = [5, 0xff];
/// The id of a connection that has no socket.
const NO_SOCKET: UniqueIDType = -1;
/// The answer to an admitted CONNECT.
const ESTABLISHED: &[u8] = b"HTTP/1.1 200 Connection established\r\n\r\n";
/// A fatal `unrecognized_name` alert in a record of its own (RFC 6066 section 3).
const UNRECOGNIZED_NAME: [u8; 7] = [0x15, 3, 3, 0, 2, 2, 112];

/// Serves the connections of one listener.
pub(crate) struct Front {
    pub(crate) pipeline: Arc<Pipeline>,
    pub(crate) proxy: Arc<HttpProxy<Shared>>,
    pub(crate) leaves: Arc<Leaves>,
    /// TLS with the proxy itself, where it has a certificate.
    pub(crate) tls: Option<Arc<ListenerSettings>>,
    /// Whether a port with TLS takes cleartext from other machines all the same.
    pub(crate) allow_plaintext: bool,
}

/// Where a connection comes from.
#[derive(Debug, Clone, Copy)]
struct Peer {
    ip: IpAddr,
    /// The socket below all layers.
    id: UniqueIDType,
}

impl Front {
    /// Serves one connection to its end. Its first byte tells whether it speaks TLS with the proxy itself.
    pub(crate) async fn serve(
        &self,
        tcp: TcpStream,
        client: SocketAddr,
        shutdown: &watch::Receiver<bool>,
    ) {
        let peer = Peer {
            ip: client.ip(),
            id: tcp.as_raw_fd(),
        };
        let mut io = ReadAhead::none(tcp);
        let Some(tls) = &self.tls else {
            return self.serve_requests(io, peer, shutdown).await;
        };
        let mut down = shutdown.clone();
        let first = tokio::select! {
            biased;
            first = timeout(IDLE, io.first_byte()) => first,
            _ = down.wait_for(|down| *down) => return,
        };
        match first {
            Ok(Ok(TLS_HANDSHAKE)) => self.serve_tls(io, tls, peer, shutdown).await,
            Ok(Ok(_)) if self.allow_plaintext || is_this_machine(&io.io, client) => {
                self.serve_requests(io, peer, shutdown).await;
            }
            Ok(Ok(_)) => self.refuse_plaintext(io, peer).await,
            _ => {}
        }
    }

    /// Serves requests to the proxy itself inside TLS with it.
    async fn serve_tls(
        &self,
        io: ReadAhead<TcpStream>,
        tls: &ListenerSettings,
        peer: Peer,
        shutdown: &watch::Receiver<bool>,
    ) {
        let accept = TlsAcceptor::from(tls.current()).accept(io);
        if let Ok(Ok(inside)) = timeout(HANDSHAKE_DEADLINE, accept).await {
            // Boxed, since its state is large and others shall not pay for it.
            Box::pin(self.serve_requests(ReadAhead::none(inside), peer, shutdown)).await;
        }
    }

    /// Tells an agent on another machine to speak TLS, without reading what it sent.
    async fn refuse_plaintext(&self, io: ReadAhead<TcpStream>, peer: Peer) {
        let refusal = Refusal::new(
            Code::PlaintextDenied,
            "this proxy takes TLS alone from other machines: write https:// in its URL, and revoke the lease that was just sent in cleartext",
        );
        let request_id = self.request_id();
        self.count(peer.ip, &request_id, &refusal);
        let mut conn = Conn::new(io, peer.id);
        let _ = answer(&mut conn, &refusal, Door::Proxy, &request_id, false).await;
        conn.close().await;
    }

    /// Serves requests to the proxy itself, or a CONNECT and then its tunnel.
    async fn serve_requests<S: Transport>(
        &self,
        io: ReadAhead<S>,
        peer: Peer,
        shutdown: &watch::Receiver<bool>,
    ) {
        let cut = Arc::new(Cut::default());
        let digest = link(peer.ip, &cut, None);
        let door = Link::in_digest(&digest).expect("made with a link");
        let mut conn = Box::new(
            Conn::new(io, peer.id)
                .with_digest(Arc::clone(&digest))
                .with_cut(cut)
                .with_least_rate(self.pipeline.load.least_rate()),
        );
        loop {
            let Some(next) = self.next_head(&mut conn, door, shutdown).await else {
                return;
            };
            if let Next::Connect { head, read } = next {
                match self
                    .connect(*conn, &read[..head], &read[head..], peer, shutdown)
                    .await
                {
                    Some(kept) => conn = Box::new(kept),
                    None => return,
                }
                continue;
            }
            match self.request(conn, shutdown).await {
                Some(kept) => conn = kept,
                None => return,
            }
        }
    }

    /// Serves the HTTP/1 requests of an intercepted or cleartext tunnel.
    async fn serve_inside<S: Transport>(
        &self,
        mut conn: Box<Conn<S>>,
        inside: &Link,
        shutdown: &watch::Receiver<bool>,
    ) {
        while self.next_head(&mut conn, inside, shutdown).await.is_some() {
            match self.request(conn, shutdown).await {
                Some(kept) => conn = kept,
                None => return,
            }
        }
    }

    /// Serves the request that the other plane of this process hands in. It opens no tunnel: nobody inside would have its id.
    pub(crate) async fn serve_handed(&self, handed: Handed, shutdown: &watch::Receiver<bool>) {
        let Handed {
            stream,
            client,
            request_id,
            masked,
        } = handed;
        let cut = Arc::new(Cut::default());
        let digest = digest(Link::handed(client, Arc::clone(&cut), request_id, masked));
        let link = Link::in_digest(&digest).expect("made with a link");
        let mut conn = Box::new(
            Conn::new(stream, NO_SOCKET)
                .with_digest(Arc::clone(&digest))
                .with_cut(cut),
        );
        if let Some(Next::Request) = self.next_head(&mut conn, link, shutdown).await {
            self.request(conn, shutdown).await;
        }
    }

    /// Waits for the next whole head and reads it strictly. What is no proper HTTP/1 head is answered here, so
    /// that Pingora's parser never has to repair one.
    async fn next_head<S: Transport>(
        &self,
        conn: &mut Conn<S>,
        link: &Link,
        shutdown: &watch::Receiver<bool>,
    ) -> Option<Next> {
        let mut down = shutdown.clone();
        let mut read = BytesMut::new();
        let end = tokio::select! {
            biased;
            end = read_head(conn, &mut read) => end,
            _ = down.wait_for(|down| *down) => return None,
        };
        let refusal = match end {
            Ok(None) => return None,
            Ok(Some(end)) => match prepare(conn, read, end, link) {
                Ok(ready) => return Some(ready),
                Err(refusal) => refusal,
            },
            Err(error) => Refusal::from(error),
        };
        let request_id = link.request_id.clone().unwrap_or_else(|| self.request_id());
        let door = if let Some(tunnel) = &link.tunnel {
            self.record(
                &tunnel.lease,
                &tunnel.endpoint,
                link.client,
                &request_id,
                &refusal,
            )
            .await;
            Door::Inside
        } else {
            self.count(link.client, &request_id, &refusal);
            Door::Proxy
        };
        let _ = answer(conn, &refusal, door, &request_id, false).await;
        conn.close().await;
        None
    }

    /// Hands a request to Pingora, which gives the connection back when it can carry another.
    async fn request<S: Transport>(
        &self,
        conn: Box<Conn<S>>,
        shutdown: &watch::Receiver<bool>,
    ) -> Option<Box<Conn<S>>> {
        let mut session = ServerSession::new_http1(conn);
        session.set_keepalive((!*shutdown.borrow()).then_some(IDLE.as_secs()));
        let reused = self.proxy.process_new_http(session, shutdown).await?;
        let (stream, _) = reused.consume();
        let conn: Box<Conn<S>> = stream.into_any().downcast().ok()?;
        conn.next_request()
    }

    /// A CONNECT: admit it, then serve the tunnel to its end. A refused one gives the connection back for a retry.
    async fn connect<S: Transport>(
        &self,
        mut conn: Conn<ReadAhead<S>>,
        head: &[u8],
        rest: &[u8],
        peer: Peer,
        shutdown: &watch::Receiver<bool>,
    ) -> Option<Conn<ReadAhead<S>>> {
        let request_id = self.request_id();
        match self.admit(head, peer.ip, &request_id).await {
            Ok(tunnel) => {
                let (io, ahead) = conn.into_parts();
                let io = ReadAhead {
                    io: io.io,
                    bytes: [rest, &ahead].concat().into(),
                };
                self.tunnel(io, tunnel, peer, &request_id, shutdown).await;
                None
            }
            Err(refusal) => {
                if matches!(
                    refusal.code,
                    Code::LeaseMissing
                        | Code::LeaseInvalid
                        | Code::RateLimited
                        | Code::AmbiguousRequest
                ) {
                    self.count(peer.ip, &request_id, &refusal);
                }
                // What follows a refused CONNECT is its retry, unless the client sent more without waiting.
                let keep = rest.is_empty() && refusal.code != Code::AmbiguousRequest;
                match answer(&mut conn, &refusal, Door::Proxy, &request_id, keep).await {
                    Ok(()) if keep => Some(conn),
                    _ => {
                        conn.close().await;
                        None
                    }
                }
            }
        }
    }

    /// The door: a lease, standing, that names this host, at an address that may be dialled.
    async fn admit(
        &self,
        head: &[u8],
        client: IpAddr,
        request_id: &str,
    ) -> Result<Tunnel, Refusal> {
        let head = Head::parse(head)?;
        if head.has_body {
            return Err(Refusal::new(
                Code::AmbiguousRequest,
                "CONNECT has no body; send it without Content-Length",
            ));
        }
        let token = proxy_token(head.values("proxy-authorization"));
        let endpoint = Endpoint::of_connect(head.target)?;
        let lease = self.pipeline.authenticator.verify(&token?, client)?;
        let load = &self.pipeline.load;
        let admitted = self
            .admit_lease(&lease, &endpoint, head.host)
            .await
            .and_then(|()| Load::tunnel(load.party(&lease)));
        if let Err(refusal) = &admitted {
            self.record(&lease, &endpoint, client, request_id, refusal)
                .await;
        }
        admitted.map(|place| Tunnel {
            endpoint,
            lease,
            place,
            served: OnceLock::new(),
            path_slots: OnceLock::new(),
        })
    }

    async fn admit_lease(
        &self,
        lease: &VerifiedLease,
        endpoint: &Endpoint,
        host: Option<&str>,
    ) -> Result<(), Refusal> {
        let now = self.pipeline.clock.now();
        if let Some(host) = host {
            agrees(endpoint, host)?;
        }
        door::check_standing(&self.pipeline.store, lease, None, now).await?;
        covers_host(lease, endpoint.host.as_str(), endpoint.port, now).map_err(|denial| {
            let authority = format!("{}:{}", endpoint.host, endpoint.port);
            let url = format!("https://{authority}/");
            Refusal::of_denial(&denial, |_| authority.clone()).explained("GET", &url)
        })?;
        self.pipeline
            .upstreams
            .addresses(&endpoint.host, endpoint.port)
            .await?;
        Ok(())
    }

    /// Serves an admitted tunnel: TLS with a leaf for its host, or cleartext, as its first byte tells.
    async fn tunnel<S: Transport>(
        &self,
        mut io: ReadAhead<S>,
        mut tunnel: Tunnel,
        peer: Peer,
        request_id: &str,
        shutdown: &watch::Receiver<bool>,
    ) {
        if io.say(ESTABLISHED).await.is_err() {
            return;
        }
        let deadline = Instant::now() + HANDSHAKE_DEADLINE;
        let Ok(Ok(first)) = timeout_at(deadline, io.first_byte()).await else {
            return;
        };
        let cut = Arc::new(Cut::default());
        if first != TLS_HANDSHAKE {
            tunnel.endpoint.scheme = Scheme::Http;
            let digest = link(peer.ip, &cut, Some(tunnel));
            let conn = Box::new(
                Conn::new(io, peer.id)
                    .with_digest(Arc::clone(&digest))
                    .with_cut(cut)
                    .with_least_rate(self.pipeline.load.least_rate()),
            );
            let inside = Link::in_digest(&digest).expect("made with a link");
            self.serve_inside(conn, inside, shutdown).await;
            return;
        }
        let Ok(Some(mut tls)) =
            timeout_at(deadline, self.handshake(io, &tunnel, peer.ip, request_id)).await
        else {
            return;
        };
        let is_h2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
        let mut preface = BytesMut::new();
        if is_h2 && !read_preface(&mut tls, &mut preface, deadline).await {
            return;
        }
        let digest = link(peer.ip, &cut, Some(tunnel));
        let mut conn = Conn::new(tls, peer.id)
            .with_digest(Arc::clone(&digest))
            .with_cut(cut);
        if is_h2 {
            conn.put_back(preface.freeze());
            let rate = self.pipeline.load.least_rate();
            h2::serve(conn, digest, rate, &self.proxy, shutdown).await;
        } else {
            let conn = conn.with_least_rate(self.pipeline.load.least_rate());
            let inside = Link::in_digest(&digest).expect("made with a link");
            self.serve_inside(Box::new(conn), inside, shutdown).await;
        }
    }

    /// TLS with the agent. A name other than the tunnel's ends the handshake and is recorded.
    async fn handshake<S: Transport>(
        &self,
        io: ReadAhead<S>,
        tunnel: &Tunnel,
        client: IpAddr,
        request_id: &str,
    ) -> Option<tokio_rustls::server::TlsStream<ReadAhead<S>>> {
        let start = LazyConfigAcceptor::new(Acceptor::default(), io)
            .await
            .ok()?;
        let named = start.client_hello().server_name().map(str::to_owned);
        if let Some(named) = named
            && agrees(
                &tunnel.endpoint,
                &format!("{named}:{}", tunnel.endpoint.port),
            )
            .is_err()
        {
            let refusal = Refusal::new(
                Code::AuthorityMismatch,
                "the TLS handshake names another host than CONNECT",
            );
            let mut io = start.io;
            let _ = io.write_all(&UNRECOGNIZED_NAME).await;
            let _ = io.shutdown().await;
            self.record(
                &tunnel.lease,
                &tunnel.endpoint,
                client,
                request_id,
                &refusal,
            )
            .await;
            return None;
        }
        let settings = self
            .leaves
            .settings(&tunnel.endpoint.host.to_shared(), self.pipeline.clock.now())
            .inspect_err(|error| tracing::error!(%error, server.address = %tunnel.endpoint.host, "no leaf could be minted"))
            .ok()?;
        start.into_stream(settings).await.ok()
    }

    async fn record(
        &self,
        lease: &VerifiedLease,
        endpoint: &Endpoint,
        client: IpAddr,
        request_id: &str,
        refusal: &Refusal,
    ) {
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
                address: refusal.address,
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
        self.pipeline.write_refusal(refused).await;
    }

    /// Counts a refusal of somebody unknown. It is not written: writing is for those who bear a lease.
    fn count(&self, client: IpAddr, request_id: &str, refusal: &Refusal) {
        self.pipeline.metrics.count(refusal.code.kind(), "");
        let code = refusal.code.as_str();
        tracing::info!(request.id = request_id, client.address = %client, error.code = code, "refused at the door: {code}");
    }

    fn request_id(&self) -> String {
        leases::request_id(self.pipeline.clock.now())
    }
}

/// Reads a head and the framing of its body strictly, before a parser that would repair it or answer in its own words.
/// Gives the head's length and all bytes read so far.
pub(crate) fn prepare<S: Transport>(
    conn: &mut Conn<S>,
    read: BytesMut,
    end: usize,
    link: &Link,
) -> Result<Next, Refusal> {
    let head = Head::parse(&read[..end])?;
    let authority = check_names(&head, link.tunnel.as_ref())?;
    if head.method == "CONNECT" && link.tunnel.is_none() {
        return Ok(Next::Connect {
            head: end,
            read: read.freeze(),
        });
    }
    let framing = head.framing;
    // Pingora compares an absolute target with Host byte by byte. For us two spellings of one name are one, and whether
    // they are is said with the target, by the pipeline, which records what it refuses.
    if let (Some(authority), Some(host)) = (authority, head.host)
        && authority != host
    {
        link.host_as_sent.lock().replace(host.to_owned());
        let mut same = head.with_host(authority);
        let length = same.len();
        same.extend_from_slice(&read[end..]);
        conn.begin(same.into(), length, framing)?;
    } else {
        conn.begin(read.freeze(), end, framing)?;
    }
    Ok(Next::Request)
}

/// What a connection goes on with.
pub(crate) enum Next {
    /// A request, which the connection holds.
    Request,
    /// A CONNECT whose head has so many bytes of what was read.
    Connect { head: usize, read: Bytes },
}

/// Checks what a head names as far as the connection tells. Gives the authority of an absolute target.
fn check_names<'a>(head: &Head<'a>, tunnel: Option<&Tunnel>) -> Result<Option<&'a str>, Refusal> {
    if let Some(tunnel) = tunnel {
        check_method(head.method)?;
        if let Some(host) = head.host {
            tunnel.endpoint.agrees(host)?;
        }
    } else if head.method == "CONNECT" {
        return Ok(None);
    }
    let target = RawTarget::parse(head.target)?;
    if target.is_absolute() {
        target.scheme()?;
    }
    let authority = target.authority;
    match (authority, tunnel) {
        (Some(authority), Some(tunnel)) => tunnel.endpoint.agrees(authority)?,
        (Some(authority), None) => drop(parse_authority(authority)?),
        (None, _) if head.host.is_some_and(|host| host.contains('@')) => {
            return Err(Refusal::new(
                Code::AmbiguousRequest,
                "Host holds more than a host and a port",
            ));
        }
        (None, _) => {}
    }
    Ok(authority)
}

/// Host on a CONNECT may leave the port out; where it is written, it must be the target's.
fn agrees(endpoint: &Endpoint, host: &str) -> Result<(), Refusal> {
    if host == endpoint.host.as_str() {
        return Ok(());
    }
    endpoint.agrees(host)
}

/// Whether both ends of a connection are on this machine. The kernel takes no packet from outside that claims one of its
/// own addresses as its source.
fn is_this_machine(tcp: &TcpStream, client: SocketAddr) -> bool {
    client.ip().to_canonical().is_loopback()
        || tcp.local_addr().is_ok_and(|own| own.ip() == client.ip())
}

fn link(client: IpAddr, cut: &Arc<Cut>, tunnel: Option<Tunnel>) -> Arc<ProxyDigest> {
    digest(Link::new(client, Arc::clone(cut), tunnel))
}

fn digest(link: Link) -> Arc<ProxyDigest> {
    let response = ResponseHeader::build(200, Some(0)).expect("200 is a status");
    Arc::new(ProxyDigest::new(Box::new(response), Some(Box::new(link))))
}

/// What an HTTP/1 connection runs over.
pub(crate) trait Transport: AsyncRead + AsyncWrite + Unpin + Send + Sync + 'static {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + Sync + 'static> Transport for S {}

/// Reads until a head is whole: its length, or `None` when the agent is gone, idle or slow beyond its deadline.
async fn read_head<S: Transport>(
    conn: &mut Conn<S>,
    read: &mut BytesMut,
) -> Result<Option<usize>, HeadError> {
    read.reserve(HEAD_BUFFER);
    // The time of a head counts from its first byte; until then the connection is idle.
    if !matches!(timeout(IDLE, conn.read_buf(read)).await, Ok(Ok(1..))) {
        return Ok(None);
    }
    let mut deadline = None;
    loop {
        match read[0] {
            TLS_HANDSHAKE => return Ok(None),
            SOCKS5 => {
                // A lease is longer than the 255 bytes of a SOCKS5 password (RFC 1929 section 2).
                let _ = conn.write_all(&SOCKS5_UNACCEPTABLE).await;
                conn.close().await;
                return Ok(None);
            }
            _ => {}
        }
        if let Some(end) = end_of_head(read) {
            return Ok(Some(end));
        }
        if read.len() > MAX_HEAD {
            return Err(HeadError::TooLarge);
        }
        if has_bare_line_end(read) {
            return Err(HeadError::LineEnd);
        }
        let until = *deadline.get_or_insert_with(|| Instant::now() + HEAD_DEADLINE);
        read.reserve(HEAD_BUFFER);
        if !matches!(timeout_at(until, conn.read_buf(read)).await, Ok(Ok(1..))) {
            return Ok(None);
        }
    }
}

/// Reads HTTP/2's opening bytes (RFC 9113 section 3.4) within the tunnel's own deadline: Pingora waits for them for ever.
async fn read_preface<S: Transport>(tls: &mut S, read: &mut BytesMut, deadline: Instant) -> bool {
    read.reserve(HEAD_BUFFER);
    while read.len() < H2_PREFACE {
        if !matches!(timeout_at(deadline, tls.read_buf(read)).await, Ok(Ok(1..))) {
            return false;
        }
    }
    true
}

async fn answer<S: Transport>(
    conn: &mut Conn<S>,
    refusal: &Refusal,
    door: Door,
    request_id: &str,
    keep: bool,
) -> std::io::Result<()> {
    let text = as_text(refusal, door, request_id, keep);
    timeout(IDLE, async {
        conn.write_all(&text).await?;
        conn.flush().await
    })
    .await
    .map_err(std::io::Error::other)?
}

/// A refusal as it stands on an HTTP/1 connection, which is kept after it or not.
pub(crate) fn as_text(refusal: &Refusal, door: Door, request_id: &str, keep: bool) -> BytesMut {
    let (head, body) = refusal.respond(door, request_id);
    let mut text = BytesMut::with_capacity(1024);
    text.extend_from_slice(format!("HTTP/1.1 {}\r\n", head.status).as_bytes());
    for (name, value) in &head.headers {
        text.extend_from_slice(name.as_str().as_bytes());
        text.extend_from_slice(b": ");
        text.extend_from_slice(value.as_bytes());
        text.extend_from_slice(b"\r\n");
    }
    text.extend_from_slice(if keep {
        b"connection: keep-alive\r\n\r\n"
    } else {
        b"connection: close\r\n\r\n"
    });
    text.extend_from_slice(&body);
    text
}

/// A stream whose first bytes were read already.
#[derive(Debug)]
pub(crate) struct ReadAhead<S> {
    io: S,
    bytes: Bytes,
}

impl<S: Transport> ReadAhead<S> {
    fn none(io: S) -> Self {
        Self {
            io,
            bytes: Bytes::new(),
        }
    }

    async fn say(&mut self, text: &[u8]) -> std::io::Result<()> {
        self.io.write_all(text).await?;
        self.io.flush().await
    }

    /// Waits for the first byte, which stays to be read.
    async fn first_byte(&mut self) -> std::io::Result<u8> {
        if self.bytes.is_empty() {
            let mut read = BytesMut::with_capacity(HEAD_BUFFER);
            self.io.read_buf(&mut read).await?;
            self.bytes = read.freeze();
        }
        self.bytes
            .first()
            .copied()
            .ok_or_else(|| std::io::ErrorKind::UnexpectedEof.into())
    }
}

impl<S: Transport> AsyncRead for ReadAhead<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let this = self.get_mut();
        if this.bytes.is_empty() {
            return Pin::new(&mut this.io).poll_read(cx, buf);
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

impl<S: Transport> AsyncWrite for ReadAhead<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }
}
