//! FAT12, FAT16 and FAT32 with long names: EFI system partitions, and small disks of any kind.
//!
//! A change stays in memory until the commit, which writes in an order that a power cut cannot make
//! lose old data: what is new goes to clusters that were free, then the table gets their chains,
//! then directories point to them, and only then what was replaced becomes free. A cut in between
//! leaves the volume's mark "not cleanly unmounted" and at most lost clusters, which fsck frees.
//!
//! FAT knows no owners, modes, links or extended attributes: every node is root's, and what would
//! set any of these is refused, or without effect where it would say what is so already.
//!
//! Source: Microsoft's "FAT32 File System Specification" 1.03.

mod boot;
mod commit;
mod dir;
mod layout;
mod name;
mod ops;
mod table;
#[cfg(test)]
mod tests;
mod units;
mod volume;

pub use self::ops::{Fat, Options};
