//! netplan's YAML, and the network of a cloud-init seed, which is the same.

use super::{HEADER, Interface, interfaces};
use crate::ask::network::{Ipv4, Ipv6, Nic};

/// netplan. The identifier sorts before what images commonly have (`all-en`, `ens3`), because the
/// first match counts.
pub(in crate::task) fn netplan(nics: &[Nic]) -> String {
    let lines = ethernets(nics).into_iter().map(|line| format!("  {line}\n"));
    format!("{HEADER}network:\n{}", lines.collect::<String>())
}

/// The network of a cloud-init seed: version 2 of its format, which is netplan's without the outer
/// key (versions of cloud-init before 19 do not take that one off).
pub(in crate::task) fn cloud_init(nics: &[Nic]) -> String {
    format!("{HEADER}{}\n", ethernets(nics).join("\n"))
}

/// The lines of both.
fn ethernets(nics: &[Nic]) -> Vec<String> {
    let mut out = vec!["version: 2".to_owned(), "ethernets:".to_owned()];
    for interface in interfaces(nics) {
        ethernet(interface, &mut out);
    }
    out
}

fn ethernet(Interface { nic, metric }: Interface<'_>, out: &mut Vec<String>) {
    let mut line = |depth: usize, text: String| out.push(format!("{}{text}", "  ".repeat(depth)));
    line(1, format!("a-snf-nic{}:", nic.index));
    line(2, "match:".to_owned());
    line(3, format!("macaddress: \"{}\"", nic.mac));
    if let Some(mtu) = nic.mtu {
        line(2, format!("mtu: {mtu}"));
    }
    let accepts = matches!(nic.ipv6, Ipv6::Slaac | Ipv6::SlaacDhcp | Ipv6::Dhcp);
    for (key, on) in [("dhcp4", nic.ipv4 == Ipv4::Dhcp), ("dhcp6", nic.ipv6 == Ipv6::Dhcp)] {
        line(2, format!("{key}: {on}"));
        if let Some(metric) = metric.filter(|_| on) {
            line(2, format!("{key}-overrides:"));
            line(3, format!("route-metric: {metric}"));
        }
    }
    line(2, format!("accept-ra: {accepts}"));
    let mut addresses = Vec::new();
    if let Ipv4::Static { address, prefix, .. } = nic.ipv4 {
        addresses.push(format!("{address}/{prefix}"));
    }
    if let Ipv6::Static { address, prefix, .. } = nic.ipv6 {
        addresses.push(format!("{address}/{prefix}"));
    }
    if !addresses.is_empty() {
        line(2, "addresses:".to_owned());
    }
    for address in addresses {
        line(3, format!("- \"{address}\""));
    }
    let routes = [
        nic.gateway4().map(|(via, outside)| ("0.0.0.0/0", via.to_string(), outside)),
        nic.gateway6().map(|(via, outside)| ("::/0", via.to_string(), outside)),
    ];
    if routes.iter().any(Option::is_some) {
        line(2, "routes:".to_owned());
    }
    for (to, via, outside) in routes.into_iter().flatten() {
        line(3, format!("- to: \"{to}\""));
        line(4, format!("via: \"{via}\""));
        if outside {
            line(4, "on-link: true".to_owned());
        }
        if let Some(metric) = metric {
            line(4, format!("metric: {metric}"));
        }
    }
    if !nic.dns.is_empty() {
        line(2, "nameservers:".to_owned());
        line(3, "addresses:".to_owned());
        for server in &nic.dns {
            line(4, format!("- \"{server}\""));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::examples::{dhcp, fixed};
    use super::*;

    #[test]
    fn every_part() {
        assert_eq!(
            netplan(&[fixed(32, "198.51.100.1"), dhcp()]),
            "# Written by snf-image.\n\
             network:\n  version: 2\n  ethernets:\n    a-snf-nic0:\n      match:\n        \
             macaddress: \"aa:00:00:00:00:01\"\n      mtu: 1400\n      dhcp4: false\n      \
             dhcp6: false\n      accept-ra: false\n      addresses:\n        \
             - \"192.0.2.10/32\"\n        - \"2001:db8::5/64\"\n      routes:\n        \
             - to: \"0.0.0.0/0\"\n          via: \"198.51.100.1\"\n          on-link: true\n          \
             metric: 100\n        - to: \"::/0\"\n          via: \"fe80::1\"\n          metric: 100\n      \
             nameservers:\n        addresses:\n          - \"192.0.2.53\"\n          \
             - \"2001:db8::53\"\n    a-snf-nic1:\n      match:\n        \
             macaddress: \"aa:00:00:00:00:02\"\n      dhcp4: true\n      dhcp4-overrides:\n        \
             route-metric: 200\n      dhcp6: false\n      accept-ra: false\n"
        );
        let seed = cloud_init(&[dhcp()]);
        assert!(seed.contains("\nversion: 2\nethernets:\n  a-snf-nic1:\n    match:\n"), "{seed}");
        assert!(!seed.contains("overrides"));
    }
}
