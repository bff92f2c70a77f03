//! The network of systems with scripts of their own: netifrc, netctl, Slackware, dhcpcd, OpenWrt.

use super::{HEADER, Interface, joined, netmask};
use crate::ask::network::{Ipv4, Ipv6};

/// The name that our rule of udev gives a card. (A name of the kernel's own, such as eth0, may be
/// taken at the moment of renaming.)
pub(in crate::task::configure_network) fn name(interface: &Interface<'_>) -> String {
    format!("nic{}", interface.nic.index)
}

/// A rule of udev that names the cards by their hardware addresses. Bridges and VLANs have the
/// address of a card, too, but no driver.
pub(in crate::task::configure_network) fn udev_rules(interfaces: &[Interface<'_>]) -> String {
    let rule = |interface: &Interface<'_>| {
        format!(
            "SUBSYSTEM==\"net\", ACTION==\"add\", DRIVERS==\"?*\", ATTR{{address}}==\"{}\", \
             NAME=\"{}\"\n",
            interface.nic.mac,
            name(interface)
        )
    };
    format!("{HEADER}{}", interfaces.iter().map(rule).collect::<String>())
}

const BEGIN: &str = "# Begin of the lines of snf-image";
const END: &str = "# End of the lines of snf-image";

/// A file with our lines at its end, in place of those of an earlier run.
pub(in crate::task::configure_network) fn with_lines(old: &str, ours: &str) -> String {
    let mut out = String::new();
    let mut inside = false;
    for line in old.lines() {
        inside |= line == BEGIN;
        if !inside {
            out.push_str(&format!("{line}\n"));
        }
        inside &= line != END;
    }
    format!("{out}{BEGIN}\n{ours}{END}\n")
}

/// Addresses with their prefixes, IPv4 first.
fn addresses(interface: &Interface<'_>) -> Vec<String> {
    let mut out = Vec::new();
    if let Ipv4::Static { address, prefix, .. } = interface.nic.ipv4 {
        out.push(format!("{address}/{prefix}"));
    }
    if let Ipv6::Static { address, prefix, .. } = interface.nic.ipv6 {
        out.push(format!("{address}/{prefix}"));
    }
    out
}

/// Default routes in the words of ip(8), with the way to a gateway outside of the network.
fn routes(interface: &Interface<'_>) -> Vec<String> {
    let metric = interface.metric.map(|metric| format!(" metric {metric}")).unwrap_or_default();
    let mut out = Vec::new();
    let gateways = [
        interface.nic.gateway4().map(|(gateway, outside)| (gateway.to_string(), outside, "32")),
        interface.nic.gateway6().map(|(gateway, outside)| (gateway.to_string(), outside, "128")),
    ];
    for (gateway, outside, host) in gateways.into_iter().flatten() {
        if outside {
            out.push(format!("{gateway}/{host} scope link"));
        }
        out.push(format!("default via {gateway}{metric}"));
    }
    out
}

/// Gentoo's `/etc/conf.d/net`: the lines of one interface.
pub(in crate::task::configure_network) fn netifrc(interface: &Interface<'_>) -> String {
    let (name, nic) = (name(interface), interface.nic);
    let mut config = addresses(interface);
    if nic.ipv4 == Ipv4::Dhcp {
        config.insert(0, "dhcp".into());
    }
    if matches!(nic.ipv6, Ipv6::Dhcp | Ipv6::SlaacDhcp) {
        config.push("dhcpv6".into());
    }
    if config.is_empty() {
        config.push("null".into());
    }
    let mut out = format!("config_{name}=\"{}\"\n", config.join("\n"));
    let routes = routes(interface);
    if !routes.is_empty() {
        out.push_str(&format!("routes_{name}=\"{}\"\n", routes.join("\n")));
    }
    if let Some(metric) = interface.metric {
        out.push_str(&format!("metric_{name}=\"{metric}\"\n"));
    }
    if !nic.dns.is_empty() {
        out.push_str(&format!("dns_servers_{name}=\"{}\"\n", joined(&nic.dns, " ")));
    }
    if let Some(mtu) = nic.mtu {
        out.push_str(&format!("mtu_{name}=\"{mtu}\"\n"));
    }
    out
}

/// A profile of Arch's netctl.
pub(in crate::task::configure_network) fn netctl(interface: &Interface<'_>) -> String {
    let (name, nic) = (name(interface), interface.nic);
    let mut out = format!(
        "{HEADER}Description='Interface {} of the instance'\nInterface={name}\n\
         Connection=ethernet\n",
        nic.index
    );
    match nic.ipv4 {
        Ipv4::None => out.push_str("IP=no\n"),
        Ipv4::Dhcp => out.push_str("IP=dhcp\n"),
        Ipv4::Static { address, prefix, .. } => {
            out.push_str(&format!("IP=static\nAddress=('{address}/{prefix}')\n"));
        }
    }
    match nic.ipv6 {
        Ipv6::None => out.push_str("IP6=no\n"),
        Ipv6::Slaac => out.push_str("IP6=stateless\n"),
        Ipv6::SlaacDhcp => out.push_str("IP6=dhcp-noaddr\n"),
        Ipv6::Dhcp => out.push_str("IP6=dhcp\n"),
        Ipv6::Static { address, prefix, .. } => {
            out.push_str(&format!("IP6=static\nAddress6=('{address}/{prefix}')\n"));
        }
    }
    let (v6, v4): (Vec<String>, Vec<String>) =
        routes(interface).into_iter().partition(|route| route.contains("::"));
    for (key, routes) in [("Routes", v4), ("Routes6", v6)] {
        if !routes.is_empty() {
            let quoted: Vec<String> = routes.iter().map(|route| format!("'{route}'")).collect();
            out.push_str(&format!("{key}=({})\n", quoted.join(" ")));
        }
    }
    if !nic.dns.is_empty() {
        out.push_str(&format!("DNS=('{}')\n", joined(&nic.dns, "' '")));
    }
    if let Some(mtu) = nic.mtu {
        out.push_str(&format!("ExecUpPost='ip link set dev {name} mtu {mtu}'\n"));
    }
    out
}

/// Slackware's `/etc/rc.d/rc.inet1.conf`: assignments, the later ones stronger.
pub(in crate::task::configure_network) fn slackware(interfaces: &[Interface<'_>]) -> String {
    let mut out = String::new();
    let mut gateway = String::new();
    for (index, interface) in interfaces.iter().enumerate() {
        let nic = interface.nic;
        out.push_str(&format!("IFNAME[{index}]=\"{}\"\n", name(interface)));
        let (mut address, mut mask) = (String::new(), String::new());
        if let Ipv4::Static { address: a, prefix, gateway: g } = nic.ipv4 {
            (address, mask) = (a.to_string(), netmask(prefix));
            gateway = if gateway.is_empty() {
                g.map(|g| g.to_string()).unwrap_or_default()
            } else {
                gateway
            };
        }
        let yes = |on: bool| if on { "yes" } else { "" };
        out.push_str(&format!(
            "IPADDR[{index}]=\"{address}\"\nNETMASK[{index}]=\"{mask}\"\nUSE_DHCP[{index}]=\"{}\"\n",
            yes(nic.ipv4 == Ipv4::Dhcp)
        ));
        let v6 = match nic.ipv6 {
            Ipv6::Static { address, prefix, .. } => format!("{address}/{prefix}"),
            _ => String::new(),
        };
        out.push_str(&format!(
            "IP6ADDRS[{index}]=\"{v6}\"\nUSE_SLAAC[{index}]=\"{}\"\nUSE_DHCP6[{index}]=\"{}\"\n",
            yes(matches!(nic.ipv6, Ipv6::Slaac | Ipv6::SlaacDhcp)),
            yes(nic.ipv6 == Ipv6::Dhcp)
        ));
        if let Some(mtu) = nic.mtu {
            out.push_str(&format!("MTU[{index}]=\"{mtu}\"\n"));
        }
    }
    out.push_str(&format!("GATEWAY=\"{gateway}\"\n"));
    let gateway6 = interfaces.iter().find_map(|interface| interface.nic.gateway6());
    if let Some((gateway, _)) = gateway6 {
        out.push_str(&format!("GATEWAY6=\"{gateway}\"\n"));
    }
    out
}

/// dhcpcd's `/etc/dhcpcd.conf`: the lines of one interface.
pub(in crate::task::configure_network) fn dhcpcd(interface: &Interface<'_>) -> String {
    let nic = interface.nic;
    let mut out = format!("interface {}\n", name(interface));
    match nic.ipv4 {
        Ipv4::None => out.push_str("noipv4\n"),
        Ipv4::Dhcp => {}
        Ipv4::Static { address, prefix, gateway } => {
            out.push_str(&format!("static ip_address={address}/{prefix}\n"));
            if let Some(gateway) = gateway {
                out.push_str(&format!("static routers={gateway}\n"));
            }
        }
    }
    match nic.ipv6 {
        Ipv6::None => out.push_str("noipv6\n"),
        Ipv6::Slaac => out.push_str("nodhcp6\n"),
        Ipv6::SlaacDhcp => out.push_str("inform6\n"),
        Ipv6::Dhcp => {}
        Ipv6::Static { address, prefix, gateway } => {
            out.push_str(&format!("noipv6rs\nnodhcp6\nstatic ip6_address={address}/{prefix}\n"));
            if let Some(gateway) = gateway {
                out.push_str(&format!("static ip6_routers={gateway}\n"));
            }
        }
    }
    if let Some(metric) = interface.metric {
        out.push_str(&format!("metric {metric}\n"));
    }
    if !nic.dns.is_empty() {
        out.push_str(&format!("static domain_name_servers={}\n", joined(&nic.dns, " ")));
    }
    if let Some(mtu) = nic.mtu {
        out.push_str(&format!("static interface_mtu={mtu}\n"));
    }
    out
}

/// OpenWrt's `/etc/config/network`. The first interface is `lan`, which its firewall lets in, the
/// second `wan`. A section that is there keeps its device (a bridge, as a rule); all else of it is ours.
pub(in crate::task::configure_network) fn openwrt(
    old: &str,
    interfaces: &[Interface<'_>],
) -> String {
    let mut sections: Vec<String> = Vec::new();
    for line in old.lines().chain(["config end"]) {
        match sections.last_mut() {
            Some(last) if !line.trim_start().starts_with("config ") => {
                last.push_str(&format!("{line}\n"));
            }
            _ => sections.push(format!("{line}\n")),
        }
    }
    sections.pop();
    for (number, interface) in interfaces.iter().enumerate() {
        let name = match number {
            0 => "lan".to_owned(),
            1 => "wan".to_owned(),
            _ => format!("nic{}", interface.nic.index),
        };
        let is_ours = |section: &String| {
            let words: Vec<&str> = section.split_whitespace().take(3).collect();
            words.first() == Some(&"config")
                && words.get(1).map(|w| w.trim_matches(['\'', '"'])) == Some("interface")
                && words.get(2).map(|w| w.trim_matches(['\'', '"'])) == Some(name.as_str())
        };
        let found = sections.iter().position(is_ours);
        let kept: String = found
            .map(|at| {
                let lines = sections[at].lines().skip(1);
                let device = |line: &&str| {
                    matches!(line.split_whitespace().nth(1), Some("device" | "ifname" | "type"))
                };
                lines.filter(device).map(|line| format!("{line}\n")).collect()
            })
            .unwrap_or_default();
        let text = openwrt_section(&name, &kept, interface);
        match found {
            Some(at) => sections[at] = text,
            None => sections.push(text),
        }
        // Its DHCPv6 client would be a second owner of the card.
        sections.retain(|section| !(number == 1 && section.contains("interface 'wan6'")));
    }
    sections.concat()
}

fn openwrt_section(name: &str, kept: &str, interface: &Interface<'_>) -> String {
    let nic = interface.nic;
    let mut out = format!("config interface '{name}'\n");
    if kept.is_empty() {
        out.push_str(&format!("\toption device 'eth{0}'\n\toption ifname 'eth{0}'\n", nic.index));
    }
    out.push_str(kept);
    match nic.ipv4 {
        Ipv4::Dhcp => out.push_str("\toption proto 'dhcp'\n"),
        Ipv4::None if !matches!(nic.ipv6, Ipv6::Static { .. }) => {
            out.push_str("\toption proto 'dhcpv6'\n");
        }
        _ => out.push_str("\toption proto 'static'\n"),
    }
    if let Ipv4::Static { address, prefix, gateway } = nic.ipv4 {
        out.push_str(&format!(
            "\toption ipaddr '{address}'\n\toption netmask '{}'\n",
            netmask(prefix)
        ));
        if let Some(gateway) = gateway {
            out.push_str(&format!("\toption gateway '{gateway}'\n"));
        }
    }
    if let Ipv6::Static { address, prefix, gateway } = nic.ipv6 {
        out.push_str(&format!("\toption ip6addr '{address}/{prefix}'\n"));
        if let Some(gateway) = gateway {
            out.push_str(&format!("\toption ip6gw '{gateway}'\n"));
        }
    }
    for server in &nic.dns {
        out.push_str(&format!("\tlist dns '{server}'\n"));
    }
    if let Some(metric) = interface.metric {
        out.push_str(&format!("\toption metric '{metric}'\n"));
    }
    if let Some(mtu) = nic.mtu {
        out.push_str(&format!("\toption mtu '{mtu}'\n"));
    }
    out.push('\n');
    out
}

#[cfg(test)]
mod tests {
    use super::super::examples::{dhcp, fixed};
    use super::super::interfaces;
    use super::*;

    #[test]
    fn each_in_its_words() {
        let nics = [fixed(32, "198.51.100.1"), dhcp()];
        let all = interfaces(&nics);
        assert!(udev_rules(&all).contains("ATTR{address}==\"aa:00:00:00:00:02\", NAME=\"nic1\"\n"));
        let text = netifrc(&all[0]);
        assert!(text.starts_with("config_nic0=\"192.0.2.10/32\n2001:db8::5/64\"\n"), "{text}");
        assert!(text.contains("198.51.100.1/32 scope link\ndefault via 198.51.100.1 metric 100\n"));
        assert!(netifrc(&all[1]).starts_with("config_nic1=\"dhcp\"\nmetric_nic1=\"200\"\n"));
        let text = netctl(&all[0]);
        assert!(text.contains("IP=static\nAddress=('192.0.2.10/32')\n"), "{text}");
        assert!(text.contains("Routes6=('default via fe80::1 metric 100')\n"), "{text}");
        assert!(text.contains("DNS=('192.0.2.53' '2001:db8::53')\n"), "{text}");
        let text = slackware(&all);
        assert!(text.contains("IPADDR[0]=\"192.0.2.10\"\nNETMASK[0]=\"255.255.255.255\"\n"));
        assert!(
            text.contains("USE_DHCP[1]=\"yes\"\n") && text.contains("GATEWAY=\"198.51.100.1\"\n")
        );
        let text = dhcpcd(&all[0]);
        assert!(text.contains("static routers=198.51.100.1\n"), "{text}");
        assert!(dhcpcd(&all[1]).contains("noipv6\nmetric 200\n"));
    }

    #[test]
    fn lines_at_the_end_of_a_file() {
        let once = with_lines("a=1\n", "b=2\n");
        assert_eq!(once.lines().count(), 4);
        assert_eq!(with_lines(&once, "b=2\n"), once);
        assert!(!with_lines(&once, "c=3\n").contains("b=2"));
    }

    #[test]
    fn a_router() {
        let old = "config interface 'loopback'\n\toption device 'lo'\n\n\
            config device\n\toption name 'br-lan'\n\n\
            config interface 'lan'\n\toption device 'br-lan'\n\toption proto 'static'\n\
            \toption ipaddr '192.168.1.1'\n\toption ip6assign '60'\n\n\
            config interface 'wan6'\n\toption proto 'dhcpv6'\n";
        let nics = [fixed(24, "192.0.2.1"), dhcp()];
        let text = openwrt(old, &interfaces(&nics));
        assert!(text.contains(
            "config interface 'lan'\n\toption device 'br-lan'\n\toption proto 'static'\n\
             \toption ipaddr '192.0.2.10'\n"
        ));
        assert!(!text.contains("192.168.1.1") && !text.contains("wan6"), "{text}");
        assert!(text.contains("config interface 'wan'\n\toption device 'eth1'\n"), "{text}");
        assert!(
            text.starts_with("config interface 'loopback'\n\toption device 'lo'\n\nconfig device")
        );
        assert_eq!(openwrt(&text, &interfaces(&nics)), text);
    }
}
