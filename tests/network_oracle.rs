//! Our files for a guest's network, put into force by the guest's own programs: ifupdown, BusyBox and
//! systemd-networkd configure real interfaces in a name space, netplan and NetworkManager read their
//! files. Needs root and the tree that `cargo xtask test` prepares.

use std::fs::{self, OpenOptions};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use snf_fs::{BlockDevice, FileDevice};
use snf_image::customize::{Mode, customize};
use snf_image::network::{Ipv4, Ipv6, Mac, Nic};
use snf_image::plan::{HostKeys, MachineId, Plan};
use snf_image::random::{Clock, Entropy};

use crate::support::{guest_tools, scratch};

/// The first has a gateway outside of its network, the second one inside: two default routes.
fn nics() -> Vec<Nic> {
    let mut first = Nic::new(
        0,
        Mac([0xaa, 0, 0, 0, 0, 1]),
        Ipv4::Static {
            address: "192.0.2.10".parse().unwrap(),
            prefix: 32,
            gateway: Some("198.51.100.1".parse().unwrap()),
        },
        Ipv6::Static {
            address: "2001:db8::5".parse().unwrap(),
            prefix: 64,
            gateway: Some("fe80::1".parse().unwrap()),
        },
    );
    first.mtu = Some(1400);
    first.dns = vec!["192.0.2.53".parse().unwrap()];
    let second = Nic::new(
        1,
        Mac([0xaa, 0, 0, 0, 0, 2]),
        Ipv4::Static {
            address: "203.0.113.7".parse().unwrap(),
            prefix: 24,
            gateway: Some("203.0.113.1".parse().unwrap()),
        },
        Ipv6::None,
    );
    vec![first, second]
}

/// A guest of these files after a run; the directory holds its `/etc` in `etc`.
fn customized(files: &[(&str, &str)]) -> tempfile::TempDir {
    let directory = scratch();
    let tree = directory.path().join("tree");
    for (path, text) in files {
        let path = tree.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        match text.strip_prefix("-> ") {
            Some(target) => std::os::unix::fs::symlink(target, path).unwrap(),
            None => fs::write(path, text).unwrap(),
        }
    }
    let image = directory.path().join("image");
    let make = Command::new("mke2fs")
        .args(["-q", "-t", "ext4", "-d"])
        .arg(&tree)
        .arg(&image)
        .arg("16M")
        .status()
        .unwrap();
    assert!(make.success());
    let file = OpenOptions::new().read(true).write(true).open(&image).unwrap();
    let device: Arc<dyn BlockDevice> = Arc::new(FileDevice::from_file(file).unwrap());
    let plan = Plan {
        nics: nics(),
        machine_id: MachineId::Keep,
        host_keys: HostKeys::Keep,
        ..Plan::default()
    };
    let mut events = Vec::new();
    let (mut entropy, clock) = (Entropy::seeded(7), Clock::fixed(86_400 * 20_000));
    customize(device, &plan, &mut entropy, &clock, &mut events, Mode::Commit).unwrap();
    let dump = Command::new("debugfs")
        .arg("-R")
        .arg(format!("rdump /etc {}", directory.path().display()))
        .arg(&image)
        .output()
        .unwrap();
    assert!(dump.status.success());
    directory
}

/// Runs shell text with `$tree` (the tools) and `$work` in name spaces of its own, with two cards
/// whose order is not the instance's, and a bridge that has the address of the first.
fn judged(work: &Path, names: [&str; 2], script: &str) -> String {
    let prelude = r#"
        tree=$1 work=$2
        mount -t tmpfs tmpfs "$tree/run"
        mount -t tmpfs tmpfs "$tree/tmp"
        mount --bind /dev "$tree/dev"
        mount -t proc proc "$tree/proc"
        mount -o ro -t sysfs sysfs "$tree/sys"
        mount --bind "$work" "$tree/mnt"
        ip link set lo up
        ip link add "$4" address aa:00:00:00:00:02 type veth peer name p1
        ip link add "$3" address aa:00:00:00:00:01 type veth peer name p0
        ip link set p0 up
        ip link set p1 up
        state() {
            ip -o addr show scope global
            ip -o link
            ip route
            ip -6 route show default
        }"#;
    let output = Command::new("unshare")
        .args(["-n", "-m", "-p", "-f", "sh", "-ec", &format!("{prelude}\n{script}"), "sh"])
        .args([&guest_tools(), work])
        .args(names)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{text}");
    text
}

/// Every address, route and MTU that was asked for is there.
fn assert_state(text: &str, names: [&str; 2]) {
    let [first, second] = names;
    let has = |parts: &[&str]| {
        assert!(
            text.lines().any(|line| parts.iter().all(|part| line.contains(part))),
            "{parts:?} is missing: {text}"
        );
    };
    has(&[first, "inet 192.0.2.10/32"]);
    has(&[first, "inet6 2001:db8::5/64"]);
    has(&[second, "inet 203.0.113.7/24"]);
    has(&[first, "mtu 1400"]);
    has(&["default via 198.51.100.1", first, "metric 100"]);
    has(&["default via 203.0.113.1", second, "metric 200"]);
    has(&["default via fe80::1", first]);
}

#[test]
fn ifupdown_brings_it_up() {
    let guest = customized(&[
        ("etc/os-release", "ID=debian\nVERSION_ID=12\n"),
        ("sbin/ifup", ""),
        (
            "etc/network/interfaces",
            "auto lo\niface lo inet loopback\n    up ip addr add 10.9.9.9/32 dev lo\n\
             auto ens5\niface ens5 inet dhcp\nsource /etc/network/interfaces.d/*\n",
        ),
        ("etc/network/interfaces.d/50-cloud-init", "auto ens5\niface ens5 inet dhcp\n"),
    ]);
    let names = ["ens5", "ens4"];
    let script = r#"
        mount --bind "$work/etc/network/interfaces" "$tree/etc/network/interfaces"
        mount --bind "$work/etc/network/interfaces.d" "$tree/etc/network/interfaces.d"
        chroot "$tree" ifup -a
        state"#;
    let text = judged(guest.path(), names, script);
    assert_state(&text, names);
    assert!(text.contains("10.9.9.9/32"), "{text}");
}

#[test]
fn busybox_brings_it_up() {
    let guest = customized(&[
        ("etc/alpine-release", "3.18.4\n"),
        ("etc/os-release", "ID=alpine\nVERSION_ID=3.18.4\n"),
        ("sbin/ifup", "-> /bin/busybox"),
        ("etc/network/interfaces", "auto eth0\niface eth0 inet dhcp\n"),
    ]);
    let names = ["eth0", "eth1"];
    let script = r#"
        # BusyBox keeps in /var/run which interfaces are up, and gives lo its address itself.
        mount -t tmpfs tmpfs "$tree/var/run"
        ip link set lo down
        ip addr flush dev lo
        chroot "$tree" busybox ifup -a -i /mnt/etc/network/interfaces
        state"#;
    let text = judged(guest.path(), names, script);
    assert_state(&text, names);
}

#[test]
fn networkd_configures_it() {
    let wants = "etc/systemd/system/multi-user.target.wants/systemd-networkd.service";
    let guest = customized(&[
        ("etc/os-release", "ID=debian\nVERSION_ID=12\n"),
        (wants, "-> /lib/systemd/system/systemd-networkd.service"),
        ("usr/lib/systemd/systemd", ""),
        ("usr/lib/x86_64-linux-gnu/systemd/libsystemd-shared-252.so", ""),
        ("etc/systemd/network/00-eth.network", "[Match]\nName=e*\n[Network]\nDHCP=yes\n"),
    ]);
    let ours = guest.path().join("etc/systemd/network/0-snf-image-nic0.network");
    let text = fs::read_to_string(&ours).unwrap();
    assert!(text.contains("[Match]\nPermanentMACAddress=aa:00:00:00:00:01\n"), "{text}");
    // The hardware of a test has no address that it was born with.
    let script = r#"
        sed -i 's/^Permanent//' "$work"/etc/systemd/network/*.network
        mkdir -p "$tree/run/systemd/netif/links" "$tree/run/systemd/netif/leases"
        # In a container networkd does not wait for udev.
        echo lxc > "$tree/run/systemd/container"
        chroot "$tree" chown -R systemd-network:systemd-network /run/systemd/netif
        mount --bind "$work/etc/systemd/network" "$tree/etc/systemd/network"
        chroot "$tree" timeout 30 /lib/systemd/systemd-networkd &
        daemon=$!
        for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
            sleep 0.5
            state > "$work/state"
            grep -q 'default via fe80::1' "$work/state" &&
                grep -q 'default via 203.0.113.1' "$work/state" && break
        done
        cat "$work/state"
        kill $daemon
        wait $daemon || true"#;
    let names = ["ens5", "ens4"];
    let text = judged(guest.path(), names, script);
    assert_state(&text, names);
}

#[test]
fn netplan_takes_it() {
    let guest = customized(&[
        ("etc/os-release", "ID=ubuntu\nVERSION_ID=24.04\nID_LIKE=debian\n"),
        ("usr/sbin/netplan", ""),
        (
            "etc/netplan/50-cloud-init.yaml",
            "network:\n  version: 2\n  ethernets:\n    ens5:\n      dhcp4: true\n",
        ),
    ]);
    let script = r#"
        chroot "$tree" netplan generate --root-dir /mnt
        cat "$work/run/systemd/network/10-netplan-a-snf-nic0.network"
        ls "$work/run/systemd/network""#;
    let text = judged(guest.path(), ["ens5", "ens4"], script);
    for part in [
        "PermanentMACAddress=aa:00:00:00:00:01",
        "Address=192.0.2.10/32",
        "Address=2001:db8::5/64",
        "Gateway=198.51.100.1",
        "GatewayOnLink=true",
        "Metric=100",
        "DNS=192.0.2.53",
        "MTUBytes=1400",
        "10-netplan-a-snf-nic1.network",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    for part in ["onflict", "10-netplan-ens5", "eprecated"] {
        assert!(!text.contains(part), "{part}: {text}");
    }
}

#[test]
fn network_manager_takes_it() {
    let guest = customized(&[
        ("etc/os-release", "ID=rocky\nVERSION_ID=9.3\nID_LIKE=\"rhel fedora\"\n"),
        ("usr/sbin/NetworkManager", ""),
    ]);
    // Read, checked and written again in NetworkManager's own form.
    let script = r#"
        for nic in 0 1; do
            chroot "$tree" nmcli --offline connection modify connection.autoconnect yes \
                < "$work/etc/NetworkManager/system-connections/snf-image-nic$nic.nmconnection"
        done"#;
    let text = judged(guest.path(), ["ens5", "ens4"], script);
    for part in [
        "mac-address=AA:00:00:00:00:01",
        "mtu=1400",
        "autoconnect-priority=999",
        "address1=192.0.2.10/32,198.51.100.1",
        "address1=2001:db8::5/64,fe80::1",
        "address1=203.0.113.7/24,203.0.113.1",
        "dns=192.0.2.53;",
        "route-metric=200",
        "method=link-local",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}
