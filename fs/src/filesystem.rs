//! The trait that every engine implements, and the values it speaks in.

use std::io::Read;

use crate::error::{Error, Result};
use crate::num::to_u64;

/// Bytes of a content that an engine without streams holds in memory.
const HELD_MAX: u64 = 256 << 20;

/// A file, directory or other node of one file system: the inode number (ext), MFT record number
/// (NTFS) or an engine's own handle (FAT).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u64);

/// The type of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FileType {
    /// A regular file.
    Regular,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

/// A point in time: seconds since 1970 (before that, negative) and nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Timestamp {
    /// Seconds since 1970-01-01 00:00 UTC.
    pub seconds: i64,
    /// 0 to 999,999,999.
    pub nanoseconds: u32,
}

/// The answer of `lstat`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    /// The node itself.
    pub node: NodeId,
    /// Its type.
    pub file_type: FileType,
    /// Permission bits, set-id and sticky bits (12 bits).
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Hard links.
    pub links: u32,
    /// Size in bytes.
    pub size: u64,
    /// Space taken, in units of 512 bytes.
    pub blocks: u64,
    /// Device number (major, minor) of a device node.
    pub device: Option<(u32, u32)>,
    /// Last access.
    pub atime: Timestamp,
    /// Last change of content.
    pub mtime: Timestamp,
    /// Last change of the node.
    pub ctime: Timestamp,
}

/// One entry of a directory. `.` and `..` are not listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// The name's bytes.
    pub name: Vec<u8>,
    /// The node it names.
    pub node: NodeId,
    /// Its type by the directory, where the file system keeps that in the entry.
    pub file_type: Option<FileType>,
}

/// Owner and mode of a node to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// Permission bits (12 bits).
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// Times to set; `None` leaves a time as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Times {
    /// Last access.
    pub atime: Option<Timestamp>,
    /// Last change of content.
    pub mtime: Option<Timestamp>,
}

/// The name of a file system's kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// ext2: no journal, no extents.
    Ext2,
    /// ext3: a journal, no extents.
    Ext3,
    /// ext4.
    Ext4,
    /// NTFS.
    Ntfs,
    /// FAT12, FAT16 or FAT32.
    Fat,
    /// XFS.
    Xfs,
    /// btrfs.
    Btrfs,
    /// In memory, for tests.
    Memory,
}

impl Kind {
    /// The name that `mount -t` and fstab use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ext2 => "ext2",
            Self::Ext3 => "ext3",
            Self::Ext4 => "ext4",
            Self::Ntfs => "ntfs",
            Self::Fat => "vfat",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
            Self::Memory => "memory",
        }
    }
}

/// The identity of a file system and its free space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    /// Its kind.
    pub kind: Kind,
    /// UUID or serial number as `blkid` prints it.
    pub uuid: String,
    /// Volume label, empty when there is none.
    pub label: String,
    /// Allocation unit in bytes.
    pub block_size: u32,
    /// Size in bytes.
    pub size: u64,
    /// Free bytes.
    pub free: u64,
}

/// The work of one commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct CommitReport {
    /// Blocks of metadata that changed in place.
    pub metadata_blocks: u64,
    /// Blocks of file data written.
    pub data_blocks: u64,
    /// Journal transactions used (0 on a file system without a journal).
    pub transactions: u32,
    /// Whether an unclean journal was replayed first.
    pub replayed: bool,
}

/// One file system on one device. Reading takes `&self`; every change goes into memory and
/// reaches the device in [`FileSystem::commit`] only. Operations work on nodes; paths are
/// [`crate::tree::Tree`]'s business. Errors name what they are about as well as they can; the
/// caller, who knows the path, may say it better.
pub trait FileSystem: Send {
    /// Identity and fill.
    ///
    /// # Errors
    /// [`Error::Corrupt`] and [`Error::Device`].
    fn info(&self) -> Result<Info>;
    /// The root directory.
    fn root(&self) -> NodeId;
    /// The node that `name` names in `dir`, or `None`. `.` and `..` are not handled here.
    ///
    /// # Errors
    /// [`Error::NotADirectory`] for another node; [`Error::Corrupt`] and [`Error::Device`].
    fn lookup(&self, dir: NodeId, name: &[u8]) -> Result<Option<NodeId>>;
    /// All entries of `dir` but `.` and `..`, in the order of the file system.
    ///
    /// # Errors
    /// [`Error::NotADirectory`] for another node; [`Error::Corrupt`] and [`Error::Device`].
    fn readdir(&self, dir: NodeId) -> Result<Vec<DirEntry>>;
    /// The answer of `lstat`.
    ///
    /// # Errors
    /// [`Error::Corrupt`] and [`Error::Device`].
    fn stat(&self, node: NodeId) -> Result<Stat>;
    /// Reads from a regular file; the count is less than `buf.len()` only at the end of the file.
    ///
    /// # Errors
    /// [`Error::WrongType`] for a node that is no regular file, [`Error::Unsupported`] for content
    /// that this engine does not read; [`Error::Corrupt`] and [`Error::Device`].
    fn read(&self, node: NodeId, offset: u64, buf: &mut [u8]) -> Result<usize>;
    /// The target of a symbolic link.
    ///
    /// # Errors
    /// [`Error::WrongType`] for another node; [`Error::Corrupt`] and [`Error::Device`].
    fn read_link(&self, node: NodeId) -> Result<Vec<u8>>;
    /// All extended attributes: full name (`security.selinux`) and value.
    ///
    /// # Errors
    /// [`Error::Corrupt`] and [`Error::Device`].
    fn xattrs(&self, node: NodeId) -> Result<Vec<(Vec<u8>, Vec<u8>)>>;

    /// Makes an empty regular file.
    ///
    /// # Errors
    /// [`Error::Exists`]; [`Error::ReadOnly`], [`Error::NoSpace`], [`Error::Corrupt`] and
    /// [`Error::Device`].
    fn create(&mut self, dir: NodeId, name: &[u8], attributes: Attributes) -> Result<NodeId>;
    /// Makes a directory.
    ///
    /// # Errors
    /// [`Error::Exists`]; [`Error::ReadOnly`], [`Error::NoSpace`], [`Error::Corrupt`] and
    /// [`Error::Device`].
    fn mkdir(&mut self, dir: NodeId, name: &[u8], attributes: Attributes) -> Result<NodeId>;
    /// Makes a symbolic link.
    ///
    /// # Errors
    /// [`Error::Exists`], and [`Error::Unsupported`] where there are none; [`Error::ReadOnly`],
    /// [`Error::NoSpace`], [`Error::Corrupt`] and [`Error::Device`].
    fn symlink(
        &mut self,
        dir: NodeId,
        name: &[u8],
        target: &[u8],
        attributes: Attributes,
    ) -> Result<NodeId>;
    /// Replaces the whole content of a regular file. The node keeps number, owner, mode and
    /// xattrs.
    ///
    /// # Errors
    /// [`Error::WrongType`] for another node; [`Error::ReadOnly`], [`Error::NoSpace`],
    /// [`Error::Corrupt`] and [`Error::Device`].
    fn replace(&mut self, node: NodeId, content: &[u8]) -> Result<()>;
    /// Replaces the whole content of a regular file by all that `content` gives, and says how many
    /// bytes that were. Memory does not hold it: it goes to blocks that are free on the device at
    /// once, where nothing refers to it before the commit. If that is not possible for a block
    /// or for the engine, it waits in memory. Without room for old and new content together it
    /// fails, where [`FileSystem::replace`] would not.
    ///
    /// The default is for engines without streams: it takes up to 256 MiB.
    ///
    /// # Errors
    /// Those of [`FileSystem::replace`], [`Error::Content`] where `content` fails, and
    /// [`Error::Unsupported`] for more than the engine can hold.
    fn write_from(&mut self, node: NodeId, content: &mut dyn Read) -> Result<u64> {
        let mut held = Vec::new();
        content
            .take(HELD_MAX + 1)
            .read_to_end(&mut held)
            .map_err(|error| Error::Content(String::new(), error))?;
        if to_u64(held.len()) > HELD_MAX {
            return Err(Error::unsupported(
                format!(
                    "a new file of more than {} MiB on this kind of file system",
                    HELD_MAX >> 20
                ),
                "write it from within the guest",
            ));
        }
        self.replace(node, &held)?;
        Ok(to_u64(held.len()))
    }
    /// Adds to the end of a regular file.
    ///
    /// # Errors
    /// [`Error::WrongType`] for another node; [`Error::ReadOnly`], [`Error::NoSpace`],
    /// [`Error::Corrupt`] and [`Error::Device`].
    fn append(&mut self, node: NodeId, content: &[u8]) -> Result<()>;
    /// Gives a node that is no directory one more name.
    ///
    /// # Errors
    /// [`Error::Exists`], [`Error::IsADirectory`], and [`Error::Unsupported`] where a node has one
    /// name only or the engine cannot; [`Error::ReadOnly`], [`Error::NoSpace`] (also for more names
    /// than a node can have), [`Error::Corrupt`] and [`Error::Device`].
    fn link(&mut self, node: NodeId, dir: NodeId, name: &[u8]) -> Result<()> {
        let _ = (node, dir, name);
        Err(Error::unsupported("a hard link on this kind of file system", "copy the file instead"))
    }
    /// Makes a device node (with its major and minor number), a named pipe or a socket.
    ///
    /// # Errors
    /// [`Error::Exists`], [`Error::Invalid`] for another type or a device without a number, and
    /// [`Error::Unsupported`] where there are none or the engine cannot; [`Error::ReadOnly`],
    /// [`Error::NoSpace`], [`Error::Corrupt`] and [`Error::Device`].
    fn mknod(
        &mut self,
        dir: NodeId,
        name: &[u8],
        file_type: FileType,
        device: Option<(u32, u32)>,
        attributes: Attributes,
    ) -> Result<NodeId> {
        let _ = (dir, name, file_type, device, attributes);
        Err(Error::unsupported(
            "a device node, named pipe or socket on this kind of file system",
            "leave it out",
        ))
    }
    /// Removes a name; the node goes with its last name. A directory is refused.
    ///
    /// # Errors
    /// [`Error::NotFound`] and [`Error::IsADirectory`]; [`Error::ReadOnly`], [`Error::NoSpace`],
    /// [`Error::Corrupt`] and [`Error::Device`].
    fn unlink(&mut self, dir: NodeId, name: &[u8]) -> Result<()>;
    /// Removes an empty directory.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::NotADirectory`] and [`Error::NotEmpty`]; [`Error::ReadOnly`],
    /// [`Error::NoSpace`], [`Error::Corrupt`] and [`Error::Device`].
    fn rmdir(&mut self, dir: NodeId, name: &[u8]) -> Result<()>;
    /// Moves a name within the file system, replacing a file (or empty directory) that has the
    /// new name, as `rename(2)` does.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Exists`] and [`Error::NotEmpty`]; [`Error::ReadOnly`],
    /// [`Error::NoSpace`], [`Error::Corrupt`] and [`Error::Device`].
    fn rename(&mut self, from_dir: NodeId, from: &[u8], to_dir: NodeId, to: &[u8]) -> Result<()>;
    /// Sets permission, set-id and sticky bits (12 bits).
    ///
    /// # Errors
    /// [`Error::ReadOnly`], [`Error::NoSpace`], [`Error::Corrupt`] and [`Error::Device`].
    fn chmod(&mut self, node: NodeId, mode: u16) -> Result<()>;
    /// Sets owner and group. Set-id bits stay as they are.
    ///
    /// # Errors
    /// [`Error::ReadOnly`], [`Error::NoSpace`], [`Error::Corrupt`] and [`Error::Device`].
    fn chown(&mut self, node: NodeId, uid: u32, gid: u32) -> Result<()>;
    /// Sets times.
    ///
    /// # Errors
    /// [`Error::ReadOnly`], [`Error::NoSpace`], [`Error::Corrupt`] and [`Error::Device`].
    fn set_times(&mut self, node: NodeId, times: Times) -> Result<()>;
    /// Sets (`Some`) or removes (`None`) one extended attribute by its full name.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where there are none; [`Error::ReadOnly`], [`Error::NoSpace`],
    /// [`Error::Corrupt`] and [`Error::Device`].
    fn set_xattr(&mut self, node: NodeId, name: &[u8], value: Option<&[u8]>) -> Result<()>;

    /// Enlarges the file system to use `size` bytes of its device, in memory like every change,
    /// and gives its size then, rounded down to what it can use. A size that it has already, or a
    /// smaller one, changes nothing.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where this engine cannot, [`Error::ReadOnly`] and [`Error::NoSpace`]
    /// where this file system cannot.
    fn grow(&mut self, size: u64) -> Result<u64> {
        let _ = size;
        Err(Error::unsupported(
            "enlarging a file system of this kind",
            "it keeps its size; enlarge it from within the guest",
        ))
    }

    /// Most bytes that a name can have.
    fn name_max(&self) -> usize {
        255
    }
    /// Whether owner, group and mode are kept. If they are not, setting them does nothing, and
    /// [`FileSystem::stat`] says the same of every file.
    fn keeps_owners(&self) -> bool {
        true
    }

    /// Another view of the same file system, whose root is the subvolume with this path (from the
    /// root of the whole on, without a slash at its beginning; empty for the whole). The views
    /// share their nodes and what waits for the commit. `None`: there is no such subvolume.
    ///
    /// # Errors
    /// [`Error::Corrupt`] and [`Error::Device`].
    fn subvolume(&self, path: &[u8]) -> Result<Option<Box<dyn FileSystem>>> {
        let _ = path;
        Ok(None)
    }

    /// Whether anything waits for [`FileSystem::commit`].
    fn is_dirty(&self) -> bool;
    /// A point at which the file system is consistent: changes so far and changes after may be
    /// committed in separate transactions when one cannot hold them all.
    ///
    /// # Errors
    /// [`Error::NoSpace`] where the journal cannot hold what was changed so far.
    fn seal(&mut self) -> Result<()> {
        Ok(())
    }
    /// Whether [`FileSystem::commit`] would have the room that it needs beside the changes
    /// themselves. Nothing is written. A run asks this of all file systems before it writes to any,
    /// and at the end of a dry run.
    ///
    /// # Errors
    /// [`Error::NoSpace`] where it would not; [`Error::Corrupt`] and [`Error::Device`].
    fn check_commit(&mut self) -> Result<()> {
        Ok(())
    }

    /// Writes all changes to the device.
    ///
    /// # Errors
    /// [`Error::NoSpace`] before the first write where [`FileSystem::check_commit`] says so;
    /// [`Error::Device`] where the device fails; what is on it then is said by the engine's
    /// documentation.
    fn commit(&mut self) -> Result<CommitReport>;
}
