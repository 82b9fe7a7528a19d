//! A provider's stand-in: HTTPS under the provider's name, by a CA of its own, that remembers what it was sent.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Json, Response};
use parking_lot::Mutex;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// The path on which the stand-in sends the credential back, as a provider should not.
pub(super) const ECHO: &str = "/v1/echo";

/// The stand-in, listening until it is dropped.
#[derive(Debug)]
pub(super) struct StandIn {
    host: String,
    address: SocketAddr,
    ca_pem: String,
    seen: Seen,
    task: JoinHandle<()>,
}

type Seen = Arc<Mutex<Vec<Received>>>;

/// A request as it arrived.
#[derive(Clone, Debug)]
pub(super) struct Received {
    pub(super) line: String,
    headers: Vec<(String, String)>,
}

impl Received {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(found, _)| found == name)
            .map(|(_, value)| value.as_str())
    }

    /// The whole head as text.
    pub(super) fn all(&self) -> String {
        format!("{} {:?}", self.line, self.headers)
    }
}

impl StandIn {
    /// Listens on a free loopback port under the provider's name.
    pub(super) async fn open(host: &str) -> anyhow::Result<Self> {
        let (ca_pem, config) = identity(host)?;
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let seen = Seen::default();
        let app = Router::new().fallback(answer).with_state(Arc::clone(&seen));
        let tls = Tls {
            listener,
            acceptor: TlsAcceptor::from(Arc::new(config)),
        };
        let task = tokio::spawn(async move {
            // It ends with the story, by abort.
            let _ = axum::serve(tls, app).await;
        });
        Ok(Self {
            host: host.to_owned(),
            address,
            ca_pem,
            seen,
            task,
        })
    }

    pub(super) fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// As `--resolve` takes it.
    pub(super) fn resolve(&self) -> String {
        format!("{}:443={}", self.host, self.address)
    }

    pub(super) fn seen(&self) -> Vec<Received> {
        self.seen.lock().clone()
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(State(seen): State<Seen>, request: Request) -> Response {
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let headers: Vec<_> = request
        .headers()
        .iter()
        .map(|(name, value)| (name.to_string(), text(value)))
        .collect();
    let host = request
        .headers()
        .get("host")
        .map(text)
        .or_else(|| request.uri().host().map(str::to_owned))
        .unwrap_or_default();
    let received = Received {
        line: format!(
            "{} https://{host}{}",
            request.method(),
            request.uri().path()
        ),
        headers,
    };
    let echoed = received
        .header("authorization")
        .unwrap_or_default()
        .to_owned();
    seen.lock().push(received);
    if request.uri().path() == ECHO {
        return (
            [("x-echo", echoed.clone())],
            Json(json!({ "you_sent": echoed })),
        )
            .into_response();
    }
    Json(json!({ "object": "list", "data": [{ "id": "ch_demo", "object": "charge", "amount": 4200, "currency": "eur" }] })).into_response()
}

/// A CA of the stand-in's own, and a certificate by it for the provider's name.
fn identity(host: &str) -> anyhow::Result<(String, ServerConfig)> {
    let mut ca = CertificateParams::default();
    ca.distinguished_name
        .push(DnType::CommonName, "Claviger demo stand-in");
    ca.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let ca_key = KeyPair::generate()?;
    let ca_pem = ca.self_signed(&ca_key)?.pem();
    let issuer = Issuer::new(ca, ca_key);
    let key = KeyPair::generate()?;
    let certificate = CertificateParams::new(vec![host.to_owned()])?.signed_by(&key, &issuer)?;
    let private = PrivateKeyDer::try_from(key.serialize_der()).map_err(anyhow::Error::msg)?;
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], private)?;
    Ok((ca_pem, config))
}

pub(super) fn random_hex(length: usize) -> anyhow::Result<String> {
    let mut bytes = vec![0; length.div_ceil(2)];
    getrandom::fill(&mut bytes)
        .map_err(|error| anyhow::anyhow!("no randomness from the system: {error}"))?;
    let mut text = hex::encode(bytes);
    text.truncate(length);
    Ok(text)
}

struct Tls {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl axum::serve::Listener for Tls {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            // Another connection follows a failed one; there is nobody to tell.
            let Ok((stream, address)) = self.listener.accept().await else {
                continue;
            };
            let _ = stream.set_nodelay(true);
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_stand_in_answers_under_the_providers_name_and_remembers() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let stand_in = StandIn::open("api.stripe.com").await.unwrap();
        let client = reqwest::Client::builder()
            .no_proxy()
            .tls_certs_only([reqwest::Certificate::from_pem(stand_in.ca_pem().as_bytes()).unwrap()])
            .resolve("api.stripe.com", stand_in.address)
            .build()
            .unwrap();
        let url = format!("https://api.stripe.com:{}{ECHO}", stand_in.address.port());
        let body = client
            .get(url)
            .bearer_auth("sk")
            .send()
            .await
            .unwrap()
            .text()
            .await
            .unwrap();
        assert_eq!(body, r#"{"you_sent":"Bearer sk"}"#);
        assert_eq!(
            stand_in.seen()[0].header("authorization"),
            Some("Bearer sk")
        );
    }
}
