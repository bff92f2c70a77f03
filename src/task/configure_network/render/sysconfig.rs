//! The `ifcfg` files of Red Hat and of SUSE.

use super::{HEADER, Interface, eth, joined};
use crate::ask::network::{Ipv4, Ipv6};

/// An `ifcfg` file of Red Hat. With both names the rule of udev gives the device this name.
pub(in crate::task::configure_network) fn red_hat(
    Interface { nic, metric }: Interface<'_>,
) -> String {
    let mut out = format!(
        "{HEADER}DEVICE={}\nHWADDR={}\nTYPE=Ethernet\nONBOOT=yes\n",
        eth(nic),
        nic.mac.to_string().to_uppercase()
    );
    match nic.ipv4 {
        Ipv4::None => out.push_str("BOOTPROTO=none\n"),
        Ipv4::Dhcp => out.push_str("BOOTPROTO=dhcp\n"),
        Ipv4::Static { address, prefix, .. } => {
            out.push_str(&format!("BOOTPROTO=none\nIPADDR={address}\nPREFIX={prefix}\n"));
        }
    }
    // The way to a gateway outside of the network is in the file of routes.
    if let Some((gateway, false)) = nic.gateway4() {
        out.push_str(&format!("GATEWAY={gateway}\n"));
    }
    if let Some(metric) = metric {
        out.push_str(&format!("METRIC={metric}\nIPV4_ROUTE_METRIC={metric}\n"));
        out.push_str(&format!("IPV6_ROUTE_METRIC={metric}\n"));
    }
    let (init, autoconf, dhcp) = match nic.ipv6 {
        Ipv6::None => ("no", "no", "no"),
        Ipv6::Static { .. } => ("yes", "no", "no"),
        Ipv6::Slaac => ("yes", "yes", "no"),
        Ipv6::SlaacDhcp => ("yes", "yes", "yes"),
        Ipv6::Dhcp => ("yes", "no", "yes"),
    };
    out.push_str(&format!("IPV6INIT={init}\nIPV6_AUTOCONF={autoconf}\nDHCPV6C={dhcp}\n"));
    match nic.ipv6 {
        Ipv6::SlaacDhcp => out.push_str("DHCPV6C_OPTIONS=-S\n"),
        // The address comes by DHCPv6, the way out from the routers.
        Ipv6::Dhcp => out.push_str("IPV6_ACCEPT_RA=yes\n"),
        Ipv6::Static { address, prefix, gateway } => {
            out.push_str(&format!("IPV6ADDR={address}/{prefix}\n"));
            if let Some(gateway) = gateway {
                // A link-local one needs its interface.
                let scope = if gateway.is_unicast_link_local() {
                    format!("%{}", eth(nic))
                } else {
                    String::new()
                };
                out.push_str(&format!("IPV6_DEFAULTGW={gateway}{scope}\n"));
            }
        }
        Ipv6::None | Ipv6::Slaac => {}
    }
    for (number, server) in nic.dns.iter().enumerate() {
        out.push_str(&format!("DNS{}={server}\n", number + 1));
    }
    if let Some(mtu) = nic.mtu {
        out.push_str(&format!("MTU={mtu}\n"));
    }
    out
}

/// Red Hat's file of routes: needed for a gateway outside of the network only.
pub(in crate::task::configure_network) fn red_hat_routes(
    Interface { nic, metric }: Interface<'_>,
) -> String {
    match nic.gateway4() {
        Some((gateway, true)) => {
            let metric = metric.map(|metric| format!(" metric {metric}")).unwrap_or_default();
            let name = eth(nic);
            format!("{HEADER}{gateway} dev {name}\ndefault via {gateway} dev {name}{metric}\n")
        }
        _ => String::new(),
    }
}

/// An `ifcfg` file of wicked.
pub(in crate::task::configure_network) fn wicked(Interface { nic, .. }: Interface<'_>) -> String {
    let mut out = format!("{HEADER}STARTMODE='auto'\n");
    let is_static =
        matches!(nic.ipv4, Ipv4::Static { .. }) || matches!(nic.ipv6, Ipv6::Static { .. });
    let dhcp6 = matches!(nic.ipv6, Ipv6::Dhcp | Ipv6::SlaacDhcp);
    let dhcp = match (nic.ipv4 == Ipv4::Dhcp, dhcp6) {
        (true, true) => "dhcp",
        (true, false) => "dhcp4",
        (false, true) => "dhcp6",
        (false, false) => "",
    };
    let method = match (dhcp, is_static) {
        ("", true) => "static".to_owned(),
        ("", false) => "none".to_owned(),
        (dhcp, true) => format!("{dhcp}+static"),
        (dhcp, false) => dhcp.to_owned(),
    };
    out.push_str(&format!("BOOTPROTO='{method}'\n"));
    if let Ipv4::Static { address, prefix, .. } = nic.ipv4 {
        out.push_str(&format!("IPADDR='{address}/{prefix}'\n"));
    }
    if let Ipv6::Static { address, prefix, .. } = nic.ipv6 {
        out.push_str(&format!("IPADDR_6='{address}/{prefix}'\n"));
    }
    if nic.ipv6 == Ipv6::SlaacDhcp {
        out.push_str("DHCLIENT6_MODE='info'\n");
    }
    if let Some(mtu) = nic.mtu {
        out.push_str(&format!("MTU='{mtu}'\n"));
    }
    out
}

/// wicked keeps routes in a file of their own.
pub(in crate::task::configure_network) fn wicked_routes(
    Interface { nic, metric }: Interface<'_>,
) -> String {
    let name = eth(nic);
    let metric = metric.map(|metric| format!(" metric {metric}")).unwrap_or_default();
    let gateways = [
        nic.gateway4().map(|(gateway, outside)| ("default", gateway.to_string(), outside, "/32")),
        nic.gateway6().map(|(gateway, outside)| ("::/0", gateway.to_string(), outside, "/128")),
    ];
    let mut out = String::new();
    for (to, gateway, outside, host) in gateways.into_iter().flatten() {
        if outside {
            out.push_str(&format!("{gateway}{host} - - {name}\n"));
        }
        out.push_str(&format!("{to} {gateway} - {name}{metric}\n"));
    }
    if out.is_empty() { out } else { format!("{HEADER}{out}") }
}

/// The name servers in SUSE's `/etc/sysconfig/network/config`.
pub(in crate::task::configure_network) fn wicked_config(
    old: &str,
    interfaces: &[Interface<'_>],
) -> String {
    let mut servers = Vec::new();
    for server in interfaces.iter().flat_map(|interface| &interface.nic.dns) {
        if !servers.contains(server) {
            servers.push(*server);
        }
    }
    const KEY: &str = "NETCONFIG_DNS_STATIC_SERVERS=";
    let line = format!("{KEY}\"{}\"", joined(&servers, " "));
    let mut found = false;
    let mut lines: Vec<&str> = Vec::new();
    for old in old.lines() {
        let is_ours = old.trim_start().starts_with(KEY);
        found |= is_ours;
        lines.push(if is_ours { &line } else { old });
    }
    if !found {
        lines.push(&line);
    }
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::super::examples::{dhcp, fixed};
    use super::super::interfaces;
    use super::*;

    #[test]
    fn both() {
        let nics = [fixed(24, "192.0.2.1"), dhcp()];
        let all = interfaces(&nics);
        assert_eq!(
            red_hat(all[0]),
            "# Written by snf-image.\n\
             DEVICE=eth0\nHWADDR=AA:00:00:00:00:01\nTYPE=Ethernet\nONBOOT=yes\nBOOTPROTO=none\n\
             IPADDR=192.0.2.10\nPREFIX=24\nGATEWAY=192.0.2.1\nMETRIC=100\nIPV4_ROUTE_METRIC=100\n\
             IPV6_ROUTE_METRIC=100\nIPV6INIT=yes\nIPV6_AUTOCONF=no\nDHCPV6C=no\n\
             IPV6ADDR=2001:db8::5/64\nIPV6_DEFAULTGW=fe80::1%eth0\nDNS1=192.0.2.53\n\
             DNS2=2001:db8::53\nMTU=1400\n"
        );
        assert_eq!(red_hat_routes(all[0]), "");
        assert!(wicked(all[1]).contains("BOOTPROTO='dhcp4'\n"));
        assert!(wicked(all[0]).ends_with("IPADDR_6='2001:db8::5/64'\nMTU='1400'\n"));
        assert!(
            wicked_routes(all[0])
                .ends_with("default 192.0.2.1 - eth0 metric 100\n::/0 fe80::1 - eth0 metric 100\n")
        );
        let far = [fixed(32, "198.51.100.1")];
        let far = interfaces(&far);
        assert!(!red_hat(far[0]).contains("GATEWAY=198"));
        assert!(
            red_hat_routes(far[0])
                .ends_with("198.51.100.1 dev eth0\ndefault via 198.51.100.1 dev eth0\n")
        );
        assert!(wicked_routes(far[0]).contains("198.51.100.1/32 - - eth0\ndefault 198.51.100.1 -"));
        let old = "A=1\nNETCONFIG_DNS_STATIC_SERVERS=\"\"\nB=2\n";
        assert_eq!(
            wicked_config(old, &all),
            "A=1\nNETCONFIG_DNS_STATIC_SERVERS=\"192.0.2.53 2001:db8::53\"\nB=2\n"
        );
    }
}
