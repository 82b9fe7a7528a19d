//! A small client of the injector: CONNECT with a lease, TLS inside, one request. `demo` and `doctor` speak by it.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::trust;
use crate::units::ProxyUrl;

/// The injector, the CA to trust inside its tunnels, and the lease to show at its door.
#[derive(Clone)]
pub(crate) struct Door {
    pub(crate) proxy: ProxyUrl,
    pub(crate) ca_pem: String,
    pub(crate) lease: String,
}

/// The way to an injector, with TLS where its URL says so.
#[derive(Clone)]
pub(crate) struct Dialer {
    to: ProxyUrl,
    /// There for TLS with the injector itself.
    tls: Option<TlsConnector>,
}

/// A connection to the injector.
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Duplex for S {}

impl Dialer {
    /// Trusts this machine's roots and our CA.
    pub(crate) fn new(to: ProxyUrl, ca_pem: &str) -> Self {
        let tls = to.is_tls.then(|| {
            let mut roots = rustls::RootCertStore::empty();
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            roots.add_parsable_certificates(trust::certificates(ca_pem.as_bytes()));
            connector(roots)
        });
        Self { to, tls }
    }

    /// Where it leads.
    pub(crate) const fn url(&self) -> &ProxyUrl {
        &self.to
    }

    pub(crate) async fn dial(&self) -> anyhow::Result<Box<dyn Duplex>> {
        let at = &self.to.at;
        let stream = TcpStream::connect((at.host.as_str(), at.port))
            .await
            .with_context(|| format!("cannot reach the injector at {}", self.to))?;
        stream.set_nodelay(true)?;
        let Some(tls) = &self.tls else {
            return Ok(Box::new(stream));
        };
        let stream = tls
            .connect(ServerName::try_from(at.host.clone())?, stream)
            .await
            .with_context(|| format!("TLS with the injector at {}", self.to))?;
        Ok(Box::new(stream))
    }
}

/// A request for a provider, by way of the injector.
#[derive(Clone, Debug)]
pub(crate) struct Call<'a> {
    pub(crate) method: Method,
    pub(crate) host: &'a str,
    pub(crate) port: u16,
    pub(crate) path: &'a str,
    pub(crate) headers: &'a [(&'static str, &'a str)],
    pub(crate) body: &'static str,
}

/// How far a request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// The answer to CONNECT.
    Door,
    /// An answer inside the tunnel, ours or the provider's.
    Inside,
}

/// The answer to a [`Call`].
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) place: Place,
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

const DEADLINE: Duration = Duration::from_secs(20);
const MAX_BODY: usize = 1024 * 1024;

impl Answer {
    /// The refusal's code, if it is a refusal of ours.
    pub(crate) fn refusal(&self) -> Option<String> {
        let problem: Value = serde_json::from_str(&self.body).ok()?;
        self.headers.get("proxy-status")?;
        problem.get("error")?.as_str().map(str::to_owned)
    }

    /// What the refusal says to its reader.
    pub(crate) fn detail(&self) -> Option<String> {
        let problem: Value = serde_json::from_str(&self.body).ok()?;
        problem.get("detail")?.as_str().map(str::to_owned)
    }
}

impl Door {
    /// Makes the call in a tunnel of its own.
    pub(crate) async fn call(&self, call: &Call<'_>) -> anyhow::Result<Answer> {
        tokio::time::timeout(DEADLINE, self.go(call))
            .await
            .context("no answer in time")?
    }

    async fn go(&self, call: &Call<'_>) -> anyhow::Result<Answer> {
        let stream = Dialer::new(self.proxy.clone(), &self.ca_pem).dial().await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let driver = tokio::spawn(connection.with_upgrades());
        let authority = format!("{}:{}", call.host, call.port);
        let mut connect = Request::connect(&authority).header("host", &authority);
        if !self.lease.is_empty() {
            let user = STANDARD.encode(format!("lease:{}", self.lease));
            connect = connect.header("proxy-authorization", format!("Basic {user}"));
        }
        let mut response = sender
            .send_request(connect.body(Full::<Bytes>::default())?)
            .await
            .context("CONNECT")?;
        if response.status() != StatusCode::OK {
            let answer = answer(Place::Door, response).await;
            driver.abort();
            return answer;
        }
        let upgraded = hyper::upgrade::on(&mut response)
            .await
            .context("the tunnel does not open")?;
        let name = ServerName::try_from(call.host.to_owned())?;
        let tls = self
            .connector()?
            .connect(name, TokioIo::new(upgraded))
            .await
            .context("TLS inside the tunnel")?;
        let (mut sender, connection) =
            http1::handshake::<_, Full<Bytes>>(TokioIo::new(tls)).await?;
        let inner = tokio::spawn(connection);
        let mut request = Request::builder()
            .method(call.method.clone())
            .uri(call.path)
            .header("host", call.host);
        for (name, value) in call.headers {
            request = request.header(*name, *value);
        }
        let response = sender
            .send_request(request.body(Full::from(call.body))?)
            .await
            .context("no answer inside the tunnel")?;
        let answer = answer(Place::Inside, response).await;
        inner.abort();
        driver.abort();
        answer
    }

    fn connector(&self) -> anyhow::Result<TlsConnector> {
        let mut roots = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(self.ca_pem.as_bytes()) {
            roots.add(certificate?)?;
        }
        Ok(connector(roots))
    }
}

fn connector(roots: rustls::RootCertStore) -> TlsConnector {
    let mut config = rustls::ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    TlsConnector::from(Arc::new(config))
}

async fn answer(
    place: Place,
    response: http::Response<hyper::body::Incoming>,
) -> anyhow::Result<Answer> {
    let (head, body) = response.into_parts();
    let body = Limited::new(body, MAX_BODY)
        .collect()
        .await
        .map_err(|error| anyhow::anyhow!("the answer breaks off: {error}"))?;
    let body = String::from_utf8_lossy(&body.to_bytes()).into_owned();
    Ok(Answer {
        place,
        status: head.status,
        headers: head.headers,
        body,
    })
}
