//! Operations on a node: mode, owner, times, attributes.

use super::super::file_id::FileId;
use super::super::inode::{self, S_IFMT};
use super::super::layout::InodeItem;
use super::super::volume::Volume;
use super::super::xattr;
use super::entries;
use super::names::ACL_ACCESS;
use crate::error::{Error, Result, display_name};
use crate::ext::acl::Acl;
use crate::filesystem::Times;

/// Most bytes of an attribute's name.
const NAME_MAX: usize = 255;

/// A node that is to be changed.
pub fn open(volume: &Volume, id: FileId) -> Result<InodeItem> {
    if inode::is_stub(id) {
        return Err(Error::ReadOnly(
            "this directory stands for a subvolume that is not here".into(),
        ));
    }
    volume.check_writable(id.tree)?;
    inode::load(volume, id)
}

/// Writes a node whose time of change is now.
pub fn save(volume: &mut Volume, id: FileId, inode: &mut InodeItem) -> Result<()> {
    inode.ctime = inode::timespec(volume.now);
    entries::save(volume, id, inode)
}

/// Sets permission, set-id and sticky bits, and the ACL that goes with them.
pub fn chmod(volume: &mut Volume, id: FileId, mode: u16) -> Result<()> {
    let mut inode = open(volume, id)?;
    inode.mode = (inode.mode.get() & S_IFMT | u32::from(mode & 0o7777)).into();
    if let Some(value) = xattr::get(volume, id, ACL_ACCESS)? {
        let mut acl = Acl::from_value(&value)?;
        acl.set_mode(mode);
        entries::put_xattr(volume, id, ACL_ACCESS, Some(&acl.to_value()))?;
    }
    save(volume, id, &mut inode)
}

/// Sets owner and group.
pub fn chown(volume: &mut Volume, id: FileId, uid: u32, gid: u32) -> Result<()> {
    let mut inode = open(volume, id)?;
    (inode.uid, inode.gid) = (uid.into(), gid.into());
    save(volume, id, &mut inode)
}

/// Sets times.
pub fn set_times(volume: &mut Volume, id: FileId, times: Times) -> Result<()> {
    let mut inode = open(volume, id)?;
    if let Some(atime) = times.atime {
        inode.atime = inode::timespec(atime);
    }
    if let Some(mtime) = times.mtime {
        inode.mtime = inode::timespec(mtime);
    }
    save(volume, id, &mut inode)
}

/// Sets or removes an extended attribute.
pub fn set_xattr(volume: &mut Volume, id: FileId, name: &[u8], value: Option<&[u8]>) -> Result<()> {
    let mut inode = open(volume, id)?;
    if name.is_empty() || name.len() > NAME_MAX {
        return Err(Error::NameTooLong(display_name(name)));
    }
    if name.starts_with(b"btrfs.") {
        return Err(Error::unsupported(
            format!("the btrfs property {}", display_name(name)),
            "set it with btrfs property in the guest",
        ));
    }
    let mut value = value.map(<[u8]>::to_vec);
    if name.starts_with(b"system.posix_acl_")
        && let Some(bytes) = &value
    {
        let acl = Acl::from_value(bytes)?;
        let is_access = name == ACL_ACCESS;
        if is_access && !acl.is_empty() {
            inode.mode = (inode.mode.get() & !0o777 | u32::from(acl.mode() & 0o777)).into();
        }
        if acl.is_empty() || is_access && acl.is_mode_only() {
            value = None;
        }
    }
    entries::put_xattr(volume, id, name, value.as_deref())?;
    save(volume, id, &mut inode)
}
