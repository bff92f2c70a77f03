//! Images on this node: beneath IMAGE_DIR, and nowhere else by a symbolic link or `..`.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::error::SourceError;

fn io_error(name: &str, error: impl Into<io::Error>) -> SourceError {
    SourceError::Io { name: name.to_owned(), offset: None, source: error.into() }
}

fn bad(name: &str, problem: impl Into<String>) -> SourceError {
    SourceError::Bad { name: name.to_owned(), problem: problem.into() }
}

/// Opens `name` beneath `image_dir`. The kernel resolves it and refuses every way out.
///
/// # Errors
///
/// There is no such file, it is no plain file or block device, or its path leads out.
pub fn open_beneath(image_dir: &Path, name: &str) -> Result<File, SourceError> {
    open_below(image_dir, name, "IMAGE_DIR")
}

/// Opens `name` beneath a folder that messages call `what`.
///
/// # Errors
///
/// As [`open_beneath`].
pub fn open_below(image_dir: &Path, name: &str, what: &str) -> Result<File, SourceError> {
    let shown = format!("{name:?} in {}", image_dir.display());
    if name.is_empty() || name.contains('\0') {
        return Err(SourceError::Id {
            id: name.to_owned(),
            problem: "it is not the name of a file".into(),
        });
    }
    let dir = rustix::fs::open(
        image_dir,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(|error| match error {
        Errno::NOENT | Errno::NOTDIR => {
            bad(&shown, format!("does not exist: {what} is not a directory"))
        }
        error => io_error(&shown, error),
    })?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    // Not opened for reading before it is known to be a file: reading from a pipe would wait.
    let found = openat2(&dir, name, OFlags::PATH | OFlags::CLOEXEC, resolve)
        .map_err(|error| explain(&shown, what, error))?;
    let kind = File::from(found).metadata().map_err(|error| io_error(&shown, error))?;
    if !kind.is_file() && !kind.file_type().is_block_device() {
        return Err(bad(&shown, "is not a plain file"));
    }
    let file = openat2(&dir, name, flags, resolve).map_err(|error| explain(&shown, what, error))?;
    checked(File::from(file), &shown)
}

/// Opens `name` beneath `image_dir`, or says that there is no such file.
pub fn open_if_there(image_dir: &Path, name: &str) -> Result<Option<File>, SourceError> {
    let dir = match rustix::fs::open(
        image_dir,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    ) {
        Ok(dir) => dir,
        // The image itself will say it.
        Err(_) => return Ok(None),
    };
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    match openat2(&dir, name, OFlags::PATH | OFlags::CLOEXEC, resolve) {
        Ok(_) => open_beneath(image_dir, name).map(Some),
        Err(_) => Ok(None),
    }
}

fn openat2(
    dir: &OwnedFd,
    name: &str,
    flags: OFlags,
    resolve: ResolveFlags,
) -> Result<OwnedFd, Errno> {
    // EAGAIN: something was renamed during the walk, so that the kernel could not be sure.
    for _ in 0..16 {
        match rustix::fs::openat2(dir, name, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
    Err(Errno::AGAIN)
}

fn explain(shown: &str, what: &str, error: Errno) -> SourceError {
    match error {
        Errno::XDEV => bad(shown, format!("is refused: its path leads out of {what}")),
        Errno::NOENT => bad(shown, "does not exist"),
        Errno::LOOP => bad(shown, "is refused: too many symbolic links"),
        error => io_error(shown, error),
    }
}

/// Opens a file anywhere on the node (`file:///PATH`).
pub fn open_file_url(path: &Path) -> Result<File, SourceError> {
    let shown = format!("{path:?}");
    let kind = std::fs::metadata(path)
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => bad(&shown, "does not exist"),
            _ => io_error(&shown, error),
        })?
        .file_type();
    if !kind.is_file() && !kind.is_block_device() {
        return Err(bad(&shown, "is not a plain file"));
    }
    let file = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or(0))
        .open(path)
        .map_err(|error| io_error(&shown, error))?;
    checked(file, &shown)
}

fn checked(file: File, shown: &str) -> Result<File, SourceError> {
    let kind = file.metadata().map_err(|error| io_error(shown, error))?.file_type();
    if kind.is_file() || kind.is_block_device() {
        Ok(file)
    } else {
        Err(bad(shown, "is not a plain file"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn only_beneath() {
        let top = tempfile::tempdir().unwrap();
        let dir = top.path().join("images");
        std::fs::create_dir_all(dir.join("sub")).unwrap();
        std::fs::create_dir(top.path().join("images-other")).unwrap();
        std::fs::write(dir.join("a"), "a").unwrap();
        std::fs::write(dir.join("sub/b"), "b").unwrap();
        std::fs::write(top.path().join("secret"), "s").unwrap();
        std::fs::write(top.path().join("images-other/c"), "c").unwrap();
        symlink("sub/b", dir.join("inside")).unwrap();
        symlink("../secret", dir.join("out")).unwrap();
        symlink(top.path(), dir.join("outdir")).unwrap();
        symlink("/dev/zero", dir.join("dev")).unwrap();
        symlink("loop", dir.join("loop")).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            dir.join("pipe"),
            rustix::fs::FileType::Fifo,
            Mode::RUSR,
            0,
        )
        .unwrap();
        for good in ["a", "sub/b", "inside", "sub/../a", "./a"] {
            open_beneath(&dir, good).unwrap();
        }
        for (name, why) in [
            ("../secret", "leads out of IMAGE_DIR"),
            ("sub/../../secret", "leads out of IMAGE_DIR"),
            ("../images-other/c", "leads out of IMAGE_DIR"),
            ("out", "leads out of IMAGE_DIR"),
            ("outdir/secret", "leads out of IMAGE_DIR"),
            ("/etc/passwd", "leads out of IMAGE_DIR"),
            ("dev", "leads out of IMAGE_DIR"),
            ("loop", "too many symbolic links"),
            ("sub", "is not a plain file"),
            ("pipe", "is not a plain file"),
            ("nothing", "does not exist"),
            ("", "not the name of a file"),
            ("a\0b", "not the name of a file"),
        ] {
            let error = open_beneath(&dir, name).unwrap_err().to_string();
            assert!(error.contains(why), "{name:?}: {error}");
        }
        let error = open_beneath(&top.path().join("none"), "a").unwrap_err().to_string();
        assert!(error.contains("IMAGE_DIR is not a directory"), "{error}");
    }
}
