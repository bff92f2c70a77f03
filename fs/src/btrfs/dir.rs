//! Directories: entries by the hash of their name, and by their index.

use super::checksum::name_hash;
use super::file_id::FileId;
use super::inode;
use super::layout::{DirItem, Key, RootRef, item_type, objectid, split};
use super::units::TreeId;
use super::volume::Volume;
use crate::error::{Error, Result};
use crate::filesystem::{DirEntry, FileType};
use crate::num::to_usize;

/// Most entries of one directory that are listed.
const ENTRIES_MAX: usize = 1_000_000;
/// Most bytes of a name.
pub const NAME_MAX: usize = 255;

/// One entry as the tree has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key of what it names: an inode item or a root item.
    pub location: Key,
    /// Its type, in numbers of the disk.
    pub kind: u8,
    /// The name.
    pub name: Vec<u8>,
    /// The value of an attribute.
    pub data: Vec<u8>,
}

/// The number of an attribute in [`Entry::kind`].
pub const KIND_XATTR: u8 = 8;

/// Takes the entries of one item apart: there are several where names have the same hash.
pub fn parse(place: &str, item: &[u8]) -> Result<Vec<Entry>> {
    let corrupt = |detail: String| Error::corrupt("directory item", place, detail);
    let mut out = Vec::new();
    let mut rest = item;
    while !rest.is_empty() {
        let (head, body) =
            split::<DirItem>(rest).ok_or_else(|| corrupt("it ends within an entry".into()))?;
        let (name, data) = (to_usize(head.name_len.get()), to_usize(head.data_len.get()));
        if name == 0 || name > NAME_MAX {
            return Err(corrupt(format!("a name has {name} bytes")));
        }
        let (Some(bytes), Some(value)) = (body.get(..name), body.get(name..name + data)) else {
            return Err(corrupt("it ends within an entry".into()));
        };
        let is_attribute = head.r#type == KIND_XATTR;
        if !is_attribute && (data > 0 || bytes.iter().any(|byte| matches!(byte, 0 | b'/'))) {
            return Err(corrupt("a name has a slash or a zero byte, or comes with data".into()));
        }
        out.push(Entry {
            location: head.location.get(),
            kind: head.r#type,
            name: bytes.to_vec(),
            data: value.to_vec(),
        });
        rest = &body[name + data..];
    }
    Ok(out)
}

/// The type in an entry.
pub fn kind_type(kind: u8) -> Option<FileType> {
    Some(match kind {
        1 => FileType::Regular,
        2 => FileType::Directory,
        3 => FileType::CharDevice,
        4 => FileType::BlockDevice,
        5 => FileType::Fifo,
        6 => FileType::Socket,
        7 => FileType::Symlink,
        _ => return None,
    })
}

/// The number of a type in an entry.
pub fn type_kind(file_type: FileType) -> u8 {
    match file_type {
        FileType::Regular => 1,
        FileType::Directory => 2,
        FileType::CharDevice => 3,
        FileType::BlockDevice => 4,
        FileType::Fifo => 5,
        FileType::Socket => 6,
        FileType::Symlink => 7,
    }
}

/// The key of the item that has a name.
pub fn item_key(dir: u64, name: &[u8]) -> Key {
    Key::new(dir, item_type::DIR_ITEM, name_hash(name))
}

/// Refuses what is no directory. In a stub there is nothing.
pub fn check(volume: &Volume, dir: FileId) -> Result<()> {
    if inode::is_stub(dir) {
        return Ok(());
    }
    match inode::file_type(dir, &inode::load(volume, dir)?)? {
        FileType::Directory => Ok(()),
        _ => Err(Error::NotADirectory(dir.to_string())),
    }
}

/// The entry with a name.
pub fn find(volume: &Volume, dir: FileId, name: &[u8]) -> Result<Option<Entry>> {
    if inode::is_stub(dir) || name.len() > NAME_MAX {
        return Ok(None);
    }
    let Some(item) = volume.get(dir.tree, item_key(dir.inode, name))? else { return Ok(None) };
    let entries = parse(&dir.to_string(), &item)?;
    Ok(entries.into_iter().find(|entry| entry.name == name))
}

/// The file that an entry of `dir` names.
pub fn target(volume: &Volume, dir: FileId, entry: &Entry) -> Result<FileId> {
    let corrupt = |detail: String| Error::corrupt("directory item", dir.to_string(), detail);
    let location = entry.location;
    match location.item_type {
        item_type::INODE_ITEM => {
            if !(objectid::FIRST_FREE..=objectid::LAST_FREE).contains(&location.objectid) {
                return Err(corrupt(format!("an entry names the inode {}", location.objectid)));
            }
            Ok(FileId { tree: dir.tree, inode: location.objectid })
        }
        item_type::ROOT_ITEM => {
            let tree = TreeId(location.objectid);
            if !tree.is_subvolume() {
                return Err(corrupt(format!("an entry names {tree}")));
            }
            if names_subvolume(volume, dir, tree, &entry.name)? {
                let root = FileId { tree, inode: objectid::FIRST_FREE };
                return Ok(root);
            }
            Ok(FileId { tree: dir.tree, inode: objectid::EMPTY_SUBVOL_DIR })
        }
        _ => Err(corrupt(format!("an entry names {location}"))),
    }
}

/// Whether it is this entry that names a subvolume, and not the same one in a snapshot.
fn names_subvolume(volume: &Volume, dir: FileId, tree: TreeId, name: &[u8]) -> Result<bool> {
    let key = Key::new(dir.tree.0, item_type::ROOT_REF, tree.0);
    let Some(item) = volume.get(TreeId(objectid::ROOT_TREE), key)? else { return Ok(false) };
    let Some((head, rest)) = split::<RootRef>(&item) else {
        return Err(Error::corrupt("root reference", tree.to_string(), "it is too short"));
    };
    let matches = head.dirid.get() == dir.inode && rest == name;
    Ok(matches && volume.has_root(tree)?)
}

/// The file with a name.
pub fn lookup(volume: &Volume, dir: FileId, name: &[u8]) -> Result<Option<FileId>> {
    check(volume, dir)?;
    let entry = find(volume, dir, name)?;
    entry.map(|entry| target(volume, dir, &entry)).transpose()
}

/// All entries, in the order of their index.
pub fn list(volume: &Volume, dir: FileId) -> Result<Vec<DirEntry>> {
    check(volume, dir)?;
    let mut out = Vec::new();
    if inode::is_stub(dir) {
        return Ok(out);
    }
    let first = Key::new(dir.inode, item_type::DIR_INDEX, 0);
    let last = Key { offset: u64::MAX, ..first };
    let mut items = volume.items(dir.tree, first, last)?;
    while let Some((_, item)) = items.next_item()? {
        let entries = parse(&dir.to_string(), &item)?;
        let [entry] = entries.as_slice() else {
            return Err(Error::corrupt(
                "directory item",
                dir.to_string(),
                format!("an index has {} entries", entries.len()),
            ));
        };
        if out.len() >= ENTRIES_MAX {
            return Err(Error::unsupported(
                format!("a directory of more than {ENTRIES_MAX} entries"),
                "use the kernel (--vm)",
            ));
        }
        out.push(DirEntry {
            name: entry.name.clone(),
            node: target(volume, dir, entry)?.node()?,
            file_type: kind_type(entry.kind),
        });
    }
    Ok(out)
}
