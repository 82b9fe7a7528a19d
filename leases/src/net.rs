//! Client networks as Datalog can compare them: a string of bits, of which a network is a prefix.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// IPv4-mapped IPv6 networks (RFC 4291 section 2.5.5.2) become IPv4 ones: a client is one address, however it came.
pub(crate) fn canonical(net: IpNet) -> IpNet {
    match net {
        IpNet::V6(v6) if v6.prefix_len() >= 96 => match v6.network().to_ipv4_mapped() {
            Some(address) => {
                Ipv4Net::new(address, v6.prefix_len() - 96).map_or(net.trunc(), IpNet::V4)
            }
            None => net.trunc(),
        },
        IpNet::V4(_) | IpNet::V6(_) => net.trunc(),
    }
}

/// Whether the client is in the network.
pub(crate) fn contains(net: &IpNet, client: IpAddr) -> bool {
    canonical(*net).contains(&client.to_canonical())
}

/// The client's address: `4:` or `6:` and its bits.
pub(crate) fn client_bits(client: IpAddr) -> String {
    bits(client.to_canonical())
}

/// The network: a prefix of the bits of every address in it, and of no other.
pub(crate) fn net_bits(net: &IpNet) -> String {
    let net = canonical(*net);
    let mut text = bits(net.addr());
    text.truncate(2 + usize::from(net.prefix_len()));
    text
}

fn bits(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => format!("4:{:032b}", u32::from(address)),
        IpAddr::V6(address) => format!("6:{:0128b}", u128::from(address)),
    }
}

/// The network whose [`net_bits`] these are.
pub(crate) fn net_from_bits(text: &str) -> Option<IpNet> {
    let (family, bits) = text.split_once(':')?;
    if !bits.bytes().all(|bit| matches!(bit, b'0' | b'1')) {
        return None;
    }
    let length = u8::try_from(bits.len()).ok()?;
    let net = match family {
        "4" if length <= 32 => {
            let address = u32::from_str_radix(&format!("{bits:0<32}"), 2).ok()?;
            IpNet::V4(Ipv4Net::new(Ipv4Addr::from(address), length).ok()?)
        }
        "6" if length <= 128 => {
            let address = u128::from_str_radix(&format!("{bits:0<128}"), 2).ok()?;
            IpNet::V6(Ipv6Net::new(Ipv6Addr::from(address), length).ok()?)
        }
        _ => return None,
    };
    (net_bits(&net) == text).then_some(net)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn a_network_is_a_prefix_of_its_addresses() {
        let bits = client_bits("10.1.2.3".parse().unwrap());
        assert!(bits.starts_with(&net_bits(&net("10.0.0.0/8"))));
        assert!(bits.starts_with(&net_bits(&net("10.1.2.3/32"))));
        assert!(bits.starts_with(&net_bits(&net("0.0.0.0/0"))));
        assert!(!bits.starts_with(&net_bits(&net("11.0.0.0/8"))));
        assert!(!bits.starts_with(&net_bits(&net("::/0"))));
    }

    #[test]
    fn a_mapped_address_is_the_address() {
        assert!(contains(
            &net("10.0.0.0/8"),
            "::ffff:10.1.2.3".parse().unwrap()
        ));
        assert!(contains(
            &net("::ffff:10.0.0.0/104"),
            "10.1.2.3".parse().unwrap()
        ));
        assert!(!contains(&net("::/0"), "10.1.2.3".parse().unwrap()));
    }

    #[test]
    fn networks_are_read_back_from_their_bits() {
        for text in [
            "0.0.0.0/0",
            "10.0.0.0/8",
            "192.0.2.7/32",
            "::/0",
            "2001:db8::/33",
            "::1/128",
        ] {
            assert_eq!(net_from_bits(&net_bits(&net(text))), Some(net(text)));
        }
        for bits in [
            "",
            "4",
            "5:01",
            "4:2",
            "4:000000000000000000000000000000001",
            "6:x",
        ] {
            assert_eq!(net_from_bits(bits), None, "{bits}");
        }
    }
}
