//! Root runs and obeys only files that nobody else can change.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

/// Symbolic links that are followed for one path, as many as the kernel follows.
const MAX_LINKS: usize = 40;
/// Names that a path may have, those of its links included.
const MAX_NAMES: usize = 4096;

/// Why a file is not trusted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Distrust {
    /// It belongs to somebody else.
    #[error(
        "others than root may change it: {} belongs to the user {uid}; chown root it",
        path.display()
    )]
    Owner {
        /// The file, or a folder above it.
        path: PathBuf,
        /// Its owner.
        uid: u32,
    },
    /// Its mode lets others write.
    #[error(
        "others than root may change it: {} has the mode {mode:04o}; chmod go-w it",
        path.display()
    )]
    Writable {
        /// The file, or a folder above it.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It cannot be looked at.
    #[error("cannot look at {}", path.display())]
    Io {
        /// The file, or a folder above it.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// Too many symbolic links.
    #[error("{} has too many symbolic links in its path", .0.display())]
    Links(PathBuf),
}

impl Distrust {
    /// Whether there is no such file.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// Checks that a file or folder, every folder above it and every symbolic link on the way belong
/// to root or to the user of this process, and that nobody else may write there. In a folder with
/// the sticky bit (`/tmp`) others may write: they cannot replace what is not theirs.
///
/// # Errors
///
/// The first thing on the way that somebody else could change.
pub fn check(path: &Path) -> Result<(), Distrust> {
    let mut rest: VecDeque<OsString> = names(path);
    let mut here = PathBuf::from("/");
    look(&here, rest.is_empty())?;
    let (mut links, mut walked) = (0, 0);
    while let Some(name) = rest.pop_front() {
        walked += 1;
        if walked > MAX_NAMES {
            return Err(Distrust::Links(path.to_owned()));
        }
        if name == ".." {
            here.pop();
            continue;
        }
        here.push(name);
        if !look(&here, rest.is_empty())? {
            continue;
        }
        links += 1;
        if links > MAX_LINKS {
            return Err(Distrust::Links(path.to_owned()));
        }
        let target =
            fs::read_link(&here).map_err(|source| Distrust::Io { path: here.clone(), source })?;
        here.pop();
        if target.is_absolute() {
            here = PathBuf::from("/");
        }
        for name in names(&target).into_iter().rev() {
            rest.push_front(name);
        }
    }
    Ok(())
}

fn names(path: &Path) -> VecDeque<OsString> {
    let names = path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    });
    names.collect()
}

/// Checks one step; true when it is a symbolic link.
fn look(path: &Path, last: bool) -> Result<bool, Distrust> {
    let found = fs::symlink_metadata(path)
        .map_err(|source| Distrust::Io { path: path.to_owned(), source })?;
    let ours = rustix::process::geteuid().as_raw();
    if found.uid() != 0 && found.uid() != ours {
        return Err(Distrust::Owner { path: path.to_owned(), uid: found.uid() });
    }
    // The mode of a link means nothing.
    if found.is_symlink() {
        return Ok(true);
    }
    let mode = found.mode() & 0o7777;
    let sticky = found.is_dir() && !last && mode & 0o1000 != 0;
    if mode & 0o022 != 0 && !sticky {
        return Err(Distrust::Writable { path: path.to_owned(), mode });
    }
    Ok(false)
}

/// Checks a folder and every file in it. A folder that is not there is trusted.
///
/// # Errors
///
/// As [`check`].
pub fn check_folder(folder: &Path) -> Result<(), Distrust> {
    match check(folder) {
        Err(error) if error.is_missing() => return Ok(()),
        other => other?,
    }
    let io_error = |source| Distrust::Io { path: folder.to_owned(), source };
    for entry in fs::read_dir(folder).map_err(io_error)? {
        match check(&entry.map_err(io_error)?.path()) {
            // Somebody makes the helper anew at this moment.
            Err(error) if error.is_missing() => {}
            other => other?,
        }
    }
    Ok(())
}

/// Checks a program: a path, or a name that is looked for in PATH. One that is not there is
/// trusted; whoever runs it says that it is missing.
///
/// # Errors
///
/// As [`check`].
pub fn check_program(program: &Path) -> Result<(), Distrust> {
    let found = match program.components().count() {
        1 if program.is_relative() => {
            let path = std::env::var_os("PATH").unwrap_or_default();
            std::env::split_paths(&path).map(|dir| dir.join(program)).find(|place| place.is_file())
        }
        _ => Some(program.to_owned()),
    };
    match found.map(|place| check(&place)) {
        Some(Err(error)) if !error.is_missing() => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    #[test]
    fn whoever_else_may_write() {
        let top = tempfile::tempdir().unwrap();
        let mode = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        let dir = top.path().join("dir");
        fs::create_dir(&dir).unwrap();
        let file = dir.join("file");
        fs::write(&file, "x").unwrap();
        mode(&dir, 0o755);
        mode(&file, 0o644);
        check(&file).unwrap();
        check_folder(&dir).unwrap();
        for (place, bits) in [(&file, 0o664), (&file, 0o646), (&dir, 0o775), (&dir, 0o757)] {
            let before = fs::metadata(place).unwrap().mode();
            mode(place, bits);
            let error = check(&file).unwrap_err().to_string();
            assert!(error.contains(&format!("{bits:04o}; chmod go-w")), "{error}");
            assert!(check_folder(&dir).is_err() && check_program(&file).is_err());
            mode(place, before);
        }
        // A sticky folder above is as good as /tmp; as the thing itself it is not.
        mode(&dir, 0o1777);
        check(&file).unwrap();
        assert!(check(&dir).is_err());
        mode(&dir, 0o755);
        let (link, out) = (dir.join("link"), top.path().join("out"));
        symlink("../out", &link).unwrap();
        fs::write(&out, "x").unwrap();
        mode(&out, 0o644);
        check(&link).unwrap();
        mode(&out, 0o666);
        assert!(matches!(check(&link), Err(Distrust::Writable { path, .. }) if path == out));
        symlink("round", dir.join("round")).unwrap();
        assert!(matches!(check(&dir.join("round")), Err(Distrust::Links(_))));
        assert!(check(&dir.join("none")).unwrap_err().is_missing());
        check_program(Path::new("no-such-program")).unwrap();
        if rustix::process::geteuid().is_root() {
            chown(&dir, Some(65534), None).unwrap();
            let error = check(&file).unwrap_err().to_string();
            assert!(error.contains("belongs to the user 65534; chown root"), "{error}");
        }
    }
}
