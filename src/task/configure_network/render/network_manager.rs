//! A keyfile of NetworkManager.

use std::net::IpAddr;

use super::{HEADER, Interface, joined};
use crate::ask::network::{Ipv4, Ipv6};

/// A UUID in its usual form.
pub(in crate::task::configure_network) fn uuid(bytes: &[u8; 16]) -> String {
    uuid::Uuid::from_bytes(*bytes).to_string()
}

/// The UUID of a keyfile, if it has one.
pub(in crate::task::configure_network) fn uuid_of(text: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(text);
    let value = text.lines().find_map(|line| line.trim().strip_prefix("uuid="))?.trim();
    let valid = value.len() == 36 && value.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    valid.then(|| value.to_owned())
}

/// The keyfile. Its priority is the highest that there is: it wins over the image's own
/// connections.
pub(in crate::task::configure_network) fn network_manager(
    Interface { nic, metric }: Interface<'_>,
    uuid: &str,
) -> String {
    let mut out = format!(
        "{HEADER}[connection]\nid=snf-image-nic{}\nuuid={uuid}\ntype=ethernet\n\
         autoconnect-priority=999\n\n[ethernet]\nmac-address={}\n",
        nic.index,
        nic.mac.to_string().to_uppercase()
    );
    if let Some(mtu) = nic.mtu {
        out.push_str(&format!("mtu={mtu}\n"));
    }
    let (v4, v6): (Vec<IpAddr>, Vec<IpAddr>) = nic.dns.iter().partition(|dns| dns.is_ipv4());
    let common = |servers: &[IpAddr]| {
        let mut out = String::new();
        if !servers.is_empty() {
            out.push_str(&format!("dns={};\n", joined(servers, ";")));
        }
        if let Some(metric) = metric {
            out.push_str(&format!("route-metric={metric}\n"));
        }
        out
    };
    out.push_str("\n[ipv4]\n");
    match nic.ipv4 {
        Ipv4::None => out.push_str("method=disabled\n"),
        Ipv4::Dhcp => out.push_str("method=auto\n"),
        Ipv4::Static { address, prefix, gateway } => {
            let gateway = gateway.map(|gateway| format!(",{gateway}")).unwrap_or_default();
            out.push_str(&format!("method=manual\naddress1={address}/{prefix}{gateway}\n"));
        }
    }
    if nic.ipv4 != Ipv4::None {
        out.push_str(&common(&v4));
    }
    out.push_str("\n[ipv6]\n");
    match nic.ipv6 {
        // "disabled" came with version 1.20; older ones would refuse the whole file.
        Ipv6::None => out.push_str("method=link-local\n"),
        // This one takes the route from the routers, and DHCPv6 where they say so. The method
        // "dhcp" would ignore the routers, and with them the route.
        Ipv6::Slaac | Ipv6::SlaacDhcp | Ipv6::Dhcp => out.push_str("method=auto\n"),
        Ipv6::Static { address, prefix, gateway } => {
            let gateway = gateway.map(|gateway| format!(",{gateway}")).unwrap_or_default();
            out.push_str(&format!("method=manual\naddress1={address}/{prefix}{gateway}\n"));
        }
    }
    if nic.ipv6 != Ipv6::None {
        out.push_str(&common(&v6));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::examples::{dhcp, fixed};
    use super::super::interfaces;
    use super::*;

    #[test]
    fn every_part() {
        let nics = [fixed(32, "198.51.100.1"), dhcp()];
        let interfaces = interfaces(&nics);
        let text = network_manager(interfaces[0], &uuid(&[0x11; 16]));
        assert_eq!(
            text,
            "# Written by snf-image.\n\
             [connection]\nid=snf-image-nic0\nuuid=11111111-1111-1111-1111-111111111111\n\
             type=ethernet\nautoconnect-priority=999\n\n\
             [ethernet]\nmac-address=AA:00:00:00:00:01\nmtu=1400\n\n\
             [ipv4]\nmethod=manual\naddress1=192.0.2.10/32,198.51.100.1\ndns=192.0.2.53;\n\
             route-metric=100\n\n\
             [ipv6]\nmethod=manual\naddress1=2001:db8::5/64,fe80::1\ndns=2001:db8::53;\n\
             route-metric=100\n"
        );
        assert_eq!(
            uuid_of(text.as_bytes()).as_deref(),
            Some("11111111-1111-1111-1111-111111111111")
        );
        let text = network_manager(interfaces[1], "x");
        assert!(
            text.contains("[ipv4]\nmethod=auto\nroute-metric=200\n\n[ipv6]\nmethod=link-local\n")
        );
    }
}
