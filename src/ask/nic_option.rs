//! An interface as one argument: `MAC=aa:00:00:12:34:56,ip=192.0.2.10/24,gw=192.0.2.1`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::network::{DNS_SERVERS, Ipv4, Ipv6, MTU, Mac, Nic};

/// An argument that describes no interface. The text begins with what is wrong in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadNic(String);

fn wrong<T>(key: &str, value: &str, expected: &str) -> Result<T, BadNic> {
    Err(BadNic(format!("{key}={} is not {expected}", value.escape_debug())))
}

/// Reads `MAC=…[,ip=…/…][,gw=…][,dns=…][,mtu=…][,dhcp][,ip6=…]`, the interface of this number.
///
/// # Errors
/// When a part makes no sense, or nothing says how the interface gets an address.
pub fn parse(text: &str, index: u32) -> Result<Nic, BadNic> {
    let mut mac = None;
    let (mut ipv4, mut ipv6) = (None, None);
    let (mut gateway4, mut gateway6) = (None, None);
    let (mut dns, mut mtu) = (Vec::new(), None);
    let twice = |key: &str| BadNic(format!("{key} is given twice"));
    for part in text.split(',') {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        match key.to_ascii_lowercase().as_str() {
            "mac" => {
                let parsed = Mac::parse(value).filter(|mac| mac.0[0] & 1 == 0 && mac.0 != [0; 6]);
                let Some(parsed) = parsed else {
                    return wrong("MAC", value, "a hardware address (aa:00:00:12:34:56)");
                };
                if mac.replace(parsed).is_some() {
                    return Err(twice("MAC"));
                }
            }
            "dhcp" if part.eq_ignore_ascii_case("dhcp") => {
                if ipv4.replace(Ipv4::Dhcp).is_some() {
                    return Err(BadNic("an interface has either dhcp or ip=, and once".into()));
                }
            }
            "ip" => {
                let (address, prefix) = network::<Ipv4Addr>(value, 32, "ip", "192.0.2.10/24")?;
                if address.is_unspecified() || address.is_loopback() || address.is_multicast() {
                    return wrong("ip", value, "an address that an interface can have");
                }
                let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
                let host = address.to_bits() & !mask;
                if prefix < 31 && (host == 0 || host == !mask) {
                    return wrong("ip", value, "the address of a host in its network");
                }
                let new = Ipv4::Static { address, prefix, gateway: None };
                if ipv4.replace(new).is_some() {
                    return Err(BadNic("an interface has either dhcp or ip=, and once".into()));
                }
            }
            "ip6" => {
                let new = match value {
                    "auto" => Ipv6::Slaac,
                    "auto+dhcp" => Ipv6::SlaacDhcp,
                    "dhcp" => Ipv6::Dhcp,
                    _ => {
                        let (address, prefix) = network::<Ipv6Addr>(
                            value,
                            128,
                            "ip6",
                            "2001:db8::5/64, auto, auto+dhcp or dhcp",
                        )?;
                        if address.is_unspecified()
                            || address.is_loopback()
                            || address.is_multicast()
                        {
                            return wrong("ip6", value, "an address that an interface can have");
                        }
                        Ipv6::Static { address, prefix, gateway: None }
                    }
                };
                if ipv6.replace(new).is_some() {
                    return Err(twice("ip6"));
                }
            }
            "gw" => match value.parse() {
                Ok(IpAddr::V4(address)) if gateway4.replace(address).is_none() => {}
                Ok(IpAddr::V6(address)) if gateway6.replace(address).is_none() => {}
                Ok(_) => return Err(twice("gw of one family")),
                Err(_) => return wrong("gw", value, "the address of a router"),
            },
            "dns" => {
                for server in value.split('+') {
                    match server.parse() {
                        Ok(address) => dns.push(address),
                        Err(_) => {
                            return wrong("dns", server, "the address of a name server");
                        }
                    }
                }
                if dns.len() > DNS_SERVERS {
                    return Err(BadNic(format!(
                        "dns has {} name servers; {DNS_SERVERS} are the most",
                        dns.len()
                    )));
                }
            }
            "mtu" => match value.parse().ok().filter(|mtu| MTU.contains(mtu)) {
                Some(number) if mtu.replace(number).is_none() => {}
                Some(_) => return Err(twice("mtu")),
                None => return wrong("mtu", value, "an MTU from 576 to 65535"),
            },
            _ => {
                return Err(BadNic(format!(
                    "'{}' is no part of an interface; valid are MAC=, ip=ADDRESS/PREFIX, dhcp, ip6=, \
                     gw=, dns= and mtu=",
                    part.escape_debug()
                )));
            }
        }
    }
    let Some(mac) = mac else {
        return Err(BadNic(
            "MAC= is missing: interfaces are told apart by their hardware addresses".into(),
        ));
    };
    if ipv4.is_none() && ipv6.is_none() {
        return Err(BadNic(format!(
            "nothing says how {mac} gets an address: dhcp, ip=ADDRESS/PREFIX or ip6="
        )));
    }
    let mut nic = Nic::new(index, mac, ipv4.unwrap_or(Ipv4::None), ipv6.unwrap_or(Ipv6::None));
    match (&mut nic.ipv4, gateway4) {
        (Ipv4::Static { gateway, .. }, given) => *gateway = given,
        (_, Some(given)) => {
            return Err(BadNic(format!("gw={given} is of no use without ip=ADDRESS/PREFIX")));
        }
        (_, None) => {}
    }
    match (&mut nic.ipv6, gateway6) {
        (Ipv6::Static { gateway, .. }, given) => *gateway = given,
        (_, Some(given)) => {
            return Err(BadNic(format!("gw={given} is of no use without ip6=ADDRESS/PREFIX")));
        }
        (_, None) => {}
    }
    (nic.dns, nic.mtu) = (dns, mtu);
    Ok(nic)
}

/// An address and the length of its network's prefix.
fn network<A: std::str::FromStr>(
    value: &str,
    most: u8,
    key: &str,
    form: &str,
) -> Result<(A, u8), BadNic> {
    let parsed = value.split_once('/').and_then(|(address, prefix)| {
        let prefix = prefix.parse().ok().filter(|prefix| (1..=most).contains(prefix))?;
        Some((address.parse().ok()?, prefix))
    });
    parsed.map_or_else(|| wrong(key, value, &format!("of the form {form}")), Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interfaces() {
        let mac = Mac([0xaa, 0, 0, 0x12, 0x34, 0x56]);
        let nic = parse("MAC=AA:00:00:12:34:56,dhcp", 0).unwrap();
        assert_eq!(nic, Nic::new(0, mac, Ipv4::Dhcp, Ipv6::None));
        let text = "mac=aa:00:00:12:34:56,ip=192.0.2.10/24,gw=192.0.2.1,gw=fe80::1,ip6=2001:db8::5/64,\
            dns=1.1.1.1+2606:4700::1111,dns=8.8.8.8,mtu=9000";
        let nic = parse(text, 2).unwrap();
        assert_eq!(nic.gateway4(), Some(("192.0.2.1".parse().unwrap(), false)));
        assert_eq!(nic.gateway6(), Some(("fe80::1".parse().unwrap(), false)));
        assert_eq!((nic.index, nic.dns.len(), nic.mtu), (2, 3, Some(9000)));
        let nic = parse("MAC=aa:00:00:12:34:56,ip6=auto+dhcp", 0).unwrap();
        assert_eq!((nic.ipv4, nic.ipv6), (Ipv4::None, Ipv6::SlaacDhcp));
        parse("MAC=aa:00:00:12:34:56,ip=192.0.2.0/31", 0).unwrap();
    }

    #[test]
    fn what_makes_no_sense_is_said() {
        for (parts, expected) in [
            ("", "how aa:00:00:12:34:56 gets an address"),
            (",mtu=1500", "gets an address"),
            (",ip=192.0.2.10", "of the form 192.0.2.10/24"),
            (",ip=192.0.2.0/24", "a host in its network"),
            (",ip=192.0.2.255/24", "a host in its network"),
            (",ip=127.0.0.1/8", "an interface can have"),
            (",ip=192.0.2.10/24,dhcp", "either dhcp or ip="),
            (",dhcp,dhcp", "either dhcp or ip="),
            (",dhcp=yes", "'dhcp=yes' is no part"),
            (",dhcp,gw=192.0.2.1", "of no use without ip="),
            (",ip6=auto,gw=fe80::1", "of no use without ip6="),
            (",dhcp,dns=x", "dns=x is not"),
            (",dhcp,mtu=100", "mtu=100 is not"),
            (",dhcp,mtu=1500,mtu=1500", "mtu is given twice"),
            (",dhcp,colour=red", "'colour=red' is no part"),
            (",dhcp,MAC=aa:00:00:12:34:57", "MAC is given twice"),
        ] {
            let error = parse(&format!("MAC=aa:00:00:12:34:56{parts}"), 0).unwrap_err().to_string();
            assert!(error.contains(expected), "{parts}: {error}");
        }
        for bad in
            ["dhcp", "MAC=x,dhcp", "MAC=01:00:00:00:00:01,dhcp", "MAC=00:00:00:00:00:00,dhcp"]
        {
            assert!(parse(bad, 0).is_err(), "{bad}");
        }
    }
}
