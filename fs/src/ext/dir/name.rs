//! A name to look up in a directory.

use super::super::inode::{Inode, flags};
use super::super::superblock::incompat;
use super::super::volume::Volume;
use super::entry::NAME_MAX;
use crate::error::{Error, Result, display_name};

/// A name to find, compared as the directory compares.
#[derive(Clone, Debug)]
pub struct Wanted<'a> {
    /// The name as it was given.
    pub name: &'a [u8],
    /// Its folded form, in a directory that ignores case.
    folded: Option<Vec<u8>>,
}

/// Whether a directory ignores case.
pub fn is_casefolded(volume: &Volume, dir: &Inode) -> bool {
    volume.sb.has_incompat(incompat::CASEFOLD) && dir.has_flag(flags::CASEFOLD)
}

impl<'a> Wanted<'a> {
    /// A name for a directory that takes every byte as it is.
    pub fn exact(name: &'a [u8]) -> Self {
        Self { name, folded: None }
    }

    /// A name for `dir`.
    pub fn new(volume: &Volume, dir: &Inode, name: &'a [u8]) -> Result<Self> {
        if is_casefolded(volume, dir) {
            super::casefold::check_encoding(volume)?;
        }
        Ok(Self::stored(volume, dir, name))
    }

    /// A name that is in `dir` already, valid or not.
    pub fn stored(volume: &Volume, dir: &Inode, name: &'a [u8]) -> Self {
        let folded =
            if is_casefolded(volume, dir) { super::casefold::fold_text(name) } else { None };
        Self { name, folded }
    }

    /// Whether an entry's name is this one.
    pub fn matches(&self, name: &[u8]) -> bool {
        if name == self.name {
            return true;
        }
        match &self.folded {
            Some(folded) => super::casefold::fold_text(name).is_some_and(|other| other == *folded),
            None => false,
        }
    }

    /// The bytes that the index hashes.
    pub fn hashed(&self) -> &[u8] {
        self.folded.as_deref().unwrap_or(self.name)
    }
}

/// Whether a name may be given to a new entry.
pub fn check(name: &[u8]) -> Result<()> {
    if name.len() > NAME_MAX {
        return Err(Error::NameTooLong(display_name(name)));
    }
    if name.is_empty() || name == b"." || name == b".." || name.contains(&b'/') || name.contains(&0)
    {
        return Err(Error::Invalid(format!("`{}` cannot be a file name", display_name(name))));
    }
    Ok(())
}
