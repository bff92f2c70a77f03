//! The tests of the engines against mke2fs, e2fsck, ntfs-3g and the kernel.
//!
//! One binary, because linking takes longer than compiling them. A test is named after its file:
//! `cargo test -p PACKAGE FILE` runs one file. The tests with a binary of their own are in Cargo.toml.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod btrfs_cut;
mod btrfs_features;
mod btrfs_hostile;
mod btrfs_read;
mod btrfs_support;
mod btrfs_write;
mod dir_index;
mod dir_special;
mod fat_engine;
mod features;
mod grow;
mod journal_commit;
mod journal_ext;
mod journal_replay;
mod journal_support;
mod map_alloc;
mod map_hostile;
mod map_kernel;
mod map_stress;
mod mkfs_ext2;
mod ntfs_check;
mod ntfs_corrupt;
mod ntfs_cut;
mod ntfs_features;
mod ntfs_grow;
mod ntfs_linux;
mod ntfs_read;
mod ntfs_support;
mod ntfs_write;
mod ops_cost;
mod ops_fault;
mod ops_hostile;
mod ops_read;
mod ops_semantics;
mod ops_stream;
mod ops_stress;
mod oracle;
mod quota;
mod support;
mod sweep;
mod tree_kernel;
mod xattr_kernel;
mod xfs_cut;
mod xfs_features;
mod xfs_grow;
mod xfs_hostile;
mod xfs_read;
mod xfs_support;
mod xfs_write;
