//! `$FILE_NAME`: a name that a file has in a directory, and the key of the directory's entry.

use zerocopy::{FromBytes, IntoBytes};

use super::layout::{FileNameHeader, Reference};
use crate::num::to_u8;
use crate::utf16::{unit_bytes, units};

/// The rules that a name follows: Flags of `$FILE_NAME`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Namespace {
    /// Anything but `/` and zero.
    Posix,
    /// A name that Windows takes.
    Win32,
    /// Eight and three capitals.
    Dos,
    /// A name that Windows takes and that is short, too.
    Both,
}

impl Namespace {
    fn from_flags(flags: u8) -> Self {
        match flags & 3 {
            0 => Self::Posix,
            1 => Self::Win32,
            2 => Self::Dos,
            _ => Self::Both,
        }
    }

    fn flags(self) -> u8 {
        match self {
            Self::Posix => 0,
            Self::Win32 => 1,
            Self::Dos => 2,
            Self::Both => 3,
        }
    }
}

/// One name of a file.
#[derive(Clone, Debug)]
pub struct FileName {
    /// Directory, times and sizes as they were when somebody last brought them up to date.
    pub head: FileNameHeader,
    /// The name.
    pub name: Vec<u16>,
}

impl FileName {
    /// Reads a value of `$FILE_NAME`, or a key of a directory.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let (head, rest) = FileNameHeader::read_from_prefix(value).ok()?;
        let name = units(rest.get(..2 * usize::from(head.file_name_length))?);
        Some(Self { head, name })
    }

    /// The directory.
    pub fn parent(&self) -> Reference {
        Reference(self.head.parent_directory.get())
    }

    /// The rules that it follows.
    pub fn namespace(&self) -> Namespace {
        Namespace::from_flags(self.head.flags)
    }

    /// Sets which rules it follows.
    pub fn set_namespace(&mut self, namespace: Namespace) {
        self.head.flags = namespace.flags();
    }

    /// The value of `$FILE_NAME`, and the key.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut head = self.head;
        head.file_name_length = to_u8(self.name.len().min(255));
        let mut out = head.as_bytes().to_vec();
        out.extend(unit_bytes(&self.name));
        out
    }
}
