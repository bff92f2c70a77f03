//! The ext2/3/4 engine: [`Ext`] opens, edits and grows a file system, [`mkfs`] makes a small one.
//!
//! Layers, from the bottom: `store` (blocks, transactions), `volume` (superblock, groups, inodes),
//! allocation and block maps, directories and xattrs, quota and the journal, growth, and on top the
//! [`crate::FileSystem`] implementation. No layer calls one above it.

mod alloc;
mod checksum;
mod dir;
mod feature;
mod group;
mod grow;
mod inline;
mod inode;
mod journal;
mod map;
pub mod mkfs;
mod mmp;
mod ops;
mod quota;
mod remove;
mod store;
mod superblock;
mod units;
mod volume;
pub(crate) mod xattr;

pub use grow::GrowReport;
pub use ops::Ext;
pub use volume::Options;
pub(crate) use xattr::acl;

/// The layers below [`Ext`]. They are open to this crate's tests only, which build hostile images
/// and look at what stands where; nothing here is stable.
#[cfg(feature = "testing")]
#[doc(hidden)]
#[allow(missing_docs)]
pub mod internals {
    macro_rules! layers {
        ($($layer:ident)*) => {
            $(pub mod $layer {
                pub use crate::ext::$layer::*;
            })*
        };
    }

    layers! {
        alloc checksum dir feature group grow inode journal map store superblock units volume xattr
    }
}
