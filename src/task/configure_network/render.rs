//! The texts: interfaces in the words of each tool.

use crate::ask::network::{Ipv4, Ipv6, Nic};

const HEADER: &str = "# Written by snf-image when the instance was made.\n";

/// The name that a kernel without predictable names gives.
fn eth(nic: &Nic) -> String {
    format!("eth{}", nic.index)
}

/// netplan. The identifier sorts before what images commonly have (`all-en`, `ens3`), because the
/// first match counts.
pub(super) fn netplan(nics: &[Nic]) -> String {
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
    for nic in nics {
        out.push(format!("  a-snf-nic{}:", nic.index));
        out.push("    match:".to_owned());
        out.push(format!("      macaddress: \"{}\"", nic.mac));
        out.push(format!("    dhcp4: {}", nic.ipv4 == Ipv4::Dhcp));
        out.push(format!("    dhcp6: {}", nic.ipv6 == Ipv6::Dhcp));
        out.push(format!("    accept-ra: {}", nic.ipv6 != Ipv6::None));
        if let Ipv4::Static { address, prefix, gateway } = nic.ipv4 {
            out.push("    addresses:".to_owned());
            out.push(format!("      - \"{address}/{prefix}\""));
            if let Some(gateway) = gateway {
                out.push("    routes:".to_owned());
                out.push("      - to: \"0.0.0.0/0\"".to_owned());
                out.push(format!("        via: \"{gateway}\""));
            }
        }
    }
    out
}

/// A `.network` file of systemd-networkd.
pub(super) fn networkd(nic: &Nic) -> String {
    let mut out = format!("{HEADER}[Match]\nMACAddress={}\n\n[Network]\n", nic.mac);
    let dhcp = match (nic.ipv4, nic.ipv6) {
        (Ipv4::Dhcp, Ipv6::Dhcp) => "yes",
        (Ipv4::Dhcp, _) => "ipv4",
        (_, Ipv6::Dhcp) => "ipv6",
        _ => "no",
    };
    out.push_str(&format!("DHCP={dhcp}\n"));
    if let Ipv4::Static { address, prefix, gateway } = nic.ipv4 {
        out.push_str(&format!("Address={address}/{prefix}\n"));
        if let Some(gateway) = gateway {
            out.push_str(&format!("Gateway={gateway}\n"));
        }
    }
    match nic.ipv6 {
        Ipv6::None => out.push_str("IPv6AcceptRA=no\n"),
        Ipv6::SlaacDhcp | Ipv6::Dhcp => {
            out.push_str("IPv6AcceptRA=yes\n\n[IPv6AcceptRA]\nDHCPv6Client=always\n");
        }
        Ipv6::Slaac => out.push_str("IPv6AcceptRA=yes\n"),
    }
    out
}

/// A UUID in its usual form.
pub(super) fn uuid(bytes: &[u8; 16]) -> String {
    uuid::Uuid::from_bytes(*bytes).to_string()
}

/// The UUID of a keyfile, if it has one.
pub(super) fn uuid_of(text: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(text);
    let value = text.lines().find_map(|line| line.trim().strip_prefix("uuid="))?.trim();
    let valid = value.len() == 36 && value.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    valid.then(|| value.to_owned())
}

/// A keyfile of NetworkManager. The priority lets it win over the image's own connections.
pub(super) fn network_manager(nic: &Nic, uuid: &str) -> String {
    let mut out = format!(
        "{HEADER}[connection]\nid=snf-image-nic{}\nuuid={uuid}\ntype=ethernet\n\
         autoconnect-priority=100\n\n[ethernet]\nmac-address={}\n\n[ipv4]\n",
        nic.index,
        nic.mac.to_string().to_uppercase()
    );
    match nic.ipv4 {
        Ipv4::None => out.push_str("method=disabled\n"),
        Ipv4::Dhcp => out.push_str("method=auto\n"),
        Ipv4::Static { address, prefix, gateway } => {
            let gateway = gateway.map(|gateway| format!(",{gateway}")).unwrap_or_default();
            out.push_str(&format!("method=manual\naddress1={address}/{prefix}{gateway}\n"));
        }
    }
    let method = match nic.ipv6 {
        Ipv6::None => "link-local",
        Ipv6::Slaac | Ipv6::SlaacDhcp => "auto",
        Ipv6::Dhcp => "dhcp",
    };
    out.push_str(&format!("\n[ipv6]\nmethod={method}\n"));
    out
}

/// `/etc/network/interfaces`. Files that the old one took in stay taken in.
pub(super) fn interfaces(nics: &[Nic], by_mac: bool, old: &str) -> String {
    let mut out = HEADER.to_owned();
    for line in old.lines().map(str::trim) {
        if line.starts_with("source ") || line.starts_with("source-directory ") {
            out.push_str(&format!("{line}\n"));
        }
    }
    out.push_str("\nauto lo\niface lo inet loopback\n");
    for nic in nics {
        let name = if by_mac { format!("snf-nic{}", nic.index) } else { eth(nic) };
        let auto = if by_mac { format!("mac/{}={name}", nic.mac) } else { name.clone() };
        if nic.ipv4 == Ipv4::None && nic.ipv6 == Ipv6::None {
            continue;
        }
        out.push_str(&format!("\nauto {auto}\n"));
        match nic.ipv4 {
            Ipv4::None => {}
            Ipv4::Dhcp => out.push_str(&format!("iface {name} inet dhcp\n")),
            Ipv4::Static { address, prefix, gateway } => {
                out.push_str(&format!(
                    "iface {name} inet static\n    address {address}/{prefix}\n"
                ));
                if let Some(gateway) = gateway {
                    out.push_str(&format!("    gateway {gateway}\n"));
                }
            }
        }
        match nic.ipv6 {
            Ipv6::None => {}
            Ipv6::Slaac => out.push_str(&format!("iface {name} inet6 auto\n")),
            Ipv6::SlaacDhcp => {
                out.push_str(&format!("iface {name} inet6 auto\n    dhcp 1\n"));
            }
            Ipv6::Dhcp => out.push_str(&format!("iface {name} inet6 dhcp\n")),
        }
    }
    out
}

/// An `ifcfg` file of Red Hat. With both names the rule of udev gives the device this name.
pub(super) fn red_hat(nic: &Nic) -> String {
    let mut out = format!(
        "{HEADER}DEVICE={}\nHWADDR={}\nTYPE=Ethernet\nONBOOT=yes\n",
        eth(nic),
        nic.mac.to_string().to_uppercase()
    );
    match nic.ipv4 {
        Ipv4::None => out.push_str("BOOTPROTO=none\n"),
        Ipv4::Dhcp => out.push_str("BOOTPROTO=dhcp\n"),
        Ipv4::Static { address, prefix, gateway } => {
            out.push_str(&format!("BOOTPROTO=none\nIPADDR={address}\nPREFIX={prefix}\n"));
            if let Some(gateway) = gateway {
                out.push_str(&format!("GATEWAY={gateway}\n"));
            }
        }
    }
    let (init, autoconf, dhcp) = match nic.ipv6 {
        Ipv6::None => ("no", "no", "no"),
        Ipv6::Slaac => ("yes", "yes", "no"),
        Ipv6::SlaacDhcp => ("yes", "yes", "yes"),
        Ipv6::Dhcp => ("yes", "no", "yes"),
    };
    out.push_str(&format!("IPV6INIT={init}\nIPV6_AUTOCONF={autoconf}\nDHCPV6C={dhcp}\n"));
    if nic.ipv6 == Ipv6::SlaacDhcp {
        out.push_str("DHCPV6C_OPTIONS=-S\n");
    }
    out
}

/// An `ifcfg` file of wicked.
pub(super) fn wicked(nic: &Nic) -> String {
    let mut out = format!("{HEADER}STARTMODE='auto'\n");
    let dhcp = match (nic.ipv4, nic.ipv6) {
        (Ipv4::Dhcp, Ipv6::Dhcp | Ipv6::SlaacDhcp) => "dhcp",
        (Ipv4::Dhcp, _) => "dhcp4",
        (Ipv4::Static { .. }, Ipv6::Dhcp | Ipv6::SlaacDhcp) => "dhcp6+static",
        (Ipv4::None, Ipv6::Dhcp | Ipv6::SlaacDhcp) => "dhcp6",
        (Ipv4::Static { .. }, _) => "static",
        (Ipv4::None, _) => "none",
    };
    out.push_str(&format!("BOOTPROTO='{dhcp}'\n"));
    if let Ipv4::Static { address, prefix, .. } = nic.ipv4 {
        out.push_str(&format!("IPADDR='{address}/{prefix}'\n"));
    }
    if nic.ipv6 == Ipv6::SlaacDhcp {
        out.push_str("DHCLIENT6_MODE='info'\n");
    }
    out
}

/// wicked keeps routes in a file of their own.
pub(super) fn wicked_routes(nic: &Nic) -> String {
    match nic.ipv4 {
        Ipv4::Static { gateway: Some(gateway), .. } => {
            format!("{HEADER}default {gateway} - {}\n", eth(nic))
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ask::network::Mac;
    use std::net::Ipv4Addr;

    fn nics() -> [Nic; 2] {
        let address = Ipv4Addr::new(192, 0, 2, 10);
        let gateway = Some(Ipv4Addr::new(192, 0, 2, 1));
        [
            Nic {
                index: 0,
                mac: Mac([0xaa, 0, 0, 0, 0, 1]),
                ipv4: Ipv4::Static { address, prefix: 24, gateway },
                ipv6: Ipv6::Slaac,
            },
            Nic { index: 1, mac: Mac([0xaa, 0, 0, 0, 0, 2]), ipv4: Ipv4::Dhcp, ipv6: Ipv6::None },
        ]
    }

    #[test]
    fn ifupdown() {
        let old = "auto eth0\niface eth0 inet dhcp\n source /etc/network/interfaces.d/*\n";
        assert_eq!(
            interfaces(&nics(), true, old),
            "# Written by snf-image when the instance was made.\n\
             source /etc/network/interfaces.d/*\n\n\
             auto lo\niface lo inet loopback\n\n\
             auto mac/aa:00:00:00:00:01=snf-nic0\niface snf-nic0 inet static\n    \
             address 192.0.2.10/24\n    gateway 192.0.2.1\niface snf-nic0 inet6 auto\n\n\
             auto mac/aa:00:00:00:00:02=snf-nic1\niface snf-nic1 inet dhcp\n"
        );
        let again = interfaces(&nics(), true, &interfaces(&nics(), true, old));
        assert_eq!(again, interfaces(&nics(), true, old));
        assert!(interfaces(&nics(), false, "").contains("auto eth1\niface eth1 inet dhcp\n"));
    }

    #[test]
    fn the_others() {
        let [fixed, dhcp] = nics();
        let text = networkd(&fixed);
        assert!(text.contains("[Match]\nMACAddress=aa:00:00:00:00:01\n"));
        assert!(
            text.contains("DHCP=no\nAddress=192.0.2.10/24\nGateway=192.0.2.1\nIPv6AcceptRA=yes")
        );
        assert!(networkd(&dhcp).contains("DHCP=ipv4\nIPv6AcceptRA=no\n"));
        let text = network_manager(&fixed, &uuid(&[0x11; 16]));
        assert!(text.contains("method=manual\naddress1=192.0.2.10/24,192.0.2.1\n"));
        assert_eq!(
            uuid_of(text.as_bytes()).as_deref(),
            Some("11111111-1111-1111-1111-111111111111")
        );
        let text = netplan(&nics());
        assert!(text.contains("        macaddress: \"aa:00:00:00:00:02\"\n      dhcp4: true\n"));
        assert!(
            text.contains("routes:\n        - to: \"0.0.0.0/0\"\n          via: \"192.0.2.1\"\n")
        );
        assert!(red_hat(&fixed).contains("BOOTPROTO=none\nIPADDR=192.0.2.10\nPREFIX=24\n"));
        assert!(wicked(&dhcp).contains("BOOTPROTO='dhcp4'\n"));
        assert!(wicked_routes(&fixed).ends_with("default 192.0.2.1 - eth0\n"));
    }
}
