//! A token endpoint: TLS under the upstream's authority, the protocol of RFC 6749 as far as it is asked, a record of every
//! question, and every wrong answer that a test wants.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// A question, as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) at: Instant,
    /// Request line and fields.
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Asked {
    /// The one value of a field of the form, as it stands there.
    pub(crate) fn form(&self, name: &str) -> Option<&str> {
        let mut pairs = self.body.split('&');
        pairs.find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
    }

    /// The value of a header field.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines
            .find(|(other, _)| other.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }
}

/// What is answered.
#[derive(Debug, Clone)]
pub(crate) enum Said {
    /// A status and a JSON body.
    Json(u16, Value),
    /// These bytes in place of a response, and the connection closed.
    Raw(Vec<u8>),
    /// No answer until the client goes away.
    Silence,
    /// After this time.
    Late(Duration, Value),
}

impl Said {
    /// An access token that is valid for so many seconds.
    pub(crate) fn token(token: &str, expires_in: u64) -> Self {
        Self::Json(
            200,
            json!({ "access_token": token, "token_type": "Bearer", "expires_in": expires_in }),
        )
    }
}

type Answering = Box<dyn FnMut(&Asked) -> Said + Send>;

struct Shared {
    asked: Mutex<Vec<Asked>>,
    answering: Mutex<Answering>,
}

/// A running token endpoint. It stops when it is dropped.
pub(crate) struct TokenEndpoint {
    pub(crate) addr: SocketAddr,
    shared: Arc<Shared>,
    accept: tokio::task::JoinHandle<()>,
}

impl Drop for TokenEndpoint {
    fn drop(&mut self) {
        self.accept.abort();
    }
}

impl TokenEndpoint {
    /// Answers 500 until a test says otherwise.
    pub(crate) async fn start(acceptor: TlsAcceptor) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .expect("loopback has a free port");
        let addr = listener
            .local_addr()
            .expect("a bound socket has an address");
        let shared = Arc::new(Shared {
            asked: Mutex::default(),
            answering: Mutex::new(Box::new(|_| Said::Json(500, json!({})))),
        });
        let accept = tokio::spawn(accept(listener, acceptor, Arc::clone(&shared)));
        Self {
            addr,
            shared,
            accept,
        }
    }

    /// From now on answers are made by `answering`.
    pub(crate) fn answers(&self, answering: impl FnMut(&Asked) -> Said + Send + 'static) {
        *self.shared.answering.lock().expect("no holder panics") = Box::new(answering);
    }

    /// From now on the answer is this one.
    pub(crate) fn says(&self, said: Said) {
        self.answers(move |_| said.clone());
    }

    /// Every question so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.shared.asked.lock().expect("no holder panics").clone()
    }
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, shared: Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, shared) = (acceptor.clone(), Arc::clone(&shared));
        // An error is a client that went away, which each test sees on its own side.
        tokio::spawn(async move { serve(stream, acceptor, &shared).await });
    }
}

async fn serve(stream: TcpStream, acceptor: TlsAcceptor, shared: &Shared) -> std::io::Result<()> {
    let mut stream = acceptor.accept(stream).await?;
    let mut read = Vec::new();
    let head_end = loop {
        if let Some(at) = read.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(&mut read).await? == 0 {
            return Ok(());
        }
    };
    let head = String::from_utf8_lossy(&read[..head_end]).into_owned();
    let mut asked = Asked {
        at: Instant::now(),
        head,
        body: String::new(),
    };
    let length: usize = asked
        .field("content-length")
        .and_then(|length| length.parse().ok())
        .unwrap_or(0);
    while read.len() < head_end + length {
        if stream.read_buf(&mut read).await? == 0 {
            return Ok(());
        }
    }
    asked.body = String::from_utf8_lossy(&read[head_end..]).into_owned();
    shared
        .asked
        .lock()
        .expect("no holder panics")
        .push(asked.clone());
    let said = (shared.answering.lock().expect("no holder panics"))(&asked);
    let response = match said {
        Said::Json(status, body) => json_response(status, &body),
        Said::Raw(bytes) => bytes,
        Said::Silence => {
            // Until the client closes.
            while stream.read_buf(&mut read).await? > 0 {}
            return Ok(());
        }
        Said::Late(time, body) => {
            tokio::time::sleep(time).await;
            json_response(200, &body)
        }
    };
    stream.write_all(&response).await?;
    stream.shutdown().await
}

fn json_response(status: u16, body: &Value) -> Vec<u8> {
    let body = body.to_string();
    let length = body.len();
    format!(
        "HTTP/1.1 {status} Said\r\ncontent-type: application/json\r\ncache-control: no-store\r\ncontent-length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}
