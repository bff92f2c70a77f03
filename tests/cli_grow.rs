//! `--size` and `--grow`: disks of every layout made larger by the command line tool, judged by
//! e2fsck, sfdisk, sgdisk, blkid, mtools, ntfs-3g's tools and qemu-img.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Stdio;

use crate::cli_support::volumes::Disks;
use crate::cli_support::{Guest, Run, snf_customize};
use crate::deployed::{cat, command, fs_size, fsck, run, write_sparse};

const MIB: u64 = 1 << 20;

/// A partition: its line for sfdisk, the number, the content.
struct Part<'a> {
    line: &'a str,
    start: u64,
    content: &'a [u8],
}

/// A disk of `mib` with this table and content.
fn disk(mib: u64, label: &str, parts: &[Part<'_>]) -> Guest {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("disk.raw");
    File::create(&image).unwrap().set_len(mib * MIB).unwrap();
    let lines: String = parts.iter().map(|part| format!("{}\n", part.line)).collect();
    let script = dir.path().join("script");
    fs::write(&script, format!("label: {label}\n{lines}")).unwrap();
    run("sh", &["-c", &format!("sfdisk -q {} < {}", image.display(), script.display())]);
    let file = OpenOptions::new().write(true).open(&image).unwrap();
    for part in parts {
        for (index, chunk) in part.content.chunks(1 << 16).enumerate() {
            if chunk.iter().any(|byte| *byte != 0) {
                file.write_all_at(chunk, part.start * 512 + ((index as u64) << 16)).unwrap();
            }
        }
    }
    Guest { dir, image }
}

/// The bytes that a tool writes into a file of `mib`.
fn made(mib: u64, tool: &str, args: &[&str]) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("part");
    File::create(&path).unwrap().set_len(mib * MIB).unwrap();
    run(tool, &[args, &[path.to_str().unwrap()]].concat());
    fs::read(&path).unwrap()
}

const UUID: &str = "01234567-89ab-cdef-0123-456789abcdef";

fn swap(mib: u64) -> Vec<u8> {
    made(mib, "mkswap", &["-U", UUID, "-L", "theswap"])
}

/// First byte and size of a partition.
fn range(image: &Path, number: u32) -> (u64, u64) {
    let file = File::open(image).unwrap();
    let device = snf_fs::FileDevice::from_file(file).unwrap();
    let table = snf_partition::read(&snf_image::disk_adapter::DiskAdapter(&device));
    let table = table.unwrap().unwrap();
    table.byte_range(table.partition(number).unwrap())
}

fn blkid(image: &Path, number: u32) -> String {
    let (start, size) = range(image, number);
    let (start, size) = (start.to_string(), size.to_string());
    run("blkid", &["-p", "-O", &start, "-S", &size, image.to_str().unwrap()])
}

fn check_table(image: &Path, gpt: bool) {
    let said = run("sfdisk", &["-V", image.to_str().unwrap()]);
    assert!(said.contains("No errors detected.") && !said.contains("overlap"), "{said}");
    if gpt {
        let said = run("sgdisk", &["-v", image.to_str().unwrap()]);
        assert!(said.contains("No problems found."), "{said}");
    }
}

/// The root in a partition fills it and is clean, and has this host name.
#[track_caller]
fn check_root(image: &Path, number: u32, hostname: &str) -> u64 {
    let (start, size) = range(image, number);
    let name = format!("{}?offset={start}", image.display());
    let (code, said) = fsck("-fn", &name);
    assert_eq!(code, 0, "{said}");
    assert_eq!(fs_size(&name), size / 4096 * 4096);
    assert_eq!(cat(&name, "/etc/hostname"), format!("{hostname}\n"));
    size
}

#[track_caller]
fn done(run: &Run) {
    assert_eq!(run.code, 0, "{}{}", run.stdout, run.stderr);
    assert_eq!(run.stderr, "");
}

/// The start of the root and of what is after it, in sectors, and the root's content.
const ROOT: u64 = 2048;
const AFTER: u64 = ROOT + 64 * 2048;

fn debian() -> Vec<u8> {
    Guest::debian().bytes()
}

#[test]
fn a_bare_file_system() {
    let guest = Guest::debian();
    let before = guest.bytes();
    let dry = guest.apply(&["--size", "200M", "--dry-run"]);
    done(&dry);
    assert!(dry.stdout.contains("from 64 MiB to 200 MiB"), "{}", dry.stdout);
    assert!(guest.bytes() == before);
    let grown = guest.apply(&["--size", "200M"]);
    done(&grown);
    assert!(grown.stdout.contains("from 64 MiB to 200 MiB"), "{}", grown.stdout);
    let name = guest.image.to_str().unwrap().to_owned();
    assert_eq!(fs::metadata(&guest.image).unwrap().len(), 200 * MIB);
    assert_eq!(fs_size(&name), 200 * MIB);
    assert_eq!(fsck("-fn", &name).0, 0);
    done(&guest.apply(&["--size", "+56M", "--hostname", "larger"]));
    assert_eq!(fs_size(&name), 256 * MIB);
    assert_eq!(cat(&name, "/etc/hostname"), "larger\n");
    let again = guest.apply(&["--size", "256M"]);
    done(&again);
    assert!(again.stdout.contains("nothing changed"), "{}", again.stdout);
    let before = guest.bytes();
    for (options, code, part) in [
        (&["--size", "100M"][..], 2, "only made larger"),
        (&["--size", "20GB"], 2, "units of 1024"),
        (&["--no-move", "--hostname", "x"], 2, "no effect without --size or --grow"),
        (&["--grow=2"], 2, "no partition 2"),
        (&["--grow=x"], 2, "the number of a partition"),
        (&["--size", "300M", "--user-password", "nobody-here:hash:!"], 1, "no user"),
    ] {
        let run = guest.apply(options);
        assert_eq!(run.code, code, "{options:?}: {}", run.stderr);
        assert!(run.stderr.contains(part), "{options:?}: {}", run.stderr);
        assert!(guest.bytes() == before, "{options:?}");
    }
}

#[test]
fn a_qcow2_image() {
    let raw = Guest::debian();
    let root = raw.bytes();
    let source = disk(100, "gpt", &[Part { line: "start=2048", start: ROOT, content: &root }]);
    let image = source.dir.path().join("disk.qcow2");
    let (from, to) = (source.image.to_str().unwrap(), image.to_str().unwrap());
    run("qemu-img", &["convert", "-O", "qcow2", "-c", from, to]);
    let guest = Guest { dir: source.dir, image: image.clone() };
    let before = guest.bytes();
    done(&guest.apply(&["--size", "3G", "--hostname", "big", "--dry-run"]));
    assert!(guest.bytes() == before);
    let grown = guest.apply(&["--size", "3G", "--hostname", "big"]);
    done(&grown);
    let (code, said) = command("qemu-img", &["check", "-f", "qcow2", to]);
    assert_eq!(code, 0, "{said}");
    let flat = guest.dir.path().join("flat.raw");
    run("qemu-img", &["convert", "-O", "raw", to, flat.to_str().unwrap()]);
    assert_eq!(fs::metadata(&flat).unwrap().len(), 3 << 30);
    check_table(&flat, true);
    assert!(check_root(&flat, 1, "big") > 2 << 30);
    // A container that cannot grow is refused before anything is written.
    run("qemu-img", &["bitmap", "--add", to, "bitmap"]);
    let before = guest.bytes();
    let refused = guest.apply(&["--size", "4G"]);
    assert_eq!(refused.code, 3, "{}", refused.stderr);
    assert!(refused.stderr.contains("bitmaps"), "{}", refused.stderr);
    assert!(guest.bytes() == before);
}

/// Debian's installer makes this: the root, and swap in an extended partition.
#[test]
fn debian_with_logical_swap() {
    let (root, swap) = (debian(), swap(32));
    let (ext, logical) = (AFTER + 2046, AFTER + 2048);
    let lines = [
        format!("1: start={ROOT}, size={}, type=83, bootable", 64 * 2048),
        format!("2: start={ext}, size={}, type=5", 32 * 2048 + 2),
        format!("5: start={logical}, size={}, type=82", 32 * 2048),
    ];
    let parts = [
        Part { line: &lines[0], start: ROOT, content: &root },
        Part { line: &lines[1], start: 0, content: &[] },
        Part { line: &lines[2], start: logical, content: &swap },
    ];
    let guest = disk(100, "dos", &parts);
    let stays = guest.apply(&["--size", "400M", "--no-move", "--hostname", "stays"]);
    assert_eq!(stays.code, 0, "{}", stays.stderr);
    assert!(stays.stderr.contains("does not grow"), "{}", stays.stderr);
    assert!(stays.stderr.contains("partition 5 is left in place"), "{}", stays.stderr);
    assert_eq!(fs::metadata(&guest.image).unwrap().len(), 400 * MIB);
    assert_eq!(range(&guest.image, 5), (logical * 512, 32 * MIB));
    check_root(&guest.image, 1, "stays");
    let grown = guest.apply(&["--grow", "--hostname", "grown"]);
    done(&grown);
    assert!(grown.stdout.contains("move partition 5"), "{}", grown.stdout);
    check_table(&guest.image, false);
    assert!(check_root(&guest.image, 1, "grown") > 360 * MIB);
    let said = blkid(&guest.image, 5);
    assert!(said.contains(UUID) && said.contains("theswap"), "{said}");
    assert_eq!(range(&guest.image, 5).0 + range(&guest.image, 5).1, 399 * MIB);
    let again = guest.apply(&["--grow"]);
    done(&again);
    assert!(again.stdout.contains("nothing changed"), "{}", again.stdout);
}

#[test]
fn gpt_with_swap_and_an_efi_system_partition_last() {
    let (root, swap) = (debian(), swap(8));
    let esp = made(16, "mkfs.fat", &["-F", "16", "-h", &(AFTER + 8 * 2048).to_string()]);
    let lines = [
        format!("start={ROOT}, size={}, type=L", 64 * 2048),
        format!("start={AFTER}, size={}, type=S, name=\"swap\"", 8 * 2048),
        format!("start={}, size={}, type=U", AFTER + 8 * 2048, 16 * 2048),
    ];
    let guest = disk(
        100,
        "gpt",
        &[
            Part { line: &lines[0], start: ROOT, content: &root },
            Part { line: &lines[1], start: AFTER, content: &swap },
            Part { line: &lines[2], start: AFTER + 8 * 2048, content: &esp },
        ],
    );
    done(&guest.apply(&["--size", "300M", "--hostname", "grown"]));
    check_table(&guest.image, true);
    assert!(check_root(&guest.image, 1, "grown") > 270 * MIB);
    let said = blkid(&guest.image, 2);
    assert!(said.contains(UUID) && said.contains("theswap"), "{said}");
    let (start, size) = range(&guest.image, 3);
    let mut moved = vec![0; size as usize];
    File::open(&guest.image).unwrap().read_exact_at(&mut moved, start).unwrap();
    // BPB_HiddSec is where the partition begins.
    assert_eq!(moved[28..32], ((start / 512) as u32).to_le_bytes());
    moved[28..32].copy_from_slice(&esp[28..32]);
    assert!(moved == esp);
    // A partition that must not be moved keeps the root from growing, and nothing is written.
    let line = format!("start={AFTER}, size=2048, type=21686148-6449-6E6F-744E-656564454649");
    let guest = disk(
        100,
        "gpt",
        &[
            Part { line: &lines[0], start: ROOT, content: &root },
            Part { line: &line, start: AFTER, content: b"GRUB" },
        ],
    );
    let before = guest.bytes();
    let refused = guest.apply(&["--size", "300M", "--hostname", "x"]);
    assert_eq!(refused.code, 1, "{}", refused.stderr);
    assert!(refused.stderr.contains("holds the boot loader"), "{}", refused.stderr);
    assert!(guest.bytes() == before);
    // The root is there and has its room; the swap of the command line is not made.
    let named = guest.apply(&["--grow=2"]);
    assert_eq!(named.code, 3, "{}", named.stderr);
    assert!(named.stderr.contains("its content is not known"), "{}", named.stderr);
}

/// The layout of Windows: its volume, and its recovery partition last.
#[test]
fn windows_with_recovery_last() {
    let (start, after) = (2048u64, 2048 + 32 * 2048u64);
    let volume = made(32, "mkntfs", &["-q", "-F", "-Q", "-p", "2048", "-L", "System"]);
    let hidden = after.to_string();
    let recovery = made(8, "mkntfs", &["-q", "-F", "-Q", "-p", &hidden, "-L", "Recovery"]);
    let lines = [
        format!("start={start}, size={}, type=EBD0A0A2-B9E5-4433-87C0-68B6B72699C7", 32 * 2048),
        format!(
            "start={after}, size={}, type=DE94BBA4-06D1-4D40-A16A-BFD50179D6AC, \
             name=\"Basic data partition\", attrs=\"RequiredPartition GUID:63\"",
            8 * 2048
        ),
    ];
    let guest = disk(
        48,
        "gpt",
        &[
            Part { line: &lines[0], start, content: &volume },
            Part { line: &lines[1], start: after, content: &recovery },
        ],
    );
    let attributes = |guest: &Guest| {
        let dump = run("sfdisk", &["-d", guest.image.to_str().unwrap()]);
        let line = dump.lines().find(|line| line.contains("DE94BBA4")).unwrap().to_owned();
        line.split("type=").nth(1).unwrap().to_owned()
    };
    let before = attributes(&guest);
    let grown = guest.apply(&["--size", "200M", "--grow=1"]);
    assert_eq!(grown.code, 0, "{}", grown.stderr);
    assert!(grown.stderr.contains("reagentc"), "{}", grown.stderr);
    check_table(&guest.image, true);
    assert_eq!(attributes(&guest), before);
    let (start, size) = range(&guest.image, 2);
    let mut moved = vec![0; size as usize];
    File::open(&guest.image).unwrap().read_exact_at(&mut moved, start).unwrap();
    assert_eq!(moved[28..32], ((start / 512) as u32).to_le_bytes());
    moved[28..32].copy_from_slice(&recovery[28..32]);
    assert!(moved == recovery);
    let (start, size) = range(&guest.image, 1);
    assert!(size > 180 * MIB);
    let mut volume = vec![0; size as usize];
    File::open(&guest.image).unwrap().read_exact_at(&mut volume, start).unwrap();
    let path = guest.dir.path().join("volume");
    write_sparse(&path, &volume);
    let said = run("ntfsresize", &["--info", "--force", path.to_str().unwrap()]);
    let line = said.lines().find(|line| line.contains("Current volume size")).unwrap();
    let bytes: u64 = line.split_whitespace().find_map(|word| word.parse().ok()).unwrap();
    assert!(bytes + 8192 > size, "{said}");
}

#[test]
fn a_block_device_has_its_size() {
    let guest = Guest::debian();
    let name = run("losetup", &["-f", "--show", guest.image.to_str().unwrap()]);
    let name = name.trim();
    let output = snf_customize()
        .args(["apply", name, "--size", "200M"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    run("losetup", &["-d", name]);
    assert_eq!(output.status.code(), Some(3));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("is a block device") && said.contains("--grow"), "{said}");
}

/// Partition, physical volume, logical volume, file system; lvm2 judges.
#[test]
fn a_root_in_a_logical_volume() {
    for label in ["gpt", "dos", "none"] {
        let disks = match label {
            "none" => Disks::whole(&[140]),
            label => Disks::partitioned(label, 160),
        };
        disks.group("rl", &[("root", 64), ("data", 8)]);
        disks.write("rl/root", &debian());
        let apply = |options: &[&str]| {
            Run::of(snf_customize().arg("apply").arg(disks.path(0)).args(options))
        };
        let before = fs::read(disks.path(0)).unwrap();
        done(&apply(&["--size", "400M", "--hostname", "grown", "--dry-run"]));
        let missing = apply(&["--grow=rl/nope"]);
        assert_eq!(missing.code, 2, "{}", missing.stderr);
        assert!(missing.stderr.contains("no logical volume rl/nope"), "{}", missing.stderr);
        assert!(fs::read(disks.path(0)).unwrap() == before);
        done(&apply(&["--size", "400M", "--hostname", "grown"]));
        if label != "none" {
            check_table(Path::new(disks.path(0)), label == "gpt");
        }
        disks.check("rl");
        let guest = disks.guest("rl/root");
        let name = guest.image.to_str().unwrap();
        let (code, said) = fsck("-fn", name);
        assert_eq!(code, 0, "{said}");
        assert!(fs_size(name) > 360 * MIB, "{label}: {}", fs_size(name));
        assert_eq!(cat(name, "/etc/hostname"), "grown\n");
        let again = apply(&["--grow"]);
        done(&again);
        assert!(again.stdout.contains("nothing changed"), "{}", again.stdout);
        // Another volume of the group, by its name.
        let other = apply(&["--size", "+50M", "--grow=rl/data"]);
        assert_eq!(other.code, 0, "{}", other.stderr);
        disks.check("rl");
        assert!(disks.read("rl/data").len() as u64 >= 57 * MIB);
    }
}

/// Growth needs memory for its own metadata only: all that a run may map is half of the helper's
/// memory. `cargo xtask bench disks` measures 1 TiB, which takes a build with optimisation.
#[test]
fn little_memory_for_much_room() {
    let tree = tempfile::tempdir().unwrap();
    fs::create_dir(tree.path().join("etc")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("disk");
    let (tree, name) = (tree.path().to_str().unwrap(), image.to_str().unwrap());
    run("mke2fs", &["-q", "-F", "-t", "ext4", "-b", "1024", "-d", tree, name, "64M"]);
    let mut limited = std::process::Command::new("sh");
    limited.args(["-c", "ulimit -v 65536; exec \"$0\" \"$@\""]);
    limited.arg(snf_customize().get_program()).args(["apply", name, "--size", "128G"]);
    done(&Run::of(&mut limited));
    assert_eq!(fs_size(name), 128 << 30);
    // Nearly all of it is a hole.
    let blocks = std::os::unix::fs::MetadataExt::blocks(&fs::metadata(&image).unwrap());
    assert!(blocks * 512 < 60 * MIB, "{blocks}");
}
