//! NTFS, from version 1.2 (NT 4) to 3.1 (XP to Server 2025).
//!
//! Layers, from the bottom: [`store`] (bytes, held back until commit), [`record`] and
//! [`attribute`] (an MFT record), [`volume`] and [`inode`] (files put together from their records),
//! [`stream`] (content), [`tree`] and [`index`] (directories), and on top the
//! [`crate::FileSystem`] implementation.
//!
//! [`check`] and [`grow`] stand beside all that and share no code with it, so that neither hides the
//! other's mistakes.

mod alloc;
pub mod attribute;
pub mod boot;
pub mod check;
mod commit;
mod content;
pub mod file_name;
pub mod filetime;
pub mod fixup;
pub mod grow;
pub mod index;
pub mod inode;
pub mod layout;
pub mod lznt1;
mod mft;
pub mod ops;
mod pieces;
pub mod record;
pub mod reparse;
pub mod runs;
mod save;
pub mod security;
mod shadow;
pub mod shortname;
mod state;
pub mod store;
mod stream;
pub mod tree;
pub mod upcase;
pub mod volume;

pub use ops::Ntfs;
pub use volume::Volume;
