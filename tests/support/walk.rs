//! A whole tree as a list, through the kernel's mount or through our reader.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use sha2::{Digest, Sha256};
use snf_fs::{FileSystem, FileType, NodeId};

/// The facts about one path that must agree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub kind: FileType,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub size: u64,
    /// Hash of a regular file, target of a link, device number.
    pub content: String,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    pub mtime: (i64, u32),
    pub links: u64,
}

pub type Listing = BTreeMap<Vec<u8>, Entry>;

pub fn sha256(mut reader: impl Read) -> String {
    let mut hash = Sha256::new();
    let mut buf = vec![0; 1 << 20];
    loop {
        let n = reader.read(&mut buf).unwrap();
        if n == 0 {
            break;
        }
        hash.update(&buf[..n]);
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Walks a directory of this machine: a mounted image.
pub fn kernel(root: &Path) -> Listing {
    let mut out = Listing::new();
    let mut todo = vec![root.to_owned()];
    while let Some(directory) = todo.pop() {
        for entry in std::fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let meta = std::fs::symlink_metadata(&path).unwrap();
            let kind = match meta.mode() & 0o170_000 {
                0o100_000 => FileType::Regular,
                0o040_000 => FileType::Directory,
                0o120_000 => FileType::Symlink,
                0o020_000 => FileType::CharDevice,
                0o060_000 => FileType::BlockDevice,
                0o010_000 => FileType::Fifo,
                _ => FileType::Socket,
            };
            let content = match kind {
                FileType::Regular => sha256(std::fs::File::open(&path).unwrap()),
                FileType::Symlink => {
                    format!("{:?}", std::fs::read_link(&path).unwrap().as_os_str().as_bytes())
                }
                FileType::CharDevice | FileType::BlockDevice => {
                    format!("{}:{}", rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev()))
                }
                _ => String::new(),
            };
            if kind == FileType::Directory {
                todo.push(path.clone());
            }
            let relative = path.strip_prefix(root).unwrap().as_os_str().as_bytes().to_vec();
            let size = if kind == FileType::Directory { 0 } else { meta.size() };
            out.insert(
                relative,
                Entry {
                    kind,
                    mode: meta.mode() & 0o7777,
                    uid: meta.uid(),
                    gid: meta.gid(),
                    size,
                    content,
                    xattrs: kernel_xattrs(&path),
                    mtime: (meta.mtime(), meta.mtime_nsec() as u32),
                    links: meta.nlink(),
                },
            );
        }
    }
    out
}

fn kernel_xattrs(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut names = vec![0u8; 65536];
    let n = rustix::fs::llistxattr(path, &mut names[..]).unwrap();
    names[..n]
        .split(|&byte| byte == 0)
        .filter(|name| !name.is_empty())
        .map(|name| {
            let mut value = vec![0u8; 65536];
            let n = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
            (name.to_vec(), value[..n].to_vec())
        })
        .collect()
}

struct Reader<'a> {
    fs: &'a dyn FileSystem,
    node: NodeId,
    at: u64,
}

impl Read for Reader<'_> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let n = self.fs.read(self.node, self.at, buf).map_err(std::io::Error::other)?;
        self.at += n as u64;
        Ok(n)
    }
}

/// Walks a file system through our own engine.
pub fn ours(fs: &dyn FileSystem) -> Listing {
    let mut out = Listing::new();
    let mut todo = vec![(fs.root(), Vec::new())];
    while let Some((directory, prefix)) = todo.pop() {
        for entry in fs.readdir(directory).unwrap() {
            let mut path = prefix.clone();
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend(&entry.name);
            let stat = fs.stat(entry.node).unwrap();
            if let Some(kind) = entry.file_type {
                assert_eq!(kind, stat.file_type, "{}", String::from_utf8_lossy(&path));
            }
            let content = match stat.file_type {
                FileType::Regular => sha256(Reader { fs, node: entry.node, at: 0 }),
                FileType::Symlink => format!("{:?}", fs.read_link(entry.node).unwrap()),
                FileType::CharDevice | FileType::BlockDevice => {
                    let (major, minor) = stat.device.unwrap();
                    format!("{major}:{minor}")
                }
                _ => String::new(),
            };
            if stat.file_type == FileType::Directory {
                todo.push((entry.node, path.clone()));
            }
            let size = if stat.file_type == FileType::Directory { 0 } else { stat.size };
            out.insert(
                path,
                Entry {
                    kind: stat.file_type,
                    mode: u32::from(stat.mode),
                    uid: stat.uid,
                    gid: stat.gid,
                    size,
                    content,
                    xattrs: fs.xattrs(entry.node).unwrap().into_iter().collect(),
                    mtime: (stat.mtime.seconds, stat.mtime.nanoseconds),
                    links: u64::from(stat.links),
                },
            );
        }
    }
    out
}

/// Paths that differ, with both sides, but for those that `ignore` names.
pub fn differences(a: &Listing, b: &Listing, ignore: impl Fn(&str) -> bool) -> Vec<String> {
    let mut out = Vec::new();
    for path in a.keys().chain(b.keys().filter(|path| !a.contains_key(*path))) {
        let name = String::from_utf8_lossy(path).into_owned();
        if !ignore(&name) && a.get(path) != b.get(path) {
            out.push(format!("{name}: {:?} / {:?}", a.get(path), b.get(path)));
        }
    }
    out
}
