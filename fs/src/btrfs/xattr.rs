//! Extended attributes: items like directory entries.

use super::checksum::name_hash;
use super::dir::{self, Entry, KIND_XATTR};
use super::file_id::FileId;
use super::inode;
use super::layout::{Key, item_type};
use super::volume::Volume;
use crate::error::{Error, Result};

/// Most attributes of one file that are listed.
const XATTRS_MAX: usize = 10_000;

/// The key of the item that has an attribute.
pub fn key(inode: u64, name: &[u8]) -> Key {
    Key::new(inode, item_type::XATTR_ITEM, name_hash(name))
}

/// The attributes of one item.
pub fn parse(id: FileId, item: &[u8]) -> Result<Vec<Entry>> {
    let entries = dir::parse(&id.to_string(), item)?;
    if entries.iter().any(|entry| entry.kind != KIND_XATTR) {
        return Err(Error::corrupt("attribute", id.to_string(), "an item is no attribute"));
    }
    Ok(entries)
}

/// One attribute.
pub fn get(volume: &Volume, id: FileId, name: &[u8]) -> Result<Option<Vec<u8>>> {
    let Some(item) = volume.get(id.tree, key(id.inode, name))? else { return Ok(None) };
    let found = parse(id, &item)?.into_iter().find(|entry| entry.name == name);
    Ok(found.map(|entry| entry.data))
}

/// All attributes: name and value.
pub fn list(volume: &Volume, id: FileId) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut out = Vec::new();
    if inode::is_stub(id) {
        return Ok(out);
    }
    let first = Key::new(id.inode, item_type::XATTR_ITEM, 0);
    let last = Key { offset: u64::MAX, ..first };
    let mut items = volume.items(id.tree, first, last)?;
    while let Some((_, item)) = items.next_item()? {
        for entry in parse(id, &item)? {
            if out.len() >= XATTRS_MAX {
                return Err(Error::unsupported(
                    format!("a file with more than {XATTRS_MAX} attributes"),
                    "use the kernel (--vm)",
                ));
            }
            out.push((entry.name, entry.data));
        }
    }
    Ok(out)
}
