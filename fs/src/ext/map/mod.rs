//! The blocks of a file's content: extent trees and the older block maps, read and changed.
//!
//! A file is only ever changed at its end: cut at some block, and extended from there. Both ways
//! touch nothing but the right edge of the tree. New content goes to blocks that were free, so that
//! a power cut before the commit finds the old file.

mod extents;
mod indirect;
mod mapping;
mod node;
mod read;
mod release;
mod stream;
mod write;

pub(super) use extents::whole_tree;
pub use mapping::{Mapping, has_map};
pub use read::{map, read, read_all, read_block};
pub use stream::replace_from;
pub use write::{append, append_block, clear, init_map, replace, truncate};
