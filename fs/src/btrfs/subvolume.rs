//! Subvolumes: the default one, and those that a path leads to.

use super::dir;
use super::file_id::FileId;
use super::layout::{Key, item_type, objectid};
use super::units::TreeId;
use super::volume::Volume;
use crate::error::{Error, Result};

/// The root directory of a subvolume.
pub fn root_of(tree: TreeId) -> FileId {
    FileId { tree, inode: objectid::FIRST_FREE }
}

/// The subvolume that is mounted when nothing is said.
pub fn default(volume: &Volume) -> Result<TreeId> {
    let key = Key::new(
        objectid::ROOT_TREE_DIR,
        item_type::DIR_ITEM,
        super::checksum::name_hash(b"default"),
    );
    let Some(item) = volume.get(TreeId(objectid::ROOT_TREE), key)? else {
        return Ok(TreeId(objectid::FS_TREE));
    };
    let entries = dir::parse("the root tree's directory", &item)?;
    let found = entries.into_iter().find(|entry| entry.name == b"default");
    let tree = TreeId(found.map_or(objectid::FS_TREE, |entry| entry.location.objectid));
    if !tree.is_subvolume() {
        return Err(Error::corrupt(
            "root tree",
            "the entry \"default\"",
            format!("it names {tree}, which is no subvolume"),
        ));
    }
    Ok(tree)
}

/// The subvolume with a path from the top on.
pub fn by_path(volume: &Volume, path: &[u8]) -> Result<Option<TreeId>> {
    let mut at = root_of(TreeId(objectid::FS_TREE));
    for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
        match dir::lookup(volume, at, name) {
            Ok(Some(next)) => at = next,
            Ok(None) | Err(Error::NotADirectory(_)) => return Ok(None),
            Err(error) => return Err(error),
        }
    }
    Ok((at == root_of(at.tree)).then_some(at.tree))
}
