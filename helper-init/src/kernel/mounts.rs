//! Mounting parts of the VM's disks with the kernel's own drivers, read-only until the changes are
//! known, and with nothing of the guest's able to run, to act as a device or to gain rights.

use std::ffi::CString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use snf_image::failure::sentence;

use super::files::Root;
use super::wire::{Bytes, Mounted};
use crate::cmdline::CommandLine;
use crate::modules;
use crate::sys;

/// A partition of ours begins and ends on such a border: no sector is smaller.
const SECTOR: u64 = 512;
/// More file systems than any guest has.
const MOUNTS_MAX: usize = 64;

/// Why something failed: a sentence about what, and the system's number.
pub(super) type Failure = (String, Errno);

fn failure(what: impl Into<String>) -> impl FnOnce(Errno) -> Failure {
    let what = what.into();
    move |errno| (what, errno)
}

fn errno(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

/// The kinds that are mounted, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Xfs,
    Btrfs,
}

impl Kind {
    fn of(name: &str) -> Option<Self> {
        match name {
            "xfs" => Some(Self::Xfs),
            "btrfs" => Some(Self::Btrfs),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
        }
    }

    /// A copy of a file system has the UUID of the original, which may be in this VM too.
    fn options(self, tree: Tree) -> &'static str {
        match (self, tree) {
            (Self::Xfs, _) => "nouuid",
            (Self::Btrfs, Tree::Default) => "",
            (Self::Btrfs, Tree::WithoutLog) => "rescue=nologreplay",
            // The whole run becomes one transaction: the timer must not cut it in two.
            (Self::Btrfs, Tree::Top) => "subvolid=5,commit=300",
        }
    }

    /// Whether each file has to be on the disk before it takes its place. If everything
    /// becomes one transaction at the end, that would only cut it into several.
    pub(super) fn syncs_files(self) -> bool {
        self == Self::Xfs
    }
}

/// A tree of a btrfs: the default subvolume (also without what its log holds), or the one that
/// holds all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tree {
    Default,
    WithoutLog,
    Top,
}

/// One mounted file system.
#[derive(Debug)]
pub(super) struct Mount {
    pub(super) kind: Kind,
    /// The block device; none for a directory that stands for a file system in tests.
    node: Option<PathBuf>,
    target: PathBuf,
    root: Option<Root>,
    pub(super) writable: bool,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Mounts {
    mounts: Vec<Mount>,
    /// Disks whose partitions are ours, and how many there are.
    disks: Vec<(String, i32)>,
}

impl Mounts {
    /// A mount by its number.
    pub(super) fn get(&self, number: u32) -> Result<&Mount, Failure> {
        self.mounts.get(number as usize).ok_or_else(|| ("find the mount".into(), Errno::BADF))
    }

    /// A directory that stands for a mounted file system, for tests.
    #[cfg(test)]
    pub(super) fn of_directory(path: &Path) -> Self {
        let mount = Mount {
            kind: Kind::Xfs,
            node: None,
            target: path.to_owned(),
            root: Some(Root::open(path).unwrap()),
            writable: false,
        };
        Self { mounts: vec![mount], disks: Vec::new() }
    }

    /// Mounts a part of a disk, read-only.
    pub(super) fn mount(
        &mut self,
        disk: &str,
        start: u64,
        size: u64,
        kind: &str,
    ) -> Result<Mounted, Failure> {
        let kind = Kind::of(kind).ok_or_else(|| (format!("mount {kind:?}"), Errno::NODEV))?;
        let letters = disk.strip_prefix("/dev/vd").unwrap_or_default();
        if letters.is_empty() || !letters.bytes().all(|byte| byte.is_ascii_lowercase()) {
            return Err((format!("use {disk:?} as a disk"), Errno::NODEV));
        }
        if self.mounts.len() >= MOUNTS_MAX {
            return Err(("mount one more file system".into(), Errno::NFILE));
        }
        match modules::load_file_system(kind.name()) {
            Ok(true) => {}
            Ok(false) => {
                let what = format!("find a driver for {} in the helper's kernel", kind.name());
                let another = fs::read_to_string("/proc/cmdline")
                    .is_ok_and(|line| CommandLine::parse(&line).more_drivers);
                return Err((what, if another { Errno::NOPKG } else { Errno::NODEV }));
            }
            Err(problem) => return Err((sentence(&problem), Errno::IO)),
        }
        let node = self.device(disk, start, size)?;
        let target = PathBuf::from(format!("/mnt-{}", self.mounts.len()));
        fs::create_dir(&target)
            .map_err(|e| failure(format!("make {}", target.display()))(errno(&e)))?;
        let mut mount = Mount { kind, node: Some(node), target, root: None, writable: false };
        // A file system with something left to finish then says so, instead of writing it.
        mount.set_read_only(true)?;
        let mut default = Bytes::default();
        if kind == Kind::Btrfs {
            if let Err(failure) = mount.attach(Tree::Default) {
                // An unfinished log is told as an input error; without it the rest can be read.
                return Err(match mount.attach(Tree::WithoutLog).and_then(|()| mount.detach()) {
                    Ok(()) => (failure.0, Errno::ROFS),
                    Err(_) => failure,
                });
            }
            default = default_subvolume(&mount.target)?;
            mount.detach()?;
        }
        mount.attach(Tree::Top)?;
        let space = rustix::fs::fstatvfs(mount.root()?.fd())
            .map_err(failure("ask for the file system's size"))?;
        let mounted = Mounted {
            mount: self.mounts.len() as u32,
            block_size: u32::try_from(space.f_frsize).unwrap_or(4096),
            size: mount.size()?,
            free: space.f_bfree.saturating_mul(space.f_frsize),
            default,
        };
        self.mounts.push(mount);
        Ok(mounted)
    }

    /// The block device of a part of a disk. The kernel's own reading of the partition table does
    /// not matter: the table may be about to change.
    fn device(&mut self, disk: &str, start: u64, size: u64) -> Result<PathBuf, Failure> {
        let system = Path::new("/sys/class/block").join(disk.trim_start_matches("/dev/"));
        let sectors = fs::read_to_string(system.join("size"))
            .ok()
            .and_then(|text| text.trim().parse::<u64>().ok())
            .ok_or_else(|| (format!("find the size of {disk}"), Errno::NODEV))?;
        let whole = sectors.saturating_mul(SECTOR);
        if start == 0 && size == whole {
            return Ok(disk.into());
        }
        let end = start.checked_add(size).filter(|end| *end <= whole);
        if end.is_none() || size == 0 || !start.is_multiple_of(SECTOR) {
            return Err((format!("use bytes {start} to {start}+{size} of {disk}"), Errno::INVAL));
        }
        let what = || format!("make a partition of {disk}");
        let file = File::open(disk).map_err(|e| failure(what())(errno(&e)))?;
        let number = match self.disks.iter_mut().find(|(name, _)| name == disk) {
            Some((_, count)) => {
                *count += 1;
                *count
            }
            None => {
                for entry in fs::read_dir(&system).into_iter().flatten().flatten() {
                    let number = fs::read_to_string(entry.path().join("partition"))
                        .ok()
                        .and_then(|text| text.trim().parse().ok());
                    if let Some(number) = number {
                        sys::delete_partition(&file, number)
                            .map_err(failure(format!("forget partition {number} of {disk}")))?;
                    }
                }
                self.disks.push((disk.to_owned(), 1));
                1
            }
        };
        sys::add_partition(&file, number, start, size - size % SECTOR).map_err(failure(what()))?;
        Ok(format!("{disk}{number}").into())
    }

    /// Mounts it again, to be written, and enlarges it if asked to.
    pub(super) fn begin(&mut self, number: u32, grow: Option<u64>) -> Result<(), Failure> {
        let mount = self
            .mounts
            .get_mut(number as usize)
            .ok_or_else(|| ("find the mount".to_owned(), Errno::BADF))?;
        if !mount.writable {
            mount.detach()?;
            mount.set_read_only(false)?;
            mount.writable = true;
            mount.attach(Tree::Top)?;
        }
        match grow {
            Some(size) => mount.grow(size),
            None => Ok(()),
        }
    }

    /// Everything that was changed is on the disk when this returns, and the mount is gone.
    pub(super) fn finish(&mut self, number: u32) -> Result<(), Failure> {
        let mount = self
            .mounts
            .get_mut(number as usize)
            .ok_or_else(|| ("find the mount".to_owned(), Errno::BADF))?;
        rustix::fs::syncfs(mount.root()?.fd()).map_err(failure("write the changes out"))?;
        mount.detach()
    }
}

impl Mount {
    /// The tree, while it is mounted.
    pub(super) fn root(&self) -> Result<&Root, Failure> {
        self.root.as_ref().ok_or_else(|| ("use the file system".into(), Errno::NXIO))
    }

    fn set_read_only(&self, read_only: bool) -> Result<(), Failure> {
        let Some(node) = &self.node else { return Ok(()) };
        File::open(node)
            .map_err(|e| errno(&e))
            .and_then(|device| sys::set_read_only(device, read_only))
            .map_err(failure(format!("set the write protection of {}", node.display())))
    }

    fn attach(&mut self, tree: Tree) -> Result<(), Failure> {
        let mut flags =
            MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC | MountFlags::NOATIME;
        if !self.writable {
            flags |= MountFlags::RDONLY;
        }
        let options = CString::new(self.kind.options(tree)).unwrap_or_default();
        let name = self.kind.name();
        if let Some(node) = &self.node {
            mount(node, &self.target, name, flags, Some(options.as_c_str()))
                .map_err(failure(format!("mount the {name} file system")))?;
        }
        let root = Root::open(&self.target).map_err(failure("open the root directory"))?;
        self.root = Some(root);
        Ok(())
    }

    fn detach(&mut self) -> Result<(), Failure> {
        self.root = None;
        if self.node.is_none() {
            return Ok(());
        }
        unmount(&self.target, UnmountFlags::NOFOLLOW)
            .map_err(failure(format!("unmount the {} file system", self.kind.name())))
    }

    fn size(&self) -> Result<u64, Failure> {
        let root = self.root()?.fd();
        match self.kind {
            Kind::Xfs => sys::xfs_geometry(root)
                .map(|geometry| geometry.datablocks.saturating_mul(geometry.blocksize.into())),
            Kind::Btrfs => rustix::fs::fstatvfs(root)
                .map(|space| space.f_blocks.saturating_mul(space.f_frsize)),
        }
        .map_err(failure("ask for the file system's size"))
    }

    fn grow(&self, size: u64) -> Result<(), Failure> {
        let root = self.root()?.fd();
        match self.kind {
            Kind::Xfs => sys::xfs_geometry(root).and_then(|geometry| {
                let blocks = size / u64::from(geometry.blocksize.max(1));
                sys::xfs_grow(root, blocks, geometry.imaxpct)
            }),
            Kind::Btrfs => sys::btrfs_grow(root),
        }
        .map_err(failure(format!("enlarge the {} file system", self.kind.name())))
    }
}

/// The subvolume that is mounted on `target`: the kernel says it in the fourth field of its table.
fn default_subvolume(target: &Path) -> Result<Bytes, Failure> {
    let what = "find the default subvolume";
    let table = fs::read("/proc/self/mountinfo").map_err(|e| failure(what)(errno(&e)))?;
    let target = target.as_os_str().as_encoded_bytes();
    let root = table.split(|byte| *byte == b'\n').find_map(|line| {
        let mut fields = line.split(|byte| *byte == b' ').skip(3);
        let root = fields.next()?;
        (fields.next()? == target).then_some(root)
    });
    let root = root.ok_or_else(|| (what.to_owned(), Errno::NOENT))?;
    Ok(unescape(root.strip_prefix(b"/").unwrap_or(root)).into())
}

/// `\040` is a blank in the kernel's tables.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, after)) = rest.split_first() {
        if let (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', tail @ ..]) =
            (first, after)
        {
            out.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
            rest = tail;
        } else {
            out.push(first);
            rest = after;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_disks_and_kinds_that_there_are() {
        let mut mounts = Mounts::default();
        for disk in ["/dev/null", "/dev/vd", "/dev/vd", "/dev/vda1", "/dev/vd/../sda", "vda", ""] {
            assert_eq!(mounts.mount(disk, 0, 1 << 30, "xfs").unwrap_err().1, Errno::NODEV);
        }
        assert_eq!(mounts.mount("/dev/vda", 0, 1 << 30, "ntfs3").unwrap_err().1, Errno::NODEV);
        assert_eq!(unescape(b"@/a\\040b\\"), b"@/a b\\");
    }
}
