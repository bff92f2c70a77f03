//! Enlarging XFS: xfs_repair finds nothing, the kernel fills the new space, xfs_growfs has as many blocks
//! free, and a power cut leaves the old or the new size.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use crate::oracle::shell;
use crate::xfs_support::{Image, OPTIONS, compare, must};
use snf_fs::testing::RecordingDevice;
use snf_fs::xfs::Xfs;
use snf_fs::{Attributes, FileSystem};

const FILE: Attributes = Attributes { mode: 0o644, uid: 0, gid: 0 };

/// Makes the file longer; what comes has old content.
fn lengthen(image: &Image, from: u64, to: u64) {
    let file = File::options().write(true).open(&image.path).unwrap();
    let noise = vec![0xA5; 1 << 20];
    for at in (from..to).step_by(noise.len()) {
        file.write_all_at(&noise[..noise.len().min((to - at) as usize)], at).unwrap();
    }
}

fn fill(image: &Image) {
    let mount = image.mount("rw");
    shell(&mount.at, "mkdir a; for i in $(seq 200); do echo $i > a/$i; done; rm a/1*");
    drop(mount);
}

#[test]
fn every_shape_grows() {
    const MIB: u64 = 1 << 20;
    for (args, from, to) in [
        ("", 64, 300 * MIB),
        ("-m rmapbt=1 -d agcount=3", 80, 131 * MIB + 5000),
        ("-b size=1024 -m finobt=0,reflink=0,inobtcount=0,rmapbt=0", 64, 77 * MIB),
        ("-b size=1024 -m rmapbt=1", 64, 200 * MIB),
        ("-s size=4096 -m rmapbt=1", 64, 150 * MIB),
        ("-d agsize=16m", 70, 96 * MIB + 100_000),
    ] {
        let image = Image::make(args, from);
        fill(&image);
        lengthen(&image, from * MIB, to);
        let twin = Image::of_bytes(&image.bytes());
        let mut fs = image.open();
        let size = fs.grow(to).unwrap();
        assert!(size > from * MIB && size <= to, "{args}: {size}");
        assert_eq!(fs.grow(from * MIB).unwrap(), size, "smaller changes nothing");
        let node = fs.create(fs.root(), b"after", FILE).unwrap();
        fs.replace(node, &vec![5; 3_000_000]).unwrap();
        fs.unlink(fs.root(), b"after").unwrap();
        fs.commit().unwrap();
        drop(fs);
        image.check(args);
        compare(&image, args);
        let free = image.open().info().unwrap();
        assert_eq!(free.size, size, "{args}");
        // xfs_growfs makes the same of it, but for the blocks of the lists that it fills.
        let mount = twin.mount("rw");
        must(std::process::Command::new("xfs_growfs").arg("-d").arg(&mount.at));
        drop(mount);
        let theirs = twin.open().info().unwrap();
        assert_eq!(theirs.size, size, "{args}");
        let groups = 64;
        assert!(
            free.free.abs_diff(theirs.free) <= groups * 20 * u64::from(free.block_size),
            "{args}: {} and {}",
            free.free,
            theirs.free
        );
        let mount = image.mount("rw");
        shell(
            &mount.at,
            "n=$(df --output=avail -k . | tail -1); head -c $((n * 850))  /dev/zero > big; \
             mkdir b; for i in $(seq 300); do echo $i > b/$i; done",
        );
        drop(mount);
        image.check(&format!("{args}, filled by the kernel"));
    }
}

#[test]
fn a_cut_leaves_the_old_or_the_new_size() {
    const MIB: usize = 1 << 20;
    let image = Image::make("-b size=1024 -m rmapbt=1 -d agcount=2", 40);
    fill(&image);
    let mut bytes = image.bytes();
    bytes.resize(64 * MIB, 0xA5);
    let device = Arc::new(RecordingDevice::new(bytes));
    let mut fs = Xfs::open(device.clone(), OPTIONS).unwrap();
    let size = fs.grow(64 << 20).unwrap();
    fs.create(fs.root(), b"new", FILE).unwrap();
    fs.commit().unwrap();
    let events = device.events().len();
    let mut sizes = std::collections::BTreeSet::new();
    for count in 0..=events {
        for cut in [device.prefix(count), device.torn(count, count as u64)] {
            let what = format!("after {count} of {events}");
            let image = Image::of_bytes(&cut);
            drop(image.mount("rw"));
            image.check(&what);
            let fs = image.open();
            let now = fs.info().unwrap().size;
            assert!(now == size || now == 40 << 20, "{what}: {now}");
            assert_eq!(fs.lookup(fs.root(), b"new").unwrap().is_some(), now == size, "{what}");
            sizes.insert(now);
        }
    }
    assert_eq!(sizes.len(), 2);
}
