//! The source of a file's content.

use std::fmt;
use std::fs::File;
use std::io::{self, Cursor, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

use super::{Mode, SourceError};
use crate::craft::secret::Secret;

/// Permission bits of a file whose content stands in the request itself.
const INLINE_MODE: u16 = 0o644;
/// The part of a content in messages.
const CONTENT: &str = "content file";

/// The content of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// It stands in the request, with the mode of a new file if that is another than 0644.
    Inline(Secret, Option<Mode>),
    /// A file beside the program.
    File(PathBuf),
}

/// A content that is about to be read.
pub(super) struct Opened<'a> {
    pub(super) reader: Box<dyn Read + 'a>,
    /// Permission bits of a new file.
    pub(super) mode: u16,
}

impl Source {
    /// Opens the content.
    ///
    /// # Errors
    /// When the file is none, or cannot be read.
    pub(super) fn open(&self) -> Result<Opened<'_>, SourceError> {
        let path = match self {
            Self::Inline(content, mode) => {
                let bytes = content.expose();
                return Ok(Opened {
                    reader: Box::new(Cursor::new(bytes)),
                    mode: mode.map_or(INLINE_MODE, Mode::bits),
                });
            }
            Self::File(path) => path,
        };
        let fail = |source| SourceError::new(CONTENT, path, source);
        let file = File::open(path).map_err(fail)?;
        let metadata = file.metadata().map_err(fail)?;
        if metadata.is_dir() {
            return Err(fail(io::Error::from(io::ErrorKind::IsADirectory)));
        }
        let mode = if metadata.is_file() {
            (metadata.permissions().mode() & 0o777) as u16
        } else {
            INLINE_MODE
        };
        Ok(Opened { reader: Box::new(file), mode })
    }

    /// Whether the content can be had: before any disk is opened.
    ///
    /// # Errors
    /// When the file is none, or cannot be read. A pipe is not opened: it can be read once.
    pub fn check(&self) -> Result<(), SourceError> {
        match self {
            Self::Inline(..) => Ok(()),
            Self::File(path) => {
                let metadata = std::fs::metadata(path)
                    .map_err(|source| SourceError::new(CONTENT, path, source))?;
                if metadata.is_file() || metadata.is_dir() { self.open().map(drop) } else { Ok(()) }
            }
        }
    }

    /// Takes the content into the request, for a run that cannot reach the file.
    ///
    /// # Errors
    /// As [`Source::check`], and when it has more than `most` bytes.
    pub fn carry(&mut self, most: u64) -> Result<(), SourceError> {
        let Self::File(path) = self else { return Ok(()) };
        let path = path.clone();
        let fail = |source| SourceError::new(CONTENT, &path, source);
        let mut opened = self.open()?;
        let mut bytes = Zeroizing::new(Vec::new());
        opened.reader.by_ref().take(most + 1).read_to_end(&mut bytes).map_err(fail)?;
        if bytes.len() as u64 > most {
            let problem =
                format!("it has more than {most} bytes, the most that reaches the helper VM");
            return Err(fail(io::Error::new(io::ErrorKind::FileTooLarge, problem)));
        }
        let mode = Mode::of_bits(opened.mode);
        drop(opened);
        *self = Self::Inline(Secret::new(std::mem::take(&mut *bytes)), Some(mode));
        Ok(())
    }
}

/// A content that a document has as text, and not in base64 as other secrets.
#[derive(Clone)]
pub(super) struct PlainText(pub(super) Secret);

impl Serialize for PlainText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = std::str::from_utf8(self.0.expose()).map_err(serde::ser::Error::custom)?;
        serializer.serialize_str(text)
    }
}

impl<'de> Deserialize<'de> for PlainText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = PlainText;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<PlainText, E> {
                Ok(PlainText(Secret::new(text.as_bytes())))
            }
        }
        deserializer.deserialize_str(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_looked_at_before_they_are_needed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        assert!(Source::File(path.clone()).check().is_err());
        assert!(Source::File(dir.path().into()).check().is_err());
        std::fs::write(&path, "12345").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o4751)).unwrap();
        let mut source = Source::File(path);
        source.check().unwrap();
        assert_eq!(source.open().unwrap().mode, 0o751);
        assert!(source.carry(4).is_err());
        source.carry(5).unwrap();
        assert_eq!(source.open().unwrap().mode, 0o751);
    }
}
