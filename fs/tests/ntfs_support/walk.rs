//! A tree as the mount shows it and as the engine does.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use snf_fs::{FileSystem, FileType, NodeId};

/// The file that a name leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    File {
        size: u64,
        hash: u64,
        mtime: (i64, u32),
    },
    Directory,
    Link(Vec<u8>),
    /// A file that the two show differently.
    Other,
}

/// Paths without the slash that they begin with.
pub type Walk = BTreeMap<Vec<u8>, Seen>;

/// FNV-1a: a hash that needs no crate.
pub fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    })
}

pub fn through_mount(root: &Path) -> Walk {
    use std::os::unix::fs::MetadataExt;
    let mut out = Walk::new();
    let mut todo = vec![root.to_path_buf()];
    while let Some(dir) = todo.pop() {
        for entry in std::fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().as_os_str().as_bytes().to_vec();
            let seen = match std::fs::symlink_metadata(&path) {
                Ok(meta) if meta.is_dir() => {
                    todo.push(path);
                    Seen::Directory
                }
                Ok(meta) if meta.is_file() => Seen::File {
                    size: meta.len(),
                    hash: hash(&std::fs::read(&path).unwrap()),
                    mtime: (meta.mtime(), meta.mtime_nsec() as u32),
                },
                _ => Seen::Other,
            };
            out.insert(name, seen);
        }
    }
    out
}

pub fn content(fs: &dyn FileSystem, node: NodeId, size: u64) -> Vec<u8> {
    let mut bytes = vec![0; size as usize + 1];
    let mut done = 0;
    // Parts that begin and end anywhere.
    while done < size as usize {
        let end = bytes.len().min(done + 300_001);
        let count = fs.read(node, done as u64, &mut bytes[done..end]).unwrap();
        assert!(count > 0, "node {} ends at {done} of {size}", node.0);
        done += count;
    }
    assert_eq!(fs.read(node, size, &mut bytes[..1]).unwrap(), 0);
    bytes.truncate(size as usize);
    bytes
}

pub fn through_us(fs: &dyn FileSystem) -> Walk {
    let mut out = Walk::new();
    let mut todo = vec![(fs.root(), Vec::new())];
    while let Some((dir, prefix)) = todo.pop() {
        for entry in fs.readdir(dir).unwrap() {
            let mut path = prefix.clone();
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(&entry.name);
            assert_eq!(fs.lookup(dir, &entry.name).unwrap(), Some(entry.node));
            let stat = fs.stat(entry.node).unwrap();
            let seen = match stat.file_type {
                FileType::Directory => {
                    todo.push((entry.node, path.clone()));
                    Seen::Directory
                }
                FileType::Symlink => Seen::Link(fs.read_link(entry.node).unwrap()),
                _ => Seen::File {
                    size: stat.size,
                    hash: hash(&content(fs, entry.node, stat.size)),
                    mtime: (stat.mtime.seconds, stat.mtime.nanoseconds),
                },
            };
            out.insert(path, seen);
        }
    }
    out
}
