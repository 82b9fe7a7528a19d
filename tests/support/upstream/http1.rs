//! A small HTTP/1.1 server of the tests' own, because it must see the bytes.

use std::fmt::Write as _;
use std::io;
use std::sync::{Arc, Mutex};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{Answer, Body, Recorded, Shared, routes, websocket};

/// Answers requests until the client or a route closes the connection.
pub(super) async fn serve<S>(stream: S, sni: Option<String>, shared: &Arc<Shared>) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let mut server = Server {
        stream,
        ahead: BytesMut::new(),
    };
    while let Some(head) = server.head().await? {
        let request = shared.record(parse(head, sni.clone()));
        // Answers under /early/ do not wait for the request's body, which nobody reads then.
        let early = request.path().starts_with("/early/");
        if !early {
            server.body(&request).await?;
        }
        let answer = routes::answer(&request, shared).await;
        if !server.answer(&request, answer).await? || early {
            break;
        }
    }
    server.stream.shutdown().await
}

fn parse(head: Vec<u8>, sni: Option<String>) -> Recorded {
    let text = String::from_utf8_lossy(&head).into_owned();
    let mut lines = text.split("\r\n");
    let mut words = lines.next().unwrap_or_default().split(' ');
    let method = words.next().unwrap_or_default().to_owned();
    let target = words.next().unwrap_or_default().to_owned();
    let fields: Vec<(String, Vec<u8>)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_owned(), value.trim().as_bytes().to_vec()))
        .collect();
    let authority = fields
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case("host"))
        .map(|(_, value)| String::from_utf8_lossy(value).into_owned())
        .unwrap_or_default();
    let body = Mutex::new(Body::of(&fields));
    Recorded {
        sni,
        version: "HTTP/1.1",
        method,
        target,
        authority,
        fields,
        head,
        body,
    }
}

struct Server<S> {
    stream: S,
    ahead: BytesMut,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Server<S> {
    async fn fill(&mut self) -> io::Result<bool> {
        Ok(self.stream.read_buf(&mut self.ahead).await? > 0)
    }

    async fn take_until(&mut self, mark: &[u8]) -> io::Result<Option<Vec<u8>>> {
        loop {
            if let Some(at) = self
                .ahead
                .windows(mark.len())
                .position(|window| window == mark)
            {
                return Ok(Some(self.ahead.split_to(at + mark.len()).to_vec()));
            }
            if !self.fill().await? {
                return Ok(None);
            }
        }
    }

    async fn head(&mut self) -> io::Result<Option<Vec<u8>>> {
        self.take_until(b"\r\n\r\n").await
    }

    async fn body(&mut self, request: &Recorded) -> io::Result<()> {
        if request
            .fields("expect")
            .iter()
            .any(|value| value.eq_ignore_ascii_case("100-continue"))
        {
            self.stream
                .write_all(b"HTTP/1.1 100 Continue\r\n\r\n")
                .await?;
        }
        if request
            .fields("transfer-encoding")
            .iter()
            .any(|coding| coding.contains("chunked"))
        {
            self.chunks(request).await?;
        } else {
            let length = request
                .fields("content-length")
                .first()
                .and_then(|length| length.parse().ok())
                .unwrap_or(0);
            self.take(request, length).await?;
        }
        request.complete();
        Ok(())
    }

    async fn chunks(&mut self, request: &Recorded) -> io::Result<()> {
        loop {
            let line = self
                .take_until(b"\r\n")
                .await?
                .ok_or(io::ErrorKind::UnexpectedEof)?;
            let size = std::str::from_utf8(&line)
                .ok()
                .and_then(|line| u64::from_str_radix(line.trim(), 16).ok())
                .ok_or(io::ErrorKind::InvalidData)?;
            if size == 0 {
                while self
                    .take_until(b"\r\n")
                    .await?
                    .ok_or(io::ErrorKind::UnexpectedEof)?
                    .len()
                    > 2
                {}
                return Ok(());
            }
            self.take(request, size).await?;
            self.take_until(b"\r\n").await?;
        }
    }

    async fn take(&mut self, request: &Recorded, mut left: u64) -> io::Result<()> {
        while left > 0 {
            if self.ahead.is_empty() && !self.fill().await? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let take = self
                .ahead
                .len()
                .min(usize::try_from(left).unwrap_or(usize::MAX));
            request.receive(&self.ahead[..take]);
            self.ahead.advance(take);
            left -= take as u64;
        }
        Ok(())
    }

    /// Sends `answer`; whether the connection stays open.
    async fn answer(&mut self, request: &Recorded, answer: Answer) -> io::Result<bool> {
        match answer {
            Answer::Full {
                status,
                fields,
                body,
            } => {
                let mut head = render(status, &fields);
                if status / 100 != 1 && status != 204 && status != 304 {
                    let _ = write!(head, "content-length: {}\r\n", body.len());
                }
                head.push_str("\r\n");
                self.stream.write_all(head.as_bytes()).await?;
                if request.method != "HEAD" {
                    self.stream.write_all(&body).await?;
                }
                self.stream.flush().await?;
                Ok(true)
            }
            Answer::Pieces {
                status,
                fields,
                mut pieces,
            } => {
                let chunked = !fields.iter().any(|(name, _)| name == "content-length");
                let mut head = render(status, &fields);
                head.push_str(if chunked {
                    "transfer-encoding: chunked\r\n\r\n"
                } else {
                    "\r\n"
                });
                self.stream.write_all(head.as_bytes()).await?;
                self.stream.flush().await?;
                while let Some(piece) = pieces.recv().await {
                    if chunked {
                        self.stream
                            .write_all(format!("{:x}\r\n", piece.len()).as_bytes())
                            .await?;
                    }
                    self.stream.write_all(&piece).await?;
                    if chunked {
                        self.stream.write_all(b"\r\n").await?;
                    }
                    self.stream.flush().await?;
                }
                if chunked {
                    self.stream.write_all(b"0\r\n\r\n").await?;
                    self.stream.flush().await?;
                }
                Ok(true)
            }
            Answer::Raw(bytes) => {
                self.stream.write_all(&bytes).await?;
                self.stream.flush().await?;
                Ok(false)
            }
            Answer::Trailers(value) => {
                let answer = format!(
                    "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-echo\r\n\r\n2\r\nok\r\n0\r\nx-echo: {value}\r\n\r\n"
                );
                self.stream.write_all(answer.as_bytes()).await?;
                self.stream.flush().await?;
                Ok(true)
            }
            Answer::WebSocket => {
                let ahead = self.ahead.split();
                websocket::serve(&mut self.stream, ahead, request).await?;
                Ok(false)
            }
            Answer::Silence => {
                while self.fill().await? {}
                Ok(false)
            }
        }
    }
}

fn render(status: u16, fields: &[(String, String)]) -> String {
    let mut head = format!("HTTP/1.1 {status} Reason\r\n");
    for (name, value) in fields {
        let _ = write!(head, "{name}: {value}\r\n");
    }
    head
}
