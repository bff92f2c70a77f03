//! ConfigureNetwork: the interfaces of the instance, written the way this guest configures its
//! network. Interfaces are told apart by their hardware addresses, not by the names that a kernel
//! may give them, wherever the guest's tools can do that.

pub(super) mod render;

use snf_fs::Attributes;

use super::{Guest, LINUX, Needs, Session, Task, TaskError, TaskId, Work, initialize_datasource};
use crate::guest::CONFIG_MAX;
use crate::guest::distro::Family;

pub(super) static TASK: Task = Task {
    id: TaskId::ConfigureNetwork,
    summary: "configure the instance's network interfaces as Ganeti describes them",
    applies: |plan| !plan.nics.is_empty(),
    work: Work::guest(Needs::System(LINUX), run),
};

/// The program that configures the guest's network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tool {
    Netplan,
    Networkd,
    NetworkManager,
    /// Debian's ifupdown; whether it can match hardware addresses.
    Ifupdown {
        by_mac: bool,
    },
    /// Red Hat's network-scripts.
    RedHat,
    /// SUSE's wicked.
    Wicked,
}

const NETPLAN_DIR: &str = "/etc/netplan";
const NETWORKD_DIR: &str = "/etc/systemd/network";
const NM_DIR: &str = "/etc/NetworkManager/system-connections";
const INTERFACES: &str = "/etc/network/interfaces";
const RED_HAT_DIR: &str = "/etc/sysconfig/network-scripts";
const WICKED_DIR: &str = "/etc/sysconfig/network";
const DIR: Attributes = Attributes { mode: 0o755, uid: 0, gid: 0 };

fn run(guest: &mut Guest, session: &mut Session<'_>) -> Result<(), TaskError> {
    if initialize_datasource::seeds_network(guest, session)? {
        // cloud-init has it from its seed, and writes it the guest's way.
        return Ok(());
    }
    let Some(tool) = choose(guest, session)? else {
        session.warn(
            "the network was not configured: the image has neither netplan, systemd-networkd, \
             NetworkManager, ifupdown, network-scripts nor wicked",
        );
        return Ok(());
    };
    let nics = session.plan.nics.clone();
    match tool {
        Tool::Netplan => {
            // Since netplan was made, it wants its files closed to others.
            put(guest, NETPLAN_DIR, "60-snf-image.yaml", &render::netplan(&nics), 0o600)?;
        }
        Tool::Networkd => {
            for nic in &nics {
                let name = format!("05-snf-image-nic{}.network", nic.index);
                put(guest, NETWORKD_DIR, &name, &render::networkd(nic), 0o644)?;
            }
        }
        Tool::NetworkManager => {
            for nic in &nics {
                let mut uuid: [u8; 16] =
                    session.entropy.derive(&format!("connection {}", nic.mac)).bytes();
                uuid[6] = (uuid[6] & 0x0f) | 0x40;
                uuid[8] = (uuid[8] & 0x3f) | 0x80;
                let name = format!("snf-image-nic{}.nmconnection", nic.index);
                // A connection that is there keeps its UUID, so that a second run changes nothing.
                let old = guest.tree.read_optional(format!("{NM_DIR}/{name}"), CONFIG_MAX)?;
                let uuid =
                    old.as_deref().and_then(render::uuid_of).unwrap_or_else(|| render::uuid(&uuid));
                put(guest, NM_DIR, &name, &render::network_manager(nic, &uuid), 0o600)?;
            }
        }
        Tool::Ifupdown { by_mac } => {
            let old = guest.config(INTERFACES)?.unwrap_or_default();
            let text = render::interfaces(&nics, by_mac, &String::from_utf8_lossy(&old));
            put(guest, "/etc/network", "interfaces", &text, 0o644)?;
        }
        Tool::RedHat => {
            for nic in &nics {
                let name = format!("ifcfg-eth{}", nic.index);
                put(guest, RED_HAT_DIR, &name, &render::red_hat(nic), 0o644)?;
            }
        }
        Tool::Wicked => {
            for nic in &nics {
                let name = format!("ifcfg-eth{}", nic.index);
                put(guest, WICKED_DIR, &name, &render::wicked(nic), 0o644)?;
                let routes = render::wicked_routes(nic);
                let name = format!("ifroute-eth{}", nic.index);
                let path = format!("{WICKED_DIR}/{name}");
                if !routes.is_empty() || guest.tree.exists(path)? {
                    put(guest, WICKED_DIR, &name, &routes, 0o644)?;
                }
            }
        }
    }
    stop_cloud_init(guest)
}

fn put(guest: &mut Guest, dir: &str, name: &str, text: &str, mode: u16) -> Result<(), TaskError> {
    guest.tree.mkdir_all(dir, DIR)?;
    let path = format!("{dir}/{name}");
    guest.tree.write(&path, text.as_bytes(), Attributes { mode, uid: 0, gid: 0 })?;
    // A file that holds no secret keeps the mode it had; netplan and NetworkManager insist.
    if mode == 0o600 {
        guest.tree.chown(&path, 0, 0)?;
        guest.tree.chmod(&path, mode)?;
    }
    Ok(())
}

/// cloud-init would write a configuration of its own at the next boot.
fn stop_cloud_init(guest: &mut Guest) -> Result<(), TaskError> {
    if !guest.has_cloud_init()? {
        return Ok(());
    }
    let text = "# Written by snf-image, which configured the network.\n\
                network: {config: disabled}\n";
    put(guest, "/etc/cloud/cloud.cfg.d", "99-snf-image-network.cfg", text, 0o644)
}

fn choose(guest: &Guest, session: &Session<'_>) -> Result<Option<Tool>, TaskError> {
    let tree = &guest.tree;
    let any = |paths: &[&str]| -> Result<bool, TaskError> {
        for path in paths {
            if tree.exists(path)? {
                return Ok(true);
            }
        }
        Ok(false)
    };
    // A unit is enabled by a symbolic link whose target need not be looked at.
    let enabled = |unit: &str| -> Result<bool, TaskError> {
        match tree.lstat(format!("/etc/systemd/system/multi-user.target.wants/{unit}.service")) {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error.into()),
        }
    };
    let family = guest.distro.family;
    let manager = any(&["/usr/sbin/NetworkManager"])?;
    if manager && session.plan.properties.boolean("NM_NETWORKING")? {
        return Ok(Some(Tool::NetworkManager));
    }
    if any(&["/usr/sbin/netplan"])? {
        return Ok(Some(Tool::Netplan));
    }
    if enabled("systemd-networkd")? {
        return Ok(Some(Tool::Networkd));
    }
    let debian = family == Family::Debian;
    if any(&[INTERFACES])? || (debian && any(&["/usr/sbin/ifup", "/sbin/ifup"])?) {
        // Patterns for hardware addresses came with ifupdown 0.8 (Debian 9, Ubuntu 18.04).
        let first = if guest.distro.id == "ubuntu" { 18 } else { 9 };
        let by_mac =
            debian && guest.distro.version_number().is_none_or(|(major, _)| major >= first);
        return Ok(Some(Tool::Ifupdown { by_mac }));
    }
    if family == Family::RedHat {
        // From release 9 on NetworkManager no longer reads these by default, but still can.
        let has_files =
            !crate::guest::glob::expand(tree, b"/etc/sysconfig/network-scripts/ifcfg-e*")?
                .is_empty();
        let has_scripts = any(&["/etc/sysconfig/network-scripts/ifup", "/usr/sbin/ifup"])?;
        if has_scripts || (has_files && !manager) {
            return Ok(Some(Tool::RedHat));
        }
    }
    if manager {
        return Ok(Some(Tool::NetworkManager));
    }
    if family == Family::Suse && any(&[WICKED_DIR])? {
        return Ok(Some(Tool::Wicked));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ask::network::{Ipv4, Ipv6, Mac, Nic};
    use crate::task::testing::Guest;

    fn nic() -> Nic {
        Nic { index: 0, mac: Mac([0xaa, 0, 0, 0, 0, 1]), ipv4: Ipv4::Dhcp, ipv6: Ipv6::None }
    }

    fn configured(family: Family, files: &[&str]) -> (Guest, Vec<String>) {
        let mut guest = Guest::empty();
        guest.mkdir("/etc");
        guest.distro.family = family;
        files.iter().for_each(|path| guest.write(path, ""));
        guest.tree().commit().unwrap();
        guest.renew();
        guest.plan.nics = vec![nic()];
        guest.run(&TASK).unwrap();
        let mut changed = guest.changed();
        changed.retain(|path| path.rsplit('/').next().unwrap().contains(['-', 'i']));
        (guest, changed)
    }

    #[test]
    fn every_guest_in_its_own_way() {
        let wants = "/etc/systemd/system/multi-user.target.wants/systemd-networkd.service";
        let manager = "/usr/sbin/NetworkManager";
        for (family, files, expected) in [
            (Family::Debian, vec![INTERFACES], INTERFACES),
            (Family::Debian, vec!["/sbin/ifup"], INTERFACES),
            (
                Family::Debian,
                vec!["/usr/sbin/netplan", INTERFACES],
                "/etc/netplan/60-snf-image.yaml",
            ),
            (
                Family::Debian,
                vec![wants, INTERFACES],
                "/etc/systemd/network/05-snf-image-nic0.network",
            ),
            (
                Family::RedHat,
                vec![manager],
                "/etc/NetworkManager/system-connections/snf-image-nic0.nmconnection",
            ),
            (
                Family::RedHat,
                vec![manager, "/etc/sysconfig/network-scripts/ifup"],
                "/etc/sysconfig/network-scripts/ifcfg-eth0",
            ),
            (
                Family::Suse,
                vec!["/etc/sysconfig/network/config"],
                "/etc/sysconfig/network/ifcfg-eth0",
            ),
            (Family::Alpine, vec![INTERFACES], INTERFACES),
        ] {
            let (guest, changed) = configured(family, &files);
            assert!(changed.iter().any(|path| path == expected), "{files:?}: {changed:?}");
            assert!(guest.warnings().is_empty());
        }
        let (guest, _) = configured(Family::Other, &[]);
        assert!(guest.warnings()[0].contains("the network was not configured"));
    }

    #[test]
    fn closed_files_and_a_second_run() {
        let (mut guest, _) = configured(Family::RedHat, &["/usr/sbin/NetworkManager"]);
        let path = format!("{NM_DIR}/snf-image-nic0.nmconnection");
        assert_eq!(guest.attributes(&path), (0o600, 0, 0));
        guest.renew();
        guest.run(&TASK).unwrap();
        assert!(guest.changed().is_empty(), "{:?}", guest.changed());
        let cloud = "/etc/cloud/cloud.cfg";
        let (mut guest, _) = configured(Family::Debian, &["/usr/sbin/netplan", cloud]);
        assert_eq!(guest.attributes("/etc/netplan/60-snf-image.yaml"), (0o600, 0, 0));
        let text = guest.read("/etc/cloud/cloud.cfg.d/99-snf-image-network.cfg");
        assert!(text.ends_with("network: {config: disabled}\n"));
    }
}
