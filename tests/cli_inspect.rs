//! `snf-customize inspect`: what a guest is made of, with the evidence, and disks without a system.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::cli_support::{Guest, Run, snf_customize};

fn put(tree: &Path, path: &str, content: impl AsRef<[u8]>) {
    let path = tree.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

fn inspect(guest: &Guest) -> (Value, String) {
    let text = Run::of(snf_customize().arg("inspect").arg(&guest.image)).works().stdout.clone();
    let run = Run::of(snf_customize().arg("inspect").arg(&guest.image).arg("--json"));
    (serde_json::from_str(&run.works().stdout).unwrap(), text)
}

#[test]
fn facts_have_their_evidence() {
    let guest = Guest::debian_with(|tree| {
        let mut elf = [0; 64];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        elf[18] = 62;
        put(tree, "bin/sh", elf);
        put(
            tree,
            "var/lib/dpkg/status",
            "Package: bash\nStatus: install ok installed\nVersion: 5.2\nArchitecture: amd64\n\n\
             Package: vim\nStatus: deinstall ok config-files\nVersion: 9\nArchitecture: amd64\n",
        );
        put(tree, "usr/sbin/ifup", "");
        put(tree, "etc/systemd/system/multi-user.target.wants/ssh.service", "");
        put(tree, "boot/grub/grub.cfg", "");
        put(tree, "boot/grub/i386-pc/core.img", "");
    });
    let (document, text) = inspect(&guest);
    let guest = &document["inspection"]["guest"];
    for (name, value, evidence) in [
        ("family", "debian", "/etc/os-release"),
        ("architecture", "x86_64", "/bin/sh"),
        ("init", "systemd", "systemd"),
        ("network", "ifupdown", "/usr/sbin/ifup"),
        ("selinux", "off", "/etc/selinux/config"),
        ("sshd", "on", "/usr/sbin/sshd"),
        ("package_manager", "dpkg", "/var/lib/dpkg/status"),
        ("boot", "bios (grub)", "/boot/grub/i386-pc"),
    ] {
        let fact = &guest["facts"][name];
        assert_eq!(fact["value"], value, "{name}: {fact}");
        assert!(fact["evidence"].as_str().unwrap().contains(evidence), "{name}: {fact}");
    }
    let packages = guest["packages"]["installed"].as_array().unwrap();
    assert_eq!(packages.len(), 1);
    assert_eq!(packages[0]["name"], "bash");
    for part in ["dpkg, 1 installed", "x86_64 (the ELF header of /bin/sh", "bios (grub)"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

/// A system of before os-release has its name and its host name.
#[test]
fn an_old_system_has_its_name() {
    let guest = Guest::debian_with(|tree| {
        fs::remove_file(tree.join("etc/os-release")).unwrap();
        fs::remove_file(tree.join("usr/lib/os-release")).unwrap();
        fs::remove_file(tree.join("etc/hostname")).unwrap();
        put(tree, "etc/redhat-release", "CentOS release 5.11 (Final)\n");
        put(tree, "etc/sysconfig/network", "NETWORKING=yes\nHOSTNAME=old.example.org\n");
        put(tree, "var/lib/rpm/Packages", "");
    });
    let (document, text) = inspect(&guest);
    let guest = &document["inspection"]["guest"];
    assert_eq!(guest["system"], "CentOS release 5.11 (Final)");
    assert_eq!(guest["version"], "5.11");
    assert_eq!(guest["hostname"], "old.example.org");
    assert_eq!(guest["facts"]["family"]["value"], "redhat");
    assert!(guest["packages"]["unread"].as_str().unwrap().contains("rpm"), "{guest}");
    assert!(text.contains("rpm, which cannot be listed here (/var/lib/rpm)"), "{text}");
}
