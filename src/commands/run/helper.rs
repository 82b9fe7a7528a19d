//! The way to the injector without a lease in the program's hands: a proxy on a port of loopback that adds it.
//!
//! It speaks HTTP and SOCKS5, which the first byte of a connection tells apart, and the injector sees no difference.
//! It serves the program and what the program starts, nobody else, and opens no TLS: what passes a tunnel is as secret to
//! it as to any other hop. When the lease is renewed, new tunnels carry the new one. An old tunnel is closed in a pause
//! after an answer, so that the program opens a new one before the old lease's end cuts it.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use fast_socks5::ReplyError;
use http::header::{CONTENT_TYPE, HOST, HeaderName, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::holder::Lease;
use super::kin::Kin;
use super::socks;
use crate::output::Output;
use crate::tunnel::Dialer;
use crate::units::HostPort;

/// How long the injector may take to accept a connection.
const DIAL: Duration = Duration::from_secs(10);
/// A tunnel of an old lease is closed after an eighth of what is left of the lease without a byte, within these bounds.
const QUIET: std::ops::Range<Duration> = Duration::from_millis(100)..Duration::from_mins(1);
/// In the last part of that time, right behind an answer: a busy program has sent nothing more by then.
const BREATH: Duration = Duration::from_millis(10);
/// That part is an eighth of the whole, and no more than this.
const LAST_PART: Duration = Duration::from_secs(30);
/// So long before its lease ends, a tunnel of an old lease is closed in any case: what still passes would be cut then, and
/// later requests on it refused.
const LAST_MOMENT: Duration = Duration::from_millis(100);
/// What is read of a refusal whose reason is told on the terminal, in bytes, and how long that may take.
const REASON: usize = 64 * 1024;
const REASON_DEADLINE: Duration = Duration::from_secs(2);
/// How many lines the program can make this process write to the terminal.
const MOST_LINES: usize = 16;
/// An old field that some clients send to their proxy.
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

type Body = BoxBody<Bytes, hyper::Error>;

/// The listener of one run.
pub(super) struct Helper {
    listener: TcpListener,
    address: SocketAddr,
    hop: Arc<Hop>,
    kin: Kin,
}

/// What every connection needs.
struct Hop {
    injector: Dialer,
    leases: watch::Receiver<Arc<Lease>>,
    terminal: Terminal,
}

/// The injector's answer to CONNECT, and the lease that it was asked with.
struct Answer {
    response: Response<Incoming>,
    /// Those that come after it.
    leases: watch::Receiver<Arc<Lease>>,
    ends: Instant,
}

/// Where whoever started the run reads what SOCKS has no words for.
struct Terminal {
    output: Output,
    told: Mutex<BTreeSet<String>>,
}

impl Helper {
    /// Takes a free port of loopback.
    pub(super) async fn open(
        injector: Dialer,
        leases: watch::Receiver<Arc<Lease>>,
        kin: Kin,
        output: Output,
    ) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .context("no port of loopback is free")?;
        let address = listener.local_addr()?;
        let terminal = Terminal {
            output,
            told: Mutex::default(),
        };
        Ok(Self {
            listener,
            address,
            hop: Arc::new(Hop {
                injector,
                leases,
                terminal,
            }),
            kin,
        })
    }

    /// Where the program finds it.
    pub(super) fn address(&self) -> HostPort {
        HostPort {
            host: self.address.ip().to_string(),
            port: self.address.port(),
        }
    }

    /// Serves connections for as long as it is polled.
    pub(super) async fn serve(&self) -> Infallible {
        loop {
            match self.listener.accept().await {
                Ok((stream, theirs)) => {
                    let (hop, kin, ours) = (Arc::clone(&self.hop), self.kin, self.address);
                    tokio::spawn(async move {
                        let of_program =
                            tokio::task::spawn_blocking(move || kin.owns(theirs, ours));
                        hop.serve(stream, of_program.await.unwrap_or(false)).await;
                    });
                }
                // Out of file descriptors, most likely: they come back.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }
}

impl Hop {
    /// Serves one connection. To a stranger every request is refused.
    async fn serve(self: Arc<Self>, stream: TcpStream, of_program: bool) {
        let _ = stream.set_nodelay(true);
        let mut first = [0];
        match stream.peek(&mut first).await {
            Ok(1..) => {}
            // Closed or broken before it said anything.
            Ok(0) | Err(_) => return,
        }
        match first[0] {
            socks::VERSION => self.socks(stream, of_program).await,
            // It has no names, and ends without an answer.
            socks::OLD_VERSION if of_program => self.terminal.tell(
                "a program spoke SOCKS4, which is not served; let it speak SOCKS5 and pass names, as curl does with \
                 --socks5-hostname"
                    .to_owned(),
            ),
            socks::OLD_VERSION => {}
            _ => self.http(stream, of_program).await,
        }
    }

    async fn http(self: Arc<Self>, stream: TcpStream, of_program: bool) {
        let service = service_fn(move |request| {
            let hop = Arc::clone(&self);
            async move {
                let answer = if of_program {
                    hop.forward(request).await
                } else {
                    stranger()
                };
                Ok::<_, Infallible>(answer)
            }
        });
        // A connection that breaks off concerns its two ends alone.
        let _ = http1::Builder::new()
            .preserve_header_case(true)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades()
            .await;
    }

    async fn forward(&self, request: Request<Incoming>) -> Response<Body> {
        let answer = if request.method() == Method::CONNECT {
            self.tunnel(request).await
        } else if request.uri().authority().is_some() {
            self.request(request).await
        } else {
            return problem(
                StatusCode::BAD_REQUEST,
                "ambiguous_request",
                "this is a proxy: name the whole URL, or use CONNECT",
            );
        };
        match answer {
            Ok(answer) => answer,
            Err(error) => problem(
                StatusCode::BAD_GATEWAY,
                "injector_unreachable",
                &self.unreachable(&error),
            ),
        }
    }

    fn unreachable(&self, error: &anyhow::Error) -> String {
        format!(
            "the injector at {} does not answer: {error:#}; see `claviger doctor`",
            self.injector.url()
        )
    }

    /// SOCKS5: the same CONNECT. The reply to it is a code, so the reason of a refusal goes to the terminal.
    async fn socks(&self, stream: TcpStream, of_program: bool) {
        let Some(connect) = socks::Connect::read(stream).await else {
            return;
        };
        if !of_program {
            return connect.refuse(ReplyError::ConnectionNotAllowed).await;
        }
        let authority = connect.authority().to_string();
        let answer = match self.ask(&authority).await {
            Ok(answer) => answer,
            Err(error) => {
                self.terminal.tell(self.unreachable(&error));
                return connect.refuse(ReplyError::GeneralFailure).await;
            }
        };
        let status = answer.response.status();
        if status != StatusCode::OK {
            let reason = reason(answer.response).await;
            let hint = if connect.is_address() {
                "; an address came instead of a name, so let the program leave names to its proxy, as curl does with \
                 --socks5-hostname"
            } else {
                ""
            };
            self.terminal.tell(format!(
                "a SOCKS request for {authority} was refused: {reason}{hint}"
            ));
            return connect.refuse(socks::reply_to(status)).await;
        }
        let Ok(injector) = hyper::upgrade::on(answer.response).await else {
            return connect.refuse(ReplyError::GeneralFailure).await;
        };
        if let Some(agent) = connect.accept().await {
            relay(agent, TokioIo::new(injector), answer.leases, answer.ends).await;
        }
    }

    /// CONNECT: asked of the injector, then bytes both ways.
    async fn tunnel(&self, request: Request<Incoming>) -> anyhow::Result<Response<Body>> {
        let Answer {
            response,
            leases,
            ends,
        } = self.ask(&request.uri().to_string()).await?;
        if response.status() != StatusCode::OK {
            return Ok(passed(response));
        }
        tokio::spawn(async move {
            let both = tokio::try_join!(hyper::upgrade::on(request), hyper::upgrade::on(response));
            if let Ok((agent, injector)) = both {
                relay(TokioIo::new(agent), TokioIo::new(injector), leases, ends).await;
            }
        });
        Ok(Response::new(
            Empty::new().map_err(|never| match never {}).boxed(),
        ))
    }

    /// Asks the injector for a tunnel, with the lease.
    async fn ask(&self, authority: &str) -> anyhow::Result<Answer> {
        let mut leases = self.leases.clone();
        let lease = Arc::clone(&leases.borrow_and_update());
        let connect = Request::connect(authority)
            .header(HOST, authority)
            .header(PROXY_AUTHORIZATION, credential(&lease)?)
            .body(
                Empty::<Bytes>::new()
                    .map_err(|never| match never {})
                    .boxed(),
            )?;
        let response = self.dial().await?.send_request(connect).await?;
        Ok(Answer {
            response,
            leases,
            ends: lease.ends,
        })
    }

    /// A request in absolute form, for cleartext.
    async fn request(&self, mut request: Request<Incoming>) -> anyhow::Result<Response<Body>> {
        let lease = Arc::clone(&self.leases.borrow());
        let fields = request.headers_mut();
        fields.remove(PROXY_CONNECTION);
        fields.insert(PROXY_AUTHORIZATION, credential(&lease)?);
        let response = self
            .dial()
            .await?
            .send_request(request.map(BodyExt::boxed))
            .await?;
        Ok(passed(response))
    }

    async fn dial(&self) -> anyhow::Result<SendRequest<Body>> {
        let stream = timeout(DIAL, self.injector.dial())
            .await
            .context("no connection in time")??;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection.with_upgrades());
        Ok(sender)
    }
}

impl Terminal {
    /// Says a line once. The program can cause many different ones, and gets no further than some.
    fn tell(&self, line: String) {
        let mut told = self.told.lock();
        if told.len() < MOST_LINES && !told.contains(&line) {
            self.output.warn(&line);
            told.insert(line);
        }
    }
}

/// Why the injector refused, in its own words.
async fn reason(refusal: Response<Incoming>) -> String {
    let status = refusal.status();
    let body = Limited::new(refusal.into_body(), REASON).collect();
    let body = match timeout(REASON_DEADLINE, body).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(_)) | Err(_) => Bytes::new(),
    };
    let problem: Value = serde_json::from_slice(&body).unwrap_or_default();
    problem["detail"]
        .as_str()
        .map_or_else(|| format!("it answered {status}"), str::to_owned)
}

/// The lease as the injector takes it. Marked, so that nothing prints it.
fn credential(lease: &Lease) -> anyhow::Result<HeaderValue> {
    let mut value = HeaderValue::try_from(format!("Bearer {}", lease.token.as_str()))?;
    value.set_sensitive(true);
    Ok(value)
}

/// The injector's answer for the program. A refused lease is nothing that it could mend by asking for a password.
fn passed(mut response: Response<Incoming>) -> Response<Body> {
    if response.status() == StatusCode::PROXY_AUTHENTICATION_REQUIRED {
        response.headers_mut().remove(PROXY_AUTHENTICATE);
        *response.status_mut() = StatusCode::FORBIDDEN;
    }
    response.map(BodyExt::boxed)
}

fn stranger() -> Response<Body> {
    problem(
        StatusCode::FORBIDDEN,
        "grant_denied",
        "this port serves the program that `claviger run` started, and the processes below it, alone; \
         use `claviger run` for this program too, or `claviger run --lease-in-env` to hand the lease on",
    )
}

/// RFC 9457, as the injector's own refusals are.
fn problem(status: StatusCode, error: &str, detail: &str) -> Response<Body> {
    let body = json!({ "type": "about:blank", "title": status.canonical_reason(), "status": status.as_u16(), "error": error, "detail": detail });
    let body = Full::from(body.to_string()).map_err(|never| match never {});
    let mut response = Response::new(body.boxed());
    *response.status_mut() = status;
    let kind = HeaderValue::from_static("application/problem+json");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

/// Bytes both ways until an end closes, or until the lease was renewed and the tunnel is at rest.
async fn relay<A, B>(
    agent: A,
    mut injector: B,
    mut leases: watch::Receiver<Arc<Lease>>,
    ends: Instant,
) where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let traffic = Arc::new(Traffic::default());
    let mut agent = Watched {
        io: agent,
        traffic: Arc::clone(&traffic),
    };
    let at_rest = async {
        if leases.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        traffic.rest(ends).await;
    };
    tokio::select! {
        // Either end has closed or failed; the other learns it from the closed connection.
        _ = copy_bidirectional(&mut agent, &mut injector) => {}
        () = at_rest => {}
    }
}

/// What passed a tunnel.
#[derive(Debug, Default)]
struct Traffic {
    bytes: AtomicU64,
    /// The last bytes went to the program.
    was_answer: AtomicBool,
}

impl Traffic {
    fn passed(&self, bytes: usize, is_answer: bool) {
        if bytes > 0 {
            self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
            self.was_answer.store(is_answer, Ordering::Relaxed);
        }
    }

    /// Waits for a moment at which no request is waiting for its answer, the longer a pause the more time is left to `ends`.
    async fn rest(&self, ends: Instant) {
        let left = || ends.saturating_duration_since(Instant::now());
        let last_part = (left() / 8).min(LAST_PART);
        let mut seen = self.bytes.load(Ordering::Relaxed);
        loop {
            let left = left();
            if left <= LAST_MOMENT {
                return;
            }
            let pause = if left <= last_part {
                BREATH
            } else {
                (left / 8).clamp(QUIET.start, QUIET.end)
            };
            tokio::time::sleep(pause).await;
            let now = self.bytes.load(Ordering::Relaxed);
            if now == seen && self.was_answer.load(Ordering::Relaxed) {
                return;
            }
            seen = now;
        }
    }
}

/// The program's end of a tunnel: what is read from it are requests, what is written to it are answers.
struct Watched<T> {
    io: T,
    traffic: Arc<Traffic>,
}

impl<T: AsyncRead + Unpin> AsyncRead for Watched<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        self.traffic.passed(buf.filled().len() - before, false);
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Watched<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.io).poll_write(cx, buf))?;
        self.traffic.passed(written, true);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
