//! Writing to btrfs: the kernel sees our content, `btrfs check` finds nothing, and snapshots
//! keep what they had.

use std::collections::BTreeMap;

use crate::btrfs_support::{Disk, diff, walk_ext, walk_mount};
use crate::oracle::Tree;
use snf_fs::btrfs::Btrfs;
use snf_fs::testing::Random;
use snf_fs::{Attributes, Error, FileSystem, FileType, NodeId, Times, Timestamp};

const ANY: Attributes = Attributes { mode: 0o644, uid: 0, gid: 0 };

/// Files of many sizes in a root and a home, with snapshots of the root.
const LAYOUT: &str = r#"
btrfs -q subvolume create root; btrfs -q subvolume create home
mkdir -p root/etc root/usr/bin home/user
for i in $(seq 0 400); do echo $i > root/usr/bin/newfile$i; done
for i in $(seq 1 40); do head -c $((i * 700)) /dev/urandom > root/etc/conf$i; done
head -c 3000000 /dev/urandom > root/usr/big; cp --reflink=always root/usr/big root/usr/big2
btrfs -q subvolume snapshot -r root snap1
for i in $(seq 1 10); do echo changed > root/etc/conf$i; done
btrfs -q subvolume snapshot root snap2
for i in $(seq 30 40); do rm root/usr/bin/newfile$i; done
ln root/etc/conf20 root/usr/linked
setfattr -n user.x -v y root/etc/conf20
"#;

/// All nodes below a root, by their path.
fn nodes(fs: &dyn FileSystem) -> BTreeMap<Vec<u8>, (NodeId, FileType, NodeId)> {
    let mut out = BTreeMap::new();
    let mut todo = vec![(Vec::new(), fs.root())];
    while let Some((path, dir)) = todo.pop() {
        for entry in fs.readdir(dir).unwrap() {
            let mut child = path.clone();
            child.push(b'/');
            child.extend_from_slice(&entry.name);
            let kind = entry.file_type.unwrap();
            if kind == FileType::Directory {
                todo.push((child.clone(), entry.node));
            }
            out.insert(child, (entry.node, kind, dir));
        }
    }
    out
}

fn name_of(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').next().unwrap()
}

/// Changes a file system by chance: every operation there is.
fn churn(fs: &mut dyn FileSystem, random: &mut Random, count: usize) {
    for step in 0..count {
        let all = nodes(fs);
        let pick = |random: &mut Random, kind: FileType| {
            let list: Vec<_> = all.iter().filter(|(_, node)| node.1 == kind).collect();
            (!list.is_empty()).then(|| {
                let (path, node) = list[random.below(list.len())];
                (path.clone(), *node)
            })
        };
        let dir = match pick(random, FileType::Directory) {
            Some((_, node)) if random.below(4) > 0 => node.0,
            _ => fs.root(),
        };
        let mut name = format!("new {step} {}", random.below(1000)).into_bytes();
        name.resize(8 + random.below(60), b'n');
        let length = [0, 10, 2048, 2049, 4096, 9000, 70_000, 300_000][random.below(8)];
        let content: Vec<u8> = (0..length).map(|_| random.next_u64() as u8).collect();
        let file = pick(random, FileType::Regular);
        let done = match random.below(12) {
            0 | 1 => fs.create(dir, &name, ANY).and_then(|node| fs.replace(node, &content)),
            2 => fs.mkdir(dir, &name, Attributes { mode: 0o2755, uid: 1000, gid: 5 }).map(|_| ()),
            3 => fs.symlink(dir, &name, &[b'/', b't'].repeat(1 + length % 1000), ANY).map(|_| ()),
            4 | 5 => file.map_or(Ok(()), |(_, node)| fs.replace(node.0, &content)),
            6 => file.map_or(Ok(()), |(_, node)| fs.append(node.0, &content)),
            7 | 8 => file.map_or(Ok(()), |(path, node)| fs.unlink(node.2, name_of(&path))),
            9 => pick(random, FileType::Directory)
                .map_or(Ok(()), |(path, node)| fs.rmdir(node.2, name_of(&path))),
            10 => file.map_or(Ok(()), |(path, node)| {
                let (to, over) = pick(random, FileType::Regular).unwrap();
                let (to_dir, to) =
                    if step % 2 == 0 { (over.2, name_of(&to)) } else { (dir, &name[..]) };
                fs.rename(node.2, name_of(&path), to_dir, to)
            }),
            _ => file.map_or(Ok(()), |(_, node)| {
                fs.chmod(node.0, 0o4711)?;
                fs.chown(node.0, 7, 8)?;
                let time = Timestamp { seconds: 1_600_000_000, nanoseconds: 5 };
                fs.set_times(node.0, Times { atime: None, mtime: Some(time) })?;
                fs.set_xattr(node.0, b"user.one", Some(&content[..length.min(1000)]))?;
                fs.set_xattr(node.0, b"user.x", None)
            }),
        };
        match done {
            Ok(()) | Err(Error::NotEmpty(_) | Error::Exists(_)) => {}
            Err(error) => panic!("step {step}: {error}"),
        }
    }
}

/// A subvolume as the kernel sees it.
fn through_kernel(disk: &Disk, subvolume: &str) -> Tree {
    let mount = disk.mount(&format!("ro,subvol=/{subvolume}"));
    walk_mount(&mount.at)
}

fn view(fs: &Btrfs, path: &str) -> Box<dyn FileSystem> {
    fs.subvolume(path.as_bytes()).unwrap().unwrap()
}

/// Changes root and home in turns with the kernel; snapshots stay as they were.
pub fn in_turns(args: &str, mib: u64, seeds: std::ops::Range<u64>, steps: usize) {
    let turns = if steps < 40 { 1 } else { 3 };
    for seed in seeds {
        let what = format!("{args}, seed {seed}");
        let disk = Disk::make(args, mib);
        disk.fill("noatime", LAYOUT);
        let snapshots = ["snap1", "snap2"].map(|name| walk_ext(&*view(&disk.open(), name)));
        let mut random = Random(seed);
        for turn in 0..turns {
            let what = format!("{what}, turn {turn}");
            let mut fs = disk.open();
            let (mut root, mut home) = (view(&fs, "root"), view(&fs, "home"));
            churn(&mut *root, &mut random, steps);
            churn(&mut *home, &mut random, steps / 3);
            let expected = [walk_ext(&*root), walk_ext(&*home)];
            assert!(fs.is_dirty());
            fs.commit().unwrap_or_else(|error| panic!("{what}: {error}"));
            assert!(!root.is_dirty());
            diff(&what, &walk_ext(&*root), &expected[0]);
            disk.check(&what);
            diff(&what, &expected[0], &through_kernel(&disk, "root"));
            diff(&what, &expected[1], &through_kernel(&disk, "home"));
            for (name, before) in ["snap1", "snap2"].iter().zip(&snapshots) {
                diff(&format!("{what}, {name}"), before, &through_kernel(&disk, name));
            }
            // The kernel goes on from it.
            disk.fill(
                "noatime",
                "rm -rf root/etc; mkdir root/etc; for i in $(seq 50); do seq $i 5000 > root/etc/k$i; done; sync; rm -f root/usr/bin/newfile1*; cp --reflink=always root/usr/big home/copy || true",
            );
            disk.check(&format!("{what}, after the kernel"));
        }
        disk.fill(
            "noatime",
            "btrfs -q subvolume delete -c snap1 snap2; btrfs -q subvolume sync . || true",
        );
        disk.check(&format!("{what}, without snapshots"));
    }
}

#[test]
fn the_kernel_and_we_edit_in_turns() {
    in_turns("", 512, 0..2, 60);
}

/// One small change of a fresh file system, and what is refused.
#[test]
fn small_things() {
    let disk = Disk::make("", 256);
    disk.fill("noatime", "mkdir etc; echo old > etc/shadow; btrfs -q subvolume create sub; echo 1 > sub/f; btrfs -q subvolume snapshot -r . ro");
    let mut fs = disk.open();
    let etc = fs.lookup(fs.root(), b"etc").unwrap().unwrap();
    let shadow = fs.lookup(etc, b"shadow").unwrap().unwrap();
    let before = std::fs::read(&disk.path).unwrap();
    fs.replace(shadow, b"root:x\n").unwrap();
    fs.commit().unwrap();
    let after = std::fs::read(&disk.path).unwrap();
    let changed = before.chunks(512).zip(after.chunks(512)).enumerate();
    let sectors: Vec<usize> = changed.filter(|(_, (a, b))| a != b).map(|(i, _)| i).collect();
    assert!(sectors.contains(&128), "the superblock");
    assert!(!sectors.iter().any(|at| (129..136).contains(at)), "only its first sector changes");
    disk.check("shadow");
    let mount = disk.mount("ro");
    assert_eq!(std::fs::read(mount.path("etc/shadow")).unwrap(), b"root:x\n");
    drop(mount);

    let mut ro = view(&fs, "ro");
    let error = ro.create(ro.root(), b"x", ANY).unwrap_err();
    assert!(error.to_string().contains("read-only"), "{error}");
    let root = fs.root();
    for error in [
        fs.unlink(root, b"sub").unwrap_err(),
        fs.rmdir(root, b"sub").unwrap_err(),
        fs.rename(root, b"sub", root, b"other").unwrap_err(),
    ] {
        assert!(matches!(error, Error::Unsupported { .. }), "{error}");
    }
    let sub = view(&fs, "sub").root();
    assert!(matches!(fs.rename(etc, b"shadow", sub, b"s"), Err(Error::Unsupported { .. })));
    assert!(matches!(fs.create(etc, b"shadow", ANY), Err(Error::Exists(_))));
    assert!(matches!(fs.unlink(root, b"etc"), Err(Error::IsADirectory(_))));
    assert!(matches!(fs.rmdir(root, b"etc"), Err(Error::NotEmpty(_))));
    assert!(matches!(fs.rename(root, b"etc", etc, b"in"), Err(Error::Invalid(_))));
    assert!(!fs.is_dirty(), "what was refused leaves nothing");
    fs.commit().unwrap();
    assert_eq!(std::fs::read(&disk.path).unwrap(), after);
}

/// Data and metadata beyond the chunks that there are, growth, and a full disk.
#[test]
fn new_chunks_growth_and_a_full_disk() {
    let disk = Disk::make("", 200);
    let mut fs = disk.open();
    let root = fs.root();
    for index in 0..60 {
        let node = fs.create(root, format!("file {index}").as_bytes(), ANY).unwrap();
        fs.replace(node, &vec![index as u8; 1 << 20]).unwrap();
    }
    fs.commit().unwrap();
    disk.check("60 MiB in a chunk of 8");
    let expected = walk_ext(&fs);
    diff("new chunks", &expected, &through_kernel(&disk, ""));
    // Full.
    let before = std::fs::read(&disk.path).unwrap();
    let filler = fs.create(root, b"filler", ANY).unwrap();
    let error = fs.replace(filler, &vec![1; 190 << 20]).unwrap_err();
    assert!(matches!(error, Error::NoSpace(_)), "{error}");
    // The chunks of the failed write are no more: new data goes to others.
    fs.replace(filler, &vec![2; 16 << 20]).unwrap();
    fs.commit().unwrap();
    disk.check("after a write that failed");
    assert!(std::fs::read(disk.mount("noatime").path("filler")).unwrap() == vec![2; 16 << 20]);
    fs.unlink(root, b"filler").unwrap();
    fs.commit().unwrap();
    disk.check("after a full disk");
    assert_eq!(std::fs::read(&disk.path).unwrap().len(), before.len());
    // Larger.
    let file = std::fs::File::options().write(true).open(&disk.path).unwrap();
    file.set_len(2 << 30).unwrap();
    let mut fs = disk.open();
    assert_eq!(fs.grow(2 << 30).unwrap(), 2 << 30);
    let filler = fs.create(fs.root(), b"filler", ANY).unwrap();
    fs.replace(filler, &vec![1; 300 << 20]).unwrap();
    fs.commit().unwrap();
    assert_eq!(fs.info().unwrap().size, 2 << 30);
    disk.check("grown");
    let mount = disk.mount("noatime");
    assert_eq!(std::fs::read(mount.path("filler")).unwrap().len(), 300 << 20);
    crate::btrfs_support::shell(&mount.at, "head -c 1200000000 /dev/zero > more; rm more; sync");
    drop(mount);
    disk.check("the kernel fills it");
}

/// Trees of several levels that grow and shrink, and data that hundreds refer to.
#[test]
fn deep_trees_and_many_references() {
    let disk = Disk::make("-n 4096", 300);
    disk.fill(
        "noatime",
        "mkdir copies; head -c 60000 /dev/urandom > big; for i in $(seq 300); do cp --reflink=always big copies/$i; done; btrfs -q subvolume snapshot . snap",
    );
    let snapshot = walk_ext(&*view(&disk.open(), "snap"));
    let mut fs = disk.open();
    let root = fs.root();
    let many = fs.mkdir(root, b"many", ANY).unwrap();
    for index in 0..3000 {
        let node = fs.create(many, format!("file {index}").as_bytes(), ANY).unwrap();
        if index % 3 > 0 {
            fs.replace(node, &vec![index as u8; index % 2500]).unwrap();
        }
    }
    let copies = fs.lookup(root, b"copies").unwrap().unwrap();
    for index in (1..=300).step_by(2) {
        fs.unlink(copies, index.to_string().as_bytes()).unwrap();
    }
    let expected = walk_ext(&fs);
    fs.commit().unwrap();
    disk.check("3,000 files");
    diff("3,000 files", &expected, &through_kernel(&disk, ""));
    for index in (0..3000).filter(|index| index % 50 != 7) {
        fs.unlink(many, format!("file {index}").as_bytes()).unwrap();
    }
    for entry in fs.readdir(copies).unwrap() {
        fs.append(entry.node, b"its own").unwrap();
    }
    let expected = walk_ext(&fs);
    fs.commit().unwrap();
    disk.check("60 files");
    diff("60 files", &expected, &through_kernel(&disk, ""));
    diff("snapshot", &snapshot, &through_kernel(&disk, "snap"));
    disk.fill("noatime", "rm -rf many copies big; btrfs -q subvolume delete -c snap; sync");
    disk.check("the kernel removes it all");
}

/// Quota groups are marked, so that the kernel counts anew.
#[test]
fn quota_groups_are_marked() {
    let disk = Disk::make("", 256);
    disk.fill("noatime", "btrfs quota enable .; echo 1 > f; sync; btrfs quota rescan -w .");
    let mut fs = disk.open();
    let node = fs.create(fs.root(), b"new", ANY).unwrap();
    fs.replace(node, &[7; 100_000]).unwrap();
    fs.commit().unwrap();
    let dump = disk.dump("dump-tree -t quota");
    assert!(dump.contains("INCONSISTENT"), "{dump}");
    disk.check("quota");
    disk.fill("noatime", "btrfs quota rescan -w .");
    disk.check("quota after a rescan");
}
