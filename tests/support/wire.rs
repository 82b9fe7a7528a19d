//! A client's side of HTTP/1.1, byte by byte: it sends what a test writes, however wrong, and keeps all it receives.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::wait::within;

/// Any byte stream in both directions.
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Duplex for T {}

/// All that the agents and people of one test received, for the leak sweep.
#[derive(Clone, Default)]
pub(crate) struct Seen(Arc<Mutex<Vec<u8>>>);

impl Seen {
    pub(crate) fn record(&self, bytes: &[u8]) {
        let mut seen = self.0.lock().expect("no holder panics");
        seen.extend_from_slice(bytes);
    }

    pub(crate) fn contents(&self) -> Vec<u8> {
        self.0.lock().expect("no holder panics").clone()
    }
}

/// How the end of a body is found (RFC 9112 section 6.3).
#[derive(Debug, Clone, Copy)]
pub(crate) enum Framing {
    Length(u64),
    Chunked,
    UntilClose,
}

/// A response's status line and fields.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    pub(crate) status: u16,
    pub(crate) fields: Vec<(String, String)>,
}

impl Head {
    fn parse(raw: &[u8]) -> io::Result<Self> {
        let text = String::from_utf8_lossy(raw).into_owned();
        let mut lines = text.split("\r\n");
        let status = lines
            .next()
            .and_then(|line| line.strip_prefix("HTTP/1."))
            .and_then(|line| line.get(2..5))
            .and_then(|code| code.parse().ok())
            .ok_or_else(|| io::Error::other(format!("not a response: {text:?}")))?;
        let fields = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        Ok(Self { status, fields })
    }

    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.fields
            .iter()
            .find(|(field, _)| field == name)
            .map(|(_, value)| value.as_str())
    }

    fn framing(&self, method: &str) -> Framing {
        let tunnel = method == "CONNECT" && self.status / 100 == 2;
        if method == "HEAD" || tunnel || self.status / 100 == 1 || matches!(self.status, 204 | 304)
        {
            return Framing::Length(0);
        }
        if self
            .field("transfer-encoding")
            .is_some_and(|coding| coding.contains("chunked"))
        {
            return Framing::Chunked;
        }
        match self
            .field("content-length")
            .and_then(|length| length.parse().ok())
        {
            Some(length) => Framing::Length(length),
            None => Framing::UntilClose,
        }
    }
}

/// A whole response.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.fields
            .iter()
            .find(|(field, _)| field == name)
            .map(|(_, value)| value.as_str())
    }

    /// How long it says to wait.
    #[track_caller]
    pub(crate) fn retry_after(&self) -> Duration {
        let seconds = self.field("retry-after").and_then(|text| text.parse().ok());
        Duration::from_secs(seconds.unwrap_or_else(|| panic!("no Retry-After: {self:?}")))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error} in {} {:?}", self.status, self.text()))
    }

    /// The stable code of a refusal, or an empty text.
    pub(crate) fn code(&self) -> String {
        serde_json::from_slice::<Value>(&self.body)
            .ok()
            .and_then(|body| body["error"].as_str().map(str::to_owned))
            .unwrap_or_default()
    }

    #[track_caller]
    pub(crate) fn expect_status(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{:?} {}", self.fields, self.text());
        self
    }

    /// Checks that this is a refusal by the API with this status and code.
    #[track_caller]
    pub(crate) fn expect_problem(self, status: u16, code: &str) -> Self {
        let reply = self.expect_status(status);
        assert_eq!(reply.code(), code, "{}", reply.text());
        reply
    }

    /// Checks that this is a refusal by the injector with this status and code, in full form: problem+json
    /// (RFC 9457) with every member, and `Proxy-Status` (RFC 9209) so that it cannot be taken for the provider's.
    #[track_caller]
    pub(crate) fn expect_refusal(self, status: u16, code: &str) -> Self {
        assert_eq!(
            (self.status, self.code().as_str()),
            (status, code),
            "{:?} {}",
            self.fields,
            self.text()
        );
        assert_eq!(
            self.field("content-type"),
            Some("application/problem+json"),
            "{:?}",
            self.fields
        );
        assert!(
            self.field("proxy-status").is_some(),
            "Proxy-Status is missing: {:?}",
            self.fields
        );
        let problem = self.json();
        for member in ["type", "title", "detail", "instance"] {
            assert!(
                problem[member].is_string(),
                "{member} is missing: {problem}"
            );
        }
        assert_eq!(problem["status"], status, "{problem}");
        self
    }
}

/// One connection and what has been read ahead on it.
pub(crate) struct Wire {
    stream: Box<dyn Duplex>,
    ahead: BytesMut,
    seen: Option<Seen>,
}

impl std::fmt::Debug for Wire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wire")
            .field("ahead", &self.ahead.len())
            .finish_non_exhaustive()
    }
}

impl Wire {
    /// A wire over `stream`; what arrives is recorded in `seen`, where there is one.
    pub(crate) fn new(stream: impl Duplex + 'static, seen: Option<Seen>) -> Self {
        Self {
            stream: Box::new(stream),
            ahead: BytesMut::new(),
            seen,
        }
    }

    /// The stream itself, for TLS on top of it.
    #[track_caller]
    pub(crate) fn into_stream(self) -> Box<dyn Duplex> {
        assert!(
            self.ahead.is_empty(),
            "bytes before their time: {:?}",
            self.ahead
        );
        self.stream
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        within("the other side to take bytes", async {
            self.stream.write_all(bytes.as_ref()).await?;
            self.stream.flush().await
        })
        .await
    }

    /// Reads more; `false` at the end of the stream.
    async fn fill(&mut self) -> io::Result<bool> {
        let before = self.ahead.len();
        let count = within(
            "bytes from the other side",
            self.stream.read_buf(&mut self.ahead),
        )
        .await?;
        if let Some(seen) = &self.seen {
            seen.record(&self.ahead[before..]);
        }
        Ok(count > 0)
    }

    async fn take_until(&mut self, mark: &[u8]) -> io::Result<Bytes> {
        loop {
            if let Some(at) = self
                .ahead
                .windows(mark.len())
                .position(|window| window == mark)
            {
                return Ok(self.ahead.split_to(at + mark.len()).freeze());
            }
            if !self.fill().await? {
                let left = String::from_utf8_lossy(&self.ahead).into_owned();
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    format!("closed after {left:?}"),
                ));
            }
        }
    }

    /// Reads a response head; interim responses are passed over.
    pub(crate) async fn head(&mut self) -> io::Result<Head> {
        loop {
            let head = Head::parse(&self.take_until(b"\r\n\r\n").await?)?;
            if head.status / 100 != 1 || head.status == 101 {
                return Ok(head);
            }
        }
    }

    /// Reads the next piece of a body as it arrives; `None` at its end.
    pub(crate) async fn piece(&mut self, framing: &mut Framing) -> io::Result<Option<Bytes>> {
        match framing {
            Framing::Length(0) => Ok(None),
            Framing::Length(left) => {
                if self.ahead.is_empty() && !self.fill().await? {
                    return Err(io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        format!("{left} bytes of body missing"),
                    ));
                }
                let take = usize::try_from(*left)
                    .unwrap_or(usize::MAX)
                    .min(self.ahead.len());
                *left -= take as u64;
                Ok(Some(self.ahead.split_to(take).freeze()))
            }
            Framing::UntilClose => {
                if self.ahead.is_empty() && !self.fill().await? {
                    return Ok(None);
                }
                Ok(Some(self.ahead.split().freeze()))
            }
            Framing::Chunked => {
                let line = self.take_until(b"\r\n").await?;
                let size = std::str::from_utf8(&line)
                    .ok()
                    .and_then(|line| line.trim().split(';').next())
                    .and_then(|size| usize::from_str_radix(size, 16).ok())
                    .ok_or_else(|| io::Error::other(format!("not a chunk: {line:?}")))?;
                if size == 0 {
                    while self.take_until(b"\r\n").await?.len() > 2 {}
                    *framing = Framing::Length(0);
                    return Ok(None);
                }
                while self.ahead.len() < size + 2 {
                    if !self.fill().await? {
                        return Err(io::Error::new(
                            io::ErrorKind::UnexpectedEof,
                            "chunk cut off",
                        ));
                    }
                }
                let chunk = self.ahead.split_to(size).freeze();
                self.ahead.advance(2);
                Ok(Some(chunk))
            }
        }
    }

    /// Reads the response to a request with `method`.
    pub(crate) async fn reply(&mut self, method: &str) -> io::Result<Reply> {
        let head = self.head().await?;
        let mut framing = head.framing(method);
        let mut body = Vec::new();
        while let Some(piece) = self.piece(&mut framing).await? {
            body.extend_from_slice(&piece);
        }
        Ok(Reply {
            status: head.status,
            fields: head.fields,
            body,
        })
    }

    /// Reads a response head and says how its body is framed.
    pub(crate) async fn open(&mut self, method: &str) -> io::Result<(Head, Framing)> {
        let head = self.head().await?;
        let framing = head.framing(method);
        Ok((head, framing))
    }

    /// Reads exactly these bytes.
    pub(crate) async fn take(&mut self, length: usize) -> io::Result<Bytes> {
        while self.ahead.len() < length {
            if !within("more bytes", self.fill()).await? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(self.ahead.split_to(length).freeze())
    }

    /// Reads these bytes and nothing else.
    pub(crate) async fn expect(&mut self, bytes: &[u8]) -> io::Result<()> {
        while self.ahead.len() < bytes.len() {
            if !self.fill().await? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let arrived = self.ahead.split_to(bytes.len());
        if arrived != bytes {
            return Err(io::Error::other(format!(
                "{arrived:?} in place of {bytes:?}"
            )));
        }
        Ok(())
    }

    /// Waits for the other side to close; what still arrives is given back.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        while matches!(self.fill().await, Ok(true)) {}
        self.ahead.split().to_vec()
    }
}
