//! Allocation of blocks and inodes: bitmaps, their checksums, and the counters that follow them.
//!
//! With bigalloc a bit of the block bitmap stands for a cluster of blocks. [`alloc_blocks`] hands
//! out whole clusters then: its start is a cluster's first block, and the owner of a run that ends
//! within a cluster owns the rest of that cluster too. [`free_blocks`] frees every cluster that the
//! run touches. [`super::map`] lets logical blocks of one
//! file share a cluster.

mod bitmap;
mod blocks;
mod inodes;
mod layout;

pub(super) use bitmap::{block_bitmap_sum, clusters_in_group, count_clear, fill, inode_bitmap_sum};
pub(super) use blocks::extend_group;
pub use blocks::{alloc_blocks, alloc_meta_block, free_blocks, free_meta_block};
pub use inodes::{alloc_inode, free_inode};
pub use layout::{base_metadata, check_own, is_metadata};
