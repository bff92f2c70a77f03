//! ConfigureNetwork: the interfaces of the instance, written the way this guest configures its
//! network. Interfaces are told apart by their hardware addresses, not by the names that a kernel
//! may give them, wherever the guest's tools can do that.

mod aside;
pub(super) mod render;
mod stack;

use std::collections::BTreeSet;

use snf_fs::{Attributes, FileType};

pub(super) use self::aside::forget_leases;
use self::render::ifupdown::{self, Reader};
use self::render::{Interface, init_scripts, network_manager, networkd, sysconfig};
use self::stack::Stack;
use super::{Guest, LINUX, Needs, Session, Task, TaskError, TaskId, Work, initialize_datasource};
use crate::ask::network::{Ipv6, Nic};
use crate::ask::properties::Properties;
use crate::guest::CONFIG_MAX;

pub(super) static TASK: Task = Task {
    id: TaskId::ConfigureNetwork,
    summary: "configure the instance's network interfaces as Ganeti describes them",
    applies: |plan| !plan.nics.is_empty(),
    work: Work::guest(Needs::System(LINUX), run),
};

const NETPLAN_DIR: &str = "/etc/netplan";
const NETWORKD_DIR: &str = "/etc/systemd/network";
const NM_DIR: &str = "/etc/NetworkManager/system-connections";
const INTERFACES: &str = "/etc/network/interfaces";
const RED_HAT_DIR: &str = "/etc/sysconfig/network-scripts";
const WICKED_DIR: &str = "/etc/sysconfig/network";
const UDEV_RULES: &str = "/etc/udev/rules.d";
const RESOLV_CONF: &str = "/etc/resolv.conf";
const DIR: Attributes = Attributes { mode: 0o755, uid: 0, gid: 0 };

/// The program that configures the guest's network, and what shows that it is there; `None` when none is
/// known.
///
/// # Errors
/// Errors of the tree.
pub(crate) fn network_stack(guest: &Guest) -> snf_fs::Result<Option<(&'static str, String)>> {
    let stack = match stack::choose(guest, &Properties::default()) {
        Ok(Some(stack)) => stack,
        Err(TaskError::Fs(error)) => return Err(error),
        Ok(None) | Err(_) => return Ok(None),
    };
    let (name, paths) = stack.describe();
    for path in paths {
        if guest.tree.lstat(path).is_ok() {
            return Ok(Some((name, (*path).to_owned())));
        }
    }
    Ok(Some((name, "its service is switched on".to_owned())))
}

fn run(guest: &mut Guest, session: &mut Session<'_>) -> Result<(), TaskError> {
    if initialize_datasource::seeds_network(guest, session)? {
        // cloud-init has it from its seed, and writes it the guest's way.
        return aside::clear(guest, session);
    }
    let Some(stack) = stack::choose(guest, &session.plan.properties)? else {
        session.warn(format!("the network was not configured: {}", stack::reason(guest)?));
        return Ok(());
    };
    aside::clear(guest, session)?;
    let nics = session.plan.nics.clone();
    let interfaces = render::interfaces(&nics);
    let mut files = Files { guest, written: BTreeSet::new() };
    match stack {
        Stack::Netplan => {
            // Since netplan was made, it wants its files closed to others.
            files.put(NETPLAN_DIR, "60-snf-image.yaml", &render::netplan(&nics), 0o600)?;
        }
        Stack::Networkd { permanent } => {
            for interface in &interfaces {
                // Before every name that begins with a letter or a number: the first match counts.
                let name = format!("0-snf-image-nic{}.network", interface.nic.index);
                files.put(
                    NETWORKD_DIR,
                    &name,
                    &networkd::networkd(*interface, permanent),
                    0o644,
                )?;
            }
            let ours = ["/etc/systemd/network/*snf-image-nic*.network"];
            aside::clear_ours(files.guest, &ours, &files.written)?;
        }
        Stack::NetworkManager => network_manager(&mut files, session, &interfaces)?,
        Stack::Ifupdown(reader) => ifupdown(&mut files, session, &nics, reader)?,
        Stack::RedHat => {
            for interface in &interfaces {
                let name = render::eth(interface.nic);
                let text = sysconfig::red_hat(*interface);
                files.put(RED_HAT_DIR, &format!("ifcfg-{name}"), &text, 0o644)?;
                let routes = sysconfig::red_hat_routes(*interface);
                files.put_unless_empty(RED_HAT_DIR, &format!("route-{name}"), &routes)?;
            }
            let written = std::mem::take(&mut files.written);
            aside::clear_ifcfg(files.guest, session, RED_HAT_DIR, &written)?;
        }
        Stack::Wicked => {
            for interface in &interfaces {
                let name = render::eth(interface.nic);
                let text = sysconfig::wicked(*interface);
                files.put(WICKED_DIR, &format!("ifcfg-{name}"), &text, 0o644)?;
                let routes = sysconfig::wicked_routes(*interface);
                files.put_unless_empty(WICKED_DIR, &format!("ifroute-{name}"), &routes)?;
            }
            if nics.iter().any(|nic| !nic.dns.is_empty()) {
                let path = format!("{WICKED_DIR}/config");
                let text = sysconfig::wicked_config(&files.old(&path)?, &interfaces);
                files.put(WICKED_DIR, "config", &text, 0o644)?;
            }
            let written = std::mem::take(&mut files.written);
            aside::clear_ifcfg(files.guest, session, WICKED_DIR, &written)?;
        }
        Stack::Netifrc | Stack::Netctl | Stack::Slackware | Stack::Dhcpcd => {
            by_name(&mut files, stack, &interfaces)?;
        }
        Stack::OpenWrt => {
            let text = init_scripts::openwrt(&files.old("/etc/config/network")?, &interfaces);
            files.put("/etc/config", "network", &text, 0o644)?;
        }
    }
    let without_daemon = matches!(stack, Stack::Ifupdown(_) | Stack::Slackware)
        || (matches!(stack, Stack::Networkd { .. })
            && !crate::guest::services::is_enabled(&guest.tree, "systemd-resolved")?);
    if without_daemon {
        resolv_conf(guest, &nics)?;
    }
    stop_cloud_init(guest)
}

/// Files that this task writes.
struct Files<'a> {
    guest: &'a mut Guest,
    written: BTreeSet<String>,
}

impl Files<'_> {
    fn put(&mut self, dir: &str, name: &str, text: &str, mode: u16) -> Result<(), TaskError> {
        put(self.guest, dir, name, text, mode)?;
        self.written.insert(format!("{dir}/{name}"));
        Ok(())
    }

    /// Without a text a file is made empty that is there, and no other.
    fn put_unless_empty(&mut self, dir: &str, name: &str, text: &str) -> Result<(), TaskError> {
        if !text.is_empty() || self.guest.tree.exists(format!("{dir}/{name}"))? {
            self.put(dir, name, text, 0o644)?;
        }
        Ok(())
    }

    /// The text of a file that is there.
    fn old(&self, path: &str) -> Result<String, TaskError> {
        let text = self.guest.config(path)?.unwrap_or_default();
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// Makes a symbolic link, unless something is there.
    fn link(&mut self, path: &str, target: &str) -> Result<(), TaskError> {
        match self.guest.tree.lstat(path) {
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error.into()),
            Ok(_) => return Ok(()),
        }
        if let Some((dir, _)) = path.rsplit_once('/') {
            self.guest.tree.mkdir_all(dir, DIR)?;
        }
        self.guest.tree.symlink(path, target.as_bytes(), DIR)?;
        Ok(())
    }
}

fn network_manager(
    files: &mut Files<'_>,
    session: &mut Session<'_>,
    interfaces: &[Interface<'_>],
) -> Result<(), TaskError> {
    for interface in interfaces {
        let nic = interface.nic;
        let mut uuid: [u8; 16] = session.entropy.derive(&format!("connection {}", nic.mac)).bytes();
        uuid[6] = (uuid[6] & 0x0f) | 0x40;
        uuid[8] = (uuid[8] & 0x3f) | 0x80;
        let name = format!("snf-image-nic{}.nmconnection", nic.index);
        // A connection that is there keeps its UUID, so that a second run changes nothing.
        let old = files.guest.tree.read_optional(format!("{NM_DIR}/{name}"), CONFIG_MAX)?;
        let uuid = old
            .as_deref()
            .and_then(network_manager::uuid_of)
            .unwrap_or_else(|| network_manager::uuid(&uuid));
        files.put(NM_DIR, &name, &network_manager::network_manager(*interface, &uuid), 0o600)?;
    }
    let ours = ["/etc/NetworkManager/system-connections/snf-image-nic*.nmconnection"];
    aside::clear_ours(files.guest, &ours, &files.written)?;
    let written = std::mem::take(&mut files.written);
    // Older versions read these, too, and would have two connections for a card.
    aside::clear_ifcfg(files.guest, session, RED_HAT_DIR, &written)?;
    // Debian's NetworkManager leaves every interface alone that this file names.
    let old = files.old(INTERFACES)?;
    let edited = ifupdown::without_cards(&old);
    if !edited.left_out.is_empty() {
        aside::keep_copy(files.guest, INTERFACES.as_bytes())?;
        files.put("/etc/network", "interfaces", &edited.text, 0o644)?;
    }
    Ok(())
}

fn ifupdown(
    files: &mut Files<'_>,
    session: &mut Session<'_>,
    nics: &[Nic],
    reader: Reader,
) -> Result<(), TaskError> {
    let old = files.old(INTERFACES)?;
    let edited = ifupdown::file(nics, reader, &old);
    let mut left_out = aside::clear_included(files.guest, session, &old)?;
    left_out.extend(edited.left_out);
    if !left_out.is_empty() && files.guest.tree.is_file(INTERFACES)? {
        aside::keep_copy(files.guest, INTERFACES.as_bytes())?;
    }
    files.put("/etc/network", "interfaces", &edited.text, 0o644)?;
    let used = |name: &&String| {
        edited.text.lines().filter(|line| line.trim_start().starts_with("b")).any(|line| {
            let mut words = line.split_whitespace();
            let key = words.next().unwrap_or_default();
            let ports = ["bridge_ports", "bridge-ports", "bond-slaves", "bond_slaves"];
            ports.contains(&key) && words.any(|word| word == name.as_str())
        })
    };
    if let Some(name) = left_out.iter().find(used) {
        session.warn(format!(
            "{INTERFACES} of the image makes {name} part of a bridge or bond, and the instance's \
             interface gets its address beside that; one of them has to go"
        ));
    }
    if reader == Reader::BusyBox
        && nics.iter().any(|nic| matches!(nic.ipv6, Ipv6::Dhcp | Ipv6::SlaacDhcp))
    {
        session.warn(
            "DHCPv6 was not configured: BusyBox's ifup has no method for it; the kernel takes an \
             address from router advertisements, where there are any",
        );
    }
    Ok(())
}

/// Tools that know interfaces by their names only: a rule of udev gives the names.
fn by_name(
    files: &mut Files<'_>,
    stack: Stack,
    interfaces: &[Interface<'_>],
) -> Result<(), TaskError> {
    let rules = init_scripts::udev_rules(interfaces);
    files.put(UDEV_RULES, "70-snf-image-net.rules", &rules, 0o644)?;
    let names: Vec<String> = interfaces.iter().map(init_scripts::name).collect();
    match stack {
        Stack::Netifrc => {
            let lines: String = interfaces.iter().map(init_scripts::netifrc).collect();
            let text = init_scripts::with_lines(&files.old("/etc/conf.d/net")?, &lines);
            files.put("/etc/conf.d", "net", &text, 0o644)?;
            for name in names {
                files.link(&format!("/etc/init.d/net.{name}"), "net.lo")?;
                let service = format!("/etc/init.d/net.{name}");
                files.link(&format!("/etc/runlevels/default/net.{name}"), &service)?;
            }
        }
        Stack::Netctl => {
            for (interface, name) in interfaces.iter().zip(names) {
                files.put("/etc/netctl", &name, &init_scripts::netctl(interface), 0o600)?;
                let unit =
                    format!("/etc/systemd/system/multi-user.target.wants/netctl@{name}.service");
                files.link(&unit, "/usr/lib/systemd/system/netctl@.service")?;
            }
        }
        Stack::Slackware => {
            let ours = init_scripts::slackware(interfaces);
            let path = "/etc/rc.d/rc.inet1.conf";
            let text = init_scripts::with_lines(&files.old(path)?, &ours);
            files.put("/etc/rc.d", "rc.inet1.conf", &text, 0o600)?;
        }
        _ => {
            let lines: String = interfaces.iter().map(init_scripts::dhcpcd).collect();
            let text = init_scripts::with_lines(&files.old("/etc/dhcpcd.conf")?, &lines);
            files.put("/etc", "dhcpcd.conf", &text, 0o644)?;
        }
    }
    Ok(())
}

/// Name servers for guests without a program that would keep `resolv.conf`: a link is such a
/// program's.
fn resolv_conf(guest: &mut Guest, nics: &[Nic]) -> Result<(), TaskError> {
    let mut servers = Vec::new();
    for server in nics.iter().flat_map(|nic| &nic.dns) {
        if !servers.contains(server) {
            servers.push(*server);
        }
    }
    let is_link =
        guest.tree.lstat(RESOLV_CONF).is_ok_and(|stat| stat.file_type == FileType::Symlink);
    if servers.is_empty() || is_link {
        return Ok(());
    }
    let old = guest.config(RESOLV_CONF)?.unwrap_or_default();
    let old = String::from_utf8_lossy(&old).into_owned();
    let kept = old.lines().filter(|line| {
        !line.trim_start().starts_with("nameserver") && *line != render::HEADER.trim_end()
    });
    let mut text = render::HEADER.to_owned();
    text.extend(kept.map(|line| format!("{line}\n")));
    text.extend(servers.iter().map(|server| format!("nameserver {server}\n")));
    put(guest, "/etc", "resolv.conf", &text, 0o644)
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

#[cfg(test)]
mod tests {
    use super::render::examples;
    use super::*;
    use crate::ask::network::{Ipv4, Mac};
    use crate::guest::distro::Family;
    use crate::task::testing::Guest;

    fn nic() -> Nic {
        Nic::new(0, Mac([0xaa, 0, 0, 0, 0, 1]), Ipv4::Dhcp, Ipv6::None)
    }

    /// A guest with these files; `A -> B` is a symbolic link.
    fn guest(family: Family, version: &str, files: &[&str]) -> Guest {
        let mut guest = Guest::empty();
        guest.mkdir("/etc");
        guest.distro.family = family;
        guest.distro.version = version.into();
        for path in files {
            match path.split_once(" -> ") {
                Some((path, target)) => {
                    guest.mkdir(path.rsplit_once('/').unwrap().0);
                    guest.symlink(path, target);
                }
                None => guest.write(path, ""),
            }
        }
        guest.tree().commit().unwrap();
        guest.renew();
        guest.plan.nics = vec![nic()];
        guest
    }

    fn configured(family: Family, files: &[&str]) -> (Guest, Vec<String>) {
        configured_as(family, "", files)
    }

    fn configured_as(family: Family, version: &str, files: &[&str]) -> (Guest, Vec<String>) {
        let mut guest = guest(family, version, files);
        guest.run(&TASK).unwrap();
        let changed = guest.changed();
        (guest, changed)
    }

    #[test]
    fn every_guest_in_its_own_way() {
        let wants = |unit: &str| {
            format!("/etc/systemd/system/multi-user.target.wants/{unit}.service -> /none")
        };
        let networkd = wants("systemd-networkd");
        let networking = wants("networking");
        let (manager, ifup) = ("/usr/sbin/NetworkManager", "/sbin/ifup");
        let (nm_enabled, network) = (wants("NetworkManager"), wants("network"));
        let scripts = "/etc/sysconfig/network-scripts/ifup";
        let keyfile = "/etc/NetworkManager/system-connections/snf-image-nic0.nmconnection";
        let ifcfg = "/etc/sysconfig/network-scripts/ifcfg-eth0";
        let suse = "/etc/sysconfig/network/ifcfg-eth0";
        let unit = "/etc/systemd/network/0-snf-image-nic0.network";
        let wicked =
            "/etc/systemd/system/network.service -> /usr/lib/systemd/system/wicked.service";
        for (family, version, files, expected) in [
            (Family::Debian, "", vec![ifup], INTERFACES),
            (Family::Debian, "", vec!["/usr/sbin/netplan", ifup], "/etc/netplan/60-snf-image.yaml"),
            (Family::Debian, "", vec![networkd.as_str(), ifup], unit),
            (
                Family::Other,
                "",
                vec!["/usr/lib/systemd/system/multi-user.target.wants/systemd-networkd.service"],
                unit,
            ),
            // Left over by dpkg --purge ifupdown.
            (Family::Debian, "12", vec![INTERFACES, manager, &nm_enabled], keyfile),
            (Family::Debian, "12", vec![ifup, &networking, manager, &nm_enabled], INTERFACES),
            (Family::Debian, "12", vec![ifup, manager, &nm_enabled], keyfile),
            (Family::RedHat, "", vec![manager], keyfile),
            (Family::RedHat, "", vec![manager, scripts], ifcfg),
            (Family::RedHat, "8.9", vec![manager, &nm_enabled], ifcfg),
            (Family::RedHat, "9.3", vec![manager, scripts, &nm_enabled], keyfile),
            (Family::RedHat, "10", vec![manager, "/usr/sbin/ifup"], keyfile),
            (Family::RedHat, "6.10", vec![scripts, &network], ifcfg),
            (Family::Suse, "15.6", vec!["/etc/sysconfig/network/config"], suse),
            (Family::Suse, "15.6", vec![manager, wicked, "/usr/sbin/wicked"], suse),
            (Family::Suse, "", vec![manager, &nm_enabled, "/usr/sbin/wicked"], keyfile),
            (Family::Alpine, "", vec![ifup], INTERFACES),
            (Family::Gentoo, "", vec!["/etc/init.d/net.lo"], "/etc/conf.d/net"),
            (Family::Arch, "", vec!["/usr/bin/netctl"], "/etc/netctl/nic0"),
            (Family::Slackware, "15.0", vec!["/etc/rc.d/rc.inet1"], "/etc/rc.d/rc.inet1.conf"),
            (
                Family::Other,
                "",
                vec!["/etc/runit/runsvdir/default/dhcpcd -> /etc/sv/dhcpcd"],
                "/etc/dhcpcd.conf",
            ),
            (
                Family::Other,
                "",
                vec!["/etc/openwrt_release", "/etc/config/network"],
                "/etc/config/network",
            ),
        ] {
            let (guest, changed) = configured_as(family, version, &files);
            assert!(changed.iter().any(|path| path == expected), "{files:?}: {changed:?}");
            assert!(guest.warnings().is_empty(), "{:?}", guest.warnings());
        }
        let (guest, _) = configured(Family::Other, &[]);
        assert!(guest.warnings()[0].contains("the network was not configured"));
        let (guest, _) = configured(Family::Other, &["/etc/NIXOS"]);
        assert!(guest.warnings()[0].contains("NixOS takes it from /etc/nixos"));
    }

    #[test]
    fn what_the_template_had_is_put_aside() {
        let mut guest = guest(Family::Debian, "12", &["/sbin/ifup"]);
        let main = "auto lo\niface lo inet loopback\n\nauto eth0 br0\niface eth0 inet dhcp\n\
            iface br0 inet manual\n    bridge_ports eth0\nsource /etc/network/interfaces.d/*\n";
        guest.write(INTERFACES, main);
        let cloud = "/etc/network/interfaces.d/50-cloud-init";
        guest.write(cloud, "auto eth0\niface eth0 inet dhcp\n");
        guest.write("/etc/network/interfaces.d/own", "auto ens3\niface ens3 inet dhcp\n");
        let mixed = "/etc/network/interfaces.d/mixed";
        guest.write(mixed, "iface wg0 inet manual\nallow-hotplug eth1\niface eth1 inet dhcp\n");
        guest.write("/etc/udev/rules.d/70-persistent-net.rules", "x\n");
        guest.write("/var/lib/dhcp/dhclient.eth0.leases", "lease\n");
        guest.plan.nics = vec![examples::fixed(24, "192.0.2.1")];
        guest.run(&TASK).unwrap();
        let text = guest.read(INTERFACES);
        assert!(text.contains("auto br0\niface br0 inet manual\n"), "{text}");
        assert!(!text.contains("iface eth0"), "{text}");
        for gone in [
            cloud,
            "/etc/network/interfaces.d/own",
            "/etc/udev/rules.d/70-persistent-net.rules",
            "/var/lib/dhcp/dhclient.eth0.leases",
        ] {
            assert!(!guest.tree().exists(gone).unwrap(), "{gone}");
        }
        assert_eq!(guest.read(mixed), "iface wg0 inet manual\n");
        assert_eq!(guest.read(&format!("/var/lib/snf-image/aside{INTERFACES}")), main);
        assert_eq!(guest.attributes("/var/lib/snf-image"), (0o700, 0, 0));
        assert!(guest.warnings()[0].contains("makes eth0 part of a bridge"));
        let resolv = guest.read(RESOLV_CONF);
        assert!(resolv.ends_with("nameserver 192.0.2.53\nnameserver 2001:db8::53\n"));
        guest.tree().commit().unwrap();
        guest.renew();
        guest.events.clear();
        guest.run(&TASK).unwrap();
        assert!(guest.changed().is_empty(), "{:?}", guest.changed());
    }

    #[test]
    fn a_second_run_with_fewer_interfaces() {
        let mut guest = guest(Family::RedHat, "9", &["/usr/sbin/NetworkManager"]);
        guest.write(&format!("{NM_DIR}/cloud-init-eth0.nmconnection"), "x\n");
        guest.write("/etc/sysconfig/network-scripts/ifcfg-ens3", "x\n");
        guest.write("/etc/sysconfig/network-scripts/ifcfg-br-lan", "x\n");
        guest.plan.nics = vec![nic(), examples::dhcp()];
        guest.run(&TASK).unwrap();
        assert!(guest.tree().exists(format!("{NM_DIR}/snf-image-nic1.nmconnection")).unwrap());
        assert!(!guest.tree().exists(format!("{NM_DIR}/cloud-init-eth0.nmconnection")).unwrap());
        assert!(!guest.tree().exists("/etc/sysconfig/network-scripts/ifcfg-ens3").unwrap());
        assert!(guest.tree().exists("/etc/sysconfig/network-scripts/ifcfg-br-lan").unwrap());
        guest.plan.nics.pop();
        guest.run(&TASK).unwrap();
        assert!(!guest.tree().exists(format!("{NM_DIR}/snf-image-nic1.nmconnection")).unwrap());
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
