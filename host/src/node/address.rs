//! Addresses that are not out in the world: the node itself, its networks, and what a cloud keeps
//! for itself.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

/// Names the special range of an address; `None` for an address of the public internet.
///
/// The ranges are those of the IANA special-purpose registries (RFC 6890), with the forms of IPv6
/// that carry an IPv4 address looked into, and the metadata services of clouds.
pub fn special(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(v4) => special_v4(v4),
        IpAddr::V6(v6) => special_v6(v6),
    }
}

fn special_v4(address: Ipv4Addr) -> Option<&'static str> {
    match address.octets() {
        [0, ..] => Some("unspecified"),
        [127, ..] => Some("loopback"),
        [169, 254, ..] => Some("link-local (where clouds keep metadata)"),
        // Azure's wire server has a public address.
        [168, 63, 129, 16] => Some("a metadata service"),
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => Some("private"),
        [100, 64..=127, ..] => Some("private (carrier-grade NAT)"),
        [192, 0, 0, _] | [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => Some("reserved"),
        [198, 18..=19, ..] => Some("private (benchmarks)"),
        [192, 88, 99, _] => Some("a relay"),
        [224..=239, ..] => Some("multicast"),
        [240..=255, ..] => Some("reserved"),
        _ => None,
    }
}

fn special_v6(address: Ipv6Addr) -> Option<&'static str> {
    let [a, b, c, d, e, f, g, h] = address.segments();
    let [.., w, x, y, z] = address.octets();
    let inner = Ipv4Addr::new(w, x, y, z);
    match (a, b) {
        (0, 0) if (c, d, e, f) == (0, 0, 0, 0) => match (g, h) {
            (0, 0) => Some("unspecified"),
            (0, 1) => Some("loopback"),
            // Compatible with IPv4, long deprecated.
            _ => Some(special_v4(inner).unwrap_or("reserved")),
        },
        // Mapped, and translated (SIIT).
        (0, 0) if (c, d, e, f) == (0, 0, 0, 0xffff) => special_v4(inner),
        (0, 0) if (c, d, e, f) == (0, 0, 0xffff, 0) => special_v4(inner),
        // NAT64: the gateway reaches the address inside.
        (0x64, 0xff9b) if (c, d, e, f) == (0, 0, 0, 0) => special_v4(inner),
        (0x64, 0xff9b) => Some("private (NAT64)"),
        (0x2001, 0) => Some("a relay (Teredo)"),
        (0x2001, 0xdb8) => Some("reserved"),
        (0x2002, _) => {
            let [b0, b1] = b.to_be_bytes();
            let [c0, c1] = c.to_be_bytes();
            Some(special_v4(Ipv4Addr::new(b0, b1, c0, c1)).unwrap_or("a relay (6to4)"))
        }
        (0xfc00..=0xfdff, _) => Some("private (unique local)"),
        (0xfe80..=0xfebf, _) => Some("link-local"),
        (0xfec0..=0xfeff, _) => Some("private (site-local)"),
        (0xff00..=0xffff, _) => Some("multicast"),
        (0x2000..=0x3fff, _) => None,
        // No other range is given out as unicast.
        _ => Some("reserved"),
    }
}

/// Whether the address is one of this node's own, whatever its range: the kernel then chooses the
/// same address to talk to it. Nothing is sent.
pub fn is_own(address: IpAddr) -> bool {
    let any: IpAddr = match address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let ours = || {
        let socket = UdpSocket::bind(SocketAddr::new(any, 0))?;
        socket.connect(SocketAddr::new(address, 9))?;
        socket.local_addr()
    };
    ours().is_ok_and(|ours| ours.ip() == address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inside_and_outside() {
        for inside in [
            "0.0.0.0",
            "0.1.2.3",
            "10.1.2.3",
            "100.64.0.1",
            "100.100.100.200",
            "127.0.0.1",
            "127.255.0.1",
            "168.63.129.16",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.192",
            "192.0.2.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.0.1",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "239.1.1.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::127.0.0.1",
            "::8.8.8.8",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::ffff:169.254.169.254",
            "::ffff:0:10.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b::a00:1",
            "64:ff9b:1::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "2002:808:808::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "febf::1",
            "fec0::1",
            "ff02::1",
            "100::1",
            "4000::1",
        ] {
            assert!(special(inside.parse().unwrap()).is_some(), "{inside}");
        }
        for outside in [
            "1.1.1.1",
            "8.8.8.8",
            "100.63.255.255",
            "100.128.0.1",
            "126.0.0.1",
            "128.0.0.1",
            "168.63.129.17",
            "169.253.0.1",
            "172.15.0.1",
            "172.32.0.1",
            "192.167.0.1",
            "198.17.0.1",
            "198.20.0.1",
            "223.255.255.255",
            "::ffff:8.8.8.8",
            "64:ff9b::808:808",
            "2606:4700::1111",
            "2a00:1450::1",
            "2001:4860::1",
        ] {
            assert_eq!(special(outside.parse().unwrap()), None, "{outside}");
        }
    }

    #[test]
    fn the_node_knows_itself() {
        assert!(is_own("127.0.0.1".parse().unwrap()));
        assert!(!is_own("203.0.113.9".parse().unwrap()));
    }
}
