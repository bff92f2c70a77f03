//! The command line tool on guests in LUKS containers of qemu-img and cryptsetup, below and above LVM,
//! in raw and qcow2 disks. Needs root and loop devices.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use sha2::Digest;
use snf_fs::{BlockDevice, FileDevice};
use snf_volume::luks::{Limits, Luks};

use crate::cli_support::volumes::{Disks, ext4, image, run};
use crate::cli_support::{Guest, Run, snf_customize};

const PASSPHRASE: &str = "correct horse";

/// The cheapest parameters that cryptsetup accepts.
const ARGON2: [&str; 12] = [
    "--type",
    "luks2",
    "--pbkdf",
    "argon2id",
    "--pbkdf-memory",
    "32",
    "--pbkdf-force-iterations",
    "4",
    "--pbkdf-parallel",
    "1",
    "--sector-size",
    "4096",
];

/// Directory with the passphrase in a file.
fn place() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("key");
    fs::write(&key, PASSPHRASE).unwrap();
    std::os::unix::fs::chown(&key, Some(0), Some(0)).unwrap();
    fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    (dir, key)
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// `content` in a container of this version, made by cryptsetup and, for version 1, filled by qemu-img.
fn encrypt(version: u8, content: &[u8]) -> Vec<u8> {
    let (dir, key) = place();
    let path = dir.path().join("container");
    File::create(&path).unwrap().set_len(content.len() as u64 + (16 << 20)).unwrap();
    let mut cryptsetup = Command::new("cryptsetup");
    cryptsetup.args(["--batch-mode", "--key-file", text(&key), "luksFormat"]);
    match version {
        1 => cryptsetup.args(["--type", "luks1", "--pbkdf-force-iterations", "1000"]),
        _ => cryptsetup.args(ARGON2),
    };
    run(cryptsetup.arg(&path));
    if version == 1 {
        let plain = dir.path().join("plain");
        fs::write(&plain, content).unwrap();
        let mut qemu_img = Command::new("qemu-img");
        qemu_img.args(["convert", "-n", "-f", "raw", "--object", &secret(&key)]);
        let target = format!("driver=luks,key-secret=s,file.filename={}", path.display());
        run(qemu_img.args(["--target-image-opts", text(&plain), &target]));
    } else {
        open(&path).write_at(0, content).unwrap();
    }
    fs::read(path).unwrap()
}

fn secret(key: &Path) -> String {
    format!("secret,id=s,file={}", key.display())
}

fn open(path: &Path) -> impl BlockDevice {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let device = Arc::new(FileDevice::from_file(file).unwrap());
    Luks::open(device).unwrap().unlock(PASSPHRASE.as_bytes(), &Limits::default()).unwrap()
}

/// The content of a container, by qemu-img where it can.
fn decrypt(version: u8, container: &[u8]) -> Vec<u8> {
    let (dir, key) = place();
    let path = dir.path().join("container");
    fs::write(&path, container).unwrap();
    let plain = dir.path().join("plain");
    if version == 1 {
        let source = format!("driver=luks,key-secret=s,file.filename={}", path.display());
        let mut qemu_img = Command::new("qemu-img");
        qemu_img.args(["convert", "--object", &secret(&key), "--image-opts", &source, "-O", "raw"]);
        run(qemu_img.arg(&plain));
        return fs::read(plain).unwrap();
    }
    run(Command::new("cryptsetup").args(["luksDump", text(&path)]));
    let device = open(&path);
    let mut content = vec![0; device.len() as usize];
    device.read_at(0, &mut content).unwrap();
    content
}

fn uuid(container: &[u8]) -> String {
    let end = container[168..208].iter().position(|byte| *byte == 0).unwrap();
    String::from_utf8(container[168..168 + end].to_vec()).unwrap()
}

/// How a guest is wrapped, from the outside inwards.
#[derive(Clone, Copy, Debug)]
struct Wrapping {
    qcow2: bool,
    table: Option<&'static str>,
    luks: Option<u8>,
    lvm: bool,
}

/// Every layer with every other one at least once.
const MATRIX: &[Wrapping] = &[
    Wrapping { qcow2: false, table: None, luks: Some(1), lvm: false },
    Wrapping { qcow2: true, table: None, luks: Some(2), lvm: true },
    Wrapping { qcow2: true, table: Some("gpt"), luks: Some(1), lvm: true },
    Wrapping { qcow2: false, table: Some("dos"), luks: Some(2), lvm: false },
    Wrapping { qcow2: true, table: Some("dos"), luks: None, lvm: true },
    Wrapping { qcow2: false, table: None, luks: None, lvm: true },
];

#[test]
fn container_table_luks_lvm_file_system() {
    let guest = Guest::debian().bytes();
    for &wrapping in MATRIX {
        wrapped(wrapping, &guest);
    }
}

fn wrapped(wrapping: Wrapping, guest: &[u8]) {
    let what = format!("{wrapping:?}");
    let (keys, key) = place();
    // From the inside outwards.
    let mut bytes = guest.to_vec();
    if wrapping.lvm {
        let group = Disks::whole(&[68]);
        group.group("vg", &[("root", 64)]);
        group.write("vg/root", &bytes);
        bytes = group.part(0);
    }
    let mut options = Vec::new();
    if let Some(version) = wrapping.luks {
        bytes = encrypt(version, &bytes);
        let target = if wrapping.table.is_some() { "2".to_owned() } else { uuid(&bytes) };
        options = vec!["--luks-key".to_owned(), format!("{target}:file:{}", key.display())];
    }
    let mut disk = match wrapping.table {
        Some(label) => Disks::partitioned(label, 104),
        None => Disks::whole(&[bytes.len().div_ceil(1 << 20) as u64]),
    };
    disk.put(0, &bytes);
    let raw = disk.files[0].clone();
    if wrapping.qcow2 {
        let converted = keys.path().join("disk.qcow2");
        let args = ["convert", "-f", "raw", "-O", "qcow2", text(&raw), text(&converted)];
        run(Command::new("qemu-img").args(args));
        disk.files[0] = converted;
    }
    let before = fs::read(&disk.files[0]).unwrap();

    let apply = |options: &[String]| {
        let mut command = snf_customize();
        Run::of(command.args(["apply", disk.path(0), "--hostname", "vm"]).args(options))
    };
    if wrapping.luks.is_some() {
        apply(&[]).fails(3, "LUKS, and no key was given for it: give one with --luks-key");
        assert!(fs::read(&disk.files[0]).unwrap() == before, "{what}");
    }
    // Long enough to go through all layers while it is read.
    let big = "0123456789abcdef".repeat(200_000);
    fs::write(keys.path().join("big"), &big).unwrap();
    options
        .extend(["--upload".to_owned(), format!("{}:/srv/big", keys.path().join("big").display())]);
    let done = apply(&options);
    assert!(done.works().stderr.is_empty(), "{what}: {done:?}");

    // From the outside inwards, by the other tools.
    if wrapping.qcow2 {
        run(Command::new("qemu-img").args(["check", "-q", disk.path(0)]));
        let args = ["convert", "-f", "qcow2", "-O", "raw", disk.path(0), text(&raw)];
        run(Command::new("qemu-img").args(args));
        disk.files[0] = raw;
    }
    let mut bytes = disk.part(0);
    if let Some(version) = wrapping.luks {
        bytes = decrypt(version, &bytes);
    }
    let root = match wrapping.lvm {
        true => {
            let group = Disks::whole(&[68]);
            group.put(0, &bytes[..68 << 20]);
            group.check("vg");
            group.guest("vg/root")
        }
        false => image(&bytes[..guest.len()]),
    };
    root.check();
    assert_eq!(root.cat("/etc/hostname"), "vm\n", "{what}");
    assert!(root.cat("/srv/big") == big, "{what}");
}

/// Gives the content of a LUKS2 container a fixed size, in both copies of the header.
fn fix_size(container: &mut [u8], size: usize) {
    for at in [0, 16384] {
        let header = &mut container[at..at + 16384];
        let end = header[4096..].iter().position(|byte| *byte == 0).unwrap();
        let text = std::str::from_utf8(&header[4096..4096 + end]).unwrap();
        let new = text.replace(r#""size":"dynamic""#, &format!(r#""size":"{size}""#));
        assert_ne!(text, new);
        header[4096..].fill(0);
        header[4096..4096 + new.len()].copy_from_slice(new.as_bytes());
        header[448..512].fill(0);
        let digest = sha2::Sha256::digest(&*header);
        header[448..480].copy_from_slice(&digest);
    }
}

/// Partition, container, and what is in it grow in one run; a container of fixed size says so.
#[test]
fn containers_grow_with_their_partition() {
    let guest = Guest::debian().bytes();
    for (version, lvm, fixed) in [(1, false, false), (2, true, false), (2, false, true)] {
        let what = format!("LUKS{version}, {lvm}, {fixed}");
        let (_keys, key) = place();
        let mut bytes = guest.clone();
        if lvm {
            let group = Disks::whole(&[68]);
            group.group("vg", &[("root", 64)]);
            group.write("vg/root", &bytes);
            bytes = group.part(0);
        }
        let mut bytes = encrypt(version, &bytes);
        if fixed {
            fix_size(&mut bytes, guest.len());
        }
        let disk = Disks::partitioned("gpt", 104);
        disk.put(0, &bytes);
        let selector = format!("2:file:{}", key.display());
        let apply = |options: &[&str]| {
            let mut command = snf_customize();
            Run::of(command.args(["apply", disk.path(0), "--luks-key", &selector]).args(options))
        };
        let before = fs::read(disk.path(0)).unwrap();
        let run = apply(&["--size", "300M", "--hostname", "vm"]);
        if fixed {
            run.fails(3, "the header of the LUKS container on partition 2 gives it a fixed size");
            assert!(fs::read(disk.path(0)).unwrap() == before, "{what}");
            apply(&["--hostname", "vm"]).works();
            continue;
        }
        assert!(run.works().stderr.is_empty(), "{what}: {run:?}");
        run_checked(&disk, version, lvm);
    }
}

/// The room of a container that has grown to some 280 MiB.
fn run_checked(disk: &Disks, version: u8, lvm: bool) {
    run(Command::new("sgdisk").args(["-v", disk.path(0)]));
    let content = decrypt(version, &disk.part(0)[..282 << 20]);
    let root = match lvm {
        true => {
            let group = Disks::whole(&[content.len() as u64 >> 20]);
            group.put(0, &content[..content.len() >> 20 << 20]);
            group.check("vg");
            group.guest("vg/root")
        }
        false => image(&content),
    };
    root.check();
    assert_eq!(root.cat("/etc/hostname"), "vm\n");
    let dump = run(Command::new("dumpe2fs").arg("-h").arg(&root.image));
    let dump = String::from_utf8(dump.stdout).unwrap();
    let line = dump.lines().find(|line| line.starts_with("Block count:")).unwrap();
    let blocks: u64 = line.rsplit(' ').next().unwrap().parse().unwrap();
    let size = dump.lines().find(|line| line.starts_with("Block size:")).unwrap();
    let size: u64 = size.rsplit(' ').next().unwrap().parse().unwrap();
    assert!(blocks * size > 255 << 20, "{blocks} blocks of {size}");
}

/// A root in a group, /home encrypted in a logical volume, /srv encrypted in a partition of its own disk. The
/// guest's names for both are those of its crypttab.
#[test]
fn containers_beside_the_root() {
    let (keys, key) = place();
    let home =
        encrypt(2, &ext4(keys.path(), "home", 12, "11111111-1111-1111-1111-111111111111", "home"));
    let srv =
        encrypt(1, &ext4(keys.path(), "srv", 12, "22222222-1111-1111-1111-111111111111", "srv"));
    let crypttab = format!("home UUID={} none luks\nsafe UUID={} none\n", uuid(&home), uuid(&srv));
    let guest = Guest::debian_with(|tree| {
        let fstab = "/dev/mapper/vg-root / ext4 defaults\n/dev/mapper/home /home ext4 defaults\n/dev/mapper/safe /srv ext4 nofail\n";
        fs::write(tree.join("etc/fstab"), fstab).unwrap();
        fs::write(tree.join("etc/crypttab"), crypttab).unwrap();
        fs::create_dir_all(tree.join("srv")).unwrap();
    });
    let disks = Disks::whole(&[100]);
    disks.group("vg", &[("root", 64), ("home", 28)]);
    disks.write("vg/root", &guest.bytes());
    disks.write("vg/home", &home);
    let second = keys.path().join("second.raw");
    fs::write(&second, &srv).unwrap();

    let new = keys.path().join("new");
    fs::write(&new, "new\n").unwrap();
    let write = |path: &str| format!("{path}:file:{}", new.display());
    let apply = |options: &[&str]| {
        Run::of(
            snf_customize().args(["apply", disks.path(0), "--disk", text(&second)]).args(options),
        )
    };
    let (to_home, to_srv) = (write("/home/new"), write("/srv/new"));
    // A closed container is named when it is needed, and not before.
    let closed = apply(&["--write", &to_home]);
    closed
        .fails(1, "logical volume vg/home is encrypted, and no key was given for it (--luks-key)");
    let file = format!("file:{}", key.display());
    let for_home = format!("vg/home:{file}");
    let one = apply(&["--write", &to_home, "--luks-key", &for_home]);
    assert!(one.works().stderr.is_empty(), "{one:?}");
    let both = [&for_home, &format!("{}:{file}", uuid(&srv))];
    let two = apply(&["--write", &to_srv, "--luks-key", both[0], "--luks-key", both[1]]);
    assert!(two.works().stderr.is_empty(), "{two:?}");
    for (version, container) in [(2, disks.read("vg/home")), (1, fs::read(&second).unwrap())] {
        let volume = image(&decrypt(version, &container)[..12 << 20]);
        volume.check();
        assert_eq!(volume.cat("/new"), "new\n");
    }

    // Keys that are of no use are errors, and the key is not in any output.
    let wrong = keys.path().join("wrong");
    fs::write(&wrong, "hunter2").unwrap();
    fs::set_permissions(&wrong, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let wrong = format!("vg/home:file:{}", wrong.display());
    apply(&["--hostname", "vm", "--luks-key", &wrong])
        .fails(8, "--luks-key vg/home: logical volume vg/home is not opened with it: no key slot");
    let nowhere = format!("9:{file}");
    let missed = apply(&["--hostname", "vm", "--luks-key", &nowhere]);
    missed.fails(8, "--luks-key 9: there is no such LUKS container; there is ");
    apply(&["--hostname", "vm", "--luks-key", "9:hunter2"]).fails(2, "never as itself");

    let options = ["--disk", text(&second), "--luks-key", &for_home];
    let page = Run::of(snf_customize().args(["inspect", disks.path(0)]).args(options));
    for part in ["an open LUKS container", "    open  12 MiB  ext4", "LUKS, and no key was given"] {
        assert!(page.works().stdout.contains(part), "{part}: {}", page.stdout);
    }
    let page = Run::of(snf_customize().args(["check", disks.path(0)]).args(options));
    assert!(
        page.works().stdout.contains(&format!("LUKS container {}: ext4", uuid(&home))),
        "{page:?}"
    );
    // A key file with any bytes.
    let bytes = keys.path().join("bytes");
    fs::write(&bytes, [0, 10, 255, 13, 10]).unwrap();
    let mut cryptsetup = Command::new("cryptsetup");
    cryptsetup.args([
        "--batch-mode",
        "--key-file",
        text(&key),
        "luksAddKey",
        "--pbkdf",
        "pbkdf2",
        "--pbkdf-force-iterations",
        "1000",
    ]);
    run(cryptsetup.arg(&second).arg(&bytes));
    let with_file = format!("{}:key-file:{}", uuid(&srv), bytes.display());
    apply(&["--write", &to_srv, "--luks-key", &with_file, "--luks-key", &for_home, "--dry-run"])
        .works();
}
