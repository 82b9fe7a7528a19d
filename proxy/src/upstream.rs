//! Step 6: where a name really leads, and whether that address may be dialled.
//!
//! A name is resolved once, all its addresses are checked, and exactly a checked address is dialled; a
//! later change of the name's records cannot slip in between (threats.md D12-D16).

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_resolver::TokioResolver;
use moka::sync::Cache;
use parking_lot::Mutex;
use pingora::protocols::ALPN;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorSource, ErrorType};
use providers::address::{AddressPolicy, Override};
use providers::host::{Host, Scheme};
use thiserror::Error;

use crate::account;
use crate::dial::{Dialer, UpstreamProxy, UpstreamProxyError};
use crate::refuse::{Code, Refusal};

/// How long a name may take to resolve.
const RESOLVE_DEADLINE: Duration = Duration::from_secs(5);
/// How long checked addresses are kept; the resolver's own cache follows the records' TTL.
const KEPT: Duration = Duration::from_secs(5);
/// With a proxy of the network: how long a name may take to resolve here too, and how long it is not tried again when it
/// did not. Such networks often resolve no name of the internet.
const GLANCE: Duration = Duration::from_secs(1);
const NOT_AGAIN: Duration = Duration::from_mins(1);
/// How many addresses of a name are tried at most.
const MAX_ADDRESSES: usize = 8;

/// Why the resolver cannot be made.
#[derive(Debug, Error)]
#[error("the system's resolver configuration was not accepted")]
pub struct ResolverError(#[from] hickory_resolver::net::NetError);

/// Resolves names and checks where they lead.
#[derive(Debug)]
pub(crate) struct Upstreams {
    resolver: TokioResolver,
    overrides: HashMap<(String, u16), SocketAddr>,
    policy: AddressPolicy,
    kept: Cache<Arc<str>, Arc<[IpAddr]>>,
    via: Option<Via>,
}

/// The network's proxy, which resolves names itself.
#[derive(Debug)]
struct Via {
    proxy: Arc<UpstreamProxy>,
    addresses: Mutex<Option<(Instant, Arc<[IpAddr]>)>>,
    /// Names that do not resolve here.
    unknown: Cache<Arc<str>, ()>,
}

impl Via {
    fn new(proxy: Arc<UpstreamProxy>) -> Self {
        Self {
            proxy,
            addresses: Mutex::default(),
            unknown: Cache::builder()
                .max_capacity(4096)
                .time_to_live(NOT_AGAIN)
                .build(),
        }
    }

    /// Where the proxy is. The address policy is about providers; this one an operator has named.
    async fn addresses(&self) -> Result<Addresses, Refusal> {
        let port = self.proxy.port;
        let kept = self.addresses.lock().clone();
        if let Some((at, ips)) = kept
            && at.elapsed() < KEPT
        {
            return Ok(Addresses::Via { ips, port });
        }
        let named = tokio::net::lookup_host((self.proxy.host.as_str(), port));
        let found = tokio::time::timeout(RESOLVE_DEADLINE, named).await;
        let ips: Arc<[IpAddr]> = match found {
            Ok(Ok(found)) => found.map(|address| address.ip()).collect(),
            _ => Arc::new([]),
        };
        if ips.is_empty() {
            return Err(Refusal::new(
                Code::UpstreamConnect,
                UpstreamProxyError::Unreachable.to_string(),
            ));
        }
        *self.addresses.lock() = Some((Instant::now(), Arc::clone(&ips)));
        Ok(Addresses::Via { ips, port })
    }
}

impl Upstreams {
    pub(crate) fn new(
        overrides: Vec<Override>,
        policy: AddressPolicy,
        via: Option<Arc<UpstreamProxy>>,
    ) -> Result<Self, ResolverError> {
        let mut resolver = TokioResolver::builder_tokio()?;
        resolver.options_mut().timeout = RESOLVE_DEADLINE / 2;
        resolver.options_mut().attempts = 2;
        Ok(Self {
            resolver: resolver.build()?,
            overrides: overrides
                .into_iter()
                .map(|o| ((o.host, o.port), o.address))
                .collect(),
            policy,
            kept: Cache::builder()
                .max_capacity(4096)
                .time_to_live(KEPT)
                .build(),
            via: via.map(Via::new),
        })
    }

    /// The addresses to dial for `host`, all of them checked: one that may not be dialled refuses them all.
    pub(crate) async fn addresses(&self, host: &Host, port: u16) -> Result<Addresses, Refusal> {
        let overridden = self.overridden(host, port);
        if let (None, Some(via)) = (overridden, &self.via) {
            self.glance(via, host, port).await?;
            return via.addresses().await;
        }
        let addresses = if let Some(address) = overridden {
            Addresses::One(address)
        } else if let Some(ip) = host.ip() {
            Addresses::One(SocketAddr::new(ip, port))
        } else {
            Addresses::Many {
                ips: self.resolve(host).await?,
                port,
            }
        };
        self.check(host, &addresses)?;
        Ok(addresses)
    }

    fn check(&self, host: &Host, addresses: &Addresses) -> Result<(), Refusal> {
        let blocked = addresses
            .iter()
            .find_map(|address| Some((address.ip(), self.policy.blocks(address)?)));
        let Some((address, reason)) = blocked else {
            return Ok(());
        };
        let refusal = Refusal::new(
            Code::DestinationBlocked,
            format!(
                "{host} leads to {reason}; an operator can allow its network with --allow-address, but never a metadata service or Claviger itself"
            ),
        );
        Err(Refusal {
            address: Some(address),
            ..refusal
        })
    }

    /// Holds the policy to what is known here of a host that the network's proxy will resolve.
    async fn glance(&self, via: &Via, host: &Host, port: u16) -> Result<(), Refusal> {
        if let Some(ip) = host.ip() {
            return self.check(host, &Addresses::One(SocketAddr::new(ip, port)));
        }
        if via.unknown.contains_key(host.as_str()) {
            return Ok(());
        }
        if let Ok(Ok(ips)) = tokio::time::timeout(GLANCE, self.resolve(host)).await {
            return self.check(host, &Addresses::Many { ips, port });
        }
        via.unknown.insert(host.to_shared(), ());
        Ok(())
    }

    /// Has a peer reached the way that its addresses and protocol ask for, where plain TCP will not do.
    pub(crate) fn route(
        &self,
        peer: &mut HttpPeer,
        addresses: &Addresses,
        (host, port): (&Host, u16),
        protocol: Protocol,
        timeouts: UpstreamTimeouts,
    ) {
        let via = match (addresses, &self.via) {
            (Addresses::Via { .. }, Some(via)) => {
                // All connections end at one address, and lead on to several ports.
                peer.group_key = account::port_group(peer.group_key, port);
                let authority = if host.as_str().contains(':') {
                    format!("[{host}]:{port}")
                } else {
                    format!("{host}:{port}")
                };
                Some((Arc::clone(&via.proxy), authority))
            }
            _ => None,
        };
        let is_websocket = protocol == Protocol::WebSocket;
        if is_websocket {
            // Never one that was dialled for requests: its reads would not be put off.
            peer.group_key = account::port_group(peer.group_key, 0);
        }
        if via.is_some() || is_websocket {
            peer.options.custom_l4 = Some(Arc::new(Dialer {
                via,
                is_websocket,
                within: timeouts.connect,
            }));
        }
    }

    fn overridden(&self, host: &Host, port: u16) -> Option<SocketAddr> {
        if self.overrides.is_empty() {
            return None;
        }
        self.overrides
            .get(&(host.as_str().to_owned(), port))
            .copied()
    }

    async fn resolve(&self, host: &Host) -> Result<Arc<[IpAddr]>, Refusal> {
        if let Some(kept) = self.kept.get(host.as_str()) {
            return Ok(kept);
        }
        // The trailing dot keeps the resolver from trying the machine's search domains.
        let name = format!("{host}.");
        let answer = tokio::time::timeout(RESOLVE_DEADLINE, self.resolver.lookup_ip(name)).await;
        let ips: Vec<IpAddr> = match answer {
            Ok(Ok(answer)) => answer.iter().take(MAX_ADDRESSES * 8).collect(),
            Ok(Err(error)) => {
                tracing::debug!(server.address = %host, %error, "a name did not resolve");
                Vec::new()
            }
            Err(_) => {
                return Err(Refusal::new(
                    Code::UpstreamTimeout,
                    format!("the name {host} did not resolve in {RESOLVE_DEADLINE:?}; try again"),
                ));
            }
        };
        if ips.is_empty() {
            return Err(Refusal::new(
                Code::UpstreamConnect,
                format!(
                    "the name {host} does not resolve; check its spelling and the injector's DNS"
                ),
            ));
        }
        let ips: Arc<[IpAddr]> = ips.into();
        self.kept.insert(host.to_shared(), Arc::clone(&ips));
        Ok(ips)
    }
}

/// The checked addresses of an upstream, in the order in which they are tried.
#[derive(Debug, Clone)]
pub(crate) enum Addresses {
    One(SocketAddr),
    Many {
        ips: Arc<[IpAddr]>,
        port: u16,
    },
    /// Those of the network's proxy.
    Via {
        ips: Arc<[IpAddr]>,
        port: u16,
    },
}

impl Addresses {
    pub(crate) fn get(&self, attempt: usize) -> Option<SocketAddr> {
        match self {
            Self::One(address) => (attempt == 0).then_some(*address),
            Self::Many { ips, port } | Self::Via { ips, port } => ips
                .get(attempt)
                .filter(|_| attempt < MAX_ADDRESSES)
                .map(|ip| SocketAddr::new(*ip, *port)),
        }
    }

    /// Where the provider is, as far as that is known here.
    pub(crate) fn of_provider(&self) -> Option<IpAddr> {
        match self {
            Self::Via { .. } => None,
            Self::One(_) | Self::Many { .. } => self.get(0).map(|address| address.ip()),
        }
    }

    fn iter(&self) -> impl Iterator<Item = SocketAddr> {
        let count = match self {
            Self::One(_) => 1,
            Self::Many { ips, .. } | Self::Via { ips, .. } => ips.len(),
        };
        (0..count).map(move |at| match self {
            Self::One(address) => *address,
            Self::Many { ips, port } | Self::Via { ips, port } => SocketAddr::new(ips[at], *port),
        })
    }
}

/// The timeouts on the upstream leg.
#[derive(Debug, Clone, Copy)]
pub(crate) struct UpstreamTimeouts {
    pub(crate) connect: Duration,
    pub(crate) read: Duration,
    pub(crate) write: Duration,
    pub(crate) idle: Duration,
    /// How long a WebSocket may be silent.
    pub(crate) silence: Duration,
}

/// What is spoken with the provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    WebSocket,
    /// HTTP/2 where the provider has it.
    Http2,
    /// For a provider that has nothing else.
    Http2Only,
}

impl Default for UpstreamTimeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            // LLM providers think for minutes before their first byte.
            read: Duration::from_mins(10),
            write: Duration::from_secs(30),
            idle: Duration::from_mins(1),
            silence: Duration::from_hours(1),
        }
    }
}

/// The peer that Pingora connects to. The one place where one is made: verification is always on, and the
/// name to verify is never empty, since Pingora skips all verification for an empty one.
pub(crate) fn peer(
    address: SocketAddr,
    scheme: Scheme,
    host: &Host,
    protocol: Protocol,
    group: u64,
    timeouts: UpstreamTimeouts,
) -> HttpPeer {
    assert!(!host.as_str().is_empty(), "a host is never empty");
    let mut peer = HttpPeer::new(address, scheme == Scheme::Https, host.as_str().to_owned());
    peer.group_key = group;
    let options = &mut peer.options;
    options.verify_cert = true;
    options.verify_hostname = true;
    // The provider speaks what the agent speaks, so that streams, trailers and framing stay what they are.
    options.alpn = match protocol {
        Protocol::Http1 | Protocol::WebSocket => ALPN::H1,
        Protocol::Http2 => ALPN::H2H1,
        Protocol::Http2Only => ALPN::H2,
    };
    options.max_h2_streams = 100;
    options.connection_timeout = Some(timeouts.connect);
    options.total_connection_timeout = Some(timeouts.connect * 2);
    options.read_timeout = Some(match protocol {
        Protocol::WebSocket => timeouts.silence,
        Protocol::Http1 | Protocol::Http2 | Protocol::Http2Only => timeouts.read,
    });
    options.write_timeout = Some(timeouts.write);
    options.idle_timeout = Some(match protocol {
        // It was dialled for this one request, and the pool could not tell it from others like it.
        Protocol::WebSocket => Duration::from_millis(1),
        Protocol::Http1 | Protocol::Http2 | Protocol::Http2Only => timeouts.idle,
    });
    peer
}

/// Whether the provider refused the handshake because it speaks HTTP/2 only (ALPN, RFC 7301 section 3.2).
///
/// Pingora keeps only the text of a TLS error.
pub(crate) fn wants_h2(error: &Error) -> bool {
    format!("{error:?}").contains("NoApplicationProtocol")
}

/// Whether another address of the same name may do better.
pub(crate) fn is_connect_failure(error: &Error) -> bool {
    matches!(
        error.etype(),
        ErrorType::ConnectTimedout
            | ErrorType::ConnectRefused
            | ErrorType::ConnectNoRoute
            | ErrorType::ConnectError
            | ErrorType::SocketError
    )
}

/// What the agent is told of a failure on the upstream leg. Addresses and causes stay in the log.
pub(crate) fn refusal(error: &Error) -> Refusal {
    if let Some(proxy) = error.root_cause().downcast_ref::<UpstreamProxyError>() {
        return Refusal::new(Code::UpstreamConnect, proxy.to_string());
    }
    let (code, detail) = match error.etype() {
        ErrorType::ReadTimedout if *error.esource() == ErrorSource::Downstream => (
            Code::AmbiguousRequest,
            "the agent sent nothing more of its body for a minute; what it had sent may have been forwarded",
        ),
        _ if *error.esource() == ErrorSource::Downstream => (
            Code::AmbiguousRequest,
            "the request is not proper HTTP; send it in its one plain form (RFC 9112)",
        ),
        ErrorType::ConnectTimedout | ErrorType::TLSHandshakeTimedout => (
            Code::UpstreamTimeout,
            "the provider did not accept a connection in time; try again",
        ),
        ErrorType::ReadTimedout | ErrorType::WriteTimedout => (
            Code::UpstreamTimeout,
            "the provider fell silent; the request may have been carried out, so check before trying again",
        ),
        ErrorType::TLSHandshakeFailure
        | ErrorType::InvalidCert
        | ErrorType::HandshakeError
        | ErrorType::TLSWantX509Lookup => (
            Code::UpstreamTls,
            "the provider's certificate or handshake was not accepted, and nothing was sent",
        ),
        ErrorType::ConnectRefused
        | ErrorType::ConnectNoRoute
        | ErrorType::ConnectError
        | ErrorType::BindError
        | ErrorType::SocketError
        | ErrorType::ConnectProxyFailure => (
            Code::UpstreamConnect,
            "the provider cannot be reached, and nothing was sent; try again, with a new lease if this one was for one request",
        ),
        _ => (
            Code::UpstreamProtocol,
            "the provider broke off or did not answer with proper HTTP; the request may have been carried out",
        ),
    };
    Refusal::new(code, detail)
}
