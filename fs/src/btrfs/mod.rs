//! btrfs on one device.
//!
//! [`Btrfs`] reads and edits a file system. Layers, from the bottom: `store` (tree blocks with all
//! their checks, data), `node` and `cursor` (one tree), `volume` and `change` (all trees, with the items
//! that wait for the commit), `space` and `new_chunk` (room), `inode`, `dir`, `xattr`, `content` (files),
//! `subvolume`, `commit` (copies of the trees with what waited, then the superblock), and on top the
//! [`crate::FileSystem`] implementation.

mod change;
mod checksum;
mod chunk;
mod commit;
mod compress;
mod content;
mod cursor;
mod dir;
mod file_id;
mod inode;
mod layout;
mod new_chunk;
mod node;
mod ops;
mod space;
mod store;
mod subvolume;
mod superblock;
mod units;
mod volume;
mod xattr;

pub use ops::Btrfs;
