//! The cost of an edit: blocks read and written.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::oracle::{Disk, NOW, at, shell};
use snf_fs::ext::{Ext, Options};
use snf_fs::{BlockDevice, DeviceError, FileDevice, FileSystem};

struct Counting {
    below: FileDevice,
    read: AtomicU64,
    written: AtomicU64,
    flushes: AtomicU64,
}

impl BlockDevice for Counting {
    fn len(&self) -> u64 {
        self.below.len()
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), DeviceError> {
        self.read.fetch_add(buf.len().div_ceil(4096) as u64, Ordering::Relaxed);
        self.below.read_at(offset, buf)
    }
    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<(), DeviceError> {
        self.written.fetch_add(buf.len().div_ceil(4096) as u64, Ordering::Relaxed);
        self.below.write_at(offset, buf)
    }
    fn flush(&self) -> Result<(), DeviceError> {
        self.flushes.fetch_add(1, Ordering::Relaxed);
        self.below.flush()
    }
}

/// Blocks of 4 KiB read and written by opening and replacing /etc/shadow on an image of `mib`.
fn cost(mib: u64) -> (u64, u64) {
    let disk = Disk::make("-t ext4 -b 4096", mib);
    let mount = disk.mount("rw");
    shell(
        &mount.at,
        "mkdir -p etc usr/bin; for i in $(seq 300); do echo $i > etc/conf$i; echo > usr/bin/$i; done
         echo root:x:1:0:99999:7::: > etc/shadow
         setfattr -n security.selinux -v system_u:object_r:shadow_t:s0 etc/shadow",
    );
    drop(mount);
    let file = File::options().read(true).write(true).open(&disk.path).unwrap();
    let device = Arc::new(Counting {
        below: FileDevice::from_file(file).unwrap(),
        read: AtomicU64::new(0),
        written: AtomicU64::new(0),
        flushes: AtomicU64::new(0),
    });
    let mut fs = Ext::open(device.clone(), Options { now: NOW, seed: 7 }).unwrap();
    let shadow = at(&fs, "etc/shadow");
    fs.replace(shadow, b"root:$y$j9T$abc:2:0:99999:7:::\n").unwrap();
    fs.commit().unwrap();
    drop(fs);
    disk.fsck("cost");
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    println!(
        "{mib} MiB: {} read, {} written, {} flushes",
        count(&device.read),
        count(&device.written),
        count(&device.flushes)
    );
    (count(&device.read), count(&device.written))
}

/// A kernel mount alone reads about 340 and writes 26 blocks of a 2 GiB image.
#[test]
fn one_file_replaced() {
    let (read, written) = cost(2048);
    assert!(read <= 30 && written <= 20, "{read} read, {written} written");
    let (read_large, written_large) = cost(64 * 1024);
    assert!(
        read_large <= read + 20 && written_large <= written + 2,
        "{read_large} {written_large}"
    );
}
