//! What a damaged image is put through. The targets of cargo-fuzz use this file, too.

use std::sync::Arc;

use snf_fs::ext::{Ext, Options};
use snf_fs::{Attributes, BlockDevice, Error, FileSystem, FileType, NodeId, Timestamp};

/// Nodes that the walk looks at: a damaged directory may name others' children again and again, and
/// how far to follow is the caller's decision.
const MOST_NODES: usize = 2_000;

const FILE: Attributes = Attributes { mode: 0o600, uid: 0, gid: 0 };

/// Reads everything, then changes something everywhere; how many operations were refused.
pub fn exercise(device: Arc<dyn BlockDevice>) -> usize {
    let mut refused = 0;
    let now = Timestamp { seconds: 1_760_000_000, nanoseconds: 0 };
    let Ok(mut fs) = Ext::open(device, Options { now, seed: 1 }) else { return 1 };
    let mut count = |failed: bool| refused += usize::from(failed);
    count(fs.info().is_err());
    let mut todo = vec![fs.root()];
    let mut dirs = vec![fs.root()];
    let mut files: Vec<(NodeId, NodeId, Vec<u8>)> = Vec::new();
    let mut seen = 0;
    let mut buf = vec![0; 20_000];
    while let Some(dir) = todo.pop() {
        let Ok(entries) = fs.readdir(dir) else {
            count(true);
            continue;
        };
        for entry in entries.into_iter().take(400) {
            seen += 1;
            if seen > MOST_NODES {
                break;
            }
            match fs.lookup(dir, &entry.name) {
                Ok(found) => count(found.is_none()),
                Err(_) => count(true),
            }
            count(fs.xattrs(entry.node).is_err());
            let Ok(stat) = fs.stat(entry.node) else {
                count(true);
                continue;
            };
            match stat.file_type {
                FileType::Directory => {
                    todo.push(entry.node);
                    if dirs.len() < 20 {
                        dirs.push(entry.node);
                    }
                }
                FileType::Symlink => count(fs.read_link(entry.node).is_err()),
                FileType::Regular => {
                    for offset in [0, stat.size / 2, stat.size.saturating_sub(10)] {
                        count(fs.read(entry.node, offset, &mut buf).is_err());
                    }
                    files.push((dir, entry.node, entry.name));
                }
                _ => {}
            }
        }
    }
    for (i, (dir, node, name)) in files.iter().enumerate().take(40) {
        let failed = match i % 8 {
            0 => fs.replace(*node, &buf[..9_000]).is_err(),
            1 => fs.append(*node, &buf[..3_000]).is_err(),
            2 => fs.unlink(*dir, name).is_err(),
            3 => fs.set_xattr(*node, b"security.selinux", Some(&buf[..200])).is_err(),
            4 => fs.set_xattr(*node, b"user.big", Some(&buf[..2_500])).is_err(),
            5 => fs.rename(*dir, name, dirs[i % dirs.len()], b"renamed").is_err(),
            6 => fs.chmod(*node, 0o644).is_err() || fs.chown(*node, 1, 70_000).is_err(),
            _ => fs.set_xattr(*node, b"user.small", None).is_err(),
        };
        count(failed);
    }
    for (i, dir) in dirs.iter().enumerate() {
        for n in 0..6 {
            count(fs.create(*dir, format!("new file {n}").as_bytes(), FILE).is_err());
        }
        count(fs.mkdir(*dir, b"new directory", FILE).is_err());
        count(fs.symlink(*dir, b"new link", &[b'x'; 100], FILE).is_err());
        count(fs.rmdir(*dir, b"new directory").is_err());
        if i == 2 {
            count(fs.seal().is_err());
        }
    }
    match fs.commit() {
        Ok(_) => {}
        Err(Error::Device(error)) => panic!("a device error without a device at fault: {error}"),
        Err(_) => count(true),
    }
    refused
}

/// Enlarges the file system to its device, looks at it and commits; how much was refused.
pub fn enlarge(device: Arc<dyn BlockDevice>) -> usize {
    let now = Timestamp { seconds: 1_760_000_000, nanoseconds: 0 };
    let Ok(mut fs) = Ext::open(device, Options { now, seed: 1 }) else { return 1 };
    let mut refused = usize::from(fs.grow(None).is_err());
    refused += usize::from(fs.readdir(fs.root()).is_err());
    refused += usize::from(fs.create(fs.root(), b"after growing", FILE).is_err());
    refused + usize::from(fs.commit().is_err())
}
