//! We read of btrfs the same as the kernel does: every kind of file, for many kinds of mkfs.

use crate::btrfs_support::{Disk, compare, walk_ext};
use snf_fs::btrfs::Btrfs;
use snf_fs::{Error, FileSystem, MemoryDevice};
use std::sync::Arc;

/// One of everything. Names from 0 to 999 collide in the hash of the directory.
const FILES: &str = r#"
mkdir -p etc home many links big 'ro nly'
echo web1 > etc/hostname
for i in $(seq 0 999); do echo $i > many/newfile$i; done
head -c 3000000 /dev/urandom > big/random
yes some text that packs well | head -c 1000000 > big/text
head -c 2047 /dev/zero | tr '\0' a > big/inline
head -c 2049 /dev/zero | tr '\0' b > big/not-inline
head -c 5000 /dev/urandom > big/tail; truncate -s 20000 big/tail
truncate -s 10000000 big/sparse; printf end | dd of=big/sparse bs=1 seek=9000000 conv=notrunc 2>/dev/null
printf mid | dd of=big/sparse bs=1 seek=4500000 conv=notrunc 2>/dev/null
fallocate -l 300000 big/preallocated
fallocate -l 300000 big/half; head -c 100000 /dev/urandom | dd of=big/half bs=4096 conv=notrunc 2>/dev/null
cp --reflink=always big/random big/reflink
head -c 10000 /dev/urandom | dd of=big/reflink bs=4096 seek=100 conv=notrunc 2>/dev/null
truncate -s 0 big/empty
touch big/nocow; chattr +C big/nocow; head -c 40000 /dev/urandom > big/nocow
touch links/one; for i in $(seq 1 400); do ln links/one links/a-name-long-enough-to-fill-an-item-$i 2>/dev/null || break; done
ln -s /etc/hostname links/absolute
ln -s $(printf 'x%.0s' $(seq 1 900)) links/long
mknod links/null c 1 3; mknod links/disk b 259 70000; mkfifo links/fifo
python3 -c "import socket; socket.socket(socket.AF_UNIX).bind('links/socket')"
chown 1000:1001 home; chmod 2750 home; chmod 4755 big/text; chown 4000000000:5 big/empty
setfattr -n user.one -v 1 etc; setfattr -n user.two -v $(printf 'v%.0s' $(seq 1 1500)) etc
setfattr -n security.selinux -v system_u:object_r:etc_t:s0 etc/hostname
setfattr -n user.empty etc/hostname
"#;

fn fill(disk: &Disk, options: &str) {
    disk.fill(options, FILES);
}

#[test]
fn the_kernel_and_we_agree_for_every_kind_of_mkfs() {
    for args in [
        "",
        "--csum xxhash -n 4096",
        "--csum sha256 -n 65536 -d dup",
        "--csum blake2 -m single",
        "-O ^no-holes,^extref,^skinny-metadata -R ^free-space-tree",
        "--mixed",
    ] {
        let disk = Disk::make(args, 256);
        fill(&disk, "compress=no");
        compare(&disk, args);
    }
}

#[test]
fn compressed_files() {
    for kind in ["zlib", "lzo", "zstd", "zstd:15"] {
        let disk = Disk::make("", 256);
        fill(&disk, &format!("compress-force={kind}"));
        let dump = disk.dump("dump-tree -t 5");
        let name = kind.split(':').next().unwrap();
        assert!(dump.matches(&format!("({name})")).count() > 5, "{kind}: nothing is compressed");
        compare(&disk, kind);
    }
}

#[test]
fn subvolumes_snapshots_and_the_default_one() {
    let disk = Disk::make("", 256);
    disk.fill(
        "noatime",
        r#"
        btrfs -q subvolume create root; btrfs -q subvolume create home
        mkdir root/etc; echo fedora > root/etc/hostname
        btrfs -q subvolume create root/nested 2>/dev/null; echo in > root/nested/file
        btrfs -q subvolume snapshot root snap; echo changed > snap/etc/hostname
        btrfs -q subvolume snapshot -r root old
        mkdir -p root/.snapshots/1; btrfs -q subvolume snapshot root root/.snapshots/1/snapshot
        btrfs subvolume set-default root
        "#,
    );
    let fs = disk.open();
    assert!(fs.lookup(fs.root(), b"etc").unwrap().is_some(), "the default subvolume is root");
    compare(&disk, "default subvolume");
    let whole = fs.subvolume(b"").unwrap().unwrap();
    let names = |fs: &dyn FileSystem| {
        let mut names: Vec<String> = fs
            .readdir(fs.root())
            .unwrap()
            .into_iter()
            .map(|entry| String::from_utf8(entry.name).unwrap())
            .collect();
        names.sort();
        names.join(" ")
    };
    assert_eq!(names(&*whole), "home old root snap");
    for (path, expected) in [
        ("home", ""),
        ("root", ".snapshots etc nested"),
        ("/old/", "etc nested"),
        ("root/.snapshots/1/snapshot", ".snapshots etc nested"),
        ("root/nested", "file"),
    ] {
        let view = fs.subvolume(path.as_bytes()).unwrap().unwrap();
        assert_eq!(names(&*view), expected, "{path}");
    }
    let nothing = ["etc", "root/etc", "root/etc/hostname", "snap/nested", "none/at/all"];
    for path in nothing {
        assert!(fs.subvolume(path.as_bytes()).unwrap().is_none(), "{path}");
    }
    // The whole, through the kernel and through us.
    let mount = disk.mount("ro,subvolid=5");
    let mut theirs = crate::btrfs_support::walk_mount(&mount.at);
    drop(mount);
    let mut ours = walk_ext(&*whole);
    for tree in [&mut ours, &mut theirs] {
        for (path, seen) in tree.iter_mut() {
            if [&b"/nested"[..], b"/snapshot"].iter().any(|end| path.ends_with(end)) {
                (seen.mtime, seen.ctime) = ((0, 0), (0, 0));
            }
        }
    }
    crate::btrfs_support::diff("the whole", &ours, &theirs);
}

#[test]
fn a_damaged_copy_is_passed_over_and_damage_is_named() {
    let disk = Disk::make("", 256);
    disk.fill("noatime", "mkdir etc; echo web1 > etc/hostname; head -c 100000 /dev/urandom > data");
    let bytes = std::fs::read(&disk.path).unwrap();
    let whole = walk_ext(&disk.open());
    // Both copies of each tree block, by the header's UUID and address.
    let fsid = bytes[65_536 + 32..65_536 + 48].to_vec();
    let mut blocks: std::collections::BTreeMap<u64, Vec<usize>> = Default::default();
    for at in (0..bytes.len()).step_by(16_384) {
        if bytes[at + 32..at + 48] == fsid && at != 65_536 {
            let address = u64::from_le_bytes(bytes[at + 48..at + 56].try_into().unwrap());
            blocks.entry(address).or_default().push(at);
        }
    }
    let doubled: Vec<&Vec<usize>> = blocks.values().filter(|places| places.len() == 2).collect();
    assert!(doubled.len() > 5, "{blocks:?}");
    let mut one = bytes.clone();
    doubled.iter().for_each(|places| one[places[0] + 200] ^= 1);
    let fs = Btrfs::open(Arc::new(MemoryDevice::new(one)), crate::btrfs_support::NOW).unwrap();
    assert_eq!(walk_ext(&fs), whole);
    let mut named = 0;
    for places in &doubled {
        let mut both = bytes.clone();
        places.iter().for_each(|at| both[at + 200] ^= 1);
        let fs = match Btrfs::open(Arc::new(MemoryDevice::new(both)), crate::btrfs_support::NOW) {
            Ok(fs) => fs,
            Err(error) => {
                assert!(error.to_string().contains("checksum is wrong"), "{error}");
                named += 1;
                continue;
            }
        };
        if let Err(error) = fs.readdir(fs.root()) {
            assert!(matches!(error, Error::Corrupt { .. }), "{error}");
            named += 1;
        }
    }
    assert!(named >= 3, "{named}");
    // Data has one copy.
    let fs = disk.open();
    let node = fs.lookup(fs.root(), b"data").unwrap().unwrap();
    let mut content = vec![0; 100_000];
    fs.read(node, 0, &mut content).unwrap();
    let place = bytes.windows(64).position(|part| part == &content[50_000..50_064]).unwrap();
    let mut damaged = bytes;
    damaged[place] ^= 1;
    let fs = Btrfs::open(Arc::new(MemoryDevice::new(damaged)), crate::btrfs_support::NOW).unwrap();
    let error = fs.read(node, 0, &mut content).unwrap_err();
    assert!(error.to_string().contains("checksum is wrong"), "{error}");
    assert_eq!(fs.read(node, 0, &mut content[..1000]).unwrap(), 1000);
}
