//! A device that fails at one read after the other: every operation that meets the failure says
//! so and changes nothing, and works when it is tried again.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use crate::oracle;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use crate::oracle::{Disk, NOW, Tree, at, shell, walk_ext};
use snf_fs::ext::{Ext, Options};
use snf_fs::{Attributes, BlockDevice, DeviceError, Error, FileSystem, MemoryDevice};

const FILE: Attributes = Attributes { mode: 0o644, uid: 1, gid: 2 };
const DIR: Attributes = Attributes { mode: 0o2755, uid: 0, gid: 0 };

/// Fails one read: the one that finds the count at 0.
struct Faulty {
    below: MemoryDevice,
    reads_left: AtomicI64,
}

impl BlockDevice for Faulty {
    fn len(&self) -> u64 {
        self.below.len()
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), DeviceError> {
        if self.reads_left.fetch_sub(1, Ordering::Relaxed) == 0 {
            let source = io::Error::other("made up");
            return Err(DeviceError { operation: "read", offset, length: buf.len(), source });
        }
        self.below.read_at(offset, buf)
    }
    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<(), DeviceError> {
        self.below.write_at(offset, buf)
    }
    fn flush(&self) -> Result<(), DeviceError> {
        self.below.flush()
    }
}

/// Runs an operation; after a failure of the device, again. Counts the failures.
fn persist<T>(failures: &mut u32, mut work: impl FnMut() -> Result<T, Error>) -> T {
    loop {
        match work() {
            Ok(value) => return value,
            Err(Error::Device(_)) => *failures += 1,
            Err(error) => panic!("{error}"),
        }
    }
}

/// All operations once; the number of failures met.
fn scenario(fs: &mut Ext) -> u32 {
    let mut n = 0;
    let root = fs.root();
    let find = |fs: &Ext, n: &mut u32, path: &str| {
        let mut node = root;
        for part in path.split('/') {
            node = persist(n, || fs.lookup(node, part.as_bytes())).unwrap();
        }
        node
    };
    let index = find(fs, &mut n, "index");
    let etc = find(fs, &mut n, "etc");
    let shadow = find(fs, &mut n, "etc/shadow");
    let shared = find(fs, &mut n, "etc/shared");
    persist(&mut n, || fs.replace(shadow, &[b's'; 5000]));
    persist(&mut n, || fs.append(shadow, &[b't'; 3000]));
    for i in 0..30 {
        let name = format!("a new name of more than a few bytes {i}");
        persist(&mut n, || fs.create(index, name.as_bytes(), FILE));
    }
    let dir = persist(&mut n, || fs.mkdir(etc, b"dir", DIR));
    persist(&mut n, || fs.mkdir(dir, b"below", DIR));
    persist(&mut n, || fs.symlink(dir, b"link", &[b'l'; 100], FILE));
    persist(&mut n, || fs.rename(dir, b"below", etc, b"moved"));
    persist(&mut n, || fs.rename(etc, b"gone", etc, b"replaced"));
    persist(&mut n, || fs.unlink(etc, b"big"));
    persist(&mut n, || fs.rmdir(etc, b"empty"));
    persist(&mut n, || fs.set_xattr(shared, b"user.a", Some(b"own")));
    persist(&mut n, || fs.set_xattr(shared, b"user.large", Some(&[7; 3000])));
    persist(&mut n, || fs.set_xattr(shadow, b"security.selinux", Some(&[b'x'; 120])));
    persist(&mut n, || fs.chmod(shadow, 0o640));
    persist(&mut n, || fs.chown(shadow, 5, 42));
    n
}

#[test]
fn every_read_fails_once() {
    let args = "-t ext4 -b 1024 -O ea_inode,inline_data -g 4096";
    let disk = Disk::make(args, 16);
    let mount = disk.mount("rw");
    shell(
        &mount.at,
        "mkdir -p index etc/empty
         for i in $(seq 200); do echo > \"index/a name of more than a few bytes $i\"; done
         echo shadow > etc/shadow; head -c 300000 /dev/urandom > etc/big
         echo > etc/gone; echo > etc/replaced
         for f in shared other; do echo > etc/$f
             setfattr -n user.a -v $(printf 'v%.0s' $(seq 300)) etc/$f; done",
    );
    drop(mount);
    let bytes = std::fs::read(&disk.path).unwrap();
    let mut expected: Option<Tree> = None;
    let mut met = 0;
    for k in 0.. {
        let device = Arc::new(Faulty {
            below: MemoryDevice::new(bytes.clone()),
            reads_left: AtomicI64::new(if k == 0 { -1 } else { k - 1 }),
        });
        let options = Options { now: NOW, seed: 7 };
        let mut fs = match Ext::open(device.clone(), options) {
            Ok(fs) => fs,
            Err(Error::Device(_)) => continue,
            Err(error) => panic!("{error}"),
        };
        let failures = scenario(&mut fs);
        if k > 0 && device.reads_left.load(Ordering::Relaxed) >= 0 {
            break; // all reads of the scenario have had their failure
        }
        device.reads_left.store(-1, Ordering::Relaxed);
        met += failures;
        fs.commit().unwrap();
        std::fs::write(&disk.path, device.below.to_vec()).unwrap();
        disk.fsck(&format!("read {k} failed"));
        let tree = walk_ext(&disk.open());
        match &expected {
            None => expected = Some(tree),
            Some(expected) => oracle::diff(&format!("read {k} failed"), &tree, expected),
        }
    }
    assert!(met > 15, "{met} failures");
    at(&disk.open(), "etc/moved");
}
