//! A `.network` file of systemd-networkd.

use super::{HEADER, Interface};
use crate::ask::network::{Ipv4, Ipv6};

/// `permanent` says whether this networkd (from version 245 on) knows the address that the hardware
/// has. Bridges and VLANs may have the same address, but not from the hardware; on an older one
/// the type keeps them apart.
pub(in crate::task::configure_network) fn networkd(
    Interface { nic, metric }: Interface<'_>,
    permanent: bool,
) -> String {
    let mut out = format!("{HEADER}[Match]\n");
    match permanent {
        true => out.push_str(&format!("PermanentMACAddress={}\n", nic.mac)),
        false => out.push_str(&format!("MACAddress={}\nType=ether\n", nic.mac)),
    }
    if let Some(mtu) = nic.mtu {
        out.push_str(&format!("\n[Link]\nMTUBytes={mtu}\n"));
    }
    let dhcp = match (nic.ipv4, nic.ipv6) {
        (Ipv4::Dhcp, Ipv6::Dhcp) => "yes",
        (Ipv4::Dhcp, _) => "ipv4",
        (_, Ipv6::Dhcp) => "ipv6",
        _ => "no",
    };
    out.push_str(&format!("\n[Network]\nDHCP={dhcp}\n"));
    if let Ipv4::Static { address, prefix, .. } = nic.ipv4 {
        out.push_str(&format!("Address={address}/{prefix}\n"));
    }
    if let Ipv6::Static { address, prefix, .. } = nic.ipv6 {
        out.push_str(&format!("Address={address}/{prefix}\n"));
    }
    for server in &nic.dns {
        out.push_str(&format!("DNS={server}\n"));
    }
    match nic.ipv6 {
        Ipv6::None | Ipv6::Static { .. } => out.push_str("IPv6AcceptRA=no\n"),
        Ipv6::SlaacDhcp | Ipv6::Dhcp => {
            out.push_str("IPv6AcceptRA=yes\n\n[IPv6AcceptRA]\nDHCPv6Client=always\n");
        }
        Ipv6::Slaac => out.push_str("IPv6AcceptRA=yes\n"),
    }
    let gateways = [
        nic.gateway4().map(|(gateway, outside)| (gateway.to_string(), outside)),
        nic.gateway6().map(|(gateway, outside)| (gateway.to_string(), outside)),
    ];
    for (gateway, outside) in gateways.into_iter().flatten() {
        out.push_str(&format!("\n[Route]\nGateway={gateway}\n"));
        if outside {
            out.push_str("GatewayOnLink=yes\n");
        }
        if let Some(metric) = metric {
            out.push_str(&format!("Metric={metric}\n"));
        }
    }
    if let Some(metric) = metric.filter(|_| nic.ipv4 == Ipv4::Dhcp) {
        out.push_str(&format!("\n[DHCPv4]\nRouteMetric={metric}\n"));
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
        let text = networkd(interfaces[0], true);
        assert_eq!(
            text,
            "# Written by snf-image.\n\
             [Match]\nPermanentMACAddress=aa:00:00:00:00:01\n\n[Link]\nMTUBytes=1400\n\n\
             [Network]\nDHCP=no\nAddress=192.0.2.10/32\nAddress=2001:db8::5/64\n\
             DNS=192.0.2.53\nDNS=2001:db8::53\nIPv6AcceptRA=no\n\n\
             [Route]\nGateway=198.51.100.1\nGatewayOnLink=yes\nMetric=100\n\n\
             [Route]\nGateway=fe80::1\nMetric=100\n"
        );
        let text = networkd(interfaces[1], false);
        assert!(text.contains("MACAddress=aa:00:00:00:00:02\nType=ether\n"));
        assert!(text.ends_with("[DHCPv4]\nRouteMetric=200\n"), "{text}");
    }
}
