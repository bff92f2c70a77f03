//! The instance's network interfaces and how each is to get its addresses.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

/// How an interface gets an IPv4 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Ipv4 {
    /// Not at all.
    #[default]
    None,
    /// By DHCP.
    Dhcp,
    /// This one.
    Static {
        /// The address.
        address: Ipv4Addr,
        /// Length of the network's prefix.
        prefix: u8,
        /// The way out, if there is one.
        gateway: Option<Ipv4Addr>,
    },
}

/// How an interface gets IPv6 addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Ipv6 {
    /// Not at all.
    #[default]
    None,
    /// From router advertisements.
    Slaac,
    /// From router advertisements, and the rest of the configuration by DHCPv6.
    SlaacDhcp,
    /// By DHCPv6.
    Dhcp,
    /// This one, and nothing from router advertisements.
    Static {
        /// The address.
        address: Ipv6Addr,
        /// Length of the network's prefix.
        prefix: u8,
        /// The way out, if there is one.
        gateway: Option<Ipv6Addr>,
    },
}

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nic {
    /// Its number among the instance's interfaces, from 0.
    pub index: u32,
    /// Its hardware address.
    pub mac: Mac,
    /// IPv4.
    pub ipv4: Ipv4,
    /// IPv6.
    pub ipv6: Ipv6,
    /// Name servers.
    #[serde(default)]
    pub dns: Vec<IpAddr>,
    /// The largest packet in bytes; `None`: what the driver says.
    #[serde(default)]
    pub mtu: Option<u32>,
}

impl Nic {
    /// An interface that gets these addresses, without name servers of its own.
    pub fn new(index: u32, mac: Mac, ipv4: Ipv4, ipv6: Ipv6) -> Self {
        Self { index, mac, ipv4, ipv6, dns: Vec::new(), mtu: None }
    }

    /// The gateway for IPv4, and whether it is outside of the address's own network.
    pub fn gateway4(&self) -> Option<(Ipv4Addr, bool)> {
        let Ipv4::Static { address, prefix, gateway: Some(gateway) } = self.ipv4 else {
            return None;
        };
        let mask = u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0);
        Some((gateway, (address.to_bits() ^ gateway.to_bits()) & mask != 0))
    }

    /// The same for IPv6. Every link has the link-local addresses.
    pub fn gateway6(&self) -> Option<(Ipv6Addr, bool)> {
        let Ipv6::Static { address, prefix, gateway: Some(gateway) } = self.ipv6 else {
            return None;
        };
        let mask = u128::MAX.checked_shl(128 - u32::from(prefix.min(128))).unwrap_or(0);
        let other = (address.to_bits() ^ gateway.to_bits()) & mask != 0;
        Some((gateway, other && !gateway.is_unicast_link_local()))
    }

    /// Whether a default route may come with it.
    pub fn has_default_route(&self) -> bool {
        let v4 = self.ipv4 == Ipv4::Dhcp || self.gateway4().is_some();
        let v6 = matches!(self.ipv6, Ipv6::Slaac | Ipv6::SlaacDhcp | Ipv6::Dhcp);
        v4 || v6 || self.gateway6().is_some()
    }
}

/// A hardware address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl Mac {
    /// Six pairs of hexadecimal digits with colons between them.
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 6];
        let mut pairs = text.trim().split(':');
        for byte in &mut bytes {
            let pair = pairs.next().filter(|pair| pair.len() == 2)?;
            *byte = u8::from_str_radix(pair, 16).ok()?;
        }
        pairs.next().is_none().then_some(Self(bytes))
    }
}

/// The cluster's settings that decide how interfaces are configured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// `DHCP_TAGS`.
    pub dhcp_tags: String,
    /// `STATEFUL_DHCPV6_TAGS`.
    pub stateful_dhcpv6_tags: String,
    /// `STATELESS_DHCPV6_TAGS`.
    pub stateless_dhcpv6_tags: String,
    /// `DEFAULT_NIC_CONFIG`.
    pub default_nic_config: String,
    /// `NIC_DNS`: the name servers of interfaces that have none of their own.
    pub dns: String,
}

/// The most name servers of an interface; the C library asks three.
pub(super) const DNS_SERVERS: usize = 8;

/// The smallest and the largest packet that an interface may have: IPv4's minimum, and what the
/// length fields of IP allow.
pub(super) const MTU: std::ops::RangeInclusive<u32> = 576..=65_535;

/// The value that a variable of an interface should have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("NIC_{index}_{variable} is \"{}\", which is not {expected}", .value.escape_debug())]
pub struct NicError {
    index: u32,
    variable: &'static str,
    value: String,
    expected: &'static str,
}

/// The interfaces, from what Ganeti says of each (`MAC`, `IP`, `NETWORK_SUBNET`, ...).
///
/// An interface of a Ganeti network gets DHCP or DHCPv6 where the network's tags say so, else its
/// own address in the network's subnet and, where the network has an IPv6 subnet, what the routers
/// advertise. One without a network gets what `DEFAULT_NIC_CONFIG` says. One of which not even the
/// hardware address is said is left out.
pub fn nics(
    variables: &BTreeMap<u32, BTreeMap<String, String>>,
    settings: &Settings,
) -> Result<Vec<Nic>, NicError> {
    variables
        .iter()
        .filter(|(_, fields)| fields.contains_key("MAC"))
        .map(|(index, fields)| nic(*index, fields, settings))
        .collect()
}

fn nic(
    index: u32,
    fields: &BTreeMap<String, String>,
    settings: &Settings,
) -> Result<Nic, NicError> {
    let get = |name: &str| {
        fields.get(name).map(|value| value.trim()).filter(|v| !v.is_empty() && *v != "none")
    };
    let wrong = |variable, value: &str, expected| NicError {
        index,
        variable,
        value: value.chars().take(60).collect(),
        expected,
    };
    let text = get("MAC").unwrap_or_default();
    let mac = Mac::parse(text)
        .ok_or_else(|| wrong("MAC", text, "a hardware address (aa:00:00:12:34:56)"))?;
    let mut nic = Nic::new(index, mac, Ipv4::None, Ipv6::None);
    let in_network = ["NETWORK_NAME", "NETWORK_SUBNET", "NETWORK_SUBNET6", "NETWORK_TAGS"]
        .iter()
        .any(|name| get(name).is_some());
    let tags = get("NETWORK_TAGS").unwrap_or_default();
    let separator = |c: char| c.is_whitespace() || c == ',';
    // The interface's own, else those of the network's tags, else the cluster's.
    let of_tags = |prefix: &str| -> Vec<&str> {
        tags.split(separator).filter_map(|tag| tag.strip_prefix(prefix)).collect()
    };
    let (variable, servers) = match (get("DNS"), of_tags("dns:")) {
        (Some(own), _) => ("DNS", own.split(separator).collect()),
        (None, tags) if !tags.is_empty() => ("NETWORK_TAGS", tags),
        _ => ("DNS", settings.dns.split(separator).collect()),
    };
    for server in servers.into_iter().filter(|server| !server.is_empty()) {
        let address =
            server.parse().map_err(|_| wrong(variable, server, "the address of a name server"))?;
        if nic.dns.len() == DNS_SERVERS {
            return Err(wrong(variable, server, "one of at most 8 name servers"));
        }
        nic.dns.push(address);
    }
    let (variable, mtu) = match (get("MTU"), of_tags("mtu:").first()) {
        (Some(own), _) => ("MTU", Some(own)),
        (None, tag) => ("NETWORK_TAGS", tag.copied()),
    };
    if let Some(text) = mtu {
        let mtu = text.parse().ok().filter(|mtu| MTU.contains(mtu));
        nic.mtu = Some(mtu.ok_or_else(|| wrong(variable, text, "an MTU from 576 to 65535"))?);
    }
    if !in_network {
        (nic.ipv4, nic.ipv6) = default(&settings.default_nic_config);
        return Ok(nic);
    }
    let tagged = |wanted: &str| {
        tags.split(separator)
            .any(|tag| !tag.is_empty() && wanted.split(separator).any(|w| w == tag))
    };
    // Ganeti gives an interface one address, of either family.
    let ip = get("IP");
    let ip: Option<IpAddr> = match ip {
        Some(text) => Some(text.parse().map_err(|_| wrong("IP", text, "an IP address"))?),
        None => None,
    };
    if tagged(&settings.dhcp_tags) {
        nic.ipv4 = Ipv4::Dhcp;
    } else if let (Some(IpAddr::V4(address)), Some(subnet)) = (ip, get("NETWORK_SUBNET")) {
        let gateway = match get("NETWORK_GATEWAY") {
            Some(text) => {
                Some(text.parse().map_err(|_| wrong("NETWORK_GATEWAY", text, "an IPv4 address"))?)
            }
            None => None,
        };
        let prefix = prefix_of::<Ipv4Addr>(subnet, 32)
            .ok_or_else(|| wrong("NETWORK_SUBNET", subnet, "an IPv4 subnet (192.0.2.0/24)"))?;
        nic.ipv4 = Ipv4::Static { address, prefix, gateway };
    }
    let prefix =
        match get("NETWORK_SUBNET6") {
            Some(subnet) => Some(prefix_of::<Ipv6Addr>(subnet, 128).ok_or_else(|| {
                wrong("NETWORK_SUBNET6", subnet, "an IPv6 subnet (2001:db8::/64)")
            })?),
            None => None,
        };
    if tagged(&settings.stateful_dhcpv6_tags) {
        nic.ipv6 = Ipv6::Dhcp;
    } else if tagged(&settings.stateless_dhcpv6_tags) {
        nic.ipv6 = Ipv6::SlaacDhcp;
    } else if let Some(IpAddr::V6(address)) = ip {
        let Some(prefix) = prefix else {
            let text = address.to_string();
            return Err(wrong("IP", &text, "an address of the network, which has no IPv6 subnet"));
        };
        let gateway = match get("NETWORK_GATEWAY6") {
            Some(text) => {
                Some(text.parse().map_err(|_| wrong("NETWORK_GATEWAY6", text, "an IPv6 address"))?)
            }
            None => None,
        };
        nic.ipv6 = Ipv6::Static { address, prefix, gateway };
    } else if prefix.is_some() {
        nic.ipv6 = Ipv6::Slaac;
    }
    Ok(nic)
}

/// The length of a subnet's prefix, at most `most`.
fn prefix_of<A: std::str::FromStr>(subnet: &str, most: u8) -> Option<u8> {
    let (network, prefix) = subnet.split_once('/')?;
    network.parse::<A>().ok()?;
    prefix.parse().ok().filter(|prefix| *prefix <= most)
}

/// `dhcp`, `dhcpv6`, `slaac`, `slaac_dhcp` and sums of them. The host checks the setting; what is
/// not known here is left out.
fn default(config: &str) -> (Ipv4, Ipv6) {
    let (mut ipv4, mut ipv6) = (Ipv4::None, Ipv6::None);
    for word in config.split('+').map(str::trim) {
        match word {
            "dhcp" => ipv4 = Ipv4::Dhcp,
            "dhcpv6" => ipv6 = Ipv6::Dhcp,
            "slaac" => ipv6 = Ipv6::Slaac,
            "slaac_dhcp" => ipv6 = Ipv6::SlaacDhcp,
            _ => {}
        }
    }
    (ipv4, ipv6)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings {
            dhcp_tags: "auto dhcp nfdhcpd".into(),
            stateful_dhcpv6_tags: "dhcpv6 stateful_dhcpv6".into(),
            stateless_dhcpv6_tags: "nfdhcpd stateless_dhcpv6".into(),
            default_nic_config: "dhcp+slaac".into(),
            dns: "192.0.2.53".into(),
        }
    }

    fn one(fields: &[(&str, &str)]) -> Result<Nic, String> {
        let mut variables: BTreeMap<String, String> =
            fields.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        variables.entry("MAC".into()).or_insert("aa:00:00:00:00:01".into());
        nics(&BTreeMap::from([(0, variables)]), &settings())
            .map(|mut nics| nics.remove(0))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn methods() {
        let net = ("NETWORK_SUBNET", "192.0.2.0/24");
        let nic = one(&[net, ("IP", "192.0.2.10"), ("NETWORK_GATEWAY", "192.0.2.1")]).unwrap();
        let address = Ipv4Addr::new(192, 0, 2, 10);
        let gateway = Some(Ipv4Addr::new(192, 0, 2, 1));
        assert_eq!(nic.ipv4, Ipv4::Static { address, prefix: 24, gateway });
        assert_eq!((nic.ipv6, nic.mac.to_string()), (Ipv6::None, "aa:00:00:00:00:01".into()));
        let nic = one(&[net, ("IP", "192.0.2.10"), ("NETWORK_TAGS", "x nfdhcpd")]).unwrap();
        assert_eq!((nic.ipv4, nic.ipv6), (Ipv4::Dhcp, Ipv6::SlaacDhcp));
        let nic = one(&[("NETWORK_TAGS", "stateful_dhcpv6")]).unwrap();
        assert_eq!((nic.ipv4, nic.ipv6), (Ipv4::None, Ipv6::Dhcp));
        let nic = one(&[("NETWORK_NAME", "n"), ("NETWORK_SUBNET6", "2001:db8::/64")]).unwrap();
        assert_eq!((nic.ipv4, nic.ipv6), (Ipv4::None, Ipv6::Slaac));
        let nic = one(&[("IP", "none"), ("LINK", "br0")]).unwrap();
        assert_eq!((nic.ipv4, nic.ipv6), (Ipv4::Dhcp, Ipv6::Slaac));
        let net6 = ("NETWORK_SUBNET6", "2001:db8::/64");
        let nic = one(&[net6, ("IP", "2001:db8::5"), ("NETWORK_GATEWAY6", "fe80::1")]).unwrap();
        let (address, gateway) = ("2001:db8::5".parse().unwrap(), "fe80::1".parse().unwrap());
        assert_eq!(nic.ipv6, Ipv6::Static { address, prefix: 64, gateway: Some(gateway) });
        assert_eq!(nic.gateway6(), Some((gateway, false)));
        assert_eq!(nic.dns, ["192.0.2.53".parse::<IpAddr>().unwrap()]);
        let tags = ("NETWORK_TAGS", "dns:192.0.2.1,dns:2001:db8::1 mtu:1400");
        let nic = one(&[net6, tags]).unwrap();
        assert_eq!((nic.dns.len(), nic.mtu), (2, Some(1400)));
        let nic = one(&[tags, ("DNS", "192.0.2.9"), ("MTU", "9000")]).unwrap();
        assert_eq!((nic.dns.len(), nic.mtu), (1, Some(9000)));
        assert_eq!(default(""), (Ipv4::None, Ipv6::None));
        assert_eq!(default("slaac_dhcp"), (Ipv4::None, Ipv6::SlaacDhcp));
    }

    #[test]
    fn gateways_outside_of_the_network() {
        let gateway = |prefix, gateway: &str| {
            let address = Ipv4Addr::new(192, 0, 2, 10);
            let ipv4 = Ipv4::Static { address, prefix, gateway: Some(gateway.parse().unwrap()) };
            Nic::new(0, Mac([0; 6]), ipv4, Ipv6::None).gateway4().unwrap().1
        };
        assert!(!gateway(24, "192.0.2.1") && gateway(24, "192.0.3.1"));
        assert!(gateway(32, "192.0.2.1") && !gateway(0, "10.0.0.1") && gateway(31, "192.0.2.12"));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let net = ("NETWORK_SUBNET", "192.0.2.0/24");
        for (fields, expected) in [
            (vec![("MAC", "aa:00")], "NIC_0_MAC is \"aa:00\""),
            (vec![("MAC", "aa:00:00:00:00:01:02")], "NIC_0_MAC"),
            (vec![net, ("IP", "1.2.3\n")], "NIC_0_IP is \"1.2.3\""),
            (vec![("NETWORK_SUBNET", "x/24"), ("IP", "192.0.2.1")], "NIC_0_NETWORK_SUBNET"),
            (vec![("NETWORK_SUBNET", "10.0.0.0/33"), ("IP", "10.0.0.1")], "NIC_0_NETWORK_SUBNET"),
            (vec![net, ("IP", "192.0.2.1"), ("NETWORK_GATEWAY", "g")], "NIC_0_NETWORK_GATEWAY"),
            (vec![("NETWORK_SUBNET6", "2001:db8::")], "NIC_0_NETWORK_SUBNET6"),
            (
                vec![net, ("IP", "2001:db8::5")],
                "NIC_0_IP is \"2001:db8::5\", which is not an address",
            ),
            (vec![("DNS", "ns.example.org")], "NIC_0_DNS is \"ns.example.org\""),
            (vec![("NETWORK_TAGS", "mtu:12")], "NIC_0_NETWORK_TAGS is \"12\""),
            (vec![("DNS", "::1 ::1 ::1 ::1 ::1 ::1 ::1 ::1 ::1")], "NIC_0_DNS"),
        ] {
            let error = one(&fields).unwrap_err();
            assert!(error.starts_with(expected), "{error}");
        }
    }

    #[test]
    fn from_rules() {
        let text = "export SNF_IMAGE_TYPE=diskdump\nexport SNF_IMAGE_NIC_COUNT=1\n\
            export SNF_IMAGE_NIC_0_MAC=aa:00:00:00:00:01\nexport SNF_IMAGE_NIC_0_IP=192.0.2.10\n\
            export SNF_IMAGE_NIC_0_NETWORK_SUBNET=192.0.2.0/24\n\
            export SNF_IMAGE_NIC_0_NETWORK_TAGS='a b'\n\
            export SNF_IMAGE_DHCP_TAGS='auto dhcp'\nexport SNF_IMAGE_NIC_1_MAC=junk\n";
        let rules = crate::door::rules::Rules::parse(text.as_bytes()).unwrap();
        let nics = rules.plan().unwrap().nics;
        assert_eq!(nics.len(), 1);
        assert!(matches!(nics[0].ipv4, Ipv4::Static { prefix: 24, gateway: None, .. }));
        let wrong = text.replace("aa:00:00:00:00:01", "aa");
        let rules = crate::door::rules::Rules::parse(wrong.as_bytes()).unwrap();
        assert!(rules.plan().unwrap_err().to_string().contains("NIC_0_MAC is \"aa\""));
    }
}
