//! btrfs on one device.
//!
//! [`Btrfs`] reads a file system. Layers, from the bottom: `store` (tree blocks with all their
//! checks, data), `node` and `cursor` (one tree), `volume` (all trees, with what waits for the
//! commit), `inode`, `dir`, `xattr`, `content` (files), `subvolume`, and on top the
//! [`crate::FileSystem`] implementation.

// Writing comes next; what it needs is declared with the rest.
#![allow(dead_code)]

mod checksum;
mod chunk;
mod compress;
mod content;
mod cursor;
mod dir;
mod file_id;
mod inode;
mod layout;
mod node;
mod ops;
mod store;
mod subvolume;
mod superblock;
mod units;
mod volume;
mod xattr;

pub use ops::Btrfs;
