//! `snf-customize tar-out`.

use std::collections::HashMap;
use std::fs::{self, OpenOptions};
use std::io::{self, BufWriter, IsTerminal, Read, Write};

use snf_fs::error::display_name;
use snf_fs::tree::{Descend, Handle, Visited};
use snf_fs::{FileType, NodeId, Stat, Tree};
use tar::{Builder, EntryType, Header};

use super::Trouble;
use super::args::TarOut;
use super::names::Names;
use super::opened::{Opened, bytes};
use crate::exit::{Exit, Failure};
use crate::output;

/// Writes an archive.
pub(super) fn run(args: &TarOut) -> Result<Exit, Failure> {
    let to_stdout = args.archive.as_os_str() == "-";
    if to_stdout && io::stdout().is_terminal() {
        return Err(Failure::usage(
            "an archive is not written to a terminal; name a file, or redirect the output",
        ));
    }
    let opened = Opened::new(&args.source)?;
    let stat = opened.tree().stat(bytes(&args.directory));
    if stat.map_err(|error| opened.failure(&error))?.file_type != FileType::Directory {
        let error = snf_fs::Error::NotADirectory(display_name(bytes(&args.directory)));
        return Err(opened.failure(&error));
    }
    let names = if args.numeric_owner { Names::default() } else { Names::of(&opened.guest) };
    if to_stdout {
        let out = BufWriter::with_capacity(1 << 16, output::content_output()?);
        opened.end(pack(&opened, args, &names, out, Trouble::output))?;
        return Ok(Exit::Done);
    }
    let path = &args.archive;
    let mut options = OpenOptions::new();
    options.write(true).create_new(!args.overwrite).create(true).truncate(true);
    let file = options.open(path).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => {
            Failure::input(format!("{} exists already; --overwrite replaces it", path.display()))
        }
        _ => super::local_failure(path, &error),
    })?;
    let file = BufWriter::with_capacity(1 << 16, file);
    let result = pack(&opened, args, &names, file, |error| Trouble::local(path, &error));
    if result.is_err() && path.is_file() {
        // Half an archive is worse than none.
        let _ = fs::remove_file(path);
    }
    opened.end(result)?;
    Ok(Exit::Done)
}

fn pack(
    opened: &Opened,
    args: &TarOut,
    names: &Names,
    out: impl Write,
    failed: impl Fn(io::Error) -> Trouble,
) -> Result<(), Trouble> {
    let tree = opened.tree();
    let start = tree.resolve(bytes(&args.directory))?.path;
    let start = if start == b"/" { 0 } else { start.len() };
    let builder = Builder::new(out);
    let mut packer = Packer { tree, names, builder, links: HashMap::new(), start, failed: &failed };
    tree.visit(bytes(&args.directory), |visited| packer.add(visited))?;
    let mut out = packer.builder.into_inner().map_err(&failed)?;
    out.flush().map_err(&failed)
}

struct Packer<'a, W: Write> {
    tree: &'a Tree,
    names: &'a Names,
    builder: Builder<W>,
    /// The first name of each file that has several, by file system and node.
    links: HashMap<(usize, NodeId), Vec<u8>>,
    /// The length of the directory's own path.
    start: usize,
    /// An error of the archive.
    failed: &'a dyn Fn(io::Error) -> Trouble,
}

impl<W: Write> Packer<'_, W> {
    fn add(&mut self, visited: &Visited<'_>) -> Result<Descend, Trouble> {
        let Visited { path, handle, stat, blocked } = *visited;
        if let Some(reason) = blocked {
            output::warning_line(&format!("{}: {reason}", display_name(path)));
            return Ok(Descend::No);
        }
        if stat.file_type == FileType::Socket {
            output::warning_line(&format!("{}: a socket is not packed", display_name(path)));
            return Ok(Descend::No);
        }
        // `.`, `./etc`, `./etc/passwd`.
        let mut name = [b".", path.get(self.start..).unwrap_or_default()].concat();
        if name == b"./" {
            name.truncate(1);
        }
        if stat.file_type == FileType::Directory {
            name.push(b'/');
        }
        let node = (self.tree.file_system_of(handle), stat.node);
        if stat.links > 1 && stat.file_type != FileType::Directory {
            if let Some(first) = self.links.get(&node).cloned() {
                return self
                    .entry(&name, handle, stat, EntryType::Link, &first)
                    .map(|()| Descend::Yes);
            }
            self.links.insert(node, name.clone());
        }
        let (kind, target) = match stat.file_type {
            FileType::Regular => (EntryType::Regular, Vec::new()),
            FileType::Directory => (EntryType::Directory, Vec::new()),
            FileType::Symlink => (EntryType::Symlink, self.tree.read_link_handle(handle)?),
            FileType::CharDevice => (EntryType::Char, Vec::new()),
            FileType::BlockDevice => (EntryType::Block, Vec::new()),
            FileType::Fifo | FileType::Socket => (EntryType::Fifo, Vec::new()),
        };
        self.entry(&name, handle, stat, kind, &target)?;
        Ok(Descend::Yes)
    }

    fn entry(
        &mut self,
        name: &[u8],
        handle: Handle,
        stat: &Stat,
        kind: EntryType,
        target: &[u8],
    ) -> Result<(), Trouble> {
        let mut extensions: Vec<(String, Vec<u8>)> = Vec::new();
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(stat.mode.into());
        header.set_uid(stat.uid.into());
        header.set_gid(stat.gid.into());
        // It was made as such a header above.
        if let Some(old) = header.as_ustar_mut() {
            fill(&mut old.name, name, "path", &mut extensions);
            fill(&mut old.linkname, target, "linkpath", &mut extensions);
            if let Some(user) = self.names.user(stat.uid) {
                fill(&mut old.uname, user.as_bytes(), "uname", &mut extensions);
            }
            if let Some(group) = self.names.group(stat.gid) {
                fill(&mut old.gname, group.as_bytes(), "gname", &mut extensions);
            }
        }
        if let Some((major, minor)) = stat.device {
            let fits = header.set_device_major(major).and_then(|()| header.set_device_minor(minor));
            fits.map_err(|_| {
                let text = format!(
                    "{}: an archive cannot hold its device number {major}, {minor}; pack another \
                     directory",
                    display_name(name)
                );
                Failure::new(Exit::Failed, text)
            })?;
        }
        let size = if kind == EntryType::Regular { stat.size } else { 0 };
        header.set_size(size);
        if size >= 1 << 33 {
            extensions.push(("size".to_owned(), size.to_string().into_bytes()));
        }
        let seconds = u64::try_from(stat.mtime.seconds).unwrap_or_default();
        header.set_mtime(seconds);
        if stat.mtime.nanoseconds != 0 || seconds >= 1 << 33 || stat.mtime.seconds < 0 {
            extensions.push(("mtime".to_owned(), pax_time(stat).into_bytes()));
        }
        if kind != EntryType::Link {
            for (name, value) in self.tree.xattrs_handle(handle)? {
                match String::from_utf8(name) {
                    Ok(name) => extensions.push((format!("SCHILY.xattr.{name}"), value)),
                    Err(error) => output::warning_line(&format!(
                        "the attribute {} is not packed: its name is no text",
                        display_name(error.as_bytes())
                    )),
                }
            }
        }
        header.set_cksum();
        if !extensions.is_empty() {
            let pairs = extensions.iter().map(|(name, value)| (name.as_str(), value.as_slice()));
            self.builder.append_pax_extensions(pairs).map_err(self.failed)?;
        }
        let content = Content { tree: self.tree, handle, offset: 0, size, failed: None };
        let mut content = content;
        let result = self.builder.append(&header, &mut content);
        match (result, content.failed) {
            (_, Some(error)) => Err(error.into()),
            (Err(error), None) => Err((self.failed)(error)),
            (Ok(()), None) if content.offset < size => {
                let text = format!("{}: it ends before its size", display_name(name));
                Err(Failure::new(Exit::Corrupt, text).into())
            }
            (Ok(()), None) => Ok(()),
        }
    }
}

/// Puts a value into a field, and into the extended header where the field is too short for it.
fn fill(field: &mut [u8], value: &[u8], name: &str, extensions: &mut Vec<(String, Vec<u8>)>) {
    let fits = value.len().min(field.len());
    field[..fits].copy_from_slice(&value[..fits]);
    if value.len() > field.len() || !value.is_ascii() {
        extensions.push((name.to_owned(), value.to_vec()));
    }
}

/// Seconds with a fraction, as POSIX's extended header has them.
fn pax_time(stat: &Stat) -> String {
    let nanoseconds =
        i128::from(stat.mtime.seconds) * 1_000_000_000 + i128::from(stat.mtime.nanoseconds);
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let nanoseconds = nanoseconds.unsigned_abs();
    format!("{sign}{}.{:09}", nanoseconds / 1_000_000_000, nanoseconds % 1_000_000_000)
}

/// The content of a file, for the archive. The archive's errors are the output's; those of the guest
/// are kept here.
struct Content<'a> {
    tree: &'a Tree,
    handle: Handle,
    offset: u64,
    size: u64,
    failed: Option<snf_fs::Error>,
}

impl Read for Content<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.size - self.offset).unwrap_or(usize::MAX);
        let length = buf.len().min(left);
        if length == 0 {
            return Ok(0);
        }
        match self.tree.read_handle(self.handle, self.offset, &mut buf[..length]) {
            Ok(count) => {
                let count = count.min(length);
                self.offset += count as u64; // A count of bytes in a buffer fits.
                Ok(count)
            }
            Err(error) => {
                self.failed = Some(error);
                Err(io::Error::other("the guest's file cannot be read"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_and_foreign_names_go_into_the_extended_header() {
        let mut field = [0; 4];
        let mut extensions = Vec::new();
        fill(&mut field, b"abcd", "path", &mut extensions);
        assert!(extensions.is_empty() && &field == b"abcd");
        fill(&mut field, b"abcde", "path", &mut extensions);
        fill(&mut field, &[0xff], "path", &mut extensions);
        assert_eq!(extensions.len(), 2);
    }
}
