//! The instance's network interfaces and how each is to get its addresses.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

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
}

/// A network interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
}

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
    let mut nic = Nic { index, mac, ipv4: Ipv4::None, ipv6: Ipv6::None };
    let in_network = ["NETWORK_NAME", "NETWORK_SUBNET", "NETWORK_SUBNET6", "NETWORK_TAGS"]
        .iter()
        .any(|name| get(name).is_some());
    if !in_network {
        (nic.ipv4, nic.ipv6) = default(&settings.default_nic_config);
        return Ok(nic);
    }
    let tags = get("NETWORK_TAGS").unwrap_or_default();
    let tagged = |wanted: &str| {
        let separator = |c: char| c.is_whitespace() || c == ',';
        tags.split(separator)
            .any(|tag| !tag.is_empty() && wanted.split(separator).any(|w| w == tag))
    };
    if tagged(&settings.dhcp_tags) {
        nic.ipv4 = Ipv4::Dhcp;
    } else if let (Some(ip), Some(subnet)) = (get("IP"), get("NETWORK_SUBNET")) {
        let prefix = subnet
            .split_once('/')
            .filter(|(network, _)| network.parse::<Ipv4Addr>().is_ok())
            .and_then(|(_, prefix)| prefix.parse().ok())
            .filter(|prefix| *prefix <= 32);
        let gateway = match get("NETWORK_GATEWAY") {
            Some(text) => {
                Some(text.parse().map_err(|_| wrong("NETWORK_GATEWAY", text, "an IPv4 address"))?)
            }
            None => None,
        };
        nic.ipv4 = Ipv4::Static {
            address: ip.parse().map_err(|_| wrong("IP", ip, "an IPv4 address"))?,
            prefix: prefix
                .ok_or_else(|| wrong("NETWORK_SUBNET", subnet, "an IPv4 subnet (192.0.2.0/24)"))?,
            gateway,
        };
    }
    if tagged(&settings.stateful_dhcpv6_tags) {
        nic.ipv6 = Ipv6::Dhcp;
    } else if tagged(&settings.stateless_dhcpv6_tags) {
        nic.ipv6 = Ipv6::SlaacDhcp;
    } else if let Some(subnet) = get("NETWORK_SUBNET6") {
        let valid = subnet.split_once('/').is_some_and(|(network, prefix)| {
            network.parse::<Ipv6Addr>().is_ok() && prefix.parse::<u8>().is_ok_and(|p| p <= 128)
        });
        if !valid {
            return Err(wrong("NETWORK_SUBNET6", subnet, "an IPv6 subnet (2001:db8::/64)"));
        }
        nic.ipv6 = Ipv6::Slaac;
    }
    Ok(nic)
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
        }
    }

    fn one(fields: &[(&str, &str)]) -> Result<Nic, String> {
        let mut variables: BTreeMap<String, String> =
            fields.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        variables.entry("MAC".into()).or_insert("aa:00:00:00:00:01".into());
        nics(&BTreeMap::from([(0, variables)]), &settings())
            .map(|nics| nics[0])
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
        assert_eq!(default(""), (Ipv4::None, Ipv6::None));
        assert_eq!(default("slaac_dhcp"), (Ipv4::None, Ipv6::SlaacDhcp));
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
