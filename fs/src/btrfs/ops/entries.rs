//! The items of names: directory entries, references back from the inode, attributes.

use zerocopy::IntoBytes;

use super::super::checksum::extref_hash;
use super::super::dir::{self, Entry};
use super::super::file_id::FileId;
use super::super::inode;
use super::super::layout::{
    DirItem, InodeExtref, InodeItem, InodeRef, Key, item_type, objectid, split,
};
use super::super::superblock::incompat;
use super::super::volume::Volume;
use super::super::xattr;
use crate::error::{Error, Result, display_name};
use crate::num::{to_i64, to_u16};

/// The first index of an entry: 0 and 1 stand for `.` and `..`.
const FIRST_INDEX: u64 = 2;
/// One entry or attribute as it is on disk.
fn bytes(entry: &Entry, transid: u64) -> Vec<u8> {
    let head = DirItem {
        location: entry.location.into(),
        transid: transid.into(),
        data_len: to_u16(entry.data.len()).into(),
        name_len: to_u16(entry.name.len()).into(),
        r#type: entry.kind,
    };
    let mut out = head.as_bytes().to_vec();
    out.extend_from_slice(&entry.name);
    out.extend_from_slice(&entry.data);
    out
}

/// The entries of an item but the one called `name`, each with its own bytes.
fn without(place: &str, item: &[u8], name: &[u8]) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    let mut rest = item;
    for entry in dir::parse(place, item)? {
        let size = size_of::<DirItem>() + entry.name.len() + entry.data.len();
        if entry.name != name {
            out.extend_from_slice(&rest[..size]);
        }
        rest = &rest[size..];
    }
    Ok(out)
}

/// Writes an inode that was changed.
pub fn save(volume: &mut Volume, id: FileId, inode: &mut InodeItem) -> Result<()> {
    inode.transid = volume.transid().into();
    inode.sequence = inode.sequence.get().wrapping_add(1).into();
    volume.put(id.tree, inode::key(id.inode), inode.as_bytes())
}

/// Notes that a directory has a name of `length` bytes more (or, below zero, less).
fn touch(volume: &mut Volume, dir: FileId, length: i64) -> Result<()> {
    let mut inode = inode::load(volume, dir)?;
    let size = inode.size.get().saturating_add_signed(length * 2);
    inode.size = size.into();
    inode.mtime = inode::timespec(volume.now);
    inode.ctime = inode::timespec(volume.now);
    save(volume, dir, &mut inode)
}

/// The index for the next entry of a directory.
fn next_index(volume: &Volume, dir: FileId) -> Result<u64> {
    let first = Key::new(dir.inode, item_type::DIR_INDEX, 0);
    let last = volume.last_item(dir.tree, first, Key { offset: u64::MAX - 1, ..first })?;
    Ok(last.map_or(FIRST_INDEX, |(key, _)| (key.offset + 1).max(FIRST_INDEX)))
}

/// The next free inode number of a subvolume.
pub fn next_inode(volume: &Volume, dir: FileId) -> Result<u64> {
    let first = Key::new(objectid::FIRST_FREE, 0, 0);
    let last = Key::new(objectid::LAST_FREE - 1, u8::MAX, u64::MAX);
    let highest = volume.last_item(dir.tree, first, last)?;
    let number = highest.map_or(objectid::FIRST_FREE, |(key, _)| key.objectid) + 1;
    FileId { inode: number, ..dir }.node()?;
    Ok(number)
}

/// Names an inode in a directory, and counts the name.
pub fn add_name(volume: &mut Volume, dir: FileId, name: &[u8], id: FileId, kind: u8) -> Result<()> {
    let index = next_index(volume, dir)?;
    let entry =
        Entry { location: inode::key(id.inode), kind, name: name.to_vec(), data: Vec::new() };
    let entry = bytes(&entry, volume.transid());
    let key = dir::item_key(dir.inode, name);
    let mut item = volume.get(dir.tree, key)?.map_or(Vec::new(), |item| item.to_vec());
    item.extend_from_slice(&entry);
    volume.put(dir.tree, key, item)?;
    volume.put(dir.tree, Key::new(dir.inode, item_type::DIR_INDEX, index), entry)?;
    add_ref(volume, dir, name, id, index)?;
    touch(volume, dir, to_i64(name.len()))
}

fn add_ref(volume: &mut Volume, dir: FileId, name: &[u8], id: FileId, index: u64) -> Result<()> {
    let key = Key::new(id.inode, item_type::INODE_REF, dir.inode);
    let mut item = volume.get(dir.tree, key)?.map_or(Vec::new(), |item| item.to_vec());
    let head = InodeRef { index: index.into(), name_len: to_u16(name.len()).into() };
    if item.len() + size_of::<InodeRef>() + name.len() <= volume.item_max() {
        item.extend_from_slice(head.as_bytes());
        item.extend_from_slice(name);
        return volume.put(dir.tree, key, item);
    }
    if !volume.sb().has(incompat::EXTENDED_IREF) {
        return Err(Error::NoSpace(format!("{id} has too many names in one directory")));
    }
    let hash = extref_hash(dir.inode, name);
    let key = Key::new(id.inode, item_type::INODE_EXTREF, hash);
    let mut item = volume.get(dir.tree, key)?.map_or(Vec::new(), |item| item.to_vec());
    let head = InodeExtref {
        parent_objectid: dir.inode.into(),
        index: index.into(),
        name_len: to_u16(name.len()).into(),
    };
    item.extend_from_slice(head.as_bytes());
    item.extend_from_slice(name);
    volume.put(dir.tree, key, item)
}

/// Takes a name out of a directory, and its reference out of the inode.
pub fn remove_name(volume: &mut Volume, dir: FileId, name: &[u8], id: FileId) -> Result<()> {
    let index = remove_ref(volume, dir, name, id)?;
    let key = dir::item_key(dir.inode, name);
    let corrupt = |detail: &str| Error::corrupt("directory item", dir.to_string(), detail);
    let item = volume.get(dir.tree, key)?.ok_or_else(|| corrupt("it is missing"))?;
    let rest = without(&dir.to_string(), &item, name)?;
    match rest.is_empty() {
        true => volume.remove(dir.tree, key),
        false => volume.put(dir.tree, key, rest)?,
    }
    let key = Key::new(dir.inode, item_type::DIR_INDEX, index);
    let item = volume.get(dir.tree, key)?;
    let entries = dir::parse(&dir.to_string(), &item.ok_or_else(|| corrupt("no index"))?)?;
    if !matches!(entries.as_slice(), [entry] if entry.name == name) {
        return Err(corrupt("the index has another name"));
    }
    volume.remove(dir.tree, key);
    touch(volume, dir, -to_i64(name.len()))
}

/// Takes a reference out of an inode; gives the entry's index in its directory.
fn remove_ref(volume: &mut Volume, dir: FileId, name: &[u8], id: FileId) -> Result<u64> {
    let corrupt = |detail: String| Error::corrupt("inode reference", id.to_string(), detail);
    let cut = || corrupt("it ends early".into());
    let key = Key::new(id.inode, item_type::INODE_REF, dir.inode);
    if let Some(item) = volume.get(dir.tree, key)? {
        let (mut rest, mut kept, mut found) = (&*item, Vec::new(), None);
        while !rest.is_empty() {
            let (head, body) = split::<InodeRef>(rest).ok_or_else(cut)?;
            let length = usize::from(head.name_len.get());
            let this = body.get(..length).ok_or_else(cut)?;
            if this == name && found.is_none() {
                found = Some(head.index.get());
            } else {
                kept.extend_from_slice(&rest[..size_of::<InodeRef>() + length]);
            }
            rest = &body[length..];
        }
        if let Some(index) = found {
            put_rest(volume, dir, key, kept)?;
            return Ok(index);
        }
    }
    let key = Key::new(id.inode, item_type::INODE_EXTREF, extref_hash(dir.inode, name));
    let item = volume.get(dir.tree, key)?;
    let item = item.ok_or_else(|| corrupt(format!("`{}` is not there", display_name(name))))?;
    let (mut rest, mut kept, mut found) = (&*item, Vec::new(), None);
    while !rest.is_empty() {
        let (head, body) = split::<InodeExtref>(rest).ok_or_else(cut)?;
        let length = usize::from(head.name_len.get());
        let this = body.get(..length).ok_or_else(cut)?;
        if this == name && head.parent_objectid.get() == dir.inode && found.is_none() {
            found = Some(head.index.get());
        } else {
            kept.extend_from_slice(&rest[..size_of::<InodeExtref>() + length]);
        }
        rest = &body[length..];
    }
    let index = found.ok_or_else(|| corrupt(format!("`{}` is not there", display_name(name))))?;
    put_rest(volume, dir, key, kept)?;
    Ok(index)
}

fn put_rest(volume: &mut Volume, dir: FileId, key: Key, rest: Vec<u8>) -> Result<()> {
    if rest.is_empty() {
        volume.remove(dir.tree, key);
        return Ok(());
    }
    volume.put(dir.tree, key, rest)
}

/// Takes one name from an inode that is no directory; it goes with the last.
pub fn drop_link(volume: &mut Volume, id: FileId) -> Result<()> {
    let mut inode = inode::load(volume, id)?;
    let links = inode.nlink.get();
    if links > 1 {
        inode.nlink = (links - 1).into();
        inode.ctime = inode::timespec(volume.now);
        return save(volume, id, &mut inode);
    }
    delete(volume, id)
}

/// Removes all items of an inode.
pub fn delete(volume: &mut Volume, id: FileId) -> Result<()> {
    let first = Key::new(id.inode, 0, 0);
    let last = Key::new(id.inode, u8::MAX, u64::MAX);
    let mut keys = Vec::new();
    let mut items = volume.items(id.tree, first, last)?;
    while let Some((key, _)) = items.next_item()? {
        keys.push(key);
    }
    for key in keys {
        volume.remove(id.tree, key);
    }
    Ok(())
}

/// Sets or removes an attribute; says whether it was there.
pub fn put_xattr(
    volume: &mut Volume,
    id: FileId,
    name: &[u8],
    value: Option<&[u8]>,
) -> Result<bool> {
    let key = xattr::key(id.inode, name);
    let place = id.to_string();
    let (mut item, mut found) = (Vec::new(), false);
    if let Some(old) = volume.get(id.tree, key)? {
        found = xattr::parse(id, &old)?.iter().any(|entry| entry.name == name);
        item = without(&place, &old, name)?;
    }
    if let Some(value) = value {
        let room = volume.item_max();
        if item.len() + size_of::<DirItem>() + name.len() + value.len() > room {
            return Err(Error::NoSpace(format!(
                "the attribute {} of {} bytes: there is room for {room} with its name",
                display_name(name),
                value.len()
            )));
        }
        let entry = Entry {
            location: Key::MIN,
            kind: dir::KIND_XATTR,
            name: name.to_vec(),
            data: value.to_vec(),
        };
        item.extend_from_slice(&bytes(&entry, volume.transid()));
    }
    match item.is_empty() {
        true if found => volume.remove(id.tree, key),
        true => {}
        false => volume.put(id.tree, key, item)?,
    }
    Ok(found)
}
