//! Serving the router within bounds of time, headers and connections.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use http::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tower::ServiceExt as _;

use crate::sender::TlsPeer;
use crate::tls::ApiTls;

/// Serves the API on a listener until `shutdown` says so, then lets requests in work end.
///
/// With a certificate it speaks TLS, and cleartext with this machine alone: commands and probes beside the server go on. A
/// request's head must arrive within 10 s and fit 64 KiB and 100 fields; at most 1024 connections are served at once, and
/// further ones wait to be accepted.
///
/// # Errors
/// If the listener cannot be used. Errors of single connections end those alone.
pub async fn serve(
    listener: std::net::TcpListener,
    app: Router,
    tls: Option<ApiTls>,
    mut shutdown: watch::Receiver<bool>,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let tls = tls.map(Arc::new);
    let mut fresh = JoinSet::new();
    if let Some(tls) = &tls {
        fresh.spawn(Arc::clone(tls).keep_fresh());
    }
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let place = Arc::clone(&places).acquire_owned();
        let next = async { (place.await, listener.accept().await) };
        let (place, accepted) = tokio::select! {
            next = next => next,
            () = down(&mut shutdown) => break,
        };
        let place = place.map_err(io::Error::other)?;
        match accepted {
            Ok((stream, peer)) => {
                let connection =
                    connection(stream, peer, app.clone(), tls.clone(), shutdown.clone());
                tokio::spawn(async move {
                    connection.await;
                    drop(place);
                });
            }
            // No file descriptor is free, or the client was gone already: the next one may fare better.
            Err(error) => {
                tracing::warn!(error = %error, "a connection to the API was not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    let all = u32::try_from(MAX_CONNECTIONS).unwrap_or(u32::MAX);
    places
        .acquire_many(all)
        .await
        .map(|_| ())
        .map_err(io::Error::other)
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    app: Router,
    tls: Option<Arc<ApiTls>>,
    mut shutdown: watch::Receiver<bool>,
) {
    // Answers are small: waiting to fill a segment would cost each of them 40 ms.
    let _ = stream.set_nodelay(true);
    let Some(tls) = tls else {
        return exchange(stream, (peer, None), app, shutdown).await;
    };
    let opening = tokio::time::timeout(HEAD_DEADLINE, open(stream, peer, &tls));
    let opened = tokio::select! {
        opened = opening => opened.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())),
        () = down(&mut shutdown) => return,
    };
    match opened {
        Ok(Opened::Cleartext(stream)) => exchange(stream, (peer, None), app, shutdown).await,
        Ok(Opened::Tls(stream, of)) => exchange(*stream, (peer, Some(of)), app, shutdown).await,
        Err(error) => tracing::debug!(error = %error, "a connection to the API was not opened"),
    }
}

/// A connection that has begun.
enum Opened {
    Cleartext(TcpStream),
    Tls(Box<TlsStream<TcpStream>>, TlsPeer),
}

/// Begins a connection by what the client speaks.
async fn open(stream: TcpStream, peer: SocketAddr, tls: &ApiTls) -> io::Result<Opened> {
    let mut first = [0];
    if stream.peek(&mut first).await? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if first[0] != HANDSHAKE {
        let is_here =
            peer.ip().to_canonical().is_loopback() || stream.local_addr()?.ip() == peer.ip();
        return if is_here {
            Ok(Opened::Cleartext(stream))
        } else {
            Err(io::Error::other("cleartext from another machine"))
        };
    }
    let stream = TlsAcceptor::from(tls.settings()).accept(stream).await?;
    let certificates = stream.get_ref().1.peer_certificates();
    let own = certificates.and_then(<[_]>::first);
    let of = TlsPeer::new(own.map(AsRef::as_ref)).map_err(io::Error::other)?;
    Ok(Opened::Tls(Box::new(stream), of))
}

/// Answers the requests of a connection.
async fn exchange<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    (peer, tls): (SocketAddr, Option<TlsPeer>),
    app: Router,
    mut shutdown: watch::Receiver<bool>,
) {
    let stopping = Stopping(shutdown.clone());
    let service = app.map_request(move |request: Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(ConnectInfo(peer));
        request.extensions_mut().insert(stopping.clone());
        if let Some(tls) = &tls {
            request.extensions_mut().insert(tls.clone());
        }
        request
    });
    let builder = bounded();
    let connection =
        builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = down(&mut shutdown) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(error, "a connection to the API broke off");
    }
}

/// In each request's extensions: for answers that would never end by themselves.
#[derive(Debug, Clone)]
pub(crate) struct Stopping(watch::Receiver<bool>);

impl Stopping {
    /// Comes back when the server stops.
    pub(crate) async fn begun(&mut self) {
        down(&mut self.0).await;
    }
}

async fn down(shutdown: &mut watch::Receiver<bool>) {
    // A sender that is gone means the same.
    let _ = shutdown.wait_for(|down| *down).await;
}

fn bounded() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE)
        .max_headers(MAX_FIELDS)
        .max_buf_size(MAX_HEAD);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(64 * 1024)
        .max_concurrent_streams(64)
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(HEAD_DEADLINE);
    builder
}

/// The first byte of TLS: a record of the handshake (RFC 8446, section 5.1). No method of HTTP begins with it.
const HANDSHAKE: u8 = 22;
const MAX_CONNECTIONS: usize = 1024;
const HEAD_DEADLINE: Duration = Duration::from_secs(10);
const KEEP_ALIVE: Duration = Duration::from_secs(30);
const MAX_FIELDS: usize = 100;
const MAX_HEAD: usize = 64 * 1024;
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    fn started() -> (
        SocketAddr,
        watch::Sender<bool>,
        tokio::task::JoinHandle<io::Result<()>>,
    ) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = watch::channel(false);
        let app = Router::new().route(
            "/",
            get(|ConnectInfo(peer): ConnectInfo<SocketAddr>| async move { peer.ip().to_string() }),
        );
        (
            address,
            stop,
            tokio::spawn(serve(listener, app, None, stopped)),
        )
    }

    async fn exchange(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        String::from_utf8_lossy(&answer).into_owned()
    }

    #[tokio::test]
    async fn a_request_is_answered_and_knows_its_peer() {
        let (address, stop, server) = started();
        let answer = exchange(
            address,
            "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
        )
        .await;
        assert!(
            answer.starts_with("HTTP/1.1 200") && answer.ends_with("127.0.0.1"),
            "{answer}"
        );
        stop.send(true).unwrap();
        server.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_head_that_is_too_large_is_refused() {
        let (address, _stop, _server) = started();
        let field = format!("x: {}\r\n", "y".repeat(80 * 1024));
        let answer = exchange(
            address,
            &format!("GET / HTTP/1.1\r\nhost: x\r\n{field}\r\n"),
        )
        .await;
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 431"),
            "{answer}"
        );
        let many = "x: y\r\n".repeat(200);
        let answer = exchange(address, &format!("GET / HTTP/1.1\r\nhost: x\r\n{many}\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    }

    #[tokio::test]
    async fn shutdown_ends_idle_connections() {
        let (address, stop, server) = started();
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream
            .write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            .await
            .unwrap();
        let mut first = [0; 12];
        stream.read_exact(&mut first).await.unwrap();
        stop.send(true).unwrap();
        tokio::time::timeout(Duration::from_secs(5), server)
            .await
            .unwrap()
            .unwrap()
            .unwrap();
    }
}
