//! Tools that know nothing of images: hashes, keys, randomness, secrets, sentences.

pub mod base64;
pub mod crypt;
pub(crate) mod json;
pub mod local_file;
pub mod random;
pub mod secret;
pub(crate) mod sentence;
pub mod sshkey;
