//! New inodes: what they inherit from the directory they are made in.

use zerocopy::little_endian::{U16, U32};

use super::super::inode::{Inode, S_IFMT, flags};
use super::super::superblock::ro_compat;
use super::super::volume::Volume;
use super::super::xattr::{self, acl::Acl, name_index};
use super::super::{alloc, map};
use crate::error::Result;
use crate::filesystem::{Attributes, FileType};

/// `i_mode` bits of a directory whose new nodes take its group, and whose new directories take
/// this bit.
const S_ISGID: u16 = 0o2000;

/// `i_flags` that new nodes take from their directory.
const INHERITED: u32 = flags::SECRM
    | flags::UNRM
    | flags::COMPR
    | flags::SYNC
    | flags::NODUMP
    | flags::NOATIME
    | flags::NOCOMPR
    | flags::JOURNAL_DATA
    | flags::NOTAIL
    | flags::DIRSYNC
    | flags::PROJINHERIT
    | flags::CASEFOLD
    | flags::DAX;
/// Of these, the ones that mean something on directories only.
const DIRECTORY_ONLY: u32 = flags::DIRSYNC | flags::PROJINHERIT | flags::CASEFOLD;
/// Of these, the ones that links and the like take.
const OTHER: u32 = flags::NODUMP | flags::NOATIME;

/// Allocates and fills an inode of `file_type` that will be named in `dir`. Nothing is written:
/// the caller adds content, writes it and names it.
///
/// The attributes are exact, as after `mkdir(2)`, `chown(2)` and `chmod(2)`: a set-gid directory
/// hands down its bit to directories, but not its group, and the default ACL of `dir` becomes the
/// node's ACL with the permissions of the mode.
pub fn node(
    volume: &mut Volume,
    dir: &Inode,
    file_type: FileType,
    attributes: Attributes,
) -> Result<Inode> {
    let is_dir = file_type == FileType::Directory;
    let (group, _) = volume.inode_group(dir.ino)?;
    let ino = alloc::alloc_inode(volume, group, is_dir)?;
    let mut inode = Inode::new(ino, &volume.sb);
    let mut mode = type_bits(file_type) | attributes.mode & !S_IFMT;
    if is_dir {
        mode |= dir.raw.i_mode.get() & S_ISGID;
    }
    inode.raw.i_mode = U16::new(mode);
    inode.set_owner(attributes.uid, attributes.gid);
    inode.raw.i_generation = U32::new(volume.next_generation());
    inode.set_links(if is_dir { 2 } else { 1 });
    let now = volume.options.now;
    inode.set_atime(now);
    inode.set_mtime(now);
    inode.set_ctime(now);
    inode.set_crtime(now);
    let inherited = dir.raw.i_flags.get() & INHERITED;
    let taken = match file_type {
        FileType::Directory => inherited,
        FileType::Regular => inherited & !DIRECTORY_ONLY,
        _ => inherited & OTHER,
    };
    inode.raw.i_flags = U32::new(taken);
    if volume.sb.has_ro_compat(ro_compat::PROJECT) && dir.has_flag(flags::PROJINHERIT) {
        inode.set_projid(dir.projid());
    }
    if matches!(file_type, FileType::Regular | FileType::Directory) {
        map::init_map(volume, &mut inode);
        inherit_acl(volume, dir, &mut inode)?;
    }
    Ok(inode)
}

fn type_bits(file_type: FileType) -> u16 {
    match file_type {
        FileType::Regular => 0x8000,
        FileType::Directory => 0x4000,
        FileType::Symlink => 0xA000,
        FileType::CharDevice => 0x2000,
        FileType::BlockDevice => 0x6000,
        FileType::Fifo => 0x1000,
        FileType::Socket => 0xC000,
    }
}

fn inherit_acl(volume: &mut Volume, dir: &Inode, inode: &mut Inode) -> Result<()> {
    let Some(default) = xattr::load_acl(volume, dir, name_index::ACL_DEFAULT)? else {
        return Ok(());
    };
    if inode.is_dir() {
        xattr::store_acl(volume, inode, name_index::ACL_DEFAULT, Some(&default))?;
    }
    let mut access: Acl = default;
    access.set_mode(inode.raw.i_mode.get());
    let access = Some(&access).filter(|acl| !acl.is_mode_only());
    xattr::store_acl(volume, inode, name_index::ACL_ACCESS, access)
}
