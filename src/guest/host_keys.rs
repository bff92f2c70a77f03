//! The public SSH host keys of a guest, as its files have them.

use snf_fs::{Result, Tree};

/// The folder of the keys.
const FOLDER: &str = "/etc/ssh";
/// Longest public key that is read, in bytes.
const KEY_MAX: u64 = 64 << 10;

/// A file with a public key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyFile {
    /// Its path.
    pub path: Vec<u8>,
    /// Its content, which nobody has looked at yet.
    pub text: Vec<u8>,
}

/// The files `ssh_host_*_key.pub`.
///
/// # Errors
/// When the folder or one of the files cannot be read, or a file is longer than 64 KiB.
pub fn public_keys(tree: &Tree) -> Result<Vec<KeyFile>> {
    let mut keys = Vec::new();
    for entry in tree.read_dir_optional(FOLDER)? {
        if !entry.name.starts_with(b"ssh_host_") || !entry.name.ends_with(b"_key.pub") {
            continue;
        }
        let path = [FOLDER.as_bytes(), b"/", &entry.name].concat();
        if tree.is_file(&path)? {
            let text = tree.read(&path, KEY_MAX)?;
            keys.push(KeyFile { path, text });
        }
    }
    Ok(keys)
}
