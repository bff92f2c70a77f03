//! The program that configures the guest's network: the one that is in force, not the one whose files
//! lie there.

use super::super::{Guest, TaskError};
use super::render::ifupdown::Reader;
use crate::ask::properties::Properties;
use crate::guest::distro::Family;
use crate::guest::{glob, services};

/// The program that configures the guest's network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stack {
    Netplan,
    /// Whether it can match the address of the hardware.
    Networkd {
        permanent: bool,
    },
    NetworkManager,
    Ifupdown(Reader),
    /// Red Hat's network-scripts, or a NetworkManager that reads their files.
    RedHat,
    /// SUSE's.
    Wicked,
    /// Gentoo's.
    Netifrc,
    /// Arch's.
    Netctl,
    /// Slackware's rc.inet1.
    Slackware,
    Dhcpcd,
    OpenWrt,
}

struct Look<'a> {
    guest: &'a Guest,
}

impl Look<'_> {
    fn any(&self, paths: &[&str]) -> Result<bool, TaskError> {
        for path in paths {
            if self.guest.tree.exists(path)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn enabled(&self, service: &str) -> Result<bool, TaskError> {
        Ok(services::is_enabled(&self.guest.tree, service)?)
    }

    fn ifup(&self) -> Result<Option<Reader>, TaskError> {
        // Those of Red Hat and SUSE are other programs.
        let guest = self.guest;
        if matches!(guest.distro.family, Family::RedHat | Family::Suse | Family::Slackware) {
            return Ok(None);
        }
        for path in ["/sbin/ifup", "/usr/sbin/ifup"] {
            if guest.tree.lstat(path).is_err() {
                continue;
            }
            let target = guest.tree.read_link(path).unwrap_or_default();
            if target.rsplit(|byte| *byte == b'/').next() == Some(b"busybox") {
                return Ok(Some(Reader::BusyBox));
            }
            // Patterns for hardware addresses came with ifupdown 0.8 (Debian 9, Ubuntu 18.04).
            let first = if guest.distro.id == "ubuntu" { 18 } else { 9 };
            let by_mac = guest.distro.family == Family::Debian
                && guest.distro.version_number().is_none_or(|(major, _)| major >= first);
            return Ok(Some(if by_mac { Reader::Debian } else { Reader::ByName }));
        }
        Ok(None)
    }

    /// From version 245 on systemd-networkd matches the address that the hardware has.
    fn networkd(&self) -> Result<Stack, TaskError> {
        let mut permanent = false;
        for pattern in [
            "/usr/lib/systemd/libsystemd-shared-*.so",
            "/lib/systemd/libsystemd-shared-*.so",
            "/usr/lib/*/systemd/libsystemd-shared-*.so",
        ] {
            for path in glob::expand_links(&self.guest.tree, pattern.as_bytes())? {
                let text = String::from_utf8_lossy(&path).into_owned();
                let version = text.rsplit_once("libsystemd-shared-").map(|(_, rest)| {
                    rest.chars().take_while(char::is_ascii_digit).collect::<String>()
                });
                let version = version.and_then(|digits| digits.parse::<u32>().ok());
                permanent |= version.is_some_and(|version| version >= 245);
            }
        }
        Ok(Stack::Networkd { permanent })
    }

    /// NetworkManager on Red Hat's systems up to 8 reads the files of network-scripts first.
    fn network_manager(&self) -> Result<Stack, TaskError> {
        let distro = &self.guest.distro;
        let major = distro.version_number().map(|(major, _)| major);
        let modern = match distro.id.as_str() {
            "fedora" => major.is_none_or(|major| major >= 33),
            "amzn" => major.is_some_and(|major| major >= 2018),
            _ => major.is_some_and(|major| major >= 9),
        };
        let scripts = self.any(&["/etc/sysconfig/network-scripts/ifup"])?;
        let files =
            !glob::expand(&self.guest.tree, b"/etc/sysconfig/network-scripts/ifcfg-e*")?.is_empty();
        if distro.family == Family::RedHat && !modern && (scripts || files || major.is_some()) {
            return Ok(Stack::RedHat);
        }
        Ok(Stack::NetworkManager)
    }
}

impl Stack {
    /// Its name, and what shows that it is there.
    pub(super) fn describe(self) -> (&'static str, &'static [&'static str]) {
        match self {
            Self::Netplan => ("netplan", &["/usr/sbin/netplan"]),
            Self::Networkd { .. } => (
                "systemd-networkd",
                &["/usr/lib/systemd/systemd-networkd", "/lib/systemd/systemd-networkd"],
            ),
            Self::NetworkManager => {
                ("NetworkManager", &["/usr/sbin/NetworkManager", "/usr/bin/NetworkManager"])
            }
            Self::Ifupdown(Reader::BusyBox) => {
                ("ifupdown (BusyBox)", &["/sbin/ifup", "/usr/sbin/ifup"])
            }
            Self::Ifupdown(_) => ("ifupdown", &["/sbin/ifup", "/usr/sbin/ifup"]),
            Self::RedHat => ("network-scripts", &["/etc/sysconfig/network-scripts"]),
            Self::Wicked => ("wicked", &["/usr/sbin/wicked", "/etc/sysconfig/network"]),
            Self::Netifrc => ("netifrc", &["/etc/init.d/net.lo"]),
            Self::Netctl => ("netctl", &["/usr/bin/netctl"]),
            Self::Slackware => ("rc.inet1", &["/etc/rc.d/rc.inet1"]),
            Self::Dhcpcd => (
                "dhcpcd",
                &["/etc/sv/dhcpcd", "/usr/sbin/dhcpcd", "/sbin/dhcpcd", "/usr/bin/dhcpcd"],
            ),
            Self::OpenWrt => ("uci", &["/sbin/uci", "/etc/config/network"]),
        }
    }
}

/// The stack in force; `None` when none is known.
pub(super) fn choose(guest: &Guest, properties: &Properties) -> Result<Option<Stack>, TaskError> {
    let look = Look { guest };
    let family = guest.distro.family;
    let manager = look.any(&["/usr/sbin/NetworkManager", "/usr/bin/NetworkManager"])?;
    if manager && properties.boolean("NM_NETWORKING")? {
        return Ok(Some(Stack::NetworkManager));
    }
    if look.any(&["/etc/openwrt_release"])? && look.any(&["/sbin/uci", "/etc/config/network"])? {
        return Ok(Some(Stack::OpenWrt));
    }
    if look.any(&["/usr/sbin/netplan"])? {
        return Ok(Some(Stack::Netplan));
    }
    // First what is switched on.
    if look.enabled("systemd-networkd")? {
        return look.networkd().map(Some);
    }
    let ifup = look.ifup()?;
    if let Some(reader) = ifup
        && look.enabled("networking")?
    {
        return Ok(Some(Stack::Ifupdown(reader)));
    }
    if look.enabled("wicked")? {
        return Ok(Some(Stack::Wicked));
    }
    if manager
        && (look.enabled("NetworkManager")? || is_executable(guest, "/etc/rc.d/rc.networkmanager")?)
    {
        return look.network_manager().map(Some);
    }
    let scripts = look.any(&["/etc/sysconfig/network-scripts/ifup"])?;
    if scripts && look.enabled("network")? {
        return Ok(Some(Stack::RedHat));
    }
    if !glob::expand_links(&guest.tree, b"/etc/systemd/system/*.wants/netctl*")?.is_empty() {
        return Ok(Some(Stack::Netctl));
    }
    if look.enabled("dhcpcd")? {
        return Ok(Some(Stack::Dhcpcd));
    }
    // Then what is there, for images that are switched on by other means.
    Ok(match ifup {
        Some(reader) => Some(Stack::Ifupdown(reader)),
        None if manager => Some(look.network_manager()?),
        None if scripts => Some(Stack::RedHat),
        None if family == Family::Suse
            && look.any(&["/usr/sbin/wicked", "/etc/sysconfig/network"])? =>
        {
            Some(Stack::Wicked)
        }
        None if look.any(&["/etc/init.d/net.lo"])? => Some(Stack::Netifrc),
        None if look.any(&["/etc/rc.d/rc.inet1"])? => Some(Stack::Slackware),
        None if look.any(&["/usr/bin/netctl"])? => Some(Stack::Netctl),
        None if look.any(&["/etc/sv/dhcpcd"])? => Some(Stack::Dhcpcd),
        None => None,
    })
}

fn is_executable(guest: &Guest, path: &str) -> Result<bool, TaskError> {
    Ok(guest.tree.stat_optional(path)?.is_some_and(|stat| stat.mode & 0o111 != 0))
}

/// Why a guest without a stack that is known cannot be configured, where that is known.
pub(super) fn reason(guest: &Guest) -> Result<&'static str, TaskError> {
    if guest.tree.exists("/etc/NIXOS")? {
        return Ok(
            "NixOS takes it from /etc/nixos, and what is written elsewhere is lost at the next \
                   rebuild",
        );
    }
    if guest.tree.exists("/usr/lib/systemd/systemd-networkd")? {
        return Ok(
            "systemd-networkd is in the image and not switched on, and there is no netplan, \
                   NetworkManager or ifupdown; switch it on in the image (systemctl enable \
                   systemd-networkd)",
        );
    }
    Ok(
        "the image has none of netplan, systemd-networkd, NetworkManager, ifupdown, network-scripts, \
        wicked, netifrc, netctl, rc.inet1, dhcpcd and OpenWrt's UCI",
    )
}
