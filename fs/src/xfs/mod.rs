//! XFS: version 5 is read and changed, version 4 is read.
//!
//! From the bottom: `store` (buffers) -> `volume`, `ag` (superblock and headers of groups), `inode` ->
//! `btree`, `alloc`, `rmap`, `refcount`, `free`, `ialloc`, `bmap` (space and where files have it) ->
//! `dir`, `attr` -> `ops` (the `FileSystem` trait), beside them `log` (its end, and the commit).

mod ag;
mod alloc;
mod attr;
mod bmap;
mod btree;
mod da;
mod dir;
mod free;
mod grow;
mod ialloc;
mod inode;
mod log;
mod num;
mod ops;
mod refcount;
mod rmap;
mod store;
mod superblock;
mod units;
mod volume;

pub use ops::Xfs;
pub use volume::Options;
