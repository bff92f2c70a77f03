//! Extended attributes: in the inode after its fields, in one block, and large values in inodes of
//! their own.
//!
//! All functions take the inode as it is in the caller's hands; those that change attributes change
//! it too, and the caller writes it ([`Volume::write_inode`]).

pub mod acl;
mod block;
pub(super) mod body;
mod list;
mod names;
mod value_inode;

use zerocopy::little_endian::U16;

use super::inode::Inode;
use super::superblock::{compat, incompat};
use super::volume::Volume;
use crate::error::{Error, Result, display_name};
use crate::ext::units::Ino;
use crate::filesystem::FileType;
use crate::num::to_u32;
use acl::Acl;
use body::{body_room, load_body, store_body};
use list::{Attr, VALUE_MAX, Value};
pub use names::name_index;

fn value_of(volume: &Volume, attr: &Attr) -> Result<Vec<u8>> {
    let value = match &attr.value {
        Value::Here(value) => value.clone(),
        Value::Inode { ino, size, e_hash } => {
            value_inode::read(volume, *ino, *size, &attr.name, *e_hash)?
        }
    };
    Ok(match attr.index {
        name_index::ACL_ACCESS | name_index::ACL_DEFAULT => {
            // A value that does not parse as an ACL is returned unchanged, not hidden.
            Acl::from_disk(&value).map_or(value, |acl| acl.to_value())
        }
        _ => value,
    })
}

/// All attributes as `listxattr(2)` and `getxattr(2)` give them.
pub fn list(volume: &Volume, inode: &Inode) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut attrs = load_body(inode)?;
    attrs.extend(block::load(volume, inode)?.map(|loaded| loaded.list).unwrap_or_default());
    let mut out = Vec::with_capacity(attrs.len());
    for attr in &attrs {
        if let Some(name) = names::full(attr.index, &attr.name) {
            out.push((name, value_of(volume, attr)?));
        }
    }
    Ok(out)
}

fn find(volume: &Volume, inode: &Inode, index: u8, rest: &[u8]) -> Result<Option<Attr>> {
    let is_it = |attr: &Attr| attr.index == index && attr.name == rest;
    if let Some(attr) = load_body(inode)?.into_iter().find(is_it) {
        return Ok(Some(attr));
    }
    Ok(block::load(volume, inode)?.and_then(|loaded| loaded.list.into_iter().find(is_it)))
}

/// An ACL of the inode, if it has one ([`name_index::ACL_ACCESS`] or `ACL_DEFAULT`).
pub fn load_acl(volume: &Volume, inode: &Inode, index: u8) -> Result<Option<Acl>> {
    let Some(attr) = find(volume, inode, index, b"")? else { return Ok(None) };
    let Value::Here(value) = &attr.value else { return Ok(None) };
    let acl = Acl::from_disk(value).ok_or_else(|| {
        Error::corrupt("POSIX ACL", format!("inode {}", inode.ino), "it is not of version 1")
    })?;
    Ok(Some(acl))
}

/// Gives the inode an ACL, or takes it away.
pub fn store_acl(
    volume: &mut Volume,
    inode: &mut Inode,
    index: u8,
    acl: Option<&Acl>,
) -> Result<()> {
    let value = acl.map(Acl::to_disk);
    set_raw(volume, inode, index, b"", value.as_deref())
}

/// Sets or removes one attribute by its full name. An access ACL changes the mode with it, as in
/// the kernel; removing what is not there is no error.
pub fn set(
    volume: &mut Volume,
    inode: &mut Inode,
    full: &[u8],
    value: Option<&[u8]>,
) -> Result<()> {
    let (index, rest) = names::split(full)?;
    if value.is_some_and(|value| value.len() > VALUE_MAX) {
        return Err(Error::Invalid(format!(
            "extended attribute `{}`: a value has at most {VALUE_MAX} bytes",
            display_name(full)
        )));
    }
    let plain = matches!(inode.file_type(), Some(FileType::Regular | FileType::Directory));
    if index == name_index::USER && !plain {
        return Err(Error::WrongType(
            format!("inode {}", inode.ino),
            "only files and directories have attributes in user.",
        ));
    }
    if !matches!(index, name_index::ACL_ACCESS | name_index::ACL_DEFAULT) {
        return set_raw(volume, inode, index, rest, value);
    }
    if inode.file_type() == Some(FileType::Symlink) {
        return Err(Error::WrongType(format!("inode {}", inode.ino), "a symbolic link has no ACL"));
    }
    let acl = value.map(Acl::from_value).transpose()?.filter(|acl| !acl.is_empty());
    if index == name_index::ACL_DEFAULT {
        if acl.is_some() && !inode.is_dir() {
            return Err(Error::NotADirectory(format!(
                "inode {} (only a directory has a default ACL)",
                inode.ino
            )));
        }
        return store_acl(volume, inode, index, acl.as_ref());
    }
    let Some(acl) = acl else { return store_acl(volume, inode, index, None) };
    let mode = inode.raw.i_mode.get() & !0o777 | acl.mode();
    inode.raw.i_mode = U16::new(mode);
    store_acl(volume, inode, index, Some(&acl).filter(|acl| !acl.is_mode_only()))
}

/// Sets or removes one attribute by prefix number and rest of its name, its value as on disk.
pub fn set_raw(
    volume: &mut Volume,
    inode: &mut Inode,
    index: u8,
    rest: &[u8],
    value: Option<&[u8]>,
) -> Result<()> {
    let is_it = |attr: &Attr| attr.index == index && attr.name == rest;
    inode.use_extra();
    let mut body = load_body(inode)?;
    let old_block = block::load(volume, inode)?;
    let mut in_block = old_block.as_ref().map(|old| old.list.clone()).unwrap_or_default();
    let had_body = body.len();
    let had_block = in_block.len();
    let old = body.iter().find(|attr| is_it(attr)).cloned();
    let old_in_block = in_block.iter().find(|attr| is_it(attr)).cloned();
    body.retain(|attr| !is_it(attr));
    in_block.retain(|attr| !is_it(attr));
    let gone = body.len() != had_body || in_block.len() != had_block;
    if value.is_none() && !gone {
        return Ok(());
    }
    // A shared block keeps its references to value inodes; the inode itself does not share.
    let shared = old_block.as_ref().is_some_and(|block| block.refcount > 1);
    let mut dropped: Vec<Ino> = Vec::new();
    for (attr, counts) in [(&old, true), (&old_in_block, !shared)] {
        if let (Some(Attr { value: Value::Inode { ino, .. }, .. }), true) = (attr, counts) {
            dropped.push(*ino);
        }
    }
    if let Some(value) = value {
        let here = Attr { index, name: rest.to_vec(), value: Value::Here(value.to_vec()) };
        if !place(volume, inode, &mut body, &mut in_block, &here) {
            if !volume.sb.has_incompat(incompat::EA_INODE) || value.is_empty() {
                return Err(no_room(volume, inode, index, rest, value.len()));
            }
            let (ino, e_hash) = value_inode::create(volume, inode, rest, value)?;
            let size = to_u32(value.len());
            let apart = Attr { value: Value::Inode { ino, size, e_hash }, ..here };
            if !place(volume, inode, &mut body, &mut in_block, &apart) {
                return Err(no_room(volume, inode, index, rest, value.len()));
            }
        }
    }
    for ino in dropped {
        value_inode::drop_reference(volume, ino)?;
    }
    let (values_before, space_before) =
        apart(volume, &[&load_body(inode)?, &before_of(&old_block)]);
    let (values, space) = apart(volume, &[&body, &in_block]);
    inode.add_blocks(space - space_before, &volume.sb)?;
    volume.quota.note_values(&volume.sb, inode, values - values_before);
    store_body(inode, &body);
    let before = old_block.as_ref().map(|old| old.list.as_slice()).unwrap_or_default();
    if in_block != before {
        if shared {
            // Values that stay with this inode get one more reference: the shared block keeps its
            // own.
            for attr in before {
                if let Value::Inode { ino, .. } = attr.value
                    && (in_block.contains(attr) || body.contains(attr))
                {
                    value_inode::add_reference(volume, ino)?;
                }
            }
        }
        block::store(volume, inode, old_block.as_ref(), &mut in_block)?;
    }
    volume.sb.set_compat(compat::EXT_ATTR, true);
    Ok(())
}

fn before_of(block: &Option<block::Loaded>) -> Vec<Attr> {
    block.as_ref().map(|block| block.list.clone()).unwrap_or_default()
}

/// How many values are in inodes of their own, and the blocks that they take. The inode that refers
/// to them counts these as its own.
fn apart(volume: &Volume, lists: &[&[Attr]]) -> (i64, i64) {
    let block_size = u64::from(volume.sb.block_size());
    let cluster = block_size * u64::from(volume.sb.cluster_blocks());
    let mut found = (0, 0);
    for attr in lists.iter().copied().flatten() {
        if let Value::Inode { size, .. } = attr.value {
            found.0 += 1;
            found.1 += (u64::from(size).next_multiple_of(cluster) / block_size).cast_signed();
        }
    }
    found
}

/// How many values of an inode are in inodes of their own: each counts as an inode of its owner.
pub fn values_apart(volume: &Volume, inode: &Inode) -> Result<i64> {
    if !volume.sb.has_incompat(incompat::EA_INODE) {
        return Ok(0);
    }
    let block = before_of(&block::load(volume, inode)?);
    Ok(apart(volume, &[&load_body(inode)?, &block]).0)
}

fn no_room(volume: &Volume, inode: &Inode, index: u8, rest: &[u8], length: usize) -> Error {
    let name = names::full(index, rest).unwrap_or_else(|| rest.to_vec());
    Error::NoSpace(format!(
        "the attribute `{}` of {length} bytes does not fit beside the others of inode {}, which have its own room and one block of {} bytes",
        display_name(&name),
        inode.ino,
        volume.block_size()
    ))
}

/// Puts an attribute into one of the two lists. When neither has room, all attributes are
/// distributed anew, the largest into the block first.
fn place(
    volume: &Volume,
    inode: &Inode,
    body: &mut Vec<Attr>,
    in_block: &mut Vec<Attr>,
    attr: &Attr,
) -> bool {
    let room = body_room(inode);
    body.push(attr.clone());
    if list::fits(body, room) {
        return true;
    }
    body.pop();
    in_block.push(attr.clone());
    if block::fits(volume, in_block) {
        return true;
    }
    in_block.pop();
    let mut pool: Vec<Attr> = body.iter().chain(in_block.iter()).cloned().collect();
    pool.push(attr.clone());
    pool.sort_by_key(|attr| std::cmp::Reverse(attr.size()));
    let (mut new_body, mut new_block) = (Vec::new(), Vec::new());
    for attr in pool {
        // The kernel looks for file content kept as an attribute in the inode only.
        let fixed = attr.index == name_index::SYSTEM;
        if !fixed {
            new_block.push(attr.clone());
            if block::fits(volume, &new_block) {
                continue;
            }
            new_block.pop();
        }
        new_body.push(attr);
        if !list::fits(&new_body, room) {
            return false;
        }
    }
    *body = new_body;
    *in_block = new_block;
    true
}

/// Takes all attributes from an inode that goes away.
pub fn release(volume: &mut Volume, inode: &mut Inode) -> Result<()> {
    let mut dropped = load_body(inode)?;
    let old_block = block::load(volume, inode)?;
    let (values, space) = apart(volume, &[&dropped, &before_of(&old_block)]);
    inode.add_blocks(-space, &volume.sb)?;
    volume.quota.note_values(&volume.sb, inode, -values);
    if let Some(old) = &old_block {
        if old.refcount == 1 {
            dropped.extend(old.list.iter().cloned());
        }
        block::release(volume, inode, old)?;
    }
    for attr in dropped {
        if let Value::Inode { ino, .. } = attr.value {
            value_inode::drop_reference(volume, ino)?;
        }
    }
    inode.tail.fill(0);
    Ok(())
}
