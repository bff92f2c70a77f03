//! LUKS1 and LUKS2: encrypted containers, opened with a passphrase or the bytes of a key file.
//!
//! [`Luks::open`] reads the header and needs no key. [`Luks::unlock`] gives a [`LuksDevice`], through
//! which the content is read and written in the clear. Sources: "LUKS1 On-Disk Format Specification
//! Version 1.2.3" and "LUKS2 On-Disk Format Specification Version 1.1.2" of the cryptsetup project.
//!
//! The cryptography is that of the RustCrypto crates. Keys are wiped when they are dropped. A header
//! cannot make this machine compute or allocate without bound: see [`Limits`].

mod cipher;
mod device;
mod hash;
mod header1;
mod header2;
mod json;
mod kdf;
mod open;
mod split;

pub use device::LuksDevice;
pub use kdf::Limits;
pub use open::{Luks, is_luks};

/// The first bytes of every header; of LUKS2's second header the first four are reversed.
pub(crate) const MAGIC: [u8; 6] = *b"LUKS\xba\xbe";

/// A word of the header for a message: short and without control characters.
pub(crate) fn printable(word: &str) -> String {
    word.chars().filter(|c| !c.is_control()).take(64).collect()
}

/// Text in a field that zeros fill up.
pub(crate) fn field(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    printable(&String::from_utf8_lossy(&bytes[..end]))
}
