//! The upstream of the tests: TLS under its own authority for any number of names, a record of every request that
//! reaches it, and routes that answer in all the ways in which a provider can.

mod aws;
pub(crate) mod chunked;
mod files;
mod git;
mod grpc;
mod http1;
mod http2;
mod routes;
mod vendors;
mod websocket;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;

use self::chunked::Chunked;
use self::files::{File, Files};
pub(crate) use self::routes::digest_of;
use super::canary::Canary;
use super::wait;

/// A request as it arrived.
#[derive(Debug)]
pub(crate) struct Recorded {
    pub(crate) sni: Option<String>,
    /// `HTTP/1.1` or `HTTP/2`.
    pub(crate) version: &'static str,
    pub(crate) method: String,
    /// Path and query, byte for byte.
    pub(crate) target: String,
    /// `Host`, or `:authority`.
    pub(crate) authority: String,
    pub(crate) fields: Vec<(String, Vec<u8>)>,
    /// The head as bytes; for HTTP/2, a rendering of it.
    pub(crate) head: Vec<u8>,
    body: Mutex<Body>,
}

#[derive(Debug, Default)]
struct Body {
    /// The first [`KEPT`] bytes.
    start: Vec<u8>,
    length: u64,
    complete: bool,
    /// The same in AWS's own chunks, where the head says so.
    chunked: Option<Chunked>,
}

impl Body {
    /// The body that these fields announce.
    fn of(fields: &[(String, Vec<u8>)]) -> Self {
        let is_streamed = fields.iter().any(|(name, value)| {
            name.eq_ignore_ascii_case("x-amz-content-sha256") && value.starts_with(b"STREAMING-")
        });
        Self {
            chunked: is_streamed.then(Chunked::default),
            ..Self::default()
        }
    }
}

/// How much of each body is kept.
const KEPT: usize = 1 << 20;

impl Recorded {
    /// Path without query.
    pub(crate) fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// Every value of the field `name`.
    pub(crate) fn fields(&self, name: &str) -> Vec<String> {
        self.fields
            .iter()
            .filter(|(field, _)| field.eq_ignore_ascii_case(name))
            .map(|(_, value)| String::from_utf8_lossy(value).into_owned())
            .collect()
    }

    /// The one value of the field `name`.
    #[track_caller]
    pub(crate) fn field(&self, name: &str) -> String {
        let mut values = self.fields(name);
        assert_eq!(
            values.len(),
            1,
            "{name} stands {} times: {:?}",
            values.len(),
            self.names()
        );
        values.remove(0)
    }

    /// The names of all fields, lower case, in order.
    pub(crate) fn names(&self) -> Vec<String> {
        self.fields
            .iter()
            .map(|(name, _)| name.to_ascii_lowercase())
            .collect()
    }

    pub(crate) fn body(&self) -> Vec<u8> {
        self.body.lock().expect("no holder panics").start.clone()
    }

    pub(crate) fn body_length(&self) -> u64 {
        self.body.lock().expect("no holder panics").length
    }

    /// Whether the body came to its proper end.
    pub(crate) fn is_complete(&self) -> bool {
        self.body.lock().expect("no holder panics").complete
    }

    /// What AWS's own chunks held, if the body came in them.
    #[track_caller]
    pub(crate) fn chunked(&self) -> Chunked {
        let body = self.body.lock().expect("no holder panics");
        body.chunked.clone().expect("the body is in AWS's chunks")
    }

    fn receive(&self, bytes: &[u8]) {
        let mut body = self.body.lock().expect("no holder panics");
        body.length += bytes.len() as u64;
        if let Some(chunked) = &mut body.chunked {
            chunked.receive(bytes);
        }
        let room = KEPT.saturating_sub(body.start.len()).min(bytes.len());
        body.start.extend_from_slice(&bytes[..room]);
    }

    fn complete(&self) {
        self.body.lock().expect("no holder panics").complete = true;
    }

    fn carries(&self, secrets: &[Canary]) -> bool {
        let basic = self.fields("authorization").iter().any(|value| {
            use base64::Engine as _;
            let encoded = value.strip_prefix("Basic ").unwrap_or_default();
            let decoded = base64::engine::general_purpose::STANDARD
                .decode(encoded)
                .unwrap_or_default();
            secrets
                .iter()
                .any(|secret| contains(&decoded, secret.bytes()))
        });
        basic
            || secrets
                .iter()
                .any(|secret| contains(&self.head, secret.bytes()))
    }
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack
        .windows(needle.len())
        .any(|window| window == needle)
}

/// What a route answers.
enum Answer {
    Full {
        status: u16,
        fields: Vec<(String, String)>,
        body: Vec<u8>,
    },
    /// Pieces as they come, each flushed at once; chunked in HTTP/1.1 unless a length is among the fields.
    Pieces {
        status: u16,
        fields: Vec<(String, String)>,
        pieces: mpsc::Receiver<Bytes>,
    },
    /// These bytes in place of a response (nothing in HTTP/2), and the connection closed.
    Raw(Vec<u8>),
    /// The body `ok`, and behind it the trailer `x-echo` with this value.
    Trailers(String),
    /// A WebSocket (nothing in HTTP/2).
    WebSocket,
    /// No answer until the client goes away.
    Silence,
}

impl Answer {
    fn json(status: u16, body: &serde_json::Value) -> Self {
        Self::Full {
            status,
            fields: vec![("content-type".into(), "application/json".into())],
            body: body.to_string().into_bytes(),
        }
    }
}

/// What all connections of an upstream share.
struct Shared {
    requests: Mutex<Vec<Arc<Recorded>>>,
    connections: AtomicUsize,
    open: AtomicUsize,
    /// gRPC calls that are under way.
    calls: AtomicUsize,
    /// Bodies that a test sends piece by piece, by name.
    streams: Mutex<HashMap<String, mpsc::Receiver<Bytes>>>,
    git_root: Mutex<Option<PathBuf>>,
    files: Mutex<Files>,
}

impl Shared {
    fn record(&self, request: Recorded) -> Arc<Recorded> {
        let request = Arc::new(request);
        self.requests
            .lock()
            .expect("no holder panics")
            .push(Arc::clone(&request));
        request
    }

    fn file(&self, path: &str) -> Option<File> {
        self.files
            .lock()
            .expect("no holder panics")
            .get(path)
            .cloned()
    }
}

/// A running upstream. It stops when it is dropped.
pub(crate) struct Upstream {
    pub(crate) addr: SocketAddr,
    authority: Authority,
    shared: Arc<Shared>,
    accept: tokio::task::JoinHandle<()>,
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.accept.abort();
    }
}

impl Upstream {
    /// How many gRPC calls are under way.
    pub(crate) fn open_calls(&self) -> usize {
        self.shared.calls.load(Ordering::SeqCst)
    }

    /// An upstream of HTTP/1.1 alone for `hosts`.
    pub(crate) async fn start(hosts: &[&str]) -> Self {
        Self::start_with(hosts, &[b"http/1.1"]).await
    }

    /// An upstream for `hosts` that offers these protocols by ALPN.
    pub(crate) async fn start_with(hosts: &[&str], alpn: &[&[u8]]) -> Self {
        Self::start_for(hosts, alpn, None).await
    }

    /// The same for clients with a certificate of `client_authority` alone, if that is given.
    pub(crate) async fn start_for(
        hosts: &[&str],
        alpn: &[&[u8]],
        client_authority: Option<&str>,
    ) -> Self {
        let authority = Authority::new();
        let acceptor = authority.identity(hosts, alpn, client_authority);
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .expect("loopback has a free port");
        let addr = listener
            .local_addr()
            .expect("a bound socket has an address");
        let shared = Arc::new(Shared {
            requests: Mutex::default(),
            connections: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            calls: AtomicUsize::new(0),
            streams: Mutex::default(),
            git_root: Mutex::default(),
            files: Mutex::default(),
        });
        let accept = tokio::spawn(accept(listener, acceptor, Arc::clone(&shared)));
        Self {
            addr,
            authority,
            shared,
            accept,
        }
    }

    /// TLS under the upstream's authority for another server.
    pub(crate) fn acceptor_for(&self, hosts: &[&str]) -> TlsAcceptor {
        self.authority.identity(hosts, &[b"http/1.1"], None)
    }

    /// The authority that signed this upstream's certificate.
    pub(crate) fn ca_pem(&self) -> &str {
        &self.authority.pem
    }

    /// Every request so far, in the order of arrival.
    pub(crate) fn requests(&self) -> Vec<Arc<Recorded>> {
        self.shared
            .requests
            .lock()
            .expect("no holder panics")
            .clone()
    }

    pub(crate) fn count(&self) -> usize {
        self.shared.requests.lock().expect("no holder panics").len()
    }

    /// The latest request.
    #[track_caller]
    pub(crate) fn last(&self) -> Arc<Recorded> {
        self.requests()
            .pop()
            .expect("a request has reached the upstream")
    }

    /// Waits until `count` requests have arrived.
    pub(crate) async fn reached(&self, count: usize) -> Arc<Recorded> {
        wait::until("requests at the upstream", async || {
            self.requests().get(count - 1).map(Arc::clone)
        })
        .await
    }

    /// The requests that carry one of `secrets`.
    pub(crate) fn credentialed(&self, secrets: &[Canary]) -> Vec<Arc<Recorded>> {
        self.requests()
            .into_iter()
            .filter(|request| request.carries(secrets))
            .collect()
    }

    /// How many TLS connections have been made.
    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// How many are open now.
    pub(crate) fn open_connections(&self) -> usize {
        self.shared.open.load(Ordering::SeqCst)
    }

    /// Makes `GET /stream/<name>` answer with what is sent here, piece by piece.
    pub(crate) fn stream(&self, name: &str) -> mpsc::Sender<Bytes> {
        let (sender, receiver) = mpsc::channel(1);
        self.shared
            .streams
            .lock()
            .expect("no holder panics")
            .insert(name.to_owned(), receiver);
        sender
    }

    /// Serves the bare repositories in `root` as github.com does.
    pub(crate) fn serve_git(&self, root: &Path) {
        *self.shared.git_root.lock().expect("no holder panics") = Some(root.to_owned());
    }

    /// Serves `bytes` at `path` to requests with a credential, whatever their host.
    pub(crate) fn serve_file(&self, path: &str, content_type: &str, bytes: Vec<u8>) {
        let file = File {
            content_type: content_type.to_owned(),
            bytes,
        };
        let mut files = self.shared.files.lock().expect("no holder panics");
        files.insert(path.to_owned(), file);
    }
}

/// A fresh authority.
struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().expect("keys can be made");
        let mut ca = CertificateParams::default();
        ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        ca.distinguished_name
            .push(DnType::CommonName, "Upstream of the tests");
        let pem = ca
            .self_signed(&key)
            .expect("the parameters are sound")
            .pem();
        let issuer = Issuer::new(ca, key);
        Self { pem, issuer }
    }

    /// A certificate under it for `hosts`.
    fn identity(
        &self,
        hosts: &[&str],
        alpn: &[&[u8]],
        client_authority: Option<&str>,
    ) -> TlsAcceptor {
        server_identity(&self.issuer, hosts, alpn, client_authority)
    }
}

fn server_identity(
    issuer: &Issuer<'_, KeyPair>,
    hosts: &[&str],
    alpn: &[&[u8]],
    client_authority: Option<&str>,
) -> TlsAcceptor {
    let key = KeyPair::generate().expect("keys can be made");
    let names: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
    let cert = CertificateParams::new(names)
        .expect("the names are sound")
        .signed_by(&key, issuer)
        .expect("the parameters are sound");

    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("ring has every default");
    let config = match client_authority {
        None => config.with_no_client_auth(),
        Some(pem) => {
            let mut roots = rustls::RootCertStore::empty();
            let root = CertificateDer::from_pem_slice(pem.as_bytes()).expect("a certificate");
            roots.add(root).expect("an authority");
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
            config.with_client_cert_verifier(verifier.build().expect("one root"))
        }
    };
    let mut config = config
        .with_single_cert(
            vec![cert.der().clone()],
            PrivateKeyDer::Pkcs8(key.serialize_der().into()),
        )
        .expect("key and certificate belong together");
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    TlsAcceptor::from(Arc::new(config))
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, shared: Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(serve(stream, acceptor.clone(), Arc::clone(&shared)));
    }
}

async fn serve(stream: TcpStream, acceptor: TlsAcceptor, shared: Arc<Shared>) {
    let _ = stream.set_nodelay(true);
    // A client that refuses our certificate is no concern of the upstream's.
    let Ok(stream) = acceptor.accept(stream).await else {
        return;
    };
    shared.connections.fetch_add(1, Ordering::SeqCst);
    shared.open.fetch_add(1, Ordering::SeqCst);
    let (_, tls) = stream.get_ref();
    let sni = tls.server_name().map(str::to_owned);
    if tls.alpn_protocol() == Some(b"h2") {
        http2::serve(stream, sni, Arc::clone(&shared)).await;
    } else {
        // An error is a client that went away, which each test sees on its own side.
        let _ = http1::serve(stream, sni, &shared).await;
    }
    shared.open.fetch_sub(1, Ordering::SeqCst);
}
