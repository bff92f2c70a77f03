//! The ext2/3/4 engine.
//!
//! Layers, from the bottom: [`store`] (blocks, transactions), [`volume`] (superblock, groups,
//! inodes), allocation and block maps, directories and xattrs, the journal, and on top the
//! [`crate::FileSystem`] implementation.

pub mod alloc;
pub mod checksum;
pub mod dir;
pub mod feature;
pub mod group;
pub mod grow;
pub mod inline;
pub mod inode;
pub mod journal;
pub mod map;
pub mod mkfs;
pub mod mmp;
pub mod ops;
mod quota;
mod remove;
pub mod store;
pub mod superblock;
pub mod units;
pub mod volume;
pub mod xattr;

pub use ops::Ext;
pub use volume::{Options, Volume};
