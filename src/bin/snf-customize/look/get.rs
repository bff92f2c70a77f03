//! `snf-customize get`.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{
    DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt, chown, lchown, symlink,
};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{CWD, FileType as NodeType, Mode, XattrFlags, lsetxattr, makedev, mknodat};
use snf_fs::error::display_name;
use snf_fs::tree::{DEPTH_MAX, Handle};
use snf_fs::{FileType, NodeId, Stat, Timestamp};

use super::Trouble;
use super::args::Get;
use super::opened::{Opened, bytes};
use crate::exit::{Exit, Failure};
use crate::output::{self, count};

/// Runs of zeros of at least this many bytes become holes.
const HOLE: usize = 4096;

/// Copies out.
pub(super) fn run(args: &Get) -> Result<Exit, Failure> {
    let inside = args.target.is_dir();
    if !inside && args.paths.len() > 1 {
        return Err(Failure::input(format!(
            "{} is no directory; several files need one to go to",
            args.target.display()
        )));
    }
    let opened = Opened::new(&args.source)?;
    let mut copier = Copier { args, opened: &opened, skipped: 0, links: HashMap::new() };
    let result = args.paths.iter().try_for_each(|path| {
        let path = bytes(path);
        let handle = opened.tree().handle(path, true)?;
        let target = match inside {
            false => args.target.clone(),
            // Named as the request names it; the root of the guest has no name.
            true => match path.split(|byte| *byte == b'/').rfind(|name| !name.is_empty()) {
                Some(name) if name != b"." && name != b".." => {
                    args.target.join(std::ffi::OsStr::from_bytes(name))
                }
                _ => args.target.clone(),
            },
        };
        copier.copy(handle, path, &target, 0)
    });
    let skipped = copier.skipped;
    opened.end(result)?;
    if skipped > 0 {
        let text = format!(
            "{} not copied; --all makes device nodes and the like, as root",
            count(skipped, "special file")
        );
        return Err(Failure::new(Exit::Failed, text));
    }
    Ok(Exit::Done)
}

struct Copier<'a> {
    args: &'a Get,
    opened: &'a Opened,
    skipped: usize,
    /// The first copy of each file that has several names, by file system and node.
    links: HashMap<(usize, NodeId), PathBuf>,
}

impl Copier<'_> {
    fn copy(
        &mut self,
        handle: Handle,
        path: &[u8],
        to: &Path,
        depth: usize,
    ) -> Result<(), Trouble> {
        let tree = self.opened.tree();
        let stat = tree.stat_handle(handle)?;
        let several = stat.links > 1 && stat.file_type != FileType::Directory;
        let node = (tree.file_system_of(handle), stat.node);
        if let Some(first) = self.links.get(&node).filter(|_| several) {
            self.remove_old(to)?;
            return fs::hard_link(first, to).map_err(|error| Trouble::local(to, &error));
        }
        match stat.file_type {
            FileType::Directory => return self.directory(handle, &stat, path, to, depth),
            FileType::Regular => self.file(handle, to)?,
            FileType::Symlink => {
                let target = tree.read_link_handle(handle)?;
                self.remove_old(to)?;
                symlink(std::ffi::OsStr::from_bytes(&target), to)
                    .map_err(|error| Trouble::local(to, &error))?;
            }
            FileType::Socket => {
                output::warning_line(&format!("{}: a socket is not copied", display_name(path)));
                return Ok(());
            }
            FileType::CharDevice | FileType::BlockDevice | FileType::Fifo if self.args.all => {
                self.remove_old(to)?;
                self.special(&stat, to)?;
            }
            _ => {
                let kind = super::names::kind(stat.file_type);
                output::warning_line(&format!("{}: a {kind} is not copied", display_name(path)));
                self.skipped += 1;
                return Ok(());
            }
        }
        if several {
            self.links.insert(node, to.to_owned());
        }
        self.finish(handle, &stat, to)
    }

    fn directory(
        &mut self,
        handle: Handle,
        stat: &Stat,
        path: &[u8],
        to: &Path,
        depth: usize,
    ) -> Result<(), Trouble> {
        if depth > DEPTH_MAX {
            let text = format!("{}: directories lie too deep in each other", display_name(path));
            return Err(Failure::new(Exit::Corrupt, text).into());
        }
        // Until it is full, only we may look into it and write to it.
        match fs::DirBuilder::new().mode(0o700).create(to) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                // A link there would lead the copy elsewhere; the target that was named may be one.
                let there = if depth == 0 { fs::metadata(to) } else { fs::symlink_metadata(to) };
                if !there.is_ok_and(|metadata| metadata.is_dir()) {
                    return Err(Trouble::local(to, &error));
                }
            }
            Err(error) => return Err(Trouble::local(to, &error)),
        }
        for child in self.opened.tree().children(handle)? {
            let path = [path.strip_suffix(b"/").unwrap_or(path), b"/", &child.name].concat();
            if let Some(reason) = child.blocked {
                output::warning_line(&format!("{}: {reason}", display_name(&path)));
                continue;
            }
            if child.name.contains(&b'/') || matches!(child.name.as_slice(), b"" | b"." | b"..") {
                let text = format!("{}: no file can have such a name", display_name(&path));
                return Err(Failure::new(Exit::Corrupt, text).into());
            }
            let to = to.join(std::ffi::OsStr::from_bytes(&child.name));
            self.copy(child.handle, &path, &to, depth + 1)?;
        }
        // The directory that was named as the target stays as it is.
        if depth == 0 && to == self.args.target {
            return Ok(());
        }
        self.finish(handle, stat, to)
    }

    /// Makes room for something new, where that is asked for.
    fn remove_old(&self, to: &Path) -> Result<(), Trouble> {
        if !self.args.overwrite {
            return Ok(());
        }
        match fs::remove_file(to) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Trouble::local(to, &error))
            }
            _ => Ok(()),
        }
    }

    fn file(&self, handle: Handle, to: &Path) -> Result<(), Trouble> {
        self.remove_old(to)?;
        let new = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to);
        let file = new.map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => {
                let text = format!("{} exists already; --overwrite replaces it", to.display());
                Trouble::Ended(Failure::input(text))
            }
            _ => Trouble::local(to, &error),
        })?;
        let mut writer = Sparse { file, offset: 0 };
        let result = self
            .opened
            .tree()
            .stream(handle, |piece| writer.write(piece).map_err(|error| Trouble::local(to, &error)))
            .and_then(|()| writer.finish().map_err(|error| Trouble::local(to, &error)));
        if result.is_err() {
            // Half a file is worse than none.
            let _ = fs::remove_file(to);
        }
        result
    }

    fn special(&self, stat: &Stat, to: &Path) -> Result<(), Trouble> {
        let kind = match stat.file_type {
            FileType::CharDevice => NodeType::CharacterDevice,
            FileType::BlockDevice => NodeType::BlockDevice,
            _ => NodeType::Fifo,
        };
        let (major, minor) = stat.device.unwrap_or_default();
        mknodat(CWD, to, kind, Mode::from_raw_mode(0o600), makedev(major, minor))
            .map_err(|errno| Trouble::local(to, &errno.into()))
    }

    /// Owner, mode, attributes and times, in the order in which none undoes another.
    fn finish(&self, handle: Handle, stat: &Stat, to: &Path) -> Result<(), Trouble> {
        let fail = |error: io::Error| Trouble::local(to, &error);
        let link = stat.file_type == FileType::Symlink;
        if self.args.all {
            let (uid, gid) = (Some(stat.uid), Some(stat.gid));
            if link { lchown(to, uid, gid) } else { chown(to, uid, gid) }.map_err(fail)?;
            for (name, value) in self.opened.tree().xattrs_handle(handle)? {
                lsetxattr(to, name.as_slice(), &value, XattrFlags::empty()).map_err(|errno| {
                    let text = format!(
                        "cannot set the attribute {} of {}: {}",
                        display_name(&name),
                        to.display(),
                        io::Error::from(errno)
                    );
                    Trouble::Ended(Failure::new(Exit::Failed, text))
                })?;
            }
        }
        if link {
            return Ok(());
        }
        let bits = if self.args.all { 0o7777 } else { 0o777 };
        let mode = fs::Permissions::from_mode(u32::from(stat.mode & bits));
        if let (FileType::Regular, Some(time)) = (stat.file_type, system_time(stat.mtime)) {
            let file = File::open(to).map_err(fail)?;
            file.set_times(fs::FileTimes::new().set_modified(time)).map_err(fail)?;
        }
        fs::set_permissions(to, mode).map_err(fail)?;
        Ok(())
    }
}

fn system_time(time: Timestamp) -> Option<SystemTime> {
    let seconds = Duration::from_secs(time.seconds.unsigned_abs());
    let whole = if time.seconds < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(seconds)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(seconds)
    };
    whole?.checked_add(Duration::from_nanos(time.nanoseconds.into()))
}

/// A file in which long runs of zeros are holes.
struct Sparse {
    file: File,
    offset: u64,
}

impl Sparse {
    fn write(&mut self, piece: &[u8]) -> io::Result<()> {
        for part in piece.chunks(HOLE) {
            if part.len() < HOLE || part.iter().any(|byte| *byte != 0) {
                self.file.write_all_at(part, self.offset)?;
            }
            self.offset += part.len() as u64; // A count of bytes in a buffer fits.
        }
        Ok(())
    }

    fn finish(mut self) -> io::Result<()> {
        self.file.set_len(self.offset)?;
        self.file.seek(SeekFrom::Start(self.offset))?;
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_become_holes_and_the_length_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let mut content = vec![0; 1 << 20];
        content[500_000] = 1;
        content.extend([7; 100]);
        content.extend([0; 9000]);
        let mut sparse = Sparse { file: File::create(&path).unwrap(), offset: 0 };
        content.chunks(300_000).for_each(|piece| sparse.write(piece).unwrap());
        sparse.finish().unwrap();
        assert!(fs::read(&path).unwrap() == content);
    }

    #[test]
    fn times_before_1970_are_times() {
        let time = system_time(Timestamp { seconds: -2, nanoseconds: 500_000_000 }).unwrap();
        let before = SystemTime::UNIX_EPOCH.duration_since(time).unwrap();
        assert_eq!(before, Duration::from_millis(1500));
    }
}
