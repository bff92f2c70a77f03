//! Quota files follow every change, and e2fsck agrees.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::process::Command;

use crate::support::{Image, Random, commit, files, run};
use snf_fs::ext::internals::map;

#[test]
fn usage_follows_owner_and_size() {
    for args in [
        "-t ext4 -O quota,project -E quotatype=usrquota:grpquota:prjquota",
        "-t ext4 -b 1024 -O quota",
        "-t ext4 -b 1024 -C 8192 -O quota,bigalloc",
    ] {
        let expected = files(60, 50_000, 3);
        let image = Image::make_unchecked(args, 64, &expected);
        // mke2fs -d does not count what it copies.
        run(Command::new("e2fsck").arg("-fy").arg(&image.path));
        image.fsck(args);
        let mut vol = image.open();
        let mut random = Random(5);
        for round in 0..4 {
            for (which, (name, bytes)) in expected.iter().enumerate() {
                let mut inode = vol.live_inode(image.ino(name)).unwrap();
                // Many new ids, so that entry blocks fill and the tree branches.
                let id = which as u32 * 70_001 * (round % 3);
                inode.set_owner(id, id / 2);
                if args.contains("project") {
                    inode.raw.i_projid.set(id / 3);
                }
                let more = random.bytes(random.clone().below(9_000) as usize);
                match which % 3 {
                    0 => map::append(&mut vol, &mut inode, &more).unwrap(),
                    1 => map::replace(&mut vol, &mut inode, &more).unwrap(),
                    _ => {
                        map::truncate(&mut vol, &mut inode, (bytes.len() / 2) as u64).unwrap();
                    }
                }
                vol.write_inode(&inode).unwrap();
            }
            commit(&mut vol);
            image.fsck(&format!("{args} round {round}"));
        }
    }
}

#[test]
fn taking_a_change_back_takes_its_usage_back() {
    let image = Image::make_unchecked("-t ext4 -O quota", 32, &[("f".into(), vec![1; 9000])]);
    run(Command::new("e2fsck").arg("-fy").arg(&image.path));
    let mut vol = image.open();
    let mut inode = vol.live_inode(image.ino("f")).unwrap();
    let failed: Result<(), _> = vol.attempt(|vol| {
        map::append(vol, &mut inode, &[3; 50_000])?;
        vol.write_inode(&inode)?;
        Err(snf_fs::Error::Invalid("no".into()))
    });
    assert!(failed.is_err());
    snf_fs::ext::internals::journal::seal(&mut vol).unwrap();
    assert!(!vol.store.is_dirty());
}

/// Everything that the operations do is counted: new nodes, links that go, large attributes.
#[test]
fn usage_follows_operations() {
    use snf_fs::{Attributes, FileDevice, FileSystem, Timestamp};
    const FILE: Attributes = Attributes { mode: 0o644, uid: 7, gid: 8 };
    for args in [
        "-t ext4 -b 1024 -O quota,project -E quotatype=usrquota:grpquota:prjquota",
        "-t ext4 -b 1024 -O quota,ea_inode",
        "-t ext4 -b 1024 -O quota,inline_data,orphan_file",
    ] {
        let image = Image::make_unchecked(args, 32, &files(5, 9_000, 1));
        run(Command::new("e2fsck").arg("-fy").arg(&image.path));
        for round in 0..3 {
            let file = std::fs::File::options().read(true).write(true).open(&image.path).unwrap();
            let device = std::sync::Arc::new(FileDevice::from_file(file).unwrap());
            let now = Timestamp { seconds: 1_700_000_000, nanoseconds: 0 };
            let options = snf_fs::ext::Options { now, seed: 3 };
            let mut fs = snf_fs::ext::Ext::open(device, options).unwrap();
            let root = fs.root();
            match round {
                0 => {
                    let dir = fs.mkdir(root, b"dir", FILE).unwrap();
                    for name in [&b"one"[..], b"two", b"three"] {
                        let node = fs.create(dir, name, FILE).unwrap();
                        fs.replace(node, &[1; 5_000]).unwrap();
                        fs.set_xattr(node, b"user.a", Some(&[2; 700])).unwrap();
                        if args.contains("ea_inode") {
                            fs.set_xattr(node, b"user.large", Some(&[3; 5_000])).unwrap();
                        }
                    }
                    fs.symlink(dir, b"link", &[b'x'; 500], FILE).unwrap();
                }
                1 => {
                    let dir = fs.lookup(root, b"dir").unwrap().unwrap();
                    let node = fs.lookup(dir, b"one").unwrap().unwrap();
                    fs.chown(node, 70_000, 0).unwrap();
                    fs.set_xattr(node, b"user.a", None).unwrap();
                    fs.unlink(dir, b"two").unwrap();
                    fs.rename(dir, b"three", root, b"file0").unwrap();
                }
                _ => {
                    let dir = fs.lookup(root, b"dir").unwrap().unwrap();
                    for name in [&b"one"[..], b"link"] {
                        fs.unlink(dir, name).unwrap();
                    }
                    fs.rmdir(root, b"dir").unwrap();
                }
            }
            fs.commit().unwrap();
            image.fsck(&format!("{args} round {round}"));
        }
    }
}
