//! The command line tool on guests in logical volumes and LUKS containers, made by lvm2 and
//! cryptsetup and judged by them and by e2fsck. Needs root and loop devices.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;

use serde_json::Value;

use crate::cli_support::volumes::{Disks, MIB, ext4};
use crate::cli_support::{Guest, Run, snf_customize};

const BOOT: &str = "11111111-2222-3333-4444-555555555555";

fn on(verb: &str, disks: &Disks, options: &[&str]) -> Run {
    Run::of(snf_customize().args([verb, disks.path(0)]).args(options))
}

/// A guest whose fstab has these lines.
fn debian(fstab: &str) -> Guest {
    Guest::debian_with(|tree| {
        fs::write(tree.join("etc/fstab"), fstab).unwrap();
        for dir in ["boot", "home", "srv", "data"] {
            fs::create_dir_all(tree.join(dir)).unwrap();
        }
    })
}

/// The layout of an installer: /boot on a partition, the rest in a group beside it. Every name that
/// a guest can have for a volume leads to it.
#[test]
fn an_installers_layout() {
    for label in ["gpt", "dos"] {
        let disks = Disks::partitioned(label, 160);
        disks.group("rl-x", &[("root", 80), ("home", 12), ("my-srv", 12), ("swap", 4)]);
        let dir = disks.dir.path();
        let id = disks.attach().lvm(&["lvs", "--noheadings", "-o", "vg_uuid,lv_uuid", "rl-x/swap"]);
        let id: String = id.replace(['-', ' ', '\n'], "");
        let fstab = format!(
            "/dev/mapper/rl--x-root / ext4 defaults 0 1\nUUID={BOOT} /boot ext4 defaults 0 2\n\
             /dev/rl-x/home /home ext4 defaults 0 2\n\
             /dev/disk/by-id/dm-name-rl--x-my--srv /srv ext4 defaults 0 2\n\
             /dev/disk/by-id/dm-uuid-LVM-{id} /data ext4 defaults 0 2\n"
        );
        disks.write("rl-x/root", &debian(&fstab).bytes());
        disks.write("rl-x/home", &ext4(dir, "home", 12, BOOT.replace('1', "2").as_str(), "home"));
        disks.write("rl-x/my-srv", &ext4(dir, "srv", 12, BOOT.replace('1', "3").as_str(), "srv"));
        disks.write("rl-x/swap", &ext4(dir, "data", 4, BOOT.replace('1', "4").as_str(), ""));
        let boot = ext4(dir, "boot.img", 16, BOOT, "boot");
        let file = fs::File::options().write(true).open(&disks.files[0]).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, &boot, MIB).unwrap();

        let new = dir.join("new");
        fs::write(&new, "new\n").unwrap();
        let write = |path: &str| format!("{path}:file:{}", new.display());
        let writes = ["/boot/new", "/home/new", "/srv/new", "/data/new"].map(write);
        let mut options = vec!["--hostname", "vm"];
        for write in &writes {
            options.extend(["--write", write]);
        }
        let run = on("apply", &disks, &options);
        assert!(run.works().stderr.is_empty(), "{run:?}");
        assert!(run.stdout.contains(" on logical volume rl-x/root\n"), "{run:?}");
        let root = disks.guest("rl-x/root");
        root.check();
        assert_eq!(root.cat("/etc/hostname"), "vm\n");
        for volume in ["rl-x/home", "rl-x/my-srv", "rl-x/swap"] {
            let volume = disks.guest(volume);
            volume.check();
            assert_eq!(volume.cat("/new"), "new\n");
        }
        disks.check("rl-x");

        let run = on("inspect", &disks, &[]);
        let page = &run.works().stdout;
        for part in [
            "LVM2_member  -     a physical volume of the group rl-x",
            "volume group rl-x: 141 MiB, 33 MiB free, on partition 2\n",
            "Debian GNU/Linux 12 (bookworm) on logical volume rl-x/root",
            "/srv (ext4, ",
        ] {
            assert!(page.contains(part), "{part}\n{page}");
        }
        let run = on("inspect", &disks, &["--json"]);
        let document: Value = serde_json::from_str(&run.works().stdout).unwrap();
        let found = &document["inspection"];
        assert_eq!(found["guest"]["root"], "logical volume rl-x/root");
        assert_eq!(found["groups"][0]["free"], 33 * MIB);
        assert_eq!(found["groups"][0]["physical_volumes"], serde_json::json!([1]));
        let volume = &found["volumes"][4];
        assert_eq!(volume["place"], "logical volume rl-x/my-srv");
        assert_eq!((&volume["layer"], &volume["lies_in"]), (&"lv".into(), &serde_json::json!([1])));
        assert_eq!(volume["paths"][0], "/dev/mapper/rl--x-my--srv");
        // The kernel finds the file system there, too.
        assert_eq!(volume["start"], (17 + 1 + 80 + 12) * MIB);

        let run = on("check", &disks, &[]);
        assert!(run.works().stdout.contains("logical volume rl-x/root: ext4, "), "{run:?}");
        assert!(run.stdout.contains("no damage found in 5 file systems"), "{run:?}");
    }
}

/// Volumes over two disks, which are whole physical volumes, in one piece after the other and in
/// stripes.
#[test]
fn a_group_over_two_disks() {
    let disks = Disks::whole(&[80, 80]);
    disks.group("vg", &[]);
    let loops = disks.attach();
    loops.create(&["-n", "root", "-l", "50", "vg", &loops.names[0]]);
    loops.lvm(&["lvextend", "-q", "-l", "+14", "vg/root", &loops.names[1]]);
    loops.create(&["-n", "home", "-i", "2", "-I", "64k", "-l", "20", "vg"]);
    drop(loops);
    disks.write("vg/root", &debian("/dev/vg/home /home ext4 defaults 0 2\n").bytes());
    disks.write("vg/home", &ext4(disks.dir.path(), "home", 20, BOOT, ""));
    let before: Vec<_> = disks.files.iter().map(|file| fs::read(file).unwrap()).collect();

    let alone = on("apply", &disks, &["--hostname", "vm"]);
    alone.fails(3, "lies on a physical volume that is not among the disks");
    let page = on("inspect", &disks, &[]);
    assert!(page.works().stdout.contains("on the disk, a missing disk"), "{page:?}");
    on("apply", &disks, &["--hostname", "vm", "--disk", disks.path(0)]).fails(2, "given twice");
    for (file, before) in disks.files.iter().zip(&before) {
        assert!(fs::read(file).unwrap() == *before);
    }

    let new = disks.dir.path().join("new");
    fs::write(&new, "new\n".repeat(100_000)).unwrap();
    let write = format!("/home/new:file:{}", new.display());
    let second = ["--disk", disks.path(1)];
    let run =
        on("apply", &disks, &[&["--hostname", "vm", "--write", &write], &second[..]].concat());
    assert!(run.works().stderr.is_empty(), "{run:?}");
    let (root, home) = (disks.guest("vg/root"), disks.guest("vg/home"));
    root.check();
    home.check();
    assert_eq!(root.cat("/etc/hostname"), "vm\n");
    assert_eq!(home.cat("/new").len(), 400_000);
    disks.check("vg");
    let page = on("inspect", &disks, &second);
    assert!(page.works().stdout.contains(", on the disk, disk 2\n"), "{page:?}");
    // In either order, and each disk is locked.
    let swapped =
        Run::of(snf_customize().args(["inspect", disks.path(1), "--disk", disks.path(0)]));
    assert!(swapped.works().stdout.contains("on logical volume vg/root"), "{swapped:?}");
    let held = fs::File::options().read(true).write(true).open(&disks.files[1]).unwrap();
    snf_claim::claim(&held, snf_claim::Purpose::Write).unwrap();
    on("inspect", &disks, &second).fails(7, "disk2.raw is in use");
}

/// lvm2 cannot make a mirror without device-mapper; its metadata is restored, and both legs are ours.
#[test]
fn a_mirrored_root() {
    let disks = Disks::whole(&[80, 80]);
    disks.group("vg", &[]);
    let volume = |name: &str, status: &str, segment: &str| {
        let id: String =
            name.replace('_', "").chars().chain("x".repeat(32).chars()).take(32).collect();
        format!(
            "{name} {{\nid = \"{id}\"\nstatus = [\"READ\", \"WRITE\"{status}]\nsegment_count = 1\n\
             segment1 {{\nstart_extent = 0\n{segment}\n}}\n}}\n"
        )
    };
    let part = |name: &str, pv: usize, first: u64, count: u64| {
        let stripes = format!("stripe_count = 1\nstripes = [\"pv{pv}\", {first}]");
        volume(name, "", &format!("extent_count = {count}\ntype = \"striped\"\n{stripes}"))
    };
    let legs = "device_count = 2\nregion_size = 4096\n\
                raids = [\"root_rmeta_0\", \"root_rimage_0\", \"root_rmeta_1\", \"root_rimage_1\"]";
    let text = [
        part("root_rmeta_0", 0, 0, 1),
        part("root_rmeta_1", 1, 0, 1),
        part("root_rimage_0", 0, 1, 64),
        part("root_rimage_1", 1, 1, 64),
        volume("root", ", \"VISIBLE\"", &format!("extent_count = 64\ntype = \"raid1\"\n{legs}")),
    ];
    disks.attach().restore("vg", &text.concat());
    let leg = |disk: usize| {
        let bytes = fs::read(&disks.files[disk]).unwrap();
        bytes[2 * MIB as usize..66 * MIB as usize].to_vec()
    };
    let guest = debian("/dev/vg/root / ext4 defaults\n").bytes();
    for path in &disks.files {
        let file = fs::File::options().write(true).open(path).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, &guest, 2 * MIB).unwrap();
    }
    on("apply", &disks, &["--hostname", "vm"]).fails(3, "is not among the disks");
    let both = ["--disk", disks.path(1)];
    let run = on("apply", &disks, &[&["--hostname", "vm"], &both[..]].concat());
    assert!(run.works().stderr.is_empty(), "{run:?}");
    assert!(leg(0) == leg(1) && leg(0) != guest);
    let root = crate::cli_support::volumes::image(&leg(0));
    root.check();
    assert_eq!(root.cat("/etc/hostname"), "vm\n");
    disks.check("vg");
    let before = leg(0);
    let grown = on("apply", &disks, &[&["--size", "+40M"], &both[..]].concat());
    assert!(grown.code == 1 || grown.code == 3, "{grown:?}");
    assert!(grown.stderr.contains("vg/root"), "{grown:?}");
    assert!(leg(0) == before && fs::metadata(&disks.files[0]).unwrap().len() == 80 * MIB);
}

/// The room of one disk goes to a volume that lies on both.
#[test]
fn a_group_over_two_disks_grows() {
    let disks = Disks::whole(&[80, 80]);
    disks.group("vg", &[]);
    let loops = disks.attach();
    loops.create(&["-n", "root", "-l", "50", "vg", &loops.names[0]]);
    loops.lvm(&["lvextend", "-q", "-l", "+14", "vg/root", &loops.names[1]]);
    drop(loops);
    disks.write("vg/root", &debian("/dev/vg/root / ext4 defaults\n").bytes());
    let options = ["--size", "+60M", "--hostname", "vm", "--disk", disks.path(1)];
    let run = on("apply", &disks, &options);
    assert!(run.works().stderr.is_empty(), "{run:?}");
    assert_eq!(fs::metadata(&disks.files[0]).unwrap().len(), 140 * MIB);
    assert_eq!(fs::metadata(&disks.files[1]).unwrap().len(), 80 * MIB);
    disks.check("vg");
    // All extents of both: 139 and 79.
    assert_eq!(disks.read("vg/root").len() as u64, (139 + 79) * MIB);
    let root = disks.guest("vg/root");
    root.check();
    assert_eq!(root.cat("/etc/hostname"), "vm\n");
    let again = on("apply", &disks, &["--grow", "--disk", disks.path(1)]);
    assert!(again.works().stdout.contains("nothing changed"), "{again:?}");
}
