//! Images and texts: where they come from, and how an image reaches the disk.

pub mod copy;
pub mod error;
pub mod fetch;
pub mod ftp;
pub mod local;
pub mod pace;
pub mod policy;
pub mod source;
