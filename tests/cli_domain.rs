//! The disks of libvirt domains: virsh is a program of this test that says what a real one says.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::cli_support::volumes::{Disks, ext4};
use crate::cli_support::{Guest, Run, snf_customize};

/// A directory with a virsh that knows the domain `web1`.
struct Libvirt {
    dir: tempfile::TempDir,
}

impl Libvirt {
    fn new(state: &str, saved: &str, disks: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        put(
            "info",
            &format!(
                "Id:             -\nName:           web1\nUUID:           0e6b-1\nOS Type:        hvm\n\
                 State:          {state}\nCPU(s):         1\nManaged save:   {saved}\n"
            ),
        );
        put(
            "xml",
            &format!(
                "<domain type='kvm'>\n<name>web1</name>\n<devices>{disks}</devices></domain>\n"
            ),
        );
        let here = dir.path().display();
        let script = format!(
            r#"#!/bin/sh
[ "$LC_ALL" = C ] || exit 9
echo "$@" >> {here}/asked
uri=qemu:///session
if [ "$1" = --connect ]; then uri=$2; shift 2; fi
[ "$1" = --quiet ] && shift
case "$*" in
uri) echo "$uri" ;;
"dominfo --domain web1") cat {here}/info ;;
"dumpxml --inactive --domain web1") cat {here}/xml ;;
"vol-path --pool default --vol vol1") cat {here}/volume ;;
*) echo "error: failed to get domain '$3'" >&2; exit 1 ;;
esac
"#
        );
        put("virsh", &script);
        fs::set_permissions(dir.path().join("virsh"), fs::Permissions::from_mode(0o755)).unwrap();
        Self { dir }
    }

    fn run(&self, words: &[&str]) -> Run {
        Run::of(self.command().args(words))
    }

    fn command(&self) -> Command {
        let path = std::env::var("PATH").unwrap();
        let mut command = snf_customize();
        command.env("PATH", format!("{}:{path}", self.dir.path().display()));
        command
    }
}

fn disk(format: &str, path: &Path, target: &str) -> String {
    format!(
        "<disk type='file' device='disk'><driver name='qemu' type='{format}'/><source file='{}'/>\
         <target dev='{target}' bus='virtio'/></disk>",
        path.display()
    )
}

#[test]
fn a_domain_that_is_shut_off() {
    let guest = Guest::debian();
    let cd = "<disk type='file' device='cdrom'><target dev='sda'/><readonly/></disk>";
    let image = guest.dir.path().join("w.qcow2");
    let made = Command::new("qemu-img")
        .args(["convert", "-f", "raw", "-O", "qcow2"])
        .args([&guest.image, &image])
        .status();
    assert!(made.expect("this test needs qemu-img").success());
    let libvirt = Libvirt::new("shut off", "no", &format!("{cd}{}", disk("qcow2", &image, "vda")));
    let run = libvirt.run(&["apply", "-d", "web1", "--hostname", "vm"]);
    assert!(run.works().stderr.is_empty(), "{run:?}");
    assert!(run.last_line().contains(image.to_str().unwrap()), "{run:?}");
    // Each command finds its own words after the domain.
    assert_eq!(libvirt.run(&["cat", "-d", "web1", "/etc/hostname"]).works().stdout, "vm\n");
    let listed = libvirt.run(&["ls", "--domain=web1", "/etc/ssh"]);
    assert!(listed.works().stdout.contains("sshd_config"), "{listed:?}");
    let local = guest.dir.path().join("local");
    libvirt.run(&["get", "-d", "web1", "/etc/motd", local.to_str().unwrap()]).works();
    assert_eq!(fs::read_to_string(&local).unwrap(), "welcome\n");
    let found = libvirt.run(&["inspect", "--json", "-d", "web1", "--connect", "qemu:///system"]);
    let found: Value = serde_json::from_str(&found.works().stdout).unwrap();
    assert_eq!(found["format"], "qcow2");
    assert_eq!(found["inspection"]["guest"]["hostname"], "vm");
    libvirt.run(&["check", "-d", "web1"]).works();
    let asked = fs::read_to_string(libvirt.dir.path().join("asked")).unwrap();
    assert!(asked.contains("--connect qemu:///system --quiet dumpxml"), "{asked}");
    // libvirt says the format, and it is not guessed.
    fs::write(
        libvirt.dir.path().join("xml"),
        format!("<domain><devices>{}</devices></domain>", disk("raw", &image, "vda")),
    )
    .unwrap();
    libvirt
        .run(&["apply", "-d", "web1", "--hostname", "x"])
        .fails(3, "a qcow2 file and no raw disk");
}

#[test]
fn domains_that_are_left_alone() {
    let guest = Guest::debian();
    let before = guest.bytes();
    let entry = disk("raw", &guest.image, "vda");
    let edit = ["apply", "-d", "web1", "--hostname", "vm"];
    for state in ["running", "paused", "in shutdown", "crashed"] {
        let libvirt = Libvirt::new(state, "no", &entry);
        libvirt.run(&edit).fails(7, &format!("-d web1: the domain is {state}; shut it down first"));
        libvirt.run(&["inspect", "-d", "web1"]).fails(7, "the domain is");
    }
    let saved = Libvirt::new("shut off", "yes", &entry);
    saved.run(&edit).fails(7, "managedsave-remove web1");
    saved.run(&["inspect", "-d", "web1"]).works();

    let libvirt = Libvirt::new("shut off", "no", &entry);
    libvirt
        .run(&["apply", "-d", "web2", "--hostname", "vm"])
        .fails(5, "failed to get domain 'web2'");
    libvirt.run(&[&edit[..], &["--format", "raw"]].concat()).fails(2, "libvirt says the format");
    libvirt
        .run(&[&edit[..], &["--connect", "qemu+ssh://root@far/system"]].concat())
        .fails(5, "on the machine root@far");
    libvirt.run(&["deploy", "a", "b", "-d", "web1"]).fails(2, "-d is for apply");
    assert_eq!(libvirt.run(&["apply", "x.raw", "-d", "web1", "--hostname", "vm"]).code, 2);
    let document = libvirt.run(&["apply", "-d", "web2", "--hostname", "vm", "--json"]);
    let document: Value = serde_json::from_str(&document.stdout).unwrap();
    assert_eq!((&document["result"], &document["disk"]), (&"device".into(), &"domain web2".into()));

    let network =
        "<disk type='network'><source protocol='rbd' name='p/i'/><target dev='vda'/></disk>";
    Libvirt::new("shut off", "no", network)
        .run(&edit)
        .fails(5, "the disk vda is left out: it is of the type network (rbd)");
    Libvirt::new("shut off", "no", "").run(&edit).fails(5, "has no disk");
    let two = Libvirt::new("shut off", "no", &format!("{network}{}", entry.replace("vda", "vdb")));
    let run = two.run(&[&edit[..], &["--dry-run"]].concat());
    assert!(run.works().stderr.contains("warning: -d web1: the disk vda is left out"), "{run:?}");
    assert!(guest.bytes() == before);

    let mut without = snf_customize();
    without.env("PATH", guest.dir.path()).args(edit);
    Run::of(&mut without).fails(5, "install libvirt-clients");
}

/// A group over the two disks of a domain, one of them in a storage pool; the root is named.
#[test]
fn all_disks_of_a_domain() {
    let disks = Disks::whole(&[80, 80]);
    disks.group("vg", &[]);
    let loops = disks.attach();
    loops.create(&["-n", "root", "-l", "50", "vg", &loops.names[0]]);
    loops.lvm(&["lvextend", "-q", "-l", "+14", "vg/root", &loops.names[1]]);
    loops.create(&["-n", "other", "-l", "20", "vg"]);
    drop(loops);
    disks.write("vg/root", &Guest::debian().bytes());
    let id = "11111111-2222-3333-4444-555555555555";
    disks.write("vg/other", &ext4(disks.dir.path(), "other", 20, id, ""));
    let volume = "<disk type='volume' device='disk'><driver type='raw'/><source pool='default' volume='vol1'/>\
                  <target dev='vdb'/></disk>";
    let first = disk("raw", &disks.files[0], "vda");
    let libvirt = Libvirt::new("shut off", "no", &format!("{first}{volume}"));
    fs::write(libvirt.dir.path().join("volume"), format!("{}\n", disks.path(1))).unwrap();
    let run =
        libvirt.run(&["apply", "-d", "web1", "--hostname", "vm", "--root-partition", "vg/root"]);
    assert!(run.works().stdout.contains("on logical volume vg/root"), "{run:?}");
    let root = disks.guest("vg/root");
    root.check();
    assert_eq!(root.cat("/etc/hostname"), "vm\n");
    for (options, code) in [
        (&["--root-partition", "vg/other"][..], 3),
        (&["--root-partition", "vg/none"], 3),
        (&["--root-partition", "root"], 2),
        (&["--root-partition", "0"], 2),
    ] {
        let words = [&["inspect", "-d", "web1"][..], options].concat();
        let run = libvirt.run(&words);
        // A disk without that root is a result of inspect; one that is misspelt is not.
        assert!(run.code == code || code == 3 && run.code == 0, "{options:?} {run:?}");
    }
    libvirt.run(&["apply", "-d", "web1", "--vm", "--hostname", "x"]).fails(3, "--vm takes one");
    let words = ["apply", disks.path(0), "--disk", disks.path(1), "--vm", "--hostname", "x"];
    libvirt.run(&words).fails(2, "--disk and --vm exclude each other");
    let listed = libvirt.run(&["ls", "--domain", "web1", "--partition", "vg/other", "/"]);
    assert!(listed.works().stdout.contains("lost+found"), "{listed:?}");
    let read = libvirt.run(&["cat", "-d", "web1", "--root-partition", "vg/root", "/etc/hostname"]);
    assert_eq!(read.works().stdout, "vm\n");
}
