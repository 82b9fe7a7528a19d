//! An agent's way through the injector: CONNECT, TLS under the injector's authority, HTTP/1.1 inside.

use std::fmt::Write as _;
use std::io;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Barrier;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::ends::Ends;
use super::wait;
use super::wire::{Duplex, Reply, Wire};

/// `Proxy-Authorization` as clients make it of `http://lease:<token>@injector`.
pub(crate) fn basic(token: &str) -> String {
    format!(
        "Proxy-Authorization: Basic {}\r\n",
        STANDARD.encode(format!("lease:{token}"))
    )
}

/// `Proxy-Authorization: Bearer`.
pub(crate) fn bearer(token: &str) -> String {
    format!("Proxy-Authorization: Bearer {token}\r\n")
}

/// Sends a `POST path` in each tunnel at the same moment; gives every reply, in the order of the tunnels.
pub(crate) async fn race(tunnels: Vec<Tunnel>, path: &str) -> Vec<Reply> {
    let barrier = Arc::new(Barrier::new(tunnels.len()));
    let racers: Vec<_> = tunnels
        .into_iter()
        .map(|mut tunnel| {
            let (barrier, path) = (Arc::clone(&barrier), path.to_owned());
            tokio::spawn(async move {
                barrier.wait().await;
                tunnel.request("POST", &path, &[], b"amount=1").await
            })
        })
        .collect();
    let mut replies = Vec::new();
    for racer in racers {
        let reply = racer.await.expect("no racer panics");
        replies.push(reply.expect("the injector answers"));
    }
    replies
}

/// Checks that exactly one of `replies` came from the upstream and that all others are `lease_consumed`.
#[track_caller]
pub(crate) fn expect_one_winner(replies: Vec<Reply>) {
    let (winners, losers): (Vec<_>, Vec<_>) =
        replies.into_iter().partition(|reply| reply.status == 200);
    assert_eq!(winners.len(), 1);
    for loser in losers {
        loser.expect_refusal(403, "lease_consumed");
    }
}

/// An open tunnel to one host.
#[derive(Debug)]
pub(crate) struct Tunnel {
    pub(crate) wire: Wire,
    host: String,
}

impl Tunnel {
    /// Sends a whole request and reads its response.
    pub(crate) async fn request(
        &mut self,
        method: &str,
        path: &str,
        fields: &[&str],
        body: &[u8],
    ) -> io::Result<Reply> {
        self.send(method, path, fields, body).await?;
        self.wire.reply(method).await
    }

    /// Sends a whole request.
    pub(crate) async fn send(
        &mut self,
        method: &str,
        path: &str,
        fields: &[&str],
        body: &[u8],
    ) -> io::Result<()> {
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n", self.host);
        for field in fields {
            head.push_str(field);
            head.push_str("\r\n");
        }
        if !body.is_empty() {
            let _ = write!(head, "Content-Length: {}\r\n", body.len());
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(body);
        self.wire.send(bytes).await
    }

    /// `GET path`, whose response has to come.
    #[track_caller]
    pub(crate) fn get(&mut self, path: &str) -> impl Future<Output = Reply> {
        let caller = std::panic::Location::caller();
        async move {
            match self.request("GET", path, &[], b"").await {
                Ok(reply) => reply,
                Err(error) => panic!("GET {path} at {caller}: {error}"),
            }
        }
    }

    /// Sends these bytes as they are and reads one response.
    pub(crate) async fn raw(&mut self, request: &str) -> io::Result<Reply> {
        self.wire.send(request).await?;
        self.wire
            .reply(request.split(' ').next().unwrap_or_default())
            .await
    }
}

impl Ends {
    /// Sends CONNECT with these fields, each ended by CRLF.
    pub(crate) async fn connect(&self, authority: &str, fields: &str) -> (Reply, Wire) {
        let mut wire = self.proxy_wire().await;
        wire.send(format!(
            "CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n{fields}\r\n"
        ))
        .await
        .expect("the injector reads requests");
        let reply = wire.reply("CONNECT").await.expect("the injector answers");
        (reply, wire)
    }

    /// A tunnel to port 443 of `host` by this lease, open and ready for requests.
    pub(crate) async fn tunnel(&self, host: &str, token: &str) -> Tunnel {
        self.tunnel_recorded(host, token, true).await
    }

    /// The same where nobody may listen or the connection may break; a refusal at the door is an error too.
    pub(crate) async fn try_tunnel(&self, host: &str, token: &str) -> io::Result<Tunnel> {
        let stream = wait::within("a connection", TcpStream::connect(self.proxy_addr)).await?;
        let mut wire = Wire::new(stream, Some(self.seen.clone()));
        let fields = basic(token);
        wire.send(format!(
            "CONNECT {host}:443 HTTP/1.1\r\nHost: {host}:443\r\n{fields}\r\n"
        ))
        .await?;
        let reply = wire.reply("CONNECT").await?;
        if reply.status != 200 {
            return Err(io::Error::other(reply.text()));
        }
        let tls = self.handshake(wire, host, &[b"http/1.1"]).await?;
        Ok(Tunnel {
            wire: Wire::new(tls, Some(self.seen.clone())),
            host: host.to_owned(),
        })
    }

    /// The same, but what arrives is not kept: for bodies too large to keep.
    pub(crate) async fn unrecorded_tunnel(&self, host: &str, token: &str) -> Tunnel {
        self.tunnel_recorded(host, token, false).await
    }

    async fn tunnel_recorded(&self, host: &str, token: &str, recorded: bool) -> Tunnel {
        let (reply, wire) = self.connect(&format!("{host}:443"), &basic(token)).await;
        reply.expect_status(200);
        let tls = self
            .handshake(wire, host, &[b"http/1.1"])
            .await
            .expect("the injector has a leaf for the host");
        let seen = recorded.then(|| self.seen.clone());
        Tunnel {
            wire: Wire::new(tls, seen),
            host: host.to_owned(),
        }
    }

    /// TLS with this SNI inside an accepted CONNECT, trusting the injector's authority and nothing else.
    pub(crate) async fn handshake(
        &self,
        wire: Wire,
        sni: &str,
        alpn: &[&[u8]],
    ) -> io::Result<TlsStream<Box<dyn Duplex>>> {
        self.handshake_on(wire.into_stream(), sni, alpn).await
    }

    async fn handshake_on<S>(
        &self,
        stream: S,
        sni: &str,
        alpn: &[&[u8]],
    ) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut roots = RootCertStore::empty();
        let ca = CertificateDer::from_pem_file(&self.ca).expect("the CA's certificate is there");
        roots.add(ca).expect("the CA's certificate is sound");
        let mut config = rustls::ClientConfig::builder_with_provider(Arc::new(
            rustls::crypto::ring::default_provider(),
        ))
        .with_safe_default_protocol_versions()
        .expect("ring has every default")
        .with_root_certificates(roots)
        .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        let name = ServerName::try_from(sni.to_owned()).expect("a host name");
        let handshake = TlsConnector::from(Arc::new(config)).connect(name, stream);
        wait::within("the TLS handshake", handshake).await
    }

    /// One `GET` in a tunnel of its own, or the refusal of that tunnel.
    pub(crate) async fn attempt(&self, host: &str, path: &str, token: &str) -> Reply {
        let (reply, wire) = self.connect(&format!("{host}:443"), &basic(token)).await;
        if reply.status != 200 {
            return reply;
        }
        let tls = self
            .handshake(wire, host, &[b"http/1.1"])
            .await
            .expect("the injector has a leaf for the host");
        let mut tunnel = Tunnel {
            wire: Wire::new(tls, Some(self.seen.clone())),
            host: host.to_owned(),
        };
        tunnel.get(path).await
    }

    /// One `GET` in a tunnel of its own, which has to open.
    pub(crate) async fn get(&self, host: &str, path: &str, token: &str) -> Reply {
        self.tunnel(host, token).await.get(path).await
    }
}
