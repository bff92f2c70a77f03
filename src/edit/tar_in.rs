//! `--tar-in`: the content of a local tar archive.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use snf_fs::error::display_name;
use snf_fs::{Attributes, FileType, Times, Timestamp, Tree};
use tar::{Archive, Entry, EntryType};

use super::path::pair;
use super::{Act, Action, BadEdit, GuestPath, How, SourceError, Verb, place};
use crate::guest::Guest;
use crate::task::{Session, TaskError};

/// Memory that an xz archive may ask for, in KiB.
const XZ_MEMORY_KIB: u32 = 64 << 10;
/// The beginning of the name of an extended attribute in an archive.
const XATTR: &str = "SCHILY.xattr.";
/// Warnings of one archive that are told one by one.
const WARNINGS: usize = 10;

/// The content of a tar archive, unpacked into a directory of the guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct TarIn {
    /// The archive beside the program: tar, or tar in gzip, xz or zstd.
    archive: PathBuf,
    /// The directory in the guest.
    directory: GuestPath,
}

impl TarIn {
    fn parse(text: &str, _: How) -> Result<Action, BadEdit> {
        let (archive, directory) = pair(text, "ARCHIVE:GUESTDIR (such as site.tar.gz:/srv/www)")?;
        Ok(Action::TarIn(Self { archive: archive.into(), directory }))
    }

    fn failed(&self, source: io::Error) -> SourceError {
        SourceError::new("archive", &self.archive, source)
    }

    /// Whether there is an archive, as far as its first entry.
    fn look(&self) -> Result<(), SourceError> {
        let fail = |error| self.failed(error);
        let metadata = std::fs::metadata(&self.archive).map_err(fail)?;
        if metadata.is_dir() {
            return Err(fail(io::Error::from(io::ErrorKind::IsADirectory)));
        }
        // A pipe can be read once.
        if !metadata.is_file() {
            return Ok(());
        }
        let mut archive = Archive::new(self.open().map_err(fail)?);
        match archive.entries().map_err(fail)?.next() {
            Some(Err(_)) => {
                let problem = "it is not a tar archive, or is damaged at its beginning";
                Err(fail(io::Error::new(io::ErrorKind::InvalidData, problem)))
            }
            Some(Ok(_)) | None => Ok(()),
        }
    }

    /// The archive without its compression.
    fn open(&self) -> io::Result<Box<dyn Read>> {
        let mut file = BufReader::with_capacity(1 << 16, File::open(&self.archive)?);
        let head = file.fill_buf()?;
        Ok(if head.starts_with(&[0x1F, 0x8B]) {
            Box::new(flate2::bufread::MultiGzDecoder::new(file))
        } else if head.starts_with(b"\xFD7zXZ\0") {
            Box::new(lzma_rust2::XzReader::new_mem_limit(file, true, XZ_MEMORY_KIB))
        } else if head.starts_with(&[0x28, 0xB5, 0x2F, 0xFD]) {
            Box::new(zstd::Decoder::with_buffer(file)?)
        } else if head.starts_with(b"BZh") {
            let problem = "it is compressed with bzip2; unpack it first (bunzip2)";
            return Err(io::Error::new(io::ErrorKind::Unsupported, problem));
        } else {
            Box::new(file)
        })
    }
}

impl Act for TarIn {
    const VERBS: &'static [Verb] = &[Verb {
        name: "tar-in",
        metavar: "ARCHIVE:GUESTDIR",
        help: "Unpack a local tar archive (also in gz, xz or zst) into a directory of the guest, with \
               the owners (by number), permissions, times, links, device nodes and extended \
               attributes that it has.",
        follows: false,
        parse: Self::parse,
    }];
    const LOCAL: bool = true;

    fn check(&self) -> Result<(), BadEdit> {
        Ok(())
    }

    fn subject(&self) -> String {
        self.archive.display().to_string()
    }

    fn look(&self) -> Result<(), SourceError> {
        Self::look(self)
    }

    fn run(&self, guest: &mut Guest, session: &mut Session<'_>) -> Result<(), TaskError> {
        Self::look(self)?;
        let root = place::find(guest, &self.directory, true)?.path;
        guest.tree.mkdir_all(&root, place::PARENTS)?;
        let mut archive = Archive::new(self.open().map_err(|error| self.failed(error))?);
        let mut unpacked = Unpacked::default();
        for entry in archive.entries().map_err(|error| self.failed(error))? {
            let entry = entry.map_err(|error| self.failed(error))?;
            unpacked.entry(&mut guest.tree, &root, entry).map_err(|error| match error {
                Problem::Archive(error) => self.failed(error).into(),
                Problem::Guest(error) => error,
            })?;
            guest.tree.seal()?;
        }
        if unpacked.entries == 0 {
            let problem = io::Error::new(io::ErrorKind::InvalidData, "there is no file in it");
            return Err(self.failed(problem).into());
        }
        // After their content, which changes the times of directories.
        for (path, time) in unpacked.directories.into_iter().rev() {
            guest.tree.set_link_times(&path, time)?;
        }
        for warning in unpacked.warnings.iter().take(WARNINGS) {
            session.warn(format!("--tar-in {}: {warning}", self.archive.display()));
        }
        if let Some(more) = unpacked.warnings.len().checked_sub(WARNINGS + 1) {
            session.warn(format!(
                "--tar-in {}: {} more entries were left out",
                self.archive.display(),
                more + 1
            ));
        }
        Ok(())
    }
}

/// The problem with an entry.
enum Problem {
    Archive(io::Error),
    Guest(TaskError),
}

impl From<io::Error> for Problem {
    fn from(error: io::Error) -> Self {
        Self::Archive(error)
    }
}

impl From<TaskError> for Problem {
    fn from(error: TaskError) -> Self {
        Self::Guest(error)
    }
}

impl From<snf_fs::Error> for Problem {
    fn from(error: snf_fs::Error) -> Self {
        Self::Guest(error.into())
    }
}

#[derive(Default)]
struct Unpacked {
    entries: u64,
    directories: Vec<(Vec<u8>, Times)>,
    warnings: Vec<String>,
}

impl Unpacked {
    fn entry(
        &mut self,
        tree: &mut Tree,
        root: &[u8],
        mut entry: Entry<'_, Box<dyn Read>>,
    ) -> Result<(), Problem> {
        let name = entry.path_bytes().into_owned();
        let shown = display_name(&name);
        let kind = entry.header().entry_type();
        if kind.is_pax_global_extensions() {
            return Ok(());
        }
        self.entries += 1;
        let Some(path) = inside(root, &name) else {
            let problem = format!("the entry {shown} leads out of the archive (..)");
            return Err(io::Error::new(io::ErrorKind::InvalidData, problem).into());
        };
        let xattrs = xattrs(&mut entry)?;
        let header = entry.header();
        let attributes = Attributes {
            mode: (header.mode()? & 0o7777) as u16,
            uid: number(header.uid()?, "owner", &shown)?,
            gid: number(header.gid()?, "group", &shown)?,
        };
        let seconds = i64::try_from(header.mtime()?).unwrap_or(i64::MAX);
        let time = Timestamp { seconds, nanoseconds: 0 };
        let times = Times { atime: Some(time), mtime: Some(time) };
        place::make_parents(tree, &path)?;
        if kind.is_dir() {
            directory(tree, &path, attributes)?;
            self.directories.push((path.clone(), times));
        } else {
            vacate(tree, &path)?;
            match kind {
                EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                    tree.write_from(&path, &mut entry, attributes)?;
                }
                EntryType::Symlink => {
                    let target = link_name(&entry, &shown)?;
                    tree.symlink(&path, &target, Attributes { mode: 0o777, ..attributes })?;
                }
                EntryType::Link => {
                    let first = link_name(&entry, &shown)?;
                    let Some(first) = inside(root, &first) else {
                        let problem = format!("the link {shown} leads out of the archive (..)");
                        return Err(io::Error::new(io::ErrorKind::InvalidData, problem).into());
                    };
                    tree.link(&first, &path)?;
                    return Ok(());
                }
                EntryType::Char | EntryType::Block => {
                    let header = entry.header();
                    let device = header.device_major()?.zip(header.device_minor()?);
                    let node = match kind {
                        EntryType::Char => FileType::CharDevice,
                        _ => FileType::BlockDevice,
                    };
                    tree.mknod(&path, node, device, attributes)?;
                }
                EntryType::Fifo => tree.mknod(&path, FileType::Fifo, None, attributes)?,
                _ => {
                    self.warnings.push(format!("{shown} is of a kind that is left out"));
                    return Ok(());
                }
            }
        }
        // The owner first: a change of owner may take set-id bits and capabilities away.
        tree.lchown(&path, attributes.uid, attributes.gid)?;
        if !kind.is_symlink() {
            tree.chmod(&path, attributes.mode)?;
        }
        for (name, value) in xattrs {
            tree.set_xattr(&path, &name, Some(&value))?;
        }
        if !kind.is_dir() {
            tree.set_link_times(&path, times)?;
        }
        Ok(())
    }
}

/// The path of an entry in the directory, or `None` for one that leads out of it.
fn inside(root: &[u8], name: &[u8]) -> Option<Vec<u8>> {
    let mut path = place::trim(root).to_vec();
    for name in name.split(|byte| *byte == b'/').filter(|name| !name.is_empty() && *name != b".") {
        if name == b".." {
            return None;
        }
        path.push(b'/');
        path.extend_from_slice(name);
    }
    Some(if path.is_empty() { b"/".to_vec() } else { path })
}

fn link_name(entry: &Entry<'_, Box<dyn Read>>, shown: &str) -> io::Result<Vec<u8>> {
    let name = entry.link_name_bytes().map(|name| name.into_owned());
    name.filter(|name| !name.is_empty()).ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidData, format!("the link {shown} leads nowhere"))
    })
}

fn number(number: u64, what: &str, shown: &str) -> io::Result<u32> {
    u32::try_from(number).map_err(|_| {
        let problem = format!("the {what} of {shown} is {number}, which no system has");
        io::Error::new(io::ErrorKind::InvalidData, problem)
    })
}

/// The extended attributes of an entry: full name and value.
fn xattrs(entry: &mut Entry<'_, Box<dyn Read>>) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut found = Vec::new();
    for record in entry.pax_extensions()?.into_iter().flatten() {
        let record = record?;
        if let Some(name) = record.key_bytes().strip_prefix(XATTR.as_bytes()) {
            found.push((name.to_vec(), record.value_bytes().to_vec()));
        }
    }
    Ok(found)
}

/// Makes a directory; one that is there takes the attributes.
fn directory(tree: &mut Tree, path: &[u8], attributes: Attributes) -> Result<(), TaskError> {
    match tree.lstat(path) {
        Ok(stat) if stat.file_type == FileType::Directory => return Ok(()),
        // A link to a directory stays, as with tar's --keep-directory-symlink.
        Ok(stat) if stat.file_type == FileType::Symlink && tree.is_dir(path)? => {
            return Ok(());
        }
        Ok(_) => tree.unlink(path)?,
        Err(error) if error.is_not_found() => {}
        Err(error) => return Err(error.into()),
    }
    Ok(tree.mkdir(path, attributes)?)
}

/// Removes what is at the path, unless it is a directory.
fn vacate(tree: &mut Tree, path: &[u8]) -> Result<(), TaskError> {
    match tree.lstat(path) {
        Ok(stat) if stat.file_type == FileType::Directory => {
            Err(snf_fs::Error::IsADirectory(display_name(path)).into())
        }
        Ok(_) => Ok(tree.unlink(path)?),
        Err(error) if error.is_not_found() => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::super::testing::{Guest, fails, parse, runs};
    use super::*;

    #[test]
    fn archives_are_unpacked_whatever_packs_them() {
        let dir = tempfile::tempdir().unwrap();
        let script =
            "mkdir -p t/d; echo hello > t/d/x; ln t/d/x t/y; ln -s d/x t/s; chmod 4711 t/d/x
             mkfifo t/pipe; chmod 1777 t/d; head -c 3000000 /dev/zero > t/long
             tar --owner=7 --group=8 -cf a.tar -C t .; gzip -k a.tar; xz -k a.tar; zstd -q a.tar
             tar cf empty.tar -T /dev/null; head -c 100000 a.tar > cut.tar
             echo text > text.tar; cp /etc/services long.tar 2>/dev/null || head -c 9999 /dev/zero | tr '\\0' x > long.tar
             tar -cPf out.tar --transform 's,^t/y,../y,' t/y; bzip2 -k a.tar";
        let status = Command::new("sh").args(["-euc", script]).current_dir(dir.path()).status();
        assert!(status.unwrap().success());
        let at = |name: &str| format!("{}/{name}:/srv/in", dir.path().display());
        for name in ["a.tar", "a.tar.gz", "a.tar.xz", "a.tar.zst"] {
            let mut guest = Guest::debian();
            guest.write("/srv/in/y", "old");
            runs(&mut guest, "tar-in", &at(name));
            assert_eq!(guest.read("/srv/in/y"), "hello\n", "{name}");
            assert_eq!(guest.attributes("/srv/in/d/x"), (0o4711, 7, 8), "{name}");
            assert_eq!(guest.attributes("/srv/in/d"), (0o1777, 7, 8), "{name}");
            assert_eq!(guest.tree().stat("/srv/in/y").unwrap().links, 2);
            assert_eq!(guest.tree().read_link("/srv/in/s").unwrap(), b"d/x");
            assert_eq!(guest.tree().stat("/srv/in/long").unwrap().size, 3_000_000);
            assert_eq!(guest.tree().lstat("/srv/in/pipe").unwrap().file_type, FileType::Fifo);
        }
        let mut guest = Guest::debian();
        for (name, part) in [
            ("empty.tar", "no file in it"),
            ("cut.tar", "cut.tar"),
            ("text.tar", "text.tar: it is not a tar archive"),
            ("long.tar", "long.tar: it is not a tar archive"),
            ("out.tar", "out of the archive"),
            ("a.tar.bz2", "bunzip2"),
            ("none.tar", "cannot use archive"),
            ("", "is a directory"),
        ] {
            let error = fails(&mut guest, "tar-in", &at(name));
            assert!(error.contains(part), "{error}");
        }
        assert!(parse("tar-in", "a.tar").is_err());
    }
}
