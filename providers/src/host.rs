//! The one canonical form of a host, for requests and for operators' input alike.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use idna::uts46::{AsciiDenyList, DnsLength, Hyphens, Uts46};

/// A host in its one canonical form: a lower-case A-label name without a trailing dot, a dotted quad, or
/// an IPv6 address as RFC 5952 writes it, without brackets.
///
/// Spec: UTS 46 (non-transitional, STD3 rules, DNS lengths), RFC 5952.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Host {
    text: Arc<str>,
    ip: Option<IpAddr>,
}

/// A host with the port that was written, if one was.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Authority {
    /// The host.
    pub host: Host,
    /// The port, 1 to 65535.
    pub port: Option<u16>,
}

/// How bytes reach a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// TLS, always verified.
    Https,
    /// Cleartext, which a grant must allow on its own.
    Http,
}

/// Hosts that a template sends to: a pattern, a port and a scheme.
///
/// `*` stands for exactly one label and `**` for one or more, and only at the left: `*.github.com`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HostRule {
    wildcard: Wildcard,
    host: Host,
    port: u16,
    scheme: Scheme,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Wildcard {
    None,
    One,
    Many,
}

/// Why a host, an authority or a host rule is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HostError {
    /// Nothing stands there.
    #[error("the host is empty; write a name such as `api.example.com`")]
    Empty,
    /// UTS 46, STD3 or DNS lengths refuse it.
    #[error("`{0}` is not a host name; use letters, digits, hyphens and dots, at most 253 bytes")]
    NotAName(String),
    /// An address in another spelling than the canonical one.
    #[error(
        "`{0}` is an odd spelling of an IP address; write IPv4 as a dotted quad and IPv6 as RFC 5952 does"
    )]
    OddAddress(String),
    /// A port that is not 1 to 65535 in plain decimal digits.
    #[error("`{0}` is not a port; use 1 to 65535 without leading zeros")]
    Port(String),
    /// A wildcard elsewhere than as the whole first label, or before an address or a bare top-level name.
    #[error("the wildcard in `{0}` is not allowed; use `*.example.com` or `**.example.com`")]
    Wildcard(String),
    /// Another scheme than `https` or `http`.
    #[error("the scheme of `{0}` is not supported; use `https://` or `http://`")]
    Scheme(String),
    /// A user, a path, a query or a fragment.
    #[error("`{0}` holds more than a host and a port; leave out the user, the path and the query")]
    Extra(String),
}

impl Host {
    /// Reads a host without a port. IPv6 may stand in brackets, as it does in a URI.
    ///
    /// # Errors
    /// See [`HostError`]: every spelling that two programs could read in two ways is refused.
    pub fn parse(text: &str) -> Result<Self, HostError> {
        if text.is_empty() {
            return Err(HostError::Empty);
        }
        if text.contains(['/', '@', '?', '#', '\\']) {
            return Err(HostError::Extra(quote(text)));
        }
        match text.strip_prefix('[') {
            Some(inner) => Self::ipv6(inner.strip_suffix(']').ok_or_else(|| odd(text))?),
            None if text.contains(':') => Self::ipv6(text),
            None => Self::name(text),
        }
    }

    /// A name, or a dotted quad.
    fn name(text: &str) -> Result<Self, HostError> {
        let not_a_name = || HostError::NotAName(quote(text));
        if text.len() > LONGEST_INPUT {
            return Err(not_a_name());
        }
        let relative = text.strip_suffix('.').unwrap_or(text);
        // Hyphens in the third and fourth place are common in CDN names, so only the ends of labels are checked.
        let name = Uts46::new()
            .to_ascii(
                relative.as_bytes(),
                AsciiDenyList::STD3,
                Hyphens::CheckFirstLast,
                DnsLength::Verify,
            )
            .map_err(|_| not_a_name())?;
        // An A-label of what looks like an A-label is refused by newer programs alone (UTS 46, revision 33, V4).
        if name.split('.').any(|label| label.starts_with("xn--xn--")) {
            return Err(not_a_name());
        }
        if !ends_in_number(&name) {
            return Ok(Self {
                text: name.as_ref().into(),
                ip: None,
            });
        }
        // Resolvers read `127.1`, `0x7f000001` and `2130706433` as addresses, so what ends in a number is the one
        // spelling of an address or it is refused. The comparison is with the raw text: UTS 46 maps `①` to `1`.
        let ip: Ipv4Addr = name.parse().map_err(|_| odd(text))?;
        if ip.to_string() != text {
            return Err(odd(text));
        }
        Ok(Self {
            text: text.into(),
            ip: Some(ip.into()),
        })
    }

    /// An IPv6 address without brackets. Zone ids do not parse.
    fn ipv6(text: &str) -> Result<Self, HostError> {
        let ip: Ipv6Addr = text.parse().map_err(|_| odd(text))?;
        if ip.to_string() != text {
            return Err(odd(text));
        }
        Ok(Self {
            text: text.into(),
            ip: Some(ip.into()),
        })
    }

    /// The canonical text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The address, if the host is a literal.
    pub fn ip(&self) -> Option<IpAddr> {
        self.ip
    }

    /// The canonical text, shared.
    pub fn to_shared(&self) -> Arc<str> {
        Arc::clone(&self.text)
    }
}

impl Authority {
    /// Reads `host`, `host:port` or `[v6]:port`.
    ///
    /// # Errors
    /// [`HostError`]: a bad host, or a port that is empty, zero, over 65535, signed or zero-padded.
    pub fn parse(text: &str) -> Result<Self, HostError> {
        let (host, port) = match text.strip_prefix('[') {
            Some(_) => {
                let end = text.find(']').ok_or_else(|| odd(text))?;
                let (host, rest) = text.split_at(end + 1);
                match rest.strip_prefix(':') {
                    Some(port) => (host, Some(port)),
                    None if rest.is_empty() => (host, None),
                    None => return Err(odd(text)),
                }
            }
            None => match text.split_once(':') {
                // Without brackets nobody can tell the port of an IPv6 address from its last group.
                Some((_, port)) if port.contains(':') => return Err(odd(text)),
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            },
        };
        Ok(Self {
            host: Host::parse(host)?,
            port: port.map(parse_port).transpose()?,
        })
    }
}

impl HostRule {
    /// Reads `[https://|http://]host[:port]`, where the first label may be `*` or `**`.
    /// The port is the scheme's own unless it is written, the scheme `https`.
    ///
    /// # Errors
    /// [`HostError`].
    pub fn parse(text: &str) -> Result<Self, HostError> {
        let (scheme, rest) = match text.split_once("://") {
            None => (Scheme::Https, text),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => (Scheme::Https, rest),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => (Scheme::Http, rest),
            Some(_) => return Err(HostError::Scheme(quote(text))),
        };
        let (wildcard, rest) = match rest.split_once('.') {
            Some(("*", rest)) => (Wildcard::One, rest),
            Some(("**", rest)) => (Wildcard::Many, rest),
            _ => (Wildcard::None, rest),
        };
        if rest.contains('*') {
            return Err(HostError::Wildcard(quote(text)));
        }
        let Authority { host, port } = Authority::parse(rest)?;
        // `*.com` would name most of the world.
        if wildcard != Wildcard::None && (host.ip.is_some() || !host.text.contains('.')) {
            return Err(HostError::Wildcard(quote(text)));
        }
        Ok(Self {
            wildcard,
            host,
            port: port.unwrap_or_else(|| scheme.default_port()),
            scheme,
        })
    }

    /// Whether the endpoint is meant. `host` is canonical.
    pub fn matches(&self, scheme: Scheme, host: &str, port: u16) -> bool {
        self.scheme == scheme && self.port == port && self.matches_name(host)
    }

    /// Whether the host is meant, at whatever port. `host` is canonical.
    pub fn matches_name(&self, host: &str) -> bool {
        if self.wildcard == Wildcard::None {
            return host == self.host.as_str();
        }
        let labels = host
            .strip_suffix(self.host.as_str())
            .and_then(|rest| rest.strip_suffix('.'));
        labels.is_some_and(|labels| {
            !labels.is_empty() && (self.wildcard == Wildcard::Many || !labels.contains('.'))
        })
    }

    /// Whether some host is meant by both, at whatever port.
    pub fn overlaps(&self, other: &Self) -> bool {
        let under = |a: &Self, b: &Self| {
            let base = b.host.as_str();
            b.wildcard == Wildcard::Many
                && a.wildcard != Wildcard::None
                && (a.host.as_str() == base
                    || a.host
                        .as_str()
                        .strip_suffix(base)
                        .is_some_and(|r| r.ends_with('.')))
        };
        self.matches_name(other.host.as_str()) && other.wildcard == Wildcard::None
            || other.matches_name(self.host.as_str()) && self.wildcard == Wildcard::None
            || self.wildcard == other.wildcard && self.host == other.host
            || under(self, other)
            || under(other, self)
    }

    /// The host as a pattern, without the port: `*.github.com`. IPv6 has no brackets.
    pub fn pattern(&self) -> String {
        match self.wildcard {
            Wildcard::None => self.host.to_string(),
            Wildcard::One => format!("*.{}", self.host),
            Wildcard::Many => format!("**.{}", self.host),
        }
    }

    /// The name below which the rule means hosts, or the host itself: `github.com` of `*.github.com`.
    pub fn base(&self) -> &Host {
        &self.host
    }

    /// The host, if the rule means exactly one.
    pub fn exact(&self) -> Option<&Host> {
        (self.wildcard == Wildcard::None).then_some(&self.host)
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The scheme.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }
}

impl Scheme {
    /// `https` or `http`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Https => "https",
            Self::Http => "http",
        }
    }

    /// 443 or 80.
    pub fn default_port(self) -> u16 {
        match self {
            Self::Https => 443,
            Self::Http => 80,
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Host({})", self.text)
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.host.ip, self.port) {
            (Some(IpAddr::V6(ip)), None) => write!(f, "[{ip}]"),
            (Some(IpAddr::V6(ip)), Some(port)) => write!(f, "[{ip}]:{port}"),
            (_, None) => self.host.fmt(f),
            (_, Some(port)) => write!(f, "{}:{port}", self.host),
        }
    }
}

impl fmt::Display for HostRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wildcard = match self.wildcard {
            Wildcard::None => "",
            Wildcard::One => "*.",
            Wildcard::Many => "**.",
        };
        let port = (self.port != self.scheme.default_port()).then_some(self.port);
        write!(
            f,
            "{}://{wildcard}{}",
            self.scheme.as_str(),
            Authority {
                host: self.host.clone(),
                port
            }
        )
    }
}

/// WHATWG URL, "ends in a number checker": such names are read as IPv4 addresses by some programs.
fn ends_in_number(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or_default();
    let hex = last.strip_prefix("0x");
    last.bytes().all(|b| b.is_ascii_digit())
        || hex.is_some_and(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()))
}

fn parse_port(text: &str) -> Result<u16, HostError> {
    let plain = !text.starts_with('0') && text.bytes().all(|b| b.is_ascii_digit());
    text.parse()
        .ok()
        .filter(|_| plain)
        .ok_or_else(|| HostError::Port(quote(text)))
}

fn odd(text: &str) -> HostError {
    HostError::OddAddress(quote(text))
}

/// Foreign text as it may stand in an error: escaped, and not longer than it helps.
fn quote(text: &str) -> String {
    text.chars()
        .take(100)
        .flat_map(char::escape_debug)
        .collect()
}

/// A name has at most 253 bytes as an A-label; its U-label form may have more, but not without end.
const LONGEST_INPUT: usize = 1024;

#[cfg(test)]
mod tests;
