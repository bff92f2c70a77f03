//! Files of all subvolumes: a subvolume and an inode number, and the one number for both.

use super::units::TreeId;
use crate::error::{Error, Result};
use crate::filesystem::NodeId;

/// Bits of a [`NodeId`] that are the inode number.
const INODE_BITS: u32 = 40;

/// An inode of a subvolume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileId {
    /// The subvolume.
    pub tree: TreeId,
    /// The inode.
    pub inode: u64,
}

impl FileId {
    /// The file that a number stands for.
    pub fn of(node: NodeId) -> Self {
        Self { tree: TreeId(node.0 >> INODE_BITS), inode: node.0 & ((1 << INODE_BITS) - 1) }
    }

    /// The number.
    pub fn node(self) -> Result<NodeId> {
        if self.tree.0 >> (64 - INODE_BITS) != 0 || self.inode >> INODE_BITS != 0 {
            return Err(Error::unsupported(
                format!("the btrfs inode {} in {}", self.inode, self.tree),
                "subvolumes to 2^24 and inodes to 2^40 are handled; use the kernel (--vm)",
            ));
        }
        Ok(NodeId(self.tree.0 << INODE_BITS | self.inode))
    }
}

impl std::fmt::Display for FileId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "inode {} of {}", self.inode, self.tree)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_hold_both() {
        let id = FileId { tree: TreeId(300), inode: 70_000 };
        assert_eq!(FileId::of(id.node().unwrap()), id);
        assert!(FileId { tree: TreeId(1 << 24), inode: 1 }.node().is_err());
        assert!(FileId { tree: TreeId(5), inode: 1 << 40 }.node().is_err());
    }
}
