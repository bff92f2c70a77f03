//! Damaged directories, attributes and inodes: refused by name, never a panic, never a loop.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::oracle::{Disk, NOW, commit, shell};
use snf_fs::ext::internals::superblock::incompat;
use snf_fs::ext::internals::units::Ino;
use snf_fs::ext::{Ext, Options};
use snf_fs::testing::Random;
use snf_fs::{Attributes, Error, FileSystem, FileType, MemoryDevice, NodeId};

const FILE: Attributes = Attributes { mode: 0o644, uid: 1, gid: 2 };

fn open(bytes: &[u8]) -> Result<Ext, Error> {
    let device = Arc::new(MemoryDevice::new(bytes.to_vec()));
    Ext::open(device, Options { now: NOW, seed: 7 })
}

/// Reads everything that can be reached, then changes something everywhere.
fn use_all(fs: &mut Ext, budget: usize) -> Result<(), Error> {
    let mut todo = vec![fs.root()];
    let mut dirs = Vec::new();
    let mut files = Vec::new();
    let mut buf = vec![0; 100_000];
    let mut first_error = None;
    let mut note = |result: Result<(), Error>| {
        if let Err(error @ Error::Corrupt { .. }) = result {
            first_error.get_or_insert(error);
        }
    };
    let mut seen = 0;
    while let Some(node) = todo.pop() {
        seen += 1;
        if seen > budget {
            break;
        }
        note(fs.xattrs(node).map(drop));
        match fs.stat(node).map(|stat| stat.file_type) {
            Ok(FileType::Directory) => {
                match fs.readdir(node) {
                    Ok(list) => {
                        for entry in list.iter().take(40) {
                            note(fs.lookup(node, &entry.name).map(drop));
                        }
                        todo.extend(list.iter().map(|entry| entry.node));
                    }
                    Err(error) => note(Err(error)),
                }
                dirs.push(node);
            }
            Ok(FileType::Regular) => {
                note(fs.read(node, 0, &mut buf).map(drop));
                files.push(node);
            }
            Ok(FileType::Symlink) => note(fs.read_link(node).map(drop)),
            Ok(_) => {}
            Err(error) => note(Err(error)),
        }
    }
    for &dir in dirs.iter().take(12) {
        for i in 0..12 {
            note(
                fs.create(dir, format!("a new name of some length {i}").as_bytes(), FILE).map(drop),
            );
        }
        let names: Vec<Vec<u8>> =
            fs.readdir(dir).map(|l| l.into_iter().map(|e| e.name).collect()).unwrap_or_default();
        for (i, name) in names.iter().enumerate().take(6) {
            let to = dirs[i % dirs.len()];
            note(match i % 3 {
                0 => fs.unlink(dir, name),
                1 => fs.rename(dir, name, to, b"moved"),
                _ => fs.rmdir(dir, name),
            });
        }
        note(fs.set_xattr(dir, b"user.new", Some(&[5; 90])));
    }
    for &file in files.iter().take(12) {
        note(fs.set_xattr(file, b"user.new", Some(&[5; 90])));
        note(fs.set_xattr(file, b"user.large", None));
        note(fs.replace(file, b"short"));
        note(fs.chmod(file, 0o600));
    }
    note(fs.commit().map(drop));
    first_error.map_or(Ok(()), Err)
}

/// Another stream of damage for a longer run.
fn seconds_seed() -> u64 {
    std::env::var("SNF_HOSTILE_SECONDS").map_or(1, |text| 1000 + text.len() as u64)
}

struct Base {
    bytes: Vec<u8>,
    /// Ranges worth damaging.
    targets: Vec<(usize, usize)>,
}

fn base(args: &str) -> Base {
    let disk = Disk::make(args, 12);
    let mount = disk.mount("rw");
    shell(
        &mount.at,
        "mkdir -p index small deep/er/still
         for i in $(seq 300); do echo > \"index/a name of more than a few bytes $i\"; done
         for i in 1 2 3 4; do echo $i > small/n$i; done
         ln -s target link; ln -s $(printf 'x%.0s' $(seq 90)) long
         mknod null c 1 3
         for f in small/n1 small/n2; do
             setfattr -n user.a -v $(printf 'v%.0s' $(seq 300)) $f
             setfattr -n user.b -v $(printf 'w%.0s' $(seq 150)) $f; done
         setfacl -m u:7:rw small/n3; setfacl -d -m u:7:rw deep",
    );
    if args.contains("ea_inode") {
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::setxattr(mount.path("small/n4"), "user.large", &[b'l'; 9000], flags).unwrap();
    }
    drop(mount);
    let fs = disk.open();
    let volume = fs.volume();
    let size = volume.block_size();
    let mut targets = Vec::new();
    let mut todo = vec![fs.root()];
    while let Some(node) = todo.pop() {
        let inode = volume.live_inode(Ino::new(node.0 as u32)).unwrap();
        let (block, at) = volume.inode_position(inode.ino).unwrap();
        targets.push((block.byte(size) as usize + at, volume.sb.inode_size() as usize));
        if !inode.file_acl().is_none() {
            targets.push((inode.file_acl().byte(size) as usize, 200));
        }
        if inode.is_dir() {
            let blocks = if fs.volume().sb.has_incompat(incompat::INLINE_DATA)
                && inode.has_flag(0x1000_0000)
            {
                0
            } else {
                inode.size() / size as u64
            };
            for lblk in 0..blocks {
                let (pblk, _) =
                    snf_fs::ext::internals::map::read_block(volume, &inode, lblk).unwrap();
                targets.push((pblk.byte(size) as usize, 120));
            }
            let list = fs.readdir(node).unwrap();
            todo.extend(list.iter().take(20).map(|entry| entry.node));
        }
    }
    Base { bytes: std::fs::read(&disk.path).unwrap(), targets }
}

#[test]
fn random_damage() {
    for (seed, args) in [
        "-t ext4 -b 1024 -O ^metadata_csum,^has_journal,uninit_bg",
        "-t ext4 -b 1024 -O ^metadata_csum,^has_journal,inline_data,ea_inode,large_dir",
        "-t ext2 -b 1024",
    ]
    .iter()
    .enumerate()
    {
        let base = base(args);
        let mut good = open(&base.bytes).unwrap();
        use_all(&mut good, 5000).ok();
        let mut random = Random(seed as u64 + seconds_seed());
        let started = Instant::now();
        let seconds = std::env::var("SNF_HOSTILE_SECONDS").ok().and_then(|s| s.parse().ok());
        let limit = Duration::from_secs(seconds.unwrap_or(2));
        let mut errors = std::collections::BTreeMap::<String, u32>::new();
        let mut rounds = 0;
        // On a busy machine the time alone would be a handful of rounds.
        while started.elapsed() < limit || rounds < 300 {
            rounds += 1;
            let mut bytes = base.bytes.clone();
            for _ in 0..=random.below(3) {
                let (start, length) = base.targets[random.below(base.targets.len())];
                let at = start + random.below(length);
                let value = match random.below(4) {
                    0 => 0,
                    1 => 0xFF,
                    2 => bytes[at] ^ 1 << random.below(8),
                    _ => random.next_u64() as u8,
                };
                bytes[at] = value;
            }
            let began = Instant::now();
            if let Ok(mut fs) = open(&bytes)
                && let Err(Error::Corrupt { structure, .. }) = use_all(&mut fs, 2000)
            {
                *errors.entry(structure.to_owned()).or_default() += 1;
            }
            assert!(began.elapsed() < Duration::from_secs(60), "{args}: round {rounds} is slow");
        }
        assert!(errors.len() > 4, "{args}: {errors:?} in {rounds} rounds");
    }
}

/// One field at a time: the error names the structure and what was found.
#[test]
fn every_field_is_checked() {
    let disk = Disk::make("-t ext4 -b 1024 -O ^metadata_csum,^has_journal", 12);
    let mut fs = disk.open();
    let root = fs.root();
    let dir = fs.mkdir(root, b"dir", Attributes { mode: 0o755, uid: 0, gid: 0 }).unwrap();
    for i in 0..200 {
        fs.create(dir, format!("a name of more than a few bytes {i}").as_bytes(), FILE).unwrap();
    }
    let file = fs.create(root, b"file", FILE).unwrap();
    fs.set_xattr(file, b"user.one", Some(&[1; 400])).unwrap();
    commit(&mut fs);
    disk.fsck("base");
    let volume = fs.volume();
    let block_of = |node: NodeId, lblk: u64| {
        let inode = volume.live_inode(Ino::new(node.0 as u32)).unwrap();
        snf_fs::ext::internals::map::read_block(volume, &inode, lblk).unwrap().0.byte(1024) as usize
    };
    let root_block = block_of(root, 0);
    let (index, leaf) = (block_of(dir, 0), block_of(dir, 1));
    let xattr = volume.live_inode(Ino::new(file.0 as u32)).unwrap().file_acl().byte(1024) as usize;
    let position = |ino: u64| {
        let (block, at) = volume.inode_position(Ino::new(ino as u32)).unwrap();
        block.byte(1024) as usize + at
    };
    let (dir_inode, file_inode) = (position(dir.0), position(file.0));
    let bytes = std::fs::read(&disk.path).unwrap();
    let cases: &[(&str, usize, &[u8], &str)] = &[
        ("rec_len 0", root_block + 4, &[0, 0], "rec_len is 0"),
        ("rec_len odd", root_block + 4, &[13, 0], "rec_len is 13"),
        ("rec_len too long", root_block + 4, &[0, 8], "rec_len is 2048"),
        ("rec_len leaves 8", root_block + 4, &[0xF8, 3], "no room"),
        ("name_len", root_block + 6, &[200], "name_len is 200"),
        ("inode", root_block + 24 + 3, &[0xFF], "inode is"),
        ("name with a slash", root_block + 24 + 8, b"/", "is not a name"),
        ("index: `.`", index + 8, b"x", "does not begin"),
        ("index: info_length", index + 29, &[9], "info_length is 9"),
        ("index: hash_version", index + 28, &[7], "hash_version is 7"),
        ("index: levels", index + 30, &[2], "indirect_levels is 2"),
        ("index: limit", index + 32, &[1], "limit is"),
        ("index: count 0", index + 34, &[0, 0], "count is 0"),
        ("index: count", index + 34, &[0xFF, 0], "count is 255"),
        ("index: block", index + 36, &[0xFF, 0xFF], "block is"),
        ("index: block 0", index + 36, &[0, 0], "block is 0"),
        ("index: order", index + 40 + 3, &[0xFF], "comes after"),
        ("index: leaf that is a node", leaf, &[0, 0, 0, 0, 0, 4, 0, 0], ""),
        ("i_size odd", dir_inode + 4, &[1], "i_size is"),
        ("i_size 0", dir_inode + 4, &[0, 0, 0], "i_size is 0"),
        ("i_mode", dir_inode, &[0, 0], "i_mode"),
        ("i_links_count", dir_inode + 26, &[0, 0], "i_links_count 0"),
        ("i_file_acl", file_inode + 104, &[0xFF, 0xFF, 0xFF], "block"),
        ("h_magic", xattr + 3, &[0], "h_magic is"),
        ("h_refcount", xattr + 4, &[0], "h_refcount is 0"),
        ("h_refcount large", xattr + 5, &[0xFF], "h_refcount is"),
        ("h_blocks", xattr + 8, &[2], "h_blocks is 2"),
        ("e_name_len", xattr + 32, &[0xFF], ""),
        ("e_value_offs in names", xattr + 34, &[36, 0], "e_value_offs is 36"),
        ("e_value_offs beyond", xattr + 34, &[0xFF, 3], "beyond the end"),
        ("e_value_inum", xattr + 36, &[5], "inode 5"),
        ("e_value_size", xattr + 40, &[0xFF, 0xFF], "beyond the end"),
    ];
    for (what, at, patch, word) in cases {
        let mut bad = bytes.clone();
        bad[*at..at + patch.len()].copy_from_slice(patch);
        let result = open(&bad).and_then(|mut fs| use_all(&mut fs, 5000));
        if word.is_empty() {
            continue;
        }
        match result {
            Err(error @ Error::Corrupt { .. }) => {
                assert!(error.to_string().contains(word), "{what}: {error}");
            }
            other => panic!("{what}: {other:?}"),
        }
    }
}

/// A change that fails half way leaves the file system in memory as it was.
#[test]
fn failures_change_nothing() {
    let disk = Disk::make("-t ext4 -b 1024 -N 64 -O ^has_journal", 4);
    let mut fs = disk.open();
    let root = fs.root();
    let mut filled = 0;
    while fs.create(root, format!("inode {filled}").as_bytes(), FILE).is_ok() {
        filled += 1;
    }
    let before = fs.readdir(root).unwrap();
    assert!(matches!(fs.create(root, b"no inode", FILE), Err(Error::NoSpace(_))));
    fs.unlink(root, b"inode 0").unwrap();
    let big = fs.create(root, b"big", FILE).unwrap();
    assert!(matches!(fs.replace(big, &vec![1; 8 << 20]), Err(Error::NoSpace(_))));
    let mut size = 1 << 20;
    while size > 500 {
        match fs.append(big, &vec![2; size]) {
            Ok(()) => {}
            Err(Error::NoSpace(_)) => size /= 2,
            Err(error) => panic!("{error}"),
        }
    }
    fs.unlink(root, b"inode 1").unwrap();
    assert!(matches!(
        fs.mkdir(root, b"no block", Attributes { mode: 0o755, uid: 0, gid: 0 }),
        Err(Error::NoSpace(_))
    ));
    let node = fs.lookup(root, b"inode 2").unwrap().unwrap();
    assert!(matches!(fs.set_xattr(node, b"user.x", Some(&[1; 500])), Err(Error::NoSpace(_))));
    assert_eq!(fs.readdir(root).unwrap().len(), before.len() - 1);
    commit(&mut fs);
    disk.fsck("full");
}
