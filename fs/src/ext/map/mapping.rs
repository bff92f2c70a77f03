//! Words that the rest of the map has in common: a mapping, and inodes that have one.

use crate::error::Error;
use crate::ext::inode::{Inode, flags};
use crate::ext::units::FsBlock;
use crate::filesystem::FileType;
use crate::num::to_u64;

/// Logical blocks are numbered in 32 bits; the last number is not used, so that counts fit too.
pub const MAX_LBLK: u64 = 0xffff_ffff;

/// The mapping of a logical block of a file, and the number of blocks for which it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mapping {
    /// Nothing: reads as zeros.
    Hole {
        /// At least this many blocks (never 0); a long hole may come in parts.
        len: u64,
    },
    /// Blocks of the device.
    Data {
        /// First block.
        start: FsBlock,
        /// At least this many blocks (never 0).
        len: u64,
        /// Allocated but never written: reads as zeros.
        unwritten: bool,
    },
}

pub(in crate::ext) fn corrupt(inode: &Inode, structure: &'static str, detail: String) -> Error {
    Error::corrupt(structure, format!("inode {}", inode.ino), detail)
}

/// Whether `i_block` is a map: not for device nodes, nor for links short enough to be kept there.
pub fn has_map(inode: &Inode) -> bool {
    if inode.has_flag(flags::INLINE_DATA) {
        return false;
    }
    match inode.file_type() {
        Some(FileType::Regular | FileType::Directory) => true,
        Some(FileType::Symlink) => {
            inode.has_flag(flags::EXTENTS) || inode.size() >= to_u64(inode.raw.i_block.len())
        }
        _ => false,
    }
}
