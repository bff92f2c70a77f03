//! The command line tool on models of systems that ostree deploys, and of Flatcar.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::os::unix::fs::{FileExt, symlink};
use std::path::Path;

use serde_json::Value;

use crate::cli_support::volumes::{Disks, MIB, image};
use crate::cli_support::{Guest, Run, snf_customize};

const STATE: &str = "ostree/deploy/fcos";
/// First byte of the second partition.
const ROOT: usize = 17 << 20;

/// The root's file system: a new deployment and an old one, as `ostree admin deploy` lays them out.
fn sysroot() -> Guest {
    Guest::debian_with(|tree| {
        let new = tree.join(STATE).join("deploy/new.0");
        let names: Vec<_> = fs::read_dir(tree).unwrap().map(|entry| entry.unwrap()).collect();
        fs::create_dir_all(&new).unwrap();
        for entry in names {
            fs::rename(entry.path(), new.join(entry.file_name())).unwrap();
        }
        for (name, target) in [("root", "var/roothome"), ("home", "var/home")] {
            fs::remove_dir_all(new.join(name)).unwrap();
            symlink(target, new.join(name)).unwrap();
        }
        fs::create_dir_all(new.join("sysroot")).unwrap();
        let old = tree.join(STATE).join("deploy/old.0");
        fs::create_dir_all(old.join("etc")).unwrap();
        fs::create_dir_all(old.join("usr/lib")).unwrap();
        fs::create_dir_all(old.join("var")).unwrap();
        fs::write(old.join("etc/hostname"), "old\n").unwrap();
        fs::write(old.join("usr/lib/os-release"), "ID=fedora\nPRETTY_NAME=\"Old\"\n").unwrap();
        for dir in ["var/roothome", "var/home/ann"] {
            fs::create_dir_all(tree.join(STATE).join(dir)).unwrap();
        }
        fs::create_dir_all(tree.join("ostree/repo")).unwrap();
        for (boot, deployment) in [("aaaa", "new.0"), ("bbbb", "old.0")] {
            let dir = tree.join("ostree/boot.1.1/fcos").join(boot);
            fs::create_dir_all(&dir).unwrap();
            let target = format!("../../../deploy/fcos/deploy/{deployment}");
            symlink(target, dir.join("0")).unwrap();
        }
        symlink("boot.1.1", tree.join("ostree/boot.1")).unwrap();
    })
}

/// The file system of /boot, whose entries boot these deployments: version and checksum.
fn boot(entries: &[(u32, &str)]) -> Guest {
    let tree = tempfile::tempdir().unwrap();
    let dir = tree.path().join("loader.1/entries");
    fs::create_dir_all(&dir).unwrap();
    symlink("loader.1", tree.path().join("loader")).unwrap();
    for (version, checksum) in entries {
        let text = format!(
            "title Fedora CoreOS\nversion {version}\noptions rw root=UUID=1 ostree=/ostree/boot.1/fcos/{checksum}/0\nlinux /x\n"
        );
        fs::write(dir.join(format!("ostree-{version}.conf")), text).unwrap();
    }
    Guest::from_tree(tree.path(), "8M")
}

fn disk(boot: &Guest, root: &Guest) -> Disks {
    let disks = Disks::partitioned("gpt", 90);
    let file = fs::File::options().write(true).open(&disks.files[0]).unwrap();
    file.write_all_at(&boot.bytes(), MIB).unwrap();
    disks.put(0, &root.bytes());
    disks
}

fn on(verb: &str, disks: &Disks, options: &[&str]) -> Run {
    Run::of(snf_customize().args([verb, disks.path(0)]).args(options))
}

/// The root's file system of a disk.
fn root(disks: &Disks) -> Guest {
    let bytes = fs::read(Path::new(disks.path(0))).unwrap();
    image(&bytes[ROOT..ROOT + (64 << 20)])
}

#[test]
fn the_deployment_that_boots_next() {
    let disks = disk(&boot(&[(1, "bbbb"), (2, "aaaa")]), &sysroot());
    let new = disks.dir.path().join("new");
    fs::write(&new, "new\n").unwrap();
    let write = |path: &str| format!("{path}:file:{}", new.display());
    let (to_root, to_home) = (write("/root/new"), write("/home/ann/new"));
    let options =
        ["--hostname", "vm", "--root-password", "hash:!", "--write", &to_root, "--write", &to_home];
    let run = on("apply", &disks, &options);
    assert!(run.works().stderr.lines().all(|line| line.contains("not over ssh")), "{run:?}");
    let after = root(&disks);
    after.check();
    let of = |path: &str| after.cat(&format!("/{STATE}/{path}"));
    assert_eq!(of("deploy/new.0/etc/hostname"), "vm\n");
    assert_eq!(of("deploy/old.0/etc/hostname"), "old\n");
    assert!(of("deploy/new.0/etc/shadow").starts_with("root:!:"));
    assert_eq!(of("var/roothome/new") + &of("var/home/ann/new"), "new\nnew\n");

    for path in ["/usr/bin/new", "/new", "/boot/new"] {
        let before = fs::read(disks.path(0)).unwrap();
        let run = on("apply", &disks, &["--write", &write(path)]);
        run.fails(1, "only /etc and /var of a system that ostree deploys can be changed");
        assert!(run.stderr.contains(path), "{run:?}");
        assert!(fs::read(disks.path(0)).unwrap() == before);
    }
    let run = on("inspect", &disks, &["--json"]);
    let document: Value = serde_json::from_str(&run.works().stdout).unwrap();
    let guest = &document["inspection"]["guest"];
    assert_eq!(guest["deployment"], format!("/{STATE}/deploy/new.0"));
    assert_eq!((&guest["hostname"], &guest["root_partition"]), (&"vm".into(), &2.into()));
    assert_eq!(guest["mounts"][2]["path"], "/var");
}

/// The entry counts, and not the age; and without one several deployments are too many.
#[test]
fn the_entry_decides() {
    let disks = disk(&boot(&[(10, "bbbb"), (9, "aaaa")]), &sysroot());
    let page = on("inspect", &disks, &[]);
    assert!(page.works().stdout.contains("Old, deployed by ostree"), "{page:?}");
    assert!(page.stdout.contains("host name   old"), "{page:?}");

    let disks = disk(&boot(&[(1, "cccc")]), &sysroot());
    let before = fs::read(disks.path(0)).unwrap();
    let run = on("apply", &disks, &["--hostname", "vm"]);
    run.fails(3, "no boot loader entry says which one boots next");
    assert!(fs::read(disks.path(0)).unwrap() == before);
    on("inspect", &disks, &[]).works();
}

/// Flatcar's /usr is a partition of its own, and its root has no files before the first boot.
#[test]
fn flatcar() {
    let usr = tempfile::tempdir().unwrap();
    for dir in ["lib", "bin", "share/flatcar"] {
        fs::create_dir_all(usr.path().join(dir)).unwrap();
    }
    let release = "ID=flatcar\nID_LIKE=coreos\nPRETTY_NAME=\"Flatcar Container Linux 4081\"\n";
    fs::write(usr.path().join("lib/os-release"), release).unwrap();
    let usr = Guest::from_tree(usr.path(), "8M");
    let fresh = disk(&usr, &Guest::empty());
    let run = on("apply", &fresh, &["--hostname", "vm"]);
    run.fails(3, "give settings as an Ignition configuration");
    let page = on("inspect", &fresh, &[]);
    assert!(page.works().stdout.contains("the /usr of Flatcar Container Linux 4081"), "{page:?}");

    // After a boot it has an /etc, and the name of the system is on the other partition.
    let booted = Guest::debian_with(|tree| {
        fs::remove_dir_all(tree.join("usr")).unwrap();
        fs::create_dir_all(tree.join("usr")).unwrap();
    });
    let booted = disk(&usr, &booted);
    let run = on("apply", &booted, &["--hostname", "vm"]);
    assert!(run.works().stdout.contains("Flatcar Container Linux 4081 on partition 2"), "{run:?}");
    assert_eq!(root(&booted).cat("/etc/hostname"), "vm\n");
}
