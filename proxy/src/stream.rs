//! The byte stream between an agent and the injector: one wrapper for the plain and the intercepted leg.
//!
//! Pingora asks its transport for a handful of small traits; [`Conn`] answers them, hands Pingora the
//! bytes which were read ahead, and carries the tunnel that the connection belongs to. It also does
//! three things which Pingora leaves open: it joins a response's head and a small body into one TLS
//! record, it can be cut from outside when the lease behind it ends, and it reads the framing of a
//! chunked request strictly.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Buf, Bytes, BytesMut};
use futures::task::AtomicWaker;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl,
    TimingDigest, UniqueID, UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::timeout;

use crate::chunk::{ChunkError, Chunks};

/// Written bytes wait for a flush until there are this many, so that a head and a small body leave in one record.
const COALESCE: usize = 16 * 1024;
/// How long a closed connection's leftovers are read away.
const LINGER: Duration = Duration::from_millis(500);

/// The switch that ends a connection from outside.
#[derive(Debug, Default)]
pub(crate) struct Cut {
    done: AtomicBool,
    waker: AtomicWaker,
}

impl Cut {
    /// Ends the connection: every later read and write fails.
    pub(crate) fn cut(&self) {
        self.done.store(true, Ordering::Release);
        self.waker.wake();
    }

    pub(crate) fn is_done(&self) -> bool {
        self.done.load(Ordering::Acquire)
    }
}

/// A connection from an agent as Pingora wants to see it.
pub(crate) struct Conn<S> {
    io: S,
    read_ahead: Bytes,
    unsent: BytesMut,
    cut: Arc<Cut>,
    id: UniqueIDType,
    digest: Option<Arc<ProxyDigest>>,
    chunks: Option<Chunks>,
}

impl<S> Conn<S> {
    pub(crate) fn new(io: S, id: UniqueIDType) -> Self {
        Self {
            io,
            read_ahead: Bytes::new(),
            unsent: BytesMut::new(),
            cut: Arc::default(),
            id,
            digest: None,
            chunks: None,
        }
    }

    /// Bytes which were read already and come first for the next reader.
    pub(crate) fn put_back(&mut self, bytes: Bytes) {
        // A head that was read in small pieces may have left some of what was put back before.
        self.read_ahead = if self.read_ahead.is_empty() {
            bytes
        } else {
            [bytes, self.read_ahead.split_off(0)].concat().into()
        };
    }

    /// Says how the next body is framed, of which `start` was read with its head. Where a chunked one is odd already,
    /// that is told at once; where it is odd later, the read which brings it fails.
    pub(crate) fn expect_body(&mut self, is_chunked: bool, start: &[u8]) -> Result<(), ChunkError> {
        self.chunks = None;
        if !is_chunked {
            return Ok(());
        }
        let mut chunks = Chunks::default();
        chunks.read(start)?;
        chunks.read(&self.read_ahead)?;
        self.chunks = (!chunks.is_done()).then_some(chunks);
        Ok(())
    }

    /// The context that every request on this connection finds in its session.
    pub(crate) fn with_digest(mut self, digest: Arc<ProxyDigest>) -> Self {
        self.digest = Some(digest);
        self
    }

    pub(crate) fn with_cut(mut self, cut: Arc<Cut>) -> Self {
        self.cut = cut;
        self
    }

    /// The stream below, and what was read ahead of it.
    pub(crate) fn into_parts(self) -> (S, Bytes) {
        (self.io, self.read_ahead)
    }
}

impl<S> Conn<S> {
    fn check_cut(&self) -> io::Result<()> {
        if self.cut.is_done() {
            Err(cut())
        } else {
            Ok(())
        }
    }
}

impl<S: AsyncWrite + Unpin> Conn<S> {
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.unsent.is_empty() {
            self.check_cut()?;
            let written = Pin::new(&mut self.io).poll_write(cx, &self.unsent);
            if written.is_pending() {
                self.cut.waker.register(cx.waker());
                self.check_cut()?;
            }
            let sent = ready!(written)?;
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

impl<S: AsyncRead + AsyncWrite + Unpin> Conn<S> {
    /// Closes so that an answer survives: what the agent still sends is read for a moment, lest a reset overtake it.
    pub(crate) async fn close(&mut self) {
        // The peer may be gone; there is nobody to tell.
        let _ = AsyncWriteExt::shutdown(self).await;
        let mut sink = [0; 4096];
        let _ = timeout(LINGER, async {
            while matches!(self.io.read(&mut sink).await, Ok(1..)) {}
        })
        .await;
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Conn<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.cut.is_done() {
            return Poll::Ready(Err(cut()));
        }
        if this.read_ahead.has_remaining() {
            let n = this.read_ahead.len().min(buf.remaining());
            buf.put_slice(&this.read_ahead[..n]);
            this.read_ahead.advance(n);
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut this.io).poll_read(cx, buf);
        if read.is_pending() {
            this.cut.waker.register(cx.waker());
            if this.cut.is_done() {
                return Poll::Ready(Err(cut()));
            }
        }
        if let Some(chunks) = &mut this.chunks {
            if let Err(error) = chunks.read(&buf.filled()[before..]) {
                buf.set_filled(before);
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, error)));
            }
            if chunks.is_done() {
                this.chunks = None;
            }
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Conn<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.check_cut()?;
        if this.unsent.len() + buf.len() <= COALESCE {
            this.unsent.extend_from_slice(buf);
            return Poll::Ready(Ok(buf.len()));
        }
        ready!(this.poll_drain(cx))?;
        if buf.len() <= COALESCE / 2 {
            this.unsent.extend_from_slice(buf);
            return Poll::Ready(Ok(buf.len()));
        }
        let written = Pin::new(&mut this.io).poll_write(cx, buf);
        if written.is_pending() {
            this.cut.waker.register(cx.waker());
            this.check_cut()?;
        }
        written
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
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Shutdown for Conn<S> {
    async fn shutdown(&mut self) {
        self.close().await;
    }
}

impl<S> UniqueID for Conn<S> {
    fn id(&self) -> UniqueIDType {
        self.id
    }
}

impl<S> Ssl for Conn<S> {}

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
        f.debug_struct("Conn")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// Where a chunked body was odd, if that is why a read failed.
pub(crate) fn chunk_error(error: &pingora::Error) -> Option<ChunkError> {
    let read = error.root_cause().downcast_ref::<io::Error>()?;
    read.get_ref()?.downcast_ref().copied()
}

fn cut() -> io::Error {
    io::Error::new(
        io::ErrorKind::ConnectionAborted,
        "the lease behind this connection ended",
    )
}
