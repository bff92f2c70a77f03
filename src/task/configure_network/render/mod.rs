//! The texts: interfaces in the words of each tool.

pub(super) mod ifupdown;
pub(super) mod init_scripts;
mod netplan;
pub(super) mod network_manager;
pub(super) mod networkd;
pub(super) mod sysconfig;

use std::net::IpAddr;

use crate::ask::network::Nic;

pub(in crate::task) use netplan::{cloud_init, netplan};

pub(super) const HEADER: &str = "# Written by snf-image.\n";

/// An interface with what its neighbours make necessary.
#[derive(Clone, Copy, Debug)]
pub(super) struct Interface<'a> {
    pub(super) nic: &'a Nic,
    /// The metric of its default routes, where several interfaces may have one: the kernel takes
    /// no two of the same metric, and the first interface is the way out.
    pub(super) metric: Option<u32>,
}

/// The interfaces, with metrics where they need some.
pub(super) fn interfaces(nics: &[Nic]) -> Vec<Interface<'_>> {
    let several = nics.iter().filter(|nic| nic.has_default_route()).count() > 1;
    let with_metric = |(nic, metric)| Interface { nic, metric: several.then_some(metric) };
    nics.iter().zip((100..).step_by(100)).map(with_metric).collect()
}

/// The name that a kernel without predictable names gives.
pub(super) fn eth(nic: &Nic) -> String {
    format!("eth{}", nic.index)
}

/// The addresses with something between them.
pub(super) fn joined(addresses: &[IpAddr], between: &str) -> String {
    addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(between)
}

/// The dotted mask of an IPv4 prefix.
pub(super) fn netmask(prefix: u8) -> String {
    let bits = u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0);
    std::net::Ipv4Addr::from_bits(bits).to_string()
}

#[cfg(test)]
pub(in crate::task) mod examples {
    use super::*;
    use crate::ask::network::{Ipv4, Ipv6, Mac};

    fn mac(last: u8) -> Mac {
        Mac([0xaa, 0, 0, 0, 0, last])
    }

    pub(in crate::task) fn fixed(prefix: u8, gateway: &str) -> Nic {
        let ipv4 = Ipv4::Static {
            address: "192.0.2.10".parse().unwrap(),
            prefix,
            gateway: Some(gateway.parse().unwrap()),
        };
        let ipv6 = Ipv6::Static {
            address: "2001:db8::5".parse().unwrap(),
            prefix: 64,
            gateway: Some("fe80::1".parse().unwrap()),
        };
        let mut nic = Nic::new(0, mac(1), ipv4, ipv6);
        nic.dns = vec!["192.0.2.53".parse().unwrap(), "2001:db8::53".parse().unwrap()];
        nic.mtu = Some(1400);
        nic
    }

    pub(in crate::task) fn dhcp() -> Nic {
        Nic::new(1, mac(2), Ipv4::Dhcp, Ipv6::None)
    }

    #[test]
    fn metrics_only_for_several() {
        let nics = [fixed(24, "192.0.2.1"), dhcp()];
        let metrics = |nics: &[Nic]| interfaces(nics).iter().map(|i| i.metric).collect::<Vec<_>>();
        assert_eq!(metrics(&nics), [Some(100), Some(200)]);
        assert_eq!(metrics(&nics[..1]), [None]);
        assert_eq!((netmask(24), netmask(0)), ("255.255.255.0".into(), "0.0.0.0".into()));
    }
}
