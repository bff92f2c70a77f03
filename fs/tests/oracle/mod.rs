//! Helpers of the tests of directories, attributes and operations: images that the kernel mounts,
//! and walks through its eyes and ours.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::hash::{DefaultHasher, Hasher};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use snf_fs::ext::{Ext, Options};
use snf_fs::{FileDevice, FileSystem, FileType, NodeId, Timestamp};
use tempfile::TempDir;

pub const NOW: Timestamp = Timestamp { seconds: 1_750_000_000, nanoseconds: 123_456_789 };

/// A file system in a temporary file.
pub struct Disk {
    pub dir: TempDir,
    pub path: PathBuf,
}

impl Disk {
    pub fn make(args: &str, mib: u64) -> Self {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("image");
        let mut command = Command::new("mke2fs");
        command.args(["-q", "-F"]).args(args.split_whitespace()).arg(&path);
        command.arg(format!("{mib}m"));
        let output = command.output().expect("mke2fs is needed (package e2fsprogs)");
        assert!(output.status.success(), "{args}: {}", String::from_utf8_lossy(&output.stderr));
        Self { dir, path }
    }

    pub fn open(&self) -> Ext {
        let file = File::options().read(true).write(true).open(&self.path).unwrap();
        let device = Arc::new(FileDevice::from_file(file).unwrap());
        Ext::open(device, Options { now: NOW, seed: 7 }).unwrap()
    }

    pub fn mount(&self, options: &str) -> Mount {
        let at = self.dir.path().join("mnt");
        std::fs::create_dir_all(&at).unwrap();
        let output = Command::new("mount")
            .arg("-o")
            .arg(format!("loop,{options}"))
            .arg(&self.path)
            .arg(&at)
            .output()
            .expect("mount is needed");
        assert!(output.status.success(), "mount: {}", String::from_utf8_lossy(&output.stderr));
        Mount { at }
    }

    pub fn fsck(&self, what: &str) {
        let output = Command::new("timeout")
            .args(["-s", "KILL", "300", "e2fsck", "-fn"])
            .arg(&self.path)
            .output()
            .expect("e2fsck is needed (package e2fsprogs)");
        let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.push_str(&String::from_utf8_lossy(&output.stderr));
        let odd = text.contains("IGNORED") || text.contains("? no") || text.contains("could be");
        let code = output.status.code();
        assert!(code == Some(0) && !odd, "{what}: e2fsck -fn says {code:?}\n{}", tail(&text));
    }

    pub fn debugfs(&self, request: impl AsRef<OsStr>) -> String {
        let output = Command::new("debugfs").arg("-R").arg(request).arg(&self.path).output();
        String::from_utf8_lossy(&output.expect("debugfs is needed").stdout).into_owned()
    }
}

fn tail(text: &str) -> String {
    text.chars().take(3000).collect()
}

/// A loop mount, gone when dropped.
pub struct Mount {
    pub at: PathBuf,
}

impl Mount {
    pub fn path(&self, name: &str) -> PathBuf {
        self.at.join(name)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Something on the machine may look into it for a moment.
        for _ in 0..100 {
            let output = Command::new("umount").arg(&self.at).output();
            if output.is_ok_and(|output| output.status.success()) {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        let _ = Command::new("umount").arg("-l").arg(&self.at).status();
    }
}

pub fn shell(dir: &Path, script: &str) {
    let output = Command::new("bash").args(["-euc", script]).current_dir(dir).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Writes all pending changes.
pub fn commit(ext: &mut Ext) {
    ext.commit().unwrap();
}

/// A path as both walks show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub file_type: char,
    pub mode: u32,
    pub owner: (u32, u32),
    pub links: u64,
    pub size: u64,
    pub blocks: u64,
    pub device: Option<(u32, u32)>,
    pub mtime: (i64, i64),
    pub ctime: (i64, i64),
    pub content: u64,
    pub link: Vec<u8>,
    pub xattrs: BTreeMap<String, String>,
}

/// Short enough to be read in a failure.
fn shown((name, value): (Vec<u8>, Vec<u8>)) -> (String, String) {
    let mut text = value.escape_ascii().to_string();
    if text.len() > 150 {
        text = format!("{} bytes, {:x}", value.len(), digest(&value));
    }
    (name.escape_ascii().to_string(), text)
}

fn digest(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(bytes);
    hasher.finish()
}

pub type Tree = BTreeMap<Vec<u8>, Seen>;

pub fn walk_mount(root: &Path) -> Tree {
    let mut out = Tree::new();
    let mut todo = vec![PathBuf::new()];
    while let Some(relative) = todo.pop() {
        let path = root.join(&relative);
        let meta = std::fs::symlink_metadata(&path).unwrap();
        let t = meta.file_type();
        let file_type = match () {
            () if t.is_dir() => 'd',
            () if t.is_symlink() => 'l',
            () if t.is_char_device() => 'c',
            () if t.is_block_device() => 'b',
            () if t.is_fifo() => 'p',
            () if t.is_socket() => 's',
            () => 'f',
        };
        let mut content = 0;
        let mut link = Vec::new();
        match file_type {
            'd' => {
                for entry in std::fs::read_dir(&path).unwrap() {
                    todo.push(relative.join(entry.unwrap().file_name()));
                }
            }
            'l' => link = std::fs::read_link(&path).unwrap().into_os_string().into_vec(),
            'f' => content = digest(&std::fs::read(&path).unwrap()),
            _ => {}
        }
        let rdev = meta.rdev();
        let device = matches!(file_type, 'c' | 'b')
            .then(|| (rustix::fs::major(rdev), rustix::fs::minor(rdev)));
        let seen = Seen {
            file_type,
            mode: meta.mode() & 0o7777,
            owner: (meta.uid(), meta.gid()),
            links: meta.nlink(),
            size: meta.size(),
            blocks: meta.blocks(),
            device,
            mtime: (meta.mtime(), meta.mtime_nsec()),
            ctime: (meta.ctime(), meta.ctime_nsec()),
            content,
            link,
            xattrs: mount_xattrs(&path),
        };
        out.insert(relative.into_os_string().into_vec(), seen);
    }
    out
}

fn mount_xattrs(path: &Path) -> BTreeMap<String, String> {
    let mut names = vec![0u8; 65_536];
    let count = rustix::fs::llistxattr(path, &mut names).unwrap();
    names[..count]
        .split(|&byte| byte == 0)
        .filter(|name| !name.is_empty())
        .map(|name| {
            let mut value = vec![0u8; 65_536];
            let count = rustix::fs::lgetxattr(path, OsStr::from_bytes(name), &mut value).unwrap();
            value.truncate(count);
            shown((name.to_vec(), value))
        })
        .collect()
}

pub fn walk_ext(fs: &dyn FileSystem) -> Tree {
    let mut out = Tree::new();
    let mut todo: Vec<(Vec<u8>, NodeId)> = vec![(Vec::new(), fs.root())];
    while let Some((path, node)) = todo.pop() {
        let stat = fs.stat(node).unwrap();
        let (file_type, mut content, mut link) = match stat.file_type {
            FileType::Directory => ('d', 0, Vec::new()),
            FileType::Symlink => ('l', 0, Vec::new()),
            FileType::CharDevice => ('c', 0, Vec::new()),
            FileType::BlockDevice => ('b', 0, Vec::new()),
            FileType::Fifo => ('p', 0, Vec::new()),
            FileType::Socket => ('s', 0, Vec::new()),
            FileType::Regular => ('f', 0, Vec::new()),
        };
        match file_type {
            'd' => {
                for entry in fs.readdir(node).unwrap() {
                    let mut child = path.clone();
                    if !child.is_empty() {
                        child.push(b'/');
                    }
                    child.extend_from_slice(&entry.name);
                    if let Some(told) = entry.file_type {
                        assert_eq!(told, fs.stat(entry.node).unwrap().file_type);
                    }
                    todo.push((child, entry.node));
                }
            }
            'l' => link = fs.read_link(node).unwrap(),
            'f' => {
                let mut bytes = vec![0; stat.size as usize];
                assert_eq!(fs.read(node, 0, &mut bytes).unwrap(), bytes.len());
                content = digest(&bytes);
            }
            _ => {}
        }
        let time = |t: Timestamp| (t.seconds, i64::from(t.nanoseconds));
        let seen = Seen {
            file_type,
            mode: u32::from(stat.mode),
            owner: (stat.uid, stat.gid),
            links: u64::from(stat.links),
            size: stat.size,
            blocks: stat.blocks,
            device: stat.device,
            mtime: time(stat.mtime),
            ctime: time(stat.ctime),
            content,
            link,
            xattrs: fs.xattrs(node).unwrap().into_iter().map(shown).collect(),
        };
        out.insert(path, seen);
    }
    out
}

/// The kernel and our reader agree about everything.
pub fn compare(disk: &Disk, what: &str) {
    let ours = walk_ext(&disk.open());
    let mount = disk.mount("ro");
    let theirs = walk_mount(&mount.at);
    drop(mount);
    diff(what, &ours, &theirs);
}

pub fn diff(what: &str, ours: &Tree, theirs: &Tree) {
    for (path, seen) in theirs {
        let name = String::from_utf8_lossy(path);
        let Some(mine) = ours.get(path) else { panic!("{what}: {name} is missing in our walk") };
        assert_eq!(mine, seen, "{what}: {name} (left is ours)");
    }
    for path in ours.keys() {
        let name = String::from_utf8_lossy(path);
        assert!(theirs.contains_key(path), "{what}: only we see {name}");
    }
}

/// Follows a path of plain directories.
pub fn at(fs: &dyn FileSystem, path: &str) -> NodeId {
    let mut node = fs.root();
    for part in path.split('/').filter(|part| !part.is_empty()) {
        let next = fs.lookup(node, part.as_bytes()).unwrap();
        node = next.unwrap_or_else(|| panic!("{path}: no {part}"));
    }
    node
}
