//! The exercise of a damaged image. The targets of cargo-fuzz use this file, too.

use std::sync::Arc;

use snf_fs::ext::{Ext, Options};
use snf_fs::{Attributes, BlockDevice, Error, FileSystem, FileType, NodeId, Timestamp};

/// Nodes that the walk looks at: a damaged directory may name others' children again and again, and
/// how far to follow is the caller's decision.
const MOST_NODES: usize = 2_000;

const FILE: Attributes = Attributes { mode: 0o600, uid: 0, gid: 0 };

/// The result of a walk.
#[derive(Default)]
pub struct Found {
    pub dirs: Vec<NodeId>,
    /// Directory, file, name.
    pub files: Vec<(NodeId, NodeId, Vec<u8>)>,
    pub refused: usize,
}

impl Found {
    /// The value; what is refused is counted, and an error of the device is a defect.
    pub fn note<T>(&mut self, result: Result<T, Error>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(Error::Device(error)) => panic!("no device is at fault: {error}"),
            Err(_) => {
                self.refused += 1;
                None
            }
        }
    }
}

fn options() -> Options {
    Options { now: Timestamp { seconds: 1_760_000_000, nanoseconds: 0 }, seed: 1 }
}

/// Opens and reads; `None` when that is refused.
fn look(device: Arc<dyn BlockDevice>, read: bool) -> Option<(Ext, Found)> {
    let mut found = Found::default();
    let fs = found.note(Ext::open(device, options()))?;
    found.note(fs.info());
    let mut todo = vec![fs.root()];
    found.dirs.push(fs.root());
    let mut seen = 0;
    let mut buf = vec![0; 20_000];
    while let Some(dir) = todo.pop() {
        let Some(entries) = found.note(fs.readdir(dir)) else { continue };
        for entry in entries.into_iter().take(600) {
            seen += 1;
            if seen > MOST_NODES {
                break;
            }
            if let Some(None) = found.note(fs.lookup(dir, &entry.name)) {
                found.refused += 1;
            }
            let Some(stat) = found.note(fs.stat(entry.node)) else { continue };
            if read {
                found.note(fs.xattrs(entry.node));
            }
            match stat.file_type {
                FileType::Directory => {
                    todo.push(entry.node);
                    if found.dirs.len() < 20 {
                        found.dirs.push(entry.node);
                    }
                }
                FileType::Symlink => drop(found.note(fs.read_link(entry.node))),
                FileType::Regular => {
                    for offset in [0, stat.size / 2, stat.size.saturating_sub(10)] {
                        if read {
                            found.note(fs.read(entry.node, offset, &mut buf));
                        }
                    }
                    found.files.push((dir, entry.node, entry.name));
                }
                _ => {}
            }
        }
    }
    Some((fs, found))
}

/// Commits; what was committed must be something that opens again.
fn finish(mut fs: Ext, device: Arc<dyn BlockDevice>, mut found: Found) -> usize {
    if found.note(fs.commit()).is_some() {
        drop(fs);
        if let Err(error) = Ext::open(device, options()) {
            panic!("committed, and now: {error}");
        }
    }
    found.refused
}

/// Superblock to directory walk: reads everything; how many operations were refused.
pub fn walk(device: Arc<dyn BlockDevice>) -> usize {
    look(device, true).map_or(1, |(_, found)| found.refused)
}

/// Lists, sets and removes extended attributes everywhere.
pub fn attributes(device: Arc<dyn BlockDevice>) -> usize {
    let Some((mut fs, mut found)) = look(device.clone(), false) else { return 1 };
    let value = [7; 5_000];
    for (i, (_, node, _)) in found.files.clone().iter().enumerate().take(30) {
        let old = found.note(fs.xattrs(*node)).unwrap_or_default();
        found.note(fs.set_xattr(*node, b"security.selinux", Some(&value[..30 + i * 9])));
        found.note(fs.set_xattr(*node, b"user.of some size", Some(&value[..(i + 1) * 90])));
        for (name, _) in old.iter().step_by(2) {
            found.note(fs.set_xattr(*node, name, None));
        }
        if i % 4 == 0 {
            found.note(fs.set_xattr(*node, b"user.large", Some(&value)));
            found.note(fs.chmod(*node, 0o640));
        }
        if i % 5 == 4 {
            found.note(fs.unlink(found.files[i].0, &found.files[i].2.clone()));
        }
        found.note(fs.xattrs(*node));
    }
    finish(fs, device, found)
}

/// Looks up, inserts, renames and removes names in every directory.
pub fn directories(device: Arc<dyn BlockDevice>) -> usize {
    let Some((mut fs, mut found)) = look(device.clone(), false) else { return 1 };
    let files = std::mem::take(&mut found.files);
    for (i, (dir, _, name)) in files.iter().enumerate().take(120) {
        let to = found.dirs[i % found.dirs.len()];
        match i % 4 {
            0 => drop(found.note(fs.unlink(*dir, name))),
            1 => drop(found.note(fs.rename(*dir, name, *dir, format!("{i:0>200}").as_bytes()))),
            2 => drop(found.note(fs.rename(*dir, name, to, format!("moved {i}").as_bytes()))),
            _ => drop(found.note(fs.lookup(*dir, b"a name that nobody has"))),
        }
    }
    for (i, dir) in found.dirs.clone().into_iter().enumerate() {
        for n in 0..if i < 3 { 25 } else { 4 } {
            found.note(fs.create(dir, format!("{n:x>180}").as_bytes(), FILE));
        }
        found.note(fs.readdir(dir));
    }
    finish(fs, device, found)
}

/// Reads everything, then changes something everywhere, and commits.
pub fn edit(device: Arc<dyn BlockDevice>) -> usize {
    let Some((mut fs, mut found)) = look(device.clone(), false) else { return 1 };
    let buf = [9; 9_000];
    let (files, dirs) = (std::mem::take(&mut found.files), found.dirs.clone());
    for (i, (dir, node, name)) in files.iter().enumerate().take(40) {
        let result = match i % 8 {
            0 => fs.replace(*node, &buf),
            1 => fs.append(*node, &buf[..3_000]),
            2 => fs.unlink(*dir, name),
            3 => fs.set_xattr(*node, b"security.selinux", Some(&buf[..200])),
            4 => fs.set_xattr(*node, b"user.big", Some(&buf[..2_500])),
            5 => fs.rename(*dir, name, dirs[i % dirs.len()], b"renamed"),
            6 => fs.chmod(*node, 0o644).and_then(|()| fs.chown(*node, 1, 70_000)),
            _ => fs.set_xattr(*node, b"user.small", None),
        };
        found.note(result);
    }
    for (i, dir) in dirs.iter().enumerate() {
        for n in 0..6 {
            found.note(fs.create(*dir, format!("new file {n}").as_bytes(), FILE));
        }
        found.note(fs.mkdir(*dir, b"new directory", FILE));
        found.note(fs.symlink(*dir, b"new link", &[b'x'; 100], FILE));
        found.note(fs.rmdir(*dir, b"new directory"));
        if i == 2 {
            found.note(fs.seal());
        }
    }
    finish(fs, device, found)
}

/// Enlarges the file system to its device, looks at it and commits.
pub fn enlarge(device: Arc<dyn BlockDevice>) -> usize {
    let mut found = Found::default();
    let Some(mut fs) = found.note(Ext::open(device.clone(), options())) else { return 1 };
    found.note(fs.grow(None));
    found.note(fs.readdir(fs.root()));
    found.note(fs.create(fs.root(), b"after growing", FILE));
    finish(fs, device, found)
}
