//! `/etc/network/interfaces`, for ifupdown, ifupdown-ng and BusyBox.

use std::collections::BTreeSet;

use super::{HEADER, Interface, eth, interfaces, joined, netmask};
use crate::ask::network::{Ipv4, Ipv6, Nic};

/// The program that reads the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::task::configure_network) enum Reader {
    /// Debian's ifupdown from version 0.8 on, which can match hardware addresses.
    Debian,
    /// An older one, or ifupdown-ng: interfaces go by their names.
    ByName,
    /// BusyBox: it takes no length of a prefix, and no method `auto` or `dhcp` for IPv6.
    BusyBox,
}

/// The file as it is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::task::configure_network) struct Edited {
    pub(in crate::task::configure_network) text: String,
    /// Network cards whose own settings were left out.
    pub(in crate::task::configure_network) left_out: BTreeSet<String>,
}

/// The instance's interfaces, after what the old file says of others: loopback, bridges, tunnels, files
/// that it takes in.
pub(in crate::task::configure_network) fn file(nics: &[Nic], reader: Reader, old: &str) -> Edited {
    let Edited { text: kept, left_out } = without_cards(old);
    let mut text = HEADER.to_owned();
    text.push_str(&kept);
    if !kept.lines().any(|line| line.trim_start().starts_with("iface lo ")) {
        let gap = if kept.is_empty() { "" } else { "\n" };
        text.push_str(&format!("{gap}auto lo\niface lo inet loopback\n"));
    }
    for interface in interfaces(nics) {
        text.push_str(&stanzas(interface, reader));
    }
    Edited { text, left_out }
}

/// Whether an interface is a network card of the instance, by its name: what the kernel and udev
/// call cards, and our own names.
fn is_card(name: &str) -> bool {
    let name = name.strip_prefix('/').unwrap_or(name);
    if name.starts_with("mac/") || name.starts_with("snf-nic") {
        return true;
    }
    // An alias is its card's; a VLAN is an interface of its own.
    let name = name.split(':').next().unwrap_or(name);
    if name.contains('.') {
        return false;
    }
    let rest = ["eth", "eno", "ens", "enp", "enx", "enP", "en*", "e*"]
        .into_iter()
        .find_map(|prefix| name.strip_prefix(prefix));
    rest.is_some_and(|rest| rest.chars().all(|c| c.is_ascii_alphanumeric() || "*?[]-".contains(c)))
}

/// A text without what it says of the instance's network cards.
pub(in crate::task::configure_network) fn without_cards(old: &str) -> Edited {
    let mut out = String::new();
    let mut left_out = BTreeSet::new();
    let mut comments = String::new();
    let (mut skipping, mut gap) = (false, false);
    for line in old.lines().filter(|line| *line != HEADER.trim_end()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let Some(keyword) = words.first() else {
            gap = true;
            continue;
        };
        let separator = if gap && !out.is_empty() { "\n" } else { "" };
        if keyword.starts_with('#') {
            // Goes with the lines below it.
            if comments.is_empty() {
                comments.push_str(separator);
            }
            comments.push_str(&format!("{line}\n"));
            gap = false;
            continue;
        }
        let lists = matches!(*keyword, "auto" | "no-auto-down" | "no-scripts")
            || keyword.starts_with("allow-");
        let begins = lists
            || matches!(
                *keyword,
                "iface" | "mapping" | "source" | "source-directory" | "rename" | "template"
            );
        let mut kept = line.to_owned();
        if lists {
            let (cards, others): (Vec<&str>, Vec<&str>) =
                words[1..].iter().copied().partition(|name| is_card(name));
            left_out.extend(cards.iter().map(|name| (*name).to_owned()));
            skipping = others.is_empty();
            if !cards.is_empty() && !skipping {
                kept = format!("{keyword} {}", others.join(" "));
            }
        } else if matches!(*keyword, "iface" | "mapping") {
            skipping = words.get(1).is_some_and(|name| is_card(name));
            left_out.extend(words.get(1).filter(|_| skipping).map(|name| (*name).to_owned()));
        } else if begins {
            skipping = false;
        }
        if !skipping {
            let before = if comments.is_empty() { separator } else { "" };
            out.push_str(&format!("{}{before}{kept}\n", std::mem::take(&mut comments)));
        }
        comments.clear();
        gap = false;
    }
    left_out.retain(|name| !name.starts_with("mac/") && !name.starts_with("snf-nic"));
    Edited { text: out, left_out }
}

/// The lines of one interface.
fn stanzas(Interface { nic, metric }: Interface<'_>, reader: Reader) -> String {
    if nic.ipv4 == Ipv4::None && nic.ipv6 == Ipv6::None {
        return String::new();
    }
    let by_mac = reader == Reader::Debian;
    let busybox = reader == Reader::BusyBox;
    let name = if by_mac { format!("snf-nic{}", nic.index) } else { eth(nic) };
    let auto = if by_mac { format!("mac/{}={name}", nic.mac) } else { name.clone() };
    let mut out = format!("\nauto {auto}\n");
    // The options that belong to the interface are given once, with its first stanza.
    let mut common = String::new();
    let accepts = matches!(nic.ipv6, Ipv6::Slaac | Ipv6::SlaacDhcp | Ipv6::Dhcp);
    if !accepts {
        // The kernel would take an address from the routers by itself.
        common.push_str(
            "    pre-up echo 0 > /proc/sys/net/ipv6/conf/$IFACE/accept_ra 2>/dev/null || true\n",
        );
    }
    if let Some(mtu) = nic.mtu {
        common.push_str(&format!("    post-up ip link set dev $IFACE mtu {mtu}\n"));
    }
    if !nic.dns.is_empty() {
        common.push_str(&format!("    dns-nameservers {}\n", joined(&nic.dns, " ")));
    }
    let with_metric = metric.map(|metric| format!("    metric {metric}\n")).unwrap_or_default();
    match nic.ipv4 {
        Ipv4::None => {}
        Ipv4::Dhcp => {
            out.push_str(&format!("iface {name} inet dhcp\n{with_metric}"));
            out.push_str(&std::mem::take(&mut common));
        }
        Ipv4::Static { address, prefix, .. } => {
            out.push_str(&format!("iface {name} inet static\n"));
            match busybox {
                true => out
                    .push_str(&format!("    address {address}\n    netmask {}\n", netmask(prefix))),
                false => out.push_str(&format!("    address {address}/{prefix}\n")),
            }
            match nic.gateway4() {
                // Debian's reaches a gateway outside of the network by itself.
                Some((gateway, true)) if !by_mac => {
                    let metric = metric.map(|m| format!(" metric {m}")).unwrap_or_default();
                    out.push_str(&format!(
                        "    up ip route add {gateway} dev $IFACE\n    \
                         up ip route add default via {gateway} dev $IFACE{metric}\n"
                    ));
                }
                Some((gateway, _)) => {
                    out.push_str(&format!("    gateway {gateway}\n{with_metric}"));
                }
                None => {}
            }
            out.push_str(&std::mem::take(&mut common));
        }
    }
    match nic.ipv6 {
        Ipv6::None => return out,
        Ipv6::Static { address, prefix, .. } => {
            out.push_str(&format!("iface {name} inet6 static\n"));
            match busybox {
                true => out.push_str(&format!("    address {address}\n    netmask {prefix}\n")),
                false => out.push_str(&format!("    address {address}/{prefix}\n")),
            }
            match nic.gateway6() {
                Some((gateway, outside)) if outside || busybox || metric.is_some() => {
                    let metric = metric.map(|m| format!(" metric {m}")).unwrap_or_default();
                    if outside {
                        out.push_str(&format!("    up ip -6 route add {gateway} dev $IFACE\n"));
                    }
                    out.push_str(&format!(
                        "    up ip -6 route add default via {gateway} dev $IFACE{metric}\n"
                    ));
                }
                Some((gateway, _)) => out.push_str(&format!("    gateway {gateway}\n")),
                None => {}
            }
        }
        // With BusyBox the kernel does it, once the interface is up.
        _ if busybox && nic.ipv4 != Ipv4::None => {}
        _ if busybox => {
            out.push_str(&format!("iface {name} inet manual\n    up ip link set dev $IFACE up\n"));
        }
        Ipv6::Slaac => out.push_str(&format!("iface {name} inet6 auto\n")),
        Ipv6::SlaacDhcp => out.push_str(&format!("iface {name} inet6 auto\n    dhcp 1\n")),
        Ipv6::Dhcp => out.push_str(&format!("iface {name} inet6 dhcp\n")),
    }
    out.push_str(&common);
    out
}

#[cfg(test)]
mod tests {
    use super::super::examples::{dhcp, fixed};
    use super::*;

    const OLD: &str = "# The loopback\nauto lo\niface lo inet loopback\n    up ip addr add 10.9.9.9/32 dev lo\n\n\
        # The card\nallow-hotplug eth0\niface eth0 inet dhcp\n    metric 5\n\n\
        auto br-int eth1\niface br-int inet manual\n    bridge_ports none\n\
        iface eth0.5 inet manual\n source /etc/network/interfaces.d/*\n";

    #[test]
    fn debian() {
        let nics = [fixed(24, "192.0.2.1"), dhcp()];
        let edited = file(&nics, Reader::Debian, OLD);
        assert_eq!(
            edited.text,
            "# Written by snf-image.\n\
             # The loopback\nauto lo\niface lo inet loopback\n    \
             up ip addr add 10.9.9.9/32 dev lo\n\n\
             auto br-int\niface br-int inet manual\n    bridge_ports none\n\
             iface eth0.5 inet manual\n source /etc/network/interfaces.d/*\n\n\
             auto mac/aa:00:00:00:00:01=snf-nic0\niface snf-nic0 inet static\n    \
             address 192.0.2.10/24\n    gateway 192.0.2.1\n    metric 100\n    \
             pre-up echo 0 > /proc/sys/net/ipv6/conf/$IFACE/accept_ra 2>/dev/null || true\n    \
             post-up ip link set dev $IFACE mtu 1400\n    \
             dns-nameservers 192.0.2.53 2001:db8::53\n\
             iface snf-nic0 inet6 static\n    address 2001:db8::5/64\n    \
             up ip -6 route add default via fe80::1 dev $IFACE metric 100\n\n\
             auto mac/aa:00:00:00:00:02=snf-nic1\niface snf-nic1 inet dhcp\n    metric 200\n    \
             pre-up echo 0 > /proc/sys/net/ipv6/conf/$IFACE/accept_ra 2>/dev/null || true\n"
        );
        assert_eq!(edited.left_out, ["eth0".to_owned(), "eth1".to_owned()].into());
        let again = file(&nics, Reader::Debian, &edited.text);
        assert_eq!((again.text, again.left_out), (edited.text, BTreeSet::new()));
        let new = file(&nics, Reader::ByName, "").text;
        assert!(new.contains("\nauto lo\niface lo inet loopback\n\nauto eth0\n"), "{new}");
        assert_eq!(file(&nics, Reader::ByName, &new).text, new);
    }

    #[test]
    fn busybox() {
        let text = file(&[fixed(32, "198.51.100.1"), dhcp()], Reader::BusyBox, "").text;
        assert!(text.contains("    address 192.0.2.10\n    netmask 255.255.255.255\n"), "{text}");
        assert!(text.contains(
            "    up ip route add 198.51.100.1 dev $IFACE\n    \
             up ip route add default via 198.51.100.1 dev $IFACE metric 100\n"
        ));
        assert!(text.contains("    address 2001:db8::5\n    netmask 64\n"));
        let mut nic = dhcp();
        (nic.ipv4, nic.ipv6) = (Ipv4::None, Ipv6::Slaac);
        let text = file(&[nic], Reader::BusyBox, "").text;
        assert!(text.ends_with("iface eth1 inet manual\n    up ip link set dev $IFACE up\n"));
    }

    #[test]
    fn names_of_cards() {
        for name in
            ["eth0", "ens3", "enp0s3", "eno1", "eth0:1", "/en*", "/eth*", "enx00112233", "mac/a=b"]
        {
            assert!(is_card(name), "{name}");
        }
        for name in ["lo", "br0", "eth0.5", "wg0", "bond0", "tun0", "enterprise-vpn"] {
            assert!(!is_card(name), "{name}");
        }
    }
}
