//! Images and texts: where they come from, and how an image reaches the disk.

pub mod copy;
pub mod fetch;
pub mod ftp;
pub mod source;
