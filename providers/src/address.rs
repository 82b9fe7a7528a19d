//! Which addresses may be dialled: special-purpose ones only where an operator allows their network, and those of metadata
//! services and of our own listeners never (threats.md D12-D16).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;

/// A `--resolve HOST:PORT=IP:PORT`: where to dial, while name, SNI and verification stay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Override {
    /// The canonical host that requests name.
    pub host: String,
    /// The port that requests name.
    pub port: u16,
    /// Where to dial instead.
    pub address: SocketAddr,
}

/// Which addresses may be dialled.
#[derive(Debug, Clone, Default)]
pub struct AddressPolicy {
    allowed: Vec<IpNet>,
    own: Vec<SocketAddr>,
}

impl AddressPolicy {
    /// `allowed` lifts the policy for networks; nothing lifts it for `own` listeners and metadata services.
    #[must_use]
    pub fn new(allowed: Vec<IpNet>, own: Vec<SocketAddr>) -> Self {
        Self { allowed, own }
    }

    /// Why `address` may not be dialled, if so.
    #[must_use]
    pub fn blocks(&self, address: SocketAddr) -> Option<&'static str> {
        let ip = address.ip().to_canonical();
        if is_metadata(ip) {
            return Some("a metadata service");
        }
        if self.own.iter().any(|own| is_own(*own, ip, address.port())) {
            return Some("a listener of Claviger itself");
        }
        // A mapped address on the wire is another spelling of an IPv4 one, and of no use but to hide it.
        let reason = match address.ip() {
            IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => "an IPv4-mapped address",
            _ => special_purpose(ip)?,
        };
        // A translated address is judged by what it leads to, so the allow list must name that.
        let allowed = self
            .allowed
            .iter()
            .any(|net| net.contains(&ip) || net.contains(&address.ip()));
        (!allowed).then_some(reason)
    }
}

fn is_own(own: SocketAddr, ip: IpAddr, port: u16) -> bool {
    own.port() == port
        // To dial "any address" is to dial this machine.
        && (own.ip() == ip
            || ip.is_unspecified()
            || (own.ip().is_unspecified() && is_this_machine(ip)))
}

/// Only an address of this machine can be bound to.
fn is_this_machine(ip: IpAddr) -> bool {
    ip.is_loopback() || std::net::UdpSocket::bind(SocketAddr::new(ip, 0)).is_ok()
}

/// Metadata services of the clouds: their answers are credentials.
fn is_metadata(ip: IpAddr) -> bool {
    const V4: [Ipv4Addr; 4] = [
        Ipv4Addr::new(192, 0, 0, 192),
        Ipv4Addr::new(169, 254, 169, 254),
        Ipv4Addr::new(100, 100, 100, 200),
        Ipv4Addr::new(168, 63, 129, 16),
    ];
    match ip {
        // Other link-local services (ECS task roles at 169.254.170.2, ...) hand out credentials as well.
        IpAddr::V4(v4) => V4.contains(&v4) || (v4.octets()[0] == 169 && v4.octets()[1] == 254),
        IpAddr::V6(v6) => {
            // AWS (instance, task and pod services) and Google.
            matches!(v6.segments(), [0xfd00, 0xec2, ..] | [0xfd20, 0xce, ..])
                || embedded(v6).is_some_and(|v4| is_metadata(IpAddr::V4(v4)))
                || locally_translated(v6)
                    .into_iter()
                    .flatten()
                    .any(|v4| is_metadata(IpAddr::V4(v4)))
        }
    }
}

/// The IPv4 address inside a translation or tunnelling prefix (RFC 6052, 8215, 3056, 2765).
fn embedded(v6: Ipv6Addr) -> Option<Ipv4Addr> {
    let s = v6.segments();
    let join = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match s {
        [0x64, 0xff9b, ..] => Some(join(s[6], s[7])),
        [0x2002, high, low, ..] | [0, 0, 0, 0, 0xffff, 0, high, low] => Some(join(high, low)),
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 => Some(join(high, low)),
        _ => None,
    }
}

/// The IPv4 addresses that one in the local translation prefix may mean: networks choose how much of `64:ff9b:1::/48` is
/// their prefix (RFC 8215), and where the address stands follows from that (RFC 6052 section 2.2).
fn locally_translated(v6: Ipv6Addr) -> Option<[Ipv4Addr; 3]> {
    let o = v6.octets();
    let is_local = v6.segments()[..3] == [0x64, 0xff9b, 1];
    is_local.then(|| {
        [
            Ipv4Addr::new(o[6], o[7], o[9], o[10]),
            Ipv4Addr::new(o[7], o[9], o[10], o[11]),
            Ipv4Addr::new(o[9], o[10], o[11], o[12]),
        ]
    })
}

/// The special-purpose block that holds `ip`, if one does (IANA registries, RFC 6890).
fn special_purpose(ip: IpAddr) -> Option<&'static str> {
    match ip {
        IpAddr::V4(v4) => special_v4(v4),
        IpAddr::V6(v6) => special_v6(v6),
    }
}

fn special_v4(ip: Ipv4Addr) -> Option<&'static str> {
    let [a, b, c, _] = ip.octets();
    match (a, b, c) {
        (0, ..) => Some("this network (0.0.0.0/8)"),
        (10, ..) | (192, 168, _) | (172, 16..=31, _) => Some("a private network"),
        (100, 64..=127, _) => Some("shared address space (100.64.0.0/10)"),
        (127, ..) => Some("a loopback address"),
        (169, 254, _) => Some("a link-local address"),
        (192, 0, 0) => Some("protocol assignments (192.0.0.0/24)"),
        (192, 88, 99) => Some("a 6to4 relay (192.88.99.0/24)"),
        (192, 0, 2) | (198, 51, 100) | (203, 0, 113) => Some("a documentation network"),
        (198, 18..=19, _) => Some("a benchmarking network (198.18.0.0/15)"),
        (224..=239, ..) => Some("a multicast address"),
        (240.., ..) => Some("a reserved address (240.0.0.0/4)"),
        _ => None,
    }
}

fn special_v6(ip: Ipv6Addr) -> Option<&'static str> {
    let s = ip.segments();
    if ip.is_loopback() || ip.is_unspecified() {
        return Some("a loopback or unspecified address");
    }
    match s[0] {
        0xfe80..=0xfebf => return Some("a link-local address"),
        0xfec0..=0xfeff => return Some("a site-local address"),
        0xfc00..=0xfdff => return Some("a unique local address"),
        0xff00.. => return Some("a multicast address"),
        0x2001 if s[1] == 0 => return Some("a Teredo address (2001::/32)"),
        0x2001 if s[1] < 0x200 => return Some("protocol assignments (2001::/23)"),
        0x2001 if s[1] == 0xdb8 => return Some("a documentation network"),
        0x3fff if s[1] < 0x1000 => return Some("a documentation network"),
        0x5f00 => return Some("a segment identifier (5f00::/16)"),
        0x2620 if s[1..3] == [0x4f, 0x8000] => {
            return Some("a sink of the DNS (2620:4f:8000::/48)");
        }
        0x100 if s[1..4] == [0, 0, 0] => return Some("a discard-only address"),
        _ => {}
    }
    if s[0] == 0x64 && s[1] == 0xff9b {
        return Some("a translated address (64:ff9b::/96, 64:ff9b:1::/48)");
    }
    if s[0] == 0x2002 {
        return Some("a 6to4 address (2002::/16)");
    }
    embedded(ip).map(|_| "an IPv4-compatible or IPv4-translated address")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocked(policy: &AddressPolicy, ip: &str) -> bool {
        policy
            .blocks(SocketAddr::new(ip.parse().unwrap(), 443))
            .is_some()
    }

    #[test]
    fn special_purpose_addresses_are_blocked() {
        let policy = AddressPolicy::default();
        let blocks = [
            "127.0.0.1",
            "127.9.9.9",
            "10.0.0.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "169.254.1.1",
            "100.64.0.1",
            "0.0.0.0",
            "0.1.2.3",
            "192.0.0.8",
            "198.18.0.1",
            "198.19.255.255",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "fc00::1",
            "fd12::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::ffff:8.8.8.8",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "2002:7f00:1::",
            "2001::1",
            "::7f00:1",
            "2001:db8::1",
            "192.88.99.1",
            "2001:2::1",
            "2001:10::1",
            "2001:2f:ffff::1",
            "2001:1ff::1",
            "3fff::1",
            "3fff:fff:ffff::1",
            "5f00::1",
            "2620:4f:8000::1",
            "::ffff:0:8.8.8.8",
            "::ffff:0:127.0.0.1",
        ];
        for ip in blocks {
            assert!(blocked(&policy, ip), "{ip}");
        }
        for ip in [
            "1.1.1.1",
            "172.32.0.1",
            "192.0.1.1",
            "198.20.0.1",
            "2606:4700::1111",
            "192.88.98.1",
            "2001:200::1",
            "2001:4860:4860::8888",
            "2620:4f:8001::1",
            "3fff:1000::1",
            "2606:ff9b::1",
            "100:1::1",
        ] {
            assert!(!blocked(&policy, ip), "{ip}");
        }
    }

    #[test]
    fn nothing_lifts_the_policy_for_metadata_services() {
        let all = vec!["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()];
        let policy = AddressPolicy::new(all, Vec::new());
        let metadata = [
            "169.254.169.254",
            "169.254.170.2",
            "100.100.100.200",
            "168.63.129.16",
            "fd00:ec2::254",
            "fd20:ce::254",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "::ffff:0:169.254.169.254",
            "2002:a9fe:a9fe::",
        ];
        for ip in metadata {
            assert!(blocked(&policy, ip), "{ip}");
        }
        assert!(!blocked(&policy, "127.0.0.1"));
    }

    /// An IPv4 address as IPv6 carries it: mapped, compatible, translated and tunnelled.
    fn carried(v4: Ipv4Addr) -> Vec<Ipv6Addr> {
        let [a, b, c, d] = v4.octets();
        let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        let local = |octets: [u8; 10]| {
            let mut all = [0, 0x64, 0xff, 0x9b, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            all[6..].copy_from_slice(&octets);
            Ipv6Addr::from(all)
        };
        vec![
            v4.to_ipv6_mapped(),
            Ipv6Addr::new(0, 0, 0, 0, 0, 0, high, low),
            Ipv6Addr::new(0, 0, 0, 0, 0xffff, 0, high, low),
            Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low),
            local([0, 0, 0, 0, 0, 0, a, b, c, d]),
            local([a, b, 0, c, d, 0, 0, 0, 0, 0]),
            local([0, a, 0, b, c, d, 0, 0, 0, 0]),
            local([0, 0, 0, a, b, c, d, 0, 0, 0]),
            Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1),
        ]
    }

    #[test]
    fn no_way_to_carry_an_address_hides_it() {
        let all = vec!["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()];
        let (usual, lifted) = (
            AddressPolicy::default(),
            AddressPolicy::new(all, Vec::new()),
        );
        let blocks =
            |policy: &AddressPolicy, ip: IpAddr| policy.blocks(SocketAddr::new(ip, 443)).is_some();
        // Every /16, at its ends and between.
        let parts = [[0, 1], [0, 192], [170, 2], [169, 254], [255, 255]];
        for high in 0..=u16::MAX {
            let [a, b] = high.to_be_bytes();
            for [c, d] in parts {
                let v4 = Ipv4Addr::new(a, b, c, d);
                let is_blocked = special_v4(v4).is_some() || is_metadata(IpAddr::V4(v4));
                assert_eq!(blocks(&usual, v4.into()), is_blocked, "{v4}");
                if v4.octets()[..2] != [0, 0] {
                    for v6 in carried(v4) {
                        assert!(blocks(&usual, v6.into()), "{v6}");
                    }
                }
                if is_metadata(IpAddr::V4(v4)) {
                    for v6 in carried(v4) {
                        assert!(blocks(&lifted, v6.into()), "{v6} of {v4}");
                    }
                }
            }
        }
    }

    #[test]
    fn own_listeners_are_blocked_even_when_their_network_is_allowed() {
        let policy = AddressPolicy::new(
            vec!["127.0.0.0/8".parse().unwrap()],
            vec![
                "127.0.0.1:8181".parse().unwrap(),
                "0.0.0.0:8182".parse().unwrap(),
            ],
        );
        for own in ["127.0.0.1:8181", "127.0.0.1:8182", "127.0.0.2:8182"] {
            assert!(policy.blocks(own.parse().unwrap()).is_some(), "{own}");
        }
        assert!(policy.blocks("127.0.0.1:8183".parse().unwrap()).is_none());
        let all = vec!["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()];
        let own = ["127.0.0.1:8181", "[::1]:8182", "192.0.2.7:8183"];
        let policy = AddressPolicy::new(all, own.map(|own| own.parse().unwrap()).into());
        for any in ["0.0.0.0", "[::]", "[::ffff:0.0.0.0]"] {
            for port in 8181..=8183 {
                let address = format!("{any}:{port}");
                assert!(
                    policy.blocks(address.parse().unwrap()).is_some(),
                    "{address}"
                );
            }
            assert!(
                policy
                    .blocks(format!("{any}:8184").parse().unwrap())
                    .is_none()
            );
        }
    }
}
