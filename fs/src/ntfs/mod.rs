//! NTFS, from version 1.2 (NT 4) to 3.1 (XP to Server 2025).
//!
//! [`Ntfs`] reads and edits a volume. Layers, from the bottom: `store` (bytes, held back until
//! commit), `record` and `attribute` (an MFT record), `volume` and `inode` (files put together from
//! their records), `stream` (content), `tree` and `index` (directories), and on top the
//! [`crate::FileSystem`] implementation.
//!
//! [`check`] and [`grow`] stand beside all that and share no code with it, so that neither hides the
//! other's mistakes.

mod alloc;
mod attribute;
mod boot;
pub mod check;
mod commit;
mod content;
mod file_name;
mod filetime;
#[doc(hidden)] // for tests that damage volumes
pub mod fixup;
pub mod grow;
mod index;
mod inode;
mod layout;
mod lznt1;
mod mft;
mod ops;
mod pieces;
mod record;
mod reparse;
mod runs;
mod save;
mod security;
mod shadow;
mod state;
mod store;
mod stream;
mod tree;
mod units;
mod volume;

pub use ops::Ntfs;
#[doc(hidden)] // for tests
pub use units::RecordNumber;
