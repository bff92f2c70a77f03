//! Directories of the less common kinds: inside the inode, ignoring case, three levels deep, and
//! with names whose hashes collide.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use crate::oracle::{Disk, at, commit, compare, shell};
use snf_fs::ext::internals::units::Ino;
use snf_fs::{Attributes, Error, FileSystem};

const FILE: Attributes = Attributes { mode: 0o644, uid: 1, gid: 2 };
const DIR: Attributes = Attributes { mode: 0o755, uid: 0, gid: 0 };

#[test]
fn inside_the_inode() {
    for args in [
        "-t ext4 -O inline_data",
        "-t ext4 -O inline_data -I 1024",
        "-t ext4 -O inline_data,^metadata_csum -b 1024",
    ] {
        let disk = Disk::make(args, 48);
        let mount = disk.mount("rw");
        shell(
            &mount.at,
            "mkdir empty few full other
             for i in 1 2 3; do echo $i > few/$i; done
             for i in $(seq 9); do echo $i > full/name$i; done
             mkdir few/sub; ln -s few link; for i in $(seq 300); do mkdir -p p/d$i; done",
        );
        drop(mount);
        compare(&disk, args);
        let mut fs = disk.open();
        let (empty, few, full) = (at(&fs, "empty"), at(&fs, "few"), at(&fs, "full"));
        fs.create(empty, b"one", FILE).unwrap();
        fs.unlink(few, b"2").unwrap();
        fs.rename(few, b"sub", empty, b"moved").unwrap();
        // From the inode into the inode's xattrs, and on into a block.
        for i in 0..40 {
            fs.create(full, format!("more{i}").as_bytes(), FILE).unwrap();
            assert_eq!(fs.readdir(full).unwrap().len(), 10 + i);
        }
        for i in 0..300 {
            fs.create(at(&fs, &format!("p/d{}", i + 1)), &vec![b'n'; i % 90 + 1], FILE).unwrap();
        }
        for i in 100..200 {
            let dir = at(&fs, &format!("p/d{}", i + 1));
            fs.set_xattr(dir, b"user.x", Some(&vec![1; i % 100])).unwrap();
            fs.unlink(dir, &vec![b'n'; i % 90 + 1]).unwrap();
            fs.create(dir, b"again", FILE).unwrap();
        }
        commit(&mut fs);
        disk.fsck(args);
        compare(&disk, args);
        let mount = disk.mount("rw");
        shell(
            &mount.at,
            "rm full/more3; for i in $(seq 300); do echo > p/d$i/kernel; done
             rmdir empty/moved; mv few/1 empty/",
        );
        drop(mount);
        disk.fsck(args);
        compare(&disk, args);
    }
}

/// The kernel here may know no casefold; e2fsck does, and checks every hash.
#[test]
fn ignoring_case() {
    for options in ["", ",encoding_flags=strict"] {
        let args = format!("-t ext4 -b 1024 -O casefold -E encoding=utf8{options}");
        let disk = Disk::make(&args, 48);
        let mut fs = disk.open();
        let root = fs.root();
        fs.mkdir(root, b"dir", DIR).unwrap();
        commit(&mut fs);
        let output = std::process::Command::new("debugfs")
            .args(["-w", "-R", "set_inode_field dir flags 0x40080000"])
            .arg(&disk.path)
            .output()
            .unwrap();
        assert!(output.status.success());
        disk.fsck(&args);
        let mut fs = disk.open();
        let dir = at(&fs, "dir");
        let node = fs.create(dir, "Straße.TXT".as_bytes(), FILE).unwrap();
        assert_eq!(fs.lookup(dir, "STRASSE.txt".as_bytes()).unwrap(), Some(node));
        let result = fs.create(dir, "strasse.txt".as_bytes(), FILE);
        assert!(matches!(result, Err(Error::Exists(_))), "{result:?}");
        assert!(fs.lookup(dir, b"\xff\xfe").unwrap().is_none());
        let result = fs.create(dir, b"\xff\xfe", FILE);
        assert_eq!(result.is_err(), !options.is_empty(), "{result:?}");
        fs.rename(dir, "STRASSE.txt".as_bytes(), dir, "strasse.TXT".as_bytes()).unwrap();
        assert_eq!(fs.lookup(dir, "Strasse.Txt".as_bytes()).unwrap(), Some(node));
        for i in 0..600 {
            let name = format!("Ünïcode Ñame {i} {}", "Ž".repeat(i % 20));
            fs.create(dir, name.as_bytes(), FILE).unwrap();
            let other = name.to_uppercase();
            assert!(fs.lookup(dir, other.as_bytes()).unwrap().is_some(), "{name}");
            if i % 3 == 0 {
                fs.unlink(dir, other.as_bytes()).unwrap();
            }
        }
        let below = fs.mkdir(dir, b"Below", DIR).unwrap();
        fs.create(below, b"File", FILE).unwrap();
        assert!(fs.lookup(below, b"FILE").unwrap().is_some());
        commit(&mut fs);
        if let Ok(node) = result {
            // The kernel hashes such a name byte by byte. e2fsck 1.47 fails to hash it and goes on
            // with a number by chance ("bad min hash"), so another judge is asked first.
            let word = |text: &str, before: &str| {
                let rest = text.split_once(before).unwrap_or_else(|| panic!("{text}")).1;
                let end = rest.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(rest.len());
                u32::from_str_radix(&rest[..end], 16).unwrap()
            };
            let stats = disk.debugfs("show_super_stats -h");
            let seed = stats.lines().find_map(|l| l.strip_prefix("Directory Hash Seed:")).unwrap();
            let request = [b"dx_hash -h half_md4 -s ", seed.trim().as_bytes(), b" \xff\xfe"];
            let hash = word(&disk.debugfs(OsStr::from_bytes(&request.concat())), "is 0x");
            let dump = disk.debugfs("htree_dump /dir");
            let mut index =
                dump.lines().filter(|line| line.starts_with("Entry #") && line.contains(": Hash"));
            let leaf = index.rfind(|line| word(line, "Hash 0x") <= hash).unwrap();
            let leaf = leaf.rsplit(' ').next().unwrap();
            let blocks: Vec<&str> = dump.split("Reading directory block ").collect();
            let block = blocks.iter().find(|text| text.starts_with(&format!("{leaf},"))).unwrap();
            assert!(block.contains(&format!("{} 0x", node.0)), "{hash:x}, block {leaf}: {dump}");
            let mut fs = disk.open();
            assert_eq!(fs.lookup(dir, b"\xff\xfe").unwrap(), Some(node));
            fs.unlink(dir, b"\xff\xfe").unwrap();
            commit(&mut fs);
        }
        disk.fsck(&args);
    }
}

#[test]
fn three_levels() {
    let args = "-t ext4 -b 1024 -O large_dir,^has_journal -N 1024";
    let disk = Disk::make(args, 128);
    let mut fs = disk.open();
    let root = fs.root();
    let dir = fs.mkdir(root, b"dir", DIR).unwrap();
    let node = fs.create(root, b"file", FILE).unwrap();
    // The same file under very many names would need links; entries to one inode do the same for
    // the index, and are taken out again before e2fsck counts them.
    let ino = Ino::new(node.0 as u32);
    let volume = fs.volume_mut();
    let mut inode = volume.live_inode(Ino::new(dir.0 as u32)).unwrap();
    let name = |i: usize| format!("{i:0>200}");
    for i in 0..48_000 {
        use snf_fs::FileType::Regular;
        snf_fs::ext::internals::dir::insert(volume, &mut inode, name(i).as_bytes(), ino, Regular)
            .unwrap();
    }
    volume.write_inode(&inode).unwrap();
    for i in (0..48_000).step_by(501) {
        assert_eq!(fs.lookup(dir, name(i).as_bytes()).unwrap(), Some(node));
    }
    let volume = fs.volume_mut();
    for i in 1..48_000 {
        snf_fs::ext::internals::dir::remove(volume, &mut inode, name(i).as_bytes()).unwrap();
    }
    volume.write_inode(&inode).unwrap();
    fs.unlink(root, b"file").unwrap_or_else(|error| panic!("{error}"));
    let volume = fs.volume_mut();
    snf_fs::ext::internals::dir::remove(volume, &mut inode, name(0).as_bytes()).unwrap();
    volume.write_inode(&inode).unwrap();
    commit(&mut fs);
    disk.fsck(args);
    let said = disk.debugfs("htree_dump /dir");
    assert!(said.contains("Indirect levels: 2"), "{}", &said[..600]);
}

#[test]
fn a_full_index_is_said() {
    let args = "-t ext4 -b 1024 -O ^has_journal -N 1024";
    let disk = Disk::make(args, 128);
    let mut fs = disk.open();
    let root = fs.root();
    let dir = fs.mkdir(root, b"dir", DIR).unwrap();
    let volume = fs.volume_mut();
    let mut inode = volume.live_inode(Ino::new(dir.0 as u32)).unwrap();
    let name = |i: usize| format!("{i:0>250}");
    let error = (0..70_000)
        .find_map(|i| {
            use snf_fs::FileType::Regular;
            let before = inode.clone();
            let result = volume.attempt(|volume| {
                snf_fs::ext::internals::dir::insert(
                    volume,
                    &mut inode,
                    name(i).as_bytes(),
                    Ino::new(11),
                    Regular,
                )
            });
            if result.is_err() {
                inode = before;
            }
            result.err().map(|error| (i, error))
        })
        .expect("two levels of small blocks are full before 70,000 long names");
    assert!(error.0 > 10_000, "{}", error.0);
    assert!(matches!(error.1, Error::NoSpace(_)), "{}", error.1);
    assert!(error.1.to_string().contains("large_dir"), "{}", error.1);
    for i in 0..error.0 {
        let entry =
            snf_fs::ext::internals::dir::remove(volume, &mut inode, name(i).as_bytes()).unwrap();
        assert_eq!(entry.ino, Ino::new(11));
    }
    volume.write_inode(&inode).unwrap();
    commit(&mut fs);
    disk.fsck("full index");
}

/// In a directory of nothing but pairs of names with one hash, about every second split of a leaf
/// goes through a pair: the index then says that the names continue.
#[test]
fn colliding_hashes() {
    let args = "-t ext4 -b 1024 -O ^has_journal -N 8192";
    let disk = Disk::make(args, 48);
    let mut fs = disk.open();
    let sb = &fs.volume().sb;
    let hasher = snf_fs::ext::internals::dir::hash::Hasher {
        version: sb.raw.s_def_hash_version,
        unsigned: sb.raw.s_flags.get() & 2 != 0,
        seed: sb.hash_seed(),
    };
    let name = |i: u32| format!("{i:0>28}");
    let mut hashes: Vec<(u32, u32)> =
        (0..1_500_000).map(|i| (hasher.hash(name(i).as_bytes()), i)).collect();
    hashes.sort_unstable();
    let mut names: Vec<String> = hashes
        .windows(2)
        .filter(|pair| pair[0].0 == pair[1].0)
        .flat_map(|pair| [name(pair[0].1), name(pair[1].1)])
        .collect();
    names.sort_unstable();
    assert!(names.len() > 600, "{}", names.len());
    let root = fs.root();
    let dir = fs.mkdir(root, b"dir", DIR).unwrap();
    for name in &names {
        match fs.create(dir, name.as_bytes(), FILE) {
            Ok(_) | Err(Error::Exists(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }
    for name in &names {
        assert!(fs.lookup(dir, name.as_bytes()).unwrap().is_some());
    }
    commit(&mut fs);
    disk.fsck("collisions");
    // The kernel looks every name up.
    compare(&disk, "collisions");
    let said = disk.debugfs("htree_dump /dir");
    let continued = said.lines().filter(|line| {
        let hash = line.split("Hash 0x").nth(1).and_then(|rest| rest.split([',', ' ']).next());
        hash.and_then(|hash| u32::from_str_radix(hash, 16).ok()).is_some_and(|hash| hash & 1 == 1)
    });
    assert!(continued.count() > 2, "{}", &said[..2000.min(said.len())]);
    for name in names.iter().step_by(2) {
        let _ = fs.unlink(dir, name.as_bytes());
    }
    commit(&mut fs);
    disk.fsck("collisions");
    compare(&disk, "collisions");
}
