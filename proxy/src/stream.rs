//! The byte stream between an agent and the injector: one wrapper for the plain and the intercepted leg.
//!
//! Pingora asks its transport for a handful of small traits; [`Conn`] answers them, hands Pingora the
//! bytes which were read ahead, and carries the tunnel that the connection belongs to. It also does
//! three things which Pingora leaves open: it joins a response's head and a small body into one TLS
//! record, it bounds the time that a request head may take in all, and it can be cut from outside
//! when the lease behind it ends.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Buf, Bytes, BytesMut};
use futures::task::AtomicWaker;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl,
    TimingDigest, UniqueID, UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

/// How long a request head may take from its first byte to its last (threats.md H1).
pub(crate) const HEAD_DEADLINE: Duration = Duration::from_secs(10);

/// Written bytes wait for a flush until there are this many, so that a head and a small body leave in one record.
const COALESCE: usize = 16 * 1024;

/// What a connection is doing, seen by the stream that guards it.
#[derive(Debug, Default)]
pub(crate) struct ConnState {
    /// How often a head began to be awaited or was complete: odd while one is awaited.
    heads: AtomicU32,
    cut: AtomicBool,
    waker: AtomicWaker,
}

impl ConnState {
    /// The next bytes belong to a request head, and the whole head is due soon after the first of them.
    pub(crate) fn await_head(&self) {
        let heads = self.heads.load(Ordering::Relaxed);
        self.heads.store(heads | 1, Ordering::Release);
    }

    /// The head is complete.
    pub(crate) fn head_read(&self) {
        let heads = self.heads.load(Ordering::Relaxed);
        self.heads.store((heads | 1).wrapping_add(1), Ordering::Release);
    }

    /// Ends the connection: every later read and write fails.
    pub(crate) fn cut(&self) {
        self.cut.store(true, Ordering::Release);
        self.waker.wake();
    }

    pub(crate) fn is_cut(&self) -> bool {
        self.cut.load(Ordering::Acquire)
    }

    /// The number of the head that is awaited, if one is.
    fn awaited_head(&self) -> Option<u32> {
        Some(self.heads.load(Ordering::Acquire)).filter(|heads| heads % 2 == 1)
    }
}

/// The head that is arriving: its number, when its first byte came, and the timer once one is needed.
struct Arriving {
    head: u32,
    since: Instant,
    timer: Option<Pin<Box<Sleep>>>,
}

/// A connection from an agent as Pingora wants to see it.
pub(crate) struct Conn<S> {
    io: S,
    read_ahead: Bytes,
    unsent: BytesMut,
    state: Arc<ConnState>,
    arriving: Option<Arriving>,
    alpn: Option<ALPN>,
    id: UniqueIDType,
    digest: Option<Arc<ProxyDigest>>,
}

impl<S> Conn<S> {
    pub(crate) fn new(io: S, id: UniqueIDType) -> Self {
        Self {
            io,
            read_ahead: Bytes::new(),
            unsent: BytesMut::new(),
            state: Arc::default(),
            arriving: None,
            alpn: None,
            id,
            digest: None,
        }
    }

    /// Bytes which were read already and come first.
    pub(crate) fn with_read_ahead(mut self, bytes: Bytes) -> Self {
        self.read_ahead = bytes;
        self
    }

    /// The context that every request on this connection finds in its session.
    pub(crate) fn with_digest(mut self, digest: Arc<ProxyDigest>) -> Self {
        self.digest = Some(digest);
        self
    }

    pub(crate) fn with_state(mut self, state: Arc<ConnState>) -> Self {
        self.state = state;
        self
    }

    pub(crate) fn with_alpn(mut self, alpn: Option<ALPN>) -> Self {
        self.alpn = alpn;
        self
    }

    pub(crate) fn id(&self) -> UniqueIDType {
        self.id
    }

    /// The stream below and the bytes which were read ahead of it.
    pub(crate) fn into_parts(self) -> (S, Bytes) {
        (self.io, self.read_ahead)
    }

    /// Notes that bytes of a head came. Most heads are whole with their first read, so no timer is made yet.
    fn note_arrival(&mut self) {
        let Some(head) = self.state.awaited_head() else {
            return;
        };
        if self.arriving.as_ref().is_none_or(|arriving| arriving.head != head) {
            self.arriving = Some(Arriving { head, since: Instant::now(), timer: None });
        }
    }

    /// Waits for more of a head that has begun, up to its deadline.
    fn poll_head_deadline(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let awaited = self.state.awaited_head();
        let Some(arriving) = self.arriving.as_mut().filter(|a| Some(a.head) == awaited) else {
            return Poll::Pending;
        };
        let due = arriving.since + HEAD_DEADLINE;
        let timer = arriving.timer.get_or_insert_with(|| Box::pin(sleep_until(due)));
        timer
            .as_mut()
            .poll(cx)
            .map(|()| io::Error::new(io::ErrorKind::TimedOut, "the request head took too long"))
    }
}

impl<S: AsyncWrite + Unpin> Conn<S> {
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.unsent.is_empty() {
            let sent = ready!(Pin::new(&mut self.io).poll_write(cx, &self.unsent))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.unsent.advance(sent);
        }
        if self.unsent.capacity() > 0 {
            // An idle connection keeps no buffer.
            self.unsent = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Conn<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.state.is_cut() {
            return Poll::Ready(Err(cut()));
        }
        let before = buf.filled().len();
        if this.read_ahead.has_remaining() {
            let n = this.read_ahead.len().min(buf.remaining());
            buf.put_slice(&this.read_ahead.split_to(n));
        } else {
            match Pin::new(&mut this.io).poll_read(cx, buf) {
                Poll::Ready(result) => result?,
                Poll::Pending => {
                    this.state.waker.register(cx.waker());
                    if this.state.is_cut() {
                        return Poll::Ready(Err(cut()));
                    }
                    return this.poll_head_deadline(cx).map(Err);
                }
            }
        }
        if buf.filled().len() > before {
            this.note_arrival();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Conn<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.state.is_cut() {
            return Poll::Ready(Err(cut()));
        }
        if this.unsent.len() + buf.len() <= COALESCE {
            this.unsent.extend_from_slice(buf);
            return Poll::Ready(Ok(buf.len()));
        }
        ready!(this.poll_drain(cx))?;
        if buf.len() <= COALESCE / 2 {
            this.unsent.extend_from_slice(buf);
            return Poll::Ready(Ok(buf.len()));
        }
        Pin::new(&mut this.io).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_drain(cx))?;
        Pin::new(&mut this.io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_drain(cx))?;
        Pin::new(&mut this.io).poll_shutdown(cx)
    }
}

#[async_trait]
impl<S: AsyncWrite + Unpin + Send> Shutdown for Conn<S> {
    async fn shutdown(&mut self) {
        // The peer may be gone; there is nobody to tell.
        let _ = AsyncWriteExt::shutdown(self).await;
    }
}

impl<S> UniqueID for Conn<S> {
    fn id(&self) -> UniqueIDType {
        self.id
    }
}

impl<S> Ssl for Conn<S> {
    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.alpn.clone()
    }
}

impl<S> GetTimingDigest for Conn<S> {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl<S> GetProxyDigest for Conn<S> {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.digest.as_ref().map(Arc::clone)
    }
}

impl<S> GetSocketDigest for Conn<S> {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        None
    }
}

impl<S: Send> Peek for Conn<S> {}

impl<S> fmt::Debug for Conn<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Conn").field("id", &self.id).finish_non_exhaustive()
    }
}

fn cut() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "the lease behind this connection ended")
}
