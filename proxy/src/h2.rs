//! The agent's side of HTTP/2: each of its streams is a request that Pingora proxies.
//!
//! Pingora has a server of its own for this, which answers some requests by itself, waits for a body for ever, and never
//! says `100 Continue`. So streams are accepted here, as sessions of Pingora's open kind (`custom`); what a request names
//! is judged by the pipeline, which records what it refuses.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::Stream as Messages;
use futures::future::poll_immediate;
use h2::server::{Builder, SendResponse};
use h2::{Reason, RecvStream, SendStream};
use http::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, DATE, EXPECT, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderName, Request, Response, StatusCode};
use pingora::apps::HttpServerApp;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::Digest;
use pingora::protocols::http::body_buffer::FixedBuffer;
use pingora::protocols::http::custom::CustomMessageWrite;
use pingora::protocols::http::custom::server::Session;
use pingora::protocols::http::date::get_cached_date;
use pingora::protocols::http::{HttpTask, ServerSession};
use pingora::protocols::l4::socket::SocketAddr;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::proxy::HttpProxy;
use pingora::{Error, ErrorType, OrErr, Result};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::head::MAX_HEAD;
use crate::patience::{LeastRate, Patience};
use crate::pipeline::Shared;

/// How long a connection without a stream is kept.
const IDLE: Duration = Duration::from_mins(1);
/// Streams that one connection may have open.
const MAX_STREAMS: u32 = 100;
/// How many requests of a connection may be without an answer, beyond as many that have one. What is more than may be open was
/// given up, and costs the agent two small frames each and us the beginning of a request (CVE-2023-44487).
const MAX_UNANSWERED: usize = 2 * MAX_STREAMS as usize;
/// How long the first part of a body is waited for before the request is looked at.
const FIRST_PART: Duration = Duration::from_secs(10);
/// What is kept of a body to be sent again, as Pingora does for its own sessions.
const REPLAYED: usize = 64 * 1024;

/// Serves a connection whose ALPN chose HTTP/2, to its end.
pub(crate) async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    io: S,
    link: Arc<ProxyDigest>,
    rate: LeastRate,
    proxy: &Arc<HttpProxy<Shared>>,
    shutdown: &watch::Receiver<bool>,
) {
    let handshake = Builder::new()
        .max_header_list_size(u32::try_from(MAX_HEAD).unwrap_or(u32::MAX))
        .max_concurrent_streams(MAX_STREAMS)
        .handshake(io)
        .await;
    let Ok(mut connection) = handshake else {
        return;
    };
    let digest = Arc::new(Digest {
        proxy_digest: Some(link),
        ..Digest::default()
    });
    let mut down = shutdown.clone();
    let mut draining = false;
    let mut streams = JoinSet::new();
    let mut asked = 0_usize;
    let answered = Arc::new(AtomicUsize::new(0));
    let mut is_ending = false;
    loop {
        let accepted = tokio::select! {
            biased;
            _ = down.wait_for(|down| *down), if !draining => {
                connection.graceful_shutdown();
                draining = true;
                continue;
            }
            // This also moves the bytes of all streams, so it is polled until the connection ends.
            accepted = connection.accept() => accepted,
            Some(_) = streams.join_next() => continue,
            () = sleep(IDLE), if streams.is_empty() => return,
        };
        let Some(Ok((request, mut respond))) = accepted else {
            break;
        };
        asked += 1;
        if asked > answered.load(Ordering::Relaxed) + MAX_UNANSWERED && !is_ending {
            // The loop goes on until the agent has been told.
            connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
            is_ending = true;
        }
        // What came together with its reset is not begun.
        let is_given_up = poll_immediate(poll_fn(|cx| respond.poll_reset(cx))).await;
        if is_ending || is_given_up.is_some() {
            continue;
        }
        let session = Stream::new(
            request,
            respond,
            (Arc::clone(&digest), Arc::clone(&answered)),
            rate,
        );
        let (proxy, shutdown) = (Arc::clone(proxy), shutdown.clone());
        streams.spawn(async move {
            let mut session = session;
            if !session.begins_as_declared().await {
                return;
            }
            let session = ServerSession::new_custom(Box::new(session));
            proxy.process_new_http(session, &shutdown).await;
        });
    }
    // Each still has its outcome to record.
    streams.detach_all();
}

/// One request and its response.
struct Stream {
    request: RequestHeader,
    body: RecvStream,
    /// Of a body with a declared length, what came first.
    first: Option<Bytes>,
    respond: SendResponse<Bytes>,
    /// There once the response's head is written.
    writer: Option<SendStream<Bytes>>,
    written: Option<Box<ResponseHeader>>,
    has_ended: bool,
    bytes_read: usize,
    bytes_sent: usize,
    replay: Option<FixedBuffer>,
    digest: Arc<Digest>,
    read_timeout: Option<Duration>,
    write_timeout: Option<Duration>,
    drain_timeout: Option<Duration>,
    /// How slow the agent may be with its body, until the response begins.
    sending: Option<Patience>,
    /// How slow it may be with reading the response.
    reading: Patience,
    /// How many of the connection's requests have an answer.
    answered: Arc<AtomicUsize>,
}

impl Stream {
    fn new(
        request: Request<RecvStream>,
        respond: SendResponse<Bytes>,
        (digest, answered): (Arc<Digest>, Arc<AtomicUsize>),
        rate: LeastRate,
    ) -> Self {
        let (head, body) = request.into_parts();
        // A stream of messages may be silent between them.
        let is_messages = head
            .headers
            .get(CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().starts_with(GRPC));
        Self {
            request: head.into(),
            body,
            first: None,
            respond,
            writer: None,
            written: None,
            has_ended: false,
            bytes_read: 0,
            bytes_sent: 0,
            replay: None,
            digest,
            read_timeout: None,
            write_timeout: None,
            drain_timeout: None,
            sending: (!is_messages).then(|| Patience::new(rate)),
            reading: Patience::new(rate),
            answered,
        }
    }

    /// Waits for the first of a body whose length is declared: one that belies it at once has the stream reset by the `h2`
    /// library, and nothing of the request may have left by then (threats.md D7).
    async fn begins_as_declared(&mut self) -> bool {
        let headers = &self.request.headers;
        if self.body.is_end_stream()
            || !headers.contains_key(CONTENT_LENGTH)
            || headers.contains_key(EXPECT)
        {
            return true;
        }
        match timeout(FIRST_PART, self.body.data()).await {
            Ok(Some(Ok(part))) => {
                self.first = Some(part);
                true
            }
            // What the agent may not do takes too long, or is none: the pipeline says so.
            Ok(None) | Err(_) => true,
            Ok(Some(Err(_))) => false,
        }
    }

    /// Waits for more of the body. Until the response begins, an agent may not be silent for longer than its timeout; then
    /// it may, since in a call that streams both ways it may have nothing to say for long.
    async fn next_part(&mut self) -> Result<Option<Bytes>> {
        if let Some(first) = self.first.take() {
            return Ok(Some(first));
        }
        let Some(bound) = self.read_timeout.filter(|_| self.written.is_none()) else {
            let part = self.body.data().await;
            return part.transpose().or_err(ErrorType::ReadError, READING);
        };
        let part = timeout(bound, self.body.data());
        let part = match &mut self.sending {
            Some(patience) => patience.wait(part).await.map_err(|slow| {
                Error::because(ErrorType::ReadTimedout, READING, slow).into_down()
            })?,
            None => part.await,
        };
        let part = part.or_err(
            ErrorType::ReadTimedout,
            "the agent sent nothing more of its body",
        )?;
        let part = part.transpose().or_err(ErrorType::ReadError, READING)?;
        if let (Some(patience), Some(part)) = (&mut self.sending, &part) {
            patience.pass(part.len());
        }
        Ok(part)
    }

    async fn drain(&mut self) -> Result<()> {
        while self.read_body_bytes().await?.is_some() {}
        Ok(())
    }

    /// Waits until the agent gives the stream up.
    async fn idle(&mut self) -> Result<Reason> {
        let Self {
            respond, writer, ..
        } = self;
        poll_fn(|cx| match writer {
            Some(writer) => writer.poll_reset(cx),
            None => respond.poll_reset(cx),
        })
        .await
        .or_err(
            ErrorType::ConnectionClosed,
            "while waiting for the upstream",
        )
    }

    fn write_head(&mut self, mut head: Box<ResponseHeader>, end: bool) -> Result<()> {
        if self.written.is_some() || self.has_ended {
            return Ok(());
        }
        if head.status == StatusCode::CONTINUE {
            let mut interim = Response::new(());
            *interim.status_mut() = head.status;
            return self
                .respond
                .send_informational(interim)
                .or_err(ErrorType::WriteError, "while writing an interim response");
        }
        if head.status.is_informational() {
            return Ok(());
        }
        head.insert_header(DATE, get_cached_date())?;
        for name in HOP_BY_HOP {
            head.remove_header(&name);
        }
        let response = Response::from_parts(head.as_owned_parts(), ());
        let writer = self
            .respond
            .send_response(response, end)
            .or_err(ErrorType::WriteError, "while writing a response's head")?;
        self.writer = Some(writer);
        self.answered.fetch_add(1, Ordering::Relaxed);
        self.written = Some(head);
        self.has_ended = end;
        Ok(())
    }

    /// The writer of the body, while there is something left to write.
    fn open_writer(&mut self) -> Result<Option<&mut SendStream<Bytes>>> {
        if self.has_ended {
            return Ok(None);
        }
        let writer = self.writer.as_mut();
        writer
            .ok_or_else(|| Error::explain(ErrorType::H2Error, "a body before its head"))
            .map(Some)
    }

    /// Waits until the agent takes some of so many bytes, and says how many.
    async fn room(&mut self, bytes: usize, bound: Option<Duration>) -> Result<usize> {
        let writer = self.writer.as_mut();
        let writer =
            writer.ok_or_else(|| Error::explain(ErrorType::H2Error, "a body before its head"))?;
        writer.reserve_capacity(bytes);
        let room = poll_fn(|cx| writer.poll_capacity(cx));
        let room = timeout(bound.unwrap_or(Duration::MAX), room);
        let room =
            self.reading.wait(room).await.map_err(|slow| {
                Error::because(ErrorType::WriteTimedout, WRITING, slow).into_down()
            })?;
        let room = room.or_err(ErrorType::WriteTimedout, WRITING);
        let room = room.map_err(Error::into_down)?;
        let room =
            room.ok_or_else(|| Error::explain(ErrorType::ConnectionClosed, WRITING).into_down())?;
        let room = room
            .or_err(ErrorType::ConnectionClosed, WRITING)
            .map_err(Error::into_down)?;
        self.reading.pass(room.min(bytes));
        Ok(room)
    }

    fn send(&mut self, part: Bytes, end: bool) -> Result<()> {
        let Some(writer) = self.open_writer()? else {
            return Ok(());
        };
        writer
            .send_data(part, end)
            .or_err(ErrorType::WriteError, WRITING)
            .map_err(Error::into_down)
    }

    fn end(&mut self) -> Result<()> {
        if self.written.is_none() {
            return Ok(());
        }
        if let Some(writer) = self.open_writer()? {
            writer
                .send_data(Bytes::new(), true)
                .or_err(ErrorType::WriteError, "while ending a response")?;
            self.has_ended = true;
        }
        Ok(())
    }
}

const READING: &str = "while reading a request's body";
const WRITING: &str = "while writing a response's body";
/// How the media types of gRPC begin.
const GRPC: &[u8] = b"application/grpc";

/// Fields that HTTP/2 has no place for (RFC 9113 section 8.2.2).
const HOP_BY_HOP: [HeaderName; 5] = [
    CONNECTION,
    TRANSFER_ENCODING,
    UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

#[async_trait]
impl Session for Stream {
    fn req_header(&self) -> &RequestHeader {
        &self.request
    }

    fn req_header_mut(&mut self) -> &mut RequestHeader {
        &mut self.request
    }

    async fn read_body_bytes(&mut self) -> Result<Option<Bytes>> {
        let part = self.next_part().await?;
        if let Some(part) = &part {
            self.bytes_read += part.len();
            if let Some(replay) = &mut self.replay {
                replay.write_to_buffer(part);
            }
            // The window may be that of a stream which just ended; then nothing more is owed.
            let _ = self.body.flow_control().release_capacity(part.len());
        }
        Ok(part)
    }

    async fn read_body_or_idle(&mut self, no_body_expected: bool) -> Result<Option<Bytes>> {
        if !no_body_expected && !self.is_body_done() {
            return self.read_body_bytes().await;
        }
        let reason = self.idle().await?;
        Error::e_explain(
            ErrorType::ConnectionClosed,
            format!("the agent gave its stream up: {reason}"),
        )
    }

    async fn drain_request_body(&mut self) -> Result<()> {
        if self.is_body_done() {
            return Ok(());
        }
        match self.drain_timeout {
            Some(bound) => timeout(bound, self.drain())
                .await
                .or_err(ErrorType::ReadTimedout, "while draining a request's body")?,
            None => self.drain().await,
        }
    }

    async fn write_response_header(&mut self, head: Box<ResponseHeader>, end: bool) -> Result<()> {
        self.write_head(head, end)
    }

    async fn write_response_header_ref(&mut self, head: &ResponseHeader, end: bool) -> Result<()> {
        self.write_head(Box::new(head.clone()), end)
    }

    async fn write_body(&mut self, data: Bytes, end: bool) -> Result<()> {
        let (length, bound) = (data.len(), self.write_timeout);
        if self.open_writer()?.is_none() {
            return Ok(());
        }
        let mut left = data;
        while !left.is_empty() {
            let room = self.room(left.len(), bound).await?;
            let part = left.split_to(room.min(left.len()));
            // Room may have been given and taken again.
            if !part.is_empty() {
                self.send(part, end && left.is_empty())?;
            }
        }
        if length == 0 {
            self.send(left, end)?;
        }
        self.bytes_sent += length;
        self.has_ended = end;
        Ok(())
    }

    async fn write_trailers(&mut self, trailers: HeaderMap) -> Result<()> {
        if let Some(writer) = self.open_writer()? {
            writer
                .send_trailers(trailers)
                .or_err(ErrorType::WriteError, "while writing trailers")?;
            self.has_ended = true;
        }
        Ok(())
    }

    async fn response_duplex_vec(&mut self, tasks: Vec<HttpTask>) -> Result<bool> {
        let mut is_end = false;
        for task in tasks {
            is_end |= match task {
                HttpTask::Header(head, end) => {
                    self.write_head(head, end).map_err(Error::into_down)?;
                    end
                }
                HttpTask::Body(Some(data), end) if !data.is_empty() => {
                    self.write_body(data, end).await?;
                    end
                }
                HttpTask::Body(_, end) => end,
                HttpTask::Trailer(Some(trailers)) => {
                    self.write_trailers(*trailers).await?;
                    true
                }
                HttpTask::Trailer(None) | HttpTask::Done => true,
                HttpTask::UpgradedBody(..) => {
                    return Error::e_explain(ErrorType::InternalError, "an upgrade over HTTP/2");
                }
                HttpTask::Failed(error) => return Err(error),
            };
        }
        if is_end {
            self.end().map_err(Error::into_down)?;
        }
        Ok(is_end)
    }

    fn set_read_timeout(&mut self, timeout: Option<Duration>) {
        self.read_timeout = timeout;
    }

    fn get_read_timeout(&self) -> Option<Duration> {
        self.read_timeout
    }

    fn set_write_timeout(&mut self, timeout: Option<Duration>) {
        self.write_timeout = timeout;
    }

    fn get_write_timeout(&self) -> Option<Duration> {
        self.write_timeout
    }

    fn set_total_drain_timeout(&mut self, timeout: Option<Duration>) {
        self.drain_timeout = timeout;
    }

    fn get_total_drain_timeout(&self) -> Option<Duration> {
        self.drain_timeout
    }

    fn request_summary(&self) -> String {
        // A target may hold what must not be logged; the pipeline writes the one line a request.
        format!("{} over HTTP/2", self.request.method)
    }

    fn response_written(&self) -> Option<&ResponseHeader> {
        self.written.as_deref()
    }

    async fn shutdown(&mut self, _code: u32, _context: &str) {
        if !self.has_ended {
            self.respond.send_reset(Reason::INTERNAL_ERROR);
        }
    }

    fn is_body_done(&mut self) -> bool {
        self.first.is_none() && (self.is_body_empty() || self.body.is_end_stream())
    }

    async fn finish(&mut self) -> Result<()> {
        self.end()
    }

    fn is_body_empty(&mut self) -> bool {
        let is_zero = |length: &http::HeaderValue| length.as_bytes() == b"0";
        self.first.is_none()
            && self.bytes_read == 0
            && (self.body.is_end_stream()
                || self
                    .request
                    .headers
                    .get(CONTENT_LENGTH)
                    .is_some_and(is_zero))
    }

    fn body_bytes_sent(&self) -> usize {
        self.bytes_sent
    }

    fn body_bytes_read(&self) -> usize {
        self.bytes_read
    }

    fn digest(&self) -> Option<&Digest> {
        Some(&self.digest)
    }

    fn digest_mut(&mut self) -> Option<&mut Digest> {
        Arc::get_mut(&mut self.digest)
    }

    fn client_addr(&self) -> Option<&SocketAddr> {
        None
    }

    fn server_addr(&self) -> Option<&SocketAddr> {
        None
    }

    fn pseudo_raw_h1_request_header(&self) -> Bytes {
        Bytes::new()
    }

    fn enable_retry_buffering(&mut self) {
        self.replay
            .get_or_insert_with(|| FixedBuffer::new(REPLAYED));
    }

    fn retry_buffer_truncated(&self) -> bool {
        self.replay.as_ref().is_some_and(FixedBuffer::is_truncated)
    }

    fn get_retry_buffer(&self) -> Option<Bytes> {
        let replay = self.replay.as_ref()?;
        replay.get_buffer().filter(|_| !replay.is_truncated())
    }

    async fn finish_custom(&mut self) -> Result<()> {
        Ok(())
    }

    fn take_custom_message_reader(
        &mut self,
    ) -> Option<Box<dyn Messages<Item = Result<Bytes>> + Unpin + Send + Sync + 'static>> {
        None
    }

    fn restore_custom_message_reader(
        &mut self,
        _: Box<dyn Messages<Item = Result<Bytes>> + Unpin + Send + Sync + 'static>,
    ) -> Result<()> {
        Ok(())
    }

    fn take_custom_message_writer(&mut self) -> Option<Box<dyn CustomMessageWrite>> {
        None
    }

    fn restore_custom_message_writer(&mut self, _: Box<dyn CustomMessageWrite>) -> Result<()> {
        Ok(())
    }
}
