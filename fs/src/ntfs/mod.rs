//! NTFS 3.1, the file system of Windows XP to 11 and Server 2025.

pub mod check;
pub mod fixup;
pub mod grow;
pub mod index;
pub mod lznt1;
pub mod reparse;
pub mod security;
pub mod shortname;
pub mod upcase;
