//! Asking what is outside: identity providers, receivers of webhooks, stores of objects.
//!
//! People choose whom this plane asks, so it asks as carefully as the injector does: a name is resolved once, all its addresses
//! are checked, and exactly a checked address is dialled (threats.md D12-D16). No redirect is followed, the certificate is always
//! verified, and time and size are bounded.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderName, HeaderValue, Method, Request, Response, Uri, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http_body_util::{Empty, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use providers::address::{AddressPolicy, Override};
use providers::host::{Authority, Host, Scheme};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

use crate::middleware::collect;
use crate::problem::Code;

/// A proxy of the network, by which the outside is reached.
#[derive(Clone)]
pub struct OutboundProxy {
    /// Its name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// User and password, if it asks for them.
    pub credentials: Option<(String, Zeroizing<String>)>,
}

impl fmt::Debug for OutboundProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OutboundProxy")
            .field("host", &self.host)
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

/// Whom this plane may ask, and by which way.
#[derive(Debug, Clone)]
pub struct OutboundOptions {
    /// The roots that certificates must chain to.
    pub roots: RootCertStore,
    /// Where to dial instead of where names lead.
    pub overrides: Vec<Override>,
    /// Which addresses may be dialled.
    pub policy: AddressPolicy,
    /// The network's proxy. It resolves names itself, so that names are checked here as far as they are known here.
    pub proxy: Option<OutboundProxy>,
}

impl Default for OutboundOptions {
    /// Nothing is trusted, and no special address allowed.
    fn default() -> Self {
        Self {
            roots: RootCertStore::empty(),
            overrides: Vec::new(),
            policy: AddressPolicy::default(),
            proxy: None,
        }
    }
}

/// How much of an answer is read, and how long it is waited for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Bytes of the answer's body.
    pub(crate) answer: usize,
    /// From the name to the answer's last byte.
    pub(crate) deadline: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        // Documents of identity providers have some kilobytes; a receiver has nothing to say.
        Self {
            answer: 256 * 1024,
            deadline: Duration::from_secs(10),
        }
    }
}

/// Why there is no answer. The texts name no path, query or header: they may be shown and recorded.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum OutboundError {
    /// The URL is none that may be asked.
    #[error("the URL must be https:// with a host, and without user or password")]
    Url,
    /// `http://` that would leave this machine.
    #[error("`http://` is for addresses of this machine alone; write https://")]
    Cleartext,
    /// The name leads nowhere.
    #[error("`{0}` does not resolve; see to its DNS records")]
    Unresolved(Host),
    /// It leads where nobody may send this plane.
    #[error(
        "`{host}` leads to {reason}; an operator can allow its network with --allow-address, but never a metadata service or Claviger itself"
    )]
    Blocked {
        /// The host that was asked for.
        host: Host,
        /// What it leads to.
        reason: &'static str,
    },
    /// Nothing answers there.
    #[error("no connection to `{0}`; see that it runs and that this machine may reach it")]
    Connect(Host, #[source] std::io::Error),
    /// The network's proxy gave no tunnel.
    #[error("the upstream proxy gave no tunnel to `{0}`; its operator can allow it")]
    Proxy(Host),
    /// The certificate, or what speaks there.
    #[error(
        "no TLS with `{0}`; its certificate must be valid, or its authority named with --upstream-ca"
    )]
    Tls(Host, #[source] std::io::Error),
    /// What it answers is not HTTP, or breaks off.
    #[error("`{0}` did not answer with proper HTTP")]
    Protocol(Host, #[source] Option<hyper::Error>),
    /// The answer is longer than anything that is asked for.
    #[error("the answer of `{0}` is too long")]
    TooLarge(Host),
    /// The time is over.
    #[error("`{0}` did not answer in time")]
    Timeout(Host),
}

/// Asks what is outside. Each question has a connection of its own.
pub(crate) struct Outbound {
    tls: TlsConnector,
    overrides: Vec<Override>,
    policy: AddressPolicy,
    proxy: Option<OutboundProxy>,
}

impl fmt::Debug for Outbound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbound").finish_non_exhaustive()
    }
}

/// A URL that may be asked, read once.
struct Target {
    host: Host,
    port: u16,
    scheme: Scheme,
}

impl Target {
    fn read(uri: &Uri) -> Result<Self, OutboundError> {
        let scheme = match uri.scheme_str() {
            Some("https") => Scheme::Https,
            Some("http") => Scheme::Http,
            _ => return Err(OutboundError::Url),
        };
        let authority = uri.authority().ok_or(OutboundError::Url)?;
        // It has neither user nor password: `@` is no part of what is read here.
        let Authority { host, port } =
            Authority::parse(authority.as_str()).map_err(|_| OutboundError::Url)?;
        let usual = match scheme {
            Scheme::Https => 443,
            Scheme::Http => 80,
        };
        Ok(Self {
            host,
            port: port.unwrap_or(usual),
            scheme,
        })
    }

    /// As the field `Host` and CONNECT name it.
    fn authority(&self) -> String {
        let host = self.host.as_str();
        let host = match self.host.ip() {
            Some(ip) if ip.is_ipv6() => format!("[{host}]"),
            _ => host.to_owned(),
        };
        match (self.scheme, self.port) {
            (Scheme::Https, 443) | (Scheme::Http, 80) => host,
            (_, port) => format!("{host}:{port}"),
        }
    }
}

impl Outbound {
    pub(crate) fn new(options: OutboundOptions) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider speaks the default versions of TLS")
            .with_root_certificates(options.roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Self {
            tls: TlsConnector::from(Arc::new(config)),
            overrides: options.overrides,
            policy: options.policy,
            proxy: options.proxy,
        }
    }

    /// Whether `uri` may be asked as far as it alone tells: for those who take one from a person, before anything is sent.
    ///
    /// # Errors
    /// [`OutboundError::Url`], [`OutboundError::Cleartext`] and [`OutboundError::Blocked`] of an address that stands in it.
    pub(crate) fn admit(&self, uri: &Uri) -> Result<(), OutboundError> {
        let target = Target::read(uri)?;
        match self.fixed(&target) {
            Some(address) => self.check(&target, &[address]),
            None if target.scheme == Scheme::Http => Err(OutboundError::Cleartext),
            None => Ok(()),
        }
    }

    /// Sends `request`, whose URI is absolute, and reads the whole answer into memory that is wiped. Redirects are answers.
    ///
    /// # Errors
    /// [`OutboundError`]. Whether the request arrived is not known after `Protocol`, `TooLarge` and `Timeout`.
    pub(crate) async fn send(
        &self,
        request: Request<Bytes>,
        bounds: Bounds,
    ) -> Result<Response<Bytes>, OutboundError> {
        let target = Target::read(request.uri())?;
        let answered = timeout(bounds.deadline, self.ask(&target, request, bounds.answer));
        match answered.await {
            Ok(answer) => answer,
            Err(_) => Err(OutboundError::Timeout(target.host)),
        }
    }

    async fn ask(
        &self,
        target: &Target,
        request: Request<Bytes>,
        longest: usize,
    ) -> Result<Response<Bytes>, OutboundError> {
        let stream = self.dial(target).await?;
        match target.scheme {
            Scheme::Http => exchange(target, stream, request, longest).await,
            Scheme::Https => {
                let name = ServerName::try_from(target.host.as_str().to_owned())
                    .map_err(|_| OutboundError::Url)?;
                let stream = self
                    .tls
                    .connect(name, stream)
                    .await
                    .map_err(|error| OutboundError::Tls(target.host.clone(), error))?;
                exchange(target, stream, request, longest).await
            }
        }
    }

    /// A connection to a checked address, or by the network's proxy.
    async fn dial(&self, target: &Target) -> Result<Box<dyn Bytestream>, OutboundError> {
        let addresses = match (self.fixed(target), &self.proxy) {
            (Some(address), _) => vec![address],
            (None, None) => resolve(target).await?,
            (None, Some(proxy)) => {
                if let Ok(known) = resolve(target).await {
                    self.check(target, &known)?;
                }
                return tunnel(proxy, target).await;
            }
        };
        self.check(target, &addresses)?;
        let connected = connect(&addresses).await;
        let stream =
            connected.map_err(|error| OutboundError::Connect(target.host.clone(), error))?;
        Ok(Box::new(stream))
    }

    /// Where `target` is without asking anybody.
    fn fixed(&self, target: &Target) -> Option<SocketAddr> {
        let is_meant = |o: &&Override| o.host == target.host.as_str() && o.port == target.port;
        let overridden = self.overrides.iter().find(is_meant).map(|o| o.address);
        overridden.or_else(|| Some(SocketAddr::new(target.host.ip()?, target.port)))
    }

    /// One address that may not be dialled refuses them all.
    fn check(&self, target: &Target, addresses: &[SocketAddr]) -> Result<(), OutboundError> {
        if let Some(reason) = addresses
            .iter()
            .find_map(|address| self.policy.blocks(*address))
        {
            let host = target.host.clone();
            return Err(OutboundError::Blocked { host, reason });
        }
        let is_here = |address: &SocketAddr| address.ip().to_canonical().is_loopback();
        if target.scheme == Scheme::Http && !addresses.iter().all(is_here) {
            return Err(OutboundError::Cleartext);
        }
        Ok(())
    }
}

trait Bytestream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Bytestream for T {}

async fn resolve(target: &Target) -> Result<Vec<SocketAddr>, OutboundError> {
    let found = tokio::net::lookup_host((target.host.as_str(), target.port)).await;
    let addresses: Vec<_> = found
        .map(|found| found.take(MAX_ADDRESSES).collect())
        .unwrap_or_default();
    if addresses.is_empty() {
        return Err(OutboundError::Unresolved(target.host.clone()));
    }
    Ok(addresses)
}

/// The first of `addresses` that answers.
async fn connect(addresses: &[SocketAddr]) -> std::io::Result<TcpStream> {
    let mut last = std::io::ErrorKind::AddrNotAvailable.into();
    for address in addresses {
        match timeout(CONNECT_DEADLINE, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Ok(Err(error)) => last = error,
            Err(_) => last = std::io::ErrorKind::TimedOut.into(),
        }
    }
    Err(last)
}

/// A tunnel by the network's proxy (RFC 9110 section 9.3.6). The address policy is not about the proxy: an operator named it.
async fn tunnel(
    proxy: &OutboundProxy,
    target: &Target,
) -> Result<Box<dyn Bytestream>, OutboundError> {
    let refused = || OutboundError::Proxy(target.host.clone());
    let found = tokio::net::lookup_host((proxy.host.as_str(), proxy.port)).await;
    let addresses: Vec<_> = found.map_err(|_| refused())?.take(MAX_ADDRESSES).collect();
    let stream = connect(&addresses).await.map_err(|_| refused())?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|_| refused())?;
    tokio::spawn(connection.with_upgrades());
    let authority = match target.host.ip() {
        Some(ip) => SocketAddr::new(ip, target.port).to_string(),
        None => format!("{}:{}", target.host.as_str(), target.port),
    };
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.method_mut() = Method::CONNECT;
    *request.uri_mut() = authority.parse().map_err(|_| refused())?;
    let headers = request.headers_mut();
    headers.insert(header::HOST, authority.parse().map_err(|_| refused())?);
    if let Some((user, password)) = &proxy.credentials {
        let basic = Zeroizing::new(format!("{user}:{}", password.as_str()));
        let basic = Zeroizing::new(format!("Basic {}", STANDARD.encode(basic.as_bytes())));
        let mut basic = HeaderValue::from_str(&basic).map_err(|_| refused())?;
        basic.set_sensitive(true);
        headers.insert(header::PROXY_AUTHORIZATION, basic);
    }
    let answer = sender.send_request(request).await.map_err(|_| refused())?;
    if !answer.status().is_success() {
        return Err(refused());
    }
    let opened = hyper::upgrade::on(answer).await.map_err(|_| refused())?;
    Ok(Box::new(TokioIo::new(opened)))
}

/// One question and its answer.
async fn exchange(
    target: &Target,
    stream: impl Bytestream + 'static,
    request: Request<Bytes>,
    longest: usize,
) -> Result<Response<Bytes>, OutboundError> {
    let broken = |error| OutboundError::Protocol(target.host.clone(), Some(error));
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(MAX_HEAD)
        .max_headers(MAX_FIELDS)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    let connection = AbortOnDrop(tokio::spawn(connection));
    let answer = sender
        .send_request(in_origin_form(target, request)?)
        .await
        .map_err(broken)?;
    let (head, body) = answer.into_parts();
    let promised = head.headers.get(header::CONTENT_LENGTH);
    let promised = promised.and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if promised.is_some_and(|length| length > longest) {
        return Err(OutboundError::TooLarge(target.host.clone()));
    }
    let body = collect(Body::new(body), longest)
        .await
        .map_err(|error| match error.code() {
            Code::BodyTooLarge => OutboundError::TooLarge(target.host.clone()),
            _ => OutboundError::Protocol(target.host.clone(), None),
        })?;
    drop(connection);
    Ok(Response::from_parts(head, body))
}

/// The task of a connection, which ends with the question.
struct AbortOnDrop(tokio::task::JoinHandle<hyper::Result<()>>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The request as an origin server takes it (RFC 9112 section 3.2.1).
fn in_origin_form(
    target: &Target,
    request: Request<Bytes>,
) -> Result<Request<Full<Bytes>>, OutboundError> {
    let (mut head, body) = request.into_parts();
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    head.uri = path.parse().map_err(|_| OutboundError::Url)?;
    let host = target.authority().parse().map_err(|_| OutboundError::Url)?;
    head.headers.insert(header::HOST, host);
    let ours = [
        (
            header::USER_AGENT,
            concat!("claviger/", env!("CARGO_PKG_VERSION")),
        ),
        // A compressed answer could be larger than its bound.
        (header::ACCEPT_ENCODING, "identity"),
        (header::CONNECTION, "close"),
    ];
    for (name, value) in ours {
        head.headers.insert(name, HeaderValue::from_static(value));
    }
    for name in HOP_BY_HOP {
        head.headers.remove(name);
    }
    Ok(Request::from_parts(head, Full::new(body)))
}

/// hyper frames the body.
const HOP_BY_HOP: [HeaderName; 3] = [
    header::TRANSFER_ENCODING,
    header::CONTENT_LENGTH,
    header::PROXY_AUTHORIZATION,
];
const CONNECT_DEADLINE: Duration = Duration::from_secs(3);
/// How many addresses of a name are tried at most.
const MAX_ADDRESSES: usize = 8;
const MAX_HEAD: usize = 64 * 1024;
const MAX_FIELDS: usize = 100;

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    fn allowing(networks: &[&str]) -> OutboundOptions {
        let allowed = networks.iter().map(|net| net.parse().unwrap()).collect();
        OutboundOptions {
            policy: AddressPolicy::new(allowed, Vec::new()),
            ..OutboundOptions::default()
        }
    }

    fn get(url: &str) -> Request<Bytes> {
        Request::get(url).body(Bytes::new()).unwrap()
    }

    /// Answers every connection with `answer`, and gives what the first one sent.
    async fn peer(answer: String) -> (SocketAddr, tokio::sync::oneshot::Receiver<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (tell, told) = tokio::sync::oneshot::channel();
        tokio::spawn(async move {
            let mut tell = Some(tell);
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut asked = Vec::new();
                while !asked.windows(4).any(|end| end == b"\r\n\r\n") {
                    assert_ne!(stream.read_buf(&mut asked).await.unwrap(), 0);
                }
                if let Some(tell) = tell.take() {
                    tell.send(String::from_utf8(asked).unwrap()).unwrap();
                }
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        (address, told)
    }

    #[tokio::test]
    async fn a_question_goes_out_in_origin_form_and_a_redirect_is_an_answer() {
        let moved =
            "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 2\r\n\r\nno";
        let (address, told) = peer(moved.to_owned()).await;
        let outbound = Outbound::new(allowing(&["127.0.0.0/8"]));
        let url = format!("http://{address}/keys?of=all");
        let answer = outbound.send(get(&url), Bounds::default()).await.unwrap();
        assert_eq!(answer.status(), 302);
        assert_eq!(answer.body().as_ref(), b"no");
        let asked = told.await.unwrap().to_lowercase();
        assert!(
            asked.starts_with("get /keys?of=all http/1.1\r\n"),
            "{asked}"
        );
        assert!(
            asked.contains(&format!("\r\nhost: {address}\r\n")),
            "{asked}"
        );
    }

    #[tokio::test]
    async fn special_addresses_are_refused_in_every_spelling() {
        let outbound = Outbound::new(OutboundOptions::default());
        for url in [
            "https://127.0.0.1/",
            "https://[::1]/",
            "https://10.0.0.1/",
            "https://169.254.169.254/latest/meta-data/",
            "https://localhost/",
            "https://LOCALHOST./",
        ] {
            let refused = outbound
                .send(get(url), Bounds::default())
                .await
                .unwrap_err();
            assert!(
                matches!(refused, OutboundError::Blocked { .. }),
                "{url}: {refused}"
            );
        }
    }

    #[tokio::test]
    async fn nothing_lifts_the_policy_for_metadata_services() {
        let mut options = allowing(&["0.0.0.0/0", "::/0"]);
        options.overrides = vec![Override {
            host: "idp.example".to_owned(),
            port: 443,
            address: "169.254.169.254:443".parse().unwrap(),
        }];
        let outbound = Outbound::new(options);
        for url in ["https://169.254.169.254/", "https://idp.example/"] {
            let refused = outbound
                .send(get(url), Bounds::default())
                .await
                .unwrap_err();
            assert!(
                matches!(refused, OutboundError::Blocked { .. }),
                "{url}: {refused}"
            );
        }
    }

    #[tokio::test]
    async fn cleartext_stays_on_this_machine() {
        let mut options = allowing(&["127.0.0.0/8", "10.0.0.0/8"]);
        options.overrides = vec![Override {
            host: "idp.example".to_owned(),
            port: 80,
            address: "10.0.0.1:80".parse().unwrap(),
        }];
        let outbound = Outbound::new(options);
        for url in ["http://10.0.0.1/", "http://idp.example/"] {
            let refused = outbound
                .send(get(url), Bounds::default())
                .await
                .unwrap_err();
            assert!(
                matches!(refused, OutboundError::Cleartext),
                "{url}: {refused}"
            );
            let admitted = outbound.admit(&url.parse().unwrap());
            assert!(matches!(admitted, Err(OutboundError::Cleartext)), "{url}");
        }
        let uri = "http://somewhere.example/".parse().unwrap();
        assert!(matches!(
            outbound.admit(&uri),
            Err(OutboundError::Cleartext)
        ));
    }

    #[test]
    fn urls_that_two_programs_could_read_in_two_ways_are_refused() {
        let outbound = Outbound::new(OutboundOptions::default());
        for url in [
            "https://user:secret@example.com/",
            "https://user@example.com/",
            "ftp://example.com/",
            "example.com:443",
            "/only/a/path",
            "https://0x7f.1/",
            "https://example.com:0/",
        ] {
            let refused = outbound.admit(&url.parse().unwrap()).unwrap_err();
            assert!(matches!(refused, OutboundError::Url), "{url}: {refused}");
            assert!(!refused.to_string().contains("secret"));
        }
        outbound
            .admit(&"https://example.com:8443/hook?x=1".parse().unwrap())
            .unwrap();
    }

    #[tokio::test]
    async fn an_answer_is_bounded_in_size_and_time() {
        let bounds = Bounds {
            answer: 100,
            deadline: Duration::from_millis(300),
        };
        let outbound = Outbound::new(allowing(&["127.0.0.0/8"]));
        let body = "x".repeat(101);
        let promised = format!("HTTP/1.1 200 OK\r\ncontent-length: 101\r\n\r\n{body}");
        let chunked = format!(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n65\r\n{body}\r\n0\r\n\r\n"
        );
        for answer in [promised, chunked] {
            let (address, _told) = peer(answer).await;
            let asked = outbound.send(get(&format!("http://{address}/")), bounds);
            let refused = asked.await.unwrap_err();
            assert!(matches!(refused, OutboundError::TooLarge(_)), "{refused}");
        }
        let (address, _told) =
            peer("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n".to_owned()).await;
        let asked = outbound.send(get(&format!("http://{address}/")), bounds);
        // The peer closes where the body should go on, or the time ends: neither is an answer.
        asked.await.unwrap_err();
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = silent.local_addr().unwrap();
        let asked = outbound.send(get(&format!("http://{address}/")), bounds);
        let refused = asked.await.unwrap_err();
        assert!(matches!(refused, OutboundError::Timeout(_)), "{refused}");
    }

    #[tokio::test]
    async fn a_certificate_must_chain_to_a_trusted_root_and_name_the_host() {
        let issued = rcgen::generate_simple_self_signed(vec!["idp.example".to_owned()]).unwrap();
        let certificate = issued.cert.der().clone();
        let key =
            rustls::pki_types::PrivateKeyDer::Pkcs8(issued.signing_key.serialize_der().into());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let server = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key)
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                if let Ok(mut stream) = acceptor.accept(stream).await {
                    let mut asked = [0; 4096];
                    let _ = stream.read(&mut asked).await;
                    let answer = b"HTTP/1.1 204 No Content\r\n\r\n";
                    let _ = stream.write_all(answer).await;
                }
            }
        });
        let mut options = allowing(&["127.0.0.0/8"]);
        options.overrides = ["idp.example", "other.example"]
            .map(|host| Override {
                host: host.to_owned(),
                port: 443,
                address,
            })
            .into();
        let untrusting = Outbound::new(options.clone());
        options.roots.add(certificate).unwrap();
        let trusting = Outbound::new(options);
        let asked = trusting.send(get("https://idp.example/"), Bounds::default());
        assert_eq!(asked.await.unwrap().status(), 204);
        for (outbound, url) in [
            (&untrusting, "https://idp.example/"),
            (&trusting, "https://other.example/"),
        ] {
            let refused = outbound
                .send(get(url), Bounds::default())
                .await
                .unwrap_err();
            assert!(
                matches!(refused, OutboundError::Tls(..)),
                "{url}: {refused}"
            );
        }
    }

    #[tokio::test]
    async fn the_networks_proxy_is_asked_for_a_tunnel_and_its_refusal_is_told() {
        let (address, told) =
            peer("HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n".to_owned()).await;
        let outbound = Outbound::new(OutboundOptions {
            proxy: Some(OutboundProxy {
                host: address.ip().to_string(),
                port: address.port(),
                credentials: Some(("user".to_owned(), Zeroizing::new("password".to_owned()))),
            }),
            ..OutboundOptions::default()
        });
        let asked = outbound.send(get("https://idp.invalid/"), Bounds::default());
        let refused = asked.await.unwrap_err();
        assert!(matches!(refused, OutboundError::Proxy(_)), "{refused}");
        let asked = told.await.unwrap().to_lowercase();
        assert!(
            asked.starts_with("connect idp.invalid:443 http/1.1\r\n"),
            "{asked}"
        );
        assert!(
            asked.contains("proxy-authorization: basic dxnlcjpwyxnzd29yza=="),
            "{asked}"
        );
    }
}
